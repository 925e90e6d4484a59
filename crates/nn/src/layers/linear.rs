//! Products with weights: [`Linear`] and [`Bilinear`].

use wgrad_autograd::{Options, Result, Tensor};

use super::options::{argument, settings};
use super::parameter::{bounded, bounded_bias};
use crate::{Hooks, Layer, Module};

settings! {
    /// The settings of a [`Linear`].
    LinearOptions {
        in_features: usize, out_features: usize;
        /// Whether there is a bias; true.
        bias: bool = true,
    }
}

impl LinearOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<Linear> {
        let options = options.into();
        let bound = 1.0 / (self.in_features as f64).sqrt();
        Ok(Linear {
            weight: bounded([self.out_features, self.in_features], bound, &options)?,
            bias: bounded_bias(self.bias, self.out_features, bound, &options)?,
            hooks: Hooks::default(),
        })
    }
}

/// `x @ weight.T + bias` over the last dim: `[.., in_features]` to `[.., out_features]`; `torch.nn.Linear`.
///
/// ```
/// use wgrad::nn::{Layer, Linear};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = Linear::new(4, 2, &device)?;
/// assert_eq!(layer.forward(&Tensor::ones([3, 4], &device)?)?.shape(), [3, 2]);
/// let without = Linear::options(4, 2).bias(false).build(&device)?;
/// assert!(without.bias.is_none());
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Linear {
    /// `[out_features, in_features]`, uniform within `1 / sqrt(in_features)` at first.
    pub weight: Tensor,
    /// `[out_features]`, as the weight at first.
    pub bias: Option<Tensor>,
    hooks: Hooks,
}

impl Linear {
    /// A layer with a bias.
    ///
    /// # Errors
    /// As [`LinearOptions::build`].
    pub fn new(in_features: usize, out_features: usize, options: impl Into<Options>) -> Result<Linear> {
        Linear::options(in_features, out_features).build(options)
    }

    /// The settings, to be changed.
    pub fn options(in_features: usize, out_features: usize) -> LinearOptions {
        LinearOptions::new(in_features, out_features)
    }

    /// A layer of this weight, `[out_features, in_features]`, which another layer may have too.
    ///
    /// ```
    /// use wgrad::nn::{Embedding, Linear, Module};
    /// let tokens = Embedding::new(10, 4, &wgrad::Device::cpu())?;
    /// let model = (tokens.clone(), Linear::with_weight(&tokens.weight, None));
    /// assert_eq!(model.num_parameters(), 40);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn with_weight(weight: &Tensor, bias: Option<&Tensor>) -> Linear {
        Linear { weight: weight.clone(), bias: bias.cloned(), hooks: Hooks::default() }
    }
}

impl Layer for Linear {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || input.linear(&self.weight, &self.bias))
    }
}

settings! {
    /// The settings of a [`Bilinear`].
    BilinearOptions {
        in1_features: usize, in2_features: usize, out_features: usize;
        /// Whether there is a bias; true.
        bias: bool = true,
    }
}

impl BilinearOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<Bilinear> {
        let options = options.into();
        let bound = 1.0 / (self.in1_features as f64).sqrt();
        let shape = [self.out_features, self.in1_features, self.in2_features];
        Ok(Bilinear {
            weight: bounded(shape, bound, &options)?,
            bias: bounded_bias(self.bias, self.out_features, bound, &options)?,
            hooks: Hooks::default(),
        })
    }
}

/// `x1 @ weight[o] @ x2 + bias[o]` for each output o, over the last dims of two inputs; `torch.nn.Bilinear`.
///
/// ```
/// use wgrad::nn::Bilinear;
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = Bilinear::new(3, 4, 2, &device)?;
/// let y = layer.forward(&Tensor::ones([5, 3], &device)?, &Tensor::ones([5, 4], &device)?)?;
/// assert_eq!(y.shape(), [5, 2]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Bilinear {
    /// `[out_features, in1_features, in2_features]`, uniform within `1 / sqrt(in1_features)` at first.
    pub weight: Tensor,
    /// `[out_features]`, as the weight at first.
    pub bias: Option<Tensor>,
    hooks: Hooks,
}

impl Bilinear {
    /// A layer with a bias.
    ///
    /// # Errors
    /// As [`BilinearOptions::build`].
    pub fn new(
        in1_features: usize,
        in2_features: usize,
        out_features: usize,
        options: impl Into<Options>,
    ) -> Result<Bilinear> {
        Bilinear::options(in1_features, in2_features, out_features).build(options)
    }

    /// The settings, to be changed.
    pub fn options(in1_features: usize, in2_features: usize, out_features: usize) -> BilinearOptions {
        BilinearOptions::new(in1_features, in2_features, out_features)
    }

    /// The output for a pair of inputs, which have the same dims but the last.
    ///
    /// # Errors
    /// If the inputs do not fit each other or the layer.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor) -> Result<Tensor> {
        self.hooks.around(input1, || input1.bilinear(input2, &self.weight, &self.bias))
    }
}
