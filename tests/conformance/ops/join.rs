//! Tensors put together.

use wgrad::Tensor;

use super::{Table, one, refs};

pub const OPS: Table = &[
    ("cat", |c| one(Tensor::cat(&refs(&c.tensors("tensors")?), c.int_or("dim", 0)?))),
    ("stack", |c| one(Tensor::stack(&refs(&c.tensors("tensors")?), c.int_or("dim", 0)?))),
    ("repeat", |c| one(c.tensor("input")?.repeat(c.ints("repeats")?))),
];
