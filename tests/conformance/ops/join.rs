//! Tensors put together.

use wgrad::{PadMode, Tensor, Value};

use super::{Table, many, one, refs};
use crate::call::{Call, Outcome, unclear};

pub const OPS: Table = &[
    ("cat", |c| one(Tensor::cat(&refs(&c.tensors("tensors")?), c.int_or("dim", 0)?))),
    ("stack", |c| one(Tensor::stack(&refs(&c.tensors("tensors")?), c.int_or("dim", 0)?))),
    ("hstack", |c| one(Tensor::hstack(&refs(&c.tensors("tensors")?)))),
    ("vstack", |c| one(Tensor::vstack(&refs(&c.tensors("tensors")?)))),
    ("dstack", |c| one(Tensor::dstack(&refs(&c.tensors("tensors")?)))),
    ("meshgrid", |c| match c.text("indexing", "ij")?.as_str() {
        "ij" => many(Tensor::meshgrid(&refs(&c.tensors("tensors")?), false)),
        "xy" => many(Tensor::meshgrid(&refs(&c.tensors("tensors")?), true)),
        other => unclear("indexing", other),
    }),
    ("tile", |c| one(c.tensor("input")?.tile(c.ints("dims")?))),
    ("repeat_interleave", |c| {
        let dim = c.opt_int("dim")?;
        // It only saves PyTorch the reading of the counts.
        let size = c.opt_int("output_size")?;
        let output = match c.value("repeats")? {
            Value::Tensor(repeats) => c.tensor("input")?.repeat_interleave_each(&repeats, dim)?,
            Value::Scalar(_) => c.tensor("input")?.repeat_interleave(c.size("repeats")?, dim)?,
        };
        let at = dim.unwrap_or(0);
        match size {
            Some(size) if output.size(at)? as isize != size => {
                unclear("output_size", "not that of the output")
            }
            _ => Ok(vec![output]),
        }
    }),
    ("pad", pad),
    ("repeat", |c| one(c.tensor("input")?.repeat(c.ints("repeats")?))),
];

fn pad(c: &Call) -> Outcome {
    let pad = c.ints("pad")?;
    if pad.len() % 2 == 1 {
        return unclear("pad", "a list of odd length");
    }
    let margins: Vec<(isize, isize)> = pad.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let (mode, input) = (c.text("mode", "constant")?, c.tensor("input")?);
    let value = c.scalar_or("value", 0i64)?;
    match mode.as_str() {
        "constant" => one(input.pad(&margins, value)),
        "reflect" => one(input.pad_with(&margins, PadMode::Reflect)),
        "replicate" => one(input.pad_with(&margins, PadMode::Replicate)),
        "circular" => one(input.pad_with(&margins, PadMode::Circular)),
        other => unclear("mode", other),
    }
}
