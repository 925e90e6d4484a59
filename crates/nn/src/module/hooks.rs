//! Functions that see, and may replace, what a layer computes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wgrad_autograd::{Result, Tensor};

use super::{Module, Value, Walk};

/// A function of a layer's input and output. What it returns takes the output's place.
pub(crate) type ForwardHook = dyn Fn(&Tensor, &Tensor) -> Result<Option<Tensor>> + Send + Sync;

type List = Mutex<Vec<(u64, Arc<ForwardHook>)>>;

/// The place in a layer where its forward hooks are kept. A clone is the same place.
///
/// All layers of this crate have one. A layer of one's own that is to have hooks gets a field of this type,
/// and calls [`Hooks::around`] in its forward:
///
/// ```
/// use wgrad::nn::{Hooks, Module};
/// use wgrad::{Device, Tensor};
///
/// #[derive(Module)]
/// struct Double {
///     hooks: Hooks,
/// }
///
/// impl Double {
///     fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
///         self.hooks.around(x, || x.mul(2.0))
///     }
/// }
///
/// let double = Double { hooks: Hooks::default() };
/// let handle = double.register_forward_hook("", |_input, output| Ok(Some(output.add(1.0)?)))?;
/// let x = Tensor::new([1.0], &Device::cpu())?;
/// assert_eq!(double.forward(&x)?.item::<f32>()?, 3.0);
/// handle.remove();
/// assert_eq!(double.forward(&x)?.item::<f32>()?, 2.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Hooks(Arc<List>);

/// A hook that was registered, to be removed.
#[derive(Clone)]
pub struct ForwardHookHandle {
    list: Arc<List>,
    id: u64,
}

fn locked(list: &List) -> MutexGuard<'_, Vec<(u64, Arc<ForwardHook>)>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks {
    /// Computes a layer's output and lets the hooks see it, in the order in which they were registered.
    ///
    /// # Errors
    /// Those of the computation and of the hooks.
    pub fn around(&self, input: &Tensor, compute: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        self.after(input, compute()?)
    }

    /// Lets the hooks see an output.
    ///
    /// # Errors
    /// Those of the hooks.
    pub fn after(&self, input: &Tensor, output: Tensor) -> Result<Tensor> {
        // Hooks run without the lock: they may register and remove others.
        let hooks: Vec<_> = locked(&self.0).iter().map(|(_, hook)| hook.clone()).collect();
        hooks.iter().try_fold(output, |output, hook| Ok(hook(input, &output)?.unwrap_or(output)))
    }

    /// Adds a hook.
    pub fn register(
        &self,
        hook: impl Fn(&Tensor, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
    ) -> ForwardHookHandle {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        locked(&self.0).push((id, Arc::new(hook)));
        ForwardHookHandle { list: self.0.clone(), id }
    }
}

impl ForwardHookHandle {
    /// The hook is called no more.
    pub fn remove(&self) {
        // A hook may own what has hooks itself: it is dropped outside of the lock.
        let mut list = locked(&self.list);
        let removed: Vec<_> = list.extract_if(.., |(id, _)| *id == self.id).collect();
        drop(list);
        drop(removed);
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({})", locked(&self.0).len())
    }
}

impl std::fmt::Debug for ForwardHookHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForwardHookHandle({})", self.id)
    }
}

impl Module for Hooks {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.value(Value::Hooks(&mut self.clone()));
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.value(Value::Hooks(self));
    }
}
