//! GLM 4 of 2025 (GLM-4-0414): norms around each half, half of each head turned, gates with what they let through.

use super::architecture::{Architecture, FeedForward, Norms, PLAIN, RopeStyle};

pub(super) static GLM4: Architecture = Architecture {
    name: "glm4",
    norms: Norms::Around,
    rope: RopeStyle::Adjacent,
    feed_forward: FeedForward::Fused,
    ..PLAIN
};
