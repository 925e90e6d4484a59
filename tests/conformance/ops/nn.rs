//! What networks are made of.

use wgrad::{BatchNormOptions, Result, Tensor};

use super::{Table, input_as, one};
use crate::call::{Call, Outcome, unclear};

pub const OPS: Table = &[
    ("softmax", |c| one(input_as(c, "input")?.softmax(c.int("dim")?))),
    ("log_softmax", |c| one(input_as(c, "input")?.log_softmax(c.int("dim")?))),
    ("group_norm", |c| {
        let (weight, bias) = (c.opt_tensor("weight")?, c.opt_tensor("bias")?);
        let (groups, eps) = (c.size("num_groups")?, c.float("eps", 1e-5)?);
        one(c.tensor("input")?.group_norm(groups, weight.as_ref(), bias.as_ref(), eps))
    }),
    ("rms_norm", |c| {
        let weight = c.opt_tensor("weight")?;
        one(c.tensor("input")?.rms_norm(c.ints("normalized_shape")?, weight.as_ref(), c.opt_float("eps")?))
    }),
    ("batch_norm", |c| {
        let training = c.flag("training", false)?;
        with_statistics(c, training, |input, options| input.batch_norm(training, options))
    }),
    ("instance_norm", |c| {
        let own = c.flag("use_input_stats", true)?;
        with_statistics(c, own, |input, options| input.instance_norm(own, options))
    }),
    ("local_response_norm", |c| {
        let (alpha, beta, k) = (c.float("alpha", 1e-4)?, c.float("beta", 0.75)?, c.float("k", 1.0)?);
        one(c.tensor("input")?.local_response_norm(c.size("size")?, alpha, beta, k))
    }),
    ("dropout", |c| one(c.tensor("input")?.dropout(c.float("p", 0.5)?, c.flag("training", true)?))),
    ("scaled_dot_product_attention", |c| {
        let (key, value, mask) = (c.tensor("key")?, c.tensor("value")?, c.opt_tensor("attn_mask")?);
        let (causal, scale, gqa) =
            (c.flag("is_causal", false)?, c.opt_float("scale")?, c.flag("enable_gqa", false)?);
        if c.float("dropout_p", 0.0)? != 0.0 {
            return unclear("dropout_p", "not 0, which leaves the result to chance");
        }
        one(c.tensor("query")?.scaled_dot_product_attention(&key, &value, mask.as_ref(), causal, scale, gqa))
    }),
    ("layer_norm", |c| {
        let (weight, bias) = (c.opt_tensor("weight")?, c.opt_tensor("bias")?);
        let (shape, eps) = (c.ints("normalized_shape")?, c.float("eps", 1e-5)?);
        one(c.tensor("input")?.layer_norm(shape, weight.as_ref(), bias.as_ref(), eps))
    }),
];

/// A normalisation whose running statistics are further outputs where they move.
fn with_statistics(
    c: &Call,
    moves: bool,
    norm: impl FnOnce(&Tensor, &BatchNormOptions) -> Result<Tensor>,
) -> Outcome {
    // They are moved in place: the case's own tensors stay as they are.
    let copy = |name: &str| {
        Ok::<_, crate::call::Stop>(match c.opt_tensor(name)? {
            Some(tensor) => Some(tensor.detach().deep_clone()?),
            None => None,
        })
    };
    let options = BatchNormOptions {
        running_mean: if moves { copy("running_mean")? } else { c.opt_tensor("running_mean")? },
        running_var: if moves { copy("running_var")? } else { c.opt_tensor("running_var")? },
        weight: c.opt_tensor("weight")?,
        bias: c.opt_tensor("bias")?,
        momentum: c.float("momentum", 0.1)?,
        eps: c.float("eps", 1e-5)?,
    };
    let mut outputs = vec![norm(&c.tensor("input")?, &options)?];
    if moves {
        outputs.extend([options.running_mean, options.running_var].into_iter().flatten());
    }
    Ok(outputs)
}
