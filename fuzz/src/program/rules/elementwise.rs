//! Functions of one element and of pairs of elements, selection, conversions.

use wgrad::{DType, Rounding, Tensor};

use super::ResultKind::{Value, View};
use super::{CallOperands, OperandFinder, Rule, from_integers, of, one, rule, with, with_floats};
use crate::program::RuleParameters;

/// Rules for functions without arguments. The numbers are the range of the operand, both ends included.
macro_rules! functions {
    ($($name:ident $low:literal $high:literal;)*) => {
        vec![$(rule(
            stringify!($name),
            Value,
            concat!("{0}.", stringify!($name), "()"),
            |m| of(&[m.float_within($low, $high)?.id]),
            |t, _| one(t[0].$name()),
        )),*]
    };
}

/// Rules for functions with kinks (jumps of the value or of the derivative) at some numbers.
macro_rules! kinked {
    ($($name:ident [$($kink:literal),*];)*) => {
        vec![$(rule(
            stringify!($name),
            Value,
            concat!("{0}.", stringify!($name), "()"),
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].$name()),
        ).gap(|t, _| [$($kink),*].iter().map(|&kink: &f64| t[0].sub(kink)).collect())),*]
    };
}

/// Two operands that broadcast.
fn pair(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.float()?;
    let b = m.beside(&a.shape, |live| live.dtype.is_float())?;
    of(&[a.id, b.id])
}

/// Two operands of one dtype of any kind.
fn any_pair(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.any()?;
    let b = m.beside(&a.shape, |live| live.dtype == a.dtype)?;
    of(&[a.id, b.id])
}

fn difference(t: &[Tensor], _: &RuleParameters) -> wgrad::Result<Vec<Tensor>> {
    if t[0].dtype().is_float() { one(t[0].sub(&t[1])) } else { Ok(Vec::new()) }
}

fn number(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.float()?;
    let f = (m.random.float(-2.0, 2.0) * 16.0).round() / 16.0;
    with_floats(&[x.id], &[], &[f])
}

/// Two operands that broadcast, of which the second lies in a range.
fn pair_within(m: &mut OperandFinder, low: f64, high: f64) -> Option<CallOperands> {
    let a = m.float()?;
    let b = m.beside(&a.shape, |live| live.dtype.is_float() && live.low >= low && live.high <= high)?;
    of(&[a.id, b.id])
}

fn ints(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.find(|live| live.dtype == DType::I64)?;
    let b = m.beside(&a.shape, |live| live.dtype == DType::I64)?;
    of(&[a.id, b.id])
}

/// A value and another dtype.
fn cast(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.any()?;
    let known: Vec<DType> = m.live.iter().map(|live| live.dtype).filter(|dtype| dtype.is_float()).collect();
    let to = *m.random.pick(&known)?;
    if x.dtype == to {
        return None;
    }
    let mut made = of(&[x.id])?;
    made.more.dtype = Some(to);
    Some(made)
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [functions(), arithmetic(), powers(), activations(), ranges(), comparisons(), conversions()]
        .into_iter()
        .flatten()
        .collect()
}

/// Functions without arguments.
fn functions() -> Vec<Rule> {
    let mut all = functions! {
        neg -1e9 1e9; exp -8.0 4.0; log 0.05 1e9; log1p -0.9 1e9; expm1 -8.0 4.0; sqrt 0.05 1e9;
        rsqrt 0.05 1e9; square -100.0 100.0; reciprocal 0.1 1e9; sin -50.0 50.0; cos -50.0 50.0;
        tanh -1e9 1e9; sigmoid -1e9 1e9; erf -1e9 1e9; silu -1e9 1e9; gelu -2.5 1e9; gelu_tanh -2.5 1e9;
        exp2 -8.0 5.0; log2 0.05 1e9; log10 0.05 1e9; tan -1.3 1.3; asin -0.9 0.9; acos -0.9 0.9;
        atan -1e9 1e9; sinh -4.0 4.0; cosh -4.0 4.0; asinh -1e9 1e9; acosh 1.1 1e9; atanh -0.9 0.9;
        erfc -1e9 4.0; erfinv -0.9 0.9; lgamma 0.3 50.0; digamma 0.3 50.0; i0 -4.0 4.0; i1 0.5 4.0;
        sinc -5.0 5.0; deg2rad -1e9 1e9; rad2deg -10.0 10.0; mish -1e9 1e9; logsigmoid -1e9 1e9;
        tanhshrink 0.5 1e9;
    };
    all.extend(kinked! {
        abs [0.0]; sign [0.0]; relu [0.0]; relu6 [0.0, 6.0]; selu [0.0]; softsign [0.0];
        hardswish [-3.0, 3.0]; hardsigmoid [-3.0, 3.0]; signbit [0.0]; isfinite []; isnan [];
    });
    for mut integer in [
        rule("floor", Value, "{0}.floor()", |m| of(&[m.float()?.id]), |t, _| one(t[0].floor())),
        rule("ceil", Value, "{0}.ceil()", |m| of(&[m.float()?.id]), |t, _| one(t[0].ceil())),
        rule("trunc", Value, "{0}.trunc()", |m| of(&[m.float()?.id]), |t, _| one(t[0].trunc())),
        rule("frac", Value, "{0}.frac()", |m| of(&[m.float()?.id]), |t, _| one(t[0].frac())),
    ] {
        integer.gap = |t, _| from_integers(&t[0]);
        all.push(integer);
    }
    all.push(
        rule("round", Value, "{0}.round()", |m| of(&[m.float()?.id]), |t, _| one(t[0].round()))
            .gap(|t, _| from_integers(&t[0].add(0.5)?)),
    );
    all
}

/// Arithmetic of two operands, and extrema.
fn arithmetic() -> Vec<Rule> {
    vec![
        rule("add", Value, "{0}.add(&{1})", pair, |t, _| one(t[0].add(&t[1]))),
        rule("sub", Value, "{0}.sub(&{1})", pair, |t, _| one(t[0].sub(&t[1]))),
        rule("mul", Value, "{0}.mul(&{1})", pair, |t, _| one(t[0].mul(&t[1]))),
        rule("div", Value, "{0}.div(&{1})", |m| pair_within(m, 0.1, 1e9), |t, _| one(t[0].div(&t[1]))),
        rule("add number", Value, "{0}.add({f0})", number, |t, a| one(t[0].add(a.f[0]))),
        rule("mul number", Value, "{0}.mul({f0})", number, |t, a| one(t[0].mul(a.f[0]))),
        rule("rsub", Value, "{0}.rsub({f0})", number, |t, a| one(t[0].rsub(a.f[0]))),
        rule("add_scaled", Value, "{0}.add_scaled(&{1}, -0.75)", pair, |t, _| {
            one(t[0].add_scaled(&t[1], -0.75))
        }),
        rule("hypot", Value, "{0}.hypot(&{1})", |m| pair_within(m, 0.1, 1e9), |t, _| one(t[0].hypot(&t[1]))),
        rule("atan2", Value, "{0}.atan2(&{1})", |m| pair_within(m, 0.1, 1e9), |t, _| one(t[0].atan2(&t[1]))),
        rule("xlogy", Value, "{0}.xlogy(&{1})", |m| pair_within(m, 0.05, 1e9), |t, _| one(t[0].xlogy(&t[1])))
            .gap(|t, _| Ok(vec![t[0].clone()])),
        rule("logaddexp", Value, "{0}.logaddexp(&{1})", pair, |t, _| one(t[0].logaddexp(&t[1]))),
        rule("logaddexp2", Value, "{0}.logaddexp2(&{1})", pair, |t, _| one(t[0].logaddexp2(&t[1]))),
        rule("copysign", Value, "{0}.copysign(&{1})", pair, |t, _| one(t[0].copysign(&t[1])))
            .gap(|t, _| Ok(t.to_vec())),
        rule("maximum", Value, "{0}.maximum(&{1})", any_pair, |t, _| one(t[0].maximum(&t[1])))
            .gap(difference),
        rule("minimum", Value, "{0}.minimum(&{1})", any_pair, |t, _| one(t[0].minimum(&t[1])))
            .gap(difference),
        rule("fmax", Value, "{0}.fmax(&{1})", pair, |t, _| one(t[0].fmax(&t[1]))).gap(difference),
        rule("fmin", Value, "{0}.fmin(&{1})", pair, |t, _| one(t[0].fmin(&t[1]))).gap(difference),
        rule("remainder", Value, "{0}.remainder({f0})", number, |t, a| one(t[0].remainder(a.f[0] + 2.5)))
            .gap(|t, a| from_integers(&t[0].div(a.f[0] + 2.5)?)),
        rule("fmod", Value, "{0}.fmod({f0} + 2.5)", number, |t, a| one(t[0].fmod(a.f[0] + 2.5)))
            .gap(|t, a| from_integers(&t[0].div(a.f[0] + 2.5)?)),
        rule("div_rounded", Value, "{0}.div_rounded({f0} + 2.5, Rounding::Floor)", number, |t, a| {
            one(t[0].div_rounded(a.f[0] + 2.5, Rounding::Floor))
        })
        .gap(|t, a| from_integers(&t[0].div(a.f[0] + 2.5)?)),
    ]
}

/// Powers.
fn powers() -> Vec<Rule> {
    vec![
        rule(
            "pow number",
            Value,
            "{0}.pow({f0})",
            |m| {
                let x = m.float_within(0.1, 20.0)?;
                let f = *m.random.pick(&[0.5, 1.5, 2.0, 3.0, -1.0, -0.5, 0.0, 1.0])?;
                with_floats(&[x.id], &[], &[f])
            },
            |t, a| one(t[0].pow(a.f[0])),
        ),
        rule(
            "pow of any sign",
            Value,
            "{0}.pow({n0})",
            |m| {
                let x = m.float_within(-8.0, 8.0)?;
                let n = m.random.between(0, 3);
                with(&[x.id], &[n])
            },
            |t, a| one(t[0].pow(a.n[0])),
        ),
        rule(
            "pow",
            Value,
            "{0}.pow(&{1})",
            |m| {
                let x = m.float_within(0.1, 10.0)?;
                let y =
                    m.beside(&x.shape, |live| live.dtype.is_float() && live.high < 3.0 && live.low > -3.0)?;
                of(&[x.id, y.id])
            },
            |t, _| one(t[0].pow(&t[1])),
        ),
        rule(
            "rpow",
            Value,
            "{0}.rpow(1.75)",
            |m| of(&[m.float_within(-6.0, 6.0)?.id]),
            |t, _| one(t[0].rpow(1.75)),
        ),
    ]
}

/// Bounds and activation functions.
fn activations() -> Vec<Rule> {
    vec![
        rule(
            "clamp",
            Value,
            "{0}.clamp(-0.75, 0.5)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].clamp(-0.75, 0.5)),
        )
        .gap(|t, _| Ok(vec![t[0].add(0.75)?, t[0].sub(0.5)?])),
        rule("clamp_min", Value, "{0}.clamp_min(&{1})", pair, |t, _| one(t[0].clamp_min(&t[1])))
            .gap(difference),
        rule(
            "hardtanh",
            Value,
            "{0}.hardtanh(-1.0, 1.0)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].hardtanh(-1.0, 1.0)),
        )
        .gap(|t, _| Ok(vec![t[0].add(1.0)?, t[0].sub(1.0)?])),
        rule(
            "leaky_relu",
            Value,
            "{0}.leaky_relu(0.1)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].leaky_relu(0.1)),
        )
        .gap(|t, _| Ok(vec![t[0].clone()])),
        rule("elu", Value, "{0}.elu(1.25)", |m| of(&[m.float()?.id]), |t, _| one(t[0].elu(1.25)))
            .gap(|t, _| Ok(vec![t[0].clone()])),
        rule("celu", Value, "{0}.celu(0.75)", |m| of(&[m.float()?.id]), |t, _| one(t[0].celu(0.75)))
            .gap(|t, _| Ok(vec![t[0].clone()])),
        rule(
            "softplus",
            Value,
            "{0}.softplus(1.5, 20.0)",
            |m| of(&[m.float_within(-10.0, 10.0)?.id]),
            |t, _| one(t[0].softplus(1.5, 20.0)),
        ),
        rule(
            "softshrink",
            Value,
            "{0}.softshrink(0.5)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].softshrink(0.5)),
        )
        .gap(|t, _| Ok(vec![t[0].add(0.5)?, t[0].sub(0.5)?])),
        rule(
            "hardshrink",
            Value,
            "{0}.hardshrink(0.5)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].hardshrink(0.5)),
        )
        .gap(|t, _| Ok(vec![t[0].add(0.5)?, t[0].sub(0.5)?])),
        rule(
            "threshold",
            Value,
            "{0}.threshold(0.25, -1.0)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].threshold(0.25, -1.0)),
        )
        .gap(|t, _| one(t[0].sub(0.25))),
    ]
}

/// Functions that need operands in a range, functions that give such operands, and interpolation.
fn ranges() -> Vec<Rule> {
    vec![
        rule(
            "logit",
            Value,
            "{0}.logit(None)",
            |m| of(&[m.float_within(0.05, 0.95)?.id]),
            |t, _| one(t[0].logit(None)),
        ),
        rule(
            "polygamma",
            Value,
            "{0}.polygamma(1)",
            |m| of(&[m.float_within(0.3, 50.0)?.id]),
            |t, _| one(t[0].polygamma(1)),
        ),
        rule(
            "nan_to_num",
            Value,
            "{0}.nan_to_num(0.0, None, None)",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].nan_to_num(0.0, None, None)),
        ),
        rule(
            "to (0.05, 0.95)",
            Value,
            "({0}.tanh()? * 0.45)? + 0.5",
            |m| of(&[m.float()?.id]),
            |t, _| one(t[0].tanh()?.mul(0.45)?.add(0.5)),
        ),
        rule(
            "to positive",
            Value,
            "{0}.square()? + 0.25",
            |m| of(&[m.float_within(-30.0, 30.0)?.id]),
            |t, _| one(t[0].square()?.add(0.25)),
        ),
        rule("lerp", Value, "{0}.lerp(&{1}, 0.375)", pair, |t, _| one(t[0].lerp(&t[1], 0.375))),
        rule(
            "addcmul",
            Value,
            "{0}.addcmul(&{1}, &{2}, 0.5)",
            |m| {
                let a = m.float()?;
                let b = m.find(|live| live.shape == a.shape && live.dtype == a.dtype)?;
                let c = m.find(|live| live.shape == a.shape && live.dtype == a.dtype)?;
                of(&[a.id, b.id, c.id])
            },
            |t, _| one(t[0].addcmul(&t[1], &t[2], 0.5)),
        ),
    ]
}

/// Comparisons, integers and selection.
fn comparisons() -> Vec<Rule> {
    vec![
        rule("lt", Value, "{0}.lt(&{1})", pair, |t, _| one(t[0].lt(&t[1]))).gap(difference),
        rule("ge", Value, "{0}.ge(&{1})", pair, |t, _| one(t[0].ge(&t[1]))).gap(difference),
        rule("gt number", Value, "{0}.gt({f0})", number, |t, a| one(t[0].gt(a.f[0])))
            .gap(|t, a| one(t[0].sub(a.f[0]))),
        rule("eq", Value, "{0}.eq(&{1})", ints, |t, _| one(t[0].eq(&t[1]))),
        rule("integers: add", Value, "{0}.add(&{1})", ints, |t, _| one(t[0].add(&t[1]))),
        rule("integers: mul", Value, "{0}.mul(&{1})", ints, |t, _| one(t[0].mul(&t[1]))),
        rule("integers: remainder", Value, "{0}.remainder(7)", ints, |t, _| one(t[0].remainder(7i64))),
        rule("integers: floor_divide", Value, "{0}.floor_divide(3)", ints, |t, _| {
            one(t[0].floor_divide(3i64))
        }),
        rule("bitwise_xor", Value, "{0}.bitwise_xor(&{1})", ints, |t, _| one(t[0].bitwise_xor(&t[1]))),
        rule(
            "logical_not",
            Value,
            "{0}.logical_not()",
            |m| of(&[m.find(|live| live.dtype == DType::Bool)?.id]),
            |t, _| one(t[0].logical_not()),
        ),
        rule(
            "where_cond",
            Value,
            "{0}.where_cond(&{1}, &{2})",
            |m| {
                let a = m.float()?;
                let b = m.beside(&a.shape, |live| live.dtype == a.dtype)?;
                let mask = match m.beside(&a.shape, |live| live.dtype == DType::Bool) {
                    Some(mask) => mask.id,
                    None => m.new_bools(&a.shape),
                };
                of(&[mask, a.id, b.id])
            },
            |t, _| one(t[0].where_cond(&t[1], &t[2])),
        ),
        rule(
            "masked_fill",
            Value,
            "{0}.masked_fill(&{1}, -0.5)",
            |m| {
                let a = m.float()?;
                let mask = m.new_bools(&a.shape);
                of(&[a.id, mask])
            },
            |t, _| one(t[0].masked_fill(&t[1], -0.5)),
        ),
    ]
}

/// Conversions and copies.
fn conversions() -> Vec<Rule> {
    vec![
        rule("to_dtype", Value, "{0}.to_dtype({d})", cast, |t, a| {
            let to = a.dtype.unwrap_or(t[0].dtype());
            // In the reference both dtypes may be f64; the cast makes a new tensor in that case, too.
            if t[0].dtype() == to { one(t[0].deep_clone()) } else { one(t[0].to_dtype(to)) }
        }),
        rule("positive", View, "{0}.positive()", |m| of(&[m.float()?.id]), |t, _| one(t[0].positive())),
        rule("deep_clone", Value, "{0}.deep_clone()", |m| of(&[m.any()?.id]), |t, _| one(t[0].deep_clone())),
        rule("detach", View, "{0}.detach()", |m| of(&[m.any()?.id]), |t, _| Ok(vec![t[0].detach()])),
        rule("zeros_like", Value, "{0}.zeros_like()", |m| of(&[m.any()?.id]), |t, _| one(t[0].zeros_like())),
    ]
}
