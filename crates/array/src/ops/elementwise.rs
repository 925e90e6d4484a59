//! Operations on each element, with broadcasting and promotion.

use smallvec::{SmallVec, smallvec};
use wgrad_device::kernel::{BinaryOp, Gives, UnaryOp};
use wgrad_device::layout::{Dims, broadcast_shapes};
use wgrad_device::{Category, DType, Error, Result, Scalar};

use super::check_device;
use crate::Array;
use crate::array::check_dtype;
use crate::node::Inputs;
use crate::op::{Op, Operands};

impl Array {
    /// An operation on each element. Functions whose results are fractions take integers and bools as the default
    /// dtype; rounding leaves integers as they are.
    ///
    /// # Errors
    /// If the operation has no meaning for the dtype: negating a bool, the bits of a float.
    pub fn unary(&self, op: UnaryOp) -> Result<Array> {
        use UnaryOp::*;
        let dtype = self.dtype();
        let name = op.name();
        let input = match op {
            Neg if dtype == DType::Bool => return Err(no_meaning(name, dtype, "use logical_not")),
            Not if dtype.is_float() => return Err(no_meaning(name, dtype, "compare it with 0 first")),
            Abs | Sign if dtype == DType::Bool => return Ok(self.clone()),
            Floor | Ceil | Round | Trunc if !dtype.is_float() => return Ok(self.clone()),
            IsNan | IsFinite if !dtype.is_float() => {
                return Array::full(self.shape(), op == IsFinite, DType::Bool, self.device());
            }
            Neg | Not | Abs | Sign => self.clone(),
            _ if !dtype.is_float() => self.cast(dtype.floating())?,
            _ => self.clone(),
        };
        let out = if op.gives() == Gives::Truth { DType::Bool } else { input.dtype() };
        if op == Neg
            && let Some(value) = input.as_full()
        {
            return Array::full(
                input.shape(),
                fold(BinaryOp::Mul, value, Scalar::Int(-1), out),
                out,
                self.device(),
            );
        }
        Ok(input.derive(Op::Unary(op), input.dims(), out))
    }

    /// An operation on pairs of elements, which broadcast and promote as in PyTorch. Division and integer operands:
    /// true division in the default dtype; for the integer quotient see [`Array::div_trunc`].
    ///
    /// # Errors
    /// If the shapes do not broadcast, the devices differ, or the operation has no meaning for the dtype.
    pub fn binary(&self, op: BinaryOp, other: &Array) -> Result<Array> {
        let name = op.name();
        check_device(name, self, other)?;
        let compute = compute_dtype(op, self.dtype().promote(other.dtype()))?;
        let op = of_truths(op, compute);
        // Most calls have operands of one shape and one dtype: nothing to do for them.
        if self.shape() == other.shape() && self.dtype() == compute && other.dtype() == compute {
            return self.combine(op, other, compute);
        }
        let shape = broadcast_shapes(name, self.shape(), other.shape())?;
        self.cast(compute)?.expand(&shape)?.combine(op, &other.cast(compute)?.expand(&shape)?, compute)
    }

    /// `self op number`; the number promotes by its category only.
    ///
    /// # Errors
    /// If the operation has no meaning for the dtype.
    pub fn binary_scalar(&self, op: BinaryOp, number: impl Into<Scalar>) -> Result<Array> {
        let number = number.into();
        let compute = compute_dtype(op, number.promote(self.dtype()))?;
        let op = of_truths(op, compute);
        self.cast(compute)?.combine_scalar(op, Operands::ArrayScalar(operand(op, number, compute)), compute)
    }

    /// `number op self`; the number promotes by its category only.
    ///
    /// # Errors
    /// If the operation has no meaning for the dtype.
    pub fn scalar_binary(&self, number: impl Into<Scalar>, op: BinaryOp) -> Result<Array> {
        let number = number.into();
        let compute = compute_dtype(op, number.promote(self.dtype()))?;
        let op = of_truths(op, compute);
        self.cast(compute)?.combine_scalar(op, Operands::ScalarArray(operand(op, number, compute)), compute)
    }

    /// The quotient of integers, cut off towards zero; anything by 0 is 0. Floats: the truncated quotient.
    ///
    /// # Errors
    /// As [`Array::binary`].
    pub fn div_trunc(&self, other: &Array) -> Result<Array> {
        const NAME: &str = "div_trunc";
        let dtype = self.dtype().promote(other.dtype());
        if dtype.is_float() {
            return self.binary(BinaryOp::Div, other)?.unary(UnaryOp::Trunc);
        }
        check_device(NAME, self, other)?;
        let dtype = if dtype == DType::Bool { DType::U8 } else { dtype };
        let shape = broadcast_shapes(NAME, self.shape(), other.shape())?;
        let divisor = other.cast(dtype)?.expand(&shape)?;
        Ok(self.cast(dtype)?.expand(&shape)?.join(BinaryOp::Div, &divisor, dtype))
    }

    fn combine(&self, op: BinaryOp, other: &Array, compute: DType) -> Result<Array> {
        match (self.as_full(), other.as_full()) {
            (Some(a), _) => other.combine_scalar(op, Operands::ScalarArray(a), compute),
            (_, Some(b)) => self.combine_scalar(op, Operands::ArrayScalar(b), compute),
            _ => Ok(self.join(op, other, compute)),
        }
    }

    fn join(&self, op: BinaryOp, other: &Array, compute: DType) -> Array {
        let inputs: Inputs = smallvec![self.0.clone(), other.0.clone()];
        let op_node = Op::Binary(op, Operands::Arrays);
        Array::pending(op_node, inputs, self.dims(), result_dtype(op, compute), self.device())
    }

    fn combine_scalar(&self, op: BinaryOp, operands: Operands, compute: DType) -> Result<Array> {
        // Constants come from the seeds of backward passes: fold them, so that they cost nothing.
        if let Some(own) = self.as_full()
            && matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div)
            && compute.is_float()
        {
            let (a, b) = match operands {
                Operands::ArrayScalar(b) => (own, b),
                Operands::ScalarArray(a) => (a, own),
                Operands::Arrays => unreachable!("a scalar form"),
            };
            return Array::full(self.shape(), fold(op, a, b, compute), compute, self.device());
        }
        Ok(self.derive(Op::Binary(op, operands), self.dims(), result_dtype(op, compute)))
    }

    /// `a` where `cond` (bool) holds, else `b`; all three broadcast, `a` and `b` promote.
    ///
    /// # Errors
    /// If `cond` is not bool, the shapes do not broadcast or the devices differ.
    pub fn select(cond: &Array, a: &Array, b: &Array) -> Result<Array> {
        const NAME: &str = "where";
        if cond.dtype() != DType::Bool {
            return Err(no_meaning(
                NAME,
                cond.dtype(),
                "the condition must be bool; compare it with something",
            ));
        }
        check_device(NAME, cond, a)?;
        check_device(NAME, cond, b)?;
        let dtype = a.dtype().promote(b.dtype());
        let shape = broadcast_shapes(NAME, cond.shape(), &broadcast_shapes(NAME, a.shape(), b.shape())?)?;
        let mut inputs: Inputs = smallvec![cond.expand(&shape)?.0];
        let mut side = |x: &Array| -> Result<Option<Scalar>> {
            let number = x.as_full();
            if number.is_none() {
                inputs.push(x.cast(dtype)?.expand(&shape)?.0);
            }
            Ok(number.map(|s| s.cast(dtype)))
        };
        let op = Op::Select(side(a)?, side(b)?);
        Ok(Array::pending(op, inputs, shape, dtype, cond.device()))
    }

    /// The same numbers in another dtype: floats are rounded, or cut off towards zero for integers, which wrap.
    ///
    /// # Errors
    /// If the device has no such dtype.
    pub fn cast(&self, dtype: DType) -> Result<Array> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        check_dtype("to", dtype, self.device())?;
        if let Some(value) = self.as_full() {
            return Array::full(self.shape(), value, dtype, self.device());
        }
        Ok(self.derive(Op::Cast, self.dims(), dtype))
    }

    /// The same elements, dense and in row-major order: itself if it is so already.
    ///
    /// # Errors
    /// None today.
    pub fn contiguous(&self) -> Result<Array> {
        match self.layout() {
            Some(layout) if layout.is_contiguous() => Ok(self.clone()),
            Some(_) => Ok(self.copied()),
            None if self.is_view() => Ok(self.copied()),
            None => Ok(self.clone()),
        }
    }

    /// A copy of the elements in memory of their own.
    pub fn copied(&self) -> Array {
        self.derive(Op::Copy, self.dims(), self.dtype())
    }

    /// The same elements, in memory before anything reads them.
    pub fn stored(&self) -> Array {
        self.derive(Op::Store, self.dims(), self.dtype())
    }

    fn is_view(&self) -> bool {
        matches!(self.0.work().as_ref().map(|work| &work.op), Some(Op::View(_)))
    }
}

fn no_meaning(op: &'static str, dtype: DType, advice: &str) -> Error {
    Error::DType { op, dtype, reason: format!("has no meaning here; {advice}") }
}

/// The dtype that a binary operation computes in.
fn compute_dtype(op: BinaryOp, dtype: DType) -> Result<DType> {
    use BinaryOp::*;
    let name = op.name();
    match op {
        Div if !dtype.is_float() => Ok(dtype.floating()),
        Sub if dtype == DType::Bool => Err(no_meaning(name, dtype, "use logical_xor, or cast to an integer")),
        And | Or | Xor if dtype.is_float() => Err(no_meaning(name, dtype, "compare it with 0 first")),
        Shl | Shr if dtype.category() != Category::Int => {
            Err(no_meaning(name, dtype, "only integers have bits to move"))
        }
        Pow | Rem if dtype == DType::Bool => Ok(DType::U8),
        _ => Ok(dtype),
    }
}

/// Sums of bools are or, products are and, as in PyTorch.
fn of_truths(op: BinaryOp, compute: DType) -> BinaryOp {
    match op {
        BinaryOp::Add if compute == DType::Bool => BinaryOp::Or,
        BinaryOp::Mul if compute == DType::Bool => BinaryOp::And,
        op => op,
    }
}

/// A number as an operand. In arithmetic with halves it keeps f32's digits, as in PyTorch, so that the result is rounded once.
fn operand(op: BinaryOp, number: Scalar, compute: DType) -> Scalar {
    match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div if compute.is_half() => {
            number.cast(DType::F32)
        }
        _ => number.cast(compute),
    }
}

fn result_dtype(op: BinaryOp, compute: DType) -> DType {
    if op.gives() == Gives::Truth { DType::Bool } else { compute }
}

/// An operation on two numbers, rounded to the dtype as a kernel would.
fn fold(op: BinaryOp, a: Scalar, b: Scalar, dtype: DType) -> Scalar {
    if dtype.is_float() {
        let (a, b) = (a.as_f64(), b.as_f64());
        return Scalar::Float(match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            _ => a / b,
        })
        .cast(dtype);
    }
    Scalar::Int(a.as_i64().wrapping_mul(b.as_i64())).cast(dtype)
}

/// Broadcasting needs shapes of one rank in several places.
pub(super) fn padded_shape(shape: &[usize], rank: usize) -> Dims {
    let mut padded: Dims = SmallVec::from_elem(1, rank - shape.len());
    padded.extend_from_slice(shape);
    padded
}
