//! AVX2, FMA and F16C: two registers of eight numbers.

#![allow(unsafe_code)]

use std::{arch::x86_64::*, array};

use super::{Kernel, LANES, Simd, bytes};

/// Proves that this processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Avx2(());

type F = [__m256; 2];
type I = [__m256i; 2];

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

/// Calls an instruction for both registers.
///
/// SAFETY of every use: a value of `Avx2` is made only where the processor has the features of all instructions here.
/// Memory is read and written through references to as many bytes as the instruction takes, which need no alignment.
macro_rules! both {
    (|$half:ident| $instruction:expr) => {
        // SAFETY: as above.
        array::from_fn(|$half| unsafe { $instruction })
    };
}

impl Simd for Avx2 {
    type F = F;
    type I = I;
    const ROOMY: bool = false;
    const SEVERAL: bool = true;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: as for `both`.
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F {
        both!(|_half| _mm256_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        both!(|half| _mm256_loadu_ps(from[8 * half..8 * half + 8].as_ptr()))
    }

    #[inline(always)]
    fn store(self, value: F, to: &mut [f32; LANES]) {
        let [low, high] = value;
        // SAFETY: as for `both`.
        unsafe {
            _mm256_storeu_ps(to[..8].as_mut_ptr(), low);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), high);
        }
    }

    #[inline(always)]
    fn load_half(self, from: &[u8; 2 * LANES]) -> F {
        both!(|half| _mm256_cvtph_ps(_mm_loadu_si128(from[16 * half..16 * half + 16].as_ptr().cast())))
    }

    #[inline(always)]
    fn store_half(self, value: F, to: &mut [u8; 2 * LANES]) {
        let [low, high] = value;
        // SAFETY: as for `both`.
        unsafe {
            _mm_storeu_si128(to[..16].as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low));
            _mm_storeu_si128(
                to[16..].as_mut_ptr().cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high),
            );
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        both!(|half| _mm256_add_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        both!(|half| _mm256_sub_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        both!(|half| _mm256_mul_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        both!(|half| _mm256_div_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        both!(|half| _mm256_fmadd_ps(a[half], b[half], c[half]))
    }

    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        both!(|half| _mm256_max_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn abs(self, a: F) -> F {
        both!(|half| _mm256_andnot_ps(_mm256_set1_ps(-0.0), a[half]))
    }

    #[inline(always)]
    fn round(self, a: F) -> F {
        both!(|half| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[half]))
    }

    #[inline(always)]
    fn to_int(self, a: F) -> I {
        both!(|half| _mm256_cvtps_epi32(a[half]))
    }

    #[inline(always)]
    fn to_float(self, a: I) -> F {
        both!(|half| _mm256_cvtepi32_ps(a[half]))
    }

    #[inline(always)]
    fn as_float(self, a: I) -> F {
        both!(|half| _mm256_castsi256_ps(a[half]))
    }

    #[inline(always)]
    fn as_int(self, a: F) -> I {
        both!(|half| _mm256_castps_si256(a[half]))
    }

    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: as for `both`.
        unsafe {
            let eight = _mm256_add_ps(a[0], a[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, a: F) -> f32 {
        // SAFETY: as for `both`.
        unsafe {
            let eight = _mm256_max_ps(a[0], a[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn splat_int(self, value: i32) -> I {
        both!(|_half| _mm256_set1_epi32(value))
    }

    #[inline(always)]
    fn load_int(self, from: &[i32; LANES]) -> I {
        both!(|half| _mm256_loadu_si256(from[8 * half..8 * half + 8].as_ptr().cast()))
    }

    #[inline(always)]
    fn store_int(self, value: I, to: &mut [i32; LANES]) {
        let [low, high] = value;
        // SAFETY: as for `both`.
        unsafe {
            _mm256_storeu_si256(to[..8].as_mut_ptr().cast(), low);
            _mm256_storeu_si256(to[8..].as_mut_ptr().cast(), high);
        }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> I {
        both!(|half| _mm256_loadu_si256(from[32 * half..32 * half + 32].as_ptr().cast()))
    }

    #[inline(always)]
    fn widen_u8(self, from: &[u8; LANES]) -> I {
        both!(|half| _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes::<8>(from, 8 * half).as_ptr().cast())))
    }

    #[inline(always)]
    fn widen_i8(self, from: &[u8; LANES]) -> I {
        both!(|half| _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes::<8>(from, 8 * half).as_ptr().cast())))
    }

    #[inline(always)]
    fn widen_u16(self, from: &[u8; 2 * LANES]) -> I {
        both!(|half| _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes::<16>(from, 16 * half).as_ptr().cast())))
    }

    #[inline(always)]
    fn add_int(self, a: I, b: I) -> I {
        both!(|half| _mm256_add_epi32(a[half], b[half]))
    }

    #[inline(always)]
    fn sub_int(self, a: I, b: I) -> I {
        both!(|half| _mm256_sub_epi32(a[half], b[half]))
    }

    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        both!(|half| _mm256_and_si256(a[half], b[half]))
    }

    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        both!(|half| _mm256_or_si256(a[half], b[half]))
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_slli_epi32::<N>(a[half]))
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_srli_epi32::<N>(a[half]))
    }

    #[inline(always)]
    fn shr_by(self, a: I, bits: u32) -> I {
        both!(|half| _mm256_srl_epi32(a[half], _mm_cvtsi32_si128(bits as i32)))
    }

    #[inline(always)]
    fn sra<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_srai_epi32::<N>(a[half]))
    }

    #[inline(always)]
    fn shl16<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_slli_epi16::<N>(a[half]))
    }

    #[inline(always)]
    fn shr16<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_srli_epi16::<N>(a[half]))
    }

    #[inline(always)]
    fn sra16<const N: i32>(self, a: I) -> I {
        both!(|half| _mm256_srai_epi16::<N>(a[half]))
    }

    #[inline(always)]
    fn sub16(self, a: I, b: I) -> I {
        both!(|half| _mm256_sub_epi16(a[half], b[half]))
    }

    #[inline(always)]
    fn dot(self, sum: I, a: I, b: I) -> I {
        both!(|half| _mm256_add_epi32(sum[half], _mm256_madd_epi16(a[half], b[half])))
    }

    #[inline(always)]
    fn max_int(self, a: I, b: I) -> I {
        both!(|half| _mm256_max_epi32(a[half], b[half]))
    }

    #[inline(always)]
    fn largest_int(self, a: I) -> i32 {
        // SAFETY: as for `both`.
        unsafe {
            let eight = _mm256_max_epi32(a[0], a[1]);
            let four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
            _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0xb1>(two)))
        }
    }

    #[inline(always)]
    fn pair(self, a: I, b: I) -> I {
        let numbers = [a, b];
        both!(|half| {
            let [low, high] = numbers[half];
            let halves = _mm256_permute4x64_epi64::<0xd8>(_mm256_packs_epi32(low, high));
            // 0 2 1 3 of every four.
            let order = _mm256_set1_epi64x(0x0706_0302_0504_0100);
            let next = _mm256_set_epi64x(0x0808_0808_0808_0808, 0, 0x0808_0808_0808_0808, 0);
            _mm256_shuffle_epi8(halves, _mm256_add_epi8(order, next))
        })
    }

    #[inline(always)]
    fn sum_int(self, a: I) -> i32 {
        // SAFETY: as for `both`.
        unsafe {
            let eight = _mm256_add_epi32(a[0], a[1]);
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0xb1>(two)))
        }
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; 16], places: I) -> I {
        both!(|half| {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, places[half])
        })
    }

    #[inline(always)]
    fn prefetch(self, memory: &[u8], place: usize) {
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().wrapping_add(place).cast()) }
    }
}
