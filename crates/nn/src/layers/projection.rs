//! Losses with weights of their own: products to classes and the cross entropy of them.

use wgrad_autograd::{CrossEntropyOptions, Error, Options, Reduction, Result, Tensor};

use super::linear::Linear;
use super::options::{Sizes, argument, settings};
use crate::{Layer, Module};

settings! {
    /// The settings of a [`LinearCrossEntropyLoss`].
    LinearCrossEntropyLossOptions {
        in_features: usize, num_classes: usize;
        /// Dims behind the classes: each of their elements has a target of its own; none.
        out_features: Sizes = Sizes(Vec::new()),
        /// Whether the product has a bias; false.
        bias: bool = false,
        /// Whether the losses are averaged, added, or given each on its own; averaged.
        reduction: Reduction = Reduction::Mean,
        /// A weight for each class.
        weight: Option<Tensor> = None,
        /// The class that counts for nothing; -100.
        ignore_index: i64 = -100,
        /// What part of each target is spread over all classes; 0.
        label_smoothing: f64 = 0.0,
    }
}

impl LinearCrossEntropyLossOptions {
    /// The loss, on a device.
    ///
    /// # Errors
    /// If the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<LinearCrossEntropyLoss> {
        let width = self.out_features.0.iter().product::<usize>() * self.num_classes;
        let linear = Linear::options(self.in_features, width).bias(self.bias).build(options)?;
        Ok(LinearCrossEntropyLoss { weight: self.weight.clone(), linear, settings: self.clone() })
    }
}

/// The cross entropy of a target and the scores that a product gives: `[batch, in_features]` with a target of
/// classes, or of probabilities; `torch.nn.LinearCrossEntropyLoss`.
///
/// ```
/// use wgrad::nn::LinearCrossEntropyLoss;
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = LinearCrossEntropyLoss::new(4, 3, &device)?;
/// let x = Tensor::ones([2, 4], &device)?;
/// assert!(loss.forward(&x, &Tensor::new([0i64, 2], &device)?)?.item::<f32>()? > 0.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct LinearCrossEntropyLoss {
    #[buffer]
    weight: Option<Tensor>,
    /// The product.
    pub linear: Linear,
    #[module(skip)]
    settings: LinearCrossEntropyLossOptions,
}

impl LinearCrossEntropyLoss {
    /// A loss with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`LinearCrossEntropyLossOptions::build`].
    pub fn new(
        in_features: usize,
        num_classes: usize,
        options: impl Into<Options>,
    ) -> Result<LinearCrossEntropyLoss> {
        LinearCrossEntropyLoss::options(in_features, num_classes).build(options)
    }

    /// The settings, to be changed.
    pub fn options(in_features: usize, num_classes: usize) -> LinearCrossEntropyLossOptions {
        LinearCrossEntropyLossOptions::new(in_features, num_classes)
    }

    /// The loss for an input, `[in_features]` or `[batch, in_features]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or a setting is out of its range.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let mut scores = self.linear.forward(input)?;
        if !self.settings.out_features.0.is_empty() {
            let mut sizes = vec![self.settings.num_classes];
            sizes.extend(&self.settings.out_features.0);
            scores = scores.unflatten(-1, sizes)?;
        }
        scores.cross_entropy_with(
            target,
            &CrossEntropyOptions {
                weight: self.weight.clone(),
                ignore_index: self.settings.ignore_index,
                label_smoothing: self.settings.label_smoothing,
                reduction: self.settings.reduction,
            },
        )
    }
}

settings! {
    /// The settings of an [`AdaptiveLogSoftmaxWithLoss`].
    AdaptiveLogSoftmaxWithLossOptions {
        in_features: usize, n_classes: usize, cutoffs: Sizes;
        /// By what each cluster's width is smaller than that of the one before; 4.
        div_value: f64 = 4.0,
        /// Whether the product of the head has a bias; false.
        head_bias: bool = false,
    }
}

impl AdaptiveLogSoftmaxWithLossOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the cutoffs do not ascend from at least 1 to below the number of classes, the device fails, or the
    /// dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<AdaptiveLogSoftmaxWithLoss> {
        let (options, mut bounds) = (options.into(), self.cutoffs.0.clone());
        bounds.push(self.n_classes);
        let Some((&shortlist, _)) =
            bounds.split_first().filter(|(first, rest)| **first > 0 && !rest.is_empty())
        else {
            let reason = "cutoffs must be at least one number, from 1 on".to_owned();
            return Err(Error::Argument { op: "AdaptiveLogSoftmaxWithLoss", reason });
        };
        if !bounds.is_sorted_by(|a, b| a < b) {
            let reason = format!("cutoffs must ascend and be smaller than the {} classes", self.n_classes);
            return Err(Error::Argument { op: "AdaptiveLogSoftmaxWithLoss", reason });
        }
        let clusters = bounds.len() - 1;
        let head = Linear::options(self.in_features, shortlist + clusters)
            .bias(self.head_bias)
            .build(options.clone())?;
        let mut tail = Vec::new();
        for (i, (low, high)) in bounds.iter().zip(bounds.iter().skip(1)).enumerate() {
            let width = (self.in_features as f64 / self.div_value.powi(i as i32 + 1)).floor() as usize;
            let product = |from, to| Linear::options(from, to).bias(false).build(options.clone());
            tail.push((product(self.in_features, width)?, product(width, high - low)?));
        }
        Ok(AdaptiveLogSoftmaxWithLoss { head, tail, bounds })
    }
}

/// A softmax over many classes of which few are frequent, after Grave et al. (2017): the rare ones are in
/// clusters, of narrower products; `torch.nn.AdaptiveLogSoftmaxWithLoss`. Classes are ordered from the most
/// frequent to the rarest.
///
/// ```
/// use wgrad::nn::AdaptiveLogSoftmaxWithLoss;
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = AdaptiveLogSoftmaxWithLoss::new(6, 12, [4, 8], &device)?;
/// let x = Tensor::randn([3, 6], &device)?;
/// let (output, loss) = layer.forward(&x, &Tensor::new([0i64, 5, 11], &device)?)?;
/// assert_eq!((output.shape(), loss.shape()), (&[3][..], &[][..]));
/// let sum = layer.log_prob(&x)?.exp()?.sum()?.item::<f32>()?;
/// assert!((sum - 3.0).abs() < 1e-5);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct AdaptiveLogSoftmaxWithLoss {
    /// The product for the frequent classes, and one score for each cluster.
    pub head: Linear,
    /// For each cluster a product to a narrow vector, and one to its classes.
    pub tail: Vec<(Linear, Linear)>,
    /// Where clusters begin, and the number of classes.
    bounds: Vec<usize>,
}

impl AdaptiveLogSoftmaxWithLoss {
    /// A layer with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`AdaptiveLogSoftmaxWithLossOptions::build`].
    pub fn new(
        in_features: usize,
        n_classes: usize,
        cutoffs: impl Into<Sizes>,
        options: impl Into<Options>,
    ) -> Result<AdaptiveLogSoftmaxWithLoss> {
        AdaptiveLogSoftmaxWithLoss::options(in_features, n_classes, cutoffs).build(options)
    }

    /// The settings, to be changed.
    pub fn options(
        in_features: usize,
        n_classes: usize,
        cutoffs: impl Into<Sizes>,
    ) -> AdaptiveLogSoftmaxWithLossOptions {
        AdaptiveLogSoftmaxWithLossOptions::new(in_features, n_classes, cutoffs)
    }

    /// The logarithms of the probabilities of the targets, and the mean of their negatives, for
    /// `[batch, in_features]` and `[batch]`, or both without a batch. Nothing is read: all clusters are
    /// computed for all rows.
    ///
    /// # Errors
    /// If the shapes do not fit; a target that is no class is an error of whoever reads what depends on it.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
        let batched = input.rank() == 2 && target.rank() == 1 && input.size(0)? == target.size(0)?;
        if !batched && (input.rank(), target.rank()) != (1, 0) {
            let reason =
                "are not those of inputs and as many targets, or of one input and its target".to_owned();
            let (lhs, rhs) = (input.shape().to_vec(), target.shape().to_vec());
            return Err(Error::ShapeMismatch { op: "AdaptiveLogSoftmaxWithLoss", lhs, rhs, reason });
        }
        let head = self.head.forward(input)?.log_softmax(-1)?;
        let first = self.bounds.first().copied().unwrap_or(0);
        let mut in_head = target.clone();
        let mut output = None;
        for (i, (low, (narrow, wide))) in self.bounds.iter().zip(&self.tail).enumerate() {
            let (inside, high) = (target.ge(*low as i64)?, self.bounds.get(i + 1).copied().unwrap_or(0));
            // What is beyond the last cluster is found out by its gather.
            let last = i + 1 == self.tail.len();
            let inside = if last { inside } else { inside.logical_and(&target.lt(high as i64)?)? };
            in_head = inside.where_cond((first + i) as i64, &in_head)?;
            let own = inside.where_cond(target.sub(*low as i64)?, 0i64)?.unsqueeze(-1)?;
            let scores = wide.forward(&narrow.forward(input)?)?.log_softmax(-1)?;
            let part = inside.where_cond(scores.gather(-1, &own)?.squeeze_dim(-1)?, 0.0)?;
            output = Some(output.map_or(Ok(part.clone()), |sum: Tensor| sum.add(&part))?);
        }
        let mut value = head.gather(-1, &in_head.unsqueeze(-1)?)?.squeeze_dim(-1)?;
        if let Some(output) = output {
            value = value.add(output)?;
        }
        let loss = value.mean()?.neg()?;
        Ok((value, loss))
    }

    /// The logarithms of the probabilities of all classes.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn log_prob(&self, input: &Tensor) -> Result<Tensor> {
        let head = self.head.forward(input)?.log_softmax(-1)?;
        let first = self.bounds.first().copied().unwrap_or(0);
        let mut parts = vec![head.narrow(-1, 0, first)?];
        for (i, (narrow, wide)) in self.tail.iter().enumerate() {
            let scores = wide.forward(&narrow.forward(input)?)?.log_softmax(-1)?;
            parts.push(scores.add(head.narrow(-1, (first + i) as isize, 1)?)?);
        }
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), -1)
    }

    /// The most probable class.
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn predict(&self, input: &Tensor) -> Result<Tensor> {
        self.log_prob(input)?.argmax_dim(-1, false)
    }
}
