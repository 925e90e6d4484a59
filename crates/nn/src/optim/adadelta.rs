//! Adadelta.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, mean_of_squares, with_decay};
use super::setting::{check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Adadelta`].
    AdadeltaOptions of "Adadelta" {
        /// The learning rate; 1.
        lr: f64 = 1.0, example 0.5;
        /// How much of the means of squares stays in each step; 0.9.
        rho: f64 = 0.9, example 0.95;
        /// What is added to the means in the roots; 1e-6.
        eps: f64 = 1e-6, example 1e-5;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Adadelta (Zeiler 2012, [arXiv 1212.5701](https://arxiv.org/abs/1212.5701)); `torch.optim.Adadelta`.
///
/// With `v` and `u` the running means of squared gradients and of squared changes: `d = sqrt(u + eps) /
/// sqrt(v + eps) * g`, `p = p - lr * d`.
///
/// ```
/// use wgrad::optim::{Adadelta, AdadeltaOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adadelta::new([&x], AdadeltaOptions::new())?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!(x.to_vec::<f32>()?[0] < 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Adadelta = Stepper<AdadeltaOptions>;

impl Rule for AdadeltaOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "Adadelta";
        not_negative(OP, "lr", self.lr)?;
        check(OP, (0.0..=1.0).contains(&self.rho), || {
            format!("rho is {}; it must be from 0 to 1", self.rho)
        })?;
        not_negative(OP, "eps", self.eps)?;
        not_negative(OP, "weight_decay", self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["square_avg", "acc_delta"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let square = mean_of_squares(input.slot(0)?, &grad, self.rho)?;
        let changes = input.slot(1)?;
        let change = changes.add(self.eps)?.sqrt()?.div(square.add(self.eps)?.sqrt()?)?.mul(grad)?;
        let changes = mean_of_squares(changes, &change, self.rho)?;
        Ok(Output { param: input.param.sub(change.mul(self.lr)?)?, state: vec![square, changes] })
    }
}
