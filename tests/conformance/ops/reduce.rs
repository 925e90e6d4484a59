//! Reductions.

use wgrad::{Result, Tensor};

use super::{Table, input_as, one, two};
use crate::call::{Call, Outcome};

pub const OPS: Table = &[
    ("sum", |c| cast(c, input_as(c, "input")?.sum_dim(dims(c)?, keepdim(c)?))),
    ("mean", |c| one(input_as(c, "input")?.mean_dim(dims(c)?, keepdim(c)?))),
    ("prod", |c| match c.opt_int("dim")? {
        None => cast(c, input_as(c, "input")?.prod()),
        Some(dim) => cast(c, input_as(c, "input")?.prod_dim(dim, keepdim(c)?)),
    }),
    ("amax", |c| one(c.tensor("input")?.amax(dims(c)?, keepdim(c)?))),
    ("amin", |c| one(c.tensor("input")?.amin(dims(c)?, keepdim(c)?))),
    ("max", |c| with_indices(c, Tensor::max, Tensor::max_dim)),
    ("min", |c| with_indices(c, Tensor::min, Tensor::min_dim)),
    ("argmax", |c| position(c, Tensor::argmax, Tensor::argmax_dim)),
    ("argmin", |c| position(c, Tensor::argmin, Tensor::argmin_dim)),
    ("all", |c| one(c.tensor("input")?.all_dim(dims(c)?, keepdim(c)?))),
    ("any", |c| one(c.tensor("input")?.any_dim(dims(c)?, keepdim(c)?))),
    ("var", |c| one(c.tensor("input")?.var_dim(dims(c)?, c.float("correction", 1.0)?, keepdim(c)?))),
    ("std", |c| one(c.tensor("input")?.std_dim(dims(c)?, c.float("correction", 1.0)?, keepdim(c)?))),
    ("logsumexp", |c| one(c.tensor("input")?.logsumexp(c.ints("dim")?, keepdim(c)?))),
    ("cumsum", |c| cast(c, input_as(c, "input")?.cumsum(c.int("dim")?))),
];

/// The output in the dtype that was asked for: integers are folded in i64.
fn cast(c: &Call, output: Result<Tensor>) -> Outcome {
    let output = output?;
    let dtype = c.opt_dtype("dtype")?.unwrap_or(output.dtype());
    one(output.to_dtype(dtype))
}

/// The dims to fold; none: all.
pub fn dims(c: &Call) -> Outcome<Vec<isize>> {
    c.ints_or("dim", &[])
}

pub fn keepdim(c: &Call) -> Outcome<bool> {
    c.flag("keepdim", false)
}

/// One output over all elements, values and indices along a dim.
fn with_indices(
    c: &Call,
    all: fn(&Tensor) -> Result<Tensor>,
    along: fn(&Tensor, isize, bool) -> Result<(Tensor, Tensor)>,
) -> Outcome {
    match c.opt_int("dim")? {
        None => one(all(&c.tensor("input")?)),
        Some(dim) => two(along(&c.tensor("input")?, dim, keepdim(c)?)),
    }
}

fn position(
    c: &Call,
    all: fn(&Tensor) -> Result<Tensor>,
    along: fn(&Tensor, isize, bool) -> Result<Tensor>,
) -> Outcome {
    match (c.opt_int("dim")?, keepdim(c)?) {
        (Some(dim), keepdim) => one(along(&c.tensor("input")?, dim, keepdim)),
        (None, false) => one(all(&c.tensor("input")?)),
        // Kept dims are a matter of shape only.
        (None, true) => {
            let input = c.tensor("input")?;
            one(all(&input).and_then(|x| x.reshape(vec![1usize; input.rank()])))
        }
    }
}
