//! One transformer layer: attention, then the feed-forward part, each added to what came.

use super::{
    attention::{self, Attention},
    feed_forward::{self, FeedForward},
    linear::Arithmetic,
    pass::{Pass, SlotRows},
};
use crate::{EngineError, hyper::HyperParameters, kernels::rows, source::TensorSource};

/// A layer's weights.
#[derive(Debug)]
pub(crate) struct Block {
    attention: Attention,
    feed_forward: FeedForward,
}

impl Block {
    pub(crate) fn load(
        source: &mut TensorSource,
        layer: u32,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        check_parts(source, layer, hyper)?;
        Ok(Self {
            attention: Attention::load(source, layer, hyper, arithmetic)?,
            feed_forward: FeedForward::load(source, layer, hyper, arithmetic)?,
        })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.attention.byte_count() + self.feed_forward.byte_count()
    }

    /// Passes `x` `[rows][hidden]` through the layer, in place; `slots` own its rows in order, and this is their layer
    /// of that number.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        slots: &mut [SlotRows<'_>],
        number: usize,
        pass: &Pass<'_>,
    ) -> candle_core::Result<()> {
        let Arithmetic { isa, threads, .. } = pass.arithmetic;
        rows::add(x, &self.attention.forward(x, slots, number, pass)?, *isa, threads);
        rows::add(x, &self.feed_forward.forward(x, pass.arithmetic)?, *isa, threads);
        Ok(())
    }
}

/// Refuses a layer that lacks a part, or has one that would change results.
fn check_parts(source: &TensorSource, layer: u32, hyper: &HyperParameters) -> Result<(), EngineError> {
    let prefix = format!("blk.{layer}.");
    let missing = |part: &&&str| !source.has(&format!("{prefix}{part}"));
    if let Some(part) = hyper.arch.required.iter().find(missing) {
        return Err(source.failed(format!("tensor {prefix}{part} is missing")));
    }
    let known = |part: &&str| attention::PARTS.contains(part) || feed_forward::PARTS.contains(part);
    let mut parts = source.header().tensors.keys().filter_map(|name| name.strip_prefix(&prefix));
    match parts.find(|part| !known(part)) {
        Some(part) => Err(source.failed(format!("tensor {prefix}{part} is not supported"))),
        None => Ok(()),
    }
}
