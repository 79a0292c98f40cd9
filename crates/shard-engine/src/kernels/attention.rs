//! Grouped-query attention of rows over the caches of their slots.
//!
//! Blocks of 64 positions come one after the other, each for some rows before the next, so that its keys and values are
//! read once for them. The order of every sum is fixed by positions alone. So a row gives the same bits alone, in any
//! chunk, beside any rows, on any number of threads.

mod step;
#[cfg(test)]
mod tests;

use std::array;

use self::step::{MOST, State, Step};
use super::{
    isa::Isa,
    page::{Element, Half, Layout, POSITIONS, Page, Single},
    simd::{Kernel, LANES, Simd},
    threads::Threads,
};
use crate::config::KvType;

/// Rows of one slot that go through the blocks together: what is kept of their queries stays in a second-level cache.
const ROWS_AT_ONCE: usize = 32;

/// Rows of one slot, at following positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// All positions up to the last row's, in this layout.
    pub pages: &'a [Page],
    /// The position of the first row.
    pub first: usize,
    /// `[rows][heads][head]`.
    pub queries: &'a [f32],
}

/// What all rows have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Of the pages.
    pub layout: Layout,
    /// Queries of a row; each kv head has as many of them.
    pub heads: usize,
    /// What the product of a query and a key is multiplied by.
    pub scale: f32,
}

/// Weighs what each row looks at, which is all positions up to its own: `[rows][heads][head]`, slot after slot.
pub(crate) fn attend(slots: &[Rows<'_>], shape: Shape, isa: Isa, threads: &Threads) -> Vec<f32> {
    let row = shape.heads * shape.layout.head;
    let total: usize = slots.iter().map(|rows| rows.queries.len() / row).sum();
    let mut memory = vec![0.0; total * shape.heads * shape.layout.padded()];
    let mut works = works(slots, shape, &mut memory);
    threads.for_chunks(&mut works, 1, |_, works| works.iter_mut().for_each(|work| isa.run(work)));
    let mut out = vec![0.0; total * row];
    let mut first = 0;
    for heads in works.chunks_exact(shape.layout.kv_heads) {
        for work in heads {
            work.give(&mut out[first * row..]);
        }
        first += heads[0].rows.queries.len() / row;
    }
    out
}

/// Some rows of one slot and one of the kv heads.
struct Work<'a> {
    rows: Rows<'a>,
    shape: Shape,
    kv_head: usize,
    /// `[rows][queries of the kv head][head filled up]`.
    out: &'a mut [f32],
}

/// What threads share; all kv heads of some rows, then of the next.
fn works<'a>(slots: &[Rows<'a>], shape: Shape, mut memory: &'a mut [f32]) -> Vec<Work<'a>> {
    let Shape { layout, heads, .. } = shape;
    let row = heads * layout.head;
    let mut works = Vec::new();
    for slot in slots {
        for (number, queries) in slot.queries.chunks(ROWS_AT_ONCE * row).enumerate() {
            let rows = Rows { first: slot.first + number * ROWS_AT_ONCE, queries, ..*slot };
            let size = queries.len() / row * shape.group() * layout.padded();
            for kv_head in 0..layout.kv_heads {
                let (out, rest) = memory.split_at_mut(size);
                memory = rest;
                works.push(Work { rows, shape, kv_head, out });
            }
        }
    }
    works
}

impl Shape {
    /// Queries that share a kv head.
    fn group(self) -> usize {
        self.heads / self.layout.kv_heads
    }
}

impl Kernel for &mut Work<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.shape.layout.kv_type {
            KvType::F16 => self.run_as::<S, Half>(simd),
            KvType::F32 => self.run_as::<S, Single>(simd),
        }
    }
}

impl Work<'_> {
    #[inline(always)]
    fn run_as<S: Simd, E: Element>(&mut self, simd: S) {
        let (padded, group, first) = (self.shape.layout.padded(), self.shape.group(), self.rows.first);
        let queries = self.scaled_queries();
        let count = queries.len() / padded;
        let mut states = vec![State::NONE; count];
        let end = first + count / group;
        for (number, page) in self.rows.pages[..end.div_ceil(POSITIONS)].iter().enumerate() {
            let start = number * POSITIONS;
            let block = page.block(self.kv_head);
            let mut ahead = self.rows.pages.get(number + 1).map(|page| page.block(self.kv_head));
            // Rows before the block do not look at it.
            let mut query = start.saturating_sub(first) * group;
            while query < count {
                let piece = piece_of::<S>(count - query);
                let seen = |query: usize| (first + query / group + 1 - start).min(POSITIONS);
                let step = Step {
                    block,
                    // Once is enough.
                    ahead: ahead.take(),
                    queries: &queries[query * padded..(query + piece) * padded],
                    seen: array::from_fn(|place| seen(query + place)),
                    states: &mut states[query..query + piece],
                    out: &mut self.out[query * padded..(query + piece) * padded],
                    padded,
                };
                step.run_sized::<S, E>(simd);
                query += piece;
            }
        }
        for (out, state) in self.out.chunks_exact_mut(padded).zip(states) {
            let sum = simd.splat(state.sum);
            for out in out.as_chunks_mut::<LANES>().0 {
                simd.store(simd.div(simd.load(out), sum), out);
            }
        }
    }

    /// As `out`.
    #[inline(always)]
    fn scaled_queries(&self) -> Vec<f32> {
        let (layout, group) = (self.shape.layout, self.shape.group());
        let mut scaled = vec![0.0; self.out.len()];
        let own = self.kv_head * group * layout.head..(self.kv_head + 1) * group * layout.head;
        let rows = self.rows.queries.chunks_exact(self.shape.heads * layout.head);
        let queries = rows.flat_map(|row| row[own.clone()].chunks_exact(layout.head));
        for (query, scaled) in queries.zip(scaled.chunks_exact_mut(layout.padded())) {
            scaled.iter_mut().zip(query).for_each(|(scaled, number)| *scaled = number * self.shape.scale);
        }
        scaled
    }

    /// Copies to where it belongs in `[rows][heads][head]`.
    fn give(&self, out: &mut [f32]) {
        let (layout, group) = (self.shape.layout, self.shape.group());
        let own = self.kv_head * group * layout.head..(self.kv_head + 1) * group * layout.head;
        let rows = out.chunks_exact_mut(self.shape.heads * layout.head);
        for (row, from) in rows.zip(self.out.chunks_exact(group * layout.padded())) {
            let heads = row[own.clone()].chunks_exact_mut(layout.head);
            heads.zip(from.chunks_exact(layout.padded())).for_each(|(to, from)| {
                to.copy_from_slice(&from[..layout.head]);
            });
        }
    }
}

/// How many of the queries that are left are taken together: as many as their sums have room in registers.
#[inline(always)]
fn piece_of<S: Simd>(left: usize) -> usize {
    if !S::SEVERAL {
        return 1;
    }
    let most = if S::ROOMY { MOST } else { 6 };
    match left {
        _ if left <= most => left,
        // Not a large piece and a small one.
        ..12 => left.div_ceil(2),
        _ => 6,
    }
}
