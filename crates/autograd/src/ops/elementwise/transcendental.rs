//! Exponentials, logarithms, angles, special functions. Rows as in `unary`.

use std::f64::consts::{FRAC_2_SQRT_PI, LN_2, LN_10, LOG2_E, LOG10_E, PI};

use wgrad_array::{Array, BinaryOp, DType, Error, Expr, Result};

use crate::ops::elementwise::unary::{rounded, unary};
use crate::ops::reduce::widened;
use crate::tape::{Derivative, record};
use crate::{Tensor, TensorExpr};

unary! {
    /// Two to the x.
    exp2, exp2_ = |x| x.map(|x| x.scalar_binary(2.0, BinaryOp::Pow)), "Exp2Backward0", output |g, y| g * (y * LN_2);

    /// The logarithm to the base 2.
    log2, log2_ = |x| x.log() * LOG2_E, "Log2Backward0", input |g, x| g / (x * LN_2);

    /// The logarithm to the base 10.
    log10, log10_ = |x| x.log() * LOG10_E, "Log10Backward0", input |g, x| g / (x * LN_10);

    /// The tangent of radians.
    tan, tan_ = |x| x.map(Array::tan), "TanBackward0", output |g, y| g * (y * y + 1.0);

    /// The angle whose sine it is; NaN outside of -1..=1.
    asin, asin_ = |x| x.map(Array::asin), "AsinBackward0", input |g, x| g * (1.0 - x * x).rsqrt();

    /// The angle whose cosine it is; NaN outside of -1..=1.
    acos, acos_ = |x| x.map(Array::acos), "AcosBackward0", input |g, x| g * -(1.0 - x * x).rsqrt();

    /// The angle whose tangent it is.
    atan, atan_ = |x| x.map(Array::atan), "AtanBackward0", input |g, x| g / (x * x + 1.0);

    /// The hyperbolic sine.
    sinh, sinh_ = |x| x.map(Array::sinh), "SinhBackward0", input |g, x| g * x.cosh();

    /// The hyperbolic cosine.
    cosh, cosh_ = |x| x.map(Array::cosh), "CoshBackward0", input |g, x| g * x.sinh();

    /// The inverse of the hyperbolic sine.
    asinh, asinh_ = |x| x.map(Array::asinh), "AsinhBackward0", input |g, x| g * (x * x + 1.0).rsqrt();

    /// The inverse of the hyperbolic cosine; NaN below 1.
    acosh, acosh_ = |x| x.map(Array::acosh), "AcoshBackward0", input |g, x| g * (x * x - 1.0).rsqrt();

    /// The inverse of the hyperbolic tangent; NaN outside of -1..=1.
    atanh, atanh_ = |x| x.map(Array::atanh), "AtanhBackward0", input |g, x| g / (1.0 - x * x);

    /// `1 - erf(x)`, exact where erf is close to 1.
    erfc, erfc_ = |x| x.map(Array::erfc), "ErfcBackward0", input |g, x| g * ((-(x * x)).exp() * -FRAC_2_SQRT_PI);

    /// The inverse of erf: infinite at -1 and 1, NaN beyond.
    erfinv, erfinv_ = |x| x.map(Array::erfinv), "ErfinvBackward0", output |g, y| g * ((y * y).exp() * (1.0 / FRAC_2_SQRT_PI));

    /// The logarithm of the absolute value of the gamma function.
    lgamma, lgamma_ = |x| x.map(Array::lgamma), "LgammaBackward0", input |g, x| g * x.digamma();

    /// The derivative of [`Tensor::lgamma`].
    digamma, digamma_ = |x| x.map(Array::digamma), "DigammaBackward0", input |g, x| g * x.polygamma(1);

    /// The modified Bessel function of the first kind, of order 0.
    i0, i0_ = |x| x.map(Array::i0), "I0Backward0", input |g, x| g * x.i1();

    /// The modified Bessel function of the first kind, of order 1; `torch.special.i1`.
    i1, i1_ = |x| x.map(Array::i1), "SpecialI1Backward0", input |g, x| {
        let ratio = x.eq(0.0).where_cond(0.5, x.i1() / x.masked_fill(x.eq(0.0), 1.0));
        g * (x.i0() - ratio)
    };

    /// `sin(πx) / (πx)`, 1 at 0.
    sinc, sinc_ = |x| sinc_array(x), "SincBackward0", input |g, x| {
        let near = x.abs().lt(1.0 / PI).logical_and(x.ne(0.0));
        // Each formula gets only numbers that it is for: elsewhere its steps leave the range of numbers, and its gradient, though it is
        // multiplied by 0, is not a number.
        let close = x.masked_fill(near.logical_not(), 0.0);
        let x_far = &x.masked_fill(&near, 1.0);
        let angle = &(x_far * PI);
        let far = (angle * angle.cos() - angle.sin()) / (angle * x_far);
        let slope = near.where_cond(sinc_slope_near_0(&(close * PI)), far);
        // Masked last, and without the series: as in PyTorch the second derivative at 0 is not a number.
        (g * slope).masked_fill(x.eq(0.0), 0.0)
    };

    /// Degrees as radians.
    deg2rad, deg2rad_ = |x| x * (PI / 180.0), "MulBackward0", nothing |g, x| g * (PI / 180.0);

    /// Radians as degrees.
    rad2deg, rad2deg_ = |x| x * (180.0 / PI), "MulBackward0", nothing |g, x| g * (180.0 / PI);

    /// The part behind the point, with the sign of x.
    frac, frac_ = |x| x - x.trunc(), "FracBackward0", nothing |g, x| g.clone();
}

fn sinc_array(x: &Expr) -> Expr {
    let angle = x * PI;
    angle.eq(0.0).select(1.0, angle.sin() / &angle)
}

/// The slope of [`Tensor::sinc`] at angles `πx` below 1, where the terms of its formula cancel: the derivative of the series of
/// `sin(a) / a`, which begins with `-a / 3`, and whose terms have the ratios `-a² / (2k (2k + 3))`. Nine of them are f64's digits.
fn sinc_slope_near_0(angle: &TensorExpr) -> TensorExpr {
    let square = angle * angle;
    let ratio = |k: i32| -1.0 / f64::from(2 * k * (2 * k + 3));
    let mut sum = &square * ratio(8) + 1.0;
    for k in (1..8).rev() {
        sum = sum * &square * ratio(k) + 1.0;
    }
    sum * angle * (-PI / 3.0)
}

/// # Special functions
#[wgrad_macros::call_sites]
impl Tensor {
    /// The `n`-th derivative of [`Tensor::digamma`]; `torch.polygamma`. What is too large for the dtype is infinite; where the value itself is
    /// not, but `n!` is, PyTorch's result is not a number.
    ///
    /// # Errors
    /// If `n` is above 2^31 - 1.
    pub fn polygamma(&self, n: usize) -> Result<Tensor> {
        if n == 0 {
            return self.digamma();
        }
        if n > i32::MAX as usize {
            let reason = format!("the order is {n}; it must be at most {}", i32::MAX);
            return Err(Error::Argument { op: "polygamma", reason });
        }
        let x = self.operand()?;
        let out = x.array.polygamma(n)?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with("PolygammaBackward0", move |c| {
                c.gradient(|| {
                    let (g, [x]) = c.parts();
                    g * x.polygamma(n + 1)
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// Rounded to this many digits behind the point; negative ones count in front of it. Of two nearest the even one.
    ///
    /// # Errors
    /// For integers, unless the digits are 0.
    pub fn round_decimals(&self, decimals: i32) -> Result<Tensor> {
        if decimals == 0 {
            return self.round();
        }
        crate::ops::reduce::require_float("round", self)?;
        let x = self.operand()?;
        // A power of ten with a positive exponent is exact: it multiplies or divides.
        let ten = 10f64.powi(decimals.saturating_abs());
        let wide = Expr::from(widened(&x.array));
        let out = if decimals > 0 { (wide * ten).round() / ten } else { (wide / ten).round() * ten };
        let out = out.cast(self.dtype()).done()?;
        Ok(record(out, [x], |_, _| Derivative::new("RoundBackward1", |c| c.gradient(|| c.g().zeros_like()))))
    }

    /// The logarithm of the odds, `log(x / (1 - x))`. With `eps`, x is first kept within `eps..=1 - eps`; outside of it the
    /// gradient is 0.
    pub fn logit(&self, eps: impl Into<Option<f64>>) -> Result<Tensor> {
        let eps = eps.into();
        let x = self.operand()?;
        let dtype = self.dtype().floating();
        let mut wide = Expr::from(widened(&x.array.cast(dtype)?));
        if let Some(eps) = eps {
            // Below eps first: with an eps above a half the ends are the wrong way round.
            wide = wide.lt(eps).select(eps, wide.min(1.0 - eps));
        }
        let out = (&wide / (1.0 - &wide)).log().cast(dtype).done()?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with("LogitBackward0", move |c| {
                c.gradient(|| {
                    let (g, [x]) = &c.wide_parts();
                    let slope = g / (x * (1.0 - x));
                    match eps {
                        // PyTorch's: where there is no value, there is no slope.
                        None => slope.masked_fill(x.lt(0.0).logical_or(x.gt(1.0)), f64::NAN),
                        Some(eps) => slope.masked_fill(x.lt(eps).logical_or(x.gt(1.0 - eps)), 0.0),
                    }
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// NaN, infinity and minus infinity replaced; without a number the infinities become the dtype's largest and smallest.
    pub fn nan_to_num(
        &self,
        nan: f64,
        positive: impl Into<Option<f64>>,
        negative: impl Into<Option<f64>>,
    ) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return self.deep_clone();
        }
        let largest = match self.dtype() {
            DType::F16 => 65504.0,
            DType::BF16 => 3.389_531_389_251_535_5e38,
            DType::F64 => f64::MAX,
            _ => f64::from(f32::MAX),
        };
        let (positive, negative) = (positive.into().unwrap_or(largest), negative.into().unwrap_or(-largest));
        let x = self.operand()?;
        let value = Expr::of(&x.array);
        let infinite = |sign: f64| value.eq(sign * f64::INFINITY);
        let finite = infinite(1.0).select(positive, infinite(-1.0).select(negative, &value));
        let out = value.is_nan().select(nan, finite).done()?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::new("NanToNumBackward0", |c| {
                c.gradient(|| {
                    let (g, [x]) = c.parts();
                    g.keep_where(x.isfinite())
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// The tensor itself; `+x`.
    ///
    /// # Errors
    /// For bool.
    pub fn positive(&self) -> Result<Tensor> {
        if self.dtype() == DType::Bool {
            let reason = "has no sign; cast the tensor with to_dtype first".to_owned();
            return Err(Error::DType { op: "positive", dtype: DType::Bool, reason });
        }
        Ok(self.clone())
    }
}
