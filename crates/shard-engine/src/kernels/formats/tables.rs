//! Types whose numbers of four bits name a place in a table: IQ4_NL, IQ4_XS and MXFP4.

use super::{
    Format, PART, Quantised,
    k_quants::six_bit_scale,
    planes::{PLANE, halves, plane, put, put_half, signed_pairs, two_nibbles, words},
    scaled,
};
use crate::kernels::simd::{LANES, Simd, bytes};

/// Steps that grow with the distance from zero (ggml's `kvalues_iq4nl`).
const GROWING: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of the four-bit floating point numbers of OCP's microscaling formats (E2M1).
const DOUBLED_E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The pairs of a group of places, looked up.
#[inline(always)]
fn looked_up<S: Simd>(simd: S, table: &[i8; 16], block: &[u8], place: usize) -> [S::I; 4] {
    let [low, high] = two_nibbles(simd, plane(simd, block, place));
    let [a, b] = signed_pairs(simd, simd.look_up(table, low));
    let [c, d] = signed_pairs(simd, simd.look_up(table, high));
    [a, b, c, d]
}

/// A scale for every 32 inputs.
pub(crate) struct Iq4Nl;

impl Format for Iq4Nl {
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

impl Quantised for Iq4Nl {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        looked_up(simd, &GROWING, block, group * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        (halves(simd, block, 4 * PLANE), simd.splat(0.0))
    }
}

/// A scale for 256 inputs, and one of six bits, less 32, for every 32 of them.
pub(crate) struct Iq4Xs;

/// Where the low bits of its small scales begin, the high ones, and its numbers.
const XS_LOW: usize = 2 * LANES;
const XS_HIGH: usize = XS_LOW + 4 * LANES;
const XS_NUMBERS: usize = XS_HIGH + 2 * LANES;

impl Format for Iq4Xs {
    const INPUTS: usize = 256;
    const BYTES: usize = 136;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put_half(from, 0, lane, to);
        // As the file has them: two bits a part from the lowest on, and four bits.
        for (byte, high) in from[2..4].iter().enumerate() {
            to[XS_HIGH + byte * LANES + lane] = *high;
        }
        for (byte, low) in from[4..8].iter().enumerate() {
            to[XS_LOW + byte * LANES + lane] = *low;
        }
        for part in 0..8 {
            put(words::<4>(from, 8 + 16 * part), XS_NUMBERS + part * 4 * PLANE, lane, to);
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Iq4Xs {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4] {
        looked_up(simd, &GROWING, block, XS_NUMBERS + (4 * part + group) * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, _half: usize) -> (S::F, S::F) {
        let scale = six_bit_scale(simd, block, XS_LOW, XS_HIGH, part);
        (simd.mul(halves(simd, block, 0), scale), simd.splat(0.0))
    }
}

/// A power of two for every 32 inputs.
pub(crate) struct Mxfp4;

impl Format for Mxfp4 {
    const INPUTS: usize = PART;
    const BYTES: usize = 17;

    #[inline(always)]
    fn pack(from: &[u8], lane: usize, to: &mut [u8]) {
        put(words::<4>(from, 1), 0, lane, to);
        to[4 * PLANE + lane] = from[0];
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F)) {
        scaled::<Self, S>(simd, block, part, each);
    }
}

impl Quantised for Mxfp4 {
    const OFFSET: i16 = 0;
    const HALVES: bool = false;
    const MINIMUM: bool = false;

    #[inline(always)]
    fn quads<S: Simd>(simd: S, block: &[u8], _part: usize, group: usize) -> [S::I; 4] {
        looked_up(simd, &DOUBLED_E2M1, block, group * PLANE)
    }

    #[inline(always)]
    fn scales<S: Simd>(simd: S, block: &[u8], _part: usize, _half: usize) -> (S::F, S::F) {
        // 2^(exponent - 127), halved for the doubled table. The two smallest are no normal numbers any more: 2^-127 and
        // 2^-128 are the bits 1 << 22 and 1 << 21.
        let exponent = simd.widen_u8(bytes(block, 4 * PLANE));
        let normal =
            simd.shl::<23>(simd.max_int(simd.sub_int(exponent, simd.splat_int(1)), simd.splat_int(0)));
        let none = simd.max_int(simd.sub_int(simd.splat_int(2), exponent), simd.splat_int(0));
        // 2, 1 and 0 for exponents of 0, 1 and above: bits 1 << 21, 1 << 22 and none.
        let small = simd.or(
            simd.shl::<22>(simd.and(none, simd.splat_int(1))),
            simd.shl::<20>(simd.and(none, simd.splat_int(2))),
        );
        (simd.as_float(simd.or(normal, small)), simd.splat(0.0))
    }
}
