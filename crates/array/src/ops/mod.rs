//! The operations on arrays, by family. Each checks its arguments, and then makes a pending node.

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
    /// An array for a pending operation. The caller has checked the arguments, and `shape` does not overflow.
    fn pending(op: Op, inputs: Inputs, shape: Dims, dtype: DType, device: &Device) -> Array {
        let node = Node::pending(op, inputs, shape, dtype, device);
        if node.is_pending() {
            flush::after_building(&node);
        }
        Array(node)
    }

    /// An array for a pending operation with this array as its only operand.
    fn derive(&self, op: Op, shape: Dims, dtype: DType) -> Array {
        let inputs: Inputs = smallvec![self.0.clone()];
        Array::pending(op, inputs, shape, dtype, self.device())
    }
}

/// Checks that both operands are on the same device.
fn check_device(op: &'static str, a: &Array, b: &Array) -> Result<()> {
    if a.device() == b.device() {
        return Ok(());
    }
    Err(Error::DeviceMismatch { op, lhs: a.device().to_string(), rhs: b.device().to_string() })
}
