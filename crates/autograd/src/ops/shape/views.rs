//! Views: other shapes of the same storage. Writing to a view in place writes to its base, and the other way round.

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, broadcast_shapes, normalize_dim};
use wgrad_array::{Error, Result};

use crate::steps::Steps;
use crate::storage::{Shared, Value, View, ViewKind};
use crate::tape::{Derivative, Edge, Meta, lock, record, record_edge};
use crate::view::ViewStep;
use crate::{IntArray, Tensor, is_grad_enabled};

/// # Views
#[wgrad_macros::call_sites]
impl Tensor {
    /// The view that a step makes, recorded under a node's name and sharing the storage.
    pub(in crate::ops) fn view_step(&self, node: &'static str, step: ViewStep) -> Result<Tensor> {
        let x = self.operand()?;
        let out = step.apply(&x.array)?;
        let kind = if is_grad_enabled() { ViewKind::Plain } else { ViewKind::NoGrad };
        let edge = record_edge(&out, [x], |_, _| step_derivative(node, step.clone()));
        self.share_view(step, out, edge, kind)
    }

    /// A view that shares the storage. `array` is its value, `edge` its history.
    pub(in crate::ops) fn share_view(
        &self,
        step: ViewStep,
        array: wgrad_array::Array,
        edge: Option<Edge>,
        kind: ViewKind,
    ) -> Result<Tensor> {
        let Some(layout) = step.layout(&self.layout()) else {
            return Ok(Tensor::from_edge(array, edge));
        };
        let meta = Meta::of(&array);
        let parent = self.shared()?;
        let (steps, to_base, base, above) = match &parent.view {
            Some(View { steps, to_base, base: Some(base), kind, .. }) => {
                (steps.clone(), *to_base, base.clone(), *kind)
            }
            // A view that was detached is the base of its own views.
            Some(view) => (view.steps.clone(), view.steps.len(), self.clone(), ViewKind::Plain),
            None => (Steps::default(), 0, self.clone(), ViewKind::Plain),
        };
        // Places in the storage are counted from its beginning, whatever view they are asked of.
        let strided = matches!(step, ViewStep::Strided { .. });
        if strided && to_base > 0 {
            return Ok(Tensor::from_edge(array, edge));
        }
        let steps = if strided { Steps::default() } else { steps };
        // What may not be written to through a view may not through a view of it.
        let kind = if kind == ViewKind::Plain { above } else { kind };
        let seen = parent.seen();
        let view = View {
            steps: steps.then(step, to_base),
            to_base,
            layout,
            base: Some(base),
            kind,
            history_version: seen,
        };
        let shared = Shared { storage: parent.storage, view: Some(view), cache: Some((array, seen)) };
        Ok(Tensor::with_value(meta, Value::Shared(Box::new(shared)), edge))
    }

    /// The value of a view without its storage in common: what derivatives use.
    pub(crate) fn view_value(&self, step: &ViewStep) -> Result<Tensor> {
        let x = self.operand()?;
        let out = step.apply(&x.array)?;
        let name = match step {
            ViewStep::Reshape { .. } => "ViewBackward0",
            ViewStep::Permute { .. } => "PermuteBackward0",
            ViewStep::Expand { .. } => "ExpandBackward0",
            ViewStep::Slice { .. } => "SliceBackward0",
            ViewStep::Select { .. } => "SelectBackward0",
            ViewStep::Diagonal { .. } => "DiagonalBackward0",
            ViewStep::Unfold { .. } => "UnfoldBackward0",
            ViewStep::Strided { .. } => "AsStridedBackward0",
        };
        Ok(record(out, [x], |_, _| step_derivative(name, step.clone())))
    }

    /// Expanded to a shape, without a storage in common.
    pub(crate) fn expand_value(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        self.view_value(&ViewStep::Expand { from: self.0.shape.clone(), to: shape.into() })
    }

    /// [`Tensor::expand_value`] to the shape of another tensor.
    pub(crate) fn expand_as_value(&self, other: &Tensor) -> Result<Tensor> {
        self.expand_value(other.shape())
    }

    /// The last two dims exchanged, without a storage in common.
    pub(crate) fn transposed_value(&self) -> Result<Tensor> {
        let mut dims: SmallVec<[usize; 4]> = (0..self.rank()).collect();
        dims.swap(self.rank() - 2, self.rank() - 1);
        self.view_value(&ViewStep::Permute { dims })
    }

    /// Undoes a permutation.
    pub(crate) fn unpermute(&self, dims: &[usize]) -> Result<Tensor> {
        let mut inverse: SmallVec<[usize; 4]> = SmallVec::from_elem(0, dims.len());
        for (to, &from) in dims.iter().enumerate() {
            inverse[from] = to;
        }
        self.view_value(&ViewStep::Permute { dims: inverse })
    }

    /// The same elements in row-major order under another shape; a size of -1 is what remains. A view where strides allow it,
    /// else a copy.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<IntArray>) -> Result<Tensor> {
        let to = resolve("reshape", self.shape(), &shape.into())?;
        let step = ViewStep::Reshape { from: self.0.shape.clone(), to };
        match step.layout(&self.layout()) {
            Some(_) if self.is_contiguous() => self.view_step("ViewBackward0", step),
            Some(_) => self.view_step("ReshapeAliasBackward0", step),
            None => {
                let x = self.operand()?;
                let out = step.apply(&x.array)?;
                Ok(record(out, [x], |_, _| step_derivative("UnsafeViewBackward0", step)))
            }
        }
    }

    /// As [`Tensor::reshape`], but always a view.
    ///
    /// # Errors
    /// If the number of elements differs, or the strides do not allow it: use `reshape`.
    pub fn view(&self, shape: impl Into<IntArray>) -> Result<Tensor> {
        let to = resolve("view", self.shape(), &shape.into())?;
        let step = ViewStep::Reshape { from: self.0.shape.clone(), to };
        if step.layout(&self.layout()).is_none() {
            let reason = format!(
                "with strides {:?} cannot be viewed in the new shape without a copy; use reshape()",
                self.stride()
            );
            return Err(Error::Shape { op: "view", shape: self.shape().to_vec(), reason });
        }
        self.view_step("ViewBackward0", step)
    }

    /// Dims `start..=end` as one.
    ///
    /// # Errors
    /// If a dim is not there, or `end` comes before `start`.
    pub fn flatten(&self, start: isize, end: isize) -> Result<Tensor> {
        const OP: &str = "flatten";
        let (first, last) = (normalize_dim(OP, start, self.rank())?, normalize_dim(OP, end, self.rank())?);
        if first > last {
            return Err(Error::Argument {
                op: OP,
                reason: format!("start dim {start} comes after end dim {end}"),
            });
        }
        if self.rank() == 0 {
            return self.reshape([1]);
        }
        if first == last {
            return Ok(self.clone());
        }
        let mut shape = Dims::from(&self.shape()[..first]);
        shape.push(self.shape()[first..=last].iter().product());
        shape.extend_from_slice(&self.shape()[last + 1..]);
        self.reshape(&shape)
    }

    /// One dim as several.
    ///
    /// # Errors
    /// If there is no such dim, or the sizes' product is not its size.
    pub fn unflatten(&self, dim: isize, sizes: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "unflatten";
        let dim = normalize_dim(OP, dim, self.rank())?;
        let size = self.size(dim as isize)?;
        let mut shape = Dims::from(&self.shape()[..dim]);
        shape.extend(resolve(OP, &[size], &sizes.into())?);
        shape.extend_from_slice(&self.shape()[dim + 1..]);
        self.view(&shape)
    }

    /// The dims in another order.
    ///
    /// # Errors
    /// If the dims are not all dims, each once.
    pub fn permute(&self, dims: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "permute";
        let dims = dims.into().dims(OP, self.rank())?;
        if dims.len() != self.rank() {
            let reason = format!("has {} dims, but {} were named; name each once", self.rank(), dims.len());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        self.view_step("PermuteBackward0", ViewStep::Permute { dims: dims.as_slice().into() })
    }

    /// Two dims exchanged.
    ///
    /// # Errors
    /// If a dim is not there.
    pub fn transpose(&self, dim0: isize, dim1: isize) -> Result<Tensor> {
        self.swap_dims("transpose", "TransposeBackward0", dim0, dim1)
    }

    /// The dims of a matrix exchanged; a tensor of fewer dims stays as it is.
    ///
    /// # Errors
    /// If there are more than two dims.
    pub fn t(&self) -> Result<Tensor> {
        match self.rank() {
            0 | 1 => self.view_step("TBackward0", ViewStep::Permute { dims: (0..self.rank()).collect() }),
            2 => self.swap_dims("t", "TBackward0", 0, 1),
            rank => {
                let reason = format!("has {rank} dims; t() is for at most two, use transpose() or mt()");
                Err(Error::Shape { op: "t", shape: self.shape().to_vec(), reason })
            }
        }
    }

    /// The last two dims exchanged; `mT`.
    ///
    /// # Errors
    /// If there are fewer than two dims.
    pub fn mt(&self) -> Result<Tensor> {
        if self.rank() < 2 {
            let reason = "has fewer than two dims to exchange".to_owned();
            return Err(Error::Shape { op: "mt", shape: self.shape().to_vec(), reason });
        }
        self.swap_dims("mt", "TransposeBackward0", -2, -1)
    }

    fn swap_dims(&self, op: &'static str, node: &'static str, dim0: isize, dim1: isize) -> Result<Tensor> {
        let (a, b) = (normalize_dim(op, dim0, self.rank())?, normalize_dim(op, dim1, self.rank())?);
        let mut dims: SmallVec<[usize; 4]> = (0..self.rank()).collect();
        if self.rank() > 0 {
            dims.swap(a, b);
        }
        self.view_step(node, ViewStep::Permute { dims })
    }

    /// Dims of size 1 repeated, and new ones in front, without memory; -1 keeps a size.
    ///
    /// # Errors
    /// If another size than 1 would have to change.
    pub fn expand(&self, sizes: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "expand";
        let sizes = sizes.into();
        let given = sizes.as_slice();
        let fail = |reason: String| Error::Shape { op: OP, shape: self.shape().to_vec(), reason };
        let Some(new) = given.len().checked_sub(self.rank()) else {
            return Err(fail(format!("has more dims than the {} sizes {given:?}", given.len())));
        };
        let mut to = Dims::new();
        for (d, &size) in given.iter().enumerate() {
            to.push(match (size, d.checked_sub(new).map(|d| self.shape()[d])) {
                (-1, Some(old)) => old,
                (size, _) if size < 0 => {
                    return Err(fail(format!("cannot be expanded to {given:?}: size {size}")));
                }
                (size, Some(old)) if old != 1 && old as isize != size => {
                    return Err(fail(format!("cannot be expanded to {given:?}: only dims of size 1 can")));
                }
                (size, _) => size as usize,
            });
        }
        wgrad_array::layout::checked_elements(OP, &to)?;
        self.view_step("ExpandBackward0", ViewStep::Expand { from: self.0.shape.clone(), to })
    }

    /// Expanded to a shape by the rules of broadcasting; `broadcast_to`.
    ///
    /// # Errors
    /// If this shape does not broadcast to it.
    pub fn broadcast_to(&self, shape: impl Into<IntArray>) -> Result<Tensor> {
        const OP: &str = "broadcast_to";
        let to = shape.into().shape(OP)?;
        let both = broadcast_shapes(OP, self.shape(), &to)?;
        if both != to {
            let reason = "do not fit: the first must broadcast to the second".to_owned();
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: to.to_vec(),
                reason,
            });
        }
        self.expand(&to)
    }

    /// Without its dims of size 1.
    pub fn squeeze(&self) -> Result<Tensor> {
        let keep = self.shape().iter().copied().filter(|&size| size != 1).collect();
        self.view_step("SqueezeBackward0", ViewStep::Reshape { from: self.0.shape.clone(), to: keep })
    }

    /// Without those of these dims that have size 1.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn squeeze_dim(&self, dims: impl Into<IntArray>) -> Result<Tensor> {
        let given = dims.into();
        let dims = given.dims("squeeze", self.rank())?;
        let kept = |&(d, &size): &(usize, &usize)| size != 1 || !dims.contains(&d);
        let keep = self.shape().iter().enumerate().filter(kept).map(|(_, &size)| size).collect();
        let node = if given.as_slice().len() == 1 { "SqueezeBackward1" } else { "SqueezeBackward2" };
        self.view_step(node, ViewStep::Reshape { from: self.0.shape.clone(), to: keep })
    }

    /// With a new dim of size 1 before `dim`.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn unsqueeze(&self, dim: isize) -> Result<Tensor> {
        let dim = normalize_dim("unsqueeze", dim, self.rank() + 1)?;
        let mut to = self.0.shape.clone();
        to.insert(dim, 1);
        self.view_step("UnsqueezeBackward0", ViewStep::Reshape { from: self.0.shape.clone(), to })
    }

    /// `length` indices of a dim from `start` (which may be negative) on.
    ///
    /// # Errors
    /// If there is no such dim or they are not all inside of it.
    pub fn narrow(&self, dim: isize, start: isize, length: usize) -> Result<Tensor> {
        const OP: &str = "narrow";
        let dim = self.sliced_dim(OP, dim)?;
        let size = self.shape()[dim];
        let first = if start < 0 { start + size as isize } else { start };
        if first < 0 || (first as usize).checked_add(length).is_none_or(|end| end > size) {
            let last = i64::try_from(length).unwrap_or(i64::MAX).saturating_sub(1);
            let past = (start as i64).saturating_add(last);
            return Err(Error::Index {
                op: OP,
                index: if first < 0 { start as i64 } else { past },
                size,
                called_at: None,
            });
        }
        self.view_step("SliceBackward0", ViewStep::Slice { dim, start: first as usize, len: length, step: 1 })
    }

    /// Every `step`-th index of a dim from `start` to before `end`, which may be negative or beyond the ends as in Python;
    /// `x[start:end:step]`. `None` is the beginning or the end.
    ///
    /// # Errors
    /// If there is no such dim, or the step is 0.
    pub fn slice(
        &self,
        dim: isize,
        start: impl Into<Option<isize>>,
        end: impl Into<Option<isize>>,
        step: usize,
    ) -> Result<Tensor> {
        const OP: &str = "slice";
        let dim = self.sliced_dim(OP, dim)?;
        if step == 0 {
            return Err(Error::Argument { op: OP, reason: "the step is 0; it must be at least 1".into() });
        }
        let size = self.shape()[dim] as isize;
        let clamp = |i: isize| if i < 0 { i.saturating_add(size).max(0) } else { i.min(size) };
        let (start, end) = (clamp(start.into().unwrap_or(0)), clamp(end.into().unwrap_or(size)));
        let len = ((end - start).max(0) as usize).div_ceil(step);
        // The step to a second element that is not there does not matter.
        let step = if len > 1 { step } else { 1 };
        self.view_step("SliceBackward0", ViewStep::Slice { dim, start: start as usize, len, step })
    }

    pub(in crate::ops) fn sliced_dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        if self.rank() == 0 {
            return Err(Error::Dim { op, dim, rank: 0 });
        }
        normalize_dim(op, dim, self.rank())
    }

    /// One index of a dim, which goes away; `x[index]` for dim 0. A negative index counts from the end.
    ///
    /// # Errors
    /// If there is no such dim or index.
    pub fn select(&self, dim: isize, index: isize) -> Result<Tensor> {
        const OP: &str = "select";
        let dim = self.sliced_dim(OP, dim)?;
        let size = self.shape()[dim];
        let at = if index < 0 { index + size as isize } else { index };
        if at < 0 || at >= size as isize {
            return Err(Error::Index { op: OP, index: index as i64, size, called_at: None });
        }
        self.view_step("SelectBackward0", ViewStep::Select { dim, index: at as usize })
    }

    /// The elements `(i, i + offset)` of two dims, as a new last dim.
    ///
    /// # Errors
    /// If the dims are not there or the same.
    pub fn diagonal(&self, offset: isize, dim1: isize, dim2: isize) -> Result<Tensor> {
        const OP: &str = "diagonal";
        let (first, second) = (self.sliced_dim(OP, dim1)?, self.sliced_dim(OP, dim2)?);
        if first == second {
            return Err(Error::DuplicateDim { op: OP, dim: first, dims: vec![dim1, dim2] });
        }
        let (rows, columns) = (self.shape()[first], self.shape()[second]);
        let shift = offset.unsigned_abs();
        let len = if offset >= 0 {
            rows.min(columns.saturating_sub(shift))
        } else {
            rows.saturating_sub(shift).min(columns)
        };
        self.view_step("DiagonalBackward0", ViewStep::Diagonal { offset, dim1: first, dim2: second, len })
    }

    /// Windows of `size` indices of a dim, `step` apart, as a new last dim.
    ///
    /// # Errors
    /// If there is no such dim, it is smaller than a window, or the step is 0.
    pub fn unfold(&self, dim: isize, size: usize, step: usize) -> Result<Tensor> {
        const OP: &str = "unfold";
        if self.rank() == 0 && size <= 1 && step > 0 {
            normalize_dim(OP, dim, 0)?;
            return self.reshape(1)?.narrow(0, 0, size);
        }
        let dim = self.sliced_dim(OP, dim)?;
        if step == 0 || size > self.shape()[dim] {
            let reason = format!(
                "windows of {size} elements, {step} apart, do not fit into a dim of size {}",
                self.shape()[dim]
            );
            return Err(Error::Argument { op: OP, reason });
        }
        // Longer steps lead out of the dim as well.
        let step = step.min(self.shape()[dim] + 1);
        self.view_step("UnfoldBackward0", ViewStep::Unfold { dim, size, step })
    }

    /// Dims in reverse order. As in PyTorch this is a copy, not a view.
    ///
    /// # Errors
    /// If a dim is not there or named twice.
    pub fn flip(&self, dims: impl Into<IntArray>) -> Result<Tensor> {
        let dims = dims.into().dims("flip", self.rank())?;
        let x = self.operand()?;
        if self.rank() == 0 {
            return self.deep_clone();
        }
        let out = x.array.flip(&dims)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with("FlipBackward0", move |c| c.each(1, |_| c.grad()?.flip(&dims)))
        }))
    }

    /// In row-major memory; itself if it is so already.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() { Ok(self.clone()) } else { self.deep_clone() }
    }

    /// A result that nobody else sees the memory of, though it was made by viewing another: no view.
    pub(crate) fn owned(self) -> Result<Tensor> {
        if !self.is_view() {
            return Ok(self);
        }
        let edge = self.gradient_edge();
        Ok(Tensor::from_edge(self.array()?, edge))
    }

    /// How this tensor may be written to, if it is a view.
    pub(crate) fn view_kind(&self) -> Option<ViewKind> {
        match &lock(&self.0.state).value {
            Value::Shared(shared) => {
                shared.view.as_ref().filter(|view| view.base.is_some()).map(|view| view.kind)
            }
            Value::Own(_) => None,
        }
    }
}

fn step_derivative(node: &'static str, step: ViewStep) -> Derivative {
    Derivative::with(node, move |c| c.each(1, |_| step.adjoint(c.grad()?, &c.input_shape(0)?)))
}

/// A shape with at most one -1, for as many elements as another has.
fn resolve(op: &'static str, from: &[usize], sizes: &IntArray) -> Result<Dims> {
    let given = sizes.as_slice();
    let fail = |reason: String| Error::Shape { op, shape: from.to_vec(), reason };
    let elements: usize = from.iter().product();
    let known =
        IntArray::from(given.iter().copied().filter(|&size| size != -1).collect::<Vec<_>>()).shape(op)?;
    let product: usize = known.iter().product();
    let unknown = given.len() - known.len();
    let rest = match unknown {
        0 if product == elements => 0,
        1 if product > 0 && elements.is_multiple_of(product) => elements / product,
        0 | 1 => return Err(fail(format!("has {elements} elements, which do not fill the shape {given:?}"))),
        _ => return Err(fail(format!("cannot become {given:?}: only one size can be -1"))),
    };
    Ok(given.iter().map(|&size| if size == -1 { rest } else { size as usize }).collect())
}
