//! Special functions, composed of the kernel's own: one formula for every device.
//!
//! Halves and integers are computed in f32. Results are within a few units in the last place of the true value, or of 1 near
//! zeros of the function; docs/numerics.md states how many for each, as tests assert.

use std::f64::consts::{FRAC_2_SQRT_PI, PI};

use wgrad_device::{DType, Result};

use super::series::{ERFC, ERFINV_LARGE, ERFINV_SMALL, I0_LARGE, I0_SMALL, I1_LARGE, I1_SMALL, LGAMMA};
use super::trigonometry::in_float;
use crate::{Array, Expr};

/// Bernoulli numbers B2, B4, …: the asymptotic series of the gamma functions.
const BERNOULLI: [f64; 10] = [
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
    43867.0 / 798.0,
    -174611.0 / 330.0,
];

/// Where the asymptotic series begin, and how many of their terms are needed there.
fn asymptotic(dtype: DType) -> (usize, usize) {
    if dtype == DType::F64 { (12, 10) } else { (6, 5) }
}

fn erfc(x: &Expr, dtype: DType) -> Expr {
    let size = x.abs();
    let t = 2.0 / (&size + 2.0);
    // exp(-size²) needs more digits of the square than one number has. That of a number of few digits is exact; the rest of
    // the square is small. From 30 on nothing is left of either.
    let inside = size.min(30.0);
    let head = (&inside * 16.0).round() / 16.0;
    let rest = (&head - &inside) * (&head + &inside);
    let tail = (-(&head * &head)).exp() * (ERFC.sum(&t, dtype) + rest).exp() * t;
    let far = x.lt(0.0).select(2.0 - &tail, tail);
    x.abs().lt(0.5).select(1.0 - x.erf(), far)
}

/// `log |sin(πx)|`, exact at integers.
fn log_sine(x: &Expr) -> Expr {
    ((x - x.round()) * PI).sin().abs().log()
}

/// `log(gamma(z))` for z >= 0.5.
fn log_gamma(z: &Expr, dtype: DType) -> Expr {
    let (start, terms) = asymptotic(dtype);
    // Below the start: gamma(z) = (z - 1) (z - 2) … (z - k) gamma(z - k), with z - k below 2.5. All terms are then of one sign.
    let low = z.lt(start as f64);
    let inside = z.min(start as f64);
    let (mut near, mut product) = (inside.clone(), None);
    for k in 1..start - 1 {
        let less = &inside - k as f64;
        let counts = less.ge(1.5);
        let factor = counts.select(&less, 1.0);
        near = counts.select(less, near);
        product = Some(match product {
            Some(product) => product * factor,
            None => factor,
        });
    }
    let logarithm = product.map_or_else(|| z * 0.0, |product| product.log());
    let below = (&near - 1.0) * (&near - 2.0) * LGAMMA.sum(&near.min(2.5), dtype) + logarithm;
    let inverse = z.reciprocal();
    let square = &inverse * &inverse;
    let series: Vec<f64> =
        (1..=terms).rev().map(|k| BERNOULLI[k - 1] / ((2 * k) * (2 * k - 1)) as f64).collect();
    let half_log_tau = (2.0 * PI).ln() * 0.5;
    let stirling = (z - 0.5) * (z.log() - 1.0) + (half_log_tau - 0.5) + square.polynomial(&series) * inverse;
    let out = low.select(below, stirling);
    z.eq(f64::INFINITY).select(f64::INFINITY, out)
}

fn factorial(n: usize) -> f64 {
    (1..=n).map(|k| k as f64).product()
}

/// The n-th derivative of digamma for z >= 0.5.
fn polygamma(n: usize, z: &Expr, dtype: DType) -> Expr {
    let (start, terms) = asymptotic(dtype);
    let sign = if n.is_multiple_of(2) { -1.0 } else { 1.0 };
    let low = z.lt(start as f64);
    let inside = z.min(start as f64);
    let power = |x: &Expr, n: usize| (1..n).fold(x.clone(), |power, _| power * x);
    // Below the start the terms of the sum over 1 / (z + k)^(n + 1) that the shift leaves out.
    let left_out = (0..start).fold(None, |sum: Option<Expr>, k| {
        let term = power(&(&inside + k as f64).reciprocal(), n + 1);
        Some(match sum {
            Some(sum) => sum + term,
            None => term,
        })
    });
    let left_out = left_out.unwrap_or_else(|| z * 0.0) * (sign * factorial(n));
    let shifted = low.select(z + start as f64, z);
    let inverse = shifted.reciprocal();
    let square = &inverse * &inverse;
    let series: Vec<f64> =
        (1..=terms).rev().map(|k| BERNOULLI[k - 1] * (factorial(2 * k + n - 1) / factorial(2 * k))).collect();
    let tail = square.polynomial(&series) * &square;
    let far = if n == 0 {
        shifted.log() - &inverse * 0.5 - tail
    } else {
        let lead = &inverse * (factorial(n) * 0.5) + factorial(n - 1);
        (lead + tail) * power(&inverse, n) * sign
    };
    low.select(&far + left_out, far)
}

/// The n-th derivative of cot, as a polynomial in cot: each step multiplies the derivative by -(1 + c²).
fn cotangent_derivative(n: usize) -> Vec<f64> {
    let mut polynomial = vec![0.0, 1.0];
    for _ in 0..n {
        let mut next = vec![0.0; polynomial.len() + 1];
        for (power, c) in polynomial.iter().enumerate().skip(1) {
            next[power - 1] -= c * power as f64;
            next[power + 1] -= c * power as f64;
        }
        polynomial = next;
    }
    polynomial
}

impl Array {
    /// `1 - erf(x)`, exact where erf is close to 1.
    ///
    /// # Errors
    /// None today.
    pub fn erfc(&self) -> Result<Array> {
        in_float(self, |x, dtype| erfc(&x, dtype))
    }

    /// The inverse of erf: infinite at -1 and 1, NaN beyond.
    ///
    /// # Errors
    /// None today.
    pub fn erfinv(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let size = x.abs();
            let rest = 1.0 - &size;
            let w = -(&rest * (&size + 1.0)).log();
            let small = ERFINV_SMALL.sum(&w.min(5.0), DType::F32);
            let large = ERFINV_LARGE.sum(&w.max(5.0).sqrt(), DType::F32);
            let mut y = w.lt(5.0).select(small, large) * &size;
            if dtype == DType::F64 {
                // Halley's step on erfc(y) = 1 - x, from eight digits to all.
                let slope = (-(&y * &y)).exp() * FRAC_2_SQRT_PI;
                // Of the two differences the one without cancellation.
                let beyond = size.lt(0.5).select(y.erf() - &size, &rest - erfc(&y, dtype));
                let step = beyond / slope;
                y = &y - &step / (&y * &step + 1.0);
            }
            let y = size.eq(1.0).select(f64::INFINITY, y);
            x.lt(0.0).select(-&y, y)
        })
    }

    /// The logarithm of the absolute value of the gamma function: infinite at 0, -1, -2, ….
    ///
    /// # Errors
    /// None today.
    pub fn lgamma(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let reflect = x.lt(0.5);
            let positive = log_gamma(&reflect.select(1.0 - &x, &x), dtype);
            let reflected = PI.ln() - log_sine(&x) - &positive;
            let out = reflect.select(reflected, positive);
            x.eq(f64::NEG_INFINITY).select(f64::INFINITY, out)
        })
    }

    /// The n-th derivative of [`Array::digamma`], itself for 0.
    ///
    /// # Errors
    /// None today.
    pub fn polygamma(&self, n: usize) -> Result<Array> {
        in_float(self, |x, dtype| {
            let reflect = x.lt(0.5);
            let positive = polygamma(n, &reflect.select(1.0 - &x, &x), dtype);
            let angle = (&x - x.round()) * PI;
            let cotangent = angle.cos() / angle.sin();
            let mut coefficients = cotangent_derivative(n);
            coefficients.reverse();
            let turned = cotangent.polynomial(&coefficients) * PI.powi(n as i32 + 1);
            let reflected = if n.is_multiple_of(2) { &positive - turned } else { -&positive - turned };
            reflect.select(reflected, positive)
        })
    }

    /// The derivative of [`Array::lgamma`]: NaN at -1, -2, …, infinite at 0 with the other sign.
    ///
    /// # Errors
    /// None today.
    pub fn digamma(&self) -> Result<Array> {
        let value = Expr::from(self.polygamma(0));
        let x = Expr::of(self).cast(if self.dtype().is_float() { self.dtype() } else { DType::F32 });
        let pole = x.lt(0.0).and(x.eq(x.round()));
        let value = pole.select(f64::NAN, value);
        x.eq(0.0).select(-x.reciprocal(), value).done()
    }

    /// The modified Bessel function of the first kind, of order 0.
    ///
    /// # Errors
    /// None today.
    pub fn i0(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let size = x.abs();
            let root = (&size * 0.5).exp();
            let small = I0_SMALL.sum(&size.min(8.0), dtype);
            let far = size.max(8.0);
            let large = I0_LARGE.sum(&(8.0 / &far), dtype) * far.rsqrt();
            size.le(8.0).select(small, large) * &root * root
        })
    }

    /// The modified Bessel function of the first kind, of order 1.
    ///
    /// # Errors
    /// None today.
    pub fn i1(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let size = x.abs();
            let root = (&size * 0.5).exp();
            let small = I1_SMALL.sum(&size.min(8.0), dtype) * &size;
            let far = size.max(8.0);
            let large = I1_LARGE.sum(&(8.0 / &far), dtype) * far.rsqrt();
            let value = size.le(8.0).select(small, large * &root) * root;
            x.lt(0.0).select(-&value, value)
        })
    }
}
