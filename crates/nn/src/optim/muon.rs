//! Muon.

use wgrad_autograd::{Result, Tensor};

use super::rule::{Input, Output, Rule, Shared, decayed, toward};
use super::setting::{Setting, Typed, check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Muon`].
    MuonOptions of "Muon" {
        /// The learning rate; 0.001.
        lr: f64 = 1e-3, example 0.02;
        /// Weight decay: each step shrinks a parameter by `lr * weight_decay` of it; 0.1.
        weight_decay: f64 = 0.1, example 0.0;
        /// How much of the mean of gradients stays in each step; 0.95.
        momentum: f64 = 0.95, example 0.9;
        /// Nesterov's momentum; on.
        nesterov: bool = true, example false;
        /// The coefficients of the Newton-Schulz iteration; 3.4445, -4.775 and 2.0315.
        ns_coefficients: [f64; 3] = [3.4445, -4.7750, 2.0315], example [3.0, -3.2, 1.2];
        /// The least norm that a matrix is divided by; 1e-7.
        eps: f64 = 1e-7, example 1e-6;
        /// How many iterations; 5. At most 99.
        ns_steps: usize = 5, example 6;
        /// How the rate depends on a matrix's shape; `None`, which is [`AdjustLr::Original`].
        adjust_lr_fn: Option<AdjustLr> = None, example Some(wgrad::optim::AdjustLr::MatchRmsAdamW);
    }
}

/// How [`Muon`]'s rate depends on a matrix of `rows` and `columns`.
///
/// ```
/// use wgrad::optim::{AdjustLr, MuonOptions};
///
/// let options = MuonOptions::new().adjust_lr_fn(Some(AdjustLr::MatchRmsAdamW));
/// assert_eq!(options.adjust_lr_fn, Some(AdjustLr::MatchRmsAdamW));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdjustLr {
    /// `sqrt(max(1, rows / columns))`.
    #[default]
    Original,
    /// `0.2 * sqrt(max(rows, columns))`: updates are as large as AdamW's.
    MatchRmsAdamW,
    /// `sqrt(rows / columns)`.
    SpectralUnclamped,
}

impl AdjustLr {
    fn factor(self, rows: f64, columns: f64) -> f64 {
        match self {
            AdjustLr::Original => (rows / columns).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
            AdjustLr::SpectralUnclamped => (rows / columns).sqrt(),
        }
    }
}

impl From<AdjustLr> for Setting {
    fn from(adjust: AdjustLr) -> Setting {
        let name = match adjust {
            AdjustLr::Original => "original",
            AdjustLr::MatchRmsAdamW => "match_rms_adamw",
            AdjustLr::SpectralUnclamped => "spectral_unclamped",
        };
        Setting::Text(name.to_owned())
    }
}

impl Typed for AdjustLr {
    const KIND: &'static str = "original, match_rms_adamw, spectral_unclamped or nothing";

    fn from_setting(setting: &Setting) -> Option<AdjustLr> {
        let Setting::Text(name) = setting else { return None };
        match name.as_str() {
            "original" => Some(AdjustLr::Original),
            "match_rms_adamw" => Some(AdjustLr::MatchRmsAdamW),
            "spectral_unclamped" => Some(AdjustLr::SpectralUnclamped),
            _ => None,
        }
    }
}

/// Muon, for matrices inside of a network: steps whose directions are all about as long (Jordan et al. 2024,
/// [kellerjordan.github.io/posts/muon](https://kellerjordan.github.io/posts/muon/)); `torch.optim.Muon`.
///
/// The mean of gradients is brought near to an orthogonal matrix by the Newton-Schulz iteration `x = a * x +
/// (b * s + c * s^2) * x` with `s = x * x^T`. It is computed in the parameter's precision (halves in f32),
/// where PyTorch rounds to bfloat16. Other parameters than matrices, and those at a network's ends, are
/// better left to another optimiser.
///
/// ```
/// use wgrad::optim::{Muon, MuonOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([4, 3], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Muon::new([&x], MuonOptions::new())?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert!(x.max()?.item::<f32>()? < 1.0);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Muon = Stepper<MuonOptions>;

impl MuonOptions {
    /// A matrix near to orthogonal, with the directions of this one.
    fn orthogonal(&self, x: &Tensor) -> Result<Tensor> {
        let is_tall = x.size(0)? > x.size(1)?;
        let mut x = if is_tall { x.t()? } else { x.clone() };
        x = x.div(x.mul(&x)?.sum()?.sqrt()?.clamp(self.eps, None)?)?;
        let [a, b, c] = self.ns_coefficients;
        for _ in 0..self.ns_steps {
            let gram = x.matmul(&x.t()?)?;
            let change = gram.mul(b)?.add(gram.matmul(&gram)?.mul(c)?)?;
            x = x.mul(a)?.add(change.matmul(&x)?)?;
        }
        if is_tall { x.t() } else { Ok(x) }
    }
}

impl Rule for MuonOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "Muon";
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "momentum", self.momentum)?;
        not_negative(OP, "weight_decay", self.weight_decay)?;
        not_negative(OP, "eps", self.eps)?;
        check(OP, self.ns_coefficients.iter().all(|number| number.is_finite()), || {
            format!("ns_coefficients is {:?}", self.ns_coefficients)
        })?;
        check(OP, self.ns_steps < 100, || format!("ns_steps is {}; it must be below 100", self.ns_steps))
    }

    fn check_param(&self, path: &str, param: &Tensor) -> Result<()> {
        check("Muon", param.rank() == 2, || {
            format!("{path} has shape {:?}; only matrices can be orthogonal", param.shape())
        })
    }

    fn maximize(&self) -> bool {
        false
    }

    fn shared(&self) -> Shared {
        Shared::none()
    }

    fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let mean = toward(input.slot(0)?, input.grad, 1.0 - self.momentum)?;
        let way = if self.nesterov { toward(input.grad, &mean, self.momentum)? } else { mean.clone() };
        let (rows, columns) = (input.param.size(0)? as f64, input.param.size(1)? as f64);
        let rate = self.lr * self.adjust_lr_fn.unwrap_or_default().factor(rows, columns);
        let param = decayed(input.param, self.lr, self.weight_decay)?;
        Ok(Output { param: param.sub(self.orthogonal(&way)?.mul(rate)?)?, state: vec![mean] })
    }
}
