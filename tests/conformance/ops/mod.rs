//! The operators: name in the format, and the call of the library's function of that name.

mod conv;
mod create;
mod elementwise;
mod index;
mod join;
mod linalg;
mod loss;
mod matmul;
mod nn;
mod reduce;
mod views;

use wgrad::{Reduction, Result, Tensor};

use crate::call::{Call, Outcome, unclear};

/// An operator: its arguments by name in, its outputs out.
pub type Op = fn(&Call) -> Outcome;
/// Operators of a family.
type Table = &'static [(&'static str, Op)];

const TABLES: &[Table] = &[
    elementwise::UNARY,
    elementwise::UNARY_WITH,
    elementwise::BINARY,
    elementwise::BINARY_WITH,
    conv::OPS,
    index::OPS,
    join::OPS,
    linalg::OPS,
    loss::OPS,
    matmul::OPS,
    create::OPS,
    nn::OPS,
    reduce::OPS,
    views::OPS,
];

/// The operator of a name.
pub fn find(name: &str) -> Option<Op> {
    TABLES.iter().flat_map(|table| table.iter()).find(|(op, _)| *op == name).map(|&(_, op)| op)
}

fn one(output: Result<Tensor>) -> Outcome {
    Ok(vec![output?])
}

fn two(outputs: Result<(Tensor, Tensor)>) -> Outcome {
    let (first, second) = outputs?;
    Ok(vec![first, second])
}

fn many(outputs: Result<Vec<Tensor>>) -> Outcome {
    Ok(outputs?)
}

fn refs(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// The input, cast where `dtype` asks for it: what that argument means in PyTorch.
fn input_as(c: &Call, name: &str) -> Outcome<Tensor> {
    let input = c.tensor(name)?;
    Ok(match c.opt_dtype("dtype")? {
        None => input,
        Some(dtype) => input.to_dtype(dtype)?,
    })
}

/// The argument `reduction`.
fn reduction(c: &Call) -> Outcome<Reduction> {
    match c.text("reduction", "mean")?.as_str() {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => unclear("reduction", &format!("{other:?}")),
    }
}
