//! Factorizations of dense f64 matrices in host memory.
//!
//! A thin layer over the crate `faer` that fixes what callers rely on: matrices are slices in row-major order,
//! signs are LAPACK's where LAPACK has a rule, a matrix for which there is no result is told apart from one with a
//! result, and no input, NaN and infinities included, panics or runs forever. Everything runs on the calling thread.
//!
//! It is a package of its own because `faer` is generic: its code is compiled here, once, and not with every change
//! in the packages above.

mod lu;
mod spectral;

use faer::{Mat, MatRef, Side};

pub use lu::{Lu, cofactor};
pub use spectral::{Svd, Vectors, eigh, svd};

/// A matrix in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f64],
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    /// The matrix of these elements; `None` if there are not `rows * columns` of them.
    pub fn new(data: &'a [f64], rows: usize, columns: usize) -> Option<Matrix<'a>> {
        (rows.checked_mul(columns) == Some(data.len())).then_some(Matrix { data, rows, columns })
    }

    /// The number of rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(self) -> usize {
        self.columns
    }

    fn is_finite(self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    fn view(self) -> MatRef<'a, f64> {
        MatRef::from_row_major_slice(self.data, self.rows, self.columns)
    }
}

/// Which triangle of a square matrix is meant. The other one is not read, or is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// The diagonal and what is below it.
    Lower,
    /// The diagonal and what is above it.
    Upper,
}

impl Triangle {
    /// The triangle of the transposed matrix.
    pub fn transposed(self) -> Triangle {
        match self {
            Triangle::Lower => Triangle::Upper,
            Triangle::Upper => Triangle::Lower,
        }
    }

    fn side(self) -> Side {
        match self {
            Triangle::Lower => Side::Lower,
            Triangle::Upper => Side::Upper,
        }
    }
}

/// Elements in row-major order.
fn elements(matrix: MatRef<'_, f64>) -> Vec<f64> {
    let mut data = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for i in 0..matrix.nrows() {
        data.extend((0..matrix.ncols()).map(|j| matrix[(i, j)]));
    }
    data
}

/// The Cholesky factor of a symmetric matrix of which one triangle is read: L with `A = L Lᵀ` from the lower one, U with
/// `A = Uᵀ U` from the upper one.
///
/// # Errors
/// The order of the first leading minor that is not positive (NaN is not), counted from 1.
pub fn cholesky(a: Matrix<'_>, triangle: Triangle) -> Result<Vec<f64>, usize> {
    let factor = a.view().llt(triangle.side()).map_err(|error| match error {
        faer::linalg::solvers::LltError::NonPositivePivot { index } => index + 1,
    })?;
    let lower = factor.L();
    let n = a.rows;
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let place = if triangle == Triangle::Lower { i * n + j } else { j * n + i };
            out[place] = lower[(i, j)];
        }
    }
    Ok(out)
}

/// X with `A X = B` for a triangular A of which one triangle is read, and its diagonal taken to be 1 if `unit` says so. Divides by
/// a 0 on the diagonal as floats do.
pub fn solve_triangular(a: Matrix<'_>, b: Matrix<'_>, triangle: Triangle, unit: bool) -> Vec<f64> {
    let mut x: Mat<f64> = b.view().to_owned();
    match (triangle, unit) {
        (Triangle::Lower, false) => a.view().solve_lower_triangular_in_place(&mut x),
        (Triangle::Lower, true) => a.view().solve_unit_lower_triangular_in_place(&mut x),
        (Triangle::Upper, false) => a.view().solve_upper_triangular_in_place(&mut x),
        (Triangle::Upper, true) => a.view().solve_unit_upper_triangular_in_place(&mut x),
    }
    elements(x.as_ref())
}

/// `A = Q R` by Householder reflections: the first `columns` columns of Q, which are orthonormal, and as many rows of R, which is upper
/// triangular. The signs are LAPACK's. NaN if the matrix is not finite.
pub fn qr(a: Matrix<'_>, columns: usize) -> (Vec<f64>, Vec<f64>) {
    let (m, n) = (a.rows, a.columns);
    if !a.is_finite() {
        return (vec![f64::NAN; m * columns], upper(columns, n, |_, _| f64::NAN));
    }
    let factor = a.view().qr();
    let q = if columns > m.min(n) { factor.compute_Q() } else { factor.compute_thin_Q() };
    let r = factor.thin_R();
    let r = upper(columns, n, |i, j| if i < r.nrows() { r[(i, j)] } else { 0.0 });
    (elements(q.as_ref().subcols(0, columns)), r)
}

/// An upper triangular matrix.
fn upper(rows: usize, columns: usize, element: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut data = vec![0.0; rows * columns];
    for i in 0..rows {
        for j in i..columns {
            data[i * columns + j] = element(i, j);
        }
    }
    data
}
