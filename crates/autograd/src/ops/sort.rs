//! Order: sorting and what it gives.
//!
//! Everything stands on the order along a dim, which the device finds when it is needed; values are gathered by it, with
//! gradients. NaN counts as the largest. All sorts are stable.

pub(super) mod search;

use std::ops::Range;

use wgrad_array::layout::normalize_dim;
use wgrad_array::{Array, DType, Error, Expr, ReduceOp, Result};

use crate::Tensor;
use crate::tape::{Derivative, record};

/// # Sorting
#[wgrad_macros::call_sites]
impl Tensor {
    /// The order of the elements along a dim: at each place of the result, where the element that belongs there is now (i64). Equal elements
    /// keep their order.
    ///
    /// # Errors
    /// If there is no such dim, or what led to the tensor's value fails.
    pub fn argsort(&self, dim: isize, descending: bool) -> Result<Tensor> {
        let at = normalize_dim("sort", dim, self.rank())?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        self.order(at, descending, 0..size)
    }

    /// These places of the order along a dim.
    fn order(&self, at: usize, descending: bool, places: Range<usize>) -> Result<Tensor> {
        if self.rank() == 0 {
            return Tensor::zeros((), (DType::I64, self.device()));
        }
        Ok(Tensor::from_array(self.array()?.argsort(at, descending, places)?))
    }

    /// The elements along a dim in ascending (or descending) order, and where each was (i64). PyTorch's default is the last dim.
    ///
    /// # Errors
    /// As [`Tensor::argsort`].
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Tensor, Tensor)> {
        let order = self.argsort(dim, descending)?;
        Ok((self.gather(dim, &order)?, order))
    }

    /// The elements in ascending order along the first dim; `torch.msort`.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn msort(&self) -> Result<Tensor> {
        Ok(self.sort(0, false)?.0)
    }

    /// The `k` largest (or smallest) elements along a dim in order, and where each was (i64). PyTorch's default is the largest of the last dim.
    ///
    /// # Errors
    /// If there is no such dim, or it has fewer than `k` elements.
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "topk";
        let at = normalize_dim(OP, dim, self.rank())?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        if k > size {
            return Err(Error::Argument {
                op: OP,
                reason: format!("k is {k}, but dim {dim} has {size} elements"),
            });
        }
        if self.rank() == 0 {
            let (values, order) = self.reshape(1)?.topk(k, 0, largest)?;
            return if k == 1 {
                Ok((values.reshape(())?.owned()?, order.reshape(())?.owned()?))
            } else {
                Ok((values, order))
            };
        }
        let order = self.order(at, largest, 0..k)?;
        Ok((self.gather(dim, &order)?, order))
    }

    /// The `k`-th smallest element along a dim, counted from 1, and where it was (i64). PyTorch's default is the last dim.
    ///
    /// # Errors
    /// If there is no such dim, or it has fewer than `k` elements, or `k` is 0.
    pub fn kthvalue(&self, k: usize, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "kthvalue";
        let at = normalize_dim(OP, dim, self.rank())?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        if k == 0 || k > size {
            return Err(Error::Argument { op: OP, reason: format!("k is {k}; it must lie in 1..={size}") });
        }
        if self.rank() == 0 {
            return Ok((self.deep_clone()?, Tensor::zeros((), (DType::I64, self.device()))?));
        }
        let order = self.order(at, false, k - 1..k)?;
        self.chosen(&order, dim, keepdim)
    }

    /// A dim that has elements.
    fn nonempty_dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        let at = normalize_dim(op, dim, self.rank())?;
        if self.shape().get(at) == Some(&0) {
            return Err(Error::EmptyReduction { op, shape: self.shape().to_vec() });
        }
        Ok(at)
    }

    fn chosen(&self, place: &Tensor, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        let value = self.gather(dim, place)?;
        if keepdim {
            Ok((value, place.clone()))
        } else {
            Ok((value.squeeze_dim(dim)?.owned()?, place.squeeze_dim(dim)?.owned()?))
        }
    }

    /// The median of all elements: of two in the middle the lower, and NaN if one is. Equal elements share the gradient evenly.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn median(&self) -> Result<Tensor> {
        self.median_of_all("MedianBackward0", |line| line.median_dim(0, false))
    }

    /// The median of all elements but NaN: of two in the middle the lower, and NaN if there are no others. Equal elements share the gradient
    /// evenly.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn nanmedian(&self) -> Result<Tensor> {
        self.median_of_all("NanmedianBackward0", |line| line.nanmedian_dim(0, false))
    }

    fn median_of_all(
        &self,
        node: &'static str,
        median: impl FnOnce(&Tensor) -> Result<(Tensor, Tensor)>,
    ) -> Result<Tensor> {
        if self.numel() == 0 {
            return Tensor::full((), f64::NAN, (self.dtype(), self.device()));
        }
        let value = median(&self.detach().flatten(0, -1)?)?.0.array()?;
        let x = self.operand()?;
        Ok(record(value, [x], |inputs, out| {
            Derivative::new(node, |c| {
                c.gradient(|| {
                    let (g, saved) = c.parts::<2>();
                    let [x, value] = &saved.map(|saved| saved.detach());
                    let same = x.eq(value).logical_or(x.isnan().logical_and(value.isnan()));
                    let count = same.sum().cast_as(x);
                    (g / count).expand_as_value(x).keep_where(same)
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The median along a dim, of two in the middle the lower, and where it was (i64); NaN if one is.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn median_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        if self.rank() == 0 {
            return self.kthvalue(1, dim, keepdim);
        }
        let at = self.nonempty_dim("median", dim)?;
        let middle = (self.shape()[at] - 1) / 2;
        let mut place = self.order(at, false, middle..middle + 1)?;
        if self.dtype().is_float() {
            // The first NaN, if there is one.
            let nan = self.detach().isnan()?;
            let first = nan.to_dtype(DType::I64)?.argmax_dim(dim, true)?;
            place = nan.any_dim(dim, true)?.where_cond(first, place)?;
        }
        self.chosen(&place, dim, keepdim)
    }

    /// The median of the numbers along a dim, NaN left out: of two in the middle the lower, and where it was (i64). NaN where there are no numbers.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn nanmedian_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        if !self.dtype().is_float() || self.rank() == 0 {
            return self.median_dim(dim, keepdim);
        }
        let at = self.nonempty_dim("median", dim)?;
        // NaN sorts last: the numbers' middle is at a place of its own in each row.
        let numbers = self.detach().isnan()?.logical_not()?.sum_dim(dim, true)?;
        let middle = numbers.sub(1i64)?.clamp_min(0i64)?.floor_divide(2i64)?;
        let place = self.order(at, false, 0..self.shape()[at])?.gather(dim, &middle)?;
        self.chosen(&place, dim, keepdim)
    }

    /// The element that occurs most often along a dim, of several the smallest, and the last place where it was (i64). NaN differs from NaN.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let (value, place) = Tensor::new([2i64, 1, 2, 1, 3], &Device::cpu())?.mode(-1, false)?;
    /// assert_eq!((value.item::<i64>()?, place.item::<i64>()?), (1, 3));
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn mode(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "mode";
        if self.rank() == 0 {
            normalize_dim(OP, dim, 0)?;
            return self.kthvalue(1, dim, keepdim);
        }
        let at = self.nonempty_dim(OP, dim)?;
        let x = self.array()?;
        if x.elements() == 0 {
            return self.chosen(&Tensor::from_array(x.argsort(at, false, 0..1)?), dim, keepdim);
        }
        let order = x.argsort(at, false, 0..x.shape()[at])?;
        let sorted = Expr::of(&x.gather(at, &order)?);
        let mut margins = vec![(0, 0); self.rank()];
        margins[at] = (1, -1);
        let place = Expr::from(Array::coordinate(x.shape(), at, self.device()));
        // How long the run of equal elements is so far; the first that is longest ends the smallest such run.
        let starts = sorted.ne(sorted.map(|x| x.pad(&margins))).or(place.eq(0i64));
        let begin = starts.select(&place, 0i64).map(|begin| begin.scan(ReduceOp::Max, at));
        let longest = (place - begin).map(|length| length.reduce(ReduceOp::ArgMax, &[at], true)).done()?;
        self.chosen(&Tensor::from_array(order.gather(at, &longest)?), dim, keepdim)
    }
}
