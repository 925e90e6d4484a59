//! Reading arrays: evaluation that somebody asks for, and the elements that come out of it.

use std::sync::PoisonError;

use wgrad_device::{DType, Element, Error, Result, Scalar};

use crate::kept::kept;
use crate::{Array, eval};

impl Array {
    /// Computes it, if that has not been done.
    ///
    /// # Errors
    /// What the device reports: out of memory, a lost device. The work stays pending then, and may succeed later. Or that the data it
    /// depends on have a fault, an index out of range: that error belongs to the array for good.
    pub fn eval(&self) -> Result<()> {
        Array::eval_all(&[self])
    }

    /// Computes several arrays of any devices at once, sharing what they have in common.
    ///
    /// # Errors
    /// As [`Array::eval`], of the first array that has one. Those without a fault are computed all the same.
    pub fn eval_all(arrays: &[&Array]) -> Result<()> {
        eval::evaluate(arrays.iter().map(|array| &array.0))
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
        let value = dense.value().ok_or_else(|| eval::lost_value("to_vec", &dense.0))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _reading = kept(self.device()).checking.read().unwrap_or_else(PoisonError::into_inner);
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
