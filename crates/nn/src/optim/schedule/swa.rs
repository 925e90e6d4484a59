//! The rate for averaged weights.

use std::f64::consts::PI;

use wgrad_autograd::Result;

use super::{Anneal, At, PerGroup, Schedule, schedule};

schedule! {
    /// From the rate that is there to another one, which then stays; `torch.optim.swa_utils.SWALR`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{Anneal, Schedule, SwaLr};
    ///
    /// let schedule = SwaLr::new(0.5).anneal_epochs(2).anneal_strategy(Anneal::Linear);
    /// assert_eq!(schedule.rates(1.0, 4)?, [1.0, 0.75, 0.5, 0.5]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    SwaLr(
        /// The rate, of all groups or of each.
        swa_lr: PerGroup, from impl Into<PerGroup>;
    ), example "0.05" {
        /// How many steps it takes; 10.
        anneal_epochs: usize, from usize, default 10, example "5";
        /// Along which curve; a cosine.
        anneal_strategy: Anneal, from Anneal, default Anneal::Cos, example "Anneal::Linear";
    }
}

impl SwaLr {
    fn part(&self, step: f64) -> f64 {
        let time = (step / self.anneal_epochs.max(1) as f64).clamp(0.0, 1.0);
        match self.anneal_strategy {
            Anneal::Cos => (1.0 - (PI * time).cos()) / 2.0,
            Anneal::Linear => time,
        }
    }
}

impl Schedule for SwaLr {
    fn lr(&self, at: &At) -> Result<f64> {
        let step = if self.anneal_epochs == 0 { at.epoch.max(1) } else { at.epoch } as f64;
        let target = self.swa_lr.of(at.group);
        // The rate that was there at first follows from the one of the step before.
        let before = self.part(step - 1.0);
        let first = if before == 1.0 { target } else { (at.current - before * target) / (1.0 - before) };
        let part = self.part(step);
        Ok(target * part + first * (1.0 - part))
    }

    fn check(&self, groups: usize) -> Result<()> {
        self.swa_lr.check("SWALR", "swa_lr", groups)
    }

    fn starts_from_base(&self) -> bool {
        false
    }
}
