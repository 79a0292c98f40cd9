//! Layers on the host: activations and caches are f32 in memory, products are ours or candle's.

pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod feed_forward;
pub(crate) mod foreign;
pub(crate) mod head;
pub(crate) mod kv;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pass;
pub(crate) mod rope;
