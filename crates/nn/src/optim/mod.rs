//! Optimisers, schedules of their learning rates, and what goes with them: clipping, averages of weights,
//! scaled losses.
//!
//! Names, defaults and values are those of `torch.optim`. All optimisers are made in one way, from parameters
//! and settings:
//!
//! ```
//! use wgrad::optim::{AdamW, AdamWOptions, Optimizer};
//! use wgrad::{Device, Tensor};
//!
//! let device = Device::cpu();
//! let weight = Tensor::zeros([1, 3], &device)?.requires_grad_(true)?;
//! let x = Tensor::new([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]], &device)?;
//! let y = Tensor::new([[1.0], [-1.0]], &device)?;
//!
//! let mut optimizer = AdamW::new([("weight", &weight)], AdamWOptions::new().lr(0.05))?;
//! for _ in 0..200 {
//!     optimizer.zero_grad();
//!     let loss = x.linear(&weight, None)?.sub(&y)?.square()?.mean()?;
//!     loss.backward()?;
//!     optimizer.step()?;
//! }
//! let off = x.linear(&weight, None)?.sub(&y)?.abs()?.max()?.item::<f32>()?;
//! assert!(off < 0.05);
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! A step reads nothing and waits for nothing: it is a part of the lazy graph, which is evaluated with the
//! backward before it, at the latest when the next one begins. Learning rates are numbers of that graph's
//! plan, so they may change in each step.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod asgd;
mod average;
mod clip;
mod lbfgs;
mod lion;
mod muon;
mod nadam;
mod parameters;
mod radam;
mod rmsprop;
mod rprop;
mod rule;
mod scaler;
pub mod schedule;
mod setting;
mod sgd;
mod state;
mod statistics;
mod stepper;

use wgrad_autograd::{Error, Result, Tensor};

pub use adadelta::{Adadelta, AdadeltaOptions};
pub use adafactor::{Adafactor, AdafactorOptions, Eps};
pub use adagrad::{Adagrad, AdagradOptions};
pub use adam::{Adam, AdamOptions, AdamW, AdamWOptions};
pub use adamax::{Adamax, AdamaxOptions};
pub use asgd::{Asgd, AsgdOptions};
pub use average::{Average, AveragedModel};
pub use clip::{NormOptions, clip_grad_norm_, clip_grad_norm_with_, clip_grad_value_, get_total_norm};
pub use lbfgs::{Lbfgs, LbfgsOptions, LineSearch};
pub use lion::{Lion, LionOptions};
pub use muon::{AdjustLr, Muon, MuonOptions};
pub use nadam::{NAdam, NAdamOptions};
pub use parameters::Parameter;
pub use radam::{RAdam, RAdamOptions};
pub use rmsprop::{RmsProp, RmsPropOptions};
pub use rprop::{Rprop, RpropOptions};
pub use rule::{Input, Named, Output, Rule, Shared};
pub use scaler::{GradScaler, GradScalerOptions, GradScalerState};
pub use setting::{Setting, Settings};
pub use sgd::{Sgd, SgdOptions};
pub use state::{GroupState, OptimizerState};
pub use statistics::update_bn;
pub use stepper::Stepper;

/// What all optimisers can do. Schedules, scalers and loops work with any of them through it.
///
/// ```
/// use wgrad::optim::{Adam, AdamOptions, Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let optimizers: [Box<dyn Optimizer>; 2] = [
///     Box::new(Sgd::new([&x], SgdOptions::new())?),
///     Box::new(Adam::new([&x], AdamOptions::new())?),
/// ];
/// for mut optimizer in optimizers {
///     x.sum()?.backward()?;
///     optimizer.step()?;
///     optimizer.zero_grad();
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Optimizer {
    /// Changes the parameters by their gradients; those without one stay as they are.
    ///
    /// Nothing is computed at once, nothing is read. The parameters are written in place, so all who hold
    /// them see the new values.
    ///
    /// # Errors
    /// If the device fails; and for optimisers that must compute the loss several times, which have
    /// [`Optimizer::step_with`].
    fn step(&mut self) -> Result<()>;

    /// Computes the loss and its gradients with a closure, then steps; gives the loss before the step. The
    /// closure is to call [`Optimizer::zero_grad`]'s equivalent on the parameters, and `backward` on the loss
    /// that it returns.
    ///
    /// ```
    /// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Sgd::new([&x], SgdOptions::new())?;
    /// let loss = optimizer.step_with(&mut || {
    ///     x.zero_grad();
    ///     let loss = x.square()?.sum()?;
    ///     loss.backward()?;
    ///     Ok(loss)
    /// })?;
    /// assert_eq!(loss.item::<f32>()?, 2.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the closure and of [`Optimizer::step`].
    fn step_with(&mut self, closure: &mut dyn FnMut() -> Result<Tensor>) -> Result<Tensor> {
        let loss = wgrad_autograd::enable_grad(closure)?;
        self.step()?;
        Ok(loss)
    }

    /// A step that changes nothing where `skip`, a 0-dim bool, holds: neither parameters nor state, nor the
    /// number of steps. Nobody has to read whether it does.
    ///
    /// ```
    /// use wgrad::optim::{Adam, AdamOptions, Optimizer};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Adam::new([&x], AdamOptions::new())?;
    /// x.mul(f64::INFINITY)?.sum()?.backward()?;
    /// let is_bad = x.grad().expect("backward gave one").isfinite()?.all()?.logical_not()?;
    /// optimizer.step_unless(&is_bad)?;
    /// assert_eq!(x.to_vec::<f32>()?, [1.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Optimizer::step`], and if `skip` is no 0-dim bool.
    fn step_unless(&mut self, skip: &Tensor) -> Result<()>;

    /// All parameters with their paths, group by group.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// Forgets the gradients of all parameters.
    fn zero_grad(&self) {
        self.parameters().iter().for_each(|(_, param)| param.zero_grad());
    }

    /// How many groups there are.
    fn groups(&self) -> usize;

    /// A group's settings by PyTorch's names.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such group.
    fn settings(&self, group: usize) -> Result<Settings>;

    /// Changes a setting of a group.
    ///
    /// ```
    /// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Sgd::new([&x], SgdOptions::new())?;
    /// optimizer.set(0, "weight_decay", 0.01.into())?;
    /// assert_eq!(optimizer.options(0).map(|options| options.weight_decay), Some(0.01));
    /// assert!(optimizer.set(0, "weight_decay", (-1.0).into()).is_err());
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such group or setting, or for a value that makes no sense; nothing
    /// is changed then.
    fn set(&mut self, group: usize, name: &str, value: Setting) -> Result<()>;

    /// A group's learning rate.
    ///
    /// ```
    /// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
    /// optimizer.set_lr(0, optimizer.lr(0)? / 2.0)?;
    /// assert_eq!(optimizer.lr(0)?, 0.05);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such group.
    fn lr(&self, group: usize) -> Result<f64> {
        let settings = self.settings(group)?;
        settings.get("lr").and_then(Setting::as_f64).ok_or_else(|| Error::Argument {
            op: "lr",
            reason: "this optimiser has no learning rate".to_owned(),
        })
    }

    /// Sets a group's learning rate.
    ///
    /// # Errors
    /// As [`Optimizer::set`].
    fn set_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        self.set(group, "lr", lr.into())
    }

    /// A group's `momentum`, or the first of its `betas`; `None` where there is neither. This is what cyclic
    /// schedules change beside the rate.
    ///
    /// ```
    /// use wgrad::optim::{Adam, AdamOptions, Optimizer};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Adam::new([&x], AdamOptions::new())?;
    /// assert_eq!(optimizer.momentum(0)?, Some(0.9));
    /// optimizer.set_momentum(0, 0.85)?;
    /// assert_eq!(optimizer.options(0).map(|options| options.betas), Some([0.85, 0.999]));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such group.
    fn momentum(&self, group: usize) -> Result<Option<f64>> {
        let settings = self.settings(group)?;
        if let Some(Setting::List(betas)) = settings.get("betas") {
            return Ok(betas.first().and_then(Setting::as_f64));
        }
        Ok(settings.get("momentum").and_then(Setting::as_f64))
    }

    /// Sets what [`Optimizer::momentum`] tells.
    ///
    /// # Errors
    /// As [`Optimizer::set`].
    fn set_momentum(&mut self, group: usize, momentum: f64) -> Result<()> {
        if let Some(Setting::List(mut betas)) = self.settings(group)?.remove("betas") {
            if let Some(first) = betas.first_mut() {
                *first = momentum.into();
            }
            return self.set(group, "betas", Setting::List(betas));
        }
        self.set(group, "momentum", momentum.into())
    }

    /// What the optimiser remembers, to go on later.
    ///
    /// # Errors
    /// If the device fails.
    fn state_dict(&self) -> Result<OptimizerState>;

    /// Goes on from a saved state, with its settings.
    ///
    /// # Errors
    /// [`Error::Argument`] if groups, paths, names or shapes do not fit, which it names all; nothing is
    /// changed then.
    fn load_state_dict(&mut self, state: &OptimizerState) -> Result<()>;
}
