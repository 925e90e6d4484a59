//! Arrays from nothing: constants, ranges, random numbers.

use smallvec::SmallVec;
use wgrad_device::kernel::BinaryOp;
use wgrad_device::layout::checked_elements;
use wgrad_device::{DType, Device, Element, Error, Layout, Result, Scalar};

use crate::array::check_dtype;
use crate::node::{Node, Value};
use crate::op::{Op, RandomKind};
use crate::{Array, bounds, flush};

impl Array {
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

    /// An array filled with a number. It takes no memory until it is read, and folds into what uses it.
    ///
    /// # Errors
    /// If the shape overflows, or the device has no such dtype.
    pub fn full(shape: &[usize], value: impl Into<Scalar>, dtype: DType, device: &Device) -> Result<Array> {
        checked_elements("full", shape)?;
        check_dtype("full", dtype, device)?;
        let value = value.into().cast(dtype);
        Ok(Array::pending(Op::Full(value), SmallVec::new(), shape.into(), dtype, device))
    }

    /// The index along a dim for each element of a shape, as i32.
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

    /// `start + i * step` for i in 0..len. Floats are computed in f64 where the device has it and the dtype is f64, else
    /// in f32; integers exactly.
    ///
    /// # Errors
    /// If the length overflows, or the device has no such dtype.
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
        // Elements are numbered by 32-bit words.
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

    /// Random words as i64 in 0..2^32: element i is word i % 4 of Philox4x32-10 with the counter (i / 4, 0, stream) and the seed
    /// as key. The same on every device.
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn random_bits(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Bits, shape, seed, stream, device)
    }

    /// Uniform random f32 numbers in [0, 1): multiples of 2^-24, from the upper bits of [`Array::random_bits`].
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn uniform(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Uniform, shape, seed, stream, device)
    }

    /// Standard normal random f32 numbers by the Box-Muller transform, two of each pair of [`Array::random_bits`]: the same bits on every
    /// device. None is larger than 6.67.
    ///
    /// # Errors
    /// If the shape has more than 2^32 elements.
    pub fn normal(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<Array> {
        Array::random(RandomKind::Normal, shape, seed, stream, device)
    }
}
