//! The standard rule for few rows: weights are used as they stream by.

use std::marker::PhantomData;

use super::panels::{Panels, block_of};
use crate::kernels::{
    formats::{PART, Quantised},
    isa::Isa,
    rounded::{PAIRS, PartScale, Rounded},
    simd::{Kernel, LANES, Simd},
};

/// Up to so many rows are multiplied from the packed weights as they stream by; for more, weights are unpacked first.
pub(super) const DIRECT_ROWS: usize = 4;

/// How far ahead memory is asked for, in bytes: so that one stream of weights keeps all of a core's requests under way.
const AHEAD: usize = 8 << 10;

/// Bytes of a line of memory.
const LINE: usize = 64;

/// The products of all rows, which are few, with some panels.
pub(super) fn run<Q: Quantised>(panels: Panels<'_>, x: &Rounded, isa: Isa) {
    const { assert!(DIRECT_ROWS == 4, "all numbers of rows are listed") };
    match x.rows() {
        0 => (),
        1 => isa.run(Direct::<Q, 1> { panels, x, format: PhantomData }),
        2 => isa.run(Direct::<Q, 2> { panels, x, format: PhantomData }),
        3 => isa.run(Direct::<Q, 3> { panels, x, format: PhantomData }),
        _ => isa.run(Direct::<Q, 4> { panels, x, format: PhantomData }),
    }
}

struct Direct<'a, Q, const ROWS: usize> {
    panels: Panels<'a>,
    x: &'a Rounded,
    format: PhantomData<Q>,
}

impl<Q: Quantised, const ROWS: usize> Kernel for Direct<'_, Q, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { panels, x, .. } = self;
        let words: [&[[i32; PAIRS]]; ROWS] = std::array::from_fn(|row| {
            x.words[row * x.parts * PAIRS..(row + 1) * x.parts * PAIRS].as_chunks().0
        });
        let scales: [&[PartScale]; ROWS] =
            std::array::from_fn(|row| &x.scales[row * x.parts..(row + 1) * x.parts]);
        for (number, panel) in panels.bytes.chunks_exact(panels.size).enumerate() {
            let mut sums = [simd.splat(0.0); ROWS];
            for part in 0..x.parts {
                let (block, place) = block_of::<Q>(panel, part);
                // As many lines as the part has, far ahead of it: also those of the next panels.
                let bytes = Panels::block_bytes::<Q>() / (Q::INPUTS / PART);
                let here = number * panels.size + part * bytes;
                for line in 0..bytes.div_ceil(LINE) {
                    simd.prefetch(panels.bytes, here + AHEAD + line * LINE);
                }
                let row_words = words.map(|words| &words[part]);
                let row_scales = scales.map(|scales| &scales[part]);
                add_part::<Q, S, ROWS>(simd, block, place, row_words, row_scales, &mut sums);
            }
            let mut values = [0.0; LANES];
            for (row, sum) in sums.into_iter().enumerate() {
                simd.store(sum, &mut values);
                panels.put(row, number, &values);
            }
        }
    }
}

/// Adds what a part of each row makes with a part of the panel.
#[inline(always)]
fn add_part<Q: Quantised, S: Simd, const ROWS: usize>(
    simd: S,
    block: &[u8],
    part: usize,
    words: [&[i32; PAIRS]; ROWS],
    scales: [&PartScale; ROWS],
    sums: &mut [S::F; ROWS],
) {
    // The products of the two halves of the part; offsets are taken off all at once.
    let offset = |half: usize, row: usize| simd.splat_int(-i32::from(Q::OFFSET) * scales[row].sums[half]);
    let mut low: [S::I; ROWS] = std::array::from_fn(|row| offset(0, row));
    let mut high: [S::I; ROWS] = std::array::from_fn(|row| offset(1, row));
    for group in 0..4 {
        let [a, b, c, d] = Q::quads(simd, block, part, group);
        for row in 0..ROWS {
            let word = |place: usize| simd.splat_int(words[row][place]);
            low[row] = simd.dot(low[row], a, word(2 * group));
            high[row] = simd.dot(high[row], c, word(2 * group + PAIRS / 2));
            low[row] = simd.dot(low[row], b, word(2 * group + 1));
            high[row] = simd.dot(high[row], d, word(2 * group + 1 + PAIRS / 2));
        }
    }
    if Q::HALVES {
        for (half, products) in [low, high].into_iter().enumerate() {
            let (scale, minimum) = Q::scales(simd, block, part, half);
            for row in 0..ROWS {
                let factor = simd.mul(scale, simd.splat(scales[row].scale));
                sums[row] = simd.mul_add(factor, simd.to_float(products[row]), sums[row]);
                if Q::MINIMUM {
                    sums[row] = simd.mul_add(minimum, simd.splat(scales[row].half_weight(half)), sums[row]);
                }
            }
        }
        return;
    }
    let (scale, minimum) = Q::scales(simd, block, part, 0);
    for row in 0..ROWS {
        let factor = simd.mul(scale, simd.splat(scales[row].scale));
        let products = simd.to_float(simd.add_int(low[row], high[row]));
        sums[row] = simd.mul_add(factor, products, sums[row]);
        if Q::MINIMUM {
            sums[row] = simd.mul_add(minimum, simd.splat(scales[row].weight), sums[row]);
        }
    }
}
