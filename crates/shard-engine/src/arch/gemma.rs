//! Gemma 1, 2 and 3: scaled embeddings and gates by GELU; since 2 norms around each half, and windows in some layers.

use super::architecture::{Activation, Architecture, Multipliers, Norms, PLAIN, ScoreScale, Turn, Window};

pub(super) static GEMMA: Architecture = Architecture { name: "gemma", ..GEMMA_LIKE };

/// Every second layer looks at all positions. The model of 46 layers, 27B, has a scale of its own.
pub(super) static GEMMA2: Architecture = Architecture {
    name: "gemma2",
    norms: Norms::Around,
    score_scale: ScoreScale::RootOfShare(46),
    window: |layer| if layer % 2 == 0 { Window::Sliding } else { Window::Whole },
    softcaps: true,
    ..GEMMA_LIKE
};

/// Every sixth layer looks at all positions, and turns by other angles. The model of 62 layers is 27B.
pub(super) static GEMMA3: Architecture = Architecture {
    name: "gemma3",
    norms: Norms::Around,
    score_scale: ScoreScale::RootOfShare(62),
    window: |layer| if looks_at_all(layer) { Window::Whole } else { Window::Sliding },
    turn: |layer| if looks_at_all(layer) { Turn::Global } else { Turn::Local },
    softcaps: true,
    required: &["attn_q_norm.weight", "attn_k_norm.weight"],
    ..GEMMA_LIKE
};

const GEMMA_LIKE: Architecture =
    Architecture { activation: Activation::Gelu, multipliers: Multipliers::RootOfHidden, ..PLAIN };

fn looks_at_all(layer: u32) -> bool {
    layer % 6 == 5
}
