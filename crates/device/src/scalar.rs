//! Numbers that a caller gives: the right side of `x * 2.0`, a fill value, a kernel's parameter.

use half::{bf16, f16};

use crate::dtype::{Category, DType, default_dtype};

/// A number of one of PyTorch's three kinds. Scalars take part in promotion by their category only, so an i64
/// array times `2` stays i64, and times `2.0` becomes the [`default_dtype`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
}

impl Scalar {
    /// The category by which it takes part in promotion.
    pub const fn category(self) -> Category {
        match self {
            Scalar::Bool(_) => Category::Bool,
            Scalar::Int(_) => Category::Int,
            Scalar::Float(_) => Category::Float,
        }
    }

    /// The dtype of an array that is made from it alone: bool, i64 or the [`default_dtype`].
    pub fn default_dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::I64,
            Scalar::Float(_) => default_dtype(),
        }
    }

    /// The dtype of `array op self` for an array of this dtype, as `torch.result_type`.
    pub fn promote(self, array: DType) -> DType {
        if self.category() > array.category() { self.default_dtype() } else { array }
    }

    /// Its value as f64; integers above 2^53 are rounded.
    pub const fn as_f64(self) -> f64 {
        match self {
            Scalar::Bool(b) => b as u8 as f64,
            Scalar::Int(i) => i as f64,
            Scalar::Float(f) => f,
        }
    }

    /// Its value as i64. Fractions are truncated towards zero, and values that i64 cannot hold saturate.
    pub const fn as_i64(self) -> i64 {
        match self {
            Scalar::Bool(b) => b as i64,
            Scalar::Int(i) => i,
            Scalar::Float(f) => f as i64,
        }
    }

    /// Whether it is not zero.
    pub fn as_bool(self) -> bool {
        match self {
            Scalar::Bool(b) => b,
            Scalar::Int(i) => i != 0,
            Scalar::Float(f) => f != 0.0,
        }
    }

    /// The value that an element of this dtype holds after this number was stored in it: floats are rounded,
    /// integers are truncated and wrap.
    pub fn cast(self, dtype: DType) -> Scalar {
        match dtype {
            DType::Bool => Scalar::Bool(self.as_bool()),
            DType::U8 => Scalar::Int(i64::from(self.as_i64() as u8)),
            DType::I32 => Scalar::Int(i64::from(self.as_i64() as i32)),
            DType::I64 => Scalar::Int(self.as_i64()),
            DType::F16 => Scalar::Float(f16::from_f64(self.as_f64()).to_f64()),
            DType::BF16 => Scalar::Float(bf16::from_f64(self.as_f64()).to_f64()),
            DType::F32 => Scalar::Float(f64::from(self.as_f64() as f32)),
            DType::F64 => Scalar::Float(self.as_f64()),
        }
    }

    /// The bytes of one element of this dtype with this value.
    pub fn to_bytes(self, dtype: DType) -> Vec<u8> {
        match dtype {
            DType::Bool => vec![u8::from(self.as_bool())],
            DType::U8 => vec![self.as_i64() as u8],
            DType::I32 => (self.as_i64() as i32).to_le_bytes().to_vec(),
            DType::I64 => self.as_i64().to_le_bytes().to_vec(),
            DType::F16 => f16::from_f64(self.as_f64()).to_le_bytes().to_vec(),
            DType::BF16 => bf16::from_f64(self.as_f64()).to_le_bytes().to_vec(),
            DType::F32 => (self.as_f64() as f32).to_le_bytes().to_vec(),
            DType::F64 => self.as_f64().to_le_bytes().to_vec(),
        }
    }
}

macro_rules! from {
    ($($ty:ty => $variant:ident),*) => {$(
        impl From<$ty> for Scalar {
            fn from(value: $ty) -> Self {
                Scalar::$variant(value.into())
            }
        }
    )*};
}
from!(bool => Bool, i64 => Int, i32 => Int, u8 => Int, u32 => Int);
from!(f64 => Float, f32 => Float, f16 => Float, bf16 => Float);
