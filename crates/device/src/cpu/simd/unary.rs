//! Operations on one value.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::{Full, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, math, output};
use crate::kernel::{Ty, UnaryOp};

/// A function of one lane.
pub trait LaneMap {
    type In: Copy;
    type Out: Copy;
    fn apply<L: SimdLevel>(x: Self::In) -> Self::Out;
}

/// `dst[i] = f(a[i])` for i below n.
pub struct Mapped<F>(PhantomData<F>);

impl<F: LaneMap> SimdBody for Mapped<F> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n lanes of these types.
        let (dst, a) = unsafe { (output::<F::Out>(args.dst, args.n), input::<F::In>(args.a, args.n)) };
        for (dst, &x) in dst.iter_mut().zip(a) {
            *dst = F::apply::<L>(x);
        }
    }
}

/// The loop of a function that is written like a closure, in the versions that `$versions` picks. In the
/// function, `L` is the instruction set.
macro_rules! map {
    ($versions:ident, $in:ty => $out:ty, |$x:ident| $result:expr) => {{
        struct MapFn;
        impl $crate::cpu::simd::unary::LaneMap for MapFn {
            type In = $in;
            type Out = $out;
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn apply<L: $crate::cpu::simd::SimdLevel>($x: $in) -> $out {
                $result
            }
        }
        <$crate::cpu::simd::$versions as $crate::cpu::simd::Versions>::pick::<
            $crate::cpu::simd::unary::Mapped<MapFn>,
        >()
    }};
}
pub(super) use map;

/// A function that has a branch-free form for most arguments, and a slower one for those beyond a limit.
trait Limited {
    const LIMIT: f32;
    fn near<L: SimdLevel>(x: f32) -> f32;
    fn far(x: f32) -> f32;
}

struct LimitedMap<F>(PhantomData<F>);

impl<F: Limited> SimdBody for LimitedMap<F> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n lanes of f32.
        let (dst, a) = unsafe { (output::<f32>(args.dst, args.n), input::<f32>(args.a, args.n)) };
        let mut beyond = 0u32;
        for (dst, &x) in dst.iter_mut().zip(a) {
            *dst = F::near::<L>(x);
            beyond |= u32::from(x.abs() > F::LIMIT);
        }
        if beyond != 0 {
            for (dst, &x) in dst.iter_mut().zip(a) {
                if x.abs() > F::LIMIT {
                    *dst = F::far(x);
                }
            }
        }
    }
}

struct Sin;
impl Limited for Sin {
    const LIMIT: f32 = math::TRIGONOMETRIC_LIMIT;
    #[inline(always)]
    fn near<L: SimdLevel>(x: f32) -> f32 {
        math::sin::<L>(x)
    }
    fn far(x: f32) -> f32 {
        math::sin_far(x)
    }
}

struct Cos;
impl Limited for Cos {
    const LIMIT: f32 = math::TRIGONOMETRIC_LIMIT;
    #[inline(always)]
    fn near<L: SimdLevel>(x: f32) -> f32 {
        math::cos::<L>(x)
    }
    fn far(x: f32) -> f32 {
        math::cos_far(x)
    }
}

macro_rules! signed {
    ($op:expr, $ty:ty) => {
        match $op {
            UnaryOp::Neg => Some(map!(Lean, $ty => $ty, |x| x.wrapping_neg())),
            UnaryOp::Abs => Some(map!(Lean, $ty => $ty, |x| x.wrapping_abs())),
            UnaryOp::Sign => Some(map!(Lean, $ty => $ty, |x| (x > 0) as $ty - (x < 0) as $ty)),
            UnaryOp::Not => Some(map!(Lean, $ty => $ty, |x| !x)),
            _ => None,
        }
    };
}

/// The loop of an operation on this type; `None` if the operation does not take the type.
pub fn unary(op: UnaryOp, ty: Ty) -> Option<Raw> {
    match ty {
        Ty::F32 => Some(float32(op)?),
        Ty::F64 => Some(float64(op)?),
        Ty::I32 => signed!(op, i32),
        Ty::I64 => signed!(op, i64),
        Ty::U32 => match op {
            UnaryOp::Neg => Some(map!(Plain, u32 => u32, |x| x.wrapping_neg())),
            UnaryOp::Abs => Some(map!(Plain, u32 => u32, |x| x)),
            UnaryOp::Sign => Some(map!(Plain, u32 => u32, |x| u32::from(x > 0))),
            UnaryOp::Not => Some(map!(Plain, u32 => u32, |x| !x)),
            _ => None,
        },
        Ty::Bool => match op {
            UnaryOp::Not => Some(map!(Plain, u8 => u8, |x| x ^ 1)),
            _ => None,
        },
    }
}

fn float32(op: UnaryOp) -> Option<Raw> {
    Some(match op {
        UnaryOp::Neg => map!(Full, f32 => f32, |x| -x),
        UnaryOp::Abs => map!(Full, f32 => f32, |x| x.abs()),
        UnaryOp::Sign => {
            map!(Full, f32 => f32, |x| f32::from(u8::from(x > 0.0)) - f32::from(u8::from(x < 0.0)))
        }
        UnaryOp::Not => return None,
        UnaryOp::Floor => map!(Full, f32 => f32, |x| x.floor()),
        UnaryOp::Ceil => map!(Full, f32 => f32, |x| x.ceil()),
        UnaryOp::Round => map!(Full, f32 => f32, |x| x.round_ties_even()),
        UnaryOp::Trunc => map!(Full, f32 => f32, |x| x.trunc()),
        UnaryOp::Reciprocal => map!(Full, f32 => f32, |x| 1.0 / x),
        UnaryOp::Sqrt => map!(Full, f32 => f32, |x| x.sqrt()),
        UnaryOp::Rsqrt => map!(Full, f32 => f32, |x| 1.0 / x.sqrt()),
        UnaryOp::Exp => map!(Full, f32 => f32, |x| math::exp::<L>(x)),
        UnaryOp::Expm1 => map!(Full, f32 => f32, |x| math::expm1::<L>(x)),
        UnaryOp::Log => map!(Full, f32 => f32, |x| math::log::<L>(x)),
        UnaryOp::Log1p => map!(Full, f32 => f32, |x| math::log1p::<L>(x)),
        UnaryOp::Sin => Full::pick::<LimitedMap<Sin>>(),
        UnaryOp::Cos => Full::pick::<LimitedMap<Cos>>(),
        UnaryOp::Tanh => map!(Full, f32 => f32, |x| math::tanh::<L>(x)),
        UnaryOp::Sigmoid => map!(Full, f32 => f32, |x| math::sigmoid::<L>(x)),
        UnaryOp::Erf => map!(Full, f32 => f32, |x| math::erf::<L>(x)),
        UnaryOp::IsNan => map!(Full, f32 => u8, |x| u8::from(x.is_nan())),
        UnaryOp::IsFinite => map!(Full, f32 => u8, |x| u8::from(x.is_finite())),
    })
}

/// The loops of f64. Transcendental functions are the standard library's, called for each lane.
fn float64(op: UnaryOp) -> Option<Raw> {
    Some(match op {
        UnaryOp::Neg => map!(Lean, f64 => f64, |x| -x),
        UnaryOp::Abs => map!(Lean, f64 => f64, |x| x.abs()),
        UnaryOp::Sign => {
            map!(Lean, f64 => f64, |x| f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)))
        }
        UnaryOp::Not => return None,
        UnaryOp::Floor => map!(Lean, f64 => f64, |x| x.floor()),
        UnaryOp::Ceil => map!(Lean, f64 => f64, |x| x.ceil()),
        UnaryOp::Round => map!(Lean, f64 => f64, |x| x.round_ties_even()),
        UnaryOp::Trunc => map!(Lean, f64 => f64, |x| x.trunc()),
        UnaryOp::Reciprocal => map!(Lean, f64 => f64, |x| 1.0 / x),
        UnaryOp::Sqrt => map!(Lean, f64 => f64, |x| x.sqrt()),
        UnaryOp::Rsqrt => map!(Lean, f64 => f64, |x| 1.0 / x.sqrt()),
        UnaryOp::Exp => map!(Plain, f64 => f64, |x| x.exp()),
        UnaryOp::Expm1 => map!(Plain, f64 => f64, |x| x.exp_m1()),
        UnaryOp::Log => map!(Plain, f64 => f64, |x| x.ln()),
        UnaryOp::Log1p => map!(Plain, f64 => f64, |x| x.ln_1p()),
        UnaryOp::Sin => map!(Plain, f64 => f64, |x| x.sin()),
        UnaryOp::Cos => map!(Plain, f64 => f64, |x| x.cos()),
        UnaryOp::Tanh => map!(Plain, f64 => f64, |x| x.tanh()),
        UnaryOp::Sigmoid => map!(Plain, f64 => f64, |x| {
            let e = (-x.abs()).exp();
            (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
        }),
        UnaryOp::Erf => map!(Plain, f64 => f64, |x| libm::erf(x)),
        UnaryOp::IsNan => map!(Lean, f64 => u8, |x| u8::from(x.is_nan())),
        UnaryOp::IsFinite => map!(Lean, f64 => u8, |x| u8::from(x.is_finite())),
    })
}
