//! Convolution, pooling and windows.

use wgrad::{ConvOptions, Padding, PoolOptions, Result, Tensor};

use super::{Table, one};
use crate::call::{Arg, Call, Outcome, integer, not, unclear};

pub const OPS: Table = &[
    ("conv1d", |c| conv(c, 1)),
    ("conv2d", |c| conv(c, 2)),
    ("conv3d", |c| conv(c, 3)),
    ("conv_transpose1d", |c| conv_transpose(c, 1)),
    ("conv_transpose2d", |c| conv_transpose(c, 2)),
    ("conv_transpose3d", |c| conv_transpose(c, 3)),
    ("max_pool1d", |c| max_pool(c, Tensor::max_pool1d)),
    ("max_pool2d", |c| max_pool(c, Tensor::max_pool2d)),
    ("avg_pool1d", |c| one(c.tensor("input")?.avg_pool1d(&avg_options(c)?))),
    ("avg_pool2d", |c| {
        let divisor_override = match c.get("divisor_override") {
            Some(_) => Some(c.int("divisor_override")?),
            None => None,
        };
        one(c.tensor("input")?.avg_pool2d(&PoolOptions { divisor_override, ..avg_options(c)? }))
    }),
    ("adaptive_avg_pool1d", |c| match c.sizes("output_size")?.as_slice() {
        &[size] => one(c.tensor("input")?.adaptive_avg_pool1d(size)),
        _ => unclear("output_size", "not one size"),
    }),
    ("adaptive_avg_pool2d", |c| one(c.tensor("input")?.adaptive_avg_pool2d(output_sizes(c)?))),
    ("adaptive_max_pool2d", |c| {
        let (values, places) = c.tensor("input")?.adaptive_max_pool2d(output_sizes(c)?)?;
        with_places(c, values, places)
    }),
    ("F.unfold", |c| {
        let (window, dilation) = (c.sizes("kernel_size")?, c.sizes_or("dilation", &[1])?);
        let (padding, stride) = (c.sizes_or("padding", &[0])?, c.sizes_or("stride", &[1])?);
        one(c.tensor("input")?.im2col(&window, &dilation, &padding, &stride))
    }),
    ("F.fold", |c| {
        let (output, window) = (c.sizes("output_size")?, c.sizes("kernel_size")?);
        let (padding, stride) = (c.sizes_or("padding", &[0])?, c.sizes_or("stride", &[1])?);
        one(c.tensor("input")?.col2im(&output, &window, &c.sizes_or("dilation", &[1])?, &padding, &stride))
    }),
];

fn options(c: &Call) -> Outcome<ConvOptions> {
    let padding = match c.get("padding") {
        Some(Arg::Text(text)) => match text.as_str() {
            "same" => Padding::Same,
            "valid" => Padding::Valid,
            other => return unclear("padding", other),
        },
        _ => Padding::Explicit(c.sizes_or("padding", &[0])?),
    };
    let groups = if c.get("groups").is_some() { c.size("groups")? } else { 1 };
    let (stride, dilation) = (c.sizes_or("stride", &[1])?, c.sizes_or("dilation", &[1])?);
    Ok(ConvOptions { stride, padding, dilation, groups, ..ConvOptions::default() })
}

fn conv(c: &Call, dims: usize) -> Outcome {
    let (input, weight, bias, options) =
        (c.tensor("input")?, c.tensor("weight")?, c.opt_tensor("bias")?, options(c)?);
    match dims {
        1 => one(input.conv1d(&weight, bias.as_ref(), &options)),
        2 => one(input.conv2d(&weight, bias.as_ref(), &options)),
        _ => one(input.conv3d(&weight, bias.as_ref(), &options)),
    }
}

fn conv_transpose(c: &Call, dims: usize) -> Outcome {
    let options = ConvOptions { output_padding: c.sizes_or("output_padding", &[0])?, ..options(c)? };
    let (input, weight, bias) = (c.tensor("input")?, c.tensor("weight")?, c.opt_tensor("bias")?);
    match dims {
        1 => one(input.conv_transpose1d(&weight, bias.as_ref(), &options)),
        2 => one(input.conv_transpose2d(&weight, bias.as_ref(), &options)),
        _ => one(input.conv_transpose3d(&weight, bias.as_ref(), &options)),
    }
}

fn pool_options(c: &Call) -> Outcome<PoolOptions> {
    let mut options = PoolOptions::new(&c.sizes("kernel_size")?);
    options.stride = c.sizes_or("stride", &[])?;
    options.padding = c.sizes_or("padding", &[0])?;
    options.ceil_mode = c.flag("ceil_mode", false)?;
    Ok(options)
}

fn avg_options(c: &Call) -> Outcome<PoolOptions> {
    Ok(PoolOptions { count_include_pad: c.flag("count_include_pad", true)?, ..pool_options(c)? })
}

fn max_pool(c: &Call, pool: fn(&Tensor, &PoolOptions) -> Result<(Tensor, Tensor)>) -> Outcome {
    let options = PoolOptions { dilation: c.sizes_or("dilation", &[1])?, ..pool_options(c)? };
    let (values, places) = pool(&c.tensor("input")?, &options)?;
    with_places(c, values, places)
}

fn with_places(c: &Call, values: Tensor, places: Tensor) -> Outcome {
    Ok(if c.flag("return_indices", false)? { vec![values, places] } else { vec![values] })
}

/// Two sizes, or one for both; null keeps a size.
fn output_sizes(c: &Call) -> Outcome<[Option<usize>; 2]> {
    let size = |arg: &Arg| match arg {
        Arg::Null => Ok(None),
        arg => match integer(arg).map(usize::try_from) {
            Some(Ok(size)) => Ok(Some(size)),
            _ => Err(not("output_size", "made of sizes")),
        },
    };
    match c.get("output_size") {
        Some(Arg::List(items)) if items.len() == 2 => Ok([size(&items[0])?, size(&items[1])?]),
        Some(Arg::List(items)) if items.len() == 1 => Ok([size(&items[0])?; 2]),
        Some(single) => Ok([size(single)?; 2]),
        None => Ok([None; 2]),
    }
}
