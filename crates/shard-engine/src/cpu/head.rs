//! The two ends of a model: tokens to activations, and activations to logits.

use candle_core::Result;
use swarm_types::TokenId;

use super::{
    linear::{Arithmetic, Linear},
    norm::Norm,
};
use crate::{
    EngineError,
    hyper::HyperParameters,
    source::{MatrixShape, RawMatrix, TensorSource},
};

/// Rows whose logits are in memory together; a vocabulary is large.
const ROWS_AT_ONCE: usize = 16;

/// The embedding as the file stores it; single rows are dequantised when they are needed.
#[derive(Debug)]
pub(crate) struct Embedding(RawMatrix);

impl Embedding {
    pub(crate) fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
    ) -> std::result::Result<Self, EngineError> {
        let shape = MatrixShape { rows: hyper.vocabulary, columns: hyper.hidden };
        Ok(Self(source.raw("token_embd.weight", shape)?))
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.0.byte_count()
    }

    /// `[tokens][hidden]`; the tokens must be in the vocabulary.
    pub(crate) fn rows(&self, tokens: &[TokenId]) -> Result<Vec<f32>> {
        let rows = tokens.iter().map(|token| self.0.row(token.0 as usize)).collect::<Result<Vec<_>>>()?;
        Ok(rows.concat())
    }
}

/// Final norm and output matrix.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Norm,
    output: Linear,
}

impl Head {
    pub(crate) fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        arithmetic: &Arithmetic,
    ) -> std::result::Result<Self, EngineError> {
        let name = if hyper.tied { "token_embd" } else { "output" };
        let shape = MatrixShape { rows: hyper.vocabulary, columns: hyper.hidden };
        Ok(Self {
            norm: Norm::load(source, "output_norm.weight", hyper.hidden, hyper)?,
            output: Linear::load(source, name, shape, arithmetic)?,
        })
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.norm.byte_count() + self.output.byte_count()
    }

    /// Calls `each` with the place and the logits of every row of `x` `[rows][hidden]`.
    pub(crate) fn logits(
        &self,
        x: &[f32],
        arithmetic: &Arithmetic,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let block = ROWS_AT_ONCE * self.norm.size();
        for (number, rows) in x.chunks(block).enumerate() {
            let normed = self.norm.apply(rows);
            let logits = self.output.forward(&normed, arithmetic)?;
            for (row, logits) in logits.chunks_exact(self.output.outputs()).enumerate() {
                each(number * ROWS_AT_ONCE + row, logits);
            }
        }
        Ok(())
    }
}
