//! The instruction set that kernels run on: chosen at run time, as a value.
//!
//! A further set takes an implementation of [`Simd`] and a variant of [`Isa`].

#[cfg(target_arch = "aarch64")]
use super::simd::neon::Neon;
use super::simd::{Kernel, Simd, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2::Avx2, avx512::Avx512};

/// Names the instruction set to use, instead of the best that there is: one of [`Isa::NAMES`].
pub(crate) const VARIABLE: &str = "LLAMA_SWARM_ISA";

/// An instruction set that this processor has. All give the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Isa {
    /// What every processor of the target has.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    /// With products of whole numbers.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// In rising order.
    pub(crate) const NAMES: [&str; 5] = ["portable", "neon", "avx2", "avx512", "avx512vnni"];

    /// All that this processor has, the best last.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Self::Avx2));
            all.extend(Avx512::detect().map(Self::Avx512));
            all.extend(Avx512::detect().map(Self::Avx512Vnni));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(Neon::detect().map(Self::Neon));
        all
    }

    /// The best that this processor has.
    pub(crate) fn best() -> Self {
        *Self::all().last().expect("there is always the portable one")
    }

    /// What [`VARIABLE`] names, otherwise the best.
    ///
    /// # Errors
    /// When it names none, or one that this processor does not have.
    pub(crate) fn chosen() -> Result<Self, String> {
        match std::env::var(VARIABLE) {
            Err(_) => Ok(Self::best()),
            Ok(name) => Self::named(&name),
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        let all = Self::all();
        all.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
            let here: Vec<&str> = all.iter().map(|isa| isa.name()).collect();
            match Self::NAMES.contains(&name) {
                true => format!("this processor has no {name}, only {}", here.join(", ")),
                false => format!("must be one of {}, got {name:?}", here.join(", ")),
            }
        })
    }

    /// How [`VARIABLE`] names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// See [`Simd::ROOMY`].
    pub(crate) fn is_roomy(self) -> bool {
        match self {
            Self::Portable => Portable::ROOMY,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Avx2::ROOMY,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Avx512::<false>::ROOMY,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => Avx512::<true>::ROOMY,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => Neon::ROOMY,
        }
    }

    /// Runs a kernel with this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable => Portable.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.call(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(simd) => simd.call(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.call(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_found_by_its_name_and_one_that_is_not_there_is_told() {
        assert_eq!(Isa::named("portable"), Ok(Isa::Portable));
        assert_eq!(Isa::named(Isa::best().name()), Ok(Isa::best()));
        assert!(Isa::named("mmx").expect_err("unknown").contains("portable"));
        let elsewhere = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        assert!(Isa::named(elsewhere).expect_err("not here").starts_with("this processor has no"));
    }
}
