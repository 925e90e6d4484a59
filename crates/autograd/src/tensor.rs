//! [`Tensor`]: a handle to a value, what is known of it, and its place in the graph.

use std::sync::{Arc, Mutex};

use wgrad_array::layout::Dims;
use wgrad_array::{Array, DType, Device, Element, Error, GradRule, Layout, Result, Scalar};

use crate::hooks::{Hooks, LeafHook, TensorHook};
use crate::storage::{Shared, Value, View, ViewKind};
use crate::tape::{Derivative, Edge, Function, Meta, Node, NodeKey, NodeRef, Operand, lock, record};
use crate::{GradFn, is_grad_enabled};

/// An n-dimensional array that remembers how it was computed.
///
/// # Two ways to copy
/// Rust's [`Clone`] copies the *handle*: both handles are the same tensor, with one value, one `grad` and one place in
/// the graph, as two Python variables naming one tensor. It costs a few nanoseconds. PyTorch's `clone()`, which makes a new tensor with memory of its
/// own and records `CloneBackward0`, is [`Tensor::deep_clone`].
///
/// # Results
/// Operations check their arguments at once and return `Result<Tensor>`; values are computed when they are read. The operators
/// `+ - * /` and unary minus work on tensors, references to tensors, numbers, and `Result<Tensor>`, so that steps can be
/// chained with one `?`:
///
/// ```
/// use wgrad_autograd::{Device, Tensor};
/// let x = Tensor::new(&[1f32, 9.0, 0.0], &Device::cpu())?.requires_grad_(true)?;
/// let y = (x.pow(2.0)? + 100.0)?;
/// let loss = y.mean()?;
/// loss.backward()?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0 / 3.0, 6.0, 0.0]);
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
///
/// [`TensorExpr`](crate::TensorExpr) is for longer formulas: it carries errors, and ends in one `?`.
///
/// # Errors
/// A method checks its arguments at once, and says under *Errors* of what it complains. What only shows when values are computed is told when
/// one is read, and no method says so again: the device fails or has no memory left, or an index that was computed is out of range. Reading is
/// [`Tensor::to_vec`], [`Tensor::item`], printing and [`Tensor::eval`], and the few methods that need values at once: those of linear algebra,
/// and those whose shape depends on values, such as [`Tensor::nonzero`]. A method without *Errors* has none of its own.
///
/// # Arguments
/// A dim is an `isize` and may be negative. Shapes and lists of dims are anything that is [`Into<IntArray>`](crate::IntArray): `3`, `[2, 3]`,
/// `&[2, 3]`, a vector, or `()` for none. Operands are tensors or numbers ([`Into<Value>`](crate::Scalar)).
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    pub(crate) state: Mutex<State>,
}

/// What may change about a tensor. One lock, so that a value is never seen with another value's history.
pub(crate) struct State {
    pub(crate) value: Value,
    /// Where the gradient goes: the node that made this value. None for a leaf.
    pub(crate) edge: Option<Edge>,
    /// A leaf's wish.
    pub(crate) requires_grad: bool,
    /// What most tensors don't have.
    pub(crate) extra: Option<Box<Extra>>,
}

#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) grad: Option<Tensor>,
    pub(crate) retains_grad: bool,
    /// The leaf's AccumulateGrad, held weakly: the graph owns it, and it owns the leaf.
    pub(crate) accumulate: Option<NodeKey>,
    pub(crate) hooks: Hooks<TensorHook>,
    pub(crate) post_accumulate: Hooks<LeafHook>,
    /// The warning about reading a non-leaf's gradient has been given.
    pub(crate) warned: bool,
}

impl State {
    /// The value in its shared form, made now if need be.
    pub(crate) fn share(&mut self) -> &mut Shared {
        let parameter = self.requires_grad && self.edge.is_none();
        let shared = self.value.share();
        if parameter && shared.view.is_none() {
            shared.storage.holds_parameter();
        }
        shared
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

impl Tensor {
    /// A leaf with this value.
    pub(crate) fn from_array(array: Array) -> Tensor {
        Tensor::from_edge(array, None)
    }

    /// The value of the operation that an edge leads to.
    pub(crate) fn from_edge(array: Array, edge: Option<Edge>) -> Tensor {
        Tensor::with_value(Meta::of(&array), Value::Own(array), edge)
    }

    pub(crate) fn with_value(meta: Meta, value: Value, edge: Option<Edge>) -> Tensor {
        Tensor(Arc::new(Inner {
            shape: meta.shape,
            dtype: meta.dtype,
            device: meta.device,
            state: Mutex::new(State { value, edge, requires_grad: false, extra: None }),
        }))
    }

    /// The sizes of the dims; `shape`.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// The size of one dim, which may be negative; `size(dim)`.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn size(&self, dim: isize) -> Result<usize> {
        let dim = wgrad_array::layout::normalize_dim("size", dim, self.rank())?;
        self.shape().get(dim).copied().ok_or(Error::Dim { op: "size", dim: dim as isize, rank: self.rank() })
    }

    /// The number of dims; `dim()` and `ndim`.
    pub fn rank(&self) -> usize {
        self.0.shape.len()
    }

    /// The number of elements; `numel()`.
    pub fn numel(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The device it lives on.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Whether both handles are the same tensor; Python's `is`.
    pub fn is_same(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both have their elements in the same storage, as a view and its base do, or a tensor and its `detach()`.
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        let storage = |tensor: &Tensor| match &lock(&tensor.0.state).value {
            Value::Own(_) => None,
            Value::Shared(shared) => Some(shared.storage.clone()),
        };
        match (storage(self), storage(other)) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a, &b),
            _ => self.is_same(other),
        }
    }

    /// Its elements in row-major order.
    ///
    /// # Errors
    /// If `T` is not its dtype, or what the device reports about the work that led here.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.array()?.to_vec()
    }

    /// The value of a tensor of one element, as any number type; `item()`.
    ///
    /// # Errors
    /// If it has not exactly one element, or what the device reports about the work that led here.
    pub fn item<T: Element + Default>(&self) -> Result<T> {
        let value = self.array()?.item()?;
        Ok(T::from_bytes(&value.to_bytes(T::DTYPE)).first().copied().unwrap_or_default())
    }

    /// The value of a tensor of one element, with its kind.
    ///
    /// # Errors
    /// As [`Tensor::item`].
    pub fn item_scalar(&self) -> Result<Scalar> {
        self.array()?.item()
    }

    /// Computes its value now, if that has not been done.
    ///
    /// # Errors
    /// What the device reports about the work that led here.
    pub fn eval(&self) -> Result<()> {
        self.array()?.eval()
    }

    /// Computes several values at once, sharing what they have in common: a training step's new weights and its loss.
    ///
    /// # Errors
    /// As [`Tensor::eval`].
    pub fn eval_all<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
        let arrays = tensors.into_iter().map(Tensor::array).collect::<Result<Vec<_>>>()?;
        Array::eval_all(&arrays.iter().collect::<Vec<_>>())
    }

    /// The same values, which fail with `other` where its data turn out to have a fault, such as an index out of range that only the evaluation
    /// finds. For what must not go on without `other` though it does not depend on its values: the number of a step that has failed.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Device, Tensor};
    /// let device = Device::cpu();
    /// // An index that is computed, so that nobody knows it before.
    /// let index = Tensor::new(7.0, &device)?.mul(1.0)?.to_dtype(DType::I64)?;
    /// let row = Tensor::ones([4, 2], &device)?.index_select(0, &index)?;
    /// let count = Tensor::zeros((), &device)?.add(1.0)?;
    /// assert!(count.tied_to(&row)?.item::<f32>().is_err());
    /// assert_eq!(count.item::<f32>()?, 1.0);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the devices differ.
    pub fn tied_to(&self, other: &Tensor) -> Result<Tensor> {
        if other.numel() == 0 || !other.array()?.may_fail() {
            return Ok(self.clone());
        }
        let element = crate::no_grad(|| other.reshape([-1])?.select(0, 0))?;
        let array = self.array()?;
        let tied = array.tied_to(&element.array()?)?;
        if tied.is_same(&array) {
            Ok(self.clone())
        } else {
            Ok(Tensor::from_edge(tied, self.gradient_edge()))
        }
    }

    /// The current value. Views compute theirs anew after somebody wrote to the storage.
    pub(crate) fn array(&self) -> Result<Array> {
        let stale = match &lock(&self.0.state).value {
            Value::Own(array) => return Ok(array.clone()),
            Value::Shared(shared) => match shared.current() {
                Ok(array) => return Ok(array),
                Err(stale) => stale,
            },
        };
        let (array, version) = stale.compute()?;
        if let Value::Shared(shared) = &mut lock(&self.0.state).value {
            // Out of the lock before the old array is dropped.
            let _old = shared.refresh(array.clone(), version);
        }
        Ok(array)
    }

    /// Forgets a gradient whose data have a fault that somebody has been told of: before it, there was none. Whether there was such a
    /// gradient.
    pub(crate) fn drop_spoilt_grad(&self) -> bool {
        // One lock at a time: gradients are tensors with gradients of their own.
        let grad = lock(&self.0.state).extra.as_ref().and_then(|extra| extra.grad.clone());
        let Some(grad) = grad.filter(|grad| grad.is_spoilt()) else { return false };
        let mut state = lock(&self.0.state);
        let spoilt = state.extra().grad.take_if(|current| current.is_same(&grad));
        drop(state);
        spoilt.is_some()
    }

    /// Whether the data that its value depends on have a fault, somebody has been told so, and there is nothing to go back to.
    fn is_spoilt(&self) -> bool {
        match &lock(&self.0.state).value {
            Value::Own(array) => array.has_reported_fault(),
            Value::Shared(shared) => shared.storage.read().0.has_reported_fault(),
        }
    }

    /// The value and, if an operation on it is to be recorded, where its gradient goes.
    pub(crate) fn operand(&self) -> Result<Operand> {
        let record = is_grad_enabled();
        {
            let state = lock(&self.0.state);
            if let Value::Own(array) = &state.value {
                if !record || (state.edge.is_none() && !state.requires_grad) {
                    return Ok(Operand { array: array.clone(), edge: None });
                }
                if let Some(edge) = &state.edge {
                    return Ok(Operand { array: array.clone(), edge: Some(edge.clone()) });
                }
            }
        }
        Ok(Operand { array: self.array()?, edge: if record { self.gradient_edge() } else { None } })
    }

    /// Where its gradient goes: its node, or for a leaf that requires grad its AccumulateGrad.
    pub(crate) fn gradient_edge(&self) -> Option<Edge> {
        self.refresh_history();
        let mut state = lock(&self.0.state);
        if let Some(edge) = &state.edge {
            return Some(edge.clone());
        }
        if !state.requires_grad {
            return None;
        }
        if let Some(node) = state.extra().accumulate.and_then(NodeKey::upgrade) {
            return Some(Edge { node, output: 0 });
        }
        let node = NodeRef::insert(Node {
            name: "AccumulateGrad",
            sequence: u64::MAX,
            called_at: None,
            edges: Default::default(),
            outputs: smallvec::smallvec![self.meta()],
            saved: Default::default(),
            freed: false,
            function: Function::Accumulate(self.clone()),
            hooks: None,
        });
        state.extra().accumulate = Some(node.key());
        Some(Edge { node, output: 0 })
    }

    /// Gives a view whose storage was written since a history that starts at its base's newest one.
    pub(crate) fn refresh_history(&self) {
        let (base, steps, version) = {
            let state = lock(&self.0.state);
            let Value::Shared(shared) = &state.value else { return };
            let Some(view) = &shared.view else { return };
            let Some(base) = &view.base else { return };
            let version = shared.storage.version();
            if version == view.history_version {
                return;
            }
            (base.clone(), view.steps_from_base(), version)
        };
        let to_base = base.gradient_edge();
        if to_base.is_none() && lock(&self.0.state).edge.is_none() {
            // Neither has a history; the base may be asked for a gradient later.
            return;
        }
        let (shape, steps) = (base.0.shape.clone(), Arc::<[_]>::from(steps));
        let derivative = Derivative::with("AsStridedBackward0", move |c| {
            c.each(1, |_| crate::view::adjoint_all(&steps, c.grad()?, &shape))
        });
        // Of a base that was detached no gradient goes any further.
        let edge = derivative.insert_for(self.meta(), to_base);
        let mut state = lock(&self.0.state);
        if let Value::Shared(shared) = &mut state.value
            && let Some(view) = &mut shared.view
            && view.history_version < version
        {
            view.history_version = version;
            let old = state.edge.replace(edge.clone());
            drop(state);
            self.retain_at_newest(old.as_ref(), &edge);
        }
    }

    pub(crate) fn meta(&self) -> Meta {
        Meta { shape: Dims::from_slice(&self.0.shape), dtype: self.0.dtype, device: self.0.device.clone() }
    }

    /// Whether operations on it are recorded: a leaf that was asked to, or a result of such. A view that was made with grad mode off
    /// says what its base says, though nothing is recorded for it.
    pub fn requires_grad(&self) -> bool {
        self.refresh_history();
        let own = self.still_requires_grad();
        own || self.view_kind() == Some(ViewKind::NoGrad)
            && self.base().is_some_and(|base| base.requires_grad())
    }

    /// Whether a gradient that arrives at it is to be kept: a leaf may have been asked to stop since it was used.
    pub(crate) fn still_requires_grad(&self) -> bool {
        let state = lock(&self.0.state);
        state.requires_grad || state.edge.is_some()
    }

    /// Asks for a gradient of this leaf, or no longer. Returns the tensor itself, to be chained.
    ///
    /// # Errors
    /// [`Error::Autograd`] if the dtype is not a float one, or when asking a non-leaf to stop: use `detach()` there.
    pub fn requires_grad_(&self, requires_grad: bool) -> Result<Tensor> {
        const OP: &str = "requires_grad_";
        if requires_grad && !self.dtype().is_float() {
            return Err(Error::Autograd {
                op: OP,
                rule: GradRule::RequiresGradDType,
                reason: format!("only floating-point tensors can require grad, this one is {}", self.dtype()),
            });
        }
        self.refresh_history();
        let mut state = lock(&self.0.state);
        match (&state.edge, requires_grad) {
            (None, _) => {
                state.requires_grad = requires_grad;
                let pending = match &state.value {
                    Value::Own(array) => array.is_pending(),
                    Value::Shared(shared) => {
                        if requires_grad && shared.view.is_none() {
                            shared.storage.holds_parameter();
                        }
                        shared.storage.read().0.is_pending()
                    }
                };
                // A leaf made anew from the one before, as some programs update their parameters.
                if requires_grad && pending {
                    wgrad_array::note_update();
                }
            }
            (Some(_), true) => {}
            (Some(_), false) => {
                return Err(Error::Autograd {
                    op: OP,
                    rule: GradRule::RequiresGradNonLeaf,
                    reason:
                        "only a leaf can stop requiring grad; take detach() of this result of an operation"
                            .into(),
                });
            }
        }
        drop(state);
        Ok(self.clone())
    }

    /// Whether no recorded operation made it.
    pub fn is_leaf(&self) -> bool {
        self.refresh_history();
        lock(&self.0.state).edge.is_none()
    }

    /// The node that made it; `None` for a leaf.
    pub fn grad_fn(&self) -> Option<GradFn> {
        self.refresh_history();
        lock(&self.0.state).edge.clone().map(GradFn::new)
    }

    /// The gradient that backward calls have accumulated; `None` before the first.
    ///
    /// Only leaves keep one. Reading it on the result of an operation logs a warning, once for each tensor, unless
    /// [`Tensor::retain_grad`] was called.
    pub fn grad(&self) -> Option<Tensor> {
        if self.drop_spoilt_grad() {
            return None;
        }
        let mut state = lock(&self.0.state);
        let is_leaf = state.edge.is_none();
        let grad = state.extra.as_ref().and_then(|extra| extra.grad.clone());
        if is_leaf || grad.is_some() || state.extra().retains_grad || state.extra().warned {
            return grad;
        }
        state.extra().warned = true;
        drop(state);
        log::warn!(
            "grad() was read on a tensor that is not a leaf: backward() does not keep its gradient. Call retain_grad() on \
             it before backward(), or read the gradient of the leaf it was computed from; if it is to be a leaf itself \
             (after to(device), say), rebuild it with detach().requires_grad_(true)."
        );
        None
    }

    /// Sets or clears the gradient; `x.grad = g`.
    ///
    /// # Errors
    /// [`Error::Autograd`] if its shape, dtype or device differ, or if it is the tensor itself.
    pub fn set_grad(&self, grad: Option<&Tensor>) -> Result<()> {
        if let Some(grad) = grad {
            let wrong = if grad.is_same(self) {
                Some("a tensor cannot be its own gradient".to_owned())
            } else if (grad.shape(), grad.dtype(), grad.device())
                != (self.shape(), self.dtype(), self.device())
            {
                Some(format!(
                    "the gradient is {}, the tensor {}; they must be alike",
                    grad.meta().describe(),
                    self.meta().describe()
                ))
            } else {
                None
            };
            if let Some(reason) = wrong {
                return Err(Error::Autograd { op: "set_grad", rule: GradRule::GradientMismatch, reason });
            }
        }
        let _old = std::mem::replace(&mut lock(&self.0.state).extra().grad, grad.cloned());
        Ok(())
    }

    /// Forgets the gradient; `x.grad = None`.
    pub fn zero_grad(&self) {
        let _old = lock(&self.0.state).extra.as_mut().and_then(|extra| extra.grad.take());
    }

    /// A tensor with the same storage that takes no part in the graph; `detach()`.
    ///
    /// An in-place write to one shows in the other.
    pub fn detach(&self) -> Tensor {
        let mut state = lock(&self.0.state);
        let shared = state.share().detached();
        drop(state);
        Tensor::with_value(self.meta(), Value::Shared(Box::new(shared)), None)
    }

    /// Makes this tensor a leaf that does not require grad; `detach_()`.
    ///
    /// # Errors
    /// [`Error::Autograd`] for a view: use `detach()`.
    pub fn detach_(&self) -> Result<Tensor> {
        if self.is_view() {
            return Err(Error::Autograd {
                op: "detach_",
                rule: GradRule::ViewInPlace,
                reason: "a view cannot be detached in place; use detach()".into(),
            });
        }
        let mut state = lock(&self.0.state);
        let _edge = state.edge.take();
        state.requires_grad = false;
        drop(state);
        Ok(self.clone())
    }

    /// A new tensor with the same elements and memory of its own, connected to this one by `CloneBackward0`;
    /// PyTorch's `clone()`.
    ///
    /// Rust's `clone()` only copies the handle.
    pub fn deep_clone(&self) -> Result<Tensor> {
        let x = self.operand()?;
        let out = x.array.clone();
        Ok(record(out, [x], |_, _| {
            Derivative::new("CloneBackward0", |c| c.each(1, |_| Ok(c.grad()?.clone())))
        }))
    }

    /// Whether it is a view of another tensor.
    pub fn is_view(&self) -> bool {
        self.look_at_view(|view| view.base.is_some()).unwrap_or(false)
    }

    /// The tensor that this view is of.
    pub fn base(&self) -> Option<Tensor> {
        self.look_at_view(|view| view.base.clone()).flatten()
    }

    fn look_at_view<R>(&self, look: impl FnOnce(&View) -> R) -> Option<R> {
        match &lock(&self.0.state).value {
            Value::Shared(shared) => shared.view.as_ref().map(look),
            Value::Own(_) => None,
        }
    }

    /// Where its elements lie in its storage, in PyTorch's terms.
    pub(crate) fn layout(&self) -> Layout {
        self.look_at_view(|view| view.layout.clone()).unwrap_or_else(|| Layout::contiguous(self.shape()))
    }

    /// The steps of its dims in its storage, in elements; `stride()`.
    pub fn stride(&self) -> Vec<isize> {
        self.layout().strides().to_vec()
    }

    /// Where its first element lies in its storage; `storage_offset()`.
    pub fn storage_offset(&self) -> usize {
        self.layout().offset()
    }

    /// Whether its elements lie in row-major order in its storage.
    pub fn is_contiguous(&self) -> bool {
        self.layout().is_contiguous()
    }

    /// A handle to the shared storage, made so now if need be.
    pub(crate) fn shared(&self) -> Result<Shared> {
        self.array()?;
        Ok(lock(&self.0.state).share().handle())
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({}{:?} on {})", self.dtype(), self.shape(), self.device())
    }
}
