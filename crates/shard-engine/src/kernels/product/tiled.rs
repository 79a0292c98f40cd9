//! The standard rule for many rows: some weights are unpacked into the nearest cache, and then meet all rows.

use std::marker::PhantomData;

use super::{
    panels::{Panels, block_of},
    tiles::Tiles,
};
use crate::kernels::{
    formats::{PART, Quantised},
    isa::Isa,
    rounded::{PAIRS, PartScale, Rounded},
    simd::{Kernel, LANES, Simd, lanes, lanes_mut},
};

/// Parts that are unpacked together: 16 KiB for two panels, half of the smallest nearest cache.
const PARTS: usize = 8;

/// Rows that unpacked weights meet before others are unpacked: sums of 32 KiB for two panels, which each tile fetches
/// once for all these parts.
const ROWS: usize = 256;

/// Panels that are unpacked together, where registers are many.
const PANELS: usize = 2;

/// Rows of a tile.
pub(super) fn most_rows(isa: Isa) -> usize {
    if isa.is_roomy() { 8 } else { 4 }
}

/// The products of many rows with some panels.
pub(super) struct Tiled<'a, Q> {
    pub panels: Panels<'a>,
    pub x: &'a Rounded,
    pub tiles: &'a Tiles<i32>,
    pub format: PhantomData<Q>,
}

impl<Q: Quantised> Kernel for Tiled<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let count = self.panels.bytes.len() / self.panels.size;
        let (mut panel, at_once) = (0, if S::ROOMY { PANELS } else { 1 });
        if S::ROOMY {
            let mut room = Room::<PANELS>::new();
            while panel + at_once <= count {
                self.panels_from(simd, panel, &mut room);
                panel += at_once;
            }
        }
        if panel < count {
            let mut room = Room::<1>::new();
            (panel..count).for_each(|panel| self.panels_from(simd, panel, &mut room));
        }
    }
}

impl<Q: Quantised> Tiled<'_, Q> {
    /// The products with `COUNT` panels.
    #[inline(always)]
    fn panels_from<S: Simd, const COUNT: usize>(&self, simd: S, first: usize, room: &mut Room<COUNT>) {
        let (height, rows) = (self.tiles.height(), self.x.rows());
        let Room { weights, sums } = room;
        let at_once = (ROWS / height * height).max(height);
        for start in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - start);
            sums[..count].fill([[0.0; LANES]; COUNT]);
            for part in (0..self.x.parts).step_by(PARTS) {
                let parts = PARTS.min(self.x.parts - part);
                weights.fill::<Q, S>(simd, &self.panels, first, part, parts);
                for row in (0..count).step_by(height) {
                    let tile_rows = height.min(count - row);
                    let tile = Tile {
                        weights,
                        parts,
                        words: self.tiles.tile((start + row) / height, part * PAIRS, parts * PAIRS),
                        height,
                        scales: &self.x.scales[(start + row) * self.x.parts + part..],
                        row_parts: self.x.parts,
                        sums: &mut sums[row..row + tile_rows],
                    };
                    tile.run_all::<Q, S>(simd);
                }
            }
            for (row, sums) in sums[..count].iter().enumerate() {
                sums.iter()
                    .enumerate()
                    .for_each(|(panel, sums)| self.panels.put(start + row, first + panel, sums));
            }
        }
    }
}

/// What is near while some panels are multiplied.
// Lines of memory hold whole vectors then.
#[repr(C, align(64))]
struct Room<const COUNT: usize> {
    weights: Unpacked<COUNT>,
    sums: [[[f32; LANES]; COUNT]; ROWS],
}

impl<const COUNT: usize> Room<COUNT> {
    #[inline(always)]
    fn new() -> Self {
        Self { weights: Unpacked::new(), sums: [[[0.0; LANES]; COUNT]; ROWS] }
    }
}

/// Parts of some panels as pairs of 16 bits, and their scales.
#[repr(C, align(64))]
struct Unpacked<const COUNT: usize> {
    pairs: [[[i32; LANES]; COUNT]; PARTS * PAIRS],
    /// For each half of a part (or, for a whole one, in the place of its first): scales, then minima.
    scales: [[[[f32; LANES]; COUNT]; 2]; 2 * PARTS],
}

impl<const COUNT: usize> Unpacked<COUNT> {
    #[inline(always)]
    fn new() -> Self {
        Self { pairs: [[[0; LANES]; COUNT]; PARTS * PAIRS], scales: [[[[0.0; LANES]; COUNT]; 2]; 2 * PARTS] }
    }

    /// Unpacks parts `from..from + parts` of the panels from `first` on.
    #[inline(always)]
    fn fill<Q: Quantised, S: Simd>(
        &mut self,
        simd: S,
        panels: &Panels<'_>,
        first: usize,
        from: usize,
        parts: usize,
    ) {
        let offset = simd.splat_int(i32::from(Q::OFFSET) * 0x0001_0001);
        for count in 0..COUNT {
            let panel = &panels.bytes[(first + count) * panels.size..][..panels.size];
            for part in 0..parts {
                let (block, place) = block_of::<Q>(panel, from + part);
                for group in 0..4 {
                    let quads = Q::quads(simd, block, place, group);
                    for (number, quad) in quads.into_iter().enumerate() {
                        let quad = if Q::OFFSET == 0 { quad } else { simd.sub16(quad, offset) };
                        // Quad `group`, or the one four behind it; two words each.
                        let word = 2 * group + number % 2 + number / 2 * (PAIRS / 2);
                        simd.store_int(quad, &mut self.pairs[part * PAIRS + word][count]);
                    }
                }
                for half in 0..if Q::HALVES { 2 } else { 1 } {
                    let (scale, minimum) = Q::scales(simd, block, place, half);
                    let to = &mut self.scales[2 * part + half];
                    simd.store(scale, &mut to[0][count]);
                    simd.store(minimum, &mut to[1][count]);
                }
            }
        }
    }
}

/// Rows that meet unpacked weights.
struct Tile<'a, const COUNT: usize> {
    weights: &'a Unpacked<COUNT>,
    /// Of the weights.
    parts: usize,
    /// `[pairs][height]`.
    words: &'a [i32],
    height: usize,
    /// Of the first row from its first part on; the next row's begin `row_parts` behind.
    scales: &'a [PartScale],
    row_parts: usize,
    /// Of each row.
    sums: &'a mut [[[f32; LANES]; COUNT]],
}

impl<const COUNT: usize> Tile<'_, COUNT> {
    #[inline(always)]
    fn run_all<Q: Quantised, S: Simd>(self, simd: S) {
        match (Q::HALVES, Q::MINIMUM) {
            (false, false) => self.run_rows::<S, false, false>(simd),
            (false, true) => self.run_rows::<S, false, true>(simd),
            (true, false) => self.run_rows::<S, true, false>(simd),
            (true, true) => self.run_rows::<S, true, true>(simd),
        }
    }

    /// One function for each number of rows, whatever the type of the weights.
    #[inline(always)]
    fn run_rows<S: Simd, const HALVES: bool, const MINIMUM: bool>(self, simd: S) {
        match self.sums.len() {
            1 => simd.call(TileOf::<COUNT, 1, HALVES, MINIMUM>(self)),
            2 => simd.call(TileOf::<COUNT, 2, HALVES, MINIMUM>(self)),
            3 => simd.call(TileOf::<COUNT, 3, HALVES, MINIMUM>(self)),
            4 => simd.call(TileOf::<COUNT, 4, HALVES, MINIMUM>(self)),
            _ if !S::ROOMY => unreachable!("tiles are lower"),
            5 => simd.call(TileOf::<COUNT, 5, HALVES, MINIMUM>(self)),
            6 => simd.call(TileOf::<COUNT, 6, HALVES, MINIMUM>(self)),
            7 => simd.call(TileOf::<COUNT, 7, HALVES, MINIMUM>(self)),
            _ => simd.call(TileOf::<COUNT, 8, HALVES, MINIMUM>(self)),
        }
    }
}

struct TileOf<'a, const COUNT: usize, const ROWS: usize, const HALVES: bool, const MINIMUM: bool>(
    Tile<'a, COUNT>,
);

impl<const COUNT: usize, const ROWS: usize, const HALVES: bool, const MINIMUM: bool> Kernel
    for TileOf<'_, COUNT, ROWS, HALVES, MINIMUM>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tile { weights, parts, words, height, scales, row_parts, sums } = self.0;
        let sums: &mut [_; ROWS] = sums.first_chunk_mut().expect("as many rows");
        for part in 0..parts {
            for half in 0..if HALVES { 2 } else { 1 } {
                let pairs = if HALVES { PAIRS / 2 } else { PAIRS };
                let first = part * PAIRS + half * pairs;
                let mut products = [[simd.splat_int(0); COUNT]; ROWS];
                let words = words[first * height..(first + pairs) * height].chunks_exact(height);
                for (weights, words) in weights.pairs[first..first + pairs].iter().zip(words) {
                    let words: &[i32; ROWS] = words.first_chunk().expect("as many rows");
                    let weights = weights.each_ref().map(|weights| simd.load_int(weights));
                    for row in 0..ROWS {
                        let word = simd.splat_int(words[row]);
                        for panel in 0..COUNT {
                            products[row][panel] = simd.dot(products[row][panel], weights[panel], word);
                        }
                    }
                }
                let [scale, minimum] = &weights.scales[2 * part + half];
                for row in 0..ROWS {
                    let with = &scales[row * row_parts + part];
                    let added = if HALVES && MINIMUM { with.half_weight(half) } else { with.weight };
                    for panel in 0..COUNT {
                        let place = lanes_mut(&mut sums[row][panel], 0);
                        let factor = simd.mul(simd.load(lanes(&scale[panel], 0)), simd.splat(with.scale));
                        let mut sum =
                            simd.mul_add(factor, simd.to_float(products[row][panel]), simd.load(place));
                        if MINIMUM {
                            sum = simd.mul_add(simd.load(&minimum[panel]), simd.splat(added), sum);
                        }
                        simd.store(sum, place);
                    }
                }
            }
        }
    }
}

const _: () = assert!(PART == 2 * PAIRS);
