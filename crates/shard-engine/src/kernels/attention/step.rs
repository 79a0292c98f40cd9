//! Some queries at one block of positions.
//!
//! Of each query the largest score so far, the sum of the weights and the weighted values are kept; a block with a
//! larger score scales them down (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).

use std::{array, marker::PhantomData, ops::Range};

use crate::kernels::{
    math,
    page::{Block, Element, POSITIONS, TILES},
    rows::bend_lanes,
    simd::{Kernel, LANES, Simd, lanes, lanes_mut},
};

/// Most queries in a step, on any instruction set.
pub(super) const MOST: usize = 8;

/// What is known of a query's weights: the largest score, and the sum of the weights, each relative to that.
pub(super) type State = [f32; 2];

/// Before the first block.
pub(super) const NOTHING: State = [f32::NEG_INFINITY, 0.0];

/// Some queries at one block.
pub(super) struct Step<'a> {
    pub block: Block<'a>,
    /// Where to look next.
    pub ahead: Option<Block<'a>>,
    /// `[queries][head filled up]`.
    pub queries: &'a [f32],
    /// Up to which of the block's positions each of them looks, at least the first; rising.
    pub seen: [usize; MOST],
    /// How many of these come before its window.
    pub unseen: [usize; MOST],
    /// What scores are bent to stay within.
    pub cap: Option<f32>,
    pub states: &'a mut [State],
    /// As `queries`.
    pub out: &'a mut [f32],
    pub padded: usize,
}

/// Of each position of a block, for each of `Q` queries.
type Weights<const Q: usize> = [[[f32; LANES]; TILES]; Q];

/// A step of `Q` queries, with `W` vectors of keys or of values at a time: each a function of its own.
struct Sized<'a, E, const Q: usize, const W: usize>(Step<'a>, PhantomData<E>);

impl<E: Element, const Q: usize, const W: usize> Kernel for Sized<'_, E, Q, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.run::<S, E, Q, W>(simd);
    }
}

impl<'a> Step<'a> {
    fn sized<E, const Q: usize, const W: usize>(self) -> Sized<'a, E, Q, W> {
        Sized(self, PhantomData)
    }

    /// With as many queries as there are, and as many vectors beside them as there are registers for.
    #[inline(always)]
    pub(super) fn run_sized<S: Simd, E: Element>(self, simd: S) {
        // Branches of constants, so that only one of them is compiled for a set.
        if !S::SEVERAL {
            simd.call(self.sized::<E, 1, 1>());
        } else if S::ROOMY {
            match self.states.len() {
                1 => simd.call(self.sized::<E, 1, 4>()),
                2 => simd.call(self.sized::<E, 2, 4>()),
                3 => simd.call(self.sized::<E, 3, 4>()),
                4 => simd.call(self.sized::<E, 4, 4>()),
                5 => simd.call(self.sized::<E, 5, 4>()),
                6 => simd.call(self.sized::<E, 6, 4>()),
                7 => simd.call(self.sized::<E, 7, 4>()),
                _ => simd.call(self.sized::<E, MOST, 2>()),
            }
        } else {
            match self.states.len() {
                1 => simd.call(self.sized::<E, 1, 4>()),
                2 => simd.call(self.sized::<E, 2, 2>()),
                3 => simd.call(self.sized::<E, 3, 2>()),
                4 => simd.call(self.sized::<E, 4, 1>()),
                5 => simd.call(self.sized::<E, 5, 1>()),
                _ => simd.call(self.sized::<E, 6, 1>()),
            }
        }
    }

    #[inline(always)]
    fn run<S: Simd, E: Element, const Q: usize, const W: usize>(mut self, simd: S) {
        let mut weights = [[[0.0; LANES]; TILES]; Q];
        self.scores::<S, E, Q, W>(simd, &mut weights);
        let (mut kept, mut sums) = ([0.0; LANES], [0.0; Q]);
        if let Some(cap) = self.cap {
            weights.iter_mut().flatten().for_each(|scores| bend_lanes(simd, scores, cap));
        }
        for (query, (state, weights)) in self.states.iter_mut().zip(&mut weights).enumerate() {
            let looked_at = self.unseen[query]..self.seen[query];
            (kept[query], sums[query]) = weigh(simd, weights, looked_at, &mut state[0]);
        }
        let before = simd.load(&kept);
        simd.store(math::exp(simd, before), &mut kept);
        for (([_, state], kept), sum) in self.states.iter_mut().zip(kept).zip(sums) {
            *state = *state * kept + sum;
        }
        let width = self.padded / LANES;
        let whole = width / W * W;
        for first in (0..whole).step_by(W) {
            self.values::<S, E, Q, W>(simd, first, &weights, &kept);
        }
        for first in whole..width {
            self.values::<S, E, Q, 1>(simd, first, &weights, &kept);
        }
    }

    /// The product of each query with each key of the block.
    #[inline(always)]
    fn scores<S: Simd, E: Element, const Q: usize, const W: usize>(&self, simd: S, scores: &mut Weights<Q>) {
        let padded = self.padded;
        let keys = E::vectors(self.block.keys);
        let queries: [&[f32]; Q] = array::from_fn(|query| &self.queries[query * padded..][..padded]);
        for first in (0..TILES).step_by(W) {
            let tiles: [&[E::Vector]; W] = array::from_fn(|tile| &keys[(first + tile) * padded..][..padded]);
            let mut sums = [[simd.splat(0.0); Q]; W];
            for number in 0..padded {
                for (tile, sums) in tiles.iter().zip(&mut sums) {
                    let key = E::load(simd, &tile[number]);
                    for (query, sum) in queries.iter().zip(sums) {
                        *sum = simd.mul_add(simd.splat(query[number]), key, *sum);
                    }
                }
                if let Some(ahead) = self.ahead {
                    for tile in 0..W {
                        let place = (first + tile) * padded + number;
                        simd.prefetch(ahead.keys, place * E::BYTES * LANES);
                    }
                }
            }
            for (tile, sums) in sums.into_iter().enumerate() {
                for (sum, scores) in sums.into_iter().zip(scores.iter_mut()) {
                    simd.store(sum, &mut scores[first + tile]);
                }
            }
        }
    }

    /// Adds the block's weighted values to what each query has of them; `W` vectors from `first` on.
    #[inline(always)]
    fn values<S: Simd, E: Element, const Q: usize, const W: usize>(
        &mut self,
        simd: S,
        first: usize,
        weights: &Weights<Q>,
        kept: &[f32; LANES],
    ) {
        let (padded, width) = (self.padded, self.padded / LANES);
        let mut sums = [[simd.splat(0.0); Q]; W];
        for (vector, sums) in sums.iter_mut().enumerate() {
            for (query, (sum, kept)) in sums.iter_mut().zip(kept).enumerate() {
                let before = lanes(self.out, query * padded + (first + vector) * LANES);
                *sum = simd.mul(simd.load(before), simd.splat(*kept));
            }
        }
        let weights: [&[f32; POSITIONS]; Q] = array::from_fn(|query| flat(&weights[query]));
        let rows = E::vectors(self.block.values).chunks_exact(width);
        // The last query looks furthest; what others do not look at weighs nothing.
        for (position, row) in rows.take(self.seen[Q - 1]).enumerate() {
            let row: &[E::Vector; W] = row[first..].first_chunk().expect("a row has so many");
            for (value, sums) in row.iter().zip(&mut sums) {
                let value = E::load(simd, value);
                for (weights, sum) in weights.iter().zip(sums) {
                    *sum = simd.mul_add(simd.splat(weights[position]), value, *sum);
                }
            }
            if let Some(ahead) = self.ahead {
                simd.prefetch(ahead.values, (position * width + first) * E::BYTES * LANES);
            }
        }
        for (vector, sums) in sums.into_iter().enumerate() {
            for (query, sum) in sums.into_iter().enumerate() {
                simd.store(sum, lanes_mut(self.out, query * padded + (first + vector) * LANES));
            }
        }
    }
}

/// Turns one query's scores into weights relative to the largest so far, which may grow. Gives by what exponent the
/// weights before it shrink, and the sum of the new ones.
#[inline(always)]
fn weigh<S: Simd>(
    simd: S,
    scores: &mut [[f32; LANES]; TILES],
    looked_at: Range<usize>,
    largest: &mut f32,
) -> (f32, f32) {
    let mut masked = scores.each_ref().map(|scores| simd.load(scores));
    if looked_at.end < POSITIONS {
        for (tile, scores) in masked.iter_mut().enumerate() {
            *scores = mask(simd, *scores, POSITIONS - looked_at.end + tile * LANES, &UP_TO);
        }
    }
    if looked_at.start > 0 {
        for (tile, scores) in masked.iter_mut().enumerate() {
            *scores = mask(simd, *scores, POSITIONS - looked_at.start + tile * LANES, &FROM);
        }
    }
    let [a, b, c, d] = masked;
    let new = simd.largest(simd.max(simd.max(a, b), simd.max(c, d)));
    let before = *largest;
    *largest = if new > before { new } else { before };
    let mut sum = simd.splat(0.0);
    for (masked, weights) in masked.into_iter().zip(scores) {
        let weight = math::exp(simd, simd.sub(masked, simd.splat(*largest)));
        simd.store(weight, weights);
        sum = simd.add(sum, weight);
    }
    (before - *largest, simd.sum(sum))
}

/// Which scores stay, as masks, and what the others become: for twice as many positions as a block has.
struct Mask {
    keep: [i32; 2 * POSITIONS],
    fill: [i32; 2 * POSITIONS],
}

/// Minus infinity.
const NEVER: i32 = f32::NEG_INFINITY.to_bits() as i32;
/// As many scores that stay as a block has positions, then none.
static UP_TO: Mask = Mask { keep: steps(-1, 0), fill: steps(0, NEVER) };
/// The other way round.
static FROM: Mask = Mask { keep: steps(0, -1), fill: steps(NEVER, 0) };

const fn steps(first: i32, second: i32) -> [i32; 2 * POSITIONS] {
    let mut steps = [first; 2 * POSITIONS];
    let mut place = POSITIONS;
    while place < 2 * POSITIONS {
        steps[place] = second;
        place += 1;
    }
    steps
}

/// Scores of what is not looked at become minus infinity, whatever they are: `place` is that of the first in the mask.
#[inline(always)]
fn mask<S: Simd>(simd: S, scores: S::F, place: usize, mask: &Mask) -> S::F {
    let at =
        |steps: &[i32; 2 * POSITIONS]| *steps[place..].first_chunk().expect("two blocks are long enough");
    let (keep, fill) = (simd.load_int(&at(&mask.keep)), simd.load_int(&at(&mask.fill)));
    simd.as_float(simd.or(simd.and(simd.as_int(scores), keep), fill))
}

#[inline(always)]
fn flat(tiles: &[[f32; LANES]; TILES]) -> &[f32; POSITIONS] {
    tiles.as_flattened().first_chunk().expect("tiles are a block")
}
