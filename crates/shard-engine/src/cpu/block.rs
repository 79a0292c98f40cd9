//! One transformer layer: attention, then the feed-forward part, each added to what came.

use super::{
    attention::Attention,
    feed_forward::FeedForward,
    linear::Arithmetic,
    pass::{Pass, SlotRows},
};
use crate::{
    EngineError,
    arch::Halves,
    hyper::HyperParameters,
    kernels::{buffer::Buffer, rows},
    source::TensorSource,
};

/// A layer's weights.
#[derive(Debug)]
pub(crate) struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    /// What each of the two adds is multiplied by.
    scale: f32,
}

impl Block {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            attention: Attention::load(source, layer, hyper, arithmetic)?,
            feed_forward: FeedForward::load(source, layer, hyper, arithmetic)?,
            scale: hyper.residual_scale,
        })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.attention.byte_count() + self.feed_forward.byte_count()
    }

    /// Bytes of the weights that one row reads.
    pub(crate) fn bytes_per_row(&self) -> usize {
        self.attention.byte_count() + self.feed_forward.bytes_per_row()
    }

    /// Passes `x` `[rows][hidden]` through the layer, in place; `slots` own its rows in order, and this is their layer
    /// of that number.
    pub(crate) fn forward(&self, x: &mut [f32], slots: &mut [SlotRows<'_>], number: usize, pass: &Pass<'_>) {
        let attended = self.attention.forward(x, slots, number, pass);
        let made = match pass.hyper.arch.halves {
            Halves::InTurn => {
                self.add(x, attended, pass.arithmetic);
                self.feed_forward.forward(x, pass.arithmetic)
            }
            Halves::SideBySide => {
                let made = self.feed_forward.forward(x, pass.arithmetic);
                self.add(x, attended, pass.arithmetic);
                made
            }
        };
        self.add(x, made, pass.arithmetic);
    }

    fn add(&self, x: &mut [f32], mut y: Buffer<f32>, arithmetic: &Arithmetic) {
        if self.scale != 1.0 {
            y.iter_mut().for_each(|y| *y *= self.scale);
        }
        rows::add(x, &y, arithmetic.isa, &arithmetic.threads);
    }
}
