//! The scalar operations of the kernel IR. Each executor implements exactly these.

use crate::DType;

/// The type of a value in a kernel's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ty {
    /// Bools.
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

/// The types of operands that an operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// All types.
    All,
    /// Integers and floats.
    Numbers,
    /// Bools and integers.
    Bits,
    /// Integers.
    Integers,
    /// Floats.
    Floats,
}

impl Domain {
    /// Whether the operation takes this type.
    pub const fn has(self, ty: Ty) -> bool {
        match self {
            Domain::All => true,
            Domain::Numbers => !matches!(ty, Ty::Bool),
            Domain::Bits => !ty.is_float(),
            Domain::Integers => !ty.is_float() && !matches!(ty, Ty::Bool),
            Domain::Floats => ty.is_float(),
        }
    }
}

/// The type of an operation's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gives {
    /// The operands' type.
    Same,
    /// Bool, whatever the type of the operands.
    Truth,
}

/// The table of elementwise operations, one row for each: the name in errors, the operands' types, the
/// result's type, the *size* (about how many simple operations a compiler inserts at each call, with a dozen
/// counting as one) and the *cost* of computing it again, in simple operations on an element.
macro_rules! operations {
    ($(#[$enum_doc:meta])* $enum:ident: $(
        $(#[$doc:meta])*
        $op:ident = $name:literal of $domain:ident, gives $gives:ident, size $size:literal,
            cost $cost:literal;
    )*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum {
            $($(#[$doc])* $op,)*
        }

        impl $enum {
            /// All operations.
            pub const ALL: &[$enum] = &[$($enum::$op,)*];

            /// The name in errors, which is PyTorch's.
            pub const fn name(self) -> &'static str {
                match self { $($enum::$op => $name,)* }
            }

            /// The types of its operands.
            pub const fn domain(self) -> Domain {
                match self { $($enum::$op => Domain::$domain,)* }
            }

            /// The type of its result.
            pub const fn gives(self) -> Gives {
                match self { $($enum::$op => Gives::$gives,)* }
            }

            /// The type of its result over operands of a type.
            pub const fn result(self, ty: Ty) -> Ty {
                match self.gives() {
                    Gives::Same => ty,
                    Gives::Truth => Ty::Bool,
                }
            }

            /// About how many simple operations a compiler inserts at each call, with a dozen counting as
            /// one.
            pub const fn size(self) -> usize {
                match self { $($enum::$op => $size,)* }
            }

            /// The cost of computing it again, in simple operations on an element.
            pub const fn cost(self) -> usize {
                match self { $($enum::$op => $cost,)* }
            }
        }
    };
}

operations! {
    /// Operations on one value.
    UnaryOp:
    /// `-x`; integers wrap.
    Neg = "neg" of Numbers, gives Same, size 1, cost 1;
    /// `|x|`; the smallest integer stays itself.
    Abs = "abs" of Numbers, gives Same, size 1, cost 1;
    /// -1, 0 or 1; NaN gives 0, as in PyTorch.
    Sign = "sign" of Numbers, gives Same, size 1, cost 1;
    /// Logical not of a Bool, bitwise not of an integer.
    Not = "logical_not" of Bits, gives Same, size 1, cost 1;
    /// The largest integer that is not above x.
    Floor = "floor" of Floats, gives Same, size 1, cost 1;
    /// The smallest integer that is not below x.
    Ceil = "ceil" of Floats, gives Same, size 1, cost 1;
    /// The nearest integer; ties go to the even one.
    Round = "round" of Floats, gives Same, size 1, cost 1;
    /// The integer part of x: rounding towards zero.
    Trunc = "trunc" of Floats, gives Same, size 1, cost 1;
    /// `1 / x`.
    Reciprocal = "reciprocal" of Floats, gives Same, size 1, cost 2;
    /// The square root; NaN below 0.
    Sqrt = "sqrt" of Floats, gives Same, size 1, cost 2;
    /// `1 / sqrt(x)`.
    Rsqrt = "rsqrt" of Floats, gives Same, size 1, cost 2;
    /// e to the x.
    Exp = "exp" of Floats, gives Same, size 3, cost 8;
    /// `exp(x) - 1`, exact near 0.
    Expm1 = "expm1" of Floats, gives Same, size 3, cost 8;
    /// The natural logarithm; -inf at 0, NaN below.
    Log = "log" of Floats, gives Same, size 3, cost 8;
    /// `log(1 + x)`, exact near 0.
    Log1p = "log1p" of Floats, gives Same, size 3, cost 8;
    /// The sine of radians.
    Sin = "sin" of Floats, gives Same, size 16, cost 8;
    /// The cosine of radians.
    Cos = "cos" of Floats, gives Same, size 16, cost 8;
    /// The hyperbolic tangent.
    Tanh = "tanh" of Floats, gives Same, size 4, cost 8;
    /// `1 / (1 + exp(-x))`.
    Sigmoid = "sigmoid" of Floats, gives Same, size 4, cost 8;
    /// The Gauss error function.
    Erf = "erf" of Floats, gives Same, size 4, cost 8;
    /// Whether it is NaN.
    IsNan = "isnan" of Floats, gives Truth, size 1, cost 2;
    /// Whether it is neither NaN nor infinite.
    IsFinite = "isfinite" of Floats, gives Truth, size 1, cost 2;
}

operations! {
    /// Operations on two values of one type.
    BinaryOp:
    /// `a + b`; integers wrap.
    Add = "add" of Numbers, gives Same, size 1, cost 1;
    /// `a - b`; integers wrap.
    Sub = "sub" of Numbers, gives Same, size 1, cost 1;
    /// `a * b`; integers wrap.
    Mul = "mul" of Numbers, gives Same, size 1, cost 1;
    /// `a / b`. The quotient of integers is truncated towards zero; division by 0 gives 0 on every executor.
    Div = "div" of Numbers, gives Same, size 1, cost 1;
    /// The remainder with the sign of `b` (`torch.remainder`); an integer by 0 gives 0.
    Rem = "remainder" of Numbers, gives Same, size 4, cost 1;
    /// `a` to the power `b`. For floats as C's pow, including negative bases and special values. For integers
    /// by squaring, and 0 for negative exponents unless the base is 1 or -1.
    Pow = "pow" of Numbers, gives Same, size 8, cost 16;
    /// The larger value, or NaN if either is; `or` for Bools.
    Max = "maximum" of All, gives Same, size 1, cost 1;
    /// The smaller value, or NaN if either is; `and` for Bools.
    Min = "minimum" of All, gives Same, size 1, cost 1;
    /// Bitwise and, or logical for Bools.
    And = "bitwise_and" of Bits, gives Same, size 1, cost 1;
    /// Bitwise or, or logical for Bools.
    Or = "bitwise_or" of Bits, gives Same, size 1, cost 1;
    /// Bitwise exclusive or, or logical for Bools.
    Xor = "bitwise_xor" of Bits, gives Same, size 1, cost 1;
    /// `a << b`; 0 for b outside of the type's bits.
    Shl = "bitwise_left_shift" of Integers, gives Same, size 1, cost 1;
    /// `a >> b`, which is arithmetic for signed types and logical for U32. For b outside of the type's bits
    /// all bits are the sign.
    Shr = "bitwise_right_shift" of Integers, gives Same, size 1, cost 1;
    /// `a == b`.
    Eq = "eq" of All, gives Truth, size 1, cost 1;
    /// `a != b`.
    Ne = "ne" of All, gives Truth, size 1, cost 1;
    /// `a < b`.
    Lt = "lt" of All, gives Truth, size 1, cost 1;
    /// `a <= b`.
    Le = "le" of All, gives Truth, size 1, cost 1;
    /// `a > b`.
    Gt = "gt" of All, gives Truth, size 1, cost 1;
    /// `a >= b`.
    Ge = "ge" of All, gives Truth, size 1, cost 1;
}

/// How the values of a row are reduced to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum; 0 over no elements. F32 is summed in fixed trees, so that sums of 10^8 elements keep their
    /// digits.
    Sum,
    /// The product; 1 over no elements.
    Prod,
    /// The largest value, or NaN if one is; `any` for Bools. It is used over no elements only for Bools
    /// (false).
    Max,
    /// The smallest value, or NaN if one is; `all` for Bools. It is used over no elements only for Bools
    /// (true).
    Min,
    /// The row-major position (I64) of the first largest value in the row; NaN counts as the largest.
    ArgMax,
    /// The row-major position (I64) of the first smallest value in the row; NaN counts as the smallest.
    ArgMin,
}

impl ReduceOp {
    /// All operations.
    pub const ALL: &[ReduceOp] =
        &[ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::ArgMin];

    /// The type of the result over values of this type.
    pub const fn result(self, ty: Ty) -> Ty {
        match self {
            ReduceOp::ArgMax | ReduceOp::ArgMin => Ty::I64,
            _ => ty,
        }
    }
}
