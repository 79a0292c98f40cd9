//! What layers work on in one pass of a batch.

use super::{
    kv::LayerCache,
    linear::Arithmetic,
    rope::{Rope, Rotation},
};
use crate::hyper::HyperParameters;

/// Rows of one session in a batch, and the cache that they go on.
pub(crate) struct Rows<'a> {
    pub count: usize,
    pub cache: &'a mut LayerCache,
    /// Most numbers that the cache may hold.
    pub limit: usize,
}

/// What all layers of a pass share.
pub(crate) struct Pass<'a> {
    pub hyper: &'a HyperParameters,
    pub arithmetic: &'a Arithmetic,
    pub rope: &'a Rope,
    pub rotation: &'a Rotation,
}
