//! RMSprop.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, mean_of_squares, toward, with_decay};
use super::setting::{not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`RmsProp`].
    RmsPropOptions of "RMSprop" {
        /// The learning rate; 0.01.
        lr: f64 = 1e-2, example 0.001;
        /// How much of the mean of squares stays in each step; 0.99.
        alpha: f64 = 0.99, example 0.9;
        /// What is added to the root that is divided by; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// How much of the velocity stays in each step; 0.
        momentum: f64 = 0.0, example 0.9;
        /// Whether to divide by the deviation from the mean gradient; off.
        centered: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// RMSprop (Hinton's lecture notes; centered: Graves 2013, [arXiv
/// 1308.0850](https://arxiv.org/abs/1308.0850)); `torch.optim.RMSprop`.
///
/// `v = alpha * v + (1 - alpha) * g^2`, `p = p - lr * g / (sqrt(v) + eps)`; centered, `v - m^2` is in the
/// root, with `m` the mean of gradients; with momentum the quotients go into a velocity.
///
/// ```
/// use wgrad::optim::{Optimizer, RmsProp, RmsPropOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = RmsProp::new([&x], RmsPropOptions::new().lr(0.1).alpha(0.75))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!((x.to_vec::<f32>()?[0] - 0.8).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type RmsProp = Stepper<RmsPropOptions>;

impl Rule for RmsPropOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "RMSprop";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "alpha", self.alpha)?;
        not_negative(OP, "eps", self.eps)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        not_negative(OP, "momentum", self.momentum)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        match (self.momentum > 0.0, self.centered) {
            (false, false) => &["square_avg"],
            (false, true) => &["square_avg", "grad_avg"],
            (true, false) => &["square_avg", "momentum_buffer"],
            (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
        }
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let square = mean_of_squares(input.slot(0)?, &grad, self.alpha)?;
        let mut state = vec![square.clone()];
        let mut spread = square;
        if self.centered {
            let mean = toward(input.slot(1)?, &grad, 1.0 - self.alpha)?;
            spread = spread.sub(mean.mul(&mean)?)?;
            state.push(mean);
        }
        let mut way = grad.div(spread.sqrt()?.add(self.eps)?)?;
        if self.momentum > 0.0 {
            way = input.slot(state.len())?.mul(self.momentum)?.add(way)?;
            state.push(way.clone());
        }
        Ok(Output { param: input.param.sub(way.mul(self.lr)?)?, state })
    }
}
