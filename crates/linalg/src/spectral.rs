//! The singular value decomposition, and the eigenvalues of symmetric matrices.

use crate::{Matrix, Triangle, elements};

/// The vectors that a decomposition computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// No vectors, only the values.
    None,
    /// The vectors that belong to the values.
    Thin,
    /// A complete orthonormal basis on each side.
    Full,
}

/// The decomposition `A = U diag(s) Vᵀ`; the matrices are in row-major order.
pub struct Svd {
    /// The left singular vectors, as columns. Empty if no vectors are computed.
    pub u: Vec<f64>,
    /// The singular values, largest first.
    pub s: Vec<f64>,
    /// The right singular vectors, as rows. Empty if no vectors are computed.
    pub vt: Vec<f64>,
}

/// The singular value decomposition. `None` if the matrix is not finite, or the iteration does not converge.
pub fn svd(a: Matrix<'_>, vectors: Vectors) -> Option<Svd> {
    if !a.is_finite() {
        return None;
    }
    if vectors == Vectors::None {
        let s = a.view().singular_values().ok()?;
        return Some(Svd { u: Vec::new(), s, vt: Vec::new() });
    }
    let parts = if vectors == Vectors::Full { a.view().svd() } else { a.view().thin_svd() }.ok()?;
    Some(Svd {
        u: elements(parts.U()),
        s: parts.S().column_vector().iter().copied().collect(),
        vt: elements(parts.V().transpose()),
    })
}

/// The eigenvalues of a symmetric matrix in ascending order, and, if `vectors` is set, orthonormal
/// eigenvectors as columns. Only one triangle of the matrix is read. All results are NaN if that triangle is
/// not finite. `None` if the iteration does not converge.
pub fn eigh(a: Matrix<'_>, triangle: Triangle, vectors: bool) -> Option<(Vec<f64>, Vec<f64>)> {
    let n = a.rows;
    if n == 0 {
        return Some((Vec::new(), Vec::new()));
    }
    let read = |i: usize| match triangle {
        Triangle::Lower => &a.data[i * n..=i * n + i],
        Triangle::Upper => &a.data[i * n + i..(i + 1) * n],
    };
    if !(0..n).all(|i| read(i).iter().all(|x| x.is_finite())) {
        return Some((vec![f64::NAN; n], vec![f64::NAN; if vectors { n * n } else { 0 }]));
    }
    if !vectors {
        return Some((a.view().self_adjoint_eigenvalues(triangle.side()).ok()?, Vec::new()));
    }
    let parts = a.view().self_adjoint_eigen(triangle.side()).ok()?;
    Some((parts.S().column_vector().iter().copied().collect(), elements(parts.U())))
}
