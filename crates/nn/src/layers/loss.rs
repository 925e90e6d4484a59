//! Losses as types, which keep their settings. Each is a method of [`Tensor`] too, where it has no tensors of
//! its own.

use wgrad_autograd::{CrossEntropyOptions, DType, Error, Reduction, Result, Tensor};

use super::options::argument;
use crate::Module;

/// The mean or sum of losses, or themselves.
pub(super) fn reduce(losses: &Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::Mean => losses.mean(),
        Reduction::Sum => losses.sum(),
        Reduction::None => Ok(losses.clone()),
    }
}

/// Losses: settings with PyTorch's defaults, tensors that are buffers, what the forward is given, and what is
/// computed.
macro_rules! losses {
    ($(
        $(#[$about:meta])*
        $name:ident {
            $($(#[$meaning:meta])* $wish:ident: $type:ident $(<$inner:ty>)? = $default:expr),*;
            $($(#[$role:meta])* $buffer:ident),*
        } |$loss:ident, $($input:ident),+| $forward:expr;
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            $(#[module(skip)] $wish: $type $(<$inner>)?,)*
            $(#[buffer] $buffer: Option<Tensor>,)*
            reduction: Reduction,
        }

        impl $name {
            /// With PyTorch's defaults.
            #[allow(clippy::new_without_default)]
            pub fn new() -> $name {
                $name { $($wish: $default,)* $($buffer: None,)* reduction: Reduction::Mean }
            }

            $(
                $(#[$meaning])*
                pub fn $wish(mut self, $wish: argument!($type $(<$inner>)?)) -> Self {
                    self.$wish = $wish.into();
                    self
                }
            )*

            $(
                $(#[$role])*
                pub fn $buffer(mut self, $buffer: &Tensor) -> Self {
                    self.$buffer = Some($buffer.clone());
                    self
                }
            )*

            /// Whether the losses are averaged, added, or given each on its own; averaged.
            pub fn reduction(mut self, reduction: Reduction) -> Self {
                self.reduction = reduction;
                self
            }

            /// The loss.
            ///
            /// # Errors
            /// If the inputs do not fit each other or the settings.
            pub fn forward(&self, $($input: &Tensor),+) -> Result<Tensor> {
                let $loss = self;
                $forward
            }
        }
    )*};
}

losses! {
    /// The absolute distance from a target; `torch.nn.L1Loss`.
    ///
    /// ```
    /// use wgrad::nn::L1Loss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 3.0], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 1.0], &Device::cpu())?;
    /// let loss = L1Loss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 1.5).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    L1Loss {;} |loss, input, target| input.l1_loss(target, loss.reduction);

    /// The squared distance from a target; `torch.nn.MSELoss`.
    ///
    /// ```
    /// use wgrad::nn::MSELoss;
    /// use wgrad::{Device, Reduction, Tensor};
    /// let x = Tensor::new([1.0, 2.0], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 0.0], &Device::cpu())?;
    /// assert_eq!(MSELoss::new().forward(&x, &target)?.item::<f32>()?, 2.5);
    /// let sum = MSELoss::new().reduction(Reduction::Sum);
    /// assert_eq!(sum.forward(&x, &target)?.item::<f32>()?, 5.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MSELoss {;} |loss, input, target| input.mse_loss(target, loss.reduction);

    /// Half of the squared distance within `beta`, over it, and the absolute distance beyond;
    /// `torch.nn.SmoothL1Loss`.
    ///
    /// ```
    /// use wgrad::nn::SmoothL1Loss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 3.0], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 1.0], &Device::cpu())?;
    /// let loss = SmoothL1Loss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 1.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    SmoothL1Loss {
        /// Where the square becomes a line; 1. With 0 it is [`L1Loss`].
        beta: f64 = 1.0;
    } |loss, input, target| {
        if loss.beta == 0.0 {
            input.l1_loss(target, loss.reduction)
        } else {
            input.smooth_l1_loss(target, loss.reduction, loss.beta)
        }
    };

    /// Half of the squared distance within `delta`, and a line beyond; `torch.nn.HuberLoss`.
    ///
    /// ```
    /// use wgrad::nn::HuberLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 3.0], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 1.0], &Device::cpu())?;
    /// let loss = HuberLoss::new().delta(1.0).forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 1.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    HuberLoss {
        /// Where the square becomes a line; 1.
        delta: f64 = 1.0;
    } |loss, input, target| input.huber_loss(target, loss.reduction, loss.delta);

    /// The cross entropy of scores (dim 1 are the classes) and a target: classes, or probabilities;
    /// `torch.nn.CrossEntropyLoss`.
    ///
    /// ```
    /// use wgrad::nn::CrossEntropyLoss;
    /// use wgrad::{Device, Tensor};
    /// let scores = Tensor::new([[0.0, 0.0]], &Device::cpu())?;
    /// let loss = CrossEntropyLoss::new().label_smoothing(0.1);
    /// let value = loss.forward(&scores, &Tensor::new([1i64], &Device::cpu())?)?.item::<f32>()?;
    /// assert!((value - 2f32.ln()).abs() < 1e-6);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    CrossEntropyLoss {
        /// The class that counts for nothing; -100.
        ignore_index: i64 = -100,
        /// What part of each target is spread over all classes; 0.
        label_smoothing: f64 = 0.0;
        /// With a weight for each class.
        weight
    } |loss, input, target| input.cross_entropy_with(target, &CrossEntropyOptions {
        weight: loss.weight.clone(),
        ignore_index: loss.ignore_index,
        label_smoothing: loss.label_smoothing,
        reduction: loss.reduction,
    });

    /// The negative log-likelihood of target classes, given logarithms of probabilities; `torch.nn.NLLLoss`.
    ///
    /// ```
    /// use wgrad::nn::NLLLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[-0.5, -1.0]], &Device::cpu())?;
    /// let target = Tensor::new([1i64], &Device::cpu())?;
    /// let loss = NLLLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 1.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    NLLLoss {
        /// The class that counts for nothing; -100.
        ignore_index: i64 = -100;
        /// With a weight for each class.
        weight
    } |loss, input, target| input.nll_loss_with(target, &CrossEntropyOptions {
        weight: loss.weight.clone(),
        ignore_index: loss.ignore_index,
        reduction: loss.reduction,
        ..CrossEntropyOptions::default()
    });

    /// The cross entropy of a probability and a target probability; `torch.nn.BCELoss`.
    ///
    /// ```
    /// use wgrad::nn::BCELoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.5, 0.5], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 1.0], &Device::cpu())?;
    /// let loss = BCELoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BCELoss {;
        /// With a weight for each element, which broadcasts.
        weight
    } |loss, input, target| input.binary_cross_entropy(target, &loss.weight, loss.reduction);

    /// The cross entropy of a probability, given by the logarithm of its odds, and a target probability;
    /// `torch.nn.BCEWithLogitsLoss`.
    ///
    /// ```
    /// use wgrad::nn::BCEWithLogitsLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.0, 0.0], &Device::cpu())?;
    /// let target = Tensor::new([0.0, 1.0], &Device::cpu())?;
    /// let loss = BCEWithLogitsLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    BCEWithLogitsLoss {;
        /// With a weight for each element, which broadcasts.
        weight,
        /// With a weight of the positive part, which broadcasts.
        pos_weight
    } |loss, input, target| {
        input.binary_cross_entropy_with_logits(target, &loss.weight, &loss.pos_weight, loss.reduction)
    };

    /// The divergence of a distribution, given by the logarithms of its probabilities, from a target;
    /// `torch.nn.KLDivLoss`.
    ///
    /// ```
    /// use wgrad::nn::KLDivLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[-0.6931472, -0.6931472]], &Device::cpu())?;
    /// let target = Tensor::new([[0.5, 0.5]], &Device::cpu())?;
    /// let loss = KLDivLoss::new().batchmean(true).forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    KLDivLoss {
        /// Whether the target is given by logarithms too; false.
        log_target: bool = false,
        /// Whether the sum over all is divided by the size of the batch, as the formula wants, instead of the
        /// reduction; false.
        batchmean: bool = false;
    } |loss, input, target| {
        if loss.batchmean {
            input.kl_div_batchmean(target, loss.log_target)
        } else {
            input.kl_div(target, loss.reduction, loss.log_target)
        }
    };

    /// The negative log-likelihood of target counts under Poisson distributions; `torch.nn.PoissonNLLLoss`.
    ///
    /// ```
    /// use wgrad::nn::PoissonNLLLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.0], &Device::cpu())?;
    /// let target = Tensor::new([3.0], &Device::cpu())?;
    /// let loss = PoissonNLLLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 1.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    PoissonNLLLoss {
        /// Whether the input holds the logarithms of the rates; true.
        log_input: bool = true,
        /// Whether Stirling's approximation of the rest is added; false.
        full: bool = false,
        /// What keeps a logarithm finite; 1e-8.
        eps: f64 = 1e-8;
    } |loss, input, target| {
        input.poisson_nll_loss(target, loss.log_input, loss.full, loss.eps, loss.reduction)
    };

    /// The negative log-likelihood of a target under normal distributions with means and variances;
    /// `torch.nn.GaussianNLLLoss`.
    ///
    /// ```
    /// use wgrad::nn::GaussianNLLLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0], &Device::cpu())?;
    /// let target = Tensor::new([3.0], &Device::cpu())?;
    /// let var = Tensor::new([1.0], &Device::cpu())?;
    /// let loss = GaussianNLLLoss::new().forward(&x, &target, &var)?.item::<f32>()?;
    /// assert!((loss - 2.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    GaussianNLLLoss {
        /// Whether the constant is added; false.
        full: bool = false,
        /// What variances are taken to be at least; 1e-6.
        eps: f64 = 1e-6;
    } |loss, input, target, var| input.gaussian_nll_loss(target, var, loss.full, loss.eps, loss.reduction);

    /// The element itself where the target is 1, `max(0, margin - x)` where it is -1;
    /// `torch.nn.HingeEmbeddingLoss`.
    ///
    /// ```
    /// use wgrad::nn::HingeEmbeddingLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.5, 0.25], &Device::cpu())?;
    /// let target = Tensor::new([1.0, -1.0], &Device::cpu())?;
    /// let loss = HingeEmbeddingLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.625).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    HingeEmbeddingLoss {
        /// The margin; 1.
        margin: f64 = 1.0;
    } |loss, input, target| input.hinge_embedding_loss(target, loss.margin, loss.reduction);

    /// `log(1 + exp(-target * x))` for targets 1 and -1; `torch.nn.SoftMarginLoss`.
    ///
    /// ```
    /// use wgrad::nn::SoftMarginLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([0.0, 0.0], &Device::cpu())?;
    /// let target = Tensor::new([1.0, -1.0], &Device::cpu())?;
    /// let loss = SoftMarginLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    SoftMarginLoss {;} |loss, input, target| input.soft_margin_loss(target, loss.reduction);

    /// `max(0, -target * (input1 - input2) + margin)` for targets 1 and -1; `torch.nn.MarginRankingLoss`.
    ///
    /// ```
    /// use wgrad::nn::MarginRankingLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 3.0], &Device::cpu())?;
    /// let y = Tensor::new([2.0, 2.0], &Device::cpu())?;
    /// let target = Tensor::new([1.0, -1.0], &Device::cpu())?;
    /// let loss = MarginRankingLoss::new().margin(0.5).forward(&x, &y, &target)?.item::<f32>()?;
    /// assert!((loss - 1.5).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MarginRankingLoss {
        /// The margin; 0.
        margin: f64 = 0.0;
    } |loss, input1, input2, target| input1.margin_ranking_loss(input2, target, loss.margin, loss.reduction);

    /// `1 - cos` of the angle between vectors where the target is 1, `max(0, cos - margin)` where it is -1;
    /// `torch.nn.CosineEmbeddingLoss`.
    ///
    /// ```
    /// use wgrad::nn::CosineEmbeddingLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[1.0, 0.0]], &Device::cpu())?;
    /// let y = Tensor::new([[0.0, 1.0]], &Device::cpu())?;
    /// let target = Tensor::new([1.0], &Device::cpu())?;
    /// let loss = CosineEmbeddingLoss::new().forward(&x, &y, &target)?.item::<f32>()?;
    /// assert!((loss - 1.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    CosineEmbeddingLoss {
        /// The margin; 0.
        margin: f64 = 0.0;
    } |loss, input1, input2, target| {
        input1.cosine_embedding_loss(input2, target, loss.margin, loss.reduction)
    };

    /// `max(0, d(anchor, positive) - d(anchor, negative) + margin)` with a norm's distance;
    /// `torch.nn.TripletMarginLoss`.
    ///
    /// ```
    /// use wgrad::nn::TripletMarginLoss;
    /// use wgrad::{Device, Tensor};
    /// let anchor = Tensor::new([[0.0]], &Device::cpu())?;
    /// let positive = Tensor::new([[1.0]], &Device::cpu())?;
    /// let negative = Tensor::new([[3.0]], &Device::cpu())?;
    /// let loss = TripletMarginLoss::new().forward(&anchor, &positive, &negative)?.item::<f32>()?;
    /// assert!((loss - 0.0).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    TripletMarginLoss {
        /// The margin; 1.
        margin: f64 = 1.0,
        /// The norm's exponent; 2.
        p: f64 = 2.0,
        /// What is added to differences; 1e-6.
        eps: f64 = 1e-6,
        /// Whether the positive's distance from the negative counts where it is smaller than the anchor's;
        /// false.
        swap: bool = false;
    } |loss, anchor, positive, negative| {
        let (margin, reduction) = (loss.margin, loss.reduction);
        anchor.triplet_margin_loss(positive, negative, margin, loss.p, loss.eps, loss.swap, reduction)
    };

    /// `max(0, margin - x[target] + x[i]) ** p`, the mean over all classes i but the target, of scores
    /// `[batch, classes]` or `[classes]`; `torch.nn.MultiMarginLoss`.
    ///
    /// ```
    /// use wgrad::nn::MultiMarginLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[0.5, 0.25]], &Device::cpu())?;
    /// let target = Tensor::new([0i64], &Device::cpu())?;
    /// let loss = MultiMarginLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.375).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MultiMarginLoss {
        /// The exponent; 1.
        p: f64 = 1.0,
        /// The margin; 1.
        margin: f64 = 1.0;
        /// With a weight for each class, that of the target.
        weight
    } |loss, input, target| {
        let op = "MultiMarginLoss";
        let (classes, target) = (classes(op, input)?, target.unsqueeze(-1)?);
        let distance = input.sub(input.gather(-1, &target)?)?.add(loss.margin)?.relu()?;
        let mut losses = if loss.p == 1.0 { distance } else { distance.pow(loss.p)? };
        if let Some(weight) = &loss.weight {
            losses = losses.mul(weight.index_select(0, &target.reshape(-1)?)?.reshape(target.shape())?)?;
        }
        let others = Tensor::arange(0, classes as i64, 1, (DType::I64, input.device()))?.ne(&target)?;
        reduce(&others.where_cond(losses, 0.0)?.sum_dim(-1, false)?.div(classes as f64)?, loss.reduction)
    };

    /// The mean over the classes of the cross entropies of the logarithms of their odds and targets 0 and 1;
    /// `torch.nn.MultiLabelSoftMarginLoss`.
    ///
    /// ```
    /// use wgrad::nn::MultiLabelSoftMarginLoss;
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([[0.0, 0.0]], &Device::cpu())?;
    /// let target = Tensor::new([[1.0, 0.0]], &Device::cpu())?;
    /// let loss = MultiLabelSoftMarginLoss::new().forward(&x, &target)?.item::<f32>()?;
    /// assert!((loss - 0.6931).abs() < 1e-4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MultiLabelSoftMarginLoss {;
        /// With a weight for each class.
        weight
    } |loss, input, target| input.multilabel_soft_margin_loss(target, &loss.weight, loss.reduction);

    /// `max(0, 1 - (x[j] - x[i]))` of all classes j that are targets and all i that are not, over the number
    /// of classes, of scores `[batch, classes]` or `[classes]`. Targets have the scores' shape: classes, up
    /// to the first -1; `torch.nn.MultiLabelMarginLoss`.
    ///
    /// ```
    /// use wgrad::nn::MultiLabelMarginLoss;
    /// use wgrad::{Device, Tensor};
    /// let scores = Tensor::new([[0.1, 0.2, 0.4, 0.8]], &Device::cpu())?;
    /// let target = Tensor::new([[3i64, 0, -1, 1]], &Device::cpu())?;
    /// let loss = MultiLabelMarginLoss::new().forward(&scores, &target)?.item::<f32>()?;
    /// assert!((loss - 0.85).abs() < 1e-6);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MultiLabelMarginLoss {;} |loss, input, target| {
        let op = "MultiLabelMarginLoss";
        let classes = classes(op, input)?;
        if input.shape() != target.shape() {
            let reason = "differ: a row of targets has as many places as there are classes".to_owned();
            let (lhs, rhs) = (input.shape().to_vec(), target.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs, reason });
        }
        let listed = target.ge(0)?.to_dtype(DType::I64)?.cumprod(-1)?;
        let index = target.mul(&listed)?;
        let is_target = listed.zeros_like()?.scatter_add(-1, &index, &listed)?.gt(0)?;
        let distance = input.gather(-1, &index)?.unsqueeze(-1)?.rsub(1.0)?.add(input.unsqueeze(-2)?)?.relu()?;
        let pairs = listed.gt(0)?.unsqueeze(-1)?.logical_and(&is_target.logical_not()?.unsqueeze(-2)?)?;
        let sums = pairs.where_cond(distance, 0.0)?.sum_dim([-2, -1], false)?;
        reduce(&sums.div(classes as f64)?, loss.reduction)
    };
}

/// The number of classes of scores `[batch, classes]` or `[classes]`.
fn classes(op: &'static str, scores: &Tensor) -> Result<usize> {
    match scores.shape() {
        &[.., classes] if scores.rank() <= 2 && classes > 0 => Ok(classes),
        shape => {
            let reason = "is not [batch, classes] or [classes]".to_owned();
            Err(Error::Shape { op, shape: shape.to_vec(), reason })
        }
    }
}

/// Connectionist temporal classification: the negative logarithm of the probability that a sequence spells a
/// target; `torch.nn.CTCLoss`.
///
/// ```
/// use wgrad::nn::CTCLoss;
/// use wgrad::{Device, Tensor};
/// let x = Tensor::randn([8, 1, 5], &Device::cpu())?.log_softmax(-1)?;
/// let target = Tensor::new([[1i64, 2]], &Device::cpu())?;
/// assert!(CTCLoss::new().forward(&x, &target, &[8], &[2])?.item::<f32>()? > 0.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct CTCLoss {
    blank: usize,
    reduction: Reduction,
    zero_infinity: bool,
}

impl CTCLoss {
    /// With PyTorch's defaults.
    #[allow(clippy::new_without_default)]
    pub fn new() -> CTCLoss {
        CTCLoss { blank: 0, reduction: Reduction::Mean, zero_infinity: false }
    }

    /// The class that stands for nothing; 0.
    pub fn blank(mut self, blank: usize) -> Self {
        self.blank = blank;
        self
    }

    /// Whether the losses are averaged (each divided by its target's length), added, or given each on its
    /// own; averaged.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// Whether the loss of a target that does not fit into its time is 0 instead of infinite; false.
    pub fn zero_infinity(mut self, zero_infinity: bool) -> Self {
        self.zero_infinity = zero_infinity;
        self
    }

    /// The loss for logarithms of probabilities, `[time, batch, classes]`, targets `[batch, length]` or one
    /// behind the other, and the lengths of both.
    ///
    /// # Errors
    /// As [`Tensor::ctc_loss`].
    pub fn forward(
        &self,
        log_probs: &Tensor,
        targets: &Tensor,
        input_lengths: &[usize],
        target_lengths: &[usize],
    ) -> Result<Tensor> {
        let (inputs, outputs) = (input_lengths, target_lengths);
        log_probs.ctc_loss(targets, inputs, outputs, self.blank, self.reduction, self.zero_infinity)
    }
}

/// A function of two tensors, whose rows' distances it gives.
pub type Distance = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// [`TripletMarginLoss`] with a distance of one's own, by default the 2-norm's;
/// `torch.nn.TripletMarginWithDistanceLoss`.
///
/// ```
/// use wgrad::nn::TripletMarginWithDistanceLoss;
/// use wgrad::{Device, Tensor};
/// let loss = TripletMarginWithDistanceLoss::new().distance(|a, b| a.sub(b)?.abs()?.sum_dim(-1, false));
/// let x = Tensor::new([[1.0, 2.0]], &Device::cpu())?;
/// assert_eq!(loss.forward(&x, &x, &x)?.item::<f32>()?, 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TripletMarginWithDistanceLoss {
    #[module(skip)]
    distance: Distance,
    margin: f64,
    swap: bool,
    reduction: Reduction,
}

impl TripletMarginWithDistanceLoss {
    /// With PyTorch's defaults.
    #[allow(clippy::new_without_default)]
    pub fn new() -> TripletMarginWithDistanceLoss {
        TripletMarginWithDistanceLoss {
            distance: |a, b| a.pairwise_distance(b, 2.0, 1e-6, false),
            margin: 1.0,
            swap: false,
            reduction: Reduction::Mean,
        }
    }

    /// The distance of the rows of two tensors.
    pub fn distance(mut self, distance: Distance) -> Self {
        self.distance = distance;
        self
    }

    /// The margin; 1.
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = margin;
        self
    }

    /// Whether the positive's distance from the negative counts where it is smaller than the anchor's; false.
    pub fn swap(mut self, swap: bool) -> Self {
        self.swap = swap;
        self
    }

    /// Whether the losses are averaged, added, or given each on its own; averaged.
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// The loss.
    ///
    /// # Errors
    /// Those of the distance.
    pub fn forward(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        let near = (self.distance)(anchor, positive)?;
        let mut far = (self.distance)(anchor, negative)?;
        if self.swap {
            far = far.minimum((self.distance)(positive, negative)?)?;
        }
        reduce(&near.sub(far)?.add(self.margin)?.relu()?, self.reduction)
    }
}
