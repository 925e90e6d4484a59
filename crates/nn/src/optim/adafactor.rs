//! Adafactor.

use wgrad_autograd::{DType, Result, Tensor};

use super::rule::{Input, Output, Rule, decayed, shared};
use super::setting::{Setting, Typed, check, not_negative, settings};
use super::stepper::Stepper;

settings! {
    /// Settings of [`Adafactor`].
    AdafactorOptions of "Adafactor" {
        /// The largest rate relative to a parameter's size, and the rate of weight decay; 0.01.
        lr: f64 = 1e-2, example 0.001;
        /// The power of the number of steps by which gradients' squares enter their mean; -0.8.
        beta2_decay: f64 = -0.8, example -0.5;
        /// The least root of a mean of squares (`None`: the dtype's precision), and the least size of a
        /// parameter; `None` and 0.001.
        eps: Eps = Eps(None, 1e-3), example wgrad::optim::Eps(Some(1e-6), 1e-3);
        /// The largest size of an update, before the rate; 1.
        d: f64 = 1.0, example 2.0;
        /// Weight decay: each step shrinks a parameter by `lr * weight_decay` of it; 0.
        weight_decay: f64 = 0.0, example 0.01;
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// The two least sizes of [`AdafactorOptions`]: of the root of a mean of squares, by default the dtype's
/// precision, and of a parameter.
///
/// ```
/// use wgrad::optim::{AdafactorOptions, Eps};
///
/// assert_eq!(AdafactorOptions::new().eps, Eps(None, 1e-3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eps(pub Option<f64>, pub f64);

impl From<Eps> for Setting {
    fn from(eps: Eps) -> Setting {
        Setting::List(vec![eps.0.into(), eps.1.into()])
    }
}

impl Typed for Eps {
    const KIND: &'static str = "a list of a number or nothing, and a number";

    fn from_setting(setting: &Setting) -> Option<Eps> {
        let Setting::List(values) = setting else { return None };
        let [first, second] = values.as_slice() else { return None };
        Some(Eps(Typed::from_setting(first)?, second.as_f64()?))
    }
}

/// Adafactor, whose state of a matrix is a row and a column (Shazeer and Stern 2018, [arXiv
/// 1804.04235](https://arxiv.org/abs/1804.04235)), in the form of `torch.optim.Adafactor`.
///
/// ```
/// use wgrad::optim::{Adafactor, AdafactorOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([4, 3], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adafactor::new([("x", &x)], AdafactorOptions::new())?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// let saved = optimizer.state_dict()?;
/// assert_eq!(saved.state["x"]["row_var"].shape(), [4, 1]);
/// assert_eq!(saved.state["x"]["col_var"].shape(), [1, 3]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub type Adafactor = Stepper<AdafactorOptions>;

impl Rule for AdafactorOptions {
    fn check(&self) -> Result<()> {
        const OP: &str = "Adafactor";
        not_negative(OP, "lr", self.lr)?;
        check(OP, self.beta2_decay <= 0.0, || {
            format!("beta2_decay is {}; it must be at most 0", self.beta2_decay)
        })?;
        not_negative(OP, "the first eps", self.eps.0.unwrap_or(0.0))?;
        not_negative(OP, "the second eps", self.eps.1)?;
        check(OP, self.d >= 1.0, || format!("d is {}; it must be at least 1", self.d))?;
        not_negative(OP, "weight_decay", self.weight_decay)
    }

    fn maximize(&self) -> bool {
        self.maximize
    }

    /// How much of new squares enters the means, and the rate.
    fn factors(&self, _old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
        let [step] = shared(new)?;
        let weight = step.log()?.mul(self.beta2_decay)?.exp()?;
        Ok(vec![weight, step.rsqrt()?.clamp(None, self.lr)?])
    }

    fn slots(&self, param: &Tensor) -> &'static [&'static str] {
        if param.rank() > 1 { &["row_var", "col_var"] } else { &["variance"] }
    }

    fn begin(&self, slot: &'static str, param: &Tensor) -> Result<Tensor> {
        let mut shape = param.shape().to_vec();
        let rank = shape.len();
        match slot {
            "row_var" => shape[rank - 1] = 1,
            "col_var" => shape[rank - 2] = 1,
            _ => {}
        }
        Tensor::zeros(&shape[..], (param.dtype(), param.device()))
    }

    fn update(&self, input: &Input<'_>) -> Result<Output> {
        let (weight, rate) = (input.factor(0)?, input.factor(1)?);
        let enter = |old: &Tensor, new: Tensor| old.add(new.sub(old)?.mul(weight)?);
        let least = self.eps.0.unwrap_or(if input.param.dtype() == DType::F64 {
            f64::EPSILON
        } else {
            f64::from(f32::EPSILON)
        });
        let square = input.grad.mul(input.grad)?;
        let mut state = Vec::new();
        let variance = if input.param.rank() > 1 {
            let rows = enter(input.slot(0)?, square.mean_dim(-1, true)?)?;
            let columns = enter(input.slot(1)?, square.mean_dim(-2, true)?)?;
            let mean = rows.mean_dim(-2, true)?.clamp(least, None)?;
            let product = rows.mul(&columns)?.div(mean)?;
            state.extend([rows, columns]);
            product
        } else {
            let variance = enter(input.slot(0)?, square)?;
            state.push(variance.clone());
            variance
        };
        let way = variance.clamp(least * least, None)?.rsqrt()?.mul(input.grad)?;
        let clipped = root_mean_square(&way)?.mul(1.0 / self.d)?.clamp(1.0, None)?;
        let size = root_mean_square(input.param)?.clamp(self.eps.1, None)?;
        let param = decayed(input.param, self.lr, self.weight_decay)?;
        let param = param.sub(way.mul(size.mul(rate)?.div(clipped)?)?)?;
        Ok(Output { param, state })
    }
}

/// The root of the mean of squares.
fn root_mean_square(x: &Tensor) -> Result<Tensor> {
    x.mul(x)?.mean()?.sqrt()
}
