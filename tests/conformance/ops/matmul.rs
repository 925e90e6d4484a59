//! Products of matrices.

use super::{Table, one};

pub const OPS: Table = &[
    ("matmul", |c| one(c.tensor("input")?.matmul(&c.tensor("other")?))),
    ("mm", |c| one(c.tensor("input")?.mm(&c.tensor("mat2")?))),
    ("linear", |c| one(c.tensor("input")?.linear(&c.tensor("weight")?, c.opt_tensor("bias")?.as_ref()))),
];
