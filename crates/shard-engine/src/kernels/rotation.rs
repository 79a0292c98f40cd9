//! Turns pairs of numbers by angles.

use super::{
    isa::Isa,
    simd::{Kernel, Simd},
};

/// Which numbers of a head are a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pairs {
    /// 2i and 2i + 1.
    Adjacent,
    /// i and i + the number of pairs.
    Halves,
}

/// Turns each pair of every head of `row` `[heads][head]` by its angle; what a head has beyond the pairs stays.
pub(crate) fn rotate(row: &mut [f32], head: usize, cosines: &[f32], sines: &[f32], pairs: Pairs, isa: Isa) {
    isa.run(Rotate { row, head, cosines, sines, pairs });
}

struct Rotate<'a> {
    row: &'a mut [f32],
    head: usize,
    cosines: &'a [f32],
    sines: &'a [f32],
    pairs: Pairs,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    // Plain code: each product and sum is rounded by itself, whatever the compiler makes of it for a set.
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Self { row, head, cosines, sines, pairs } = self;
        let angles = cosines.iter().zip(sines);
        for values in row.chunks_exact_mut(head) {
            match pairs {
                Pairs::Adjacent => {
                    let (pairs, _) = values.as_chunks_mut::<2>();
                    for ([x, y], (cosine, sine)) in pairs.iter_mut().zip(angles.clone()) {
                        (*x, *y) = (*x * cosine - *y * sine, *x * sine + *y * cosine);
                    }
                }
                Pairs::Halves => {
                    let (first, second) = values[..2 * cosines.len()].split_at_mut(cosines.len());
                    for ((x, y), (cosine, sine)) in first.iter_mut().zip(second).zip(angles.clone()) {
                        (*x, *y) = (*x * cosine - *y * sine, *x * sine + *y * cosine);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::numbers;

    #[test]
    fn every_instruction_set_turns_pairs_to_the_same_bits() {
        for (head, count) in [(16, 8), (40, 20), (128, 64), (33, 5)] {
            for pairs in [Pairs::Adjacent, Pairs::Halves] {
                let (row, angles) = (numbers(3 * head), numbers(2 * count));
                let (cosines, sines) = angles.split_at(count);
                let turned = |isa| {
                    let mut row = row.clone();
                    rotate(&mut row, head, cosines, sines, pairs, isa);
                    row
                };
                let expected = turned(Isa::Portable);
                let second = if pairs == Pairs::Adjacent { 1 } else { count };
                assert_eq!(expected[0], row[0] * cosines[0] - row[second] * sines[0]);
                assert_eq!(expected[second], row[0] * sines[0] + row[second] * cosines[0]);
                assert_eq!(expected[2 * count..head], row[2 * count..head], "the rest stays");
                for isa in Isa::all() {
                    assert!(turned(isa) == expected, "{isa:?} {pairs:?} {head}");
                }
            }
        }
    }
}
