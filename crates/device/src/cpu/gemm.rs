//! Products of two matrices of f32 or f64 on one thread. The work is done by libraries: `private-gemm-x86`,
//! which is the kernel of the crate `faer`, on Unix systems whose x86-64 processor has AVX2 or AVX-512, and
//! `matrixmultiply` elsewhere.
//!
//! The terms of an element's sum are added in an order that does not depend on which rows and columns are
//! computed with it.
#![allow(unsafe_code)]

use super::factor::StridedMatrix;

/// A product of two matrices.
#[derive(Clone, Copy)]
pub struct Gemm {
    /// Whether the elements are f64; else they are f32.
    pub double: bool,
    /// Rows of the result, terms of a sum, columns of the result.
    pub sizes: [usize; 3],
    /// The left factor.
    pub lhs: StridedMatrix,
    /// The right factor.
    pub rhs: StridedMatrix,
    /// The result's place.
    pub target: StridedMatrix,
    /// Whether the product is added to the result's elements; else it replaces them.
    pub adds: bool,
}

/// `target = lhs @ rhs`, or `target += lhs @ rhs`.
///
/// # Safety
/// All elements that the sizes and strides address are valid, and nobody else uses those of the target.
pub unsafe fn multiply(product: Gemm) {
    // Windows is left out because the kernels' calling convention was not tried there. The library reserves 4
    // MiB for each thread, since its feature `std` is off here.
    #[cfg(all(target_arch = "x86_64", unix))]
    if let Some(instructions) = instructions() {
        // SAFETY: passed on to the caller; `instructions` has found that the processor has these
        // instructions.
        return unsafe { by_faer(product, instructions) };
    }
    // SAFETY: passed on to the caller.
    unsafe { by_matrixmultiply(product) }
}

/// The instruction set of the kernels that this processor can run; `None` if it can run none.
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
    // SAFETY: the caller promises that the matrices' elements are valid. The null pointers stand for options
    // that are off: no rows or columns are selected, and there is no diagonal.
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
