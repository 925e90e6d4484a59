//! Reading and writing at places that are values; order and counting.

use wgrad::{Index, ScatterReduce, Tensor, Value};

use super::{Table, one, two};
use crate::call::{Arg, Call, Outcome, not, unclear};

pub const OPS: Table = &[
    ("gather", |c| one(c.tensor("input")?.gather(c.int("dim")?, &c.tensor("index")?))),
    ("scatter", scatter),
    ("scatter_add", |c| {
        one(c.tensor("input")?.scatter_add(c.int("dim")?, &c.tensor("index")?, &c.tensor("src")?))
    }),
    ("scatter_reduce", |c| {
        let reduce = match c.text("reduce", "")?.as_str() {
            "sum" => ScatterReduce::Sum,
            "prod" => ScatterReduce::Prod,
            "mean" => ScatterReduce::Mean,
            "amax" => ScatterReduce::Amax,
            "amin" => ScatterReduce::Amin,
            other => return unclear("reduce", other),
        };
        let (dim, index, src) = (c.int("dim")?, c.tensor("index")?, c.tensor("src")?);
        one(c.tensor("input")?.scatter_reduce(dim, &index, &src, reduce, c.flag("include_self", true)?))
    }),
    ("index_select", |c| one(c.tensor("input")?.index_select(c.int("dim")?, &c.tensor("index")?))),
    ("index_add", |c| {
        let (dim, index, source) = (c.int("dim")?, c.tensor("index")?, c.tensor("source")?);
        one(c.tensor("input")?.index_add_scaled(dim, &index, &source, c.scalar_or("alpha", 1i64)?))
    }),
    ("index_copy", |c| {
        one(c.tensor("input")?.index_copy(c.int("dim")?, &c.tensor("index")?, &c.tensor("source")?))
    }),
    ("index_fill", |c| {
        one(c.tensor("input")?.index_fill(c.int("dim")?, &c.tensor("index")?, c.value("value")?))
    }),
    ("index_put", |c| {
        let (values, accumulate) = (c.tensor("values")?, c.flag("accumulate", false)?);
        one(c.tensor("input")?.index_put(&lists(c)?, &values, accumulate))
    }),
    ("put", |c| {
        let (index, source) = (c.tensor("index")?, c.tensor("source")?);
        one(c.tensor("input")?.put(&index, &source, c.flag("accumulate", false)?))
    }),
    ("take", |c| one(c.tensor("input")?.take(&c.tensor("index")?))),
    ("take_along_dim", |c| one(c.tensor("input")?.take_along_dim(&c.tensor("indices")?, c.opt_int("dim")?))),
    ("getitem", |c| one(c.tensor("input")?.get(&parts(c)?))),
    ("masked_select", |c| one(c.tensor("input")?.masked_select(&c.tensor("mask")?))),
    ("masked_scatter", |c| one(c.tensor("input")?.masked_scatter(&c.tensor("mask")?, &c.tensor("source")?))),
    ("nonzero", |c| one(c.tensor("input")?.nonzero())),
    ("embedding", |c| {
        let (padding, scale) = (c.opt_int("padding_idx")?, c.flag("scale_grad_by_freq", false)?);
        one(c.tensor("input")?.embedding_with(&c.tensor("weight")?, padding, scale))
    }),
    ("one_hot", |c| {
        let classes = c.int_or("num_classes", -1)?;
        one(c.tensor("input")?.one_hot((classes != -1).then_some(classes.max(0) as usize)))
    }),
    ("sort", |c| {
        stable(c)?;
        two(c.tensor("input")?.sort(c.int_or("dim", -1)?, c.flag("descending", false)?))
    }),
    ("argsort", |c| {
        stable(c)?;
        one(c.tensor("input")?.argsort(c.int_or("dim", -1)?, c.flag("descending", false)?))
    }),
    ("topk", |c| {
        // Sorted is one of the orders that unsorted allows.
        c.flag("sorted", true)?;
        two(c.tensor("input")?.topk(c.size("k")?, c.int_or("dim", -1)?, c.flag("largest", true)?))
    }),
    ("kthvalue", |c| {
        two(c.tensor("input")?.kthvalue(c.size("k")?, c.int_or("dim", -1)?, c.flag("keepdim", false)?))
    }),
    ("median", |c| match (c.opt_int("dim")?, c.flag("keepdim", false)?) {
        (Some(dim), keepdim) => two(c.tensor("input")?.median_dim(dim, keepdim)),
        (None, _) => one(c.tensor("input")?.median()),
    }),
    ("unique", |c| {
        // Always sorted.
        c.flag("sorted", true)?;
        let found = match c.opt_int("dim")? {
            Some(dim) => c.tensor("input")?.unique_dim(dim)?,
            None => c.tensor("input")?.unique()?,
        };
        let mut outputs = vec![found.values];
        outputs.extend(c.flag("return_inverse", false)?.then_some(found.inverse));
        outputs.extend(c.flag("return_counts", false)?.then_some(found.counts));
        Ok(outputs)
    }),
    ("bincount", |c| {
        let minlength = if c.get("minlength").is_some() { c.size("minlength")? } else { 0 };
        match c.opt_tensor("weights")? {
            Some(weights) => one(c.tensor("input")?.bincount_weighted(&weights, minlength)),
            None => one(c.tensor("input")?.bincount(minlength)),
        }
    }),
    ("searchsorted", |c| {
        let right = match c.text("side", "")?.as_str() {
            "" => c.flag("right", false)?,
            "left" => c.flag("right", false)? && unclear("side", "left, but right is set")?,
            "right" => c.flag("right", true)? || unclear("side", "right, but right is not set")?,
            other => return unclear("side", other),
        };
        let mut sequence = c.tensor("sorted_sequence")?;
        if let Some(sorter) = c.opt_tensor("sorter")? {
            sequence = sequence.gather(-1, &sorter)?;
        }
        found(c, sequence.searchsorted(c.value("input")?, right)?)
    }),
    ("bucketize", |c| {
        let right = c.flag("right", false)?;
        found(c, c.tensor("boundaries")?.searchsorted(c.value("input")?, right)?)
    }),
];

/// Places, as i32 where that is asked for.
fn found(c: &Call, places: Tensor) -> Outcome {
    if c.flag("out_int32", false)? { one(places.to_dtype(wgrad::DType::I32)) } else { Ok(vec![places]) }
}

/// All sorts are stable.
fn stable(c: &Call) -> Outcome<()> {
    c.flag("stable", false).map(drop)
}

fn scatter(c: &Call) -> Outcome {
    let (input, dim, index) = (c.tensor("input")?, c.int("dim")?, c.tensor("index")?);
    let src = match c.value("src")? {
        Value::Tensor(src) => src,
        Value::Scalar(number) if c.get("reduce").is_none() => {
            return one(input.scatter_value(dim, &index, number));
        }
        Value::Scalar(number) => Tensor::full(index.shape(), number, (input.dtype(), input.device()))?,
    };
    match c.text("reduce", "")?.as_str() {
        "" => one(input.scatter(dim, &index, &src)),
        "add" => one(input.scatter_add(dim, &index, &src)),
        "multiply" => one(input.scatter_multiply(dim, &index, &src)),
        other => unclear("reduce", other),
    }
}

/// The parts of an index.
fn parts(c: &Call) -> Outcome<Vec<Index>> {
    let part = |arg: &Arg| {
        Ok(match arg {
            Arg::Null => Index::NewAxis,
            Arg::Bool(holds) => Index::Bool(*holds),
            Arg::Int(at) => Index::At(*at as isize),
            Arg::Tensor(tensor) => Index::Tensor(tensor.clone()),
            Arg::Ellipsis => Index::Ellipsis,
            Arg::Slice([start, end, step]) => {
                let step = usize::try_from(step.unwrap_or(1))
                    .map_err(|_| not("indices", "a slice that goes forwards"))?;
                Index::Slice(*start, *end, step)
            }
            _ => return unclear("indices", "made of something else"),
        })
    };
    match c.get("indices") {
        Some(Arg::List(parts)) => parts.iter().map(part).collect(),
        Some(single) => Ok(vec![part(single)?]),
        None => Ok(vec![Index::NewAxis]),
    }
}

/// A list for each dim, or none.
fn lists(c: &Call) -> Outcome<Vec<Option<Tensor>>> {
    match c.get("indices") {
        Some(Arg::List(items)) => items
            .iter()
            .map(|item| match item {
                Arg::Null => Ok(None),
                Arg::Tensor(tensor) => Ok(Some(tensor.clone())),
                _ => unclear("indices", "made of something else"),
            })
            .collect(),
        _ => unclear("indices", "not a list"),
    }
}
