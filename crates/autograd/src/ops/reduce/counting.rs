//! What occurs in a tensor, where, and how often.
//!
//! Where a result's shape depends on the data, the numbers that decide on it are read, a few bytes; everything else is left to the device, and is
//! computed when it is needed.

use wgrad_array::layout::{contiguous_strides, normalize_dim};
use wgrad_array::{Array, BinaryOp, DType, Error, Expr, ReduceOp, Result, Scalar, ScatterOp, reserve};

use crate::Tensor;

/// The most elements of a mask that are looked at together.
const PART: usize = 1 << 24;
/// Bytes that the place of an element takes.
const PLACE: usize = size_of::<i64>();

/// What [`Tensor::unique`] and [`Tensor::unique_dim`] give.
#[derive(Clone, Debug)]
pub struct Unique {
    /// The different elements or slices, in ascending order.
    pub values: Tensor,
    /// For each element or slice the place (i64) of its value.
    pub inverse: Tensor,
    /// How often each value occurs (i64).
    pub counts: Tensor,
}

/// A line in ascending order, and the runs of equal elements in it.
struct Runs {
    /// Where the elements that belong to each place are (i64).
    order: Array,
    /// Whether an element differs from the one before it.
    starts: Array,
    /// The number of the run that an element belongs to (i64).
    number: Array,
}

impl Runs {
    /// The runs of a line. NaN is equal to NaN here, or differs from everything.
    fn of(line: &Array, nan_is_one: bool) -> Result<Runs> {
        let order = line.argsort(0, false, 0..line.elements())?;
        let sorted = Expr::of(&line.gather(0, &order)?);
        let before = sorted.map(|x| x.pad(&[(1, -1)]));
        let mut starts = sorted.ne(&before);
        if nan_is_one && line.dtype().is_float() {
            starts = starts.and(sorted.is_nan().and(before.is_nan()).not());
        }
        let first = Expr::from(Array::coordinate(line.shape(), 0, line.device())).eq(0i64);
        Runs::from_starts(order, starts.or(first).done()?)
    }

    fn from_starts(order: Array, starts: Array) -> Result<Runs> {
        let number = (Expr::from(starts.scan(ReduceOp::Sum, 0)) - 1i64).done()?;
        Ok(Runs { order, starts, number })
    }

    /// For each element of the line, the number of its run.
    fn of_elements(&self) -> Result<Array> {
        let none = Array::full(self.order.shape(), 0i64, DType::I64, self.order.device())?;
        none.scatter(ScatterOp::Assign, 0, &self.order, &self.number)
    }
}

/// # Counting
#[wgrad_macros::call_sites]
impl Tensor {
    /// The different elements in ascending order, with what [`Unique`] says of them. Their number is read for this.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn unique(&self) -> Result<Unique> {
        let line = self.detach().flatten(0, -1)?;
        let found = line.unique_dim(0)?;
        Ok(Unique { inverse: found.inverse.reshape(self.shape())?, ..found })
    }

    /// The different slices of a dim in ascending order, compared element by element. Their number is read for this.
    ///
    /// # Errors
    /// If there is no such dim, or what led to the tensor's value fails.
    pub fn unique_dim(&self, dim: isize) -> Result<Unique> {
        const OP: &str = "unique";
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.reshape(1)?.unique_dim(0);
        }
        let size = self.shape()[at];
        let slices = self.detach().movedim(at, 0)?;
        let width: usize = slices.shape()[1..].iter().product();
        if width == 0 && size > 0 {
            let reason = "has slices without elements, which cannot be told apart".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if size == 0 {
            let none = || Tensor::zeros([0], (DType::I64, self.device()));
            return Ok(Unique { values: self.detach().deep_clone()?, inverse: none()?, counts: none()? });
        }
        let slices = slices.array()?.reshape(&[size, width])?;
        let runs = runs_of_slices(&slices)?;
        let inverse = Tensor::from_array(runs.of_elements()?);
        let count = read_count(&runs.number.slice(0, size - 1, 1, 1)?)? + 1;
        // Runs begin where they do, and end where the next one begins.
        let begin = runs.starts.argsort(0, true, 0..count)?;
        let end = begin.pad(&[(-1, 1)])?;
        let last = Expr::from(Array::coordinate(&[count], 0, self.device())).eq(count as i64 - 1);
        let counts = (last.select(size as i64, &end) - &begin).done()?;
        let first = Tensor::from_array(runs.order.gather(0, &begin)?);
        Ok(Unique {
            values: self.detach().index_select(dim, &first)?,
            inverse,
            counts: Tensor::from_array(counts),
        })
    }

    /// How often each of 0, 1, … occurs in a list of integers, up to the largest, but at least `minlength` numbers. The largest is
    /// read for this.
    ///
    /// # Errors
    /// If it is not a list of integers, or one is negative.
    pub fn bincount(&self, minlength: usize) -> Result<Tensor> {
        let (bins, index) = self.bins(minlength)?;
        let ones = Tensor::ones([index.numel()], (DType::I64, self.device()))?;
        Tensor::zeros([bins], (DType::I64, self.device()))?.index_add(0, &index, &ones)
    }

    /// The sums of the weights of equal elements of a list of integers: [`Tensor::bincount`] where each counts as much as its weight. Weights
    /// that are not f32 are added up in f64; without elements the result is i64.
    ///
    /// # Errors
    /// As [`Tensor::bincount`]; and if there are not as many weights as elements.
    pub fn bincount_weighted(&self, weights: &Tensor, minlength: usize) -> Result<Tensor> {
        let (bins, index) = self.bins(minlength)?;
        if weights.shape() != self.shape() {
            return Err(Error::ShapeMismatch {
                op: "bincount",
                lhs: self.shape().to_vec(),
                rhs: weights.shape().to_vec(),
                reason: "differ: there is one weight for each element".into(),
            });
        }
        // PyTorch does not look at the weights of no elements.
        let dtype = match weights.dtype() {
            _ if self.numel() == 0 => DType::I64,
            DType::F32 => DType::F32,
            _ => DType::F64,
        };
        let weights = weights.detach().to_dtype(dtype)?;
        Tensor::zeros([bins], (dtype, self.device()))?.index_add(0, &index, &weights)
    }

    fn bins(&self, minlength: usize) -> Result<(usize, Tensor)> {
        const OP: &str = "bincount";
        if self.rank() != 1 || self.dtype().is_float() || self.dtype() == DType::Bool {
            let reason = format!("of {} is not that of a list of integers", self.dtype());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let index = self.detach().to_dtype(DType::I64)?;
        if self.numel() == 0 {
            return Ok((minlength, index));
        }
        // The list is written out to be counted: what has no room then need not be looked through first.
        drop(wgrad_array::reserve(self.device(), index.numel().saturating_mul(DType::I64.size()))?);
        let (least, largest) = (index.amin((), false)?, index.amax((), false)?);
        Tensor::eval_all([&least, &largest])?;
        let (least, largest) = (least.item::<i64>()?, largest.item::<i64>()?);
        if least < 0 {
            let reason = format!("{least} cannot be counted; numbers start at 0");
            return Err(Error::Argument { op: OP, reason });
        }
        Ok(((largest as usize).saturating_add(1).max(minlength), index))
    }

    /// [`Tensor::nonzero`]; `torch.argwhere`.
    ///
    /// # Errors
    /// As [`Tensor::nonzero`].
    pub fn argwhere(&self) -> Result<Tensor> {
        self.nonzero()
    }

    /// The places of the elements that are not 0: a row of coordinates (i64) for each, in row-major order. Their number is read for this.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn nonzero(&self) -> Result<Tensor> {
        let holds = Expr::of(&self.array()?).ne(0i64).done()?.reshape(&[self.numel()])?;
        let places = places_where(&holds)?;
        let (count, rank) = (places.elements(), self.rank());
        if rank == 1 {
            return Ok(Tensor::from_array(places.reshape(&[count, 1])?));
        }
        if count == 0 || rank == 0 {
            return Tensor::zeros([count, rank], (DType::I64, self.device()));
        }
        // One formula for all dims: the place divided by the dim's stride, modulo its size.
        let row = |numbers: &[i64]| Array::from_slice(numbers, &[1, rank], self.device());
        let strides: Vec<i64> =
            contiguous_strides(self.shape()).iter().map(|&stride| stride as i64).collect();
        let sizes: Vec<i64> = self.shape().iter().map(|&size| size as i64).collect();
        let number = places.reshape(&[count, 1])?.div_trunc(&row(&strides)?)?;
        Ok(Tensor::from_array(Expr::of(&number).rem(&row(&sizes)?).done()?))
    }
}

/// The runs of equal slices [n, width] in ascending order.
///
/// Elements become their numbers among all elements in order; then pairs of neighbours become one number each, and these their
/// numbers in order again, until a slice is one number.
fn runs_of_slices(slices: &Array) -> Result<Runs> {
    let &[size, width] = slices.shape() else {
        let reason = "is not that of a list of slices".to_owned();
        return Err(Error::Shape { op: "unique", shape: slices.shape().to_vec(), reason });
    };
    if width == 1 {
        return Runs::of(&slices.reshape(&[size])?, false);
    }
    let ranks = |x: &Array| Runs::of(&x.reshape(&[x.elements()])?, true)?.of_elements()?.reshape(x.shape());
    let mut numbers = ranks(slices)?;
    // Numbers stay below the number of elements, so that a pair of them fits into i64.
    let base = numbers.elements() as i64;
    while numbers.shape()[1] > 1 {
        let width = numbers.shape()[1];
        let half = width / 2;
        let left = Expr::from(numbers.slice(1, 0, half, 2));
        let pairs = (left * base + &numbers.slice(1, 1, half, 2)?).done()?;
        let pairs =
            if width % 2 == 0 { pairs } else { Array::cat(&[pairs, numbers.slice(1, width - 1, 1, 1)?], 1)? };
        numbers = if pairs.shape()[1] == 1 { pairs } else { ranks(&pairs)? };
    }
    let runs = Runs::of(&numbers.reshape(&[size])?, false)?;
    if !slices.dtype().is_float() {
        return Ok(runs);
    }
    // NaN differs from itself.
    let nan = Expr::from(Expr::of(slices).is_nan().done()?.reduce(ReduceOp::Max, &[1], false));
    let starts = Expr::of(&runs.starts).or(nan.map(|nan| nan.gather(0, &runs.order)));
    Runs::from_starts(runs.order, starts.done()?)
}

/// The places at which a list of bools holds, in order, as i64. Found part by part, none of them larger than the device binds at a
/// time.
fn places_where(holds: &Array) -> Result<Array> {
    let n = holds.elements();
    // A mask that the device could not hold is not walked through.
    drop(reserve(holds.device(), n)?);
    let size = PART.min(holds.device().executor().limits().binding / PLACE);
    let parts = n.div_ceil(size);
    let part = |i: usize| holds.slice(0, i * size, size.min(n - i * size), 1);
    let mut sums = Vec::with_capacity(parts);
    for i in 0..parts {
        sums.push(part(i)?.reduce(ReduceOp::Sum, &[0], true)?);
    }
    if sums.is_empty() {
        return Array::full(&[0], 0i64, DType::I64, holds.device());
    }
    let counts = Tensor::from_array(Array::cat(&sums, 0)?).to_vec::<i64>()?;
    let mut places = Vec::with_capacity(parts);
    for (i, count) in counts.into_iter().enumerate() {
        let found = part(i)?.argsort(0, true, 0..count as usize)?;
        places.push(found.binary_scalar(BinaryOp::Add, Scalar::Int((i * size) as i64))?);
    }
    if places.len() == 1 { Ok(places.swap_remove(0)) } else { Array::cat(&places, 0) }
}

/// A number of things, read.
fn read_count(count: &Array) -> Result<usize> {
    let count = Tensor::from_array(count.clone()).reshape(())?.item::<i64>()?;
    Ok(usize::try_from(count).unwrap_or(0))
}
