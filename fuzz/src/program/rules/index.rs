//! Gathers, scatters, and other operations on indices.

use wgrad::{DType, ScatterReduce, Tensor};

use super::ResultKind::{Value, View};
use super::{CallOperands, OperandFinder, Rule, of, one, rule, with};

/// The form of the index of a gather or scatter.
#[derive(Clone, Copy)]
struct IndexForm {
    /// Whether the index has the rank of the value. Otherwise it has one dim.
    same_rank: bool,
    /// Whether there is a source, as scatters need it.
    source: bool,
    /// Whether no index occurs twice.
    distinct: bool,
}

const INDEX: IndexForm = IndexForm { same_rank: false, source: false, distinct: false };
const FULL_INDEX: IndexForm = IndexForm { same_rank: true, ..INDEX };
const SCATTER: IndexForm = IndexForm { source: true, ..FULL_INDEX };

/// A float value, an index along one of its dims, and, for scatters, a source.
fn along(m: &mut OperandFinder, form: IndexForm) -> Option<CallOperands> {
    let IndexForm { same_rank, source, distinct } = form;
    let x = m.float_of_rank(1)?;
    let dim = m.random.below(x.rank());
    let size = x.shape[dim];
    let count = if distinct { size } else { m.random.below(6) + 1 };
    let shape: Vec<usize> = if same_rank {
        (0..x.rank()).map(|d| if d == dim { count } else { x.shape[d] }).collect()
    } else {
        vec![count]
    };
    let index = if distinct {
        // A permutation of all indices.
        let shift = m.random.below(size);
        let data = (0..count).map(|i| ((i + shift) % size) as f64).collect::<Vec<_>>();
        if same_rank {
            let inner: usize = shape[dim + 1..].iter().product();
            let all = (0..shape.iter().product::<usize>()).map(|i| data[i / inner % count]).collect();
            m.push(&shape, DType::I64, all, false)
        } else {
            m.push(&shape, DType::I64, data, false)
        }
    } else {
        m.new_ints(&shape, 0, size as i64 - 1)
    };
    if !source {
        return with(&[x.id, index], &[dim as i64]);
    }
    let shape: Vec<usize> = (0..x.rank()).map(|d| if d == dim { count } else { x.shape[d] }).collect();
    let source = m.float_like(&shape, x.dtype, -100.0, 100.0);
    with(&[x.id, index, source], &[dim as i64])
}

/// Distances between all elements that may be combined at one index.
fn meeting(t: &[Tensor]) -> wgrad::Result<Vec<Tensor>> {
    let all = Tensor::cat(&[&t[0].reshape([-1i64])?, &t[2].reshape([-1i64])?], 0)?;
    super::all_neighbours(&all)
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [along_a_dim(), reducing_scatters(), indexing(), masks_and_tables()].into_iter().flatten().collect()
}

/// Gathers and scatters along a dim.
fn along_a_dim() -> Vec<Rule> {
    vec![
        rule(
            "gather",
            View,
            "{0}.gather({n0}, &{1})",
            |m| along(m, FULL_INDEX),
            |t, a| one(t[0].gather(a.n[0] as isize, &t[1])),
        ),
        rule(
            "take_along_dim",
            View,
            "{0}.take_along_dim(&{1}, {n0})",
            |m| along(m, FULL_INDEX),
            |t, a| one(t[0].take_along_dim(&t[1], a.n[0] as isize)),
        ),
        rule(
            "index_select",
            View,
            "{0}.index_select({n0}, &{1})",
            |m| along(m, INDEX),
            |t, a| one(t[0].index_select(a.n[0] as isize, &t[1])),
        ),
        rule(
            "scatter",
            View,
            "{0}.scatter({n0}, &{1}, &{2})",
            |m| along(m, IndexForm { distinct: true, ..SCATTER }),
            |t, a| one(t[0].scatter(a.n[0] as isize, &t[1], &t[2])),
        ),
        rule(
            "scatter_add",
            Value,
            "{0}.scatter_add({n0}, &{1}, &{2})",
            |m| along(m, SCATTER),
            |t, a| one(t[0].scatter_add(a.n[0] as isize, &t[1], &t[2])),
        ),
        rule(
            "index_add",
            Value,
            "{0}.index_add({n0}, &{1}, &{2})",
            |m| along(m, IndexForm { source: true, ..INDEX }),
            |t, a| one(t[0].index_add(a.n[0] as isize, &t[1], &t[2])),
        ),
        rule(
            "index_copy",
            View,
            "{0}.index_copy({n0}, &{1}, &{2})",
            |m| along(m, IndexForm { source: true, distinct: true, ..INDEX }),
            |t, a| one(t[0].index_copy(a.n[0] as isize, &t[1], &t[2])),
        ),
        rule(
            "index_fill",
            View,
            "{0}.index_fill({n0}, &{1}, 0.5)",
            |m| along(m, INDEX),
            |t, a| one(t[0].index_fill(a.n[0] as isize, &t[1], 0.5)),
        ),
    ]
}

/// Scatters that reduce the elements that meet at an index.
fn reducing_scatters() -> Vec<Rule> {
    vec![
        rule(
            "scatter_reduce mean",
            Value,
            "{0}.scatter_reduce({n0}, &{1}, &{2}, ScatterReduce::Mean, true)",
            |m| along(m, SCATTER),
            |t, a| one(t[0].scatter_reduce(a.n[0] as isize, &t[1], &t[2], ScatterReduce::Mean, true)),
        ),
        rule(
            "scatter_reduce amax",
            Value,
            "{0}.scatter_reduce({n0}, &{1}, &{2}, ScatterReduce::Amax, false)",
            |m| along(m, SCATTER),
            |t, a| one(t[0].scatter_reduce(a.n[0] as isize, &t[1], &t[2], ScatterReduce::Amax, false)),
        )
        .gap(|t, _| meeting(t)),
        rule(
            "scatter_reduce prod",
            Value,
            "{0}.scatter_reduce({n0}, &{1}, &{2}, ScatterReduce::Prod, true)",
            |m| along(m, SCATTER),
            |t, a| one(t[0].scatter_reduce(a.n[0] as isize, &t[1], &t[2], ScatterReduce::Prod, true)),
        ),
    ]
}

/// Indexing by tensors of indices.
fn indexing() -> Vec<Rule> {
    vec![
        rule(
            "index",
            View,
            "{0}.index(&[Some({1}.clone())])",
            |m| {
                let x = m.float_of_rank(1)?;
                let count = m.random.below(5) + 1;
                // Negative indices count from the end.
                let size = x.shape[0] as i64;
                let index = m.new_ints(&[count], -size, size - 1);
                of(&[x.id, index])
            },
            |t, _| one(t[0].index(&[Some(t[1].clone())])),
        ),
        rule("index_put", Value, "{0}.index_put(&[Some({1}.clone())], &{2}, true)", along_first, |t, _| {
            one(t[0].index_put(&[Some(t[1].clone())], &t[2], true))
        }),
        rule(
            "take",
            View,
            "{0}.take(&{1})",
            |m| {
                let x = m.float_of_rank(0)?;
                let index = m.new_ints(&[2, 3], 0, x.numel() as i64 - 1);
                of(&[x.id, index])
            },
            |t, _| one(t[0].take(&t[1])),
        ),
    ]
}

/// Masks, embeddings and searches.
fn masks_and_tables() -> Vec<Rule> {
    vec![
        rule(
            "masked_select",
            View,
            "{0}.masked_select(&{1})",
            |m| {
                let x = m.float()?;
                let mask = m.new_bools(&x.shape);
                of(&[x.id, mask])
            },
            |t, _| one(t[0].masked_select(&t[1])),
        ),
        rule(
            "masked_scatter",
            View,
            "{0}.masked_scatter(&{1}, &{2})",
            |m| {
                let x = m.float()?;
                let mask = m.new_bools(&x.shape);
                let source = m.float_like(&x.shape, x.dtype, -100.0, 100.0);
                of(&[x.id, mask, source])
            },
            |t, _| one(t[0].masked_scatter(&t[1], &t[2])),
        ),
        rule(
            "embedding",
            View,
            "{1}.embedding(&{0}, None)",
            |m| {
                let table = m.find(|live| live.dtype.is_float() && live.rank() == 2 && live.numel() > 0)?;
                let index = m.new_ints(&[2, 3], 0, table.shape[0] as i64 - 1);
                of(&[table.id, index])
            },
            |t, _| one(t[1].embedding(&t[0], None)),
        ),
        rule(
            "one_hot",
            View,
            "{0}.one_hot(5)",
            |m| of(&[m.find(|live| live.dtype == DType::I64 && live.low >= 0.0 && live.high < 5.0)?.id]),
            |t, _| one(t[0].one_hot(5)),
        ),
        rule(
            "searchsorted",
            View,
            "{0}.sort(0, false)?.0.searchsorted(&{0}, false)",
            |m| of(&[m.find(|live| live.dtype.is_float() && live.rank() == 1 && live.numel() > 0)?.id]),
            |t, _| one(t[0].sort(0, false)?.0.searchsorted(&t[0], false)),
        )
        .gap(|t, _| super::all_neighbours(&t[0])),
    ]
}

fn along_first(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.float_of_rank(1)?;
    let count = m.random.below(4) + 1;
    let index = m.new_ints(&[count], 0, x.shape[0] as i64 - 1);
    let shape: Vec<usize> = [count].into_iter().chain(x.shape[1..].iter().copied()).collect();
    let values = m.float_like(&shape, x.dtype, -100.0, 100.0);
    of(&[x.id, index, values])
}
