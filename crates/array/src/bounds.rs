//! Bounds of integers that have not been computed yet (interval analysis). With them many indices can be
//! checked at the call instead of by the kernel that uses them.

use wgrad_device::kernel::{BinaryOp, ReduceOp, UnaryOp};
use wgrad_device::{DType, Element, Error, Result, Scalar};

use crate::node::{Node, NodeRef};
use crate::op::{Op, Operands, RandomKind, View};
use crate::{Array, eval, site};

/// The largest number of operations that are visited to find the bounds of an index.
const LOOKED_AT: usize = 48;

/// Whether an index may be out of range for a dim of this size, as far as can be known now. If the index is a
/// simple expression of values that the host can read without waiting (evaluated on the CPU, or uploaded from
/// host memory), its elements are looked at.
///
/// # Errors
/// [`Error::Index`] if an index is certainly out of range.
pub(crate) fn may_leave(op: &'static str, index: &Array, size: usize) -> Result<bool> {
    let inside = |(low, high): (i64, i64)| low >= 0 && (high as u64) < size as u64;
    let mut search = Search { left: LOOKED_AT, on_hand: true };
    match search.bounds(&index.0) {
        Some(bounds) if inside(bounds) => return Ok(false),
        _ if !search.on_hand => return Ok(true),
        _ => {}
    }
    let values = values(&index.0)?;
    match values.into_iter().find(|&value| !inside((value, value))) {
        Some(index) => Err(Error::Index { op, index, size, called_at: None }),
        None => Ok(false),
    }
}

/// The smallest and the largest of these elements, if they are integers.
pub(crate) fn of_bytes(bytes: &[u8], dtype: DType) -> Option<(i64, i64)> {
    fn ends<T: Element + Into<i64>>(bytes: &[u8]) -> Option<(i64, i64)> {
        let values = T::from_bytes(bytes);
        let low = values.iter().map(|&value| value.into()).min()?;
        let high = values.iter().map(|&value| value.into()).max()?;
        Some((low, high))
    }
    match dtype {
        DType::I64 => ends::<i64>(bytes),
        DType::I32 => ends::<i32>(bytes),
        DType::U8 => ends::<u8>(bytes),
        DType::Bool => Some((0, 1)),
        _ => None,
    }
}

struct Search {
    /// The number of operations that may still be visited.
    left: usize,
    /// Whether all operations so far are simple ones on values that the host can read without waiting for a
    /// device.
    on_hand: bool,
}

impl Search {
    fn bounds(&mut self, node: &NodeRef) -> Option<(i64, i64)> {
        if let Some(value) = node.value() {
            if value.bounds.is_none() && node.device.is_cpu() && matches!(node.dtype, DType::I64 | DType::I32)
            {
                let values = values(node).ok()?;
                return join((*values.iter().min()?, *values.iter().max()?), (i64::MAX, i64::MIN));
            }
            self.on_hand &= value.bounds.is_some();
            return value.bounds;
        }
        self.left = self.left.checked_sub(1).or_else(|| {
            self.on_hand = false;
            None
        })?;
        // Only the operations of this call count as simple: what the program computed earlier may be
        // expensive.
        self.on_hand &= node.called_at.is_some() && node.called_at == site::current();
        // The operation is cloned, so that no node's lock is held while its inputs are visited.
        let (op, inputs) = {
            let work = node.work();
            let work = work.as_ref()?;
            (work.op.clone(), work.inputs.clone())
        };
        let found = self.of(node, &op, &inputs);
        self.on_hand &=
            found.is_some() && !matches!(op, Op::Reduce { .. } | Op::Sort { .. } | Op::Scan { .. });
        found
    }

    fn of(&mut self, node: &Node, op: &Op, inputs: &[NodeRef]) -> Option<(i64, i64)> {
        let whole = |number: &Scalar| match number {
            Scalar::Float(_) => None,
            _ => Some((number.as_i64(), number.as_i64())),
        };
        match op {
            Op::Full(number) => whole(number),
            Op::Coordinate { dim } => Some((0, node.shape[*dim].max(1) as i64 - 1)),
            Op::Random { kind: RandomKind::Bits, .. } => Some((0, i64::from(u32::MAX))),
            Op::Copy | Op::Store | Op::View(View::Affine(_) | View::Reshape) => self.bounds(&inputs[0]),
            Op::View(View::Pad { .. }) => join(self.bounds(&inputs[0])?, (0, 0)),
            Op::Unary(UnaryOp::Neg) => {
                let (low, high) = self.bounds(&inputs[0])?;
                fits(node.dtype, (high.checked_neg()?, low.checked_neg()?))
            }
            Op::Binary(..) if node.dtype == DType::Bool => {
                inputs.iter().for_each(|input| _ = self.bounds(input));
                Some((0, 1))
            }
            Op::Binary(op, operands) => {
                let (a, b) = match operands {
                    Operands::Arrays => (self.bounds(&inputs[0])?, self.bounds(&inputs[1])?),
                    Operands::ArrayScalar(number) => (self.bounds(&inputs[0])?, whole(number)?),
                    Operands::ScalarArray(number) => (whole(number)?, self.bounds(&inputs[0])?),
                };
                fits(node.dtype, binary(*op, a, b)?)
            }
            Op::Select(a, b) => {
                let mut arrays = inputs[1..].iter();
                let mut side = |number: &Option<Scalar>| match number {
                    Some(number) => whole(number),
                    None => self.bounds(arrays.next()?),
                };
                let (a, b) = (side(a)?, side(b)?);
                self.bounds(&inputs[0]);
                let negative = self.negative(&inputs[0]);
                match negative {
                    // This is the expression that makes negative indices count from the front.
                    Some((low, _)) if low >= 0 => Some(b),
                    Some((low, high)) if high < 0 && low < 0 => Some(a),
                    Some((low, high))
                        if (a.1 - high, a.0 - low) == (a.0 - low, a.0 - low) && b == (low, high) =>
                    {
                        join((a.0, a.0 - low - 1), (0, high))
                    }
                    _ => join(a, b),
                }
            }
            Op::Cast => {
                let exact = !inputs[0].dtype.is_float();
                fits(node.dtype, self.bounds(&inputs[0]).filter(|_| exact)?)
            }
            Op::Reduce { op, dims } => match op {
                ReduceOp::ArgMax | ReduceOp::ArgMin => {
                    let count: usize = dims.iter().map(|&d| inputs[0].shape[d]).product();
                    Some((0, count.max(1) as i64 - 1))
                }
                ReduceOp::Max | ReduceOp::Min => self.bounds(&inputs[0]),
                _ => None,
            },
            Op::Gather { .. } => self.bounds(&inputs[0]),
            Op::Sort { dim, .. } => Some((0, inputs[0].shape[*dim].max(1) as i64 - 1)),
            _ => None,
        }
    }
}

impl Search {
    /// For a condition of the form `x < 0`: the bounds of `x`.
    fn negative(&mut self, condition: &NodeRef) -> Option<(i64, i64)> {
        let asked = match &*condition.work() {
            Some(work) => match work.op {
                Op::Binary(BinaryOp::Lt, Operands::ArrayScalar(Scalar::Int(0))) => work.inputs[0].clone(),
                _ => return None,
            },
            None => return None,
        };
        self.bounds(&asked)
    }
}

fn join(a: (i64, i64), b: (i64, i64)) -> Option<(i64, i64)> {
    Some((a.0.min(b.0), a.1.max(b.1)))
}

/// The bounds, if the dtype holds all integers between them. Otherwise the values may wrap around.
fn fits(dtype: DType, bounds: (i64, i64)) -> Option<(i64, i64)> {
    let (low, high) = match dtype {
        DType::I64 => (i64::MIN, i64::MAX),
        DType::I32 => (i32::MIN.into(), i32::MAX.into()),
        DType::U8 => (0, 255),
        DType::Bool => return Some((0, 1)),
        _ => return None,
    };
    (bounds.0 >= low && bounds.1 <= high).then_some(bounds)
}

fn binary(op: BinaryOp, a: (i64, i64), b: (i64, i64)) -> Option<(i64, i64)> {
    let corners = |f: fn(i64, i64) -> Option<i64>| {
        let all = [f(a.0, b.0)?, f(a.0, b.1)?, f(a.1, b.0)?, f(a.1, b.1)?];
        Some((*all.iter().min()?, *all.iter().max()?))
    };
    match op {
        BinaryOp::Add => corners(i64::checked_add),
        BinaryOp::Sub => corners(i64::checked_sub),
        BinaryOp::Mul => corners(i64::checked_mul),
        BinaryOp::Max => Some((a.0.max(b.0), a.1.max(b.1))),
        BinaryOp::Min => Some((a.0.min(b.0), a.1.min(b.1))),
        _ => None,
    }
}

/// The first index that is out of range for a dim of this size. Computes the index.
///
/// # Errors
/// If computing the index fails.
pub(crate) fn first_outside(index: &NodeRef, size: usize) -> Result<Option<i64>> {
    Ok(values(index)?.into_iter().find(|&value| value < 0 || value as u64 >= size as u64))
}

/// The elements of an index in row-major order. Elements that are repeated along a dim are read once.
fn values(index: &NodeRef) -> Result<Vec<i64>> {
    eval::compute_alone(index)?;
    let dense = Array(index.clone()).without_repeats()?.contiguous()?;
    eval::compute_alone(&dense.0)?;
    match index.dtype {
        DType::I32 => Ok(dense.to_vec::<i32>()?.into_iter().map(i64::from).collect()),
        _ => dense.to_vec::<i64>(),
    }
}
