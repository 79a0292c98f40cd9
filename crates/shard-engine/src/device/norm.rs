//! Normalisation of rows on a device.

use candle_core::{Result, Tensor};
use candle_nn::ops::rms_norm;

use super::place::Place;
use crate::{EngineError, arch, hyper::HyperParameters, source::TensorSource};

/// Those of one half of a layer.
#[derive(Debug)]
pub(crate) struct Norms {
    before: Option<Norm>,
    behind: Option<Norm>,
}

impl Norms {
    /// Those that the architecture has, of the tensors for before and behind a half.
    pub(crate) fn load(
        source: &mut TensorSource,
        [before, behind]: [&str; 2],
        hyper: &HyperParameters,
        place: &Place,
    ) -> std::result::Result<Self, EngineError> {
        let mut load = |name: &str, there: bool| match there {
            true => Norm::load(source, name, hyper.hidden, hyper, place).map(Some),
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

    /// What goes into the half; `x` is `[rows, hidden]`.
    pub(crate) fn before(&self, x: &Tensor) -> Result<Tensor> {
        self.before.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.apply(x))
    }

    /// What comes out of the half.
    pub(crate) fn behind(&self, y: Tensor) -> Result<Tensor> {
        self.behind.as_ref().map_or_else(|| Ok(y.clone()), |norm| norm.apply(&y))
    }
}

/// One norm's weights.
#[derive(Debug)]
pub(crate) struct Norm {
    kind: arch::Norm,
    weights: Tensor,
    epsilon: f32,
    /// Numbers of what is normalised together.
    size: usize,
}

impl Norm {
    /// Of `size` numbers.
    pub(crate) fn load(
        source: &mut TensorSource,
        name: &str,
        size: usize,
        hyper: &HyperParameters,
        place: &Place,
    ) -> std::result::Result<Self, EngineError> {
        let weights = Tensor::new(source.vector(name, size)?, &place.device)?;
        Ok(Self { kind: hyper.arch.norm, weights, epsilon: hyper.norm_epsilon, size })
    }

    /// One that not every model has.
    pub(crate) fn opt_load(
        source: &mut TensorSource,
        name: &str,
        size: usize,
        hyper: &HyperParameters,
        place: &Place,
    ) -> std::result::Result<Option<Self>, EngineError> {
        if source.has(name) { Self::load(source, name, size, hyper, place).map(Some) } else { Ok(None) }
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.size * size_of::<f32>()
    }

    /// Of each `size` numbers of `x`, whatever its shape; it must be contiguous. Numbers whose squares overflow come
    /// out as NaN: they would be all zeros otherwise, which nobody could tell from an answer.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.reshape(((), self.size))?;
        let normed = match self.kind {
            arch::Norm::RootMeanSquare => rms_norm(&rows, &self.weights, self.epsilon)?,
            arch::Norm::Layer => candle_core::bail!("a norm by mean and variance is not computed on devices"),
        };
        let nothing_or_nan = rows.sqr()?.sum_keepdim(1)?.affine(0.0, 0.0)?;
        normed.broadcast_add(&nothing_or_nan)?.reshape(x.shape())
    }
}
