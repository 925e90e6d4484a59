//! What networks are made of.

use wgrad::{BatchNormOptions, FftNorm, GridPadding, GridSampling, Interpolation, Result, Scale, Tensor};

use super::{Table, input_as, one};
use crate::call::{Arg, Call, Outcome, not, unclear};

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
    ("interpolate", interpolate),
    ("fft.fft", |c| one(c.tensor("input")?.fft(points(c)?, c.int_or("dim", -1)?, fft_norm(c)?))),
    ("fft.ifft", |c| one(c.tensor("input")?.ifft(points(c)?, c.int_or("dim", -1)?, fft_norm(c)?))),
    ("fft.rfft", |c| one(c.tensor("input")?.rfft(points(c)?, c.int_or("dim", -1)?, fft_norm(c)?))),
    ("fft.irfft", |c| one(c.tensor("input")?.irfft(points(c)?, c.int_or("dim", -1)?, fft_norm(c)?))),
    ("grid_sample", |c| {
        let mode = match c.text("mode", "bilinear")?.as_str() {
            "bilinear" => GridSampling::Bilinear,
            "nearest" => GridSampling::Nearest,
            "bicubic" => GridSampling::Bicubic,
            other => return unclear("mode", &format!("{other:?}")),
        };
        let padding = match c.text("padding_mode", "zeros")?.as_str() {
            "zeros" => GridPadding::Zeros,
            "border" => GridPadding::Border,
            "reflection" => GridPadding::Reflection,
            other => return unclear("padding_mode", &format!("{other:?}")),
        };
        let align_corners = c.flag("align_corners", false)?;
        one(c.tensor("input")?.grid_sample(&c.tensor("grid")?, mode, padding, align_corners))
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

/// The number of points of a transform, where it is given.
fn points(c: &Call) -> Outcome<Option<usize>> {
    c.get("n").map(|_| c.size("n")).transpose()
}

fn fft_norm(c: &Call) -> Outcome<FftNorm> {
    match c.text("norm", "backward")?.as_str() {
        "backward" => Ok(FftNorm::Backward),
        "ortho" => Ok(FftNorm::Ortho),
        "forward" => Ok(FftNorm::Forward),
        other => unclear("norm", other),
    }
}

fn interpolate(c: &Call) -> Outcome {
    let input = c.tensor("input")?;
    let mode = match (c.text("mode", "nearest")?.as_str(), input.rank()) {
        ("nearest", _) => Interpolation::Nearest,
        ("nearest-exact", _) => Interpolation::NearestExact,
        ("linear", 3) | ("bilinear", 4) | ("trilinear", 5) => Interpolation::Linear,
        ("bicubic", _) => Interpolation::Bicubic,
        ("area", _) => Interpolation::Area,
        (other, _) => return unclear("mode", other),
    };
    let recompute = c.flag("recompute_scale_factor", false)?;
    let align_corners = c.flag("align_corners", false)?;
    let factor = |arg: &Arg| match arg {
        Arg::Int(n) => Ok(*n as f64),
        Arg::Float(x) => Ok(*x),
        _ => Err(not("scale_factor", "a number")),
    };
    let scale = match (c.get("size"), c.get("scale_factor")) {
        (Some(_), None) => Scale::Size(c.sizes("size")?),
        (None, Some(Arg::List(factors))) => {
            Scale::Factor(factors.iter().map(factor).collect::<Outcome<_>>()?, recompute)
        }
        (None, Some(single)) => Scale::Factor(vec![factor(single)?], recompute),
        _ => return unclear("size", "given with a factor, or without one"),
    };
    one(input.interpolate(&scale, mode, align_corners))
}
