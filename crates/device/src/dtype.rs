//! Element types, their sizes, and PyTorch's promotion rules.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

use crate::{Error, Result, Scalar};

/// The element type of an array.
///
/// Promotion ([`DType::promote`]) follows PyTorch's lattice: bool < u8 < i32 < i64 < f16 | bf16 < f32 < f64,
/// and f16 with bf16 gives f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Truth values, one byte each; `torch.bool`.
    Bool,
    /// Unsigned 8-bit integers; `torch.uint8`.
    U8,
    /// Signed 32-bit integers; `torch.int32`.
    I32,
    /// Signed 64-bit integers; `torch.int64`.
    I64,
    /// IEEE half precision, computed in f32; `torch.float16`.
    F16,
    /// bfloat16, computed in f32; `torch.bfloat16`.
    BF16,
    /// Single precision; `torch.float32`, the default unless [`set_default_dtype`] says otherwise.
    F32,
    /// Double precision; `torch.float64`. On GPUs only where the adapter has it:
    /// [`Device::supports`](crate::Device::supports).
    F64,
}

/// The kind of numbers that a dtype holds, by which promotion decides first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Truth values.
    Bool,
    /// Integers.
    Int,
    /// Floating-point numbers.
    Float,
}

impl DType {
    /// All dtypes, lowest in the promotion order first.
    pub const ALL: [DType; 8] =
        [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F16, DType::BF16, DType::F32, DType::F64];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// The category of its numbers.
    pub const fn category(self) -> Category {
        match self {
            DType::Bool => Category::Bool,
            DType::U8 | DType::I32 | DType::I64 => Category::Int,
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Category::Float,
        }
    }

    /// Whether it is a floating-point dtype: only these may require a gradient.
    pub const fn is_float(self) -> bool {
        matches!(self.category(), Category::Float)
    }

    /// This dtype if it is a float dtype, else the [`default_dtype`]: the dtype of results that may be
    /// fractions.
    pub fn floating(self) -> DType {
        if self.is_float() { self } else { default_dtype() }
    }

    /// Whether it is stored in 16 bits and computed in f32.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// The dtype that both are promoted to, as `torch.promote_types`.
    ///
    /// ```
    /// use wgrad_device::DType;
    /// assert_eq!(DType::F16.promote(DType::BF16), DType::F32);
    /// assert_eq!(DType::I64.promote(DType::F16), DType::F16);
    /// assert_eq!(DType::U8.promote(DType::Bool), DType::U8);
    /// ```
    pub fn promote(self, other: DType) -> DType {
        match (self, other) {
            (DType::F16, DType::BF16) | (DType::BF16, DType::F16) => DType::F32,
            (a, b) => a.max(b),
        }
    }

    /// PyTorch's name without the `torch.`: `float32`, `int64`, …
    pub const fn torch_name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "uint8",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }
}

/// The position of the default dtype in [`DType::ALL`].
static DEFAULT: AtomicUsize = AtomicUsize::new(6);

/// The dtype of floats for which none is given, in the whole process; `torch.get_default_dtype`. It is f32 at
/// first.
///
/// It is the dtype of new tensors of zeros, ones, random numbers and the like, of tensors made of f32 and f64
/// numbers, of quotients and functions of integers, and of integers combined with a fraction.
pub fn default_dtype() -> DType {
    DType::ALL[DEFAULT.load(Ordering::Relaxed)]
}

/// Sets the [`default_dtype`] of tensors that the process makes from now on; `torch.set_default_dtype`.
/// Existing tensors keep their dtypes.
///
/// ```
/// use wgrad_device::{DType, default_dtype, set_default_dtype};
/// set_default_dtype(DType::F64)?;
/// assert_eq!(default_dtype(), DType::F64);
/// # Ok::<(), wgrad_device::Error>(())
/// ```
///
/// # Errors
/// If it is not a float dtype; the default is then unchanged.
pub fn set_default_dtype(dtype: DType) -> Result<()> {
    match DType::ALL.iter().position(|&other| other == dtype) {
        Some(place) if dtype.is_float() => {
            DEFAULT.store(place, Ordering::Relaxed);
            Ok(())
        }
        _ => {
            let reason = "holds no fractions; the default is one of f16, bf16, f32 and f64".to_owned();
            Err(Error::DType { op: "set_default_dtype", dtype, reason })
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        DType::ALL.into_iter().find(|d| d.name() == name || d.torch_name() == name).ok_or_else(|| {
            Error::Parse { what: "dtype", text: name.to_owned(), expected: "f32, float32, …".to_owned() }
        })
    }
}

/// A Rust type from which arrays can be made, and into which they can be read.
///
/// `bool` is stored as one byte, 0 or 1. Reading takes any other byte as true.
pub trait Element: Copy + Send + Sync + Default + PartialEq + fmt::Debug + Into<Scalar> + 'static {
    /// The dtype of arrays that are made from it.
    const DTYPE: DType;
    /// The elements as the bytes that a buffer holds.
    fn to_bytes(values: &[Self]) -> &[u8];
    /// The elements that a buffer's bytes hold.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! element {
    ($($ty:ty => $dtype:ident),*) => {$(
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn to_bytes(values: &[Self]) -> &[u8] {
                bytemuck::cast_slice(values)
            }
            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                bytemuck::pod_collect_to_vec(bytes)
            }
        }
    )*};
}
element!(u8 => U8, i32 => I32, i64 => I64, f16 => F16, bf16 => BF16, f32 => F32, f64 => F64);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn to_bytes(values: &[Self]) -> &[u8] {
        bytemuck::cast_slice(values)
    }
    fn from_bytes(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&b| b != 0).collect()
    }
}
