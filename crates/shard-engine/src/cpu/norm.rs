//! Normalisation of rows.

use crate::{EngineError, arch, hyper::HyperParameters, source::TensorSource};

/// One norm's weights.
#[derive(Debug)]
pub(crate) struct Norm {
    kind: arch::Norm,
    weights: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    /// Of rows of `size` numbers.
    pub(crate) fn load(
        source: &mut TensorSource,
        name: &str,
        size: usize,
        hyper: &HyperParameters,
    ) -> Result<Self, EngineError> {
        Ok(Self::new(hyper.arch.norm, source.vector(name, size)?, hyper.norm_epsilon))
    }

    pub(crate) fn new(kind: arch::Norm, weights: Vec<f32>, epsilon: f32) -> Self {
        Self { kind, weights, epsilon }
    }

    /// One that not every model has.
    pub(crate) fn opt_load(
        source: &mut TensorSource,
        name: &str,
        size: usize,
        hyper: &HyperParameters,
    ) -> Result<Option<Self>, EngineError> {
        if source.has(name) { Self::load(source, name, size, hyper).map(Some) } else { Ok(None) }
    }

    /// Numbers in a row.
    pub(crate) fn size(&self) -> usize {
        self.weights.len()
    }

    pub(crate) fn byte_count(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }

    /// `x` is any number of rows.
    pub(crate) fn apply(&self, x: &[f32]) -> Vec<f32> {
        match self.kind {
            arch::Norm::RootMeanSquare => root_mean_square(x, &self.weights, self.epsilon),
        }
    }
}

/// Root-mean-square normalisation (Zhang and Sennrich, 2019) of rows as long as `weights`. A row whose squares overflow
/// comes out as NaN: it would be all zeros otherwise, which nobody could tell from an answer.
pub(crate) fn root_mean_square(x: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weights.len()) {
        let squares: f32 = row.iter().map(|v| v * v).sum();
        let root = (squares / row.len() as f32 + epsilon).sqrt();
        let scale = if root.is_finite() { 1.0 / root } else { f32::NAN };
        out.extend(row.iter().zip(weights).map(|(v, w)| v * scale * w));
    }
    out
}
