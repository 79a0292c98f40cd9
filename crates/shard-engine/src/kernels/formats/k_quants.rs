//! Types whose blocks have 256 inputs, and scales of whole numbers for runs of 16 or 32 of them.

use super::{
    Format, Quantised,
    planes::{
        PLANE, both_pairs, halves, nibble_quads, nibbles, one_bit, plane, put, put_half, two_bits,
        two_nibbles, words,
    },
    scaled,
    simple::five_bits,
};
use crate::kernels::simd::{LANES, Simd, bytes};

/// Inputs in a block.
const BLOCK: usize = 256;

/// Bytes of the scales in half precision, and of as many minima, of a panel's outputs.
const SCALES: usize = 2 * LANES;

/// Behind scales and minima: for each part a byte with the low four bits of scale and minimum.
const LOW: usize = 2 * SCALES;

/// Behind them: for each two parts a byte with the high two bits, of the first part's scale and minimum and then of the
/// second's.
const HIGH: usize = LOW + 8 * LANES;

/// Behind them begin the numbers.
const NUMBERS: usize = HIGH + 4 * LANES;

/// Scales and minima as Q4_K and Q5_K have them: the head of a block of 16 bytes.
#[inline(always)]
fn pack_scales(from: &[u8], lane: usize, to: &mut [u8]) {
    put_half(from, 0, lane, to);
    put_half(&from[2..], SCALES, lane, to);
    let packed: &[u8; 12] = bytes(from, 4);
    let six_bits = |part: usize| match part {
        0..4 => (packed[part] & 63, packed[part + 4] & 63),
        _ => (
            packed[part + 4] & 15 | packed[part - 4] >> 6 << 4,
            packed[part + 4] >> 4 | packed[part] >> 6 << 4,
        ),
    };
    for pair in 0..4 {
        let ((scale, minimum), (next_scale, next_minimum)) = (six_bits(2 * pair), six_bits(2 * pair + 1));
        to[LOW + 2 * pair * LANES + lane] = scale & 15 | (minimum & 15) << 4;
        to[LOW + (2 * pair + 1) * LANES + lane] = next_scale & 15 | (next_minimum & 15) << 4;
        to[HIGH + pair * LANES + lane] =
            scale >> 4 | minimum >> 4 << 2 | next_scale >> 4 << 4 | next_minimum >> 4 << 6;
    }
}

/// Those of a part.
#[inline(always)]
fn scales_of<S: Simd>(simd: S, block: &[u8], part: usize) -> (S::F, S::F) {
    let low = simd.widen_u8(bytes(block, LOW + part * LANES));
    let high = simd.widen_u8(bytes(block, HIGH + part / 2 * LANES));
    let high = simd.shr_by(high, 4 * (part as u32 & 1));
    let scale = simd.or(simd.and(low, simd.splat_int(15)), simd.shl::<4>(simd.and(high, simd.splat_int(3))));
    let minimum = simd.or(simd.shr::<4>(low), simd.shl::<2>(simd.and(high, simd.splat_int(12))));
    let minimum = simd.mul(halves(simd, block, SCALES), simd.to_float(minimum));
    (simd.mul(halves(simd, block, 0), simd.to_float(scale)), simd.sub(simd.splat(0.0), minimum))
}

/// Numbers of four bits.
pub(crate) struct Q4K;

impl Format for Q4K {
    const INPUTS: usize = BLOCK;
    const BYTES: usize = 144;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        pack_scales(from, lane, to);
        for part in 0..8 {
            let bytes = words(from, 16 + part / 2 * 32);
            put(nibbles(bytes, 4 * (part as u32 & 1)), NUMBERS + part * 4 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q4K {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        nibble_quads(simd, block, NUMBERS + (4 * part + group) * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, _half: usize) -> (S::F, S::F) {
        scales_of(simd, block, part)
    }
}

/// Numbers of five bits.
pub(crate) struct Q5K;

impl Format for Q5K {
    const INPUTS: usize = BLOCK;
    const BYTES: usize = 176;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        pack_scales(from, lane, to);
        let fifth = words(from, 16);
        for part in 0..8 {
            let place = NUMBERS + part * 5 * PLANE;
            let bytes = words(from, 48 + part / 2 * 32);
            put(nibbles(bytes, 4 * (part as u32 & 1)), place, lane, to);
            put([one_bit(fifth, part as u32)], place + 4 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q5K {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        five_bits(simd, block, NUMBERS + 5 * part * PLANE, group)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, _half: usize) -> (S::F, S::F) {
        scales_of(simd, block, part)
    }
}

/// Numbers of six bits, less 32; scales of eight bits with a sign for every 16 inputs.
pub(crate) struct Q6K;

/// Where the numbers of [`Q6K`] begin.
const Q6K_NUMBERS: usize = SCALES + 16 * LANES;

impl Format for Q6K {
    const INPUTS: usize = BLOCK;
    const BYTES: usize = 210;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put_half(&from[208..], 0, lane, to);
        for (run, scale) in from[192..208].iter().enumerate() {
            to[SCALES + run * LANES + lane] = *scale;
        }
        for part in 0..8 {
            let (half, quarter) = (part / 4, part % 4);
            let place = Q6K_NUMBERS + part * 6 * PLANE;
            let low = words(from, 64 * half + 32 * (quarter % 2));
            put(nibbles(low, 4 * (quarter as u32 / 2)), place, lane, to);
            let high = words(from, 128 + 32 * half);
            put(two_bits(high, 2 * quarter as u32), place + 4 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q6K {
    const OFFSET: i16 = 32;
    const HALVES: bool = true;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        let place = Q6K_NUMBERS + part * 6 * PLANE;
        let [low, high] = two_nibbles(simd, plane(simd, block, place + group * PLANE));
        let mask = simd.splat_int(0x3030_3030);
        let bits = |half: usize| {
            let plane = plane(simd, block, place + (4 + half) * PLANE);
            // Two bits a quad, from the lowest on; they belong above the nibble's four.
            let shifted = match group {
                0 => simd.shl::<4>(plane),
                1 => simd.shl::<2>(plane),
                2 => plane,
                _ => simd.shr::<2>(plane),
            };
            simd.and(shifted, mask)
        };
        both_pairs(simd, [simd.or(low, bits(0)), simd.or(high, bits(1))])
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, half: usize) -> (S::F, S::F) {
        let scale = simd.widen_i8(bytes(block, SCALES + (2 * part + half) * LANES));
        (simd.mul(halves(simd, block, 0), simd.to_float(scale)), simd.splat(0.0))
    }
}

/// Numbers of two bits; scales and minima of four bits for every 16 inputs.
pub(crate) struct Q2K;

/// Where the numbers of [`Q2K`] begin: behind scales, minima, and a byte with both for every run.
const Q2K_NUMBERS: usize = 2 * SCALES + 16 * LANES;

/// The two bits of a group's quads, a byte each.
#[inline(always)]
fn two_bit_quads<S: Simd>(simd: S, block: &[u8], place: usize, group: usize) -> [S::I; 2] {
    let mask = simd.splat_int(0x0303_0303);
    let bits = |half: usize| simd.shr_by(plane(simd, block, place + half * PLANE), 2 * group as u32);
    [simd.and(bits(0), mask), simd.and(bits(1), mask)]
}

impl Format for Q2K {
    const INPUTS: usize = BLOCK;
    const BYTES: usize = 84;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put_half(&from[80..], 0, lane, to);
        put_half(&from[82..], SCALES, lane, to);
        for (run, scale) in from[..16].iter().enumerate() {
            to[2 * SCALES + run * LANES + lane] = *scale;
        }
        for part in 0..8 {
            let numbers = two_bits(words(from, 16 + part / 4 * 32), 2 * (part as u32 % 4));
            put(numbers, Q2K_NUMBERS + part * 2 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q2K {
    const OFFSET: i16 = 0;
    const HALVES: bool = true;
    const MINIMUM: bool = true;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        both_pairs(simd, two_bit_quads(simd, block, Q2K_NUMBERS + part * 2 * PLANE, group))
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, half: usize) -> (S::F, S::F) {
        let both = simd.widen_u8(bytes(block, 2 * SCALES + (2 * part + half) * LANES));
        let scale = simd.to_float(simd.and(both, simd.splat_int(15)));
        let minimum = simd.mul(halves(simd, block, SCALES), simd.to_float(simd.shr::<4>(both)));
        (simd.mul(halves(simd, block, 0), scale), simd.sub(simd.splat(0.0), minimum))
    }
}

/// Numbers of three bits, less 4; scales of six bits, less 32, for every 16 inputs.
pub(crate) struct Q3K;

/// Where the high bits of [`Q3K`]'s scales begin: behind a byte with the low four of every two runs.
const Q3K_HIGH: usize = SCALES + 8 * LANES;

/// Where its numbers begin: behind a byte with the high two bits of every four runs.
const Q3K_NUMBERS: usize = Q3K_HIGH + 4 * LANES;

impl Format for Q3K {
    const INPUTS: usize = BLOCK;
    const BYTES: usize = 110;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put_half(&from[108..], 0, lane, to);
        let packed: &[u8; 12] = bytes(from, 96);
        let low = |run: usize| packed[run % 8] >> (run / 8 * 4) & 15;
        let high = |run: usize| packed[8 + run % 4] >> (run / 4 * 2) & 3;
        for pair in 0..8 {
            to[SCALES + pair * LANES + lane] = low(2 * pair) | low(2 * pair + 1) << 4;
        }
        for four in 0..4 {
            let bits = (0..4).map(|run| high(4 * four + run) << (2 * run));
            to[Q3K_HIGH + four * LANES + lane] = bits.fold(0, |byte, bits| byte | bits);
        }
        let third = words(from, 0);
        for part in 0..8 {
            let place = Q3K_NUMBERS + part * 3 * PLANE;
            let numbers = two_bits(words(from, 32 + part / 4 * 32), 2 * (part as u32 % 4));
            put(numbers, place, lane, to);
            put([one_bit(third, part as u32)], place + 2 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Q3K {
    const OFFSET: i16 = 4;
    const HALVES: bool = true;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        let place = Q3K_NUMBERS + part * 3 * PLANE;
        let [low, high] = two_bit_quads(simd, block, place, group);
        let third = simd.shr_by(plane(simd, block, place + 2 * PLANE), group as u32);
        let mask = simd.splat_int(0x0404_0404);
        let low = simd.or(low, simd.and(simd.shl::<2>(third), mask));
        both_pairs(simd, [low, simd.or(high, simd.and(simd.shr::<2>(third), mask))])
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, half: usize) -> (S::F, S::F) {
        let scale = six_bit_scale(simd, block, SCALES, Q3K_HIGH, 2 * part + half);
        (simd.mul(halves(simd, block, 0), scale), simd.splat(0.0))
    }
}

/// A scale of six bits, less 32: its low four share a byte with the next one's, its high two with the next three's.
#[inline(always)]
pub(super) fn six_bit_scale<S: Simd>(simd: S, block: &[u8], low: usize, high: usize, run: usize) -> S::F {
    let low = simd.widen_u8(bytes(block, low + run / 2 * LANES));
    let low = simd.and(simd.shr_by(low, 4 * (run as u32 % 2)), simd.splat_int(15));
    let high = simd.widen_u8(bytes(block, high + run / 4 * LANES));
    let high = simd.and(simd.shr_by(high, 2 * (run as u32 % 4)), simd.splat_int(3));
    simd.to_float(simd.sub_int(simd.or(low, simd.shl::<4>(high)), simd.splat_int(32)))
}
