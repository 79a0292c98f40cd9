//! The second half of a layer: what a row makes of itself alone.

use super::{
    linear::{Arithmetic, Linear, forward_all},
    norm::Norm,
};
use crate::{
    EngineError,
    arch::{self, Activation},
    hyper::HyperParameters,
    kernels::{buffer::Buffer, rows},
    source::{MatrixShape, TensorSource},
};

/// What it may consist of.
pub(crate) const PARTS: [&str; 5] =
    ["ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", "ffn_down.bias"];

/// Its weights.
#[derive(Debug)]
pub(crate) struct FeedForward {
    norm: Norm,
    network: Network,
    activation: Activation,
}

#[derive(Debug)]
enum Network {
    Dense { gate: Linear, up: Linear, down: Linear },
}

impl FeedForward {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (hidden, wide) = (hyper.hidden, hyper.feed_forward);
        let mut linear = |part: &str, columns, rows| {
            Linear::load(source, &name(part), MatrixShape { rows, columns }, arithmetic)
        };
        let network = match hyper.arch.feed_forward {
            arch::FeedForward::Dense => Network::Dense {
                gate: linear("ffn_gate", hidden, wide)?,
                up: linear("ffn_up", hidden, wide)?,
                down: linear("ffn_down", wide, hidden)?,
            },
        };
        let norm = Norm::load(source, &name("ffn_norm.weight"), hidden, hyper)?;
        Ok(Self { norm, network, activation: hyper.arch.activation })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        let Network::Dense { gate, up, down } = &self.network;
        self.norm.byte_count() + [gate, up, down].map(Linear::byte_count).iter().sum::<usize>()
    }

    /// What it adds to `x` `[rows][hidden]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Buffer<f32>> {
        let normed = self.norm.apply(x, arithmetic.isa, &arithmetic.threads);
        match &self.network {
            Network::Dense { gate, up, down } => {
                let [mut gate, up] = forward_all([gate, up], &normed, arithmetic)?;
                bend(self.activation, &mut gate, &up, arithmetic);
                down.forward(&gate, arithmetic)
            }
        }
    }
}

/// `activation(gate) · up`, into `gate`.
fn bend(activation: Activation, gate: &mut [f32], up: &[f32], arithmetic: &Arithmetic) {
    match activation {
        Activation::Silu => rows::silu_gate(gate, up, arithmetic.isa, &arithmetic.threads),
    }
}
