//! Values combined at places that are values themselves.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{DType, Error, Result, Scalar, ScatterOp};

use crate::tape::{Context, Derivative, Grads, record};
use crate::{Tensor, TensorExpr};

/// How [`Tensor::scatter_reduce`] combines what meets in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterReduce {
    /// The sum.
    Sum,
    /// The product.
    Prod,
    /// The mean; of integers rounded down.
    Mean,
    /// The largest; equal ones share the gradient evenly.
    Amax,
    /// The smallest; equal ones share the gradient evenly.
    Amin,
}

/// # Scattering
#[wgrad_macros::call_sites]
impl Tensor {
    /// [`Tensor::scatter`] of one number.
    ///
    /// # Errors
    /// As [`Tensor::scatter`].
    pub fn scatter_value(&self, dim: isize, index: &Tensor, value: impl Into<Scalar>) -> Result<Tensor> {
        let value = Tensor::full(index.shape(), value, (self.dtype(), self.device()))?;
        self.scatter(dim, index, &value)
    }

    /// `out[.., index[.., i, ..], ..] *= src[.., i, ..]` along a dim, on a copy of this tensor; `scatter(reduce="multiply")`.
    ///
    /// # Errors
    /// As [`Tensor::scatter`].
    pub fn scatter_multiply(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        self.scatter_reduce(dim, index, src, ScatterReduce::Prod, true)
    }

    /// The elements of `src` that go to one place, combined with each other and, with `include_self`, with what this tensor has
    /// there: along a dim, on a copy of this tensor. Places that nothing goes to stay. The same result on every run.
    ///
    /// # Errors
    /// As [`Tensor::scatter_add`].
    pub fn scatter_reduce(
        &self,
        dim: isize,
        index: &Tensor,
        src: &Tensor,
        reduce: ScatterReduce,
        include_self: bool,
    ) -> Result<Tensor> {
        const OP: &str = "scatter_reduce";
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            let line = |x: &Tensor| if x.rank() == 0 { x.reshape(1) } else { Ok(x.clone()) };
            return line(self)?
                .scatter_reduce(0, &line(index)?, &line(src)?, reduce, include_self)?
                .reshape(())?
                .owned();
        }
        if src.dtype() != self.dtype() {
            let reason = format!("does not fit into {}; cast it first", self.dtype());
            return Err(Error::DType { op: OP, dtype: src.dtype(), reason });
        }
        let mut src = src.clone();
        if src.rank() == index.rank() {
            for (d, &len) in index.shape().iter().enumerate() {
                if len < src.shape()[d] {
                    src = src.narrow(d as isize, 0, len)?;
                }
            }
        }
        // Counts, and the sums that means are made of, in a dtype that holds them: hundreds of places are too many for u8 and bf16.
        let wide = if self.dtype().is_float() { self.widened()?.dtype() } else { DType::I64 };
        // Without this tensor's own values, places that something goes to start from what changes nothing.
        let ones = Tensor::ones(index.shape(), (wide, self.device()))?;
        let count = Tensor::zeros(self.shape(), (wide, self.device()))?.scatter_add(dim, index, &ones)?;
        let start = |neutral: Scalar| {
            let neutral = neutral.cast(self.dtype());
            if include_self { Ok(self.clone()) } else { self.masked_fill(&count.ne(0i64)?, neutral) }
        };
        match reduce {
            ScatterReduce::Sum => start(Scalar::Int(0))?.scatter_add(dim, index, &src),
            ScatterReduce::Mean => {
                let sum =
                    start(Scalar::Int(0))?.to_dtype(wide)?.scatter_add(dim, index, &src.to_dtype(wide)?)?;
                let divisor = if include_self { count.add(1i64)? } else { count.clamp_min(1i64)? };
                let mean = if wide.is_float() { sum.div(divisor)? } else { sum.floor_divide(divisor)? };
                mean.to_dtype(self.dtype())
            }
            ScatterReduce::Prod => start(Scalar::Int(1))?.scatter_product(at, index, &src),
            ScatterReduce::Amax => {
                start(lowest(self.dtype()))?.scatter_extreme(ScatterOp::Max, at, index, &src)
            }
            ScatterReduce::Amin => {
                start(largest(self.dtype()))?.scatter_extreme(ScatterOp::Min, at, index, &src)
            }
        }
    }

    fn scatter_extreme(&self, op: ScatterOp, dim: usize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let (x, s) = (self.operand()?, src.operand()?);
        let index = index.array()?;
        let out = x.array.scatter(op, dim, &index, &s.array)?;
        Ok(record(out, [x, s], |inputs, out| {
            Derivative::with("ScatterReduceBackward0", move |c: &Context| -> Result<Grads> {
                let (g, saved) = c.parts::<4>();
                let [x, s, out, index] = &saved.map(|saved| saved.detach());
                let dim = dim as isize;
                let own = x.eq(out);
                let other = s.eq(out.gather(dim, index));
                let winners = own.cast_as(x).scatter_add(dim, index, other.cast_as(x));
                let share = g / winners;
                c.gradients(2, |i| match i {
                    0 => share.keep_where(&own),
                    _ => share.gather(dim, index).keep_where(&other),
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
            .save_output(out)
            .save(&index)
        }))
    }

    fn scatter_product(&self, dim: usize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let (x, s) = (self.operand()?, src.operand()?);
        let index = index.array()?;
        let out = x.array.scatter(ScatterOp::Mul, dim, &index, &s.array)?;
        Ok(record(out, [x, s], |inputs, _| {
            Derivative::with("ScatterReduceBackward0", move |c| {
                let (g, [x, s, index]) = &c.parts();
                let at = dim as isize;
                c.gradients(2, |i| {
                    if i == 0 {
                        // The product of what came from the source.
                        return g * x.ones_like().scatter_product(dim, index, s);
                    }
                    // All factors but one: the whole product divided by it, or where it is the source's only zero, the
                    // product without it.
                    let zero = &s.eq(0.0);
                    let zeros = x.zeros_like().scatter_add(at, index, zero.cast_as(x));
                    let only = zero.logical_and(zeros.gather(at, index).eq(1.0));
                    let product = |s: &TensorExpr| x.scatter_product(dim, index, s).gather(at, index);
                    let rest = product(s) / s.masked_fill(zero, 1.0);
                    let rest = only.where_cond(product(&s.masked_fill(&only, 1.0)), rest);
                    g.gather(at, index) * rest
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
            .save(&index)
        }))
    }

    /// `self + alpha * source` at the slices of a dim that the index names; `index_add(alpha=…)`.
    ///
    /// # Errors
    /// As [`Tensor::index_add`].
    pub fn index_add_scaled(
        &self,
        dim: isize,
        index: &Tensor,
        source: &Tensor,
        alpha: impl Into<Scalar>,
    ) -> Result<Tensor> {
        let alpha = alpha.into();
        if alpha.as_f64() == 1.0 {
            return self.index_add(dim, index, source);
        }
        let scaled = source.mul(alpha)?;
        if scaled.dtype() != source.dtype() {
            let reason = format!("cannot be scaled by {alpha:?}; cast it first");
            return Err(Error::DType { op: "index_add", dtype: source.dtype(), reason });
        }
        self.index_add(dim, index, &scaled)
    }
}

/// What nothing is above.
fn largest(dtype: DType) -> Scalar {
    match dtype {
        DType::Bool => Scalar::Bool(true),
        DType::U8 => Scalar::Int(u8::MAX.into()),
        DType::I32 => Scalar::Int(i32::MAX.into()),
        DType::I64 => Scalar::Int(i64::MAX),
        _ => Scalar::Float(f64::INFINITY),
    }
}

/// What nothing is below.
fn lowest(dtype: DType) -> Scalar {
    match dtype {
        DType::Bool => Scalar::Bool(false),
        DType::U8 => Scalar::Int(0),
        DType::I32 => Scalar::Int(i32::MIN.into()),
        DType::I64 => Scalar::Int(i64::MIN),
        _ => Scalar::Float(f64::NEG_INFINITY),
    }
}
