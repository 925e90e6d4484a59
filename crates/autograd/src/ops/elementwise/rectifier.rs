//! Activation functions. Those without settings are rows as in `unary`.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{DType, Error, Expr, Result, Scalar};

use crate::ops::elementwise::unary::{rounded, unary};
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Context, Derivative, record};
use crate::{Tensor, TensorExpr};

/// The constants of self-normalising networks, for which mean 0 and variance 1 are a fixed point.
const SELU_ALPHA: f64 = 1.6732632423543772;
const SELU_SCALE: f64 = 1.0507009873554805;

unary! {
    /// `min(max(x, 0), 6)`; the derivative at 0 and 6 is 0, at NaN 1.
    relu6, relu6_ = |x| x.max(0i64).min(6i64), "HardtanhBackward0",
        input |g, x| g.masked_fill(x.le(0.0).logical_or(x.ge(6.0)), 0.0).flat_in(x);

    /// `scale * (max(x, 0) + min(alpha * (exp(x) - 1), 0))` with the constants of self-normalising networks.
    selu, selu_ = |x| elu_array(x, SELU_ALPHA * SELU_SCALE, SELU_SCALE, 1.0), "EluBackward0", input |g, x| {
        let slope = below(x).exp() * (SELU_ALPHA * SELU_SCALE);
        x.le(0.0).where_cond(g * slope, g * SELU_SCALE)
    };

    /// `x * tanh(softplus(x))`.
    mish, mish_ = |x| softplus_array(x, 1.0).tanh() * x, "MishBackward0", input |g, x| {
        let t = &x.softplus(1.0, 20.0).tanh();
        g * (t + x * x.sigmoid() * (1.0 - t * t))
    };

    /// `x / (1 + |x|)`.
    softsign, softsign_ = |x| x / (x.abs() + 1.0), "SoftsignBackward0", input |g, x| {
        let rest = &(x.abs() + 1.0);
        g / (rest * rest)
    };

    /// `x * relu6(x + 3) / 6`.
    hardswish, hardswish_ = |x| x * hard_sigmoid(x), "HardswishBackward0",
        input |g, x| {
            let inside = g * (x / 3.0 + 0.5);
            x.lt(3.0).where_cond(inside, g).masked_fill(x.le(-3.0), 0.0)
        };

    /// `relu6(x + 3) / 6`.
    hardsigmoid, hardsigmoid_ = |x| hard_sigmoid(x), "HardsigmoidBackward0",
        input |g, x| (g / 6.0).keep_where(x.gt(-3.0).logical_and(x.lt(3.0))).flat_in(x);

    /// `log(sigmoid(x))`, without overflow.
    logsigmoid, logsigmoid_ = |x| -softplus_array(&-x, 1.0), "LogSigmoidBackward0",
        input |g, x| g * (-x).sigmoid();

    /// `x - tanh(x)`.
    tanhshrink, tanhshrink_ = |x| x - x.tanh(), "SubBackward0", input |g, x| {
        let t = &x.tanh();
        g * (t * t)
    };
}

/// `relu6(x + 3) / 6`.
fn hard_sigmoid(x: &Expr) -> Expr {
    (x + 3.0).max(0.0).min(6.0) / 6.0
}

/// `x` where it is below 0, and a constant 0 elsewhere: at 0 itself the second derivative is 0.
fn below(x: &TensorExpr) -> TensorExpr {
    x.keep_where(x.lt(0.0))
}

/// `scale * x` above 0, `alpha * (exp(rate * x) - 1)` below.
fn elu_array(x: &Expr, alpha: f64, scale: f64, rate: f64) -> Expr {
    let below = (x.min(0.0) * rate).expm1() * alpha;
    x.gt(0.0).select(x * scale, below)
}

/// `log(1 + exp(x))`, without overflow.
pub(in crate::ops) fn softplus(x: &Expr) -> Expr {
    (-x.abs()).exp().log1p() + x.max(0.0)
}

/// `log(1 + exp(beta * x)) / beta`, without overflow.
fn softplus_array(x: &Expr, beta: f64) -> Expr {
    softplus(&(x * beta)) / beta
}

/// # Activations with settings
#[wgrad_macros::call_sites]
impl Tensor {
    /// An activation with settings: a formula of the widened array; the derivative, one of the widened gradient and input.
    fn activation(
        &self,
        name: &'static str,
        node: &'static str,
        forward: impl FnOnce(&Expr) -> Expr,
        derivative: impl Fn(&TensorExpr, &TensorExpr) -> TensorExpr + Send + Sync + 'static,
    ) -> Result<Tensor> {
        require_float(name, self)?;
        self.piecewise(node, forward, derivative)
    }

    /// As [`Tensor::activation`], for integers too.
    fn piecewise(
        &self,
        node: &'static str,
        forward: impl FnOnce(&Expr) -> Expr,
        derivative: impl Fn(&TensorExpr, &TensorExpr) -> TensorExpr + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let x = self.operand()?;
        let out = rounded(forward(&Expr::from(widened(&x.array))).done()?, self.dtype())?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with(node, move |c: &Context| {
                c.gradient(|| {
                    let (g, [x]) = &c.wide_parts();
                    derivative(g, x)
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// `x` above 0, `negative_slope * x` below; PyTorch's default is 0.01. The derivative at 0 is the slope.
    ///
    /// # Errors
    /// If the dtype is not a float one.
    pub fn leaky_relu(&self, negative_slope: f64) -> Result<Tensor> {
        self.activation(
            "leaky_relu",
            "LeakyReluBackward0",
            |x| x.gt(0.0).select(x, x * negative_slope),
            move |g, x| x.gt(0.0).where_cond(g, g * negative_slope).flat_in(x),
        )
    }

    /// `x` above 0, `alpha * (exp(x) - 1)` below; PyTorch's default is 1. The derivative at NaN is 1.
    ///
    /// # Errors
    /// If the dtype is not a float one.
    pub fn elu(&self, alpha: f64) -> Result<Tensor> {
        self.activation(
            "elu",
            "EluBackward0",
            |x| elu_array(x, alpha, 1.0, 1.0),
            move |g, x| x.le(0.0).where_cond(g * (below(x).exp() * alpha), g),
        )
    }

    /// `x` above 0, `alpha * (exp(x / alpha) - 1)` below; PyTorch's default is 1.
    ///
    /// # Errors
    /// If `alpha` is 0, or the dtype is not a float one.
    pub fn celu(&self, alpha: f64) -> Result<Tensor> {
        if alpha == 0.0 {
            return Err(Error::Argument { op: "celu", reason: "alpha is 0; it must not be".into() });
        }
        self.activation(
            "celu",
            "EluBackward0",
            |x| elu_array(x, alpha, 1.0, 1.0 / alpha),
            move |g, x| x.le(0.0).where_cond(g * (below(x) / alpha).exp(), g),
        )
    }

    /// `log(1 + exp(beta * x)) / beta`, and `x` itself where `beta * x` is above `threshold`; PyTorch's defaults are 1 and 20.
    ///
    /// # Errors
    /// If the dtype is not a float one.
    pub fn softplus(&self, beta: f64, threshold: f64) -> Result<Tensor> {
        self.activation(
            "softplus",
            "SoftplusBackward0",
            |x| (x * beta).gt(threshold).select(x, softplus_array(x, beta)),
            move |g, x| {
                let scaled = x * beta;
                // A constant from the threshold on: at it the second derivative is 0, as in PyTorch.
                let below = scaled.masked_fill(scaled.ge(threshold), threshold);
                scaled.gt(threshold).where_cond(g, g * below.sigmoid())
            },
        )
    }

    /// `min(max(x, min), max)`; PyTorch's defaults are -1 and 1. The derivative at both is 0, at NaN 1.
    ///
    /// # Errors
    /// If `min` is above `max`.
    pub fn hardtanh(&self, min: impl Into<Scalar>, max: impl Into<Scalar>) -> Result<Tensor> {
        let (min, max) = (min.into(), max.into());
        if min.as_f64() > max.as_f64() {
            let reason = format!("min ({}) is above max ({})", min.as_f64(), max.as_f64());
            return Err(Error::Argument { op: "hardtanh", reason });
        }
        let bound = |number: Scalar| match self.dtype() {
            DType::U8 => Scalar::Int(number.as_i64().clamp(0, 255)),
            dtype => number.cast(dtype),
        };
        let (min, max) = (bound(min), bound(max));
        self.piecewise(
            "HardtanhBackward0",
            |x| x.max(min).min(max),
            move |g, x| g.masked_fill(x.le(min).logical_or(x.ge(max)), 0.0).flat_in(x),
        )
    }

    /// `x` moved towards 0 by `lambda`, 0 within it; PyTorch's default is 0.5.
    ///
    /// # Errors
    /// If `lambda` is negative, or the dtype is not a float one.
    pub fn softshrink(&self, lambda: f64) -> Result<Tensor> {
        if lambda.is_nan() || lambda < 0.0 {
            let reason = format!("lambda is {lambda}; it must not be negative");
            return Err(Error::Argument { op: "softshrink", reason });
        }
        self.activation(
            "softshrink",
            "SoftshrinkBackward0",
            |x| x.abs().le(lambda).select(0.0, x - x.sign() * lambda),
            move |g, x| g.masked_fill(x.abs().le(lambda), 0.0),
        )
    }

    /// `x`, but 0 within -`lambda`..=`lambda`; PyTorch's default is 0.5.
    ///
    /// # Errors
    /// If the dtype is not a float one.
    pub fn hardshrink(&self, lambda: f64) -> Result<Tensor> {
        let lambda = lambda.max(0.0);
        self.activation(
            "hardshrink",
            "HardshrinkBackward0",
            |x| x.abs().le(lambda).select(0.0, x),
            move |g, x| g.masked_fill(x.abs().le(lambda), 0.0),
        )
    }

    /// `x` where it is above `threshold`, else `value`.
    pub fn threshold(&self, threshold: impl Into<Scalar>, value: impl Into<Scalar>) -> Result<Tensor> {
        let (threshold, value) = (threshold.into().cast(self.dtype()), value.into().cast(self.dtype()));
        self.piecewise(
            "ThresholdBackward0",
            |x| x.le(threshold).select(value, x),
            move |g, x| g.masked_fill(x.le(threshold), 0.0),
        )
    }

    /// `x` above 0, `weight * x` below. The weight is one number, or one for each channel (dim 1; dim 0 of a 1-dim tensor).
    ///
    /// # Errors
    /// If the weight has more than one dim or another size, or the dtypes differ.
    pub fn prelu(&self, weight: &Tensor) -> Result<Tensor> {
        const OP: &str = "prelu";
        require_float(OP, self)?;
        if weight.dtype() != self.dtype() {
            let reason = format!("of the weight is not that of the input, {}; cast one", self.dtype());
            return Err(Error::DType { op: OP, dtype: weight.dtype(), reason });
        }
        let channels = match self.shape() {
            [] => 1,
            [_] => 1,
            [_, channels, ..] => *channels,
        };
        if weight.rank() > 1 || (weight.numel() != 1 && weight.numel() != channels) {
            let reason = format!("is not that of one weight, or of one for each of {channels} channels");
            return Err(Error::Shape { op: OP, shape: weight.shape().to_vec(), reason });
        }
        let mut shape = vec![1; self.rank()];
        if weight.numel() != 1 {
            shape[1] = channels;
        }
        let weight = weight.reshape(shape)?;
        let (x, w) = (self.operand()?, weight.operand()?);
        let out = Expr::of(&x.array).gt(0.0).select(&x.array, Expr::of(&x.array) * &w.array).done()?;
        Ok(record(out, [x, w], |inputs, _| {
            Derivative::new("PreluKernelBackward0", |c| {
                let (g, [x, w]) = &c.parts();
                let positive = x.gt(0.0);
                c.gradients(2, |i| match i {
                    0 => positive.where_cond(g, g * w),
                    _ => (g * x).masked_fill(&positive, 0.0),
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
        }))
    }

    /// The first half along a dim times the sigmoid of the second; PyTorch's default is the last dim.
    ///
    /// # Errors
    /// If there is no such dim, or its size is odd.
    pub fn glu(&self, dim: isize) -> Result<Tensor> {
        const OP: &str = "glu";
        require_float(OP, self)?;
        if self.rank() == 0 {
            return Err(Error::Dim { op: OP, dim, rank: 0 });
        }
        let at = normalize_dim(OP, dim, self.rank())?;
        let size = self.shape()[at];
        if size % 2 == 1 {
            let reason = format!("has an odd size in dim {dim}, which is to be halved");
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let (first, second) =
            (self.narrow(dim, 0, size / 2)?, self.narrow(dim, size as isize / 2, size / 2)?);
        (first.widened()? * second.expr().widened().sigmoid()).rounded_to(self.dtype()).done()
    }

    /// [`Tensor::softmax`] of `-x`.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn softmin(&self, dim: isize) -> Result<Tensor> {
        self.neg()?.softmax(dim)
    }
}
