//! [`Expr`]: arithmetic on arrays written as arithmetic; and [`Formula`], what a formula is written of that is to hold for arrays
//! and for tensors.

use std::ops::{Add, Div, Mul, Neg, Sub};

use wgrad_device::kernel::{BinaryOp, UnaryOp};
use wgrad_device::{DType, Error, Result, Scalar};

use crate::Array;

/// An array in a formula: `+ - * /`, functions and comparisons, with numbers on either side. The first error is carried
/// to the end, where [`Expr::done`] gives it.
///
/// ```
/// use wgrad_array::{Array, Device, Expr};
/// let x = Expr::of(&Array::from_slice(&[3.0f32, 4.0], &[2], &Device::cpu())?);
/// let y = (&x * &x + 1.0).sqrt() - 2.0 / x;
/// assert_eq!(y.done()?.shape(), [2]);
/// # Ok::<(), wgrad_array::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is computed of it before done() is read"]
pub struct Expr(Result<Array, Box<Error>>);

impl From<Result<Array>> for Expr {
    fn from(array: Result<Array>) -> Self {
        // In a box, so that an expression is as small as its array.
        Expr(array.map_err(Box::new))
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> Expr {
            self.map(|x| x.unary(UnaryOp::$op))
        }
    )*};
}

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, other: impl Into<Side>) -> Expr {
            self.binary(BinaryOp::$op, other)
        }
    )*};
}

impl Expr {
    /// An array, to be calculated with.
    pub fn of(array: &Array) -> Expr {
        Expr(Ok(array.clone()))
    }

    /// The result of the formula.
    ///
    /// # Errors
    /// The first that a part of the formula gave.
    pub fn done(self) -> Result<Array> {
        self.0.map_err(|error| *error)
    }

    /// Any operation of an array.
    pub fn map(&self, operation: impl FnOnce(&Array) -> Result<Array>) -> Expr {
        match &self.0 {
            Ok(array) => operation(array).into(),
            Err(error) => Expr(Err(error.clone())),
        }
    }

    /// An operation on pairs of elements.
    pub fn binary(&self, op: BinaryOp, other: impl Into<Side>) -> Expr {
        match other.into() {
            Side::Number(number) => self.map(|x| x.binary_scalar(op, number)),
            Side::Expr(Expr(Ok(other))) => self.map(|x| x.binary(op, &other)),
            Side::Expr(failed) => self.map(|_| failed.done()),
        }
    }

    functions! {
        /// `|x|`.
        abs = Abs;
        /// -1, 0 or 1.
        sign = Sign;
        /// The opposite truth value.
        not = Not;
        /// The integer below.
        floor = Floor;
        /// The integer above.
        ceil = Ceil;
        /// The nearest integer, of two the even one.
        round = Round;
        /// The integer nearer to 0.
        trunc = Trunc;
        /// `1 / x`.
        reciprocal = Reciprocal;
        /// The square root.
        sqrt = Sqrt;
        /// `1 / sqrt(x)`.
        rsqrt = Rsqrt;
        /// e to the x.
        exp = Exp;
        /// `exp(x) - 1`.
        expm1 = Expm1;
        /// The natural logarithm.
        log = Log;
        /// `log(1 + x)`.
        log1p = Log1p;
        /// The sine.
        sin = Sin;
        /// The cosine.
        cos = Cos;
        /// The hyperbolic tangent.
        tanh = Tanh;
        /// `1 / (1 + exp(-x))`.
        sigmoid = Sigmoid;
        /// The Gauss error function.
        erf = Erf;
        /// Whether it is NaN.
        is_nan = IsNan;
        /// Whether it is neither NaN nor infinite.
        is_finite = IsFinite;
    }

    comparisons! {
        /// `self == other`.
        eq = Eq;
        /// `self != other`.
        ne = Ne;
        /// `self < other`.
        lt = Lt;
        /// `self <= other`.
        le = Le;
        /// `self > other`.
        gt = Gt;
        /// `self >= other`.
        ge = Ge;
        /// The larger; NaN if either is.
        max = Max;
        /// The smaller; NaN if either is.
        min = Min;
        /// Both of two truth values.
        and = And;
        /// Either of two truth values.
        or = Or;
        /// Exactly one of two truth values.
        xor = Xor;
        /// To the power.
        pow = Pow;
        /// The remainder with the sign of `other`.
        rem = Rem;
    }

    /// `a` where this truth value holds, else `b`.
    pub fn select(&self, a: impl Into<Side>, b: impl Into<Side>) -> Expr {
        let (a, b) = (a.into(), b.into());
        let like = match (&a, &b) {
            (Side::Expr(x), _) | (_, Side::Expr(x)) => x.clone(),
            _ => self.clone(),
        };
        self.map(|cond| {
            let dtype = like.done()?.dtype();
            let side = |side: Side| match side {
                Side::Expr(x) => x.done(),
                Side::Number(number) => Array::full(&[], number, dtype, cond.device()),
            };
            Array::select(cond, &side(a)?, &side(b)?)
        })
    }

    /// In another dtype.
    pub fn cast(&self, dtype: DType) -> Expr {
        self.map(|x| x.cast(dtype))
    }

    /// The polynomial with these coefficients, that of the highest power first.
    pub fn polynomial(&self, coefficients: &[f64]) -> Expr {
        let (&first, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
        let Some((&second, rest)) = rest.split_first() else { return self * 0.0 + first };
        rest.iter().fold(self * first + second, |sum, &c| sum * self + c)
    }

    /// The sum of Chebyshev polynomials in `t = self` (within -1..=1) with these coefficients, that of degree 0 first.
    pub fn chebyshev(&self, coefficients: &[f64]) -> Expr {
        let (&constant, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
        let twice = self * 2.0;
        // Clenshaw's recurrence from the highest degree down.
        let (mut last, mut before) = (None::<Expr>, None::<Expr>);
        for &c in rest.iter().rev() {
            let mut next = match &last {
                Some(last) => &twice * last + c,
                None => self * 0.0 + c,
            };
            if let Some(before) = &before {
                next = next - before;
            }
            before = last.replace(next);
        }
        match (last, before) {
            (Some(last), Some(before)) => self * last - before + constant,
            (Some(last), None) => self * last + constant,
            _ => self * 0.0 + constant,
        }
    }
}

/// The four operations with operands of type `R` on the right.
pub trait Arithmetic<R, Out>:
    Add<R, Output = Out> + Sub<R, Output = Out> + Mul<R, Output = Out> + Div<R, Output = Out>
{
}

impl<L, R, Out> Arithmetic<R, Out> for L where
    L: Add<R, Output = Out> + Sub<R, Output = Out> + Mul<R, Output = Out> + Div<R, Output = Out>
{
}

/// What a formula is written of that is to hold for arrays, where an operation is computed, and for tensors, where its derivative is: a
/// function of `&F` with `F: Formula` and `for<'a> &'a F: Term<F>`.
///
/// ```
/// use wgrad_array::{Array, Device, Expr, Formula, Term};
/// fn logistic<F: Formula>(x: &F) -> F
/// where
///     for<'a> &'a F: Term<F>,
/// {
///     ((x * 0.5).tanh() + 1.0) * 0.5
/// }
/// let x = Array::from_slice(&[0.0f32], &[1], &Device::cpu())?;
/// assert_eq!(logistic(&Expr::of(&x)).done()?.to_vec::<f32>()?, [0.5]);
/// # Ok::<(), wgrad_array::Error>(())
/// ```
pub trait Formula:
    Clone
    + Neg<Output = Self>
    + Arithmetic<f64, Self>
    + Arithmetic<Self, Self>
    + for<'a> Arithmetic<&'a Self, Self>
{
    /// The Gauss error function.
    fn erf(&self) -> Self;

    /// The hyperbolic tangent.
    fn tanh(&self) -> Self;

    /// `1 / (1 + exp(-x))`.
    fn sigmoid(&self) -> Self;
}

/// A reference to a part of a [`Formula`], as an operand.
pub trait Term<F>:
    Copy + Neg<Output = F> + Arithmetic<f64, F> + Arithmetic<F, F> + Arithmetic<Self, F>
{
}

impl Term<Expr> for &Expr {}

impl Formula for Expr {
    fn erf(&self) -> Expr {
        Expr::erf(self)
    }

    fn tanh(&self) -> Expr {
        Expr::tanh(self)
    }

    fn sigmoid(&self) -> Expr {
        Expr::sigmoid(self)
    }
}

/// An operand of a formula.
#[derive(Clone, Debug)]
pub enum Side {
    /// A part of the formula.
    Expr(Expr),
    /// A number.
    Number(Scalar),
}

impl From<Expr> for Side {
    fn from(expr: Expr) -> Self {
        Side::Expr(expr)
    }
}

impl From<&Expr> for Side {
    fn from(expr: &Expr) -> Self {
        Side::Expr(expr.clone())
    }
}

impl From<&Array> for Side {
    fn from(array: &Array) -> Self {
        Side::Expr(Expr::of(array))
    }
}

impl<T: Into<Scalar>> From<T> for Side {
    fn from(number: T) -> Self {
        Side::Number(number.into())
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $op:ident;)*) => {$(
        operators!(@left $trait $method $op, Expr, &Expr);
        impl $trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, right: Expr) -> Expr {
                right.map(|x| x.scalar_binary(self, BinaryOp::$op))
            }
        }
        impl $trait<&Expr> for f64 {
            type Output = Expr;
            fn $method(self, right: &Expr) -> Expr {
                right.map(|x| x.scalar_binary(self, BinaryOp::$op))
            }
        }
    )*};
    (@left $trait:ident $method:ident $op:ident, $($left:ty),*) => {$(
        impl<S: Into<Side>> $trait<S> for $left {
            type Output = Expr;
            fn $method(self, right: S) -> Expr {
                self.binary(BinaryOp::$op, right)
            }
        }
    )*};
}

operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
    Div div Div;
}

impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        self.map(|x| x.unary(UnaryOp::Neg))
    }
}

impl Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        self.map(|x| x.unary(UnaryOp::Neg))
    }
}
