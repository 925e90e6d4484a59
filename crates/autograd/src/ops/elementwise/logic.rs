//! Comparisons and truth values, and choosing by them.

use wgrad_array::{Array, BinaryOp, DType, Error, Result, Scalar, UnaryOp};

use crate::args::check_held;
use crate::ops::elementwise::binary::combine;
use crate::tape::{Derivative, Operand, record};
use crate::{Tensor, Value};

/// A row: documentation, name, kernel operation.
macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        #[wgrad_macros::call_sites]
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// If the shapes do not broadcast or the devices differ.
            pub fn $name(&self, other: impl Into<Value>) -> Result<Tensor> {
                self.compare(BinaryOp::$op, other.into())
            }
        )*}
    };
}

comparisons! {
    /// `self == other`, as bools.
    eq = Eq;
    /// `self != other`, as bools.
    ne = Ne;
    /// `self < other`, as bools.
    lt = Lt;
    /// `self <= other`, as bools.
    le = Le;
    /// `self > other`, as bools.
    gt = Gt;
    /// `self >= other`, as bools.
    ge = Ge;
}

#[wgrad_macros::call_sites]
impl Tensor {
    fn compare(&self, op: BinaryOp, other: Value) -> Result<Tensor> {
        let x = self.array()?;
        Ok(Tensor::from_array(match other {
            Value::Tensor(other) => combine(&x, op, &other.array()?)?,
            Value::Scalar(number) => x.binary_scalar(op, number)?,
        }))
    }

    /// Whether each element is NaN.
    pub fn isnan(&self) -> Result<Tensor> {
        Ok(Tensor::from_array(self.array()?.unary(UnaryOp::IsNan)?))
    }

    /// Whether each element is neither NaN nor infinite.
    pub fn isfinite(&self) -> Result<Tensor> {
        Ok(Tensor::from_array(self.array()?.unary(UnaryOp::IsFinite)?))
    }

    /// Whether each element is 0 or false.
    pub fn logical_not(&self) -> Result<Tensor> {
        Ok(Tensor::from_array(self.truth()?.unary(UnaryOp::Not)?))
    }

    /// Whether both are not 0.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn logical_and(&self, other: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_array(self.truth()?.binary(BinaryOp::And, &other.truth()?)?))
    }

    /// Whether either is not 0.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn logical_or(&self, other: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_array(self.truth()?.binary(BinaryOp::Or, &other.truth()?)?))
    }

    /// Whether exactly one is not 0.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn logical_xor(&self, other: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_array(self.truth()?.binary(BinaryOp::Xor, &other.truth()?)?))
    }

    fn truth(&self) -> Result<Array> {
        self.array()?.cast(DType::Bool)
    }

    /// `a` where this bool tensor holds, else `b`; `torch.where(self, a, b)`.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let x = Tensor::new(&[-1f32, 2.0], &Device::cpu())?;
    /// assert_eq!(x.gt(0.0)?.where_cond(&x, 0.0)?.to_vec::<f32>()?, [0.0, 2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is not bool, the shapes do not broadcast, or the devices differ.
    pub fn where_cond(&self, a: impl Into<Value>, b: impl Into<Value>) -> Result<Tensor> {
        let (a, b) = (a.into(), b.into());
        let dtype = result_type(&a, &b);
        let (a, b) = (self.choice(a, dtype)?, self.choice(b, dtype)?);
        let cond = self.array()?;
        let out = Array::select(&cond, &a.array.cast(dtype)?, &b.array.cast(dtype)?)?;
        Ok(record(out, [a, b], |_, _| {
            Derivative::new("WhereBackward0", |c| {
                let (g, [cond]) = c.parts();
                c.gradients(2, |i| if i == 0 { g.keep_where(&cond) } else { g.masked_fill(&cond, 0.0) })
            })
            .save(&cond)
        }))
    }

    fn choice(&self, value: Value, dtype: DType) -> Result<Operand> {
        match value {
            Value::Tensor(tensor) => tensor.operand(),
            Value::Scalar(number) => {
                Ok(Operand { array: Array::full(&[], number, dtype, self.device())?, edge: None })
            }
        }
    }

    /// The tensor with `value`, a number or a 0-dim tensor, where the bool `mask`, which broadcasts to it, holds. The value is cast to the
    /// tensor's dtype.
    ///
    /// # Errors
    /// If the mask is not bool or does not broadcast, the tensor's integers cannot hold the number, or the devices differ.
    pub fn masked_fill(&self, mask: &Tensor, value: impl Into<Value>) -> Result<Tensor> {
        const OP: &str = "masked_fill";
        let x = self.operand()?;
        let mask = mask.array()?;
        let value = match value.into() {
            Value::Tensor(value) if value.rank() > 0 => {
                let reason = "is not that of a single value; use where_cond".to_owned();
                return Err(Error::Shape { op: OP, shape: value.shape().to_vec(), reason });
            }
            Value::Tensor(value) => value.operand()?,
            Value::Scalar(number) => {
                check_held(OP, number, self.dtype())?;
                Operand { array: Array::full(&[], number, self.dtype(), self.device())?, edge: None }
            }
        };
        let out = Array::select(&mask, &value.array.cast(self.dtype())?, &x.array)?;
        Ok(record(out, [x, value], |_, _| {
            Derivative::new("MaskedFillBackward0", |c| {
                let (g, [mask]) = c.parts();
                c.gradients(2, |i| if i == 0 { g.masked_fill(&mask, 0.0) } else { g.keep_where(&mask) })
            })
            .save(&mask)
        }))
    }

    /// [`Tensor::masked_fill`] in place.
    ///
    /// # Errors
    /// As [`Tensor::masked_fill`] and [`Tensor::copy_`].
    pub fn masked_fill_(&self, mask: &Tensor, value: impl Into<Value>) -> Result<Tensor> {
        self.write("masked_fill_", || self.masked_fill(mask, value))
    }

    /// The tensor where `keep` holds, 0 elsewhere.
    pub(crate) fn keep_where(&self, keep: &Tensor) -> Result<Tensor> {
        let x = self.operand()?;
        let keep = keep.array()?;
        let zero = Array::full(&[], Scalar::Int(0), self.dtype(), self.device())?;
        let out = Array::select(&keep, &x.array, &zero)?;
        Ok(record(out, [x], |_, _| {
            Derivative::new("WhereBackward0", |c| {
                c.gradient(|| {
                    let (g, [keep]) = c.parts();
                    g.keep_where(keep)
                })
            })
            .save(&keep)
        }))
    }
}

/// The dtype of a choice between two values, as `torch.result_type`.
fn result_type(a: &Value, b: &Value) -> DType {
    match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) => {
            let weaker = |weak: &Tensor, strong: &Tensor| {
                weak.rank() == 0 && strong.rank() > 0 && weak.dtype().category() <= strong.dtype().category()
            };
            match () {
                () if weaker(a, b) => b.dtype(),
                () if weaker(b, a) => a.dtype(),
                () => a.dtype().promote(b.dtype()),
            }
        }
        (Value::Tensor(tensor), Value::Scalar(number)) | (Value::Scalar(number), Value::Tensor(tensor)) => {
            number.promote(tensor.dtype())
        }
        (Value::Scalar(a), Value::Scalar(b)) => a.default_dtype().promote(b.default_dtype()),
    }
}
