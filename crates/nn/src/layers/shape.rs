//! Layers that arrange elements anew: dims, pixels, channels, margins, other sizes; and distances between
//! pairs.

use wgrad_autograd::{Error, Interpolation, PadMode, Result, Scale, Tensor};

use super::options::{Sizes, argument, functions};
use crate::{Hooks, Layer, Module};

functions! {
    /// Dims `start_dim..=end_dim` as one, by default all but the batch; `torch.nn.Flatten`.
    ///
    /// ```
    /// use wgrad::nn::{Flatten, Layer};
    /// let x = wgrad::Tensor::ones([2, 3, 4], &wgrad::Device::cpu())?;
    /// assert_eq!(Flatten::new().forward(&x)?.shape(), [2, 12]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Flatten() {
        /// The first of the dims; 1.
        start_dim: isize = 1,
        /// The last of the dims; -1.
        end_dim: isize = -1
    } |layer, x| x.flatten(layer.start_dim, layer.end_dim);

    /// `[.., channels * factor², height, width]` as `[.., channels, height * factor, width * factor]`;
    /// `torch.nn.PixelShuffle`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, PixelShuffle};
    /// use wgrad::{Device, Tensor};
    /// let y = PixelShuffle::new(2).forward(&Tensor::ones([2, 8, 2, 3], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [2, 2, 4, 6]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    PixelShuffle(upscale_factor: usize) {} |layer, x| x.pixel_shuffle(layer.upscale_factor);

    /// The reverse of [`PixelShuffle`]; `torch.nn.PixelUnshuffle`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, PixelUnshuffle};
    /// use wgrad::{Device, Tensor};
    /// let y = PixelUnshuffle::new(2).forward(&Tensor::ones([1, 2, 4, 6], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 8, 2, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    PixelUnshuffle(downscale_factor: usize) {} |layer, x| x.pixel_unshuffle(layer.downscale_factor);

    /// Channels (dim 1) of groups taken in turns; `torch.nn.ChannelShuffle`.
    ///
    /// ```
    /// use wgrad::nn::{ChannelShuffle, Layer};
    /// let x = wgrad::Tensor::new([[1.0, 2.0, 3.0, 4.0]], &wgrad::Device::cpu())?;
    /// let y = ChannelShuffle::new(2).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ChannelShuffle(groups: usize) {} |layer, x| {
        let &[batch, channels, ..] = x.shape() else {
            let reason = "has no channels: fewer than two dims".to_owned();
            return Err(Error::Shape { op: "ChannelShuffle", shape: x.shape().to_vec(), reason });
        };
        if layer.groups == 0 || channels % layer.groups != 0 {
            let reason = format!("has {channels} channels, which do not make {} groups", layer.groups);
            return Err(Error::Shape { op: "ChannelShuffle", shape: x.shape().to_vec(), reason });
        }
        let rest = x.numel() / (batch * channels).max(1);
        let split = x.reshape([batch, layer.groups, channels / layer.groups, rest])?;
        split.transpose(1, 2)?.reshape(x.shape())
    };

    /// Images `[batch, channels, height, width]` at another size, on straight lines between pixels, the
    /// corners kept in place; `torch.nn.UpsamplingBilinear2d`.
    ///
    /// ```
    /// use wgrad::nn::{Enlarge, Layer, UpsamplingBilinear2d};
    /// use wgrad::{Device, Tensor};
    /// let layer = UpsamplingBilinear2d::new(Enlarge::by(2.0));
    /// let y = layer.forward(&Tensor::ones([1, 2, 3, 3], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 2, 6, 6]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    UpsamplingBilinear2d(scale: Enlarge) {} |layer, x| {
        x.interpolate(&layer.scale.0, Interpolation::Linear, true)
    };

    /// Images `[batch, channels, height, width]` at another size, each pixel repeated;
    /// `torch.nn.UpsamplingNearest2d`.
    ///
    /// ```
    /// use wgrad::nn::{Enlarge, Layer, UpsamplingNearest2d};
    /// use wgrad::{Device, Tensor};
    /// let layer = UpsamplingNearest2d::new(Enlarge::by(2.0));
    /// let y = layer.forward(&Tensor::ones([1, 2, 3, 3], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 2, 6, 6]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    UpsamplingNearest2d(scale: Enlarge) {} |layer, x| {
        x.interpolate(&layer.scale.0, Interpolation::Nearest, false)
    };

    /// A tensor `[batch, channels, ..]` with other sizes in one to three dims; `torch.nn.Upsample`.
    ///
    /// ```
    /// use wgrad::Interpolation;
    /// use wgrad::nn::{Enlarge, Layer, Upsample};
    /// let x = wgrad::Tensor::ones([1, 2, 3, 4], &wgrad::Device::cpu())?;
    /// let layer = Upsample::new(Enlarge::by(1.5)).mode(Interpolation::Linear);
    /// assert_eq!(layer.forward(&x)?.shape(), [1, 2, 4, 6]);
    /// assert_eq!(Upsample::new(Enlarge::to([5, 5])).forward(&x)?.shape(), [1, 2, 5, 5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    Upsample(scale: Enlarge) {
        /// How values between the elements are found; the nearest.
        mode: Interpolation = Interpolation::Nearest,
        /// Whether the corner elements keep their places; false.
        align_corners: bool = false
    } |layer, x| x.interpolate(&layer.scale.0, layer.mode, layer.align_corners);
}

/// What size a tensor gets: a given one, or its own times a factor.
#[derive(Clone, Debug)]
pub struct Enlarge(Scale);

impl Enlarge {
    /// To a size.
    pub fn to(size: impl Into<Sizes>) -> Enlarge {
        Enlarge(Scale::Size(size.into().0))
    }

    /// By a factor in each dim, the size rounded down.
    pub fn by(factor: f64) -> Enlarge {
        Enlarge::by_each(&[factor])
    }

    /// By a factor for each dim, the sizes rounded down.
    pub fn by_each(factors: &[f64]) -> Enlarge {
        Enlarge(Scale::Factor(factors.to_vec(), false))
    }

    /// With places computed from the rounded size instead of the factors; `recompute_scale_factor`.
    pub fn recomputed(self) -> Enlarge {
        match self.0 {
            Scale::Factor(factors, _) => Enlarge(Scale::Factor(factors, true)),
            size => Enlarge(size),
        }
    }
}

/// One dim as several; `torch.nn.Unflatten`.
///
/// ```
/// use wgrad::nn::{Layer, Unflatten};
/// let x = wgrad::Tensor::ones([3, 8], &wgrad::Device::cpu())?;
/// assert_eq!(Unflatten::new(1, [2, -1]).forward(&x)?.shape(), [3, 2, 4]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Unflatten {
    dim: isize,
    #[module(skip)]
    sizes: wgrad_autograd::IntArray,
    hooks: Hooks,
}

impl Unflatten {
    /// A dim as dims of these sizes, of which one may be -1: what remains.
    pub fn new(dim: isize, unflattened_size: impl Into<wgrad_autograd::IntArray>) -> Unflatten {
        Unflatten { dim, sizes: unflattened_size.into(), hooks: Hooks::default() }
    }
}

impl Layer for Unflatten {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || input.unflatten(self.dim, &self.sizes))
    }
}

/// Margins around the last dims: one number for all sides, or pairs (before, after), the last dim's first, as
/// in `F.pad`: `1`, `[1, 2]`, `[left, right, top, bottom]`. Negative ones crop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Margins(Vec<isize>);

impl From<isize> for Margins {
    fn from(margin: isize) -> Self {
        Margins(vec![margin])
    }
}

impl From<Vec<isize>> for Margins {
    fn from(margins: Vec<isize>) -> Self {
        Margins(margins)
    }
}

impl<const N: usize> From<[isize; N]> for Margins {
    fn from(margins: [isize; N]) -> Self {
        Margins(margins.to_vec())
    }
}

impl Margins {
    /// Pairs for so many dims, the last one's first, for an input that has them and channels.
    fn pairs(&self, op: &'static str, x: &Tensor, dims: usize) -> Result<Vec<(isize, isize)>> {
        if x.rank() != dims + 1 && x.rank() != dims + 2 {
            let reason = format!("does not have {} or {} dims: channels and {dims} more", dims + 1, dims + 2);
            return Err(Error::Shape { op, shape: x.shape().to_vec(), reason });
        }
        match self.0.as_slice() {
            &[one] => Ok(vec![(one, one); dims]),
            list if list.len() == 2 * dims => Ok(list.as_chunks().0.iter().map(|&[a, b]| (a, b)).collect()),
            list => {
                let reason =
                    format!("{} margins were given; give one, or two for each of {dims} dims", list.len());
                Err(Error::Argument { op, reason })
            }
        }
    }
}

macro_rules! paddings {
    ($($what:literal, |$x:ident, $margins:ident| $pad:expr; $($name:ident $dims:literal),*;)*) => {
        $($(functions! {
            #[doc = concat!($what, " around the last ", stringify!($dims), " dims;")]
            #[doc = concat!("`torch.nn.", stringify!($name), "`.")]
            ///
            /// ```
            #[doc = concat!("use wgrad::nn::{Layer, ", stringify!($name), "};")]
            #[doc = concat!("let x = wgrad::Tensor::ones(vec![3; 1 + ", $dims, "], &wgrad::Device::cpu())?;")]
            #[doc = concat!("let y = ", stringify!($name), "::new(1).forward(&x)?;")]
            #[doc = concat!("assert_eq!(y.shape()[1..], [5; ", $dims, "]);")]
            /// # Ok::<(), wgrad::Error>(())
            /// ```
            $name(padding: Margins) {} |layer, $x| {
                let $margins = layer.padding.pairs(stringify!($name), $x, $dims)?;
                $pad
            };
        })*)*
    };
}

paddings! {
    "Zeros", |x, margins| x.pad(&margins, 0.0);
    ZeroPad1d 1, ZeroPad2d 2, ZeroPad3d 3;
    "The tensor, mirrored at its edges,", |x, margins| x.pad_with(&margins, PadMode::Reflect);
    ReflectionPad1d 1, ReflectionPad2d 2, ReflectionPad3d 3;
    "The tensor's edges, repeated,", |x, margins| x.pad_with(&margins, PadMode::Replicate);
    ReplicationPad1d 1, ReplicationPad2d 2, ReplicationPad3d 3;
    "The tensor's other ends", |x, margins| x.pad_with(&margins, PadMode::Circular);
    CircularPad1d 1, CircularPad2d 2, CircularPad3d 3;
}

functions! {
    /// A number around the last dim; `torch.nn.ConstantPad1d`.
    ///
    /// ```
    /// use wgrad::nn::{ConstantPad1d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = ConstantPad1d::new([1, 0], 7.0).forward(&Tensor::ones([1, 2], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConstantPad1d(padding: Margins, value: f64) {} |layer, x| {
        x.pad(&layer.padding.pairs("ConstantPad1d", x, 1)?, layer.value)
    };

    /// A number around the last two dims; `torch.nn.ConstantPad2d`.
    ///
    /// ```
    /// use wgrad::nn::{ConstantPad2d, Layer};
    /// let x = wgrad::Tensor::ones([1, 1, 1], &wgrad::Device::cpu())?;
    /// let y = ConstantPad2d::new([1, 0, 0, 1], 7.0).forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [7.0, 1.0, 7.0, 7.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConstantPad2d(padding: Margins, value: f64) {} |layer, x| {
        x.pad(&layer.padding.pairs("ConstantPad2d", x, 2)?, layer.value)
    };

    /// A number around the last three dims; `torch.nn.ConstantPad3d`.
    ///
    /// ```
    /// use wgrad::nn::{ConstantPad3d, Layer};
    /// use wgrad::{Device, Tensor};
    /// let y = ConstantPad3d::new(1, 7.0).forward(&Tensor::ones([1, 1, 1, 1], &Device::cpu())?)?;
    /// assert_eq!(y.shape(), [1, 3, 3, 3]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConstantPad3d(padding: Margins, value: f64) {} |layer, x| {
        x.pad(&layer.padding.pairs("ConstantPad3d", x, 3)?, layer.value)
    };
}

/// The cosine of the angle between the vectors of two tensors along a dim; `torch.nn.CosineSimilarity`.
///
/// ```
/// use wgrad::nn::CosineSimilarity;
/// use wgrad::{Device, Tensor};
/// let a = Tensor::new([[1.0, 0.0]], &Device::cpu())?;
/// let b = Tensor::new([[1.0, 1.0]], &Device::cpu())?;
/// let cosine = CosineSimilarity::new().forward(&a, &b)?.item::<f32>()?;
/// assert!((cosine - 0.5f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct CosineSimilarity {
    dim: isize,
    eps: f64,
}

impl CosineSimilarity {
    /// Along dim 1, lengths taken to be at least 1e-8.
    #[allow(clippy::new_without_default)]
    pub fn new() -> CosineSimilarity {
        CosineSimilarity { dim: 1, eps: 1e-8 }
    }

    /// The dim of the vectors; 1.
    pub fn dim(mut self, dim: isize) -> Self {
        self.dim = dim;
        self
    }

    /// What lengths are taken to be at least; 1e-8.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// The cosines of two tensors that broadcast.
    ///
    /// # Errors
    /// If the tensors do not broadcast, or the dim is not there.
    pub fn forward(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
        x1.cosine_similarity(x2, self.dim, self.eps)
    }
}

/// The norm of the difference of the vectors of two tensors along the last dim; `torch.nn.PairwiseDistance`.
///
/// ```
/// use wgrad::nn::PairwiseDistance;
/// use wgrad::{Device, Tensor};
/// let a = Tensor::new([[0.0, 3.0]], &Device::cpu())?;
/// let b = Tensor::new([[4.0, 0.0]], &Device::cpu())?;
/// let distance = PairwiseDistance::new().forward(&a, &b)?.item::<f32>()?;
/// assert!((distance - 5.0).abs() < 1e-4);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct PairwiseDistance {
    p: f64,
    eps: f64,
    keepdim: bool,
}

impl PairwiseDistance {
    /// With the 2-norm, and 1e-6 added to each difference.
    #[allow(clippy::new_without_default)]
    pub fn new() -> PairwiseDistance {
        PairwiseDistance { p: 2.0, eps: 1e-6, keepdim: false }
    }

    /// The norm's exponent; 2.
    pub fn p(mut self, p: f64) -> Self {
        self.p = p;
        self
    }

    /// What is added to each difference; 1e-6.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Whether the last dim stays, with size 1; false.
    pub fn keepdim(mut self, keepdim: bool) -> Self {
        self.keepdim = keepdim;
        self
    }

    /// The distances between two tensors that broadcast.
    ///
    /// # Errors
    /// If the tensors do not broadcast.
    pub fn forward(&self, x1: &Tensor, x2: &Tensor) -> Result<Tensor> {
        x1.pairwise_distance(x2, self.p, self.eps, self.keepdim)
    }
}
