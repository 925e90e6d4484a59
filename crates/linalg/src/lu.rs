//! The LU factorization, and solutions, determinants and cofactors computed from it.

use faer::linalg::solvers::{PartialPivLu, Solve};

use crate::{Matrix, Vectors, elements, svd};

/// The factorization `P A = L U` of a square matrix, with partial pivoting.
pub struct Lu {
    factor: PartialPivLu<f64>,
    diagonal: Vec<f64>,
    /// The sign of the permutation.
    parity: f64,
}

impl Lu {
    /// Factorizes a square matrix.
    pub fn new(a: Matrix<'_>) -> Lu {
        let factor = a.view().partial_piv_lu();
        let diagonal = (0..a.rows).map(|i| factor.U()[(i, i)]).collect();
        let parity = parity(factor.P().arrays().0);
        Lu { factor, diagonal, parity }
    }

    /// The position of the first 0 on the diagonal of U, counted from 1. `None` if the matrix is not
    /// singular.
    pub fn zero_pivot(&self) -> Option<usize> {
        // After a pivot of 0 the elements of the factors are NaN or infinite, so only the first 0 counts.
        self.diagonal.iter().position(|pivot| *pivot == 0.0).map(|place| place + 1)
    }

    /// The determinant. It is 1 for a matrix without elements.
    pub fn determinant(&self) -> f64 {
        if self.zero_pivot().is_some() { 0.0 } else { self.parity * self.diagonal.iter().product::<f64>() }
    }

    /// The sign of the determinant, and the logarithm of its absolute value. They are 0 and minus infinity
    /// for a singular matrix.
    pub fn sign_and_log(&self) -> (f64, f64) {
        if self.zero_pivot().is_some() {
            return (0.0, f64::NEG_INFINITY);
        }
        let log = self.diagonal.iter().map(|pivot| pivot.abs().ln()).sum::<f64>();
        let sign = self.diagonal.iter().fold(self.parity, |sign, pivot| sign * pivot.signum());
        // As in PyTorch, the sign of NaN is 0.
        (if sign.is_nan() { 0.0 } else { sign }, log)
    }

    /// X with `A X = B`. It is NaN for a singular A.
    pub fn solve(&self, b: Matrix<'_>) -> Vec<f64> {
        if self.zero_pivot().is_some() {
            return vec![f64::NAN; b.rows() * b.columns()];
        }
        elements(self.factor.solve(b.view()).as_ref())
    }
}

/// 1 for an even permutation, -1 for an odd one.
fn parity(permutation: &[usize]) -> f64 {
    let mut seen = vec![false; permutation.len()];
    let mut sign = 1.0;
    for start in 0..permutation.len() {
        let mut length = 0;
        let mut place = start;
        while !std::mem::replace(&mut seen[place], true) {
            place = permutation[place];
            length += 1;
        }
        if length > 0 && length % 2 == 0 {
            sign = -sign;
        }
    }
    sign
}

/// The matrix of cofactors, which is the derivative of the determinant, of singular matrices too. It is NaN
/// if the matrix is not finite.
///
/// If no pivot of LU is close to 0, it is the determinant times the transposed inverse. Otherwise it is
/// computed without a division from the singular value decomposition, as `det(U) det(V) U diag(p) Vᵀ`, where
/// `p[i]` is the product of all singular values except the i-th.
pub fn cofactor(a: Matrix<'_>) -> Vec<f64> {
    let n = a.rows();
    let lu = Lu::new(a);
    let sizes = || lu.diagonal.iter().map(|pivot| pivot.abs());
    let (smallest, largest) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let mut out = vec![f64::NAN; n * n];
    if smallest > largest * 1e-10 {
        let mut eye = vec![0.0; n * n];
        eye.iter_mut().step_by(n + 1).for_each(|one| *one = 1.0);
        let inverse = lu.solve(Matrix { data: &eye, rows: n, columns: n });
        let determinant = lu.determinant();
        for i in 0..n {
            for j in 0..n {
                out[i * n + j] = determinant * inverse[j * n + i];
            }
        }
        return out;
    }
    let Some(parts) = svd(a, Vectors::Thin) else { return out };
    let square = |data: &[f64]| Lu::new(Matrix { data, rows: n, columns: n }).determinant().signum();
    let sign = square(&parts.u) * square(&parts.vt);
    let others = products_of_others(&parts.s);
    for i in 0..n {
        for j in 0..n {
            let sum: f64 = (0..n).map(|k| parts.u[i * n + k] * others[k] * parts.vt[k * n + j]).sum();
            out[i * n + j] = sign * sum;
        }
    }
    out
}

/// For each number the product of all the others.
fn products_of_others(numbers: &[f64]) -> Vec<f64> {
    let mut products = Vec::with_capacity(numbers.len());
    let mut before = 1.0;
    for number in numbers {
        products.push(before);
        before *= number;
    }
    let mut after = 1.0;
    for (product, number) in products.iter_mut().zip(numbers).rev() {
        *product *= after;
        after *= number;
    }
    products
}
