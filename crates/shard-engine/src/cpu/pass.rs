//! What layers work on in one pass of a batch.

use super::{
    kv::SlotCache,
    linear::Arithmetic,
    rope::{Ropes, Rotations},
};
use crate::{hyper::HyperParameters, kernels::page::Layout};

/// Rows of one slot, and the caches that they go on.
pub(crate) struct SlotRows<'a> {
    pub count: usize,
    /// Position of the first.
    pub position: usize,
    pub cache: &'a mut SlotCache,
}

/// What all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub hyper: &'a HyperParameters,
    pub arithmetic: &'a Arithmetic,
    /// Of caches.
    pub layout: Layout,
    pub ropes: &'a Ropes,
    pub rotations: &'a Rotations,
}
