//! What layers work on in one pass of a batch.

use super::{
    kv::LayerCache,
    linear::Arithmetic,
    rope::{Rope, Rotation},
};
use crate::{hyper::HyperParameters, kernels::page::Layout};

/// Rows of one slot in a layer, and the cache that they go on.
pub(crate) struct LayerRows<'a> {
    pub count: usize,
    pub cache: &'a mut LayerCache,
}

/// What all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub hyper: &'a HyperParameters,
    pub arithmetic: &'a Arithmetic,
    /// Of caches.
    pub layout: Layout,
    pub rope: &'a Rope,
    pub rotation: &'a Rotation,
}
