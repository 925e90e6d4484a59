//! Gathers and scatters: reading and writing at indices that are arrays themselves.

use smallvec::smallvec;
use wgrad_device::kernel::ScatterOp;
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Error, Result};

use super::check_device;
use crate::Array;
use crate::bounds::may_leave;
use crate::node::{Inputs, Pending};
use crate::op::Op;

/// Renames a gather or scatter that is part of another operation, so that its errors, late ones included,
/// name that operation.
pub trait WithOpName {
    /// The same result with this operation's name in errors.
    fn named(self, op: &'static str) -> Self;
}

impl WithOpName for Result<Array> {
    fn named(mut self, op: &'static str) -> Result<Array> {
        match &mut self {
            Ok(array) => {
                if let Some(Pending { op: Op::Gather { name, .. } | Op::Scatter { name, .. }, .. }) =
                    &mut *array.0.work()
                {
                    *name = op;
                }
            }
            Err(Error::Index { op: name, .. }) => *name = op,
            Err(_) => {}
        }
        self
    }
}

impl Array {
    /// `out[.., i, ..] = self[.., index[.., i, ..], ..]` along a dim. The result has the index's shape, whose
    /// other dims may be smaller than this array's. Indices count from the front. An index that is out of
    /// range is an error of this call if its value is known, and otherwise an error of reading the result.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1i64, 2, 3, 4], &[2, 2], &Device::cpu())?;
    /// let index = Array::from_slice(&[1i64, 0], &[2, 1], &Device::cpu())?;
    /// assert_eq!(x.gather(1, &index)?.to_vec::<i64>()?, [2, 3]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the ranks differ, the index is larger than this array in another dim, or the index is not i64 or
    /// i32.
    pub fn gather(&self, dim: usize, index: &Array) -> Result<Array> {
        const OP: &str = "gather";
        self.check_index(OP, dim, index)?;
        if index.elements() == 0 {
            return Array::full(index.shape(), 0i64, self.dtype(), self.device());
        }
        self.check_not_empty(OP, dim)?;
        let checked = may_leave(OP, index, self.shape()[dim])?;
        let inputs: Inputs = smallvec![self.0.clone(), index.0.clone()];
        let op = Op::Gather { dim, name: OP, checked };
        Ok(Array::pending(op, inputs, index.shape().into(), self.dtype(), self.device()))
    }

    /// The slices of a dim at the indices of a 1-dim index: `out[.., i, ..] = self[.., index[i], ..]`.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1i64, 2, 3, 4], &[2, 2], &Device::cpu())?;
    /// let index = Array::from_slice(&[1i64, 1, 0], &[3], &Device::cpu())?;
    /// assert_eq!(x.index_select(0, &index)?.to_vec::<i64>()?, [3, 4, 3, 4, 1, 2]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the index is not 1-dim, or not i64 or i32; and for indices out of range, as in [`Array::gather`].
    pub fn index_select(&self, dim: usize, index: &Array) -> Result<Array> {
        const OP: &str = "index_select";
        self.check_dim(OP, dim)?;
        let (spread, shape) = self.spread_index(OP, dim, index)?;
        if spread.elements() == 0 {
            return Array::full(&shape, 0i64, self.dtype(), self.device());
        }
        self.check_not_empty(OP, dim)?;
        let checked = may_leave(OP, index, self.shape()[dim])?;
        let inputs: Inputs = smallvec![self.0.clone(), spread.0];
        let op = Op::Gather { dim, name: OP, checked };
        Ok(Array::pending(op, inputs, shape, self.dtype(), self.device()))
    }

    /// A copy of this array in which `out[.., index[.., i, ..], ..] op= source[.., i, ..]` along a dim.
    /// Source elements with the same index are combined in row-major order, so the result is the same on
    /// every run.
    ///
    /// ```
    /// use wgrad_array::{Array, DType, Device, ScatterOp};
    /// let zeros = Array::full(&[3], 0i64, DType::I64, &Device::cpu())?;
    /// let index = Array::from_slice(&[2i64, 0, 2], &[3], &Device::cpu())?;
    /// let source = Array::from_slice(&[1i64, 10, 100], &[3], &Device::cpu())?;
    /// assert_eq!(zeros.scatter(ScatterOp::Add, 0, &index, &source)?.to_vec::<i64>()?, [10, 0, 101]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Array::gather`]; and if the source has another dtype, or is smaller than the index.
    pub fn scatter(&self, op: ScatterOp, dim: usize, index: &Array, source: &Array) -> Result<Array> {
        const OP: &str = "scatter";
        self.check_index(OP, dim, index)?;
        check_device(OP, self, source)?;
        let fits =
            source.rank() == index.rank() && index.shape().iter().zip(source.shape()).all(|(i, s)| i <= s);
        if !fits {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: index.shape().to_vec(),
                rhs: source.shape().to_vec(),
                reason: "do not fit: the source must be at least as large as the index in each dim".into(),
            });
        }
        let mut source = source.clone();
        for (d, &len) in index.shape().iter().enumerate() {
            source = source.slice(d, 0, len, 1)?;
        }
        let checked = self.may_be_left(OP, dim, index)?;
        self.scatter_checked(Op::Scatter { op, dim, name: OP, checked }, index.clone(), source)
    }

    /// A copy of this array in which `out[.., index[i], ..] op= source[.., i, ..]` for a 1-dim index along a
    /// dim.
    ///
    /// # Errors
    /// As [`Array::index_select`]; and if the source has another dtype or shape.
    pub fn index_scatter(&self, op: ScatterOp, dim: usize, index: &Array, source: &Array) -> Result<Array> {
        const OP: &str = "index_add";
        self.check_dim(OP, dim)?;
        check_device(OP, self, source)?;
        let (spread, shape) = self.spread_index(OP, dim, index)?;
        if source.shape() != &shape[..] {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: shape.to_vec(),
                rhs: source.shape().to_vec(),
                reason: "differ: the source must have the target's shape, with the index's length in the dim"
                    .into(),
            });
        }
        let checked = self.may_be_left(OP, dim, index)?;
        self.scatter_checked(Op::Scatter { op, dim, name: OP, checked }, spread, source.clone())
    }

    /// Whether an index may be out of range for a dim of this array.
    fn may_be_left(&self, op: &'static str, dim: usize, index: &Array) -> Result<bool> {
        if index.elements() == 0 {
            return Ok(false);
        }
        self.check_not_empty(op, dim)?;
        may_leave(op, index, self.shape()[dim])
    }

    fn scatter_checked(&self, op: Op, index: Array, source: Array) -> Result<Array> {
        if source.dtype() != self.dtype() {
            let reason = format!("does not fit into {}; cast it first", self.dtype());
            return Err(Error::DType { op: "scatter", dtype: source.dtype(), reason });
        }
        if index.elements() == 0 {
            return Ok(self.clone());
        }
        let mut inputs: Inputs = smallvec![source.0, index.0];
        // A scatter without a third input starts from zeros.
        if self.as_full().is_none_or(|number| number.as_f64() != 0.0) {
            inputs.push(self.0.clone());
        }
        Ok(Array::pending(op, inputs, self.shape().into(), self.dtype(), self.device()))
    }

    /// The error for indexing a dim of size 0, for which every index is out of range.
    fn check_not_empty(&self, op: &'static str, dim: usize) -> Result<()> {
        if self.shape()[dim] == 0 {
            Err(Error::Index { op, index: 0, size: 0, called_at: None })
        } else {
            Ok(())
        }
    }

    fn check_index(&self, op: &'static str, dim: usize, index: &Array) -> Result<()> {
        self.check_dim(op, dim)?;
        check_device(op, self, index)?;
        check_index_dtype(op, index)?;
        let fits = index.rank() == self.rank()
            && (0..self.rank()).all(|d| d == dim || index.shape()[d] <= self.shape()[d]);
        if !fits {
            return Err(Error::ShapeMismatch {
                op,
                lhs: self.shape().to_vec(),
                rhs: index.shape().to_vec(),
                reason: format!("do not fit: the index needs as many dims, none larger but dim {dim}"),
            });
        }
        Ok(())
    }

    /// A 1-dim index of slices expanded to an index for each element, and the shape of the selected slices.
    fn spread_index(&self, op: &'static str, dim: usize, index: &Array) -> Result<(Array, Dims)> {
        check_device(op, self, index)?;
        check_index_dtype(op, index)?;
        if index.rank() != 1 {
            let reason = "has more or fewer than one dim; flatten the index first".into();
            return Err(Error::Shape { op, shape: index.shape().to_vec(), reason });
        }
        let mut line: Dims = smallvec![1; self.rank()];
        line[dim] = index.elements();
        let mut shape = self.0.shape.clone();
        shape[dim] = index.elements();
        Ok((index.reshape(&line)?.expand(&shape)?, shape))
    }
}

fn check_index_dtype(op: &'static str, index: &Array) -> Result<()> {
    if matches!(index.dtype(), DType::I64 | DType::I32) {
        return Ok(());
    }
    Err(Error::DType { op, dtype: index.dtype(), reason: "cannot index; use i64".into() })
}
