//! Qwen 3: each head's queries and keys are normalised.

use super::architecture::{Architecture, PLAIN};

pub(super) static QWEN3: Architecture =
    Architecture { name: "qwen3", required: &["attn_q_norm.weight", "attn_k_norm.weight"], ..PLAIN };
