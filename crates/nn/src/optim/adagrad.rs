//! Adagrad.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, shared, with_decay};
use super::setting::{not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Adagrad`].
    AdagradOptions of "Adagrad" {
        /// The learning rate; 0.01.
        lr: f64 = 1e-2, example 0.1;
        /// How fast the rate falls: in step t it is `lr / (1 + (t - 1) * lr_decay)`; 0.
        lr_decay: f64 = 0.0, example 0.01;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// What the sums of squares start from; 0.
        initial_accumulator_value: f64 = 0.0, example 0.1;
        /// What is added to the root that is divided by; 1e-10.
        eps: f64 = 1e-10, example 1e-8;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Adagrad (Duchi, Hazan and Singer 2011, [JMLR 12](https://jmlr.org/papers/v12/duchi11a.html));
/// `torch.optim.Adagrad`.
///
/// `s = s + g^2`, `p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)`.
///
/// ```
/// use wgrad::optim::{Adagrad, AdagradOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adagrad::new([&x], AdagradOptions::new().lr(0.25))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(x.to_vec::<f32>()?, [0.75]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Adagrad = Stepper<AdagradOptions>;

impl Rule for AdagradOptions {
    const EAGER: bool = true;

    fn check(&self) -> Result<()> {
        const OP: &str = "Adagrad";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "lr_decay", self.lr_decay)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        not_negative(OP, "initial_accumulator_value", self.initial_accumulator_value)?;
        not_negative(OP, "eps", self.eps)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// The rate of the step.
    fn factors(&self, old: &[Tensor], _new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [before] = shared(old)?;
        Ok(vec![before.mul(self.lr_decay)?.add(1.0)?.reciprocal()?.mul(self.lr)?])
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["sum"]
    }

    fn begin(&self, _slot: &'static str, param: &Tensor) -> Result<Tensor> {
        param.full_like(self.initial_accumulator_value)
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let sum = input.slot(0)?.add(grad.mul(&grad)?)?;
        let way = grad.mul(input.factor(0)?)?.div(sum.sqrt()?.add(self.eps)?)?;
        Ok(Output { param: input.param.sub(way)?, state: vec![sum] })
    }
}
