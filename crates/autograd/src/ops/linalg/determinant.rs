//! Determinants.

use wgrad_array::Result;

use super::square_size;
use crate::tape::{Derivative, record};
use crate::{Tensor, TensorExpr};

/// # Linear algebra: determinants
#[wgrad_macros::call_sites]
impl Tensor {
    /// The determinants of square matrices; `torch.linalg.det`. That of a matrix without elements is 1.
    ///
    /// The gradient, the matrix of cofactors, and its gradient are right at singular matrices too.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let a = Tensor::new([[1.0f32, 2.0], [2.0, 4.0]], &Device::cpu())?.requires_grad_(true)?;
    /// let det = a.det()?;
    /// assert_eq!(det.item::<f32>()?, 0.0);
    /// det.backward()?;
    /// let cofactors = a.grad().expect("a leaf").to_vec::<f32>()?;
    /// assert!(cofactors.iter().zip([4.0, -2.0, -2.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-5));
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn det(&self) -> Result<Tensor> {
        let a = self.operand()?;
        let out = a.array.det()?;
        Ok(record(out, [a], |inputs, _| {
            Derivative::new("LinalgDetBackward0", |c| {
                c.gradient(|| {
                    let (g, [a]) = c.parts();
                    a.cofactors() * g.unsqueeze(-1).unsqueeze(-1)
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// The cofactors of square matrices: the derivatives of their determinants.
    fn cofactors(&self) -> Result<Tensor> {
        let a = self.operand()?;
        let out = a.array.cofactors()?;
        Ok(record(out, [a], |inputs, _| {
            // Between singular vectors the matrix is diagonal, and the cofactors of D + E are to first order
            //   on the diagonal the products of the other sizes plus sums of E_ii times the products without two,
            //   beside it -E_ji times the product without i and j.
            // No division, so that any number of singular values may be 0 or alike.
            Derivative::new("LinalgCofactorsBackward0", |c| {
                let (g, [a]) = (c.g(), c.tensors()?);
                let (u, s, vt) = a.svd(false)?;
                let (u, vt) = (&u.expr(), &vt.expr());
                let (ut, v) = (u.transposed_value(), vt.transposed_value());
                let sign = (u.detach().det() * vt.detach().det()).sign();
                let g = ut.matmul(g).matmul(v);
                let others = s.expr().products_without_two();
                let along = others.matmul(g.diagonal(0, -2, -1).unsqueeze(-1)).squeeze_dim(-1);
                let beside = g.transposed_value() * others;
                let inner = (along.diag_embed(0, -2, -1) - beside) * sign.unsqueeze(-1).unsqueeze(-1);
                c.gradient(|| u.matmul(&inner).matmul(vt))
            })
            .save_input(inputs, 0)
        }))
    }

    /// For each pair of two different numbers of the last dim the product of all others, as a matrix; 0 on its diagonal.
    fn products_without_two(&self) -> Result<Tensor> {
        let last = self.rank() as isize - 1;
        let n = self.size(last)?;
        // Running products of what comes before.
        let before = |x: &TensorExpr| x.cumprod(-1).pad(&[(1, -1)], 1.0);
        let x = self.expr();
        let (head, tail) = (before(&x), before(&x.flip(last)).flip(last));
        let ones = Tensor::ones([n, n], (self.dtype(), self.device()))?;
        let behind = ones.expr().triu(1).ne(0.0);
        let between = before(&behind.where_cond(x.unsqueeze(-2), 1.0));
        let upper = (between * head.unsqueeze(-1) * tail.unsqueeze(-2)).triu(1);
        (&upper + upper.transposed_value()).done()
    }

    /// The signs of the determinants of square matrices and the logarithms of their sizes; `torch.linalg.slogdet`. For a singular
    /// matrix they are 0 and minus infinity. Only the logarithm has a gradient; at a singular matrix it is not finite.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor};
    /// let a = Tensor::new([[-2.0, 0.0], [0.0, 1.0]], DType::F64)?;
    /// let (sign, log) = a.slogdet()?;
    /// assert_eq!((sign.item::<f64>()?, log.item::<f64>()?), (-1.0, 2f64.ln()));
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn slogdet(&self) -> Result<(Tensor, Tensor)> {
        square_size("slogdet", self)?;
        let a = self.operand()?;
        let (sign, log) = a.array.slogdet()?;
        let log = record(log, [a], |inputs, _| {
            Derivative::new("LinalgSlogdetBackward0", |c| {
                let (g, [a]) = c.parts();
                let inverse = a.transposed_value().inverse("slogdet", false);
                c.gradient(|| &inverse * g.unsqueeze(-1).unsqueeze(-1))
            })
            .save_input(inputs, 0)
        });
        Ok((Tensor::from_array(sign), log))
    }
}
