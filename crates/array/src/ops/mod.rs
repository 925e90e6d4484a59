//! The operations on arrays, by family: each checks its arguments, then describes the work as a pending node.

mod create;
mod elementwise;
mod fourier;
mod in_place;
mod index;
mod linalg;
mod matmul;
mod reduce;
mod series;
mod special;
mod transfer;
mod trigonometry;
mod view;

pub(crate) use fourier::FourierTables;
pub use index::WithOpName;
pub use linalg::QrMode;

use smallvec::smallvec;
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Device, Error, Result};

use crate::node::{Inputs, Node};
use crate::op::Op;
use crate::{Array, flush};

impl Array {
    /// A pending operation. The caller has checked everything; `shape` does not overflow.
    fn pending(op: Op, inputs: Inputs, shape: Dims, dtype: DType, device: &Device) -> Array {
        let node = Node::pending(op, inputs, shape, dtype, device);
        if node.is_pending() {
            flush::after_building(&node);
        }
        Array(node)
    }

    /// A pending operation on this array alone, on its device.
    fn derive(&self, op: Op, shape: Dims, dtype: DType) -> Array {
        let inputs: Inputs = smallvec![self.0.clone()];
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
