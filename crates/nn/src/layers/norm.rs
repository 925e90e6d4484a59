//! Normalisation: of batches, layers, groups, instances, and neighbours.

use std::cell::Cell;

use wgrad_autograd::{BatchNormOptions as Statistics, DType, Error, Options, Result, Tensor, no_grad};

use super::options::{Sizes, argument, functions, settings};
use super::parameter::constant;
use crate::{Hooks, Layer, Module, Training};

thread_local! {
    /// Whether running statistics of this thread's calls become means of all batches, whatever the layers' momenta.
    static MEANS_OF_ALL: Cell<bool> = const { Cell::new(false) };
}

/// Runs a closure in which running statistics of batches become means of all batches, whatever the layers' momenta.
pub(crate) fn with_means_of_all<R>(run: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MEANS_OF_ALL.set(self.0);
        }
    }
    let _restore = Restore(MEANS_OF_ALL.replace(true));
    run()
}

/// Running statistics of channels, which a norm may keep.
#[derive(Clone, Debug, Module)]
pub(super) struct Running {
    #[buffer]
    running_mean: Option<Tensor>,
    #[buffer]
    running_var: Option<Tensor>,
    #[buffer]
    num_batches_tracked: Option<Tensor>,
}

impl Running {
    fn new(wanted: bool, channels: usize, options: &Options) -> Result<Running> {
        let counter = Options { dtype: Some(DType::I64), device: options.device.clone() };
        Ok(Running {
            running_mean: wanted.then(|| Tensor::zeros(channels, options.clone())).transpose()?,
            running_var: wanted.then(|| Tensor::ones(channels, options.clone())).transpose()?,
            num_batches_tracked: wanted.then(|| Tensor::zeros((), counter)).transpose()?,
        })
    }

    /// Normalises by `apply`. In training the statistics move: by `momentum`, or where there is none to the
    /// mean of all batches.
    fn around(
        &self,
        training: bool,
        momentum: Option<f64>,
        statistics: Statistics,
        apply: impl FnOnce(&Statistics) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (Some(mean), Some(var), true) = (&self.running_mean, &self.running_var, training) else {
            return apply(&Statistics {
                running_mean: self.running_mean.clone(),
                running_var: self.running_var.clone(),
                ..statistics
            });
        };
        let Some(momentum) = momentum.filter(|_| !MEANS_OF_ALL.get()) else {
            // The batch's own statistics, of which the mean is taken on the device: the count is not read.
            let (batch_mean, batch_var) = (mean.zeros_like()?, var.zeros_like()?);
            let out = apply(&Statistics {
                running_mean: Some(batch_mean.clone()),
                running_var: Some(batch_var.clone()),
                momentum: 1.0,
                ..statistics
            })?;
            let count = self.count()?;
            no_grad(|| {
                for (running, batch) in [(mean, batch_mean), (var, batch_var)] {
                    let part = count.to_dtype(running.dtype())?.reciprocal()?;
                    running.copy_(&running.lerp(&batch, part)?)?;
                }
                Ok::<(), Error>(())
            })?;
            return Ok(out);
        };
        let out = apply(&Statistics {
            running_mean: Some(mean.clone()),
            running_var: Some(var.clone()),
            momentum,
            ..statistics
        })?;
        self.count()?;
        Ok(out)
    }

    /// One more batch: how many there were.
    fn count(&self) -> Result<Tensor> {
        match &self.num_batches_tracked {
            Some(count) => no_grad(|| count.add_(1)),
            None => Tensor::ones((), DType::I64),
        }
    }
}

/// How many dims an input may have.
fn check_rank(op: &'static str, x: &Tensor, ranks: &[usize]) -> Result<()> {
    if ranks.contains(&x.rank()) {
        return Ok(());
    }
    let reason = format!("does not have {ranks:?} dims");
    Err(Error::Shape { op, shape: x.shape().to_vec(), reason })
}

/// Norms over a batch's channels, and over those of each instance, in 1 to 3 dims.
macro_rules! channel_norms {
    ($(
        $(#[$about:meta])*
        $name:ident, $options:ident, $ranks:expr, affine $affine:expr, track $track:expr,
        |$layer:ident, $x:ident| $forward:expr;
    )*) => {$(
        settings! {
            #[doc = concat!("The settings of a [`", stringify!($name), "`].")]
            $options {
                num_features: usize;
                /// What is added to the variance; 1e-5.
                eps: f64 = 1e-5,
                /// How much of the running statistics is replaced in each step, or `None` for the mean of all
                /// steps; 0.1.
                momentum: Option<f64> = Some(0.1),
                /// Whether there are a weight and a bias.
                affine: bool = $affine,
                /// Whether there are running statistics.
                track_running_stats: bool = $track,
            }
        }

        impl $options {
            /// The layer, on a device.
            ///
            /// # Errors
            /// If the device fails, or the dtype is not a float one.
            pub fn build(&self, options: impl Into<Options>) -> Result<$name> {
                let options = options.into();
                Ok($name {
                    weight: constant(self.affine, self.num_features, 1.0, &options)?,
                    bias: constant(self.affine, self.num_features, 0.0, &options)?,
                    running: Running::new(self.track_running_stats, self.num_features, &options)?,
                    settings: self.clone(),
                    training: Training::default(),
                    hooks: Hooks::default(),
                })
            }
        }

        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// A factor for each channel, 1 at first.
            pub weight: Option<Tensor>,
            /// A summand for each channel, 0 at first.
            pub bias: Option<Tensor>,
            #[module(flatten)]
            running: Running,
            #[module(skip)]
            settings: $options,
            training: Training,
            hooks: Hooks,
        }

        impl $name {
            /// A layer with PyTorch's defaults.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($options), "::build`].")]
            pub fn new(num_features: usize, options: impl Into<Options>) -> Result<$name> {
                $name::options(num_features).build(options)
            }

            /// The settings, to be changed.
            pub fn options(num_features: usize) -> $options {
                $options::new(num_features)
            }

            /// The running mean of each channel, 0 at first.
            pub fn running_mean(&self) -> Option<&Tensor> {
                self.running.running_mean.as_ref()
            }

            /// The running unbiased variance of each channel, 1 at first.
            pub fn running_var(&self) -> Option<&Tensor> {
                self.running.running_var.as_ref()
            }

            fn statistics(&self) -> Statistics {
                Statistics {
                    weight: self.weight.clone(),
                    bias: self.bias.clone(),
                    eps: self.settings.eps,
                    ..Statistics::default()
                }
            }
        }

        impl Layer for $name {
            fn forward(&self, input: &Tensor) -> Result<Tensor> {
                check_rank(stringify!($name), input, &$ranks)?;
                let ($layer, $x) = (self, input);
                self.hooks.around(input, || $forward)
            }
        }
    )*};
}

macro_rules! batch_norm {
    ($layer:ident, $x:ident) => {{
        let training = $layer.training.get();
        let tracks = $layer.running.running_mean.is_some();
        $layer.running.around(training, $layer.settings.momentum, $layer.statistics(), |statistics| {
            $x.batch_norm(training || !tracks, statistics)
        })
    }};
}

macro_rules! instance_norm {
    ($layer:ident, $x:ident, $rank:literal) => {{
        let training = $layer.training.get();
        let tracks = $layer.running.running_mean.is_some();
        // Without a batch dim the channels are the first.
        let batch = if $x.rank() < $rank { $x.unsqueeze(0)? } else { $x.clone() };
        let statistics = Statistics {
            running_mean: $layer.running.running_mean.clone(),
            running_var: $layer.running.running_var.clone(),
            // As in PyTorch, whose running statistics of instances do not move without a momentum.
            momentum: $layer.settings.momentum.unwrap_or(0.0),
            ..$layer.statistics()
        };
        let out = batch.instance_norm(training || !tracks, &statistics)?;
        if $x.rank() < $rank { out.squeeze_dim(0) } else { Ok(out) }
    }};
}

channel_norms! {
    /// Each channel of `[batch, channels]` or `[batch, channels, length]` made mean 0 and variance 1, then
    /// scaled and moved: in training by the statistics of the batch, else by the running ones;
    /// `torch.nn.BatchNorm1d`.
    ///
    /// ```
    /// use wgrad::nn::{BatchNorm1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = BatchNorm1d::new(3, &device)?;
    /// let y = layer.forward(&Tensor::ones([4, 3], &device)?)?;
    /// assert_eq!(y.shape(), [4, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BatchNorm1d, BatchNorm1dOptions, [2, 3], affine true, track true, |layer, x| batch_norm!(layer, x);

    /// Each channel of `[batch, channels, height, width]` made mean 0 and variance 1, then scaled and moved:
    /// in training by the statistics of the batch, else by the running ones; `torch.nn.BatchNorm2d`.
    ///
    /// ```
    /// use wgrad::nn::{BatchNorm2d, Layer, Module};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let norm = BatchNorm2d::new(3, &device)?;
    /// let x = Tensor::randn([8, 3, 4, 4], &device)?.add(5.0)?;
    /// assert!(norm.forward(&x)?.mean()?.item::<f32>()?.abs() < 1e-5);
    /// norm.eval();
    /// assert!(norm.forward(&x)?.mean()?.item::<f32>()? > 3.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BatchNorm2d, BatchNorm2dOptions, [4], affine true, track true, |layer, x| batch_norm!(layer, x);

    /// Each channel of `[batch, channels, depth, height, width]` made mean 0 and variance 1, then scaled and
    /// moved: in training by the statistics of the batch, else by the running ones; `torch.nn.BatchNorm3d`.
    ///
    /// ```
    /// use wgrad::nn::{BatchNorm3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = BatchNorm3d::options(3).momentum(None).build(&device)?;
    /// let y = layer.forward(&Tensor::ones([4, 3, 2, 2, 2], &device)?)?;
    /// assert_eq!(y.shape(), [4, 3, 2, 2, 2]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BatchNorm3d, BatchNorm3dOptions, [5], affine true, track true, |layer, x| batch_norm!(layer, x);

    /// Each channel of each instance, `[.., channels, length]`, made mean 0 and variance 1;
    /// `torch.nn.InstanceNorm1d`. It has no weight, no bias and no running statistics unless they are asked
    /// for.
    ///
    /// ```
    /// use wgrad::nn::{InstanceNorm1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = InstanceNorm1d::new(3, &device)?;
    /// let y = layer.forward(&Tensor::ones([4, 3, 5], &device)?)?;
    /// assert_eq!(y.shape(), [4, 3, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    InstanceNorm1d, InstanceNorm1dOptions, [2, 3], affine false, track false,
    |layer, x| instance_norm!(layer, x, 3);

    /// Each channel of each instance, `[.., channels, height, width]`, made mean 0 and variance 1;
    /// `torch.nn.InstanceNorm2d`. It has no weight, no bias and no running statistics unless they are asked
    /// for.
    ///
    /// ```
    /// use wgrad::nn::{InstanceNorm2d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = InstanceNorm2d::options(3).affine(true).build(&device)?;
    /// let y = layer.forward(&Tensor::ones([4, 3, 5, 5], &device)?)?;
    /// assert_eq!(y.shape(), [4, 3, 5, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    InstanceNorm2d, InstanceNorm2dOptions, [3, 4], affine false, track false,
    |layer, x| instance_norm!(layer, x, 4);

    /// Each channel of each instance, `[.., channels, depth, height, width]`, made mean 0 and variance 1;
    /// `torch.nn.InstanceNorm3d`. It has no weight, no bias and no running statistics unless they are asked
    /// for.
    ///
    /// ```
    /// use wgrad::nn::{InstanceNorm3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = InstanceNorm3d::new(3, &device)?;
    /// let y = layer.forward(&Tensor::ones([3, 2, 2, 2], &device)?)?;
    /// assert_eq!(y.shape(), [3, 2, 2, 2]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    InstanceNorm3d, InstanceNorm3dOptions, [4, 5], affine false, track false,
    |layer, x| instance_norm!(layer, x, 5);
}

settings! {
    /// The settings of a [`LayerNorm`].
    LayerNormOptions {
        normalized_shape: Sizes;
        /// What is added to the variance; 1e-5.
        eps: f64 = 1e-5,
        /// Whether there is a weight, and a bias unless `bias` is false; true.
        elementwise_affine: bool = true,
        /// Whether there is a bias; true.
        bias: bool = true,
    }
}

impl LayerNormOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<LayerNorm> {
        let (options, shape) = (options.into(), &self.normalized_shape.0);
        Ok(LayerNorm {
            weight: constant(self.elementwise_affine, shape, 1.0, &options)?,
            bias: constant(self.elementwise_affine && self.bias, shape, 0.0, &options)?,
            normalized_shape: shape.clone(),
            eps: self.eps,
            hooks: Hooks::default(),
        })
    }
}

/// The last dims, of given sizes, made mean 0 and variance 1, then scaled and moved; `torch.nn.LayerNorm`.
///
/// ```
/// use wgrad::nn::{Layer, LayerNorm};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let norm = LayerNorm::new(2, &device)?;
/// let y = norm.forward(&Tensor::new([[1.0, 3.0]], &device)?)?;
/// assert!((y.to_vec::<f32>()?[1] - 1.0).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct LayerNorm {
    /// A factor for each element, 1 at first.
    pub weight: Option<Tensor>,
    /// A summand for each element, 0 at first.
    pub bias: Option<Tensor>,
    normalized_shape: Vec<usize>,
    eps: f64,
    hooks: Hooks,
}

impl LayerNorm {
    /// A layer with PyTorch's defaults, for last dims of these sizes.
    ///
    /// # Errors
    /// As [`LayerNormOptions::build`].
    pub fn new(normalized_shape: impl Into<Sizes>, options: impl Into<Options>) -> Result<LayerNorm> {
        LayerNorm::options(normalized_shape).build(options)
    }

    /// The settings, to be changed.
    pub fn options(normalized_shape: impl Into<Sizes>) -> LayerNormOptions {
        LayerNormOptions::new(normalized_shape)
    }
}

impl Layer for LayerNorm {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks
            .around(input, || input.layer_norm(&self.normalized_shape, &self.weight, &self.bias, self.eps))
    }
}

settings! {
    /// The settings of an [`RMSNorm`].
    RMSNormOptions {
        normalized_shape: Sizes;
        /// What is added to the mean of squares, or `None` for the dtype's distance from 1 to the next
        /// number; `None`.
        eps: Option<f64> = None,
        /// Whether there is a weight; true.
        elementwise_affine: bool = true,
    }
}

impl RMSNormOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<RMSNorm> {
        let shape = &self.normalized_shape.0;
        Ok(RMSNorm {
            weight: constant(self.elementwise_affine, shape, 1.0, &options.into())?,
            normalized_shape: shape.clone(),
            eps: self.eps,
            hooks: Hooks::default(),
        })
    }
}

/// The last dims, of given sizes, divided by the root of the mean of their squares, then scaled;
/// `torch.nn.RMSNorm`.
///
/// ```
/// use wgrad::nn::{Layer, RMSNorm};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let norm = RMSNorm::new(2, &device)?;
/// let y = norm.forward(&Tensor::new([[5.0, 5.0]], &device)?)?;
/// assert!((y.to_vec::<f32>()?[0] - 1.0).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct RMSNorm {
    /// A factor for each element, 1 at first.
    pub weight: Option<Tensor>,
    normalized_shape: Vec<usize>,
    eps: Option<f64>,
    hooks: Hooks,
}

impl RMSNorm {
    /// A layer with PyTorch's defaults, for last dims of these sizes.
    ///
    /// # Errors
    /// As [`RMSNormOptions::build`].
    pub fn new(normalized_shape: impl Into<Sizes>, options: impl Into<Options>) -> Result<RMSNorm> {
        RMSNorm::options(normalized_shape).build(options)
    }

    /// The settings, to be changed.
    pub fn options(normalized_shape: impl Into<Sizes>) -> RMSNormOptions {
        RMSNormOptions::new(normalized_shape)
    }
}

impl Layer for RMSNorm {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || input.rms_norm(&self.normalized_shape, &self.weight, self.eps))
    }
}

settings! {
    /// The settings of a [`GroupNorm`].
    GroupNormOptions {
        num_groups: usize, num_channels: usize;
        /// What is added to the variance; 1e-5.
        eps: f64 = 1e-5,
        /// Whether there are a weight and a bias; true.
        affine: bool = true,
    }
}

impl GroupNormOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the groups do not divide the channels, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<GroupNorm> {
        let options = options.into();
        if self.num_groups == 0 || !self.num_channels.is_multiple_of(self.num_groups) {
            let reason = format!("{} groups do not divide {} channels", self.num_groups, self.num_channels);
            return Err(Error::Argument { op: "GroupNorm", reason });
        }
        Ok(GroupNorm {
            weight: constant(self.affine, self.num_channels, 1.0, &options)?,
            bias: constant(self.affine, self.num_channels, 0.0, &options)?,
            num_groups: self.num_groups,
            eps: self.eps,
            hooks: Hooks::default(),
        })
    }
}

/// Groups of channels of each instance made mean 0 and variance 1, then scaled and moved by channel;
/// `torch.nn.GroupNorm`.
///
/// ```
/// use wgrad::nn::{GroupNorm, Layer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let norm = GroupNorm::new(2, 4, &device)?;
/// assert_eq!(norm.forward(&Tensor::randn([3, 4, 5], &device)?)?.shape(), [3, 4, 5]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct GroupNorm {
    /// A factor for each channel, 1 at first.
    pub weight: Option<Tensor>,
    /// A summand for each channel, 0 at first.
    pub bias: Option<Tensor>,
    num_groups: usize,
    eps: f64,
    hooks: Hooks,
}

impl GroupNorm {
    /// A layer with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`GroupNormOptions::build`].
    pub fn new(num_groups: usize, num_channels: usize, options: impl Into<Options>) -> Result<GroupNorm> {
        GroupNorm::options(num_groups, num_channels).build(options)
    }

    /// The settings, to be changed.
    pub fn options(num_groups: usize, num_channels: usize) -> GroupNormOptions {
        GroupNormOptions::new(num_groups, num_channels)
    }
}

impl Layer for GroupNorm {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || input.group_norm(self.num_groups, &self.weight, &self.bias, self.eps))
    }
}

functions! {
    /// `x / (k + alpha * mean of squares) ** beta`, the mean over `size` neighbouring channels;
    /// `torch.nn.LocalResponseNorm`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, LocalResponseNorm};
    /// let x = wgrad::Tensor::ones([1, 4, 3], &wgrad::Device::cpu())?;
    /// assert_eq!(LocalResponseNorm::new(2).k(2.0).forward(&x)?.shape(), [1, 4, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LocalResponseNorm(size: usize) {
        /// How much the neighbours count; 1e-4.
        alpha: f64 = 1e-4,
        /// The exponent; 0.75.
        beta: f64 = 0.75,
        /// What is added; 1.
        k: f64 = 1.0
    } |layer, x| x.local_response_norm(layer.size, layer.alpha, layer.beta, layer.k);
}
