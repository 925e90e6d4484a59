//! Schedules along a cosine.

use std::f64::consts::PI;

use wgrad_autograd::Result;

use super::{At, Schedule, schedule};
use crate::optim::setting::check;

schedule! {
    /// Down half a cosine, and up again after that; `CosineAnnealingLR` (Loshchilov and Hutter 2016,
    /// [arXiv 1608.03983](https://arxiv.org/abs/1608.03983), without restarts).
    ///
    /// `eta_min + (base - eta_min) * (1 + cos(pi * t / t_max)) / 2`, in a form that chains: each step scales
    /// the distance from `eta_min`.
    ///
    /// ```
    /// use wgrad::optim::schedule::{CosineAnnealingLr, Schedule};
    ///
    /// let rates = CosineAnnealingLr::new(4).rates(1.0, 5)?;
    /// assert!((rates[2] - 0.5).abs() < 1e-12 && rates[4].abs() < 1e-12);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    CosineAnnealingLr(
        /// How many steps it takes down.
        t_max: usize, from usize;
    ), example "100" {
        /// The least rate; 0.
        eta_min: f64, from f64, default 0.0, example "1e-5";
    }
}

impl Schedule for CosineAnnealingLr {
    fn lr(&self, at: &At) -> Result<f64> {
        if at.is_first || at.epoch == 0 {
            return Ok(at.current);
        }
        let (epoch, half) = (at.epoch as f64, self.t_max as f64);
        let begins_to_rise =
            (at.epoch - 1) >= self.t_max && (at.epoch - 1 - self.t_max).is_multiple_of(2 * self.t_max);
        if begins_to_rise {
            return Ok(at.current + (at.base - self.eta_min) * (1.0 - (PI / half).cos()) / 2.0);
        }
        let height = |epoch: f64| 1.0 + (PI * epoch / half).cos();
        Ok(height(epoch) / height(epoch - 1.0) * (at.current - self.eta_min) + self.eta_min)
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        let height = (1.0 + (PI * epoch / self.t_max as f64).cos()) / 2.0;
        Ok(self.eta_min + (at.base - self.eta_min) * height)
    }

    fn check(&self, _groups: usize) -> Result<()> {
        check("CosineAnnealingLR", self.t_max > 0, || "t_max is 0; it must be at least 1".to_owned())
    }
}

schedule! {
    /// Down half a cosine again and again; `CosineAnnealingWarmRestarts` (Loshchilov and Hutter 2016,
    /// [arXiv 1608.03983](https://arxiv.org/abs/1608.03983)).
    ///
    /// ```
    /// use wgrad::optim::schedule::{CosineAnnealingWarmRestarts, Schedule};
    ///
    /// let rates = CosineAnnealingWarmRestarts::new(2).t_mult(2).rates(1.0, 7)?;
    /// assert_eq!((rates[0], rates[2], rates[6]), (1.0, 1.0, 1.0));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    CosineAnnealingWarmRestarts(
        /// How many steps it takes down the first time.
        t_0: usize, from usize;
    ), example "10" {
        /// By how much longer it takes each time; 1.
        t_mult: usize, from usize, default 1, example "2";
        /// The least rate; 0.
        eta_min: f64, from f64, default 0.0, example "1e-5";
    }
}

impl CosineAnnealingWarmRestarts {
    fn height(&self, place: f64, length: f64, at: &At) -> f64 {
        self.eta_min + (at.base - self.eta_min) * (1.0 + (PI * place / length).cos()) / 2.0
    }
}

impl Schedule for CosineAnnealingWarmRestarts {
    fn lr(&self, at: &At) -> Result<f64> {
        let (mut place, mut length) = (at.epoch, self.t_0);
        if self.t_mult == 1 {
            place %= length;
        } else {
            while place >= length {
                place -= length;
                length = length.saturating_mul(self.t_mult);
            }
        }
        Ok(self.height(place as f64, length as f64, at))
    }

    fn lr_at(&self, epoch: f64, at: &At) -> Result<f64> {
        let (first, times) = (self.t_0 as f64, self.t_mult as f64);
        if epoch < first {
            return Ok(self.height(epoch, first, at));
        }
        if self.t_mult == 1 {
            return Ok(self.height(epoch % first, first, at));
        }
        let round = ((epoch / first * (times - 1.0) + 1.0).ln() / times.ln()).floor();
        let before = first * (times.powf(round) - 1.0) / (times - 1.0);
        Ok(self.height(epoch - before, first * times.powf(round), at))
    }

    fn check(&self, _groups: usize) -> Result<()> {
        check("CosineAnnealingWarmRestarts", self.t_0 > 0 && self.t_mult > 0, || {
            format!("t_0 is {} and t_mult is {}; both must be at least 1", self.t_0, self.t_mult)
        })
    }
}
