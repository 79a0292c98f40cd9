//! A weight matrix in memory.

use swarm_types::Precision;

use crate::{
    EngineError,
    kernels::{
        buffer::Buffer,
        isa::Isa,
        packed::Packed,
        product::{Input, Rule},
        threads::Threads,
    },
    source::{Matrix, TensorSource},
    storage::packed_as,
};

/// A step of so many rows is a piece of a prompt, or what is computed again after a loss. One of fewer is tokens of
/// sessions, and so short that waking another thread is a good part of it, where each core has its own worker.
const MANY_ROWS: usize = 32;

/// How many threads take part in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadCounts {
    pub few_rows: usize,
    pub many_rows: usize,
}

/// How matrices are multiplied.
#[derive(Debug)]
pub(crate) struct Arithmetic {
    pub precision: Precision,
    /// Of our kernels, as `isa`.
    pub threads: Threads,
    pub counts: ThreadCounts,
    pub isa: Isa,
}

impl Arithmetic {
    /// What comes now is for so many rows.
    pub(crate) fn share_among(&self, rows: usize) {
        let ThreadCounts { few_rows, many_rows } = self.counts;
        self.threads.use_only(if rows < MANY_ROWS { few_rows } else { many_rows });
    }

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
    weights: Packed,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Loads a matrix, and its bias when there is one.
    pub(crate) fn load(
        source: &mut TensorSource,
        matrix: &Matrix,
        arithmetic: &Arithmetic,
    ) -> Result<Self, EngineError> {
        let dtype = source.dtype(matrix)?;
        let bias = source.bias(matrix)?;
        Ok(Self { weights: source.packed(matrix, packed_as(dtype), &arithmetic.threads)?, bias })
    }

    /// Bytes of the weights as they are held.
    pub(crate) fn byte_count(&self) -> usize {
        self.weights.byte_count() + self.bias.as_deref().map_or(0, size_of_val)
    }

    pub(crate) fn outputs(&self) -> usize {
        self.weights.outputs()
    }

    /// Its panels.
    pub(crate) fn packed(&self) -> &Packed {
        &self.weights
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    pub(crate) fn forward(&self, x: &[f32], arithmetic: &Arithmetic) -> Buffer<f32> {
        let [y] = forward_all([self], x, arithmetic);
        y
    }
}

/// The products of the same rows with several matrices of as many inputs, as one piece of work.
pub(crate) fn forward_all<const COUNT: usize>(
    linears: [&Linear; COUNT],
    x: &[f32],
    arithmetic: &Arithmetic,
) -> [Buffer<f32>; COUNT] {
    let inputs = linears.first().map_or(1, |linear| linear.weights.inputs());
    let rows = x.len() / inputs;
    let mut ys = linears.map(|linear| Buffer::stale(rows * linear.outputs()));
    let matrices = linears.map(Linear::packed);
    arithmetic.input(x, inputs).multiply(matrices, ys.each_mut().map(|y| &mut **y), &arithmetic.threads);
    for (linear, y) in linears.iter().zip(&mut ys) {
        if let Some(bias) = &linear.bias {
            y.chunks_exact_mut(bias.len())
                .for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
    }
    ys
}
