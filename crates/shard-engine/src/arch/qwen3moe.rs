//! Qwen 3 with experts.

use super::{
    architecture::{Architecture, Experts, PLAIN, Shared},
    qwen3::QWEN3,
};

pub(super) static QWEN3_MOE: Architecture = Architecture {
    name: "qwen3moe",
    experts: Experts::Softmax { to_one: true, shared: Shared::None },
    required: QWEN3.required,
    ..PLAIN
};
