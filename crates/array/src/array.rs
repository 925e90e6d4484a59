//! [`Array`]: a handle to an immutable value that may still have to be computed.

use wgrad_device::layout::Dims;
use wgrad_device::{Buffer, DType, Device, Error, Layout, Result, Scalar};

use crate::node::{Node, NodeRef, Value};

/// An immutable n-dimensional array on one device, evaluated lazily.
///
/// Cloning shares the value. An operation checks its arguments at once and describes its work; reading
/// ([`Array::to_vec`], [`Array::item`]) or [`Array::eval`] runs what is pending, fused into few kernels.
///
/// ```
/// use wgrad_array::{Array, BinaryOp, Device};
/// let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3], &Device::cpu())?;
/// let y = x.binary(BinaryOp::Mul, &x)?.binary(BinaryOp::Add, &x)?;
/// assert_eq!(y.to_vec::<f32>()?, [2.0, 6.0, 12.0]);
/// # Ok::<(), wgrad_array::Error>(())
/// ```
#[derive(Clone)]
pub struct Array(pub(crate) NodeRef);

impl Array {
    /// What lies in a buffer.
    pub(crate) fn evaluated(buffer: Buffer, layout: Layout, dtype: DType, device: &Device) -> Array {
        Array(Node::evaluated(Value { buffer, layout, bounds: None }, dtype, device))
    }

    /// The same memory under another layout.
    pub(crate) fn viewed(&self, value: &Value, layout: Layout) -> Array {
        let value = Value { buffer: value.buffer.clone(), layout, bounds: value.bounds };
        Array(Node::evaluated(value, self.dtype(), self.device()))
    }

    /// The sizes of the dims.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// The sizes of the dims, for another array: copied as memory, which a clone of them is not.
    pub(crate) fn dims(&self) -> Dims {
        Dims::from_slice(&self.0.shape)
    }

    /// The number of dims.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.0.elements()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The device it lives on.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Whether both handles share one value.
    pub fn is_same(&self, other: &Array) -> bool {
        std::sync::Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether its elements have been computed.
    pub fn is_evaluated(&self) -> bool {
        self.0.value().is_some()
    }

    /// Whether its elements are still to be computed. Neither this nor evaluated is an array whose data have a fault.
    pub fn is_pending(&self) -> bool {
        self.0.is_pending()
    }

    /// Whether the data that it depends on have a fault, and somebody has been told so.
    pub fn has_reported_fault(&self) -> bool {
        self.0.fault().is_some_and(|fault| fault.is_reported())
    }

    /// Where its elements lie in their buffer, if they have been computed.
    pub fn layout(&self) -> Option<&Layout> {
        self.value().map(|value| &value.layout)
    }

    /// Whether both are evaluated and lie in the same memory.
    pub fn shares_memory(&self, other: &Array) -> bool {
        match (self.value(), other.value()) {
            (Some(a), Some(b)) => a.buffer.is_same(&b.buffer),
            _ => false,
        }
    }

    pub(crate) fn value(&self) -> Option<&Value> {
        self.0.value()
    }

    /// The constant that fills it, if it is a pending [`Op::Full`](crate::op::Op::Full).
    pub(crate) fn as_full(&self) -> Option<Scalar> {
        self.0.as_full()
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match (self.is_evaluated(), self.is_pending()) {
            (true, _) => "",
            (_, true) => ", pending",
            _ => ", with a fault",
        };
        write!(f, "Array({}{:?} on {}{state})", self.dtype(), self.shape(), self.device())
    }
}

/// Whether the device can hold the dtype.
pub(crate) fn check_dtype(op: &'static str, dtype: DType, device: &Device) -> Result<()> {
    if !device.supports(dtype) {
        return Err(Error::DType {
            op,
            dtype,
            reason: format!("is not supported by {device}; use f32 there, or keep it on the cpu"),
        });
    }
    Ok(())
}
