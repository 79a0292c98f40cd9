//! SmolLM 3: every fourth layer does not see positions.

use super::architecture::{Architecture, PLAIN, RopeStyle, Turn};

pub(super) static SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    rope: RopeStyle::Adjacent,
    turn: |layer| if layer % 4 == 3 { Turn::None } else { Turn::Global },
    ..PLAIN
};
