//! Rows of activations as the standard precision multiplies them: whole numbers of 16 bits with a scale for every 32.
//!
//! A row's part `x` becomes `scale · v`: with M the largest size of its numbers, `scale = M / 32767` and `v` the
//! nearest whole numbers to `x · (32767 / M)`, halves to even. A part whose M is below 2^-100 becomes zero (its scale
//! would be none), one with a number that is not finite makes the row's every product not a number.

use std::sync::{Mutex, PoisonError};

use super::{
    buffer::{Buffer, reusable},
    formats::PART,
    isa::Isa,
    rows::PIECE_ROWS,
    simd::{Kernel, LANES, Simd, lanes},
    threads::Threads,
};

/// Pairs in a part.
pub(crate) const PAIRS: usize = PART / 2;

/// The largest number.
const MOST: f32 = 32767.0;

/// Below this a part is zero: 2^-100.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

/// Rows of whole numbers.
#[derive(Debug)]
pub(crate) struct Rounded {
    /// `[rows][inputs / 2]`: pairs as `Simd::pair` makes them.
    pub words: Buffer<i32>,
    /// `[rows][parts]`.
    pub scales: Buffer<PartScale>,
    /// In a row.
    pub parts: usize,
}

/// What a part's products are scaled by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PartScale {
    pub scale: f32,
    /// What a minimum is multiplied by: the scaled sum of all numbers.
    pub weight: f32,
    /// The sum of the numbers of each half.
    pub sums: [i32; 2],
}

reusable!(PartScale);

impl PartScale {
    /// The scaled sum of one half.
    #[inline(always)]
    pub(crate) fn half_weight(&self, half: usize) -> f32 {
        self.scale * self.sums[half] as f32
    }
}

impl Rounded {
    /// Of `x` `[rows][inputs]`; inputs are whole parts.
    pub(crate) fn new(x: &[f32], inputs: usize, isa: Isa, threads: &Threads) -> Self {
        debug_assert!(inputs.is_multiple_of(PART) && x.len().is_multiple_of(inputs));
        let parts = inputs / PART;
        let mut words = Buffer::stale(x.len() / 2);
        let mut scales = Buffer::stale(x.len() / PART);
        if x.len() <= PIECE_ROWS * inputs {
            isa.run(Round { x, words: &mut words, scales: &mut scales });
            return Self { words, scales, parts };
        }
        // Two slices of each piece go to one thread, so they are handed over together.
        let pieces = words.chunks_mut(PIECE_ROWS * inputs / 2).zip(scales.chunks_mut(PIECE_ROWS * parts));
        let pieces: Vec<_> = pieces.map(|piece| Mutex::new(Some(piece))).collect();
        threads.for_each(pieces.len(), |number| {
            let piece = pieces[number].lock().unwrap_or_else(PoisonError::into_inner).take();
            let (words, scales) = piece.expect("each is taken once");
            let x = &x[number * PIECE_ROWS * inputs..][..2 * words.len()];
            isa.run(Round { x, words, scales });
        });
        drop(pieces);
        Self { words, scales, parts }
    }

    pub(crate) fn rows(&self) -> usize {
        self.scales.len() / self.parts
    }
}

/// Rounds parts.
struct Round<'a> {
    x: &'a [f32],
    words: &'a mut [i32],
    scales: &'a mut [PartScale],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let parts = self.x.as_chunks::<PART>().0;
        let words = self.words.as_chunks_mut::<PAIRS>().0;
        for ((x, words), scale) in parts.iter().zip(words).zip(self.scales) {
            let halves = [0, LANES].map(|place| simd.load(lanes(x, place)));
            let sizes = halves.map(|half| simd.as_int(simd.abs(half)));
            // Numbers that are none are larger than infinity, and that is larger than the rest.
            let most = f32::from_bits(simd.largest_int(simd.max_int(sizes[0], sizes[1])) as u32);
            let (inverse, step) = match most {
                m if !m.is_finite() => (0.0, f32::NAN),
                m if m < LEAST => (0.0, 0.0),
                m => (MOST / m, m / MOST),
            };
            let rounded = halves.map(|half| simd.to_int(simd.mul(half, simd.splat(inverse))));
            let finite = most.is_finite();
            let numbers = if finite { rounded } else { [simd.splat_int(0); 2] };
            simd.store_int(simd.pair(numbers[0], numbers[1]), words);
            let sums = numbers.map(|half| simd.sum_int(half));
            *scale = PartScale { scale: step, weight: step * (sums[0] + sums[1]) as f32, sums };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Threads {
        Threads::new(1).expect("no thread is started")
    }

    #[test]
    fn many_rows_are_rounded_on_several_threads_as_alone() {
        let x = crate::bench::numbers(3 * PIECE_ROWS * 64 + 64);
        let three = Threads::exactly(3).expect("started");
        let together = Rounded::new(&x, 64, Isa::best(), &three);
        for (number, row) in x.chunks(64).enumerate() {
            let alone = Rounded::new(row, 64, Isa::best(), &one());
            assert_eq!(together.words[number * 32..][..32], alone.words[..]);
            let scales = &together.scales[number * 2..][..2];
            assert!(scales.iter().zip(&*alone.scales).all(|(a, b)| (a.scale, a.sums) == (b.scale, b.sums)));
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest_step_of_their_part_and_bits_are_those_of_every_set() {
        let x: Vec<f32> = crate::bench::numbers(3 * 64).iter().map(|x| x * x * 50.0).collect();
        let expected = Rounded::new(&x, 64, Isa::Portable, &one());
        assert_eq!((expected.rows(), expected.parts), (3, 2));
        for (part, x) in x.chunks(PART).enumerate() {
            let scale = expected.scales[part];
            let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert_eq!(scale.scale, most / MOST);
            let mut sums = [0, 0];
            for (place, x) in x.iter().enumerate() {
                let word = expected.words[part * PAIRS + place / 4 * 2 + place % 2];
                let number = if place % 4 < 2 { word as i16 } else { (word >> 16) as i16 };
                assert!((f32::from(number) * scale.scale - x).abs() <= scale.scale * 0.5001, "{place}");
                sums[place / LANES] += i32::from(number);
            }
            assert_eq!(scale.sums, sums);
        }
        for isa in Isa::all() {
            let got = Rounded::new(&x, 64, isa, &one());
            assert_eq!(got.words[..], expected.words[..], "{isa:?}");
            let bits = |r: &Rounded| r.scales.iter().map(|s| (s.scale.to_bits(), s.sums)).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(&expected), "{isa:?}");
        }
    }

    #[test]
    fn a_part_that_is_all_but_zero_is_zero_and_one_that_is_not_finite_is_no_number() {
        for isa in Isa::all() {
            let tiny = Rounded::new(&[1e-35; PART], PART, isa, &one());
            assert_eq!((tiny.scales[0].scale, &tiny.words[..]), (0.0, &[0; PAIRS][..]), "{isa:?}");
            for wrong in [f32::NAN, f32::INFINITY, -f32::INFINITY] {
                let mut x = [1.0; PART];
                x[17] = wrong;
                let rounded = Rounded::new(&x, PART, isa, &one());
                assert!(rounded.scales[0].scale.is_nan() && rounded.words[..] == [0; PAIRS], "{isa:?}");
            }
        }
    }
}
