//! Operations on two values of one type.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::{Full, Lean, Plain, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, math, output};
use crate::kernel::{BinaryOp, Ty};

/// A function of two lanes.
pub trait Zip {
    type In: Copy;
    type Out: Copy;
    fn apply<L: SimdLevel>(a: Self::In, b: Self::In) -> Self::Out;
}

/// `dst[i] = f(a[i], b[i])` for i below n. `A` and `B` say which operands have lanes; the other has one
/// value.
struct Zipped<F, const A: bool, const B: bool>(PhantomData<F>);

impl<F: Zip, const A: bool, const B: bool> SimdBody for Zipped<F, A, B> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n lanes of these types, or one value for an operand without lanes.
        let (dst, a, b) = unsafe {
            let (a, b) = (if A { args.n } else { 1 }, if B { args.n } else { 1 });
            (output::<F::Out>(args.dst, args.n), input::<F::In>(args.a, a), input::<F::In>(args.b, b))
        };
        if A && B {
            for ((dst, &a), &b) in dst.iter_mut().zip(a).zip(b) {
                *dst = F::apply::<L>(a, b);
            }
        } else if A {
            let b = b[0];
            for (dst, &a) in dst.iter_mut().zip(a) {
                *dst = F::apply::<L>(a, b);
            }
        } else {
            let a = a[0];
            for (dst, &b) in dst.iter_mut().zip(b) {
                *dst = F::apply::<L>(a, b);
            }
        }
    }
}

/// The loops of a binary operation.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// Both operands have lanes.
    pub lanes: Raw,
    /// Only the first operand has lanes, only the second has. Without these forms, single numbers are
    /// broadcast to lanes first.
    pub single: Option<[Raw; 2]>,
    /// The bytes of an operand's lane.
    pub width: usize,
}

impl Forms {
    fn lean<F: Zip>() -> Forms {
        Forms { lanes: Lean::pick::<Zipped<F, true, true>>(), single: None, width: size_of::<F::In>() }
    }

    fn plain<F: Zip>() -> Forms {
        Forms { lanes: Plain::pick::<Zipped<F, true, true>>(), single: None, width: size_of::<F::In>() }
    }

    fn full<F: Zip>() -> Forms {
        let single = [Full::pick::<Zipped<F, true, false>>(), Full::pick::<Zipped<F, false, true>>()];
        Forms {
            lanes: Full::pick::<Zipped<F, true, true>>(),
            single: Some(single),
            width: size_of::<F::In>(),
        }
    }
}

macro_rules! zip {
    ($versions:ident, $in:ty => $out:ty, |$a:ident, $b:ident| $result:expr) => {{
        struct ZipFn;
        impl Zip for ZipFn {
            type In = $in;
            type Out = $out;
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn apply<L: SimdLevel>($a: $in, $b: $in) -> $out {
                $result
            }
        }
        Forms::$versions::<ZipFn>()
    }};
}

macro_rules! compare {
    ($versions:ident, $op:expr, $ty:ty, $other:expr) => {
        match $op {
            BinaryOp::Eq => zip!($versions, $ty => u8, |a, b| u8::from(a == b)),
            BinaryOp::Ne => zip!($versions, $ty => u8, |a, b| u8::from(a != b)),
            BinaryOp::Lt => zip!($versions, $ty => u8, |a, b| u8::from(a < b)),
            BinaryOp::Le => zip!($versions, $ty => u8, |a, b| u8::from(a <= b)),
            BinaryOp::Gt => zip!($versions, $ty => u8, |a, b| u8::from(a > b)),
            BinaryOp::Ge => zip!($versions, $ty => u8, |a, b| u8::from(a >= b)),
            _ => $other,
        }
    };
}

macro_rules! integer {
    ($versions:ident, $op:expr, $ty:ident) => {
        match $op {
            BinaryOp::Add => zip!($versions, $ty => $ty, |a, b| a.wrapping_add(b)),
            BinaryOp::Sub => zip!($versions, $ty => $ty, |a, b| a.wrapping_sub(b)),
            BinaryOp::Mul => zip!($versions, $ty => $ty, |a, b| a.wrapping_mul(b)),
            BinaryOp::Div => zip!(plain, $ty => $ty, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) }),
            BinaryOp::Rem => zip!(plain, $ty => $ty, |a, b| integer::$ty::remainder(a, b)),
            BinaryOp::Pow => zip!(plain, $ty => $ty, |a, b| integer::$ty::power(a, b)),
            BinaryOp::Max => zip!($versions, $ty => $ty, |a, b| a.max(b)),
            BinaryOp::Min => zip!($versions, $ty => $ty, |a, b| a.min(b)),
            BinaryOp::And => zip!($versions, $ty => $ty, |a, b| a & b),
            BinaryOp::Or => zip!($versions, $ty => $ty, |a, b| a | b),
            BinaryOp::Xor => zip!($versions, $ty => $ty, |a, b| a ^ b),
            BinaryOp::Shl => zip!($versions, $ty => $ty, |a, b| {
                let shifted = a.wrapping_shl(b as u32);
                if b >= 0 as $ty && b < $ty::BITS as $ty { shifted } else { 0 }
            }),
            BinaryOp::Shr => zip!($versions, $ty => $ty, |a, b| integer::$ty::shift_right(a, b)),
            _ => compare!($versions, $op, $ty, return None),
        }
    };
}

/// The integer operations that need more than one line, for each type.
mod integer {
    macro_rules! signed {
        ($ty:ident) => {
            pub mod $ty {
                /// The remainder with the sign of `b`; 0 if `b` is 0.
                #[inline(always)]
                pub fn remainder(a: $ty, b: $ty) -> $ty {
                    if b == 0 {
                        return 0;
                    }
                    let remainder = a.wrapping_rem(b);
                    if remainder != 0 && (remainder < 0) != (b < 0) {
                        remainder.wrapping_add(b)
                    } else {
                        remainder
                    }
                }
                /// The power by repeated squaring; it wraps.
                #[inline(always)]
                pub fn power(a: $ty, b: $ty) -> $ty {
                    match a {
                        _ if b >= 0 => {
                            let (mut result, mut base, mut exponent): ($ty, $ty, $ty) = (1, a, b);
                            while exponent > 0 {
                                if exponent & 1 == 1 {
                                    result = result.wrapping_mul(base);
                                }
                                base = base.wrapping_mul(base);
                                exponent >>= 1;
                            }
                            result
                        }
                        1 => 1,
                        -1 => 1 - 2 * (b & 1),
                        _ => 0,
                    }
                }
                /// An arithmetic shift; `b` outside of the type's bits fills with the sign.
                #[inline(always)]
                pub fn shift_right(a: $ty, b: $ty) -> $ty {
                    let by = if (0..$ty::BITS as $ty).contains(&b) { b as u32 } else { $ty::BITS - 1 };
                    a.wrapping_shr(by)
                }
            }
        };
    }
    signed!(i32);
    signed!(i64);
    pub mod u32 {
        /// The remainder; 0 if `b` is 0.
        #[inline(always)]
        pub fn remainder(a: u32, b: u32) -> u32 {
            if b == 0 { 0 } else { a % b }
        }
        /// The power by repeated squaring; it wraps.
        #[inline(always)]
        pub fn power(a: u32, b: u32) -> u32 {
            a.wrapping_pow(b)
        }
        /// A logical shift; 0 if `b` is outside of the type's bits.
        #[inline(always)]
        pub fn shift_right(a: u32, b: u32) -> u32 {
            let shifted = a.wrapping_shr(b);
            if b < 32 { shifted } else { 0 }
        }
    }
}

macro_rules! float {
    ($versions:ident, $op:expr, $ty:ty, $pow:expr) => {
        match $op {
            BinaryOp::Add => zip!($versions, $ty => $ty, |a, b| a + b),
            BinaryOp::Sub => zip!($versions, $ty => $ty, |a, b| a - b),
            BinaryOp::Mul => zip!($versions, $ty => $ty, |a, b| a * b),
            BinaryOp::Div => zip!($versions, $ty => $ty, |a, b| a / b),
            BinaryOp::Rem => zip!(plain, $ty => $ty, |a, b| {
                let remainder = a % b;
                if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
            }),
            BinaryOp::Pow => $pow,
            BinaryOp::Max => zip!($versions, $ty => $ty, |a, b| if (a > b) | a.is_nan() { a } else { b }),
            BinaryOp::Min => zip!($versions, $ty => $ty, |a, b| if (a < b) | a.is_nan() { a } else { b }),
            _ => compare!($versions, $op, $ty, return None),
        }
    };
}

/// The loops of an operation on this type; `None` if the operation does not take the type.
pub fn binary(op: BinaryOp, ty: Ty) -> Option<Forms> {
    Some(match ty {
        Ty::F32 => float!(full, op, f32, zip!(full, f32 => f32, |a, b| math::pow::<L>(a, b))),
        Ty::F64 => float!(lean, op, f64, zip!(plain, f64 => f64, |a, b| a.powf(b))),
        Ty::I32 => integer!(lean, op, i32),
        Ty::I64 => integer!(lean, op, i64),
        Ty::U32 => integer!(plain, op, u32),
        Ty::Bool => match op {
            BinaryOp::And | BinaryOp::Min => zip!(plain, u8 => u8, |a, b| a & b),
            BinaryOp::Or | BinaryOp::Max => zip!(plain, u8 => u8, |a, b| a | b),
            BinaryOp::Xor => zip!(plain, u8 => u8, |a, b| a ^ b),
            _ => compare!(plain, op, u8, return None),
        },
    })
}
