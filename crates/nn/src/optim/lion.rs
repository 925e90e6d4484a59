//! Lion.

use wgrad_autograd::Result;

use super::rule::{Input, Output, Rule, Shared, decayed, toward};
use super::setting::{below_one, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Lion`].
    LionOptions of "Lion" {
        /// The learning rate; 0.0001.
        lr: f64 = 1e-4, example 3e-5;
        /// How much of the mean counts in a step, and how much of it stays; 0.9 and 0.99.
        betas: [f64; 2] = [0.9, 0.99], example [0.95, 0.98];
        /// Weight decay: each step shrinks a parameter by `lr * weight_decay` of it; 0.
        weight_decay: f64 = 0.0, example 0.1;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Lion (Chen et al. 2023, [arXiv 2302.06675](https://arxiv.org/abs/2302.06675), algorithm 2); PyTorch has no
/// counterpart.
///
/// `p = p * (1 - lr * weight_decay) - lr * sign(beta_1 * m + (1 - beta_1) * g)`, then `m = beta_2 * m + (1 -
/// beta_2) * g`.
///
/// ```
/// use wgrad::optim::{Lion, LionOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0, -3.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Lion::new([&x], LionOptions::new().lr(0.5))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(x.to_vec::<f32>()?, [0.5, -2.5]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Lion = Stepper<LionOptions>;

impl Rule for LionOptions {
    fn check(&self) -> Result<()> {
        not_negative("Lion", "lr", self.lr)?;
        below_one("Lion", "betas", &self.betas)?;
        not_negative("Lion", "weight_decay", self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn shared(&self) -> Shared {
        Shared::none()
    }

    fn slots(&self, _param: &wgrad_autograd::Tensor) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let [first, second] = self.betas;
        let mean = input.slot(0)?;
        let way = mean.mul(first)?.add(input.grad.mul(1.0 - first)?)?.sign()?;
        let param = decayed(input.param, self.lr, self.weight_decay)?.sub(way.mul(self.lr)?)?;
        Ok(Output { param, state: vec![toward(mean, input.grad, 1.0 - second)?] })
    }
}
