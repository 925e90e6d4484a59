//! Further reductions: counts, sums and means without NaN, pairs of statistics; and running products, extremes and
//! logarithms of sums.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{Array, DType, Expr, ReduceOp, Result, Scalar};

use super::reduce::require_float;
use crate::tape::{Derivative, record};
use crate::{IntArray, Tensor};

impl Tensor {
    /// The smallest and the largest of all elements. Equal ones share the gradient evenly.
    ///
    /// # Errors
    /// If there are no elements.
    pub fn aminmax(&self) -> Result<(Tensor, Tensor)> {
        Ok((self.amin((), false)?, self.amax((), false)?))
    }

    /// The smallest and the largest element along a dim. Equal ones share the gradient evenly.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn aminmax_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        Ok((self.amin(dim, keepdim)?, self.amax(dim, keepdim)?))
    }

    /// How many elements over dims (none: all) are not 0, as i64.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn count_nonzero(&self, dims: impl Into<IntArray>) -> Result<Tensor> {
        self.ne(0i64)?.sum_dim(dims, false)
    }

    /// The sum over dims (none: all), NaN taken as 0.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn nansum(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.masked_fill(&self.isnan()?, 0i64)?.sum_dim(dims, keepdim)
    }

    /// The mean over dims (none: all) of what is not NaN.
    ///
    /// # Errors
    /// For integers and bools; if a dim is not there or named twice.
    pub fn nanmean(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        require_float("nanmean", self)?;
        let dims = dims.into();
        let count = self.isnan()?.logical_not()?.sum_dim(&dims, keepdim)?;
        self.nansum(&dims, keepdim)?.div(count.to_dtype(self.dtype())?)
    }

    /// [`Tensor::var_dim`] and the mean, over the same dims (none: all).
    ///
    /// # Errors
    /// As [`Tensor::var_dim`].
    pub fn var_mean(
        &self,
        dims: impl Into<IntArray>,
        correction: f64,
        keepdim: bool,
    ) -> Result<(Tensor, Tensor)> {
        let dims = dims.into();
        Ok((self.var_dim(&dims, correction, keepdim)?, self.mean_dim(&dims, keepdim)?))
    }

    /// [`Tensor::std_dim`] and the mean, over the same dims (none: all).
    ///
    /// # Errors
    /// As [`Tensor::std_dim`].
    pub fn std_mean(
        &self,
        dims: impl Into<IntArray>,
        correction: f64,
        keepdim: bool,
    ) -> Result<(Tensor, Tensor)> {
        let dims = dims.into();
        Ok((self.std_dim(&dims, correction, keepdim)?, self.mean_dim(&dims, keepdim)?))
    }

    /// Running products along a dim. Integers and bools give i64.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn cumprod(&self, dim: isize) -> Result<Tensor> {
        let at = normalize_dim("cumprod", dim, self.rank())?;
        let x = self.operand()?;
        let out = x.array.scan(ReduceOp::Prod, at)?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with("CumprodBackward0", move |c| {
                c.each(1, |_| running_product_backward(c.grad()?, &c.saved(0)?, at))
            })
            .save_input(inputs, 0)
        }))
    }

    /// The largest elements so far along a dim, and their indices (i64): of equal ones the last, which gets the gradient.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn cummax(&self, dim: isize) -> Result<(Tensor, Tensor)> {
        self.running_extreme("cummax", ReduceOp::Max, dim)
    }

    /// The smallest elements so far along a dim, and their indices (i64): of equal ones the last, which gets the gradient.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn cummin(&self, dim: isize) -> Result<(Tensor, Tensor)> {
        self.running_extreme("cummin", ReduceOp::Min, dim)
    }

    fn running_extreme(&self, op: &'static str, reduce: ReduceOp, dim: isize) -> Result<(Tensor, Tensor)> {
        let at = normalize_dim(op, dim, self.rank())?;
        let x = self.array()?;
        let best = x.scan(reduce, at)?;
        if self.rank() == 0 {
            let zero = Array::full(&[], Scalar::Int(0), DType::I64, self.device())?;
            return Ok((self.deep_clone()?, Tensor::from_array(zero)));
        }
        // The last place so far at which the running extreme was met; NaN, once met, stays.
        let own = Expr::of(&x);
        let mut hit = own.eq(&best);
        if self.dtype().is_float() {
            hit = hit.or(own.is_nan());
        }
        let place = Array::coordinate(self.shape(), at, self.device())?.cast(DType::I64)?;
        let index = hit.select(&place, Scalar::Int(0)).done()?.scan(ReduceOp::Max, at)?;
        let index = Tensor::from_array(index);
        Ok((self.gather(dim, &index)?, index))
    }

    /// `log(cumsum(exp(x)))` along a dim, without overflow.
    ///
    /// # Errors
    /// If there is no such dim, or the dtype is not a float one.
    pub fn logcumsumexp(&self, dim: isize) -> Result<Tensor> {
        const OP: &str = "logcumsumexp";
        require_float(OP, self)?;
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 || self.numel() == 0 {
            return self.deep_clone();
        }
        // Pairwise, doubling the reach: out[i] = logaddexp(out[i], out[i - reach]) keeps the digits that a common
        // shift would lose.
        let (mut out, size) = (self.clone(), self.shape()[at]);
        let mut reach = 1;
        while reach < size {
            let head = out.narrow(dim, 0, reach)?;
            let tail = out.narrow(dim, reach as isize, size - reach)?;
            let joined = tail.logaddexp(&out.narrow(dim, 0, size - reach)?)?;
            out = Tensor::cat(&[&head, &joined], dim)?;
            reach *= 2;
        }
        Ok(out)
    }
}

/// The gradient of running products: for each element the sum over later places of the gradient times all other factors.
///
/// Without zeros that is the reversed running sum of `grad * out`, divided by the element. In general each row is taken
/// apart into the products before and after an element, without division.
fn running_product_backward(grad: &Tensor, x: &Tensor, at: usize) -> Result<Tensor> {
    let (dim, rank) = (at as isize, x.rank());
    if rank == 0 || x.numel() == 0 {
        return Ok(grad.clone());
    }
    let size = x.shape()[at];
    // out[j] = x[0] … x[j]; its derivative by x[i] (i <= j) is the product of the others. With element i replaced by
    // 1 in copy i, the running product of copy i at j is just that.
    let mut wide = x.shape().to_vec();
    wide.insert(at, size);
    let copies = x.unsqueeze(dim)?.expand(&wide)?;
    let place = |dim| Array::coordinate(&wide, dim, x.device());
    let same = Tensor::from_array(Expr::from(place(at)).eq(Expr::from(place(at + 1))).done()?);
    let before = Tensor::from_array(Expr::from(place(at + 1)).lt(Expr::from(place(at))).done()?);
    let others = copies.masked_fill(&same, 1.0)?.cumprod(dim + 1)?.masked_fill(&before, 0.0)?;
    others.mul(grad.unsqueeze(dim)?)?.sum_dim(dim + 1, false)
}
