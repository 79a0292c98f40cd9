//! Qwen 3: each head's queries and keys are normalised.

use super::architecture::{
    Activation, Architecture, FeedForward, Norm, Projections, RopeStyle, ScoreScale, Window,
};

pub(super) static QWEN3: Architecture = Architecture {
    name: "qwen3",
    norm: Norm::RootMeanSquare,
    projections: Projections::Separate,
    rope: RopeStyle::Halves,
    score_scale: ScoreScale::RootOfHead,
    window: |_| Window::Whole,
    feed_forward: FeedForward::Dense,
    activation: Activation::Silu,
    required: &["attn_q_norm.weight", "attn_k_norm.weight"],
};
