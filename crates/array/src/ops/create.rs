//! Creating arrays: from host memory, constants, ranges, random numbers.

use smallvec::SmallVec;
use wgrad_device::kernel::BinaryOp;
use wgrad_device::layout::checked_elements;
use wgrad_device::{DType, Device, Element, Error, Layout, Result, Scalar};

use crate::array::check_dtype;
use crate::node::{Node, Value};
use crate::op::{Op, RandomKind};
use crate::{Array, bounds, flush};

impl Array {
    /// An array of these elements in row-major order, which are uploaded at once.
    ///
    /// ```
    /// use wgrad_array::{Array, DType, Device};
    /// let x = Array::from_slice(&[1.5f32, 2.5], &[2, 1], &Device::cpu())?;
    /// assert_eq!((x.dtype(), x.shape()), (DType::F32, &[2, 1][..]));
    /// assert!(Array::from_slice(&[1.5f32, 2.5], &[3], &Device::cpu()).is_err());
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If their number is not the shape's number of elements, or there is not enough memory.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize], device: &Device) -> Result<Array> {
        Array::from_bytes(T::to_bytes(data), T::DTYPE, shape, device)
    }

    /// An array of these bytes: little-endian elements in row-major order, bools as 0 or 1.
    ///
    /// # Errors
    /// If their number does not fit the shape, the device does not support the dtype, or there is not enough
    /// memory.
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
        let buffer = match device.executor().upload(bytes) {
            Err(Error::OutOfMemory { .. }) => {
                flush::relieve(device);
                device.executor().upload(bytes)?
            }
            uploaded => uploaded?,
        };
        let value =
            Value { buffer, layout: Layout::contiguous(shape), bounds: bounds::of_bytes(bytes, dtype) };
        Ok(Array(Node::evaluated(value, dtype, device)))
    }

    /// An array filled with a number. It takes no memory unless it is read: kernels that use it take the
    /// number as a parameter.
    ///
    /// # Errors
    /// If the shape overflows, or the device does not support the dtype.
    pub fn full(shape: &[usize], value: impl Into<Scalar>, dtype: DType, device: &Device) -> Result<Array> {
        checked_elements("full", shape)?;
        check_dtype("full", dtype, device)?;
        let value = value.into().cast(dtype);
        Ok(Array::pending(Op::Full(value), SmallVec::new(), shape.into(), dtype, device))
    }

    /// An array in which each element is its own index along a dim, as i32.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let columns = Array::coordinate(&[2, 3], 1, &Device::cpu())?;
    /// assert_eq!(columns.to_vec::<i32>()?, [0, 1, 2, 0, 1, 2]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape overflows, has no such dim, or the dim is longer than i32 can count.
    pub fn coordinate(shape: &[usize], dim: usize, device: &Device) -> Result<Array> {
        const OP: &str = "coordinate";
        checked_elements(OP, shape)?;
        let size = *shape.get(dim).ok_or(Error::Dim { op: OP, dim: dim as isize, rank: shape.len() })?;
        if shape.contains(&0) {
            return Array::full(shape, 0i64, DType::I32, device);
        }
        if size > i32::MAX as usize {
            return Err(Error::SizeOverflow { op: OP, shape: shape.to_vec() });
        }
        Ok(Array::pending(Op::Coordinate { dim }, SmallVec::new(), shape.into(), DType::I32, device))
    }

    /// `start + i * step` for i in 0..len. Integers are computed exactly, f64 in f64, and other floats in
    /// f32.
    ///
    /// ```
    /// use wgrad_array::{Array, DType, Device, Scalar};
    /// let x = Array::arange(Scalar::Int(5), Scalar::Int(-2), 3, DType::I64, &Device::cpu())?;
    /// assert_eq!(x.to_vec::<i64>()?, [5, 3, 1]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the length exceeds i32, or the device does not support the dtype.
    pub fn arange(start: Scalar, step: Scalar, len: usize, dtype: DType, device: &Device) -> Result<Array> {
        check_dtype("arange", dtype, device)?;
        let compute = match dtype {
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => DType::I64,
            DType::F64 => DType::F64,
            DType::F16 | DType::BF16 | DType::F32 => DType::F32,
        };
        Array::coordinate(&[len], 0, device)?
            .cast(compute)?
            .binary_scalar(BinaryOp::Mul, step.cast(compute))?
            .binary_scalar(BinaryOp::Add, start.cast(compute))?
            .cast(dtype)
    }

    fn random(kind: RandomKind, shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        const OP: &str = "random";
        // The position of an element must fit into a 32-bit word of Philox's counter.
        if checked_elements(OP, shape)? > u32::MAX as usize {
            return Err(Error::SizeOverflow { op: OP, shape: shape.to_vec() });
        }
        let dtype = match kind {
            RandomKind::Bits => DType::I64,
            RandomKind::Uniform | RandomKind::Normal => DType::F32,
        };
        let op = Op::Random { kind, seed, stream };
        Ok(Array::pending(op, SmallVec::new(), shape.into(), dtype, device))
    }

    /// Random words, as i64 in 0..2^32. Element i is word i % 4 of Philox4x32-10 with the counter (i / 4, 0,
    /// stream) and the seed as its key, so the words are the same on every device.
    ///
    /// ```
    /// use wgrad_array::{Array, Device, philox4x32_10};
    /// let words = Array::random_bits(&[4], 7, 0, &Device::cpu())?.to_vec::<i64>()?;
    /// assert_eq!(words, philox4x32_10([0, 0, 0, 0], [7, 0]).map(i64::from));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn random_bits(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Bits, shape, seed, stream, device)
    }

    /// Uniform random f32 numbers in [0, 1): multiples of 2^-24, from the upper bits of
    /// [`Array::random_bits`].
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn uniform(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Uniform, shape, seed, stream, device)
    }

    /// Standard normal random f32 numbers by the Box-Muller transform, two from each pair of
    /// [`Array::random_bits`]. The bits are the same on every device. No number's absolute value is larger
    /// than 6.67.
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn normal(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Normal, shape, seed, stream, device)
    }
}
