//! Types whose blocks have one scale: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0; and numbers as they are: F32, F16 and BF16.

use super::{
    Format, PART, Quantised,
    planes::{
        PLANE, both_pairs, halves, nibble_quads, plane, put, put_half, signed_pairs, spread_bits,
        two_nibbles, word, words,
    },
    scaled,
};
use crate::kernels::simd::{LANES, Simd, bytes};

/// Bytes of the scales of a panel's outputs.
const SCALES: usize = 2 * LANES;

/// Numbers of four bits, less 8, times a scale.
pub(crate) struct Q4_0;

impl Format for Q4_0 {
    const INPUTS: usize = PART;
    const BYTES: usize = 18;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<4>(from, 2), 0, lane, to);
        put_half(from, 4 * PLANE, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q4_0 {
    const OFFSET: i16 = 8;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        nibble_quads(simd, block, group * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 4 * PLANE), simd.splat(0.0))
    }
}

/// Numbers of four bits times a scale, and a minimum.
pub(crate) struct Q4_1;

impl Format for Q4_1 {
    const INPUTS: usize = PART;
    const BYTES: usize = 20;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<4>(from, 4), 0, lane, to);
        put_half(from, 4 * PLANE, lane, to);
        put_half(&from[2..], 4 * PLANE + SCALES, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q4_1 {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        nibble_quads(simd, block, group * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 4 * PLANE), halves(simd, block, 4 * PLANE + SCALES))
    }
}

/// The pairs of a group of numbers of five bits: nibbles, and the fifth bits in one plane behind them.
#[inline(always)]
pub(super) fn five_bits<S: Simd>(simd: S, block: &[u8], place: usize, group: usize) -> [S::I; 4] {
    let [low, high] = two_nibbles(simd, plane(simd, block, place + group * PLANE));
    // Bit g is that of quad g, bit g + 4 that of quad g + 4.
    let fifth = simd.shr_by(plane(simd, block, place + 4 * PLANE), group as u32);
    let mask = simd.splat_int(0x1010_1010);
    let low = simd.or(low, simd.and(simd.shl::<4>(fifth), mask));
    both_pairs(simd, [low, simd.or(high, simd.and(fifth, mask))])
}

/// Numbers of five bits, less 16, times a scale.
pub(crate) struct Q5_0;

impl Format for Q5_0 {
    const INPUTS: usize = PART;
    const BYTES: usize = 22;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<4>(from, 6), 0, lane, to);
        put([spread_bits(word(from, 2))], 4 * PLANE, lane, to);
        put_half(from, 5 * PLANE, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q5_0 {
    const OFFSET: i16 = 16;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        five_bits(simd, block, 0, group)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 5 * PLANE), simd.splat(0.0))
    }
}

/// Numbers of five bits times a scale, and a minimum.
pub(crate) struct Q5_1;

impl Format for Q5_1 {
    const INPUTS: usize = PART;
    const BYTES: usize = 24;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<4>(from, 8), 0, lane, to);
        put([spread_bits(word(from, 4))], 4 * PLANE, lane, to);
        put_half(from, 5 * PLANE, lane, to);
        put_half(&from[2..], 5 * PLANE + SCALES, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q5_1 {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        five_bits(simd, block, 0, group)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 5 * PLANE), halves(simd, block, 5 * PLANE + SCALES))
    }
}

/// Numbers of eight bits with a sign, times a scale.
pub(crate) struct Q8_0;

impl Format for Q8_0 {
    const INPUTS: usize = PART;
    const BYTES: usize = 34;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<8>(from, 2), 0, lane, to);
        put_half(from, 8 * PLANE, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q8_0 {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        let [a, b] = signed_pairs(simd, plane(simd, block, group * PLANE));
        let [c, d] = signed_pairs(simd, plane(simd, block, (group + 4) * PLANE));
        [a, b, c, d]
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 8 * PLANE), simd.splat(0.0))
    }
}

/// Numbers in single precision.
pub(crate) struct F32;

impl Format for F32 {
    const INPUTS: usize = PART;
    const BYTES: usize = 4 * PART;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<PART>(from, 0), 0, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], _part: usize, mut each: impl FnMut(usize, S::F)) {
        for input in 0..PART {
            each(input, simd.as_float(plane(simd, block, input * PLANE)));
        }
    }
}

/// Numbers in half precision.
pub(crate) struct F16;

impl Format for F16 {
    const INPUTS: usize = PART;
    const BYTES: usize = 2 * PART;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        for input in 0..PART {
            put_half(&from[2 * input..], input * SCALES, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], _part: usize, mut each: impl FnMut(usize, S::F)) {
        for input in 0..PART {
            each(input, halves(simd, block, input * SCALES));
        }
    }
}

/// The upper halves of numbers in single precision.
pub(crate) struct Bf16;

impl Format for Bf16 {
    const INPUTS: usize = PART;
    const BYTES: usize = 2 * PART;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        F16::pack(from, lane, to);
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], _part: usize, mut each: impl FnMut(usize, S::F)) {
        for input in 0..PART {
            let upper = simd.widen_u16(bytes(block, input * SCALES));
            each(input, simd.as_float(simd.shl::<16>(upper)));
        }
    }
}
