//! Functions of pairs of elements, with broadcasting and promotion as in PyTorch: one row an operation.

use wgrad_array::{Array, BinaryOp, DType, Error, Result, Scalar};

use crate::tape::{Context, Derivative, Grads, record};
use crate::{Tensor, TensorExpr, Value};

/// A row: documentation; name, in-place name, kernel operation, node; which inputs' values which gradients need; the gradients
/// of a pair of tensors, formulas; that of a tensor and a number `s`, or `as_tensor` where the number is one of a pair.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident, $in_place:ident = $op:ident, $node:literal,
        needs [$a_for:ident, $b_for:ident],
        pair |$g:ident, $a:ident, $b:ident| [$da:expr, $db:expr],
        number ($($number:tt)*);)*) => {
        #[wgrad_macros::call_sites]
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// If the shapes do not broadcast, the devices differ, or the dtype has no such operation.
            pub fn $name(&self, other: impl Into<Value>) -> Result<Tensor> {
                // Not generic, so that it is compiled once.
                fn apply(x: &Tensor, other: Value) -> Result<Tensor> {
                    let other = match other {
                        Value::Tensor(other) => other,
                        Value::Scalar(number) => {
                            return binary!(@number x, number, $name, $op, $node, $($number)*);
                        }
                    };
                    let (x, y) = (x.operand()?, other.operand()?);
                        let out = combine(&x.array, BinaryOp::$op, &y.array)?;
                        Ok(record(out, [x, y], |inputs, _| {
                            Derivative::new($node, |c| {
                                c.gradients(2, |i| {
                                    let $g = c.g();
                                    if i == 0 {
                                        binary!(@value $a_for first, c, 0, $a);
                                        binary!(@value $b_for first, c, 1, $b);
                                        $da
                                    } else {
                                        binary!(@value $a_for second, c, 0, $a);
                                        binary!(@value $b_for second, c, 1, $b);
                                        $db
                                    }
                                })
                            })
                            .save_input_if(binary!(@needed $a_for, inputs), inputs, 0)
                            .save_input_if(binary!(@needed $b_for, inputs), inputs, 1)
                        }))
                }
                apply(self, other.into())
            }

            #[doc = concat!("[`Tensor::", stringify!($name), "`] in place.")]
            ///
            /// # Errors
            #[doc = concat!("As [`Tensor::", stringify!($name), "`] and [`Tensor::copy_`].")]
            pub fn $in_place(&self, other: impl Into<Value>) -> Result<Tensor> {
                self.write(stringify!($in_place), || self.$name(other))
            }
        )*}
    };
    (@number $x:ident, $value:ident, $name:ident, $op:ident, $node:literal, as_tensor) => {{
        let dtype = $value.promote($x.dtype());
        $x.$name(Tensor::full((), $value, (dtype, $x.device()))?)
    }};
    (@number $x:ident, $value:ident, $name:ident, $op:ident, $node:literal, |$g:ident, $s:ident| $grad:expr) => {{
        let x = $x.operand()?;
        let out = combine_number(&x.array, BinaryOp::$op, $value)?;
        Ok(record(out, [x], |_, _| Derivative::with_scalar($node, $value, |c, $s| {
            c.gradient(|| {
                let $g = c.g();
                $grad
            })
        })
        .and_a_number()))
    }};
    // Whose gradients need the value of this input: none, that of the other one, or both.
    (@value none $turn:ident, $c:ident, $i:literal, $v:ident) => {};
    (@value both $turn:ident, $c:ident, $i:literal, $v:ident) => {
        let $v = &TensorExpr::from($c.value($i));
    };
    (@value first first, $c:ident, $i:literal, $v:ident) => { binary!(@value both first, $c, $i, $v); };
    (@value second second, $c:ident, $i:literal, $v:ident) => { binary!(@value both second, $c, $i, $v); };
    (@value $needed:ident $turn:ident, $c:ident, $i:literal, $v:ident) => {};
    (@needed none, $inputs:ident) => { false };
    (@needed both, $inputs:ident) => { true };
    (@needed first, $inputs:ident) => { $inputs[0].needs_grad() };
    (@needed second, $inputs:ident) => { $inputs[1].needs_grad() };
}

binary! {
    /// `self + other`.
    add, add_ = Add, "AddBackward0", needs [none, none],
        pair |g, a, b| [g, g],
        number (|g, _s| g);

    /// `self - other`.
    sub, sub_ = Sub, "SubBackward0", needs [none, none],
        pair |g, a, b| [g, -g],
        number (|g, _s| g);

    /// `self * other`.
    mul, mul_ = Mul, "MulBackward0", needs [second, first],
        pair |g, a, b| [g * b, g * a],
        number (|g, s| g * s);

    /// `self / other`, true division: integers give the default dtype.
    div, div_ = Div, "DivBackward0", needs [second, both],
        pair |g, a, b| [g / b, -g * (a / b / b)],
        number (|g, s| g / s);

    /// The remainder with the sign of `other`; `torch.remainder`.
    remainder, remainder_ = Rem, "RemainderBackward0", needs [second, second],
        pair |g, a, b| [g, -g * a.floor_divide(b)],
        number (|g, _s| g);

    /// The larger; NaN if either is. Equal elements get half of the gradient each.
    maximum, maximum_ = Max, "MaximumBackward0", needs [both, both],
        pair |g, a, b| [share(g, a, b, a.lt(b)), share(g, a, b, b.lt(a))],
        number (as_tensor);

    /// The smaller; NaN if either is. Equal elements get half of the gradient each.
    minimum, minimum_ = Min, "MinimumBackward0", needs [both, both],
        pair |g, a, b| [share(g, a, b, a.gt(b)), share(g, a, b, b.gt(a))],
        number (as_tensor);
}

/// A winner's gradient: all of it, half of it in a tie, none where it lost.
fn share(g: TensorExpr, a: &TensorExpr, b: &TensorExpr, lost: TensorExpr) -> TensorExpr {
    a.eq(b).where_cond(&g * 0.5, g).masked_fill(lost, 0.0)
}

/// `a op b`. A 0-dim operand promotes by its category only, as in PyTorch.
pub(in crate::ops) fn combine(a: &Array, op: BinaryOp, b: &Array) -> Result<Array> {
    if op == BinaryOp::Div && !a.dtype().is_float() && !b.dtype().is_float() {
        return a.cast(a.dtype().floating())?.binary(op, &b.cast(b.dtype().floating())?);
    }
    if a.dtype() == DType::Bool && b.dtype() == DType::Bool {
        return a.binary(for_bools(op)?, b);
    }
    if a.dtype() != b.dtype() {
        if b.rank() == 0 && a.rank() > 0 && b.dtype().category() <= a.dtype().category() {
            return a.binary(op, &b.cast(a.dtype())?);
        }
        if a.rank() == 0 && b.rank() > 0 && a.dtype().category() <= b.dtype().category() {
            return a.cast(b.dtype())?.binary(op, b);
        }
    }
    a.binary(op, b)
}

/// `a op number`.
fn combine_number(a: &Array, op: BinaryOp, number: Scalar) -> Result<Array> {
    let bools = a.dtype() == DType::Bool && matches!(number, Scalar::Bool(_));
    a.binary_scalar(if bools { for_bools(op)? } else { op }, number)
}

/// The sum of truth values is `or`, their product `and`; a difference they have not.
fn for_bools(op: BinaryOp) -> Result<BinaryOp> {
    match op {
        BinaryOp::Add => Ok(BinaryOp::Or),
        BinaryOp::Mul => Ok(BinaryOp::And),
        BinaryOp::Sub => Err(Error::DType {
            op: "sub",
            dtype: DType::Bool,
            reason: "has no subtraction; use logical_xor, or logical_not".into(),
        }),
        op => Ok(op),
    }
}

/// # Arithmetic in place and powers
#[wgrad_macros::call_sites]
impl Tensor {
    /// This tensor as one computed from `x` too, in which it is flat: where derivatives are recorded, that for `x` is zeros instead of
    /// missing.
    pub(in crate::ops) fn flat_in(&self, x: &Tensor) -> Result<Tensor> {
        let (y, x) = (self.operand()?, x.operand()?);
        if x.edge.is_none() {
            return Ok(self.clone());
        }
        let (out, shape, dtype) = (y.array.clone(), x.array.shape().to_vec(), x.array.dtype());
        Ok(record(out, [y, x], |_, _| {
            Derivative::with("MulBackward0", move |c| {
                let g = c.grad()?;
                c.each(2, |i| if i == 0 { Ok(g.clone()) } else { Tensor::zeros(&shape, (dtype, g.device())) })
            })
        }))
    }

    /// `number - self`; `torch.rsub`.
    ///
    /// # Errors
    /// If the dtype has no subtraction.
    pub fn rsub(&self, number: impl Into<Scalar>) -> Result<Tensor> {
        let x = self.operand()?;
        let out = x.array.scalar_binary(number, BinaryOp::Sub)?;
        Ok(record(out, [x], |_, _| Derivative::new("RsubBackward1", |c| c.gradient(|| -c.g()))))
    }

    /// `self` to the power of `exponent`.
    ///
    /// # Errors
    /// If the shapes do not broadcast, the devices differ, or an integer is raised to a negative number.
    pub fn pow(&self, exponent: impl Into<Value>) -> Result<Tensor> {
        match exponent.into() {
            Value::Scalar(exponent) => self.pow_number(exponent),
            Value::Tensor(exponent) => {
                let (x, e) = (self.operand()?, exponent.operand()?);
                let out = combine(&x.array, BinaryOp::Pow, &e.array)?;
                Ok(record(out, [x, e], |inputs, out| {
                    Derivative::new("PowBackward1", pow_backward)
                        .save_input(inputs, 0)
                        .save_input(inputs, 1)
                        .save_output(out)
                }))
            }
        }
    }

    /// [`Tensor::pow`] in place.
    ///
    /// # Errors
    /// As [`Tensor::pow`] and [`Tensor::copy_`].
    pub fn pow_(&self, exponent: impl Into<Value>) -> Result<Tensor> {
        self.write("pow_", || self.pow(exponent))
    }

    fn pow_number(&self, exponent: Scalar) -> Result<Tensor> {
        let x = self.operand()?;
        if let Scalar::Int(n) = exponent
            && n < 0
            && !self.dtype().is_float()
        {
            let reason = format!(
                "an integer tensor cannot be raised to {n}; use a float exponent, or cast the tensor"
            );
            return Err(Error::Argument { op: "pow", reason });
        }
        let out = pow_array(&x.array, exponent)?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with_scalar("PowBackward0", exponent, |c, exponent| {
                c.gradient(|| {
                    let (g, [x]) = c.parts();
                    match exponent.as_f64() {
                        0.0 => g.zeros_like(),
                        1.0 => g.flat_in(x),
                        n => g * (x.pow(n - 1.0) * n),
                    }
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// `base` to the power of this tensor; `base ** x`.
    pub fn rpow(&self, base: impl Into<Scalar>) -> Result<Tensor> {
        let base = base.into();
        let x = self.operand()?;
        let out = x.array.scalar_binary(base, BinaryOp::Pow)?;
        Ok(record(out, [x], |inputs, out| {
            Derivative::with_scalar("PowBackward2", base, |c, base| {
                c.gradient(|| {
                    let (g, [x, y]) = c.parts();
                    let slope = g * (y * base.as_f64().ln());
                    if base.as_f64() == 0.0 { slope.masked_fill(x.ge(0.0), 0.0) } else { slope }
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }
}

/// Small powers are products, which are exact where a general power is not, and cheaper.
pub(in crate::ops) fn pow_array(x: &Array, exponent: Scalar) -> Result<Array> {
    let dtype = exponent.promote(x.dtype());
    let x = x.cast(dtype)?;
    match exponent.as_f64() {
        n if !dtype.is_float() && n > 3.0 => x.binary_scalar(BinaryOp::Pow, exponent),
        1.0 => Ok(x),
        2.0 => x.binary(BinaryOp::Mul, &x),
        3.0 => x.binary(BinaryOp::Mul, &x)?.binary(BinaryOp::Mul, &x),
        0.5 => x.unary(wgrad_array::UnaryOp::Sqrt),
        -0.5 => x.unary(wgrad_array::UnaryOp::Rsqrt),
        -1.0 => x.unary(wgrad_array::UnaryOp::Reciprocal),
        _ => x.binary_scalar(BinaryOp::Pow, exponent),
    }
}

fn pow_backward(c: &Context) -> Result<Grads> {
    let (g, [x, e, y]) = &c.parts();
    c.gradients(2, |i| {
        if i == 0 {
            // 0 to the power of 0 is 1 wherever the 0s came from: its derivative is 0, not 0 * inf.
            (g * (e * x.pow(e - 1.0))).masked_fill(e.eq(0.0), 0.0)
        } else {
            let flat = x.eq(0.0).logical_and(e.ge(0.0));
            g * (y * x.log()).masked_fill(flat, 0.0)
        }
    })
}
