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

/// From this order on [`high_polygamma`] computes polygamma functions.
const HIGH_ORDER: usize = 12;

/// `n!` as the power `n + 1` of a number, so that products with other such powers stay within a dtype's range.
fn root_of_factorial(n: usize) -> f64 {
    let size = n as f64;
    let logarithm = if n <= 170 {
        factorial(n).ln()
    } else {
        // Stirling's series, whose next term is below 1e-18 here.
        let inverse = 1.0 / size;
        let square = inverse * inverse;
        let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
        size * (size.ln() - 1.0) + 0.5 * (2.0 * PI * size).ln() + series
    };
    (logarithm / (size + 1.0)).exp()
}

/// x to the power of a positive integer, by as many products as it has binary digits, and at most as many again.
fn integer_power(x: &Expr, n: usize) -> Expr {
    let (mut power, mut square, mut rest) = (None::<Expr>, x.clone(), n);
    loop {
        if rest % 2 == 1 {
            power = Some(match power {
                Some(power) => power * &square,
                None => square.clone(),
            });
        }
        rest /= 2;
        if rest == 0 {
            return power.unwrap_or(square);
        }
        square = &square * &square;
    }
}

/// The n-th derivative of digamma for large n: `(-1)^(n + 1) n! ζ(n + 1, x)`, the sum of `1 / (x + k)^(n + 1)` over all k from 0 on, of which
/// the few next to the one nearest to 0 count. That one is taken out of the sum, and `n!` is shared out among the factors of its power: alone
/// they would leave the dtype's range.
fn high_polygamma(n: usize, x: &Expr, dtype: DType) -> Expr {
    /// Terms before the nearest that are not yet too small: `(1 / 15)^13` at most.
    const BEFORE: i32 = 6;
    let (terms, bernoulli) = asymptotic(dtype);
    let root = root_of_factorial(n);
    let rounded = if dtype == DType::F64 { root } else { f64::from(root as f32) };
    // What the rounding of the root would change in its power.
    let left = ((root / rounded).ln() * (n as f64 + 1.0)).exp();
    let negative = x.lt(0.5);
    let near = negative.select(x - x.round(), x);
    // Terms before it are there where the sum begins that far below.
    let first = negative.select(x.round(), 0.0);
    let ratio = |to: &Expr| integer_power(&(&near / to), n + 1);
    let before = (-BEFORE..0).map(|j| first.le(f64::from(j)).select(ratio(&(&near + f64::from(j))), 0.0));
    let behind = (1..=terms).map(|j| ratio(&(&near + j as f64)));
    let Some(sum) = before.chain(behind).reduce(|sum, term| sum + term) else { return x * f64::NAN };
    // Euler's and Maclaurin's series for the rest, whose terms fall quickly where z is not far below n; elsewhere the rest does not count.
    let bound = (terms + n) as f64;
    let low = near.lt(bound);
    let z = low.select(&near + (terms + 1) as f64, &near);
    let inverse = bound / &z;
    let (mut series, mut factor) = (Vec::new(), 1.0);
    for k in 1..=bernoulli {
        // n (n + 1) … (n + 2k - 1) / (2k)!, each of the first factors beside one of the bound.
        let rising = |i: usize| (n + i) as f64 / bound;
        factor *= rising(2 * k - 2) * rising(2 * k - 1) / ((2 * k - 1) * (2 * k)) as f64;
        series.push(BERNOULLI[k - 1] * factor);
    }
    series.reverse();
    let square = &inverse * &inverse;
    let tail = &inverse * (0.5 * n as f64 / bound) + square.polynomial(&series) * &square + 1.0;
    let rest = tail * (&z / n as f64);
    let all = low.select(sum + 1.0 + ratio(&z) * &rest, rest);
    let value = integer_power(&(rounded / &near), n + 1) * all;
    let sign = if n.is_multiple_of(2) { -1.0 } else { 1.0 };
    near.eq(f64::INFINITY).select(0.0, value * (sign * left))
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
            // Both logarithms are infinite at the poles, as all numbers far below 0 are.
            x.le(0.0).and(x.eq(x.round())).select(f64::INFINITY, out)
        })
    }

    /// The n-th derivative of [`Array::digamma`], itself for 0. `n` is at most 2^31.
    ///
    /// # Errors
    /// None today.
    pub fn polygamma(&self, n: usize) -> Result<Array> {
        if n >= HIGH_ORDER {
            return in_float(self, |x, dtype| high_polygamma(n, &x, dtype));
        }
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
        let x = Expr::of(self).cast(self.dtype().floating());
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
