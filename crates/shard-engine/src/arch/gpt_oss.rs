//! gpt-oss: sinks beside positions, windows in every second layer, and experts whose gates do not grow beyond a bound.

use super::architecture::{Activation, Architecture, Experts, PLAIN, Shared, Window};

pub(super) static GPT_OSS: Architecture = Architecture {
    name: "gpt-oss",
    second_norm: "post_attention_norm.weight",
    yarn_rounds: false,
    sinks: true,
    window: |layer| if layer % 2 == 0 { Window::Sliding } else { Window::Whole },
    experts: Experts::Softmax { to_one: true, shared: Shared::None },
    activation: Activation::Clamped,
    required: &[
        "attn_q.bias",
        "attn_k.bias",
        "attn_v.bias",
        "attn_output.bias",
        "ffn_gate_inp.bias",
        "ffn_gate_exps.bias",
        "ffn_up_exps.bias",
        "ffn_down_exps.bias",
    ],
    ..PLAIN
};
