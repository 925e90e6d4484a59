//! Matrix products.

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, broadcast_shapes};
use wgrad_array::{Array, BinaryOp, Error, Result};

use crate::ops::elementwise::unary::rounded;
use crate::ops::reduce::widened;
use crate::tape::{Derivative, record};
use crate::view::{Squeeze, ViewStep};
use crate::{AsTensor, Tensor};

/// # Matrix products
#[wgrad_macros::call_sites]
impl Tensor {
    /// The matrix product, in all of PyTorch's cases: vectors with vectors, vectors with matrices, matrices, and batches of matrices
    /// whose batch dims broadcast. A vector is a row on the left and a column on the right.
    ///
    /// # Errors
    /// If an operand has no dims, the inner sizes differ, batch dims do not broadcast, or dtypes or devices differ.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        self.product(other, Array::matmul)
    }

    /// [`Tensor::matmul`] before halves are rounded: in f32.
    pub(in crate::ops) fn matmul_unrounded(&self, other: &Tensor) -> Result<Tensor> {
        self.product(other, Array::matmul_unrounded)
    }

    fn product(&self, other: &Tensor, multiply: Multiply) -> Result<Tensor> {
        check(self, other)?;
        let (a, b) = (self.operand()?, other.operand()?);
        let (rows, columns) = (self.rank() > 1, other.rank() > 1);
        let left = if rows { a.array.clone() } else { a.array.unsqueeze(0)? };
        let right = if columns { b.array.clone() } else { b.array.unsqueeze(1)? };
        let product = folded(&left, &right, multiply)?;
        // The dims that made vectors into matrices go again.
        let mut shape: Dims = product.shape().into();
        if !columns {
            shape.pop();
        }
        if !rows {
            shape.remove(shape.len() - usize::from(columns) - 1);
        }
        let out = product.reshape(&shape)?;
        let full: Dims = product.shape().into();
        let dtype = self.dtype();
        Ok(record(out, [a, b], |inputs, _| {
            let (left, right) = (inputs[0].needs_grad(), inputs[1].needs_grad());
            Derivative::with(node_name(self.rank(), other.rank()), move |c| {
                let (g, [a, b]) = c.parts();
                let g = g.to_dtype(dtype).reshaped(&full).done()?;
                c.each(2, |i| {
                    if i == 0 {
                        let b = if columns { b.clone() } else { b.unsqueeze(1) };
                        let grad = left_gradient(&g, b.as_tensor()?)?;
                        if rows { Ok(grad) } else { grad.without_dim(grad.rank() - 2) }
                    } else {
                        let a = if rows { a.clone() } else { a.unsqueeze(0) };
                        let grad = right_gradient(a.as_tensor()?, &g, c.input_shape(1)?.len().max(2))?;
                        if columns { Ok(grad) } else { grad.without_dim(grad.rank() - 1) }
                    }
                })
            })
            .save_input_if(right, inputs, 0)
            .save_input_if(left, inputs, 1)
        }))
    }

    /// The product of two matrices; `mm`.
    ///
    /// # Errors
    /// If one is not a matrix, or as [`Tensor::matmul`].
    pub fn mm(&self, other: &Tensor) -> Result<Tensor> {
        for x in [self, other] {
            if x.rank() != 2 {
                let reason = "is not a matrix; use matmul for other shapes".to_owned();
                return Err(Error::Shape { op: "mm", shape: x.shape().to_vec(), reason });
            }
        }
        self.matmul(other)
    }

    /// `self @ weight.T + bias` over the last dim; `F.linear`. The weight has the shape `[out, in]`, or `[in]`.
    ///
    /// # Errors
    /// If the sizes do not fit, or dtypes or devices differ.
    pub fn linear<'a>(&self, weight: &Tensor, bias: impl Into<Option<&'a Tensor>>) -> Result<Tensor> {
        const OP: &str = "linear";
        let bias = bias.into();
        let fits = self.rank() > 0 && self.shape().last() == weight.shape().last();
        if !fits || weight.rank() > 2 {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: weight.shape().to_vec(),
                reason: "do not fit: the weight must be [out, in], with `in` the input's last size".into(),
            });
        }
        if weight.rank() == 1 {
            return match bias {
                None => self.matmul(weight),
                Some(bias) => {
                    let dtype = self.dtype().promote(bias.dtype());
                    self.matmul_unrounded(weight)?.add(bias.widened()?)?.to_dtype(dtype)
                }
            };
        }
        check_dtypes(OP, self, weight)?;
        let (x, w) = (self.operand()?, weight.operand()?);
        let flat = folded_rows(&x.array)?;
        let turned = w.array.permute(&[1, 0])?;
        let mut shape: Dims = self.shape().into();
        let outputs = weight.shape()[0];
        let last = shape.len() - 1;
        shape[last] = outputs;
        let node = match (self.rank(), bias) {
            (2, Some(_)) => "AddmmBackward0",
            (2, None) => "MmBackward0",
            (1, None) => "SqueezeBackward4",
            _ => "UnsafeViewBackward0",
        };
        let (out, b) = match bias {
            None => (flat.matmul(&turned)?, None),
            Some(bias) => {
                check_dtypes(OP, self, bias)?;
                if broadcast_shapes(OP, bias.shape(), &[outputs])?.as_slice() != [outputs] {
                    let reason = format!("must be [{outputs}], the number of outputs");
                    return Err(Error::Shape { op: OP, shape: bias.shape().to_vec(), reason });
                }
                let b = bias.operand()?;
                let sum = flat.matmul_unrounded(&turned)?.binary(BinaryOp::Add, &widened(&b.array)?)?;
                (rounded(sum, self.dtype())?, Some(b))
            }
        };
        let out = out.reshape(&shape)?;
        let inputs: SmallVec<[_; 3]> = [x, w].into_iter().chain(b).collect();
        Ok(record(out, inputs, |inputs, _| {
            let (input, weight) = (inputs[0].needs_grad(), inputs[1].needs_grad());
            let count = inputs.len();
            Derivative::with(node, move |c| {
                let (g, [x, weight]) = c.parts();
                c.each(count, |i| match i {
                    0 => g.rows().matmul(&weight).reshaped(&c.input_shape(0)?).done(),
                    1 => g.rows().transposed_value().matmul(x.rows()).done(),
                    _ => g.clone().done(),
                })
            })
            .save_input_if(weight, inputs, 0)
            .save_input_if(input, inputs, 1)
        }))
    }

    /// All dims but the last as one.
    fn rows(&self) -> Result<Tensor> {
        let width = self.shape().last().copied().unwrap_or(1);
        let rows = self.shape()[..self.rank().saturating_sub(1)].iter().product();
        self.reshaped(&[rows, width])
    }

    /// Another shape, without a storage in common.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        self.view_value(&ViewStep::Reshape { from: self.0.shape.clone(), to: shape.into() })
    }

    fn without_dim(&self, dim: usize) -> Result<Tensor> {
        let mut shape = self.0.shape.clone();
        shape.remove(dim);
        self.reshaped(&shape)
    }
}

/// What PyTorch calls the last step of such a product.
fn node_name(left: usize, right: usize) -> &'static str {
    match (left, right) {
        (1, 1) => "DotBackward0",
        (2, 1) => "MvBackward0",
        (2, 2) => "MmBackward0",
        (1, 2) => "SqueezeBackward4",
        _ => "UnsafeViewBackward0",
    }
}

fn check(a: &Tensor, b: &Tensor) -> Result<()> {
    const OP: &str = "matmul";
    for x in [a, b] {
        if x.rank() == 0 {
            let reason = "has no dims; matrix products need at least vectors, use mul for numbers".to_owned();
            return Err(Error::Shape { op: OP, shape: Vec::new(), reason });
        }
    }
    check_dtypes(OP, a, b)?;
    let inner = (a.shape()[a.rank() - 1], b.shape()[b.rank().max(2) - 2]);
    if inner.0 != inner.1 {
        return Err(Error::ShapeMismatch {
            op: OP,
            lhs: a.shape().to_vec(),
            rhs: b.shape().to_vec(),
            reason: format!("cannot be multiplied: the inner sizes are {} and {}", inner.0, inner.1),
        });
    }
    Ok(())
}

fn check_dtypes(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    let reason = format!("does not go with {} in one product; cast one of them with to_dtype", a.dtype());
    Err(Error::DType { op, dtype: b.dtype(), reason })
}

/// A product of arrays.
type Multiply = fn(&Array, &Array) -> Result<Array>;

/// A batch of rows times one matrix is one product; batches of matrices are a product each.
fn folded(a: &Array, b: &Array, multiply: Multiply) -> Result<Array> {
    if a.rank() <= 2 || b.rank() > 2 {
        return multiply(a, b);
    }
    let mut shape: Dims = a.shape().into();
    let last = shape.len() - 1;
    shape[last] = b.shape()[1];
    multiply(&folded_rows(a)?, b)?.reshape(&shape)
}

fn folded_rows(x: &Array) -> Result<Array> {
    let last = x.rank() - 1;
    x.reshape(&[x.shape()[..last].iter().product(), x.shape()[last]])
}

/// `g @ b^T`.
fn left_gradient(g: &Tensor, b: &Tensor) -> Result<Tensor> {
    g.matmul(&b.transposed_value()?)
}

/// `a^T @ g`, over all batches at once where the right operand was one matrix for all of them.
fn right_gradient(a: &Tensor, g: &Tensor, right_rank: usize) -> Result<Tensor> {
    if right_rank == 2 && g.rank() > 2 {
        return a.rows()?.transposed_value()?.matmul(&g.rows()?);
    }
    a.transposed_value()?.matmul(g)
}
