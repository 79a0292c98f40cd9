//! How weights of every format lie in memory: in panels, for each input all weights of a panel's outputs side by side.

/// Outputs in a panel: two AVX2 registers of f32.
pub(crate) const PANEL: usize = 16;
