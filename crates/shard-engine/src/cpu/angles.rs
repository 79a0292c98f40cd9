//! How fast each pair of a head turns, as far as the file tells.

use std::f64::consts::TAU;

use crate::{
    EngineError,
    hyper::{FACTORS, HyperParameters, Long, RopeScaling, Yarn},
    kernels::math::double,
    source::TensorSource,
};

/// What a rotation is made of.
#[derive(Debug)]
pub(crate) struct Angles {
    /// Angles a position of each pair, in radians.
    pub frequencies: Vec<f64>,
    /// What sines and cosines are multiplied by.
    pub magnitude: f64,
}

impl Angles {
    /// Pair i turns by `base^(-2i / dimensions)` a position.
    pub(crate) fn plain(hyper: &HyperParameters, base: f32) -> Self {
        let dimensions = hyper.rope_dimensions;
        let frequency = |pair: usize| {
            let exponent = -2.0 * pair as f64 / dimensions as f64;
            double::power(f64::from(base), exponent)
        };
        Self { frequencies: (0..dimensions / 2).map(frequency).collect(), magnitude: 1.0 }
    }

    /// With the scaling that the file names, and the factors of its tensors.
    pub(crate) fn load(source: &mut TensorSource, hyper: &HyperParameters) -> Result<Self, EngineError> {
        let factors = match hyper.rope_scaling {
            RopeScaling::Linear(_) => factors(source, "rope_freqs.weight", hyper)?,
            RopeScaling::Yarn(_) => vec![],
            RopeScaling::Long(Long { original, .. }) => {
                // One set for all sessions of the model, so that a row's result does not depend on the others.
                let [short, long] = FACTORS;
                factors(source, if hyper.context > original { long } else { short }, hyper)?
            }
        };
        Ok(Self::scaled(hyper, &factors))
    }

    /// With the scaling that the file names, and what its tensors say that each pair's angle is divided by.
    pub(crate) fn scaled(hyper: &HyperParameters, factors: &[f32]) -> Self {
        let Self { frequencies, magnitude } = Self::plain(hyper, hyper.rope_base);
        let (factor, magnitude) = match hyper.rope_scaling {
            RopeScaling::Linear(factor) => (factor, magnitude),
            RopeScaling::Long(Long { magnitude, .. }) => (1.0, f64::from(magnitude)),
            RopeScaling::Yarn(yarn) => return Self { frequencies, magnitude }.by_parts(yarn, hyper),
        };
        let divided = |(frequency, of): (f64, &f32)| frequency / (f64::from(*of) * f64::from(factor));
        Self { frequencies: frequencies.into_iter().zip(factors).map(divided).collect(), magnitude }
    }

    /// Whether sines and cosines of a session's last position can be told.
    pub(crate) fn can_be_told(&self, hyper: &HyperParameters) -> bool {
        let longest = f64::from(hyper.context);
        self.frequencies.iter().all(|frequency| frequency * longest <= double::LARGEST_ANGLE)
    }

    /// By section 3.2 of the paper on YaRN (Peng et al., 2023), and larger by section 3.4.
    fn by_parts(mut self, yarn: Yarn, hyper: &HyperParameters) -> Self {
        let (dimensions, base) = (hyper.rope_dimensions as f64, f64::from(hyper.rope_base));
        // The pair that turns so many times in the positions that the model was first trained for.
        let pair = |turns: f32| {
            let turn = f64::from(yarn.original) / (f64::from(turns) * TAU);
            dimensions * double::ln(turn) / (2.0 * double::ln(base))
        };
        let (low, high) = (pair(yarn.fast), pair(yarn.slow));
        let (low, high) = if yarn.rounds { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dimensions - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        let factor = f64::from(yarn.factor);
        for (pair, frequency) in self.frequencies.iter_mut().enumerate() {
            let slow = ((pair as f64 - low) / width).clamp(0.0, 1.0);
            *frequency = *frequency * (1.0 - slow) + *frequency / factor * slow;
        }
        self.magnitude = f64::from(yarn.magnitude) * (1.0 + 0.1 * double::ln(factor));
        self
    }
}

/// What each pair's angle is divided by; 1 where the file has no such tensor.
fn factors(source: &mut TensorSource, name: &str, hyper: &HyperParameters) -> Result<Vec<f32>, EngineError> {
    let pairs = hyper.rope_dimensions / 2;
    let factors = source.opt_vector(name, pairs)?.unwrap_or_else(|| vec![1.0; pairs]);
    match factors.iter().all(|factor| factor.is_finite() && *factor > 0.0) {
        true => Ok(factors),
        false => Err(source.failed(format!("tensor {name} has factors that are not positive"))),
    }
}
