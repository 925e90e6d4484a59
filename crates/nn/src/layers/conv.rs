//! Convolutions and their transposed form over one to three dims, and the windows of images as columns.

use wgrad_autograd::{ConvOptions, Error, Options, PadMode, Padding, Result, Tensor};

use super::options::{Sizes, argument, functions, settings, spread};
use super::parameter::{bounded, bounded_bias};
use crate::{Hooks, Layer, Module};

/// What stands around the input of a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input, mirrored at its edges.
    Reflect,
    /// The input's edges, repeated.
    Replicate,
    /// The input's other end.
    Circular,
}

/// A weight `[first, second / groups, window..]` and a bias, uniform within the fan in's root, as PyTorch's.
fn weights<const N: usize>(
    op: &'static str,
    channels: (usize, usize, usize),
    kernel_size: &Sizes,
    bias: Option<usize>,
    options: &Options,
) -> Result<(Tensor, Option<Tensor>)> {
    let (first, second, groups) = channels;
    if groups == 0 || first % groups != 0 || second % groups != 0 {
        let reason = format!("{groups} groups do not divide {first} and {second} channels");
        return Err(Error::Argument { op, reason });
    }
    let mut shape = vec![first, second / groups];
    shape.extend(spread::<N>(op, "kernel_size", kernel_size)?);
    let fan: usize = shape.iter().skip(1).product();
    let bound = if fan == 0 { 0.0 } else { 1.0 / (fan as f64).sqrt() };
    Ok((bounded(shape, bound, options)?, bounded_bias(bias.is_some(), bias.unwrap_or(0), bound, options)?))
}

macro_rules! convolutions {
    ($($(#[$about:meta])* $name:ident, $options:ident, $dims:literal;)*) => {$(
        settings! {
            #[doc = concat!("The settings of a [`", stringify!($name), "`].")]
            /// Sizes are one number, or one for each dim.
            $options {
                in_channels: usize, out_channels: usize, kernel_size: Sizes;
                /// Steps between windows; 1.
                stride: Sizes = Sizes(vec![1]),
                /// Elements added on both sides; 0.
                padding: Sizes = Sizes(vec![0]),
                /// Whether as many elements are added as give an output of the input's size, for a stride of
                /// 1; false.
                same_padding: bool = false,
                /// What the added elements are; zeros.
                padding_mode: PaddingMode = PaddingMode::Zeros,
                /// Steps between a window's elements; 1.
                dilation: Sizes = Sizes(vec![1]),
                /// Groups of channels that do not see each other; 1.
                groups: usize = 1usize,
                /// Whether there is a bias; true.
                bias: bool = true,
            }
        }

        impl $options {
            /// The layer, on a device.
            ///
            /// # Errors
            /// If a list has neither one number nor one for each dim, the groups do not divide the channels,
            /// the device fails, or the dtype is not a float one.
            pub fn build(&self, options: impl Into<Options>) -> Result<$name> {
                const OP: &str = stringify!($name);
                let channels = (self.out_channels, self.in_channels, self.groups);
                let bias = self.bias.then_some(self.out_channels);
                let (weight, bias) =
                    weights::<$dims>(OP, channels, &self.kernel_size, bias, &options.into())?;
                let settings = Setting {
                    conv: ConvOptions {
                        stride: spread::<$dims>(OP, "stride", &self.stride)?.to_vec(),
                        padding: if self.same_padding {
                            Padding::Same
                        } else {
                            Padding::Explicit(spread::<$dims>(OP, "padding", &self.padding)?.to_vec())
                        },
                        dilation: spread::<$dims>(OP, "dilation", &self.dilation)?.to_vec(),
                        groups: self.groups,
                        ..ConvOptions::default()
                    },
                    mode: self.padding_mode,
                };
                Ok($name { weight, bias, settings, hooks: Hooks::default() })
            }
        }

        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// `[out_channels, in_channels / groups, window..]`, uniform within the root of an output's
            /// number of inputs at first.
            pub weight: Tensor,
            /// `[out_channels]`, as the weight at first.
            pub bias: Option<Tensor>,
            #[module(skip)]
            settings: Setting,
            hooks: Hooks,
        }

        impl $name {
            /// A layer with PyTorch's defaults.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($options), "::build`].")]
            pub fn new(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes>,
                options: impl Into<Options>,
            ) -> Result<$name> {
                $name::options(in_channels, out_channels, kernel_size).build(options)
            }

            /// The settings, to be changed.
            pub fn options(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes>,
            ) -> $options {
                $options::new(in_channels, out_channels, kernel_size)
            }
        }

        impl Layer for $name {
            fn forward(&self, input: &Tensor) -> Result<Tensor> {
                check_dims(stringify!($name), input, $dims)?;
                self.hooks.around(input, || self.settings.forward(input, &self.weight, &self.bias))
            }
        }
    )*};
}

/// That an input has channels and so many dims, and perhaps a batch.
fn check_dims(op: &'static str, input: &Tensor, dims: usize) -> Result<()> {
    if input.rank() == dims + 1 || input.rank() == dims + 2 {
        return Ok(());
    }
    let reason = format!("does not have {} or {} dims: channels and {dims} more", dims + 1, dims + 2);
    Err(Error::Shape { op, shape: input.shape().to_vec(), reason })
}

/// What a convolution knows besides its weight.
#[derive(Clone, Debug)]
struct Setting {
    conv: ConvOptions,
    mode: PaddingMode,
}

impl Setting {
    fn forward(&self, input: &Tensor, weight: &Tensor, bias: &Option<Tensor>) -> Result<Tensor> {
        let mode = match self.mode {
            PaddingMode::Zeros => return input.conv(weight, bias, &self.conv),
            PaddingMode::Reflect => PadMode::Reflect,
            PaddingMode::Replicate => PadMode::Replicate,
            PaddingMode::Circular => PadMode::Circular,
        };
        let window = weight.shape().iter().skip(2);
        let mut margins: Vec<(isize, isize)> = match &self.conv.padding {
            Padding::Explicit(list) => list.iter().map(|&n| (n as isize, n as isize)).collect(),
            Padding::Valid => vec![(0, 0); window.len()],
            Padding::Same => {
                let total = window.zip(&self.conv.dilation).map(|(&size, &step)| (size.max(1) - 1) * step);
                total.map(|total| ((total / 2) as isize, (total - total / 2) as isize)).collect()
            }
        };
        margins.reverse();
        let conv = ConvOptions { padding: Padding::Valid, ..self.conv.clone() };
        input.pad_with(&margins, mode)?.conv(weight, bias, &conv)
    }
}

convolutions! {
    /// Products of windows of `[.., in_channels, length]` with a weight; `torch.nn.Conv1d`.
    ///
    /// ```
    /// use wgrad::nn::{Conv1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = Conv1d::new(3, 8, 3, &device)?;
    /// let y = layer.forward(&Tensor::ones([2, 3, 10], &device)?)?;
    /// assert_eq!(y.shape(), [2, 8, 8]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Conv1d, Conv1dOptions, 1;

    /// Products of windows of `[.., in_channels, height, width]` with a weight; `torch.nn.Conv2d`.
    ///
    /// ```
    /// use wgrad::nn::{Conv2d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = Conv2d::options(3, 8, [3, 5]).stride(2).padding([1, 2]).build(&device)?;
    /// let y = layer.forward(&Tensor::ones([4, 3, 8, 8], &device)?)?;
    /// assert_eq!(y.shape(), [4, 8, 4, 4]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Conv2d, Conv2dOptions, 2;

    /// Products of windows of `[.., in_channels, depth, height, width]` with a weight; `torch.nn.Conv3d`.
    ///
    /// ```
    /// use wgrad::nn::{Conv3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = Conv3d::options(3, 8, 3).same_padding(true).build(&device)?;
    /// let y = layer.forward(&Tensor::ones([2, 3, 4, 4, 4], &device)?)?;
    /// assert_eq!(y.shape(), [2, 8, 4, 4, 4]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Conv3d, Conv3dOptions, 3;
}

macro_rules! transposed {
    ($($(#[$about:meta])* $name:ident, $options:ident, $dims:literal;)*) => {$(
        settings! {
            #[doc = concat!("The settings of a [`", stringify!($name), "`].")]
            /// Sizes are one number, or one for each dim.
            $options {
                in_channels: usize, out_channels: usize, kernel_size: Sizes;
                /// Steps between windows; 1.
                stride: Sizes = Sizes(vec![1]),
                /// Elements taken off on both sides; 0.
                padding: Sizes = Sizes(vec![0]),
                /// Elements added at the end; 0.
                output_padding: Sizes = Sizes(vec![0]),
                /// Steps between a window's elements; 1.
                dilation: Sizes = Sizes(vec![1]),
                /// Groups of channels that do not see each other; 1.
                groups: usize = 1usize,
                /// Whether there is a bias; true.
                bias: bool = true,
            }
        }

        impl $options {
            /// The layer, on a device.
            ///
            /// # Errors
            /// If a list has neither one number nor one for each dim, the groups do not divide the channels,
            /// the device fails, or the dtype is not a float one.
            pub fn build(&self, options: impl Into<Options>) -> Result<$name> {
                const OP: &str = stringify!($name);
                let channels = (self.in_channels, self.out_channels, self.groups);
                let bias = self.bias.then_some(self.out_channels);
                let (weight, bias) =
                    weights::<$dims>(OP, channels, &self.kernel_size, bias, &options.into())?;
                let settings = ConvOptions {
                    stride: spread::<$dims>(OP, "stride", &self.stride)?.to_vec(),
                    padding: Padding::Explicit(spread::<$dims>(OP, "padding", &self.padding)?.to_vec()),
                    dilation: spread::<$dims>(OP, "dilation", &self.dilation)?.to_vec(),
                    groups: self.groups,
                    output_padding: spread::<$dims>(OP, "output_padding", &self.output_padding)?.to_vec(),
                };
                Ok($name { weight, bias, settings, hooks: Hooks::default() })
            }
        }

        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// `[in_channels, out_channels / groups, window..]`, uniform within the root of
            /// `out_channels / groups` windows at first.
            pub weight: Tensor,
            /// `[out_channels]`, as the weight at first.
            pub bias: Option<Tensor>,
            settings: ConvOptions,
            hooks: Hooks,
        }

        impl $name {
            /// A layer with PyTorch's defaults.
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($options), "::build`].")]
            pub fn new(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes>,
                options: impl Into<Options>,
            ) -> Result<$name> {
                $name::options(in_channels, out_channels, kernel_size).build(options)
            }

            /// The settings, to be changed.
            pub fn options(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes>,
            ) -> $options {
                $options::new(in_channels, out_channels, kernel_size)
            }

            /// The output of a given size, of those that a stride leaves open: that of the input of a
            /// convolution whose output had this input's size.
            ///
            /// # Errors
            /// If the input does not fit, or gives no output of that size.
            pub fn forward_to(&self, input: &Tensor, output_size: impl Into<Sizes>) -> Result<Tensor> {
                const OP: &str = stringify!($name);
                check_dims(OP, input, $dims)?;
                let sizes = spread::<$dims>(OP, "output_size", &output_size.into())?;
                let settings = ConvOptions {
                    output_padding: missing(OP, input, &self.weight, &self.settings, &sizes)?,
                    ..self.settings.clone()
                };
                self.hooks.around(input, || input.conv_transpose(&self.weight, &self.bias, &settings))
            }
        }

        impl Layer for $name {
            fn forward(&self, input: &Tensor) -> Result<Tensor> {
                check_dims(stringify!($name), input, $dims)?;
                self.hooks.around(input, || input.conv_transpose(&self.weight, &self.bias, &self.settings))
            }
        }
    )*};
}

/// How many elements an output lacks to have these sizes.
fn missing(
    op: &'static str,
    input: &Tensor,
    weight: &Tensor,
    settings: &ConvOptions,
    sizes: &[usize],
) -> Result<Vec<usize>> {
    let padding = match &settings.padding {
        Padding::Explicit(list) => list.clone(),
        _ => vec![0; sizes.len()],
    };
    let given = input.shape().iter().skip(input.rank() - sizes.len());
    let window = weight.shape().iter().skip(2);
    let dims = given.zip(window).zip(&settings.stride).zip(&settings.dilation).zip(padding).zip(sizes);
    dims.map(|(((((&size, &window), &stride), &dilation), padding), &wanted)| {
        let least = (size as i128 - 1) * stride as i128 + (window as i128 - 1) * dilation as i128 + 1
            - 2 * padding as i128;
        let extra = wanted as i128 - least;
        if (0..stride as i128).contains(&extra) {
            return Ok(extra as usize);
        }
        let reason = format!(
            "an output size of {wanted} was asked for; from {size} it can be {} to {}",
            least.max(0),
            (least + stride as i128 - 1).max(0)
        );
        Err(Error::Argument { op, reason })
    })
    .collect()
}

transposed! {
    /// Each element of `[.., in_channels, length]` spread over a window of products with a weight;
    /// `torch.nn.ConvTranspose1d`.
    ///
    /// ```
    /// use wgrad::nn::{ConvTranspose1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = ConvTranspose1d::options(3, 8, 2).stride(2).build(&device)?;
    /// let y = layer.forward(&Tensor::ones([2, 3, 4], &device)?)?;
    /// assert_eq!(y.shape(), [2, 8, 8]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConvTranspose1d, ConvTranspose1dOptions, 1;

    /// Each element of `[.., in_channels, height, width]` spread over a window of products with a weight;
    /// `torch.nn.ConvTranspose2d`.
    ///
    /// ```
    /// use wgrad::nn::{ConvTranspose2d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = ConvTranspose2d::options(8, 3, 3).stride(2).build(&device)?;
    /// let x = Tensor::ones([4, 8, 5, 5], &device)?;
    /// assert_eq!(layer.forward(&x)?.shape(), [4, 3, 11, 11]);
    /// assert_eq!(layer.forward_to(&x, [12, 11])?.shape(), [4, 3, 12, 11]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConvTranspose2d, ConvTranspose2dOptions, 2;

    /// Each element of `[.., in_channels, depth, height, width]` spread over a window of products with a
    /// weight; `torch.nn.ConvTranspose3d`.
    ///
    /// ```
    /// use wgrad::nn::{ConvTranspose3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let layer = ConvTranspose3d::new(3, 8, 2, &device)?;
    /// let y = layer.forward(&Tensor::ones([1, 3, 2, 2, 2], &device)?)?;
    /// assert_eq!(y.shape(), [1, 8, 3, 3, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConvTranspose3d, ConvTranspose3dOptions, 3;
}

functions! {
    /// The windows of images `[batch, channels, height, width]` as columns,
    /// `[batch, channels * window, count]`; `torch.nn.Unfold`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, Unfold};
    /// let x = wgrad::Tensor::ones([1, 2, 4, 5], &wgrad::Device::cpu())?;
    /// assert_eq!(Unfold::new([2, 3]).forward(&x)?.shape(), [1, 12, 9]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Unfold(kernel_size: Sizes) {
        /// Steps between a window's elements; 1.
        dilation: Sizes = Sizes(vec![1]),
        /// Zeros on both sides; 0.
        padding: Sizes = Sizes(vec![0]),
        /// Steps between windows; 1.
        stride: Sizes = Sizes(vec![1])
    } |layer, x| {
        let pair = |name, sizes| spread::<2>("Unfold", name, sizes);
        x.im2col(
            &pair("kernel_size", &layer.kernel_size)?,
            &pair("dilation", &layer.dilation)?,
            &pair("padding", &layer.padding)?,
            &pair("stride", &layer.stride)?,
        )
    };

    /// Columns `[batch, channels * window, count]` added up at their windows' places in images of a size;
    /// `torch.nn.Fold`.
    ///
    /// ```
    /// use wgrad::nn::{Fold, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = Fold::new([4, 5], 2).forward(&Tensor::ones([1, 8, 12], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 2, 4, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Fold(output_size: Sizes, kernel_size: Sizes) {
        /// Steps between a window's elements; 1.
        dilation: Sizes = Sizes(vec![1]),
        /// Zeros on both sides; 0.
        padding: Sizes = Sizes(vec![0]),
        /// Steps between windows; 1.
        stride: Sizes = Sizes(vec![1])
    } |layer, x| {
        let pair = |name, sizes| spread::<2>("Fold", name, sizes);
        x.col2im(
            &pair("output_size", &layer.output_size)?,
            &pair("kernel_size", &layer.kernel_size)?,
            &pair("dilation", &layer.dilation)?,
            &pair("padding", &layer.padding)?,
            &pair("stride", &layer.stride)?,
        )
    };
}
