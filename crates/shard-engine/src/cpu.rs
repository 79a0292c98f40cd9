//! Layers on the host: activations and caches are f32 in memory, products are ours or candle's.

pub(crate) mod block;
pub(crate) mod head;
pub(crate) mod kv;
pub(crate) mod linear;
pub(crate) mod rope;
