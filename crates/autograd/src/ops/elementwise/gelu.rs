//! The two forms of gelu. Their derivatives need the forward's costly part again, and take it from there.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use wgrad_array::{Expr, Formula, Result, Term};

use crate::ops::elementwise::unary::rounded;
use crate::ops::reduce::widened;
use crate::tape::{Derivative, record};
use crate::{Tensor, TensorExpr, is_grad_enabled};

/// `sqrt(2 / pi)` and the weight of the cube, of the published approximation.
const SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const CUBE: f64 = 0.044715;

/// # Activations: gelu
#[wgrad_macros::call_sites]
impl Tensor {
    /// `x * Φ(x)` with the normal distribution's Φ; `gelu(approximate="none")`. Halves are computed in f32.
    pub fn gelu(&self) -> Result<Tensor> {
        with_part(self, cdf, cdf, |x, cdf| {
            let pdf = (x * x * -0.5).exp() * (1.0 / (2.0 * PI).sqrt());
            cdf + x * pdf
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
        with_part(
            self,
            |x| twice_the_angle(x).sigmoid(),
            |x| twice_the_angle(x).sigmoid(),
            |x, share| {
                // As a function of its own, the rest keeps its digits in the slope's slope too.
                let rest = if is_grad_enabled() { (-twice_the_angle(x)).sigmoid() } else { 1.0 - share };
                let steepness = (x * x * (3.0 * CUBE) + 1.0) * (2.0 * SCALE);
                share + x * steepness * share * rest
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

/// The normal distribution's Φ.
fn cdf<F: Formula>(x: &F) -> F
where
    for<'a> &'a F: Term<F>,
{
    ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}

/// Twice what the approximation of Φ takes the tanh of.
fn twice_the_angle<F: Formula>(x: &F) -> F
where
    for<'a> &'a F: Term<F>,
{
    (x * x * x * CUBE + x) * (2.0 * SCALE)
}

/// `x` times a part that the slope uses again. Where gradients of gradients are recorded, the part is computed anew
/// as a function of the input; else it is the forward's, which evaluation keeps or recomputes, whichever is cheaper.
fn with_part(
    x: &Tensor,
    part: fn(&Expr) -> Expr,
    part_again: fn(&TensorExpr) -> TensorExpr,
    slope: fn(&TensorExpr, &TensorExpr) -> TensorExpr,
) -> Result<Tensor> {
    let input = x.operand()?;
    let wide = Expr::from(widened(&input.array));
    let part = part(&wide).done()?;
    let out = rounded((wide * &part).done()?, x.dtype())?;
    Ok(record(out, [input], |inputs, _| {
        Derivative::with("GeluBackward0", move |c| {
            c.gradient(|| {
                let (g, [x, part]) = c.wide_parts();
                let part = if is_grad_enabled() { part_again(&x) } else { part };
                g * slope(&x, &part)
            })
        })
        .save_input(inputs, 0)
        .save(&part)
    }))
}
