//! Grouped-query attention of one row over its session's cache.
//!
//! A row looks at the positions up to its own, in order, and every sum has one fixed order; so it does not matter in
//! which chunk the row came or which other rows are in the batch.

use super::{
    isa::Isa,
    simd::{Kernel, Simd},
};

/// Sums run in this many lanes that are added up at the end.
const LANES: usize = 16;

/// The shape of attention, and the cache up to and including the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// `[positions][kv_heads][head]`.
    pub keys: &'a [f32],
    /// As `keys`.
    pub values: &'a [f32],
    pub kv_heads: usize,
    pub head: usize,
    /// What the product of a query and a key is multiplied by.
    pub scale: f32,
}

/// One row's attention.
struct Attention<'a> {
    query: &'a [f32],
    context: Context<'a>,
    out: &'a mut [f32],
}

/// `query` and `out` are `[heads][head]`.
pub(crate) fn attend(query: &[f32], context: Context<'_>, isa: Isa, out: &mut [f32]) {
    isa.run(Attention { query, context, out });
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Context { keys, values, kv_heads, head, scale } = self.context;
        let width = kv_heads * head;
        let group = self.query.len() / width;
        let mut scores = Vec::with_capacity(keys.len() / width);
        let heads = self.query.chunks_exact(head).zip(self.out.chunks_exact_mut(head));
        for (number, (query, out)) in heads.enumerate() {
            let start = number / group * head;
            scores.clear();
            scores.extend(keys.chunks_exact(width).map(|row| scale * dot(query, &row[start..start + head])));
            let sum = exponentials(&mut scores);
            out.fill(0.0);
            for (score, row) in scores.iter().zip(values.chunks_exact(width)) {
                for (o, value) in out.iter_mut().zip(&row[start..start + head]) {
                    *o += score * value;
                }
            }
            out.iter_mut().for_each(|o| *o /= sum);
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (blocks_a, rest_a) = a.as_chunks::<LANES>();
    let (blocks_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in blocks_a.iter().zip(blocks_b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Turns scores into exponentials relative to the largest; gives their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_weighs_values_by_how_well_their_keys_fit() {
        let keys = [10.0, 0.0, 0.0, 10.0];
        let values = [1.0, 2.0, 3.0, 4.0];
        let context = Context { keys: &keys, values: &values, kv_heads: 1, head: 2, scale: 0.5f32.sqrt() };
        let mut out = [0.0; 4];
        attend(&[9.0, 0.0, 0.0, 9.0], context, Isa::best(), &mut out);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(
            near(out[0], 1.0) && near(out[1], 2.0),
            "the first head looks at the first position: {out:?}"
        );
        assert!(near(out[2], 3.0) && near(out[3], 4.0), "the second at the second: {out:?}");
    }
}
