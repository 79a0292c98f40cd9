//! Llama 2 and 3, Mistral, SmolLM.

use super::architecture::{
    Activation, Architecture, FeedForward, Norm, Projections, RopeStyle, ScoreScale, Window,
};

pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    norm: Norm::RootMeanSquare,
    projections: Projections::Separate,
    rope: RopeStyle::Adjacent,
    score_scale: ScoreScale::RootOfHead,
    window: |_| Window::Whole,
    feed_forward: FeedForward::Dense,
    activation: Activation::Silu,
    required: &[],
};
