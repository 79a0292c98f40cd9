//! How positions beyond those that a model was first trained for are turned.

use gguf::{GgufError, Header};

use super::checks::unsupported;
use crate::arch::Architecture;

/// What is done to the angles of a rotation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum RopeScaling {
    /// Positions are divided by this; by 1 without any scaling.
    Linear(f32),
    Yarn(Yarn),
    /// Each angle is divided by a factor of its own, from the model's tensors.
    Long(Long),
}

/// Fast angles stay, slow ones are divided (Peng et al., "YaRN", 2023).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Yarn {
    /// What slow angles are divided by.
    pub factor: f32,
    /// Positions that the model was first trained for.
    pub original: u32,
    /// Turns in so many positions of which an angle is fast, and of which it is slow.
    pub fast: f32,
    pub slow: f32,
    /// Sines and cosines are multiplied by this, beside what the factor tells.
    pub magnitude: f32,
    /// Angles between fast and slow ones begin and end at whole pairs.
    pub rounds: bool,
}

/// Factors by frequency (Ding et al., "LongRoPE", 2024).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Long {
    /// Positions that the model was first trained for: those that can have longer sessions turn by the other factors.
    pub original: u32,
    /// Sines and cosines are multiplied by this.
    pub magnitude: f32,
}

/// The tensors with the factors of models with short and with long sessions.
pub(crate) const FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

impl RopeScaling {
    /// As llama.cpp reads it: scaling is linear unless another kind is named, or the factors' tensors are there; and a
    /// factor of 0 is none.
    pub(super) fn read(header: &Header, arch: &Architecture, context: u32) -> Result<Self, GgufError> {
        let key = |name: &str| format!("{}.rope.{name}", arch.name);
        let number = |name: &str| header.opt_f32(&key(name));
        let kind = header.opt_str(&key("scaling.type"))?.unwrap_or("linear");
        let factor = match number("scaling.factor")? {
            Some(factor) => Some(factor),
            None => number("scale_linear")?,
        };
        let factor = factor.unwrap_or(0.0);
        let original = header.opt_u32(&key("scaling.original_context_length"))?.filter(|n| *n > 0);
        let original = original.unwrap_or(context);
        let magnitude = number("scaling.attn_factor")?.unwrap_or(1.0);
        if FACTORS.iter().any(|name| header.tensors.contains_key(*name)) && kind != "none" {
            return Ok(Self::Long(Long { original, magnitude }));
        }
        match kind {
            "none" => Ok(Self::Linear(1.0)),
            "linear" if factor == 0.0 => Ok(Self::Linear(1.0)),
            "linear" if factor > 0.0 => Ok(Self::Linear(factor)),
            "yarn" if factor == 0.0 || factor >= 1.0 => Ok(Self::Yarn(Yarn {
                factor: factor.max(1.0),
                original,
                fast: number("scaling.yarn_beta_fast")?.filter(|n| *n > 0.0).unwrap_or(32.0),
                slow: number("scaling.yarn_beta_slow")?.filter(|n| *n > 0.0).unwrap_or(1.0),
                magnitude,
                rounds: arch.yarn_rounds,
            })),
            kind => {
                let supported = "none, linear, yarn, and longrope with its factors";
                let what = format!("rope scaling {kind} with factor {factor} (supported: {supported})");
                Err(unsupported(what))
            }
        }
    }
}
