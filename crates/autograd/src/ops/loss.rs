//! Losses.

pub(super) mod criterion;
pub(super) mod ctc;

use wgrad_array::layout::{Dims, broadcast_shapes};
use wgrad_array::{Array, BinaryOp, DType, Error, Expr, ReduceOp, Result, Scalar, UnaryOp, WithOpName};

use crate::Tensor;
use crate::ops::index::places;
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, record};
use crate::view::Squeeze;
use crate::warning::target_broadcasts;

/// What becomes of the losses of the elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Each on its own.
    None,
}

impl Reduction {
    fn array(self, losses: &Array) -> Result<Array> {
        let all: Dims = (0..losses.rank()).collect();
        match self {
            Reduction::None => Ok(losses.clone()),
            Reduction::Sum => losses.reduce(ReduceOp::Sum, &all, false),
            Reduction::Mean => {
                let sum = losses.reduce(ReduceOp::Sum, &all, false)?;
                sum.binary_scalar(BinaryOp::Mul, 1.0 / losses.elements() as f64)
            }
        }
    }

    pub(super) fn tensor(self, losses: &Tensor) -> Result<Tensor> {
        match self {
            Reduction::None => Ok(losses.clone()),
            Reduction::Sum => losses.sum(),
            Reduction::Mean => losses.mean(),
        }
    }

    /// What the gradient of each element's loss is multiplied by.
    fn scale(self, elements: usize) -> f64 {
        if self == Reduction::Mean { 1.0 / elements as f64 } else { 1.0 }
    }
}

/// The settings of [`Tensor::cross_entropy_with`] and [`Tensor::nll_loss_with`].
#[derive(Clone, Debug)]
pub struct CrossEntropyOptions {
    /// A weight for each class.
    pub weight: Option<Tensor>,
    /// The class that counts for nothing; -100.
    pub ignore_index: i64,
    /// What part of each target is spread over all classes; 0.
    pub label_smoothing: f64,
    /// Mean (over the weights), sum, or neither.
    pub reduction: Reduction,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        CrossEntropyOptions {
            weight: None,
            ignore_index: -100,
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
        }
    }
}

/// # Losses
#[wgrad_macros::call_sites]
impl Tensor {
    /// The squared distance from a target, both of one shape or broadcast to one; `F.mse_loss`.
    ///
    /// A target of another shape than this tensor's logs a warning, once for each line that calls: `[3, 1]` and `[3]` make 9 distances.
    ///
    /// # Errors
    /// If the shapes do not broadcast, the devices differ, or the dtype is not a float one.
    pub fn mse_loss(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        const OP: &str = "mse_loss";
        broadcast_shapes(OP, self.shape(), target.shape())?;
        target_broadcasts(OP, self, target);
        let (x, t) = (self.operand()?, target.operand()?);
        let dtype = self.dtype().promote(target.dtype());
        if !dtype.is_float() {
            require_float(OP, self)?;
        }
        let wide = |x: &Array| Expr::from(x.cast(dtype).and_then(|x| widened(&x)));
        let distance = wide(&x.array) - wide(&t.array);
        let squares = (&distance * &distance).done()?;
        let out = reduction.array(&squares)?.cast(dtype)?;
        let scale = 2.0 * reduction.scale(squares.elements());
        Ok(record(out, [x, t], |inputs, _| {
            Derivative::with("MseLossBackward0", move |c| {
                let (g, [x, t]) = &c.parts();
                let g = g * scale;
                c.gradients(2, |i| if i == 0 { &g * (x - t) } else { &g * (t - x) })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
        }))
    }

    /// The cross entropy of these scores (dim 1 are the classes; dim 0 if there is no other) and a target, averaged; `F.cross_entropy`. The
    /// target holds classes, or, as floats of the scores' shape, probabilities.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let scores = Tensor::new([[2f32, 0.0], [0.0, 0.0]], &Device::cpu())?;
    /// let loss = scores.cross_entropy(&Tensor::new([0i64, 1], &Device::cpu())?)?;
    /// assert!((loss.item::<f32>()? - 0.410038).abs() < 1e-5);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes do not fit; a class out of range is an error of the call, or of the read if it was computed.
    pub fn cross_entropy(&self, target: &Tensor) -> Result<Tensor> {
        self.cross_entropy_with(target, &CrossEntropyOptions::default())
    }

    /// [`Tensor::cross_entropy`] with settings.
    ///
    /// # Errors
    /// As [`Tensor::cross_entropy`]; and if a setting is out of its range.
    pub fn cross_entropy_with(&self, target: &Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        const OP: &str = "cross_entropy";
        require_float(OP, self)?;
        let smoothing = options.label_smoothing;
        if !(0.0..=1.0).contains(&smoothing) {
            let reason = format!("label_smoothing is {smoothing}; it must lie between 0 and 1");
            return Err(Error::Argument { op: OP, reason });
        }
        if self.dtype().is_half() && (smoothing > 0.0 || target.dtype().is_float()) {
            // Several gradients meet in the scores: they are added before they are rounded.
            return self.widened()?.cross_entropy_with(target, options)?.to_dtype(self.dtype());
        }
        let class_dim = usize::from(self.rank() > 1);
        let classes = classes(OP, self)?;
        let log_p = self.log_softmax(class_dim as isize)?;
        let weight = options.weight.as_ref().map(|weight| class_weight(OP, weight, classes)).transpose()?;
        let spread_weight = |x: &Tensor| match &weight {
            None => Ok(x.clone()),
            Some(weight) => {
                let mut shape = vec![1; x.rank()];
                shape[class_dim] = classes;
                x.mul(weight.reshape(shape)?)
            }
        };
        if target.dtype().is_float() {
            same_shape(OP, self, target)?;
            let target = if smoothing > 0.0 {
                target.mul(1.0 - smoothing)?.add(smoothing / classes as f64)?
            } else {
                target.clone()
            };
            let losses = spread_weight(&log_p.mul(target)?)?;
            let batch = self.numel() as f64 / classes as f64;
            return match options.reduction {
                Reduction::None => losses.sum_dim(class_dim, false)?.neg(),
                Reduction::Sum => losses.sum()?.neg(),
                Reduction::Mean => losses.sum()?.neg()?.div(batch),
            };
        }
        let nll = log_p.nll_loss_with(target, options)?;
        if smoothing == 0.0 {
            return Ok(nll);
        }
        let valid = target.ne(options.ignore_index)?;
        let smooth = spread_weight(&log_p)?.sum_dim(class_dim, false)?.neg()?.keep_where(&valid)?;
        let smooth = match options.reduction {
            Reduction::None => smooth,
            Reduction::Sum => smooth.sum()?,
            Reduction::Mean => {
                let (_, weights) = target_weights(target, &weight, options.ignore_index, self.dtype())?;
                smooth.sum()?.div(Tensor::from_array(weights).sum()?)?
            }
        };
        let smooth = smooth.mul(smoothing / classes as f64)?.to_dtype(self.dtype())?;
        nll.mul(1.0 - smoothing)?.add(smooth)
    }

    /// The negative log-likelihood of target classes, given logarithms of probabilities (dim 1 are the classes; dim 0 if there is no other),
    /// averaged; `F.nll_loss`.
    ///
    /// # Errors
    /// If the shapes do not fit; a class out of range is an error of the call, or of the read if it was computed.
    pub fn nll_loss(&self, target: &Tensor) -> Result<Tensor> {
        self.nll_loss_with(target, &CrossEntropyOptions::default())
    }

    /// [`Tensor::nll_loss`] with settings; label smoothing has no place here.
    ///
    /// # Errors
    /// As [`Tensor::nll_loss`].
    pub fn nll_loss_with(&self, target: &Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        const OP: &str = "nll_loss";
        require_float(OP, self)?;
        let dim = usize::from(self.rank() > 1);
        let classes = classes(OP, self)?;
        let mut expected: Dims = self.shape().into();
        expected.remove(dim);
        if target.shape() != expected.as_slice() {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: target.shape().to_vec(),
                reason: format!(
                    "do not fit: the target must be {:?}, a class for each row of scores",
                    expected.as_slice()
                ),
            });
        }
        if !matches!(target.dtype(), DType::I64 | DType::I32) {
            let reason = "cannot be classes; cast them to i64".to_owned();
            return Err(Error::DType { op: OP, dtype: target.dtype(), reason });
        }
        let weight = options.weight.as_ref().map(|weight| class_weight(OP, weight, classes)).transpose()?;
        let x = self.operand()?;
        let used = target.array()?.binary_scalar(BinaryOp::Ne, Scalar::Int(options.ignore_index))?;
        let (target, weights) = target_weights(target, &weight, options.ignore_index, self.dtype())?;
        let picked = x.array.gather(dim, &target.unsqueeze(dim)?).named(OP)?.squeeze(dim)?;
        let all: Dims = (0..weights.rank()).collect();
        let mut coefficients = weights.unary(UnaryOp::Neg)?;
        if options.reduction == Reduction::Mean {
            let total = weights.reduce(ReduceOp::Sum, &all, false)?;
            coefficients = coefficients.binary(BinaryOp::Div, &total)?;
        }
        // What counts for nothing must not become NaN: a -inf, or a part of no weight at all. Only what changes with the
        // gradient itself is that, as in PyTorch.
        let zero = Array::full(&[], Scalar::Int(0), weights.dtype(), self.device())?;
        let counts = weights.binary_scalar(BinaryOp::Ne, 0.0)?;
        let losses = widened(&picked)?.binary(BinaryOp::Mul, &coefficients)?;
        let losses = Array::select(&counts, &losses, &zero)?;
        let out = match options.reduction {
            Reduction::None => losses,
            Reduction::Sum => losses.reduce(ReduceOp::Sum, &all, false)?,
            // Where nothing counts, the mean over nothing is NaN.
            Reduction::Mean if self.numel() == 0 => {
                Array::full(&[], f64::NAN, losses.dtype(), self.device())?
            }
            Reduction::Mean => {
                let total = weights.reduce(ReduceOp::Sum, &all, false)?;
                let sum = losses.reduce(ReduceOp::Sum, &all, false)?;
                let nan = Array::full(&[], f64::NAN, losses.dtype(), self.device())?;
                Array::select(&total.binary_scalar(BinaryOp::Eq, 0.0)?, &nan, &sum)?
            }
        }
        .cast(self.dtype())?;
        let node = if self.rank() > 2 { "NllLoss2DBackward0" } else { "NllLossBackward0" };
        Ok(record(out, [x], |_, _| {
            Derivative::with(node, move |c| {
                c.each(1, |_| {
                    let (shape, (g, [coefficients, target, used])) = (c.input_shape(0)?, c.parts());
                    let hit = Tensor::from_array(places(&target.done()?.array()?, dim, &shape)?);
                    let g = (g * coefficients).masked_fill(used.logical_not(), 0.0);
                    g.unsqueeze(dim as isize).expand_value(&shape).keep_where(hit).done()
                })
            })
            .save(&coefficients)
            .save(&target)
            .save(&used)
        }))
    }

    /// The cross entropy of a probability's logarithm of odds (this tensor) and a target probability;
    /// `F.binary_cross_entropy_with_logits`. `weight` multiplies each loss, `pos_weight` that of the positive class; both broadcast.
    ///
    /// # Errors
    /// If the shapes do not fit, the devices differ, or the dtype is not a float one.
    pub fn binary_cross_entropy_with_logits<'a>(
        &self,
        target: &Tensor,
        weight: impl Into<Option<&'a Tensor>>,
        pos_weight: impl Into<Option<&'a Tensor>>,
        reduction: Reduction,
    ) -> Result<Tensor> {
        const OP: &str = "binary_cross_entropy_with_logits";
        require_float(OP, self)?;
        same_shape(OP, self, target)?;
        let (weight, pos_weight) = (weight.into(), pos_weight.into());
        let (x, t) = (self.operand()?, target.operand()?);
        let (wide, aim) = (Expr::from(widened(&x.array)), Expr::of(&t.array));
        // log(1 + exp(-x)) = log1p(exp(-|x|)) + max(-x, 0), which does not overflow.
        let mut softplus = (-wide.abs()).exp().log1p() + (-&wide).max(0.0);
        if let Some(positive) = pos_weight {
            softplus = softplus * ((Expr::from(positive.array()) - 1.0) * &aim + 1.0);
        }
        let mut losses = (1.0 - aim) * wide + softplus;
        if let Some(weight) = weight {
            losses = losses * Expr::from(weight.array());
        }
        let losses = losses.done()?;
        let out = reduction.array(&losses)?.cast(self.dtype().promote(target.dtype()))?;
        let scale = reduction.scale(losses.elements());
        let (weight, positive) = (weight.map(Tensor::detach), pos_weight.map(Tensor::detach));
        Ok(record(out, [x, t], |inputs, _| {
            Derivative::with("BinaryCrossEntropyWithLogitsBackward0", move |c| {
                let (g, [x, t]) = &c.parts();
                let mut g = g * scale;
                if let Some(weight) = &weight {
                    g *= weight;
                }
                c.gradients(2, |i| match (&positive, i) {
                    (None, 0) => &g * (x.sigmoid() - t),
                    (None, _) => &g * -x,
                    (Some(positive), 0) => {
                        let weighted = positive * t;
                        &g * ((&weighted + (1.0 - t)) * x.sigmoid() - &weighted)
                    }
                    (Some(positive), _) => {
                        let softplus_of_minus_x = -x.logsigmoid();
                        &g * ((positive - 1.0) * softplus_of_minus_x - x)
                    }
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
        }))
    }

    /// The absolute distance from a target, both of one shape or broadcast to one (with the warning of [`Tensor::mse_loss`]); `F.l1_loss`.
    ///
    /// # Errors
    /// As [`Tensor::mse_loss`].
    pub fn l1_loss(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        broadcast_shapes("l1_loss", self.shape(), target.shape())?;
        target_broadcasts("l1_loss", self, target);
        reduction.tensor(&self.sub(target)?.abs()?)
    }
}

fn same_shape(op: &'static str, x: &Tensor, target: &Tensor) -> Result<()> {
    if x.shape() == target.shape() {
        return Ok(());
    }
    Err(Error::ShapeMismatch {
        op,
        lhs: x.shape().to_vec(),
        rhs: target.shape().to_vec(),
        reason: "differ; input and target have one shape".into(),
    })
}

/// The number of classes.
fn classes(op: &'static str, x: &Tensor) -> Result<usize> {
    match x.shape() {
        [] => {
            let reason =
                "has no dim of classes; the scores are [classes], or [batch, classes, ..]".to_owned();
            Err(Error::Shape { op, shape: Vec::new(), reason })
        }
        [classes] => Ok(*classes),
        [_, classes, ..] => Ok(*classes),
    }
}

fn class_weight(op: &'static str, weight: &Tensor, classes: usize) -> Result<Tensor> {
    if weight.shape() == [classes] {
        return Ok(weight.detach());
    }
    let reason = format!("is not [{classes}], a weight for each class");
    Err(Error::Shape { op, shape: weight.shape().to_vec(), reason })
}

/// The target with ignored classes set to 0, and each element's weight: 0 for the ignored.
fn target_weights(
    target: &Tensor,
    weight: &Option<Tensor>,
    ignore_index: i64,
    dtype: DType,
) -> Result<(Array, Array)> {
    let target = target.array()?;
    let compute = if dtype.is_half() { DType::F32 } else { dtype };
    let valid = target.binary_scalar(BinaryOp::Ne, Scalar::Int(ignore_index))?;
    let zero = Array::full(&[], Scalar::Int(0), target.dtype(), target.device())?;
    let safe = Array::select(&valid, &target, &zero)?;
    let weights = match weight {
        None => valid.cast(compute)?,
        Some(weight) => {
            let flat = safe.reshape(&[safe.elements()])?;
            let picked = weight.array()?.cast(compute)?.index_select(0, &flat)?.reshape(safe.shape())?;
            picked.binary(BinaryOp::Mul, &valid.cast(compute)?)?
        }
    };
    Ok((safe, weights))
}
