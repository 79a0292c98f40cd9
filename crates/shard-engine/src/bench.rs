//! What the benchmarks of the kernels need of this crate, on one thread. No part of its interface.

use crate::{
    arch,
    cpu::rope::Rope,
    kernels::{
        attention::{Context, attend},
        f32::Packed,
        isa::Isa,
        threads::Threads,
    },
};

/// Numbers in [-1, 1) that are the same every time.
#[must_use]
pub fn numbers(count: usize) -> Vec<f32> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A weight matrix.
#[derive(Debug)]
pub struct Matrix {
    weights: Packed,
    isa: Isa,
    threads: Threads,
}

impl Matrix {
    /// Of `outputs` × `inputs`.
    ///
    /// # Panics
    /// Never: one thread is the caller's own.
    #[must_use]
    pub fn new(outputs: usize, inputs: usize) -> Self {
        let mut weights = Packed::zeros(outputs, inputs);
        weights.put(0, &numbers(outputs * inputs));
        Self { weights, isa: Isa::detect(), threads: Threads::new(1).expect("no thread is started") }
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    #[must_use]
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        self.weights.multiply(x, self.isa, &self.threads)
    }
}

/// One row's attention over a cache.
#[derive(Debug)]
pub struct Attention {
    query: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    kv_heads: usize,
    head: usize,
    isa: Isa,
}

impl Attention {
    /// Over so many positions.
    #[must_use]
    pub fn new(positions: usize, heads: usize, kv_heads: usize, head: usize) -> Self {
        let cache = numbers(positions * kv_heads * head);
        Self {
            query: numbers(heads * head),
            keys: cache.clone(),
            values: cache,
            kv_heads,
            head,
            isa: Isa::detect(),
        }
    }

    /// `[heads][head]`.
    #[must_use]
    pub fn run(&self) -> Vec<f32> {
        let context = Context {
            keys: &self.keys,
            values: &self.values,
            kv_heads: self.kv_heads,
            head: self.head,
            scale: 1.0 / (self.head as f32).sqrt(),
        };
        let mut out = vec![0.0; self.query.len()];
        attend(&self.query, context, self.isa, &mut out);
        out
    }
}

/// The rotation of rows by their positions.
#[derive(Debug)]
pub struct Rotation {
    rope: Rope,
    head: usize,
}

impl Rotation {
    /// As llama models pair numbers.
    #[must_use]
    pub fn new(head: usize) -> Self {
        let frequency = |pair: usize| 10_000f32.powf(-2.0 * pair as f32 / head as f32);
        let frequencies = (0..head / 2).map(frequency).collect();
        Self { rope: Rope::new(frequencies, arch::RopeStyle::Adjacent), head }
    }

    /// Rotates rows `[positions][heads][head]`.
    pub fn run(&self, rows: &mut [f32], positions: &[u32]) {
        self.rope.rotate(rows, self.head, &self.rope.at(positions));
    }
}

/// The norm before each half of a layer.
#[derive(Debug)]
pub struct Norm(crate::cpu::norm::Norm);

impl Norm {
    /// Of rows of `size` numbers.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(crate::cpu::norm::Norm::new(arch::Norm::RootMeanSquare, numbers(size), 1e-5))
    }

    /// `x` is any number of rows.
    #[must_use]
    pub fn run(&self, x: &[f32]) -> Vec<f32> {
        self.0.apply(x)
    }
}
