//! What layers work on in one pass of a batch.

use super::{cache::SlotCache, place::Place, rope::Rotations, sight::Tile};
use crate::{hyper::HyperParameters, kernels::page::Layout};

/// Rows of one slot, and the caches that they go on.
pub(crate) struct SlotRows<'a> {
    /// The number of the first in the pass.
    pub first: usize,
    pub count: usize,
    /// Position of the first.
    pub position: usize,
    /// The same rows, as attention takes them.
    pub tiles: Vec<Tile>,
    pub cache: &'a mut SlotCache,
}

/// What all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub hyper: &'a HyperParameters,
    pub place: &'a Place,
    /// Of caches.
    pub layout: Layout,
    pub rotations: Rotations,
}
