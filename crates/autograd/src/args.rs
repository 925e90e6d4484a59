//! What methods take: lists of sizes and dims, numbers or tensors, dtype and device.

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, checked_elements, normalize_dim};
use wgrad_array::{DType, Device, Error, Result, Scalar};

use crate::Tensor;

/// Sizes of a shape, or dims: `3`, `[2, 3]`, `&[2, 3]`, a vector of any integers, or `()` for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntArray(SmallVec<[isize; 6]>);

impl IntArray {
    pub(crate) fn as_slice(&self) -> &[isize] {
        &self.0
    }

    /// As the shape of a new tensor.
    pub(crate) fn shape(&self, op: &'static str) -> Result<Dims> {
        let shape: Dims = self.0.iter().map(|&size| size.max(0) as usize).collect();
        if let Some(size) = self.0.iter().find(|&&size| size < 0) {
            return Err(Error::Argument {
                op,
                reason: format!("a size of {size} was given; sizes are not negative"),
            });
        }
        checked_elements(op, &shape)?;
        Ok(shape)
    }

    /// As distinct dims of a tensor, counted from the front.
    pub(crate) fn dims(&self, op: &'static str, rank: usize) -> Result<Dims> {
        let mut dims = Dims::new();
        for &dim in &self.0 {
            let dim = normalize_dim(op, dim, rank)?;
            if dims.contains(&dim) {
                return Err(Error::DuplicateDim { op, dim, dims: self.0.to_vec() });
            }
            dims.push(dim);
        }
        Ok(dims)
    }

    /// As the dims of a reduction: no dims are all dims, and a 0-dim tensor has none of them.
    pub(crate) fn reduced(&self, op: &'static str, rank: usize) -> Result<Dims> {
        let dims = self.dims(op, rank)?;
        Ok(if dims.is_empty() || rank == 0 { (0..rank).collect() } else { dims })
    }
}

impl From<()> for IntArray {
    fn from((): ()) -> Self {
        IntArray(SmallVec::new())
    }
}

impl From<&IntArray> for IntArray {
    fn from(list: &IntArray) -> Self {
        list.clone()
    }
}

impl From<&Dims> for IntArray {
    fn from(list: &Dims) -> Self {
        IntArray::from(list.as_slice())
    }
}

macro_rules! int_array {
    ($($ty:ty),*) => {$(
        impl From<$ty> for IntArray {
            fn from(number: $ty) -> Self {
                IntArray::from([number])
            }
        }
        impl From<&[$ty]> for IntArray {
            fn from(list: &[$ty]) -> Self {
                // What does not fit is too large for any shape and dim, as is the largest isize.
                IntArray(list.iter().map(|&n| isize::try_from(n).unwrap_or(isize::MAX)).collect())
            }
        }
        impl From<Vec<$ty>> for IntArray {
            fn from(list: Vec<$ty>) -> Self {
                IntArray::from(list.as_slice())
            }
        }
        impl From<&Vec<$ty>> for IntArray {
            fn from(list: &Vec<$ty>) -> Self {
                IntArray::from(list.as_slice())
            }
        }
        impl<const N: usize> From<[$ty; N]> for IntArray {
            fn from(list: [$ty; N]) -> Self {
                IntArray::from(list.as_slice())
            }
        }
        impl<const N: usize> From<&[$ty; N]> for IntArray {
            fn from(list: &[$ty; N]) -> Self {
                IntArray::from(list.as_slice())
            }
        }
    )*};
}
int_array!(i32, i64, isize, usize);

/// That integers of a dtype hold a number, as far as they wrap in PyTorch.
pub(crate) fn check_held(op: &'static str, number: Scalar, dtype: DType) -> Result<()> {
    let range = match dtype {
        DType::U8 => -255.0..=255.0,
        DType::I32 => f64::from(i32::MIN)..=f64::from(i32::MAX),
        DType::I64 => i64::MIN as f64..=i64::MAX as f64,
        _ => return Ok(()),
    };
    if range.contains(&number.as_f64()) {
        return Ok(());
    }
    let reason = format!("cannot hold {}; use a wider dtype", number.as_f64());
    Err(Error::DType { op, dtype, reason })
}

/// An operand: a tensor, or a number.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A number. It takes part in promotion by its category only, as in PyTorch.
    Scalar(Scalar),
}

impl From<&Tensor> for Value {
    fn from(tensor: &Tensor) -> Self {
        Value::Tensor(tensor.clone())
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Value::Tensor(tensor)
    }
}

impl<T: Into<Scalar>> From<T> for Value {
    fn from(number: T) -> Self {
        Value::Scalar(number.into())
    }
}

/// Where a new tensor lives, and of which dtype: `&device`, `(DType::F64, &device)`, or only a dtype, for the CPU.
#[derive(Clone, Debug)]
pub struct Options {
    /// The dtype; none: the usual one of the method.
    pub dtype: Option<DType>,
    /// The device.
    pub device: Device,
}

impl From<&Device> for Options {
    fn from(device: &Device) -> Self {
        Options { dtype: None, device: device.clone() }
    }
}

impl From<Device> for Options {
    fn from(device: Device) -> Self {
        Options { dtype: None, device }
    }
}

impl From<DType> for Options {
    fn from(dtype: DType) -> Self {
        Options { dtype: Some(dtype), device: Device::cpu() }
    }
}

impl From<(DType, &Device)> for Options {
    fn from((dtype, device): (DType, &Device)) -> Self {
        Options { dtype: Some(dtype), device: device.clone() }
    }
}

impl From<(DType, Device)> for Options {
    fn from((dtype, device): (DType, Device)) -> Self {
        Options { dtype: Some(dtype), device }
    }
}
