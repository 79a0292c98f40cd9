//! Qwen 2 and 2.5: queries, keys and values have a bias.

use super::architecture::{
    Activation, Architecture, FeedForward, Norm, Projections, RopeStyle, ScoreScale, Window,
};

pub(super) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    norm: Norm::RootMeanSquare,
    projections: Projections::Separate,
    rope: RopeStyle::Halves,
    score_scale: ScoreScale::RootOfHead,
    window: |_| Window::Whole,
    feed_forward: FeedForward::Dense,
    activation: Activation::Silu,
    required: &["attn_q.bias", "attn_k.bias", "attn_v.bias"],
};
