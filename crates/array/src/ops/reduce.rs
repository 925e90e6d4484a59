//! Reductions over dims, and running ones along a dim.

use smallvec::SmallVec;
use wgrad_device::kernel::ReduceOp;
use wgrad_device::{DType, Error, Result, Scalar};

use crate::op::{Op, reduced_shape};
use crate::{Array, Expr};

const fn name(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "sum",
        ReduceOp::Prod => "prod",
        ReduceOp::Max => "amax",
        ReduceOp::Min => "amin",
        ReduceOp::ArgMax => "argmax",
        ReduceOp::ArgMin => "argmin",
    }
}

/// Where sums of squares lose their digits to the range of numbers, and by what elements are multiplied then.
struct SquareRange {
    /// Below this sum squares may have been too small to count.
    small: f64,
    /// Makes elements with such a sum larger: their squares are in range, up to 2^31 of them.
    up: f64,
    /// Makes all elements smaller, so that their squares are in range.
    down: f64,
}

const SQUARES_F32: SquareRange =
    SquareRange { small: power_of_two(-80), up: power_of_two(86), down: power_of_two(-80) };
const SQUARES_F64: SquareRange =
    SquareRange { small: power_of_two(-900), up: power_of_two(600), down: power_of_two(-600) };

const fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

impl Array {
    /// Folds these dims (each once, in any order; none: nothing is folded) into one element. Sums and products of
    /// integers and bools are i64; positions are i64 and count in row-major order over the folded dims.
    ///
    /// # Errors
    /// A dim that is not there or named twice; a fold without an identity (all but sum and prod) over no elements.
    pub fn reduce(&self, op: ReduceOp, dims: &[usize], keepdim: bool) -> Result<Array> {
        let name = name(op);
        let mut sorted: SmallVec<[usize; 4]> = dims.into();
        sorted.sort_unstable();
        if let Some(&dim) = sorted.last()
            && dim >= self.rank()
        {
            return Err(Error::Dim { op: name, dim: dim as isize, rank: self.rank() });
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let dims = dims.iter().map(|&d| d as isize).collect();
            return Err(Error::DuplicateDim { op: name, dim: pair[0], dims });
        }
        let folded: usize = sorted.iter().map(|&d| self.shape()[d]).product();
        let kept = reduced_shape(self.shape(), &sorted);
        let identity = match (op, self.dtype()) {
            (ReduceOp::Sum, _) => Some(Scalar::Int(0)),
            (ReduceOp::Prod, _) => Some(Scalar::Int(1)),
            (ReduceOp::Max, DType::Bool) => Some(Scalar::Bool(false)),
            (ReduceOp::Min, DType::Bool) => Some(Scalar::Bool(true)),
            _ => None,
        };
        let input = match op {
            ReduceOp::Sum | ReduceOp::Prod if !self.dtype().is_float() => self.cast(DType::I64)?,
            _ => self.clone(),
        };
        let dtype = match op {
            ReduceOp::ArgMax | ReduceOp::ArgMin => DType::I64,
            _ => input.dtype(),
        };
        let result = if folded == 0 && kept.iter().product::<usize>() > 0 {
            let identity =
                identity.ok_or_else(|| Error::EmptyReduction { op: name, shape: self.shape().to_vec() })?;
            Array::full(&kept, identity, dtype, self.device())?
        } else if folded == 1 && matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) {
            Array::full(&kept, 0i64, dtype, self.device())?
        } else if folded == 1 {
            input
        } else if let Some(value) = input.as_full()
            && op == ReduceOp::Sum
            && dtype.is_float()
        {
            let sum = Scalar::Float(value.as_f64() * folded as f64);
            Array::full(&kept, sum, dtype, self.device())?
        } else {
            input.derive(Op::Reduce { op, dims: sorted.clone() }, kept, dtype)
        };
        if keepdim {
            return Ok(result);
        }
        let squeezed: SmallVec<[usize; 4]> =
            self.shape().iter().enumerate().filter(|(d, _)| !sorted.contains(d)).map(|(_, &n)| n).collect();
        result.reshape(&squeezed)
    }

    /// `factor` times the sum of the squares over dims, or with `root` its square root: also where squares leave the range of numbers, and
    /// the result does not.
    ///
    /// On the CPU f32 is squared in f64. Elsewhere, and for f64, the squares of the elements are summed along with those of the elements
    /// made smaller and larger by powers of two, and the sum that stayed in range is taken.
    ///
    /// # Errors
    /// As [`Array::reduce`].
    pub fn sum_of_squares(&self, dims: &[usize], keepdim: bool, factor: f64, root: bool) -> Result<Array> {
        let sum = |x: &Expr| (x * x).map(|squares| squares.reduce(ReduceOp::Sum, dims, keepdim)) * factor;
        if self.dtype() == DType::F32 && self.device().is_cpu() {
            let sum = sum(&Expr::of(self).cast(DType::F64));
            return if root { sum.sqrt() } else { sum }.cast(DType::F32).done();
        }
        let range = if self.dtype() == DType::F64 { &SQUARES_F64 } else { &SQUARES_F32 };
        let x = Expr::of(self);
        let scaled = |scale: f64| {
            let (sum, undo) = (sum(&(&x * scale)), 1.0 / scale);
            if root { sum.sqrt() * undo } else { sum * undo * undo }
        };
        let plain = (&x * &x).map(|squares| squares.reduce(ReduceOp::Sum, dims, keepdim));
        let (small, large) = (plain.lt(range.small), plain.is_finite().not());
        let usual = if root { (plain * factor).sqrt() } else { plain * factor };
        large.select(scaled(range.down), small.select(scaled(range.up), usual)).done()
    }

    /// A running fold along a dim: sums and products (of integers and bools in i64), or the largest and smallest so far.
    ///
    /// # Errors
    /// A dim that is not there, or an operation that gives positions.
    pub fn scan(&self, op: ReduceOp, dim: usize) -> Result<Array> {
        const NAME: &str = "scan";
        if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) {
            return Err(Error::Argument {
                op: NAME,
                reason: "positions have no running fold; use sum, prod, max or min".into(),
            });
        }
        if dim >= self.rank().max(1) {
            return Err(Error::Dim { op: NAME, dim: dim as isize, rank: self.rank() });
        }
        let input = match op {
            ReduceOp::Sum | ReduceOp::Prod if !self.dtype().is_float() => self.cast(DType::I64)?,
            _ => self.clone(),
        };
        if input.elements() == 0 || self.rank() == 0 {
            return Ok(input);
        }
        let (shape, dtype) = (input.0.shape.clone(), input.dtype());
        Ok(input.derive(Op::Scan { op, dim }, shape, dtype))
    }

    /// The stable order of the elements along a dim, as I64: where the element lies that comes i-th, for these i. Equal elements keep
    /// their order, descending too; NaN counts as the largest.
    ///
    /// # Errors
    /// A dim that is not there, or places beyond its size.
    pub fn argsort(&self, dim: usize, descending: bool, places: std::ops::Range<usize>) -> Result<Array> {
        const NAME: &str = "sort";
        if dim >= self.rank() {
            return Err(Error::Dim { op: NAME, dim: dim as isize, rank: self.rank() });
        }
        let size = self.shape()[dim];
        if places.start > places.end || places.end > size {
            let reason = format!("places {places:?} of an order of {size} elements");
            return Err(Error::Argument { op: NAME, reason });
        }
        let mut shape = self.0.shape.clone();
        shape[dim] = places.len();
        if size <= 1 || shape.contains(&0) {
            return Array::full(&shape, 0i64, DType::I64, self.device());
        }
        Ok(self.derive(Op::Sort { dim, descending, first: places.start }, shape, DType::I64))
    }
}
