//! How weights of each type lie in memory: the file's bytes, one to one, in another order.
//!
//! A *panel* is [`LANES`] outputs. For each block of its inputs the panel has one block of [`LANES`] × the file's
//! bytes: planes of 64 bytes in which every output has four bytes in its own lane, and the outputs' scales side by
//! side. So a vector of weights is one load, no output ever meets another, and nothing is held twice.
//!
//! Inputs come in *parts* of 32, and within a part in eight *quads* of four. A load gives quad `g` of a part and quad
//! `g + 4`, as two vectors each of `i16` pairs: inputs 0 and 2 of the quad, then 1 and 3. Activations are paired
//! likewise (`rounded.rs`). Each half of a part (quads 0 to 3, quads 4 to 7) may have a scale of its own.
//!
//! Sources: the block structures and their meaning are those of ggml (`ggml-common.h`, `ggml-quants.c`).

mod k_quants;
mod planes;
mod simple;
mod tables;

pub(crate) use k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(crate) use simple::{Bf16, F16, F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(crate) use tables::{Iq4Nl, Iq4Xs, Mxfp4};

use super::simd::{LANES, Simd};

/// Inputs in a part.
pub(crate) const PART: usize = 32;

/// What every type of weights has.
pub(crate) trait Format: Send + Sync + 'static {
    /// Inputs in a block: whole parts.
    const INPUTS: usize;
    /// Bytes of one output's block in the file.
    const BYTES: usize;

    /// Puts one output's block from the file into its lane of the panel's block.
    fn pack(from: &[u8], lane: usize, to: &mut [u8]);

    /// The weights of a part of a panel's block, exactly as they are meant, in order of inputs.
    fn weights<S: Simd>(simd: S, block: &[u8], part: usize, each: impl FnMut(usize, S::F));
}

/// Whole numbers with scales.
pub(crate) trait Quantised: Format {
    /// What is taken off every number.
    const OFFSET: i16;
    /// The two halves of a part have scales of their own.
    const HALVES: bool;
    /// Something is added to the scaled numbers.
    const MINIMUM: bool;

    /// Quads `group` and `group + 4` of a part, two vectors of pairs each, the offset not taken off yet.
    fn quads<S: Simd>(simd: S, block: &[u8], part: usize, group: usize) -> [S::I; 4];

    /// Scale and minimum of a half of a part; those of a whole part are those of its first half. The minimum is what is
    /// added.
    fn scales<S: Simd>(simd: S, block: &[u8], part: usize, half: usize) -> (S::F, S::F);
}

/// [`Format::weights`] of whole numbers with scales: `scale · number`, or `scale · number + minimum` rounded once.
#[inline(always)]
fn scaled<Q: Quantised, S: Simd>(simd: S, block: &[u8], part: usize, mut each: impl FnMut(usize, S::F)) {
    let offset = simd.splat_int(Q::OFFSET.into());
    let scales = [0, 1].map(|half| Q::scales(simd, block, part, if Q::HALVES { half } else { 0 }));
    for group in 0..4 {
        let quads = Q::quads(simd, block, part, group);
        for half in 0..2 {
            let [even, odd] = [quads[2 * half], quads[2 * half + 1]];
            let (scale, minimum) = scales[half];
            let numbers =
                [low_half(simd, even), low_half(simd, odd), simd.sra::<16>(even), simd.sra::<16>(odd)];
            for (place, number) in numbers.into_iter().enumerate() {
                let number = simd.to_float(simd.sub_int(number, offset));
                let weight =
                    if Q::MINIMUM { simd.mul_add(scale, number, minimum) } else { simd.mul(scale, number) };
                each(16 * half + 4 * group + place, weight);
            }
        }
    }
}

#[inline(always)]
fn low_half<S: Simd>(simd: S, pairs: S::I) -> S::I {
    simd.sra::<16>(simd.shl::<16>(pairs))
}

/// Panels that hold so many outputs.
pub(crate) fn panels(outputs: usize) -> usize {
    outputs.div_ceil(LANES)
}
