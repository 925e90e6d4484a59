//! Functions of pairs of elements, with broadcasting and promotion: quotients and remainders, angles, logarithms
//! of sums, bits, and sums of products.

use std::f64::consts::LN_2;

use wgrad_array::{Array, BinaryOp, Category, DType, Error, Expr, Result, Scalar, UnaryOp};

use crate::ops::elementwise::clamp::Bound;
use crate::ops::elementwise::unary::rounded;
use crate::ops::reduce::widened;
use crate::tape::{Derivative, Operand, record};
use crate::{Tensor, TensorExpr, Value};

/// To which integer [`Tensor::div_rounded`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// The one nearer to 0.
    Trunc,
    /// The one below.
    Floor,
}

/// Both operands in the dtype that PyTorch computes in: a 0-dim operand promotes by its category only.
fn common(a: &Array, b: &Array) -> Result<(Array, Array)> {
    let dtype = common_dtype((a.dtype(), a.rank()), (b.dtype(), b.rank()));
    Ok((a.cast(dtype)?, b.cast(dtype)?))
}

/// The dtype that PyTorch computes in, of two dtypes and numbers of dims.
fn common_dtype(a: (DType, usize), b: (DType, usize)) -> DType {
    let weaker = |weak: (DType, usize), strong: (DType, usize)| {
        weak.1 == 0 && strong.1 > 0 && weak.0.category() <= strong.0.category()
    };
    match () {
        () if weaker(b, a) => a.0,
        () if weaker(a, b) => b.0,
        () => a.0.promote(b.0),
    }
}

/// The derivative for one of two inputs (0 or 1), from the gradient and the inputs.
type PairDerivative = fn(usize, &TensorExpr, &TensorExpr, &TensorExpr) -> TensorExpr;

/// # Quotients, remainders and functions of pairs
#[wgrad_macros::call_sites]
impl Tensor {
    /// The other operand; a number as a 0-dim constant.
    fn partner(&self, other: Value) -> Result<Operand> {
        match other {
            Value::Tensor(other) => other.operand(),
            Value::Scalar(number) => {
                let dtype = number.promote(self.dtype());
                Ok(Operand { array: Array::full(&[], number, dtype, self.device())?, edge: None })
            }
        }
    }

    /// The dtype of an operation on this tensor and another.
    fn combined_dtype(&self, other: &Tensor) -> DType {
        common_dtype((self.dtype(), self.rank()), (other.dtype(), other.rank()))
    }

    /// Integers beside a number as floats, which hold it: for functions whose values are floats anyway.
    fn beside(&self, other: &Value) -> Result<Tensor> {
        match other {
            Value::Scalar(_) => self.to_dtype(self.dtype().floating()),
            _ => Ok(self.clone()),
        }
    }

    /// A function of pairs: halves are computed in f32.
    fn pair(
        &self,
        other: Value,
        node: &'static str,
        forward: impl FnOnce(&Array, &Array) -> Result<Array>,
        derivative: PairDerivative,
    ) -> Result<Tensor> {
        let (x, y) = (self.operand()?, self.partner(other)?);
        let (a, b) = common(&x.array, &y.array)?;
        let out = rounded(forward(&widened(&a)?, &widened(&b)?)?, a.dtype())?;
        Ok(record(out, [x, y], |inputs, _| {
            Derivative::with(node, move |c| {
                let (g, [a, b]) = &c.wide_parts();
                c.gradients(2, |i| derivative(i, g, a, b))
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
        }))
    }

    /// `self + alpha * other`; `torch.add(input, other, alpha=alpha)`.
    ///
    /// # Errors
    /// As [`Tensor::add`]; and for a fraction as `alpha` of integers.
    pub fn add_scaled(&self, other: impl Into<Value>, alpha: impl Into<Scalar>) -> Result<Tensor> {
        self.plus_scaled("add", other.into(), alpha.into(), false)
    }

    /// `self - alpha * other`; `torch.sub(input, other, alpha=alpha)`.
    ///
    /// # Errors
    /// As [`Tensor::sub`]; and for a fraction as `alpha` of integers.
    pub fn sub_scaled(&self, other: impl Into<Value>, alpha: impl Into<Scalar>) -> Result<Tensor> {
        self.plus_scaled("sub", other.into(), alpha.into(), true)
    }

    fn plus_scaled(&self, op: &'static str, other: Value, alpha: Scalar, minus: bool) -> Result<Tensor> {
        let kind = match &other {
            Value::Tensor(other) => self.dtype().promote(other.dtype()),
            Value::Scalar(number) => number.promote(self.dtype()),
        };
        let fraction = alpha.category() == Category::Float && !kind.is_float();
        if fraction || (alpha.category() == Category::Bool && kind != DType::Bool) {
            let reason = format!(
                "does not go with an alpha of {alpha:?}; cast the tensor, or give a smaller kind of number"
            );
            return Err(Error::DType { op, dtype: kind, reason });
        }
        if let Value::Tensor(other) = &other
            && alpha.as_f64() != 1.0
            && self.combined_dtype(other).is_half()
        {
            let dtype = self.combined_dtype(other);
            return self.widened()?.plus_scaled(op, other.widened()?.into(), alpha, minus)?.to_dtype(dtype);
        }
        let scaled: Value = match other {
            other if alpha.as_f64() == 1.0 => other,
            Value::Tensor(other) => Value::Tensor(other.mul(alpha)?),
            Value::Scalar(Scalar::Float(number)) => Value::Scalar(Scalar::Float(number * alpha.as_f64())),
            Value::Scalar(number) => match alpha {
                Scalar::Float(alpha) => Value::Scalar(Scalar::Float(number.as_f64() * alpha)),
                alpha => Value::Scalar(Scalar::Int(number.as_i64().wrapping_mul(alpha.as_i64()))),
            },
        };
        if minus { self.sub(scaled) } else { self.add(scaled) }
    }

    /// The quotient as an integer number, in the dtype of the operands. An integer by 0 gives 0.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn div_rounded(&self, other: impl Into<Value>, rounding: Rounding) -> Result<Tensor> {
        self.pair(
            other.into(),
            "DivBackward1",
            |a, b| match rounding {
                Rounding::Trunc => a.div_trunc(b),
                Rounding::Floor => floor_quotient(a, b),
            },
            |_, g, _, _| g.zeros_like(),
        )
    }

    /// The quotient rounded down; `torch.floor_divide`. An integer by 0 gives 0.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn floor_divide(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.div_rounded(other, Rounding::Floor)
    }

    /// The remainder with the sign of `self`; C's fmod.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn fmod(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(
            other.into(),
            "FmodBackward1",
            |a, b| truncated_remainder(a, b).done(),
            |i, g, a, b| if i == 0 { g.clone() } else { -g * (a / b).trunc() },
        )
    }

    /// The angle of the point (`other`, `self`) in the plane, in all four quadrants.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn atan2(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(other.into(), "Atan2Backward0", Array::atan2, |i, g, a, b| {
            let square = a * a + b * b;
            // At the origin there is no angle, and no gradient; the second one is not a number there.
            let scaled = g * square.reciprocal().masked_fill(square.eq(0.0), 0.0);
            if i == 0 { scaled * b } else { scaled * -a }
        })
    }

    /// `sqrt(self² + other²)`, without overflow.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn hypot(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(other.into(), "HypotBackward0", Array::hypot, |i, g, a, b| {
            g * (if i == 0 { a } else { b }) / a.hypot(b)
        })
    }

    /// The size of `self` with the sign of `other`.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn copysign(&self, other: impl Into<Value>) -> Result<Tensor> {
        let other = other.into();
        self.beside(&other)?.pair(other, "CopysignBackward0", Array::copysign, |i, g, a, b| {
            if i == 1 {
                return g.zeros_like();
            }
            let same = a.signbit().eq(b.signbit());
            same.where_cond(g, -g).masked_fill(a.eq(0.0), 0.0)
        })
    }

    /// The larger; if one is NaN, the other. Equal elements get half of the gradient each.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn fmax(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(
            other.into(),
            "FmaxBackward0",
            |a, b| ignoring_nan(a, BinaryOp::Max, b),
            |i, g, a, b| {
                let (own, rest) = if i == 0 { (a, b) } else { (b, a) };
                ignoring_nan_backward(i, g, own, rest, own.gt(rest))
            },
        )
    }

    /// The smaller; if one is NaN, the other. Equal elements get half of the gradient each.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn fmin(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(
            other.into(),
            "FminBackward0",
            |a, b| ignoring_nan(a, BinaryOp::Min, b),
            |i, g, a, b| {
                let (own, rest) = if i == 0 { (a, b) } else { (b, a) };
                ignoring_nan_backward(i, g, own, rest, own.lt(rest))
            },
        )
    }

    /// `self * log(other)`, and 0 where `self` is 0, unless `other` is NaN.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn xlogy(&self, other: impl Into<Value>) -> Result<Tensor> {
        let other = other.into();
        self.beside(&other)?.pair(
            other,
            "XlogyBackward0",
            |a, b| {
                let (a, b) = (Expr::of(a), Expr::of(b));
                let product = &a * b.log();
                let zero = a.eq(0i64).and(b.is_nan().not());
                zero.select(0.0, product).done()
            },
            |i, g, a, b| match i {
                0 => g.xlogy(b).masked_fill(a.eq(0.0).logical_and(b.le(0.0)), 0.0),
                _ => g * (a / b),
            },
        )
    }

    /// `log(exp(self) + exp(other))`, without overflow.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn logaddexp(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(
            other.into(),
            "LogaddexpBackward0",
            |a, b| log_sum(a, b, 1.0),
            |i, g, a, b| g * (if i == 0 { a - b } else { b - a }).sigmoid(),
        )
    }

    /// `log2(2 ** self + 2 ** other)`, without overflow.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn logaddexp2(&self, other: impl Into<Value>) -> Result<Tensor> {
        self.pair(
            other.into(),
            "Logaddexp2Backward0",
            |a, b| log_sum(a, b, LN_2),
            |i, g, a, b| {
                let distance = if i == 0 { a - b } else { b - a };
                g * (distance * LN_2).sigmoid()
            },
        )
    }

    /// 0 below 0, 1 above, and `values` at 0.
    ///
    /// # Errors
    /// If the dtypes or devices differ, or the shapes do not broadcast.
    pub fn heaviside(&self, values: &Tensor) -> Result<Tensor> {
        if values.dtype() != self.dtype() {
            let reason = format!("of the values is not that of the input, {}; cast one", self.dtype());
            return Err(Error::DType { op: "heaviside", dtype: values.dtype(), reason });
        }
        self.pair(
            values.into(),
            "HeavisideBackward0",
            |x, values| {
                let x = Expr::of(x);
                let zero = Scalar::Int(0);
                let step = x.gt(zero).cast(values.dtype());
                let value = x.eq(zero).select(values, step);
                value.done()
            },
            |_, g, _, _| g.zeros_like(),
        )
    }

    /// Each element as f64, to the power of `exponent`; `torch.float_power`.
    ///
    /// # Errors
    /// If the device has no f64, the shapes do not broadcast or the devices differ.
    pub fn float_power(&self, exponent: impl Into<Value>) -> Result<Tensor> {
        let base = self.to_dtype(DType::F64)?;
        match exponent.into() {
            Value::Tensor(exponent) => base.pow(exponent.to_dtype(DType::F64)?),
            Value::Scalar(exponent) => base.pow(exponent.as_f64()),
        }
    }

    /// `self + weight * (end - self)`: between this tensor (weight 0) and `end` (weight 1).
    ///
    /// # Errors
    /// If the dtypes or devices differ, or the shapes do not broadcast.
    pub fn lerp(&self, end: &Tensor, weight: impl Into<Value>) -> Result<Tensor> {
        const OP: &str = "lerp";
        crate::ops::reduce::require_float(OP, self)?;
        let weight = weight.into();
        let other = match &weight {
            Value::Tensor(weight) if weight.rank() > 0 => Some(weight),
            _ => None,
        };
        for x in [Some(end), other].into_iter().flatten() {
            if x.dtype() != self.dtype() {
                let reason = format!("goes with {} only if it is cast", self.dtype());
                return Err(Error::DType { op: OP, dtype: x.dtype(), reason });
            }
        }
        let (x, y, w) = (self.operand()?, end.operand()?, self.partner(weight)?);
        let (start, end, weight) = (widened(&x.array)?, widened(&y.array)?, widened(&w.array)?);
        // From the nearer end, so that both are reached exactly.
        let (start, end, part) = (Expr::of(&start), Expr::of(&end), Expr::of(&weight));
        let distance = &end - &start;
        let near = part.abs().lt(0.5).select(&start + &part * &distance, &end - (1.0 - &part) * &distance);
        let out = near.cast(self.dtype()).done()?;
        Ok(record(out, [x, y, w], |inputs, _| {
            Derivative::new("LerpBackward1", |c| {
                let (g, [start, end, weight]) = &c.parts();
                c.gradients(3, |i| match i {
                    0 => g * (1.0 - weight),
                    1 => g * weight,
                    _ => g * (end - start),
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
            .save_input(inputs, 2)
        }))
    }

    /// `self + value * tensor1 * tensor2`.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ, or for a fraction as the value of integers.
    pub fn addcmul(&self, tensor1: &Tensor, tensor2: &Tensor, value: impl Into<Scalar>) -> Result<Tensor> {
        self.plus_pair(tensor1, tensor2, |a, b| a.mul(b), number(value))
    }

    /// `self + value * combine(a, b)`; halves are rounded at the end.
    fn plus_pair(
        &self,
        a: &Tensor,
        b: &Tensor,
        combine: fn(&Tensor, &Tensor) -> Result<Tensor>,
        value: Scalar,
    ) -> Result<Tensor> {
        if ![self, a, b].iter().any(|x| x.dtype().is_half()) {
            return self.add_scaled(combine(a, b)?, value);
        }
        let pair = combine(&a.widened()?, &b.widened()?)?;
        let rank = pair.rank();
        let dtype = common_dtype((self.dtype(), self.rank()), (a.combined_dtype(b), rank));
        self.widened()?.add_scaled(pair, value)?.to_dtype(dtype)
    }

    /// `self + value * tensor1 / tensor2`.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ; for integers.
    pub fn addcdiv(&self, tensor1: &Tensor, tensor2: &Tensor, value: impl Into<Scalar>) -> Result<Tensor> {
        if !tensor1.dtype().is_float() && !tensor2.dtype().is_float() {
            let reason = "has no true quotient; divide with a rounding, or cast the tensors".to_owned();
            return Err(Error::DType { op: "addcdiv", dtype: tensor1.dtype(), reason });
        }
        self.plus_pair(tensor1, tensor2, |a, b| a.div(b), number(value))
    }

    /// Elements no smaller than `min`; see [`Tensor::clamp`].
    ///
    /// # Errors
    /// As [`Tensor::clamp`].
    pub fn clamp_min(&self, min: impl Into<Bound>) -> Result<Tensor> {
        self.clamp(min, Bound::None)
    }

    /// Elements no larger than `max`; see [`Tensor::clamp`].
    ///
    /// # Errors
    /// As [`Tensor::clamp`].
    pub fn clamp_max(&self, max: impl Into<Bound>) -> Result<Tensor> {
        self.clamp(Bound::None, max)
    }

    /// Whether each element is infinite, of either sign.
    pub fn isinf(&self) -> Result<Tensor> {
        let x = self.array()?;
        if !self.dtype().is_float() {
            return Tensor::full(self.shape(), false, (DType::Bool, self.device()));
        }
        Ok(Tensor::from_array(Expr::of(&x).abs().eq(f64::INFINITY).done()?))
    }

    /// Whether the sign bit of each element is set: below 0, or the negative zero.
    pub fn signbit(&self) -> Result<Tensor> {
        Ok(Tensor::from_array(self.array()?.signbit()?))
    }

    /// Every bit of integers turned; the opposite of bools.
    ///
    /// # Errors
    /// For floats.
    pub fn bitwise_not(&self) -> Result<Tensor> {
        Ok(Tensor::from_array(self.array()?.unary(UnaryOp::Not)?))
    }

    fn bits(&self, op: BinaryOp, other: Value) -> Result<Tensor> {
        let (a, b) = common(&self.array()?, &self.partner(other)?.array)?;
        Ok(Tensor::from_array(a.binary(op, &b)?))
    }
}

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        #[wgrad_macros::call_sites]
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// For floats; if the shapes do not broadcast or the devices differ.
            pub fn $name(&self, other: impl Into<Value>) -> Result<Tensor> {
                self.bits(BinaryOp::$op, other.into())
            }
        )*}
    };
}

bits! {
    /// The bits that both have set; of bools, whether both hold.
    bitwise_and = And;
    /// The bits that either has set; of bools, whether either holds.
    bitwise_or = Or;
    /// The bits that differ; of bools, whether they differ.
    bitwise_xor = Xor;
    /// The bits moved up by `other` places.
    bitwise_left_shift = Shl;
    /// The bits moved down by `other` places, the sign repeated.
    bitwise_right_shift = Shr;
}

/// The remainder with the sign of `a`, 0 of an integer by 0. Of integers there is no size of the smallest: where the remainder that has
/// the sign of `b` has the other one, it lies `b` away.
fn truncated_remainder(a: &Array, b: &Array) -> Expr {
    let negative = Expr::of(a).lt(0i64);
    if a.dtype().is_float() {
        let size = Expr::of(a).abs().rem(Expr::of(b).abs());
        return negative.select(-&size, size);
    }
    let rest = Expr::of(a).rem(b);
    let turned = rest.ne(0i64).and(rest.lt(0i64).xor(negative));
    turned.select(&rest - b, rest)
}

/// The quotient rounded down, without anything larger than the operands and it on the way.
fn floor_quotient(a: &Array, b: &Array) -> Result<Array> {
    let apart = Expr::of(a).lt(0i64).xor(Expr::of(b).lt(0i64));
    if !a.dtype().is_float() {
        // Cut off towards 0, it is one too large where a negative one leaves a rest.
        let cut = a.div_trunc(b)?;
        let below = Expr::of(a).rem(b).ne(0i64).and(apart).cast(cut.dtype());
        return (Expr::of(&cut) - below).done();
    }
    // What the remainder leaves of `a` is a whole number of times `b`, but for rounding. An infinite `b` leaves nothing, and the
    // quotient is -1 where the signs differ.
    let rest = truncated_remainder(a, b);
    let whole = ((Expr::of(a) - &rest) / b).round();
    let floor = rest.ne(0.0).and(apart).select(&whole - 1.0, whole);
    Expr::of(b).eq(0.0).select(Expr::of(a) / b, floor).done()
}

fn ignoring_nan(a: &Array, op: BinaryOp, b: &Array) -> Result<Array> {
    let both = Expr::of(a).binary(op, b);
    let rest = Expr::of(b).is_nan().select(a, both);
    Expr::of(a).is_nan().select(b, rest).done()
}

/// The gradient of the winner, which is the first where both are NaN.
fn ignoring_nan_backward(
    i: usize,
    g: &TensorExpr,
    own: &TensorExpr,
    rest: &TensorExpr,
    won: TensorExpr,
) -> TensorExpr {
    let alone = if i == 0 { rest.isnan() } else { rest.isnan().logical_and(own.isnan().logical_not()) };
    let won = won.logical_or(alone);
    let tie = own.eq(rest);
    tie.where_cond(g * 0.5, g).keep_where(won.logical_or(&tie))
}

/// `log(exp(base * a) + exp(base * b)) / base`.
fn log_sum(a: &Array, b: &Array, base: f64) -> Result<Array> {
    let (a, b) = (Expr::of(a), Expr::of(b));
    let larger = a.max(&b);
    let rest = (-(&a - &b).abs() * base).exp().log1p() / base;
    // Equal infinities have no distance.
    larger.is_finite().not().select(&larger, &larger + rest).done()
}

/// A truth value as the number that it counts as.
fn number(value: impl Into<Scalar>) -> Scalar {
    match value.into() {
        Scalar::Bool(flag) => Scalar::Int(flag.into()),
        value => value,
    }
}
