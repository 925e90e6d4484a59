//! Stochastic gradient descent.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, Shared, with_decay};
use super::setting::{check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Sgd`].
    SgdOptions of "SGD" {
        /// The learning rate; 0.001.
        lr: f64 = 1e-3, example 0.1;
        /// How much of the velocity stays in each step; 0.
        momentum: f64 = 0.0, example 0.9;
        /// How much of a gradient does not go into the velocity; 0.
        dampening: f64 = 0.0, example 0.1;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// Nesterov's momentum; off. It needs a momentum and no dampening.
        nesterov: bool = false, example true;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Stochastic gradient descent with momentum; `torch.optim.SGD`.
///
/// `v = momentum * v + (1 - dampening) * g` (`v = g` in the first step), `p = p - lr * v`; with Nesterov's
/// momentum `p = p - lr * (g + momentum * v)`.
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(x.to_vec::<f32>()?, [0.8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Sgd = Stepper<SgdOptions>;

impl SgdOptions {
    /// Whether the first step differs from the later ones.
    fn is_dampened(&self) -> bool {
        self.momentum != 0.0 && self.dampening != 0.0
    }
}

impl Rule for SgdOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "SGD";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "momentum", self.momentum)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        check(OP, self.dampening.is_finite(), || format!("dampening is {}", self.dampening))?;
        check(OP, !self.nesterov || (self.momentum > 0.0 && self.dampening == 0.0), || {
            format!(
                "Nesterov's momentum needs a momentum and no dampening; they are {} and {}",
                self.momentum, self.dampening
            )
        })
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn shared(&self) -> Shared {
        // PyTorch does not save whether there has been a step: the buffer says so.
        if self.is_dampened() {
            Shared { resumed: Some(vec![1.0]), ..Shared::steps() }
        } else {
            Shared::none()
        }
    }

    fn factors(&self, old: &[Tensor], _new: &[Tensor]) -> Result<Vec<Tensor>> {
        let part = |step: &Tensor| step.gt(0.0)?.where_cond(1.0 - self.dampening, 1.0);
        old.iter().map(part).collect()
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        if self.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let Some(velocity) = input.state.first() else {
            let param = input.param.sub(grad.mul(self.lr)?)?;
            return Ok(Output { param, state: Vec::new() });
        };
        let added = match input.factors.first() {
            Some(part) => grad.mul(part)?,
            None => grad.clone(),
        };
        let velocity = velocity.mul(self.momentum)?.add(added)?;
        let way = if self.nesterov { grad.add(velocity.mul(self.momentum)?)? } else { velocity.clone() };
        Ok(Output { param: input.param.sub(way.mul(self.lr)?)?, state: vec![velocity] })
    }
}
