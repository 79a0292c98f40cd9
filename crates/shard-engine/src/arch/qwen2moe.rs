//! Qwen 2 with experts: one more that all rows have, and weights that need not sum to 1.

use super::{
    architecture::{Architecture, Experts, PLAIN, Shared},
    qwen2::QWEN2,
};

pub(super) static QWEN2_MOE: Architecture = Architecture {
    name: "qwen2moe",
    experts: Experts::Softmax { to_one: false, shared: Shared::Gated },
    required: QWEN2.required,
    ..PLAIN
};
