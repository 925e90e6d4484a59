//! Adam, and AdamW with weight decay beside the loss.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Decay, Input, Moments, Output, Rule, moments, one_minus_power, shared};
use super::setting::{below_one, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Adam`].
    AdamOptions of "Adam" {
        /// The learning rate; 0.001.
        lr: f64 = 1e-3, example 3e-4;
        /// How much of the means of gradients and of their squares stays in each step; 0.9 and 0.999.
        betas: [f64; 2] = [0.9, 0.999], example [0.9, 0.95];
        /// What is added to the root that is divided by; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// Weight decay; 0.
        weight_decay: f64 = 0.0, example 0.01;
        /// Whether to divide by the largest mean of squares so far (AMSGrad); off.
        amsgrad: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
        /// Whether weight decay shrinks the parameter and does not go into the gradient; off.
        decoupled_weight_decay: bool = false, example true;
    }
}

settings! {
    /// Settings of [`AdamW`].
    AdamWOptions of "AdamW" {
        /// The learning rate; 0.001.
        lr: f64 = 1e-3, example 3e-4;
        /// How much of the means of gradients and of their squares stays in each step; 0.9 and 0.999.
        betas: [f64; 2] = [0.9, 0.999], example [0.9, 0.95];
        /// What is added to the root that is divided by; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// Weight decay: each step shrinks a parameter by `lr * weight_decay` of it; 0.01.
        weight_decay: f64 = 1e-2, example 0.1;
        /// Whether to divide by the largest mean of squares so far (AMSGrad); off.
        amsgrad: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
        /// Whether weight decay shrinks the parameter and does not go into the gradient; on.
        decoupled_weight_decay: bool = true, example false;
    }
}

/// Adam (Kingma and Ba 2014, [arXiv 1412.6980](https://arxiv.org/abs/1412.6980)); `torch.optim.Adam`.
///
/// With `m` and `v` the running means of gradients and of their squares, and `c_i = 1 - beta_i^t`:
/// `p = p - lr / c_1 * m / (sqrt(v / c_2) + eps)`.
///
/// ```
/// use wgrad::optim::{Adam, AdamOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adam::new([&x], AdamOptions::new().lr(0.1))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// // The first step is as long as the rate, whatever the gradient.
/// assert!((x.to_vec::<f32>()?[0] - 0.9).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Adam = Stepper<AdamOptions>;

/// Adam with weight decay beside the loss (Loshchilov and Hutter 2017, [arXiv
/// 1711.05101](https://arxiv.org/abs/1711.05101)); `torch.optim.AdamW`.
///
/// [`Adam`] on `p * (1 - lr * weight_decay)`.
///
/// ```
/// use wgrad::optim::{AdamW, AdamWOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([2.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = AdamW::new([&x], AdamWOptions::new().lr(0.1).weight_decay(0.5))?;
/// x.mul(0.0)?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!((x.to_vec::<f32>()?[0] - 1.9).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type AdamW = Stepper<AdamWOptions>;

/// The rule of both.
macro_rules! adam {
    ($Options:ident) => {
        impl Rule for $Options {
            fn check(&self) -> Result<()> {
                let op = <Self as super::rule::Named>::OPTIMISER;
                not_negative(op, "lr", self.lr)?;
                not_negative(op, "eps", self.eps)?;
                below_one(op, "betas", &self.betas)?;
                not_negative(op, "weight_decay", self.weight_decay)
            }

            fn maximize(&self) -> bool {
                self.maximize
            }

            /// `lr / c_1` and `sqrt(c_2)`.
            fn factors(&self, _old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
                let [step] = shared(new)?;
                let [first, second] = self.betas;
                let rate = one_minus_power(step, first)?.reciprocal()?.mul(self.lr)?;
                Ok(vec![rate, one_minus_power(step, second)?.sqrt()?])
            }

            fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
                if self.amsgrad {
                    &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
                } else {
                    &["exp_avg", "exp_avg_sq"]
                }
            }

            fn update(&self, input: &Input<'_>) -> Result<Output> {
                let decay = Decay {
                    lr: self.lr,
                    weight_decay: self.weight_decay,
                    is_decoupled: self.decoupled_weight_decay,
                };
                let Moments { param, mean, square, .. } = moments(input, &decay, self.betas)?;
                let mut state = vec![mean.clone(), square.clone()];
                let mut size = square;
                if let Some(largest) = input.state.get(2) {
                    size = largest.maximum(&size)?;
                    state.push(size.clone());
                }
                let size = size.sqrt()?.div(input.factor(1)?)?.add(self.eps)?;
                let param = param.sub(mean.mul(input.factor(0)?)?.div(size)?)?;
                Ok(Output { param, state })
            }
        }
    };
}

adam!(AdamOptions);
adam!(AdamWOptions);
