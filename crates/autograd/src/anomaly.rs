//! Anomaly mode: a backward that looks for NaN in what each node computes, and says which line of the program is behind it.

use std::cell::Cell;

use wgrad_array::{Error, GradRule, Result};

use crate::Tensor;

thread_local! {
    static DETECTING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a closure in whose backwards every gradient is looked at as soon as it is computed; `torch.autograd.detect_anomaly`. The first
/// operation that makes a NaN of gradients is an error, which names the operation and the line of the program that called it in the
/// forward.
///
/// Every gradient is evaluated and read, so a backward is many times as slow: for looking for a fault only.
///
/// ```
/// use wgrad::{Device, Tensor, detect_anomaly};
/// let x = Tensor::new([0.0], &Device::cpu())?.requires_grad_(true)?;
/// let y = x.sqrt()?.mul(0.0)?; // the slope of the root is infinite there
/// let error = detect_anomaly(|| y.sum()?.backward()).unwrap_err().to_string();
/// assert!(error.contains("SqrtBackward0") && error.contains(", called at "), "{error}");
/// # Ok::<(), wgrad::Error>(())
/// ```
pub fn detect_anomaly<R>(run: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            DETECTING.set(self.0);
        }
    }
    let _restore = Restore(DETECTING.replace(true));
    run()
}

/// In anomaly mode: that no gradient which a node computed has a NaN.
pub(crate) fn check<'a>(
    node: &'static str,
    called_at: Option<&'static std::panic::Location<'static>>,
    grads: impl Iterator<Item = &'a Option<Tensor>>,
) -> Result<()> {
    if !DETECTING.get() {
        return Ok(());
    }
    for (number, grad) in grads.enumerate() {
        let Some(grad) = grad else { continue };
        if crate::no_grad(|| grad.isnan()?.any()?.item::<bool>())? {
            let place = called_at.map_or_else(String::new, |line| format!(", called at {line},"));
            return Err(Error::Autograd {
                op: node,
                rule: GradRule::Anomaly,
                reason: format!("the operation{place} gave NaN as the gradient of its input {number}"),
            });
        }
    }
    Ok(())
}
