//! Losses.

use anyhow::Result;
use wgrad::Tensor;
use wgrad::nn::*;

use super::options::{Args, set};
use super::{Row, built, giving};
use crate::node::Node;

/// A loss with settings, tensors that are buffers, and the names of its inputs.
macro_rules! loss {
    ($loss:ident [$($buffer:ident),*] ($($input:literal),+) $(, $wish:ident: $with:ident)*) => {
        |a: &Args<'_, '_>| {
            let o = set!($loss::new().reduction(a.reduction()?), a $(, $wish: $with)*);
            $(let o = match a.tensor(stringify!($buffer))? {
                Some(tensor) => o.$buffer(&tensor),
                None => o,
            };)*
            giving(o, |loss, call| Ok(loss.forward($(call.input($input)?),+)?))
        }
    };
}

/// A distance by its name.
fn distance(node: &Node<'_>) -> Result<Distance> {
    let name = node.get("$distance")?;
    Ok(match name.text()? {
        "l1" => |a: &Tensor, b: &Tensor| a.sub(b)?.abs()?.sum_dim(-1, false),
        "l2" => |a: &Tensor, b: &Tensor| PairwiseDistance::new().forward(a, b),
        "cosine" => |a: &Tensor, b: &Tensor| CosineSimilarity::new().forward(a, b)?.rsub(1.0),
        _ => return name.unknown(),
    })
}

pub const LAYERS: &[Row] = &[
    ("L1Loss", loss!(L1Loss[]("input", "target"))),
    ("MSELoss", loss!(MSELoss[]("input", "target"))),
    ("SmoothL1Loss", loss!(SmoothL1Loss[]("input", "target"), beta: float)),
    ("HuberLoss", loss!(HuberLoss[]("input", "target"), delta: float)),
    (
        "CrossEntropyLoss",
        loss!(CrossEntropyLoss[weight]("input", "target"), ignore_index: index, label_smoothing: float),
    ),
    ("NLLLoss", loss!(NLLLoss[weight]("input", "target"), ignore_index: index)),
    ("BCELoss", loss!(BCELoss[weight]("input", "target"))),
    ("BCEWithLogitsLoss", loss!(BCEWithLogitsLoss[weight, pos_weight]("input", "target"))),
    ("KLDivLoss", |a| {
        let batchmean = a.read("reduction", |node| Ok(node.text()? == "batchmean"))?.unwrap_or(false);
        let o = set!(KLDivLoss::new().batchmean(batchmean), a, log_target: bool);
        let o = if batchmean { o } else { o.reduction(a.reduction()?) };
        giving(o, |loss, call| Ok(loss.forward(call.input("input")?, call.input("target")?)?))
    }),
    ("PoissonNLLLoss", loss!(PoissonNLLLoss[]("input", "target"), log_input: bool, full: bool, eps: float)),
    ("GaussianNLLLoss", loss!(GaussianNLLLoss[]("input", "target", "var"), full: bool, eps: float)),
    ("HingeEmbeddingLoss", loss!(HingeEmbeddingLoss[]("input", "target"), margin: float)),
    ("SoftMarginLoss", loss!(SoftMarginLoss[]("input", "target"))),
    ("MarginRankingLoss", loss!(MarginRankingLoss[]("input1", "input2", "target"), margin: float)),
    ("CosineEmbeddingLoss", loss!(CosineEmbeddingLoss[]("input1", "input2", "target"), margin: float)),
    (
        "TripletMarginLoss",
        loss!(TripletMarginLoss[]("anchor", "positive", "negative"), margin: float, p: float,
            eps: float, swap: bool),
    ),
    ("TripletMarginWithDistanceLoss", |a| {
        let mut o = TripletMarginWithDistanceLoss::new().reduction(a.reduction()?);
        if let Some(distance) = a.read("distance_function", distance)? {
            o = o.distance(distance);
        }
        giving(set!(o, a, margin: float, swap: bool), |loss, call| {
            Ok(loss.forward(call.input("anchor")?, call.input("positive")?, call.input("negative")?)?)
        })
    }),
    ("MultiMarginLoss", loss!(MultiMarginLoss[weight]("input", "target"), p: float, margin: float)),
    ("MultiLabelSoftMarginLoss", loss!(MultiLabelSoftMarginLoss[weight]("input", "target"))),
    ("MultiLabelMarginLoss", loss!(MultiLabelMarginLoss[]("input", "target"))),
    ("CTCLoss", |a| {
        let o = set!(CTCLoss::new().reduction(a.reduction()?), a, blank: size, zero_infinity: bool);
        giving(o, |loss, call| {
            let (inputs, targets) = (call.sizes("input_lengths")?, call.sizes("target_lengths")?);
            Ok(loss.forward(call.input("log_probs")?, call.input("targets")?, &inputs, &targets)?)
        })
    }),
    ("LinearCrossEntropyLoss", |a| {
        let o = LinearCrossEntropyLoss::options(a.size("in_features")?, a.size("num_classes")?);
        let o = o.reduction(a.reduction()?).weight(a.tensor("weight")?);
        let o = set!(o, a, out_features: sizes, bias: bool, ignore_index: index, label_smoothing: float);
        giving(
            o.build(a.device)?,
            |loss, call| Ok(loss.forward(call.input("input")?, call.input("target")?)?),
        )
    }),
    ("AdaptiveLogSoftmaxWithLoss", |a| {
        let (width, classes) = (a.size("in_features")?, a.size("n_classes")?);
        let o = AdaptiveLogSoftmaxWithLoss::options(width, classes, a.sizes("cutoffs")?);
        let o = set!(o, a, div_value: float, head_bias: bool);
        built(o.build(a.device)?, |layer, call| {
            let (output, loss) = layer.forward(call.input("input")?, call.input("target_")?)?;
            Ok(vec![Some(output), Some(loss)])
        })
    }),
];
