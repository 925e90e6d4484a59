//! Schedules of learning rates: those of `torch.optim.lr_scheduler`.
//!
//! A [`Schedule`] is a pure function: from the number of a step, and the rate before it, to a rate. It holds
//! settings and nothing that changes, so schedules compose: [`then`](Schedule::then) puts one after another,
//! [`and`](Schedule::and) applies one to what another one gives. A [`Scheduler`] holds what changes, the
//! number of the step, and sets the rates of an optimiser's groups.
//!
//! ```
//! use wgrad::optim::schedule::{CosineAnnealingLr, LinearLr, Schedule, Scheduler};
//! use wgrad::optim::{Optimizer, Sgd, SgdOptions};
//! use wgrad::{Device, Tensor};
//!
//! let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
//! let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
//! let warmup = LinearLr::new().start_factor(0.1).total_iters(10);
//! let mut scheduler = Scheduler::new(warmup.then(10, CosineAnnealingLr::new(90)), &mut optimizer)?;
//! for _ in 0..100 {
//!     optimizer.zero_grad();
//!     x.square()?.sum()?.backward()?;
//!     optimizer.step()?;
//!     scheduler.step(&mut optimizer)?;
//! }
//! assert!(optimizer.lr(0)? < 1e-6);
//! # Ok::<(), wgrad::Error>(())
//! ```

mod compose;
mod cosine;
mod cycle;
mod decay;
mod plateau;
mod swa;

use wgrad_autograd::{Error, Result};

use super::Optimizer;
use super::setting::check;

pub use compose::{ChainedScheduler, SequentialLr};
pub use cosine::{CosineAnnealingLr, CosineAnnealingWarmRestarts};
pub use cycle::{Anneal, CyclicLr, CyclicMode, OneCycleLr, ScaleBy};
pub use decay::{
    ConstantLr, ExponentialLr, LambdaLr, LinearLr, MultiStepLr, MultiplicativeLr, PolynomialLr, StepLr,
};
pub use plateau::{PlateauMode, PlateauState, ReduceLrOnPlateau, ThresholdMode};
pub use swa::SwaLr;

/// What a schedule is asked.
///
/// ```
/// use wgrad::optim::schedule::{At, ExponentialLr, Schedule};
///
/// let at = At { epoch: 3, group: 0, base: 1.0, current: 0.25, is_first: false };
/// assert_eq!(ExponentialLr::new(0.5).lr(&at)?, 0.125);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// How many steps have been made.
    pub epoch: usize,
    /// The place of the group.
    pub group: usize,
    /// The group's rate before any schedule.
    pub base: f64,
    /// The group's rate now: that of the step before, or what the schedule before this one makes of it.
    pub current: f64,
    /// Whether the schedule begins here.
    pub is_first: bool,
}

/// A learning rate as a function of the number of the step.
pub trait Schedule: Send + Sync {
    /// The rate of a group.
    ///
    /// # Errors
    /// For steps that the schedule does not have.
    fn lr(&self, at: &At) -> Result<f64>;

    /// The rate of a group somewhere, whatever was before: for [`Scheduler::step_to`]. `epoch` may have a
    /// fraction.
    ///
    /// # Errors
    /// As [`Schedule::lr`].
    fn lr_at(&self, _epoch: f64, at: &At) -> Result<f64> {
        self.lr(at)
    }

    /// The momentum of a group, if the schedule has one.
    ///
    /// # Errors
    /// As [`Schedule::lr`].
    fn momentum(&self, _at: &At) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Fails for settings that make no sense, also for so many groups.
    ///
    /// # Errors
    /// [`Error::Argument`].
    fn check(&self, _groups: usize) -> Result<()> {
        Ok(())
    }

    /// Whether it begins with the base rate where it follows another one, and not with the rate there.
    fn starts_from_base(&self) -> bool {
        true
    }

    /// The rates of the first steps, for a group with this base rate.
    ///
    /// ```
    /// use wgrad::optim::schedule::{Schedule, StepLr};
    ///
    /// assert_eq!(StepLr::new(2).gamma(0.5).rates(1.0, 5)?, [1.0, 1.0, 0.5, 0.5, 0.25]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// For settings that make no sense, and as [`Schedule::lr`].
    fn rates(&self, base: f64, steps: usize) -> Result<Vec<f64>> {
        self.check(1)?;
        let mut current = base;
        let rate = |epoch: usize| {
            current = self.lr(&At { epoch, group: 0, base, current, is_first: epoch == 0 })?;
            Ok(current)
        };
        (0..steps).map(rate).collect()
    }

    /// This schedule for so many steps, then another one, which begins at its own step 0.
    ///
    /// ```
    /// use wgrad::optim::schedule::{ConstantLr, ExponentialLr, Schedule};
    ///
    /// let schedule = ConstantLr::new().factor(0.5).then(2, ExponentialLr::new(0.5));
    /// assert_eq!(schedule.rates(1.0, 5)?, [0.5, 0.5, 1.0, 0.5, 0.25]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn then(self, milestone: usize, next: impl Schedule + 'static) -> SequentialLr
    where
        Self: Sized + 'static,
    {
        SequentialLr::new(vec![Box::new(self), Box::new(next)], vec![milestone])
    }

    /// Another schedule applied to what this one gives.
    ///
    /// ```
    /// use wgrad::optim::schedule::{ExponentialLr, Schedule, StepLr};
    ///
    /// let schedule = ExponentialLr::new(0.5).and(StepLr::new(2).gamma(0.5));
    /// assert_eq!(schedule.rates(1.0, 4)?, [1.0, 0.5, 0.125, 0.0625]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    fn and(self, next: impl Schedule + 'static) -> ChainedScheduler
    where
        Self: Sized + 'static,
    {
        ChainedScheduler::new(vec![Box::new(self), Box::new(next)])
    }
}

impl Schedule for Box<dyn Schedule> {
    fn lr(&self, at: &At) -> Result<f64> {
        (**self).lr(at)
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        (**self).lr_at(epoch, at)
    }

    fn momentum(&self, at: &At) -> Result<Option<f64>> {
        (**self).momentum(at)
    }

    fn check(&self, groups: usize) -> Result<()> {
        (**self).check(groups)
    }

    fn starts_from_base(&self) -> bool {
        (**self).starts_from_base()
    }
}

/// One number for all groups, or one for each.
///
/// ```
/// use wgrad::optim::schedule::{PerGroup, SwaLr};
///
/// assert_eq!(PerGroup::from(0.1), PerGroup::All(0.1));
/// let schedule = SwaLr::new([0.1, 0.01]);
/// # let _ = schedule;
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum PerGroup {
    /// The same for all.
    All(f64),
    /// One for each group.
    Each(Vec<f64>),
}

impl PerGroup {
    fn of(&self, group: usize) -> f64 {
        match self {
            PerGroup::All(value) => *value,
            PerGroup::Each(values) => values.get(group).copied().unwrap_or(f64::NAN),
        }
    }

    /// An error if there is not one for each of so many groups.
    fn check(&self, op: &'static str, name: &str, groups: usize) -> Result<()> {
        match self {
            PerGroup::Each(values) if values.len() != groups => {
                let reason = format!("{name} has {} numbers; there are {groups} groups", values.len());
                Err(Error::Argument { op, reason })
            }
            _ => Ok(()),
        }
    }
}

impl From<f64> for PerGroup {
    fn from(value: f64) -> PerGroup {
        PerGroup::All(value)
    }
}

impl From<Vec<f64>> for PerGroup {
    fn from(values: Vec<f64>) -> PerGroup {
        PerGroup::Each(values)
    }
}

impl<const N: usize> From<[f64; N]> for PerGroup {
    fn from(values: [f64; N]) -> PerGroup {
        PerGroup::Each(values.to_vec())
    }
}

/// A schedule at work: it counts steps and sets the rates of an optimiser's groups.
///
/// ```
/// use wgrad::optim::schedule::{ExponentialLr, Scheduler};
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
/// let mut scheduler = Scheduler::new(ExponentialLr::new(0.5), &mut optimizer)?;
/// scheduler.step(&mut optimizer)?;
/// assert_eq!(optimizer.lr(0)?, 0.05);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Scheduler {
    schedule: Box<dyn Schedule>,
    state: SchedulerState,
}

/// What a [`Scheduler`] remembers.
///
/// ```
/// use wgrad::optim::schedule::{ExponentialLr, Scheduler};
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
/// let mut scheduler = Scheduler::new(ExponentialLr::new(0.5), &mut optimizer)?;
/// scheduler.step(&mut optimizer)?;
/// let saved = scheduler.state_dict();
/// assert_eq!((saved.last_epoch, &saved.base_lrs[..]), (1, &[0.1][..]));
///
/// let mut resumed = Scheduler::new(ExponentialLr::new(0.5), &mut optimizer)?;
/// resumed.load_state_dict(saved)?;
/// optimizer.set_lr(0, 0.05)?;
/// resumed.step(&mut optimizer)?;
/// assert_eq!(optimizer.lr(0)?, 0.025);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulerState {
    /// How many steps have been made.
    pub last_epoch: usize,
    /// The groups' rates before any schedule.
    pub base_lrs: Vec<f64>,
}

impl Scheduler {
    /// A scheduler at step 0, whose rates it sets. The optimiser's rates are the base rates.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that make no sense.
    pub fn new(schedule: impl Schedule + 'static, optimizer: &mut dyn Optimizer) -> Result<Scheduler> {
        let groups = optimizer.groups();
        schedule.check(groups)?;
        let base_lrs = (0..groups).map(|group| optimizer.lr(group)).collect::<Result<_>>()?;
        let state = SchedulerState { last_epoch: 0, base_lrs };
        let scheduler = Scheduler { schedule: Box::new(schedule), state };
        scheduler.apply(optimizer, true, None)?;
        Ok(scheduler)
    }

    /// Goes on by a step, after the optimiser's step.
    ///
    /// # Errors
    /// For steps that the schedule does not have; nothing is changed then.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.state.last_epoch += 1;
        let done = self.apply(optimizer, false, None);
        if done.is_err() {
            self.state.last_epoch -= 1;
        }
        done
    }

    /// Goes to an epoch, which may have a fraction: PyTorch's `step(epoch)`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{CosineAnnealingWarmRestarts, Scheduler};
    /// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(1.0))?;
    /// let mut scheduler = Scheduler::new(CosineAnnealingWarmRestarts::new(5), &mut optimizer)?;
    /// scheduler.step_to(&mut optimizer, 2.5)?;
    /// assert!((optimizer.lr(0)? - 0.5).abs() < 1e-12);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// For an epoch that is negative or no number, and as [`Scheduler::step`].
    pub fn step_to(&mut self, optimizer: &mut dyn Optimizer, epoch: f64) -> Result<()> {
        check("step_to", (0.0..1e15).contains(&epoch), || {
            format!("epoch is {epoch}; it must be at least 0")
        })?;
        let before = std::mem::replace(&mut self.state.last_epoch, epoch as usize);
        let done = self.apply(optimizer, false, Some(epoch));
        if done.is_err() {
            self.state.last_epoch = before;
        }
        done
    }

    /// Sets rates and momenta.
    fn apply(&self, optimizer: &mut dyn Optimizer, is_first: bool, epoch: Option<f64>) -> Result<()> {
        let groups = optimizer.groups();
        check("Scheduler", groups == self.state.base_lrs.len(), || {
            format!("the optimiser has {groups} groups, the schedule {}", self.state.base_lrs.len())
        })?;
        let mut values = Vec::new();
        for (group, &base) in self.state.base_lrs.iter().enumerate() {
            let current = optimizer.lr(group)?;
            let at = At { epoch: self.state.last_epoch, group, base, current, is_first };
            let lr = match epoch {
                Some(epoch) => self.schedule.lr_at(epoch, &at)?,
                None => self.schedule.lr(&at)?,
            };
            let momentum = self.schedule.momentum(&at)?;
            check("Scheduler", momentum.is_none() || optimizer.momentum(group)?.is_some(), || {
                "the optimiser has no momentum and no betas; use cycle_momentum(false)".to_owned()
            })?;
            values.push((group, lr, momentum));
        }
        for (group, lr, momentum) in values {
            optimizer.set_lr(group, lr)?;
            if let Some(momentum) = momentum {
                optimizer.set_momentum(group, momentum)?;
            }
        }
        Ok(())
    }

    /// What it remembers, to go on later. The current rates belong to the optimiser's state.
    pub fn state_dict(&self) -> SchedulerState {
        self.state.clone()
    }

    /// Goes on from a saved state, with the rates that the optimiser has then.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of groups.
    pub fn load_state_dict(&mut self, state: SchedulerState) -> Result<()> {
        let (given, own) = (state.base_lrs.len(), self.state.base_lrs.len());
        check("Scheduler", given == own, || format!("the state is that of {given} groups; there are {own}"))?;
        self.state = state;
        Ok(())
    }
}

/// A schedule's settings: what `new` takes, with an example of it, and a builder for each of the others. A
/// row is documentation, name, type, what the builder takes, and default; `example` is the value that the
/// builder's example sets.
macro_rules! schedule {
    ($(#[$doc:meta])* $Name:ident($(
        $(#[$needed_doc:meta])* $needed:ident: $Needed:ty, from $From:ty;
    )*), example $given:literal {$(
        $(#[$field_doc:meta])*
        $field:ident: $Type:ty, from $Arg:ty, default $default:expr, example $example:literal;
    )*}) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $($(#[$needed_doc])* $needed: $Needed,)*
            $($(#[$field_doc])* $field: $Type,)*
        }

        impl $Name {
            /// The schedule with PyTorch's defaults.
            ///
            #[doc = concat!("```\nuse wgrad::optim::schedule::", stringify!($Name), ";\n\nlet schedule = ",
                stringify!($Name), "::new(", $given, ");\n# let _ = schedule;\n```")]
            #[allow(clippy::new_without_default)]
            pub fn new($($needed: $From),*) -> Self {
                $Name { $($needed: $needed.into(),)* $($field: $default,)* }
            }

            $(
                $(#[$field_doc])*
                ///
                #[doc = concat!("```\nuse wgrad::optim::schedule::*;\n\nlet schedule = ",
                    stringify!($Name), "::new(", $given, ").", stringify!($field), "(", $example,
                    ");\n# let _ = schedule;\n```")]
                pub fn $field(mut self, $field: $Arg) -> Self {
                    self.$field = $field.into();
                    self
                }
            )*
        }
    };
}
use schedule;
