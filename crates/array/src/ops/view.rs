//! Views: the elements of an array in another arrangement. A view of an evaluated array shares its memory and
//! takes no work. A view of a pending array is followed by the kernels that read it.

use smallvec::{SmallVec, smallvec};
use wgrad_device::kernel::BinaryOp;
use wgrad_device::layout::{Dims, checked_elements, contiguous_strides};
use wgrad_device::{DType, Error, Layout, Result, Scalar};

use super::elementwise::padded_shape;
use crate::Array;
use crate::node::Pending;
use crate::op::{ALIGNED, Axis, Op, View, identity_axes};
use crate::plan::affine_layout;

/// For an array with fewer bytes than this, copying the whole array is cheaper than a kernel of its own for
/// the update.
const WORTH_UPDATING: usize = 1 << 14;

impl Array {
    /// A view through affine axes, one for each dim of this array. It is evaluated if this array is.
    fn affine(&self, axes: SmallVec<[Axis; 4]>, shape: Dims) -> Array {
        if let Some(value) = self.value() {
            let layout = affine_layout(&value.layout, &axes, &shape);
            return self.viewed(value, layout);
        }
        if let Some(number) = self.as_full() {
            return self.refill(number, shape);
        }
        self.derive(Op::View(View::Affine(axes.into_boxed_slice())), shape, self.dtype())
    }

    fn refill(&self, number: wgrad_device::Scalar, shape: Dims) -> Array {
        Array::pending(Op::Full(number), SmallVec::new(), shape, self.dtype(), self.device())
    }

    /// The same elements in row-major order under another shape.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1i64, 2, 3, 4, 5, 6], &[2, 3], &Device::cpu())?;
    /// assert_eq!(x.permute(&[1, 0])?.reshape(&[6])?.to_vec::<i64>()?, [1, 4, 2, 5, 3, 6]);
    /// assert!(x.reshape(&[4]).is_err());
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape has another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Array> {
        const OP: &str = "reshape";
        if shape == self.shape() {
            return Ok(self.clone());
        }
        if checked_elements(OP, shape)? != self.elements() {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: shape.to_vec(),
                reason: format!("have {} and {} elements", self.elements(), shape.iter().product::<usize>()),
            });
        }
        if let Some(number) = self.as_full() {
            return Ok(self.refill(number, shape.into()));
        }
        if let Some(value) = self.value() {
            if let Some(layout) = value.layout.reshape(shape) {
                return Ok(self.viewed(value, layout));
            }
            // Strides cannot express the view, so it is a view of a copy, which evaluation stores if
            // necessary.
            return Ok(self.copied().derive(Op::View(View::Reshape), shape.into(), self.dtype()));
        }
        Ok(self.derive(Op::View(View::Reshape), shape.into(), self.dtype()))
    }

    /// The array with its dims in another order: dim `d` of the result is dim `dims[d]` of this array.
    ///
    /// # Errors
    /// If `dims` does not name each dim once.
    pub fn permute(&self, dims: &[usize]) -> Result<Array> {
        const OP: &str = "permute";
        let mut axes: SmallVec<[Axis; 4]> = smallvec![Axis::default(); self.rank()];
        let mut seen: SmallVec<[bool; 8]> = smallvec![false; self.rank()];
        for (d, &from) in dims.iter().enumerate() {
            if from >= self.rank() {
                return Err(Error::Dim { op: OP, dim: from as isize, rank: self.rank() });
            }
            if std::mem::replace(&mut seen[from], true) {
                let dims = dims.iter().map(|&d| d as isize).collect();
                return Err(Error::DuplicateDim { op: OP, dim: from, dims });
            }
            axes[from] = Axis::dim(d);
        }
        if dims.len() != self.rank() {
            return Err(Error::Shape {
                op: OP,
                shape: self.shape().to_vec(),
                reason: format!("has {} dims, but {} were named; name each once", self.rank(), dims.len()),
            });
        }
        if dims.iter().enumerate().all(|(d, &from)| d == from) {
            return Ok(self.clone());
        }
        Ok(self.affine(axes, dims.iter().map(|&d| self.shape()[d]).collect()))
    }

    /// The array broadcast to a shape: dims of size 1 are repeated, and new dims may be added in front.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let row = Array::from_slice(&[1i64, 2], &[2], &Device::cpu())?;
    /// assert_eq!(row.expand(&[2, 2])?.to_vec::<i64>()?, [1, 2, 1, 2]);
    /// assert!(row.expand(&[3]).is_err());
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shape has fewer dims, or another size where this array's is not 1.
    pub fn expand(&self, shape: &[usize]) -> Result<Array> {
        const OP: &str = "expand";
        if shape == self.shape() {
            return Ok(self.clone());
        }
        checked_elements(OP, shape)?;
        let fits = shape.len() >= self.rank()
            && padded_shape(self.shape(), shape.len())
                .iter()
                .zip(shape)
                .all(|(&own, &new)| own == new || own == 1);
        if !fits {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: shape.to_vec(),
                reason: "do not fit: only dims of size 1 expand, and new dims come in front".into(),
            });
        }
        let lead = shape.len() - self.rank();
        let axis = |(d, &size): (usize, &usize)| if size == 1 { Axis::fixed(0) } else { Axis::dim(lead + d) };
        Ok(self.affine(self.shape().iter().enumerate().map(axis).collect(), shape.into()))
    }

    /// `len` elements of a dim, at the indices `start`, `start + step`, ….
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[0i64, 1, 2, 3, 4, 5], &[6], &Device::cpu())?;
    /// assert_eq!(x.slice(0, 1, 3, 2)?.to_vec::<i64>()?, [1, 3, 5]);
    /// assert!(x.slice(0, 1, 3, 3).is_err());
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such dim, the step is 0, or an index is out of range.
    pub fn slice(&self, dim: usize, start: usize, len: usize, step: usize) -> Result<Array> {
        const OP: &str = "slice";
        self.check_dim(OP, dim)?;
        let size = self.shape()[dim];
        if step == 0 {
            return Err(Error::Argument { op: OP, reason: "step must be at least 1".into() });
        }
        let past = if len == 0 {
            start
        } else {
            start.saturating_add((len - 1).saturating_mul(step)).saturating_add(1)
        };
        if past > size {
            return Err(Error::Index { op: OP, index: last_index(past), size, called_at: None });
        }
        if (start, len, step) == (0, size, 1) {
            return Ok(self.clone());
        }
        let step = step.min(size + 1);
        let mut axes = identity_axes(self.rank());
        axes[dim] = Axis { offset: start as isize, terms: smallvec![(dim, step as isize)] };
        let mut shape = self.0.shape.clone();
        shape[dim] = len;
        Ok(self.affine(axes, shape))
    }

    /// The array with the order of the elements reversed along these dims.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn flip(&self, dims: &[usize]) -> Result<Array> {
        let mut axes = identity_axes(self.rank());
        for &dim in dims {
            self.check_dim("flip", dim)?;
            axes[dim] = Axis { offset: self.shape()[dim] as isize - 1, terms: smallvec![(dim, -1)] };
        }
        if self.elements() == 0 {
            return Ok(self.clone());
        }
        Ok(self.affine(axes, self.0.shape.clone()))
    }

    /// The elements whose index along `dim2` is the index along `dim1` plus `offset`, as a new last dim.
    ///
    /// # Errors
    /// If there is no such dim, or both are the same.
    pub fn diagonal(&self, offset: isize, dim1: usize, dim2: usize) -> Result<Array> {
        const OP: &str = "diagonal";
        self.check_dim(OP, dim1)?;
        self.check_dim(OP, dim2)?;
        if dim1 == dim2 {
            return Err(Error::DuplicateDim { op: OP, dim: dim1, dims: vec![dim1 as isize, dim2 as isize] });
        }
        let (skip1, skip2) = (offset.min(0).unsigned_abs(), offset.max(0).unsigned_abs());
        let len = self.shape()[dim1].saturating_sub(skip1).min(self.shape()[dim2].saturating_sub(skip2));
        let mut shape: Dims = SmallVec::new();
        let mut axes: SmallVec<[Axis; 4]> = smallvec![Axis::default(); self.rank()];
        for d in (0..self.rank()).filter(|&d| d != dim1 && d != dim2) {
            axes[d] = Axis::dim(shape.len());
            shape.push(self.shape()[d]);
        }
        for (dim, skip) in [(dim1, skip1), (dim2, skip2)] {
            let start = if len == 0 { 0 } else { skip as isize };
            axes[dim] = Axis { offset: start, terms: smallvec![(shape.len(), 1)] };
        }
        shape.push(len);
        Ok(self.affine(axes, shape))
    }

    /// All windows of `size` elements of a dim, each `step` after the one before. The windows' elements are a
    /// new last dim; the dim itself becomes the number of windows.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[0i64, 1, 2, 3, 4], &[5], &Device::cpu())?;
    /// let windows = x.unfold(0, 3, 2)?;
    /// assert_eq!((windows.shape(), windows.to_vec::<i64>()?), (&[2, 3][..], vec![0, 1, 2, 2, 3, 4]));
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such dim, a window is longer than the dim, or the step is 0.
    pub fn unfold(&self, dim: usize, size: usize, step: usize) -> Result<Array> {
        const OP: &str = "unfold";
        self.check_dim(OP, dim)?;
        if size > self.shape()[dim] || step == 0 {
            let reason =
                format!("needs a window of at most {} elements and a step of at least 1", self.shape()[dim]);
            return Err(Error::Argument { op: OP, reason });
        }
        let step = step.min(self.shape()[dim] + 1);
        let mut axes = identity_axes(self.rank());
        axes[dim] = Axis { offset: 0, terms: smallvec![(dim, step as isize), (self.rank(), 1)] };
        let mut shape = self.0.shape.clone();
        shape[dim] = (self.shape()[dim] - size) / step + 1;
        shape.push(size);
        checked_elements(OP, &shape)?;
        Ok(self.affine(axes, shape))
    }

    /// The array with zeros around it. For each dim, the pair is the number of zeros before and after the
    /// elements; negative numbers crop.
    ///
    /// ```
    /// use wgrad_array::{Array, Device};
    /// let x = Array::from_slice(&[1i64, 2, 3], &[3], &Device::cpu())?;
    /// assert_eq!(x.pad(&[(2, -1)])?.to_vec::<i64>()?, [0, 0, 1, 2]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is not one pair for each dim, if more elements are cropped than the dim has, or if the shape
    /// overflows.
    pub fn pad(&self, amounts: &[(isize, isize)]) -> Result<Array> {
        const OP: &str = "pad";
        if amounts.len() != self.rank() {
            let reason = format!("has {} dims, but {} pairs were given", self.rank(), amounts.len());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if amounts.iter().all(|&amount| amount == (0, 0)) {
            return Ok(self.clone());
        }
        let mut shape: Dims = SmallVec::new();
        for (&size, &(before, after)) in self.shape().iter().zip(amounts) {
            let padded =
                (size as isize).checked_add(before).and_then(|n| n.checked_add(after)).filter(|&n| n >= 0);
            let Some(padded) = padded else {
                let reason =
                    format!("cannot be padded by {amounts:?}: a dim would have a negative size or overflow");
                return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
            };
            shape.push(padded as usize);
        }
        checked_elements(OP, &shape)?;
        if self.elements() == 0 {
            return Array::full(&shape, 0i64, self.dtype(), self.device());
        }
        let before = amounts.iter().map(|&(before, _)| before).collect();
        Ok(self.derive(Op::View(View::Pad { before }), shape, self.dtype()))
    }

    /// The arrays joined along a dim, in the dtype to which all promote.
    ///
    /// # Errors
    /// If there are no arrays, their other dims or their devices differ, or the shape overflows.
    pub fn cat(arrays: &[Array], dim: usize) -> Result<Array> {
        const OP: &str = "cat";
        let Some(first) = arrays.first() else {
            return Err(Error::Argument { op: OP, reason: "needs at least one tensor".into() });
        };
        first.check_dim(OP, dim)?;
        let mut dtype = first.dtype();
        let mut total = 0usize;
        for array in arrays {
            super::check_device(OP, first, array)?;
            let fits = array.rank() == first.rank()
                && (0..first.rank()).all(|d| d == dim || array.shape()[d] == first.shape()[d]);
            if !fits {
                return Err(Error::ShapeMismatch {
                    op: OP,
                    lhs: first.shape().to_vec(),
                    rhs: array.shape().to_vec(),
                    reason: format!("must be equal beside dim {dim}"),
                });
            }
            dtype = dtype.promote(array.dtype());
            total = total.saturating_add(array.shape()[dim]);
        }
        let mut shape = first.0.shape.clone();
        shape[dim] = total;
        checked_elements(OP, &shape)?;
        let mut pieces = Vec::with_capacity(arrays.len());
        for array in arrays.iter().filter(|array| array.elements() > 0) {
            pieces.push(array.cast(dtype)?);
        }
        if pieces.is_empty() {
            return Array::full(&shape, 0i64, dtype, first.device());
        }
        // Joined in pairs, so that the depth of the expression is logarithmic.
        while pieces.len() > 1 {
            let pairs = pieces.chunks(2).map(|pair| match pair {
                [a, b] => a.followed_by(b, dim),
                _ => Ok(pair[0].clone()),
            });
            pieces = pairs.collect::<Result<_>>()?;
        }
        Ok(pieces.swap_remove(0))
    }

    fn followed_by(&self, other: &Array, dim: usize) -> Result<Array> {
        let (a, b) = (self.shape()[dim] as isize, other.shape()[dim] as isize);
        let beside = |before, after| {
            let mut amounts: SmallVec<[(isize, isize); 4]> = smallvec![(0, 0); self.rank()];
            amounts[dim] = (before, after);
            amounts
        };
        let first = Array::full(self.shape(), true, DType::Bool, self.device())?.pad(&beside(0, b))?;
        Array::select(&first, &self.pad(&beside(0, b))?, &other.pad(&beside(a, 0))?)
    }

    /// A copy of this array in which the elements at the indices `starts + i * steps` are replaced by those
    /// of `value`, for all indices `i` of `value`.
    ///
    /// ```
    /// use wgrad_array::{Array, DType, Device};
    /// let x = Array::full(&[2, 3], 0i64, DType::I64, &Device::cpu())?;
    /// let row = Array::from_slice(&[1i64, 2], &[1, 2], &Device::cpu())?;
    /// assert_eq!(x.update(&[1, 0], &[1, 2], &row)?.to_vec::<i64>()?, [0, 0, 0, 1, 0, 2]);
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an index is out of range, or the dtypes or devices differ.
    pub fn update(&self, starts: &[usize], steps: &[usize], value: &Array) -> Result<Array> {
        const OP: &str = "update";
        super::check_device(OP, self, value)?;
        if value.dtype() != self.dtype() {
            let reason = format!("does not fit into {}; cast it first", self.dtype());
            return Err(Error::DType { op: OP, dtype: value.dtype(), reason });
        }
        let rank = self.rank();
        if starts.len() != rank || steps.len() != rank || value.rank() != rank {
            let reason = format!("has {rank} dims; starts, steps and the value must have as many");
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if value.elements() == 0 {
            return Ok(self.clone());
        }
        if let Some(op) = self.update_in_memory(starts, steps, value) {
            let inputs = smallvec![self.0.clone(), value.0.clone()];
            return Ok(Array::pending(op, inputs, self.dims(), self.dtype(), self.device()));
        }
        if let Some(inside) = self.at_one_place(starts, value.shape())? {
            return Array::select(&inside, &value.expand(self.shape())?, self);
        }
        let spread = value.embed(starts, steps, self.shape())?;
        let inside = Array::full(value.shape(), true, DType::Bool, self.device())?.embed(
            starts,
            steps,
            self.shape(),
        )?;
        Array::select(&inside, &spread, self)
    }

    /// The operation that writes a small box into a large array in memory, such as a cache. If nothing else
    /// needs the old array, its other elements are neither read nor copied. `None` if the operation does not
    /// apply.
    fn update_in_memory(&self, starts: &[usize], steps: &[usize], value: &Array) -> Option<Op> {
        let is_dense = self.value().is_some_and(|value| value.layout.is_contiguous());
        let is_written = || matches!(self.0.work().as_ref(), Some(Pending { op: Op::Update { .. }, .. }));
        let is_box = value.shape().iter().zip(steps).all(|(&size, &step)| size == 1 || step == 1);
        if !is_box
            || self.0.bytes() < WORTH_UPDATING
            || value.elements() > self.elements() / 4
            || !(is_dense || is_written())
        {
            return None;
        }
        let places = starts.iter().zip(value.shape()).zip(self.shape()).zip(contiguous_strides(self.shape()));
        let mut start = 0usize;
        for (((&at, &len), &size), stride) in places {
            if at.checked_add(len)? > size {
                return None;
            }
            start += at * stride as usize;
        }
        Some(Op::Update { start: start - start % ALIGNED, beyond: start % ALIGNED })
    }

    /// A mask of the elements in a box, if the box has size 1 in every dim that it does not cover completely.
    /// The mask compares coordinates with scalars, which are not part of a plan, so that writing one row
    /// after another takes one plan.
    fn at_one_place(&self, starts: &[usize], shape: &[usize]) -> Result<Option<Array>> {
        let mut inside: Option<Array> = None;
        for (d, (&start, &len)) in starts.iter().zip(shape).enumerate() {
            let size = self.shape()[d];
            if len == size && start == 0 {
                continue;
            }
            if len != 1 || start >= size || size > i32::MAX as usize {
                return Ok(None);
            }
            let own = Array::coordinate(self.shape(), d, self.device())?
                .binary_scalar(BinaryOp::Eq, Scalar::Int(start as i64))?;
            inside = Some(match inside {
                Some(inside) => inside.binary(BinaryOp::And, &own)?,
                None => own,
            });
        }
        Ok(inside)
    }

    /// An array of a larger shape with this array's elements at the indices `starts + i * steps`, and zeros
    /// elsewhere. This is the adjoint of slicing.
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn embed(&self, starts: &[usize], steps: &[usize], shape: &[usize]) -> Result<Array> {
        const OP: &str = "embed";
        let mut out = self.clone();
        for d in 0..self.rank() {
            let (len, step, start) = (self.shape()[d], steps[d].max(1), starts[d]);
            let step = if len > 1 { step } else { 1 };
            let past = if len == 0 {
                start
            } else {
                start.saturating_add((len - 1).saturating_mul(step)).saturating_add(1)
            };
            if past > shape[d] {
                return Err(Error::Index {
                    op: OP,
                    index: last_index(past),
                    size: shape[d],
                    called_at: None,
                });
            }
            let mut amounts: SmallVec<[(isize, isize); 4]> = smallvec![(0, 0); self.rank()];
            if step > 1 && len > 0 {
                // Zeros are inserted between the elements: len -> [len, 1] -> [len, step] -> len * step. The
                // dims before and after are merged into one each, so that the rank stays within its limit.
                let mut joined: Dims = out.shape().into();
                let (before, after) = (joined[..d].iter().product(), joined[d + 1..].iter().product());
                joined[d] = len.saturating_mul(step);
                let apart = [(0, 0), (0, 0), (0, step as isize - 1), (0, 0)];
                out = out.reshape(&[before, len, 1, after])?.pad(&apart)?.reshape(&joined)?;
            }
            amounts[d] = (start as isize, shape[d] as isize - start as isize - out.shape()[d] as isize);
            out = out.pad(&amounts)?;
        }
        Ok(out)
    }

    /// A view of this array's memory with any layout, like `torch.as_strided`. Evaluates the array.
    ///
    /// # Errors
    /// If an element would lie outside of the memory, or the evaluation fails.
    pub fn strided(&self, shape: &[usize], strides: &[isize], offset: usize) -> Result<Array> {
        const OP: &str = "as_strided";
        checked_elements(OP, shape)?;
        if shape.len() != strides.len() {
            let reason = format!("needs one stride for each dim, but {} were given", strides.len());
            return Err(Error::Shape { op: OP, shape: shape.to_vec(), reason });
        }
        self.eval()?;
        let value = self.value().ok_or_else(|| crate::eval::lost_value(OP, &self.0))?;
        let reach = |positive: bool| -> Option<isize> {
            shape.iter().zip(strides).try_fold(offset as isize, |at, (&size, &stride)| {
                let far = stride.checked_mul(size.max(1) as isize - 1)?;
                if (far > 0) == positive { at.checked_add(far) } else { Some(at) }
            })
        };
        let elements = value.buffer.bytes() / self.dtype().size();
        let inside = reach(false).is_some_and(|low| low >= 0)
            && reach(true).is_some_and(|high| (high as usize) < elements);
        if !inside && !shape.contains(&0) {
            let reason = format!(
                "with strides {strides:?} and offset {offset} leaves the memory of {elements} elements"
            );
            return Err(Error::Shape { op: OP, shape: shape.to_vec(), reason });
        }
        let layout = Layout::new(shape, strides, offset);
        Ok(self.viewed(value, layout))
    }

    /// The array without repeated elements: for an evaluated array, dims of stride 0 are cut to size 1.
    pub(crate) fn without_repeats(&self) -> Result<Array> {
        let repeats: SmallVec<[usize; 4]> = match self.layout() {
            Some(layout) => (0..self.rank())
                .filter(|&d| layout.strides()[d] == 0 && layout.shape()[d] > 1 && self.elements() > 0)
                .collect(),
            None => SmallVec::new(),
        };
        repeats.into_iter().try_fold(self.clone(), |array, dim| array.slice(dim, 0, 1, 1))
    }

    pub(crate) fn check_dim(&self, op: &'static str, dim: usize) -> Result<()> {
        if dim < self.rank() { Ok(()) } else { Err(Error::Dim { op, dim: dim as isize, rank: self.rank() }) }
    }
}

/// The last index of a range that ends before `past`.
fn last_index(past: usize) -> i64 {
    i64::try_from(past).unwrap_or(i64::MAX).saturating_sub(1)
}
