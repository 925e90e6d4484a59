//! [`Array`]: a handle to an immutable value that may not have been computed yet.

use wgrad_device::layout::Dims;
use wgrad_device::{Buffer, DType, Device, Error, Layout, Result, Scalar};

use crate::node::{Node, NodeRef, Value};

/// An immutable n-dimensional array on one device, evaluated lazily.
///
/// A clone shares the value. An operation checks its arguments at once, and its result is pending: it
/// describes the work. Reading an array ([`Array::to_vec`], [`Array::item`]), or [`Array::eval`], runs the
/// pending work, fused into few kernels.
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
    /// The array whose elements lie in a buffer.
    pub(crate) fn evaluated(buffer: Buffer, layout: Layout, dtype: DType, device: &Device) -> Array {
        Array(Node::evaluated(Value { buffer, layout, bounds: None }, dtype, device))
    }

    /// The same memory under another layout.
    pub(crate) fn viewed(&self, value: &Value, layout: Layout) -> Array {
        let value = Value { buffer: value.buffer.clone(), layout, bounds: value.bounds };
        Array(Node::evaluated(value, self.dtype(), self.device()))
    }

    /// The sizes of the dims.
    ///
    /// ```
    /// use wgrad_array::{Array, DType, Device};
    /// let x = Array::full(&[2, 3], 0.5, DType::F32, &Device::cpu())?;
    /// assert_eq!((x.shape(), x.rank(), x.elements(), x.dtype()), (&[2, 3][..], 2, 6, DType::F32));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// A copy of the sizes of the dims. It is made by copying memory, which is faster than a clone.
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

    /// Whether both are handles to the same value. Equal elements alone don't make two arrays the same.
    pub fn is_same(&self, other: &Array) -> bool {
        std::sync::Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether its elements have been computed.
    pub fn is_evaluated(&self) -> bool {
        self.0.value().is_some()
    }

    /// Whether its elements have not been computed yet. An array that depends on data with a fault is neither
    /// pending nor evaluated.
    pub fn is_pending(&self) -> bool {
        self.0.is_pending()
    }

    /// Whether the data on which it depends have a fault, and the error has been returned to a caller.
    pub fn has_reported_fault(&self) -> bool {
        self.0.fault().is_some_and(|fault| fault.is_reported())
    }

    /// The layout of its elements in their buffer, if they have been computed.
    pub fn layout(&self) -> Option<&Layout> {
        self.value().map(|value| &value.layout)
    }

    /// Whether both are evaluated and lie in the same buffer.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?;
    /// let transposed = x.permute(&[1, 0])?; // a view
    /// assert!(transposed.shares_memory(&x));
    /// assert!(!transposed.contiguous()?.shares_memory(&x));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
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

/// Checks that the device supports the dtype.
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
