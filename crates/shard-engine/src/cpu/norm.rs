//! Normalisation of rows.

use crate::{
    EngineError, arch,
    hyper::HyperParameters,
    kernels::{buffer::Buffer, isa::Isa, rows, threads::Threads},
    source::TensorSource,
};

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
    pub(crate) fn apply(&self, x: &[f32], isa: Isa, threads: &Threads) -> Buffer<f32> {
        match self.kind {
            arch::Norm::RootMeanSquare => {
                rows::root_mean_square(x, &self.weights, self.epsilon, isa, threads)
            }
        }
    }
}
