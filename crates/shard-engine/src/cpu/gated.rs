//! A network with a gate: `down(activation(gate(x)) · up(x))`.

use super::linear::{Arithmetic, Linear, forward_all};
use crate::{
    EngineError,
    arch::Activation,
    kernels::{buffer::Buffer, rows},
    matrices,
    source::{Matrix, TensorSource},
};

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
        activation: Activation,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let mut linear = |matrix: &Matrix| Linear::load(source, matrix, arithmetic);
        let matrices::Gated { gate, up, down } = matrices;
        Ok(Self { gate: linear(gate)?, up: linear(up)?, down: linear(down)?, activation })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        [&self.gate, &self.up, &self.down].into_iter().map(Linear::byte_count).sum()
    }

    /// `x` is `[rows][hidden]`, as the result.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> Buffer<f32> {
        let [mut gate, up] = forward_all([&self.gate, &self.up], x, arithmetic);
        bend(self.activation, &mut gate, &up, arithmetic);
        self.down.forward(&gate, arithmetic)
    }
}

/// `activation(gate) · up`, into `gate`.
fn bend(activation: Activation, gate: &mut [f32], up: &[f32], arithmetic: &Arithmetic) {
    match activation {
        Activation::Silu => rows::silu_gate(gate, up, arithmetic.isa, &arithmetic.threads),
        Activation::Gelu => rows::gelu_gate(gate, up, arithmetic.isa, &arithmetic.threads),
        Activation::Clamped => rows::clamped_gate(gate, up, arithmetic.isa, &arithmetic.threads),
    }
}
