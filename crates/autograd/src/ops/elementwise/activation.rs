//! Softmax and its relatives.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{Array, Expr, ReduceOp, Result};

use crate::Tensor;
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, record};

/// # Activations: softmax
#[wgrad_macros::call_sites]
impl Tensor {
    /// `exp(x) / sum(exp(x))` along a dim, without overflow.
    ///
    /// # Errors
    /// If there is no such dim, or the dtype is not a float one.
    pub fn softmax(&self, dim: isize) -> Result<Tensor> {
        const OP: &str = "softmax";
        require_float(OP, self)?;
        let dim = normalize_dim(OP, dim, self.rank())?;
        let x = self.operand()?;
        let out = softmax_array(&x.array, dim)?;
        Ok(record(out, [x], |_, out| {
            Derivative::with("SoftmaxBackward0", move |c| {
                c.gradient(|| {
                    let (g, [y]) = &c.parts();
                    // y * (g - sum(g * y)), with the gradients' mean subtracted before: where one y is nearly 1, the
                    // difference to its gradient is much smaller than the rounding of the sum.
                    let distance = g - (g * y).sum_dim(dim, true);
                    y * (&distance - (&distance * y).sum_dim(dim, true))
                })
            })
            .save_output(out)
        }))
    }

    /// The logarithm of [`Tensor::softmax`], exact where the softmax would round to 0.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn log_softmax(&self, dim: isize) -> Result<Tensor> {
        const OP: &str = "log_softmax";
        require_float(OP, self)?;
        let dim = normalize_dim(OP, dim, self.rank())?;
        let x = self.operand()?;
        let out = log_softmax_array(&x.array, dim)?;
        Ok(record(out, [x], |_, out| {
            Derivative::with("LogSoftmaxBackward0", move |c| {
                c.gradient(|| {
                    let (g, [y]) = &c.parts();
                    g - y.exp() * g.sum_dim(dim, true)
                })
            })
            .save_output(out)
        }))
    }
}

/// The dims to fold: none of a 0-dim array.
fn folded(x: &Array, dim: usize) -> Vec<usize> {
    if x.rank() == 0 { Vec::new() } else { vec![dim] }
}

/// The distances from the largest element, in f32 for halves.
fn shifted(x: &Array, dims: &[usize]) -> Expr {
    let x = Expr::from(widened(x));
    let largest = x.map(|x| x.reduce(ReduceOp::Max, dims, true));
    x - largest
}

fn softmax_array(x: &Array, dim: usize) -> Result<Array> {
    if x.elements() == 0 {
        return Ok(x.clone());
    }
    let dims = folded(x, dim);
    let exp = shifted(x, &dims).exp();
    let sum = exp.map(|exp| exp.reduce(ReduceOp::Sum, &dims, true));
    (exp / sum).cast(x.dtype()).done()
}

fn log_softmax_array(x: &Array, dim: usize) -> Result<Array> {
    if x.elements() == 0 {
        return Ok(x.clone());
    }
    let dims = folded(x, dim);
    let shifted = shifted(x, &dims);
    let sum = shifted.exp().map(|exp| exp.reduce(ReduceOp::Sum, &dims, true));
    (shifted - sum.log()).cast(x.dtype()).done()
}
