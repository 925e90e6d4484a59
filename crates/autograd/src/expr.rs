//! [`TensorExpr`]: formulas of tensors, written as formulas. Derivatives are written in them too.
//!
//! The methods are those of [`Tensor`]: `#[call_sites]` writes, for each that gives a `Result<Tensor>`, the one of the same name here.

use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::panic::Location;

use half::{bf16, f16};
use wgrad_array::{Formula, Result, Scalar, Term, site};

use crate::{Error, Tensor, Value};

/// A tensor in a formula: `+ - * /`, unary minus and `+=` with numbers on either side, and every method of [`Tensor`] that gives a
/// `Result<Tensor>` and is not in place, without a `?` after each step.
///
/// The first error is carried to the end, where [`TensorExpr::done`] gives it with the line of the part that failed. What is computed, and
/// recorded for gradients, is what the same calls of [`Tensor`] compute and record.
///
/// ```
/// use wgrad_autograd::{Device, Tensor};
/// let x = Tensor::new([0f32, 2.0], &Device::cpu())?;
/// let x = x.expr();
/// let y = (x.gt(1.0).where_cond(&x * &x, 0.0) - 1.0 / (1.0 + &x)).done()?;
/// assert_eq!(y.to_vec::<f32>()?, [-1.0, 4.0 - 1.0 / 3.0]);
///
/// let error = (&x + Tensor::ones(3, &Device::cpu())?).softmax(0).done().unwrap_err();
/// assert!(error.to_string().contains(", in the call at "));
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a formula's value, or its error, is read with done()"]
pub struct TensorExpr(Result<Tensor, Box<Error>>);

impl Tensor {
    /// The tensor as a part of a formula.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let x = Tensor::new([-1f32, 3.0], &Device::cpu())?;
    /// let softsign = (x.expr() / (1.0 + x.expr().abs())).done()?;
    /// assert_eq!(softsign.to_vec::<f32>()?, [-0.5, 0.75]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    pub fn expr(&self) -> TensorExpr {
        TensorExpr(Ok(self.clone()))
    }
}

impl TensorExpr {
    /// The value of the formula.
    ///
    /// # Errors
    /// The first that a part of the formula gave, as [`Error::At`](crate::Error::At) with the part's line;
    /// [`Error::root`](crate::Error::root) is the error itself.
    pub fn done(self) -> Result<Tensor> {
        self.0.map_err(|error| *error)
    }

    /// Any function of tensors as a step of the formula: one with several results, or one of the program's own.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let x = Tensor::new([1f32, 5.0, 3.0], &Device::cpu())?;
    /// let largest = (x.expr() * 2.0).map(|x| Ok(x.max_dim(0, false)?.0)).done()?;
    /// assert_eq!(largest.item::<f32>()?, 10.0);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn map(&self, operation: impl FnOnce(&Tensor) -> Result<Tensor>) -> TensorExpr {
        if site::current().is_some() {
            return self.then(operation);
        }
        let line = Location::caller();
        self.then(|x| operation(x).map_err(|error| error.at(line)))
    }

    /// [`Tensor::detach`] as a step of a formula.
    pub fn detach(&self) -> TensorExpr {
        self.then(|x| Ok(x.detach()))
    }

    /// A step of the formula: the operation of this name, called from the caller's line.
    #[track_caller]
    #[inline]
    pub(crate) fn step(
        &self,
        name: &'static str,
        operation: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> TensorExpr {
        if site::current().is_some() {
            // Inside of an operation, such as a derivative: its line is not the program's.
            return self.then(operation);
        }
        let line = Location::caller();
        let _site = site::enter(name, line);
        self.then(|x| operation(x).map_err(|error| error.at(line)))
    }

    #[inline]
    fn then(&self, operation: impl FnOnce(&Tensor) -> Result<Tensor>) -> TensorExpr {
        match &self.0 {
            Ok(x) => operation(x).into(),
            Err(error) => TensorExpr(Err(error.clone())),
        }
    }
}

impl From<Tensor> for TensorExpr {
    fn from(tensor: Tensor) -> Self {
        TensorExpr(Ok(tensor))
    }
}

impl From<&Tensor> for TensorExpr {
    fn from(tensor: &Tensor) -> Self {
        TensorExpr(Ok(tensor.clone()))
    }
}

impl From<Result<Tensor>> for TensorExpr {
    fn from(tensor: Result<Tensor>) -> Self {
        // In a box, so that a part of a formula is as small as its tensor.
        TensorExpr(tensor.map_err(Box::new))
    }
}

impl From<TensorExpr> for Result<Tensor> {
    fn from(expr: TensorExpr) -> Self {
        expr.done()
    }
}

/// What a formula takes for an operand that must be a tensor: a tensor, a part of a formula, the result of an operation, or a reference to one.
pub trait AsTensor {
    /// The tensor.
    ///
    /// # Errors
    /// That of the part of the formula.
    fn as_tensor(&self) -> Result<&Tensor>;
}

impl AsTensor for Tensor {
    fn as_tensor(&self) -> Result<&Tensor> {
        Ok(self)
    }
}

impl AsTensor for TensorExpr {
    fn as_tensor(&self) -> Result<&Tensor> {
        self.0.as_ref().map_err(|error| (**error).clone())
    }
}

impl AsTensor for Result<Tensor> {
    fn as_tensor(&self) -> Result<&Tensor> {
        self.as_ref().map_err(Clone::clone)
    }
}

impl<T: AsTensor + ?Sized> AsTensor for &T {
    fn as_tensor(&self) -> Result<&Tensor> {
        (**self).as_tensor()
    }
}

/// What a formula takes for an operand that may be a number: besides numbers a tensor or a part of a formula, or a reference to one; and the
/// result of an operation.
#[derive(Clone, Debug)]
pub enum ExprOperand {
    /// A part of the formula.
    Expr(TensorExpr),
    /// A number.
    Number(Scalar),
}

impl ExprOperand {
    /// As what methods of tensors take.
    #[inline]
    pub(crate) fn value(self) -> Result<Value> {
        Ok(match self {
            ExprOperand::Expr(expr) => Value::Tensor(expr.done()?),
            ExprOperand::Number(number) => Value::Scalar(number),
        })
    }
}

// One by one: a `T: Into<Scalar>` might be a result some day.
macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for ExprOperand {
            fn from(number: $number) -> Self {
                ExprOperand::Number(number.into())
            }
        }
    )*};
}
numbers!(f64, f32, f16, bf16, i64, i32, u32, u8, bool, Scalar);

impl From<Result<Tensor>> for ExprOperand {
    fn from(tensor: Result<Tensor>) -> Self {
        ExprOperand::Expr(tensor.into())
    }
}

impl From<TensorExpr> for ExprOperand {
    fn from(expr: TensorExpr) -> Self {
        ExprOperand::Expr(expr)
    }
}

impl From<&TensorExpr> for ExprOperand {
    fn from(expr: &TensorExpr) -> Self {
        ExprOperand::Expr(expr.clone())
    }
}

impl From<Tensor> for ExprOperand {
    fn from(tensor: Tensor) -> Self {
        ExprOperand::Expr(tensor.into())
    }
}

impl From<&Tensor> for ExprOperand {
    fn from(tensor: &Tensor) -> Self {
        ExprOperand::Expr(tensor.into())
    }
}

macro_rules! operators {
    ($($trait:ident::$method:ident, $assign:ident::$assign_method:ident, $reverse:expr;)*) => {$(
        operators!(@expr $trait::$method, TensorExpr, &TensorExpr);
        operators!(@tensor $trait::$method, Tensor, &Tensor, Result<Tensor>; TensorExpr);
        operators!(@tensor $trait::$method, Tensor, &Tensor, Result<Tensor>; &TensorExpr);
        operators!(@number $trait::$method, $reverse, f64, i64; TensorExpr);
        operators!(@number $trait::$method, $reverse, f64, i64; &TensorExpr);
        impl<R: Into<ExprOperand>> $assign<R> for TensorExpr {
            #[track_caller]
            fn $assign_method(&mut self, right: R) {
                *self = TensorExpr::$method(self, right);
            }
        }
    )*};
    (@expr $trait:ident::$method:ident, $($left:ty),*) => {$(
        impl<R: Into<ExprOperand>> $trait<R> for $left {
            type Output = TensorExpr;
            #[track_caller]
            fn $method(self, right: R) -> TensorExpr {
                TensorExpr::$method(&self, right)
            }
        }
    )*};
    (@tensor $trait:ident::$method:ident, $($left:ty),*; $right:ty) => {$(
        impl $trait<$right> for $left {
            type Output = TensorExpr;
            #[track_caller]
            fn $method(self, right: $right) -> TensorExpr {
                TensorExpr::$method(&TensorExpr::from(self), right)
            }
        }
    )*};
    (@number $trait:ident::$method:ident, $reverse:expr, $($number:ty),*; $right:ty) => {$(
        impl $trait<$right> for $number {
            type Output = TensorExpr;
            #[track_caller]
            fn $method(self, right: $right) -> TensorExpr {
                let reverse: fn(&Tensor, Scalar) -> Result<Tensor> = $reverse;
                right.step(stringify!($method), |x| reverse(x, self.into()))
            }
        }
    )*};
}

operators! {
    Add::add, AddAssign::add_assign, |x, number| x.add(number);
    Sub::sub, SubAssign::sub_assign, |x, number| x.rsub(number);
    Mul::mul, MulAssign::mul_assign, |x, number| x.mul(number);
    Div::div, DivAssign::div_assign, |x, number| x.reciprocal()?.mul(number);
}

impl Neg for TensorExpr {
    type Output = TensorExpr;
    #[track_caller]
    fn neg(self) -> TensorExpr {
        TensorExpr::neg(&self)
    }
}

impl Neg for &TensorExpr {
    type Output = TensorExpr;
    #[track_caller]
    fn neg(self) -> TensorExpr {
        TensorExpr::neg(self)
    }
}

impl Term<TensorExpr> for &TensorExpr {}

impl Formula for TensorExpr {
    fn erf(&self) -> TensorExpr {
        TensorExpr::erf(self)
    }

    fn tanh(&self) -> TensorExpr {
        TensorExpr::tanh(self)
    }

    fn sigmoid(&self) -> TensorExpr {
        TensorExpr::sigmoid(self)
    }
}
