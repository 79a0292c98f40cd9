//! What is done to the numbers of rows one by one: norms, gates, sums.

use super::{
    buffer::Buffer,
    isa::Isa,
    math,
    simd::{Kernel, LANES, Simd, padded},
    threads::Threads,
};

/// Rows of a piece of work: what is handed to another thread must be worth it.
pub(crate) const PIECE_ROWS: usize = 32;

/// Numbers of a piece of work where rows do not matter: whole vectors.
const NUMBERS: usize = 1 << 14;

/// Root-mean-square normalisation (Zhang and Sennrich, 2019) of rows as long as `weights`. A row whose squares overflow
/// comes out as NaN: it would be all zeros otherwise, which nobody could tell from an answer.
///
/// Squares are summed in sixteen lanes; what a row has beyond whole lanes counts as if zeros followed.
pub(crate) fn root_mean_square(
    x: &[f32],
    weights: &[f32],
    epsilon: f32,
    isa: Isa,
    threads: &Threads,
) -> Buffer<f32> {
    let mut out = Buffer::stale(x.len());
    let piece = PIECE_ROWS * weights.len();
    threads.for_chunks(&mut out, piece, |number, out| {
        let x = &x[number * piece..][..out.len()];
        isa.run(RootMeanSquare { x, weights, epsilon, out });
    });
    out
}

/// What a layer normalisation is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerNorm<'a> {
    /// Of one row, or of some rows that come again and again.
    pub weights: &'a [f32],
    /// Numbers in a row.
    pub size: usize,
    pub epsilon: f32,
}

/// Layer normalisation (Ba, Kiros and Hinton, 2016) without an offset. A row whose numbers or squares overflow comes
/// out as NaN.
///
/// Sums are as those of squares above.
pub(crate) fn layer_norm(x: &[f32], norm: LayerNorm<'_>, isa: Isa, threads: &Threads) -> Buffer<f32> {
    let mut out = Buffer::stale(x.len());
    let piece = PIECE_ROWS * norm.weights.len();
    threads.for_chunks(&mut out, piece, |number, out| {
        let x = &x[number * piece..][..out.len()];
        isa.run(LayerNormed { x, norm, out });
    });
    out
}

/// `silu(gate) · up`, into `gate`.
pub(crate) fn silu_gate(gate: &mut [f32], up: &[f32], isa: Isa, threads: &Threads) {
    pairs(Pair::SiluGate, gate, up, isa, threads);
}

/// `gelu(gate) · up`, into `gate`.
pub(crate) fn gelu_gate(gate: &mut [f32], up: &[f32], isa: Isa, threads: &Threads) {
    pairs(Pair::GeluGate, gate, up, isa, threads);
}

/// `g / (1 + e^-1.702g) · (up + 1)` of gates `g` of at most 7 and of `up` within 7, into `gate` (gpt-oss, 2025).
pub(crate) fn clamped_gate(gate: &mut [f32], up: &[f32], isa: Isa, threads: &Threads) {
    pairs(Pair::ClampedGate, gate, up, isa, threads);
}

/// `x + y`, into `x`.
pub(crate) fn add(x: &mut [f32], y: &[f32], isa: Isa, threads: &Threads) {
    pairs(Pair::Sum, x, y, isa, threads);
}

/// `cap · tanh(x / cap)`, into `x`.
pub(crate) fn bend(x: &mut [f32], cap: f32, isa: Isa, threads: &Threads) {
    threads.for_chunks(x, NUMBERS, |_, x| isa.run(Bend { x, cap }));
}

struct Bend<'a> {
    x: &'a mut [f32],
    cap: f32,
}

impl Kernel for Bend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (x, rest) = self.x.as_chunks_mut::<LANES>();
        x.iter_mut().for_each(|x| bend_lanes(simd, x, self.cap));
        let mut lanes = padded(rest);
        bend_lanes(simd, &mut lanes, self.cap);
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

/// `cap · tanh(x / cap)` of each number.
#[inline(always)]
pub(crate) fn bend_lanes<S: Simd>(simd: S, x: &mut [f32; LANES], cap: f32) {
    let share = simd.div(simd.load(x), simd.splat(cap));
    simd.store(simd.mul(math::tanh(simd, share), simd.splat(cap)), x);
}

fn pairs(of: Pair, x: &mut [f32], y: &[f32], isa: Isa, threads: &Threads) {
    threads.for_chunks(x, NUMBERS, |number, x| {
        let y = &y[number * NUMBERS..][..x.len()];
        isa.run(Pairs { of, x, y });
    });
}

struct RootMeanSquare<'a> {
    x: &'a [f32],
    weights: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

/// What becomes of two numbers.
#[derive(Clone, Copy, Debug)]
enum Pair {
    SiluGate,
    GeluGate,
    ClampedGate,
    Sum,
}

/// Of clamped gates: how steep the logistic function is, and within what numbers are held.
const STEEPNESS: f32 = 1.702;
const BOUND: f32 = 7.0;

/// Each of `x` with its number of `y`, into `x`.
struct Pairs<'a> {
    of: Pair,
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for RootMeanSquare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = self.weights.len();
        for (row, out) in self.x.chunks_exact(size).zip(self.out.chunks_exact_mut(size)) {
            let scale = simd.splat(scale(simd, row, self.epsilon));
            let (from, from_rest) = row.as_chunks::<LANES>();
            let (weights, weights_rest) = self.weights.as_chunks::<LANES>();
            let (to, to_rest) = out.as_chunks_mut::<LANES>();
            for ((x, w), y) in from.iter().zip(weights).zip(to) {
                simd.store(simd.mul(simd.mul(simd.load(x), scale), simd.load(w)), y);
            }
            let (x, w) = (simd.load(&padded(from_rest)), simd.load(&padded(weights_rest)));
            let mut rest = [0.0; LANES];
            simd.store(simd.mul(simd.mul(x, scale), w), &mut rest);
            to_rest.copy_from_slice(&rest[..to_rest.len()]);
        }
    }
}

struct LayerNormed<'a> {
    x: &'a [f32],
    norm: LayerNorm<'a>,
    out: &'a mut [f32],
}

impl Kernel for LayerNormed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LayerNorm { weights, size, epsilon } = self.norm;
        let rows = self.x.chunks_exact(size).zip(self.out.chunks_exact_mut(size));
        for ((row, out), weights) in rows.zip(weights.chunks_exact(size).cycle()) {
            let mean = sum(simd, row) / size as f32;
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x - mean);
            let scale = scale(simd, out, epsilon);
            out.iter_mut().zip(weights).for_each(|(out, weight)| *out = *out * scale * weight);
        }
    }
}

/// In sixteen lanes.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let lanes = chunks.iter().fold(simd.splat(0.0), |sum, x| simd.add(sum, simd.load(x)));
    simd.sum(simd.add(lanes, simd.load(&padded(rest))))
}

/// What a row is multiplied by.
#[inline(always)]
fn scale<S: Simd>(simd: S, row: &[f32], epsilon: f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut squares = simd.splat(0.0);
    for x in chunks {
        let x = simd.load(x);
        squares = simd.mul_add(x, x, squares);
    }
    let x = simd.load(&padded(rest));
    let squares = simd.sum(simd.mul_add(x, x, squares));
    let root = (squares / row.len() as f32 + epsilon).sqrt();
    if root.is_finite() { 1.0 / root } else { f32::NAN }
}

impl Kernel for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        debug_assert_eq!(self.x.len(), self.y.len());
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        let (y, y_rest) = self.y.as_chunks::<LANES>();
        for (x, y) in x.iter_mut().zip(y) {
            let value = self.of.value(simd, simd.load(x), simd.load(y));
            simd.store(value, x);
        }
        let value = self.of.value(simd, simd.load(&padded(x_rest)), simd.load(&padded(y_rest)));
        let mut rest = [0.0; LANES];
        simd.store(value, &mut rest);
        x_rest.copy_from_slice(&rest[..x_rest.len()]);
    }
}

impl Pair {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::F, y: S::F) -> S::F {
        match self {
            Self::SiluGate => simd.mul(math::silu(simd, x), y),
            Self::GeluGate => simd.mul(math::gelu(simd, x), y),
            Self::ClampedGate => {
                // silu(s · g) / s = g / (1 + e^-sg).
                let steep = simd.mul(simd.splat(STEEPNESS), at_most(simd, x));
                let gate = simd.mul(math::silu(simd, steep), simd.splat(1.0 / STEEPNESS));
                let up = simd.max(simd.splat(-BOUND), at_most(simd, y));
                simd.mul(gate, simd.add(up, simd.splat(1.0)))
            }
            Self::Sum => simd.add(x, y),
        }
    }
}

/// The smaller of each number and the bound; what is not a number stays none.
#[inline(always)]
fn at_most<S: Simd>(simd: S, x: S::F) -> S::F {
    let zero = simd.splat(0.0);
    simd.sub(zero, simd.max(simd.splat(-BOUND), simd.sub(zero, x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Threads {
        Threads::new(1).expect("no thread is started")
    }
    use crate::bench::numbers;

    const SIZES: [usize; 8] = [1, 2, 15, 16, 17, 40, 64, 577];

    fn bits(numbers: &[f32]) -> Vec<u32> {
        // Whatever is not a number: its bits mean nothing.
        numbers.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
    }

    /// Rows with everything that may come: large, tiny, infinite, not a number.
    fn strange(count: usize) -> Vec<f32> {
        let special = [f32::INFINITY, f32::NAN, 1e-42, -1e-45, 3e38, -0.0, f32::NEG_INFINITY, 1e20];
        let mut x = numbers(count);
        x.iter_mut().enumerate().filter(|(i, _)| i % 23 == 7).for_each(|(i, x)| *x = special[i / 23 % 8]);
        x
    }

    #[test]
    fn norms_are_the_true_ones() {
        for (size, isa) in
            SIZES.into_iter().flat_map(|size| Isa::all().into_iter().map(move |isa| (size, isa)))
        {
            let (x, weights) = (numbers(3 * size), numbers(size));
            let got = root_mean_square(&x, &weights, 1e-5, isa, &one());
            for (row, got) in x.chunks(size).zip(got.chunks(size)) {
                let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
                let root = (squares / size as f64 + 1e-5).sqrt();
                for ((x, w), got) in row.iter().zip(&weights).zip(got) {
                    let expected = f64::from(*x) / root * f64::from(*w);
                    assert!((f64::from(*got) - expected).abs() < 1e-6, "{isa:?} {size}");
                }
            }
        }
    }

    #[test]
    fn layer_norms_are_the_true_ones_and_rows_take_turns_with_weights() {
        for (size, isa) in
            SIZES.into_iter().flat_map(|size| Isa::all().into_iter().map(move |isa| (size, isa)))
        {
            // Far from a mean of 0; two rows have weights of their own.
            let x: Vec<f32> = numbers(6 * size).iter().map(|x| x + 3.0).collect();
            let weights = numbers(2 * size);
            let norm = LayerNorm { weights: &weights, size, epsilon: 1e-5 };
            let got = layer_norm(&x, norm, isa, &one());
            for ((row, got), weights) in
                x.chunks(size).zip(got.chunks(size)).zip(weights.chunks(size).cycle())
            {
                let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / size as f64;
                let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
                let root = (squares / size as f64 + 1e-5).sqrt();
                for ((x, w), got) in row.iter().zip(weights).zip(got) {
                    let expected = (f64::from(*x) - mean) / root * f64::from(*w);
                    // Where numbers lie close together, what is rounded counts for more.
                    let error = (f64::from(*got) - expected).abs() * root;
                    assert!(error < 4e-6, "{isa:?} {size}: {got} for {expected}");
                }
            }
        }
    }

    #[test]
    fn a_row_whose_squares_overflow_is_no_number_and_touches_no_other() {
        for isa in Isa::all() {
            let x = [1.0, -1.0, 3e38, 1.0, 2.0, 2.0];
            let y = root_mean_square(&x, &[1.0, 1.0], 0.0, isa, &one());
            assert!(y[2].is_nan() && y[3].is_nan(), "{isa:?}");
            assert_eq!((&y[..2], &y[4..]), (&[1.0, -1.0][..], &[1.0, 1.0][..]), "{isa:?}");
        }
    }

    #[test]
    fn gates_and_sums_are_the_true_ones() {
        for isa in Isa::all() {
            let (mut gate, up) = (numbers(100), numbers(200).split_off(100));
            gate.iter_mut().for_each(|gate| *gate *= 8.0);
            let mut got = gate.clone();
            silu_gate(&mut got, &up, isa, &one());
            for ((gate, up), got) in gate.iter().zip(&up).zip(&got) {
                let gate = f64::from(*gate);
                let expected = gate / (1.0 + (-gate).exp()) * f64::from(*up);
                assert!((f64::from(*got) - expected).abs() < 4e-6, "{isa:?} {gate}: {got} for {expected}");
            }
            let mut got = gate.clone();
            // Beyond the bound as well.
            let wide: Vec<f32> = up.iter().map(|up| up * 9.0).collect();
            got[3] = f32::NAN;
            clamped_gate(&mut got, &wide, isa, &one());
            assert!(got[3].is_nan(), "{isa:?}");
            for (place, got) in got.iter().enumerate().filter(|(place, _)| *place != 3) {
                let (gate, up) = (f64::from(gate[place]).min(7.0), f64::from(wide[place]).clamp(-7.0, 7.0));
                let expected = gate / (1.0 + (-1.702 * gate).exp()) * (up + 1.0);
                let error = (f64::from(*got) - expected).abs() / expected.abs().max(1.0);
                assert!(error < 2e-6, "{isa:?} {gate}: {got} for {expected}");
            }
            let mut got = gate.clone();
            bend(&mut got, 5.0, isa, &one());
            for (x, got) in gate.iter().zip(&got) {
                let expected = 5.0 * (f64::from(*x) / 5.0).tanh();
                assert!((f64::from(*got) - expected).abs() < 2e-6, "{isa:?} {x}: {got} for {expected}");
            }
            let mut got = gate.clone();
            add(&mut got, &up, isa, &one());
            assert!(got.iter().zip(&gate).zip(&up).all(|((got, x), y)| *got == x + y), "{isa:?}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for size in SIZES {
            let (x, weights) = (strange(5 * size), numbers(size));
            let all = |isa| {
                let normed = root_mean_square(&x, &weights, 1e-6, isa, &one());
                let (mut gated, mut sum) = (x.clone(), x.clone());
                let (mut by_gelu, mut bent, mut clamped) = (x.clone(), x.clone(), x.clone());
                let norm = LayerNorm { weights: &weights, size, epsilon: 1e-6 };
                let layer = layer_norm(&x, norm, isa, &one());
                silu_gate(&mut gated, &normed, isa, &one());
                gelu_gate(&mut by_gelu, &normed, isa, &one());
                clamped_gate(&mut clamped, &normed, isa, &one());
                bend(&mut bent, 3.0, isa, &one());
                add(&mut sum, &normed, isa, &one());
                [&normed[..], &gated, &by_gelu, &bent, &sum, &layer, &clamped].map(bits)
            };
            let expected = all(Isa::Portable);
            for isa in Isa::all() {
                assert_eq!(all(isa), expected, "{isa:?}, rows of {size}");
            }
        }
    }
}
