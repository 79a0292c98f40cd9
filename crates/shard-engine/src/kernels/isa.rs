//! The instruction set that kernels run on: chosen at run time, as a value.
//!
//! A further set takes a variant of [`Isa`], a type that proves it as [`Avx2`] does, and a method of [`Kernel`] whose
//! default is the next smaller set.

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Isa {
    /// What every processor of the target has.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

/// Proves that this processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Avx2(());

/// Work that is compiled once for each instruction set.
///
/// The methods, and what they call in their loops, must be `#[inline(always)]`: only code that ends up inside of a
/// function with the instruction set's features is compiled for it.
pub(crate) trait Kernel: Sized {
    /// In plain Rust.
    fn portable(self);

    /// With AVX2 and FMA; the plain code compiled for them, where nothing better is written.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, _proof: Avx2) {
        self.portable();
    }
}

impl Isa {
    /// The best that this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = Avx2::detect() {
            return Self::Avx2(proof);
        }
        Self::Portable
    }

    /// Runs a kernel with this instruction set.
    #[inline]
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self {
            Self::Portable => kernel.portable(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(proof) => proof.run(kernel),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    #[inline]
    fn run(self, kernel: impl Kernel) {
        /// The one function with the features; kernels are inlined into it.
        #[target_feature(enable = "avx2,fma")]
        fn compiled(proof: Avx2, kernel: impl Kernel) {
            kernel.avx2(proof);
        }
        // SAFETY: `self` is made only where the processor has these features.
        #[allow(unsafe_code)]
        unsafe {
            compiled(self, kernel);
        }
    }
}
