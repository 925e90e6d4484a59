//! Systems of equations and inverses.

use wgrad_array::layout::{Dims, broadcast_shapes};
use wgrad_array::{DType, Error, Result, Triangle};

use super::{matrix_sizes, square_size};
use crate::tape::{Derivative, record};
use crate::{Tensor, TensorExpr};

/// # Linear algebra: systems of equations
#[wgrad_macros::call_sites]
impl Tensor {
    /// X with `A X = B` for square matrices A, this tensor, or with `X A = B` if not `left`; `torch.linalg.solve`.
    ///
    /// B is a vector, or a batch of them, if it has one dim or the shape of A without the last dim; else matrices. Batch dims broadcast.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor};
    /// let a = Tensor::new([[2.0, 1.0], [1.0, 3.0]], DType::F64)?;
    /// let b = Tensor::new([3.0, 5.0], DType::F64)?;
    /// let x = a.solve(&b, true)?.to_vec::<f64>()?;
    /// assert!((x[0] - 0.8).abs() < 1e-12 && (x[1] - 1.4).abs() < 1e-12);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is singular; if A is not square, shapes do not fit, dtypes or devices differ, or the dtype is
    /// not f32 or f64; if B is a vector and not on the right.
    pub fn solve(&self, b: &Tensor, left: bool) -> Result<Tensor> {
        const OP: &str = "solve";
        let n = square_size(OP, self)?;
        if is_vector(self, b) {
            if !left {
                let reason = "a vector cannot stand on the left; give it a dim of size 1".to_owned();
                return Err(Error::Argument { op: OP, reason });
            }
            return self.solve(&b.unsqueeze(-1)?, true)?.squeeze_dim(-1)?.owned();
        }
        if !left {
            matrix_sizes(OP, b)?;
            return self.mt()?.solve(&b.mt()?, true)?.mt()?.owned();
        }
        let (a, b) = batched(OP, self, b, n)?;
        a.solve_batch(OP, &b, true)
    }

    /// X with `A X = B`, for matrices with the same batch dims. Solutions of singular systems are errors if `checked`, else
    /// not finite.
    fn solve_batch(&self, op: &'static str, b: &Tensor, checked: bool) -> Result<Tensor> {
        let (a, b) = (self.operand()?, b.operand()?);
        let out = a.array.lu_solve(op, &b.array, checked)?;
        Ok(record(out, [a, b], |inputs, out| {
            Derivative::new("LinalgSolveExBackward0", |c| {
                let (g, [a, x]) = c.parts();
                let gb = a.transposed_value().solve_batch("solve", g, false);
                c.gradients(2, |i| match i {
                    0 => -gb.matmul(x.transposed_value()),
                    _ => gb.clone(),
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The inverses of square matrices; `torch.linalg.inv`. To multiply with an inverse, [`Tensor::solve`] is faster and more
    /// accurate.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let a = Tensor::new([[2.0f32, 0.0], [0.0, 4.0]], &Device::cpu())?;
    /// assert_eq!(a.inv()?.to_vec::<f32>()?, [0.5, 0.0, 0.0, 0.25]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is singular; if the matrices are not square, or not f32 or f64.
    pub fn inv(&self) -> Result<Tensor> {
        self.inverse("inv", true)
    }

    /// The inverses; of singular matrices an error if `checked`, else not finite.
    pub(super) fn inverse(&self, op: &'static str, checked: bool) -> Result<Tensor> {
        let n = square_size(op, self)?;
        if !matches!(self.dtype(), DType::F32 | DType::F64) {
            let reason = "is not f32 or f64; cast the matrices first".to_owned();
            return Err(Error::DType { op, dtype: self.dtype(), reason });
        }
        let a = self.operand()?;
        let eye = self.eye_of(n)?.expand(self.shape())?.array()?;
        let out = a.array.lu_solve(op, &eye, checked)?;
        Ok(record(out, [a], |_, out| {
            Derivative::new("LinalgInvExBackward0", |c| {
                let (g, [inverse]) = c.parts();
                let transposed = inverse.transposed_value();
                c.gradient(|| -transposed.matmul(&g).matmul(&transposed))
            })
            .save_output(out)
        }))
    }

    /// X with `A X = B` for triangular matrices A, this tensor, or with `X A = B` if not `left`; `torch.linalg.solve_triangular`.
    /// Only one triangle of A is read, and if `unitriangular` its diagonal is taken to be 1. Batch dims broadcast. A 0 on the diagonal
    /// gives infinities or NaN.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor, Triangle};
    /// let a = Tensor::new([[2.0f32, 9.0], [1.0, 4.0]], &Device::cpu())?;
    /// let b = Tensor::new([[2.0f32], [9.0]], &Device::cpu())?;
    /// assert_eq!(a.solve_triangular(&b, Triangle::Lower, true, false)?.to_vec::<f32>()?, [1.0, 2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If A is not square, shapes do not fit, dtypes or devices differ, or the dtype is not f32 or f64.
    pub fn solve_triangular(
        &self,
        b: &Tensor,
        triangle: Triangle,
        left: bool,
        unitriangular: bool,
    ) -> Result<Tensor> {
        const OP: &str = "solve_triangular";
        let n = square_size(OP, self)?;
        matrix_sizes(OP, b)?;
        if !left {
            let flipped = triangle.transposed();
            return self.mt()?.solve_triangular(&b.mt()?, flipped, true, unitriangular)?.mt();
        }
        let (a, b) = batched(OP, self, b, n)?;
        a.solve_triangular_batch(&b, triangle, unitriangular)
    }

    /// As [`Tensor::solve_triangular`] from the left, for matrices with the same batch dims.
    pub(super) fn solve_triangular_batch(
        &self,
        b: &Tensor,
        triangle: Triangle,
        unit: bool,
    ) -> Result<Tensor> {
        let (a, b) = (self.operand()?, b.operand()?);
        let out = a.array.solve_triangular(&b.array, triangle, unit)?;
        Ok(record(out, [a, b], |inputs, out| {
            Derivative::with("LinalgSolveTriangularBackward0", move |c| {
                let (g, [a, x]) = c.parts();
                let gb = a.transposed_value().solve_triangular_batch(g, triangle.transposed(), unit);
                c.gradients(2, |i| {
                    if i == 1 {
                        return gb.clone();
                    }
                    let ga = -gb.matmul(x.transposed_value());
                    match triangle {
                        Triangle::Lower => ga.tril(-i64::from(unit)),
                        Triangle::Upper => ga.triu(i64::from(unit)),
                    }
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The Cholesky factors of symmetric positive definite matrices: L with `A = L Lᵀ`, or with [`Triangle::Upper`] U with
    /// `A = Uᵀ U`; `torch.linalg.cholesky`. Only that triangle of A is read; the gradient is symmetric.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor, Triangle};
    /// let a = Tensor::new([[4.0f32, 2.0], [2.0, 10.0]], &Device::cpu())?;
    /// assert_eq!(a.cholesky(Triangle::Lower)?.to_vec::<f32>()?, [2.0, 0.0, 1.0, 3.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not positive definite; if the matrices are not square, or not f32 or f64.
    pub fn cholesky(&self, triangle: Triangle) -> Result<Tensor> {
        let a = self.operand()?;
        let out = a.array.cholesky(triangle)?;
        Ok(record(out, [a], |_, out| {
            Derivative::with("LinalgCholeskyExBackward0", move |c| {
                let lower = |x: TensorExpr| match triangle {
                    Triangle::Lower => x,
                    Triangle::Upper => x.transposed_value(),
                };
                let (g, [factor]) = c.parts();
                let (l, g) = (lower(factor), lower(g));
                let transposed = l.transposed_value();
                // gA = L⁻ᵀ M L⁻¹ with a symmetric M, half of LᵀgL's lower triangle and its mirror image.
                let product = transposed.matmul(g);
                let m = (product.tril(0) + product.tril(-1).transposed_value()) * 0.5;
                let half = transposed.solve_triangular_batch(m, Triangle::Upper, false).transposed_value();
                c.gradient(|| transposed.solve_triangular_batch(&half, Triangle::Upper, false))
            })
            .save_output(out)
        }))
    }

    /// The Moore-Penrose inverses of matrices of any shape; `torch.linalg.pinv`. Singular values up to `rtol` times the largest one
    /// count as 0; the default is the dtype's precision times the larger size. Differentiable where the rank does not change.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor};
    /// let a = Tensor::new([[2.0], [0.0]], DType::F64)?;
    /// assert_eq!(a.pinv(None)?.to_vec::<f64>()?, [0.5, 0.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not finite; if there are fewer than two dims, or the dtype is not f32 or f64.
    pub fn pinv(&self, rtol: impl Into<Option<f64>>) -> Result<Tensor> {
        let [m, n] = matrix_sizes("pinv", self)?;
        let precision = if self.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let a = self.operand()?;
        let out = a.array.pinv(rtol.into().unwrap_or(precision * m.max(n) as f64))?;
        Ok(record(out, [a], |inputs, out| {
            // Golub and Pereyra: dP = -P dA P + P Pᵀ dAᵀ (1 - A P) + (1 - P A) dAᵀ Pᵀ P.
            Derivative::new("LinalgPinvBackward0", |c| {
                let (g, [a, p]) = &c.parts();
                let (gt, pt) = (&g.transposed_value(), &p.transposed_value());
                c.gradient(|| {
                    let through = pt.matmul(g).matmul(pt);
                    let left = gt.matmul(p).matmul(pt);
                    let left = &left - a.matmul(p.matmul(&left));
                    let right = pt.matmul(p.matmul(gt));
                    let right = &right - right.matmul(p).matmul(a);
                    left + right - through
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// X with the least `‖A X - B‖`, and of those the smallest, for matrices A of any shape, this tensor; the `solution` of
    /// `torch.linalg.lstsq`. Singular values of A up to `rcond` times the largest one count as 0, by default as in [`Tensor::pinv`].
    /// B is a vector or matrices as in [`Tensor::solve`]; batch dims broadcast.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor};
    /// let a = Tensor::new([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]], DType::F64)?;
    /// let b = Tensor::new([1.0, 3.0, 5.0], DType::F64)?;
    /// let line = a.lstsq(&b, None)?.to_vec::<f64>()?;
    /// assert!((line[0] - 1.0).abs() < 1e-12 && (line[1] - 2.0).abs() < 1e-12);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix A is not finite; if shapes do not fit, dtypes or devices differ, or the dtype is not f32
    /// or f64.
    pub fn lstsq(&self, b: &Tensor, rcond: impl Into<Option<f64>>) -> Result<Tensor> {
        const OP: &str = "lstsq";
        let [rows, _] = matrix_sizes(OP, self)?;
        if is_vector(self, b) {
            return self.lstsq(&b.unsqueeze(-1)?, rcond)?.squeeze_dim(-1)?.owned();
        }
        if matrix_sizes(OP, b)?[0] != rows {
            return Err(unfit(OP, self, b));
        }
        self.pinv(rcond)?.matmul(b)
    }
}

/// Whether the right side of a system is a vector, or a batch of them.
fn is_vector(a: &Tensor, b: &Tensor) -> bool {
    b.rank() == 1 || a.shape().split_last().is_some_and(|(_, shape)| shape == b.shape())
}

fn unfit(op: &'static str, a: &Tensor, b: &Tensor) -> Error {
    Error::ShapeMismatch {
        op,
        lhs: a.shape().to_vec(),
        rhs: b.shape().to_vec(),
        reason: "do not fit: both sides of a system of equations have as many rows".into(),
    }
}

/// Both sides of a system of `n` equations with the same batch dims.
fn batched(op: &'static str, a: &Tensor, b: &Tensor, n: usize) -> Result<(Tensor, Tensor)> {
    let [rows, columns] = matrix_sizes(op, b)?;
    if rows != n {
        return Err(unfit(op, a, b));
    }
    let batch = broadcast_shapes(op, &a.shape()[..a.rank() - 2], &b.shape()[..b.rank() - 2])?;
    let shape = |columns: usize| batch.iter().copied().chain([n, columns]).collect::<Dims>();
    Ok((a.expand(&shape(n))?, b.expand(&shape(columns))?))
}
