//! Reading arrays: evaluation on request, and downloading elements to host memory.

use std::sync::PoisonError;

use wgrad_device::{DType, Element, Error, Result, Scalar};

use crate::kept::kept;
use crate::{Array, eval};

impl Array {
    /// Computes the array if it is pending.
    ///
    /// ```
    /// use wgrad_array::{Array, Device, UnaryOp};
    /// let y = Array::from_slice(&[0.0f32], &[1], &Device::cpu())?.unary(UnaryOp::Exp)?;
    /// assert!(y.is_pending());
    /// y.eval()?;
    /// assert!(y.is_evaluated());
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// An error of the device, such as [`Error::OutOfMemory`] or a lost device: the array stays pending, and
    /// a later evaluation may succeed. Or [`Error::Index`] if it depends on an index that is out of range:
    /// every evaluation returns that error.
    pub fn eval(&self) -> Result<()> {
        Array::eval_all(&[self])
    }

    /// Computes several arrays at once, on any devices. The work that they have in common is done once.
    ///
    /// ```
    /// use wgrad_array::{Array, Device, ReduceOp};
    /// let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3], &Device::cpu())?;
    /// let (sum, max) = (x.reduce(ReduceOp::Sum, &[0], false)?, x.reduce(ReduceOp::Max, &[0], false)?);
    /// Array::eval_all(&[&sum, &max])?; // one kernel, which reads x once
    /// assert_eq!((sum.item()?.as_f64(), max.item()?.as_f64()), (6.0, 3.0));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Array::eval`]: the error of the first array that has one. The arrays without a fault are computed
    /// in any case.
    pub fn eval_all(arrays: &[&Array]) -> Result<()> {
        eval::evaluate(arrays.iter().map(|array| &array.0))
    }

    /// Its elements in row-major order. Evaluates the array.
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

    /// Its elements as little-endian bytes in row-major order. Evaluates the array.
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
        let value = dense.value().ok_or_else(|| eval::lost_value("to_vec", &dense.0))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _reading = kept(self.device()).checking.read().unwrap_or_else(PoisonError::into_inner);
        self.device().executor().download(&value.buffer, value.layout.offset() * self.dtype().size(), bytes)
    }

    /// The value of an array with one element. Evaluates the array.
    ///
    /// ```
    /// use wgrad_array::{Array, Device, ReduceOp, Scalar};
    /// let x = Array::from_slice(&[1i64, 2, 3], &[3], &Device::cpu())?;
    /// assert_eq!(x.reduce(ReduceOp::Sum, &[0], false)?.item()?, Scalar::Int(6));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
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

/// An empty vector with a capacity for this many elements.
///
/// ```
/// let bytes = wgrad_array::host_vec::<u8>(100)?;
/// assert!(bytes.is_empty() && bytes.capacity() >= 100);
/// assert!(wgrad_array::host_vec::<u8>(usize::MAX).is_err());
/// # Ok::<(), wgrad_array::Error>(())
/// ```
///
/// # Errors
/// [`Error::OutOfMemory`] if the system refuses the allocation.
pub fn host_vec<T>(len: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    let requested = (len as u64).saturating_mul(size_of::<T>() as u64);
    let refused = |_| Error::OutOfMemory { requested, used: 0, limit: isize::MAX as u64 };
    room.try_reserve_exact(len).map_err(refused)?;
    Ok(room)
}
