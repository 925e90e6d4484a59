//! Choosing elements by lists of places, by masks and by parts of an index, and putting others there.

use wgrad_array::layout::{broadcast_shapes, normalize_dim};
use wgrad_array::{Array, DType, Error, Expr, Result, Scalar, ScatterOp};

use crate::tape::{Derivative, record};
use crate::{Tensor, Value};

/// A part of an index, as between the brackets of `x[..]` in Python.
#[derive(Clone, Debug)]
pub enum Index {
    /// One place, which may count from the end; the dim goes away.
    At(isize),
    /// From, to (not included) and step; `None` is the beginning, the end.
    Slice(Option<isize>, Option<isize>, usize),
    /// All dims that the other parts leave: `...`.
    Ellipsis,
    /// A new dim of size 1: `None`.
    NewAxis,
    /// Places of a dim, which may count from the end, or a mask over as many dims as it has. One place without dims is read from its
    /// device and means what [`Index::At`] does.
    Tensor(Tensor),
    /// A mask without dims.
    Bool(bool),
}

impl From<isize> for Index {
    fn from(at: isize) -> Self {
        Index::At(at)
    }
}

impl From<&Tensor> for Index {
    fn from(places: &Tensor) -> Self {
        Index::Tensor(places.clone())
    }
}

impl From<std::ops::Range<isize>> for Index {
    fn from(range: std::ops::Range<isize>) -> Self {
        Index::Slice(Some(range.start), Some(range.end), 1)
    }
}

impl From<std::ops::RangeFull> for Index {
    fn from(_: std::ops::RangeFull) -> Self {
        Index::Slice(None, None, 1)
    }
}

/// The places that lists of indices choose together, as places of the dims they index put in front as one.
struct Places {
    /// The indexed dims first, in order, then the others.
    order: Vec<usize>,
    /// How many dims are indexed.
    indexed: usize,
    /// The places, one after the other.
    line: Tensor,
    /// The shape that the lists have together.
    shape: Vec<usize>,
    /// Where this shape stands in the result.
    position: usize,
}

/// # Choosing elements
#[wgrad_macros::call_sites]
impl Tensor {
    /// Elements chosen by parts of an index: `x[parts]`. Parts without tensors give a view, others a copy.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Index, Tensor};
    /// let x = Tensor::new([[1i64, 2, 3], [4, 5, 6]], &Device::cpu())?;
    /// let last = x.get(&[Index::Ellipsis, Index::At(-1)])?;
    /// assert_eq!(last.to_vec::<i64>()?, [3, 6]);
    /// let chosen = x.get(&[Index::At(0), (&Tensor::new([2i64, 0], &Device::cpu())?).into()])?;
    /// assert_eq!(chosen.to_vec::<i64>()?, [3, 1]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are more parts than dims, a place is out of range, shapes do not fit, or a tensor is neither i64, i32 nor bool. A place
    /// in a tensor that has dims is an error of the call, or of the read if it was computed.
    pub fn get(&self, parts: &[Index]) -> Result<Tensor> {
        let (view, lists) = self.view_of_parts("get", parts)?;
        if lists.iter().all(Option::is_none) { Ok(view) } else { view.index(&lists) }
    }

    /// The view that the parts without tensors make, and for each of its dims the tensor that indexes it.
    fn view_of_parts(&self, op: &'static str, parts: &[Index]) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let uses = |part: &Index| match part {
            Index::At(_) | Index::Slice(..) => 1,
            Index::Tensor(mask) if mask.dtype() == DType::Bool => mask.rank(),
            Index::Tensor(_) => 1,
            Index::Ellipsis | Index::NewAxis | Index::Bool(_) => 0,
        };
        let used: usize = parts.iter().map(uses).sum();
        let many = |what: String| Error::Shape { op, shape: self.shape().to_vec(), reason: what };
        let rest = self
            .rank()
            .checked_sub(used)
            .ok_or_else(|| many(format!("has fewer dims than the {used} indexed")))?;
        if parts.iter().filter(|part| matches!(part, Index::Ellipsis)).count() > 1 {
            return Err(Error::Argument {
                op,
                reason: "only one ellipsis says which dims it stands for".into(),
            });
        }
        let (mut view, mut lists, mut dim) = (self.clone(), Vec::new(), 0);
        for part in parts {
            match part {
                Index::At(at) => view = view.select(dim as isize, *at)?,
                Index::Tensor(place)
                    if place.rank() == 0 && matches!(place.dtype(), DType::I64 | DType::I32) =>
                {
                    view = view.select(dim as isize, place.item::<i64>()? as isize)?;
                }
                Index::Slice(start, end, step) => {
                    view = view.slice(dim as isize, *start, *end, *step)?;
                    dim += 1;
                }
                Index::Ellipsis => dim += rest,
                Index::NewAxis => {
                    view = view.unsqueeze(dim as isize)?;
                    dim += 1;
                }
                Index::Tensor(tensor) => {
                    lists.resize(dim, None);
                    for list in self.as_lists(op, tensor, &view, dim)? {
                        if tensor.rank() == 0 && tensor.dtype() == DType::Bool {
                            view = view.unsqueeze(dim as isize)?;
                        }
                        lists.push(Some(list));
                        dim += 1;
                    }
                }
                Index::Bool(holds) => {
                    view = view.unsqueeze(dim as isize)?;
                    lists.resize(dim, None);
                    lists.push(Some(Tensor::zeros([usize::from(*holds)], (DType::I64, self.device()))?));
                    dim += 1;
                }
            }
        }
        lists.resize(view.rank(), None);
        Ok((view, lists))
    }

    /// A mask as lists of the places where it holds, one for each of its dims, which are `dim` and following ones of a view.
    fn as_lists(&self, op: &'static str, tensor: &Tensor, view: &Tensor, dim: usize) -> Result<Vec<Tensor>> {
        if tensor.dtype() != DType::Bool {
            return match tensor.dtype() {
                DType::I64 => Ok(vec![tensor.clone()]),
                DType::I32 => Ok(vec![tensor.to_dtype(DType::I64)?]),
                dtype => Err(Error::DType {
                    op,
                    dtype,
                    reason: "cannot index; use i64 or i32 for places, bool for a mask".into(),
                }),
            };
        }
        if tensor.rank() == 0 {
            return Ok(vec![tensor.reshape(1)?.nonzero()?.flatten(0, -1)?]);
        }
        if view.shape().get(dim..dim + tensor.rank()) != Some(tensor.shape()) {
            return Err(Error::ShapeMismatch {
                op,
                lhs: view.shape().to_vec(),
                rhs: tensor.shape().to_vec(),
                reason: "do not fit: the mask needs the sizes of the dims it indexes".into(),
            });
        }
        tensor.nonzero()?.unbind(1)
    }

    /// Elements at places given by lists, one for each dim or `None` for all of it: `torch.ops.aten.index`. The lists broadcast; where
    /// they stand side by side their shape takes their dims' place, else it comes first.
    ///
    /// # Errors
    /// If there are more lists than dims, they do not broadcast, or are not i64, i32 or bool. A place that is out of range is an error when
    /// the result is read.
    pub fn index(&self, indices: &[Option<Tensor>]) -> Result<Tensor> {
        const OP: &str = "index";
        let places = self.places(OP, indices)?;
        let Some(places) = places else { return self.deep_clone() };
        let front = self.indexed_dims_in_front(&places)?;
        let rows = front.index_select(0, &places.line)?;
        let mut shape = places.shape.clone();
        shape.extend(&front.shape()[1..]);
        let out = rows.reshape(shape)?;
        let count = places.shape.len();
        if places.position == 0 || count == 0 {
            return out.owned();
        }
        let to: Vec<usize> = (places.position..places.position + count).collect();
        out.movedim((0..count).collect::<Vec<usize>>(), to)?.owned()
    }

    /// A copy of this tensor with `values`, which broadcast to [`Tensor::index`]'s result, put there, or with `accumulate` added.
    /// Of several values for one place the last stays.
    ///
    /// # Errors
    /// As [`Tensor::index`]; and if the values do not broadcast or have another dtype.
    pub fn index_put(&self, indices: &[Option<Tensor>], values: &Tensor, accumulate: bool) -> Result<Tensor> {
        const OP: &str = "index_put";
        if values.dtype() != self.dtype() {
            let reason = format!("does not fit into {}; cast it first", self.dtype());
            return Err(Error::DType { op: OP, dtype: values.dtype(), reason });
        }
        let Some(places) = self.places(OP, indices)? else {
            return if accumulate {
                self.add(values)
            } else {
                values.broadcast_to(self.shape())?.deep_clone()
            };
        };
        let front = self.indexed_dims_in_front(&places)?;
        let rest = &front.shape()[1..];
        let count = places.shape.len();
        let mut shape: Vec<usize> = rest.to_vec();
        shape.splice(places.position..places.position, places.shape.iter().copied());
        let mut values = values.broadcast_to(shape)?;
        if places.position != 0 && count != 0 {
            let from: Vec<usize> = (places.position..places.position + count).collect();
            values = values.movedim(from, (0..count).collect::<Vec<usize>>())?;
        }
        let mut rows = vec![places.line.numel()];
        rows.extend(rest);
        let values = values.reshape(rows)?;
        let out = if accumulate {
            front.index_add(0, &places.line, &values)?
        } else {
            front.index_copy(0, &places.line, &values)?
        };
        let permuted: Vec<usize> = places.order.iter().map(|&d| self.shape()[d]).collect();
        out.reshape(permuted)?.unpermute(&places.order)?.owned()
    }

    /// The indexed dims as one in front, then the others.
    fn indexed_dims_in_front(&self, places: &Places) -> Result<Tensor> {
        let (indexed, rest) = places.order.split_at(places.indexed);
        let mut shape = vec![indexed.iter().map(|&d| self.shape()[d]).product::<usize>()];
        shape.extend(rest.iter().map(|&d| self.shape()[d]));
        self.permute(places.order.clone())?.reshape(shape)
    }

    /// What lists choose together; `None` if there are no lists.
    fn places(&self, op: &'static str, indices: &[Option<Tensor>]) -> Result<Option<Places>> {
        let mut lists: Vec<(usize, Tensor)> = Vec::new();
        let mut dim = 0;
        for index in indices {
            let Some(index) = index else {
                dim += 1;
                continue;
            };
            for list in self.as_lists(op, index, self, dim)? {
                lists.push((dim, list));
                dim += 1;
            }
        }
        if dim > self.rank() {
            let reason = format!("has fewer dims than the {dim} indexed");
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        }
        let Some(&(first, _)) = lists.first() else { return Ok(None) };
        let mut shape: Vec<usize> = Vec::new();
        for (_, list) in &lists {
            shape = broadcast_shapes(op, &shape, list.shape())?.to_vec();
        }
        let mut line: Option<Tensor> = None;
        for (dim, list) in &lists {
            let size = self.shape()[*dim];
            let list = list.checked_places(size)?.expand(&shape)?;
            line = Some(match line {
                None => list,
                Some(line) => line.mul(size as i64)?.add(list)?,
            });
        }
        let line = match line {
            Some(line) => line.reshape([shape.iter().product::<usize>()])?,
            None => return Ok(None),
        };
        let indexed: Vec<usize> = lists.iter().map(|(dim, _)| *dim).collect();
        let adjacent = indexed.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let rest = (0..self.rank()).filter(|d| !indexed.contains(d));
        let order = indexed.iter().copied().chain(rest).collect();
        let position = if adjacent { first } else { 0 };
        Ok(Some(Places { order, indexed: indexed.len(), line, shape, position }))
    }

    /// Places that may count from the end, counted from the front. One that is out of range is an error when they are read.
    fn checked_places(&self, size: usize) -> Result<Tensor> {
        let places = Expr::of(&self.array()?);
        let end = Scalar::Int(size as i64);
        let from_front = places.lt(Scalar::Int(0)).select(&places + end, &places).done()?;
        // Read through a list of all places, which the device checks as it does every index.
        let all = Array::arange(Scalar::Int(0), Scalar::Int(1), size, DType::I64, self.device())?;
        let line = all.index_select(0, &from_front.reshape(&[self.numel()])?)?;
        Ok(Tensor::from_array(line.reshape(self.shape())?))
    }

    /// A copy of this tensor with whole slices put along a dim: `out[.., index[i], ..] = source[.., i, ..]`. Of several for one place the
    /// last stays.
    ///
    /// # Errors
    /// As [`Tensor::index_add`].
    pub fn index_copy(&self, dim: isize, index: &Tensor, source: &Tensor) -> Result<Tensor> {
        const OP: &str = "index_copy";
        let at = normalize_dim(OP, dim, self.rank())?;
        if index.rank() > 1 {
            let reason = "is not that of a list".to_owned();
            return Err(Error::Shape { op: OP, shape: index.shape().to_vec(), reason });
        }
        if self.rank() == 0 {
            return self.reshape(1)?.index_copy(0, index, &source.reshape(1)?)?.reshape(())?.owned();
        }
        let index = index.flatten(0, -1)?;
        let source =
            if source.rank() == 0 { source.reshape(vec![1usize; self.rank()])? } else { source.clone() };
        let (x, s) = (self.operand()?, source.operand()?);
        let index = index.array()?;
        let out = x.array.index_scatter(ScatterOp::Assign, at, &index, &s.array)?;
        Ok(record(out, [x, s], |_, _| {
            Derivative::with("IndexCopyBackward0", move |c| {
                let (g, [index]) = c.parts();
                c.gradients(2, |i| match i {
                    0 => g.index_fill(at as isize, &index, 0.0),
                    _ => g.index_select(at as isize, &index),
                })
            })
            .save(&index)
        }))
    }

    /// A copy of this tensor with slices along a dim filled with a number or a 0-dim tensor; places may count from the end.
    ///
    /// # Errors
    /// If there is no such dim, the index is not a list of integers, or the value has dims.
    pub fn index_fill(&self, dim: isize, index: &Tensor, value: impl Into<Value>) -> Result<Tensor> {
        const OP: &str = "index_fill";
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.reshape(1)?.index_fill(0, index, value)?.reshape(())?.owned();
        }
        let index = index.flatten(0, -1)?.checked_places(self.shape()[at])?;
        // A mask, so that a place that is named twice counts once.
        let mut shape = vec![1; self.rank()];
        shape[at] = self.shape()[at];
        let none = Array::full(&[self.shape()[at]], false, DType::Bool, self.device())?;
        let all = Array::full(&[index.numel()], true, DType::Bool, self.device())?;
        let mask = none.index_scatter(ScatterOp::Assign, 0, &index.array()?, &all)?.reshape(&shape)?;
        self.masked_fill(&Tensor::from_array(mask), value)
    }

    /// Elements at places of the flattened tensor, which may count from the end; the result has the index's shape.
    ///
    /// # Errors
    /// If the index is not i64; a place out of range is an error of the call, or of the read if it was computed.
    pub fn take(&self, index: &Tensor) -> Result<Tensor> {
        let places = index.flat_places("take", self.numel())?;
        self.flatten(0, -1)?.index_select(0, &places)?.reshape(index.shape())?.owned()
    }

    /// A copy of this tensor with values put, or with `accumulate` added, at places of the flattened tensor, which may count from the
    /// end. Of several for one place the last stays.
    ///
    /// # Errors
    /// If index and source differ in size, the index is not i64, or the dtypes differ.
    pub fn put(&self, index: &Tensor, source: &Tensor, accumulate: bool) -> Result<Tensor> {
        const OP: &str = "put";
        if index.numel() != source.numel() {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: index.shape().to_vec(),
                rhs: source.shape().to_vec(),
                reason: "have different numbers of elements".into(),
            });
        }
        let places = index.flat_places(OP, self.numel())?;
        let (line, source) = (self.flatten(0, -1)?, source.flatten(0, -1)?);
        let out = if accumulate {
            line.index_add(0, &places, &source)?
        } else {
            line.index_copy(0, &places, &source)?
        };
        out.reshape(self.shape())?.owned()
    }

    fn flat_places(&self, op: &'static str, size: usize) -> Result<Tensor> {
        if self.dtype() != DType::I64 {
            return Err(Error::DType { op, dtype: self.dtype(), reason: "cannot index; use i64".into() });
        }
        self.flatten(0, -1)?.checked_places(size)
    }

    /// [`Tensor::gather`] with an index that broadcasts with this tensor beside the dim; without a dim along the flattened tensor.
    ///
    /// # Errors
    /// As [`Tensor::gather`].
    pub fn take_along_dim(&self, indices: &Tensor, dim: impl Into<Option<isize>>) -> Result<Tensor> {
        const OP: &str = "take_along_dim";
        let Some(dim) = dim.into() else {
            return self.flatten(0, -1)?.gather(0, &indices.flatten(0, -1)?);
        };
        if self.rank() != indices.rank() {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: indices.shape().to_vec(),
                reason: "have different numbers of dims".into(),
            });
        }
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.gather(dim, indices);
        }
        let (mut own, mut index) = (self.shape().to_vec(), indices.shape().to_vec());
        let (size, count) = (std::mem::replace(&mut own[at], 1), std::mem::replace(&mut index[at], 1));
        let mut shape = broadcast_shapes(OP, &own, &index)?.to_vec();
        shape[at] = count;
        let indices = indices.expand(&shape)?;
        shape[at] = size;
        self.expand(shape)?.gather(dim, &indices)
    }

    /// The elements where the bool mask holds, as a list. Both broadcast. Their number is read for this.
    ///
    /// # Errors
    /// If the mask is not bool or the shapes do not broadcast.
    pub fn masked_select(&self, mask: &Tensor) -> Result<Tensor> {
        const OP: &str = "masked_select";
        require_mask(OP, mask)?;
        let shape = broadcast_shapes(OP, self.shape(), mask.shape())?;
        let places = mask.expand(&shape)?.flatten(0, -1)?.nonzero()?.flatten(0, -1)?;
        self.expand(&shape)?.flatten(0, -1)?.index_select(0, &places)
    }

    /// A copy of this tensor in which the elements where the bool mask holds are, one after the other, those of `source`.
    ///
    /// # Errors
    /// If the mask is not bool, the shapes do not broadcast or the dtypes differ; too few elements in the source are an error when the
    /// result is read.
    pub fn masked_scatter(&self, mask: &Tensor, source: &Tensor) -> Result<Tensor> {
        const OP: &str = "masked_scatter";
        require_mask(OP, mask)?;
        if source.dtype() != self.dtype() {
            let reason = format!("does not fit into {}; cast it first", self.dtype());
            return Err(Error::DType { op: OP, dtype: source.dtype(), reason });
        }
        let shape = broadcast_shapes(OP, self.shape(), mask.shape())?;
        let (x, mask) = (self.expand(&shape)?, mask.expand(&shape)?);
        if x.numel() == 0 {
            return x.deep_clone();
        }
        let counted = mask
            .flatten(0, -1)?
            .cumsum(0)?
            .sub(1i64)?
            .masked_fill(&mask.flatten(0, -1)?.logical_not()?, 0i64)?;
        if source.numel() == 0 {
            // Nothing may be needed of it.
            return x.index_put(&[Some(mask)], source, false);
        }
        let spread = source.flatten(0, -1)?.index_select(0, &counted)?.reshape(&shape)?;
        mask.where_cond(spread, x)
    }
}

fn require_mask(op: &'static str, mask: &Tensor) -> Result<()> {
    if mask.dtype() == DType::Bool {
        return Ok(());
    }
    Err(Error::DType {
        op,
        dtype: mask.dtype(),
        reason: "is not that of a mask; compare it with something".into(),
    })
}
