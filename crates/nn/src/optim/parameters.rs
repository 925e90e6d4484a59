//! What optimisers are made from.

use wgrad_autograd::{Result, Tensor};

use super::setting::check;

/// A parameter to optimise: a tensor, or a pair of a path and a tensor.
///
/// ```
/// use wgrad::optim::{Lion, LionOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let with_path = Lion::new([("encoder.weight", &x)], LionOptions::new())?;
/// let without = Lion::new([&x], LionOptions::new())?;
/// # let _ = (with_path, without);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Parameter {
    /// Its path, if it has one, and the tensor.
    ///
    /// ```
    /// use wgrad::optim::Parameter;
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?;
    /// assert_eq!(("bias", &x).into_parts().0.as_deref(), Some("bias"));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn into_parts(self) -> (Option<String>, Tensor);
}

impl Parameter for Tensor {
    fn into_parts(self) -> (Option<String>, Tensor) {
        (None, self)
    }
}

impl Parameter for &Tensor {
    fn into_parts(self) -> (Option<String>, Tensor) {
        (None, self.clone())
    }
}

impl<S: Into<String>, T: Parameter> Parameter for (S, T) {
    fn into_parts(self) -> (Option<String>, Tensor) {
        (Some(self.0.into()), self.1.into_parts().1)
    }
}

/// Parameters with their paths, checked; `before` are those that the optimiser has already.
pub(super) fn collect<P: Parameter>(
    op: &'static str,
    before: Vec<(String, Tensor)>,
    params: impl IntoIterator<Item = P>,
) -> Result<Vec<(String, Tensor)>> {
    let start = before.len();
    let mut all = before;
    for param in params {
        let (path, tensor) = param.into_parts();
        let path = path.unwrap_or_else(|| all.len().to_string());
        check(op, tensor.dtype().is_float(), || {
            format!("{path} is {}; parameters must have a float dtype", tensor.dtype())
        })?;
        check(op, tensor.is_leaf(), || {
            format!("{path} is the result of an operation; give a leaf, such as its detach()")
        })?;
        for (other, known) in &all {
            check(op, *other != path, || format!("two parameters are called {path}"))?;
            check(op, !known.is_same(&tensor), || {
                format!("{path} is the same tensor as {other}; give each parameter once")
            })?;
        }
        all.push((path, tensor));
    }
    let added = all.split_off(start);
    check(op, !added.is_empty(), || "there are no parameters; give at least one".to_owned())?;
    Ok(added)
}
