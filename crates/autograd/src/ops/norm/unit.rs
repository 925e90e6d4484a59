//! Tensors over their norms: the directions that norms, distances and similarities have as their slopes.
//!
//! With `u = x / |x|` the gradient of a p-norm is `s = sign(u) |u|^(p - 1)`, whose elements are in the range of numbers whatever the
//! elements of `x` are. The gradient of `u` is written with `u` itself, `(g - s <u, g>) / |x|`: what cancels in derivatives of norms does so
//! in one difference, and to exactly 0 in rows of one element.

use wgrad_array::{Expr, Result};

use crate::ops::reduce::Fold;
use crate::tape::{Derivative, record};
use crate::{Tensor, is_grad_enabled};

/// What a norm of 0, or a small one, is taken for.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum Floor {
    /// Rows of norm 0 stay 0.
    Zero,
    /// Norms are at least so large; below it they are a constant.
    Clamped(f64),
    /// Norms are at least so large, and have the slope of a norm below it too, as PyTorch's similarities do.
    Raised(f64),
}

#[wgrad_macros::call_sites]
impl Tensor {
    /// The tensor over its p-norm over some dims, for a finite p other than 0.
    pub(in crate::ops) fn over_norm(&self, p: f64, fold: &Fold, floor: Floor) -> Result<Tensor> {
        let value = self.detach();
        let norm = value.norm_of(p, fold)?;
        let (out, norm) = (value.over(&norm, p, floor)?.array()?, norm.array()?);
        let x = self.operand()?;
        let fold = fold.clone();
        Ok(record(out, [x], |inputs, out| {
            Derivative::with("DivBackward0", move |c| {
                c.gradient(|| {
                    let (g, [x, u, norm]) = c.parts();
                    let again = is_grad_enabled();
                    let norm = if again { x.norm_of(p, &fold) } else { norm };
                    let along = match floor {
                        Floor::Zero => u.slope_of_norm(p),
                        Floor::Clamped(least) => u.slope_of_norm(p).masked_fill(norm.le(least), 0.0),
                        Floor::Raised(_) if again => x.over_norm(p, &fold, Floor::Zero).slope_of_norm(p),
                        Floor::Raised(_) => x.over(&norm, p, Floor::Zero).slope_of_norm(p),
                    };
                    (&g - along * (&g * u).sum_dim(&fold.dims, true)) / norm.divisor(floor)
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
            .save(&norm)
        }))
    }

    /// The tensor over its p-norm, which is known.
    pub(in crate::ops) fn over(&self, norm: &Tensor, p: f64, floor: Floor) -> Result<Tensor> {
        let out = self.div(norm.divisor(floor)?)?;
        // For a negative p one 0 makes a norm 0, whatever the other elements are.
        if p < 0.0 && floor == Floor::Zero { out.masked_fill(&norm.eq(0.0)?, 0.0) } else { Ok(out) }
    }

    /// What a tensor with these norms is divided by.
    fn divisor(&self, floor: Floor) -> Result<Tensor> {
        match floor {
            Floor::Zero => self.masked_fill(&self.eq(0.0)?, f64::INFINITY),
            Floor::Clamped(least) => self.clamp_min(least),
            Floor::Raised(least) => self.raised_to(least),
        }
    }

    /// Elements no smaller than `min`, with the gradient of the unbounded ones.
    pub(in crate::ops) fn raised_to(&self, min: f64) -> Result<Tensor> {
        let x = self.operand()?;
        let out = Expr::of(&x.array).max(min).done()?;
        Ok(record(out, [x], |_, _| Derivative::new("CloneBackward0", |c| c.gradient(|| c.g()))))
    }

    /// The gradient of the p-norm at a tensor whose norm is 1: `sign(u) |u|^(p - 1)`, 0 where the element is.
    pub(in crate::ops) fn slope_of_norm(&self, p: f64) -> Result<Tensor> {
        if p == 2.0 {
            return Ok(self.clone());
        }
        let u = &self.expr();
        // A root's slope at 0 is infinite: none is taken there, in any order of derivative.
        let size = u.abs().masked_fill(u.eq(0.0), 1.0);
        let slope = if p > 2.0 { u * size.pow(p - 2.0) } else { u.sign() * size.pow(p - 1.0) };
        slope.done()
    }
}
