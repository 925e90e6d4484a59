//! Matrix products.

use smallvec::smallvec;
use wgrad_device::layout::{Dims, broadcast_shapes, checked_elements};
use wgrad_device::{DType, Error, Result};

use super::check_device;
use crate::Array;
use crate::node::Inputs;
use crate::op::Op;

impl Array {
    /// The matrix product `self[.., m, k] @ other[.., k, n]`. The batch dims in front are broadcast.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let a = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?;
    /// let b = Array::from_slice(&[1.0f32, 10.0], &[2, 1], &Device::cpu())?;
    /// assert_eq!(a.matmul(&b)?.to_vec::<f32>()?, [21.0, 43.0]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an operand has fewer than two dims or is bool, the inner sizes, dtypes or devices differ, or the
    /// batch dims do not broadcast.
    pub fn matmul(&self, other: &Array) -> Result<Array> {
        self.product(other, self.dtype())
    }

    /// [`Array::matmul`] whose result for halves is in f32, the dtype in which they are summed. It is for
    /// operations that compute with the product before it is rounded.
    ///
    /// # Errors
    /// As [`Array::matmul`].
    pub fn matmul_unrounded(&self, other: &Array) -> Result<Array> {
        self.product(other, if self.dtype().is_half() { DType::F32 } else { self.dtype() })
    }

    fn product(&self, other: &Array, dtype: DType) -> Result<Array> {
        const OP: &str = "matmul";
        check_device(OP, self, other)?;
        for side in [self, other] {
            if side.rank() < 2 {
                let reason = "needs at least two dims; unsqueeze vectors first".into();
                return Err(Error::Shape { op: OP, shape: side.shape().to_vec(), reason });
            }
        }
        if self.dtype() != other.dtype() || self.dtype() == DType::Bool {
            let reason =
                format!("does not multiply with {}; both must be the same numbers, cast one", other.dtype());
            return Err(Error::DType { op: OP, dtype: self.dtype(), reason });
        }
        let (lhs, rhs) = (self.shape(), other.shape());
        let (m, k) = (lhs[lhs.len() - 2], lhs[lhs.len() - 1]);
        let (inner, n) = (rhs[rhs.len() - 2], rhs[rhs.len() - 1]);
        if k != inner {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: lhs.to_vec(),
                rhs: rhs.to_vec(),
                reason: format!("cannot be multiplied: the inner sizes {k} and {inner} differ"),
            });
        }
        let batch = broadcast_shapes(OP, &lhs[..lhs.len() - 2], &rhs[..rhs.len() - 2])?;
        let sized = |rows: usize, columns: usize| -> Dims {
            let mut shape = batch.clone();
            shape.extend([rows, columns]);
            shape
        };
        let shape = sized(m, n);
        if checked_elements(OP, &shape)? == 0 || k == 0 {
            return Array::full(&shape, 0i64, dtype, self.device());
        }
        let inputs: Inputs = smallvec![self.expand(&sized(m, k))?.0, other.expand(&sized(k, n))?.0];
        Ok(Array::pending(Op::Matmul, inputs, shape, dtype, self.device()))
    }
}
