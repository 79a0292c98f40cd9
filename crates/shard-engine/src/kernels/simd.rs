//! Sixteen numbers at once: what kernels are written in.
//!
//! A kernel is plain generic code over [`Simd`]; each instruction set implements the operations, and nothing else. All
//! operations are those of IEEE 754 or of whole numbers, so every implementation gives the same bits, and a kernel
//! written over them does too. A session may go on from one kind of processor on another without a changed token.
//!
//! Where the sets of processors differ by themselves (the largest of numbers that are not numbers, whole numbers of
//! what is too large), the operation's own page says what is promised.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// Work that is compiled once for each instruction set.
pub(crate) trait Kernel {
    type Output;

    /// Must be `#[inline(always)]`, with all that it calls in its loops: only code that ends up inside of a function
    /// with the instruction set's features is compiled for it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;

/// An instruction set. A value of the type proves that the processor has it.
///
/// All methods must be `#[inline(always)]`: only what ends up inside of a function with the set's features is compiled
/// for it.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sixteen `i32`; also seen as 32 `i16` or 64 bytes, the first of each lane in its lowest bits.
    type I: Copy;
    /// It has room for some thirty vectors in registers, and not only for seven.
    const ROOMY: bool;
    /// Several vectors at a time are faster than one, and worth the code.
    const SEVERAL: bool;

    /// Runs a kernel as a function of its own, compiled for this set.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, value: Self::F, to: &mut [f32; LANES]);
    /// From half precision, as it lies in memory (little endian).
    fn load_half(self, from: &[u8; 2 * LANES]) -> Self::F;
    /// To half precision, halves to even.
    fn store_half(self, value: Self::F, to: &mut [u8; 2 * LANES]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }` in each lane: `b` where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// To whole numbers, halves to even.
    fn round(self, a: Self::F) -> Self::F;
    /// To `i32`, halves to even. What is promised is only for numbers within its range.
    fn to_int(self, a: Self::F) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    /// The same bits.
    fn as_float(self, a: Self::I) -> Self::F;
    /// The same bits.
    fn as_int(self, a: Self::F) -> Self::I;
    /// Lane i and i + 8, then i + 4, then i + 2, then i + 1: always in this order.
    fn sum(self, a: Self::F) -> f32;
    /// The largest of all lanes, which must be numbers.
    fn largest(self, a: Self::F) -> f32;

    fn splat_int(self, value: i32) -> Self::I;
    fn load_int(self, from: &[i32; LANES]) -> Self::I;
    fn store_int(self, value: Self::I, to: &mut [i32; LANES]);
    fn load_bytes(self, from: &[u8; 4 * LANES]) -> Self::I;
    /// One byte a lane.
    fn widen_u8(self, from: &[u8; LANES]) -> Self::I;
    /// One byte with a sign a lane.
    fn widen_i8(self, from: &[u8; LANES]) -> Self::I;
    /// One `u16` a lane.
    fn widen_u16(self, from: &[u8; 2 * LANES]) -> Self::I;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// Of each `i32`, by less than 32.
    fn shl<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of each `u32`: zeros come in.
    fn shr<const N: i32>(self, a: Self::I) -> Self::I;
    /// As [`Self::shr`], by what is known only when it runs.
    fn shr_by(self, a: Self::I, bits: u32) -> Self::I;
    /// Of each `i32`: the sign comes in.
    fn sra<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of each `i16`.
    fn shl16<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of each `u16`: zeros come in.
    fn shr16<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of each `i16`: the sign comes in.
    fn sra16<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of each `i16`.
    fn sub16(self, a: Self::I, b: Self::I) -> Self::I;
    /// In each lane `sum + a.low · b.low + a.high · b.high` of the two `i16`, exactly. Not both may be -32768 in both
    /// halves.
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The larger in each lane.
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// The largest of all lanes.
    fn largest_int(self, a: Self::I) -> i32;
    /// The 32 numbers of `a` and `b`, which must be in range, as `i16` in pairs: 0 and 2, 1 and 3, then 4 and 6, 5 and
    /// 7, and so on.
    fn pair(self, a: Self::I, b: Self::I) -> Self::I;
    /// The sum of all lanes, which must be in range.
    fn sum_int(self, a: Self::I) -> i32;
    /// Of each byte, which must be below 16, the number in this place of the table.
    fn look_up(self, table: &[i8; 16], places: Self::I) -> Self::I;

    /// Asks for a line of memory; a place past the end is none to ask for, and does no harm.
    fn prefetch(self, memory: &[u8], place: usize);
}

/// `N` bytes from this place on.
#[inline(always)]
pub(crate) fn bytes<const N: usize>(memory: &[u8], place: usize) -> &[u8; N] {
    memory[place..place + N].first_chunk().expect("just so many were taken")
}

/// The vector of numbers from this place on.
#[inline(always)]
pub(crate) fn lanes(numbers: &[f32], place: usize) -> &[f32; LANES] {
    numbers[place..place + LANES].first_chunk().expect("just so many were taken")
}

/// As [`lanes`], to write to.
#[inline(always)]
pub(crate) fn lanes_mut(numbers: &mut [f32], place: usize) -> &mut [f32; LANES] {
    numbers[place..place + LANES].first_chunk_mut().expect("just so many were taken")
}

/// At most sixteen numbers, and zeros behind them.
#[inline(always)]
pub(crate) fn padded(numbers: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..numbers.len()].copy_from_slice(numbers);
    lanes
}
