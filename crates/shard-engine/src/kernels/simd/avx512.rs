//! AVX-512: one register of sixteen numbers.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// Proves that this processor has the parts of AVX-512 that are used here (F, BW, DQ and VL), AVX2, FMA and F16C, and
/// the products of whole numbers (VNNI) as well if `PRODUCTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Avx512<const PRODUCTS: bool>(());

type F = __m512;
type I = __m512i;

impl<const PRODUCTS: bool> Avx512<PRODUCTS> {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!PRODUCTS || is_x86_feature_detected!("avx512vnni"));
        all.then_some(Self(()))
    }
}

/// Calls instructions.
///
/// SAFETY of every use: a value of `Avx512` is made only where the processor has the features of all instructions
/// here. Memory is read and written through references to as many bytes as the instruction takes, which need no
/// alignment.
macro_rules! call {
    ($instructions:expr) => {
        // SAFETY: as above.
        unsafe { $instructions }
    };
}

impl<const PRODUCTS: bool> Simd for Avx512<PRODUCTS> {
    type F = F;
    type I = I;
    const ROOMY: bool = true;
    const SEVERAL: bool = true;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn plain<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn with_products<K: Kernel, S: Simd>(simd: S, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        call!(if PRODUCTS { with_products(self, kernel) } else { plain(self, kernel) })
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        call!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        call!(_mm512_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn store(self, value: F, to: &mut [f32; LANES]) {
        call!(_mm512_storeu_ps(to.as_mut_ptr(), value))
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> F {
        call!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn store_half(self, value: F, to: &mut [u8; 2 * LANES]) {
        call!({
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        })
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        call!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        call!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        call!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        call!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        call!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        call!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        call!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn round(self, a: F) -> F {
        call!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn to_int(self, a: F) -> I {
        call!(_mm512_cvtps_epi32(a))
    }

    #[inline(always)]
    fn to_float(self, a: I) -> F {
        call!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn as_float(self, a: I) -> F {
        call!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn as_int(self, a: F) -> I {
        call!(_mm512_castps_si512(a))
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        call!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        call!(_mm512_reduce_max_ps(a))
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> I {
        call!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn load_int(self, from: &[i32; LANES]) -> I {
        call!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn store_int(self, value: I, to: &mut [i32; LANES]) {
        call!(_mm512_storeu_si512(to.as_mut_ptr().cast(), value))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        call!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn widen_u8(self, from: &[u8; LANES]) -> I {
        call!(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn widen_i8(self, from: &[u8; LANES]) -> I {
        call!(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn widen_u16(self, from: &[u8; 2 * LANES]) -> I {
        call!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn add_int(self, a: I, b: I) -> I {
        call!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_int(self, a: I, b: I) -> I {
        call!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        call!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        call!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: I) -> I {
        call!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: I) -> I {
        call!(_mm512_srlv_epi32(a, _mm512_set1_epi32(N)))
    }

    #[inline(always)]
    fn shr_by(self, a: I, bits: u32) -> I {
        call!(_mm512_srl_epi32(a, _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn sra<const N: i32>(self, a: I) -> I {
        call!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }

    #[inline(always)]
    fn shl16<const N: i32>(self, a: I) -> I {
        call!(_mm512_sllv_epi16(a, _mm512_set1_epi16(N as i16)))
    }

    #[inline(always)]
    fn shr16<const N: i32>(self, a: I) -> I {
        call!(_mm512_srlv_epi16(a, _mm512_set1_epi16(N as i16)))
    }

    #[inline(always)]
    fn sra16<const N: i32>(self, a: I) -> I {
        call!(_mm512_srav_epi16(a, _mm512_set1_epi16(N as i16)))
    }

    #[inline(always)]
    fn sub16(self, a: I, b: I) -> I {
        call!(_mm512_sub_epi16(a, b))
    }

    #[inline(always)]
    fn dot(self, sum: I, a: I, b: I) -> I {
        call!({
            if PRODUCTS {
                _mm512_dpwssd_epi32(sum, a, b)
            } else {
                _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
            }
        })
    }

    #[inline(always)]
    fn max_int(self, a: I, b: I) -> I {
        call!(_mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn largest_int(self, a: I) -> i32 {
        call!(_mm512_reduce_max_epi32(a))
    }

    #[inline(always)]
    fn pair(self, a: I, b: I) -> I {
        call!({
            let (low, high) = (_mm512_cvtepi32_epi16(a), _mm512_cvtepi32_epi16(b));
            let halves = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            // 0 2 1 3 of every four.
            let order = _mm_set_epi64x(0x0f0e_0b0a_0d0c_0908, 0x0706_0302_0504_0100);
            _mm512_shuffle_epi8(halves, _mm512_broadcast_i32x4(order))
        })
    }

    #[inline(always)]
    fn sum_int(self, a: I) -> i32 {
        call!(_mm512_reduce_add_epi32(a))
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], places: I) -> I {
        call!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, places)
        })
    }

    #[inline(always)]
    fn prefetch(self, memory: &[u8], place: usize) {
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().wrapping_add(place).cast()) }
    }
}
