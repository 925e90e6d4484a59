//! Norms of matrices, and the functions that choose between those and norms of vectors.

use wgrad_array::{Error, Result};

use crate::{IntArray, Tensor};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormOrder {
    /// The norm of this order, infinities included.
    Number(f64),
    /// The root of the sum of squares, "fro".
    Frobenius,
    /// The sum of the singular values, "nuc".
    Nuclear,
}

impl From<f64> for NormOrder {
    fn from(order: f64) -> Self {
        NormOrder::Number(order)
    }
}

/// # Linear algebra: norms of matrices
#[wgrad_macros::call_sites]
impl Tensor {
    /// Norms of the matrices in two dims, PyTorch's default being the last two; `torch.linalg.matrix_norm`. The order is
    /// Frobenius or nuclear, 2 and -2 for the largest and smallest singular value, 1 and -1 for the largest and smallest
    /// sum of sizes down a column, infinity and minus infinity for those along a row.
    ///
    /// ```
    /// use wgrad_autograd::{Device, NormOrder, Tensor};
    /// let a = Tensor::new([[3.0f32, 0.0], [0.0, -4.0]], &Device::cpu())?;
    /// let norm = |order: NormOrder| a.matrix_norm(order, [-2, -1], false)?.item::<f32>();
    /// assert_eq!(norm(NormOrder::Frobenius)?, 5.0);
    /// assert_eq!(norm(NormOrder::Nuclear)?, 7.0);
    /// assert_eq!(norm(f64::NEG_INFINITY.into())?, 3.0);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// For another order; if the dims are not two different ones; for integers and bools; where singular values are asked for, as
    /// [`Tensor::svd`]; for a largest or smallest one of none.
    pub fn matrix_norm(
        &self,
        order: impl Into<NormOrder>,
        dims: [isize; 2],
        keepdim: bool,
    ) -> Result<Tensor> {
        const OP: &str = "matrix_norm";
        let found = IntArray::from(dims).dims(OP, self.rank())?;
        if self.rank() < 2 {
            let reason = "has fewer than two dims; give a matrix or a batch of them".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        crate::ops::reduce::require_float(OP, self)?;
        let (rows, columns) = (found[0] as isize, found[1] as isize);
        let order = order.into();
        let number = match order {
            NormOrder::Frobenius => return self.vector_norm(2.0, dims, keepdim),
            NormOrder::Nuclear => 2.0,
            NormOrder::Number(number) => number,
        };
        if !matches!(number.abs(), 1.0 | 2.0 | f64::INFINITY) {
            let reason = format!(
                "there is no norm of order {number} of a matrix; 1, 2, infinity, their negatives, Frobenius and Nuclear are"
            );
            return Err(Error::Argument { op: OP, reason });
        }
        let extreme = |x: &Tensor, dim: isize, keepdim: bool| {
            if number > 0.0 { x.amax(dim, keepdim) } else { x.amin(dim, keepdim) }
        };
        if number.abs() != 2.0 {
            let (sum, other) = if number.abs() == 1.0 { (rows, columns) } else { (columns, rows) };
            let norm = extreme(&self.abs()?.sum_dim(sum, true)?, other, true)?;
            return if keepdim { Ok(norm) } else { norm.squeeze_dim(dims) };
        }
        let values = self.movedim(dims, [-2, -1])?.svdvals()?;
        let norm = if order == NormOrder::Nuclear {
            values.sum_dim(-1, false)?
        } else {
            extreme(&values, -1, false)?
        };
        if !keepdim {
            return Ok(norm);
        }
        norm.unsqueeze(rows.min(columns))?.unsqueeze(rows.max(columns))
    }

    /// A norm of vectors or matrices as `torch.norm` chooses: over dims (none: all) the vector norm, also for Frobenius, and for
    /// Nuclear the matrix norm, which needs two dims.
    ///
    /// ```
    /// use wgrad_autograd::{Device, NormOrder, Tensor};
    /// let x = Tensor::new([3.0f32, -4.0], &Device::cpu())?;
    /// assert_eq!(x.norm(NormOrder::Frobenius, (), false)?.item::<f32>()?, 5.0);
    /// assert_eq!(x.norm(1.0, (), false)?.item::<f32>()?, 7.0);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::vector_norm`] and [`Tensor::matrix_norm`].
    pub fn norm(&self, p: impl Into<NormOrder>, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        match p.into() {
            NormOrder::Number(p) => self.vector_norm(p, dims, keepdim),
            NormOrder::Frobenius => self.vector_norm(2.0, dims, keepdim),
            NormOrder::Nuclear => {
                self.matrix_norm(NormOrder::Nuclear, self.two_dims("norm", &dims.into())?, keepdim)
            }
        }
    }

    /// A norm of vectors or matrices as `torch.linalg.norm` chooses. Without an order the root of the sum of squares over dims (none: all).
    /// With one the vector norm over one dim, the matrix norm over two; without dims those of the tensor, which must be one or two.
    ///
    /// ```
    /// use wgrad_autograd::{Device, NormOrder, Tensor};
    /// let a = Tensor::new([[3.0f32, 0.0], [0.0, -4.0]], &Device::cpu())?;
    /// assert_eq!(a.linalg_norm(None, (), false)?.item::<f32>()?, 5.0);
    /// assert_eq!(a.linalg_norm(NormOrder::Number(2.0), (), false)?.item::<f32>()?, 4.0);
    /// assert_eq!(a.linalg_norm(NormOrder::Number(1.0), 0, false)?.to_vec::<f32>()?, [3.0, 4.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::vector_norm`] and [`Tensor::matrix_norm`]; if there is an order and the dims are neither one nor two.
    pub fn linalg_norm(
        &self,
        order: impl Into<Option<NormOrder>>,
        dims: impl Into<IntArray>,
        keepdim: bool,
    ) -> Result<Tensor> {
        let dims = dims.into();
        let Some(order) = order.into() else { return self.vector_norm(2.0, dims, keepdim) };
        let count = if dims.as_slice().is_empty() { self.rank() } else { dims.as_slice().len() };
        match (order, count) {
            (NormOrder::Number(order), 1) => self.vector_norm(order, dims, keepdim),
            _ => self.matrix_norm(order, self.two_dims("linalg.norm", &dims)?, keepdim),
        }
    }

    /// Two dims that were named, or the two that there are.
    fn two_dims(&self, op: &'static str, dims: &IntArray) -> Result<[isize; 2]> {
        match (dims.as_slice(), self.rank()) {
            ([], 2) => Ok([0, 1]),
            (&[rows, columns], _) => Ok([rows, columns]),
            (named, rank) => {
                let count = if named.is_empty() { rank } else { named.len() };
                let reason = format!("a norm of matrices is over two dims, not over {count}; name two");
                Err(Error::Argument { op, reason })
            }
        }
    }
}
