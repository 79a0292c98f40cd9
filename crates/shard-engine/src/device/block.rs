//! One transformer layer: attention, then the feed-forward part, each added to what came.

use candle_core::{Result, Tensor};

use super::{
    attention::Attention,
    feed_forward::FeedForward,
    pass::{Pass, SlotRows},
    place::Loading,
};
use crate::{EngineError, hyper::HyperParameters, source::TensorSource};

/// A layer's weights.
#[derive(Debug)]
pub(crate) struct Block {
    attention: Attention,
    feed_forward: FeedForward,
    /// What each of the two adds is multiplied by.
    scale: f64,
}

impl Block {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        Ok(Self {
            attention: Attention::load(source, layer, hyper, loading)?,
            feed_forward: FeedForward::load(source, layer, hyper, loading)?,
            scale: f64::from(hyper.residual_scale),
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

    /// What the layer makes of `x` `[rows, hidden]`; `slots` own its rows in order, and this is their layer of that
    /// number.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        slots: &mut [SlotRows<'_>],
        number: usize,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let attended = self.attention.forward(&x, slots, number, pass)?;
        let x = self.add(x, attended)?;
        let made = self.feed_forward.forward(&x)?;
        self.add(x, made)
    }

    fn add(&self, x: Tensor, y: Tensor) -> Result<Tensor> {
        if self.scale == 1.0 { x + y } else { x + (y * self.scale)? }
    }
}
