//! Normalisation.

pub(super) mod distance;
pub(super) mod normalization;
pub(super) mod unit;

use wgrad_array::layout::Dims;
use wgrad_array::{Array, BinaryOp, Error, Expr, Formula, ReduceOp, Result, Term};

use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, Operand, record};
use crate::{IntArray, Tensor, TensorExpr, is_grad_enabled};

/// # Normalisation
#[wgrad_macros::call_sites]
impl Tensor {
    /// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dims, which have the sizes `normalized_shape`; `F.layer_norm`.
    /// Weight and bias have that shape. PyTorch's default for `eps` is 1e-5.
    ///
    /// # Errors
    /// If the last dims, the weight or the bias have another shape, or the dtype is not a float one.
    pub fn layer_norm<'a>(
        &self,
        normalized_shape: impl Into<IntArray>,
        weight: impl Into<Option<&'a Tensor>>,
        bias: impl Into<Option<&'a Tensor>>,
        eps: f64,
    ) -> Result<Tensor> {
        const OP: &str = "layer_norm";
        require_float(OP, self)?;
        let normalized = normalized_shape.into().shape(OP)?;
        if normalized.is_empty() || !self.shape().ends_with(&normalized) {
            let reason = format!("does not end with the dims to normalise, {:?}", normalized.as_slice());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let (weight, bias) = (weight.into(), bias.into());
        for x in [weight, bias].into_iter().flatten() {
            if x.shape() != normalized.as_slice() {
                let reason = format!("is not that of the dims to normalise, {:?}", normalized.as_slice());
                return Err(Error::Shape { op: OP, shape: x.shape().to_vec(), reason });
            }
        }
        let x = self.operand()?;
        let dims: Dims = (self.rank() - normalized.len()..self.rank()).collect();
        let wide = widened(&x.array)?;
        let (mean, _, rstd) = statistics(&wide, &dims, eps)?;
        let mut out = scaled(&Expr::of(&wide), &Expr::of(&mean), &Expr::of(&rstd));
        let weight = weight.map(Tensor::operand).transpose()?;
        let bias = bias.map(Tensor::operand).transpose()?;
        if let Some(weight) = &weight {
            out = out * &widened(&weight.array)?;
        }
        if let Some(bias) = &bias {
            out = out + &widened(&bias.array)?;
        }
        let out = out.cast(self.dtype()).done()?;
        let has_weight = weight.is_some();
        // An absent weight or bias keeps its place, without an edge.
        let absent = || Operand { array: x.array.clone(), edge: None };
        let inputs = [weight.unwrap_or_else(absent), bias.unwrap_or_else(absent)];
        let [weight, bias] = inputs;
        Ok(record(out, [x, weight, bias], |inputs, _| {
            Derivative::with("NativeLayerNormBackward0", move |c| {
                let (g, [x, mean, rstd, weight]) = c.parts();
                let normalisation = Normalisation::of([x, mean, rstd], &dims, eps);
                let g = g.with_guard_digits();
                c.gradients(3, |i| match i {
                    0 if has_weight => normalisation.gradient(&(&g * &weight)),
                    0 => normalisation.gradient(&g),
                    1 => &g * &normalisation.scaled,
                    _ => g.clone(),
                })
            })
            .save_input(inputs, 0)
            .save(&mean)
            .save(&rstd)
            .save_input_if(has_weight, inputs, 1)
        }))
    }

    /// `(x - mean) / sqrt(var + eps)` over these dims, in f32 for halves; and the mean and the variance, without gradients.
    pub(super) fn standardized(&self, dims: &[usize], eps: f64) -> Result<[Tensor; 3]> {
        let (x, dims) = (self.widened()?.operand()?, Dims::from(dims));
        let (mean, var, rstd) = statistics(&x.array, &dims, eps)?;
        let out = scaled(&Expr::of(&x.array), &Expr::of(&mean), &Expr::of(&rstd)).done()?;
        let out = record(out, [x], |inputs, _| {
            Derivative::with("NativeBatchNormBackward0", move |c| {
                let normalisation = Normalisation::of(c.saved(), &dims, eps);
                c.gradient(|| normalisation.gradient(&c.g().with_guard_digits()))
            })
            .save_input(inputs, 0)
            .save(&mean)
            .save(&rstd)
        });
        Ok([out, Tensor::from_array(mean), Tensor::from_array(var)])
    }
}

/// Mean, variance and reciprocal standard deviation of rows.
fn statistics(x: &Array, dims: &[usize], eps: f64) -> Result<(Array, Array, Array)> {
    let count: usize = dims.iter().map(|&d| x.shape()[d]).product();
    let average = |x: &Expr| x.map(|x| x.reduce(ReduceOp::Sum, dims, true)) * (1.0 / count as f64);
    let x = Expr::of(x);
    let mean = average(&x);
    let centred = x - &mean;
    let var = average(&(&centred * &centred));
    let rstd = (&var + eps).rsqrt();
    Ok((mean.done()?, var.done()?, rstd.done()?))
}

/// Rows with mean 0 and variance 1.
fn scaled<F: Formula>(x: &F, mean: &F, rstd: &F) -> F
where
    for<'a> &'a F: Term<F>,
{
    (x - mean) * rstd
}

/// Rows without their means, the means, and the reciprocal standard deviations, where derivatives are taken of them.
fn centred(x: &Array, dims: &[usize], eps: f64) -> Result<(Array, Array, Array)> {
    let (mean, ..) = statistics(x, dims, eps)?;
    let centred = x.binary(BinaryOp::Sub, &mean)?;
    // What the mean lost in rounding is left in every element, and the terms that cancel in second derivatives raise it thirtyfold where
    // rows vary little.
    let (rest, ..) = statistics(&centred, dims, eps)?;
    let centred = centred.binary(BinaryOp::Sub, &rest)?;
    let (.., rstd) = statistics(&centred, dims, eps)?;
    Ok((centred, mean.binary(BinaryOp::Add, &rest)?, rstd))
}

#[wgrad_macros::call_sites]
impl Tensor {
    /// Rows with mean 0 and variance 1. The derivative is the one that they have in a derivative, so that what cancels in second ones
    /// does so in one difference.
    fn scaled_rows(&self, dims: &Dims, eps: f64) -> Result<Tensor> {
        let x = self.operand()?;
        let (centred, mean, rstd) = centred(&x.array, dims, eps)?;
        let dims = dims.clone();
        Ok(record(centred.binary(BinaryOp::Mul, &rstd)?, [x], |inputs, _| {
            Derivative::with("NativeBatchNormBackward0", move |c| {
                let normalisation = Normalisation::of(c.saved(), &dims, eps);
                c.gradient(|| normalisation.gradient(&c.g()))
            })
            .save_input(inputs, 0)
            .save(&mean)
            .save(&rstd)
        }))
    }

    /// `1 / sqrt(var + eps)` of rows, whose derivative is `-rstd² / n` times the rows with mean 0 and variance 1.
    fn reciprocal_deviation(&self, dims: &Dims, eps: f64) -> Result<Tensor> {
        let x = self.operand()?;
        let (_, mean, rstd) = centred(&x.array, dims, eps)?;
        let count: usize = dims.iter().map(|&d| self.shape()[d]).product();
        let dims = dims.clone();
        Ok(record(rstd.clone(), [x], |inputs, _| {
            Derivative::with("RsqrtBackward0", move |c| {
                let Normalisation { rstd, scaled, .. } = &Normalisation::of(c.saved(), &dims, eps);
                c.gradient(|| scaled * (c.g() * (rstd * rstd) * (-1.0 / count as f64)))
            })
            .save_input(inputs, 0)
            .save(&mean)
            .save(&rstd)
        }))
    }
}

/// Normalised rows in a derivative.
struct Normalisation<'a> {
    dims: &'a Dims,
    /// The reciprocal standard deviation.
    rstd: TensorExpr,
    /// The rows with mean 0 and variance 1.
    scaled: TensorExpr,
}

impl Normalisation<'_> {
    /// Of the saved input, mean and reciprocal standard deviation; where gradients of gradients are recorded, with those of the input
    /// anew, on which they depend.
    fn of([x, mean, rstd]: [TensorExpr; 3], dims: &Dims, eps: f64) -> Normalisation<'_> {
        let x = x.with_guard_digits();
        if is_grad_enabled() {
            let (scaled, rstd) = (x.scaled_rows(dims, eps), x.reciprocal_deviation(dims, eps));
            return Normalisation { dims, rstd, scaled };
        }
        Normalisation { dims, scaled: scaled(&x, &mean, &rstd), rstd }
    }

    /// The gradient of the input from that of the normalised rows.
    fn gradient(&self, g: &TensorExpr) -> TensorExpr {
        let along = &self.scaled * (g * &self.scaled).mean_dim(self.dims, true);
        (g - g.mean_dim(self.dims, true) - along) * &self.rstd
    }
}
