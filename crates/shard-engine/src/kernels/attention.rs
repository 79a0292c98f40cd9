//! Grouped-query attention of rows over the caches of their slots.
//!
//! Blocks of 64 positions come one after the other, each for some rows before the next, so that its keys and values are
//! read once for them. The order of every sum is fixed by positions alone. So a row gives the same bits alone, in any
//! chunk, beside any rows, on any number of threads.

mod step;
#[cfg(test)]
mod tests;

use std::{array, ops::Range};

use self::step::{MOST, NOTHING, State, Step};
use super::{
    buffer::Buffer,
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
pub(crate) struct Shape<'a> {
    /// Of the pages.
    pub layout: Layout,
    /// Queries of a row; each kv head has as many of them.
    pub heads: usize,
    /// What the product of a query and a key is multiplied by.
    pub scale: f32,
    /// How many positions a row looks at, its own and those before it; at least 1.
    pub window: usize,
    /// Scores are bent so that none is beyond this: `cap · tanh(score / cap)`.
    pub cap: Option<f32>,
    /// `[heads]`: one more score of each, which takes its share of the weights and has no value.
    pub sinks: Option<&'a [f32]>,
}

/// The window of a row that looks at all positions up to its own.
pub(crate) const ALL: usize = usize::MAX;

/// Weighs what each row of some slots looks at: `[rows][heads][head]`, slot after slot. `rows_of` gives the rows of the
/// slot of a number.
pub(crate) fn attend<'a>(
    slots: usize,
    rows_of: impl Fn(usize) -> Rows<'a> + Sync,
    shape: Shape<'a>,
    isa: Isa,
    threads: &Threads,
) -> Buffer<f32> {
    let works = Works { slots, rows_of, shape };
    let starts = works.starts();
    let mut memory = Buffer::zeros(starts.last().copied().unwrap_or(0));
    threads.for_parts(&mut memory, &starts, |number, memory| isa.run(&mut works.work(number, memory)));
    let row = shape.row();
    let total: usize = (0..slots).map(|slot| works.rows(slot)).sum();
    let mut out = Buffer::stale(total * row);
    for (number, part) in starts.windows(2).enumerate() {
        let (slot, first) = works.place(number);
        let before: usize = (0..slot).map(|slot| works.rows(slot)).sum();
        works.work(number, &mut memory[part[0]..part[1]]).give(&mut out[(before + first) * row..]);
    }
    out
}

/// What threads share: some rows of a slot and one of the kv heads each; all kv heads of some rows, then of the next.
struct Works<'a, F> {
    slots: usize,
    rows_of: F,
    shape: Shape<'a>,
}

impl<'a, F: Fn(usize) -> Rows<'a>> Works<'a, F> {
    /// Rows of a slot.
    fn rows(&self, slot: usize) -> usize {
        (self.rows_of)(slot).queries.len() / self.shape.row()
    }

    /// Where the memory of each begins, and where that of the last ends.
    fn starts(&self) -> Buffer<usize> {
        let pieces = (0..self.slots).map(|slot| self.rows(slot).div_ceil(ROWS_AT_ONCE)).sum::<usize>();
        let mut starts = Buffer::zeros(pieces * self.shape.layout.kv_heads + 1);
        for number in 0..starts.len() - 1 {
            let (slot, first) = self.place(number);
            let rows = (self.rows(slot) - first).min(ROWS_AT_ONCE);
            let query = 2 * self.shape.layout.padded() + NOTHING.len();
            let size = (rows * self.shape.group() * query).next_multiple_of(LANES);
            starts[number + 1] = starts[number] + size;
        }
        starts
    }

    /// The slot of the piece of work of this number, and the first of its rows there.
    fn place(&self, number: usize) -> (usize, usize) {
        let mut piece = number / self.shape.layout.kv_heads;
        for slot in 0..self.slots {
            let pieces = self.rows(slot).div_ceil(ROWS_AT_ONCE);
            if piece < pieces {
                return (slot, piece * ROWS_AT_ONCE);
            }
            piece -= pieces;
        }
        unreachable!("there are no more pieces than all slots have")
    }

    fn work<'m>(&self, number: usize, memory: &'m mut [f32]) -> Work<'a, 'm> {
        let (slot, first) = self.place(number);
        let (rows, row) = ((self.rows_of)(slot), self.shape.row());
        let queries = rows.queries[first * row..].chunks(ROWS_AT_ONCE * row).next().unwrap_or_default();
        let rows = Rows { first: rows.first + first, queries, ..rows };
        let count = queries.len() / row * self.shape.group();
        let (out, rest) = memory.split_at_mut(count * self.shape.layout.padded());
        let (scaled, rest) = rest.split_at_mut(out.len());
        let states = &mut rest.as_chunks_mut().0[..count];
        let kv_head = number % self.shape.layout.kv_heads;
        Work { rows, shape: self.shape, kv_head, out, scaled, states }
    }
}

/// Some rows of one slot and one of the kv heads. Queries are those of the kv head, row after row.
struct Work<'a, 'm> {
    rows: Rows<'a>,
    shape: Shape<'a>,
    kv_head: usize,
    /// `[queries][head filled up]`, zeros at first.
    out: &'m mut [f32],
    /// The scaled queries, likewise.
    scaled: &'m mut [f32],
    /// `[queries]`.
    states: &'m mut [State],
}

impl Shape<'_> {
    /// Numbers of a row's queries.
    fn row(self) -> usize {
        self.heads * self.layout.head
    }

    /// Queries that share a kv head.
    fn group(self) -> usize {
        self.heads / self.layout.kv_heads
    }
}

impl Kernel for &mut Work<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.shape.layout.kv_type {
            KvType::F16 => self.run_as::<S, Half>(simd),
            KvType::F32 => self.run_as::<S, Single>(simd),
        }
    }
}

impl Work<'_, '_> {
    #[inline(always)]
    fn run_as<S: Simd, E: Element>(&mut self, simd: S) {
        let (padded, group, first) = (self.shape.layout.padded(), self.shape.group(), self.rows.first);
        self.scale_queries();
        let count = self.states.len();
        self.begin();
        let (end, window) = (first + count / group, self.shape.window);
        let begin = (first + 1).saturating_sub(window) / POSITIONS;
        for (number, page) in self.rows.pages[..end.div_ceil(POSITIONS)].iter().enumerate().skip(begin) {
            let start = number * POSITIONS;
            let block = page.block(self.kv_head);
            let mut ahead = self.rows.pages.get(number + 1).map(|page| page.block(self.kv_head));
            // Rows before the block do not look at it.
            let mut query = start.saturating_sub(first) * group;
            // Nor do rows whose window begins behind it.
            let rows = (start + POSITIONS - 1).saturating_add(window).saturating_sub(first);
            let last = rows.saturating_mul(group).min(count);
            while query < last {
                let piece = piece_of::<S>(last - query);
                let seen = |query: usize| (first + query / group + 1 - start).min(POSITIONS);
                let unseen =
                    |query: usize| (first + query / group + 1).saturating_sub(window).saturating_sub(start);
                let step = Step {
                    block,
                    // Once is enough.
                    ahead: ahead.take(),
                    queries: &self.scaled[query * padded..(query + piece) * padded],
                    seen: array::from_fn(|place| seen(query + place)),
                    unseen: array::from_fn(|place| unseen(query + place)),
                    cap: self.shape.cap,
                    states: &mut self.states[query..query + piece],
                    out: &mut self.out[query * padded..(query + piece) * padded],
                    padded,
                };
                step.run_sized::<S, E>(simd);
                query += piece;
            }
        }
        for (out, [_, sum]) in self.out.chunks_exact_mut(padded).zip(&*self.states) {
            let sum = simd.splat(*sum);
            for out in out.as_chunks_mut::<LANES>().0 {
                simd.store(simd.div(simd.load(out), sum), out);
            }
        }
    }

    /// Before the first block there is nothing, or each head's sink: a weight of 1, relative to itself.
    #[inline(always)]
    fn begin(&mut self) {
        let group = self.shape.group();
        match self.shape.sinks {
            None => self.states.fill(NOTHING),
            Some(sinks) => {
                let own = sinks[self.kv_head * group..][..group].iter().cycle();
                self.states.iter_mut().zip(own).for_each(|(state, sink)| *state = [*sink, 1.0]);
            }
        }
    }

    #[inline(always)]
    fn scale_queries(&mut self) {
        let layout = self.shape.layout;
        let own = self.own();
        let rows = self.rows.queries.chunks_exact(self.shape.row());
        let queries = rows.flat_map(|row| row[own.clone()].chunks_exact(layout.head));
        for (query, scaled) in queries.zip(self.scaled.chunks_exact_mut(layout.padded())) {
            scaled.iter_mut().zip(query).for_each(|(scaled, number)| *scaled = number * self.shape.scale);
        }
    }

    /// Where the kv head's queries are in a row.
    fn own(&self) -> Range<usize> {
        let size = self.shape.group() * self.shape.layout.head;
        self.kv_head * size..(self.kv_head + 1) * size
    }

    /// Copies to where it belongs in `[rows][heads][head]`.
    fn give(&self, out: &mut [f32]) {
        let (layout, group, own) = (self.shape.layout, self.shape.group(), self.own());
        let rows = out.chunks_exact_mut(self.shape.row());
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
