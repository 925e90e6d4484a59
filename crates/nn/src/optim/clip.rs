//! Norms of gradients, and gradients kept below them. All of it is lazy: nothing is read, unless an error is
//! asked for.

use wgrad_autograd::{Device, Error, Result, Tensor, no_grad};

use super::Parameter;
use super::setting::check;

/// How gradients' norms are taken.
///
/// ```
/// use wgrad::optim::NormOptions;
///
/// let options = NormOptions::new().norm_type(f64::INFINITY);
/// assert_eq!(options.norm_type, f64::INFINITY);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NormOptions {
    /// The order of the norm; 2. Infinity gives the largest size of an element.
    pub norm_type: f64,
    /// Whether a norm that is infinite or NaN is an error; off. The norm is read then.
    pub error_if_nonfinite: bool,
}

impl Default for NormOptions {
    fn default() -> Self {
        NormOptions { norm_type: 2.0, error_if_nonfinite: false }
    }
}

impl NormOptions {
    /// PyTorch's defaults.
    ///
    /// ```
    /// assert_eq!(wgrad::optim::NormOptions::new().norm_type, 2.0);
    /// ```
    pub fn new() -> NormOptions {
        NormOptions::default()
    }

    /// The order of the norm; 2. Infinity gives the largest size of an element.
    ///
    /// ```
    /// assert_eq!(wgrad::optim::NormOptions::new().norm_type(1.0).norm_type, 1.0);
    /// ```
    pub fn norm_type(mut self, norm_type: f64) -> Self {
        self.norm_type = norm_type;
        self
    }

    /// Whether a norm that is infinite or NaN is an error; off. The norm is read then.
    ///
    /// ```
    /// assert!(wgrad::optim::NormOptions::new().error_if_nonfinite(true).error_if_nonfinite);
    /// ```
    pub fn error_if_nonfinite(mut self, error: bool) -> Self {
        self.error_if_nonfinite = error;
        self
    }
}

/// The norm of several tensors as if they were one vector, 0-dim; `nn.utils.get_total_norm`. It is 0 for no
/// tensors.
///
/// ```
/// use wgrad::optim::{NormOptions, get_total_norm};
/// use wgrad::{Device, Tensor};
///
/// let device = Device::cpu();
/// let tensors = [Tensor::new([3.0, 0.0], &device)?, Tensor::new(4.0, &device)?];
/// assert_eq!(get_total_norm(&tensors, &NormOptions::new())?.item::<f32>()?, 5.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for a norm type that is NaN; and if `error_if_nonfinite` is set, for a norm that is
/// infinite or NaN.
pub fn get_total_norm<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    options: &NormOptions,
) -> Result<Tensor> {
    const OP: &str = "get_total_norm";
    let NormOptions { norm_type, error_if_nonfinite } = *options;
    check(OP, !norm_type.is_nan(), || "norm_type is NaN".to_owned())?;
    let tensors: Vec<&Tensor> = tensors.into_iter().collect();
    let Some(first) = tensors.first() else { return Tensor::zeros((), Device::cpu()) };
    let norm = |tensor: &&Tensor| tensor.vector_norm(norm_type, (), false)?.to_device(first.device());
    let norms = tensors.iter().map(norm).collect::<Result<Vec<_>>>()?;
    let total = match norms.as_slice() {
        [one] => one.vector_norm(norm_type, (), false)?,
        norms => Tensor::stack(&norms.iter().collect::<Vec<_>>(), 0)?.vector_norm(norm_type, (), false)?,
    };
    if error_if_nonfinite && !total.isfinite()?.item::<bool>()? {
        let reason = format!(
            "the total norm of order {norm_type} is not finite, so gradients cannot be clipped to it; \
             look for the cause, or do not set error_if_nonfinite"
        );
        return Err(Error::Argument { op: OP, reason });
    }
    Ok(total)
}

/// Scales the gradients of these parameters so that their norm, taken together, is at most `max_norm`;
/// `nn.utils.clip_grad_norm_`. Gives the norm before.
///
/// ```
/// use wgrad::optim::clip_grad_norm_;
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([3.0, 4.0], &Device::cpu())?.requires_grad_(true)?;
/// x.square()?.sum()?.backward()?;
/// let norm = clip_grad_norm_([&x], 1.0)?;
/// assert_eq!(norm.item::<f32>()?, 10.0);
/// let clipped = x.grad().expect("backward gave one").to_vec::<f32>()?;
/// assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// If the device fails.
pub fn clip_grad_norm_<P: Parameter>(params: impl IntoIterator<Item = P>, max_norm: f64) -> Result<Tensor> {
    clip_grad_norm_with_(params, max_norm, &NormOptions::new())
}

/// [`clip_grad_norm_`] with another norm.
///
/// ```
/// use wgrad::optim::{NormOptions, clip_grad_norm_with_};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0, -2.0], &Device::cpu())?.requires_grad_(true)?;
/// x.square()?.sum()?.backward()?;
/// let largest = clip_grad_norm_with_([&x], 1.0, &NormOptions::new().norm_type(f64::INFINITY))?;
/// assert_eq!(largest.item::<f32>()?, 4.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// As [`get_total_norm`]; the gradients are as they were then.
pub fn clip_grad_norm_with_<P: Parameter>(
    params: impl IntoIterator<Item = P>,
    max_norm: f64,
    options: &NormOptions,
) -> Result<Tensor> {
    no_grad(|| {
        let grads = grads(params);
        let total = get_total_norm(&grads, options)?;
        let factor = total.add(1e-6)?.reciprocal()?.mul(max_norm)?.clamp(None, 1.0)?;
        let factor_of = |grad: &Tensor| factor.to_device(grad.device());
        // All are made before the first is written.
        let scaled = grads.iter().map(|grad| grad.mul(factor_of(grad)?)).collect::<Result<Vec<_>>>()?;
        for (grad, scaled) in grads.iter().zip(&scaled) {
            grad.copy_(scaled)?;
        }
        Ok(total)
    })
}

/// Keeps each element of these parameters' gradients between `-clip_value` and `clip_value`;
/// `nn.utils.clip_grad_value_`.
///
/// ```
/// use wgrad::optim::clip_grad_value_;
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([0.1, -3.0], &Device::cpu())?.requires_grad_(true)?;
/// x.square()?.sum()?.backward()?;
/// clip_grad_value_([&x], 1.0)?;
/// assert_eq!(x.grad().expect("backward gave one").to_vec::<f32>()?, [0.2, -1.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for a value that is negative or NaN.
pub fn clip_grad_value_<P: Parameter>(params: impl IntoIterator<Item = P>, clip_value: f64) -> Result<()> {
    check("clip_grad_value_", clip_value >= 0.0, || {
        format!("clip_value is {clip_value}; it must be at least 0")
    })?;
    no_grad(|| {
        let grads = grads(params);
        grads.iter().try_for_each(|grad| grad.clamp_(-clip_value, clip_value).map(drop))
    })
}

/// The gradients that there are.
fn grads<P: Parameter>(params: impl IntoIterator<Item = P>) -> Vec<Tensor> {
    params.into_iter().filter_map(|param| param.into_parts().1.grad()).collect()
}
