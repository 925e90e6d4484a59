//! Reading and adding at places that are values themselves. Indices are i64 or i32, counted from the front; one that is out of range is an
//! [`Error::Index`](crate::Error::Index): of the call where its value is at hand (on the CPU, or given from this machine's memory), else of whoever
//! reads what depends on it.

pub(super) mod positions;
pub(super) mod scatter;
pub(super) mod selection;

use wgrad_array::layout::{Dims, normalize_dim};
use wgrad_array::{Array, BinaryOp, DType, Error, Result, Scalar, ScatterOp, WithOpName};

use crate::tape::{Derivative, record};
use crate::view::{Squeeze, ViewStep};
use crate::{AsTensor, Tensor};

/// # Reading and adding at indices
#[wgrad_macros::call_sites]
impl Tensor {
    /// `out[.., i, ..] = self[.., index[.., i, ..], ..]` along a dim, with the index's shape.
    ///
    /// # Errors
    /// If there is no such dim, or the index has another number of dims, larger sizes beside the dim, or no integer dtype.
    pub fn gather(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let dim = normalize_dim("gather", dim, self.rank())?;
        let x = self.operand()?;
        let index = index.array()?;
        let out =
            if self.rank() == 0 { scalar_gather(&x.array, &index)? } else { x.array.gather(dim, &index)? };
        Ok(record(out, [x], |_, _| {
            Derivative::with("GatherBackward0", move |c| {
                c.each(1, |_| {
                    let (shape, (g, [index])) = (c.input_shape(0)?, c.parts());
                    g.zeros_of(&shape).scatter_add(dim as isize, index, &g).done()
                })
            })
            .save(&index)
        }))
    }

    /// `out[.., index[.., i, ..], ..] += src[.., i, ..]` along a dim, on a copy of this tensor. The same result on every run.
    ///
    /// # Errors
    /// As [`Tensor::gather`]; and if `src` has another dtype or is smaller than the index.
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        self.scattered("scatter_add", ScatterOp::Add, dim, index, src)
    }

    /// `out[.., index[.., i, ..], ..] = src[.., i, ..]` along a dim, on a copy of this tensor. Of several values for one
    /// place the last stays.
    ///
    /// # Errors
    /// As [`Tensor::scatter_add`].
    pub fn scatter(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        self.scattered("scatter", ScatterOp::Assign, dim, index, src)
    }

    fn scattered(
        &self,
        name: &'static str,
        op: ScatterOp,
        dim: isize,
        index: &Tensor,
        src: &Tensor,
    ) -> Result<Tensor> {
        let dim = normalize_dim(name, dim, self.rank())?;
        if self.rank() == 0 {
            let line = |x: &Tensor| if x.rank() == 0 { x.unsqueeze(0) } else { Ok(x.clone()) };
            return line(self)?.scattered(name, op, 0, &line(index)?, &line(src)?)?.squeeze_dim(0);
        }
        let mut src = src.clone();
        if src.rank() == index.rank() {
            for (d, &len) in index.shape().iter().enumerate() {
                if len < src.shape()[d] {
                    src = src.view_value(&ViewStep::Slice { dim: d, start: 0, len, step: 1 })?;
                }
            }
        }
        let (x, s) = (self.operand()?, src.operand()?);
        let index = index.array()?;
        let out = x.array.scatter(op, dim, &index, &s.array).named(name)?;
        let adds = op == ScatterOp::Add;
        let node = if adds { "ScatterAddBackward0" } else { "ScatterBackward0" };
        Ok(record(out, [x, s], |_, _| {
            Derivative::with(node, move |c| {
                let (g, [index]) = &c.parts();
                let dim = dim as isize;
                c.gradients(2, |i| match i {
                    0 if adds => g.clone(),
                    0 => g.scatter(dim, index, index.map(|index| g.as_tensor()?.zeros_of(index.shape()))),
                    _ => g.gather(dim, index),
                })
            })
            .save(&index)
        }))
    }

    /// Whole slices along a dim: `out[.., i, ..] = self[.., index[i], ..]`.
    ///
    /// # Errors
    /// If there is no such dim, or the index is not a list of integers.
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let dim = normalize_dim("index_select", dim, self.rank())?;
        let x = self.operand()?;
        let index = listed(&index.array()?)?;
        let out = if self.rank() == 0 {
            scalar_gather(&x.array, &index)?.reshape(&[])?
        } else {
            x.array.index_select(dim, &index)?
        };
        Ok(record(out, [x], |_, _| {
            Derivative::with("IndexSelectBackward0", move |c| {
                c.each(1, |_| {
                    let (shape, (g, [index])) = (c.input_shape(0)?, c.parts());
                    if shape.is_empty() {
                        return g.done();
                    }
                    g.zeros_of(&shape).index_add(dim as isize, index, &g).done()
                })
            })
            .save(&index)
        }))
    }

    /// `out[.., index[i], ..] += source[.., i, ..]` along a dim, on a copy of this tensor. The same result on every run.
    ///
    /// # Errors
    /// As [`Tensor::index_select`]; and if the source has another dtype or shape.
    pub fn index_add(&self, dim: isize, index: &Tensor, source: &Tensor) -> Result<Tensor> {
        let dim = normalize_dim("index_add", dim, self.rank())?;
        if self.rank() == 0 {
            return self.add(source.reshape(())?);
        }
        let (x, s) = (self.operand()?, source.operand()?);
        let index = listed(&index.array()?)?;
        let out = x.array.index_scatter(ScatterOp::Add, dim, &index, &s.array)?;
        Ok(record(out, [x, s], |_, _| {
            Derivative::with("IndexAddBackward0", move |c| {
                let (g, [index]) = c.parts();
                c.gradients(2, |i| if i == 0 { g.clone() } else { g.index_select(dim as isize, &index) })
            })
            .save(&index)
        }))
    }

    /// Rows of a table for these indices, which may have any shape: the result has one more dim. The row `padding_idx`
    /// (which may be negative) gets no gradient.
    ///
    /// # Errors
    /// If this tensor holds no integers, or `weight` is not a matrix.
    pub fn embedding(&self, weight: &Tensor, padding_idx: impl Into<Option<isize>>) -> Result<Tensor> {
        self.embedding_with(weight, padding_idx, false)
    }

    /// [`Tensor::embedding`]; with `scale_grad_by_freq` a row's gradient is divided by how often its index occurs.
    ///
    /// # Errors
    /// As [`Tensor::embedding`].
    pub fn embedding_with(
        &self,
        weight: &Tensor,
        padding_idx: impl Into<Option<isize>>,
        scale_grad_by_freq: bool,
    ) -> Result<Tensor> {
        const OP: &str = "embedding";
        let &[rows, width] = weight.shape() else {
            let reason = "is not a matrix; the table has one row for each index".to_owned();
            return Err(Error::Shape { op: OP, shape: weight.shape().to_vec(), reason });
        };
        let padding = match padding_idx.into() {
            None => None,
            Some(row) => match if row < 0 { row + rows as isize } else { row } {
                at if (0..rows as isize).contains(&at) => Some(at as i64),
                _ => return Err(Error::Index { op: OP, index: row as i64, size: rows, called_at: None }),
            },
        };
        let w = weight.operand()?;
        let index = self.array()?;
        let flat = index.reshape(&[index.elements()])?;
        let mut shape: Dims = index.shape().into();
        shape.push(width);
        let out = w.array.index_select(0, &flat).named(OP)?.reshape(&shape)?;
        Ok(record(out, [w], |_, _| {
            Derivative::with("EmbeddingBackward0", move |c| {
                c.each(1, |_| {
                    let (g, [flat]) = (c.grad()?, c.tensors()?);
                    let to: Dims = [flat.numel(), width][..].into();
                    let mut g = g.view_value(&ViewStep::Reshape { from: g.0.shape.clone(), to })?;
                    if let Some(row) = padding {
                        g = g.masked_fill(&flat.eq(row)?.unsqueeze(1)?, 0.0)?;
                    }
                    if scale_grad_by_freq {
                        return g.added_by_frequency(&flat, rows);
                    }
                    g.zeros_of(&[rows, width])?.index_add(0, &flat, &g)
                })
            })
            .save(&flat)
        }))
    }

    /// Rows added up at their indices, each divided by how often its index occurs. Its own derivative leaves that
    /// division out, as PyTorch's does.
    fn added_by_frequency(&self, index: &Tensor, rows: usize) -> Result<Tensor> {
        let g = self.operand()?;
        let flat = index.array()?;
        let zeros = |shape: &[usize]| Array::full(shape, 0.0, self.dtype(), self.device());
        let ones = Array::full(&[index.numel()], 1.0, self.dtype(), self.device())?;
        let counts = zeros(&[rows])?.index_scatter(ScatterOp::Add, 0, &flat, &ones)?;
        let each = counts.index_select(0, &flat)?.reshape(&[index.numel(), 1])?;
        let scaled = g.array.binary(BinaryOp::Div, &each)?;
        let out = zeros(&[rows, self.shape()[1]])?.index_scatter(ScatterOp::Add, 0, &flat, &scaled)?;
        Ok(record(out, [g], |_, _| {
            Derivative::new("EmbeddingDenseBackwardBackward0", |c| {
                c.gradient(|| {
                    let (g, [flat]) = c.parts();
                    g.index_select(0, flat)
                })
            })
            .save(&flat)
        }))
    }

    /// For each index a row of zeros with a one at its place, as i64. Without a number of classes it is the largest index and one,
    /// which has to be read for it.
    ///
    /// # Errors
    /// If this tensor does not hold i64 or i32; an index out of range is an error of the call, or of the read if it was computed.
    pub fn one_hot(&self, classes: impl Into<Option<usize>>) -> Result<Tensor> {
        const OP: &str = "one_hot";
        let index = self.array()?;
        if !matches!(index.dtype(), DType::I64 | DType::I32) {
            let reason = "cannot be classes; cast them to i64".to_owned();
            return Err(Error::DType { op: OP, dtype: index.dtype(), reason });
        }
        let classes = match classes.into() {
            Some(classes) => classes,
            None if index.elements() == 0 => {
                let reason = "has no elements to find the number of classes from; give it".to_owned();
                return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
            }
            None => usize::try_from(self.max()?.item::<i64>()?).map_or(0, |largest| largest + 1),
        };
        let mut shape: Dims = index.shape().into();
        shape.push(classes);
        wgrad_array::layout::checked_elements(OP, &shape)?;
        let zeros = Array::full(&shape, Scalar::Int(0), DType::I64, self.device())?;
        let index = index.unsqueeze(index.rank())?;
        let ones = Array::full(index.shape(), Scalar::Int(1), DType::I64, self.device())?;
        let hot = zeros.scatter(ScatterOp::Assign, shape.len() - 1, &index, &ones).named(OP)?;
        Ok(Tensor::from_array(hot))
    }
}

/// A 0-dim index is a list of one.
fn listed(index: &Array) -> Result<Array> {
    if index.rank() == 0 { index.reshape(&[1]) } else { Ok(index.clone()) }
}

/// A 0-dim tensor read as a list of one.
fn scalar_gather(x: &Array, index: &Array) -> Result<Array> {
    let line = listed(index)?;
    x.reshape(&[1])?.gather(0, &line)?.reshape(index.shape())
}

/// Where an index says which place of a dim: for each element of a shape, whether its place along `dim` is the index's.
pub(super) fn places(index: &Array, dim: usize, shape: &[usize]) -> Result<Array> {
    let place = Array::coordinate(shape, dim, index.device())?.cast(index.dtype())?;
    place.binary(BinaryOp::Eq, &index.unsqueeze(dim)?)
}
