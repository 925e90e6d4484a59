//! Matrix products in all their forms, distances, small factorizations.

use wgrad::{Tensor, Triangle};

use super::ResultKind::Value;
use super::{CallOperands, OperandFinder, Rule, of, one, rule, with};

/// A matrix, or a batch of matrices, and a second operand for a product with it.
fn factors(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.float_of_rank(1)?;
    let inner = a.shape[a.rank() - 1];
    let found = m.find(|live| {
        live.dtype == a.dtype
            && live.numel() > 0
            && match live.rank() {
                0 => false,
                1 => live.shape[0] == inner,
                rank => live.shape[rank - 2] == inner,
            }
    });
    let b = match found {
        Some(b) if m.random.chance(70) => b.id,
        _ => {
            let columns = m.random.below(5) + 1;
            m.new_float(&[inner, columns], a.dtype, -1.5, 1.5)
        }
    };
    of(&[a.id, b])
}

fn matrices(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.find(|live| live.dtype.is_float() && live.rank() == 2)?;
    let columns = m.random.below(5) + 1;
    let b = m.float_like(&[a.shape[1], columns], a.dtype, -100.0, 100.0);
    of(&[a.id, b])
}

fn weights(m: &mut OperandFinder) -> Option<CallOperands> {
    let x = m.float_of_rank(1)?;
    let rows = m.random.below(5) + 1;
    let weight = m.float_like(&[rows, x.shape[x.rank() - 1]], x.dtype, -10.0, 10.0);
    let bias = m.float_like(&[rows], x.dtype, -10.0, 10.0);
    of(&[x.id, weight, bias])
}

fn vectors(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.find(|live| live.dtype.is_float() && live.rank() == 1)?;
    let b = m.float_like(&a.shape, a.dtype, -100.0, 100.0);
    of(&[a.id, b])
}

fn rows(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.find(|live| live.dtype.is_float() && live.rank() == 2 && live.numel() > 0)?;
    let count = m.random.below(4) + 1;
    let b = m.float_like(&[count, a.shape[1]], a.dtype, -100.0, 100.0);
    of(&[a.id, b])
}

fn alike(m: &mut OperandFinder) -> Option<CallOperands> {
    let a = m.float_of_rank(1)?;
    let b = m.float_like(&a.shape, a.dtype, -100.0, 100.0);
    of(&[a.id, b])
}

/// Two different vectors of at least two numbers. A vector of one number has no direction, and the similarity
/// of a vector to itself is constant: its second gradients are only the rounding errors of terms that cancel.
fn directions(m: &mut OperandFinder) -> Option<CallOperands> {
    let made = alike(m)?;
    let a = m.live.iter().find(|live| live.id == made.args[0])?;
    (made.args[0] != made.args[1] && a.shape[a.rank() - 1] > 1).then_some(made)
}

/// A matrix that is far from singular.
fn regular(x: &Tensor) -> wgrad::Result<Tensor> {
    let n = x.size(-1)?;
    let eye = Tensor::eye(n, n, (x.dtype(), x.device()))?;
    x.tanh()?.mul(0.5)?.add(&eye.mul(n as f64)?)
}

fn square(m: &mut OperandFinder) -> Option<CallOperands> {
    let fits = |live: &super::Live| {
        let r = live.rank();
        live.dtype.is_float()
            && live.dtype.size() >= 4
            && r >= 2
            && live.shape[r - 1] == live.shape[r - 2]
            && live.numel() > 0
    };
    of(&[m.find(fits)?.id])
}

/// The rules of this file.
pub fn rules() -> Vec<Rule> {
    [matrix_products(), distances(), factorizations()].into_iter().flatten().collect()
}

/// Matrix products.
fn matrix_products() -> Vec<Rule> {
    vec![
        rule("matmul", Value, "{0}.matmul(&{1})", factors, |t, _| one(t[0].matmul(&t[1]))),
        rule("mm", Value, "{0}.mm(&{1})", matrices, |t, _| one(t[0].mm(&t[1]))),
        rule(
            "mm, transposed",
            Value,
            "{0}.t()?.mm(&{0})",
            |m| of(&[m.find(|live| live.dtype.is_float() && live.rank() == 2)?.id]),
            |t, _| one(t[0].t()?.mm(&t[0])),
        ),
        rule("linear", Value, "{0}.linear(&{1}, &{2})", weights, |t, _| one(t[0].linear(&t[1], &t[2]))),
        rule("dot", Value, "{0}.dot(&{1})", vectors, |t, _| one(t[0].dot(&t[1]))),
        rule("outer", Value, "{0}.outer(&{1})", vectors, |t, _| one(t[0].outer(&t[1]))),
        rule(
            "addmm",
            Value,
            "{0}.addmm(&{1}, &{2}, 0.5, -1.25)",
            |m| {
                let made = matrices(m)?;
                let a = m.live.iter().find(|live| live.id == made.args[0])?.clone();
                let columns = match m.leaves.iter().find(|leaf| leaf.id == made.args[1]) {
                    Some(leaf) => leaf.shape[1],
                    None => m.live.iter().find(|live| live.id == made.args[1])?.shape[1],
                };
                let bias = m.float_like(&[columns], a.dtype, -100.0, 100.0);
                of(&[bias, made.args[0], made.args[1]])
            },
            |t, _| one(t[0].addmm(&t[1], &t[2], 0.5, -1.25)),
        ),
        rule(
            "bmm",
            Value,
            "{0}.bmm(&{0}.transpose(1, 2)?)",
            |m| of(&[m.find(|live| live.dtype.is_float() && live.rank() == 3)?.id]),
            |t, _| one(t[0].bmm(&t[0].transpose(1, 2)?)),
        ),
    ]
}

/// Products of vectors and distances.
fn distances() -> Vec<Rule> {
    vec![
        rule("einsum", Value, "Tensor::einsum(\"ij,kj->ik\", &[&{0}, &{1}])", rows, |t, _| {
            one(Tensor::einsum("ij,kj->ik", &[&t[0], &t[1]]))
        }),
        rule("kron", Value, "{0}.kron(&{1})", vectors, |t, _| one(t[0].kron(&t[1]))),
        rule("tensordot", Value, "{0}.tensordot(&{1}, 1)", matrices, |t, _| one(t[0].tensordot(&t[1], 1))),
        rule("cdist", Value, "{0}.cdist(&{1}, 2.0)", rows, |t, _| one(t[0].cdist(&t[1], 2.0)))
            .gap(|t, _| one(t[0].unsqueeze(1)?.sub(&t[1].unsqueeze(0)?)?.square()?.sum_dim(-1, false))),
        rule("cosine_similarity", Value, "{0}.cosine_similarity(&{1}, -1, 1e-8)", directions, |t, _| {
            one(t[0].cosine_similarity(&t[1], -1, 1e-8))
        })
        .gap(|t, _| Ok(vec![t[0].square()?.sum_dim(-1, false)?, t[1].square()?.sum_dim(-1, false)?])),
        rule("pairwise_distance", Value, "{0}.pairwise_distance(&{1}, 2.0, 1e-6, false)", alike, |t, _| {
            one(t[0].pairwise_distance(&t[1], 2.0, 1e-6, false))
        })
        .gap(|t, _| one(t[0].sub(&t[1])?.square()?.sum_dim(-1, false))),
        rule(
            "cross",
            Value,
            "{0}.cross(&{1}, -1)",
            |m| {
                let a = m.find(|live| live.dtype.is_float() && live.shape.last() == Some(&3))?;
                let b = m.float_like(&a.shape, a.dtype, -100.0, 100.0);
                of(&[a.id, b])
            },
            |t, _| one(t[0].cross(&t[1], -1)),
        ),
    ]
}

/// Small factorizations, and a Fourier transform.
fn factorizations() -> Vec<Rule> {
    vec![
        rule("inv", Value, "regular({0})?.inv()", square, |t, _| one(regular(&t[0])?.inv())),
        rule("det", Value, "regular({0})?.det()", square, |t, _| one(regular(&t[0])?.det())),
        rule("solve", Value, "regular({0})?.solve(&{0}, true)", square, |t, _| {
            one(regular(&t[0])?.solve(&t[0], true))
        }),
        rule("cholesky", Value, "(r + r.mt()).cholesky(Lower) with r = regular({0})", square, |t, _| {
            let r = regular(&t[0])?;
            one(r.add(&r.mt()?)?.cholesky(Triangle::Lower))
        }),
        rule(
            "trace",
            Value,
            "{0}.trace()",
            |m| of(&[m.find(|live| live.dtype.is_float() && live.rank() == 2)?.id]),
            |t, _| one(t[0].trace()),
        ),
        rule(
            "rfft",
            Value,
            "{0}.rfft(None, {n0}, FftNorm::Ortho)",
            |m| {
                let x = m.find(|live| {
                    live.dtype.is_float() && live.dtype.size() >= 4 && live.rank() > 0 && live.numel() > 0
                })?;
                let dim = m.dim(x.rank());
                with(&[x.id], &[dim])
            },
            |t, a| one(t[0].rfft(None, a.n[0] as isize, wgrad::FftNorm::Ortho)),
        ),
    ]
}
