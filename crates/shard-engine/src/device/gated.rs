//! A network with a gate: `down(activation(gate(x)) · up(x))`.

use candle_core::{Result, Tensor};

use super::{linear::Linear, place::Loading};
use crate::{EngineError, arch::Activation, hyper::HyperParameters, matrices, source::TensorSource};

/// Its weights.
#[derive(Debug)]
pub(crate) struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Gated {
    pub(crate) fn load(
        source: &mut TensorSource,
        matrices: &matrices::Gated,
        hyper: &HyperParameters,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        let mut linear = |matrix| Linear::load(source, matrix, loading);
        let matrices::Gated { gate, up, down } = matrices;
        let activation = hyper.arch.activation;
        Ok(Self { gate: linear(gate)?, up: linear(up)?, down: linear(down)?, activation })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        [&self.gate, &self.up, &self.down].into_iter().map(Linear::byte_count).sum()
    }

    /// `x` is `[rows, hidden]`, as the result.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate = self.gate.forward(x)?;
        let bent = match self.activation {
            Activation::Silu => gate.silu()?,
            // candle's is the approximation by tanh.
            Activation::Gelu => gate.gelu()?,
            Activation::Clamped => candle_core::bail!("gates with a bound are not computed on devices"),
        };
        self.down.forward(&(bent * self.up.forward(x)?)?)
    }
}
