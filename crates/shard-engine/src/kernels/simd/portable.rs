//! Plain Rust, for every processor, and what the others are held against.

use std::array;

use super::{Kernel, LANES, Simd};

/// Needs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn each<T: Copy, U: Copy, V>(a: [T; LANES], b: [U; LANES], of: impl Fn(T, U) -> V) -> [V; LANES] {
    array::from_fn(|lane| of(a[lane], b[lane]))
}

/// The two halves of a lane, the lower first.
#[inline(always)]
fn halves(lane: i32) -> [i16; 2] {
    [lane as i16, (lane >> 16) as i16]
}

#[inline(always)]
fn joined([low, high]: [i16; 2]) -> i32 {
    i32::from(low as u16) | i32::from(high) << 16
}

#[inline(always)]
fn each_half(a: I, of: impl Fn(i16) -> i16) -> I {
    a.map(|lane| joined(halves(lane).map(&of)))
}

/// The value of a number in half precision (IEEE 754 binary16).
#[inline(always)]
pub(crate) fn from_half(half: u16) -> f32 {
    let (sign, exponent, fraction) = (half >> 15, half >> 10 & 31, half & 1023);
    let sign = u32::from(sign) << 31;
    let fraction = u32::from(fraction);
    match exponent {
        // 2^-24 is what the last bit of the smallest numbers is worth.
        0 => f32::from_bits((fraction as f32 * f32::from_bits(103 << 23)).to_bits() | sign),
        // Infinite, or not a number, and then a quiet one.
        31 if fraction == 0 => f32::from_bits(sign | 255 << 23),
        31 => f32::from_bits(sign | 255 << 23 | fraction << 13 | 1 << 22),
        _ => f32::from_bits(sign | (u32::from(exponent) + 112) << 23 | fraction << 13),
    }
}

/// The nearest number in half precision, halves to even.
#[inline(always)]
pub(crate) fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let size = bits & 0x7fff_ffff;
    let half = match size {
        0x7f80_0001.. => 0x7e00 | (size >> 13 & 0x3ff) as u16,
        // 65520 and above.
        0x477f_f000.. => 0x7c00,
        // Below 2^-14: a number that has its last bit where those of half precision have it, by adding 0.5.
        ..0x3880_0000 => (f32::from_bits(size) + 0.5).to_bits() as u16,
        _ => ((size + 0xfff + (size >> 13 & 1)) >> 13).wrapping_sub(112 << 10) as u16,
    };
    sign | half
}

impl Simd for Portable {
    type F = F;
    type I = I;
    const ROOMY: bool = false;
    const SEVERAL: bool = false;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        *from
    }

    #[inline(always)]
    fn store(self, value: F, to: &mut [f32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> F {
        array::from_fn(|lane| from_half(u16::from_le_bytes([from[2 * lane], from[2 * lane + 1]])))
    }

    #[inline(always)]
    fn store_half(self, value: F, to: &mut [u8; 2 * LANES]) {
        let (pairs, _) = to.as_chunks_mut::<2>();
        pairs.iter_mut().zip(value).for_each(|(pair, value)| *pair = to_half(value).to_le_bytes());
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn round(self, a: F) -> F {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn to_int(self, a: F) -> I {
        a.map(|lane| lane.round_ties_even() as i32)
    }

    #[inline(always)]
    fn to_float(self, a: I) -> F {
        a.map(|lane| lane as f32)
    }

    #[inline(always)]
    fn as_float(self, a: I) -> F {
        a.map(|lane| f32::from_bits(lane as u32))
    }

    #[inline(always)]
    fn as_int(self, a: F) -> I {
        a.map(|lane| lane.to_bits() as i32)
    }

    #[inline(always)]
    fn sum(self, mut a: F) -> f32 {
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                a[lane] += a[lane + half];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> I {
        [value; LANES]
    }

    #[inline(always)]
    fn load_int(self, from: &[i32; LANES]) -> I {
        *from
    }

    #[inline(always)]
    fn store_int(self, value: I, to: &mut [i32; LANES]) {
        *to = value;
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        let (lanes, _) = from.as_chunks::<4>();
        array::from_fn(|lane| i32::from_le_bytes(lanes[lane]))
    }

    #[inline(always)]
    fn widen_u8(self, from: &[u8; LANES]) -> I {
        from.map(i32::from)
    }

    #[inline(always)]
    fn widen_i8(self, from: &[u8; LANES]) -> I {
        from.map(|byte| i32::from(byte as i8))
    }

    #[inline(always)]
    fn widen_u16(self, from: &[u8; 2 * LANES]) -> I {
        array::from_fn(|lane| i32::from(u16::from_le_bytes([from[2 * lane], from[2 * lane + 1]])))
    }

    #[inline(always)]
    fn add_int(self, a: I, b: I) -> I {
        each(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    fn sub_int(self, a: I, b: I) -> I {
        each(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        each(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        each(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: I) -> I {
        a.map(|lane| lane << N)
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: I) -> I {
        a.map(|lane| (lane as u32 >> N) as i32)
    }

    #[inline(always)]
    fn shr_by(self, a: I, bits: u32) -> I {
        a.map(|lane| (lane as u32 >> bits) as i32)
    }

    #[inline(always)]
    fn sra<const N: i32>(self, a: I) -> I {
        a.map(|lane| lane >> N)
    }

    #[inline(always)]
    fn shl16<const N: i32>(self, a: I) -> I {
        each_half(a, |half| half << N)
    }

    #[inline(always)]
    fn shr16<const N: i32>(self, a: I) -> I {
        each_half(a, |half| (half as u16 >> N) as i16)
    }

    #[inline(always)]
    fn sra16<const N: i32>(self, a: I) -> I {
        each_half(a, |half| half >> N)
    }

    #[inline(always)]
    fn sub16(self, a: I, b: I) -> I {
        each(a, b, |a, b| {
            let (a, b) = (halves(a), halves(b));
            joined([a[0].wrapping_sub(b[0]), a[1].wrapping_sub(b[1])])
        })
    }

    #[inline(always)]
    fn dot(self, sum: I, a: I, b: I) -> I {
        array::from_fn(|lane| {
            let (a, b) = (halves(a[lane]).map(i32::from), halves(b[lane]).map(i32::from));
            sum[lane].wrapping_add((a[0] * b[0]).wrapping_add(a[1] * b[1]))
        })
    }

    #[inline(always)]
    fn max_int(self, a: I, b: I) -> I {
        each(a, b, i32::max)
    }

    #[inline(always)]
    fn largest_int(self, a: I) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }

    #[inline(always)]
    fn pair(self, a: I, b: I) -> I {
        array::from_fn(|word| {
            let from = if word < 8 { a } else { b };
            let first = word % 8 / 2 * 4 + word % 2;
            joined([from[first] as i16, from[first + 2] as i16])
        })
    }

    #[inline(always)]
    fn sum_int(self, a: I) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], places: I) -> I {
        places.map(|lane| {
            i32::from_le_bytes(lane.to_le_bytes().map(|place| table[usize::from(place & 15)] as u8))
        })
    }

    #[inline(always)]
    fn prefetch(self, _memory: &[u8], _place: usize) {}
}
