//! Linear algebra of matrices (the last two dims) and batches of them: factorizations, and what is computed from them.
//!
//! Unlike all other operations these are not lazy and have no kernels: the operands are computed and read, the work is done in
//! f64 on the host (`wgrad-linalg`), and the rounded results go to the operands' device. So a matrix without a
//! result is an error of the call, not of a later evaluation.

use wgrad_device::layout::{Dims, checked_elements};
use wgrad_device::{DType, Error, Result};
use wgrad_linalg::{Lu, Matrix, Triangle, Vectors};

use crate::Array;

/// Which factors of a QR factorization are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QrMode {
    /// Q with as many columns as the smaller of the sizes.
    #[default]
    Reduced,
    /// A square Q.
    Complete,
    /// Only R of the reduced form.
    R,
}

/// A batch of matrices in host memory, as f64.
struct Batch {
    data: Vec<f64>,
    rows: usize,
    columns: usize,
}

impl Batch {
    /// Reads the matrices of an array.
    fn read(op: &'static str, array: &Array) -> Result<Batch> {
        let [.., rows, columns] = *array.shape() else {
            let reason = "has fewer than two dims; give a matrix or a batch of them".to_owned();
            return Err(Error::Shape { op, shape: array.shape().to_vec(), reason });
        };
        let data = match array.dtype() {
            DType::F64 => array.to_vec::<f64>()?,
            DType::F32 => array.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
            dtype => {
                let reason = "is not f32 or f64; cast the matrices first".to_owned();
                return Err(Error::DType { op, dtype, reason });
            }
        };
        Ok(Batch { data, rows, columns })
    }

    /// As [`Batch::read`], for square matrices.
    fn read_square(op: &'static str, array: &Array) -> Result<Batch> {
        let batch = Batch::read(op, array)?;
        if batch.rows == batch.columns {
            return Ok(batch);
        }
        let reason = format!("is not that of square matrices, but of {} x {}", batch.rows, batch.columns);
        Err(Error::Shape { op, shape: array.shape().to_vec(), reason })
    }

    /// The matrices, `count` of them.
    fn matrices(&self, count: usize) -> impl Iterator<Item = Matrix<'_>> {
        let size = self.rows * self.columns;
        let part = move |i: usize| Matrix::new(&self.data[i * size..(i + 1) * size], self.rows, self.columns);
        (0..count).filter_map(part)
    }
}

impl Array {
    /// The dims before the last two.
    fn batch_dims(&self) -> &[usize] {
        &self.shape()[..self.rank().saturating_sub(2)]
    }

    fn batch_count(&self) -> usize {
        self.batch_dims().iter().product()
    }

    /// An array of this one's dtype, device and batch dims from elements in f64.
    fn batch_of(&self, op: &'static str, data: &[f64], matrix: &[usize]) -> Result<Array> {
        let mut shape = Dims::from(self.batch_dims());
        shape.extend_from_slice(matrix);
        checked_elements(op, &shape)?;
        if self.dtype() == DType::F64 {
            return Array::from_slice(data, &shape, self.device());
        }
        let data: Vec<f32> = data.iter().map(|&x| x as f32).collect();
        Array::from_slice(&data, &shape, self.device())
    }

    /// Whether results of this many elements for each matrix can be held at all.
    fn check_size(&self, op: &'static str, matrix: [usize; 2]) -> Result<()> {
        let mut shape = Dims::from(self.batch_dims());
        shape.extend_from_slice(&matrix);
        let elements = checked_elements(op, &shape)?;
        if Vec::<f64>::new().try_reserve_exact(elements).is_err() {
            return Err(Error::SizeOverflow { op, shape: shape.to_vec() });
        }
        Ok(())
    }

    /// The Cholesky factors of symmetric positive definite matrices, of which one triangle is read: lower ones from the lower, upper ones from
    /// the upper.
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not positive definite; if the matrices are not square, or not f32 or f64.
    pub fn cholesky(&self, triangle: Triangle) -> Result<Array> {
        const OP: &str = "cholesky";
        let batch = Batch::read_square(OP, self)?;
        let mut out = Vec::with_capacity(batch.data.len());
        for (matrix, a) in batch.matrices(self.batch_count()).enumerate() {
            out.extend(wgrad_linalg::cholesky(a, triangle).map_err(|order| {
                let reason =
                    format!("is not positive definite: its leading minor of order {order} is not positive");
                Error::LinAlg { op: OP, matrix, reason }
            })?);
        }
        self.batch_of(OP, &out, &[batch.rows, batch.rows])
    }

    /// X with `A X = B` for square A, by LU with partial pivoting. The batch dims are equal. With `checked` a singular matrix is an
    /// error, else its solutions are not finite.
    ///
    /// # Errors
    /// [`Error::LinAlg`] as said; if shapes, dtypes or devices do not fit together.
    pub fn lu_solve(&self, op: &'static str, b: &Array, checked: bool) -> Result<Array> {
        let (left, right) = self.system(op, b)?;
        let mut out = Vec::with_capacity(right.data.len());
        let count = self.batch_count();
        for (matrix, (a, b)) in left.matrices(count).zip(right.matrices(count)).enumerate() {
            let lu = Lu::new(a);
            if let Some(pivot) = lu.zero_pivot().filter(|_| checked) {
                let reason = format!("is singular: the pivot of its row {pivot} is 0");
                return Err(Error::LinAlg { op, matrix, reason });
            }
            out.extend(lu.solve(b));
        }
        b.batch_of(op, &out, &[right.rows, right.columns])
    }

    /// X with `A X = B` for triangular A, of which one triangle is read, and the diagonal only if it is not `unit`. The batch dims are
    /// equal.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn solve_triangular(&self, b: &Array, triangle: Triangle, unit: bool) -> Result<Array> {
        const OP: &str = "solve_triangular";
        let (left, right) = self.system(OP, b)?;
        let count = self.batch_count();
        let solve = |(a, b)| wgrad_linalg::solve_triangular(a, b, triangle, unit);
        let out: Vec<f64> = left.matrices(count).zip(right.matrices(count)).flat_map(solve).collect();
        b.batch_of(OP, &out, &[right.rows, right.columns])
    }

    /// Reads both sides of a system of equations.
    fn system(&self, op: &'static str, b: &Array) -> Result<(Batch, Batch)> {
        super::check_device(op, self, b)?;
        Array::eval_all(&[self, b])?;
        let (left, right) = (Batch::read_square(op, self)?, Batch::read(op, b)?);
        if left.rows != right.rows || self.batch_dims() != b.batch_dims() || self.dtype() != b.dtype() {
            return Err(Error::ShapeMismatch {
                op,
                lhs: self.shape().to_vec(),
                rhs: b.shape().to_vec(),
                reason: "are not both sides of systems of equations in one dtype".into(),
            });
        }
        Ok((left, right))
    }

    /// The determinants of square matrices.
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn det(&self) -> Result<Array> {
        const OP: &str = "det";
        let batch = Batch::read_square(OP, self)?;
        let out: Vec<f64> = batch.matrices(self.batch_count()).map(|a| Lu::new(a).determinant()).collect();
        self.batch_of(OP, &out, &[])
    }

    /// The signs of the determinants of square matrices, and the logarithms of their sizes.
    ///
    /// # Errors
    /// As [`Array::det`].
    pub fn slogdet(&self) -> Result<(Array, Array)> {
        const OP: &str = "slogdet";
        let batch = Batch::read_square(OP, self)?;
        let (signs, logs): (Vec<f64>, Vec<f64>) =
            batch.matrices(self.batch_count()).map(|a| Lu::new(a).sign_and_log()).unzip();
        Ok((self.batch_of(OP, &signs, &[])?, self.batch_of(OP, &logs, &[])?))
    }

    /// The matrices of cofactors of square matrices: the derivatives of their determinants, singular ones included.
    ///
    /// # Errors
    /// As [`Array::det`].
    pub fn cofactors(&self) -> Result<Array> {
        const OP: &str = "det";
        let batch = Batch::read_square(OP, self)?;
        let out: Vec<f64> = batch.matrices(self.batch_count()).flat_map(wgrad_linalg::cofactor).collect();
        self.batch_of(OP, &out, &[batch.rows, batch.rows])
    }

    /// `A = Q R` with orthonormal columns in Q and an upper triangular R; the signs are LAPACK's. In mode R, Q has no elements.
    ///
    /// # Errors
    /// If there are fewer than two dims, or the dtype is not f32 or f64.
    pub fn qr(&self, mode: QrMode) -> Result<(Array, Array)> {
        const OP: &str = "qr";
        let batch = Batch::read(OP, self)?;
        let (m, n) = (batch.rows, batch.columns);
        let columns = if mode == QrMode::Complete { m } else { m.min(n) };
        self.check_size(OP, [m, columns])?;
        let (mut q, mut r) = (Vec::new(), Vec::new());
        for a in batch.matrices(self.batch_count()) {
            let (columns_of_q, rows_of_r) = wgrad_linalg::qr(a, columns);
            if mode != QrMode::R {
                q.extend(columns_of_q);
            }
            r.extend(rows_of_r);
        }
        let r = self.batch_of(OP, &r, &[columns, n])?;
        let q = match mode {
            QrMode::R => Array::full(&[0], 0.0, self.dtype(), self.device())?,
            _ => self.batch_of(OP, &q, &[m, columns])?,
        };
        Ok((q, r))
    }

    /// `A = U diag(S) Vh`, with the singular values in descending order. U and Vh have no elements unless they were asked for.
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not finite; if there are fewer than two dims, or the dtype is not f32 or f64.
    pub fn svd(&self, vectors: Vectors) -> Result<[Array; 3]> {
        const OP: &str = "svd";
        let batch = Batch::read(OP, self)?;
        let (m, n) = (batch.rows, batch.columns);
        let k = m.min(n);
        let (p, q) = match vectors {
            Vectors::None => (0, 0),
            Vectors::Thin => (k, k),
            Vectors::Full => (m, n),
        };
        self.check_size(OP, [m, p])?;
        self.check_size(OP, [q, n])?;
        let (mut u, mut s, mut vt) = (Vec::new(), Vec::new(), Vec::new());
        for (matrix, a) in batch.matrices(self.batch_count()).enumerate() {
            let parts = wgrad_linalg::svd(a, vectors).ok_or_else(|| Error::LinAlg {
                op: OP,
                matrix,
                reason: "has no singular values that can be found: it contains NaN or infinities".into(),
            })?;
            u.extend(parts.u);
            s.extend(parts.s);
            vt.extend(parts.vt);
        }
        Ok([self.batch_of(OP, &u, &[m, p])?, self.batch_of(OP, &s, &[k])?, self.batch_of(OP, &vt, &[q, n])?])
    }

    /// The eigenvalues of symmetric matrices, of which one triangle is read, in ascending order, and, if asked for, orthonormal
    /// eigenvectors as columns (else no elements). NaN where the triangle is not finite.
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn eigh(&self, triangle: Triangle, vectors: bool) -> Result<[Array; 2]> {
        const OP: &str = "eigh";
        let batch = Batch::read_square(OP, self)?;
        let n = batch.rows;
        let (mut values, mut basis) = (Vec::new(), Vec::new());
        for (matrix, a) in batch.matrices(self.batch_count()).enumerate() {
            let (one, columns) = wgrad_linalg::eigh(a, triangle, vectors).ok_or_else(|| Error::LinAlg {
                op: OP,
                matrix,
                reason: "has eigenvalues that the iteration does not find".into(),
            })?;
            values.extend(one);
            basis.extend(columns);
        }
        let columns = if vectors { n } else { 0 };
        Ok([self.batch_of(OP, &values, &[n])?, self.batch_of(OP, &basis, &[n, columns])?])
    }

    /// The Moore-Penrose inverses. Singular values up to `rtol` times the largest one count as 0.
    ///
    /// # Errors
    /// As [`Array::svd`].
    pub fn pinv(&self, rtol: f64) -> Result<Array> {
        const OP: &str = "pinv";
        let batch = Batch::read(OP, self)?;
        let (m, n) = (batch.rows, batch.columns);
        let k = m.min(n);
        let mut out = Vec::with_capacity(batch.data.len());
        for (matrix, a) in batch.matrices(self.batch_count()).enumerate() {
            let parts = wgrad_linalg::svd(a, Vectors::Thin).ok_or_else(|| Error::LinAlg {
                op: OP,
                matrix,
                reason: "has no pseudo-inverse: it contains NaN or infinities".into(),
            })?;
            let bound = parts.s.first().map_or(0.0, |largest| largest * rtol);
            let rank = parts.s.iter().filter(|s| **s > bound).count();
            for i in 0..n * m {
                let (row, column) = (i / m, i % m);
                let term = |l: usize| parts.vt[l * n + row] * parts.u[column * k + l] / parts.s[l];
                out.push((0..rank).map(term).sum::<f64>());
            }
        }
        self.batch_of(OP, &out, &[n, m])
    }
}
