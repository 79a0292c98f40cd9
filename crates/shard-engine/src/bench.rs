//! What the benchmarks of the kernels need of this crate, on one thread. No part of its interface.

use std::{convert::Infallible, ops::Range};

use gguf::Dtype;

use crate::{
    KvType, arch,
    cpu::rope::Rope,
    kernels::{
        arena::Arena,
        attention::{ALL, Rows, Shape, attend},
        isa::Isa,
        packed::Packed,
        page::{Layout, POSITIONS, Page},
        product::{Input, Rule},
        threads::Threads,
    },
};

/// Every type that has a layout of its own in memory.
pub const TYPES: [Dtype; 16] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q8_0,
    Dtype::Q2K,
    Dtype::Q3K,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
    Dtype::Iq4Nl,
    Dtype::Iq4Xs,
    Dtype::Mxfp4,
];

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
    rule: Rule,
    isa: Isa,
    threads: Threads,
}

impl Matrix {
    /// Of `outputs` × `inputs` random weights of this type, multiplied by the standard rule or by the exact one.
    ///
    /// # Panics
    /// When the type has no layout in memory.
    #[must_use]
    pub fn new(dtype: Dtype, outputs: usize, inputs: usize, exact: bool) -> Self {
        let mut weights = Packed::zeros(dtype, outputs, inputs, &Arena::default())
            .expect("memory")
            .expect("a type with a layout");
        let threads = Threads::new(1).expect("no thread is started");
        let (numbers, bytes) = dtype.block();
        let row = inputs / numbers as usize * bytes as usize;
        let rows = |rows: Range<usize>, pack: &mut dyn FnMut(&[u8])| {
            pack(&random_blocks(dtype, rows.len() * row));
            Ok::<_, Infallible>(())
        };
        weights.fill(&threads, rows).expect("nothing can fail");
        let rule = if exact { Rule::Exact } else { Rule::Standard };
        Self { weights, rule, isa: Isa::chosen().expect("an instruction set"), threads }
    }

    /// Bytes of the weights as they are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.weights.byte_count()
    }

    /// `x` is `[rows][inputs]`, the result `[rows][outputs]`.
    #[must_use]
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let input = Input::new(x, self.weights.inputs(), self.rule, self.isa);
        let mut y = vec![0.0; input.rows() * self.weights.outputs()];
        input.multiply([&self.weights], [&mut y], &self.threads);
        y
    }
}

/// Blocks of a type with random numbers and scales of the size that weights have.
pub(crate) fn random_blocks(dtype: Dtype, count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        numbers(count.div_ceil(2)).iter().flat_map(|n| n.to_bits().to_le_bytes()[..2].to_vec()).collect();
    bytes.truncate(count);
    // Where the block has numbers in half precision (or the upper halves of single ones): 2^-6 or less of either sign.
    let halves: &[usize] = match dtype {
        Dtype::F32 | Dtype::Mxfp4 => &[],
        Dtype::F16 | Dtype::BF16 => &[0],
        Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4K | Dtype::Q5K => &[0, 2],
        Dtype::Q2K => &[80, 82],
        Dtype::Q3K => &[108],
        Dtype::Q6K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(dtype.block().1 as usize) {
        match dtype {
            Dtype::F32 => block[3] = block[3] & 0x80 | 0x3c,
            Dtype::Mxfp4 => block[0] = 110 + block[0] % 16,
            Dtype::BF16 => block[1] = block[1] & 0x80 | 0x3c,
            _ => halves.iter().for_each(|place| block[place + 1] = block[place + 1] & 0x83 | 0x20),
        }
    }
    bytes
}

/// The attention of some rows at the end of a cache.
#[derive(Debug)]
pub struct Attention {
    queries: Vec<f32>,
    pages: Vec<Page>,
    shape: Shape<'static>,
    positions: usize,
    isa: Isa,
    threads: Threads,
}

/// What is measured of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSize {
    /// Rows, the last positions of the cache.
    pub rows: usize,
    /// Positions in the cache.
    pub positions: usize,
    /// Queries of a row.
    pub heads: usize,
    /// Keys and values of a position.
    pub kv_heads: usize,
    /// Numbers of each.
    pub head: usize,
    /// How they are held.
    pub kv_type: KvType,
}

impl Attention {
    /// # Panics
    /// Never: one thread is the caller's own.
    #[must_use]
    pub fn new(size: AttentionSize) -> Self {
        let AttentionSize { rows, positions, heads, kv_heads, head, kv_type } = size;
        let (layout, isa) = (Layout { kv_heads, head, kv_type }, Isa::best());
        let cache = numbers(POSITIONS * kv_heads * head);
        let page = |_| {
            let mut page = Page::new(layout);
            page.put(0, &cache, &cache, isa);
            page
        };
        Self {
            queries: numbers(rows * heads * head),
            pages: (0..positions.div_ceil(POSITIONS)).map(page).collect(),
            shape: Shape {
                layout,
                heads,
                scale: 1.0 / (head as f32).sqrt(),
                window: ALL,
                cap: None,
                sinks: None,
            },
            positions,
            isa,
            threads: Threads::new(1).expect("no thread is started"),
        }
    }

    /// `[rows][heads][head]`.
    #[must_use]
    pub fn run(&self) -> Vec<f32> {
        let rows = self.queries.len() / (self.shape.heads * self.shape.layout.head);
        let rows = Rows { pages: &self.pages, first: self.positions - rows, queries: &self.queries };
        attend(1, |_| rows, self.shape, self.isa, &self.threads).to_vec()
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
        let frequency = |pair: usize| 10_000f64.powf(-2.0 * pair as f64 / head as f64);
        let frequencies = (0..head / 2).map(frequency).collect();
        Self { rope: Rope::new(frequencies, arch::RopeStyle::Adjacent), head }
    }

    /// Rotates rows `[positions][heads][head]`.
    pub fn run(&self, rows: &mut [f32], positions: &[u32]) {
        let one = Threads::new(1).expect("no thread is started");
        self.rope.rotate(rows, self.head, &self.rope.at(positions), Isa::best(), &one);
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
        let one = Threads::new(1).expect("no thread is started");
        self.0.apply(x, Isa::best(), &one).to_vec()
    }
}
