//! Folding dims: sums, means, extremes, and running sums.
//!
//! Each reduction has a form over all dims (`sum()`) and one over some (`sum_dim(dims, keepdim)`, where no dims are all
//! dims, as in PyTorch). Halves are summed in f32.

pub(super) mod counting;
pub(super) mod statistics;

use wgrad_array::layout::{Dims, normalize_dim};
use wgrad_array::{Array, BinaryOp, DType, Error, Expr, ReduceOp, Result, Scalar, UnaryOp};

use crate::ops::norm::unit::Floor;
use crate::tape::{Derivative, record, record_outputs};
use crate::view::ViewStep;
use crate::{IntArray, Tensor, is_grad_enabled};

/// What a reduction folds.
#[derive(Clone)]
pub(super) struct Fold {
    /// The dims, counted from the front.
    pub(super) dims: Dims,
    /// The result's shape with folded dims of size 1.
    pub(super) kept: Dims,
    /// Elements folded into one.
    pub(super) count: usize,
}

impl Fold {
    pub(super) fn new(op: &'static str, shape: &[usize], dims: &IntArray) -> Result<Fold> {
        let dims = dims.reduced(op, shape.len())?;
        let kept = shape.iter().enumerate().map(|(d, &n)| if dims.contains(&d) { 1 } else { n }).collect();
        let count = dims.iter().map(|&d| shape[d]).product();
        Ok(Fold { dims, kept, count })
    }

    /// The sizes of the dims that are not folded.
    fn left(&self, shape: &[usize]) -> Dims {
        shape.iter().enumerate().filter(|(d, _)| !self.dims.contains(d)).map(|(_, &n)| n).collect()
    }

    /// A result, or its gradient, back at the input's shape.
    pub(super) fn spread(&self, folded: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let kept = if folded.shape() == self.kept.as_slice() {
            folded.clone()
        } else {
            folded.view_value(&ViewStep::Reshape { from: folded.0.shape.clone(), to: self.kept.clone() })?
        };
        kept.expand_value(shape)
    }
}

/// Halves in f32: reductions and what is built of them are computed there and rounded once.
pub(super) fn widened(x: &Array) -> Result<Array> {
    if x.dtype().is_half() { x.cast(DType::F32) } else { Ok(x.clone()) }
}

/// # Reductions
#[wgrad_macros::call_sites]
impl Tensor {
    /// A half in f32, others as they are.
    pub(crate) fn widened(&self) -> Result<Tensor> {
        if self.dtype().is_half() { self.to_dtype(DType::F32) } else { Ok(self.clone()) }
    }

    /// [`Tensor::widened`] of a tensor that nobody needs any more.
    pub(crate) fn into_widened(self) -> Result<Tensor> {
        if self.dtype().is_half() { self.to_dtype(DType::F32) } else { Ok(self) }
    }

    /// What was computed in f32 as the half that it is a result of; for other dtypes as it is.
    pub(crate) fn rounded_to(&self, dtype: DType) -> Result<Tensor> {
        if dtype.is_half() { self.to_dtype(dtype) } else { Ok(self.clone()) }
    }

    /// In the dtype of another tensor.
    pub(super) fn cast_as(&self, other: &Tensor) -> Result<Tensor> {
        self.to_dtype(other.dtype())
    }

    /// A result of a reduction, or its gradient, back at the shape of its input.
    pub(super) fn spread(&self, fold: &Fold, input: &Tensor) -> Result<Tensor> {
        fold.spread(self, input.shape())
    }

    /// A result of a reduction, or its gradient, with folded dims of size 1.
    pub(super) fn kept(&self, fold: &Fold) -> Result<Tensor> {
        fold.spread(self, &fold.kept)
    }

    /// In f64 on the CPU, which is quick at it; elsewhere as [`Tensor::widened`].
    pub(crate) fn widest(&self) -> Result<Tensor> {
        if self.device().is_cpu() { self.to_dtype(DType::F64) } else { self.widened() }
    }

    /// What a derivative is computed from whose own derivative has terms that cancel: [`Tensor::widest`] where gradients of gradients
    /// are recorded.
    pub(crate) fn with_guard_digits(&self) -> Result<Tensor> {
        if is_grad_enabled() { self.widest() } else { self.widened() }
    }
}

/// A floating-point tensor, or an error.
pub(super) fn require_float(op: &'static str, x: &Tensor) -> Result<()> {
    if x.dtype().is_float() {
        return Ok(());
    }
    Err(Error::DType {
        op,
        dtype: x.dtype(),
        reason: "is not a floating-point dtype; cast the tensor with to_dtype first".into(),
    })
}

/// # Sums, means and extremes
#[wgrad_macros::call_sites]
impl Tensor {
    /// The sum of all elements. Integers and bools give i64.
    pub fn sum(&self) -> Result<Tensor> {
        self.sum_folded("SumBackward0", &IntArray::from(()), false)
    }

    /// The sum over dims.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn sum_dim(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.sum_folded("SumBackward1", &dims.into(), keepdim)
    }

    fn sum_folded(&self, node: &'static str, dims: &IntArray, keepdim: bool) -> Result<Tensor> {
        let fold = Fold::new("sum", self.shape(), dims)?;
        let x = self.operand()?;
        let out = x.array.reduce(ReduceOp::Sum, &fold.dims, keepdim)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with(node, move |c| c.each(1, |_| fold.spread(c.grad()?, &c.input_shape(0)?)))
        }))
    }

    /// The sum down to a shape that broadcasts to this one: what undoes a broadcast in its gradient.
    pub(crate) fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let new = self.rank() - shape.len();
        let summed = |d: usize| d < new || (shape[d - new] == 1 && self.shape()[d] != 1);
        let dims: Dims = (0..self.rank()).filter(|&d| summed(d)).collect();
        let x = self.operand()?;
        let out = x.array.reduce(ReduceOp::Sum, &dims, true)?.reshape(shape)?;
        Ok(record(out, [x], |_, _| {
            Derivative::new("SumBackward1", |c| c.each(1, |_| c.grad()?.expand_value(&c.input_shape(0)?)))
        }))
    }

    /// The mean of all elements.
    ///
    /// # Errors
    /// For integers and bools: cast them first.
    pub fn mean(&self) -> Result<Tensor> {
        self.mean_folded("MeanBackward0", &IntArray::from(()), false)
    }

    /// The mean over dims.
    ///
    /// # Errors
    /// For integers and bools; if a dim is not there or named twice.
    pub fn mean_dim(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.mean_folded("MeanBackward1", &dims.into(), keepdim)
    }

    fn mean_folded(&self, node: &'static str, dims: &IntArray, keepdim: bool) -> Result<Tensor> {
        require_float("mean", self)?;
        let fold = Fold::new("mean", self.shape(), dims)?;
        let x = self.operand()?;
        let scale = 1.0 / fold.count as f64;
        let sum = widened(&x.array)?.reduce(ReduceOp::Sum, &fold.dims, keepdim)?;
        let out = sum.binary_scalar(BinaryOp::Mul, scale)?.cast(self.dtype())?;
        Ok(record(out, [x], |_, _| {
            Derivative::with(node, move |c| {
                c.each(1, |_| fold.spread(&c.grad()?.mul(scale)?, &c.input_shape(0)?))
            })
        }))
    }

    /// The product of all elements. Integers and bools give i64.
    pub fn prod(&self) -> Result<Tensor> {
        self.prod_folded("ProdBackward0", &IntArray::from(()), false)
    }

    /// The product over one dim.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn prod_dim(&self, dim: isize, keepdim: bool) -> Result<Tensor> {
        self.prod_folded("ProdBackward1", &IntArray::from(dim), keepdim)
    }

    fn prod_folded(&self, node: &'static str, dims: &IntArray, keepdim: bool) -> Result<Tensor> {
        let fold = Fold::new("prod", self.shape(), dims)?;
        let x = self.operand()?;
        let out = x.array.reduce(ReduceOp::Prod, &fold.dims, keepdim)?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::with(node, move |c| {
                let [x] = c.tensors()?;
                c.each(1, |_| products_of_others(&x, c.grad()?, &fold))
            })
            .save_input(inputs, 0)
        }))
    }

    /// The largest element over dims; equal ones share the gradient evenly.
    ///
    /// # Errors
    /// If a dim is not there or named twice, or there are no elements to choose from.
    pub fn amax(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.extreme("amax", "AmaxBackward0", ReduceOp::Max, &dims.into(), keepdim, false)
    }

    /// The smallest element over dims; equal ones share the gradient evenly.
    ///
    /// # Errors
    /// As [`Tensor::amax`].
    pub fn amin(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.extreme("amin", "AminBackward0", ReduceOp::Min, &dims.into(), keepdim, false)
    }

    /// The largest of all elements; equal ones share the gradient evenly.
    ///
    /// # Errors
    /// If there are no elements.
    pub fn max(&self) -> Result<Tensor> {
        self.extreme("max", "MaxBackward1", ReduceOp::Max, &IntArray::from(()), false, true)
    }

    /// The smallest of all elements; equal ones share the gradient evenly.
    ///
    /// # Errors
    /// If there are no elements.
    pub fn min(&self) -> Result<Tensor> {
        self.extreme("min", "MinBackward1", ReduceOp::Min, &IntArray::from(()), false, true)
    }

    /// An extreme whose gradient equal elements share evenly; with `nan_shares` where it is NaN those that are NaN, else none of the row.
    pub(super) fn extreme(
        &self,
        name: &'static str,
        node: &'static str,
        op: ReduceOp,
        dims: &IntArray,
        keepdim: bool,
        nan_shares: bool,
    ) -> Result<Tensor> {
        let fold = Fold::new(name, self.shape(), dims)?;
        let x = self.operand()?;
        let out = x.array.reduce(op, &fold.dims, keepdim)?;
        Ok(record(out, [x], |inputs, out| {
            Derivative::with(node, move |c| {
                c.gradient(|| {
                    let (g, saved) = c.parts::<2>();
                    let [x, y] = &saved.map(|value| value.detach().widened());
                    let y = &y.spread(&fold, x);
                    let mut winners = x.eq(y);
                    if nan_shares {
                        winners = winners.logical_or(x.isnan().logical_and(y.isnan()));
                    }
                    // Nothing equals NaN: 0 / 0 for the whole row, as in PyTorch.
                    let count = winners.cast_as(x).sum_dim(&fold.dims, true);
                    let share = g.kept(&fold).widened() / &count;
                    let rest = count.eq(0.0).where_cond(f64::NAN, count.zeros_like());
                    winners.where_cond(share.spread(&fold, x), rest.spread(&fold, x))
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The largest elements along a dim, and their indices (i64): of equal ones the first, which gets the gradient.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn max_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        self.extreme_dim("max", "MaxBackward0", ReduceOp::Max, ReduceOp::ArgMax, dim, keepdim)
    }

    /// The smallest elements along a dim, and their indices (i64): of equal ones the first, which gets the gradient.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn min_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        self.extreme_dim("min", "MinBackward0", ReduceOp::Min, ReduceOp::ArgMin, dim, keepdim)
    }

    fn extreme_dim(
        &self,
        name: &'static str,
        node: &'static str,
        op: ReduceOp,
        arg: ReduceOp,
        dim: isize,
        keepdim: bool,
    ) -> Result<(Tensor, Tensor)> {
        let fold = Fold::new(name, self.shape(), &IntArray::from(dim))?;
        let x = self.operand()?;
        let values = x.array.reduce(op, &fold.dims, keepdim)?;
        let indices = x.array.reduce(arg, &fold.dims, keepdim)?;
        let mut outputs = record_outputs(vec![values, indices.clone()], [x], |_, _| {
            Derivative::with(node, move |c| {
                c.each(1, |_| {
                    let (shape, [indices]) = (c.input_shape(0)?, c.tensors()?);
                    let grad = fold.spread(c.grad()?, &shape)?;
                    let Some(&dim) = fold.dims.first() else { return Ok(grad) };
                    let place = Array::coordinate(&shape, dim, grad.device())?;
                    let place = Tensor::from_array(place.cast(DType::I64)?);
                    grad.keep_where(&place.eq(fold.spread(&indices, &shape)?)?)
                })
            })
            .save(&indices)
        });
        match (outputs.pop(), outputs.pop()) {
            (Some(indices), Some(values)) => Ok((values, indices)),
            _ => unreachable!("two outputs were recorded"),
        }
    }

    /// The position (i64) of the first largest element in row-major order.
    ///
    /// # Errors
    /// If there are no elements.
    pub fn argmax(&self) -> Result<Tensor> {
        self.position("argmax", ReduceOp::ArgMax, &IntArray::from(()), false)
    }

    /// The position (i64) of the first largest element along a dim.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn argmax_dim(&self, dim: isize, keepdim: bool) -> Result<Tensor> {
        self.position("argmax", ReduceOp::ArgMax, &IntArray::from(dim), keepdim)
    }

    /// The position (i64) of the first smallest element in row-major order.
    ///
    /// # Errors
    /// If there are no elements.
    pub fn argmin(&self) -> Result<Tensor> {
        self.position("argmin", ReduceOp::ArgMin, &IntArray::from(()), false)
    }

    /// The position (i64) of the first smallest element along a dim.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn argmin_dim(&self, dim: isize, keepdim: bool) -> Result<Tensor> {
        self.position("argmin", ReduceOp::ArgMin, &IntArray::from(dim), keepdim)
    }

    fn position(&self, name: &'static str, op: ReduceOp, dims: &IntArray, keepdim: bool) -> Result<Tensor> {
        let fold = Fold::new(name, self.shape(), dims)?;
        Ok(Tensor::from_array(self.array()?.reduce(op, &fold.dims, keepdim)?))
    }

    /// Whether any element is not 0.
    pub fn any(&self) -> Result<Tensor> {
        self.any_dim((), false)
    }

    /// Whether any element over dims is not 0.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn any_dim(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.truth_of("any", ReduceOp::Max, &dims.into(), keepdim)
    }

    /// Whether all elements are not 0.
    pub fn all(&self) -> Result<Tensor> {
        self.all_dim((), false)
    }

    /// Whether all elements over dims are not 0.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn all_dim(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        self.truth_of("all", ReduceOp::Min, &dims.into(), keepdim)
    }

    fn truth_of(&self, name: &'static str, op: ReduceOp, dims: &IntArray, keepdim: bool) -> Result<Tensor> {
        let fold = Fold::new(name, self.shape(), dims)?;
        let out = self.array()?.cast(DType::Bool)?.reduce(op, &fold.dims, keepdim)?;
        // As in PyTorch, u8 stays u8 here.
        Ok(Tensor::from_array(if self.dtype() == DType::U8 { out.cast(DType::U8)? } else { out }))
    }

    /// The variance of all elements, divided by their number less 1.
    ///
    /// # Errors
    /// For integers and bools: cast them first.
    pub fn var(&self) -> Result<Tensor> {
        self.var_dim((), 1.0, false)
    }

    /// The variance over dims: the mean square distance from the mean, with `correction` (usually 1) taken off the
    /// number of elements that it is divided by.
    ///
    /// # Errors
    /// For integers and bools; if a dim is not there or named twice.
    pub fn var_dim(&self, dims: impl Into<IntArray>, correction: f64, keepdim: bool) -> Result<Tensor> {
        self.spread_of("var", &dims.into(), correction, keepdim)
    }

    /// The standard deviation of all elements: the square root of [`Tensor::var`].
    ///
    /// # Errors
    /// As [`Tensor::var`].
    pub fn std(&self) -> Result<Tensor> {
        self.std_dim((), 1.0, false)
    }

    /// The standard deviation over dims: the square root of [`Tensor::var_dim`].
    ///
    /// # Errors
    /// As [`Tensor::var_dim`].
    pub fn std_dim(&self, dims: impl Into<IntArray>, correction: f64, keepdim: bool) -> Result<Tensor> {
        self.spread_of("std", &dims.into(), correction, keepdim)
    }

    fn spread_of(&self, op: &'static str, dims: &IntArray, correction: f64, keepdim: bool) -> Result<Tensor> {
        require_float(op, self)?;
        let fold = Fold::new(op, self.shape(), dims)?;
        let x = self.operand()?;
        let divisor = fold.count as f64 - correction;
        let scale = 1.0 / divisor.max(0.0);
        // Where elements do not suffice the variance is not a number, but over given dims its gradient is that of the formula.
        let of_all = dims.as_slice().is_empty();
        let slope = if of_all { 2.0 * scale } else { 2.0 / divisor };
        let is_std = op == "std";
        let wide = widened(&x.array)?;
        let out = match (wide.dtype(), self.device().is_cpu()) {
            // As in PyTorch: differences and squares of f32 may be beyond all of f32.
            (DType::F32, true) => {
                let distance = distances(&wide.cast(DType::F64)?, &fold)?;
                let squares = distance.binary(BinaryOp::Mul, &distance)?;
                let sum = squares.reduce(ReduceOp::Sum, &fold.dims, keepdim)?;
                let var = sum.binary_scalar(BinaryOp::Mul, scale)?;
                if is_std { var.unary(UnaryOp::Sqrt)? } else { var }
            }
            (DType::F32, false) if fold.count > 0 => {
                let out = deviation_in_f32(&wide, &fold, scale, is_std)?;
                if keepdim { out } else { out.reshape(&fold.left(self.shape()))? }
            }
            _ => distances(&wide, &fold)?.sum_of_squares(&fold.dims, keepdim, scale, is_std)?,
        };
        let out = out.cast(self.dtype())?;
        let node = if is_std { "StdBackward0" } else { "VarBackward0" };
        Ok(record(out, [x], |inputs, out| {
            let derivative = Derivative::with(node, move |c| {
                c.gradient(|| {
                    // A variance saves no result.
                    let (g, [x, std]) = c.parts();
                    let (mut g, x) = (g.with_guard_digits(), x.with_guard_digits());
                    let distance = &x - x.mean_dim(&fold.dims, true);
                    if is_std && divisor > 0.0 {
                        // The distances over their length, 0 where that is 0.
                        let std = std.widened().kept(&fold);
                        let (unit, length) = if is_grad_enabled() {
                            // A mean of equal elements may differ from them in its last bit, which is no direction.
                            let distance = distance.masked_fill(std.eq(0.0), 0.0);
                            (distance.over_norm(2.0, &fold, Floor::Zero), divisor.sqrt())
                        } else {
                            (distance.over(std, 2.0, Floor::Zero), divisor)
                        };
                        return (g * (1.0 / length)).spread(&fold, x) * unit;
                    }
                    if is_std {
                        let std = std.cast_as(&g);
                        g = (g / (&std * 2.0)).masked_fill(std.eq(0.0), 0.0);
                    }
                    if of_all && divisor <= 0.0 {
                        // Infinitely steep whichever way an element moves, but undefined at the mean.
                        let slope = distance.eq(0.0).where_cond(f64::NAN, distance.full_like(f64::INFINITY));
                        return g.spread(&fold, x) * slope;
                    }
                    (g * slope).spread(&fold, x) * distance
                })
            });
            let derivative = derivative.save_input(inputs, 0);
            if is_std { derivative.save_output(out) } else { derivative }
        }))
    }

    /// `log(sum(exp(x)))` over dims, without overflow. Where all elements are -inf, so is the result, and the gradient is 0 (in PyTorch
    /// NaN): rows that are masked as a whole do not spoil what they are summed with.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn logsumexp(&self, dims: impl Into<IntArray>, keepdim: bool) -> Result<Tensor> {
        let fold = Fold::new("logsumexp", self.shape(), &dims.into())?;
        let x = self.operand()?;
        let dtype = self.dtype().floating();
        let wide = widened(&x.array.cast(dtype)?)?;
        let out = logsumexp_array(&wide, &fold, keepdim)?.cast(dtype)?;
        Ok(record(out, [x], |inputs, out| {
            Derivative::with("LogsumexpBackward0", move |c| {
                c.gradient(|| {
                    let (g, [x, y]) = &c.parts();
                    // Where all are -inf, none has a share, also in derivatives of this one.
                    let y = y.masked_fill(y.eq(f64::NEG_INFINITY), 0.0);
                    let share = (x - y.spread(&fold, x)).exp();
                    g.spread(&fold, x) * share
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// Running sums along a dim. Integers and bools give i64.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn cumsum(&self, dim: isize) -> Result<Tensor> {
        let dim = normalize_dim("cumsum", dim, self.rank())?;
        let x = self.operand()?;
        let out = x.array.scan(ReduceOp::Sum, dim)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with("CumsumBackward0", move |c| {
                let dim = dim as isize;
                c.gradient(|| c.g().flip(dim).cumsum(dim).flip(dim))
            })
        }))
    }
}

/// The first elements along dims, which keep their places with size 1.
fn first(x: &Array, dims: &[usize]) -> Result<Array> {
    dims.iter().try_fold(x.clone(), |x, &dim| x.slice(dim, 0, 1, 1))
}

/// The distances of elements from the mean of their row, counted from the row's first element, so that equal ones have no variance at all.
fn distances(x: &Array, fold: &Fold) -> Result<Array> {
    let x = if fold.count == 0 { x.clone() } else { x.binary(BinaryOp::Sub, &first(x, &fold.dims)?)? };
    let mean = x.reduce(ReduceOp::Sum, &fold.dims, true)?;
    x.binary(BinaryOp::Sub, &mean.binary_scalar(BinaryOp::Mul, 1.0 / fold.count as f64)?)
}

/// The variance, or its root, with sums in f32 and folded dims of size 1. Rows whose differences or their sum may be beyond f32 are made
/// smaller by a power of two first; which rows these are is found along with the mean.
fn deviation_in_f32(x: &Array, fold: &Fold, scale: f64, root: bool) -> Result<Array> {
    let down = (-2.0 - (fold.count as f64).log2().ceil()).exp2();
    let sum = |x: &Expr| x.map(|x| x.reduce(ReduceOp::Sum, &fold.dims, true));
    let from_first = |x: Expr| &x - x.map(|x| first(x, &fold.dims));
    let (usual, small) = (from_first(Expr::of(x)), from_first(Expr::of(x) * down));
    // Where all of them together are below a quarter of the largest number, no distance from the mean is beyond it.
    let large = sum(&usual.abs()).lt(126f64.exp2()).not();
    let mean = large.select(sum(&small), sum(&usual)) * (1.0 / fold.count as f64);
    let distance = large.select(small, usual) - mean;
    let out = distance.map(|distance| distance.sum_of_squares(&fold.dims, true, scale, root));
    let up = 1.0 / down;
    large.select(if root { &out * up } else { &out * up * up }, out).done()
}

fn logsumexp_array(x: &Array, fold: &Fold, keepdim: bool) -> Result<Array> {
    if fold.count == 0 {
        let empty = x.reduce(ReduceOp::Sum, &fold.dims, keepdim)?;
        return Array::full(empty.shape(), Scalar::Float(f64::NEG_INFINITY), x.dtype(), x.device());
    }
    let max = Expr::from(x.reduce(ReduceOp::Max, &fold.dims, true));
    // Infinite shifts would give inf - inf.
    let shift = max.is_finite().select(&max, Scalar::Int(0));
    let sum = (Expr::of(x) - &shift).exp().map(|exp| exp.reduce(ReduceOp::Sum, &fold.dims, true));
    let out = (sum.log() + shift).done()?;
    if keepdim { Ok(out) } else { out.reshape(x.reduce(ReduceOp::Max, &fold.dims, false)?.shape()) }
}

/// For each element, `grad` times the product of all *other* elements it is folded with.
///
/// A tree of products upwards, then the gradients down it: no division, so zeros are no matter, in derivatives of any
/// order. Each of the products of thousands of elements gathers as many roundings.
fn products_of_others(x: &Tensor, grad: &Tensor, fold: &Fold) -> Result<Tensor> {
    if x.numel() == 0 || fold.count <= 1 {
        return fold.spread(grad, x.shape());
    }
    let (x, grad) = (x.widest()?, grad.widest()?);
    // Folded dims last, as one.
    let order: smallvec::SmallVec<[usize; 4]> =
        (0..x.rank()).filter(|d| !fold.dims.contains(d)).chain(fold.dims.iter().copied()).collect();
    let moved = x.view_value(&ViewStep::Permute { dims: order.clone() })?;
    let rows = x.numel() / fold.count;
    let size = fold.count.next_power_of_two();
    let mut level = moved.reshape([rows, fold.count])?;
    if size > fold.count {
        let ones = Tensor::full([rows, size - fold.count], 1.0, (x.dtype(), x.device()))?;
        level = Tensor::cat(&[&level, &ones], 1)?;
    }
    let mut halves = Vec::new();
    while level.shape()[1] > 1 {
        let pairs = level.reshape([rows, level.shape()[1] / 2, 2])?;
        let (left, right) = (pairs.select(2, 0)?, pairs.select(2, 1)?);
        level = left.mul(&right)?;
        halves.push((left, right));
    }
    let mut down = grad.reshape([rows, 1])?;
    for (left, right) in halves.iter().rev() {
        down =
            Tensor::stack(&[&down.mul(right)?, &down.mul(left)?], 2)?.reshape([rows, down.shape()[1] * 2])?;
    }
    down.narrow(1, 0, fold.count)?.reshape(moved.shape())?.unpermute(&order)
}
