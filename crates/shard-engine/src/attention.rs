//! Grouped-query attention of one row over its session's cache.
//!
//! A row looks at the positions up to its own, in order, and every sum has one fixed order; so it does not matter in
//! which chunk the row came or who else is in the batch.

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
}

/// `query` and `out` are `[heads][head]`.
pub(crate) fn attend(query: &[f32], context: Context<'_>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has AVX2 and FMA, as just checked.
        #[allow(unsafe_code)]
        unsafe {
            attend_avx2(query, context, out);
        }
        return;
    }
    attend_rows(query, context, out);
}

/// The portable code, compiled for AVX2.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[target_feature(enable = "avx2,fma")]
unsafe fn attend_avx2(query: &[f32], context: Context<'_>, out: &mut [f32]) {
    attend_rows(query, context, out);
}

#[inline(always)]
fn attend_rows(query: &[f32], context: Context<'_>, out: &mut [f32]) {
    let Context { keys, values, kv_heads, head } = context;
    let width = kv_heads * head;
    let group = query.len() / width;
    let scale = 1.0 / (head as f32).sqrt();
    let mut scores = Vec::with_capacity(keys.len() / width);
    for (number, (query, out)) in query.chunks_exact(head).zip(out.chunks_exact_mut(head)).enumerate() {
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
        let context = Context { keys: &keys, values: &values, kv_heads: 1, head: 2 };
        let mut out = [0.0; 4];
        attend(&[9.0, 0.0, 0.0, 9.0], context, &mut out);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(
            near(out[0], 1.0) && near(out[1], 2.0),
            "the first head looks at the first position: {out:?}"
        );
        assert!(near(out[2], 3.0) && near(out[3], 4.0), "the second at the second: {out:?}");
    }
}
