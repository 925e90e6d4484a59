//! Functions of each element, and of pairs of elements.

use wgrad::{Bound, DType, Rounding, Tensor, Value};

use super::{Table, input_as, one};
use crate::call::{Call, Outcome, unclear};

macro_rules! unary {
    ($($name:ident)*) => { &[$((stringify!($name), |c| one(c.tensor("input")?.$name()))),*] };
}

macro_rules! binary {
    ($($name:ident)*) => { &[$((stringify!($name), |c| one(left(c)?.$name(c.value("other")?)))),*] };
}

/// Operators of one tensor and nothing else.
pub const UNARY: Table = unary! {
    neg abs sign exp log log1p expm1 sqrt rsqrt square reciprocal sin cos tanh sigmoid erf relu silu
    floor ceil trunc isnan isfinite logical_not
    exp2 log2 log10 tan asin acos atan sinh cosh asinh acosh atanh erfc erfinv lgamma digamma i0 sinc deg2rad rad2deg frac
    positive isinf signbit bitwise_not
    relu6 selu mish softsign hardswish hardsigmoid logsigmoid tanhshrink
};

/// Operators of two operands, of which either may be a number.
pub const BINARY: Table = binary! {
    mul maximum minimum eq ne lt le gt ge remainder
    floor_divide fmod atan2 hypot copysign fmax fmin logaddexp logaddexp2 xlogy
    bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift
};

pub const UNARY_WITH: Table = &[
    ("gelu", |c| match c.text("approximate", "none")?.as_str() {
        "none" => one(c.tensor("input")?.gelu()),
        "tanh" => one(c.tensor("input")?.gelu_tanh()),
        other => unclear("approximate", other),
    }),
    ("round", |c| one(c.tensor("input")?.round_decimals(c.int_or("decimals", 0)? as i32))),
    ("logit", |c| one(c.tensor("input")?.logit(c.opt_float("eps")?))),
    ("nan_to_num", |c| {
        let (nan, positive, negative) =
            (c.float("nan", 0.0)?, c.opt_float("posinf")?, c.opt_float("neginf")?);
        one(c.tensor("input")?.nan_to_num(nan, positive, negative))
    }),
    ("leaky_relu", |c| one(c.tensor("input")?.leaky_relu(c.float("negative_slope", 0.01)?))),
    ("elu", |c| one(c.tensor("input")?.elu(c.float("alpha", 1.0)?))),
    ("celu", |c| one(c.tensor("input")?.celu(c.float("alpha", 1.0)?))),
    ("softplus", |c| one(c.tensor("input")?.softplus(c.float("beta", 1.0)?, c.float("threshold", 20.0)?))),
    ("hardtanh", |c| {
        one(c.tensor("input")?.hardtanh(c.scalar_or("min_val", -1.0)?, c.scalar_or("max_val", 1.0)?))
    }),
    ("softshrink", |c| one(c.tensor("input")?.softshrink(c.float("lambd", 0.5)?))),
    ("hardshrink", |c| one(c.tensor("input")?.hardshrink(c.float("lambd", 0.5)?))),
    ("threshold", |c| one(c.tensor("input")?.threshold(c.scalar("threshold")?, c.scalar("value")?))),
    ("prelu", |c| one(c.tensor("input")?.prelu(&c.tensor("weight")?))),
    ("glu", |c| one(c.tensor("input")?.glu(c.int_or("dim", -1)?))),
    ("softmin", |c| one(input_as(c, "input")?.softmin(c.int("dim")?))),
    ("clamp_min", |c| one(c.tensor("input")?.clamp_min(bound(c, "min")?))),
    ("clamp_max", |c| one(c.tensor("input")?.clamp_max(bound(c, "max")?))),
    ("clamp", |c| one(c.tensor("input")?.clamp(bound(c, "min")?, bound(c, "max")?))),
];

pub const BINARY_WITH: Table = &[
    ("add", |c| one(left(c)?.add_scaled(c.value("other")?, c.scalar_or("alpha", 1i64)?))),
    ("sub", |c| one(left(c)?.sub_scaled(c.value("other")?, c.scalar_or("alpha", 1i64)?))),
    ("div", |c| match c.text("rounding_mode", "")?.as_str() {
        "" => one(left(c)?.div(c.value("other")?)),
        "trunc" => one(left(c)?.div_rounded(c.value("other")?, Rounding::Trunc)),
        "floor" => one(left(c)?.div_rounded(c.value("other")?, Rounding::Floor)),
        other => unclear("rounding_mode", other),
    }),
    ("float_power", |c| match c.value("input")? {
        Value::Tensor(base) => one(base.float_power(c.value("exponent")?)),
        Value::Scalar(base) => one(c.tensor("exponent")?.to_dtype(DType::F64)?.rpow(base.as_f64())),
    }),
    ("heaviside", |c| one(c.tensor("input")?.heaviside(&c.tensor("values")?))),
    ("lerp", |c| one(c.tensor("input")?.lerp(&c.tensor("end")?, c.value("weight")?))),
    ("addcmul", |c| {
        let (tensor1, tensor2) = (c.tensor("tensor1")?, c.tensor("tensor2")?);
        one(c.tensor("input")?.addcmul(&tensor1, &tensor2, c.scalar_or("value", 1i64)?))
    }),
    ("addcdiv", |c| {
        let (tensor1, tensor2) = (c.tensor("tensor1")?, c.tensor("tensor2")?);
        one(c.tensor("input")?.addcdiv(&tensor1, &tensor2, c.scalar_or("value", 1i64)?))
    }),
    ("masked_fill", |c| one(c.tensor("input")?.masked_fill(&c.tensor("mask")?, c.value("value")?))),
    ("logical_and", |c| one(c.tensor("input")?.logical_and(&c.tensor("other")?))),
    ("logical_or", |c| one(c.tensor("input")?.logical_or(&c.tensor("other")?))),
    ("logical_xor", |c| one(c.tensor("input")?.logical_xor(&c.tensor("other")?))),
    ("where", |c| one(c.tensor("condition")?.where_cond(c.value("input")?, c.value("other")?))),
    ("pow", |c| match c.value("input")? {
        Value::Tensor(base) => one(base.pow(c.value("exponent")?)),
        Value::Scalar(base) => one(c.tensor("exponent")?.rpow(base)),
    }),
];

/// The left operand. A number beside a 0-dim tensor gives way to its dtype, as on the right.
fn left(c: &Call) -> Outcome<Tensor> {
    match (c.value("input")?, c.value("other")?) {
        (Value::Scalar(number), Value::Tensor(other)) if other.rank() == 0 => {
            Ok(Tensor::full((), number, (number.promote(other.dtype()), other.device()))?)
        }
        _ => c.tensor("input"),
    }
}

fn bound(c: &Call, name: &str) -> Outcome<Bound> {
    Ok(match c.opt_value(name)? {
        None => Bound::None,
        Some(Value::Tensor(tensor)) => Bound::Tensor(tensor),
        Some(Value::Scalar(number)) => Bound::Scalar(number),
    })
}
