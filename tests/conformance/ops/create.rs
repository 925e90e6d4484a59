//! Tensors from nothing, and casts.

use wgrad::{Options, Tensor};

use super::{Table, one};
use crate::call::{Call, Outcome};

pub const OPS: Table = &[
    ("arange", |c| {
        one(Tensor::arange(c.scalar("start")?, c.scalar("end")?, c.scalar_or("step", 1i64)?, options(c)?))
    }),
    ("linspace", |c| {
        let (start, end) = (c.scalar("start")?.as_f64(), c.scalar("end")?.as_f64());
        one(Tensor::linspace(start, end, c.size("steps")?, options(c)?))
    }),
    ("eye", |c| {
        let rows = c.size("n")?;
        let columns = if c.get("m").is_some() { c.size("m")? } else { rows };
        one(Tensor::eye(rows, columns, options(c)?))
    }),
    ("full", |c| one(Tensor::full(c.ints("size")?, c.scalar("fill_value")?, options(c)?))),
    ("tril", |c| one(c.tensor("input")?.tril(c.int_or("diagonal", 0)? as i64))),
    ("triu", |c| one(c.tensor("input")?.triu(c.int_or("diagonal", 0)? as i64))),
    ("to", |c| {
        let dtype = c.opt_dtype("dtype")?.unwrap_or(c.tensor("input")?.dtype());
        one(c.tensor("input")?.to_dtype(dtype))
    }),
];

fn options(c: &Call) -> Outcome<Options> {
    Ok(Options { dtype: c.opt_dtype("dtype")?, device: c.device.clone() })
}
