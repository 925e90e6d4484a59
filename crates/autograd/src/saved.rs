//! Hooks on the values that operations save for backward: packed when they are saved, unpacked when a derivative asks for them.

use std::cell::RefCell;
use std::sync::Arc;

use wgrad_array::{Array, Device, Error, GradRule, Result};

use crate::tape::Meta;
use crate::{Tensor, no_grad};

/// Packs a value.
trait Pack: Send + Sync {
    fn pack(&self, value: Tensor) -> Result<Arc<dyn Unpack>>;
}

/// A value that has been packed.
trait Unpack: Send + Sync {
    fn unpack(&self) -> Result<Tensor>;
}

struct Hooks<P, U> {
    pack: P,
    unpack: Arc<U>,
}

struct PackedAs<T, U> {
    value: T,
    unpack: Arc<U>,
}

impl<T, P, U> Pack for Hooks<P, U>
where
    T: Send + Sync + 'static,
    P: Fn(Tensor) -> Result<T> + Send + Sync,
    U: Fn(&T) -> Result<Tensor> + Send + Sync + 'static,
{
    fn pack(&self, value: Tensor) -> Result<Arc<dyn Unpack>> {
        Ok(Arc::new(PackedAs { value: (self.pack)(value)?, unpack: self.unpack.clone() }))
    }
}

impl<T: Send + Sync, U: Fn(&T) -> Result<Tensor> + Send + Sync> Unpack for PackedAs<T, U> {
    fn unpack(&self) -> Result<Tensor> {
        (self.unpack)(&self.value)
    }
}

thread_local! {
    /// The hooks in force on this thread.
    static HOOKS: RefCell<Option<Arc<dyn Pack>>> = const { RefCell::new(None) };
}

/// Runs a closure whose operations save their values through `pack`, and whose derivatives get them back through `unpack`;
/// `torch.autograd.graph.saved_tensors_hooks`. Of nested calls the innermost counts.
///
/// What `unpack` gives must have the shape, dtype and device of what was packed. Hooks run with grad mode off. What a hook saves itself,
/// by running operations, is not packed.
///
/// ```
/// use wgrad::{DType, Device, Tensor, saved_tensors_hooks};
/// let x = Tensor::new([1.0, 2.0], &Device::cpu())?.requires_grad_(true)?;
/// // Half the memory, at the precision of bf16.
/// let y = saved_tensors_hooks(
///     |value| value.to_dtype(DType::BF16),
///     |packed| packed.to_dtype(DType::F32),
///     || x.exp()?.square()?.sum(),
/// )?;
/// y.backward()?;
/// let exact = (2.0 * 2f32.exp(), 2.0 * 4f32.exp());
/// let grad = x.grad().unwrap().to_vec::<f32>()?;
/// assert!((grad[0] / exact.0 - 1.0).abs() < 0.01 && (grad[1] / exact.1 - 1.0).abs() < 0.01);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub fn saved_tensors_hooks<T, R>(
    pack: impl Fn(Tensor) -> Result<T> + Send + Sync + 'static,
    unpack: impl Fn(&T) -> Result<Tensor> + Send + Sync + 'static,
    run: impl FnOnce() -> R,
) -> R
where
    T: Send + Sync + 'static,
{
    with_hooks(Some(Arc::new(Hooks { pack, unpack: Arc::new(unpack) })), run)
}

/// Runs a closure whose operations keep what they save for backward in this machine's memory instead of the device's;
/// `torch.autograd.graph.save_on_cpu`. Each saved value is computed and read when it is saved.
///
/// ```
/// use wgrad::{Device, Tensor, save_on_cpu};
/// let x = Tensor::new([1.0, 2.0], &Device::best()?)?.requires_grad_(true)?;
/// let y = save_on_cpu(|| x.square()?.sum())?;
/// y.backward()?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub fn save_on_cpu<R>(run: impl FnOnce() -> R) -> R {
    saved_tensors_hooks(
        |value: Tensor| Ok((value.device().clone(), value.to(Device::cpu())?)),
        |(device, kept)| kept.to(device),
        run,
    )
}

/// Runs a closure with these hooks as the only ones in force; with none, values are saved as they are.
fn with_hooks<R>(hooks: Option<Arc<dyn Pack>>, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Pack>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOOKS.set(self.0.take());
        }
    }
    let _restore = Restore(HOOKS.replace(hooks));
    run()
}

/// A saved value in the hands of hooks.
#[derive(Clone)]
pub(crate) struct Packed {
    /// What packing gave; its error is that of whoever asks for the value.
    outcome: Result<Arc<dyn Unpack>>,
    meta: Meta,
}

impl Packed {
    /// Packs a value, if there are hooks.
    pub(crate) fn new(value: &Array) -> Option<Packed> {
        let hooks = HOOKS.with_borrow(Option::clone)?;
        let pack = || hooks.pack(Tensor::from_array(value.clone()));
        let outcome = with_hooks(None, || no_grad(pack));
        Some(Packed { outcome, meta: Meta::of(value) })
    }

    /// The value again, for a node of this name.
    pub(crate) fn unpack(&self, node: &'static str) -> Result<Array> {
        let packed = self.outcome.clone()?;
        let value = with_hooks(None, || no_grad(|| packed.unpack()))?;
        let found = value.meta();
        if (&found.shape, found.dtype, &found.device)
            != (&self.meta.shape, self.meta.dtype, &self.meta.device)
        {
            return Err(Error::Autograd {
                op: node,
                rule: GradRule::Hook,
                reason: format!(
                    "a saved value was unpacked as {}; it was packed as {}",
                    found.describe(),
                    self.meta.describe()
                ),
            });
        }
        value.array()
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({})", self.meta.describe())
    }
}
