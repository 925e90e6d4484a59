//! Schedules that scale the rate by a function of the step.

use std::sync::Arc;

use wgrad_autograd::Result;

use super::{At, Schedule, schedule};
use crate::optim::setting::{check, not_negative};

/// A function of the step.
type Function = Arc<dyn Fn(usize) -> f64 + Send + Sync>;

/// One function for all groups, or one for each.
fn of_group(functions: &[Function], at: &At) -> f64 {
    let function = if functions.len() == 1 { functions.first() } else { functions.get(at.group) };
    function.map_or(f64::NAN, |function| function(at.epoch))
}

fn check_functions(op: &'static str, functions: &[Function], groups: usize) -> Result<()> {
    check(op, functions.len() == 1 || functions.len() == groups, || {
        format!("there are {} functions for {groups} groups; give one, or one for each", functions.len())
    })
}

/// The base rate times a function of the step; `LambdaLR`.
///
/// ```
/// use wgrad::optim::schedule::{LambdaLr, Schedule};
///
/// let schedule = LambdaLr::new(|step| 1.0 / (1.0 + step as f64));
/// assert_eq!(schedule.rates(1.0, 4)?, [1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct LambdaLr(Vec<Function>);

impl LambdaLr {
    /// With one function for all groups.
    pub fn new(function: impl Fn(usize) -> f64 + Send + Sync + 'static) -> LambdaLr {
        LambdaLr(vec![Arc::new(function)])
    }

    /// With another function for the next group: the first call's is the second group's.
    ///
    /// ```
    /// use wgrad::optim::schedule::LambdaLr;
    ///
    /// let schedule = LambdaLr::new(|step| 0.5f64.powi(step as i32)).for_next(|_| 1.0);
    /// # let _ = schedule;
    /// ```
    pub fn for_next(mut self, function: impl Fn(usize) -> f64 + Send + Sync + 'static) -> LambdaLr {
        self.0.push(Arc::new(function));
        self
    }
}

impl Schedule for LambdaLr {
    fn lr(&self, at: &At) -> Result<f64> {
        Ok(at.base * of_group(&self.0, at))
    }

    fn check(&self, groups: usize) -> Result<()> {
        check_functions("LambdaLR", &self.0, groups)
    }
}

/// The rate before times a function of the step; `MultiplicativeLR`.
///
/// ```
/// use wgrad::optim::schedule::{MultiplicativeLr, Schedule};
///
/// assert_eq!(MultiplicativeLr::new(|_| 0.5).rates(1.0, 3)?, [1.0, 0.5, 0.25]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct MultiplicativeLr(Vec<Function>);

impl MultiplicativeLr {
    /// With one function for all groups.
    pub fn new(function: impl Fn(usize) -> f64 + Send + Sync + 'static) -> MultiplicativeLr {
        MultiplicativeLr(vec![Arc::new(function)])
    }

    /// With another function for the next group: the first call's is the second group's.
    ///
    /// ```
    /// use wgrad::optim::schedule::MultiplicativeLr;
    ///
    /// let schedule = MultiplicativeLr::new(|_| 0.9).for_next(|_| 0.99);
    /// # let _ = schedule;
    /// ```
    pub fn for_next(mut self, function: impl Fn(usize) -> f64 + Send + Sync + 'static) -> MultiplicativeLr {
        self.0.push(Arc::new(function));
        self
    }
}

impl Schedule for MultiplicativeLr {
    fn lr(&self, at: &At) -> Result<f64> {
        Ok(if at.is_first { at.current } else { at.current * of_group(&self.0, at) })
    }

    fn check(&self, groups: usize) -> Result<()> {
        check_functions("MultiplicativeLR", &self.0, groups)
    }

    fn starts_from_base(&self) -> bool {
        false
    }
}

schedule! {
    /// A factor every so many steps; `StepLR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{Schedule, StepLr};
    ///
    /// assert_eq!(StepLr::new(3).rates(1.0, 4)?, [1.0, 1.0, 1.0, 0.1]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    StepLr(
        /// How many steps.
        step_size: usize, from usize;
    ), example "30" {
        /// The factor; 0.1.
        gamma: f64, from f64, default 0.1, example "0.5";
    }
}

impl Schedule for StepLr {
    fn lr(&self, at: &At) -> Result<f64> {
        let falls = at.epoch != 0 && at.epoch.is_multiple_of(self.step_size);
        Ok(if falls { at.current * self.gamma } else { at.current })
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        Ok(at.base * self.gamma.powf((epoch / self.step_size as f64).floor()))
    }

    fn check(&self, _groups: usize) -> Result<()> {
        check("StepLR", self.step_size > 0, || "step_size is 0; it must be at least 1".to_owned())
    }
}

schedule! {
    /// A factor at certain steps; `MultiStepLR`. A step that is named twice gets it twice.
    ///
    /// ```
    /// use wgrad::optim::schedule::{MultiStepLr, Schedule};
    ///
    /// assert_eq!(MultiStepLr::new([1, 3]).gamma(0.5).rates(1.0, 4)?, [1.0, 0.5, 0.5, 0.25]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    MultiStepLr(
        /// The steps.
        milestones: Vec<usize>, from impl Into<Vec<usize>>;
    ), example "[30, 80]" {
        /// The factor; 0.1.
        gamma: f64, from f64, default 0.1, example "0.5";
    }
}

impl Schedule for MultiStepLr {
    fn lr(&self, at: &At) -> Result<f64> {
        let count = self.milestones.iter().filter(|&&milestone| milestone == at.epoch).count();
        Ok(at.current * self.gamma.powf(count as f64))
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        let count = self.milestones.iter().filter(|&&milestone| milestone as f64 <= epoch).count();
        Ok(at.base * self.gamma.powf(count as f64))
    }
}

schedule! {
    /// A factor for the first steps; `ConstantLR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{ConstantLr, Schedule};
    ///
    /// assert_eq!(ConstantLr::new().factor(0.5).total_iters(2).rates(1.0, 4)?, [0.5, 0.5, 1.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ConstantLr(), example "" {
        /// The factor, from 0 to 1; 1/3.
        factor: f64, from f64, default 1.0 / 3.0, example "0.5";
        /// How many steps; 5.
        total_iters: usize, from usize, default 5, example "10";
    }
}

impl Schedule for ConstantLr {
    fn lr(&self, at: &At) -> Result<f64> {
        Ok(if at.epoch == 0 {
            at.current * self.factor
        } else if at.epoch == self.total_iters {
            at.current / self.factor
        } else {
            at.current
        })
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        Ok(if epoch >= self.total_iters as f64 { at.base } else { at.base * self.factor })
    }

    fn check(&self, _groups: usize) -> Result<()> {
        check("ConstantLR", (0.0..=1.0).contains(&self.factor), || {
            format!("factor is {}; it must be from 0 to 1", self.factor)
        })
    }
}

schedule! {
    /// A factor that goes evenly from one number to another in the first steps; `LinearLR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{LinearLr, Schedule};
    ///
    /// assert_eq!(LinearLr::new().start_factor(0.5).total_iters(2).rates(1.0, 4)?, [0.5, 0.75, 1.0, 1.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    LinearLr(), example "" {
        /// The first factor, above 0 and at most 1; 1/3.
        start_factor: f64, from f64, default 1.0 / 3.0, example "0.1";
        /// The last factor, from 0 to 1; 1.
        end_factor: f64, from f64, default 1.0, example "0.5";
        /// How many steps; 5.
        total_iters: usize, from usize, default 5, example "10";
    }
}

impl Schedule for LinearLr {
    fn lr(&self, at: &At) -> Result<f64> {
        if at.epoch == 0 {
            return Ok(at.current * self.start_factor);
        }
        if at.is_first || at.epoch > self.total_iters {
            return Ok(at.current);
        }
        let change = self.end_factor - self.start_factor;
        let before = self.total_iters as f64 * self.start_factor + (at.epoch as f64 - 1.0) * change;
        Ok(at.current * (1.0 + change / before))
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        let total = self.total_iters as f64;
        let part = if total == 0.0 { 1.0 } else { epoch.min(total) / total };
        Ok(at.base * (self.start_factor + (self.end_factor - self.start_factor) * part))
    }

    fn check(&self, _groups: usize) -> Result<()> {
        const OP: &str = "LinearLR";
        check(OP, self.start_factor > 0.0 && self.start_factor <= 1.0, || {
            format!("start_factor is {}; it must be above 0 and at most 1", self.start_factor)
        })?;
        check(OP, (0.0..=1.0).contains(&self.end_factor), || {
            format!("end_factor is {}; it must be from 0 to 1", self.end_factor)
        })
    }
}

schedule! {
    /// A factor in each step; `ExponentialLR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{ExponentialLr, Schedule};
    ///
    /// assert_eq!(ExponentialLr::new(0.5).rates(1.0, 3)?, [1.0, 0.5, 0.25]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ExponentialLr(
        /// The factor.
        gamma: f64, from f64;
    ), example "0.99" {}
}

impl Schedule for ExponentialLr {
    fn lr(&self, at: &At) -> Result<f64> {
        Ok(if at.is_first || at.epoch == 0 { at.current } else { at.current * self.gamma })
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        Ok(at.base * self.gamma.powf(epoch))
    }
}

schedule! {
    /// A power of the part of the steps that is left; `PolynomialLR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{PolynomialLr, Schedule};
    ///
    /// assert_eq!(PolynomialLr::new().total_iters(4).rates(1.0, 3)?, [1.0, 0.75, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    PolynomialLr(), example "" {
        /// After how many steps the rate is 0; 5.
        total_iters: usize, from usize, default 5, example "100";
        /// The power; 1.
        power: f64, from f64, default 1.0, example "2.0";
    }
}

impl Schedule for PolynomialLr {
    fn lr(&self, at: &At) -> Result<f64> {
        if at.is_first || at.epoch == 0 || at.epoch > self.total_iters {
            return Ok(at.current);
        }
        let left = |epoch: f64| 1.0 - epoch / self.total_iters as f64;
        let epoch = at.epoch as f64;
        Ok(at.current * (left(epoch) / left(epoch - 1.0)).powf(self.power))
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        let total = self.total_iters as f64;
        Ok(at.base * (1.0 - epoch.min(total) / total).powf(self.power))
    }

    fn check(&self, _groups: usize) -> Result<()> {
        not_negative("PolynomialLR", "power", self.power)
    }
}
