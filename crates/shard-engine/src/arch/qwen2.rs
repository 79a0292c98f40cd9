//! Qwen 2 and 2.5: queries, keys and values have a bias.

use super::architecture::{Architecture, PLAIN};

pub(super) static QWEN2: Architecture =
    Architecture { name: "qwen2", required: &["attn_q.bias", "attn_k.bias", "attn_v.bias"], ..PLAIN };
