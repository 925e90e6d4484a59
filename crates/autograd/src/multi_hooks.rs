//! Hooks on the gradients of several tensors; `torch.autograd.graph.register_multi_grad_hook`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{self, ThreadId};

use wgrad_array::Result;

use crate::Tensor;
use crate::engine::current::{Asking, innermost, is_running, reached};
use crate::hooks::{HookHandle, Remove};
use crate::tape::{NodeKey, lock};
use crate::tensor::Inner;

/// A hook, and what it has seen of the backwards that run.
struct MultiHook<F> {
    call: F,
    watched: Vec<Watched>,
    seen: Mutex<HashMap<(ThreadId, u64), Seen>>,
    handles: Mutex<Vec<HookHandle>>,
    _asking: Asking,
}

/// A tensor, which the hook does not keep alive: its graph owns the hook.
enum Watched {
    Leaf(Weak<Inner>),
    Result(NodeKey),
}

impl Watched {
    /// `None` if it does not require grad.
    fn of(tensor: &Tensor) -> Option<Watched> {
        if tensor.is_leaf() {
            return Some(Watched::Leaf(Arc::downgrade(&tensor.0)));
        }
        tensor.gradient_edge().map(|edge| Watched::Result(edge.node.key()))
    }

    /// The node that its gradient goes to.
    fn node(&self) -> Option<NodeKey> {
        match self {
            Watched::Leaf(leaf) => Tensor(leaf.upgrade()?).gradient_edge().map(|edge| edge.node.key()),
            Watched::Result(node) => Some(*node),
        }
    }
}

/// The gradients of a backward so far.
struct Seen {
    grads: Vec<Option<Tensor>>,
    /// How many are still to come.
    missing: usize,
}

impl<F: Send + Sync> Remove for MultiHook<F> {
    fn remove(&self) {
        for handle in lock(&self.handles).drain(..) {
            handle.remove();
        }
    }
}

impl<F: Send + Sync + 'static> MultiHook<F> {
    /// Has `arrived` called with the number of each tensor whose gradient arrives.
    fn register(
        tensors: &[&Tensor],
        call: F,
        arrived: impl Fn(&MultiHook<F>, usize, &Tensor) -> Result<()> + Clone + Send + Sync + 'static,
    ) -> Result<HookHandle> {
        let hook = Arc::new(MultiHook {
            call,
            watched: tensors.iter().filter_map(|tensor| Watched::of(tensor)).collect(),
            seen: Mutex::default(),
            handles: Mutex::default(),
            _asking: Asking::new(),
        });
        for (number, tensor) in tensors.iter().enumerate() {
            let (mine, arrived) = (hook.clone(), arrived.clone());
            match tensor.register_hook(move |grad| arrived(&mine, number, grad).map(|()| None)) {
                Ok(handle) => lock(&hook.handles).push(handle),
                Err(error) => {
                    hook.remove();
                    return Err(error);
                }
            }
        }
        Ok(HookHandle::of(&hook))
    }

    /// Notes a gradient. Gives all of this backward's once the last has come.
    fn note(&self, number: usize, grad: &Tensor) -> Option<Vec<Option<Tensor>>> {
        let count = reached(self.watched.iter().filter_map(Watched::node));
        let key = (thread::current().id(), innermost()?);
        let mut seen = self.running();
        let none = || Seen { grads: vec![None; self.watched.len()], missing: count };
        let mine = seen.entry(key).or_insert_with(none);
        mine.grads[number] = Some(grad.clone());
        mine.missing = mine.missing.saturating_sub(1);
        if mine.missing > 0 {
            return None;
        }
        seen.remove(&key).map(|seen| seen.grads)
    }

    /// Whether this is the first gradient of a backward.
    fn is_first(&self) -> bool {
        let Some(run) = innermost() else { return false };
        let first = Seen { grads: Vec::new(), missing: 0 };
        self.running().insert((thread::current().id(), run), first).is_none()
    }

    /// What was seen, without this thread's backwards that are over.
    fn running(&self) -> MutexGuard<'_, HashMap<(ThreadId, u64), Seen>> {
        let thread = thread::current().id();
        let mut seen = lock(&self.seen);
        seen.retain(|&(other, run), _| other != thread || is_running(run));
        seen
    }
}

/// Registers a function that each backward calls once, with the gradients of all these tensors, as soon as the last of them is there.
/// `None` stands for a tensor that the backward does not reach.
///
/// ```
/// use std::sync::{Arc, Mutex, MutexGuard, Weak};
/// use wgrad::{Device, Tensor, register_multi_grad_hook};
/// let a = Tensor::new([1.0, 2.0], &Device::cpu())?.requires_grad_(true)?;
/// let b = Tensor::new([3.0, 4.0], &Device::cpu())?.requires_grad_(true)?;
/// let calls = Arc::new(Mutex::new(Vec::new()));
/// let log = calls.clone();
/// let handle = register_multi_grad_hook(&[&a, &b], move |grads| {
///     log.lock().unwrap().push(grads.iter().map(Option::is_some).collect::<Vec<_>>());
///     Ok(())
/// })?;
/// (&a * &b)?.sum()?.backward()?;
/// a.sum()?.backward()?;
/// assert_eq!(*calls.lock().unwrap(), [[true, true], [true, false]]);
/// handle.remove();
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// As [`Tensor::register_hook`]; nothing is registered then.
pub fn register_multi_grad_hook(
    tensors: &[&Tensor],
    hook: impl Fn(&[Option<Tensor>]) -> Result<()> + Send + Sync + 'static,
) -> Result<HookHandle> {
    MultiHook::register(tensors, hook, |mine, number, grad| match mine.note(number, grad) {
        Some(grads) => (mine.call)(&grads),
        None => Ok(()),
    })
}

/// Registers a function that each backward calls once, with the first gradient of any of these tensors;
/// `register_multi_grad_hook(mode="any")`.
///
/// # Errors
/// As [`Tensor::register_hook`]; nothing is registered then.
pub fn register_any_grad_hook(
    tensors: &[&Tensor],
    hook: impl Fn(&Tensor) -> Result<()> + Send + Sync + 'static,
) -> Result<HookHandle> {
    MultiHook::register(
        tensors,
        hook,
        |mine, _, grad| if mine.is_first() { (mine.call)(grad) } else { Ok(()) },
    )
}
