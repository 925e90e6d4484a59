//! The loops that the interpreter's instructions run over a tile's lanes, compiled once for each vector width
//! that the processor may have.
//!
//! A loop is a [`SimdBody`]: Rust code over slices that the compiler vectorises. [`Versions`] picks the
//! version for this processor: AVX-512, AVX2 with FMA, or the baseline that every processor of the target has
//! (SSE2, NEON).
#![allow(unsafe_code)]

pub mod binary;
pub mod convert;
pub mod fold;
pub mod fused;
pub mod lanes;
pub mod math;
pub mod unary;

/// The arguments of a loop. Each loop says which fields it reads, and how many lanes are behind each pointer.
#[derive(Clone, Copy)]
pub struct SimdArgs {
    /// The memory for results, which overlaps no operand.
    pub dst: *mut u8,
    /// The first operand.
    pub a: *const u8,
    /// The second operand.
    pub b: *const u8,
    /// The third operand.
    pub c: *const u8,
    /// The number of lanes, or of lanes of a row where there are rows.
    pub n: usize,
    /// The number of rows.
    pub rows: usize,
    /// The position of the first element in its row, for loops that search for positions.
    pub start: usize,
}

impl SimdArgs {
    /// The arguments of a loop with one operand.
    pub fn new(dst: *mut u8, a: *const u8, n: usize) -> SimdArgs {
        SimdArgs { dst, a, b: a, c: a, n, rows: 1, start: 0 }
    }
}

/// A compiled loop. Calling it is sound if its arguments point to as many aligned values as the loop's
/// documentation says.
pub type Raw = unsafe fn(&SimdArgs);

/// An instruction set that a version of a loop is compiled for.
pub trait SimdLevel {
    /// Whether the instruction set has a fused multiply-add.
    const FMA: bool;

    /// Another loop's version for the same instruction set, to be called where inlining would make it slower.
    fn version<B: SimdBody>() -> Raw;
}

/// Prefetches the cache line at an address, which need not be valid.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    // SAFETY: a prefetch of an invalid address has no effect, and every x86-64 processor has the instruction
    // (SSE).
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The instructions that every processor of the target has.
pub struct Baseline;
impl SimdLevel for Baseline {
    const FMA: bool = cfg!(target_arch = "aarch64");

    fn version<B: SimdBody>() -> Raw {
        baseline::<B>
    }
}

/// AVX2 with fused multiply-add.
#[cfg(target_arch = "x86_64")]
pub struct Avx2;
#[cfg(target_arch = "x86_64")]
impl SimdLevel for Avx2 {
    const FMA: bool = true;

    fn version<B: SimdBody>() -> Raw {
        avx2::<B>
    }
}

/// AVX-512.
#[cfg(target_arch = "x86_64")]
pub struct Avx512;
#[cfg(target_arch = "x86_64")]
impl SimdLevel for Avx512 {
    const FMA: bool = true;

    fn version<B: SimdBody>() -> Raw {
        avx512::<B>
    }
}

/// A loop that can be compiled for any instruction set. Its `run` must be `#[inline(always)]`, so that it is
/// compiled with the instruction set of the function that calls it.
pub trait SimdBody {
    /// Runs the loop.
    ///
    /// # Safety
    /// The arguments point to as many aligned values as the loop reads and writes, and `dst` overlaps
    /// nothing.
    unsafe fn run<L: SimdLevel>(args: &SimdArgs);
}

unsafe fn baseline<B: SimdBody>(args: &SimdArgs) {
    // SAFETY: passed on to the caller.
    unsafe { B::run::<Baseline>(args) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<B: SimdBody>(args: &SimdArgs) {
    // SAFETY: passed on to the caller.
    unsafe { B::run::<Avx2>(args) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512<B: SimdBody>(args: &SimdArgs) {
    // SAFETY: passed on to the caller.
    unsafe { B::run::<Avx512>(args) }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    let wide =
        has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512cd");
    wide && has_avx2()
}

/// A choice of the versions that a loop is compiled in. Each version costs compile time, and only the loops
/// of f32 are worth all of them.
pub trait Versions {
    /// The version of a loop for this processor.
    fn pick<B: SimdBody>() -> Raw;
}

/// A version for each vector width, for the loops that training spends its time on.
pub struct Full;
impl Versions for Full {
    fn pick<B: SimdBody>() -> Raw {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return avx512::<B>;
            }
            if has_avx2() {
                return avx2::<B>;
            }
        }
        baseline::<B>
    }
}

/// At most AVX2, for loops that wait for memory even at that width.
pub struct Lean;
impl Versions for Lean {
    fn pick<B: SimdBody>() -> Raw {
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            return avx2::<B>;
        }
        baseline::<B>
    }
}

/// One version, for loops that call a function for each lane or that rarely run.
pub struct Plain;
impl Versions for Plain {
    fn pick<B: SimdBody>() -> Raw {
        baseline::<B>
    }
}

/// # Safety
/// `pointer` points to `n` aligned values that nobody writes meanwhile.
#[inline(always)]
pub(super) unsafe fn input<'a, T>(pointer: *const u8, n: usize) -> &'a [T] {
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts(pointer.cast(), n) }
}

/// # Safety
/// `pointer` points to `n` aligned values that nobody else reads or writes meanwhile. They may be
/// uninitialised as long as they are only written, since the types here are plain numbers.
#[inline(always)]
pub(super) unsafe fn output<'a, T>(pointer: *mut u8, n: usize) -> &'a mut [T] {
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts_mut(pointer.cast(), n) }
}
