//! Whether a module is trained or used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Module, Value, Walk};

/// Whether a module is trained (dropout drops, norms use the batch's statistics) or used. A new one is
/// trained.
///
/// A clone is the same flag. [`Module::train`] and [`Module::eval`] set all flags of a module.
///
/// ```
/// use wgrad::Tensor;
/// use wgrad::nn::{Module, Training};
///
/// #[derive(Module)]
/// struct Noise {
///     training: Training,
/// }
///
/// impl Noise {
///     fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
///         if self.training.get() { x.add(x.randn_like()?) } else { Ok(x.clone()) }
///     }
/// }
///
/// let noise = Noise { training: Training::default() };
/// noise.eval();
/// let x = Tensor::new([1.0, 2.0], &wgrad::Device::cpu())?;
/// assert_eq!(noise.forward(&x)?.to_vec::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Training(Arc<AtomicBool>);

impl Training {
    /// A flag of its own.
    pub fn new(training: bool) -> Training {
        Training(Arc::new(AtomicBool::new(training)))
    }

    /// Whether it is trained.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Says whether it is trained, to all clones of this flag.
    pub fn set(&self, training: bool) {
        self.0.store(training, Ordering::Relaxed);
    }
}

impl Default for Training {
    fn default() -> Self {
        Training::new(true)
    }
}

impl Module for Training {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.value(Value::Training(&mut self.clone()));
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.value(Value::Training(self));
    }
}
