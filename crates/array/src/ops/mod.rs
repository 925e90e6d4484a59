//! The operations on arrays, by family: each checks its arguments, then describes the work as a pending node.

mod create;
mod elementwise;
mod fourier;
mod index;
mod linalg;
mod matmul;
mod reduce;
mod series;
mod special;
mod transfer;
mod trigonometry;
mod view;

pub use linalg::QrMode;

use smallvec::smallvec;
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Error, Result};

use crate::Array;
use crate::array::Inputs;
use crate::op::Op;

impl Array {
    /// A pending operation on this array alone, on its device.
    fn derive(&self, op: Op, shape: Dims, dtype: DType) -> Array {
        let inputs: Inputs = smallvec![self.clone()];
        Array::pending(op, inputs, shape, dtype, self.device())
    }
}

/// The error for operands on two devices.
fn check_device(op: &'static str, a: &Array, b: &Array) -> Result<()> {
    if a.device() == b.device() {
        return Ok(());
    }
    Err(Error::DeviceMismatch { op, lhs: a.device().to_string(), rhs: b.device().to_string() })
}
