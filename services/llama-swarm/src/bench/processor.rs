//! What of the processor's instructions kernels may use.

/// Features with whether this processor has them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! features {
    ($detected:ident: $($name:tt),+) => { vec![$(($name, std::arch::$detected!($name))),+] };
}

/// Features that are of use to an engine and that this processor has, by the names compilers know them by.
pub(crate) fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let all = features!(
        is_x86_feature_detected: "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni",
        "avxvnni", "avx512bf16", "avx512fp16"
    );
    #[cfg(target_arch = "aarch64")]
    let all = features!(is_aarch64_feature_detected: "neon", "dotprod", "i8mm", "fp16", "bf16", "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: Vec<(&'static str, bool)> = vec![];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}
