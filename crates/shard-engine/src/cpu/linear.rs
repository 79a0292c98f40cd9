//! A weight matrix, held as its storage says.

use candle_core::Device;
use swarm_types::Precision;

use super::foreign::Foreign;
use crate::{
    EngineError,
    kernels::{f32::Packed, isa::Isa, threads::Threads},
    source::{MatrixShape, TensorSource},
    storage::Storage,
};

/// Rows that are dequantised at a time, so that loading needs little more memory than what is kept.
const ROWS_AT_ONCE: usize = 512;

/// How and where matrices are multiplied.
#[derive(Debug)]
pub(crate) struct Arithmetic {
    pub precision: Precision,
    pub device: Device,
    /// Of our own kernels, as `isa`.
    pub threads: Threads,
    pub isa: Isa,
}

/// `y = x · wᵀ (+ bias)`.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Vec<f32>>,
    shape: MatrixShape,
    bytes: usize,
}

#[derive(Debug)]
enum Weights {
    Packed(Packed),
    Foreign(Foreign),
}

impl Linear {
    /// Loads `name.weight`, and `name.bias` when there is one.
    pub(crate) fn load(
        source: &mut TensorSource,
        name: &str,
        shape: MatrixShape,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let weight = format!("{name}.weight");
        let dtype = source.dtype(&weight, shape)?;
        let bias = source.opt_vector(&format!("{name}.bias"), shape.rows)?;
        let device = &arithmetic.device;
        let (weights, bytes) = match Storage::of(arithmetic.precision, dtype, device) {
            Storage::Panels => {
                let packed = pack(source, &weight, shape)?;
                let bytes = packed.byte_count();
                (Weights::Packed(packed), bytes)
            }
            Storage::Tensor => {
                let values = source.rows(&weight, shape, 0..shape.rows)?;
                let bytes = size_of_val(values.as_slice());
                (Weights::Foreign(Foreign::plain(values, shape, device)?), bytes)
            }
            Storage::Quantised => {
                let raw = source.raw(&weight, shape)?;
                let bytes = raw.byte_count();
                (Weights::Foreign(Foreign::quantised(raw, device)?), bytes)
            }
        };
        Ok(Self { weights, bias, shape, bytes })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes
    }

    pub(crate) fn outputs(&self) -> usize {
        self.shape.rows
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Vec<f32>> {
        let mut y = match &self.weights {
            Weights::Packed(packed) => packed.multiply(x, arithmetic.isa, &arithmetic.threads),
            Weights::Foreign(foreign) => foreign.multiply(x)?,
        };
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(bias.len())
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        Ok(y)
    }
}

/// The matrix must be known to have this shape: room for all of it is made first.
fn pack(source: &mut TensorSource, name: &str, shape: MatrixShape) -> Result<Packed, EngineError> {
    let mut packed = Packed::zeros(shape.rows, shape.columns);
    for first in (0..shape.rows).step_by(ROWS_AT_ONCE) {
        let rows = source.rows(name, shape, first..(first + ROWS_AT_ONCE).min(shape.rows))?;
        packed.put(first, &rows);
    }
    Ok(packed)
}
