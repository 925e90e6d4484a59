//! Elements, or whole channels, left out at random in training.

use wgrad_autograd::{Error, Result, Tensor};

use crate::{Hooks, Layer, Module, Training};

/// Layers that leave out a part of what they are given.
macro_rules! dropouts {
    ($($(#[$about:meta])* $name:ident |$x:ident, $p:ident| $forward:expr;)*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            p: f64,
            training: Training,
            hooks: Hooks,
        }

        impl $name {
            /// With this probability of being left out; PyTorch's default is 0.5. One that is not between 0
            /// and 1 is an error of the forward.
            pub fn new(p: f64) -> $name {
                $name { p, training: Training::default(), hooks: Hooks::default() }
            }
        }

        impl Layer for $name {
            fn forward(&self, input: &Tensor) -> Result<Tensor> {
                self.hooks.around(input, || {
                    if !(0.0..=1.0).contains(&self.p) {
                        let reason = format!("p is {}; it must lie between 0 and 1", self.p);
                        return Err(Error::Argument { op: stringify!($name), reason });
                    }
                    if !self.training.get() || self.p == 0.0 {
                        return Ok(input.clone());
                    }
                    let ($x, $p) = (input, self.p);
                    $forward
                })
            }
        }
    )*};
}

dropouts! {
    /// In training each element becomes 0 with probability `p`, and the others are scaled by `1 / (1 - p)`;
    /// `torch.nn.Dropout`.
    ///
    /// ```
    /// use wgrad::nn::{Dropout, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = Dropout::new(0.5).forward(&Tensor::ones(100, &Device::cpu())?)?;
    /// assert!(y.to_vec::<f32>()?.iter().all(|&y| y == 0.0 || y == 2.0));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Dropout |x, p| x.dropout(p, true);

    /// [`Dropout`] of whole channels of `[.., channels, length]`; `torch.nn.Dropout1d`.
    ///
    /// ```
    /// use wgrad::nn::{Dropout1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = Dropout1d::new(0.5).forward(&Tensor::ones([2, 8, 5], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [2, 8, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Dropout1d |x, p| drop_channels("Dropout1d", x, p, 1);

    /// [`Dropout`] of whole channels of `[.., channels, height, width]`; `torch.nn.Dropout2d`.
    ///
    /// ```
    /// use wgrad::nn::{Dropout2d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = Dropout2d::new(0.5).forward(&Tensor::ones([1, 8, 2, 2], &Device::cpu())?)?;
    /// assert!(y.amin([2, 3], false)?.eq(y.amax([2, 3], false)?)?.all()?.item::<bool>()?);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Dropout2d |x, p| drop_channels("Dropout2d", x, p, 2);

    /// [`Dropout`] of whole channels of `[.., channels, depth, height, width]`; `torch.nn.Dropout3d`.
    ///
    /// ```
    /// use wgrad::nn::{Dropout3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = Dropout3d::new(0.5).forward(&Tensor::ones([2, 8, 2, 2, 2], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [2, 8, 2, 2, 2]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Dropout3d |x, p| drop_channels("Dropout3d", x, p, 3);

    /// Dropout that keeps mean and variance of what [`SELU`](crate::SELU) gives: elements are left out by
    /// being set to its lower bound, after Klambauer et al. (2017); `torch.nn.AlphaDropout`.
    ///
    /// ```
    /// use wgrad::nn::{AlphaDropout, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = AlphaDropout::new(0.1).forward(&Tensor::ones([4, 5], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [4, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    AlphaDropout |x, p| drop_alpha(x, p, x.shape());

    /// [`AlphaDropout`] of whole channels (dim 1); `torch.nn.FeatureAlphaDropout`.
    ///
    /// ```
    /// use wgrad::nn::{FeatureAlphaDropout, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = FeatureAlphaDropout::new(0.1).forward(&Tensor::ones([4, 5, 3], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [4, 5, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    FeatureAlphaDropout |x, p| drop_alpha(x, p, &channels(x.shape(), 2));
}

/// A shape of random numbers that has 1 in place of all dims from `first` on.
fn channels(shape: &[usize], first: usize) -> Vec<usize> {
    shape.iter().enumerate().map(|(dim, &size)| if dim < first { size } else { 1 }).collect()
}

fn drop_channels(op: &'static str, x: &Tensor, p: f64, dims: usize) -> Result<Tensor> {
    if x.rank() != dims + 1 && x.rank() != dims + 2 {
        let reason = format!("does not have {} or {} dims: channels and {dims} more", dims + 1, dims + 2);
        return Err(Error::Shape { op, shape: x.shape().to_vec(), reason });
    }
    let shape = channels(x.shape(), x.rank() - dims);
    x.mul(Tensor::ones(shape, (x.dtype(), x.device()))?.dropout(p, true)?)
}

fn drop_alpha(x: &Tensor, p: f64, shape: &[usize]) -> Result<Tensor> {
    if p == 1.0 {
        return x.mul(0.0);
    }
    // What SELU goes to at minus infinity: its scale times its alpha.
    const BOUND: f64 = -1.758_099_340_847_376_6;
    let scale = 1.0 / ((1.0 - p) * (1.0 + p * BOUND * BOUND)).sqrt();
    let kept = Tensor::full(shape, 1.0 - p, (x.dtype(), x.device()))?.bernoulli()?;
    let moved = kept.rsub(1.0)?.mul(BOUND)?.sub(p * BOUND)?;
    x.mul(kept)?.add(moved)?.mul(scale)
}
