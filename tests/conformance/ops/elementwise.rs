//! Functions of each element, and of pairs of elements.

use wgrad::{Bound, Value};

use super::{Table, one};
use crate::call::{Call, Outcome, unclear};

macro_rules! unary {
    ($($name:ident)*) => { &[$((stringify!($name), |c| one(c.tensor("input")?.$name()))),*] };
}

macro_rules! binary {
    ($($name:ident)*) => { &[$((stringify!($name), |c| one(c.tensor("input")?.$name(c.value("other")?)))),*] };
}

/// Operators of one tensor and nothing else.
pub const UNARY: Table = unary! {
    neg abs sign exp log log1p expm1 sqrt rsqrt square reciprocal sin cos tanh sigmoid erf relu silu
    floor ceil trunc isnan isfinite logical_not
};

/// Operators of two operands, of which either may be a number.
pub const BINARY: Table = binary! { mul maximum minimum eq ne lt le gt ge remainder };

pub const UNARY_WITH: Table = &[
    ("gelu", |c| match c.text("approximate", "none")?.as_str() {
        "none" => one(c.tensor("input")?.gelu()),
        "tanh" => one(c.tensor("input")?.gelu_tanh()),
        other => unclear("approximate", other),
    }),
    ("clamp", |c| one(c.tensor("input")?.clamp(bound(c, "min")?, bound(c, "max")?))),
];

pub const BINARY_WITH: Table = &[
    ("logical_and", |c| one(c.tensor("input")?.logical_and(&c.tensor("other")?))),
    ("logical_or", |c| one(c.tensor("input")?.logical_or(&c.tensor("other")?))),
    ("logical_xor", |c| one(c.tensor("input")?.logical_xor(&c.tensor("other")?))),
    ("where", |c| one(c.tensor("condition")?.where_cond(c.value("input")?, c.value("other")?))),
    ("pow", |c| match c.value("input")? {
        Value::Tensor(base) => one(base.pow(c.value("exponent")?)),
        Value::Scalar(base) => one(c.tensor("exponent")?.rpow(base)),
    }),
];

fn bound(c: &Call, name: &str) -> Outcome<Bound> {
    Ok(match c.opt_value(name)? {
        None => Bound::None,
        Some(Value::Tensor(tensor)) => Bound::Tensor(tensor),
        Some(Value::Scalar(number)) => Bound::Scalar(number),
    })
}
