//! Hooks: user functions that backward calls on its way.
//!
//! A hook may be removed through its handle from any thread, also while a backward runs; one that is running ends
//! normally. Hooks are called without any lock held, so they may use tensors, tapes and backward themselves.

use std::sync::{Arc, Mutex, Weak};

use wgrad_array::{Error, GradRule, Result};

use crate::tape::{Edge, Meta, lock};
use crate::tensor::Inner;
use crate::{GradFn, Tensor};

/// Called with a tensor's gradient; may give another one in its place.
pub(crate) type TensorHook = dyn Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync;
/// Called with a leaf whose gradient has been accumulated.
pub(crate) type LeafHook = dyn Fn(&Tensor) -> Result<()> + Send + Sync;
/// Called with the gradients of a node's outputs before it runs; may give others.
pub(crate) type PreHook = dyn Fn(&[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> + Send + Sync;
/// Called with the gradients of a node's inputs and outputs after it ran; may give other ones for the inputs.
pub(crate) type PostHook =
    dyn Fn(&[Option<Tensor>], &[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> + Send + Sync;

/// A registered function, or the place where one was.
pub(crate) struct Entry<F: ?Sized>(Mutex<Option<Arc<F>>>);

impl<F: ?Sized> Entry<F> {
    pub(crate) fn get(&self) -> Option<Arc<F>> {
        lock(&self.0).clone()
    }
}

/// Functions of one kind, in the order of their registration.
pub(crate) struct Hooks<F: ?Sized>(Vec<Arc<Entry<F>>>);

impl<F: ?Sized> Default for Hooks<F> {
    fn default() -> Self {
        Hooks(Vec::new())
    }
}

impl<F: ?Sized> Clone for Hooks<F> {
    fn clone(&self) -> Self {
        Hooks(self.0.clone())
    }
}

impl<F: ?Sized + Send + Sync + 'static> Hooks<F> {
    pub(crate) fn add(&mut self, hook: Arc<F>) -> HookHandle {
        self.0.retain(|entry| lock(&entry.0).is_some());
        let entry = Arc::new(Entry(Mutex::new(Some(hook))));
        let weak: Weak<Entry<F>> = Arc::downgrade(&entry);
        self.0.push(entry);
        HookHandle { entry: weak }
    }

    /// The hooks that have not been removed; each is looked up when its turn comes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Arc<F>> + '_ {
        self.0.iter().filter_map(|entry| entry.get())
    }
}

/// What a handle removes.
pub(crate) trait Remove: Send + Sync {
    fn remove(&self);
}

impl<F: ?Sized + Send + Sync> Remove for Entry<F> {
    fn remove(&self) {
        // Taken out first: what the closure owns is dropped without the lock.
        let _hook = lock(&self.0).take();
    }
}

/// Removes the hook it was returned for. Dropping the handle leaves the hook in place.
#[derive(Clone)]
pub struct HookHandle {
    entry: Weak<dyn Remove>,
}

impl HookHandle {
    /// A handle that removes this.
    pub(crate) fn of<R: Remove + 'static>(removed: &Arc<R>) -> HookHandle {
        let weak: Weak<R> = Arc::downgrade(removed);
        HookHandle { entry: weak }
    }

    /// Removes the hook. Nothing happens if it is gone already.
    pub fn remove(&self) {
        if let Some(entry) = self.entry.upgrade() {
            entry.remove();
        }
    }
}

impl std::fmt::Debug for HookHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.entry.strong_count() > 0 { "HookHandle" } else { "HookHandle(gone)" })
    }
}

/// The hooks of a node.
#[derive(Clone, Default)]
pub(crate) struct NodeHooks {
    /// On the gradients of its outputs; a leaf keeps its own.
    pub(crate) tensor: Vec<(u32, Hooks<TensorHook>)>,
    /// Outputs whose gradient is to be kept, and by whom.
    pub(crate) retain: Vec<(u32, Weak<Inner>)>,
    pub(crate) pre: Hooks<PreHook>,
    pub(crate) post: Hooks<PostHook>,
}

/// # Hooks
impl Tensor {
    /// Registers a function that backward calls with this tensor's gradient; `register_hook`. If it gives a tensor, that becomes the
    /// gradient.
    ///
    /// On the result of an operation it binds to the value the tensor has now: an in-place operation later makes a new one.
    ///
    /// The tensor's graph owns the hook: one that owns the tensor, or anything made of it, keeps both in memory until it is removed.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let x = Tensor::new(&[1f32, 2.0], &Device::cpu())?.requires_grad_(true)?;
    /// let handle = x.register_hook(|grad| Ok(Some((grad * 10.0)?)))?;
    /// x.sum()?.backward()?;
    /// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [10.0, 10.0]);
    /// handle.remove();
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Autograd`] if the tensor does not require grad. An error from the hook ends the backward.
    pub fn register_hook(
        &self,
        hook: impl Fn(&Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> Result<HookHandle> {
        let hook: Arc<TensorHook> = Arc::new(hook);
        let edge = self.hook_edge("register_hook")?;
        if self.is_leaf() {
            return Ok(lock(&self.0.state).extra().hooks.add(hook));
        }
        Ok(edge.node.with(|node| {
            let hooks = &mut node.hooks.get_or_insert_default().tensor;
            match hooks.iter_mut().find(|(output, _)| *output == edge.output) {
                Some((_, hooks)) => hooks.add(hook),
                None => {
                    let mut added = Hooks::default();
                    let handle = added.add(hook);
                    hooks.push((edge.output, added));
                    handle
                }
            }
        }))
    }

    /// Keeps the gradient of this result of an operation in `grad()`, as a leaf's is; `retain_grad`. A leaf does so anyway.
    ///
    /// # Errors
    /// [`Error::Autograd`] if the tensor does not require grad.
    pub fn retain_grad(&self) -> Result<()> {
        let edge = self.hook_edge("retain_grad")?;
        if self.is_leaf() {
            return Ok(());
        }
        let mut state = lock(&self.0.state);
        let again = std::mem::replace(&mut state.extra().retains_grad, true);
        drop(state);
        if !again {
            self.retain_at(&edge);
        }
        Ok(())
    }

    /// Whether this is the result of an operation that keeps its gradient; `retains_grad`.
    pub fn retains_grad(&self) -> bool {
        !self.is_leaf() && lock(&self.0.state).extra.as_ref().is_some_and(|extra| extra.retains_grad)
    }

    /// Has a node keep the gradient of one of its outputs for this tensor.
    fn retain_at(&self, edge: &Edge) {
        let keeper = Arc::downgrade(&self.0);
        edge.node.with(|node| node.hooks.get_or_insert_default().retain.push((edge.output, keeper)));
    }

    /// If this tensor keeps its gradient, it is from now on that of its newest value, not of an older one.
    pub(crate) fn retain_at_newest(&self, old: Option<&Edge>, newest: &Edge) {
        if !lock(&self.0.state).extra.as_ref().is_some_and(|extra| extra.retains_grad) {
            return;
        }
        let me = Arc::as_ptr(&self.0);
        if let Some(old) = old {
            old.node.with(|node| {
                if let Some(hooks) = &mut node.hooks {
                    hooks.retain.retain(|(_, keeper)| keeper.as_ptr() != me);
                }
            });
        }
        self.retain_at(newest);
    }

    /// Registers a function that backward calls with this leaf after its gradient was accumulated;
    /// `register_post_accumulate_grad_hook`.
    ///
    /// # Errors
    /// [`Error::Autograd`] if the tensor is not a leaf that requires grad.
    pub fn register_post_accumulate_grad_hook(
        &self,
        hook: impl Fn(&Tensor) -> Result<()> + Send + Sync + 'static,
    ) -> Result<HookHandle> {
        const OP: &str = "register_post_accumulate_grad_hook";
        self.hook_edge(OP)?;
        if !self.is_leaf() {
            return Err(Error::Autograd {
                op: OP,
                rule: GradRule::NeedsLeaf,
                reason: "only leaves accumulate gradients; use register_hook on the result of an operation"
                    .into(),
            });
        }
        let hook: Arc<LeafHook> = Arc::new(hook);
        Ok(lock(&self.0.state).extra().post_accumulate.add(hook))
    }

    fn hook_edge(&self, op: &'static str) -> Result<Edge> {
        self.gradient_edge().ok_or_else(|| Error::Autograd {
            op,
            rule: GradRule::NeedsRequiresGrad,
            reason:
                "the tensor does not require grad; call requires_grad_(true) on the leaf it comes from first"
                    .into(),
        })
    }
}

impl GradFn {
    /// Registers a function that backward calls with the gradients of the node's outputs before the node runs;
    /// `register_prehook`. What it gives takes their place.
    pub fn register_prehook(
        &self,
        hook: impl Fn(&[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> + Send + Sync + 'static,
    ) -> HookHandle {
        let hook: Arc<PreHook> = Arc::new(hook);
        self.node().with(|node| node.hooks.get_or_insert_default().pre.add(hook))
    }

    /// Registers a function that backward calls after the node ran, with the gradients of its inputs and of its
    /// outputs; `register_hook` of a node. What it gives takes the place of the former.
    pub fn register_hook(
        &self,
        hook: impl Fn(&[Option<Tensor>], &[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>>
        + Send
        + Sync
        + 'static,
    ) -> HookHandle {
        let hook: Arc<PostHook> = Arc::new(hook);
        self.node().with(|node| node.hooks.get_or_insert_default().post.add(hook))
    }
}

/// The gradient that a tensor hook leaves, which must be like the one it got.
pub(crate) fn run_tensor_hooks(hooks: &Hooks<TensorHook>, grad: Tensor) -> Result<Tensor> {
    hooks.iter().try_fold(grad, |grad, hook| match hook(&grad)? {
        None => Ok(grad),
        Some(new)
            if (new.shape(), new.dtype(), new.device()) == (grad.shape(), grad.dtype(), grad.device()) =>
        {
            Ok(new)
        }
        Some(new) => Err(Error::Autograd {
            op: "register_hook",
            rule: GradRule::Hook,
            reason: format!(
                "a hook turned a gradient that is {} into one that is {}; they must be alike",
                grad.meta().describe(),
                new.meta().describe()
            ),
        }),
    })
}

/// What a hook of a node gave in place of gradients: as many, each of the shape, dtype and device of what it belongs to.
///
/// # Errors
/// [`Error::Autograd`] that names the node and the hook.
pub(crate) fn check_given(
    node: &'static str,
    hook: &'static str,
    given: &[Option<Tensor>],
    expected: &[Option<Meta>],
) -> Result<()> {
    let fail = |reason: String| Err(Error::Autograd { op: node, rule: GradRule::Hook, reason });
    if given.len() != expected.len() {
        return fail(format!("a {hook} gave {} gradients where there are {}", given.len(), expected.len()));
    }
    for (number, (grad, meta)) in given.iter().zip(expected).enumerate() {
        let (Some(grad), Some(meta)) = (grad, meta) else { continue };
        if grad.shape() != meta.shape.as_slice()
            || grad.dtype() != meta.dtype
            || grad.device() != &meta.device
        {
            return fail(format!(
                "a {hook} gave as gradient {number} {}; it must be {}",
                grad.meta().describe(),
                meta.describe()
            ));
        }
    }
    Ok(())
}
