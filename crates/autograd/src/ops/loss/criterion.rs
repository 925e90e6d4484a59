//! Losses of pairs, margins and likelihoods. Each takes the losses of the elements and a [`Reduction`] of them.

use std::f64::consts::PI;

use wgrad_array::{Error, Expr, Result};

use crate::Tensor;
use crate::ops::elementwise::rectifier::softplus;
use crate::ops::loss::Reduction;
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, record};
use crate::warning::target_broadcasts;

/// # Losses of pairs, margins and likelihoods
#[wgrad_macros::call_sites]
impl Tensor {
    /// `d² / 2` of the distance to a target within `delta`, `delta * (|d| - delta / 2)` beyond; PyTorch's default is 1. A target
    /// of another shape broadcasts, with the warning of [`Tensor::mse_loss`].
    ///
    /// # Errors
    /// If `delta` is not positive, or the shapes do not broadcast.
    pub fn huber_loss(&self, target: &Tensor, reduction: Reduction, delta: f64) -> Result<Tensor> {
        if delta.is_nan() || delta <= 0.0 {
            return Err(Error::Argument {
                op: "huber_loss",
                reason: format!("delta is {delta}; it must be positive"),
            });
        }
        let distance = self.widened()?.sub(target.widened()?)?.expr();
        target_broadcasts("huber_loss", self, target);
        let size = distance.abs();
        // What is far has no square, which may be infinite: 0 times its slope would not be a number.
        let far = size.ge(delta);
        let close = distance.masked_fill(&far, 0.0);
        let near = &close * &close * 0.5;
        let losses = far.where_cond((size - 0.5 * delta) * delta, near);
        reduction.tensor(&losses.rounded_to(self.dtype().promote(target.dtype())).done()?)
    }

    /// `d² / (2 beta)` of the distance to a target within `beta`, `|d| - beta / 2` beyond; PyTorch's default is 1. A beta of 0 is
    /// [`Tensor::l1_loss`]. A target of another shape broadcasts, with the warning of [`Tensor::mse_loss`].
    ///
    /// # Errors
    /// If `beta` is negative, or the shapes do not broadcast.
    pub fn smooth_l1_loss(&self, target: &Tensor, reduction: Reduction, beta: f64) -> Result<Tensor> {
        if beta.is_nan() || beta < 0.0 {
            let reason = format!("beta is {beta}; it must not be negative");
            return Err(Error::Argument { op: "smooth_l1_loss", reason });
        }
        if beta == 0.0 {
            let size = self.sub(target)?.abs()?;
            target_broadcasts("smooth_l1_loss", self, target);
            return reduction.tensor(&size);
        }
        let distance = self.widened()?.sub(target.widened()?)?.expr();
        target_broadcasts("smooth_l1_loss", self, target);
        let size = distance.abs();
        // As in the Huber loss.
        let far = size.ge(beta);
        let close = distance.masked_fill(&far, 0.0);
        let near = &close * &close * (0.5 / beta);
        let losses = far.where_cond(size - 0.5 * beta, near);
        reduction.tensor(&losses.rounded_to(self.dtype().promote(target.dtype())).done()?)
    }

    /// The cross entropy of a probability (this tensor) and a target probability. Logarithms are kept above -100, so that 0 and
    /// 1 have finite losses; `weight` multiplies each loss.
    ///
    /// # Errors
    /// If the shapes of input and target differ, the weight does not broadcast, or the dtype is not a float one.
    pub fn binary_cross_entropy<'a>(
        &self,
        target: &Tensor,
        weight: impl Into<Option<&'a Tensor>>,
        reduction: Reduction,
    ) -> Result<Tensor> {
        const OP: &str = "binary_cross_entropy";
        require_float(OP, self)?;
        if self.shape() != target.shape() {
            let reason = "differ; input and target have one shape".into();
            let (lhs, rhs) = (self.shape().to_vec(), target.shape().to_vec());
            return Err(Error::ShapeMismatch { op: OP, lhs, rhs, reason });
        }
        let (x, t) = (self.operand()?, target.operand()?);
        let (p, y) = (Expr::from(widened(&x.array)), Expr::from(widened(&t.array)));
        let losses = (&y - 1.0) * (-&p).log1p().max(-100.0) - &y * p.log().max(-100.0);
        let out = losses.cast(self.dtype()).done()?;
        let losses = record(out, [x, t], |inputs, _| {
            Derivative::new("BinaryCrossEntropyBackward0", |c| {
                let (g, [x, t]) = &c.parts();
                let rest = &(1.0 - x);
                c.gradients(2, |i| match i {
                    0 => g * ((x - t) / (rest * x).clamp_min(1e-12)),
                    _ => g * (rest.log().clamp_min(-100.0) - x.log().clamp_min(-100.0)),
                })
            })
            .save_input(inputs, 0)
            .save_input(inputs, 1)
        });
        match weight.into() {
            None => reduction.tensor(&losses),
            Some(weight) => reduction.tensor(&losses.mul(weight)?),
        }
    }

    /// The divergence of a distribution, given by the logarithms of its probabilities (this tensor), from a target: probabilities, or with
    /// `log_target` their logarithms too. PyTorch's "batchmean" is [`Tensor::kl_div_batchmean`].
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn kl_div(&self, target: &Tensor, reduction: Reduction, log_target: bool) -> Result<Tensor> {
        let target = &target.expr();
        let losses =
            if log_target { target.exp() * (target - self) } else { target.xlogy(target) - target * self };
        reduction.tensor(&losses.done()?)
    }

    /// [`Tensor::kl_div`], its sum divided by the size of the first dim.
    ///
    /// # Errors
    /// As [`Tensor::kl_div`].
    pub fn kl_div_batchmean(&self, target: &Tensor, log_target: bool) -> Result<Tensor> {
        let batch = self.shape().first().copied().unwrap_or(1);
        self.kl_div(target, Reduction::Sum, log_target)?.div(batch as f64)
    }

    /// The negative log-likelihood of a target under normal distributions with these means and variances, which are taken to be at least
    /// `eps` (without that showing in the gradient); `full` adds the constant. PyTorch's default for eps is 1e-6.
    ///
    /// The variance has the input's shape, or lacks its last dim, or has size 1 there. It is read to see that none is negative.
    ///
    /// # Errors
    /// If the variance has another shape or is negative somewhere.
    pub fn gaussian_nll_loss(
        &self,
        target: &Tensor,
        var: &Tensor,
        full: bool,
        eps: f64,
        reduction: Reduction,
    ) -> Result<Tensor> {
        const OP: &str = "gaussian_nll_loss";
        let mut var = var.clone();
        let shape = self.shape();
        let fail =
            |reason: &str| Error::Shape { op: OP, shape: var.shape().to_vec(), reason: reason.to_owned() };
        if var.rank() > 0 && var.shape() != shape {
            let lead = shape.split_last().map(|(_, lead)| lead);
            let trailing = var.shape().split_last().filter(|(last, _)| **last == 1).map(|(_, lead)| lead);
            if lead == Some(var.shape()) {
                var = var.unsqueeze(-1)?;
            } else if var.rank() != self.rank() || trailing != lead {
                return Err(fail("of the variance is not that of the input, nor that without its last dim"));
            }
        }
        if var.lt(0.0)?.any()?.item::<bool>()? {
            return Err(Error::Argument { op: OP, reason: "a variance is negative".into() });
        }
        let var = var.expr().raised_to(eps);
        let distance = self.expr() - target;
        let mut losses = (var.log() + &distance * &distance / &var) * 0.5;
        if full {
            losses += 0.5 * (2.0 * PI).ln();
        }
        reduction.tensor(&losses.done()?)
    }

    /// The negative log-likelihood of target counts under Poisson distributions whose rates (with `log_input`: their logarithms) this tensor
    /// holds; `full` adds Stirling's approximation of the rest. PyTorch's default for eps, which keeps the logarithm finite, is 1e-8.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn poisson_nll_loss(
        &self,
        target: &Tensor,
        log_input: bool,
        full: bool,
        eps: f64,
        reduction: Reduction,
    ) -> Result<Tensor> {
        let (x, target) = (&self.expr(), &target.expr());
        let mut losses = if log_input { x.exp() - target * x } else { x - target * (x + eps).log() };
        if full {
            let rest = target * target.log() - target + (target * (2.0 * PI)).log() * 0.5;
            losses += rest.masked_fill(target.le(1.0), 0.0);
        }
        reduction.tensor(&losses.done()?)
    }

    /// The element itself where the target is 1, `max(0, margin - x)` where it is -1; PyTorch's default for the margin is 1.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn hinge_embedding_loss(&self, target: &Tensor, margin: f64, reduction: Reduction) -> Result<Tensor> {
        let (x, target) = (&self.expr(), &target.expr());
        let hinge = (margin - x).clamp_min(0.0).masked_fill(target.eq(1.0), 0.0);
        reduction.tensor(&(hinge + x.masked_fill(target.eq(-1.0), 0.0)).done()?)
    }

    /// `max(0, -target * (self - other) + margin)` for targets 1 (this one ranks higher) and -1; PyTorch's default margin is 0.
    ///
    /// # Errors
    /// If the numbers of dims differ, the shapes do not broadcast or the devices differ.
    pub fn margin_ranking_loss(
        &self,
        other: &Tensor,
        target: &Tensor,
        margin: f64,
        reduction: Reduction,
    ) -> Result<Tensor> {
        same_ranks("margin_ranking_loss", &[self, other, target])?;
        let losses = (-target.expr() * (self.expr() - other) + margin).clamp_min(0.0);
        reduction.tensor(&losses.done()?)
    }

    /// `max(0, d(self, positive) - d(self, negative) + margin)` with the p-norm's distance over the last dim. With `swap` the
    /// negative's distance is the smaller one from this tensor and from the positive. PyTorch's defaults: margin 1, p 2, eps 1e-6.
    ///
    /// # Errors
    /// If the numbers of dims differ, the shapes do not broadcast or the devices differ.
    #[allow(clippy::too_many_arguments)]
    pub fn triplet_margin_loss(
        &self,
        positive: &Tensor,
        negative: &Tensor,
        margin: f64,
        p: f64,
        eps: f64,
        swap: bool,
        reduction: Reduction,
    ) -> Result<Tensor> {
        const OP: &str = "triplet_margin_loss";
        same_ranks(OP, &[self, positive, negative])?;
        if margin.is_nan() || margin <= 0.0 {
            return Err(Error::Argument {
                op: OP,
                reason: format!("margin is {margin}; it must be positive"),
            });
        }
        let near = self.pairwise_distance(positive, p, eps, false)?;
        let mut far = self.pairwise_distance(negative, p, eps, false)?;
        if swap {
            far = far.minimum(positive.pairwise_distance(negative, p, eps, false)?)?;
        }
        reduction.tensor(&(near.expr() - far + margin).clamp_min(0.0).done()?)
    }

    /// `1 - cos` of the angle between vectors along the last dim where the target is 1, `max(0, cos - margin)` where it is -1; PyTorch's
    /// default margin is 0.
    ///
    /// # Errors
    /// If the target is not a list (or a number for two lists), or the shapes do not fit.
    pub fn cosine_embedding_loss(
        &self,
        other: &Tensor,
        target: &Tensor,
        margin: f64,
        reduction: Reduction,
    ) -> Result<Tensor> {
        const OP: &str = "cosine_embedding_loss";
        if target.rank() > 1 || self.rank().max(other.rank()) != target.rank() + 1 {
            let reason = "does not go with the vectors: they need one more dim than the targets, which have at most one";
            return Err(Error::Shape { op: OP, shape: target.shape().to_vec(), reason: reason.into() });
        }
        let dim = target.rank() as isize;
        let (left, right) = (self.widened()?, other.widened()?);
        // Roots first: the product of two squares leaves the range of numbers before a square does.
        let length =
            |x: &Tensor| ((x.expr() * x).sum_dim(dim.min(x.rank() as isize - 1), false) + 1e-12).sqrt();
        let product = (left.expr() * &right).sum_dim(dim, false);
        let (cosine, target) = (&(product / length(&left) / length(&right)), &target.expr());
        let apart = (cosine - margin).clamp_min(0.0) * target.eq(-1.0).cast_as(cosine);
        let together = (1.0 - cosine) * target.eq(1.0).cast_as(cosine);
        reduction.tensor(&(together + apart).rounded_to(self.dtype().promote(other.dtype())).done()?)
    }

    /// `log(1 + exp(-target * x))` for targets 1 and -1.
    ///
    /// # Errors
    /// If the shapes do not broadcast or the devices differ.
    pub fn soft_margin_loss(&self, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        reduction.tensor(&(-target.expr() * self).logsigmoid_negated().done()?)
    }

    /// `log(1 + exp(x))`: the negative of [`Tensor::logsigmoid`] at `-x`.
    fn logsigmoid_negated(&self) -> Result<Tensor> {
        let x = self.operand()?;
        let wide = Expr::from(widened(&x.array));
        let out = softplus(&wide).cast(self.dtype()).done()?;
        Ok(record(out, [x], |inputs, _| {
            Derivative::new("SoftplusBackward0", |c| {
                c.gradient(|| {
                    let (g, [x]) = c.parts();
                    g * x.sigmoid()
                })
            })
            .save_input(inputs, 0)
        }))
    }

    /// The mean over the last dim, the classes, of the cross entropies of their logarithms of odds (this tensor) and targets 0 and 1.
    /// `weight` has one number for each class.
    ///
    /// # Errors
    /// If the shapes do not fit or the devices differ.
    pub fn multilabel_soft_margin_loss<'a>(
        &self,
        target: &Tensor,
        weight: impl Into<Option<&'a Tensor>>,
        reduction: Reduction,
    ) -> Result<Tensor> {
        let (x, target) = (&self.expr(), &target.expr());
        let mut losses = -(target * x.logsigmoid() + (1.0 - target) * (-x).logsigmoid());
        if let Some(weight) = weight.into() {
            losses *= weight;
        }
        let classes = self.shape().last().copied().unwrap_or(1);
        reduction.tensor(&(losses.sum_dim(-1, false) / classes as f64).done()?)
    }
}

fn same_ranks(op: &'static str, tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|x| x.rank() != tensors[0].rank()) {
        None => Ok(()),
        Some(other) => {
            let reason = "have different numbers of dims".to_owned();
            let (lhs, rhs) = (tensors[0].shape().to_vec(), other.shape().to_vec());
            Err(Error::ShapeMismatch { op, lhs, rhs, reason })
        }
    }
}
