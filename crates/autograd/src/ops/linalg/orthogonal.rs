//! Factorizations with orthonormal factors: QR, singular values, eigenvalues.

use wgrad_array::{Device, Error, GradRule, QrMode, Result, Triangle, Vectors};

use crate::tape::{Context, Derivative, record_outputs};
use crate::{AsTensor, Tensor, TensorExpr};

/// # Linear algebra: orthogonal factors
#[wgrad_macros::call_sites]
impl Tensor {
    /// Q with orthonormal columns and upper triangular R with `A = Q R`; `torch.linalg.qr`. The signs are LAPACK's.
    ///
    /// Differentiable in reduced mode, and in complete mode where no matrix has more rows than columns.
    ///
    /// ```
    /// use wgrad_autograd::{DType, QrMode, Tensor};
    /// let a = Tensor::new([[3.0, 1.0], [4.0, 2.0]], DType::F64)?;
    /// let (q, r) = a.qr(QrMode::Reduced)?;
    /// assert!(q.matmul(&r)?.sub(&a)?.abs()?.max()?.item::<f64>()? < 1e-12);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are fewer than two dims, or the dtype is not f32 or f64. Backward through another mode than those is an error.
    pub fn qr(&self, mode: QrMode) -> Result<(Tensor, Tensor)> {
        let a = self.operand()?;
        let (q, r) = a.array.qr(mode)?;
        let wide = self.shape()[self.rank() - 2] < self.shape()[self.rank() - 1];
        let outputs = record_outputs(vec![q, r], [a], |inputs, outputs| {
            Derivative::with("LinalgQrBackward0", move |c| c.each(1, |_| qr_gradient(c, mode)))
                .save_outputs(outputs)
                .save_input_if(wide, inputs, 0)
        });
        let [q, r] = all(outputs);
        Ok((q, r))
    }

    /// The singular value decomposition `A = U diag(S) Vh`, as `(U, S, Vh)` with the singular values in descending order;
    /// `torch.linalg.svd`. With `full_matrices` U and Vh are square, else they have only the columns and rows that belong to singular
    /// values. The signs of singular vectors are arbitrary.
    ///
    /// Gradients through U and Vh are finite only where no two singular values are equal and, in matrices that are not square, none is 0;
    /// those through S alone always are.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let a = Tensor::new([[0.0f32, 2.0], [3.0, 0.0], [0.0, 0.0]], &Device::cpu())?;
    /// let (u, s, vh) = a.svd(false)?;
    /// assert_eq!((u.shape(), s.to_vec::<f32>()?, vh.shape()), (&[3, 2][..], vec![3.0, 2.0], &[2, 2][..]));
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::LinAlg`] if a matrix is not finite; if there are fewer than two dims, or the dtype is not f32 or f64.
    pub fn svd(&self, full_matrices: bool) -> Result<(Tensor, Tensor, Tensor)> {
        let a = self.operand()?;
        let outputs = a.array.svd(if full_matrices { Vectors::Full } else { Vectors::Thin })?;
        let outputs = record_outputs(outputs.into(), [a], |_, outputs| {
            Derivative::new("LinalgSvdBackward0", |c| c.each(1, |_| svd_gradient(c))).save_outputs(outputs)
        });
        let [u, s, vt] = all(outputs);
        Ok((u, s, vt))
    }

    /// The singular values of matrices in descending order; `torch.linalg.svdvals`.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let a = Tensor::new([[0.0f32, -2.0], [3.0, 0.0]], &Device::cpu())?;
    /// assert_eq!(a.svdvals()?.to_vec::<f32>()?, [3.0, 2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::svd`].
    pub fn svdvals(&self) -> Result<Tensor> {
        if self.operand()?.needs_grad() {
            return Ok(self.svd(false)?.1);
        }
        let [_, s, _] = self.array()?.svd(Vectors::None)?;
        Ok(Tensor::from_array(s))
    }

    /// The eigenvalues of symmetric matrices in ascending order, and orthonormal eigenvectors as columns; `torch.linalg.eigh`. Only one
    /// triangle is read; PyTorch's default is the lower one. The signs of eigenvectors are arbitrary. NaN where that triangle is not finite.
    ///
    /// The gradient is symmetric. Through the eigenvectors it is finite only where no two eigenvalues are equal, through the eigenvalues alone always.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor, Triangle};
    /// let a = Tensor::new([[2.0, 0.0], [0.0, 1.0]], DType::F64)?;
    /// let (values, vectors) = a.eigh(Triangle::Lower)?;
    /// assert_eq!(values.to_vec::<f64>()?, [1.0, 2.0]);
    /// assert_eq!(vectors.abs()?.to_vec::<f64>()?, [0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the matrices are not square, or not f32 or f64.
    pub fn eigh(&self, triangle: Triangle) -> Result<(Tensor, Tensor)> {
        let a = self.operand()?;
        let outputs = a.array.eigh(triangle, true)?;
        let outputs = record_outputs(outputs.into(), [a], |_, outputs| {
            Derivative::new("LinalgEighBackward0", |c| c.each(1, |_| eigh_gradient(c))).save_outputs(outputs)
        });
        let [values, vectors] = all(outputs);
        Ok((values, vectors))
    }

    /// The eigenvalues of symmetric matrices in ascending order; `torch.linalg.eigvalsh`. One triangle is read, as in [`Tensor::eigh`].
    ///
    /// ```
    /// use wgrad_autograd::{DType, Tensor, Triangle};
    /// let a = Tensor::new([[2.0, 0.0], [0.0, 1.0]], DType::F64)?;
    /// assert_eq!(a.eigvalsh(Triangle::Lower)?.to_vec::<f64>()?, [1.0, 2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::eigh`].
    pub fn eigvalsh(&self, triangle: Triangle) -> Result<Tensor> {
        if self.operand()?.needs_grad() {
            return Ok(self.eigh(triangle)?.0);
        }
        let [values, _] = self.array()?.eigh(triangle, false)?;
        Ok(Tensor::from_array(values))
    }

    /// `x_j - x_i` for all pairs of the last dim, as matrices, and 1 on their diagonals.
    fn differences(&self) -> Result<Tensor> {
        let eye = self.eye_of(self.size(-1)?)?;
        let x = self.expr();
        (x.unsqueeze(-2) - x.unsqueeze(-1) + eye).done()
    }

    /// The quotient, 0 for 0 / 0: vectors that a result does not depend on have no gradient, however their values coincide.
    fn share_of(&self, divisor: &Tensor) -> Result<Tensor> {
        let x = self.expr();
        let neither = x.eq(0.0).logical_and(divisor.eq(0.0));
        (x / neither.where_cond(1.0, divisor)).done()
    }
}

/// Recorded outputs by name: as many come back as were given.
fn all<const N: usize>(outputs: Vec<Tensor>) -> [Tensor; N] {
    match outputs.try_into() {
        Ok(outputs) => outputs,
        Err(_) => unreachable!("every output was recorded"),
    }
}

/// With wide matrices split into a square part and the rest, `A = [X Y] = Q [U QᵀY]`,
///   gX = (G + Q sym(gU Uᵀ - QᵀG)) U⁻ᵀ with G = gQ + Y gVᵀ,  gY = Q gV,
/// where sym mirrors the upper triangle.
fn qr_gradient(c: &Context, mode: QrMode) -> Result<Tensor> {
    const OP: &str = "qr";
    let not = |reason: &str| {
        Err(Error::Autograd { op: OP, rule: GradRule::NotDifferentiable, reason: reason.to_owned() })
    };
    if mode == QrMode::R {
        return not("the derivative depends on Q, which mode R does not compute; use the reduced mode");
    }
    let [mut q, mut r] = c.tensors()?;
    let [m, n] = [q.size(-2)?, r.size(-1)?];
    if mode == QrMode::Complete && m > n {
        return not("in complete mode Q is not unique for more rows than columns; use the reduced mode");
    }
    let (k, rest) = (m.min(n), n.saturating_sub(m));
    // The triangular solve at its end takes place on the host, so that everything before it can.
    let (dtype, device) = (q.dtype(), q.device().clone());
    let on_host = |x: &Tensor| x.to(Device::cpu())?.with_guard_digits();
    let [_, _, input] = c.saved();
    let a = if rest > 0 { Some(on_host(input.as_tensor()?)?) } else { None };
    match &a {
        // Rounded factors are those of another matrix, and a square part that is nearly singular tells the two apart.
        Some(a) if a.dtype() != r.dtype() => (q, r) = a.qr(mode)?,
        _ => (q, r) = (on_host(&q)?, on_host(&r)?),
    }
    let mut g = c.grad_of(0).map(|g| TensorExpr::from(on_host(g)));
    let gr = c.grad_of(1).map(|g| TensorExpr::from(on_host(g)));
    let (q, u) = (&q.expr(), &r.expr().narrow(-1, 0, k));
    let mut gy = None;
    if let (Some(gr), Some(a)) = (&gr, &a) {
        let gv = &gr.narrow(-1, k as isize, rest);
        let more = a.expr().narrow(-1, k as isize, rest).matmul(gv.transposed_value());
        g = Some(match g {
            Some(g) => g + more,
            None => more,
        });
        gy = Some(q.matmul(gv));
    }
    let mut inner = match &gr {
        Some(gr) => gr.narrow(-1, 0, k).matmul(u.transposed_value()),
        None => u.zeros_like(),
    };
    if let Some(g) = &g {
        inner -= q.transposed_value().matmul(g);
    }
    let mirrored = inner.triu(0) + inner.triu(1).transposed_value();
    let mut numerator = q.matmul(mirrored);
    if let Some(g) = &g {
        numerator += g;
    }
    let gx = u.solve_triangular_batch(numerator.transposed_value(), Triangle::Upper, false);
    let gx = gx.transposed_value();
    let gradient = match gy {
        Some(gy) => Tensor::cat(&[&gx.done()?, &gy.done()?], -1)?,
        None if rest > 0 => gx.pad(&[(0, rest as isize)], 0.0).done()?,
        None => gx.done()?,
    };
    // The device may have no f64.
    gradient.to_dtype(dtype)?.to(&device)
}

/// With E_ij = s_j² - s_i² and skew(X) = X - Xᵀ,
///   gA = U (skew(UᵀgU)/E S + S skew(VᵀgV)/E + diag(gS)) Vᵀ,
/// plus (1 - U Uᵀ) gU S⁻¹ Vᵀ where U is not square, plus U S⁻¹ gVᵀ (1 - V Vᵀ) where V is not.
fn svd_gradient(c: &Context) -> Result<Tensor> {
    let [u, s, vt] = c.tensors()?;
    let [m, n, k] = [u.size(-2)?, vt.size(-1)?, s.size(-1)?];
    let (u, s, vt) = (&u.expr().narrow(-1, 0, k), &s.expr(), &vt.expr().narrow(-2, 0, k));
    let gu = c.grad_of(0).map(|g| g.expr().narrow(-1, 0, k));
    let gvt = c.grad_of(2).map(|g| g.expr().narrow(-2, 0, k));
    if gu.is_none() && gvt.is_none() {
        let gs = c.grad_of(1).ok_or_else(|| no_gradient("svd"))?;
        return u.scale_columns(gs).matmul(vt).done();
    }
    let squares = s.square().differences();
    let skew = |x: TensorExpr| (&x - x.transposed_value()).share_of(&squares);
    let mut inner = match c.grad_of(1) {
        Some(gs) => gs.expr().diag_embed(0, -2, -1),
        None => squares.zeros_like(),
    };
    if let Some(gu) = &gu {
        inner += skew(u.transposed_value().matmul(gu)).scale_columns(s);
    }
    if let Some(gvt) = &gvt {
        inner += skew(vt.matmul(gvt.transposed_value())) * s.unsqueeze(-1);
    }
    let mut left = u.matmul(inner);
    if let Some(gu) = gu.filter(|_| m > k) {
        let scaled = gu.share_of(s.unsqueeze(-2));
        let inside = u.matmul(u.transposed_value().matmul(&scaled));
        left += scaled - inside;
    }
    let mut out = left.matmul(vt);
    if let Some(gvt) = gvt.filter(|_| n > k) {
        let scaled = gvt.share_of(s.unsqueeze(-1));
        let inside = scaled.matmul(vt.transposed_value()).matmul(vt);
        out += u.matmul(scaled - inside);
    }
    out.done()
}

/// gA = V (diag(gL) + skew(VᵀgV)/2E) Vᵀ with E_ij = L_j - L_i and skew(X) = X - Xᵀ: the symmetric gradient.
fn eigh_gradient(c: &Context) -> Result<Tensor> {
    let [values, v] = c.saved();
    let vt = v.transposed_value();
    let Some(gv) = c.grad_of(1) else {
        let gl = c.grad_of(0).ok_or_else(|| no_gradient("eigh"))?;
        return v.scale_columns(gl).matmul(vt).done();
    };
    let product = vt.matmul(gv);
    let skew = &product - product.transposed_value();
    let mut inner = skew.share_of(values.differences() * 2.0);
    if let Some(gl) = c.grad_of(0) {
        inner += gl.expr().diag_embed(0, -2, -1);
    }
    v.matmul(inner).matmul(vt).done()
}

fn no_gradient(op: &'static str) -> Error {
    let reason = "the derivative was asked for without a gradient of an output".to_owned();
    Error::Autograd { op, rule: GradRule::NotDifferentiable, reason }
}
