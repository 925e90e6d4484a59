//! Other shapes of the same elements.

use super::{Table, many, one};
use crate::call::Arg;

pub const OPS: Table = &[
    ("reshape", |c| one(c.tensor("input")?.reshape(c.ints("shape")?))),
    ("view", |c| one(c.tensor("input")?.view(c.ints("shape")?))),
    ("permute", |c| one(c.tensor("input")?.permute(c.ints("dims")?))),
    ("transpose", |c| one(c.tensor("input")?.transpose(c.int("dim0")?, c.int("dim1")?))),
    ("t", |c| one(c.tensor("input")?.t())),
    ("expand", |c| one(c.tensor("input")?.expand(c.ints("sizes")?))),
    ("expand_as", |c| one(c.tensor("input")?.expand(c.tensor("other")?.shape()))),
    ("broadcast_to", |c| one(c.tensor("input")?.broadcast_to(c.ints("shape")?))),
    ("squeeze", |c| match c.opt_ints("dim")? {
        None => one(c.tensor("input")?.squeeze()),
        Some(dims) => one(c.tensor("input")?.squeeze_dim(dims)),
    }),
    ("unsqueeze", |c| one(c.tensor("input")?.unsqueeze(c.int("dim")?))),
    ("flatten", |c| one(c.tensor("input")?.flatten(c.int_or("start_dim", 0)?, c.int_or("end_dim", -1)?))),
    ("unflatten", |c| one(c.tensor("input")?.unflatten(c.int("dim")?, c.ints("sizes")?))),
    ("narrow", |c| one(c.tensor("input")?.narrow(c.int("dim")?, c.int("start")?, c.size("length")?))),
    ("slice", |c| {
        let (start, end) = (c.opt_int("start")?, c.opt_int("end")?);
        let step = if c.get("step").is_some() { c.size("step")? } else { 1 };
        one(c.tensor("input")?.slice(c.int_or("dim", 0)?, start, end, step))
    }),
    ("select", |c| one(c.tensor("input")?.select(c.int("dim")?, c.int("index")?))),
    ("flip", |c| one(c.tensor("input")?.flip(c.ints("dims")?))),
    ("diagonal", |c| {
        let (dim1, dim2) = (c.int_or("dim1", 0)?, c.int_or("dim2", 1)?);
        one(c.tensor("input")?.diagonal(c.int_or("offset", 0)?, dim1, dim2))
    }),
    ("unfold", |c| one(c.tensor("input")?.unfold(c.int("dimension")?, c.size("size")?, c.size("step")?))),
    ("split", |c| {
        let dim = c.int_or("dim", 0)?;
        match c.get("split_size_or_sections") {
            Some(Arg::List(_)) => {
                many(c.tensor("input")?.split_with_sizes(&c.sizes("split_size_or_sections")?, dim))
            }
            _ => many(c.tensor("input")?.split(c.size("split_size_or_sections")?, dim)),
        }
    }),
    ("chunk", |c| many(c.tensor("input")?.chunk(c.size("chunks")?, c.int_or("dim", 0)?))),
    ("as_strided", |c| {
        let offset = c.opt_int("storage_offset")?.map(|_| c.size("storage_offset")).transpose()?;
        one(c.tensor("input")?.as_strided(c.ints("size")?, &c.ints("stride")?, offset))
    }),
    ("movedim", |c| one(c.tensor("input")?.movedim(c.ints("source")?, c.ints("destination")?))),
    ("roll", |c| one(c.tensor("input")?.roll(c.ints("shifts")?, c.ints_or("dims", &[])?))),
    ("rot90", |c| one(c.tensor("input")?.rot90(c.int_or("k", 1)?, c.ints_or("dims", &[0, 1])?))),
    ("diag", |c| one(c.tensor("input")?.diag(c.int_or("diagonal", 0)?))),
    ("diag_embed", |c| {
        let (dim1, dim2) = (c.int_or("dim1", -2)?, c.int_or("dim2", -1)?);
        one(c.tensor("input")?.diag_embed(c.int_or("offset", 0)?, dim1, dim2))
    }),
    ("pixel_shuffle", |c| one(c.tensor("input")?.pixel_shuffle(c.size("upscale_factor")?))),
    ("pixel_unshuffle", |c| one(c.tensor("input")?.pixel_unshuffle(c.size("downscale_factor")?))),
    ("unbind", |c| many(c.tensor("input")?.unbind(c.int_or("dim", 0)?))),
];
