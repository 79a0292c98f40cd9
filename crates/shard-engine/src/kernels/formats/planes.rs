//! Planes of a panel's block, and how they are filled and read.

use crate::kernels::simd::{LANES, Simd, bytes};

/// Bytes of a plane: four for each output.
pub(super) const PLANE: usize = 4 * LANES;

/// A word of the file, and the word of a lane in a plane.
#[inline(always)]
pub(super) fn word(from: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(*bytes(from, place))
}

/// `COUNT` words of the file.
#[inline(always)]
pub(super) fn words<const COUNT: usize>(from: &[u8], place: usize) -> [u32; COUNT] {
    std::array::from_fn(|number| word(from, place + 4 * number))
}

/// Puts a lane's words into consecutive planes.
#[inline(always)]
pub(super) fn put<const COUNT: usize>(words: [u32; COUNT], place: usize, lane: usize, to: &mut [u8]) {
    for (number, word) in words.into_iter().enumerate() {
        let start = place + number * PLANE + 4 * lane;
        to[start..start + 4].copy_from_slice(&word.to_le_bytes());
    }
}

/// Puts a lane's half-precision number (or any other of two bytes) among those of the other lanes.
#[inline(always)]
pub(super) fn put_half(from: &[u8], place: usize, lane: usize, to: &mut [u8]) {
    to[place + 2 * lane..place + 2 * lane + 2].copy_from_slice(&from[..2]);
}

/// Eight words of bytes with a nibble each at `shift`: four words whose byte t has number t of quad g below and of quad
/// g + 4 above.
#[inline(always)]
pub(super) fn nibbles(from: [u32; 8], shift: u32) -> [u32; 4] {
    let at = |number: usize| from[number] >> shift & 0x0f0f_0f0f;
    std::array::from_fn(|group| at(group) | at(group + 4) << 4)
}

/// Eight words of bytes with two bits each at `shift`: two words, for quads 0 to 3 and 4 to 7, whose byte t has the
/// bits of number t of four quads.
#[inline(always)]
pub(super) fn two_bits(from: [u32; 8], shift: u32) -> [u32; 2] {
    let at = |number: usize| from[number] >> shift & 0x0303_0303;
    std::array::from_fn(|half| {
        (0..4).map(|quad| at(4 * half + quad) << (2 * quad)).fold(0, |word, bits| word | bits)
    })
}

/// Eight words of bytes with a bit each at `shift`: a word whose byte t has the bits of number t of eight quads.
#[inline(always)]
pub(super) fn one_bit(from: [u32; 8], shift: u32) -> u32 {
    let at = |number: usize| from[number] >> shift & 0x0101_0101;
    (0..8).map(|quad| at(quad) << quad).fold(0, |word, bits| word | bits)
}

/// The same from a word with one bit for each of 32 inputs.
#[inline(always)]
pub(super) fn spread_bits(bits: u32) -> u32 {
    // Bit t of a nibble to the lowest bit of byte t.
    let spread = |quad: u32| (bits >> (4 * quad) & 15).wrapping_mul(0x0020_4081) & 0x0101_0101;
    (0..8).map(|quad| spread(quad) << quad).fold(0, |word, bits| word | bits)
}

/// The bytes of a plane.
#[inline(always)]
pub(super) fn plane<S: Simd>(simd: S, block: &[u8], place: usize) -> S::I {
    simd.load_bytes(bytes(block, place))
}

/// The low and the high nibbles of a plane, a byte each.
#[inline(always)]
pub(super) fn two_nibbles<S: Simd>(simd: S, plane: S::I) -> [S::I; 2] {
    let mask = simd.splat_int(0x0f0f_0f0f);
    [simd.and(plane, mask), simd.and(simd.shr::<4>(plane), mask)]
}

/// Bytes without a sign, as two vectors of pairs: 0 and 2, 1 and 3.
#[inline(always)]
pub(super) fn pairs<S: Simd>(simd: S, bytes: S::I) -> [S::I; 2] {
    [simd.and(bytes, simd.splat_int(0x00ff_00ff)), simd.shr16::<8>(bytes)]
}

/// Bytes with a sign, likewise.
#[inline(always)]
pub(super) fn signed_pairs<S: Simd>(simd: S, bytes: S::I) -> [S::I; 2] {
    [simd.sra16::<8>(simd.shl16::<8>(bytes)), simd.sra16::<8>(bytes)]
}

/// The pairs of the two quads of a group of nibbles.
#[inline(always)]
pub(super) fn nibble_quads<S: Simd>(simd: S, block: &[u8], place: usize) -> [S::I; 4] {
    // Shifts and one mask: as many steps as `pairs` of `two_nibbles`, less two.
    let (plane, mask) = (plane(simd, block, place), simd.splat_int(0x000f_000f));
    [
        simd.and(plane, mask),
        simd.and(simd.shr16::<8>(plane), mask),
        simd.and(simd.shr16::<4>(plane), mask),
        simd.shr16::<12>(plane),
    ]
}

/// The pairs of two quads of bytes without a sign.
#[inline(always)]
pub(super) fn both_pairs<S: Simd>(simd: S, [low, high]: [S::I; 2]) -> [S::I; 4] {
    let ([a, b], [c, d]) = (pairs(simd, low), pairs(simd, high));
    [a, b, c, d]
}

/// Half-precision numbers of all outputs.
#[inline(always)]
pub(super) fn halves<S: Simd>(simd: S, block: &[u8], place: usize) -> S::F {
    simd.load_half(bytes(block, place))
}
