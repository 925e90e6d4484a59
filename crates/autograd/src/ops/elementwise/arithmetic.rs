//! `+ - * /` and unary minus. The operands are tensors, references to tensors, numbers, and, beside a tensor,
//! `Result<Tensor>`; the result is a `Result<Tensor>`. On the left of a tensor, numbers are `f64` or `i64`.

use std::ops::{Add, Div, Mul, Neg, Sub};

use wgrad_array::{Result, Scalar};

use crate::Tensor;

/// The numbers that may stand on the right of an operator.
pub trait Number: Into<Scalar> {}
impl Number for f64 {}
impl Number for f32 {}
impl Number for i64 {}
impl Number for i32 {}
impl Number for u8 {}
impl Number for Scalar {}

macro_rules! operators {
    ($($trait:ident::$method:ident, $reverse:expr;)*) => {$(
        operators!(@tensors $trait::$method, Tensor, Tensor);
        operators!(@tensors $trait::$method, Tensor, &Tensor);
        operators!(@tensors $trait::$method, &Tensor, Tensor);
        operators!(@tensors $trait::$method, &Tensor, &Tensor);
        operators!(@results $trait::$method, Tensor);
        operators!(@results $trait::$method, &Tensor);
        operators!(@numbers $trait::$method, Tensor);
        operators!(@numbers $trait::$method, &Tensor);
        operators!(@reverse $trait::$method, $reverse, f64, i64);
    )*};
    (@tensors $trait:ident::$method:ident, $left:ty, $right:ty) => {
        #[wgrad_macros::call_sites]
        impl $trait<$right> for $left {
            type Output = Result<Tensor>;
            fn $method(self, right: $right) -> Result<Tensor> {
                Tensor::$method(&self, right)
            }
        }
    };
    (@results $trait:ident::$method:ident, $tensor:ty) => {
        #[wgrad_macros::call_sites]
        impl $trait<$tensor> for Result<Tensor> {
            type Output = Result<Tensor>;
            fn $method(self, right: $tensor) -> Result<Tensor> {
                Tensor::$method(&self?, right)
            }
        }
        #[wgrad_macros::call_sites]
        impl $trait<Result<Tensor>> for $tensor {
            type Output = Result<Tensor>;
            fn $method(self, right: Result<Tensor>) -> Result<Tensor> {
                Tensor::$method(&self, right?)
            }
        }
    };
    (@numbers $trait:ident::$method:ident, $tensor:ty) => {
        #[wgrad_macros::call_sites]
        impl<N: Number> $trait<N> for $tensor {
            type Output = Result<Tensor>;
            fn $method(self, right: N) -> Result<Tensor> {
                let number: Scalar = right.into();
                Tensor::$method(&self, number)
            }
        }
    };
    // One type for each kind of literal, so that `2.0 * &x` needs no annotation.
    (@reverse $trait:ident::$method:ident, $reverse:expr, $($number:ty),*) => {$(
        #[wgrad_macros::call_sites]
        impl $trait<Tensor> for $number {
            type Output = Result<Tensor>;
            fn $method(self, right: Tensor) -> Result<Tensor> {
                let reverse: fn(&Tensor, Scalar) -> Result<Tensor> = $reverse;
                reverse(&right, self.into())
            }
        }
        #[wgrad_macros::call_sites]
        impl $trait<&Tensor> for $number {
            type Output = Result<Tensor>;
            fn $method(self, right: &Tensor) -> Result<Tensor> {
                let reverse: fn(&Tensor, Scalar) -> Result<Tensor> = $reverse;
                reverse(right, self.into())
            }
        }
    )*};
}

operators! {
    Add::add, |x, number| Tensor::add(x, number);
    Sub::sub, |x, number| x.rsub(number);
    Mul::mul, |x, number| Tensor::mul(x, number);
    Div::div, |x, number| Tensor::mul(&x.reciprocal()?, number);
}

#[wgrad_macros::call_sites]
impl Neg for Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(&self)
    }
}

#[wgrad_macros::call_sites]
impl Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}
