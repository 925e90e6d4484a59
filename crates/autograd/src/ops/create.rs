//! Making tensors, and keeping triangles of them.

pub(super) mod transfer;

use half::{bf16, f16};
use wgrad_array::{Array, BinaryOp, DType, Device, Element, Error, Result, Scalar, default_dtype};

use crate::args::check_held;
use crate::tape::{Derivative, record};
use crate::{IntArray, Options, Tensor};

/// Nested Rust arrays of one element type: what [`Tensor::new`] takes.
pub trait Data {
    /// The element type.
    type Element: Element;
    /// The sizes of the dims.
    fn shape(&self) -> Vec<usize>;
    /// Appends the elements in row-major order.
    fn collect_into(&self, elements: &mut Vec<Self::Element>);
}

macro_rules! data {
    ($($ty:ty),*) => {$(
        impl Data for $ty {
            type Element = $ty;
            fn shape(&self) -> Vec<usize> {
                Vec::new()
            }
            fn collect_into(&self, elements: &mut Vec<$ty>) {
                elements.push(*self);
            }
        }
    )*};
}
data!(f32, f64, f16, bf16, i64, i32, u8, bool);

impl<T: Data, const N: usize> Data for [T; N] {
    type Element = T::Element;
    fn shape(&self) -> Vec<usize> {
        [N].into_iter().chain(self.first().map(Data::shape).unwrap_or_default()).collect()
    }
    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        self.iter().for_each(|part| part.collect_into(elements));
    }
}

impl<T: Data> Data for &T {
    type Element = T::Element;
    fn shape(&self) -> Vec<usize> {
        (**self).shape()
    }
    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        (**self).collect_into(elements);
    }
}

impl<T: Data + Element> Data for &[T] {
    type Element = T::Element;
    fn shape(&self) -> Vec<usize> {
        vec![self.len()]
    }
    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        self.iter().for_each(|part| part.collect_into(elements));
    }
}

impl<T: Data + Element> Data for Vec<T> {
    type Element = T::Element;
    fn shape(&self) -> Vec<usize> {
        vec![self.len()]
    }
    fn collect_into(&self, elements: &mut Vec<T::Element>) {
        self.iter().for_each(|part| part.collect_into(elements));
    }
}

/// A tensor of elements of a Rust type, converted on the host where another dtype is asked for.
fn made<T: Element>(op: &'static str, elements: &[T], shape: &[usize], options: &Options) -> Result<Tensor> {
    /// The converted elements, uploaded.
    fn converted<T: Element, U: Element>(
        elements: &[T],
        shape: &[usize],
        device: &Device,
        convert: impl Fn(Scalar) -> U,
    ) -> Result<Tensor> {
        let elements: Vec<U> = elements.iter().map(|&element| convert(element.into())).collect();
        Tensor::from_slice(&elements, shape, device)
    }
    let fraction = matches!(T::DTYPE, DType::F32 | DType::F64);
    let dtype = options.dtype.unwrap_or_else(|| if fraction { default_dtype() } else { T::DTYPE });
    let device = &options.device;
    if dtype == T::DTYPE {
        return Tensor::from_slice(elements, shape, device);
    }
    elements.iter().try_for_each(|&element| check_held(op, element.into(), dtype))?;
    match dtype {
        DType::Bool => converted(elements, shape, device, Scalar::as_bool),
        DType::U8 => converted(elements, shape, device, |number| number.as_i64() as u8),
        DType::I32 => converted(elements, shape, device, |number| number.as_i64() as i32),
        DType::I64 => converted(elements, shape, device, Scalar::as_i64),
        DType::F16 => converted(elements, shape, device, |number| f16::from_f64(number.as_f64())),
        DType::BF16 => converted(elements, shape, device, |number| bf16::from_f64(number.as_f64())),
        DType::F32 => converted(elements, shape, device, |number| number.as_f64() as f32),
        DType::F64 => converted(elements, shape, device, Scalar::as_f64),
    }
}

/// # Creation
#[wgrad_macros::call_sites]
impl Tensor {
    /// A tensor of a number or of nested arrays of numbers; `torch.tensor`.
    ///
    /// Unless the options say otherwise, numbers with fractions (f32 and f64 alike, since a Rust literal is an f64 where nothing else is
    /// asked for) get the [`default_dtype`], as Python's do; halves, integers and bools keep the dtype of their Rust type.
    /// [`Tensor::from_slice`] keeps every type.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Device, Tensor};
    /// let x = Tensor::new([[1.0, 2.0], [3.0, 4.0]], &Device::cpu())?;
    /// assert_eq!((x.shape(), x.dtype()), (&[2, 2][..], DType::F32));
    /// assert_eq!(Tensor::new([1.0, 2.0], DType::F64)?.dtype(), DType::F64);
    /// assert_eq!(Tensor::new([1i64, 2], &Device::cpu())?.dtype(), DType::I64);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device has no such dtype or no memory left, or the dtype's integers cannot hold a number.
    pub fn new(data: impl Data, options: impl Into<Options>) -> Result<Tensor> {
        let mut elements = Vec::new();
        data.collect_into(&mut elements);
        made("new", &elements, &data.shape(), &options.into())
    }

    /// A tensor of these elements in row-major order, of their own dtype.
    ///
    /// # Errors
    /// If their number is not that of the shape, or the device has no such dtype or no memory left.
    pub fn from_slice<T: Element>(data: &[T], shape: impl Into<IntArray>, device: &Device) -> Result<Tensor> {
        let shape = shape.into().shape("from_slice")?;
        Ok(Tensor::from_array(Array::from_slice(data, &shape, device)?))
    }

    /// A tensor with every element the same number; without a dtype in the options the number decides: bool, i64 or the default dtype.
    ///
    /// # Errors
    /// If the shape is too large, the device has no such dtype, or its integers cannot hold the number.
    pub fn full(
        shape: impl Into<IntArray>,
        value: impl Into<Scalar>,
        options: impl Into<Options>,
    ) -> Result<Tensor> {
        let (options, value) = (options.into(), value.into());
        let dtype = options.dtype.unwrap_or(value.default_dtype());
        let shape = shape.into().shape("full")?;
        check_held("full", value, dtype)?;
        Ok(Tensor::from_array(Array::full(&shape, value, dtype, &options.device)?))
    }

    /// A tensor of zeros, of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If the shape is too large or the device has no such dtype.
    pub fn zeros(shape: impl Into<IntArray>, options: impl Into<Options>) -> Result<Tensor> {
        Tensor::full(shape, 0.0, options)
    }

    /// A tensor of ones, of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If the shape is too large or the device has no such dtype.
    pub fn ones(shape: impl Into<IntArray>, options: impl Into<Options>) -> Result<Tensor> {
        Tensor::full(shape, 1.0, options)
    }

    /// A tensor whose elements do not matter yet: zeros, which cost nothing before they are used.
    ///
    /// # Errors
    /// If the shape is too large or the device has no such dtype.
    pub fn empty(shape: impl Into<IntArray>, options: impl Into<Options>) -> Result<Tensor> {
        Tensor::zeros(shape, options)
    }

    /// Zeros with this tensor's shape, dtype and device.
    pub fn zeros_like(&self) -> Result<Tensor> {
        self.full_like(0.0)
    }

    /// Ones with this tensor's shape, dtype and device.
    pub fn ones_like(&self) -> Result<Tensor> {
        self.full_like(1.0)
    }

    /// One number with this tensor's shape, dtype and device.
    pub fn full_like(&self, value: impl Into<Scalar>) -> Result<Tensor> {
        Tensor::full(self.shape(), value, (self.dtype(), self.device()))
    }

    /// A tensor with this one's shape, dtype and device whose elements do not matter yet.
    pub fn empty_like(&self) -> Result<Tensor> {
        self.zeros_like()
    }

    /// Zeros of a shape with this tensor's dtype and device.
    pub(crate) fn zeros_of(&self, shape: &[usize]) -> Result<Tensor> {
        Tensor::zeros(shape, (self.dtype(), self.device()))
    }

    /// `start, start + step, …` up to but without `end`: i64 if all three are integers, else the default dtype, unless the options say otherwise.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// assert_eq!(Tensor::arange(0, 5, 2, &Device::cpu())?.to_vec::<i64>()?, [0, 2, 4]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the step is 0 or leads away from `end`, or a number is not finite.
    pub fn arange(
        start: impl Into<Scalar>,
        end: impl Into<Scalar>,
        step: impl Into<Scalar>,
        options: impl Into<Options>,
    ) -> Result<Tensor> {
        const OP: &str = "arange";
        let (start, end, step, options) = (start.into(), end.into(), step.into(), options.into());
        let fail = |reason: String| Error::Argument { op: OP, reason };
        let integers = [start, end, step].iter().all(|n| matches!(n, Scalar::Int(_) | Scalar::Bool(_)));
        let dtype = options.dtype.unwrap_or(if integers { DType::I64 } else { default_dtype() });
        if step.as_f64() == 0.0 {
            return Err(fail("the step is 0".into()));
        }
        let len = if integers {
            let distance = i128::from(end.as_i64()) - i128::from(start.as_i64());
            let step = i128::from(step.as_i64());
            (distance + step - step.signum()) / step
        } else {
            let len = ((end.as_f64() - start.as_f64()) / step.as_f64()).ceil();
            if !len.is_finite() {
                return Err(fail(format!("from {start:?} to {end:?} by {step:?} is not a finite range")));
            }
            len as i128
        };
        if len < 0 || (end.as_f64() - start.as_f64()) * step.as_f64() < 0.0 {
            return Err(fail(format!(
                "a step of {} does not lead from {} to {}",
                step.as_f64(),
                start.as_f64(),
                end.as_f64()
            )));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        wgrad_array::layout::checked_elements(OP, &[len])?;
        Ok(Tensor::from_array(Array::arange(start, step, len, dtype, &options.device)?))
    }

    /// `steps` numbers from `start` to `end`, both included, evenly spaced; of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If there are too many steps or the device has no such dtype.
    pub fn linspace(start: f64, end: f64, steps: usize, options: impl Into<Options>) -> Result<Tensor> {
        let options = options.into();
        let dtype = options.dtype.unwrap_or_else(default_dtype);
        let compute = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let (device, parts) = (&options.device, (steps.max(2) - 1) as f64);
        // The distance may be larger than all numbers: then no element lies a whole step from its end.
        let step = (end - start) / parts;
        let step = if step.is_finite() { step } else { end / parts - start / parts };
        let largest = if compute == DType::F64 { f64::MAX } else { f64::from(f32::MAX) };
        let step = if start.is_finite() && end.is_finite() { step.clamp(-largest, largest) } else { step };
        wgrad_array::layout::checked_elements("linspace", &[steps])?;
        if !dtype.is_float() && device.supports(DType::F64) && compute != DType::F64 {
            return Tensor::linspace(start, end, steps, (DType::F64, device))?.to_dtype(dtype);
        }
        let position = Array::arange(Scalar::Int(0), Scalar::Int(1), steps, DType::I64, device)?;
        // Both halves count from their own end, so that both ends are exact.
        let from_start = position
            .cast(compute)?
            .binary_scalar(BinaryOp::Mul, step)?
            .binary_scalar(BinaryOp::Add, start)?;
        let from_end = position
            .scalar_binary(Scalar::Int(steps as i64 - 1), BinaryOp::Sub)?
            .cast(compute)?
            .binary_scalar(BinaryOp::Mul, -step)?
            .binary_scalar(BinaryOp::Add, end)?;
        let first_half = position.binary_scalar(BinaryOp::Lt, Scalar::Int(steps.div_ceil(2) as i64))?;
        Ok(Tensor::from_array(Array::select(&first_half, &from_start, &from_end)?.cast(dtype)?))
    }

    /// A matrix with ones on its diagonal; of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If the shape is too large or the device has no such dtype.
    pub fn eye(rows: usize, columns: usize, options: impl Into<Options>) -> Result<Tensor> {
        let options = options.into();
        let shape = IntArray::from([rows, columns]).shape("eye")?;
        let place = |dim| Array::coordinate(&shape, dim, &options.device);
        let diagonal = place(0)?.binary(BinaryOp::Eq, &place(1)?)?;
        Ok(Tensor::from_array(diagonal.cast(options.dtype.unwrap_or_else(default_dtype))?))
    }

    /// The lower triangle of matrices (the last two dims), zeros above the `diagonal`-th diagonal.
    ///
    /// # Errors
    /// If there are fewer than two dims.
    pub fn tril(&self, diagonal: i64) -> Result<Tensor> {
        self.triangle("tril", diagonal)
    }

    /// The upper triangle of matrices (the last two dims), zeros below the `diagonal`-th diagonal.
    ///
    /// # Errors
    /// If there are fewer than two dims.
    pub fn triu(&self, diagonal: i64) -> Result<Tensor> {
        self.triangle("triu", diagonal)
    }

    fn triangle(&self, op: &'static str, diagonal: i64) -> Result<Tensor> {
        if self.rank() < 2 {
            let reason = "has fewer than two dims; give a matrix or a batch of them".to_owned();
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        }
        let x = self.operand()?;
        let matrix = &self.shape()[self.rank() - 2..];
        let place = |dim| Array::coordinate(matrix, dim, self.device());
        let distance = place(1)?.binary(BinaryOp::Sub, &place(0)?)?.cast(DType::I64)?;
        let lower = op == "tril";
        let keep = distance.binary_scalar(if lower { BinaryOp::Le } else { BinaryOp::Ge }, diagonal)?;
        let zero = Array::full(&[], Scalar::Int(0), self.dtype(), self.device())?;
        let out = Array::select(&keep, &x.array, &zero)?;
        let node = if lower { "TrilBackward0" } else { "TriuBackward0" };
        Ok(record(out, [x], |_, _| {
            Derivative::with(node, move |c| c.each(1, |_| c.grad()?.triangle(op, diagonal)))
        }))
    }
}
