//! Every operation of every set gives the bits that [`Portable`] gives, for numbers that are odd too.

use std::array;

use super::{portable::Portable, *};
use crate::kernels::isa::Isa;

/// What is odd about single precision: zeros, halves, both ends of all ranges, what is infinite or no number.
const FLOATS: [u32; 32] = [
    0x0000_0000, // 0
    0x8000_0000, // -0
    0x3f80_0000, // 1
    0xbf80_0000, // -1
    0x3f00_0000, // 0.5
    0xbf00_0000, // -0.5
    0x3fc0_0000, // 1.5
    0x4020_0000, // 2.5
    0xc060_0000, // -3.5
    0x3eff_ffff, // just below 0.5
    0x3dcc_cccd, // 0.1
    0xc049_0fdb, // -π
    0x0000_0001, // the smallest
    0x8000_0001,
    0x007f_ffff, // the largest that is not normal
    0x0080_0000, // the smallest that is
    0x8080_0000,
    0x1e3c_e508, // 1e-20
    0x60ad_78ec, // 1e20
    0xe0ad_78ec,
    0x4aff_ffff, // 8388607.5
    0x4b00_0001, // 8388609
    0xcb7f_ffff, // -16777215
    0x4eff_ffff, // the largest below 2^31
    0x7f7f_ffff, // the largest
    0xff7f_ffff,
    0x7f80_0000, // infinite
    0xff80_0000,
    0x7fc0_0000, // no number
    0xffc1_2345,
    0x7f80_0001, // no number, and one that signals
    0xffbf_ffff,
];

/// What is odd about whole numbers, of 32 bits and as pairs of 16; no lane is -32768 in both halves.
const INTS: [u32; 16] = [
    0x0000_0000,
    0x0000_0001,
    0xffff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0x0000_8000,
    0x7fff_8000,
    0x8000_7fff,
    0x7fff_7fff,
    0x8001_8001,
    0x00ff_ff00,
    0x0f1e_2d3c,
    0xf0e1_d2c3,
    0x0100_0001, // 2^24 + 1: no single precision has it
    0x0300_0003,
    0xfeff_fffd,
];

/// The bits of each lane, by the operation that made them.
type Results = Vec<(&'static str, [u32; LANES])>;

fn bits<S: Simd>(simd: S, value: S::I) -> [u32; LANES] {
    let mut lanes = [0; LANES];
    simd.store_int(value, &mut lanes);
    lanes.map(|lane| lane as u32)
}

/// What is no number has no sign or other bits that are promised.
fn number(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// Holds what a kernel makes on every set against what it makes on the portable one.
fn same_on_every_set<K: Kernel<Output = Results> + Copy>(kernel: K) {
    let expected = Portable.call(kernel);
    for isa in Isa::all() {
        for ((name, expected), (_, made)) in expected.iter().zip(isa.run(kernel)) {
            assert_eq!(made.map(Hex), expected.map(Hex), "{name} of {isa:?}");
        }
    }
}

#[derive(PartialEq)]
struct Hex(u32);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[derive(Clone, Copy)]
struct Floats([[f32; LANES]; 3]);

impl Kernel for Floats {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let [a, b, c] = self.0.map(|numbers| simd.load(&numbers));
        let rounded = [
            ("splat", simd.splat(self.0[0][3])),
            ("add", simd.add(a, b)),
            ("sub", simd.sub(a, b)),
            ("mul", simd.mul(a, b)),
            ("div", simd.div(a, b)),
            ("mul_add", simd.mul_add(a, b, c)),
            ("round", simd.round(a)),
            ("sum", simd.splat(simd.sum(a))),
        ];
        let exact = [("load", a), ("max", simd.max(a, b)), ("abs", simd.abs(a))];
        let rounded = rounded.map(|(name, value)| {
            let mut numbers = [0.0; LANES];
            simd.store(value, &mut numbers);
            (name, numbers.map(number))
        });
        rounded.into_iter().chain(exact.map(|(name, value)| (name, bits(simd, simd.as_int(value))))).collect()
    }
}

#[test]
fn numbers_are_calculated_to_the_same_bits() {
    let odd = FLOATS.map(f32::from_bits);
    let from = |start: usize| array::from_fn(|lane| odd[(start + lane) % odd.len()]);
    // Each with each.
    for shift in 0..odd.len() {
        for start in [0, LANES] {
            same_on_every_set(Floats([from(start), from(start + shift), from(start + 5 * shift + 7)]));
        }
    }
}

/// What is only promised for numbers.
#[derive(Clone, Copy)]
struct Finite([f32; LANES]);

impl Kernel for Finite {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let a = simd.load(&self.0);
        let whole = simd.load(&self.0.map(|number| number.clamp(-2147483648.0, 2147483520.0)));
        // A zero may have either sign.
        let largest = simd.largest(a) + 0.0;
        vec![("to_int", bits(simd, simd.to_int(whole))), ("largest", [largest.to_bits(); LANES])]
    }
}

#[test]
fn whole_numbers_are_made_of_others_and_the_largest_found() {
    let numbers = FLOATS.map(f32::from_bits).into_iter().filter(|number| !number.is_nan());
    let halves = (-8..8).map(|number| number as f32 + 0.5);
    let numbers: Vec<f32> = numbers.chain(halves).collect();
    for start in 0..numbers.len() {
        same_on_every_set(Finite(array::from_fn(|lane| numbers[(start + lane) % numbers.len()])));
    }
}

/// Sixteen numbers in half precision, and the numbers around each and between it and the next.
#[derive(Clone, Copy)]
struct Halves(u16);

impl Kernel for Halves {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let mut bytes = [0; 2 * LANES];
        for (half, bytes) in (self.0..).zip(bytes.as_chunks_mut().0) {
            *bytes = half.to_le_bytes();
        }
        let wide = bits(simd, simd.as_int(simd.load_half(&bytes)));
        let mut results = vec![("load_half", wide)];
        for beside in [0, 1, 0xfff, 0x1000, 0x1001, 0x1fff] {
            let near = wide.map(|lane| f32::from_bits(lane.wrapping_add(beside)));
            simd.store_half(simd.load(&near), &mut bytes);
            let halves = bytes.as_chunks().0.iter().map(|half| u32::from(u16::from_le_bytes(*half)));
            let mut lanes = [0; LANES];
            lanes.iter_mut().zip(halves).for_each(|(lane, half)| *lane = half);
            results.push(("store_half", lanes));
        }
        results
    }
}

#[test]
fn all_numbers_in_half_precision_come_and_go_as_the_same_bits() {
    for first in (0..=u16::MAX - 15).step_by(LANES) {
        same_on_every_set(Halves(first));
        for (lane, half) in (first..).zip(Portable.call(Halves(first))[1].1) {
            // What is no number, and signals, does no more.
            let quiet = if lane & 0x7fff > 0x7c00 { lane | 0x200 } else { lane };
            assert_eq!(half, u32::from(quiet));
        }
    }
    let smallest = 2f64.powi(-24) as f32;
    for (number, half) in [(1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (65520.0, 0x7c00), (smallest, 1)]
    {
        assert_eq!(portable::to_half(number), half, "{number}");
    }
}

#[derive(Clone, Copy)]
struct Ints([[i32; LANES]; 3]);

impl Kernel for Ints {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let [a, b, c] = self.0.map(|numbers| simd.load_int(&numbers));
        let (small, other) = (simd.sra::<16>(a), simd.sra::<16>(b));
        let results = [
            ("load_int", a),
            ("splat_int", simd.splat_int(self.0[0][5])),
            ("as_float", simd.as_int(simd.as_float(a))),
            ("to_float", simd.as_int(simd.to_float(a))),
            ("add_int", simd.add_int(a, b)),
            ("sub_int", simd.sub_int(a, b)),
            ("and", simd.and(a, b)),
            ("or", simd.or(a, b)),
            ("max_int", simd.max_int(a, b)),
            ("largest_int", simd.splat_int(simd.largest_int(a))),
            ("sum_int", simd.splat_int(simd.sum_int(small))),
            ("sub16", simd.sub16(a, b)),
            ("dot", simd.dot(c, a, b)),
            ("dot with one word", simd.dot(c, a, simd.splat_int(self.0[1][5]))),
            ("pair", simd.pair(small, other)),
        ];
        results.into_iter().map(|(name, value)| (name, bits(simd, value))).collect()
    }
}

#[derive(Clone, Copy)]
struct Shifts([i32; LANES]);

impl Kernel for Shifts {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let a = simd.load_int(&self.0);
        let fixed = [
            ("shl 1", simd.shl::<1>(a)),
            ("shl 23", simd.shl::<23>(a)),
            ("shl 31", simd.shl::<31>(a)),
            ("shr 1", simd.shr::<1>(a)),
            ("shr 4", simd.shr::<4>(a)),
            ("shr 31", simd.shr::<31>(a)),
            ("sra 1", simd.sra::<1>(a)),
            ("sra 16", simd.sra::<16>(a)),
            ("sra 31", simd.sra::<31>(a)),
            ("shl16 1", simd.shl16::<1>(a)),
            ("shl16 8", simd.shl16::<8>(a)),
            ("shl16 15", simd.shl16::<15>(a)),
            ("shr16 1", simd.shr16::<1>(a)),
            ("shr16 12", simd.shr16::<12>(a)),
            ("shr16 15", simd.shr16::<15>(a)),
            ("sra16 1", simd.sra16::<1>(a)),
            ("sra16 8", simd.sra16::<8>(a)),
            ("sra16 15", simd.sra16::<15>(a)),
        ];
        let by = (0..32).map(|count| ("shr_by", bits(simd, simd.shr_by(a, count))));
        fixed.into_iter().map(|(name, value)| (name, bits(simd, value))).chain(by).collect()
    }
}

#[test]
fn whole_numbers_are_calculated_to_the_same_bits() {
    let from = |start: usize| array::from_fn(|lane| INTS[(start + lane) % LANES] as i32);
    for shift in 0..LANES {
        same_on_every_set(Ints([from(0), from(shift), from(5 * shift + 7)]));
        same_on_every_set(Shifts(from(shift)));
    }
}

#[derive(Clone, Copy)]
struct Bytes([u8; 4 * LANES]);

impl Kernel for Bytes {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        const TABLE: [i8; 16] = [-128, 127, -1, 0, 1, 64, -65, 99, 7, -7, 13, -13, 100, -100, 55, -55];
        let all = simd.load_bytes(&self.0);
        simd.prefetch(&self.0, 3);
        // No place of this memory, nor perhaps of any.
        simd.prefetch(&self.0, usize::MAX / 3);
        let results = [
            ("load_bytes", all),
            ("widen_u8", simd.widen_u8(bytes(&self.0, 1))),
            ("widen_i8", simd.widen_i8(bytes(&self.0, 1))),
            ("widen_u16", simd.widen_u16(bytes(&self.0, 1))),
            ("look_up", simd.look_up(&TABLE, simd.and(all, simd.splat_int(0x0f0f_0f0f)))),
        ];
        results.into_iter().map(|(name, value)| (name, bits(simd, value))).collect()
    }
}

#[test]
fn bytes_are_widened_and_looked_up_as_the_same_bits() {
    for start in 0..=u8::MAX {
        // Both bytes of a number of 16 bits take all values.
        same_on_every_set(Bytes(array::from_fn(|place| start.wrapping_add(37 * place as u8))));
    }
}
