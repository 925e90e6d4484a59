//! Elements arranged anew: dims moved, rolled, turned, repeated; diagonals; grids; margins taken from the tensor itself.

use wgrad_array::layout::{checked_elements, normalize_dim};
use wgrad_array::{Array, DType, Error, Expr, Result, Scalar};

use crate::ops::index::positions::counted;
use crate::{IntArray, Tensor};

/// Where the margins of [`Tensor::pad_with`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// Mirrored at the edge, without the edge itself.
    Reflect,
    /// The edge, repeated.
    Replicate,
    /// The other end.
    Circular,
}

/// # Rearranging
#[wgrad_macros::call_sites]
impl Tensor {
    /// Dims moved to other places; those that are not named keep their order.
    ///
    /// # Errors
    /// If a dim is not there or named twice, or there are not as many places as dims.
    pub fn movedim(&self, source: impl Into<IntArray>, destination: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "movedim";
        let source = source.into().dims(OP, self.rank())?;
        let destination = destination.into().dims(OP, self.rank())?;
        if source.len() != destination.len() {
            let reason =
                format!("{} dims are to go to {} places; give one for each", source.len(), destination.len());
            return Err(Error::Argument { op: OP, reason });
        }
        let mut order: Vec<Option<usize>> = vec![None; self.rank()];
        for (&from, &to) in source.iter().zip(&destination) {
            if let Some(place) = order.get_mut(to) {
                *place = Some(from);
            }
        }
        let mut rest = (0..self.rank()).filter(|d| !source.contains(d));
        let order: Vec<usize> =
            order.into_iter().map(|dim| dim.or_else(|| rest.next()).unwrap_or(0)).collect();
        self.permute(order)
    }

    /// Elements moved along dims by `shifts` places; what leaves at one end comes back at the other. Without dims along
    /// the flattened tensor.
    ///
    /// # Errors
    /// If a dim is not there, or there is not one shift for each.
    pub fn roll(&self, shifts: impl Into<IntArray>, dims: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "roll";
        let (shifts, dims) = (shifts.into(), dims.into());
        if dims.as_slice().is_empty() && shifts.as_slice().len() == 1 {
            return self.flatten(0, -1)?.roll(shifts, 0)?.reshape(self.shape())?.owned();
        }
        if shifts.as_slice().len() != dims.as_slice().len() || shifts.as_slice().is_empty() {
            let (shifts, dims) = (shifts.as_slice(), dims.as_slice());
            let reason = format!(
                "the shifts {shifts:?} and dims {dims:?} differ in number; give one shift for each dim"
            );
            return Err(Error::Argument { op: OP, reason });
        }
        let mut out = self.clone();
        for (&shift, &dim) in shifts.as_slice().iter().zip(dims.as_slice()) {
            if self.rank() == 0 {
                return Err(Error::Dim { op: OP, dim, rank: 0 });
            }
            let at = normalize_dim(OP, dim, self.rank())?;
            let size = self.shape()[at] as isize;
            if size == 0 {
                continue;
            }
            let start = (size - shift.rem_euclid(size)) % size;
            let (front, back) =
                (out.narrow(dim, start, (size - start) as usize)?, out.narrow(dim, 0, start as usize)?);
            out = Tensor::cat(&[&front, &back], dim)?;
        }
        if out.is_same(self) { self.deep_clone() } else { Ok(out) }
    }

    /// Turned `k` times by 90 degrees in the plane of two dims, from the first towards the second.
    ///
    /// # Errors
    /// If the dims are not two different ones.
    pub fn rot90(&self, k: isize, dims: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "rot90";
        let dims = dims.into().dims(OP, self.rank())?;
        let &[a, b] = dims.as_slice() else {
            return Err(Error::Argument {
                op: OP,
                reason: format!("needs two dims to turn in, got {}", dims.len()),
            });
        };
        match k.rem_euclid(4) {
            1 => self.flip(b)?.transpose(a as isize, b as isize)?.owned(),
            2 => self.flip([a, b]),
            3 => self.flip(a)?.transpose(a as isize, b as isize)?.owned(),
            _ => self.deep_clone(),
        }
    }

    /// The tensor repeated this often along its last dims; other dims stay.
    ///
    /// # Errors
    /// If a count is negative.
    pub fn tile(&self, counts: impl Into<IntArray>) -> Result<Tensor> {
        let counts = counts.into();
        let mut all = vec![1isize; self.rank().saturating_sub(counts.as_slice().len())];
        all.extend(counts.as_slice());
        self.repeat(all)
    }

    /// Each element (each slice of a dim, if one is given) repeated `repeats` times in a row.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn repeat_interleave(&self, repeats: usize, dim: impl Into<Option<isize>>) -> Result<Tensor> {
        const OP: &str = "repeat_interleave";
        let Some(dim) = dim.into() else { return self.flatten(0, -1)?.repeat_interleave(repeats, 0) };
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.reshape(1)?.repeat_interleave(repeats, 0);
        }
        let mut shape = self.shape().to_vec();
        shape[at] = shape[at].saturating_mul(repeats);
        checked_elements(OP, &shape)?;
        // Joined to three dims, so that one more is never one too many.
        let (before, after) = (self.shape()[..=at].iter().product(), self.shape()[at + 1..].iter().product());
        self.reshape([before, 1, after])?.expand([before, repeats, after])?.reshape(shape)
    }

    /// Each element (each slice of a dim, if one is given) repeated as often as the i64 or i32 list `repeats` says for it. The list is
    /// read for this.
    ///
    /// # Errors
    /// If the list is not as long as the dim, or a count is negative.
    pub fn repeat_interleave_each(&self, repeats: &Tensor, dim: impl Into<Option<isize>>) -> Result<Tensor> {
        const OP: &str = "repeat_interleave";
        let Some(dim) = dim.into() else { return self.flatten(0, -1)?.repeat_interleave_each(repeats, 0) };
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.reshape(1)?.repeat_interleave_each(repeats, 0);
        }
        let counts = repeats.to_dtype(DType::I64)?.flatten(0, -1)?.to_vec::<i64>()?;
        let size = self.shape()[at];
        if repeats.dtype().is_float() || repeats.rank() > 1 || (counts.len() != size && counts.len() != 1) {
            let reason = format!("is not that of {size} whole numbers, one for each place of dim {dim}");
            return Err(Error::Shape { op: OP, shape: repeats.shape().to_vec(), reason });
        }
        // Where each place's repetitions end.
        let (mut ends, mut total) = (wgrad_array::host_vec(counts.len())?, 0usize);
        for count in counts {
            let count = usize::try_from(count).map_err(|_| Error::Argument {
                op: OP,
                reason: format!("a count is {count}; counts are not negative"),
            })?;
            total = total.saturating_add(count);
            ends.push(total as i64);
        }
        if repeats.numel() == 1 && size != 1 {
            return self.repeat_interleave(total, dim);
        }
        let mut shape = self.shape().to_vec();
        shape[at] = total;
        checked_elements(OP, &shape)?;
        // The place of an element is the number of places that end before it or at it.
        let ends = Tensor::from_slice(&ends, size, self.device())?;
        let ones = Tensor::ones([size], (DType::I64, self.device()))?;
        let marks = Tensor::zeros([total + 1], (DType::I64, self.device()))?.index_add(0, &ends, &ones)?;
        self.index_select(dim, &marks.cumsum(0)?.narrow(0, 0, total)?)
    }

    /// A matrix with this list on its `diagonal`-th diagonal, or the `diagonal`-th diagonal of this matrix.
    ///
    /// # Errors
    /// If there are no dims or more than two.
    pub fn diag(&self, diagonal: isize) -> Result<Tensor> {
        match self.rank() {
            1 => self.diag_embed(diagonal, 0, 1),
            2 => self.diagonal(diagonal, 0, 1)?.deep_clone(),
            _ => {
                let reason = "is neither a list nor a matrix".to_owned();
                Err(Error::Shape { op: "diag", shape: self.shape().to_vec(), reason })
            }
        }
    }

    /// The last dim as the `offset`-th diagonal of two new dims, zeros beside it; PyTorch's defaults are 0, -2 and -1.
    ///
    /// # Errors
    /// If the dims are not two different ones of the result.
    pub fn diag_embed(&self, offset: isize, dim1: isize, dim2: isize) -> Result<Tensor> {
        const OP: &str = "diag_embed";
        if self.rank() == 0 {
            return Err(Error::Dim { op: OP, dim: -1, rank: 0 });
        }
        let rank = self.rank() + 1;
        let (rows, columns) = (normalize_dim(OP, dim1, rank)?, normalize_dim(OP, dim2, rank)?);
        if rows == columns {
            return Err(Error::DuplicateDim { op: OP, dim: rows, dims: vec![dim1, dim2] });
        }
        let (size, shift) = (self.shape()[self.rank() - 1], offset.unsigned_abs());
        let mut shape = self.shape()[..self.rank() - 1].to_vec();
        shape.extend([size.saturating_add(shift); 2]);
        checked_elements(OP, &shape)?;
        let margin = (shift as isize, 0);
        let place = |dim| Array::coordinate(&shape, dim, self.device());
        let distance = Expr::from(place(rank - 1)) - Expr::from(place(rank - 2));
        let on = Tensor::from_array(distance.eq(Scalar::Int(offset as i64)).done()?);
        // Above the main diagonal the list counts rows, below it columns.
        let spread = if offset >= 0 {
            self.pad(&[(0, shift as isize)], 0.0)?.unsqueeze(-1)?
        } else {
            self.pad(&[margin], 0.0)?.unsqueeze(-1)?
        };
        let matrix = spread.expand(&shape)?.keep_where(&on)?;
        matrix.movedim([rank - 2, rank - 1], [rows, columns])?.owned()
    }

    /// Lists one after the other; other tensors side by side along dim 1.
    ///
    /// # Errors
    /// As [`Tensor::cat`].
    pub fn hstack(tensors: &[&Tensor]) -> Result<Tensor> {
        let wide = at_least(tensors, |x| if x.rank() == 0 { x.reshape(1) } else { Ok(x.clone()) })?;
        let dim = if wide.first().is_some_and(|x| x.rank() == 1) { 0 } else { 1 };
        Tensor::cat(&wide.iter().collect::<Vec<_>>(), dim)
    }

    /// Tensors on top of each other along dim 0; lists are rows.
    ///
    /// # Errors
    /// As [`Tensor::cat`].
    pub fn vstack(tensors: &[&Tensor]) -> Result<Tensor> {
        let wide = at_least(tensors, |x| match x.shape() {
            [] => x.reshape([1, 1]),
            &[size] => x.reshape([1, size]),
            _ => Ok(x.clone()),
        })?;
        Tensor::cat(&wide.iter().collect::<Vec<_>>(), 0)
    }

    /// Tensors behind each other along dim 2; lists are rows, and matrices get a third dim.
    ///
    /// # Errors
    /// As [`Tensor::cat`].
    pub fn dstack(tensors: &[&Tensor]) -> Result<Tensor> {
        let wide = at_least(tensors, |x| match x.shape() {
            [] => x.reshape([1, 1, 1]),
            &[size] => x.reshape([1, size, 1]),
            &[rows, columns] => x.reshape([rows, columns, 1]),
            _ => Ok(x.clone()),
        })?;
        Tensor::cat(&wide.iter().collect::<Vec<_>>(), 2)
    }

    /// The coordinates of the grid that lists span: tensor i varies along dim i. With `xy` (PyTorch's `indexing="xy"`) the
    /// first two lists change places.
    ///
    /// # Errors
    /// If there are no lists, one has more than one dim, or dtypes or devices differ.
    pub fn meshgrid(tensors: &[&Tensor], xy: bool) -> Result<Vec<Tensor>> {
        const OP: &str = "meshgrid";
        let Some(first) = tensors.first() else {
            return Err(Error::Argument { op: OP, reason: "needs at least one list".into() });
        };
        if let Some(wide) = tensors.iter().find(|x| x.rank() > 1) {
            let reason = "is not that of a list".to_owned();
            return Err(Error::Shape { op: OP, shape: wide.shape().to_vec(), reason });
        }
        if let Some(other) = tensors.iter().find(|x| x.dtype() != first.dtype()) {
            let reason = format!("is not that of the first list, {}; cast one", first.dtype());
            return Err(Error::DType { op: OP, dtype: other.dtype(), reason });
        }
        let swap = |i: usize| if xy && tensors.len() >= 2 && i < 2 { 1 - i } else { i };
        let mut shape = vec![1; tensors.len()];
        for (i, x) in tensors.iter().enumerate() {
            shape[swap(i)] = x.numel();
        }
        let spread = |(i, x): (usize, &&Tensor)| {
            let mut line = vec![1; tensors.len()];
            line[swap(i)] = x.numel();
            x.reshape(line)?.expand(&shape)
        };
        tensors.iter().enumerate().map(spread).collect()
    }

    /// `[.., c * r * r, h, w]` as `[.., c, h * r, w * r]`: channels become pixels.
    ///
    /// # Errors
    /// If there are fewer than three dims, or the channels cannot be divided so.
    pub fn pixel_shuffle(&self, factor: usize) -> Result<Tensor> {
        const OP: &str = "pixel_shuffle";
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        let &[ref batch @ .., channels, height, width] = self.shape() else {
            return fail("has fewer than three dims: channels, height, width".into());
        };
        let square = factor.saturating_mul(factor);
        if square == 0 || channels % square != 0 {
            return fail(format!("has {channels} channels, which {factor} * {factor} does not divide"));
        }
        let rank = batch.len() as isize;
        let mut split = batch.to_vec();
        split.extend([channels / square, factor, factor, height, width]);
        let mut joined = batch.to_vec();
        joined.extend([channels / square, height.saturating_mul(factor), width.saturating_mul(factor)]);
        let order: Vec<isize> = (0..rank).chain([0, 3, 1, 4, 2].map(|d| rank + d)).collect();
        self.reshape(split)?.permute(order)?.reshape(joined)?.owned()
    }

    /// `[.., c, h * r, w * r]` as `[.., c * r * r, h, w]`: the reverse of [`Tensor::pixel_shuffle`].
    ///
    /// # Errors
    /// If there are fewer than three dims, or height and width cannot be divided so.
    pub fn pixel_unshuffle(&self, factor: usize) -> Result<Tensor> {
        const OP: &str = "pixel_unshuffle";
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        let &[ref batch @ .., channels, height, width] = self.shape() else {
            return fail("has fewer than three dims: channels, height, width".into());
        };
        if factor == 0 || height % factor != 0 || width % factor != 0 {
            return fail(format!("has a height or width that {factor} does not divide"));
        }
        let rank = batch.len() as isize;
        let mut split = batch.to_vec();
        split.extend([channels, height / factor, factor, width / factor, factor]);
        let mut joined = batch.to_vec();
        let square = factor.saturating_mul(factor);
        joined.extend([channels.saturating_mul(square), height / factor, width / factor]);
        let order: Vec<isize> = (0..rank).chain([0, 2, 4, 1, 3].map(|d| rank + d)).collect();
        self.reshape(split)?.permute(order)?.reshape(joined)?.owned()
    }

    /// Margins around the last dims, made of the tensor's own elements: pairs (before, after), the last dim's first, as in
    /// `F.pad`; negative ones crop. For margins of a number see [`Tensor::pad`].
    ///
    /// # Errors
    /// If there are as many pairs as dims or more, or a margin is larger than what it is taken from.
    pub fn pad_with(&self, margins: &[(isize, isize)], mode: PadMode) -> Result<Tensor> {
        const OP: &str = "pad";
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        if margins.len() >= self.rank() || self.rank() > margins.len() + 2 {
            return fail(format!(
                "does not go with {} pairs of margins: such margins need one or two more dims than pairs",
                margins.len()
            ));
        }
        let mut out = self.clone();
        for (i, &(before, after)) in margins.iter().enumerate() {
            let dim = self.rank() - 1 - i;
            let size = self.shape()[dim] as isize;
            let len =
                [before, after].iter().try_fold(size, |sum, &n| sum.checked_add(n)).unwrap_or(isize::MIN);
            let largest = match mode {
                PadMode::Reflect => size - 1,
                PadMode::Replicate => {
                    if size > 0 {
                        isize::MAX
                    } else {
                        0
                    }
                }
                PadMode::Circular => size,
            };
            if before.max(after) > largest {
                return fail(format!("has too few elements in dim {dim} for margins of ({before}, {after})"));
            }
            if len < 0 || (len == 0 && size > 0) {
                return fail(format!(
                    "would have nothing left in dim {dim} after margins of ({before}, {after})"
                ));
            }
            if (before, after) == (0, 0) {
                continue;
            }
            let mut shape = out.shape().to_vec();
            shape[dim] = len as usize;
            checked_elements(OP, &shape)?;
            let place = counted(OP, len as usize, self.device())? - before as i64;
            let last = size as i64 - 1;
            let place = match mode {
                // What a negative margin crops is not wrapped around either.
                PadMode::Circular => {
                    let (start, end) = ((-before).max(0) as i64, (size - (-after).max(0)) as i64);
                    (place - start).rem((end - start).max(1)) + start
                }
                PadMode::Replicate => place.max(0i64).min(last),
                PadMode::Reflect => {
                    let inner = place.abs();
                    inner.gt(last).select(-&inner + 2 * last, &inner)
                }
            };
            out = out.index_select(dim as isize, &Tensor::from_array(place.done()?))?;
        }
        Ok(out)
    }

    /// The sum of the diagonal of a matrix. Integers and bools give i64.
    ///
    /// # Errors
    /// If it is not a matrix.
    pub fn trace(&self) -> Result<Tensor> {
        if self.rank() != 2 {
            let reason = "is not that of a matrix".to_owned();
            return Err(Error::Shape { op: "trace", shape: self.shape().to_vec(), reason });
        }
        self.diagonal(0, 0, 1)?.sum()
    }
}

fn at_least(tensors: &[&Tensor], widen: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    tensors.iter().map(|x| widen(x)).collect()
}
