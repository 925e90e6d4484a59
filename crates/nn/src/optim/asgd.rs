//! Averaged stochastic gradient descent.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, Shared, shared, with_decay};
use super::setting::{check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Asgd`].
    AsgdOptions of "ASGD" {
        /// The learning rate; 0.01.
        lr: f64 = 1e-2, example 0.1;
        /// How much each step shrinks a parameter, times the rate; 0.0001.
        lambd: f64 = 1e-4, example 1e-3;
        /// The power by which the rate falls; 0.75.
        alpha: f64 = 0.75, example 0.5;
        /// The step from which on values are averaged; 1,000,000.
        t0: f64 = 1e6, example 100.0;
        /// How much of the parameter is added to its gradient; 0.
        weight_decay: f64 = 0.0, example 1e-4;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// Averaged stochastic gradient descent (Polyak and Juditsky 1992); `torch.optim.ASGD`.
///
/// `p = p * (1 - lambd * eta) - eta * g` with `eta = lr / (1 + lambd * lr * t)^alpha`; the state's `ax` is
/// the mean of the values from step `t0` on.
///
/// ```
/// use wgrad::optim::{Asgd, AsgdOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Asgd::new([("x", &x)], AsgdOptions::new().t0(0.0))?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(optimizer.state_dict()?.state["x"]["ax"].to_vec::<f32>()?, x.to_vec::<f32>()?);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Asgd = Stepper<AsgdOptions>;

impl Rule for AsgdOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "ASGD";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "lambd", self.lambd)?;
        not_negative(OP, "alpha", self.alpha)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        check(OP, self.t0.is_finite(), || format!("t0 is {}", self.t0))
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    fn shared(&self) -> Shared {
        Shared { names: &["step", "eta", "mu"], start: vec![0.0, self.lr, 1.0], resumed: None }
    }

    /// `eta` and `mu` of the next step, as PyTorch keeps them.
    fn tick(&self, old: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step, _, _] = shared(old)?;
        let step = step.add(1.0)?;
        let fallen = step.mul(self.lambd * self.lr)?.log1p()?.mul(-self.alpha)?.exp()?;
        let eta = fallen.mul(self.lr)?;
        let mu = step.sub(self.t0)?.clamp(1.0, None)?.reciprocal()?;
        Ok(vec![step, eta, mu])
    }

    fn factors(&self, old: &[Tensor], _new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [_, eta, mu] = shared(old)?;
        Ok(vec![eta.clone(), mu.clone()])
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["ax"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let grad = with_decay(input.grad, input.param, self.weight_decay)?;
        let (eta, mu) = (input.factor(0)?, input.factor(1)?);
        let shrunk = input.param.mul(eta.mul(-self.lambd)?.add(1.0)?)?;
        let param = shrunk.sub(grad.mul(eta)?)?;
        let mean = input.slot(0)?;
        // Where the weight is 1, the mean is the value itself, to the last bit.
        let moved = mean.add(param.sub(mean)?.mul(mu)?)?;
        let mean = mu.eq(1.0)?.where_cond(&param, moved)?;
        Ok(Output { param, state: vec![mean] })
    }
}
