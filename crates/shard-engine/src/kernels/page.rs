//! How keys and values of 64 positions lie in memory.
//!
//! One kv head after the other. Of each first the keys, turned so that a number of sixteen positions is one vector:
//! `[tile of 16 positions][head][16]`; then the values, `[position][head]`. A head is filled up with zeros to whole
//! vectors.

use super::{
    isa::Isa,
    simd::{Kernel, LANES, Simd, padded},
};
use crate::config::KvType;

/// Positions in a page.
pub(crate) const POSITIONS: usize = 64;

/// Sixteen positions each.
pub(crate) const TILES: usize = POSITIONS / LANES;

/// Where a page begins, so that no vector lies across two lines of a processor's cache.
const LINE: usize = 64;

/// The sizes that decide how a page is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head: usize,
    pub kv_type: KvType,
}

impl Layout {
    /// Numbers of a head with the zeros that fill it up.
    pub(crate) fn padded(self) -> usize {
        self.head.next_multiple_of(LANES)
    }

    /// Bytes of the keys of one head, or of its values.
    fn part_bytes(self) -> usize {
        let number = match self.kv_type {
            KvType::F16 => 2,
            KvType::F32 => 4,
        };
        POSITIONS * self.padded() * number
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(self) -> usize {
        2 * self.kv_heads * self.part_bytes()
    }
}

/// Keys and values of 64 positions of one layer.
#[derive(Debug)]
pub(crate) struct Page {
    layout: Layout,
    memory: Vec<u8>,
    /// Of the page in its memory.
    start: usize,
}

/// Keys and values of one kv head in a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    pub keys: &'a [u8],
    pub values: &'a [u8],
}

impl Page {
    /// All zeros.
    pub(crate) fn new(layout: Layout) -> Self {
        let memory = vec![0; layout.page_bytes() + LINE - 1];
        // Where that cannot be told, vectors lie as they lie.
        let start = memory.as_ptr().align_offset(LINE).min(LINE - 1);
        Self { layout, memory, start }
    }

    pub(crate) fn block(&self, kv_head: usize) -> Block<'_> {
        let part = self.layout.part_bytes();
        let start = self.start + 2 * kv_head * part;
        let (keys, values) = self.memory[start..start + 2 * part].split_at(part);
        Block { keys, values }
    }

    /// Writes rows `[kv heads][head]` of keys and of values from this place of the page on.
    pub(crate) fn put(&mut self, place: usize, keys: &[f32], values: &[f32], isa: Isa) {
        isa.run(Put { page: self, place, keys, values });
    }
}

/// Sixteen numbers as a page holds them.
pub(crate) trait Element {
    type Vector: Copy + AsRef<[u8]> + AsMut<[u8]>;
    /// Bytes of one number.
    const BYTES: usize;
    const ZERO: Self::Vector;

    fn vectors(memory: &[u8]) -> &[Self::Vector];
    fn vectors_mut(memory: &mut [u8]) -> &mut [Self::Vector];
    fn load<S: Simd>(simd: S, vector: &Self::Vector) -> S::F;
    fn store<S: Simd>(simd: S, numbers: S::F, vector: &mut Self::Vector);
}

/// In half precision.
pub(crate) struct Half;

/// In single precision.
pub(crate) struct Single;

impl Element for Half {
    type Vector = [u8; 2 * LANES];
    const BYTES: usize = 2;
    const ZERO: Self::Vector = [0; 2 * LANES];

    #[inline(always)]
    fn vectors(memory: &[u8]) -> &[Self::Vector] {
        memory.as_chunks().0
    }

    #[inline(always)]
    fn vectors_mut(memory: &mut [u8]) -> &mut [Self::Vector] {
        memory.as_chunks_mut().0
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, vector: &Self::Vector) -> S::F {
        simd.load_half(vector)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, numbers: S::F, vector: &mut Self::Vector) {
        simd.store_half(numbers, vector);
    }
}

impl Element for Single {
    type Vector = [u8; 4 * LANES];
    const BYTES: usize = 4;
    const ZERO: Self::Vector = [0; 4 * LANES];

    #[inline(always)]
    fn vectors(memory: &[u8]) -> &[Self::Vector] {
        memory.as_chunks().0
    }

    #[inline(always)]
    fn vectors_mut(memory: &mut [u8]) -> &mut [Self::Vector] {
        memory.as_chunks_mut().0
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, vector: &Self::Vector) -> S::F {
        simd.as_float(simd.load_bytes(vector))
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, numbers: S::F, vector: &mut Self::Vector) {
        let mut lanes = [0.0; LANES];
        simd.store(numbers, &mut lanes);
        let (bytes, _) = vector.as_chunks_mut::<4>();
        bytes.iter_mut().zip(lanes).for_each(|(bytes, number)| *bytes = number.to_le_bytes());
    }
}

struct Put<'a> {
    page: &'a mut Page,
    place: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.page.layout.kv_type {
            KvType::F16 => self.run_as::<S, Half>(simd),
            KvType::F32 => self.run_as::<S, Single>(simd),
        }
    }
}

impl Put<'_> {
    #[inline(always)]
    fn run_as<S: Simd, E: Element>(self, simd: S) {
        let Self { page, place, keys, values } = self;
        let Layout { kv_heads, head, .. } = page.layout;
        let (part, width) = (page.layout.part_bytes(), page.layout.padded() / LANES);
        let rows = keys.chunks_exact(kv_heads * head).zip(values.chunks_exact(kv_heads * head));
        for (place, (keys, values)) in (place..POSITIONS).zip(rows) {
            let heads = keys.chunks_exact(head).zip(values.chunks_exact(head));
            let blocks = page.memory[page.start..].chunks_exact_mut(2 * part);
            for (block, (keys, values)) in blocks.zip(heads) {
                let (key_block, value_block) = block.split_at_mut(part);
                let tile = place / LANES * width * LANES;
                let tile = &mut E::vectors_mut(key_block)[tile..tile + width * LANES];
                turn::<S, E>(simd, keys, tile, place % LANES);
                let row = &mut E::vectors_mut(value_block)[place * width..(place + 1) * width];
                for (values, vector) in values.chunks(LANES).zip(row) {
                    E::store(simd, simd.load(&padded(values)), vector);
                }
            }
        }
    }
}

/// Writes each number of a key into this lane of its vector.
#[inline(always)]
fn turn<S: Simd, E: Element>(simd: S, key: &[f32], tile: &mut [E::Vector], lane: usize) {
    for (numbers, vectors) in key.chunks(LANES).zip(tile.chunks_exact_mut(LANES)) {
        let mut stored = E::ZERO;
        E::store(simd, simd.load(&padded(numbers)), &mut stored);
        for (number, vector) in stored.as_ref().chunks_exact(E::BYTES).zip(vectors) {
            vector.as_mut()[lane * E::BYTES..(lane + 1) * E::BYTES].copy_from_slice(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::numbers;

    #[test]
    fn what_was_put_into_a_page_lies_where_it_should_on_every_instruction_set() {
        for (kv_type, head) in [(KvType::F16, 40), (KvType::F32, 40), (KvType::F32, 64), (KvType::F16, 1)] {
            let layout = Layout { kv_heads: 3, head, kv_type };
            let (keys, values) =
                (numbers(POSITIONS * 3 * head), numbers(POSITIONS * 3 * head + 9).split_off(9));
            for isa in Isa::all() {
                let mut page = Page::new(layout);
                let cut = 17 * 3 * head;
                page.put(0, &keys[..cut], &values[..cut], isa);
                page.put(17, &keys[cut..], &values[cut..], isa);
                let number = |part: &[u8], place: usize| match kv_type {
                    KvType::F32 => {
                        f32::from_le_bytes(*part[4 * place..].first_chunk().expect("within the page"))
                    }
                    KvType::F16 => {
                        let bytes = *part[2 * place..].first_chunk().expect("within the page");
                        super::super::simd::portable::from_half(u16::from_le_bytes(bytes))
                    }
                };
                let near = |a: f32, b: f32| (a - b).abs() <= if kv_type == KvType::F16 { 5e-4 } else { 0.0 };
                for (kv_head, place, d) in
                    (0..3).flat_map(|h| (0..POSITIONS).flat_map(move |p| (0..head).map(move |d| (h, p, d))))
                {
                    let (block, from) = (page.block(kv_head), (place * 3 + kv_head) * head + d);
                    let key = (place / LANES * layout.padded() + d) * LANES + place % LANES;
                    assert!(near(number(block.keys, key), keys[from]), "{isa:?} {kv_head} {place} {d}");
                    let value = place * layout.padded() + d;
                    assert!(near(number(block.values, value), values[from]), "{isa:?} {kv_head} {place} {d}");
                }
            }
        }
    }
}
