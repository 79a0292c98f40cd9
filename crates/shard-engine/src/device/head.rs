//! The end of a model on a device: activations to logits.

use candle_core::{Result, Tensor};

use super::{attention::softcap, linear::Linear, norm::Norm, place::Loading};
use crate::{EngineError, hyper::HyperParameters, matrices, source::TensorSource};

/// Rows whose logits are in memory together; a vocabulary is large.
const ROWS_AT_ONCE: usize = 16;

/// Final norm and output matrix.
#[derive(Debug)]
pub(crate) struct Head {
    norm: Norm,
    output: Linear,
    /// What logits are multiplied by.
    scale: f64,
    /// What they are then bent to stay within.
    cap: Option<f32>,
}

impl Head {
    pub(crate) fn load(
        source: &mut TensorSource,
        hyper: &HyperParameters,
        loading: &Loading,
    ) -> std::result::Result<Self, EngineError> {
        Ok(Self {
            norm: Norm::load(source, "output_norm.weight", hyper.hidden, hyper, &loading.place)?,
            output: Linear::load(source, &matrices::head(hyper), loading)?,
            scale: f64::from(hyper.logit_scale),
            cap: hyper.logit_cap,
        })
    }

    pub(crate) fn byte_count(&self) -> usize {
        self.norm.byte_count() + self.output.byte_count()
    }

    /// Calls `each` with every row of `x` `[rows, hidden]` behind the norm.
    pub(crate) fn normed(&self, x: &Tensor, mut each: impl FnMut(&[f32])) -> Result<()> {
        for rows in at_once(x)? {
            let normed: Vec<Vec<f32>> = self.norm.apply(&rows?)?.to_vec2()?;
            normed.iter().for_each(|row| each(row));
        }
        Ok(())
    }

    /// Calls `each` with the place and the logits of every row of `x` `[rows, hidden]`.
    pub(crate) fn logits(&self, x: &Tensor, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
        let mut place = 0;
        for rows in at_once(x)? {
            let mut logits = self.output.forward(&self.norm.apply(&rows?)?)?;
            if self.scale != 1.0 {
                logits = (logits * self.scale)?;
            }
            if let Some(cap) = self.cap {
                logits = softcap(&logits, cap)?;
            }
            for row in logits.to_vec2::<f32>()? {
                each(place, &row);
                place += 1;
            }
        }
        Ok(())
    }
}

/// Some rows at a time.
fn at_once(x: &Tensor) -> Result<impl Iterator<Item = Result<Tensor>>> {
    let (rows, x) = (x.dim(0)?, x.clone());
    let some = move |first: usize| x.narrow(0, first, ROWS_AT_ONCE.min(rows - first))?.contiguous();
    Ok((0..rows).step_by(ROWS_AT_ONCE).map(some))
}
