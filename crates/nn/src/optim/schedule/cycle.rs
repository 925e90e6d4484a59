//! Schedules that go up and down, and take the momentum the other way.

use std::f64::consts::PI;
use std::sync::Arc;

use wgrad_autograd::{Error, Result};

use super::{At, PerGroup, Schedule, schedule};
use crate::optim::setting::check;

/// Along which curve a rate goes from one number to another.
///
/// ```
/// use wgrad::optim::schedule::{Anneal, OneCycleLr};
///
/// let schedule = OneCycleLr::new(0.1, 100).anneal_strategy(Anneal::Linear);
/// # let _ = schedule;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anneal {
    /// Half a cosine.
    #[default]
    Cos,
    /// A line.
    Linear,
}

impl Anneal {
    fn between(self, start: f64, end: f64, part: f64) -> f64 {
        match self {
            Anneal::Cos => end + (start - end) / 2.0 * ((PI * part).cos() + 1.0),
            Anneal::Linear => (end - start) * part + start,
        }
    }
}

/// How high the peaks of [`CyclicLr`] are.
///
/// ```
/// use wgrad::optim::schedule::{CyclicLr, CyclicMode};
///
/// let schedule = CyclicLr::new(0.001, 0.1).mode(CyclicMode::Triangular2);
/// # let _ = schedule;
/// ```
#[derive(Clone, Default)]
pub enum CyclicMode {
    /// All as high.
    #[default]
    Triangular,
    /// Each half as high as the one before.
    Triangular2,
    /// By this factor lower with each step.
    ExpRange(f64),
    /// By a function of the number of the cycle, from 1 on, or of the step.
    Custom(ScaleBy, Arc<dyn Fn(f64) -> f64 + Send + Sync>),
}

/// What the function of [`CyclicMode::Custom`] is given.
///
/// ```
/// use std::sync::Arc;
/// use wgrad::optim::schedule::{CyclicLr, CyclicMode, ScaleBy};
///
/// let mode = CyclicMode::Custom(ScaleBy::Cycle, Arc::new(|cycle| 1.0 / cycle));
/// let schedule = CyclicLr::new(0.001, 0.1).mode(mode);
/// # let _ = schedule;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleBy {
    /// The number of the cycle, from 1 on.
    Cycle,
    /// The number of the step.
    Iterations,
}

/// Up and down between two rates, again and again, while the momentum goes the other way; `CyclicLR` (Smith
/// 2015, [arXiv 1506.01186](https://arxiv.org/abs/1506.01186)).
///
/// ```
/// use wgrad::optim::schedule::{CyclicLr, Schedule};
///
/// let schedule = CyclicLr::new(0.0, 1.0).step_size_up(2).step_size_down(1).cycle_momentum(false);
/// let rates = schedule.rates(1.0, 4)?;
/// for (rate, expected) in rates.iter().zip([0.0, 0.5, 1.0, 0.0]) {
///     assert!((rate - expected).abs() < 1e-12);
/// }
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct CyclicLr {
    base_lr: PerGroup,
    max_lr: PerGroup,
    step_size_up: usize,
    step_size_down: Option<usize>,
    mode: CyclicMode,
    cycle_momentum: bool,
    base_momentum: PerGroup,
    max_momentum: PerGroup,
}

impl CyclicLr {
    /// Between these rates, of all groups or of each, with PyTorch's defaults.
    pub fn new(base_lr: impl Into<PerGroup>, max_lr: impl Into<PerGroup>) -> CyclicLr {
        CyclicLr {
            base_lr: base_lr.into(),
            max_lr: max_lr.into(),
            step_size_up: 2000,
            step_size_down: None,
            mode: CyclicMode::default(),
            cycle_momentum: true,
            base_momentum: PerGroup::All(0.8),
            max_momentum: PerGroup::All(0.9),
        }
    }

    /// How many steps it takes up; 2000.
    ///
    /// ```
    /// let schedule = wgrad::optim::schedule::CyclicLr::new(0.001, 0.1).step_size_up(100);
    /// # let _ = schedule;
    /// ```
    pub fn step_size_up(mut self, steps: usize) -> Self {
        self.step_size_up = steps;
        self
    }

    /// How many steps it takes down; as many as up.
    ///
    /// ```
    /// let schedule = wgrad::optim::schedule::CyclicLr::new(0.001, 0.1).step_size_down(400);
    /// # let _ = schedule;
    /// ```
    pub fn step_size_down(mut self, steps: usize) -> Self {
        self.step_size_down = Some(steps);
        self
    }

    /// How high the peaks are; all as high.
    ///
    /// ```
    /// use wgrad::optim::schedule::{CyclicLr, CyclicMode};
    ///
    /// let schedule = CyclicLr::new(0.001, 0.1).mode(CyclicMode::ExpRange(0.999));
    /// # let _ = schedule;
    /// ```
    pub fn mode(mut self, mode: CyclicMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether the momentum goes the other way; on.
    ///
    /// ```
    /// let schedule = wgrad::optim::schedule::CyclicLr::new(0.001, 0.1).cycle_momentum(false);
    /// # let _ = schedule;
    /// ```
    pub fn cycle_momentum(mut self, cycles: bool) -> Self {
        self.cycle_momentum = cycles;
        self
    }

    /// The momentum at the highest rate; 0.8.
    ///
    /// ```
    /// let schedule = wgrad::optim::schedule::CyclicLr::new(0.001, 0.1).base_momentum(0.85);
    /// # let _ = schedule;
    /// ```
    pub fn base_momentum(mut self, momentum: impl Into<PerGroup>) -> Self {
        self.base_momentum = momentum.into();
        self
    }

    /// The momentum at the lowest rate; 0.9.
    ///
    /// ```
    /// let schedule = wgrad::optim::schedule::CyclicLr::new(0.001, 0.1).max_momentum(0.95);
    /// # let _ = schedule;
    /// ```
    pub fn max_momentum(mut self, momentum: impl Into<PerGroup>) -> Self {
        self.max_momentum = momentum.into();
        self
    }

    /// How far from the base it is at a step, relative to the highest peak.
    fn height(&self, epoch: usize) -> f64 {
        let (up, down) = (self.step_size_up as f64, self.step_size_down.unwrap_or(self.step_size_up) as f64);
        let (total, epoch) = (up + down, epoch as f64);
        let ratio = up / total;
        let cycle = (1.0 + epoch / total).floor();
        let x = 1.0 + epoch / total - cycle;
        let height = if x <= ratio { x / ratio } else { (x - 1.0) / (ratio - 1.0) };
        let scale = match &self.mode {
            CyclicMode::Triangular => 1.0,
            CyclicMode::Triangular2 => 1.0 / 2f64.powf(cycle - 1.0),
            CyclicMode::ExpRange(gamma) => gamma.powf(epoch),
            CyclicMode::Custom(ScaleBy::Cycle, function) => function(cycle),
            CyclicMode::Custom(ScaleBy::Iterations, function) => function(epoch),
        };
        height * scale
    }
}

impl Schedule for CyclicLr {
    fn lr(&self, at: &At) -> Result<f64> {
        let (base, max) = (self.base_lr.of(at.group), self.max_lr.of(at.group));
        Ok(base + (max - base) * self.height(at.epoch))
    }

    fn momentum(&self, at: &At) -> Result<Option<f64>> {
        let (base, max) = (self.base_momentum.of(at.group), self.max_momentum.of(at.group));
        Ok(self.cycle_momentum.then(|| max - (max - base) * self.height(at.epoch)))
    }

    fn check(&self, groups: usize) -> Result<()> {
        const OP: &str = "CyclicLR";
        self.base_lr.check(OP, "base_lr", groups)?;
        self.max_lr.check(OP, "max_lr", groups)?;
        self.base_momentum.check(OP, "base_momentum", groups)?;
        self.max_momentum.check(OP, "max_momentum", groups)?;
        check(OP, self.step_size_up > 0, || "step_size_up is 0; it must be at least 1".to_owned())
    }
}

schedule! {
    /// Up to a rate once, then down to next to nothing, while the momentum goes the other way; `OneCycleLR`
    /// (Smith and Topin 2017, [arXiv 1708.07120](https://arxiv.org/abs/1708.07120)).
    ///
    /// ```
    /// use wgrad::optim::schedule::{OneCycleLr, Schedule};
    ///
    /// let rates = OneCycleLr::new(1.0, 10).rates(0.1, 10)?;
    /// assert!((rates[0] - 1.0 / 25.0).abs() < 1e-12 && rates[2] == 1.0 && rates[9] < 1e-5);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    OneCycleLr(
        /// The highest rate, of all groups or of each.
        max_lr: PerGroup, from impl Into<PerGroup>;
        /// How many steps there are.
        total_steps: usize, from usize;
    ), example "0.1, 100" {
        /// Which part of the steps goes up; 0.3.
        pct_start: f64, from f64, default 0.3, example "0.1";
        /// Along which curve; a cosine.
        anneal_strategy: Anneal, from Anneal, default Anneal::Cos, example "Anneal::Linear";
        /// Whether the momentum goes the other way; on.
        cycle_momentum: bool, from bool, default true, example "false";
        /// The momentum at the highest rate; 0.85.
        base_momentum: PerGroup, from impl Into<PerGroup>, default PerGroup::All(0.85), example "0.8";
        /// The momentum at the lowest rate; 0.95.
        max_momentum: PerGroup, from impl Into<PerGroup>, default PerGroup::All(0.95), example "0.9";
        /// By how much the first rate is lower than the highest; 25.
        div_factor: f64, from f64, default 25.0, example "10.0";
        /// By how much the last rate is lower than the first; 10,000.
        final_div_factor: f64, from f64, default 1e4, example "100.0";
        /// Whether it goes down as fast as up, and to next to nothing only after that; off.
        three_phase: bool, from bool, default false, example "true";
    }
}

impl OneCycleLr {
    /// Of the phase that a step is in: the rates and momenta at its ends, and which part of it is over. Rates
    /// are 0 for the first, 1 for the highest and 2 for the last; momenta 0 for the least.
    fn phase(&self, epoch: usize) -> Result<([usize; 2], [usize; 2], f64)> {
        let total = self.total_steps as f64;
        let step = epoch as f64;
        if epoch > self.total_steps {
            let reason = format!("step {epoch} is asked for; there are {}", self.total_steps);
            return Err(Error::Argument { op: "OneCycleLR", reason });
        }
        let peak = self.pct_start * total - 1.0;
        let phases: &[(f64, [usize; 2], [usize; 2])] = if self.three_phase {
            let back = 2.0 * self.pct_start * total - 2.0;
            &[(peak, [0, 1], [1, 0]), (back, [1, 0], [0, 1]), (total - 1.0, [0, 2], [1, 1])]
        } else {
            &[(peak, [0, 1], [1, 0]), (total - 1.0, [1, 2], [0, 1])]
        };
        let mut start = 0.0;
        let mut found = ([0, 0], [1, 1], 0.0);
        for &(end, rates, momenta) in phases {
            found = (rates, momenta, if end == start { 1.0 } else { (step - start) / (end - start) });
            if step <= end {
                break;
            }
            start = end;
        }
        Ok(found)
    }
}

impl Schedule for OneCycleLr {
    fn lr(&self, at: &At) -> Result<f64> {
        let ([from, to], _, part) = self.phase(at.epoch)?;
        let max = self.max_lr.of(at.group);
        let first = max / self.div_factor;
        let rates = [first, max, first / self.final_div_factor];
        Ok(self.anneal_strategy.between(rates[from], rates[to], part))
    }

    fn momentum(&self, at: &At) -> Result<Option<f64>> {
        if !self.cycle_momentum {
            return Ok(None);
        }
        let (_, [from, to], part) = self.phase(at.epoch)?;
        let momenta = [self.base_momentum.of(at.group), self.max_momentum.of(at.group)];
        Ok(Some(self.anneal_strategy.between(momenta[from], momenta[to], part)))
    }

    fn check(&self, groups: usize) -> Result<()> {
        const OP: &str = "OneCycleLR";
        self.max_lr.check(OP, "max_lr", groups)?;
        self.base_momentum.check(OP, "base_momentum", groups)?;
        self.max_momentum.check(OP, "max_momentum", groups)?;
        check(OP, self.total_steps > 0, || "total_steps is 0; it must be at least 1".to_owned())?;
        check(OP, (0.0..=1.0).contains(&self.pct_start), || {
            format!("pct_start is {}; it must be from 0 to 1", self.pct_start)
        })?;
        check(OP, self.div_factor > 0.0 && self.final_div_factor > 0.0, || {
            format!(
                "div_factor is {} and final_div_factor is {}; both must be above 0",
                self.div_factor, self.final_div_factor
            )
        })
    }
}
