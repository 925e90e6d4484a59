//! NAdam.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Decay, Input, Moments, Output, Rule, Shared, moments, one_minus_power, shared};
use super::setting::{below_one, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`NAdam`].
    NAdamOptions of "NAdam" {
        /// The learning rate; 0.002.
        lr: f64 = 2e-3, example 0.01;
        /// How much of the means of gradients and of their squares stays in each step; 0.9 and 0.999.
        betas: [f64; 2] = [0.9, 0.999], example [0.9, 0.95];
        /// What is added to the root that is divided by; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// Weight decay; 0.
        weight_decay: f64 = 0.0, example 0.01;
        /// How fast the momentum grows to its full size; 0.004.
        momentum_decay: f64 = 4e-3, example 0.01;
        /// Whether weight decay shrinks the parameter and does not go into the gradient; off.
        decoupled_weight_decay: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// NAdam, Adam with Nesterov's momentum (Dozat 2016, [ICLR
/// workshop](https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ)); `torch.optim.NAdam`.
///
/// With `mu_t = beta_1 * (1 - 0.96^(t * momentum_decay) / 2)` and `P_t` the product of all so far: `p = p -
/// lr * ((1 - mu_t) / (1 - P_t) * g + mu_(t+1) / (1 - P_(t+1)) * m) / (sqrt(v / (1 - beta_2^t)) + eps)`.
///
/// ```
/// use wgrad::optim::{NAdam, NAdamOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = NAdam::new([&x], NAdamOptions::new())?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!(x.to_vec::<f32>()?[0] < 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type NAdam = Stepper<NAdamOptions>;

impl NAdamOptions {
    /// `mu` of a step, and of one `later`.
    fn momentum_at(&self, step: &Tensor, later: f64) -> Result<Tensor> {
        let decay = 0.96f64.ln() * self.momentum_decay;
        step.add(later)?.mul(decay)?.exp()?.mul(-0.5 * self.betas[0])?.add(self.betas[0])
    }
}

impl Rule for NAdamOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "NAdam";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "eps", self.eps)?;
        below_one(OP, "betas", &self.betas)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        not_negative(OP, "momentum_decay", self.momentum_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn shared(&self) -> Shared {
        Shared { names: &["step", "mu_product"], start: vec![0.0, 1.0], resumed: None }
    }

    fn tick(&self, old: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step, product] = shared(old)?;
        let step = step.add(1.0)?;
        let product = product.mul(self.momentum_at(&step, 0.0)?)?;
        Ok(vec![step, product])
    }

    /// The factors of gradient and mean, and `sqrt(1 - beta_2^t)`.
    fn factors(&self, _old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step, product] = shared(new)?;
        let (now, next) = (self.momentum_at(step, 0.0)?, self.momentum_at(step, 1.0)?);
        let grad = now.rsub(1.0)?.div(product.rsub(1.0)?)?.mul(self.lr)?;
        let mean = next.div(product.mul(&next)?.rsub(1.0)?)?.mul(self.lr)?;
        Ok(vec![grad, mean, one_minus_power(step, self.betas[1])?.sqrt()?])
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let decay =
            Decay { lr: self.lr, weight_decay: self.weight_decay, is_decoupled: self.decoupled_weight_decay };
        let Moments { param, grad, mean, square } = moments(input, &decay, self.betas)?;
        let size = square.sqrt()?.div(input.factor(2)?)?.add(self.eps)?;
        let way = grad.mul(input.factor(0)?)?.add(mean.mul(input.factor(1)?)?)?;
        Ok(Output { param: param.sub(way.div(size)?)?, state: vec![mean, square] })
    }
}
