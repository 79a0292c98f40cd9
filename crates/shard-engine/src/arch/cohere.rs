//! Command R, R+ and those after them: both halves of a layer side by side behind one norm.

use super::architecture::{
    Architecture, Halves, Multipliers, Norm, PLAIN, QueryNorm, RopeStyle, Turn, Window,
};

/// Queries and keys have norms in R+ alone.
pub(super) static COMMAND_R: Architecture =
    Architecture { name: "command-r", query_norm: QueryNorm::OwnHead, ..COHERE_LIKE };

/// Every fourth layer looks at all positions, and does not see which they are.
pub(super) static COHERE2: Architecture = Architecture {
    name: "cohere2",
    turn: |layer| if looks_at_all(layer) { Turn::None } else { Turn::Global },
    window: |layer| if looks_at_all(layer) { Window::Whole } else { Window::Sliding },
    ..COHERE_LIKE
};

const COHERE_LIKE: Architecture = Architecture {
    norm: Norm::Layer,
    second_norm: "attn_norm.weight",
    halves: Halves::SideBySide,
    rope: RopeStyle::Adjacent,
    multipliers: Multipliers::Logits,
    ..PLAIN
};

fn looks_at_all(layer: u32) -> bool {
    layer % 4 == 3
}
