//! A rate that falls where a metric no longer gets better.

use wgrad_autograd::Result;

use super::PerGroup;
use crate::optim::Optimizer;
use crate::optim::setting::{check, not_negative};

/// What is better: less or more.
///
/// ```
/// use wgrad::optim::schedule::{PlateauMode, ReduceLrOnPlateau};
///
/// let scheduler = ReduceLrOnPlateau::new().mode(PlateauMode::Max);
/// # let _ = scheduler;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlateauMode {
    /// Less, as of a loss.
    #[default]
    Min,
    /// More, as of an accuracy.
    Max,
}

/// By how much a metric must be better: relative to the best one, or by itself.
///
/// ```
/// use wgrad::optim::schedule::{ReduceLrOnPlateau, ThresholdMode};
///
/// let scheduler = ReduceLrOnPlateau::new().threshold_mode(ThresholdMode::Abs).threshold(0.01);
/// # let _ = scheduler;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThresholdMode {
    /// A part of the best one.
    #[default]
    Rel,
    /// The threshold itself.
    Abs,
}

/// What a [`ReduceLrOnPlateau`] remembers.
///
/// ```
/// use wgrad::optim::schedule::ReduceLrOnPlateau;
///
/// assert_eq!(ReduceLrOnPlateau::new().state_dict().best, f64::INFINITY);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// How many metrics it was given.
    pub last_epoch: usize,
    /// The best one.
    pub best: f64,
    /// For how many steps it still waits after a fall.
    pub cooldown_counter: usize,
    /// How many metrics in a row were not better.
    pub num_bad_epochs: usize,
}

/// Lowers the rate where a metric has not become better for some steps; `ReduceLROnPlateau`.
///
/// ```
/// use wgrad::optim::schedule::ReduceLrOnPlateau;
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(1.0))?;
/// let mut scheduler = ReduceLrOnPlateau::new().factor(0.5).patience(1);
/// for loss in [3.0, 2.0, 2.0, 2.0] {
///     scheduler.step(&mut optimizer, loss)?;
/// }
/// assert_eq!(optimizer.lr(0)?, 0.5);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReduceLrOnPlateau {
    mode: PlateauMode,
    factor: f64,
    patience: usize,
    threshold: f64,
    threshold_mode: ThresholdMode,
    cooldown: usize,
    min_lr: PerGroup,
    eps: f64,
    state: PlateauState,
}

impl Default for ReduceLrOnPlateau {
    fn default() -> Self {
        Self::new()
    }
}

/// Builders with an example each.
macro_rules! builders {
    ($($(#[$doc:meta])* $field:ident: $Type:ty, example $example:literal;)*) => {
        $(
            $(#[$doc])*
            ///
            #[doc = concat!("```\nlet scheduler = wgrad::optim::schedule::ReduceLrOnPlateau::new().",
                stringify!($field), "(", $example, ");\n# let _ = scheduler;\n```")]
            pub fn $field(mut self, $field: $Type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

impl ReduceLrOnPlateau {
    /// With PyTorch's defaults.
    pub fn new() -> ReduceLrOnPlateau {
        ReduceLrOnPlateau {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: PerGroup::All(0.0),
            eps: 1e-8,
            state: PlateauState {
                last_epoch: 0,
                best: f64::INFINITY,
                cooldown_counter: 0,
                num_bad_epochs: 0,
            },
        }
    }

    /// What is better; less.
    ///
    /// ```
    /// use wgrad::optim::schedule::{PlateauMode, ReduceLrOnPlateau};
    ///
    /// assert_eq!(ReduceLrOnPlateau::new().mode(PlateauMode::Max).state_dict().best, f64::NEG_INFINITY);
    /// ```
    pub fn mode(mut self, mode: PlateauMode) -> Self {
        self.mode = mode;
        self.state.best = match mode {
            PlateauMode::Min => f64::INFINITY,
            PlateauMode::Max => f64::NEG_INFINITY,
        };
        self
    }

    builders! {
        /// By which factor the rate falls, below 1; 0.1.
        factor: f64, example "0.5";
        /// For how many steps in a row it waits; 10.
        patience: usize, example "3";
        /// By how much a metric must be better to count; 0.0001.
        threshold: f64, example "0.01";
        /// What the threshold is relative to; the best metric.
        threshold_mode: ThresholdMode, example "wgrad::optim::schedule::ThresholdMode::Abs";
        /// For how many steps after a fall nothing is counted; 0.
        cooldown: usize, example "2";
        /// Rates that would fall by no more than this stay; 1e-8.
        eps: f64, example "1e-6";
    }

    /// The least rate, of all groups or of each; 0.
    ///
    /// ```
    /// let scheduler = wgrad::optim::schedule::ReduceLrOnPlateau::new().min_lr([1e-4, 1e-5]);
    /// # let _ = scheduler;
    /// ```
    pub fn min_lr(mut self, min_lr: impl Into<PerGroup>) -> Self {
        self.min_lr = min_lr.into();
        self
    }

    fn is_better(&self, metric: f64) -> bool {
        let PlateauState { best, .. } = self.state;
        match (self.mode, self.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - self.threshold),
            (PlateauMode::Min, ThresholdMode::Abs) => metric < best - self.threshold,
            (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (1.0 + self.threshold),
            (PlateauMode::Max, ThresholdMode::Abs) => metric > best + self.threshold,
        }
    }

    /// Takes the metric of a step, and lowers the rates if it is time.
    ///
    /// # Errors
    /// [`Argument`](wgrad_autograd::Error::Argument) for settings that make no sense.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer, metric: f64) -> Result<()> {
        const OP: &str = "ReduceLROnPlateau";
        let groups = optimizer.groups();
        not_negative(OP, "factor", self.factor)?;
        check(OP, self.factor < 1.0, || format!("factor is {}; it must be below 1", self.factor))?;
        self.min_lr.check(OP, "min_lr", groups)?;
        let mut state = PlateauState { last_epoch: self.state.last_epoch + 1, ..self.state };
        if self.is_better(metric) {
            (state.best, state.num_bad_epochs) = (metric, 0);
        } else {
            state.num_bad_epochs += 1;
        }
        if state.cooldown_counter > 0 {
            state.cooldown_counter -= 1;
            state.num_bad_epochs = 0;
        }
        if state.num_bad_epochs > self.patience {
            (state.cooldown_counter, state.num_bad_epochs) = (self.cooldown, 0);
            for group in 0..groups {
                let old = optimizer.lr(group)?;
                let new = (old * self.factor).max(self.min_lr.of(group));
                if old - new > self.eps {
                    optimizer.set_lr(group, new)?;
                }
            }
        }
        self.state = state;
        Ok(())
    }

    /// What it remembers, to go on later.
    pub fn state_dict(&self) -> PlateauState {
        self.state
    }

    /// Goes on from a saved state.
    ///
    /// ```
    /// use wgrad::optim::schedule::{PlateauState, ReduceLrOnPlateau};
    ///
    /// let mut scheduler = ReduceLrOnPlateau::new();
    /// let state = PlateauState { best: 0.5, ..scheduler.state_dict() };
    /// scheduler.load_state_dict(state);
    /// assert_eq!(scheduler.state_dict().best, 0.5);
    /// ```
    pub fn load_state_dict(&mut self, state: PlateauState) {
        self.state = state;
    }
}
