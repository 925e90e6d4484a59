//! Inverse trigonometric and hyperbolic functions, composed of the kernel's own.
//!
//! Each is one formula for every device; halves are computed in f32, integers as the default dtype. f32 results are within a few units in
//! the last place, f64 ones within 1e-15 of the true value relative to it.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, LN_2, PI, SQRT_2};

use wgrad_device::kernel::BinaryOp;
use wgrad_device::{DType, Result};

use super::series::ATAN;
use crate::{Array, Expr};

/// Applies a formula in f32, or in f64 to f64, and rounds back to a half. Integers are taken as the default dtype.
pub(super) fn in_float(x: &Array, formula: impl FnOnce(Expr, DType) -> Expr) -> Result<Array> {
    let dtype = x.dtype().floating();
    let compute = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    formula(Expr::of(x).cast(compute), compute).cast(dtype).done()
}

/// Takes the sign of `x` for an odd function's value at `|x|`. NaN stays NaN.
fn odd(x: &Expr, value: Expr) -> Expr {
    x.lt(0.0).select(-&value, value)
}

/// `atan(t)` for t >= 0.
fn atan_positive(t: &Expr, dtype: DType) -> Expr {
    let swap = t.gt(1.0);
    let t = swap.select(t.reciprocal(), t);
    // tan(a - π/4) = (t - 1) / (t + 1)
    let upper = t.gt(SQRT_2 - 1.0);
    let t = upper.select((&t - 1.0) / (&t + 1.0), &t);
    let near = &t * ATAN.sum(&(&t * &t), dtype);
    let angle = upper.select(&near + FRAC_PI_4, near);
    swap.select(FRAC_PI_2 - &angle, angle)
}

/// Whether the sign bit is set: below 0, or the negative zero.
fn sign_bit(x: &Expr) -> Expr {
    x.lt(0.0).or(x.eq(0.0).and(x.reciprocal().lt(0.0)))
}

/// From where on `asinh(x)` and `acosh(x)` are `log(2x)`, to within rounding: their squares' part is `1 / (4x²)`.
fn far(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e8 } else { 1e4 }
}

impl Array {
    /// The angle whose tangent it is.
    ///
    /// # Errors
    /// None today.
    pub fn atan(&self) -> Result<Array> {
        in_float(self, |x, dtype| odd(&x, atan_positive(&x.abs(), dtype)))
    }

    /// The angle whose sine it is; NaN outside of -1..=1.
    ///
    /// # Errors
    /// None today.
    pub fn asin(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let cosine = ((1.0 - &x) * (&x + 1.0)).sqrt();
            odd(&x, atan_positive(&(x.abs() / cosine), dtype))
        })
    }

    /// The angle whose cosine it is; NaN outside of -1..=1.
    ///
    /// # Errors
    /// None today.
    pub fn acos(&self) -> Result<Array> {
        in_float(self, |x, dtype| atan_positive(&((1.0 - &x) / (&x + 1.0)).sqrt(), dtype) * 2.0)
    }

    /// The angle of the point (`other`, `self`) in the plane, in all four quadrants.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn atan2(&self, other: &Array) -> Result<Array> {
        let dtype = self.dtype().promote(other.dtype()).floating();
        let compute = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let (y, x) = (Expr::of(self).cast(compute), Expr::of(other).cast(compute));
        let (height, width) = (y.abs(), x.abs());
        let ratio = &height / &width;
        // 0 / 0 is on the axis, inf / inf on the diagonal.
        let ratio = height.eq(0.0).and(width.eq(0.0)).select(0.0, ratio);
        let infinite = height.eq(f64::INFINITY).and(width.eq(f64::INFINITY));
        let angle = atan_positive(&infinite.select(1.0, ratio), compute);
        let angle = sign_bit(&x).select(PI - &angle, angle);
        sign_bit(&y).select(-&angle, angle).cast(dtype).done()
    }

    /// The tangent of radians.
    ///
    /// # Errors
    /// None today.
    pub fn tan(&self) -> Result<Array> {
        in_float(self, |x, _| x.sin() / x.cos())
    }

    /// The hyperbolic sine.
    ///
    /// # Errors
    /// None today.
    pub fn sinh(&self) -> Result<Array> {
        in_float(self, |x, _| {
            let size = x.abs();
            let less = size.expm1();
            let near = (&less / (&less + 1.0) + less) * 0.5;
            odd(&x, size.gt(20.0).select(half_exp(&size), near))
        })
    }

    /// The hyperbolic cosine.
    ///
    /// # Errors
    /// None today.
    pub fn cosh(&self) -> Result<Array> {
        in_float(self, |x, _| {
            let size = x.abs();
            let exp = size.exp();
            size.gt(20.0).select(half_exp(&size), (exp.reciprocal() + exp) * 0.5)
        })
    }

    /// The inverse of the hyperbolic sine.
    ///
    /// # Errors
    /// None today.
    pub fn asinh(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let size = x.abs();
            let square = &size * &size;
            let near = (&square / ((&square + 1.0).sqrt() + 1.0) + &size).log1p();
            odd(&x, size.gt(far(dtype)).select(size.log() + LN_2, near))
        })
    }

    /// The inverse of the hyperbolic cosine; NaN below 1.
    ///
    /// # Errors
    /// None today.
    pub fn acosh(&self) -> Result<Array> {
        in_float(self, |x, dtype| {
            let beyond = &x - 1.0;
            let near = ((&beyond * (&beyond + 2.0)).sqrt() + &beyond).log1p();
            // Far below 1 the square is beyond all numbers.
            x.gt(far(dtype)).select(x.log() + LN_2, x.lt(1.0).select(f64::NAN, near))
        })
    }

    /// The inverse of the hyperbolic tangent; NaN outside of -1..=1.
    ///
    /// # Errors
    /// None today.
    pub fn atanh(&self) -> Result<Array> {
        in_float(self, |x, _| {
            let size = x.abs();
            odd(&x, (&size * 2.0 / (1.0 - &size)).log1p() * 0.5)
        })
    }

    /// Whether the sign bit is set: below 0, or the negative zero. A NaN has none here.
    ///
    /// # Errors
    /// None today.
    pub fn signbit(&self) -> Result<Array> {
        if !self.dtype().is_float() {
            return Expr::of(self).cast(DType::I64).lt(0i64).done();
        }
        sign_bit(&Expr::of(self)).done()
    }

    /// The size of `self` with the sign of `other`.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn copysign(&self, other: &Array) -> Result<Array> {
        let dtype = self.dtype().promote(other.dtype()).floating();
        let size = Expr::of(self).cast(dtype).abs();
        Expr::from(other.signbit()).select(-&size, size).done()
    }

    /// `sqrt(self² + other²)` without overflow.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn hypot(&self, other: &Array) -> Result<Array> {
        let (a, b) = (Expr::of(self).abs(), Expr::of(other).abs());
        let (large, small) = (a.max(&b), a.binary(BinaryOp::Min, &b));
        let ratio = small / &large;
        let out = (&ratio * &ratio + 1.0).sqrt() * &large;
        // 0 / 0 is 0; an infinite side makes it infinite, whatever the other is.
        let infinite = a.eq(f64::INFINITY).or(b.eq(f64::INFINITY));
        let out = large.eq(0.0).select(&large, out);
        infinite.select(f64::INFINITY, out).done()
    }
}

/// `exp(x) / 2`, which overflows later than `exp(x)`.
fn half_exp(x: &Expr) -> Expr {
    let root = (x * 0.5).exp();
    &root * 0.5 * root
}
