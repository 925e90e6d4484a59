//! Reductions that are made of others: counts, sums and means without NaN, pairs of statistics; and running products, extremes and
//! logarithms of sums.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{Array, DType, Expr, ReduceOp, Result, Scalar};

use crate::ops::reduce::require_float;
use crate::tape::{Derivative, record};
use crate::{IntArray, Tensor, is_grad_enabled};

/// # Statistics and running folds
#[wgrad_macros::call_sites]
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
        let sum = self.widened()?.nansum(&dims, keepdim)?;
        sum.div(count.to_dtype(sum.dtype())?)?.rounded_to(self.dtype())
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
                let [x] = c.tensors()?;
                c.each(1, |_| running_product_backward(c.grad()?, &x, at))
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

/// The gradient of running products: for each element the sum over it and later places of the gradient times all other factors.
///
/// Before the first zero of a row that is the sum of the gradient times the products, divided by the element, as in PyTorch: nothing there
/// is larger than what was multiplied. At the first zero it is the sum from there on of the gradient times the products without that zero;
/// behind it every product has the zero as another factor, and the gradient is 0.
fn running_product_backward(grad: &Tensor, x: &Tensor, at: usize) -> Result<Tensor> {
    if x.rank() == 0 || x.numel() == 0 {
        return Ok(grad.clone());
    }
    let last = |x: &Tensor| x.with_guard_digits()?.movedim(at, -1);
    let (grad, x) = (last(grad)?, last(x)?);
    if is_grad_enabled() && (grad.requires_grad() || x.requires_grad()) {
        return running_product_slopes(&grad, &x)?.movedim(-1, at);
    }
    let is_zero = x.eq(0.0)?;
    let after = is_zero.array()?.cast(DType::I32)?.scan(ReduceOp::Max, x.rank() - 1)?;
    let reached = Tensor::from_array(after.cast(DType::Bool)?).expr();
    let (grad, x) = (grad.expr(), &x.expr());
    let before = reached.pad(&[(1, -1)], false);
    let first = is_zero.expr().logical_and(before.logical_not());
    let terms = grad * first.where_cond(1.0, x).cumprod(-1);
    let at_first = reached.where_cond(&terms, 0.0).sum_dim(-1, true);
    let sums = reached.where_cond(0.0, terms).flip(-1).cumsum(-1).flip(-1);
    let behind = reached.where_cond(0.0, sums / x);
    first.where_cond(at_first, behind).movedim(-1, at).done()
}

/// The gradient of running products along the last dim, in a form whose own derivatives are right.
///
/// In a row with zeros it is the product of what comes before, times `s[i] = grad[i] + x[i + 1] s[i + 1]`, without a division, since a
/// derivative by a zero is not 0. Each way works with ones where the other one's result is taken.
fn running_product_slopes(grad: &Tensor, x: &Tensor) -> Result<Tensor> {
    let has_zero = x.expr().eq(0.0).any_dim(-1, true);
    let (factors, others) = (has_zero.where_cond(1.0, x), has_zero.where_cond(x, 1.0));
    let sums = (grad * factors.cumprod(-1)).flip(-1).cumsum(-1).flip(-1);
    let before = others.cumprod(-1).pad(&[(1, -1)], 1.0);
    let with_zeros = others.pad(&[(-1, 1)], 0.0).map(|factor| recurrence(factor, grad)) * before;
    has_zero.where_cond(with_zeros, sums / factors).done()
}

/// `s[i] = added[i] + factor[i] s[i + 1]` over the last dim, with 0 behind the end.
///
/// Two steps in a row are one of the same kind, over half as many places: first all steps are joined in pairs, then each level gives the one above
/// every second of its results. The work grows with the number of elements.
fn recurrence(factor: &Tensor, added: &Tensor) -> Result<Tensor> {
    let shape = added.shape();
    let size = shape[shape.len() - 1];
    let rows = added.numel() / size;
    let (mut factor, mut added) = (factor.reshape([rows, size])?, added.reshape([rows, size])?);
    let mut levels = Vec::new();
    while added.shape()[1] > 1 {
        let size = added.shape()[1];
        let pairs =
            |x: &Tensor| x.pad(&[(0, (size % 2) as isize)], 0.0)?.reshape([rows, size.div_ceil(2), 2]);
        let (factors, sums) = (pairs(&factor)?, pairs(&added)?);
        let (near, far) =
            ((factors.select(2, 0)?, sums.select(2, 0)?), (factors.select(2, 1)?, sums.select(2, 1)?));
        factor = near.0.mul(&far.0)?;
        added = near.0.mul(&far.1)?.add(near.1)?;
        levels.push((far, size));
    }
    let mut out = added;
    for ((factor, added), size) in levels.into_iter().rev() {
        let next = out.pad(&[(-1, 1)], 0.0)?;
        let far = factor.mul(next)?.add(added)?;
        out = Tensor::stack(&[&out, &far], 2)?.reshape([rows, 2 * far.shape()[1]])?.narrow(1, 0, size)?;
    }
    out.reshape(shape)
}
