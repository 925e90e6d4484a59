//! Writes in place: into values, into views of them, and into leaves where that is allowed.

use super::ResultKind::InPlace;
use super::{CallOperands, Live, OperandFinder, Rule, of, rule, with, with_floats};
use wgrad::{DType, Tensor};

fn target(m: &mut OperandFinder) -> Option<Live> {
    m.find(|live| live.dtype.is_float() && !(live.is_leaf && live.requires_grad))
}

fn alone(m: &mut OperandFinder) -> Option<CallOperands> {
    of(&[target(m)?.id])
}

/// A float value and another one that broadcasts to it.
fn pair(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = target(m)?;
    let b = m.find(|live| {
        live.dtype == a.dtype
            && live.rank() <= a.rank()
            && live.shape.iter().rev().zip(a.shape.iter().rev()).all(|(&n, &m)| n == m || n == 1)
    })?;
    of(&[a.id, b.id])
}

fn number(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = target(m)?;
    let f = (m.random.float(-2.0, 2.0) * 16.0).round() / 16.0;
    with_floats(&[x.id], &[], &[f])
}

fn none(result: wgrad::Result<Tensor>) -> wgrad::Result<Vec<Tensor>> {
    result.map(|_| Vec::new())
}

pub fn rules() -> Vec<Rule> {
    vec![
        rule("add_", InPlace, "{0}.add_(&{1})", pair, |t, _| none(t[0].add_(&t[1]))),
        rule("sub_", InPlace, "{0}.sub_(&{1})", pair, |t, _| none(t[0].sub_(&t[1]))),
        rule("mul_", InPlace, "{0}.mul_(&{1})", pair, |t, _| none(t[0].mul_(&t[1]))),
        rule("mul_ number", InPlace, "{0}.mul_({f0})", number, |t, a| none(t[0].mul_(a.f[0]))),
        rule("copy_", InPlace, "{0}.copy_(&{1})", pair, |t, _| none(t[0].copy_(&t[1]))),
        rule("fill_", InPlace, "{0}.fill_({f0})", number, |t, a| none(t[0].fill_(a.f[0]))),
        rule("zero_", InPlace, "{0}.zero_()", alone, |t, _| none(t[0].zero_())),
        rule("tanh_", InPlace, "{0}.tanh_()", alone, |t, _| none(t[0].tanh_())),
        rule("sigmoid_", InPlace, "{0}.sigmoid_()", alone, |t, _| none(t[0].sigmoid_())),
        rule("sin_", InPlace, "{0}.sin_()", alone, |t, _| none(t[0].sin_())),
        rule("relu_", InPlace, "{0}.relu_()", alone, |t, _| none(t[0].relu_()))
            .gap(|t, _| Ok(vec![t[0].clone()])),
        rule("clamp_", InPlace, "{0}.clamp_(-1.5, 1.25)", alone, |t, _| none(t[0].clamp_(-1.5, 1.25)))
            .gap(|t, _| Ok(vec![t[0].add(1.5)?, t[0].sub(1.25)?])),
        rule(
            "masked_fill_",
            InPlace,
            "{0}.masked_fill_(&{1}, 0.25)",
            |m| {
                let x = target(m)?;
                let mask = m.new_bools(&x.shape);
                of(&[x.id, mask])
            },
            |t, _| none(t[0].masked_fill_(&t[1], 0.25)),
        ),
        rule(
            "row copy_",
            InPlace,
            "{0}.select(0, {n0})?.copy_(&{0}.select(0, {n1})?)",
            |m| {
                let x = m.find(|live| {
                    live.dtype.is_float()
                        && live.rank() > 0
                        && live.shape[0] > 0
                        && !(live.is_leaf && live.requires_grad)
                })?;
                let most = x.shape[0] as i64 - 1;
                let n = [m.random.between(0, most), m.random.between(0, most)];
                with(&[x.id], &n)
            },
            |t, a| none(t[0].select(0, a.n[0] as isize)?.copy_(&t[0].select(0, a.n[1] as isize)?)),
        ),
        rule(
            "integers: add_",
            InPlace,
            "{0}.add_({n0})",
            |m| {
                let x = m.find(|live| live.dtype == DType::I64)?;
                let n = m.random.between(0, 1);
                with(&[x.id], &[n])
            },
            |t, a| none(t[0].add_(a.n[0])),
        ),
    ]
}
