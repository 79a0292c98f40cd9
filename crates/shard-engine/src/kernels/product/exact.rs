//! The exact rule: some weights become f32 in the nearest cache, and then meet all rows.

use std::marker::PhantomData;

use super::{
    panels::{Panels, block_of},
    tiles::Tiles,
};
use crate::kernels::{
    formats::{Format, PART},
    isa::Isa,
    simd::{Kernel, LANES, Simd},
};

/// Parts that become f32 together: 16 KiB for two panels, half of the smallest nearest cache.
const PARTS: usize = 4;

/// Rows whose sums are kept near: 12 KiB for two panels.
const ROWS: usize = 96;

/// Panels that become f32 together, where registers are many.
const PANELS: usize = 2;

/// Rows of a tile.
pub(super) fn most_rows(isa: Isa) -> usize {
    if isa.is_roomy() { 8 } else { 6 }
}

/// The products of rows with some panels.
pub(super) struct Exact<'a, F> {
    pub panels: Panels<'a>,
    pub x: &'a Tiles<f32>,
    pub format: PhantomData<F>,
}

impl<F: Format> Kernel for Exact<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let count = self.panels.bytes.len() / self.panels.size;
        let (mut panel, mut one, mut two) = (0, Room::<1>::new(), Room::<PANELS>::new());
        while panel < count {
            // One row alone has too few sums under way with one panel.
            if (S::ROOMY || self.x.height() < 3) && panel + PANELS <= count {
                self.panels_from(simd, panel, &mut two);
                panel += PANELS;
            } else {
                self.panels_from(simd, panel, &mut one);
                panel += 1;
            }
        }
    }
}

impl<F: Format> Exact<'_, F> {
    /// The products with `COUNT` panels.
    #[inline(always)]
    fn panels_from<S: Simd, const COUNT: usize>(&self, simd: S, first: usize, room: &mut Room<COUNT>) {
        let (height, rows, parts) = (self.x.height(), self.x.rows(), self.x.length() / PART);
        let Room { weights, sums } = room;
        let at_once = (ROWS / height * height).max(height);
        for start in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - start);
            sums[..count].fill([[0.0; LANES]; COUNT]);
            for part in (0..parts).step_by(PARTS) {
                let taken = PARTS.min(parts - part);
                self.fill(simd, first, part, &mut weights[..taken * PART]);
                for row in (0..count).step_by(height) {
                    let tile_rows = height.min(count - row);
                    let tile = Tile {
                        weights: &weights[..taken * PART],
                        x: self.x.tile((start + row) / height, part * PART, taken * PART),
                        height,
                        sums: &mut sums[row..row + tile_rows],
                    };
                    tile.run_rows(simd);
                }
            }
            for (row, sums) in sums[..count].iter().enumerate() {
                sums.iter()
                    .enumerate()
                    .for_each(|(panel, sums)| self.panels.put(start + row, first + panel, sums));
            }
        }
    }

    /// The weights of parts from `from` on.
    #[inline(always)]
    fn fill<S: Simd, const COUNT: usize>(
        &self,
        simd: S,
        first: usize,
        from: usize,
        weights: &mut [[[f32; LANES]; COUNT]],
    ) {
        for count in 0..COUNT {
            let panel = &self.panels.bytes[(first + count) * self.panels.size..][..self.panels.size];
            for (part, weights) in weights.chunks_exact_mut(PART).enumerate() {
                let (block, place) = block_of::<F>(panel, from + part);
                F::weights(simd, block, place, |input, weight| {
                    simd.store(weight, &mut weights[input][count])
                });
            }
        }
    }
}

/// What is near while some panels are multiplied.
// Lines of memory hold whole vectors then.
#[repr(C, align(64))]
struct Room<const COUNT: usize> {
    weights: [[[f32; LANES]; COUNT]; PARTS * PART],
    sums: [[[f32; LANES]; COUNT]; ROWS],
}

impl<const COUNT: usize> Room<COUNT> {
    #[inline(always)]
    fn new() -> Self {
        Self { weights: [[[0.0; LANES]; COUNT]; PARTS * PART], sums: [[[0.0; LANES]; COUNT]; ROWS] }
    }
}

/// Rows that meet weights.
struct Tile<'a, const COUNT: usize> {
    weights: &'a [[[f32; LANES]; COUNT]],
    /// `[inputs][height]`.
    x: &'a [f32],
    height: usize,
    /// Of each row.
    sums: &'a mut [[[f32; LANES]; COUNT]],
}

impl<const COUNT: usize> Tile<'_, COUNT> {
    /// One function for each number of rows, whatever the type of the weights.
    #[inline(always)]
    fn run_rows<S: Simd>(self, simd: S) {
        match self.sums.len() {
            1 => simd.call(TileOf::<COUNT, 1>(self)),
            2 => simd.call(TileOf::<COUNT, 2>(self)),
            3 => simd.call(TileOf::<COUNT, 3>(self)),
            4 => simd.call(TileOf::<COUNT, 4>(self)),
            5 => simd.call(TileOf::<COUNT, 5>(self)),
            6 => simd.call(TileOf::<COUNT, 6>(self)),
            _ if !S::ROOMY => unreachable!("tiles are lower"),
            7 => simd.call(TileOf::<COUNT, 7>(self)),
            _ => simd.call(TileOf::<COUNT, 8>(self)),
        }
    }
}

struct TileOf<'a, const COUNT: usize, const ROWS: usize>(Tile<'a, COUNT>);

impl<const COUNT: usize, const ROWS: usize> Kernel for TileOf<'_, COUNT, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tile { weights, x, height, sums } = self.0;
        let sums: &mut [_; ROWS] = sums.first_chunk_mut().expect("as many rows");
        let mut totals = sums.each_ref().map(|row| row.each_ref().map(|sum| simd.load(sum)));
        for (weights, x) in weights.iter().zip(x.chunks_exact(height)) {
            let weights = weights.each_ref().map(|weights| simd.load(weights));
            let x: &[f32; ROWS] = x.first_chunk().expect("as many rows");
            for row in 0..ROWS {
                let value = simd.splat(x[row]);
                for panel in 0..COUNT {
                    totals[row][panel] = simd.mul_add(value, weights[panel], totals[row][panel]);
                }
            }
        }
        for (totals, sums) in totals.into_iter().zip(sums) {
            totals.into_iter().zip(sums).for_each(|(total, sum)| simd.store(total, sum));
        }
    }
}
