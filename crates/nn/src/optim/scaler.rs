//! Scaled losses, so that small gradients of halves do not become 0.
//!
//! Nothing is read: whether gradients are infinite or NaN is a tensor on the device, by which the optimiser's
//! step is skipped there and the scale changes.

use wgrad_autograd::{DType, Device, Error, Result, Tensor, no_grad};

use super::Optimizer;
use super::setting::{check, settings};

const OP: &str = "GradScaler";

settings! {
    /// Settings of [`GradScaler`](super::GradScaler).
    GradScalerOptions of "GradScaler" {
        /// The first scale; 65,536.
        init_scale: f64 = 65536.0, example 1024.0;
        /// By how much the scale grows after `growth_interval` good steps in a row; 2.
        growth_factor: f64 = 2.0, example 3.0;
        /// By how much it falls after a bad one; 0.5.
        backoff_factor: f64 = 0.5, example 0.25;
        /// After how many good steps in a row it grows; 2,000.
        growth_interval: usize = 2000, example 100;
        /// Whether it does anything at all; on.
        enabled: bool = true, example false;
    }
}

/// Scales losses, finds gradients that are infinite or NaN, skips steps with them, and adapts the scale;
/// `torch.amp.GradScaler`.
///
/// ```
/// use wgrad::optim::{GradScaler, GradScalerOptions, Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.1))?;
/// let mut scaler = GradScaler::new(GradScalerOptions::new().init_scale(1024.0))?;
/// for factor in [1.0, f64::INFINITY] {
///     optimizer.zero_grad();
///     let loss = x.mul(factor)?.sum()?;
///     scaler.scale(&loss)?.backward()?;
///     scaler.step(&mut optimizer)?;
///     scaler.update()?;
/// }
/// // The second step was skipped, and the scale halved.
/// assert_eq!((x.to_vec::<f32>()?[0], scaler.get_scale()?), (0.9, 512.0));
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct GradScaler {
    options: GradScalerOptions,
    /// The scale and how many good steps there were in a row, once there is a device.
    numbers: Option<[Tensor; 2]>,
    /// A state that was loaded before there was a device.
    start: [f64; 2],
    optimizers: Vec<Seen>,
}

/// An optimiser since the last update, known by its first parameter.
struct Seen {
    first: Tensor,
    is_bad: Tensor,
    has_stepped: bool,
}

/// What a [`GradScaler`] remembers, by PyTorch's names.
///
/// ```
/// use wgrad::optim::{GradScaler, GradScalerOptions};
///
/// let saved = GradScaler::new(GradScalerOptions::new())?.state_dict()?;
/// assert_eq!((saved.scale, saved.growth_tracker), (65536.0, 0));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GradScalerState {
    /// The scale.
    pub scale: f64,
    /// By how much it grows.
    pub growth_factor: f64,
    /// By how much it falls.
    pub backoff_factor: f64,
    /// After how many good steps in a row it grows.
    pub growth_interval: usize,
    /// How many good steps there were in a row; PyTorch's `_growth_tracker`.
    pub growth_tracker: usize,
}

impl GradScaler {
    /// A scaler with these settings.
    ///
    /// # Errors
    /// [`Error::Argument`] for a growth factor that is not above 1, or a backoff factor that is not below 1.
    pub fn new(options: GradScalerOptions) -> Result<GradScaler> {
        check(OP, options.growth_factor > 1.0, || {
            format!("growth_factor is {}; it must be above 1", options.growth_factor)
        })?;
        check(OP, options.backoff_factor < 1.0, || {
            format!("backoff_factor is {}; it must be below 1", options.backoff_factor)
        })?;
        check(OP, options.init_scale.is_finite(), || format!("init_scale is {}", options.init_scale))?;
        let start = [options.init_scale, 0.0];
        Ok(GradScaler { options, numbers: None, start, optimizers: Vec::new() })
    }

    /// The scale and the number of good steps, on a device.
    fn numbers(&mut self, device: &Device) -> Result<[Tensor; 2]> {
        if let Some(numbers) = &self.numbers {
            return Ok(numbers.clone());
        }
        let [scale, good] = self.start;
        let numbers =
            [Tensor::full((), scale, (DType::F32, device))?, Tensor::full((), good, (DType::F32, device))?];
        Ok(self.numbers.insert(numbers).clone())
    }

    /// The loss times the scale.
    ///
    /// # Errors
    /// If the device fails.
    pub fn scale(&mut self, loss: &Tensor) -> Result<Tensor> {
        if !self.options.enabled {
            return Ok(loss.clone());
        }
        let [scale, _] = self.numbers(loss.device())?;
        loss.mul(scale.to_device(loss.device())?)
    }

    /// Divides the gradients of an optimiser's parameters by the scale, to clip them for instance.
    /// [`GradScaler::step`] does it where this has not been called.
    ///
    /// ```
    /// use wgrad::optim::{GradScaler, GradScalerOptions, Optimizer, Sgd, SgdOptions, clip_grad_norm_};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
    /// let mut optimizer = Sgd::new([&x], SgdOptions::new())?;
    /// let mut scaler = GradScaler::new(GradScalerOptions::new())?;
    /// scaler.scale(&x.sum()?)?.backward()?;
    /// scaler.unscale_(&optimizer)?;
    /// assert_eq!(clip_grad_norm_([&x], 0.5)?.item::<f32>()?, 1.0);
    /// scaler.step(&mut optimizer)?;
    /// scaler.update()?;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if it was called since the last update, if no loss has been scaled, or if there
    /// are no gradients.
    pub fn unscale_(&mut self, optimizer: &dyn Optimizer) -> Result<()> {
        if !self.options.enabled {
            return Ok(());
        }
        let params = optimizer.parameters();
        let first = params.first().map(|(_, first)| first.clone());
        let first = first.ok_or_else(|| argument("the optimiser has no parameters"))?;
        check(OP, self.seen(&first).is_none(), || {
            "unscale_() or step() was called for this optimiser since the last update()".to_owned()
        })?;
        let Some([scale, _]) = &self.numbers else {
            return Err(argument("no loss has been scaled; call scale() before unscale_() and step()"));
        };
        no_grad(|| {
            let grads: Vec<Tensor> = params.iter().filter_map(|(_, param)| param.grad()).collect();
            let Some(at) = grads.first().map(|grad| grad.device().clone()) else {
                return Err(argument("no parameter of this optimiser has a gradient"));
            };
            let inverse = scale.reciprocal()?;
            let mut bad = Vec::new();
            let mut unscaled = Vec::new();
            for grad in &grads {
                bad.push(grad.isfinite()?.all()?.logical_not()?.to_device(&at)?);
                let wide = grad.to_dtype(super::rule::compute_dtype(grad.dtype()))?;
                unscaled.push(wide.mul(inverse.to_device(grad.device())?)?);
            }
            let is_bad = Tensor::stack(&bad.iter().collect::<Vec<_>>(), 0)?.any()?;
            for (grad, unscaled) in grads.iter().zip(&unscaled) {
                grad.copy_(unscaled)?;
            }
            self.optimizers.push(Seen { first, is_bad, has_stepped: false });
            Ok(())
        })
    }

    fn seen(&mut self, first: &Tensor) -> Option<&mut Seen> {
        self.optimizers.iter_mut().find(|seen| seen.first.is_same(first))
    }

    /// A step of the optimiser, which changes nothing if one of its gradients is infinite or NaN.
    ///
    /// # Errors
    /// [`Error::Argument`] if it was called since the last update; and as [`GradScaler::unscale_`] and
    /// [`Optimizer::step_unless`].
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        if !self.options.enabled {
            return optimizer.step();
        }
        let first = optimizer.parameters().into_iter().next().map(|(_, first)| first);
        let first = first.ok_or_else(|| argument("the optimiser has no parameters"))?;
        if self.seen(&first).is_none() {
            self.unscale_(optimizer)?;
        }
        let Some(seen) = self.seen(&first) else { return Err(argument("the optimiser was not seen")) };
        check(OP, !seen.has_stepped, || {
            "step() was called for this optimiser since the last update()".to_owned()
        })?;
        optimizer.step_unless(&seen.is_bad)?;
        seen.has_stepped = true;
        Ok(())
    }

    /// Adapts the scale to what the steps since the last update have met.
    ///
    /// # Errors
    /// [`Error::Argument`] if there was no step.
    pub fn update(&mut self) -> Result<()> {
        if !self.options.enabled {
            return Ok(());
        }
        let Some([scale, good]) = &self.numbers else { return Err(argument("no loss has been scaled")) };
        check(OP, !self.optimizers.is_empty(), || {
            "no gradients were looked at since the last update(); call step() before it".to_owned()
        })?;
        let GradScalerOptions { growth_factor, backoff_factor, growth_interval, .. } = self.options;
        no_grad(|| {
            let bad = self.optimizers.iter().map(|seen| seen.is_bad.to_device(scale.device()));
            let bad = bad.collect::<Result<Vec<_>>>()?;
            let is_bad = Tensor::stack(&bad.iter().collect::<Vec<_>>(), 0)?.any()?;
            let count = good.add(1.0)?;
            let is_due = count.ge(growth_interval as f64)?;
            let grown = scale.mul(growth_factor)?;
            let grown = grown.isfinite()?.where_cond(&grown, scale)?;
            let calm = is_due.where_cond(grown, scale)?;
            let new_scale = is_bad.where_cond(scale.mul(backoff_factor)?, calm)?;
            let new_good = count.masked_fill(&is_due.logical_or(&is_bad)?, 0.0)?;
            scale.copy_(&new_scale)?;
            good.copy_(&new_good)?;
            Ok::<(), Error>(())
        })?;
        self.optimizers.clear();
        Ok(())
    }

    /// Ends the steps since the last update with this scale; `update(new_scale)`.
    ///
    /// ```
    /// use wgrad::optim::{GradScaler, GradScalerOptions};
    ///
    /// let mut scaler = GradScaler::new(GradScalerOptions::new())?;
    /// scaler.update_to(512.0)?;
    /// assert_eq!(scaler.get_scale()?, 512.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for a scale that is infinite or NaN.
    pub fn update_to(&mut self, scale: f64) -> Result<()> {
        check(OP, scale.is_finite(), || format!("the scale is {scale}"))?;
        if !self.options.enabled {
            return Ok(());
        }
        match &self.numbers {
            Some([number, _]) => drop(no_grad(|| number.fill_(scale))?),
            None => self.start[0] = scale,
        }
        self.optimizers.clear();
        Ok(())
    }

    /// The scale, which is read from the device; 1 if the scaler does nothing.
    ///
    /// # Errors
    /// If the device fails.
    pub fn get_scale(&self) -> Result<f64> {
        if self.options.enabled { Ok(self.read()?[0]) } else { Ok(1.0) }
    }

    /// How many good steps there were in a row, read from the device; 0 if the scaler does nothing.
    ///
    /// ```
    /// use wgrad::optim::{GradScaler, GradScalerOptions};
    ///
    /// assert_eq!(GradScaler::new(GradScalerOptions::new())?.growth_tracker()?, 0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device fails.
    pub fn growth_tracker(&self) -> Result<usize> {
        if self.options.enabled { Ok(self.read()?[1] as usize) } else { Ok(0) }
    }

    fn read(&self) -> Result<[f64; 2]> {
        let Some([scale, good]) = &self.numbers else { return Ok(self.start) };
        let values = Tensor::stack(&[scale, good], 0)?.to_vec::<f32>()?;
        match values.as_slice() {
            [scale, good] => Ok([f64::from(*scale), f64::from(*good)]),
            _ => Err(argument("the scale was lost")),
        }
    }

    /// What it remembers, read from the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn state_dict(&self) -> Result<GradScalerState> {
        let [scale, good] = self.read()?;
        let GradScalerOptions { growth_factor, backoff_factor, growth_interval, .. } = self.options;
        Ok(GradScalerState {
            scale,
            growth_factor,
            backoff_factor,
            growth_interval,
            growth_tracker: good as usize,
        })
    }

    /// Goes on from a saved state.
    ///
    /// ```
    /// use wgrad::optim::{GradScaler, GradScalerOptions};
    ///
    /// let saved = GradScaler::new(GradScalerOptions::new().init_scale(8.0))?.state_dict()?;
    /// let mut scaler = GradScaler::new(GradScalerOptions::new())?;
    /// scaler.load_state_dict(&saved)?;
    /// assert_eq!(scaler.get_scale()?, 8.0);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`GradScaler::new`]; nothing is changed then.
    pub fn load_state_dict(&mut self, state: &GradScalerState) -> Result<()> {
        let options = GradScalerOptions {
            init_scale: state.scale,
            growth_factor: state.growth_factor,
            backoff_factor: state.backoff_factor,
            growth_interval: state.growth_interval,
            enabled: self.options.enabled,
        };
        let start = [state.scale, state.growth_tracker as f64];
        *self = GradScaler { start, ..GradScaler::new(options)? };
        Ok(())
    }
}

fn argument(reason: &str) -> Error {
    Error::Argument { op: OP, reason: reason.to_owned() }
}
