//! Losses.

use wgrad::{CrossEntropyOptions, Reduction};

use super::{Table, one, reduction};
use crate::call::{Call, Outcome};

pub const OPS: Table = &[
    ("mse_loss", |c| one(c.tensor("input")?.mse_loss(&c.tensor("target")?, reduction(c)?))),
    ("l1_loss", |c| one(c.tensor("input")?.l1_loss(&c.tensor("target")?, reduction(c)?))),
    ("nll_loss", |c| one(c.tensor("input")?.nll_loss_with(&c.tensor("target")?, &options(c)?))),
    ("cross_entropy", |c| {
        let options = CrossEntropyOptions { label_smoothing: c.float("label_smoothing", 0.0)?, ..options(c)? };
        one(c.tensor("input")?.cross_entropy_with(&c.tensor("target")?, &options))
    }),
    ("binary_cross_entropy_with_logits", |c| {
        let (weight, positive) = (c.opt_tensor("weight")?, c.opt_tensor("pos_weight")?);
        let (target, reduction): (_, Reduction) = (c.tensor("target")?, reduction(c)?);
        let input = c.tensor("input")?;
        one(input.binary_cross_entropy_with_logits(&target, weight.as_ref(), positive.as_ref(), reduction))
    }),
];

fn options(c: &Call) -> Outcome<CrossEntropyOptions> {
    Ok(CrossEntropyOptions {
        weight: c.opt_tensor("weight")?,
        ignore_index: c.int_or("ignore_index", -100)? as i64,
        reduction: reduction(c)?,
        ..CrossEntropyOptions::default()
    })
}
