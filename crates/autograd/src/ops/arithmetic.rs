//! `+ - * /` and unary minus. The operands are tensors, references to tensors, numbers, and, beside a tensor,
//! `Result<Tensor>`; the result is a `Result<Tensor>`.

use std::ops::{Add, Div, Mul, Neg, Sub};

use wgrad_array::{Result, Scalar};

use crate::Tensor;

macro_rules! operators {
    ($($trait:ident::$method:ident, $reverse:expr;)*) => {$(
        operators!(@tensors $trait::$method, Tensor, Tensor);
        operators!(@tensors $trait::$method, Tensor, &Tensor);
        operators!(@tensors $trait::$method, &Tensor, Tensor);
        operators!(@tensors $trait::$method, &Tensor, &Tensor);
        operators!(@results $trait::$method, Tensor);
        operators!(@results $trait::$method, &Tensor);
        operators!(@numbers $trait::$method, $reverse, f64, f32, i64, i32);
    )*};
    (@tensors $trait:ident::$method:ident, $left:ty, $right:ty) => {
        impl $trait<$right> for $left {
            type Output = Result<Tensor>;
            fn $method(self, right: $right) -> Result<Tensor> {
                Tensor::$method(&self, right)
            }
        }
    };
    (@results $trait:ident::$method:ident, $tensor:ty) => {
        impl $trait<$tensor> for Result<Tensor> {
            type Output = Result<Tensor>;
            fn $method(self, right: $tensor) -> Result<Tensor> {
                Tensor::$method(&self?, right)
            }
        }
        impl $trait<Result<Tensor>> for $tensor {
            type Output = Result<Tensor>;
            fn $method(self, right: Result<Tensor>) -> Result<Tensor> {
                Tensor::$method(&self, right?)
            }
        }
    };
    (@numbers $trait:ident::$method:ident, $reverse:expr, $($number:ty),*) => {$(
        impl $trait<$number> for Tensor {
            type Output = Result<Tensor>;
            fn $method(self, right: $number) -> Result<Tensor> {
                Tensor::$method(&self, right)
            }
        }
        impl $trait<$number> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, right: $number) -> Result<Tensor> {
                Tensor::$method(self, right)
            }
        }
        impl $trait<Tensor> for $number {
            type Output = Result<Tensor>;
            fn $method(self, right: Tensor) -> Result<Tensor> {
                let reverse: fn(&Tensor, Scalar) -> Result<Tensor> = $reverse;
                reverse(&right, self.into())
            }
        }
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

impl Neg for Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(&self)
    }
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}
