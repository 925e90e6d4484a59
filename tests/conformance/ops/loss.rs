//! Losses.

use wgrad::{CrossEntropyOptions, DType, Reduction};

use super::{Table, one, reduction};
use crate::call::{Arg, Call, Outcome, not};

pub const OPS: Table = &[
    ("mse_loss", |c| one(c.tensor("input")?.mse_loss(&c.tensor("target")?, reduction(c)?))),
    ("l1_loss", |c| one(c.tensor("input")?.l1_loss(&c.tensor("target")?, reduction(c)?))),
    ("nll_loss", |c| one(c.tensor("input")?.nll_loss_with(&c.tensor("target")?, &options(c)?))),
    ("cross_entropy", |c| {
        let options =
            CrossEntropyOptions { label_smoothing: c.float("label_smoothing", 0.0)?, ..options(c)? };
        one(c.tensor("input")?.cross_entropy_with(&c.tensor("target")?, &options))
    }),
    ("huber_loss", |c| {
        one(c.tensor("input")?.huber_loss(&c.tensor("target")?, reduction(c)?, c.float("delta", 1.0)?))
    }),
    ("smooth_l1_loss", |c| {
        one(c.tensor("input")?.smooth_l1_loss(&c.tensor("target")?, reduction(c)?, c.float("beta", 1.0)?))
    }),
    ("binary_cross_entropy", |c| {
        let weight = c.opt_tensor("weight")?;
        one(c.tensor("input")?.binary_cross_entropy(&c.tensor("target")?, weight.as_ref(), reduction(c)?))
    }),
    ("kl_div", |c| {
        let (input, target, log_target) =
            (c.tensor("input")?, c.tensor("target")?, c.flag("log_target", false)?);
        if c.text("reduction", "mean")? == "batchmean" {
            return one(input.kl_div_batchmean(&target, log_target));
        }
        one(input.kl_div(&target, reduction(c)?, log_target))
    }),
    ("gaussian_nll_loss", |c| {
        let (full, eps) = (c.flag("full", false)?, c.float("eps", 1e-6)?);
        one(c.tensor("input")?.gaussian_nll_loss(
            &c.tensor("target")?,
            &c.tensor("var")?,
            full,
            eps,
            reduction(c)?,
        ))
    }),
    ("poisson_nll_loss", |c| {
        let (log_input, full) = (c.flag("log_input", true)?, c.flag("full", false)?);
        let (eps, target) = (c.float("eps", 1e-8)?, c.tensor("target")?);
        one(c.tensor("input")?.poisson_nll_loss(&target, log_input, full, eps, reduction(c)?))
    }),
    ("hinge_embedding_loss", |c| {
        one(c.tensor("input")?.hinge_embedding_loss(
            &c.tensor("target")?,
            c.float("margin", 1.0)?,
            reduction(c)?,
        ))
    }),
    ("margin_ranking_loss", |c| {
        let (input2, target) = (c.tensor("input2")?, c.tensor("target")?);
        one(c.tensor("input1")?.margin_ranking_loss(&input2, &target, c.float("margin", 0.0)?, reduction(c)?))
    }),
    ("triplet_margin_loss", |c| {
        let (positive, negative) = (c.tensor("positive")?, c.tensor("negative")?);
        let (margin, p, eps) = (c.float("margin", 1.0)?, c.float("p", 2.0)?, c.float("eps", 1e-6)?);
        let swap = c.flag("swap", false)?;
        one(c.tensor("anchor")?.triplet_margin_loss(
            &positive,
            &negative,
            margin,
            p,
            eps,
            swap,
            reduction(c)?,
        ))
    }),
    ("cosine_embedding_loss", |c| {
        let (input2, target) = (c.tensor("input2")?, c.tensor("target")?);
        one(c.tensor("input1")?.cosine_embedding_loss(
            &input2,
            &target,
            c.float("margin", 0.0)?,
            reduction(c)?,
        ))
    }),
    ("ctc_loss", |c| {
        let (inputs, targets) = (lengths(c, "input_lengths")?, lengths(c, "target_lengths")?);
        let (blank, zero_infinity) = (c.int_or("blank", 0)?, c.flag("zero_infinity", false)?);
        let blank = usize::try_from(blank).map_err(|_| not("blank", "a size: it is negative"))?;
        let target = c.tensor("targets")?;
        one(c.tensor("log_probs")?.ctc_loss(&target, inputs, targets, blank, reduction(c)?, zero_infinity))
    }),
    ("soft_margin_loss", |c| one(c.tensor("input")?.soft_margin_loss(&c.tensor("target")?, reduction(c)?))),
    ("multilabel_soft_margin_loss", |c| {
        let weight = c.opt_tensor("weight")?;
        one(c.tensor("input")?.multilabel_soft_margin_loss(
            &c.tensor("target")?,
            weight.as_ref(),
            reduction(c)?,
        ))
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

/// Lengths: a list or a tensor.
fn lengths(c: &Call, name: &str) -> Outcome<Vec<isize>> {
    match c.get(name) {
        Some(Arg::Tensor(tensor)) => {
            let numbers = tensor.to_dtype(DType::I64)?.to_vec::<i64>()?;
            Ok(numbers.into_iter().map(|length| length as isize).collect())
        }
        _ => c.ints(name),
    }
}
