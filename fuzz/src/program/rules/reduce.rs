//! Reductions, cumulative operations, sorts.

use super::ResultKind::Value;
use super::{CallOperands, Live, OperandFinder, Rule, all_neighbours, neighbours, of, one, rule, two, with};
use wgrad::{DType, Tensor};

use crate::program::RuleParameters;

fn float(m: &mut OperandFinder) -> Option<CallOperands> {
    of(&[m.float()?.id])
}

fn filled(m: &mut OperandFinder) -> Option<CallOperands> {
    of(&[m.find(|live| live.dtype.is_float() && live.numel() > 0)?.id])
}

/// A float value; the integers say whether dims are kept, then which dims.
fn dims(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.float()?;
    dims_of(m, &x)
}

fn dims_of(m: &mut OperandFinder, x: &Live) -> Option<CallOperands> {
    let mut n = vec![m.flag()];
    n.extend(m.dims(x.rank()));
    with(&[x.id], &n)
}

/// A float value; the integers are one of its dims, and whether that is kept.
fn dim(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.float_of_rank(1)?;
    let n = [m.dim(x.rank()), m.flag()];
    with(&[x.id], &n)
}

fn wide_dims(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.find(|live| live.dtype.is_float() && live.rank() > 0 && live.shape.iter().all(|&n| n > 1))?;
    dims_of(m, &x)
}

fn along(t: &[Tensor], a: &RuleParameters) -> wgrad::Result<Vec<Tensor>> {
    neighbours(&t[0], a.n[0] as isize)
}

/// For reductions over several dims: the distances of neighbours among all sorted elements.
fn everywhere(t: &[Tensor], _: &RuleParameters) -> wgrad::Result<Vec<Tensor>> {
    all_neighbours(&t[0])
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [reductions(), statistics(), orders(), norms()].into_iter().flatten().collect()
}

/// Sums, products, extrema and counts.
fn reductions() -> Vec<Rule> {
    vec![
        rule("sum", Value, "{0}.sum()", float, |t, _| one(t[0].sum())),
        rule("mean", Value, "{0}.mean()", filled, |t, _| one(t[0].mean())),
        rule("sum_dim", Value, "{0}.sum_dim(&[{n}][1..], {n0} == 1)", dims, |t, a| {
            one(t[0].sum_dim(&a.n[1..], a.n[0] == 1))
        }),
        rule("mean_dim", Value, "{0}.mean_dim(&[{n}][1..], {n0} == 1)", wide_dims, |t, a| {
            one(t[0].mean_dim(&a.n[1..], a.n[0] == 1))
        }),
        rule("prod", Value, "{0}.prod()", float, |t, _| one(t[0].prod())),
        rule("prod_dim", Value, "{0}.prod_dim({n0}, {n1} == 1)", dim, |t, a| {
            one(t[0].prod_dim(a.n[0] as isize, a.n[1] == 1))
        }),
        rule("amax", Value, "{0}.amax(&[{n}][1..], {n0} == 1)", wide_dims, |t, a| {
            one(t[0].amax(&a.n[1..], a.n[0] == 1))
        })
        .gap(everywhere),
        rule("amin", Value, "{0}.amin(&[{n}][1..], {n0} == 1)", wide_dims, |t, a| {
            one(t[0].amin(&a.n[1..], a.n[0] == 1))
        })
        .gap(everywhere),
        rule("max", Value, "{0}.max()", filled, |t, _| one(t[0].max())).gap(everywhere),
        rule("max_dim", Value, "{0}.max_dim({n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].max_dim(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("min_dim", Value, "{0}.min_dim({n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].min_dim(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("argmax_dim", Value, "{0}.argmax_dim({n0}, {n1} == 1)", dim, |t, a| {
            one(t[0].argmax_dim(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("argmin", Value, "{0}.argmin()", filled, |t, _| one(t[0].argmin())).gap(everywhere),
        rule(
            "any",
            Value,
            "{0}.any()",
            |m| of(&[m.find(|live| live.dtype == DType::Bool)?.id]),
            |t, _| one(t[0].any()),
        ),
        rule(
            "all_dim",
            Value,
            "{0}.all_dim(0, false)",
            |m| of(&[m.find(|live| live.dtype == DType::Bool && live.rank() > 0)?.id]),
            |t, _| one(t[0].all_dim(0, false)),
        ),
        rule(
            "integers: sum",
            Value,
            "{0}.sum()",
            |m| of(&[m.find(|live| matches!(live.dtype, DType::Bool | DType::I64))?.id]),
            |t, _| one(t[0].sum()),
        ),
        rule(
            "integers: cumsum",
            Value,
            "{0}.cumsum(0)",
            |m| of(&[m.find(|live| matches!(live.dtype, DType::Bool | DType::I64) && live.rank() > 0)?.id]),
            |t, _| one(t[0].cumsum(0)),
        ),
        rule(
            "count_nonzero",
            Value,
            "{0}.count_nonzero(())",
            |m| of(&[m.any()?.id]),
            |t, _| one(t[0].count_nonzero(())),
        )
        .gap(|t, _| if t[0].dtype().is_float() { Ok(vec![t[0].clone()]) } else { Ok(Vec::new()) }),
    ]
}

/// Variances, norms of exponentials, and cumulative sums.
fn statistics() -> Vec<Rule> {
    vec![
        rule("var_dim", Value, "{0}.var_dim(&[{n}][1..], 1.0, {n0} == 1)", wide_dims, |t, a| {
            one(t[0].var_dim(&a.n[1..], 1.0, a.n[0] == 1))
        }),
        rule("std_dim", Value, "{0}.std_dim(&[{n}][1..], 1.0, {n0} == 1)", wide_dims, |t, a| {
            one(t[0].std_dim(&a.n[1..], 1.0, a.n[0] == 1))
        })
        // The derivative is discontinuous at a deviation of 0.
        .gap(|t, a| one(t[0].var_dim(&a.n[1..], 1.0, true))),
        rule("var_mean", Value, "{0}.var_mean(&[{n}][1..], 1.0, {n0} == 1)", wide_dims, |t, a| {
            two(t[0].var_mean(&a.n[1..], 1.0, a.n[0] == 1))
        }),
        rule("logsumexp", Value, "{0}.logsumexp(&[{n}][1..], {n0} == 1)", wide_dims, |t, a| {
            one(t[0].logsumexp(&a.n[1..], a.n[0] == 1))
        }),
        rule("nansum", Value, "{0}.nansum(&[{n}][1..], {n0} == 1)", dims, |t, a| {
            one(t[0].nansum(&a.n[1..], a.n[0] == 1))
        }),
        rule("softmax", Value, "{0}.softmax({n0})", dim, |t, a| one(t[0].softmax(a.n[0] as isize))),
        rule("log_softmax", Value, "{0}.log_softmax({n0})", dim, |t, a| {
            one(t[0].log_softmax(a.n[0] as isize))
        }),
        rule("softmin", Value, "{0}.softmin({n0})", dim, |t, a| one(t[0].softmin(a.n[0] as isize))),
        rule("cumsum", Value, "{0}.cumsum({n0})", dim, |t, a| one(t[0].cumsum(a.n[0] as isize))),
        rule("cumprod", Value, "{0}.cumprod({n0})", dim, |t, a| one(t[0].cumprod(a.n[0] as isize))),
        rule("logcumsumexp", Value, "{0}.logcumsumexp({n0})", dim, |t, a| {
            one(t[0].logcumsumexp(a.n[0] as isize))
        }),
    ]
}

/// Operations that depend on the order of elements, which jump where two elements are equal.
fn orders() -> Vec<Rule> {
    vec![
        rule("cummax", Value, "{0}.cummax({n0})", dim, |t, a| two(t[0].cummax(a.n[0] as isize))).gap(along),
        rule("cummin", Value, "{0}.cummin({n0})", dim, |t, a| two(t[0].cummin(a.n[0] as isize))).gap(along),
        rule("sort", Value, "{0}.sort({n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].sort(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("argsort", Value, "{0}.argsort({n0}, {n1} == 1)", dim, |t, a| {
            one(t[0].argsort(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule(
            "topk",
            Value,
            "{0}.topk({n2}, {n0}, {n1} == 1)",
            |m| {
                let x = m.float_of_rank(1)?;
                let dim = m.dim(x.rank());
                let size = x.shape[dim.rem_euclid(x.rank() as i64) as usize] as i64;
                let n = [dim, m.flag(), m.random.between(1, size)];
                with(&[x.id], &n)
            },
            |t, a| two(t[0].topk(a.n[2] as usize, a.n[0] as isize, a.n[1] == 1)),
        )
        .gap(along),
        rule("kthvalue", Value, "{0}.kthvalue(1, {n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].kthvalue(1, a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("median_dim", Value, "{0}.median_dim({n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].median_dim(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
        rule("median", Value, "{0}.median()", filled, |t, _| one(t[0].median())).gap(everywhere),
        rule("aminmax_dim", Value, "{0}.aminmax_dim({n0}, {n1} == 1)", dim, |t, a| {
            two(t[0].aminmax_dim(a.n[0] as isize, a.n[1] == 1))
        })
        .gap(along),
    ]
}

/// Norms.
fn norms() -> Vec<Rule> {
    vec![
        rule("vector_norm 2", Value, "{0}.vector_norm(2.0, &[{n}][1..], {n0} == 1)", wide_dims, |t, a| {
            one(t[0].vector_norm(2.0, &a.n[1..], a.n[0] == 1))
        })
        .gap(|t, a| one(t[0].square()?.sum_dim(&a.n[1..], true))),
        rule("vector_norm 1", Value, "{0}.vector_norm(1.0, &[{n}][1..], {n0} == 1)", dims, |t, a| {
            one(t[0].vector_norm(1.0, &a.n[1..], a.n[0] == 1))
        })
        .gap(|t, _| Ok(vec![t[0].clone()])),
        rule("normalize", Value, "{0}.normalize(2.0, {n0}, 1e-12)", dim, |t, a| {
            one(t[0].normalize(2.0, a.n[0], 1e-12))
        })
        // A vector of zeros has no direction, and rounding would give it one. The quotient is NaN there, so
        // that the distance says nothing.
        .gap(|t, a| {
            let squares = t[0].square()?.sum_dim(a.n[0], true)?;
            one(squares.div(&squares)?.mul(&squares))
        }),
    ]
}
