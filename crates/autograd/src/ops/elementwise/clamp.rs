//! Elements kept between bounds.

use wgrad_array::{BinaryOp, DType, Error, Result, Scalar};

use crate::ops::elementwise::binary::combine;
use crate::tape::{Context, Derivative, Grads, record};
use crate::{Tensor, TensorExpr};

/// # Bounds
#[wgrad_macros::call_sites]
impl Tensor {
    /// Elements no smaller than `min` and no larger than `max`, each a number, a tensor that broadcasts, or `None`.
    /// Where `min` is above `max` the result is `max`. An element at a number's bound gets no gradient.
    ///
    /// # Errors
    /// If both are `None`, a tensor does not fit, or no number of the dtype is on a bound's side.
    pub fn clamp(&self, min: impl Into<Bound>, max: impl Into<Bound>) -> Result<Tensor> {
        match (min.into(), max.into()) {
            (Bound::None, Bound::None) => Err(Error::Argument {
                op: "clamp",
                reason: "neither min nor max was given; give at least one".into(),
            }),
            (Bound::Tensor(min), Bound::Tensor(max)) => self.clamp_tensors(&min, &max),
            (Bound::Tensor(min), max) => {
                let bounded = self.maximum(min)?;
                if matches!(max, Bound::None) { Ok(bounded) } else { bounded.clamp(Bound::None, max) }
            }
            (min, Bound::Tensor(max)) => {
                if matches!(min, Bound::None) {
                    self.minimum(max)
                } else {
                    self.clamp(min, Bound::None)?.minimum(max)
                }
            }
            (min, max) => self.clamp_numbers(min.number(), max.number()),
        }
    }

    /// [`Tensor::clamp`] in place.
    ///
    /// # Errors
    /// As [`Tensor::clamp`] and [`Tensor::copy_`].
    pub fn clamp_(&self, min: impl Into<Bound>, max: impl Into<Bound>) -> Result<Tensor> {
        self.write("clamp_", || self.clamp(min, max))
    }

    fn clamp_numbers(&self, min: Option<Scalar>, max: Option<Scalar>) -> Result<Tensor> {
        let x = self.operand()?;
        let dtype = [min, max].into_iter().flatten().fold(self.dtype(), |dtype, bound| bound.promote(dtype));
        let (min, max) = (within(min, dtype, false)?, within(max, dtype, true)?);
        let mut out = x.array.cast(dtype)?;
        if let Some(min) = min {
            out = out.binary_scalar(BinaryOp::Max, min)?;
        }
        if let Some(max) = max {
            out = out.binary_scalar(BinaryOp::Min, max)?;
        }
        Ok(record(out, [x], |inputs, _| {
            Derivative::with("ClampBackward1", move |c| {
                c.gradient(|| {
                    let (g, [x]) = c.parts();
                    match (min, max) {
                        (Some(min), Some(max)) => g.keep_where(x.gt(min).logical_and(x.lt(max))),
                        (Some(min), None) => g.keep_where(x.gt(min)),
                        (None, Some(max)) => g.keep_where(x.lt(max)),
                        (None, None) => g,
                    }
                })
            })
            .save_input(inputs, 0)
        }))
    }

    fn clamp_tensors(&self, min: &Tensor, max: &Tensor) -> Result<Tensor> {
        let (x, low, high) = (self.operand()?, min.operand()?, max.operand()?);
        let bounded = combine(&x.array, BinaryOp::Max, &low.array)?;
        let out = combine(&bounded, BinaryOp::Min, &high.array)?;
        Ok(record(out, [x, low, high], |inputs, _| {
            Derivative::new("ClampBackward0", clamp_backward)
                .save_input(inputs, 0)
                .save_input(inputs, 1)
                .save_input(inputs, 2)
        }))
    }
}

/// The gradient goes to the one that the result is: half and half where an element equals one of two bounds, all to the element
/// where the bounds leave it no other value, all to `max` where the bounds are the wrong way round. A NaN is on no side of a bound, and
/// neither is anything of a bound that is NaN.
fn clamp_backward(c: &Context) -> Result<Grads> {
    let (g, saved) = &c.parts::<3>();
    let [x, min, max] = &saved.each_ref().map(TensorExpr::detach);
    let (ordered, fixed) = (min.lt(max), min.eq(max));
    c.gradients(3, |i| {
        let usable = ordered.logical_or(&fixed);
        let (all, half) = match i {
            0 => {
                let outside = x.lt(min).logical_or(x.gt(max));
                (outside.logical_not(), x.eq(min).logical_or(x.eq(max)))
            }
            1 => (x.lt(min).logical_and(usable), x.eq(min)),
            _ => (x.gt(max).logical_and(usable).logical_or(min.gt(max)), x.eq(max)),
        };
        let half = half.logical_and(&ordered);
        half.where_cond(g * 0.5, g).keep_where(all.logical_or(&half))
    })
}

/// A bound as a number that the dtype holds: none if it lies beyond all of them on the far side.
fn within(bound: Option<Scalar>, dtype: DType, is_max: bool) -> Result<Option<Scalar>> {
    let (lowest, highest) = match dtype {
        DType::U8 => (0, 255),
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => return Ok(bound),
    };
    let Some(Scalar::Int(number)) = bound else { return Ok(bound) };
    match (number < lowest, number > highest) {
        (false, false) => Ok(bound),
        (below, _) if below != is_max => Ok(None),
        _ => {
            let reason = format!("has no number on that side of the bound {number}; use a wider dtype");
            Err(Error::DType { op: "clamp", dtype, reason })
        }
    }
}

/// A bound of [`Tensor::clamp`].
#[derive(Clone, Debug)]
pub enum Bound {
    /// Unbounded.
    None,
    /// The same for all elements.
    Scalar(Scalar),
    /// One for each element.
    Tensor(Tensor),
}

impl Bound {
    fn number(self) -> Option<Scalar> {
        match self {
            Bound::Scalar(number) => Some(number),
            Bound::None | Bound::Tensor(_) => None,
        }
    }
}

impl From<&Tensor> for Bound {
    fn from(tensor: &Tensor) -> Self {
        Bound::Tensor(tensor.clone())
    }
}

impl From<Option<f64>> for Bound {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Bound::None, |number| Bound::Scalar(number.into()))
    }
}

macro_rules! bound {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Bound {
            fn from(number: $ty) -> Self {
                Bound::Scalar(number.into())
            }
        }
    )*};
}
bound!(f64, f32, i64, i32);
