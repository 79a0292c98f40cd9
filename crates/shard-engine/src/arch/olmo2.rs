//! OLMo 2: norms behind each half, and one over all heads of queries and of keys.

use super::architecture::{Architecture, Norms, PLAIN, QueryNorm};

pub(super) static OLMO2: Architecture = Architecture {
    name: "olmo2",
    norms: Norms::Behind,
    query_norm: QueryNorm::Row,
    required: &["attn_q_norm.weight", "attn_k_norm.weight"],
    ..PLAIN
};
