//! Linear algebra.

use wgrad::{NormOrder, QrMode, Tensor, Triangle};

use super::reduce::{dims, keepdim};
use super::{Table, input_as, one, two};
use crate::call::{Arg, Call, Outcome, unclear};

pub const OPS: Table = &[
    ("norm", |c| {
        let order = order(c, "p")?.unwrap_or(NormOrder::Frobenius);
        one(input_as(c, "input")?.norm(order, dims(c)?, keepdim(c)?))
    }),
    ("linalg.norm", |c| one(input_as(c, "A")?.linalg_norm(order(c, "ord")?, dims(c)?, keepdim(c)?))),
    ("linalg.matrix_norm", |c| {
        let order = order(c, "ord")?.unwrap_or(NormOrder::Frobenius);
        match c.ints_or("dim", &[-2, -1])?[..] {
            [rows, columns] => one(input_as(c, "A")?.matrix_norm(order, [rows, columns], keepdim(c)?)),
            _ => unclear("dim", "not a pair"),
        }
    }),
    ("linalg.cholesky", |c| one(c.tensor("A")?.cholesky(triangle(c.flag("upper", false)?)))),
    ("linalg.det", |c| one(c.tensor("A")?.det())),
    ("linalg.slogdet", |c| two(c.tensor("A")?.slogdet())),
    ("linalg.inv", |c| one(c.tensor("A")?.inv())),
    ("linalg.solve", |c| one(c.tensor("A")?.solve(&c.tensor("B")?, c.flag("left", true)?))),
    ("linalg.solve_triangular", |c| {
        let (triangle, left) = (triangle(c.flag("upper", false)?), c.flag("left", true)?);
        one(c.tensor("A")?.solve_triangular(&c.tensor("B")?, triangle, left, c.flag("unitriangular", false)?))
    }),
    ("linalg.qr", |c| {
        let mode = c.text("mode", "reduced")?;
        let a = c.tensor("A")?;
        if mode == "r" {
            return one(a.qr(QrMode::R)?.1.abs());
        }
        let (q, r) = a.qr(match mode.as_str() {
            "reduced" => QrMode::Reduced,
            "complete" => QrMode::Complete,
            other => return unclear("mode", &format!("{other:?}")),
        })?;
        let k = smaller_size(&a)?;
        Ok(vec![q.narrow(-1, 0, k)?.abs()?, r.abs()?, q.matmul(&r)?])
    }),
    ("linalg.svd", |c| {
        let a = c.tensor("A")?;
        let (u, s, vh) = a.svd(c.flag("full_matrices", true)?)?;
        let k = smaller_size(&a)?;
        let (u, vh) = (u.narrow(-1, 0, k)?, vh.narrow(-2, 0, k)?);
        let product = u.mul(s.unsqueeze(-2)?)?.matmul(&vh)?;
        Ok(vec![u.abs()?, s, vh.abs()?, product])
    }),
    ("linalg.svdvals", |c| one(c.tensor("A")?.svdvals())),
    ("linalg.eigh", |c| {
        let (values, vectors) = c.tensor("A")?.eigh(uplo(c)?)?;
        let product = vectors.mul(values.unsqueeze(-2)?)?.matmul(&vectors.mt()?)?;
        Ok(vec![values, vectors.abs()?, product])
    }),
    ("linalg.eigvalsh", |c| one(c.tensor("A")?.eigvalsh(uplo(c)?))),
];

fn triangle(upper: bool) -> Triangle {
    if upper { Triangle::Upper } else { Triangle::Lower }
}

fn uplo(c: &Call) -> Outcome<Triangle> {
    match c.text("UPLO", "L")?.as_str() {
        "L" => Ok(Triangle::Lower),
        "U" => Ok(Triangle::Upper),
        other => unclear("UPLO", &format!("{other:?}")),
    }
}

/// The order of a norm; `None` for null.
fn order(c: &Call, name: &str) -> Outcome<Option<NormOrder>> {
    match c.get(name) {
        None => Ok(None),
        Some(Arg::Text(text)) => match text.as_str() {
            "fro" => Ok(Some(NormOrder::Frobenius)),
            "nuc" => Ok(Some(NormOrder::Nuclear)),
            other => unclear(name, &format!("{other:?}")),
        },
        Some(_) => Ok(c.opt_float(name)?.map(NormOrder::Number)),
    }
}

/// The number of singular values.
fn smaller_size(a: &Tensor) -> Outcome<usize> {
    Ok(a.size(-2)?.min(a.size(-1)?))
}
