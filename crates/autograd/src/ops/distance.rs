//! Norms of vectors, and distances and similarities made of them.

use wgrad_array::{Error, Expr, ReduceOp, Result};

use super::reduce::{Fold, require_float, widened};
use crate::tape::{Derivative, record};
use crate::{IntArray, Tensor};

#[wgrad_macros::call_sites]
impl Tensor {
    /// `sum(|x| ** p) ** (1 / p)` over dims (none: all); the largest and smallest size for p of infinity and minus infinity,
    /// the number of elements that are not 0 for 0. `torch.linalg.vector_norm`. Where the norm is 0 the gradient is 0.
    ///
    /// # Errors
    /// For integers and bools; if a dim is not there or named twice; over no elements for a negative or infinite p.
    pub fn vector_norm(&self, p: f64, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.p_norm(p, dims.into(), keepdim, false)
    }

    /// [`Tensor::vector_norm`]; with `finite`, second derivatives are 0 where the norm or an element is, instead of NaN.
    fn p_norm(&self, p: f64, dims: IntArray, keepdim: bool, finite: bool) -> Result<Tensor> {
        const OP: &str = "vector_norm";
        require_float(OP, self)?;
        let fold = Fold::new(OP, self.shape(), &dims)?;
        if p.is_infinite() || (p < 0.0 && fold.count == 0) {
            if fold.count == 0 && fold.kept.iter().product::<usize>() > 0 {
                return Err(Error::EmptyReduction { op: OP, shape: self.shape().to_vec() });
            }
            let size = self.abs()?;
            return if p > 0.0 { size.amax(dims, keepdim) } else { size.amin(dims, keepdim) };
        }
        if p == 0.0 {
            return self.ne(0.0)?.to_dtype(self.dtype())?.sum_dim(dims, keepdim);
        }
        if p == 1.0 {
            return self.abs()?.sum_dim(dims, keepdim);
        }
        let x = self.operand()?;
        let size = Expr::from(widened(&x.array)).abs();
        let powers = if p == 2.0 { &size * &size } else { size.pow(p) };
        let sum = powers.map(|powers| powers.reduce(ReduceOp::Sum, &fold.dims, keepdim));
        let norm = if p == 2.0 { sum.sqrt() } else { sum.pow(1.0 / p) };
        let out = norm.cast(self.dtype()).done()?;
        Ok(record(out, [x], |inputs, out| {
            Derivative::with("LinalgVectorNormBackward0", move |c| {
                c.each(1, |_| {
                    let (g, x) = (c.grad()?.with_guard_digits()?, c.saved(0)?.with_guard_digits()?);
                    let saved = c.saved(1)?.widened()?;
                    // Its rounding would be among the terms that cancel.
                    let norm = if g.dtype() == saved.dtype() {
                        saved
                    } else {
                        x.p_norm(p, dims.clone(), keepdim, finite)?
                    };
                    let (none, zero) = (norm.eq(0.0)?, x.eq(0.0)?);
                    // What is masked in the end is not finite in between, and so NaN in derivatives of higher order.
                    let masked = |y: Tensor, at: &Tensor| if finite { y.masked_fill(at, 1.0) } else { Ok(y) };
                    let norm = masked(norm, &none)?;
                    let scale = if p == 2.0 { g.div(&norm)? } else { g.div(norm.pow(p - 1.0)?)? };
                    let scale = fold.spread(&scale.masked_fill(&none, 0.0)?, x.shape())?;
                    let size = || masked(x.abs()?, &zero);
                    let slope = if p == 2.0 {
                        x.clone()
                    } else if p > 2.0 {
                        x.mul(size()?.pow(p - 2.0)?)?
                    } else {
                        // The root's slope at 0 is infinite: none is taken there.
                        x.sign()?.mul(size()?.pow(p - 1.0)?)?.masked_fill(&zero, 0.0)?
                    };
                    scale.mul(slope)
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
        let wide = self.widened()?;
        wide.div(wide.vector_norm(p, dims, true)?.clamp_min(eps)?)?.to_dtype(self.dtype())
    }

    /// Elements no smaller than `min`, with the gradient of the unbounded ones.
    pub(super) fn raised_to(&self, min: f64) -> Result<Tensor> {
        let x = self.operand()?;
        let out = Expr::of(&x.array).max(min).done()?;
        Ok(record(out, [x], |_, _| {
            Derivative::new("CloneBackward0", |c| c.each(1, |_| Ok(c.grad()?.clone())))
        }))
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
            x.div(x.vector_norm(2.0, dim, true)?.raised_to(eps)?)
        };
        unit(self)?.mul(unit(other)?)?.sum_dim(dim, false)?.to_dtype(dtype)
    }

    /// The p-norm of `self - other + eps` over the last dim; PyTorch's defaults are p 2 and eps 1e-6.
    ///
    /// # Errors
    /// As [`Tensor::vector_norm`]; and if the shapes do not broadcast.
    pub fn pairwise_distance(&self, other: &Tensor, p: f64, eps: f64, keepdim: bool) -> Result<Tensor> {
        self.sub(other)?.add(eps)?.vector_norm(p, -1, keepdim)
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
        let distance = self.unsqueeze(-2)?.sub(other.unsqueeze(-3)?)?;
        if *a == 0 {
            return distance.sum_dim(-1, false);
        }
        distance.p_norm(p, IntArray::from(-1isize), false, true)
    }
}
