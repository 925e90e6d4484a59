//! Layers and losses.

use wgrad::{
    ConvOptions, CrossEntropyOptions, Interpolation, Padding, PoolOptions, Reduction, Scale, Tensor,
};

use super::ResultKind::Value;
use super::{CallOperands, OperandFinder, Rule, of, one, rule, two, with};
use crate::program::RuleParameters;

/// A batch of images (or signals) with channels: any value with this rank that has elements.
fn image(m: &mut OperandFinder, rank: usize) -> Option<super::Live> {
    m.find(|live| live.dtype.is_float() && live.rank() == rank && live.numel() > 0)
}

fn conv(m: &mut OperandFinder, dims: usize) -> Option<CallOperands> {
    let x = image(m, dims + 2)?;
    let out = m.random.below(3) + 1;
    let mut shape = vec![out, x.shape[1]];
    let padding = m.random.between(0, 1);
    for &size in &x.shape[2..] {
        let most = (size as i64 + 2 * padding).min(3);
        shape.push(m.random.between(1, most) as usize);
    }
    let weight = m.float_like(&shape, x.dtype, -3.0, 3.0);
    let bias = m.float_like(&[out], x.dtype, -10.0, 10.0);
    let stride = m.random.between(1, 2);
    with(&[x.id, weight, bias], &[stride, padding])
}

fn conv_options(a: &RuleParameters, dims: usize) -> ConvOptions {
    ConvOptions {
        stride: vec![a.n[0] as usize; dims],
        padding: Padding::Explicit(vec![a.n[1] as usize; dims]),
        ..ConvOptions::default()
    }
}

fn transposed(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = image(m, 4)?;
    let shape = [x.shape[1], m.random.below(3) + 1, 2, m.random.below(2) + 1];
    let weight = m.float_like(&shape, x.dtype, -3.0, 3.0);
    let bias = m.float_like(&shape[1..2], x.dtype, -10.0, 10.0);
    let stride = m.random.between(1, 2);
    with(&[x.id, weight, bias], &[stride, 0])
}

fn pool(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = image(m, 4)?;
    let n = [m.random.between(1, 2), m.random.between(1, 3)];
    with(&[x.id], &n)
}

fn window(a: &RuleParameters) -> PoolOptions {
    PoolOptions { stride: vec![a.n[1] as usize; 2], ..PoolOptions::new(&[a.n[0] as usize; 2]) }
}

fn pool1(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = image(m, 3)?;
    let n = [m.random.between(1, 2), m.random.between(1, 2)];
    with(&[x.id], &n)
}

fn window1(a: &RuleParameters) -> PoolOptions {
    PoolOptions { stride: vec![a.n[1] as usize], ..PoolOptions::new(&[a.n[0] as usize]) }
}

fn layer(m: &mut OperandFinder) -> Option<CallOperands> {
    // The norm of two elements says little more than which one is larger, and its gradient is mostly rounding
    // error.
    let x = m.find(|live| live.dtype.is_float() && live.shape.last().is_some_and(|&n| n > 2))?;
    let last = [x.shape[x.rank() - 1]];
    let weight = m.float_like(&last, x.dtype, -3.0, 3.0);
    let bias = m.float_like(&last, x.dtype, -3.0, 3.0);
    of(&[x.id, weight, bias])
}

fn attention(m: &mut OperandFinder) -> Option<CallOperands> {
    let q = image(m, 3)?;
    let k = m.float_like(&q.shape, q.dtype, -3.0, 3.0);
    let v = m.float_like(&q.shape, q.dtype, -10.0, 10.0);
    of(&[q.id, k, v])
}

fn classes(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.find(|live| live.dtype.is_float() && live.rank() == 2 && live.numel() > 0)?;
    let target = m.new_ints(&[x.shape[0]], 0, x.shape[1] as i64 - 1);
    of(&[x.id, target])
}

fn targets(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.find(|live| live.dtype.is_float() && live.numel() > 0)?;
    let target = m.float_like(&x.shape, x.dtype, -100.0, 100.0);
    of(&[x.id, target])
}

fn probabilities(m: &mut OperandFinder) -> Option<CallOperands> {
    let x =
        m.find(|live| live.dtype.is_float() && live.numel() > 0 && live.low > 0.02 && live.high < 0.98)?;
    let target = m.new_float(&x.shape, x.dtype, 0.1, 0.9);
    of(&[x.id, target])
}

fn apart(t: &[Tensor], shift: f64) -> wgrad::Result<Vec<Tensor>> {
    let d = t[0].sub(&t[1])?;
    Ok(vec![d.add(shift)?, d.sub(shift)?])
}

/// The variances of rows, as distances to a row of equal elements. In such a row the differences from the
/// mean are only rounding errors, so the distance is NaN there: it says nothing.
fn constant_rows(t: &[Tensor], _: &RuleParameters) -> wgrad::Result<Vec<Tensor>> {
    let spread = t[0].var_dim(-1, 1.0, false)?;
    one(spread.div(&spread)?.mul(&spread))
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [convolutions_and_pools(), layers(), losses()].into_iter().flatten().collect()
}

/// Convolutions, pools and interpolation.
fn convolutions_and_pools() -> Vec<Rule> {
    vec![
        rule(
            "conv1d",
            Value,
            "{0}.conv1d(&{1}, &{2}, stride {n0}, padding {n1})",
            |m| conv(m, 1),
            |t, a| one(t[0].conv1d(&t[1], &t[2], &conv_options(a, 1))),
        ),
        rule(
            "conv2d",
            Value,
            "{0}.conv2d(&{1}, &{2}, stride {n0}, padding {n1})",
            |m| conv(m, 2),
            |t, a| one(t[0].conv2d(&t[1], &t[2], &conv_options(a, 2))),
        ),
        rule(
            "conv_transpose2d",
            Value,
            "{0}.conv_transpose2d(&{1}, &{2}, stride {n0}, padding {n1})",
            transposed,
            |t, a| one(t[0].conv_transpose2d(&t[1], &t[2], &conv_options(a, 2))),
        ),
        rule("avg_pool2d", Value, "{0}.avg_pool2d(window {n0}, stride {n1})", pool, |t, a| {
            one(t[0].avg_pool2d(&window(a)))
        }),
        rule("max_pool2d", Value, "{0}.max_pool2d(window {n0}, stride {n1})", pool, |t, a| {
            two(t[0].max_pool2d(&window(a)))
        })
        .gap(|t, _| super::all_neighbours(&t[0])),
        rule("max_pool1d", Value, "{0}.max_pool1d(window {n0}, stride {n1})", pool1, |t, a| {
            two(t[0].max_pool1d(&window1(a)))
        })
        .gap(|t, _| super::neighbours(&t[0], -1)),
        rule("avg_pool1d", Value, "{0}.avg_pool1d(window {n0}, stride {n1})", pool1, |t, a| {
            one(t[0].avg_pool1d(&window1(a)))
        }),
        rule("adaptive_avg_pool2d", Value, "{0}.adaptive_avg_pool2d([Some(2), None])", pool, |t, _| {
            one(t[0].adaptive_avg_pool2d([Some(2), None]))
        }),
        rule(
            "interpolate",
            Value,
            "{0}.interpolate(Scale::Size([3, 4]), Interpolation::Linear, {n0} == 1)",
            pool,
            |t, a| one(t[0].interpolate(&Scale::Size(vec![3, 4]), Interpolation::Linear, a.n[0] == 1)),
        ),
    ]
}

/// Norms, attention and gates.
fn layers() -> Vec<Rule> {
    vec![
        rule("layer_norm", Value, "{0}.layer_norm([last], &{1}, &{2}, 1e-5)", layer, |t, _| {
            one(t[0].layer_norm(t[0].size(-1)?, &t[1], &t[2], 1e-5))
        })
        .gap(constant_rows),
        rule("rms_norm", Value, "{0}.rms_norm([last], &{1}, 1e-5)", layer, |t, _| {
            one(t[0].rms_norm(t[0].size(-1)?, &t[1], 1e-5))
        }),
        rule(
            "group_norm",
            Value,
            "{0}.group_norm(1, None, None, 1e-5)",
            |m| of(&[m.find(|live| live.dtype.is_float() && live.rank() >= 3 && live.numel() > 2)?.id]),
            |t, _| one(t[0].group_norm(1, None, None, 1e-5)),
        ),
        rule(
            "attention",
            Value,
            "{0}.scaled_dot_product_attention(&{1}, &{2}, None, true, None, false)",
            attention,
            |t, _| one(t[0].scaled_dot_product_attention(&t[1], &t[2], None, true, None, false)),
        ),
        rule(
            "glu",
            Value,
            "{0}.glu(-1)",
            |m| {
                of(&[m
                    .find(|live| live.dtype.is_float() && live.shape.last().is_some_and(|n| n % 2 == 0))?
                    .id])
            },
            |t, _| one(t[0].glu(-1)),
        ),
    ]
}

/// Losses.
fn losses() -> Vec<Rule> {
    vec![
        rule("cross_entropy", Value, "{0}.cross_entropy(&{1})", classes, |t, _| {
            one(t[0].cross_entropy(&t[1]))
        }),
        rule(
            "cross_entropy_with",
            Value,
            "{0}.cross_entropy_with(&{1}, label_smoothing 0.1, sum)",
            classes,
            |t, _| {
                let options = CrossEntropyOptions {
                    label_smoothing: 0.1,
                    reduction: Reduction::Sum,
                    ..CrossEntropyOptions::default()
                };
                one(t[0].cross_entropy_with(&t[1], &options))
            },
        ),
        rule("mse_loss", Value, "{0}.mse_loss(&{1}, Reduction::Mean)", targets, |t, _| {
            one(t[0].mse_loss(&t[1], Reduction::Mean))
        }),
        rule("l1_loss", Value, "{0}.l1_loss(&{1}, Reduction::Sum)", targets, |t, _| {
            one(t[0].l1_loss(&t[1], Reduction::Sum))
        })
        .gap(|t, _| apart(t, 0.0)),
        rule("huber_loss", Value, "{0}.huber_loss(&{1}, Reduction::None, 0.5)", targets, |t, _| {
            one(t[0].huber_loss(&t[1], Reduction::None, 0.5))
        })
        .gap(|t, _| apart(t, 0.5)),
        rule("smooth_l1_loss", Value, "{0}.smooth_l1_loss(&{1}, Reduction::Mean, 0.5)", targets, |t, _| {
            one(t[0].smooth_l1_loss(&t[1], Reduction::Mean, 0.5))
        })
        .gap(|t, _| apart(t, 0.5)),
        rule(
            "binary_cross_entropy",
            Value,
            "{0}.binary_cross_entropy(&{1}, None, Reduction::Mean)",
            probabilities,
            |t, _| one(t[0].binary_cross_entropy(&t[1], None, Reduction::Mean)),
        ),
        rule(
            "bce with logits",
            Value,
            "{0}.binary_cross_entropy_with_logits(&{1}, None, None, Reduction::Mean)",
            targets,
            |t, _| one(t[0].binary_cross_entropy_with_logits(&t[1], None, None, Reduction::Mean)),
        ),
    ]
}
