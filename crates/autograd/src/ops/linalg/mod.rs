//! Linear algebra of matrices (the last two dims) and batches of them, under the names of `torch.linalg`.
//!
//! The factorizations are computed at once, in f64 on the host, and rounded: the tensors are read for them, and those of a
//! GPU cross to the CPU and back. They take f32 and f64. Their derivatives are made of products and of other operations of this
//! family, so that gradients of gradients exist.

mod determinant;
mod matrix_norm;
mod orthogonal;
mod solve;

pub use matrix_norm::NormOrder;

use wgrad_array::{Error, Result};

use crate::Tensor;

/// The sizes of the matrices of a tensor.
fn matrix_sizes(op: &'static str, x: &Tensor) -> Result<[usize; 2]> {
    match *x.shape() {
        [.., rows, columns] => Ok([rows, columns]),
        _ => {
            let reason = "has fewer than two dims; give a matrix or a batch of them".to_owned();
            Err(Error::Shape { op, shape: x.shape().to_vec(), reason })
        }
    }
}

/// The size of square matrices.
fn square_size(op: &'static str, x: &Tensor) -> Result<usize> {
    let [rows, columns] = matrix_sizes(op, x)?;
    if rows == columns {
        return Ok(rows);
    }
    let reason = format!("is not that of square matrices, but of {rows} x {columns}");
    Err(Error::Shape { op, shape: x.shape().to_vec(), reason })
}

/// # Linear algebra
#[wgrad_macros::call_sites]
impl Tensor {
    /// The unit matrix of some size in this tensor's dtype, on its device.
    fn eye_of(&self, size: usize) -> Result<Tensor> {
        Tensor::eye(size, size, (self.dtype(), self.device()))
    }

    /// Numbers for the columns of matrices, multiplied in.
    fn scale_columns(&self, numbers: &Tensor) -> Result<Tensor> {
        self.mul(numbers.unsqueeze(-2)?)
    }
}
