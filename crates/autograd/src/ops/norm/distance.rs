//! Norms of vectors, and distances and similarities made of them.

use wgrad_array::{Array, DType, Error, Expr, ReduceOp, Result};

use crate::ops::norm::unit::Floor;
use crate::ops::reduce::{Fold, require_float, widened};
use crate::tape::{Derivative, record};
use crate::{IntArray, Tensor, is_grad_enabled};

/// # Norms of vectors, distances, similarities
#[wgrad_macros::call_sites]
impl Tensor {
    /// `sum(|x| ** p) ** (1 / p)` over dims (none: all); the largest and smallest size for p of infinity and minus infinity,
    /// the number of elements that are not 0 for 0. `torch.linalg.vector_norm`. Where the norm is 0 the gradient is 0.
    ///
    /// # Errors
    /// For integers and bools; if a dim is not there or named twice; over no elements for a negative or infinite p.
    pub fn vector_norm(&self, p: f64, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        const OP: &str = "vector_norm";
        require_float(OP, self)?;
        let dims = dims.into();
        let fold = Fold::new(OP, self.shape(), &dims)?;
        if p.is_infinite() || (p < 0.0 && fold.count == 0) {
            if fold.count == 0 && fold.kept.iter().product::<usize>() > 0 {
                return Err(Error::EmptyReduction { op: OP, shape: self.shape().to_vec() });
            }
            let size = self.abs()?;
            let (node, extreme) =
                if p > 0.0 { ("AmaxBackward0", ReduceOp::Max) } else { ("AminBackward0", ReduceOp::Min) };
            return size.extreme(OP, node, extreme, &dims, keepdim, true);
        }
        if p == 0.0 {
            return self.ne(0.0)?.to_dtype(self.dtype())?.sum_dim(dims, keepdim);
        }
        if p == 1.0 {
            return self.abs()?.sum_dim(dims, keepdim);
        }
        self.p_norm(p, fold, keepdim)
    }

    /// The p-norm for p other than 0 and infinities, in the shape that broadcasts.
    pub(in crate::ops) fn norm_of(&self, p: f64, fold: &Fold) -> Result<Tensor> {
        if p == 1.0 { self.abs()?.sum_dim(&fold.dims, true) } else { self.p_norm(p, fold.clone(), true) }
    }

    fn p_norm(&self, p: f64, fold: Fold, keepdim: bool) -> Result<Tensor> {
        let x = self.operand()?;
        let out = norm_array(&widened(&x.array)?, p, &fold, keepdim)?.cast(self.dtype())?;
        Ok(record(out, [x], |inputs, out| {
            Derivative::with("LinalgVectorNormBackward0", move |c| {
                c.gradient(|| {
                    let (g, [x, norm]) = c.parts();
                    let (g, x) = (g.with_guard_digits(), x.with_guard_digits());
                    let unit = if is_grad_enabled() {
                        x.over_norm(p, &fold, Floor::Zero)
                    } else {
                        x.over(norm.widened().kept(&fold), p, Floor::Zero)
                    };
                    g.spread(&fold, &x) * unit.slope_of_norm(p)
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The tensor over its p-norm along dims, which is taken to be at least `eps`; PyTorch's defaults are p 2, dim 1, eps 1e-12.
    ///
    /// # Errors
    /// As [`Tensor::vector_norm`].
    pub fn normalize(&self, p: f64, dims: impl Into<IntArray>, eps: f64) -> Result<Tensor> {
        let (wide, dims) = (self.widened()?, dims.into());
        let out = if p.is_infinite() || p <= 0.0 || !self.dtype().is_float() {
            (&wide / wide.expr().vector_norm(p, dims, true).clamp_min(eps)).done()?
        } else {
            wide.over_norm(p, &Fold::new("normalize", self.shape(), &dims)?, Floor::Clamped(eps))?
        };
        out.to_dtype(self.dtype())
    }

    /// The cosine of the angle between vectors along a dim, lengths taken to be at least `eps`; PyTorch's defaults are dim 1
    /// and eps 1e-8.
    ///
    /// # Errors
    /// If the shapes do not broadcast, there is no such dim, or the dtypes are not float ones.
    pub fn cosine_similarity(&self, other: &Tensor, dim: isize, eps: f64) -> Result<Tensor> {
        const OP: &str = "cosine_similarity";
        let dtype = self.dtype().promote(other.dtype());
        let shape = wgrad_array::layout::broadcast_shapes(OP, self.shape(), other.shape())?;
        let unit = |x: &Tensor| {
            require_float(OP, x)?;
            let x = x.to_dtype(dtype)?.widened()?.expand(&shape)?;
            x.over_norm(2.0, &Fold::new(OP, &shape, &IntArray::from(dim))?, Floor::Raised(eps))
        };
        (unit(self)?.expr() * unit(other)?).sum_dim(dim, false).to_dtype(dtype).done()
    }

    /// The p-norm of `self - other + eps` over the last dim; PyTorch's defaults are p 2 and eps 1e-6.
    ///
    /// # Errors
    /// As [`Tensor::vector_norm`]; and if the shapes do not broadcast.
    pub fn pairwise_distance(&self, other: &Tensor, p: f64, eps: f64, keepdim: bool) -> Result<Tensor> {
        let dtype = self.dtype().promote(other.dtype());
        let distance = self.expr().widened() - other.widened();
        (distance + eps).vector_norm(p, -1, keepdim).rounded_to(dtype).done()
    }

    /// The p-norm of the differences of all rows of `self` (`[.., n, width]`) and all of `other` (`[.., m, width]`), as `[.., n, m]`.
    ///
    /// # Errors
    /// If p is negative, the rows differ in width, there are fewer than two dims, or batch dims do not broadcast.
    pub fn cdist(&self, other: &Tensor, p: f64) -> Result<Tensor> {
        const OP: &str = "cdist";
        if p.is_nan() || p < 0.0 {
            return Err(Error::Argument { op: OP, reason: format!("p is {p}; it must not be negative") });
        }
        let (Some(a), Some(b)) = (self.shape().last(), other.shape().last()) else {
            return Err(Error::Shape { op: OP, shape: Vec::new(), reason: "has no rows".into() });
        };
        if a != b || self.rank() < 2 || other.rank() < 2 {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: other.shape().to_vec(),
                reason: "are not both rows of one width".into(),
            });
        }
        let dtype = self.dtype().promote(other.dtype());
        let distance = self.widened()?.unsqueeze(-2)?.sub(other.widened()?.unsqueeze(-3)?)?;
        if *a == 0 {
            return distance.sum_dim(-1, false)?.rounded_to(dtype);
        }
        distance.vector_norm(p, -1, false)?.rounded_to(dtype)
    }
}

/// The p-norm, also where powers leave the range of numbers: rows whose largest element (for a negative p: smallest) is out of the
/// ordinary are divided by it first.
fn norm_array(x: &Array, p: f64, fold: &Fold, keepdim: bool) -> Result<Array> {
    if p == 2.0 {
        return x.sum_of_squares(&fold.dims, keepdim, 1.0, true);
    }
    let size = Expr::of(x).abs();
    let sum = |size: Expr, keepdim: bool| {
        size.pow(p).map(|powers| powers.reduce(ReduceOp::Sum, &fold.dims, keepdim)).pow(1.0 / p)
    };
    if fold.count == 0 {
        return sum(size, keepdim).done();
    }
    // Powers between these, and the sum of up to 2^31 of them, keep all digits.
    let (low, high) = if x.dtype() == DType::F64 { (-900.0, 960.0) } else { (-80.0, 90.0) };
    let (low, high) = ((low / p.abs()).exp2(), (high / p.abs()).exp2());
    let op = if p > 0.0 { ReduceOp::Max } else { ReduceOp::Min };
    let lead = size.map(|size| size.reduce(op, &fold.dims, true));
    let special = lead.is_finite().not().or(lead.eq(0.0));
    let unit = special.or(lead.ge(low).and(lead.le(high))).select(1.0, &lead);
    let norm = sum(size / &unit, true) * unit;
    if keepdim { norm.done() } else { norm.map(|norm| norm.reduce(ReduceOp::Sum, &fold.dims, false)).done() }
}
