//! Schedules of schedules.

use wgrad_autograd::Result;

use super::{At, Schedule};
use crate::optim::setting::check;

/// Schedules one after the other; `SequentialLR`. Each begins at its own step 0, with the base rate.
///
/// ```
/// use wgrad::optim::schedule::{ConstantLr, ExponentialLr, Schedule, SequentialLr};
///
/// let schedule = SequentialLr::new(
///     vec![Box::new(ConstantLr::new().factor(0.1)), Box::new(ExponentialLr::new(0.5))],
///     vec![2],
/// );
/// assert_eq!(schedule.rates(1.0, 4)?, [0.1, 0.1, 1.0, 0.5]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct SequentialLr {
    schedules: Vec<Box<dyn Schedule>>,
    milestones: Vec<usize>,
}

impl SequentialLr {
    /// These schedules; all but the first begin at the milestones.
    pub fn new(schedules: Vec<Box<dyn Schedule>>, milestones: Vec<usize>) -> SequentialLr {
        SequentialLr { schedules, milestones }
    }

    /// With one more, from this step on.
    ///
    /// ```
    /// use wgrad::optim::schedule::{ConstantLr, ExponentialLr, LinearLr, Schedule};
    ///
    /// let flat = ConstantLr::new().factor(1.0);
    /// let schedule = LinearLr::new().then(5, flat).then_at(20, ExponentialLr::new(0.9));
    /// assert_eq!(schedule.rates(1.0, 21)?[20], 1.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn then_at(mut self, milestone: usize, next: impl Schedule + 'static) -> SequentialLr {
        self.schedules.push(Box::new(next));
        self.milestones.push(milestone);
        self
    }

    /// The schedule of a step, and what it is asked.
    fn at(&self, at: &At) -> Option<(&dyn Schedule, At)> {
        let place = self.milestones.iter().filter(|&&milestone| milestone <= at.epoch).count();
        let schedule = self.schedules.get(place)?;
        let begin = place.checked_sub(1).and_then(|before| self.milestones.get(before)).copied().unwrap_or(0);
        let epoch = at.epoch - begin;
        let starts = at.is_first || (place > 0 && epoch == 0);
        let current = if starts && schedule.starts_from_base() { at.base } else { at.current };
        Some((&**schedule, At { epoch, current, ..*at }))
    }
}

impl Schedule for SequentialLr {
    fn lr(&self, at: &At) -> Result<f64> {
        self.at(at).map_or(Ok(at.current), |(schedule, at)| schedule.lr(&at))
    }

    fn momentum(&self, at: &At) -> Result<Option<f64>> {
        self.at(at).map_or(Ok(None), |(schedule, at)| schedule.momentum(&at))
    }

    fn check(&self, groups: usize) -> Result<()> {
        let (count, milestones) = (self.schedules.len(), &self.milestones);
        check("SequentialLR", count == milestones.len() + 1, || {
            format!("there are {count} schedules and {} milestones; there must be one less", milestones.len())
        })?;
        check("SequentialLR", milestones.is_sorted(), || {
            format!("milestones {milestones:?} are not in order")
        })?;
        self.schedules.iter().try_for_each(|schedule| schedule.check(groups))
    }
}

/// Schedules applied one to what the other gives; `ChainedScheduler`.
///
/// ```
/// use wgrad::optim::schedule::{ChainedScheduler, ConstantLr, ExponentialLr, Schedule};
///
/// let schedule = ChainedScheduler::new(vec![
///     Box::new(ConstantLr::new().factor(0.5).total_iters(2)),
///     Box::new(ExponentialLr::new(0.5)),
/// ]);
/// assert_eq!(schedule.rates(1.0, 3)?, [0.5, 0.25, 0.25]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct ChainedScheduler(Vec<Box<dyn Schedule>>);

impl ChainedScheduler {
    /// These schedules, the first one first.
    pub fn new(schedules: Vec<Box<dyn Schedule>>) -> ChainedScheduler {
        ChainedScheduler(schedules)
    }
}

impl Schedule for ChainedScheduler {
    fn lr(&self, at: &At) -> Result<f64> {
        self.0.iter().try_fold(at.current, |current, schedule| schedule.lr(&At { current, ..*at }))
    }

    fn momentum(&self, at: &At) -> Result<Option<f64>> {
        let mut found = None;
        for schedule in &self.0 {
            found = schedule.momentum(at)?.or(found);
        }
        Ok(found)
    }

    fn check(&self, groups: usize) -> Result<()> {
        check("ChainedScheduler", !self.0.is_empty(), || "there are no schedules".to_owned())?;
        self.0.iter().try_for_each(|schedule| schedule.check(groups))
    }
}
