//! Normalisation of rows.

use std::ops::Deref;

use super::linear::Arithmetic;
use crate::{
    EngineError, arch,
    hyper::HyperParameters,
    kernels::{buffer::Buffer, isa::Isa, rows, threads::Threads},
    source::TensorSource,
};

/// Those of one half of a layer.
#[derive(Debug)]
pub(crate) struct Norms {
    before: Option<Norm>,
    behind: Option<Norm>,
}

/// Rows that are normalised, or that stay as they are.
pub(crate) enum Rows<'a> {
    Normed(Buffer<f32>),
    Same(&'a [f32]),
}

impl Deref for Rows<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Normed(rows) => rows,
            Self::Same(rows) => rows,
        }
    }
}

impl Norms {
    /// Those that the architecture has, of the tensors for before and behind a half.
    pub(crate) fn load(
        source: &mut TensorSource,
        [before, behind]: [&str; 2],
        hyper: &HyperParameters,
    ) -> Result<Self, EngineError> {
        let mut load = |name: &str, there: bool| match there {
            true => Norm::load(source, name, hyper.hidden, hyper).map(Some),
            false => Ok(None),
        };
        let places = hyper.arch.norms;
        Ok(Self {
            before: load(before, places != arch::Norms::Behind)?,
            behind: load(behind, places != arch::Norms::Before)?,
        })
    }

    pub(crate) fn byte_count(&self) -> usize {
        [&self.before, &self.behind].into_iter().flatten().map(Norm::byte_count).sum()
    }

    /// What goes into the half; `x` is `[rows][hidden]`.
    pub(crate) fn before<'a>(&self, x: &'a [f32], arithmetic: &Arithmetic) -> Rows<'a> {
        match &self.before {
            Some(norm) => Rows::Normed(norm.apply(x, arithmetic.isa, &arithmetic.threads)),
            None => Rows::Same(x),
        }
    }

    /// What comes out of the half.
    pub(crate) fn behind(&self, y: Buffer<f32>, arithmetic: &Arithmetic) -> Buffer<f32> {
        match &self.behind {
            Some(norm) => norm.apply(&y, arithmetic.isa, &arithmetic.threads),
            None => y,
        }
    }
}

/// One norm's weights.
#[derive(Debug)]
pub(crate) struct Norm {
    kind: arch::Norm,
    /// Of one row, or of some that come again and again.
    weights: Vec<f32>,
    /// Numbers in a row.
    size: usize,
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
        Self::load_shaped(source, name, &[size], hyper)
    }

    /// Of rows as long as the weights.
    pub(crate) fn new(kind: arch::Norm, weights: Vec<f32>, epsilon: f32) -> Self {
        Self { kind, size: weights.len(), weights, epsilon }
    }

    /// `shape` is the numbers in a row, and where each of some rows has weights of its own, how many these are.
    fn load_shaped(
        source: &mut TensorSource,
        name: &str,
        shape: &[usize],
        hyper: &HyperParameters,
    ) -> Result<Self, EngineError> {
        let weights = source.vectors(name, shape)?;
        Ok(Self { kind: hyper.arch.norm, weights, size: shape[0], epsilon: hyper.norm_epsilon })
    }

    /// One that not every model has; `shape` is that of the tensor, the numbers in a row first.
    pub(crate) fn opt_load(
        source: &mut TensorSource,
        name: &str,
        shape: &[usize],
        hyper: &HyperParameters,
    ) -> Result<Option<Self>, EngineError> {
        if source.has(name) { Self::load_shaped(source, name, shape, hyper).map(Some) } else { Ok(None) }
    }

    /// Numbers in a row.
    pub(crate) fn size(&self) -> usize {
        self.size
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
            arch::Norm::Layer => {
                let Self { weights, size, epsilon, .. } = self;
                let norm = rows::LayerNorm { weights, size: *size, epsilon: *epsilon };
                rows::layer_norm(x, norm, isa, threads)
            }
        }
    }
}
