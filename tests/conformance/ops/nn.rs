//! What networks are made of.

use super::{Table, input_as, one};

pub const OPS: Table = &[
    ("softmax", |c| one(input_as(c, "input")?.softmax(c.int("dim")?))),
    ("log_softmax", |c| one(input_as(c, "input")?.log_softmax(c.int("dim")?))),
    ("layer_norm", |c| {
        let (weight, bias) = (c.opt_tensor("weight")?, c.opt_tensor("bias")?);
        let (shape, eps) = (c.ints("normalized_shape")?, c.float("eps", 1e-5)?);
        one(c.tensor("input")?.layer_norm(shape, weight.as_ref(), bias.as_ref(), eps))
    }),
];
