//! A weight matrix, held as its storage says.

use candle_core::Device;
use swarm_types::Precision;

use super::foreign::Foreign;
use crate::{
    BackendChoice, DeviceChoice, EngineError,
    kernels::{
        buffer::Buffer,
        isa::Isa,
        packed::Packed,
        product::{Input, Rule},
        threads::Threads,
    },
    source::{Matrix, MatrixShape, TensorSource},
    storage::Storage,
};

/// How and where matrices are multiplied.
#[derive(Debug)]
pub(crate) struct Arithmetic {
    pub precision: Precision,
    pub backend: BackendChoice,
    pub choice: DeviceChoice,
    pub device: Device,
    /// Of our own kernels, as `isa`.
    pub threads: Threads,
    pub isa: Isa,
}

impl Arithmetic {
    /// Rows `[rows][inputs]` that some matrices are to multiply.
    pub(crate) fn input<'a>(&self, x: &'a [f32], inputs: usize) -> Input<'a> {
        let rule = match self.precision {
            Precision::Exact => Rule::Exact,
            Precision::Standard => Rule::Standard,
        };
        Input::new(x, inputs, rule, self.isa)
    }
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
    /// Loads a matrix, and its bias when there is one.
    pub(crate) fn load(
        source: &mut TensorSource,
        matrix: &Matrix,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let (dtype, shape) = (source.dtype(matrix)?, matrix.shape());
        let bias = source.bias(matrix)?;
        let Arithmetic { precision, backend, choice, device, threads, .. } = arithmetic;
        let (weights, bytes) = match Storage::of(*precision, dtype, *backend, *choice) {
            Storage::Packed(as_type) => {
                let packed = source.packed(matrix, as_type, threads)?;
                let bytes = packed.byte_count();
                (Weights::Packed(packed), bytes)
            }
            Storage::Tensor => {
                let values = source.numbers(matrix)?;
                let bytes = size_of_val(values.as_slice());
                (Weights::Foreign(Foreign::plain(values, shape, device)?), bytes)
            }
            Storage::Quantised => {
                let raw = source.raw(matrix)?;
                let bytes = raw.byte_count();
                (Weights::Foreign(Foreign::quantised(raw, device)?), bytes)
            }
        };
        let bytes = bytes + bias.as_deref().map_or(0, size_of_val);
        Ok(Self { weights, bias, shape, bytes })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.bytes
    }

    pub(crate) fn outputs(&self) -> usize {
        self.shape.rows
    }

    /// Its panels, if it is held in such.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.weights {
            Weights::Packed(packed) => Some(packed),
            Weights::Foreign(_) => None,
        }
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Buffer<f32>> {
        let [y] = forward_all([self], x, arithmetic)?;
        Ok(y)
    }
}

impl Linear {
    /// The product without the bias.
    fn alone(&self, x: &[f32], arithmetic: &Arithmetic) -> candle_core::Result<Buffer<f32>> {
        match &self.weights {
            Weights::Foreign(foreign) => Ok(foreign.multiply(x)?.into()),
            Weights::Packed(packed) => {
                let input = arithmetic.input(x, self.shape.columns);
                let mut y = Buffer::stale(input.rows() * self.shape.rows);
                input.multiply([packed], [&mut y], &arithmetic.threads);
                Ok(y)
            }
        }
    }
}

/// The products of the same rows with several matrices of as many inputs, as one piece of work where they are ours.
pub(crate) fn forward_all<const COUNT: usize>(
    linears: [&Linear; COUNT],
    x: &[f32],
    arithmetic: &Arithmetic,
) -> candle_core::Result<[Buffer<f32>; COUNT]> {
    let inputs = linears.first().map_or(1, |linear| linear.shape.columns);
    let rows = x.len() / inputs;
    let mut ys = linears.map(|_| Buffer::from(vec![]));
    let packed = linears.map(Linear::packed);
    if packed.iter().all(Option::is_some) {
        ys = linears.map(|linear| Buffer::stale(rows * linear.shape.rows));
        let matrices = packed.map(|packed| packed.expect("all of them are"));
        arithmetic.input(x, inputs).multiply(matrices, ys.each_mut().map(|y| &mut **y), &arithmetic.threads);
    } else {
        for (linear, y) in linears.iter().zip(&mut ys) {
            *y = linear.alone(x, arithmetic)?;
        }
    }
    for (linear, y) in linears.iter().zip(&mut ys) {
        if let Some(bias) = &linear.bias {
            y.chunks_exact_mut(bias.len())
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
    }
    Ok(ys)
}
