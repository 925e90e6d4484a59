//! Pooling: means, maxima and norms of windows, of given size or as many as asked for, and maxima put back to
//! their places.

use wgrad_autograd::{DType, Error, PoolOptions, Result, Tensor};

use super::options::{Sizes, argument, functions, spread};
use crate::{Hooks, Module};

/// How many parts each dim is cut into: one number, or one for each dim, of which `None` leaves a dim as it
/// is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSize(Vec<Option<usize>>);

impl From<usize> for OutputSize {
    fn from(size: usize) -> Self {
        OutputSize(vec![Some(size)])
    }
}

impl<const N: usize> From<[usize; N]> for OutputSize {
    fn from(sizes: [usize; N]) -> Self {
        OutputSize(sizes.into_iter().map(Some).collect())
    }
}

impl<const N: usize> From<[Option<usize>; N]> for OutputSize {
    fn from(sizes: [Option<usize>; N]) -> Self {
        OutputSize(sizes.to_vec())
    }
}

impl From<Vec<Option<usize>>> for OutputSize {
    fn from(sizes: Vec<Option<usize>>) -> Self {
        OutputSize(sizes)
    }
}

impl OutputSize {
    fn spread<const N: usize>(&self, op: &'static str) -> Result<[Option<usize>; N]> {
        match self.0.as_slice() {
            [one] => Ok([*one; N]),
            list => list.try_into().map_err(|_| {
                let reason =
                    format!("output_size has {} numbers; give one, or one for each of {N} dims", list.len());
                Error::Argument { op, reason }
            }),
        }
    }
}

/// The windows of a pooling; without steps they lie side by side.
fn windows(kernel_size: &Sizes, stride: &Sizes, padding: &Sizes, ceil_mode: bool) -> PoolOptions {
    PoolOptions {
        stride: stride.0.clone(),
        padding: padding.0.clone(),
        ceil_mode,
        ..PoolOptions::new(&kernel_size.0)
    }
}

/// A power of the mean of powers: the norm over each window.
fn norms(
    x: &Tensor,
    p: f64,
    window: usize,
    means: impl FnOnce(&Tensor) -> Result<Tensor>,
    maxima: impl FnOnce(&Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<Tensor> {
    if p == 0.0 || p.is_nan() {
        let reason = format!("norm_type is {p}; it must not be 0");
        return Err(Error::Argument { op: "LPPool", reason });
    }
    if p == f64::INFINITY {
        return Ok(maxima(&x.abs()?)?.0);
    }
    if p == f64::NEG_INFINITY {
        return maxima(&x.abs()?.neg()?)?.0.neg();
    }
    let mean = means(&x.pow(p)?)?;
    // Where all elements of a window are 0, the rectifier lets no gradient through; the root's would be
    // infinite.
    mean.sign()?.mul(mean.abs()?.relu()?)?.mul(window as f64)?.pow(1.0 / p)
}

macro_rules! pools {
    ($dims:literal, $of:literal,
     $max:ident $max_pool:ident, $avg:ident $avg_pool:ident, $lp:ident,
     $adaptive_max:ident $adaptive_max_pool:ident, $adaptive_avg:ident $adaptive_avg_pool:ident,
     |$sizes:ident| $adaptive:expr) => {
        functions! {
            #[doc = concat!("The largest elements of windows of ", $of, ";")]
            #[doc = concat!("`torch.nn.", stringify!($max), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($max), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![4; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($max), "::new(2).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [2; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $max(kernel_size: Sizes) {
                /// Steps between windows; without, as large as the window.
                stride: Sizes = Sizes(Vec::new()),
                /// Margins, at most half of a window; 0.
                padding: Sizes = Sizes(vec![0]),
                /// Steps between a window's elements; 1.
                dilation: Sizes = Sizes(vec![1]),
                /// Whether windows that begin inside may reach beyond the end; false.
                ceil_mode: bool = false
            } |layer, x| Ok(x.$max_pool(&layer.windows())?.0);

            #[doc = concat!("The means of windows of ", $of, ";")]
            #[doc = concat!("`torch.nn.", stringify!($avg), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($avg), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![4; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($avg), "::new(2).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [2; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $avg(kernel_size: Sizes) {
                /// Steps between windows; without, as large as the window.
                stride: Sizes = Sizes(Vec::new()),
                /// Margins of zeros, at most half of a window; 0.
                padding: Sizes = Sizes(vec![0]),
                /// Whether windows that begin inside may reach beyond the end; false.
                ceil_mode: bool = false,
                /// Whether the margins' zeros count; true.
                count_include_pad: bool = true,
                /// What sums are divided by, instead of the number of elements.
                divisor_override: Option<isize> = None
            } |layer, x| x.$avg_pool(&PoolOptions {
                count_include_pad: layer.count_include_pad,
                divisor_override: layer.divisor_override,
                ..windows(&layer.kernel_size, &layer.stride, &layer.padding, layer.ceil_mode)
            });

            #[doc = concat!("The norms of windows of ", $of, ", for a norm's exponent;")]
            #[doc = concat!("`torch.nn.", stringify!($lp), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($lp), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![4; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($lp), "::new(2.0, 2).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [2; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $lp(norm_type: f64, kernel_size: Sizes) {
                /// Steps between windows; without, as large as the window.
                stride: Sizes = Sizes(Vec::new()),
                /// Whether windows that begin inside may reach beyond the end; false.
                ceil_mode: bool = false
            } |layer, x| {
                let window: usize =
                    spread::<$dims>(stringify!($lp), "kernel_size", &layer.kernel_size)?.iter().product();
                let options = windows(&layer.kernel_size, &layer.stride, &Sizes(vec![0]), layer.ceil_mode);
                norms(x, layer.norm_type, window, |x| x.$avg_pool(&options), |x| x.$max_pool(&options))
            };

            #[doc = concat!("The means of as equal parts of ", $of, " as can be;")]
            #[doc = concat!("`torch.nn.", stringify!($adaptive_avg), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($adaptive_avg), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![4; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($adaptive_avg), "::new(2).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [2; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $adaptive_avg(output_size: OutputSize) {} |layer, x| {
                let $sizes = layer.output_size.spread::<$dims>(stringify!($adaptive_avg))?;
                x.$adaptive_avg_pool($adaptive(x)?)
            };

            #[doc = concat!("The largest elements of as equal parts of ", $of, " as can be;")]
            #[doc = concat!("`torch.nn.", stringify!($adaptive_max), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($adaptive_max), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![4; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($adaptive_max), "::new(2).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [2; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $adaptive_max(output_size: OutputSize) {} |layer, x| Ok(layer.values_and_places(x)?.0);
        }

        impl $max {
            fn windows(&self) -> PoolOptions {
                PoolOptions {
                    dilation: self.dilation.0.clone(),
                    ..windows(&self.kernel_size, &self.stride, &self.padding, self.ceil_mode)
                }
            }

            /// The largest elements, and their places (i64) in the input's last dims flattened;
            /// `return_indices`.
            ///
            /// # Errors
            /// As the forward.
            pub fn forward_with_indices(&self, input: &Tensor) -> Result<(Tensor, Tensor)> {
                let (values, places) = input.$max_pool(&self.windows())?;
                Ok((self.hooks.after(input, values)?, places))
            }
        }

        impl $adaptive_max {
            fn values_and_places(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
                let $sizes = self.output_size.spread::<$dims>(stringify!($adaptive_max))?;
                x.$adaptive_max_pool($adaptive(x)?)
            }

            /// The largest elements, and their places (i64) in the input's last dims flattened;
            /// `return_indices`.
            ///
            /// # Errors
            /// As the forward.
            pub fn forward_with_indices(&self, input: &Tensor) -> Result<(Tensor, Tensor)> {
                let (values, places) = self.values_and_places(input)?;
                Ok((self.hooks.after(input, values)?, places))
            }
        }
    };
}

/// The size of a tensor's last dim, for `None`.
fn line(sizes: [Option<usize>; 1], x: &Tensor) -> Result<usize> {
    let [size] = sizes;
    size.map_or_else(|| x.size(-1), Ok)
}

pools! {
    1, "the last dim", MaxPool1d max_pool1d, AvgPool1d avg_pool1d, LPPool1d,
    AdaptiveMaxPool1d adaptive_max_pool1d, AdaptiveAvgPool1d adaptive_avg_pool1d, |sizes| |x| line(sizes, x)
}
pools! {
    2, "the last two dims", MaxPool2d max_pool2d, AvgPool2d avg_pool2d, LPPool2d,
    AdaptiveMaxPool2d adaptive_max_pool2d, AdaptiveAvgPool2d adaptive_avg_pool2d,
    |sizes| |_| Ok::<_, Error>(sizes)
}
pools! {
    3, "the last three dims", MaxPool3d max_pool3d, AvgPool3d avg_pool3d, LPPool3d,
    AdaptiveMaxPool3d adaptive_max_pool3d, AdaptiveAvgPool3d adaptive_avg_pool3d,
    |sizes| |_| Ok::<_, Error>(sizes)
}

macro_rules! unpools {
    ($($(#[$about:meta])* $name:ident, $dims:literal;)*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            #[module(skip)]
            kernel_size: Sizes,
            #[module(skip)]
            stride: Sizes,
            #[module(skip)]
            padding: Sizes,
            hooks: Hooks,
        }

        impl $name {
            /// For the places of a pooling with these windows.
            pub fn new(kernel_size: impl Into<Sizes>) -> $name {
                $name {
                    kernel_size: kernel_size.into(),
                    stride: Sizes(Vec::new()),
                    padding: Sizes(vec![0]),
                    hooks: Hooks::default(),
                }
            }

            /// Steps between windows; without, as large as the window.
            pub fn stride(mut self, stride: impl Into<Sizes>) -> Self {
                self.stride = stride.into();
                self
            }

            /// Margins; 0.
            pub fn padding(mut self, padding: impl Into<Sizes>) -> Self {
                self.padding = padding.into();
                self
            }

            /// Puts elements to their places in zeros, of the smallest size that the windows fill.
            ///
            /// # Errors
            /// If values and places differ in shape, or a place is out of range.
            pub fn forward(&self, input: &Tensor, indices: &Tensor) -> Result<Tensor> {
                const OP: &str = stringify!($name);
                let window = spread::<$dims>(OP, "kernel_size", &self.kernel_size)?;
                let stride = if self.stride.0.is_empty() {
                    window
                } else {
                    spread::<$dims>(OP, "stride", &self.stride)?
                };
                let padding = spread::<$dims>(OP, "padding", &self.padding)?;
                let sizes = input.shape().iter().skip(input.rank().saturating_sub($dims));
                let lines = sizes.zip(window).zip(stride).zip(padding);
                let size = lines.map(|(((&size, window), stride), padding)| {
                    (size.saturating_sub(1) * stride + window).saturating_sub(2 * padding)
                });
                self.forward_to(input, indices, size.collect::<Vec<_>>())
            }

            /// Puts elements to their places in zeros of a given size.
            ///
            /// # Errors
            /// If values and places differ in shape, or a place is out of range.
            pub fn forward_to(
                &self,
                input: &Tensor,
                indices: &Tensor,
                output_size: impl Into<Sizes>,
            ) -> Result<Tensor> {
                let size = spread::<$dims>(stringify!($name), "output_size", &output_size.into())?;
                self.hooks.around(input, || unpool(stringify!($name), input, indices, &size))
            }
        }
    )*};
}

fn unpool(op: &'static str, input: &Tensor, indices: &Tensor, size: &[usize]) -> Result<Tensor> {
    let first = input.rank().saturating_sub(size.len());
    if input.shape() != indices.shape() || first == 0 || first > 2 {
        let reason =
            "are those of values and of their places: channels and the pooled dims, alike".to_owned();
        let (lhs, rhs) = (input.shape().to_vec(), indices.shape().to_vec());
        return Err(Error::ShapeMismatch { op, lhs, rhs, reason });
    }
    if indices.dtype() != DType::I64 {
        let reason = "does not hold places; give the i64 tensor of the pooling".to_owned();
        return Err(Error::DType { op, dtype: indices.dtype(), reason });
    }
    let mut shape: Vec<usize> = input.shape().iter().take(first).copied().collect();
    let mut plane = shape.clone();
    plane.push(size.iter().product());
    shape.extend(size);
    let flat = |x: &Tensor| x.flatten(first as isize, -1);
    let zeros = Tensor::zeros(plane, (input.dtype(), input.device()))?;
    zeros.scatter(-1, &flat(indices)?, &flat(input)?)?.reshape(shape)
}

unpools! {
    /// Elements put back to the places where [`MaxPool1d`] found them, zeros elsewhere;
    /// `torch.nn.MaxUnpool1d`.
    MaxUnpool1d, 1;

    /// Elements put back to the places where [`MaxPool2d`] found them, zeros elsewhere;
    /// `torch.nn.MaxUnpool2d`.
    ///
    /// ```
    /// use wgrad::nn::{MaxPool2d, MaxUnpool2d};
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[[1.0, 2.0], [3.0, 4.0]]], &Device::cpu())?;
    /// let (largest, places) = MaxPool2d::new(2).forward_with_indices(&x)?;
    /// let y = MaxUnpool2d::new(2).forward(&largest, &places)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 0.0, 0.0, 4.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MaxUnpool2d, 2;

    /// Elements put back to the places where [`MaxPool3d`] found them, zeros elsewhere;
    /// `torch.nn.MaxUnpool3d`.
    MaxUnpool3d, 3;
}
