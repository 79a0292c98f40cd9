//! Functions of real numbers that give the same bits on every processor and with every library.
//!
//! What a system's own library gives for `exp` differs between systems, and between processors of one. Nothing that
//! decides a token may come from there.

pub(crate) mod double;

use super::simd::Simd;

/// Below this, e^x counts as 0: its power of two, 2^-127, has no place among the normal numbers.
const LOWEST: f32 = -88.0;

/// ln 2 in two parts, the first with so few bits that its products with small whole numbers are exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Of (e^r - 1 - r) / r² for |r| <= ln 2 / 2, the highest power first (Moshier, Cephes library, `expf.c`).
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];

/// e^x in each lane, for numbers that are not above 0, within 2e-7 of the true value's size. Exactly 0 from about
/// -87.7 downwards; what is not a number stays none.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    let x = simd.max(simd.splat(LOWEST), x);
    let power = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(power, simd.splat(-LN2_HIGH), x);
    let r = simd.mul_add(power, simd.splat(-LN2_LOW), r);
    let mut sum = simd.splat(EXP[0]);
    for factor in &EXP[1..] {
        sum = simd.mul_add(sum, r, simd.splat(*factor));
    }
    let sum = simd.mul_add(sum, simd.mul(r, r), r);
    let exponent = simd.add_int(simd.to_int(power), simd.splat_int(127));
    simd.mul(simd.add(sum, simd.splat(1.0)), simd.as_float(simd.shl::<23>(exponent)))
}

/// `x / (1 + e^-x)` in each lane. What is not a number stays none.
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::F) -> S::F {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // Both signs with the exponential that cannot overflow: x / (1 + e^-x) = x · e^x / (1 + e^x).
    let size = simd.abs(x);
    let small = exp(simd, simd.sub(zero, size));
    let negative = simd.max(simd.sub(zero, x), zero);
    let above = simd.mul_add(simd.sub(zero, negative), small, simd.max(zero, x));
    simd.div(above, simd.add(one, small))
}

/// `(e^2x - 1) / (e^2x + 1)` in each lane, within 2e-7. What is not a number stays none.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // Of the size, with the exponential that cannot overflow, and with the sign of x.
    let size = simd.abs(x);
    let small = exp(simd, simd.sub(zero, simd.add(size, size)));
    let above = simd.div(simd.sub(one, small), simd.add(one, small));
    let sign = simd.and(simd.as_int(x), simd.splat_int(i32::MIN));
    simd.as_float(simd.or(simd.as_int(above), sign))
}

/// `x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))` in each lane (Hendrycks and Gimpel, "Gaussian error linear units",
/// 2016, section 2). What is not a number stays none.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::F) -> S::F {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // (1 + tanh(y)) / 2 = 1 / (1 + e^-2y), again for both signs with the exponential that cannot overflow.
    let cubic = simd.mul_add(simd.mul(x, x), simd.splat(0.044_715), one);
    let twice = simd.mul(simd.mul(simd.splat(GELU), x), cubic);
    let small = exp(simd, simd.sub(zero, simd.abs(twice)));
    let negative = simd.max(simd.sub(zero, x), zero);
    let above = simd.mul_add(simd.sub(zero, negative), small, simd.max(zero, x));
    simd.div(above, simd.add(one, small))
}

/// 2 √(2/π).
const GELU: f32 = 1.595_769;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{
        isa::Isa,
        simd::{Kernel, LANES},
    };

    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp,
        Silu,
        Tanh,
        Gelu,
    }

    struct Each<'a>(Function, &'a mut [[f32; LANES]]);

    impl Kernel for Each<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for lanes in self.1 {
                let x = simd.load(lanes);
                let y = match self.0 {
                    Function::Exp => exp(simd, x),
                    Function::Silu => silu(simd, x),
                    Function::Tanh => tanh(simd, x),
                    Function::Gelu => gelu(simd, x),
                };
                simd.store(y, lanes);
            }
        }
    }

    fn of(function: Function, numbers: &[f32], isa: Isa) -> Vec<f32> {
        let mut lanes: Vec<[f32; LANES]> = numbers
            .chunks(LANES)
            .map(|part| std::array::from_fn(|lane| part.get(lane).copied().unwrap_or(0.0)))
            .collect();
        isa.run(Each(function, &mut lanes));
        lanes.as_flattened()[..numbers.len()].to_vec()
    }

    /// A sweep of sizes down to the smallest numbers, and places where rules change.
    fn sweep() -> Vec<f32> {
        let sizes = (0..4000).map(|step| 2f32.powf(-149.0 + step as f32 * 0.039));
        let near = (0..20_000).map(|step| step as f32 * 0.005);
        let edges = [0.0, 87.3, 87.33, 87.34, 87.6, 87.68, 87.69, 88.0, 104.0, 1e10, f32::MAX];
        sizes.chain(near).chain(edges).map(|size| -size).collect()
    }

    #[test]
    fn exponentials_are_the_true_ones_and_exactly_zero_far_below() {
        for isa in Isa::all() {
            let x = sweep();
            for (x, got) in x.iter().zip(of(Function::Exp, &x, isa)) {
                let expected = f64::from(*x).exp();
                // The smallest numbers have fewer bits.
                let error = (f64::from(got) - expected).abs() / expected.max(1.2e-38);
                assert!(error < 2e-7 || got == 0.0 && *x < -87.67, "{isa:?} e^{x}: {got} for {expected}");
                assert!(*x > -87.7 || got.to_bits() == 0, "{isa:?} e^{x}");
            }
            let special = of(Function::Exp, &[f32::NEG_INFINITY, f32::NAN, 0.0, -0.0], isa);
            assert_eq!(special[0].to_bits(), 0, "{isa:?}");
            assert!(special[1].is_nan(), "{isa:?}");
            assert_eq!(special[2..], [1.0, 1.0], "{isa:?}");
        }
    }

    #[test]
    fn silu_is_what_it_should_be_for_both_signs() {
        let mut x = sweep();
        x.extend(sweep().iter().map(|x| -x));
        for isa in Isa::all() {
            for (x, got) in x.iter().zip(of(Function::Silu, &x, isa)) {
                let exact = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
                // Far below, the exponential is cut off.
                let error = (f64::from(got) - exact).abs() / exact.abs().max(1.2e-36);
                assert!(error < 4e-7 || *x < -87.6 && got == 0.0, "{isa:?} silu({x}): {got} for {exact}");
            }
            let special = of(Function::Silu, &[f32::INFINITY, f32::NAN], isa);
            assert!(special[0] == f32::INFINITY && special[1].is_nan(), "{isa:?} {special:?}");
        }
    }

    #[test]
    fn tanh_and_gelu_are_what_they_should_be_for_both_signs() {
        let mut x = sweep();
        x.extend(sweep().iter().map(|x| -x));
        for isa in Isa::all() {
            let (tanh, gelu) = (of(Function::Tanh, &x, isa), of(Function::Gelu, &x, isa));
            for ((x, tanh), gelu) in x.iter().zip(tanh).zip(gelu) {
                let exact = f64::from(*x);
                let error = (f64::from(tanh) - exact.tanh()).abs();
                assert!(error < 2e-7 && tanh.abs() <= 1.0, "{isa:?} tanh({x}): {tanh}");
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044_715 * exact.powi(3));
                let expected = 0.5 * exact * (1.0 + inner.tanh());
                let error = (f64::from(gelu) - expected).abs() / exact.abs().max(1e-30);
                assert!(error < 1e-6, "{isa:?} gelu({x}): {gelu} for {expected}");
            }
            let (infinite, nothing) = (f32::INFINITY, f32::NAN);
            let special = of(Function::Tanh, &[infinite, -infinite, nothing], isa);
            assert!(special[..2] == [1.0, -1.0] && special[2].is_nan(), "{isa:?} {special:?}");
            let special = of(Function::Gelu, &[infinite, nothing], isa);
            assert!(special[0] == infinite && special[1].is_nan(), "{isa:?} {special:?}");
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for function in [Function::Exp, Function::Silu, Function::Tanh, Function::Gelu] {
            let x = sweep();
            let bits = |isa| of(function, &x, isa).iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            let expected = bits(Isa::Portable);
            for isa in Isa::all() {
                assert!(bits(isa) == expected, "{function:?} {isa:?}");
            }
        }
    }
}
