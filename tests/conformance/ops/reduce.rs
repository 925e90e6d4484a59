//! Reductions.

use wgrad::{Result, Tensor};

use super::{Table, input_as, one, two};
use crate::call::{Call, Outcome};

pub const OPS: Table = &[
    ("sum", |c| cast(c, input_as(c, "input")?.sum_dim(dims(c)?, keepdim(c)?))),
    ("mean", |c| one(input_as(c, "input")?.mean_dim(dims(c)?, keepdim(c)?))),
    ("prod", |c| match (c.opt_int("dim")?, keepdim(c)?) {
        (None, _) => cast(c, input_as(c, "input")?.prod()),
        (Some(dim), keepdim) => cast(c, input_as(c, "input")?.prod_dim(dim, keepdim)),
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
    ("aminmax", |c| with_dim(c, Tensor::aminmax, Tensor::aminmax_dim)),
    ("count_nonzero", |c| one(c.tensor("input")?.count_nonzero(dims(c)?))),
    ("nansum", |c| cast(c, input_as(c, "input")?.nansum(dims(c)?, keepdim(c)?))),
    ("nanmean", |c| one(input_as(c, "input")?.nanmean(dims(c)?, keepdim(c)?))),
    ("var_mean", |c| two(c.tensor("input")?.var_mean(dims(c)?, c.float("correction", 1.0)?, keepdim(c)?))),
    ("std_mean", |c| two(c.tensor("input")?.std_mean(dims(c)?, c.float("correction", 1.0)?, keepdim(c)?))),
    ("cumprod", |c| cast(c, input_as(c, "input")?.cumprod(c.int("dim")?))),
    ("cummax", |c| two(c.tensor("input")?.cummax(c.int("dim")?))),
    ("cummin", |c| two(c.tensor("input")?.cummin(c.int("dim")?))),
    ("logcumsumexp", |c| one(c.tensor("input")?.logcumsumexp(c.int("dim")?))),
    ("linalg.vector_norm", |c| {
        let order = c.float("ord", 2.0)?;
        one(input_as(c, "x")?.vector_norm(order, dims(c)?, keepdim(c)?))
    }),
    ("normalize", |c| {
        let (p, dims, eps) = (c.float("p", 2.0)?, c.ints_or("dim", &[1])?, c.float("eps", 1e-12)?);
        one(c.tensor("input")?.normalize(p, dims, eps))
    }),
    ("cdist", |c| {
        // It says how to compute, not what.
        c.text("compute_mode", "")?;
        one(c.tensor("x1")?.cdist(&c.tensor("x2")?, c.float("p", 2.0)?))
    }),
    ("cosine_similarity", |c| {
        one(c.tensor("x1")?.cosine_similarity(&c.tensor("x2")?, c.int_or("dim", 1)?, c.float("eps", 1e-8)?))
    }),
    ("pairwise_distance", |c| {
        let (p, eps) = (c.float("p", 2.0)?, c.float("eps", 1e-6)?);
        one(c.tensor("x1")?.pairwise_distance(&c.tensor("x2")?, p, eps, keepdim(c)?))
    }),
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

/// Two outputs over all elements or along a dim.
fn with_dim(
    c: &Call,
    all: fn(&Tensor) -> Result<(Tensor, Tensor)>,
    along: fn(&Tensor, isize, bool) -> Result<(Tensor, Tensor)>,
) -> Outcome {
    let (input, keepdim) = (c.tensor("input")?, keepdim(c)?);
    match c.opt_int("dim")? {
        Some(dim) => two(along(&input, dim, keepdim)),
        None if keepdim => {
            let shape = vec![1usize; input.rank()];
            two(all(&input).and_then(|(a, b)| Ok((a.reshape(&shape)?, b.reshape(&shape)?))))
        }
        None => two(all(&input)),
    }
}

/// One output over all elements, values and indices along a dim.
fn with_indices(
    c: &Call,
    all: fn(&Tensor) -> Result<Tensor>,
    along: fn(&Tensor, isize, bool) -> Result<(Tensor, Tensor)>,
) -> Outcome {
    match (c.opt_int("dim")?, keepdim(c)?) {
        (None, _) => one(all(&c.tensor("input")?)),
        (Some(dim), keepdim) => two(along(&c.tensor("input")?, dim, keepdim)),
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
