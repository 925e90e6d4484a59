//! Linear algebra of matrices (the last two dims) and batches of them: factorizations, solutions,
//! determinants.
//!
//! Unlike all other operations, these are not lazy and have no kernels. The operands are evaluated and read,
//! the host computes in f64 (`wgrad-linalg`), and the rounded results are uploaded to the operands' device.
//! So a matrix without a result is an error of the call, and not of a later evaluation.

use wgrad_device::layout::{Dims, checked_elements};
use wgrad_device::{DType, Error, Result};
use wgrad_linalg::{Lu, Matrix, Triangle, Vectors};

use crate::{Array, Room, reserve};

/// The factors that a QR factorization returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QrMode {
    /// Q has as many columns as the smaller of the matrix's sizes.
    #[default]
    Reduced,
    /// Q is square.
    Complete,
    /// Only R, in the reduced form.
    R,
}

/// A batch of matrices in host memory, as f64.
struct Batch {
    data: Vec<f64>,
    rows: usize,
    columns: usize,
}

/// The number of matrices of a batch that are factorized, and the reservation of host memory for it.
struct BatchWork {
    count: usize,
    _room: Room,
}

/// The sizes of an array's matrices.
fn sizes(op: &'static str, array: &Array) -> Result<[usize; 2]> {
    if let [.., rows, columns] = *array.shape() {
        return Ok([rows, columns]);
    }
    let reason = "has fewer than two dims; give a matrix or a batch of them".to_owned();
    Err(Error::Shape { op, shape: array.shape().to_vec(), reason })
}

/// The size of an array's matrices, which must be square.
fn square(op: &'static str, array: &Array) -> Result<usize> {
    let [rows, columns] = sizes(op, array)?;
    if rows == columns {
        return Ok(rows);
    }
    let reason = format!("is not that of square matrices, but of {rows} x {columns}");
    Err(Error::Shape { op, shape: array.shape().to_vec(), reason })
}

impl Batch {
    /// Reads the matrices of an array.
    fn read(op: &'static str, array: &Array) -> Result<Batch> {
        let [rows, columns] = sizes(op, array)?;
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

    /// An array with this one's dtype, device and batch dims, from elements in f64.
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

    /// Reserves host memory for a factorization whose results have these sizes for each matrix: for the
    /// operands and the results, both in f64 and in the array's dtype, and for the work on one matrix. If
    /// operands and results have no elements, the number of matrices is 0.
    fn factorized(&self, op: &'static str, results: &[[usize; 2]]) -> Result<BatchWork> {
        let (mut outputs, mut largest) = (0usize, 0usize);
        for matrix in results {
            let shape: Dims = self.batch_dims().iter().chain(matrix).copied().collect();
            outputs = outputs.saturating_add(checked_elements(op, &shape)?);
            largest = largest.max(matrix[0].saturating_mul(matrix[1]));
        }
        let inputs = self.elements();
        let count = if inputs == 0 && outputs == 0 { 0 } else { self.batch_count() };
        largest = largest.max(inputs / count.max(1));
        let numbers =
            inputs.saturating_add(outputs).saturating_mul(2).saturating_add(largest.saturating_mul(3));
        let _room = reserve(self.device(), numbers.saturating_mul(size_of::<f64>()))?;
        Ok(BatchWork { count, _room })
    }

    /// The Cholesky factors of symmetric positive definite matrices. Only one triangle is read: the lower one
    /// for the lower factor, the upper one for the upper factor.
    ///
    /// ```
    /// use wgrad_array::{Array, Device, Triangle};
    /// let a = Array::from_slice(&[4.0f64, 2.0, 2.0, 5.0], &[2, 2], &Device::cpu())?;
    /// assert_eq!(a.cholesky(Triangle::Lower)?.to_vec::<f64>()?, [2.0, 0.0, 1.0, 2.0]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not positive definite; if the matrices are not square, or not f32 or
    /// f64.
    pub fn cholesky(&self, triangle: Triangle) -> Result<Array> {
        const OP: &str = "cholesky";
        let n = square(OP, self)?;
        let work = self.factorized(OP, &[[n, n]])?;
        let batch = Batch::read(OP, self)?;
        let mut out = Vec::with_capacity(batch.data.len());
        for (matrix, a) in batch.matrices(work.count).enumerate() {
            out.extend(wgrad_linalg::cholesky(a, triangle).map_err(|order| {
                let reason =
                    format!("is not positive definite: its leading minor of order {order} is not positive");
                Error::LinAlg { op: OP, matrix, reason }
            })?);
        }
        self.batch_of(OP, &out, &[batch.rows, batch.rows])
    }

    /// X with `A X = B` for square A, by LU with partial pivoting. The batch dims of both must be equal. If
    /// `checked` is set, a singular matrix is an error; otherwise its solution is NaN.
    ///
    /// # Errors
    /// [`Error::LinAlg`] for a singular matrix, if `checked` is set; and if shapes, dtypes or devices do not
    /// fit together.
    pub fn lu_solve(&self, op: &'static str, b: &Array, checked: bool) -> Result<Array> {
        let (left, right, work) = self.system(op, b)?;
        let (count, mut out) = (work.count, Vec::with_capacity(right.data.len()));
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

    /// X with `A X = B` for triangular A, of which one triangle is read, and the diagonal only if it is not
    /// `unit`. The batch dims are equal.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn solve_triangular(&self, b: &Array, triangle: Triangle, unit: bool) -> Result<Array> {
        const OP: &str = "solve_triangular";
        let (left, right, work) = self.system(OP, b)?;
        let count = work.count;
        let solve = |(a, b)| wgrad_linalg::solve_triangular(a, b, triangle, unit);
        let out: Vec<f64> = left.matrices(count).zip(right.matrices(count)).flat_map(solve).collect();
        b.batch_of(OP, &out, &[right.rows, right.columns])
    }

    /// Reads both sides of a system of equations.
    fn system(&self, op: &'static str, b: &Array) -> Result<(Batch, Batch, BatchWork)> {
        super::check_device(op, self, b)?;
        let (n, [rows, columns]) = (square(op, self)?, sizes(op, b)?);
        if n != rows || self.batch_dims() != b.batch_dims() || self.dtype() != b.dtype() {
            return Err(Error::ShapeMismatch {
                op,
                lhs: self.shape().to_vec(),
                rhs: b.shape().to_vec(),
                reason: "are not both sides of systems of equations in one dtype".into(),
            });
        }
        let room = self.factorized(op, &[])?;
        let work = b.factorized(op, &[[rows, columns]])?;
        let work = BatchWork { _room: [room._room, work._room].into_iter().flatten().collect(), ..work };
        Array::eval_all(&[self, b])?;
        let (left, right) = (Batch::read(op, self)?, Batch::read(op, b)?);
        Ok((left, right, work))
    }

    /// The determinants of square matrices.
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn det(&self) -> Result<Array> {
        const OP: &str = "det";
        square(OP, self)?;
        let work = self.factorized(OP, &[[1, 1]])?;
        let batch = Batch::read(OP, self)?;
        let out: Vec<f64> = batch.matrices(work.count).map(|a| Lu::new(a).determinant()).collect();
        self.batch_of(OP, &out, &[])
    }

    /// The signs of the determinants of square matrices, and the logarithms of their absolute values.
    ///
    /// # Errors
    /// As [`Array::det`].
    pub fn slogdet(&self) -> Result<(Array, Array)> {
        const OP: &str = "slogdet";
        square(OP, self)?;
        let work = self.factorized(OP, &[[1, 2]])?;
        let batch = Batch::read(OP, self)?;
        let (signs, logs): (Vec<f64>, Vec<f64>) =
            batch.matrices(work.count).map(|a| Lu::new(a).sign_and_log()).unzip();
        Ok((self.batch_of(OP, &signs, &[])?, self.batch_of(OP, &logs, &[])?))
    }

    /// The matrices of cofactors of square matrices, which are the derivatives of their determinants, also of
    /// singular matrices.
    ///
    /// # Errors
    /// As [`Array::det`].
    pub fn cofactors(&self) -> Result<Array> {
        const OP: &str = "det";
        let n = square(OP, self)?;
        let work = self.factorized(OP, &[[n, n]])?;
        let batch = Batch::read(OP, self)?;
        let out: Vec<f64> = batch.matrices(work.count).flat_map(wgrad_linalg::cofactor).collect();
        self.batch_of(OP, &out, &[batch.rows, batch.rows])
    }

    /// The factorization `A = Q R`, where Q has orthonormal columns and R is upper triangular. The signs are
    /// those of LAPACK. In mode R, Q has no elements.
    ///
    /// # Errors
    /// If there are fewer than two dims, or the dtype is not f32 or f64.
    pub fn qr(&self, mode: QrMode) -> Result<(Array, Array)> {
        const OP: &str = "qr";
        let [m, n] = sizes(OP, self)?;
        let columns = if mode == QrMode::Complete { m } else { m.min(n) };
        let work = self.factorized(OP, &[[m, columns], [columns, n]])?;
        let batch = Batch::read(OP, self)?;
        let (mut q, mut r) = (Vec::new(), Vec::new());
        for a in batch.matrices(work.count) {
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

    /// The factorization `A = U diag(S) Vh`, with the singular values in descending order. U and Vh have no
    /// elements if `vectors` says so.
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not finite; if there are fewer than two dims, or the dtype is not f32
    /// or f64.
    pub fn svd(&self, vectors: Vectors) -> Result<[Array; 3]> {
        const OP: &str = "svd";
        let [m, n] = sizes(OP, self)?;
        let k = m.min(n);
        let (p, q) = match vectors {
            Vectors::None => (0, 0),
            Vectors::Thin => (k, k),
            Vectors::Full => (m, n),
        };
        let work = self.factorized(OP, &[[m, p], [1, k], [q, n]])?;
        let batch = Batch::read(OP, self)?;
        let (mut u, mut s, mut vt) = (Vec::new(), Vec::new(), Vec::new());
        for (matrix, a) in batch.matrices(work.count).enumerate() {
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

    /// The eigenvalues of symmetric matrices in ascending order, and, if `vectors` is set, orthonormal
    /// eigenvectors as columns (otherwise an array without elements). Only one triangle is read. The results
    /// are NaN if that triangle is not finite.
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn eigh(&self, triangle: Triangle, vectors: bool) -> Result<[Array; 2]> {
        const OP: &str = "eigh";
        let n = square(OP, self)?;
        let columns = if vectors { n } else { 0 };
        let work = self.factorized(OP, &[[1, n], [n, columns]])?;
        let batch = Batch::read(OP, self)?;
        let (mut values, mut basis) = (Vec::new(), Vec::new());
        for (matrix, a) in batch.matrices(work.count).enumerate() {
            let (one, columns) = wgrad_linalg::eigh(a, triangle, vectors).ok_or_else(|| Error::LinAlg {
                op: OP,
                matrix,
                reason: "has eigenvalues that the iteration does not find".into(),
            })?;
            values.extend(one);
            basis.extend(columns);
        }
        Ok([self.batch_of(OP, &values, &[n])?, self.batch_of(OP, &basis, &[n, columns])?])
    }

    /// The Moore-Penrose inverses. Singular values up to `rtol` times the largest one count as 0.
    ///
    /// # Errors
    /// As [`Array::svd`].
    pub fn pinv(&self, rtol: f64) -> Result<Array> {
        const OP: &str = "pinv";
        let [m, n] = sizes(OP, self)?;
        let k = m.min(n);
        let work = self.factorized(OP, &[[n, m], [n, m]])?;
        let batch = Batch::read(OP, self)?;
        let mut out = Vec::with_capacity(batch.data.len());
        for (matrix, a) in batch.matrices(work.count).enumerate() {
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
