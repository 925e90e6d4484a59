//! Rprop.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule};
use super::setting::{check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Rprop`].
    RpropOptions of "Rprop" {
        /// The steps' size at first; 0.01.
        lr: f64 = 1e-2, example 0.1;
        /// By how much a step shrinks where the gradient's sign changes, and grows where it stays; 0.5 and
        /// 1.2.
        etas: [f64; 2] = [0.5, 1.2], example [0.4, 1.1];
        /// The smallest and the largest size of a step; 1e-6 and 50.
        step_sizes: [f64; 2] = [1e-6, 50.0], example [1e-4, 1.0];
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Resilient backpropagation, for whole batches (Riedmiller and Braun 1993); `torch.optim.Rprop`.
///
/// Each element has a step of its own, which grows while the gradient's sign stays and shrinks where it
/// changes; there it waits for a step.
///
/// ```
/// use wgrad::optim::{Optimizer, Rprop, RpropOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0, -2.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Rprop::new([&x], RpropOptions::new().lr(0.25))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(x.to_vec::<f32>()?, [0.75, -1.75]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Rprop = Stepper<RpropOptions>;

impl Rule for RpropOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "Rprop";
        not_negative(OP, "lr", self.lr)?;
        let [less, more] = self.etas;
        check(OP, 0.0 < less && less < 1.0 && 1.0 < more, || {
            format!("etas is {:?}; the first must be between 0 and 1, the second above 1", self.etas)
        })?;
        let [least, most] = self.step_sizes;
        check(OP, least <= most, || {
            format!("step_sizes is {:?}; the first must be the smaller", self.step_sizes)
        })
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["prev", "step_size"]
    }

    fn begin(&self, slot: &'static str, param: &Tensor) -> Result<Tensor> {
        if slot == "step_size" { param.full_like(self.lr) } else { param.zeros_like() }
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let same = input.grad.mul(input.slot(0)?)?;
        let [less, more] = self.etas;
        let turned = same.lt(0.0)?;
        let factor = turned.where_cond(less, same.gt(0.0)?.where_cond(more, 1.0)?)?;
        let [least, most] = self.step_sizes;
        let size = input.slot(1)?.mul(factor)?.clamp(least, most)?;
        let grad = input.grad.masked_fill(&turned, 0.0)?;
        let param = input.param.sub(grad.sign()?.mul(&size)?)?;
        Ok(Output { param, state: vec![grad, size] })
    }
}
