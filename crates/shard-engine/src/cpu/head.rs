//! The two ends of a model: tokens to activations, and activations to logits.

use swarm_types::TokenId;

use super::{
    linear::{Arithmetic, Linear},
    norm::Norm,
};
use crate::{
    EngineError,
    hyper::HyperParameters,
    kernels::{isa::Isa, packed::Packed, rows, threads::Threads},
    matrices,
    source::TensorSource,
    storage::packed_as,
};

/// Rows whose logits are in memory together; a vocabulary is large.
const ROWS_AT_ONCE: usize = 16;

/// The embedding; single rows are made f32 when they are needed.
#[derive(Debug)]
pub(crate) struct Embedding(Packed);

impl Embedding {
    pub(crate) fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        threads: &Threads,
    ) -> Result<Self, EngineError> {
        let matrix = matrices::embedding(hyper);
        let dtype = source.dtype(&matrix)?;
        source.packed(&matrix, packed_as(dtype), threads).map(Self)
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.0.byte_count()
    }

    pub(crate) fn weights(&self) -> &Packed {
        &self.0
    }
}

/// `[tokens][hidden]` from the embedding's weights; the tokens must be in the vocabulary.
pub(crate) fn embed(weights: &Packed, tokens: &[TokenId], isa: Isa, x: &mut Vec<f32>) {
    for token in tokens {
        let start = x.len();
        x.resize(start + weights.inputs(), 0.0);
        weights.row(token.0 as usize, isa, &mut x[start..]);
    }
}

/// Final norm and output matrix.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Norm,
    output: Linear,
    /// What logits are multiplied by.
    scale: f32,
    /// What they are then bent to stay within.
    cap: Option<f32>,
}

impl Head {
    pub(crate) fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            norm: Norm::load(source, "output_norm.weight", hyper.hidden, hyper)?,
            scale: hyper.logit_scale,
            cap: hyper.logit_cap,
            output: Linear::load(source, &matrices::head(hyper), arithmetic)?,
        })
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.norm.byte_count() + self.output.byte_count()
    }

    /// The output matrix.
    pub(crate) fn packed(&self) -> &Packed {
        self.output.packed()
    }

    /// Calls `each` with every row of `x` `[rows][hidden]` behind the norm.
    pub(crate) fn normed(&self, x: &[f32], arithmetic: &Arithmetic, mut each: impl FnMut(&[f32])) {
        for rows in x.chunks(ROWS_AT_ONCE * self.norm.size()) {
            let normed = self.norm.apply(rows, arithmetic.isa, &arithmetic.threads);
            normed.chunks_exact(self.norm.size()).for_each(&mut each);
        }
    }

    /// Calls `each` with the place and the logits of every row of `x` `[rows][hidden]`.
    pub(crate) fn logits(&self, x: &[f32], arithmetic: &Arithmetic, mut each: impl FnMut(usize, &[f32])) {
        let block = ROWS_AT_ONCE * self.norm.size();
        for (number, rows) in x.chunks(block).enumerate() {
            let normed = self.norm.apply(rows, arithmetic.isa, &arithmetic.threads);
            let mut logits = self.output.forward(&normed, arithmetic);
            if self.scale != 1.0 {
                logits.iter_mut().for_each(|logit| *logit *= self.scale);
            }
            if let Some(cap) = self.cap {
                rows::bend(&mut logits, cap, arithmetic.isa, &arithmetic.threads);
            }
            for (row, logits) in logits.chunks_exact(self.output.outputs()).enumerate() {
                each(number * ROWS_AT_ONCE + row, logits);
            }
        }
    }
}
