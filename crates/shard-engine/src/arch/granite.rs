//! Granite 3 and its kind with experts: numbers on their way are multiplied by what the file says.

use super::architecture::{Architecture, Experts, Multipliers, PLAIN, RopeStyle, ScoreScale, Shared};

pub(super) static GRANITE: Architecture = Architecture {
    name: "granite",
    rope: RopeStyle::Adjacent,
    score_scale: ScoreScale::Written,
    multipliers: Multipliers::Written,
    ..PLAIN
};

pub(super) static GRANITE_MOE: Architecture = Architecture {
    name: "granitemoe",
    rope: RopeStyle::Adjacent,
    score_scale: ScoreScale::Written,
    multipliers: Multipliers::Written,
    experts: Experts::Softmax { to_one: true, shared: Shared::Whole },
    ..PLAIN
};
