//! One number of double precision at a time: for sampling and for the rotation of positions.
//!
//! Additions, products and quotients alone, each rounded by itself, in the order that is written here.

use std::f64::consts::{FRAC_PI_2, LOG2_E, SQRT_2};

/// 1.5 · 2^52: what is added to it is rounded to a whole number, which then stands in the last bits.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// ln 2 and π / 2 in two parts each, the first with so few bits that its products with whole numbers below 2^20 are
/// exact (Sun, fdlibm, `e_exp.c` and `e_rem_pio2.c`).
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const HALF_PI_HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
const HALF_PI_LOW: f64 = f64::from_bits(0x3dd0_b461_1a62_6331);

/// Above this, sines and cosines lose digits.
pub(crate) const LARGEST_ANGLE: f64 = (1 << 20) as f64 * FRAC_PI_2;

/// `1 / n!`.
const fn inverse_factorial(n: u32) -> f64 {
    let (mut product, mut factor) = (1.0, 2);
    while factor <= n {
        product *= factor as f64;
        factor += 1;
    }
    1.0 / product
}

/// The first terms of e^r, the highest power first.
const EXP: [f64; 14] = {
    let mut terms = [0.0; 14];
    let mut place = 0;
    while place < 14 {
        terms[place] = inverse_factorial(13 - place as u32);
        place += 1;
    }
    terms
};

/// Of sin(r) / r and of cos(r), in powers of -r², the highest first.
const SINE: [f64; 8] = alternate(1);
const COSINE: [f64; 9] = alternate(0);

const fn alternate<const N: usize>(first: u32) -> [f64; N] {
    let mut terms = [0.0; N];
    let mut place = 0;
    while place < N {
        terms[place] = inverse_factorial(2 * (N - 1 - place) as u32 + first);
        place += 1;
    }
    terms
}

#[inline(always)]
fn polynomial<const N: usize>(terms: &[f64; N], x: f64) -> f64 {
    let mut sum = terms[0];
    for term in &terms[1..] {
        sum = sum * x + term;
    }
    sum
}

/// e^x within 1e-15 of its size; 0 below -708, infinite above 709.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    let shifted = x * LOG2_E + WHOLE;
    let power = shifted - WHOLE;
    let r = (x - power * LN2_HIGH) - power * LN2_LOW;
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    let value = polynomial(&EXP, r) * scale;
    let value = if x < -708.0 { 0.0 } else { value };
    if x > 709.0 { f64::INFINITY } else { value }
}

/// The natural logarithm of a number that is positive, finite and not below 2^-1022, within 1e-15 of its size or of 1.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut power = (bits >> 52) as i32 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m > SQRT_2 {
        m *= 0.5;
        power += 1;
    }
    // ln m = 2 · (s + s³/3 + s⁵/5 + ..), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for odd in (3..=23).rev().step_by(2) {
        sum = (sum + 1.0 / f64::from(odd)) * square;
    }
    let power = f64::from(power);
    power * LN2_HIGH + (2.0 * (s + s * sum) + power * LN2_LOW)
}

/// A number, as [`ln`] takes it, to the power of another.
pub(crate) fn power(base: f64, exponent: f64) -> f64 {
    exp(exponent * ln(base))
}

/// Sine and cosine of an angle in radians, within 1e-14 up to [`LARGEST_ANGLE`].
pub(crate) fn sin_cos(angle: f64) -> (f64, f64) {
    let shifted = angle * std::f64::consts::FRAC_2_PI + WHOLE;
    let quarters = shifted - WHOLE;
    let r = (angle - quarters * HALF_PI_HIGH) - quarters * HALF_PI_LOW;
    let square = -(r * r);
    let (sine, cosine) = (r * polynomial(&SINE, square), polynomial(&COSINE, square));
    match shifted.to_bits() & 3 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expected: f64, size: f64) -> bool {
        (got - expected).abs() <= 1e-14 * size
    }

    #[test]
    fn exponentials_are_the_true_ones_within_their_range() {
        for step in -70_799..70_900 {
            let x = f64::from(step) * 0.01 + 0.001_3;
            assert!(near(exp(x), x.exp(), x.exp()), "e^{x}: {}", exp(x));
        }
        assert_eq!((exp(0.0), exp(-0.0), exp(-708.1), exp(f64::NEG_INFINITY)), (1.0, 1.0, 0.0, 0.0));
        assert_eq!(
            (exp(709.1), exp(f64::INFINITY), exp(1e300)),
            (f64::INFINITY, f64::INFINITY, f64::INFINITY)
        );
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn logarithms_and_powers_are_the_true_ones() {
        for step in -3000..3000 {
            let x = 2f64.powf(f64::from(step) * 0.3401);
            assert!(near(ln(x), x.ln(), x.ln().abs().max(1.0)), "ln {x}: {}", ln(x));
        }
        assert_eq!(ln(1.0), 0.0);
        for (base, pairs) in [(10_000.0, 32), (1e6, 64), (500_000.0, 40)] {
            for pair in 0..pairs {
                let exponent = -2.0 * f64::from(pair) / f64::from(pairs);
                let expected = f64::powf(base, exponent);
                assert!(near(power(base, exponent), expected, expected), "{base}^{exponent}");
            }
        }
    }

    #[test]
    fn sines_and_cosines_are_the_true_ones_up_to_the_longest_context() {
        let small = (-2000..2000).map(|step| f64::from(step) * 0.003_7);
        let large = (0..20_000).map(|step| f64::from(step) * 82.345_678_9);
        let quarters = (0..100).map(|count| f64::from(count * 10_007) * FRAC_PI_2);
        for angle in small.chain(large).chain(quarters).chain([LARGEST_ANGLE, -LARGEST_ANGLE]) {
            let ((sine, cosine), expected) = (sin_cos(angle), angle.sin_cos());
            assert!(near(sine, expected.0, 1.0) && near(cosine, expected.1, 1.0), "{angle}");
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }

    #[test]
    fn bits_are_those_that_were_recorded() {
        let bits = |numbers: [f64; 4]| numbers.map(f64::to_bits);
        let (sine, cosine) = sin_cos(4095.3);
        let got = bits([exp(-1.7), ln(49_152.5), sine, cosine]);
        assert_eq!(got, RECORDED, "{got:#x?}");
    }

    /// From a first run; any other processor or library must give the same.
    const RECORDED: [u64; 4] =
        [0x3fc7_622c_78a9_8a07, 0x4025_9af9_43c5_76a1, 0xbfef_20c9_54b3_1895, 0x3fcd_ad2a_0bfa_61f4];
}
