//! Functions of each element as layers, and softmax with its relatives. All are methods of [`Tensor`] too.

use wgrad_autograd::{Options, Result, Tensor};

use super::options::{argument, functions, settings};
use super::parameter::parameter;
use crate::{Hooks, Layer, Module, Training, init};

functions! {
    /// The input itself; `torch.nn.Identity`.
    ///
    /// ```
    /// use wgrad::nn::{Identity, Layer};
    /// let x = wgrad::Tensor::new([1.0, -2.0], &wgrad::Device::cpu())?;
    /// let y = Identity::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, -2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Identity() {} |_layer, x| Ok(x.clone());

    /// `x` above 0, `alpha * (exp(x / alpha) - 1)` below; `torch.nn.CELU`.
    ///
    /// ```
    /// use wgrad::nn::{CELU, Layer};
    /// let x = wgrad::Tensor::new([-1.0], &wgrad::Device::cpu())?;
    /// let y = CELU::new().alpha(2.0).forward(&x)?;
    /// assert!((y.item::<f32>()? - -0.7869).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    CELU() {
        /// How far down it goes; 1.
        alpha: f64 = 1.0
    } |layer, x| x.celu(layer.alpha);

    /// `x` above 0, `alpha * (exp(x) - 1)` below; `torch.nn.ELU`.
    ///
    /// ```
    /// use wgrad::nn::{ELU, Layer};
    /// let x = wgrad::Tensor::new([-1.0], &wgrad::Device::cpu())?;
    /// let y = ELU::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - -0.6321).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ELU() {
        /// How far down it goes; 1.
        alpha: f64 = 1.0
    } |layer, x| x.elu(layer.alpha);

    /// `x` times the normal distribution's function; `torch.nn.GELU`.
    ///
    /// ```
    /// use wgrad::nn::{GELU, Layer};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// assert!((GELU::new().forward(&x)?.item::<f32>()? - 0.8413).abs() < 1e-4);
    /// assert!((GELU::new().tanh(true).forward(&x)?.item::<f32>()? - 0.8412).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    GELU() {
        /// Whether the approximation by tanh is computed; false.
        tanh: bool = false
    } |layer, x| if layer.tanh { x.gelu_tanh() } else { x.gelu() };

    /// The first half along a dim times the sigmoid of the second; `torch.nn.GLU`.
    ///
    /// ```
    /// use wgrad::nn::{GLU, Layer};
    /// let x = wgrad::Tensor::new([2.0, 0.0], &wgrad::Device::cpu())?;
    /// let y = GLU::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    GLU() {
        /// The dim; the last.
        dim: isize = -1
    } |layer, x| x.glu(layer.dim);

    /// `x`, but 0 within `-lambd..=lambd`; `torch.nn.Hardshrink`.
    ///
    /// ```
    /// use wgrad::nn::{Hardshrink, Layer};
    /// let x = wgrad::Tensor::new([0.4, -0.6], &wgrad::Device::cpu())?;
    /// let y = Hardshrink::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, -0.6]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Hardshrink() {
        /// The bound; 0.5.
        lambd: f64 = 0.5
    } |layer, x| x.hardshrink(layer.lambd);

    /// `relu6(x + 3) / 6`; `torch.nn.Hardsigmoid`.
    ///
    /// ```
    /// use wgrad::nn::{Hardsigmoid, Layer};
    /// let x = wgrad::Tensor::new([-4.0, 0.0, 4.0], &wgrad::Device::cpu())?;
    /// let y = Hardsigmoid::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Hardsigmoid() {} |_layer, x| x.hardsigmoid();

    /// `x * relu6(x + 3) / 6`; `torch.nn.Hardswish`.
    ///
    /// ```
    /// use wgrad::nn::{Hardswish, Layer};
    /// let x = wgrad::Tensor::new([-4.0, 0.0, 4.0], &wgrad::Device::cpu())?;
    /// let y = Hardswish::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.0, 4.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Hardswish() {} |_layer, x| x.hardswish();

    /// `x` kept between two bounds; `torch.nn.Hardtanh`.
    ///
    /// ```
    /// use wgrad::nn::{Hardtanh, Layer};
    /// let x = wgrad::Tensor::new([-4.0, 0.5, 4.0], &wgrad::Device::cpu())?;
    /// let y = Hardtanh::new().max_val(2.0).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [-1.0, 0.5, 2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Hardtanh() {
        /// The lower bound; -1.
        min_val: f64 = -1.0,
        /// The upper bound; 1.
        max_val: f64 = 1.0
    } |layer, x| x.hardtanh(layer.min_val, layer.max_val);

    /// `x` above 0, `negative_slope * x` below; `torch.nn.LeakyReLU`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, LeakyReLU};
    /// let x = wgrad::Tensor::new([-2.0, 3.0], &wgrad::Device::cpu())?;
    /// let y = LeakyReLU::new().negative_slope(0.5).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [-1.0, 3.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LeakyReLU() {
        /// The slope below 0; 0.01.
        negative_slope: f64 = 0.01
    } |layer, x| x.leaky_relu(layer.negative_slope);

    /// The logarithm of the sigmoid; `torch.nn.LogSigmoid`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, LogSigmoid};
    /// let x = wgrad::Tensor::new([0.0], &wgrad::Device::cpu())?;
    /// let y = LogSigmoid::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - -0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LogSigmoid() {} |_layer, x| x.logsigmoid();

    /// The logarithm of the softmax along a dim; `torch.nn.LogSoftmax`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, LogSoftmax};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = LogSoftmax::new(-1).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LogSoftmax(dim: isize) {} |layer, x| x.log_softmax(layer.dim);

    /// `x * tanh(softplus(x))`; `torch.nn.Mish`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Mish};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = Mish::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 0.8651).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Mish() {} |_layer, x| x.mish();

    /// `max(x, 0)`; `torch.nn.ReLU`.
    ReLU() {} |_layer, x| x.relu();

    /// `min(max(x, 0), 6)`; `torch.nn.ReLU6`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, ReLU6};
    /// let x = wgrad::Tensor::new([-1.0, 2.0, 8.0], &wgrad::Device::cpu())?;
    /// let y = ReLU6::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 2.0, 6.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ReLU6() {} |_layer, x| x.relu6();

    /// The exponential unit that keeps mean 0 and variance 1; `torch.nn.SELU`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, SELU};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = SELU::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 1.0507).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    SELU() {} |_layer, x| x.selu();

    /// `x * sigmoid(x)`; `torch.nn.SiLU`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, SiLU};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = SiLU::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 0.7311).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    SiLU() {} |_layer, x| x.silu();

    /// `1 / (1 + exp(-x))`; `torch.nn.Sigmoid`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Sigmoid};
    /// let x = wgrad::Tensor::new([0.0], &wgrad::Device::cpu())?;
    /// let y = Sigmoid::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Sigmoid() {} |_layer, x| x.sigmoid();

    /// `exp(x) / sum(exp(x))` along a dim; `torch.nn.Softmax`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softmax};
    /// let x = wgrad::Tensor::new([[0.0, 0.0]], &wgrad::Device::cpu())?;
    /// assert_eq!(Softmax::new(-1).forward(&x)?.to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softmax(dim: isize) {} |layer, x| x.softmax(layer.dim);

    /// The softmax over the channels of images `[.., channels, height, width]`; `torch.nn.Softmax2d`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softmax2d};
    /// let x = wgrad::Tensor::new([[[1.0]], [[1.0]]], &wgrad::Device::cpu())?;
    /// let y = Softmax2d::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softmax2d() {} |_layer, x| x.softmax(-3);

    /// The softmax of `-x` along a dim; `torch.nn.Softmin`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softmin};
    /// let x = wgrad::Tensor::new([0.0, 0.0], &wgrad::Device::cpu())?;
    /// let y = Softmin::new(0).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softmin(dim: isize) {} |layer, x| x.softmin(layer.dim);

    /// `log(1 + exp(beta * x)) / beta`, and `x` where `beta * x` is above the threshold; `torch.nn.Softplus`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softplus};
    /// let x = wgrad::Tensor::new([0.0], &wgrad::Device::cpu())?;
    /// let y = Softplus::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softplus() {
        /// How sharp it bends; 1.
        beta: f64 = 1.0,
        /// From where on it is a line; 20.
        threshold: f64 = 20.0
    } |layer, x| x.softplus(layer.beta, layer.threshold);

    /// `x` moved towards 0 by `lambd`, 0 within it; `torch.nn.Softshrink`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softshrink};
    /// let x = wgrad::Tensor::new([0.25, 1.0], &wgrad::Device::cpu())?;
    /// let y = Softshrink::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softshrink() {
        /// How far; 0.5.
        lambd: f64 = 0.5
    } |layer, x| x.softshrink(layer.lambd);

    /// `x / (1 + |x|)`; `torch.nn.Softsign`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Softsign};
    /// let x = wgrad::Tensor::new([1.0, -3.0], &wgrad::Device::cpu())?;
    /// let y = Softsign::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.5, -0.75]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Softsign() {} |_layer, x| x.softsign();

    /// The hyperbolic tangent; `torch.nn.Tanh`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Tanh};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = Tanh::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 0.7616).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Tanh() {} |_layer, x| x.tanh();

    /// `x - tanh(x)`; `torch.nn.Tanhshrink`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Tanhshrink};
    /// let x = wgrad::Tensor::new([1.0], &wgrad::Device::cpu())?;
    /// let y = Tanhshrink::new().forward(&x)?;
    /// assert!((y.item::<f32>()? - 0.2384).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Tanhshrink() {} |_layer, x| x.tanhshrink();

    /// `x` where it is above a threshold, else a value; `torch.nn.Threshold`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Threshold};
    /// let x = wgrad::Tensor::new([0.5, 2.0], &wgrad::Device::cpu())?;
    /// let y = Threshold::new(1.0, -1.0).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [-1.0, 2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Threshold(threshold: f64, value: f64) {} |layer, x| x.threshold(layer.threshold, layer.value);
}

settings! {
    /// The settings of a [`PReLU`].
    PReLUOptions {
        ;
        /// The number of slopes: 1, or one for each channel; 1.
        num_parameters: usize = 1usize,
        /// The slopes at first; 0.25.
        init: f64 = 0.25,
    }
}

impl PReLUOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<PReLU> {
        let set = |tensor: &Tensor| init::constant_(tensor, self.init);
        Ok(PReLU { weight: parameter(self.num_parameters, &options.into(), set)?, hooks: Hooks::default() })
    }
}

/// `x` above 0, `weight * x` below; `torch.nn.PReLU`.
///
/// ```
/// use wgrad::nn::{Layer, PReLU};
/// use wgrad::{Device, Tensor};
/// let layer = PReLU::new(&Device::cpu())?;
/// let y = layer.forward(&Tensor::new([-2.0, 2.0], &Device::cpu())?)?;
/// assert_eq!(y.to_vec::<f32>()?, [-0.5, 2.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct PReLU {
    /// The slopes below 0: one, or one for each channel (dim 1).
    pub weight: Tensor,
    hooks: Hooks,
}

impl PReLU {
    /// A layer with one slope, 0.25 at first.
    ///
    /// # Errors
    /// As [`PReLUOptions::build`].
    pub fn new(options: impl Into<Options>) -> Result<PReLU> {
        PReLU::options().build(options)
    }

    /// The settings, to be changed.
    pub fn options() -> PReLUOptions {
        PReLUOptions::new()
    }
}

impl Layer for PReLU {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || input.prelu(&self.weight))
    }
}

/// `x` above 0, `x` times a slope below: in training a random one for each element, uniform between two
/// bounds, else their mean; `torch.nn.RReLU`.
///
/// ```
/// use wgrad::nn::{Layer, Module, RReLU};
/// use wgrad::{Device, Tensor};
/// let layer = RReLU::new().lower(0.1).upper(0.3);
/// layer.eval();
/// let y = layer.forward(&Tensor::new([-1.0, 2.0], &Device::cpu())?)?;
/// assert_eq!(y.to_vec::<f32>()?, [-0.2, 2.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct RReLU {
    lower: f64,
    upper: f64,
    training: Training,
    hooks: Hooks,
}

impl RReLU {
    /// With slopes between 1/8 and 1/3.
    #[allow(clippy::new_without_default)]
    pub fn new() -> RReLU {
        RReLU { lower: 1.0 / 8.0, upper: 1.0 / 3.0, training: Training::default(), hooks: Hooks::default() }
    }

    /// The smallest slope; 1/8.
    pub fn lower(mut self, lower: f64) -> Self {
        self.lower = lower;
        self
    }

    /// The largest slope; 1/3.
    pub fn upper(mut self, upper: f64) -> Self {
        self.upper = upper;
        self
    }
}

impl Layer for RReLU {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || {
            if !self.training.get() {
                return input.leaky_relu((self.lower + self.upper) / 2.0);
            }
            let slope = input.rand_like()?.mul(self.upper - self.lower)?.add(self.lower)?;
            input.gt(0)?.where_cond(input, input.mul(slope)?)
        })
    }
}
