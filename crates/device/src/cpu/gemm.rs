//! Products of two matrices of f32 or f64 on one thread, by libraries: `private-gemm-x86`, which is the crate `faer`'s kernel,
//! on Unix systems whose x86-64 processor has AVX2 or AVX-512, else `matrixmultiply`.
//!
//! An element's sum is formed in the same order whatever rows and columns are computed beside it.
#![allow(unsafe_code)]

use super::factor::StridedMatrix;

/// What is to be multiplied.
#[derive(Clone, Copy)]
pub struct Gemm {
    /// Of f64, else of f32.
    pub double: bool,
    /// Rows of the result, terms of a sum, columns of the result.
    pub sizes: [usize; 3],
    /// The left factor.
    pub lhs: StridedMatrix,
    /// The right one.
    pub rhs: StridedMatrix,
    /// Where the result goes.
    pub target: StridedMatrix,
    /// Whether it is added to what is there.
    pub adds: bool,
}

/// `target = lhs @ rhs`, or `target += lhs @ rhs`.
///
/// # Safety
/// All elements that sizes and strides lead to are valid, and nobody else uses the target's.
pub unsafe fn multiply(product: Gemm) {
    // Windows is left out because the kernels' calling convention was not tried there. Without its feature `std`, as here, the
    // library reserves 4 MiB for each thread.
    #[cfg(all(target_arch = "x86_64", unix))]
    if let Some(instructions) = instructions() {
        // SAFETY: passed on to the caller; the processor has the instructions.
        return unsafe { by_faer(product, instructions) };
    }
    // SAFETY: passed on to the caller.
    unsafe { by_matrixmultiply(product) }
}

/// What the processor has of what the kernels need.
#[cfg(all(target_arch = "x86_64", unix))]
fn instructions() -> Option<private_gemm_x86::InstrSet> {
    use std::arch::is_x86_feature_detected as has;
    if !has!("avx2") || !has!("fma") {
        return None;
    }
    let wide = has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq");
    Some(if wide { private_gemm_x86::InstrSet::Avx512 } else { private_gemm_x86::InstrSet::Avx256 })
}

/// # Safety
/// As for [`multiply`], and the processor has the instructions.
#[cfg(all(target_arch = "x86_64", unix))]
unsafe fn by_faer(product: Gemm, instructions: private_gemm_x86::InstrSet) {
    let Gemm { double, sizes: [m, k, n], lhs, rhs, target, adds } = product;
    use private_gemm_x86::{Accum, DType, DstKind, IType, gemm};
    use std::ptr::null;
    let (dtype, one): (DType, *const ()) = if double {
        (DType::F64, std::ptr::from_ref(&1f64).cast())
    } else {
        (DType::F32, std::ptr::from_ref(&1f32).cast())
    };
    // SAFETY: passed on to the caller. Nothing is conjugated, no rows or columns are chosen, there is no diagonal.
    unsafe {
        gemm(
            dtype,
            IType::U64,
            instructions,
            m,
            n,
            k,
            target.start.cast_mut().cast(),
            target.row,
            target.column,
            null(),
            null(),
            DstKind::Full,
            if adds { Accum::Add } else { Accum::Replace },
            lhs.start.cast(),
            lhs.row,
            lhs.column,
            false,
            null(),
            0,
            rhs.start.cast(),
            rhs.row,
            rhs.column,
            false,
            one,
            1,
        );
    }
}

/// # Safety
/// As for [`multiply`].
unsafe fn by_matrixmultiply(product: Gemm) {
    let Gemm { double, sizes: [m, k, n], lhs, rhs, target, adds } = product;
    macro_rules! call {
        ($function:path, $t:ty) => {
            $function(
                m,
                k,
                n,
                1.0,
                lhs.start.cast(),
                lhs.row,
                lhs.column,
                rhs.start.cast(),
                rhs.row,
                rhs.column,
                <$t>::from(u8::from(adds)),
                target.start.cast_mut().cast(),
                target.row,
                target.column,
            )
        };
    }
    // SAFETY: passed on to the caller.
    unsafe {
        if double {
            call!(matrixmultiply::dgemm, f64);
        } else {
            call!(matrixmultiply::sgemm, f32);
        }
    }
}
