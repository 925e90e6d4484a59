//! Grad mode: whether operations record what they do, a switch for each thread.
//!
//! Guarantee: whatever ends a scope (a return, an error, a panic), the mode is again what it was before.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;

thread_local! {
    static GRAD_ENABLED: Cell<bool> = const { Cell::new(true) };
}

/// Whether operations on this thread record gradients; `torch.is_grad_enabled`.
pub fn is_grad_enabled() -> bool {
    GRAD_ENABLED.get()
}

/// Switches recording on or off for this thread until it is switched again; `torch.set_grad_enabled` as a function.
///
/// For a scope use [`no_grad`], [`enable_grad`] or a [`GradModeGuard`].
pub fn set_grad_enabled(enabled: bool) {
    GRAD_ENABLED.set(enabled);
}

/// Runs a closure without recording; `with torch.no_grad():`.
///
/// ```
/// use wgrad_autograd::{Device, Tensor, no_grad};
/// let x = Tensor::new(&[1f32, 2.0], &Device::cpu())?.requires_grad_(true)?;
/// let y = no_grad(|| x.mul(2.0))?;
/// assert!(!y.requires_grad());
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
pub fn no_grad<R>(run: impl FnOnce() -> R) -> R {
    let _guard = GradModeGuard::new(false);
    run()
}

/// Runs a closure with recording, also inside of [`no_grad`]; `with torch.enable_grad():`.
pub fn enable_grad<R>(run: impl FnOnce() -> R) -> R {
    let _guard = GradModeGuard::new(true);
    run()
}

/// A grad mode for as long as it lives: `let _guard = GradModeGuard::new(false);`.
#[must_use = "the mode ends with the guard: bind it to a name such as `_guard`"]
pub struct GradModeGuard {
    previous: bool,
    /// The mode belongs to this thread, so the guard must stay on it.
    not_send: PhantomData<*const ()>,
}

impl GradModeGuard {
    /// Switches recording on or off until the guard is dropped.
    pub fn new(enabled: bool) -> GradModeGuard {
        GradModeGuard { previous: GRAD_ENABLED.replace(enabled), not_send: PhantomData }
    }
}

impl Drop for GradModeGuard {
    fn drop(&mut self) {
        GRAD_ENABLED.set(self.previous);
    }
}

/// Runs a future without recording, on whichever threads it is polled; what `#[no_grad]` makes of an `async fn`.
pub async fn no_grad_async<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| no_grad(|| future.as_mut().poll(context))).await
}
