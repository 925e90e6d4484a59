//! Writing in place: the rules, the storage, and the history.
//!
//! An operation in place is the operation, and then its result put where the tensor's value was. A tensor of its own takes over the
//! result's history. Through a view, the base gets a new value with the view's elements replaced, and a history
//! that says so (`CopySlices`); every view then finds a history that starts at the base's new one.

use std::sync::Arc;

use wgrad_array::layout::broadcast_shapes;
use wgrad_array::{Array, DType, Error, GradRule, Result, Scalar};

use crate::args::check_held;
use crate::storage::{Value, ViewKind};
use crate::tape::{Derivative, Edge, Operand, lock, record, record_edge};
use crate::view::{ViewStep, apply_all, write_all};
use crate::warning::source_broadcasts;
use crate::{Tensor, is_grad_enabled};

/// # Writing in place
#[wgrad_macros::call_sites]
impl Tensor {
    /// Copies another tensor's elements, which broadcast to this one's shape and are cast to its dtype.
    ///
    /// Broadcasting more than a single number logs a warning, once for each line that calls: a shape that is not the tensor's own is
    /// rarely meant here.
    ///
    /// # Errors
    /// What every operation in place refuses, with [`Error::Autograd`]: a leaf that requires grad or a view of one with grad mode on, an
    /// expanded tensor, a view that was made with others or without grad mode. And shapes that do not broadcast.
    pub fn copy_(&self, source: &Tensor) -> Result<Tensor> {
        const OP: &str = "copy_";
        let copied = self.write(OP, || {
            if broadcast_shapes(OP, self.shape(), source.shape())?.as_slice() != self.shape() {
                return Err(Error::ShapeMismatch {
                    op: OP,
                    lhs: self.shape().to_vec(),
                    rhs: source.shape().to_vec(),
                    reason: "do not fit: the source must broadcast to the tensor it is copied to".into(),
                });
            }
            let (old, new) = (self.operand()?, source.operand()?);
            let out = new.array.to_device(self.device())?.cast(self.dtype())?.expand(self.shape())?;
            let (dtype, device) = (source.dtype(), source.device().clone());
            Ok(record(out, [old, new], |_, _| {
                Derivative::with("CopyBackwards", move |c| {
                    c.each(
                        2,
                        |i| if i == 0 { c.grad()?.zeros_like() } else { c.grad()?.to((dtype, &device)) },
                    )
                })
            }))
        })?;
        source_broadcasts(OP, self, source);
        Ok(copied)
    }

    /// Sets every element to a number.
    ///
    /// # Errors
    /// As [`Tensor::copy_`], and if the tensor's integers cannot hold the number.
    pub fn fill_(&self, value: impl Into<Scalar>) -> Result<Tensor> {
        self.overwrite("fill_", "FillBackward0", value.into())
    }

    /// Sets every element to 0.
    ///
    /// # Errors
    /// As [`Tensor::copy_`].
    pub fn zero_(&self) -> Result<Tensor> {
        self.overwrite("zero_", "ZeroBackward0", Scalar::Int(0))
    }

    fn overwrite(&self, op: &'static str, node: &'static str, value: Scalar) -> Result<Tensor> {
        check_held(op, value, self.dtype())?;
        self.write(op, || self.replaced(node, Array::full(self.shape(), value, self.dtype(), self.device())?))
    }

    /// Puts the result of `compute` where this tensor's value is. Returns the tensor itself.
    pub(crate) fn write(&self, op: &'static str, compute: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        self.check_overlap(op)?;
        let new = compute()?;
        if new.shape() != self.shape() {
            return Err(Error::ShapeMismatch {
                op,
                lhs: self.shape().to_vec(),
                rhs: new.shape().to_vec(),
                reason: "differ: the result of an operation in place must have the shape of the tensor it is written to".into(),
            });
        }
        if !storable(new.dtype(), self.dtype()) {
            let reason = format!(
                "does not hold the result, which is {}; use the operation that is not in place",
                new.dtype()
            );
            return Err(Error::DType { op, dtype: self.dtype(), reason });
        }
        let new = new.to_dtype(self.dtype())?;
        let history = is_grad_enabled();
        let records = |x: &Tensor| x.requires_grad();
        if history && (records(self) || records(&new) || self.base().as_ref().is_some_and(records)) {
            self.check_history(op)?;
        }
        self.store(&new.array()?, if history { new.gradient_edge() } else { None })?;
        Ok(self.clone())
    }

    /// Whether some of its elements lie in one place: it was expanded or unfolded.
    pub(crate) fn has_overlap(&self) -> bool {
        let layout = self.layout();
        let repeated =
            layout.shape().iter().zip(layout.strides()).any(|(&size, &stride)| size > 1 && stride == 0);
        repeated || layout.elements() > 1 && overlaps(layout.shape(), layout.strides())
    }

    /// Elements in one place cannot hold two values.
    fn check_overlap(&self, op: &'static str) -> Result<()> {
        if !self.has_overlap() {
            return Ok(());
        }
        Err(Error::Autograd {
            op,
            rule: GradRule::Overlap,
            reason: "elements of this tensor share memory (it was expanded or unfolded); write to its deep_clone()".into(),
        })
    }

    /// What grad mode forbids.
    pub(crate) fn check_history(&self, op: &'static str) -> Result<()> {
        let fail = |rule, reason: &str| Err(Error::Autograd { op, rule, reason: reason.to_owned() });
        if let Some(kind) = self.view_kind() {
            match kind {
                ViewKind::Multiple(maker) => {
                    return Err(Error::Autograd {
                        op,
                        rule: GradRule::ViewInPlace,
                        reason: format!(
                            "this view was made by {maker}, together with others, and cannot be written to; \
                             use the operation that is not in place"
                        ),
                    });
                }
                ViewKind::NoGrad => {
                    return fail(
                        GradRule::ViewInPlace,
                        "this view was made with grad mode off and is written to with grad mode on; do both in one mode",
                    );
                }
                ViewKind::Plain => {}
            }
            if self.base().is_some_and(|base| base.is_leaf() && base.requires_grad()) {
                return fail(
                    GradRule::LeafInPlace,
                    "this is a view of a leaf that requires grad; write to it inside of no_grad, or use the operation \
                     that is not in place",
                );
            }
        }
        if self.is_leaf() && self.requires_grad() {
            return fail(
                GradRule::LeafInPlace,
                "this is a leaf that requires grad; write to it inside of no_grad, or use the operation that is not in place",
            );
        }
        Ok(())
    }

    pub(crate) fn store(&self, value: &Array, edge: Option<Edge>) -> Result<()> {
        let base = self.base();
        let steps = self.steps_in_base(base.as_ref());
        let Some(base) = base else {
            self.update_value(|_| Ok(value.clone()))?;
            return self.take_history(edge);
        };
        // The base's new value is recorded from its old one before either changes.
        let copied = match edge {
            None => None,
            Some(edge) => {
                let old = base.operand()?;
                let written = write_all(&steps, &old.array, value)?;
                let inserted = Operand { array: value.clone(), edge: Some(edge) };
                record_edge(&written, [old, inserted], |_, _| copy_slices(Arc::from(steps)))
            }
        };
        self.update_value(|_| Ok(value.clone()))?;
        base.take_history(copied)
    }

    /// Makes an edge the tensor's history, if there is one.
    fn take_history(&self, edge: Option<Edge>) -> Result<()> {
        let Some(edge) = edge else { return Ok(()) };
        let mut state = lock(&self.0.state);
        let old = state.edge.replace(edge.clone());
        state.requires_grad = false;
        drop(state);
        self.retain_at_newest(old.as_ref(), &edge);
        Ok(())
    }

    fn steps_in_base(&self, base: Option<&Tensor>) -> Vec<ViewStep> {
        let view = match &lock(&self.0.state).value {
            Value::Shared(shared) => shared.view.clone(),
            Value::Own(_) => None,
        };
        match (view, base) {
            (Some(view), Some(_)) => view.steps_from_base(),
            _ => Vec::new(),
        }
    }

    /// Replaces the value by a function of it, in its storage. If another thread writes meanwhile, the function is called again
    /// with the newer value.
    pub(crate) fn update_value(&self, update: impl Fn(&Array) -> Result<Array>) -> Result<()> {
        let shared = lock(&self.0.state).share().handle();
        loop {
            let (whole, version) = shared.storage.read();
            let new = match &shared.view {
                None => update(&whole)?,
                Some(view) => write_all(&view.steps.to_vec(), &whole, &update(&view.steps.apply(&whole)?)?)?,
            };
            if shared.storage.replace(new, version) {
                return Ok(());
            }
        }
    }
}

/// The gradient of a base after a write through a view: nothing where it was overwritten; and that of what was written.
fn copy_slices(steps: Arc<[ViewStep]>) -> Derivative {
    Derivative::with("CopySlices", move |c| {
        let g = c.grad()?;
        c.each(2, |i| if i == 0 { without_part(g, &steps) } else { apply_all(&steps, g) })
    })
}

/// A tensor with the elements that a view sees set to 0.
fn without_part(x: &Tensor, steps: &Arc<[ViewStep]>) -> Result<Tensor> {
    let x = x.operand()?;
    let part = steps.iter().try_fold(x.array.clone(), |array, step| step.apply(&array))?;
    let zeros = Array::full(part.shape(), Scalar::Int(0), part.dtype(), part.device())?;
    let out = write_all(steps, &x.array, &zeros)?;
    Ok(record(out, [x], |_, _| {
        let steps = steps.clone();
        Derivative::with("CopySlices", move |c| c.each(1, |_| without_part(c.grad()?, &steps)))
    }))
}

/// Whether an in-place operation may store this dtype there: never into a lesser kind of number.
fn storable(result: DType, target: DType) -> bool {
    result.category() <= target.category()
}

/// Whether two indices of a tensor with these strides share an element: sorted by stride, each dim must step over all that
/// the smaller ones reach.
pub(super) fn overlaps(shape: &[usize], strides: &[isize]) -> bool {
    let mut dims: Vec<(usize, usize)> = shape
        .iter()
        .zip(strides)
        .filter(|&(&size, _)| size > 1)
        .map(|(&size, &s)| (s.unsigned_abs(), size))
        .collect();
    dims.sort_unstable();
    let mut reach = 0;
    dims.iter().any(|&(stride, size)| {
        let overlap = stride <= reach;
        reach += stride * (size - 1);
        overlap
    })
}
