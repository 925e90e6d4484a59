//! The scalar operations of the kernel IR: what one element undergoes. Each executor implements exactly these.

use crate::DType;

/// The type of a value in a kernel's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// Truth values.
    Bool,
    /// Random bits and their counters.
    U32,
    /// u8 and i32 elements, coordinates.
    I32,
    /// i64 elements.
    I64,
    /// f32, f16 and bf16 elements.
    F32,
    /// f64 elements.
    F64,
}

impl Ty {
    /// The register type that elements of a dtype are computed in.
    pub const fn of(dtype: DType) -> Ty {
        match dtype {
            DType::Bool => Ty::Bool,
            DType::U8 | DType::I32 => Ty::I32,
            DType::I64 => Ty::I64,
            DType::F16 | DType::BF16 | DType::F32 => Ty::F32,
            DType::F64 => Ty::F64,
        }
    }

    /// Whether it is F32 or F64.
    pub const fn is_float(self) -> bool {
        matches!(self, Ty::F32 | Ty::F64)
    }
}

/// Operations on one value. The result has the operand's type unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-x`; integers wrap.
    Neg,
    /// `|x|`; the smallest integer stays itself.
    Abs,
    /// -1, 0 or 1; NaN gives 0, as in PyTorch.
    Sign,
    /// Logical not of a Bool, bitwise not of an integer.
    Not,
    /// To the integer below. Floats only, as all that follow.
    Floor,
    /// To the integer above.
    Ceil,
    /// To the nearest integer, halves to the even one.
    Round,
    /// To the integer nearer to zero.
    Trunc,
    /// `1 / x`.
    Reciprocal,
    /// The square root; NaN below 0.
    Sqrt,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// e to the x.
    Exp,
    /// `exp(x) - 1`, exact near 0.
    Expm1,
    /// The natural logarithm; -inf at 0, NaN below.
    Log,
    /// `log(1 + x)`, exact near 0.
    Log1p,
    /// The sine of radians.
    Sin,
    /// The cosine of radians.
    Cos,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The Gauss error function.
    Erf,
    /// Whether it is NaN; gives Bool.
    IsNan,
    /// Whether it is neither NaN nor infinite; gives Bool.
    IsFinite,
}

impl UnaryOp {
    /// About how many simple operations it is made of where a compiler copies it to each place that calls it, a dozen counting as one.
    pub const fn size(self) -> usize {
        match self {
            // Large angles are reduced with all digits of 2/π.
            UnaryOp::Sin | UnaryOp::Cos => 16,
            UnaryOp::Exp | UnaryOp::Expm1 | UnaryOp::Log | UnaryOp::Log1p => 3,
            UnaryOp::Tanh | UnaryOp::Sigmoid | UnaryOp::Erf => 4,
            _ => 1,
        }
    }
}

/// Operations on two values of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`; integers wrap.
    Add,
    /// `a - b`; integers wrap.
    Sub,
    /// `a * b`; integers wrap.
    Mul,
    /// `a / b`. Integers: the quotient cut off towards zero (anything by 0 is 0 on every executor).
    Div,
    /// The remainder with the sign of `b` (`torch.remainder`); an integer by 0 gives 0.
    Rem,
    /// `a` to the `b`. Floats as C's pow, negative bases and special values included; integers by squaring, and 0 for
    /// negative exponents unless the base is 1 or -1.
    Pow,
    /// The larger; NaN if either is. Or of Bools.
    Max,
    /// The smaller; NaN if either is. And of Bools.
    Min,
    /// Bitwise and, or logical for Bools. Not for floats.
    And,
    /// Bitwise or, or logical for Bools. Not for floats.
    Or,
    /// Bitwise exclusive or, or logical for Bools. Not for floats.
    Xor,
    /// `a << b` of an integer, zeros from the right; 0 for b outside of the type's bits.
    Shl,
    /// `a >> b` of an integer: arithmetic for signed, logical for U32; b outside of the type's bits fills with the sign.
    Shr,
    /// `a == b`; gives Bool, as all that follow.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
}

impl BinaryOp {
    /// As [`UnaryOp::size`].
    pub const fn size(self) -> usize {
        match self {
            BinaryOp::Pow => 8,
            BinaryOp::Rem => 4,
            _ => 1,
        }
    }

    /// Whether the result is Bool whatever the operands.
    pub const fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Eq | Ne | Lt | Le | Gt | Ge)
    }
}

/// How the values of a row become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum; 0 over nothing. F32 over fixed trees, so that 10^8 elements keep their digits.
    Sum,
    /// The product; 1 over nothing.
    Prod,
    /// The largest, NaN if one is; any of Bools. Never over nothing but for Bools (false).
    Max,
    /// The smallest, NaN if one is; all of Bools. Never over nothing but for Bools (true).
    Min,
    /// The row-major position (I64) of the first largest in the row; NaN counts as largest.
    ArgMax,
    /// The row-major position (I64) of the first smallest in the row; NaN counts as smallest.
    ArgMin,
}

impl ReduceOp {
    /// The type of the result over values of this type.
    pub const fn result(self, ty: Ty) -> Ty {
        match self {
            ReduceOp::ArgMax | ReduceOp::ArgMin => Ty::I64,
            _ => ty,
        }
    }
}
