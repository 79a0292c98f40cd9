//! Phi 3, 3.5 and 4: queries, keys and values in one tensor, and gates with what they let through.

use super::architecture::{Architecture, FeedForward, PLAIN, Projections, Window};

pub(super) static PHI3: Architecture = Architecture {
    name: "phi3",
    projections: Projections::Fused,
    window: |_| Window::SlidingIfWritten,
    feed_forward: FeedForward::Fused,
    ..PLAIN
};
