//! Tensors put together: side by side, on top of each other, with margins, repeated.

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, checked_elements, normalize_dim};
use wgrad_array::{Array, DType, Error, Result, Scalar};

use crate::tape::{Derivative, record};
use crate::view::{Squeeze, ViewStep};
use crate::{IntArray, Tensor};

/// An array with margins of a number: before and after, for each dim; negative ones crop.
pub(in crate::ops) fn padded(x: &Array, amounts: &[(isize, isize)], value: Scalar) -> Result<Array> {
    let out = x.pad(amounts)?;
    if value.as_f64() == 0.0 || amounts.iter().all(|&(before, after)| before <= 0 && after <= 0) {
        return Ok(out);
    }
    let inside = Array::full(x.shape(), true, DType::Bool, x.device())?.pad(amounts)?;
    Array::select(&inside, &out, &Array::full(&[], value, x.dtype(), x.device())?)
}

/// # Joining
#[wgrad_macros::call_sites]
impl Tensor {
    /// Tensors side by side along a dim. As in PyTorch, 1-dim tensors without elements are left out.
    ///
    /// # Errors
    /// If there are none, other dims differ, or the devices differ.
    pub fn cat(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        const OP: &str = "cat";
        let Some(first) = tensors.iter().find(|x| x.shape() != [0]).or(tensors.first()) else {
            return Err(Error::Argument { op: OP, reason: "there are no tensors to put together".into() });
        };
        if first.rank() == 0 {
            let reason = "has no dims to put tensors side by side in; use stack".to_owned();
            return Err(Error::Shape { op: OP, shape: Vec::new(), reason });
        }
        let dim = normalize_dim(OP, dim, first.rank())?;
        let dtype = tensors.iter().fold(first.dtype(), |dtype, x| dtype.promote(x.dtype()));
        let joined: Vec<&Tensor> =
            tensors.iter().copied().filter(|x| x.shape() != [0] || first.shape() == [0]).collect();
        let inputs = joined.iter().map(|x| x.operand()).collect::<Result<Vec<_>>>()?;
        let arrays = inputs.iter().map(|x| x.array.cast(dtype)).collect::<Result<Vec<_>>>()?;
        let out = Array::cat(&arrays, dim)?;
        Ok(record(out, inputs, |inputs, _| {
            let sizes = inputs.iter().map(|x| x.array.shape()[dim]);
            let parts: Vec<(usize, usize)> =
                sizes.scan(0, |next, size| Some((std::mem::replace(next, *next + size), size))).collect();
            Derivative::with("CatBackward0", move |c| {
                let g = c.grad()?;
                c.each(parts.len(), |i| {
                    let (start, len) = parts[i];
                    g.view_value(&ViewStep::Slice { dim, start, len, step: 1 })
                })
            })
        }))
    }

    /// Tensors of one shape on top of each other along a new dim.
    ///
    /// # Errors
    /// If there are none, or shapes or devices differ.
    pub fn stack(tensors: &[&Tensor], dim: isize) -> Result<Tensor> {
        const OP: &str = "stack";
        let Some(first) = tensors.first() else {
            return Err(Error::Argument { op: OP, reason: "there are no tensors to stack".into() });
        };
        let dim = normalize_dim(OP, dim, first.rank() + 1)?;
        if let Some(other) = tensors.iter().find(|x| x.shape() != first.shape()) {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: first.shape().to_vec(),
                rhs: other.shape().to_vec(),
                reason: "differ; all tensors of a stack have one shape".into(),
            });
        }
        let dtype = tensors.iter().fold(first.dtype(), |dtype, x| dtype.promote(x.dtype()));
        let inputs = tensors.iter().map(|x| x.operand()).collect::<Result<Vec<_>>>()?;
        let arrays =
            inputs.iter().map(|x| x.array.cast(dtype)?.unsqueeze(dim)).collect::<Result<Vec<_>>>()?;
        let out = Array::cat(&arrays, dim)?;
        Ok(record(out, inputs, |inputs, _| {
            let count = inputs.len();
            Derivative::with("StackBackward0", move |c| {
                let g = c.grad()?;
                c.each(count, |index| g.view_value(&ViewStep::Select { dim, index }))
            })
        }))
    }

    /// Margins of a number around the last dims: pairs (before, after), the last dim's first, as in `F.pad`; negative
    /// ones crop.
    ///
    /// # Errors
    /// If there are more pairs than dims, or more is cropped than is there.
    pub fn pad(&self, margins: &[(isize, isize)], value: impl Into<Scalar>) -> Result<Tensor> {
        const OP: &str = "pad";
        let fail = |reason: String| Error::Shape { op: OP, shape: self.shape().to_vec(), reason };
        let Some(unpadded) = self.rank().checked_sub(margins.len()) else {
            return Err(fail(format!("has fewer dims than the {} pairs of margins", margins.len())));
        };
        let mut amounts: SmallVec<[(isize, isize); 4]> = SmallVec::from_elem((0, 0), unpadded);
        amounts.extend(margins.iter().rev().copied());
        for (&(before, after), &size) in amounts.iter().zip(self.shape()) {
            // Positions of elements, and twice as much, must be numbers.
            let far = |n: isize| n.unsigned_abs() > isize::MAX as usize / 4;
            if far(before) || far(after) {
                return Err(Error::SizeOverflow { op: OP, shape: self.shape().to_vec() });
            }
            let total = [before, after].iter().try_fold(size as isize, |sum, &n| sum.checked_add(n));
            if total.is_none_or(|total| total < 0) {
                return Err(fail(format!(
                    "cannot get the margins {margins:?}: a dim would have a negative size"
                )));
            }
        }
        let x = self.operand()?;
        let out = padded(&x.array, &amounts, value.into())?;
        Ok(record(out, [x], |_, _| {
            let back: Vec<(isize, isize)> =
                margins.iter().map(|&(before, after)| (-before, -after)).collect();
            Derivative::with("ConstantPadNdBackward0", move |c| c.each(1, |_| c.grad()?.pad(&back, 0.0)))
        }))
    }

    /// The tensor repeated this often along each dim; more counts than dims repeat along new dims in front.
    ///
    /// # Errors
    /// If there are fewer counts than dims, or one is negative.
    pub fn repeat(&self, counts: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "repeat";
        let counts = counts.into().shape(OP)?;
        let Some(new) = counts.len().checked_sub(self.rank()) else {
            let reason = format!("has more dims than the {} counts", counts.len());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        };
        // [n] is seen as [1, n], expanded to [count, n] and joined to [count * n]. What has size 1 is left out in between, so that
        // there are never too many dims.
        let (mut split, mut wide, mut joined) = (Dims::new(), Dims::new(), Dims::new());
        let mut repeated: Vec<usize> = Vec::new();
        for (d, &count) in counts.iter().enumerate() {
            let size = if d < new { 1 } else { self.shape()[d - new] };
            joined.push(count.saturating_mul(size));
            if count != 1 {
                repeated.push(wide.len());
                split.push(1);
                wide.push(count);
            }
            if size != 1 {
                split.push(size);
                wide.push(size);
            }
        }
        let empty = checked_elements(OP, &joined)? == 0;
        let x = self.operand()?;
        let out = if empty {
            Array::full(&joined, 0i64, self.dtype(), self.device())?
        } else {
            x.array.reshape(&split)?.expand(&wide)?.reshape(&joined)?
        };
        Ok(record(out, [x], |_, _| {
            Derivative::with("RepeatBackward0", move |c| {
                c.each(1, |_| {
                    if empty {
                        return c.grad()?.zeros_of(&c.input_shape(0)?);
                    }
                    let parts = c
                        .grad()?
                        .view_value(&ViewStep::Reshape { from: joined.clone(), to: wide.clone() })?;
                    let sum =
                        if repeated.is_empty() { parts } else { parts.sum_dim(repeated.as_slice(), true)? };
                    let from = sum.0.shape.clone();
                    sum.view_value(&ViewStep::Reshape { from, to: c.input_shape(0)? })
                })
            })
        }))
    }
}
