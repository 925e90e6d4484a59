//! Factorizations of dense f64 matrices in host memory.
//!
//! This is a thin layer over the crate `faer` with these guarantees: matrices are slices in row-major order;
//! signs are those of LAPACK where LAPACK has a rule; a matrix without a result is reported, by an error or
//! by NaN as each function documents; and no input, NaN and infinities included, panics or runs forever.
//! Everything runs on the calling thread.
//!
//! It is a package of its own because `faer` is generic: its code is compiled once, here, and not again with
//! every change in the packages that use it.
//!
//! ```
//! use wgrad_linalg::{Lu, Matrix, Triangle, cholesky};
//! let a = Matrix::new(&[4.0, 2.0, 2.0, 5.0], 2, 2).expect("four elements");
//! assert_eq!(cholesky(a, Triangle::Lower), Ok(vec![2.0, 0.0, 1.0, 2.0]));
//! let b = Matrix::new(&[8.0, 12.0], 2, 1).expect("two elements");
//! let x = Lu::new(a).solve(b);
//! assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12);
//! ```

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
    /// A matrix of these elements. `None` unless there are `rows * columns` of them.
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

/// The triangle of a square matrix that a function reads or returns. The other one is not read, or is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// The diagonal and the elements below it.
    Lower,
    /// The diagonal and the elements above it.
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

/// The elements of a matrix in row-major order.
fn elements(matrix: MatRef<'_, f64>) -> Vec<f64> {
    let mut data = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for i in 0..matrix.nrows() {
        data.extend((0..matrix.ncols()).map(|j| matrix[(i, j)]));
    }
    data
}

/// The Cholesky factor of a symmetric positive definite matrix, of which only one triangle is read: L with
/// `A = L Lᵀ` for the lower one, U with `A = Uᵀ U` for the upper one.
///
/// # Errors
/// The order, counted from 1, of the first leading minor that is not positive (or is NaN).
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

/// X with `A X = B` for a triangular A. Only that triangle is read; if `unit` is set, the diagonal counts as
/// 1 and is not read. A 0 on the diagonal gives infinities or NaN, as the division of floats does.
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

/// `A = Q R` by Householder reflections: the first `columns` columns of the orthonormal Q, and as many rows
/// of the upper triangular R. The signs are those of LAPACK. Both are NaN if the matrix is not finite.
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

/// The upper triangular matrix with these elements.
fn upper(rows: usize, columns: usize, element: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut data = vec![0.0; rows * columns];
    for i in 0..rows {
        for j in i..columns {
            data[i * columns + j] = element(i, j);
        }
    }
    data
}
