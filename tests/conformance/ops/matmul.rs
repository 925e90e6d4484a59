//! Products of vectors and matrices.

use wgrad::{Result, Scalar, Tensor};

use super::{Table, one, refs};
use crate::call::{Arg, Call, Outcome, integer, not};

pub const OPS: Table = &[
    ("matmul", |c| one(c.tensor("input")?.matmul(&c.tensor("other")?))),
    ("mm", |c| one(c.tensor("input")?.mm(&c.tensor("mat2")?))),
    ("bmm", |c| one(c.tensor("input")?.bmm(&c.tensor("mat2")?))),
    ("mv", |c| one(c.tensor("input")?.mv(&c.tensor("vec")?))),
    ("dot", |c| one(c.tensor("input")?.dot(&c.tensor("tensor")?))),
    ("outer", |c| one(c.tensor("input")?.outer(&c.tensor("vec2")?))),
    ("addmm", |c| plus_product(c, "mat1", "mat2", Tensor::addmm)),
    ("addmv", |c| plus_product(c, "mat", "vec", Tensor::addmv)),
    ("addr", |c| plus_product(c, "vec1", "vec2", Tensor::addr)),
    ("baddbmm", |c| plus_product(c, "batch1", "batch2", Tensor::baddbmm)),
    ("addbmm", |c| plus_product(c, "batch1", "batch2", Tensor::addbmm)),
    ("linear", |c| one(c.tensor("input")?.linear(&c.tensor("weight")?, c.opt_tensor("bias")?.as_ref()))),
    ("bilinear", |c| {
        let (input2, weight, bias) = (c.tensor("input2")?, c.tensor("weight")?, c.opt_tensor("bias")?);
        one(c.tensor("input1")?.bilinear(&input2, &weight, bias.as_ref()))
    }),
    ("einsum", |c| one(Tensor::einsum(&c.text("equation", "")?, &refs(&c.tensors("operands")?)))),
    ("kron", |c| one(c.tensor("input")?.kron(&c.tensor("other")?))),
    ("tensordot", |c| {
        let (a, b) = (c.tensor("a")?, c.tensor("b")?);
        match c.get("dims") {
            Some(Arg::List(lists)) => match lists.as_slice() {
                [own, others] => one(a.tensordot_dims(&b, dims(own)?, dims(others)?)),
                _ => Err(not("dims", "a pair of lists")),
            },
            Some(_) => one(a.tensordot(&b, c.size("dims")?)),
            None => one(a.tensordot(&b, 2)),
        }
    }),
    ("cross", |c| one(c.tensor("input")?.cross(&c.tensor("other")?, c.opt_int("dim")?))),
    ("linalg.cross", |c| one(c.tensor("input")?.cross(&c.tensor("other")?, c.int_or("dim", -1)?))),
    ("trace", |c| one(c.tensor("input")?.trace())),
];

fn dims(arg: &Arg) -> Outcome<Vec<isize>> {
    match arg {
        Arg::List(items) => {
            items.iter().map(|item| integer(item).ok_or_else(|| not("dims", "a list of dims"))).collect()
        }
        _ => Err(not("dims", "a list of dims")),
    }
}

/// `beta * input + alpha * product`.
fn plus_product(
    c: &Call,
    first: &str,
    second: &str,
    op: fn(&Tensor, &Tensor, &Tensor, Scalar, Scalar) -> Result<Tensor>,
) -> Outcome {
    let (beta, alpha) = (c.scalar_or("beta", 1i64)?, c.scalar_or("alpha", 1i64)?);
    one(op(&c.tensor("input")?, &c.tensor(first)?, &c.tensor(second)?, beta, alpha))
}
