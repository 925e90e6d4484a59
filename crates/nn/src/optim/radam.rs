//! RAdam.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Decay, Input, Moments, Output, Rule, moments, one_minus_power, shared};
use super::setting::{below_one, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`RAdam`].
    RAdamOptions of "RAdam" {
        /// The learning rate; 0.001.
        lr: f64 = 1e-3, example 0.01;
        /// How much of the means of gradients and of their squares stays in each step; 0.9 and 0.999.
        betas: [f64; 2] = [0.9, 0.999], example [0.9, 0.95];
        /// What is added to the root that is divided by; 1e-8.
        eps: f64 = 1e-8, example 1e-6;
        /// Weight decay; 0.
        weight_decay: f64 = 0.0, example 0.01;
        /// Whether weight decay shrinks the parameter and does not go into the gradient; off.
        decoupled_weight_decay: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// RAdam, Adam that does not trust the mean of squares before its variance is small (Liu et al. 2019,
/// [arXiv 1908.03265](https://arxiv.org/abs/1908.03265)); `torch.optim.RAdam`.
///
/// With `r = 2 / (1 - beta_2) - 1` and `r_t = r - 2 * t * beta_2^t / (1 - beta_2^t)`: where `r_t > 5`, Adam's
/// step times `sqrt((r_t - 4) * (r_t - 2) * r / ((r - 4) * (r - 2) * r_t))`, before that `p = p - lr * m / (1
/// - beta_1^t)`.
///
/// ```
/// use wgrad::optim::{Optimizer, RAdam, RAdamOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = RAdam::new([&x], RAdamOptions::new().lr(0.1))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// // The first steps are those of gradient descent with momentum.
/// assert!((x.to_vec::<f32>()?[0] - 0.8).abs() < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type RAdam = Stepper<RAdamOptions>;

impl RAdamOptions {
    /// `r_t`. Its formula takes two numbers of the size of `r` apart, whose digits f32 would lose. With `q =
    /// -ln(beta_2)` and `x = t * q` it is `(r - 2 / q) + 2 / q * (1 - x / (e^x - 1))`, where the first part
    /// is a number and the last has a series for small `x`.
    fn length(&self, step: &Tensor) -> Result<Tensor> {
        let beta = self.betas[1].max(1e-30);
        let q = -beta.ln();
        let constant = 2.0 / (1.0 - beta) - 1.0 - 2.0 / q;
        let x = step.mul(q)?;
        let square = x.mul(&x)?;
        // Bernoulli's numbers over factorials: x / 2 - x^2 / 12 + x^4 / 720 - x^6 / 30240 + x^8 / 1209600.
        let mut tail = square.mul(1.0 / 1_209_600.0)?.add(-1.0 / 30_240.0)?;
        for term in [1.0 / 720.0, -1.0 / 12.0] {
            tail = tail.mul(&square)?.add(term)?;
        }
        let series = x.mul(0.5)?.add(tail.mul(&square)?)?;
        let direct = x.div(x.expm1()?)?.rsub(1.0)?;
        x.lt(1.0)?.where_cond(series, direct)?.mul(2.0 / q)?.add(constant)
    }
}

impl Rule for RAdamOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "RAdam";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "eps", self.eps)?;
        below_one(OP, "betas", &self.betas)?;
        not_negative(OP, "weight_decay", self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// `lr / (1 - beta_1^t)`; whether to divide by the root, and by which factor then.
    fn factors(&self, _old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step] = shared(new)?;
        let [first, second] = self.betas;
        let rate = one_minus_power(step, first)?.reciprocal()?.mul(self.lr)?;
        let most = 2.0 / (1.0 - second) - 1.0;
        let length = self.length(step)?;
        let divides = length.gt(5.0)?;
        // Below the bound the root would be that of a negative number.
        let length = length.clamp(5.0, None)?;
        let scale = most / ((most - 4.0) * (most - 2.0));
        let part = length.sub(4.0)?.mul(length.sub(2.0)?)?.div(&length)?.mul(scale)?;
        let factor = part.mul(one_minus_power(step, second)?)?.clamp(0.0, None)?.sqrt()?;
        Ok(vec![rate, divides, factor])
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let decay =
            Decay { lr: self.lr, weight_decay: self.weight_decay, is_decoupled: self.decoupled_weight_decay };
        let Moments { param, mean, square, .. } = moments(input, &decay, self.betas)?;
        let way = mean.mul(input.factor(0)?)?;
        let divided = way.mul(input.factor(2)?)?.div(square.sqrt()?.add(self.eps)?)?;
        let way = input.factor(1)?.where_cond(divided, way)?;
        Ok(Output { param: param.sub(way)?, state: vec![mean, square] })
    }
}
