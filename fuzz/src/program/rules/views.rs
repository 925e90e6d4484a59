//! Views, and other operations that only move elements.

use wgrad::{Index, PadMode, Tensor};

use super::ResultKind::View;
use super::{CallOperands, OperandFinder, Rule, of, one, rule, sizes, with};

fn any(m: &mut OperandFinder) -> Option<CallOperands> {
    of(&[m.any()?.id])
}

/// A value with at least one dim, one of its dims, and further integers that depend on that dim's size.
fn at_dim(
    m: &mut OperandFinder,
    more: impl Fn(&mut OperandFinder, usize) -> Vec<i64>,
) -> Option<CallOperands> {
    let x = m.find(|live| live.rank() > 0)?;
    let dim = m.dim(x.rank());
    let size = x.shape[dim.rem_euclid(x.rank() as i64) as usize];
    let mut n = vec![dim];
    n.extend(more(m, size));
    with(&[x.id], &n)
}

/// Another shape with the same number of elements, made of the prime factors of that number.
fn another_shape(m: &mut OperandFinder, numel: usize) -> Vec<i64> {
    let mut shape = Vec::new();
    let mut left = numel;
    for prime in [2, 3, 5, 7, 11, 13] {
        while left > 0 && left.is_multiple_of(prime) {
            left /= prime;
            if shape.is_empty() || m.random.chance(45) {
                shape.push(prime as i64);
            } else {
                let at = m.random.below(shape.len());
                shape[at] *= prime as i64;
            }
        }
    }
    if left != 1 || shape.is_empty() || m.random.chance(20) {
        let at = m.random.below(shape.len() + 1);
        shape.insert(at, left as i64);
    }
    shape
}

fn order(m: &mut OperandFinder, rank: usize) -> Vec<i64> {
    let mut dims: Vec<i64> = (0..rank as i64).collect();
    for i in (1..rank).rev() {
        let j = m.random.below(i + 1);
        dims.swap(i, j);
    }
    dims
}

/// Two or three values whose shapes differ at most in the size of one dim, or, if `alike` is set, are equal.
fn several(m: &mut OperandFinder, alike: bool) -> Option<CallOperands> {
    let x = m.find(|live| live.rank() > 0)?;
    let dim = m.random.below(x.rank());
    let mut ids = vec![x.id];
    for _ in 0..1 + m.random.below(2) {
        let other = m.find(|live| {
            live.dtype == x.dtype
                && live.rank() == x.rank()
                && (0..x.rank()).all(|d| (d == dim && !alike) || live.shape[d] == x.shape[d])
        })?;
        ids.push(other.id);
    }
    with(&ids, &[dim as i64])
}

fn reshaped(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.any()?;
    let shape = another_shape(m, x.numel());
    with(&[x.id], &shape)
}

fn margins(m: &mut OperandFinder, rank: usize, low: i64) -> Option<CallOperands> {
    let x = m.find(|live| live.rank() == rank && live.dtype.is_float())?;
    let mut n = Vec::new();
    for &size in x.shape.iter().rev().take(2) {
        let most = (size as i64 - 1).min(2);
        n.extend([m.random.between(low.min(most), most), m.random.between(low.min(most), most)]);
    }
    with(&[x.id], &n)
}

fn pairs(n: &[i64]) -> Vec<(isize, isize)> {
    n.chunks(2).map(|pair| (pair[0] as isize, pair[1] as isize)).collect()
}

fn list(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [shapes(), parts(), rearrangements(), repeats_and_splits(), joined(), matrices()]
        .into_iter()
        .flatten()
        .collect()
}

/// A part of a dim. In a training loop it moves from round to round, like a batch.
fn narrow() -> Rule {
    let mut narrow = rule(
        "narrow",
        View,
        "{0}.narrow({n0}, {n1}, {n2})",
        |m| {
            at_dim(m, |m, size| {
                let start = m.random.below(size + 1) as i64;
                let length = m.random.between(0, size as i64 - start).max((size as i64 - start).min(1));
                vec![start, length, size as i64 - length]
            })
        },
        |t, a| one(t[0].narrow(a.n[0] as isize, a.n[1] as isize, a.n[2] as usize)),
    );
    narrow.moves = true;
    narrow
}

/// Changes of shape and of the order of dims.
fn shapes() -> Vec<Rule> {
    vec![
        narrow(),
        rule("reshape", View, "{0}.reshape([{n}])", reshaped, |t, a| one(t[0].reshape(&a.n[..]))),
        rule("view", View, "{0}.view([{n}])", reshaped, |t, a| one(t[0].view(&a.n[..]))),
        rule("flatten", View, "{0}.flatten(0, -1)", any, |t, _| one(t[0].flatten(0, -1))),
        rule(
            "permute",
            View,
            "{0}.permute([{n}])",
            |m| {
                let x = m.any()?;
                let dims = order(m, x.rank());
                with(&[x.id], &dims)
            },
            |t, a| one(t[0].permute(&a.n[..])),
        ),
        rule(
            "transpose",
            View,
            "{0}.transpose({n0}, {n1})",
            |m| {
                let x = m.find(|live| live.rank() > 1)?;
                let dims = [m.dim(x.rank()), m.dim(x.rank())];
                with(&[x.id], &dims)
            },
            |t, a| one(t[0].transpose(a.n[0] as isize, a.n[1] as isize)),
        ),
        rule("t", View, "{0}.t()", |m| of(&[m.find(|live| live.rank() <= 2)?.id]), |t, _| one(t[0].t())),
        rule("mt", View, "{0}.mt()", |m| of(&[m.find(|live| live.rank() >= 2)?.id]), |t, _| one(t[0].mt())),
        rule(
            "expand",
            View,
            "{0}.expand([{n}])",
            |m| {
                let x = m.find(|live| live.numel() <= 64)?;
                let mut shape: Vec<i64> = x
                    .shape
                    .iter()
                    .map(|&size| if size == 1 { m.random.between(1, 4) } else { size as i64 })
                    .collect();
                if m.random.chance(40) {
                    shape.insert(0, m.random.between(1, 3));
                }
                with(&[x.id], &shape)
            },
            |t, a| one(t[0].expand(&a.n[..])),
        ),
        rule("squeeze", View, "{0}.squeeze()", any, |t, _| one(t[0].squeeze())),
        rule(
            "unsqueeze",
            View,
            "{0}.unsqueeze({n0})",
            |m| {
                let x = m.find(|live| live.rank() < 5)?;
                let dim = m.dim(x.rank() + 1);
                with(&[x.id], &[dim])
            },
            |t, a| one(t[0].unsqueeze(a.n[0] as isize)),
        ),
    ]
}

/// Views of a part of the elements.
fn parts() -> Vec<Rule> {
    vec![
        rule(
            "slice",
            View,
            "{0}.slice({n0}, {n1}, None, {n2})",
            |m| {
                at_dim(m, |m, size| {
                    let start = m.random.between(-(size as i64), size as i64);
                    vec![start, m.random.between(1, 3)]
                })
            },
            |t, a| one(t[0].slice(a.n[0] as isize, a.n[1] as isize, None, a.n[2] as usize)),
        ),
        rule(
            "select",
            View,
            "{0}.select({n0}, {n1})",
            |m| at_dim(m, |m, size| vec![m.random.between(-(size as i64), size as i64 - 1)]),
            |t, a| one(t[0].select(a.n[0] as isize, a.n[1] as isize)),
        ),
        rule(
            "diagonal",
            View,
            "{0}.diagonal({n0}, 0, 1)",
            |m| {
                let x = m.find(|live| live.rank() > 1)?;
                let offset = m.random.between(-1, 1);
                with(&[x.id], &[offset])
            },
            |t, a| one(t[0].diagonal(a.n[0] as isize, 0, 1)),
        ),
        rule(
            "unfold",
            View,
            "{0}.unfold({n0}, {n1}, {n2})",
            |m| {
                at_dim(m, |m, size| {
                    let window = m.random.between(0, size as i64).max(1);
                    vec![window, m.random.between(1, 2)]
                })
            },
            |t, a| one(t[0].unfold(a.n[0] as isize, a.n[1] as usize, a.n[2] as usize)),
        ),
    ]
}

/// Elements in another order.
fn rearrangements() -> Vec<Rule> {
    vec![
        rule(
            "flip",
            View,
            "{0}.flip([{n}])",
            |m| {
                let x = m.any()?;
                let dims = m.dims(x.rank());
                with(&[x.id], &dims)
            },
            |t, a| one(t[0].flip(&a.n[..])),
        ),
        rule(
            "roll",
            View,
            "{0}.roll({n1}, {n0})",
            |m| at_dim(m, |m, _| vec![m.random.between(-5, 5)]),
            |t, a| one(t[0].roll(a.n[1], a.n[0])),
        ),
        rule(
            "rot90",
            View,
            "{0}.rot90({n0}, [0, 1])",
            |m| {
                let x = m.find(|live| live.rank() > 1)?;
                let k = m.random.between(-3, 3);
                with(&[x.id], &[k])
            },
            |t, a| one(t[0].rot90(a.n[0] as isize, [0i64, 1])),
        ),
        rule(
            "movedim",
            View,
            "{0}.movedim({n0}, {n1})",
            |m| {
                let x = m.find(|live| live.rank() > 0)?;
                let dims = [m.dim(x.rank()), m.dim(x.rank())];
                with(&[x.id], &dims)
            },
            |t, a| one(t[0].movedim(a.n[0], a.n[1])),
        ),
    ]
}

/// Elements repeated, and values divided.
fn repeats_and_splits() -> Vec<Rule> {
    vec![
        rule(
            "repeat",
            View,
            "{0}.repeat([{n}])",
            |m| {
                let x = m.find(|live| live.numel() <= 100)?;
                let mut counts: Vec<i64> = x.shape.iter().map(|_| m.random.between(1, 2)).collect();
                if m.random.chance(30) {
                    counts.insert(0, 2);
                }
                with(&[x.id], &counts)
            },
            |t, a| one(t[0].repeat(&a.n[..])),
        ),
        rule(
            "repeat_interleave",
            View,
            "{0}.repeat_interleave({n1}, {n0})",
            |m| at_dim(m, |m, _| vec![m.random.between(1, 3)]),
            |t, a| one(t[0].repeat_interleave(a.n[1] as usize, a.n[0] as isize)),
        ),
        rule(
            "split, first and last",
            View,
            "{0}.split({n1}, {n0})?'s first and last",
            |m| at_dim(m, |m, size| vec![m.random.between(1, size.max(1) as i64)]),
            |t, a| {
                let parts = t[0].split(a.n[1] as usize, a.n[0] as isize)?;
                let last = parts.last().cloned();
                Ok(parts.into_iter().take(1).chain(last).collect())
            },
        ),
        rule(
            "unbind, first and last",
            View,
            "{0}.unbind({n0})?'s first and last",
            |m| at_dim(m, |_, _| Vec::new()),
            |t, a| {
                let parts = t[0].unbind(a.n[0] as isize)?;
                let last = parts.last().cloned();
                Ok(parts.into_iter().take(1).chain(last).collect())
            },
        ),
    ]
}

/// Several values joined, and padding.
fn joined() -> Vec<Rule> {
    vec![
        rule(
            "cat",
            View,
            "Tensor::cat(&[{all}], {n0})",
            |m| several(m, false),
            |t, a| one(Tensor::cat(&list(t), a.n[0] as isize)),
        ),
        rule(
            "stack",
            View,
            "Tensor::stack(&[{all}], {n0})",
            |m| several(m, true),
            |t, a| one(Tensor::stack(&list(t), a.n[0] as isize)),
        ),
        rule(
            "pad",
            View,
            "{0}.pad(pairs of [{n}], 0.75)",
            |m| margins(m, 2, -1),
            |t, a| one(t[0].pad(&pairs(&a.n), 0.75)),
        ),
        rule(
            "pad_with reflect",
            View,
            "{0}.pad_with(pairs of [{n}], PadMode::Reflect)",
            |m| margins(m, 3, 0),
            |t, a| one(t[0].pad_with(&pairs(&a.n[..2]), PadMode::Reflect)),
        ),
        rule(
            "pad_with replicate",
            View,
            "{0}.pad_with(pairs of [{n}], PadMode::Replicate)",
            |m| margins(m, 4, 0),
            |t, a| one(t[0].pad_with(&pairs(&a.n), PadMode::Replicate)),
        ),
        rule(
            "pad_with circular",
            View,
            "{0}.pad_with(pairs of [{n}], PadMode::Circular)",
            |m| margins(m, 3, 0),
            |t, a| one(t[0].pad_with(&pairs(&a.n[..2]), PadMode::Circular)),
        ),
    ]
}

/// Copies, triangles and diagonals, and indexing.
fn matrices() -> Vec<Rule> {
    vec![
        rule("contiguous", View, "{0}.contiguous()", any, |t, _| one(t[0].contiguous())),
        rule(
            "tril",
            View,
            "{0}.tril({n0})",
            |m| {
                let x = m.find(|live| live.rank() > 1)?;
                let k = m.random.between(-1, 1);
                with(&[x.id], &[k])
            },
            |t, a| one(t[0].tril(a.n[0])),
        ),
        rule(
            "triu",
            View,
            "{0}.triu({n0})",
            |m| {
                let x = m.find(|live| live.rank() > 1)?;
                let k = m.random.between(-1, 1);
                with(&[x.id], &[k])
            },
            |t, a| one(t[0].triu(a.n[0])),
        ),
        rule(
            "diag_embed",
            View,
            "{0}.diag_embed({n0}, -2, -1)",
            |m| {
                let x = m.find(|live| live.rank() > 0 && live.rank() < 4 && live.numel() < 100)?;
                let offset = m.random.between(-1, 1);
                with(&[x.id], &[offset])
            },
            |t, a| one(t[0].diag_embed(a.n[0] as isize, -2, -1)),
        ),
        rule(
            "get",
            View,
            "{0}.get(&[Index::Ellipsis, Index::Slice(Some({n1}), None, {n2}), Index::NewAxis])",
            |m| {
                let x = m.find(|live| live.rank() > 0 && live.rank() < 5)?;
                let size = x.shape[x.rank() - 1] as i64;
                let n = [0, m.random.between(0, size), m.random.between(1, 2)];
                with(&[x.id], &n)
            },
            |t, a| {
                let slice = Index::Slice(Some(a.n[1] as isize), None, a.n[2] as usize);
                one(t[0].get(&[Index::Ellipsis, slice, Index::NewAxis]))
            },
        ),
        rule(
            "as_strided",
            View,
            "{0}.as_strided([{n0}, {n1}], &[1, {n2}], None)",
            |m| {
                // Of a leaf, since its memory has the expected layout.
                let x = m.find(|live| live.is_leaf && live.numel() > 1)?;
                let count = x.numel() as i64;
                let rows = m.random.between(1, count.min(3));
                let columns = m.random.between(1, count - rows + 1).min(4);
                let step = if columns > 1 { m.random.between(0, (count - rows) / (columns - 1)) } else { 1 };
                with(&[x.id], &[rows, columns, step])
            },
            |t, a| {
                let strides = [1, a.n[2] as isize];
                one(t[0].as_strided(sizes(&a.n[..2]), &strides, None))
            },
        ),
    ]
}
