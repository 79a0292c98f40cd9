//! Products of rows and weight matrices, by one of two rules.
//!
//! *Exact*: `y[m][n] = Σ_k x[m][k] · w[n][k]` in f32, summed from k = 0 upwards with one fused multiply-add a term.
//! *Standard*: activations are rounded to 16 bits with a scale for every 32 (`rounded.rs`), products of whole numbers
//! are summed exactly within such a part (or its half, where the weights' scales change there), and the parts' sums are
//! added in f32 from the first to the last: one fused multiply-add a part with its two scales multiplied, and one with
//! its minimum, if it has one.
//!
//! Either way a result depends on its row and its weights alone: not on how many rows or matrices are multiplied
//! together, nor on tiles, threads or the instruction set. Weights that are no whole numbers go by the exact rule.

mod columns;
mod direct;
mod exact;
mod panels;
mod tiled;
mod tiles;

use std::{cell::OnceCell, marker::PhantomData, ops::Range};

use self::{columns::Columns, direct::DIRECT_ROWS, panels::Panels, tiles::Tiles};
use super::{
    formats::{Format, PART, Quantised},
    isa::Isa,
    packed::{ForFormat, Packed, for_format},
    rounded::Rounded,
    threads::Threads,
};

/// Panels that are unpacked together.
const PANELS_AT_ONCE: usize = 2;

/// Pieces of work for each thread, so that none waits long for another that was interrupted.
const PIECES: usize = 4;

/// Which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    Exact,
    Standard,
}

/// Rows that are multiplied by one matrix after another.
pub(crate) struct Input<'a> {
    /// `[rows][inputs]`.
    x: &'a [f32],
    inputs: usize,
    rule: Rule,
    isa: Isa,
    rounded: OnceCell<Rounded>,
    rounded_tiles: OnceCell<Tiles<i32>>,
    exact_tiles: OnceCell<Tiles<f32>>,
}

impl<'a> Input<'a> {
    /// `x` is `[rows][inputs]`.
    pub(crate) fn new(x: &'a [f32], inputs: usize, rule: Rule, isa: Isa) -> Self {
        let (rounded, rounded_tiles, exact_tiles) = Default::default();
        Self { x, inputs, rule, isa, rounded, rounded_tiles, exact_tiles }
    }

    pub(crate) fn rows(&self) -> usize {
        self.x.len() / self.inputs
    }

    fn rounded(&self, threads: &Threads) -> &Rounded {
        self.rounded.get_or_init(|| Rounded::new(self.x, self.inputs, self.isa, threads))
    }

    fn rounded_tiles(&self, threads: &Threads) -> &Tiles<i32> {
        self.rounded_tiles.get_or_init(|| {
            let (words, pairs) = (&self.rounded(threads).words, self.inputs / 2);
            Tiles::new(words, pairs, pairs, tiled::most_rows(self.isa), threads)
        })
    }

    fn exact_tiles(&self, threads: &Threads) -> &Tiles<f32> {
        self.exact_tiles.get_or_init(|| {
            let padded = self.inputs.next_multiple_of(PART);
            Tiles::new(self.x, self.inputs, padded, exact::most_rows(self.isa), threads)
        })
    }

    /// The products with some matrices of as many inputs each, as one job; `outs` are `[rows][outputs]` of each.
    pub(crate) fn multiply<const COUNT: usize>(
        &self,
        matrices: [&Packed; COUNT],
        outs: [&mut [f32]; COUNT],
        threads: &Threads,
    ) {
        let (rows, share) = (self.rows(), share(&matrices, threads));
        let mut outs = outs.into_iter();
        let shares = matrices.map(|matrix| {
            let out = outs.next().expect("one for each matrix");
            assert_eq!(
                (matrix.inputs(), out.len()),
                (self.inputs, rows * matrix.outputs()),
                "sizes that fit"
            );
            let columns = Columns::new(out, matrix.outputs());
            Share {
                matrix,
                columns,
                operand: self.operand(matrix, threads),
                pieces: matrix.panels().div_ceil(share),
            }
        });
        let isa = self.isa;
        threads.for_each(shares.iter().map(|share| share.pieces).sum(), |mut piece| {
            for Share { matrix, columns, operand, pieces } in &shares {
                if piece < *pieces {
                    let panels = piece * share..((piece + 1) * share).min(matrix.panels());
                    let task = Task { matrix, panels, columns: *columns };
                    for_format(matrix.dtype(), Multiply { task: &task, x: *operand, isa }).expect("packed");
                    return;
                }
                piece -= pieces;
            }
        });
    }

    /// The rows in the form in which a matrix takes them.
    fn operand(&self, matrix: &Packed, threads: &Threads) -> Operand<'_> {
        if self.rule == Rule::Exact || !matrix.is_quantised() {
            return Operand::Exact(self.exact_tiles(threads));
        }
        match self.rows() {
            ..=DIRECT_ROWS => Operand::Direct(self.rounded(threads)),
            _ => Operand::Tiled(self.rounded(threads), self.rounded_tiles(threads)),
        }
    }
}

/// Panels of a piece of work.
fn share(matrices: &[&Packed], threads: &Threads) -> usize {
    let panels: usize = matrices.iter().map(|matrix| matrix.panels()).sum();
    match threads.count() {
        1 => panels.max(1),
        count => panels.div_ceil(count * PIECES).next_multiple_of(PANELS_AT_ONCE),
    }
}

/// A matrix of a job.
struct Share<'a> {
    matrix: &'a Packed,
    columns: Columns<'a>,
    operand: Operand<'a>,
    /// Into how many its panels are cut.
    pieces: usize,
}

/// Some panels of a matrix.
struct Task<'a> {
    matrix: &'a Packed,
    panels: Range<usize>,
    columns: Columns<'a>,
}

impl Task<'_> {
    fn bytes(&self) -> &[u8] {
        let size = self.matrix.panel_bytes();
        &self.matrix.bytes()[self.panels.start * size..self.panels.end * size]
    }
}

/// Rows as a kernel takes them.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Exact(&'a Tiles<f32>),
    Direct(&'a Rounded),
    Tiled(&'a Rounded, &'a Tiles<i32>),
}

struct Multiply<'a> {
    task: &'a Task<'a>,
    x: Operand<'a>,
    isa: Isa,
}

impl ForFormat for Multiply<'_> {
    type Output = ();

    fn plain<F: Format>(self) {
        let Operand::Exact(x) = self.x else { unreachable!("numbers as they are go by the exact rule") };
        self.isa.run(exact::Exact::<F> { panels: self.panels(), x, format: PhantomData });
    }

    fn quantised<Q: Quantised>(self) {
        let panels = self.panels();
        match self.x {
            Operand::Exact(_) => self.plain::<Q>(),
            Operand::Direct(x) => direct::run::<Q>(panels, x, self.isa),
            Operand::Tiled(x, tiles) => {
                self.isa.run(tiled::Tiled::<Q> { panels, x, tiles, format: PhantomData })
            }
        }
    }
}

impl<'a> Multiply<'a> {
    fn panels(&self) -> Panels<'a> {
        Panels {
            bytes: self.task.bytes(),
            size: self.task.matrix.panel_bytes(),
            first: self.task.panels.start,
            columns: self.task.columns,
        }
    }
}

#[cfg(test)]
mod tests;
