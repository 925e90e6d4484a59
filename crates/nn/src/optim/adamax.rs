//! Adamax.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, one_minus_power, shared, toward, with_decay};
use super::setting::{below_one, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Adamax`].
    AdamaxOptions of "Adamax" {
        /// The learning rate; 0.002.
        lr: f64 = 2e-3, example 0.01;
        /// How much of the mean of gradients and of their largest size stays in each step; 0.9 and 0.999.
        betas: [f64; 2] = [0.9, 0.999], example [0.9, 0.95];
        /// What is added to the size of a gradient; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Adamax, Adam with the maximum norm (Kingma and Ba 2014, [arXiv
/// 1412.6980](https://arxiv.org/abs/1412.6980), section 7.1); `torch.optim.Adamax`.
///
/// `u = max(beta_2 * u, |g| + eps)`, `p = p - lr / (1 - beta_1^t) * m / u`.
///
/// ```
/// use wgrad::optim::{Adamax, AdamaxOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adamax::new([&x], AdamaxOptions::new().lr(0.1))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!((x.to_vec::<f32>()?[0] - 0.9).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Adamax = Stepper<AdamaxOptions>;

impl Rule for AdamaxOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "Adamax";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "eps", self.eps)?;
        below_one(OP, "betas", &self.betas)?;
        not_negative(OP, "weight_decay", self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// `lr / (1 - beta_1^t)`.
    fn factors(&self, _old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step] = shared(new)?;
        Ok(vec![one_minus_power(step, self.betas[0])?.reciprocal()?.mul(self.lr)?])
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_inf"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let [first, second] = self.betas;
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let mean = toward(input.slot(0)?, &grad, 1.0 - first)?;
        let largest = input.slot(1)?.mul(second)?.maximum(grad.abs()?.add(self.eps)?)?;
        let param = input.param.sub(mean.mul(input.factor(0)?)?.div(&largest)?)?;
        Ok(Output { param, state: vec![mean, largest] })
    }
}
