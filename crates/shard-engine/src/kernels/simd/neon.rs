//! NEON, of every 64-bit Arm processor: four registers of four numbers.

#![allow(unsafe_code)]

use std::{
    arch::{aarch64::*, asm},
    array,
};

use super::{Kernel, LANES, Simd, bytes};

/// Proves that this processor has NEON, as all of this target have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Neon(());

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        Some(Self(()))
    }
}

/// Calls an instruction for all registers.
///
/// SAFETY of every use: every processor of this target has these instructions. Memory is read and written through
/// references to as many bytes as the instruction takes, which need no alignment.
macro_rules! all {
    (|$quarter:ident| $instruction:expr) => {
        // SAFETY: as above.
        array::from_fn(|$quarter| {
            #[allow(unused_unsafe)]
            unsafe {
                $instruction
            }
        })
    };
}

/// The lanes as `i16`.
#[inline(always)]
fn halves(a: int32x4_t) -> int16x8_t {
    // SAFETY: as for `all`.
    unsafe { vreinterpretq_s16_s32(a) }
}

#[inline(always)]
fn whole(a: int16x8_t) -> int32x4_t {
    // SAFETY: as for `all`.
    unsafe { vreinterpretq_s32_s16(a) }
}

impl Simd for Neon {
    type F = F;
    type I = I;
    const ROOMY: bool = false;
    const SEVERAL: bool = true;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)]
        fn compiled<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        compiled(self, kernel)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        all!(|_quarter| vdupq_n_f32(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        all!(|quarter| vld1q_f32(from[4 * quarter..4 * quarter + 4].as_ptr()))
    }

    #[inline(always)]
    fn store(self, value: F, to: &mut [f32; LANES]) {
        for (to, value) in to.chunks_exact_mut(4).zip(value) {
            // SAFETY: as for `all`.
            unsafe { vst1q_f32(to.as_mut_ptr(), value) }
        }
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> F {
        all!(|quarter| {
            let halves = u64::from_le_bytes(*bytes(from, 8 * quarter));
            let wide: float32x4_t;
            // The intrinsics of half precision are not stable.
            asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = out(vreg) wide, halves = in(vreg) vcreate_u64(halves),
                options(pure, nomem, nostack, preserves_flags));
            wide
        })
    }

    #[inline(always)]
    fn store_half(self, value: F, to: &mut [u8; 2 * LANES]) {
        for (to, value) in to.chunks_exact_mut(8).zip(value) {
            let halves: uint64x1_t;
            // SAFETY: as for `all`; the intrinsics of half precision are not stable.
            unsafe {
                asm!("fcvtn {halves:v}.4h, {value:v}.4s", halves = out(vreg) halves, value = in(vreg) value,
                    options(pure, nomem, nostack, preserves_flags));
                to.copy_from_slice(&vget_lane_u64::<0>(halves).to_le_bytes());
            }
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        all!(|quarter| vaddq_f32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        all!(|quarter| vsubq_f32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        all!(|quarter| vmulq_f32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        all!(|quarter| vdivq_f32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        all!(|quarter| vfmaq_f32(c[quarter], a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        all!(|quarter| vbslq_f32(vcgtq_f32(a[quarter], b[quarter]), a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        all!(|quarter| vabsq_f32(a[quarter]))
    }

    #[inline(always)]
    fn round(self, a: F) -> F {
        all!(|quarter| vrndnq_f32(a[quarter]))
    }

    #[inline(always)]
    fn to_int(self, a: F) -> I {
        all!(|quarter| vcvtnq_s32_f32(a[quarter]))
    }

    #[inline(always)]
    fn to_float(self, a: I) -> F {
        all!(|quarter| vcvtq_f32_s32(a[quarter]))
    }

    #[inline(always)]
    fn as_float(self, a: I) -> F {
        all!(|quarter| vreinterpretq_f32_s32(a[quarter]))
    }

    #[inline(always)]
    fn as_int(self, a: F) -> I {
        all!(|quarter| vreinterpretq_s32_f32(a[quarter]))
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: as for `all`.
        unsafe {
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        let pairs = self.max([a[0], a[1], a[0], a[1]], [a[2], a[3], a[2], a[3]]);
        let four = self.max(pairs, [pairs[1]; 4])[0];
        // SAFETY: as for `all`.
        unsafe { vmaxvq_f32(four) }
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> I {
        all!(|_quarter| vdupq_n_s32(value))
    }

    #[inline(always)]
    fn load_int(self, from: &[i32; LANES]) -> I {
        all!(|quarter| vld1q_s32(from[4 * quarter..4 * quarter + 4].as_ptr()))
    }

    #[inline(always)]
    fn store_int(self, value: I, to: &mut [i32; LANES]) {
        for (to, value) in to.chunks_exact_mut(4).zip(value) {
            // SAFETY: as for `all`.
            unsafe { vst1q_s32(to.as_mut_ptr(), value) }
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        all!(|quarter| vreinterpretq_s32_u8(vld1q_u8(bytes::<16>(from, 16 * quarter).as_ptr())))
    }

    #[inline(always)]
    fn widen_i8(self, from: &[u8; LANES]) -> I {
        self.load_int(&from.map(|byte| i32::from(byte as i8)))
    }

    #[inline(always)]
    fn widen_u16(self, from: &[u8; 2 * LANES]) -> I {
        self.load_int(&array::from_fn(|lane| i32::from(u16::from_le_bytes(*bytes(from, 2 * lane)))))
    }

    #[inline(always)]
    fn widen_u8(self, from: &[u8; LANES]) -> I {
        self.load_int(&from.map(i32::from))
    }

    #[inline(always)]
    fn add_int(self, a: I, b: I) -> I {
        all!(|quarter| vaddq_s32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn sub_int(self, a: I, b: I) -> I {
        all!(|quarter| vsubq_s32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        all!(|quarter| vandq_s32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        all!(|quarter| vorrq_s32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn max_int(self, a: I, b: I) -> I {
        all!(|quarter| vmaxq_s32(a[quarter], b[quarter]))
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: I) -> I {
        all!(|quarter| vshlq_s32(a[quarter], vdupq_n_s32(N)))
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: I) -> I {
        self.shr_by(a, N as u32)
    }

    #[inline(always)]
    fn shr_by(self, a: I, bits: u32) -> I {
        all!(|quarter| {
            let bits = vdupq_n_s32(-(bits as i32));
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[quarter]), bits))
        })
    }

    #[inline(always)]
    fn sra<const N: i32>(self, a: I) -> I {
        all!(|quarter| vshlq_s32(a[quarter], vdupq_n_s32(-N)))
    }

    #[inline(always)]
    fn shl16<const N: i32>(self, a: I) -> I {
        all!(|quarter| whole(vshlq_s16(halves(a[quarter]), vdupq_n_s16(N as i16))))
    }

    #[inline(always)]
    fn shr16<const N: i32>(self, a: I) -> I {
        all!(|quarter| {
            let numbers = vreinterpretq_u16_s32(a[quarter]);
            vreinterpretq_s32_u16(vshlq_u16(numbers, vdupq_n_s16(-(N as i16))))
        })
    }

    #[inline(always)]
    fn sra16<const N: i32>(self, a: I) -> I {
        all!(|quarter| whole(vshlq_s16(halves(a[quarter]), vdupq_n_s16(-(N as i16)))))
    }

    #[inline(always)]
    fn sub16(self, a: I, b: I) -> I {
        all!(|quarter| whole(vsubq_s16(halves(a[quarter]), halves(b[quarter]))))
    }

    #[inline(always)]
    fn dot(self, sum: I, a: I, b: I) -> I {
        all!(|quarter| {
            let (a, b) = (halves(a[quarter]), halves(b[quarter]));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sum[quarter], vpaddq_s32(low, vmull_high_s16(a, b)))
        })
    }

    #[inline(always)]
    fn sum_int(self, a: I) -> i32 {
        // SAFETY: as for `all`.
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn largest_int(self, a: I) -> i32 {
        // SAFETY: as for `all`.
        unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[1]), vmaxq_s32(a[2], a[3]))) }
    }

    #[inline(always)]
    fn pair(self, a: I, b: I) -> I {
        let numbers = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
        all!(|quarter| {
            let (low, high) = (vmovn_s32(numbers[2 * quarter]), vmovn_s32(numbers[2 * quarter + 1]));
            // 0 2 1 3 of every four.
            let order = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15u8];
            let halves = vreinterpretq_u8_s16(vcombine_s16(low, high));
            vreinterpretq_s32_u8(vqtbl1q_u8(halves, vld1q_u8(order.as_ptr())))
        })
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], places: I) -> I {
        all!(|quarter| {
            let table = vreinterpretq_u8_s8(vld1q_s8(table.as_ptr()));
            vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(places[quarter])))
        })
    }

    #[inline(always)]
    fn prefetch(self, memory: &[u8], place: usize) {
        let place = memory.as_ptr().wrapping_add(place);
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe { asm!("prfm pldl1keep, [{place}]", place = in(reg) place, options(nostack, preserves_flags)) }
    }
}
