//! The two forms of gelu. Their derivatives need the forward's costly part again, and take it from there.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use wgrad_array::{Array, BinaryOp, Result, UnaryOp};

use super::reduce::widened;
use super::unary::rounded;
use crate::tape::{Derivative, record};
use crate::{Tensor, is_grad_enabled};

/// `sqrt(2 / pi)` and the weight of the cube, of the published approximation.
const SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const CUBE: f64 = 0.044715;

#[wgrad_macros::call_sites]
impl Tensor {
    /// `x * Φ(x)` with the normal distribution's Φ; `gelu(approximate="none")`. Halves are computed in f32.
    pub fn gelu(&self) -> Result<Tensor> {
        let cdf = |x: &Array| {
            let erf = x.binary_scalar(BinaryOp::Mul, FRAC_1_SQRT_2)?.unary(UnaryOp::Erf)?;
            erf.binary_scalar(BinaryOp::Add, 1.0)?.binary_scalar(BinaryOp::Mul, 0.5)
        };
        let cdf_again = |x: &Tensor| x.mul(FRAC_1_SQRT_2)?.erf()?.add(1.0)?.mul(0.5);
        let out = |x: &Array, cdf: &Array| x.binary(BinaryOp::Mul, cdf);
        with_part(self, cdf, cdf_again, out, |x, cdf| {
            let pdf = x.mul(x)?.mul(-0.5)?.exp()?.mul(1.0 / (2.0 * PI).sqrt())?;
            cdf.add(x.mul(pdf)?)
        })
    }

    /// [`Tensor::gelu`] in place.
    ///
    /// # Errors
    /// As [`Tensor::gelu`] and [`Tensor::copy_`].
    pub fn gelu_(&self) -> Result<Tensor> {
        self.write("gelu_", || self.gelu())
    }

    /// The approximation of [`Tensor::gelu`] by a tanh; `gelu(approximate="tanh")`.
    pub fn gelu_tanh(&self) -> Result<Tensor> {
        // (1 + tanh z) / 2 is sigmoid(2 z), which keeps its digits where the tanh is nearly -1.
        let share = |x: &Array| {
            let cube = x.binary(BinaryOp::Mul, x)?.binary(BinaryOp::Mul, x)?;
            let inner = cube.binary_scalar(BinaryOp::Mul, CUBE)?.binary(BinaryOp::Add, x)?;
            inner.binary_scalar(BinaryOp::Mul, 2.0 * SCALE)?.unary(UnaryOp::Sigmoid)
        };
        let inner = |x: &Tensor| x.mul(x)?.mul(x)?.mul(CUBE)?.add(x)?.mul(2.0 * SCALE);
        let out = |x: &Array, share: &Array| x.binary(BinaryOp::Mul, share);
        with_part(
            self,
            share,
            move |x| inner(x)?.sigmoid(),
            out,
            move |x, share| {
                // As a function of its own, the rest keeps its digits in the slope's slope too.
                let rest = if is_grad_enabled() { inner(x)?.neg()?.sigmoid()? } else { share.rsub(1.0)? };
                let steepness = x.mul(x)?.mul(3.0 * CUBE)?.add(1.0)?.mul(2.0 * SCALE)?;
                share.add(x.mul(steepness)?.mul(share)?.mul(rest)?)
            },
        )
    }

    /// [`Tensor::gelu_tanh`] in place.
    ///
    /// # Errors
    /// As [`Tensor::gelu_tanh`] and [`Tensor::copy_`].
    pub fn gelu_tanh_(&self) -> Result<Tensor> {
        self.write("gelu_tanh_", || self.gelu_tanh())
    }
}

/// An operation with a part that its slope uses again. Where gradients of gradients are recorded, the part is computed anew
/// as a function of the input; else it is the forward's, which evaluation keeps or recomputes, whichever is cheaper.
fn with_part(
    x: &Tensor,
    part: impl Fn(&Array) -> Result<Array>,
    part_again: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    out: impl Fn(&Array, &Array) -> Result<Array>,
    slope: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    let input = x.operand()?;
    let wide = widened(&input.array)?;
    let part = part(&wide)?;
    let out = rounded(out(&wide, &part)?, x.dtype())?;
    Ok(record(out, [input], |inputs, _| {
        Derivative::with("GeluBackward0", move |c| {
            c.each(1, |_| {
                let x = c.saved(0)?.widened()?;
                let part = if is_grad_enabled() { part_again(&x)? } else { c.saved(1)? };
                c.grad()?.widened()?.mul(slope(&x, &part)?)
            })
        })
        .save_input(inputs, 0)
        .save(&part)
    }))
}
