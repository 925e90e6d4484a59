//! Layers of images, lists and single vectors.

use anyhow::Result;
use wgrad::Interpolation;
use wgrad::nn::*;

use super::options::{self, Args, set};
use super::{Built, Row, built, giving, layer};
use crate::node::Node;

/// A convolution.
macro_rules! conv {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::options(a.size("in_channels")?, a.size("out_channels")?, a.sizes("kernel_size")?);
            let mut o = set!(o, a, stride: sizes, dilation: sizes, groups: size, bias: bool);
            if let Some(padding) = a.node.find("padding") {
                o = match padding.json().as_str() {
                    Some("same") => o.same_padding(true),
                    Some("valid") => o.padding(0),
                    Some(_) => return padding.unknown(),
                    None => o.padding(options::sizes(&padding)?),
                };
            }
            if let Some(mode) = a.read("padding_mode", padding_mode)? {
                o = o.padding_mode(mode);
            }
            layer(o.build(a.device)?)
        }
    };
}

fn padding_mode(node: &Node<'_>) -> Result<PaddingMode> {
    match node.text()? {
        "zeros" => Ok(PaddingMode::Zeros),
        "reflect" => Ok(PaddingMode::Reflect),
        "replicate" => Ok(PaddingMode::Replicate),
        "circular" => Ok(PaddingMode::Circular),
        _ => node.unknown(),
    }
}

macro_rules! conv_transpose {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::options(a.size("in_channels")?, a.size("out_channels")?, a.sizes("kernel_size")?);
            let o = set!(o, a, stride: sizes, padding: sizes, output_padding: sizes, dilation: sizes);
            let o = set!(o, a, groups: size, bias: bool);
            giving(o.build(a.device)?, |layer, call| {
                let input = call.input("input")?;
                Ok(match call.args.read("output_size", options::sizes)? {
                    Some(size) => layer.forward_to(input, size)?,
                    None => layer.forward(input)?,
                })
            })
        }
    };
}

/// Maxima, with their places if they are asked for.
macro_rules! maxima {
    ($a:ident, $pool:expr) => {{
        let (pool, places) = ($pool, $a.bool("return_indices", false)?);
        built(pool, move |pool, call| {
            let input = call.input("input")?;
            if !places {
                return Ok(vec![Some(pool.forward(input)?)]);
            }
            let (values, places) = pool.forward_with_indices(input)?;
            Ok(vec![Some(values), Some(places)])
        })
    }};
}

macro_rules! max_pool {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::new(a.sizes("kernel_size")?);
            maxima!(a, set!(o, a, stride: sizes, padding: sizes, dilation: sizes, ceil_mode: bool))
        }
    };
}

macro_rules! avg_pool {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::new(a.sizes("kernel_size")?);
            let o = set!(o, a, stride: sizes, padding: sizes, ceil_mode: bool, count_include_pad: bool);
            layer(set!(o, a, divisor_override: int))
        }
    };
}

macro_rules! lp_pool {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::new(a.float("norm_type")?, a.sizes("kernel_size")?);
            layer(set!(o, a, stride: sizes, ceil_mode: bool))
        }
    };
}

macro_rules! unpool {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = set!($layer::new(a.sizes("kernel_size")?), a, stride: sizes, padding: sizes);
            giving(o, |layer, call| Ok(layer.forward(call.input("input")?, call.input("indices")?)?))
        }
    };
}

macro_rules! channel_norm {
    ($layer:ident) => {
        |a: &Args<'_, '_>| {
            let o = $layer::options(a.size("num_features")?);
            let o = set!(o, a, eps: float, momentum: maybe_float, affine: bool, track_running_stats: bool);
            layer(o.build(a.device)?)
        }
    };
}

/// A layer whose options are all settings.
macro_rules! plain {
    ($layer:ident) => {
        |_: &Args<'_, '_>| layer($layer::new())
    };
    ($layer:ident $(($($needed:ident: $read:ident),*))? $(, $wish:ident: $with:ident)*) => {
        |a: &Args<'_, '_>| {
            layer(set!($layer::new($($(a.$read(stringify!($needed))?),*)?), a $(, $wish: $with)*))
        }
    };
}

macro_rules! pad {
    ($layer:ident) => {
        |a: &Args<'_, '_>| layer($layer::new(a.margins()?))
    };
}

macro_rules! constant_pad {
    ($layer:ident) => {
        |a: &Args<'_, '_>| layer($layer::new(a.margins()?, a.float("value")?))
    };
}

macro_rules! dropout {
    ($layer:ident) => {
        |a: &Args<'_, '_>| layer($layer::new(a.read("p", options::float)?.unwrap_or(0.5)))
    };
}

pub const LAYERS: &[Row] = &[
    ("Linear", |a| {
        let o = Linear::options(a.size("in_features")?, a.size("out_features")?);
        layer(set!(o, a, bias: bool).build(a.device)?)
    }),
    ("Identity", plain!(Identity)),
    ("Bilinear", |a| {
        let (x1, x2) = (a.size("in1_features")?, a.size("in2_features")?);
        let o = set!(Bilinear::options(x1, x2, a.size("out_features")?), a, bias: bool);
        giving(o.build(a.device)?, |layer, call| {
            Ok(layer.forward(call.input("input1")?, call.input("input2")?)?)
        })
    }),
    ("Embedding", |a| {
        let o = Embedding::options(a.size("num_embeddings")?, a.size("embedding_dim")?);
        let o = set!(o, a, padding_idx: int, max_norm: float, norm_type: float, scale_grad_by_freq: bool);
        layer(o.build(a.device)?)
    }),
    ("EmbeddingBag", embedding_bag),
    ("Dropout", dropout!(Dropout)),
    ("Dropout1d", dropout!(Dropout1d)),
    ("Dropout2d", dropout!(Dropout2d)),
    ("Dropout3d", dropout!(Dropout3d)),
    ("AlphaDropout", dropout!(AlphaDropout)),
    ("FeatureAlphaDropout", dropout!(FeatureAlphaDropout)),
    ("Conv1d", conv!(Conv1d)),
    ("Conv2d", conv!(Conv2d)),
    ("Conv3d", conv!(Conv3d)),
    ("ConvTranspose1d", conv_transpose!(ConvTranspose1d)),
    ("ConvTranspose2d", conv_transpose!(ConvTranspose2d)),
    ("ConvTranspose3d", conv_transpose!(ConvTranspose3d)),
    ("MaxPool1d", max_pool!(MaxPool1d)),
    ("MaxPool2d", max_pool!(MaxPool2d)),
    ("MaxPool3d", max_pool!(MaxPool3d)),
    ("AvgPool1d", avg_pool!(AvgPool1d)),
    ("AvgPool2d", avg_pool!(AvgPool2d)),
    ("AvgPool3d", avg_pool!(AvgPool3d)),
    ("AdaptiveAvgPool1d", |a| layer(AdaptiveAvgPool1d::new(a.output_size()?))),
    ("AdaptiveAvgPool2d", |a| layer(AdaptiveAvgPool2d::new(a.output_size()?))),
    ("AdaptiveAvgPool3d", |a| layer(AdaptiveAvgPool3d::new(a.output_size()?))),
    ("AdaptiveMaxPool1d", |a| maxima!(a, AdaptiveMaxPool1d::new(a.output_size()?))),
    ("AdaptiveMaxPool2d", |a| maxima!(a, AdaptiveMaxPool2d::new(a.output_size()?))),
    ("AdaptiveMaxPool3d", |a| maxima!(a, AdaptiveMaxPool3d::new(a.output_size()?))),
    ("LPPool1d", lp_pool!(LPPool1d)),
    ("LPPool2d", lp_pool!(LPPool2d)),
    ("LPPool3d", lp_pool!(LPPool3d)),
    ("MaxUnpool1d", unpool!(MaxUnpool1d)),
    ("MaxUnpool2d", unpool!(MaxUnpool2d)),
    ("MaxUnpool3d", unpool!(MaxUnpool3d)),
    ("BatchNorm1d", channel_norm!(BatchNorm1d)),
    ("BatchNorm2d", channel_norm!(BatchNorm2d)),
    ("BatchNorm3d", channel_norm!(BatchNorm3d)),
    ("InstanceNorm1d", channel_norm!(InstanceNorm1d)),
    ("InstanceNorm2d", channel_norm!(InstanceNorm2d)),
    ("InstanceNorm3d", channel_norm!(InstanceNorm3d)),
    ("LayerNorm", |a| {
        let o = LayerNorm::options(a.sizes("normalized_shape")?);
        layer(set!(o, a, eps: float, elementwise_affine: bool, bias: bool).build(a.device)?)
    }),
    ("RMSNorm", |a| {
        let o = RMSNorm::options(a.sizes("normalized_shape")?);
        layer(set!(o, a, eps: maybe_float, elementwise_affine: bool).build(a.device)?)
    }),
    ("GroupNorm", |a| {
        let o = GroupNorm::options(a.size("num_groups")?, a.size("num_channels")?);
        layer(set!(o, a, eps: float, affine: bool).build(a.device)?)
    }),
    ("LocalResponseNorm", plain!(LocalResponseNorm(size: size), alpha: float, beta: float, k: float)),
    ("CELU", plain!(CELU, alpha: float)),
    ("ELU", plain!(ELU, alpha: float)),
    ("GELU", |a| {
        let tanh = a.read("approximate", |node| match node.text()? {
            "none" => Ok(false),
            "tanh" => Ok(true),
            _ => node.unknown(),
        })?;
        layer(GELU::new().tanh(tanh.unwrap_or(false)))
    }),
    ("GLU", plain!(GLU, dim: int)),
    ("Hardshrink", plain!(Hardshrink, lambd: float)),
    ("Hardsigmoid", plain!(Hardsigmoid)),
    ("Hardswish", plain!(Hardswish)),
    ("Hardtanh", plain!(Hardtanh, min_val: float, max_val: float)),
    ("LeakyReLU", plain!(LeakyReLU, negative_slope: float)),
    ("LogSigmoid", plain!(LogSigmoid)),
    ("LogSoftmax", plain!(LogSoftmax(dim: int))),
    ("Mish", plain!(Mish)),
    ("ReLU", plain!(ReLU)),
    ("ReLU6", plain!(ReLU6)),
    ("SELU", plain!(SELU)),
    ("SiLU", plain!(SiLU)),
    ("Sigmoid", plain!(Sigmoid)),
    ("Softmax", plain!(Softmax(dim: int))),
    ("Softmax2d", plain!(Softmax2d)),
    ("Softmin", plain!(Softmin(dim: int))),
    ("Softplus", plain!(Softplus, beta: float, threshold: float)),
    ("Softshrink", plain!(Softshrink, lambd: float)),
    ("Softsign", plain!(Softsign)),
    ("Tanh", plain!(Tanh)),
    ("Tanhshrink", plain!(Tanhshrink)),
    ("Threshold", plain!(Threshold(threshold: float, value: float))),
    ("PReLU", |a| layer(set!(PReLU::options(), a, num_parameters: size, init: float).build(a.device)?)),
    ("RReLU", plain!(RReLU, lower: float, upper: float)),
    ("Upsample", |a| {
        let enlarge = a.enlarge()?;
        let enlarge = if a.bool("recompute_scale_factor", false)? { enlarge.recomputed() } else { enlarge };
        let mode = a.read("mode", interpolation)?.unwrap_or(Interpolation::Nearest);
        layer(set!(Upsample::new(enlarge).mode(mode), a, align_corners: bool))
    }),
    ("UpsamplingNearest2d", |a| layer(UpsamplingNearest2d::new(a.enlarge()?))),
    ("UpsamplingBilinear2d", |a| layer(UpsamplingBilinear2d::new(a.enlarge()?))),
    ("PixelShuffle", plain!(PixelShuffle(upscale_factor: size))),
    ("PixelUnshuffle", plain!(PixelUnshuffle(downscale_factor: size))),
    ("ChannelShuffle", plain!(ChannelShuffle(groups: size))),
    ("Flatten", plain!(Flatten, start_dim: int, end_dim: int)),
    ("Unflatten", |a| {
        let sizes = a.node.get("unflattened_size")?.list(options::int)?;
        layer(Unflatten::new(a.int("dim")?, sizes))
    }),
    ("Fold", |a| {
        let o = Fold::new(a.sizes("output_size")?, a.sizes("kernel_size")?);
        layer(set!(o, a, dilation: sizes, padding: sizes, stride: sizes))
    }),
    ("Unfold", plain!(Unfold(kernel_size: sizes), dilation: sizes, padding: sizes, stride: sizes)),
    ("ZeroPad1d", pad!(ZeroPad1d)),
    ("ZeroPad2d", pad!(ZeroPad2d)),
    ("ZeroPad3d", pad!(ZeroPad3d)),
    ("ReflectionPad1d", pad!(ReflectionPad1d)),
    ("ReflectionPad2d", pad!(ReflectionPad2d)),
    ("ReflectionPad3d", pad!(ReflectionPad3d)),
    ("ReplicationPad1d", pad!(ReplicationPad1d)),
    ("ReplicationPad2d", pad!(ReplicationPad2d)),
    ("ReplicationPad3d", pad!(ReplicationPad3d)),
    ("CircularPad1d", pad!(CircularPad1d)),
    ("CircularPad2d", pad!(CircularPad2d)),
    ("CircularPad3d", pad!(CircularPad3d)),
    ("ConstantPad1d", constant_pad!(ConstantPad1d)),
    ("ConstantPad2d", constant_pad!(ConstantPad2d)),
    ("ConstantPad3d", constant_pad!(ConstantPad3d)),
    ("CosineSimilarity", |a| {
        let o = set!(CosineSimilarity::new(), a, dim: int, eps: float);
        giving(o, |layer, call| Ok(layer.forward(call.input("x1")?, call.input("x2")?)?))
    }),
    ("PairwiseDistance", |a| {
        let o = set!(PairwiseDistance::new(), a, p: float, eps: float, keepdim: bool);
        giving(o, |layer, call| Ok(layer.forward(call.input("x1")?, call.input("x2")?)?))
    }),
];

fn interpolation(node: &Node<'_>) -> Result<Interpolation> {
    match node.text()? {
        "nearest" => Ok(Interpolation::Nearest),
        "nearest-exact" => Ok(Interpolation::NearestExact),
        "linear" | "bilinear" | "trilinear" => Ok(Interpolation::Linear),
        "bicubic" => Ok(Interpolation::Bicubic),
        _ => node.unknown(),
    }
}

fn embedding_bag(a: &Args<'_, '_>) -> Result<Built> {
    let o = EmbeddingBag::options(a.size("num_embeddings")?, a.size("embedding_dim")?);
    let mut o = set!(
        o, a, padding_idx: int, max_norm: float, norm_type: float, scale_grad_by_freq: bool,
        include_last_offset: bool
    );
    if let Some(mode) = a.node.find("mode") {
        o = o.mode(match mode.text()? {
            "sum" => BagMode::Sum,
            "mean" => BagMode::Mean,
            "max" => BagMode::Max,
            _ => return mode.unknown(),
        });
    }
    giving(o.build(a.device)?, |layer, call| {
        let (input, weights) = (call.input("input")?, call.find("per_sample_weights"));
        Ok(match (call.find("offsets"), weights) {
            (Some(offsets), weights) => layer.forward_bags(input, offsets, weights)?,
            (None, Some(weights)) => layer.forward_weighted(input, weights)?,
            (None, None) => layer.forward(input)?,
        })
    })
}
