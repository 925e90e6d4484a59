//! [`Array`]: a handle to an immutable value that may still have to be computed.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use smallvec::SmallVec;
use wgrad_device::layout::{Dims, checked_elements};
use wgrad_device::{Buffer, DType, Device, Element, Error, Layout, Result, Scalar};

use crate::op::Op;
use crate::{eval, flush};

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
pub struct Array(pub(crate) Arc<Node>);

/// What a handle points to. `value` is set once; the pending work is dropped then.
pub(crate) struct Node {
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    /// The longest chain of pending operations that ends here; at least, since evaluations shorten it unnoticed.
    depth: AtomicU32,
    value: OnceLock<Value>,
    pending: Mutex<Option<Pending>>,
    /// An evaluation has passed over this node without storing it.
    pub(crate) visited: AtomicBool,
}

/// Work that has not been done.
pub(crate) struct Pending {
    pub(crate) op: Op,
    pub(crate) inputs: Inputs,
}

/// The operands of a pending operation.
pub(crate) type Inputs = SmallVec<[Array; 3]>;

/// Where an evaluated array's elements lie.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) buffer: Buffer,
    pub(crate) layout: Layout,
}

impl Array {
    /// A pending operation. The caller has checked everything; `shape` does not overflow.
    pub(crate) fn pending(op: Op, inputs: Inputs, shape: Dims, dtype: DType, device: &Device) -> Array {
        let depth =
            1 + inputs.iter().map(|x| if x.is_evaluated() { 0 } else { x.depth() }).max().unwrap_or(0);
        let array = Array(Arc::new(Node {
            shape,
            dtype,
            device: device.clone(),
            depth: AtomicU32::new(depth),
            value: OnceLock::new(),
            pending: Mutex::new(Some(Pending { op, inputs })),
            visited: AtomicBool::new(false),
        }));
        flush::after_building(&array);
        array
    }

    pub(crate) fn evaluated(buffer: Buffer, layout: Layout, dtype: DType, device: &Device) -> Array {
        Array(Arc::new(Node {
            shape: layout.shape().into(),
            dtype,
            device: device.clone(),
            depth: AtomicU32::new(0),
            value: OnceLock::from(Value { buffer, layout }),
            pending: Mutex::new(None),
            visited: AtomicBool::new(false),
        }))
    }

    /// An array of these elements in row-major order.
    ///
    /// # Errors
    /// If their number is not that of the shape, or memory runs out.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize], device: &Device) -> Result<Array> {
        Array::from_bytes(T::to_bytes(data), T::DTYPE, shape, device)
    }

    /// An array of these bytes: little-endian elements in row-major order, bools as 0 or 1.
    ///
    /// # Errors
    /// If their number is not that of the shape's elements, the device has no such dtype, or memory runs out.
    pub fn from_bytes(bytes: &[u8], dtype: DType, shape: &[usize], device: &Device) -> Result<Array> {
        const OP: &str = "from_slice";
        let elements = checked_elements(OP, shape)?;
        if elements * dtype.size() != bytes.len() {
            return Err(Error::Shape {
                op: OP,
                shape: shape.to_vec(),
                reason: format!("has {elements} elements, but {} were given", bytes.len() / dtype.size()),
            });
        }
        check_dtype(OP, dtype, device)?;
        let buffer = device.executor().upload(bytes)?;
        Ok(Array::evaluated(buffer, Layout::contiguous(shape), dtype, device))
    }

    /// The sizes of the dims.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// The number of dims.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.0.shape.iter().product()
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
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether its elements have been computed.
    pub fn is_evaluated(&self) -> bool {
        self.0.value.get().is_some()
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

    /// At least the length of the longest chain of pending operations that ends here.
    pub(crate) fn depth(&self) -> u32 {
        self.0.depth.load(Ordering::Relaxed)
    }

    /// Notes how long that chain really is.
    pub(crate) fn set_depth(&self, depth: u32) {
        self.0.depth.store(depth, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> Option<&Value> {
        self.0.value.get()
    }

    /// The pending work, or `None` once it is done.
    pub(crate) fn work(&self) -> MutexGuard<'_, Option<Pending>> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pending work with its result. If another thread was faster, its result stays: both are the same.
    pub(crate) fn finish(&self, value: Value) {
        // The value must be there before the work goes, so that a reader finds one of the two.
        let _ = self.0.value.set(value);
        let work = self.work().take();
        drop_iteratively(work);
    }

    /// The constant that fills it, if it is a pending [`Op::Full`].
    pub(crate) fn as_full(&self) -> Option<Scalar> {
        if self.depth() != 1 || self.is_evaluated() {
            return None;
        }
        match self.work().as_ref()?.op {
            Op::Full(value) => Some(value),
            _ => None,
        }
    }

    /// Computes it, if that has not been done.
    ///
    /// # Errors
    /// What the device reports: out of memory, an index out of range, a lost device. The work stays pending then.
    pub fn eval(&self) -> Result<()> {
        Array::eval_all(&[self])
    }

    /// Computes several arrays of any devices at once, sharing what they have in common.
    ///
    /// # Errors
    /// As [`Array::eval`].
    pub fn eval_all(arrays: &[&Array]) -> Result<()> {
        eval::evaluate(arrays)
    }

    /// Its elements in row-major order.
    ///
    /// # Errors
    /// If `T` is not its dtype, or as [`Array::eval`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype() {
            return Err(Error::DType {
                op: "to_vec",
                dtype: self.dtype(),
                reason: format!("cannot be read as {}; cast it first", T::DTYPE),
            });
        }
        Ok(T::from_bytes(&self.to_bytes()?))
    }

    /// Its elements as little-endian bytes in row-major order.
    ///
    /// # Errors
    /// As [`Array::eval`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let dense = self.contiguous()?;
        dense.eval()?;
        let size = self.elements() * self.dtype().size();
        let mut bytes = host_vec(size)?;
        bytes.resize(size, 0);
        dense.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&self, bytes: &mut [u8]) -> Result<()> {
        let dense = self.contiguous()?;
        dense.eval()?;
        let value = dense.value().ok_or_else(|| eval::lost_value("to_vec", self))?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.device().executor().download(&value.buffer, value.layout.offset() * self.dtype().size(), bytes)
    }

    /// The value of an array of one element.
    ///
    /// # Errors
    /// If it has not exactly one element, or as [`Array::eval`].
    pub fn item(&self) -> Result<Scalar> {
        if self.elements() != 1 {
            return Err(Error::Shape {
                op: "item",
                shape: self.shape().to_vec(),
                reason: format!("has {} elements; item() needs exactly one", self.elements()),
            });
        }
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..self.dtype().size()];
        self.read_into(bytes)?;
        Ok(match self.dtype() {
            DType::Bool => Scalar::Bool(bytes[0] != 0),
            DType::U8 => Scalar::Int(u8::from_bytes(bytes)[0].into()),
            DType::I32 => Scalar::Int(i32::from_bytes(bytes)[0].into()),
            DType::I64 => Scalar::Int(i64::from_bytes(bytes)[0]),
            DType::F16 => Scalar::Float(half::f16::from_bytes(bytes)[0].into()),
            DType::BF16 => Scalar::Float(half::bf16::from_bytes(bytes)[0].into()),
            DType::F32 => Scalar::Float(f32::from_bytes(bytes)[0].into()),
            DType::F64 => Scalar::Float(f64::from_bytes(bytes)[0]),
        })
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.is_evaluated() { "" } else { ", pending" };
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

impl Drop for Node {
    fn drop(&mut self) {
        let work = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        drop_iteratively(work);
    }
}

/// Drops a pending operation's inputs without recursion: a chain of a million operations must not overflow the stack.
fn drop_iteratively(work: Option<Pending>) {
    thread_local! {
        static QUEUE: RefCell<Option<Vec<Array>>> = const { RefCell::new(None) };
    }
    let Some(Pending { inputs, .. }) = work else { return };
    if inputs.iter().all(|x| x.depth() <= 1 || Arc::strong_count(&x.0) > 1) {
        return;
    }
    // The outermost drop on this thread works the queue off; inner ones only add to it.
    let outermost = QUEUE.try_with(|queue| {
        let mut queue = queue.borrow_mut();
        match queue.as_mut() {
            Some(queue) => {
                queue.extend(inputs);
                false
            }
            None => {
                *queue = Some(inputs.into_iter().collect());
                true
            }
        }
    });
    if outermost == Ok(true) {
        while let Some(array) = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Vec::pop)) {
            drop(array);
        }
        QUEUE.set(None);
    }
}

/// Marks a node as passed over by an evaluation, and says whether it was before.
pub(crate) fn mark_visited(array: &Array) {
    array.0.visited.store(true, Ordering::Relaxed);
}

/// Room for so many elements in this machine's memory.
///
/// # Errors
/// [`Error::OutOfMemory`] where the system refuses it.
pub fn host_vec<T>(len: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    let requested = (len as u64).saturating_mul(size_of::<T>() as u64);
    let refused = |_| Error::OutOfMemory { requested, used: 0, limit: isize::MAX as u64 };
    room.try_reserve_exact(len).map_err(refused)?;
    Ok(room)
}
