//! Initialisers, and layers as they are made, as distributions.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wgrad::nn::init::{self, Fan, Kaiming, Nonlinearity};
use wgrad::{Device, Tensor};

use super::layers::{self, options::Args};
use crate::case::Case;
use crate::node::{Node, float};
use crate::recorded::numbers::{Numbers, Values};
use crate::report::{Outcome, Report};
use crate::tree::Tree;

/// How many numbers are drawn in all to check a distribution.
const SAMPLES: usize = 8000;
/// Layers of which the parameters are read together.
const TOGETHER: usize = 64;

/// Draws so many tensors.
type Draw<'d> = dyn FnMut(usize) -> Result<Vec<Tensor>> + 'd;

pub fn run(case: &Case<'_>, device: &Device) -> Result<Outcome> {
    let body = &case.body;
    body.read("fans", |fans| fans.list(Node::size))?;
    if let Some(gain) = body.find("gain") {
        let args = body.get("args")?.list(Node::float)?;
        let nonlinearity = nonlinearity(&gain, args.first().copied().unwrap_or(0.01))?;
        ensure!(args.len() <= 1, "{args:?} are more arguments than the runner knows");
        return Ok(case.compare(&Tree::Number(init::calculate_gain(nonlinearity)))?.into());
    }
    let mut report = Report::default();
    if let Some(function) = body.find("function") {
        let shape = body.get("shape")?.list(Node::size)?;
        let args = body.get("args")?;
        let mut draw = |count: usize| {
            (0..count).map(|_| fill(&function, &Tensor::empty(&shape, device)?, &args)).collect()
        };
        check(&mut report, "", &mut draw, case.expect)?;
        return Ok(report.into());
    }
    let name = body.get("layer")?.text()?;
    let make = || {
        let args = Args { node: body.get("args")?, case, device };
        Ok::<_, anyhow::Error>(layers::build(name, &args)?.module.named_parameters())
    };
    let expected = case.expect.as_object().context("no parameters are expected")?;
    let mut names: Vec<String> = make()?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    ensure!(names.iter().eq(expected.keys()), "the parameters are {names:?}");
    for (name, want) in expected {
        let mut draw = |count: usize| {
            let one = || make()?.into_iter().find(|(known, _)| known == name).context("a parameter is gone");
            (0..count).map(|_| Ok(one()?.1)).collect()
        };
        check(&mut report, name, &mut draw, want)?;
    }
    Ok(report.into())
}

fn nonlinearity(node: &Node<'_>, slope: f64) -> Result<Nonlinearity> {
    Ok(match node.text()? {
        "linear" | "conv1d" | "conv2d" | "conv3d" | "conv_transpose1d" | "conv_transpose2d"
        | "conv_transpose3d" => Nonlinearity::Linear,
        "sigmoid" => Nonlinearity::Sigmoid,
        "tanh" => Nonlinearity::Tanh,
        "relu" => Nonlinearity::ReLU,
        "leaky_relu" => Nonlinearity::LeakyReLU(slope),
        "selu" => Nonlinearity::SELU,
        _ => return node.unknown(),
    })
}

/// Writes to a tensor what a function of `torch.nn.init` with these arguments writes.
fn fill(function: &Node<'_>, x: &Tensor, args: &Node<'_>) -> Result<Tensor> {
    let number =
        |name: &str, default: f64| Ok::<_, anyhow::Error>(args.read(name, Node::float)?.unwrap_or(default));
    let kaiming = || {
        let fan = args.read("mode", |node| match node.text()? {
            "fan_in" => Ok(Fan::In),
            "fan_out" => Ok(Fan::Out),
            _ => node.unknown(),
        })?;
        let slope = number("a", 0.0)?;
        let follows = args.read("nonlinearity", |node| nonlinearity(node, slope))?;
        let follows = follows.unwrap_or(Nonlinearity::LeakyReLU(slope));
        Ok::<_, anyhow::Error>(Kaiming::new().fan(fan.unwrap_or_default()).nonlinearity(follows))
    };
    Ok(match function.text()? {
        "uniform_" => init::uniform_(x, number("a", 0.0)?, number("b", 1.0)?),
        "normal_" => init::normal_(x, number("mean", 0.0)?, number("std", 1.0)?),
        "trunc_normal_" => {
            let (mean, std) = (number("mean", 0.0)?, number("std", 1.0)?);
            init::trunc_normal_(x, mean, std, number("a", -2.0)?, number("b", 2.0)?)
        }
        "constant_" => init::constant_(x, args.get("val")?.float()?),
        "ones_" => init::ones_(x),
        "zeros_" => init::zeros_(x),
        "eye_" => init::eye_(x),
        "dirac_" => init::dirac_(x, args.read("groups", Node::size)?.unwrap_or(1)),
        "xavier_uniform_" => init::xavier_uniform_(x, number("gain", 1.0)?),
        "xavier_normal_" => init::xavier_normal_(x, number("gain", 1.0)?),
        "kaiming_uniform_" => init::kaiming_uniform_(x, &kaiming()?),
        "kaiming_normal_" => init::kaiming_normal_(x, &kaiming()?),
        "orthogonal_" => init::orthogonal_(x, number("gain", 1.0)?),
        "sparse_" => init::sparse_(x, args.get("sparsity")?.float()?, number("std", 0.01)?),
        _ => return function.unknown(),
    }?)
}

/// Compares what is drawn with an expected distribution.
fn check(report: &mut Report, path: &str, draw: &mut Draw<'_>, want: &Value) -> Result<()> {
    let known = ["kind", "value", "gain", "mean", "std", "min", "max", "zeros_per_column", "zero_row"];
    let parts = want.as_object().context("no distribution is expected")?;
    if let Some(key) = parts.keys().find(|key| !known.contains(&key.as_str())) {
        bail!("the expectation says {key:?}, which the runner does not know");
    }
    let number = |key: &str| want.get(key).and_then(float).with_context(|| format!("no {key} is expected"));
    let first = draw(1)?.pop().context("nothing was drawn")?;
    match want.get("kind").and_then(Value::as_str).context("no kind is expected")? {
        "exact" => {
            let (mut flat, mut wanted) = (values(&first)?.into_iter(), Vec::new());
            flatten(want.get("value").context("no value is expected")?, &mut wanted);
            let same = flat.len() == wanted.len() && wanted.iter().all(|value| flat.next() == Some(*value));
            report.check(same, path, || "other values".into());
        }
        "constant" => {
            let value = number("value")?;
            report.check(values(&first)?.iter().all(|x| *x == value), path, || "not constant".into());
        }
        "orthogonal" => orthogonal(report, path, &first, number("gain")?)?,
        kind @ ("uniform" | "normal" | "trunc_normal" | "sparse") => {
            spread(report, path, &first, draw, kind, want)?;
        }
        kind => bail!("{kind} is a kind that the runner does not know"),
    }
    Ok(())
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    match Numbers::of(tensor)?.values {
        Values::Float(values) => Ok(values),
        Values::Integer(_) => bail!("an initial value is no float"),
    }
}

/// The numbers of nested lists.
fn flatten(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| flatten(value, into)),
        other => into.extend(float(other)),
    }
}

fn orthogonal(report: &mut Report, path: &str, x: &Tensor, gain: f64) -> Result<()> {
    let (rows, flat) = (x.size(0)?, values(x)?);
    let columns = flat.len() / rows;
    let at = |vector: usize, i: usize| {
        if rows <= columns { flat[vector * columns + i] } else { flat[i * columns + vector] }
    };
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut worst = 0f64;
    for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
        let product: f64 = (0..length).map(|i| at(a, i) * at(b, i)).sum();
        worst = worst.max((product - if a == b { gain * gain } else { 0.0 }).abs());
    }
    let allowed = 1e-5 * (gain * gain).max(1.0);
    report.check(worst <= allowed, path, || format!("not orthogonal: {worst}"));
    report.add(path, worst / allowed);
    Ok(())
}

/// Mean, deviation and range of as many numbers as are needed.
fn spread(
    report: &mut Report,
    path: &str,
    first: &Tensor,
    draw: &mut Draw<'_>,
    kind: &str,
    want: &Value,
) -> Result<()> {
    let number = |key: &str| want.get(key).and_then(float);
    let (mean, std) = (number("mean").context("no mean")?, number("std").context("no std")?);
    if let (Some(zeros), &[rows, columns]) = (number("zeros_per_column"), first.shape()) {
        let flat = values(first)?;
        let found = |column: usize| (0..rows).filter(|row| flat[row * columns + column] == 0.0).count();
        let right = (0..columns).all(|column| found(column) == zeros as usize);
        report.check(right, path, || "another number of zeros".into());
    }
    let zero_row = want.get("zero_row").and_then(Value::as_u64).map(|row| row as usize);
    let mut all: Vec<f64> = Vec::new();
    while all.len() < SAMPLES {
        let drawn = draw(TOGETHER.min(SAMPLES.div_ceil(first.numel())))?;
        Tensor::eval_all(&drawn)?;
        let drawn = values(&Tensor::cat(&drawn.iter().collect::<Vec<_>>(), 0)?)?;
        let width = first.shape().last().copied().unwrap_or(1);
        for tensor in drawn.chunks(first.numel()) {
            for (i, &value) in tensor.iter().enumerate() {
                if zero_row == Some(i / width) {
                    report.check(value == 0.0, path, || "the padding row is not zeros".into());
                } else if kind != "sparse" || value != 0.0 {
                    all.push(value);
                }
            }
        }
    }
    let n = all.len() as f64;
    let found = all.iter().sum::<f64>() / n;
    let deviation = (all.iter().map(|x| (x - found) * (x - found)).sum::<f64>() / (n - 1.0)).sqrt();
    let off =
        ((found - mean).abs() / (5.0 * std / n.sqrt()), (deviation / std - 1.0).abs() / (5.0 / n.sqrt()));
    report.check(off.0 <= 1.0, path, || format!("mean {found} instead of {mean}"));
    report.check(off.1 <= 1.0, path, || format!("deviation {deviation} instead of {std}"));
    report.add(path, off.0.max(off.1));
    let (Some(low), Some(high)) = (number("min"), number("max")) else { return Ok(()) };
    let slack = 1e-6 * low.abs().max(high.abs());
    let (least, most) =
        all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    let inside = least >= low - slack && most <= high + slack;
    report.check(inside, path, || format!("from {least} to {most}, beyond {low} to {high}"));
    let fills = kind != "uniform" || most - least >= (high - low) * 0.99;
    report.check(fills, path, || format!("from {least} to {most} only, not {low} to {high}"));
    Ok(())
}
