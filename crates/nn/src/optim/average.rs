//! Averages of weights over steps.

use wgrad_autograd::{Error, Result, Tensor, no_grad};

use super::parameters::{self, Parameter};
use super::rule::compute_dtype;
use super::setting::check;
use crate::module::{Kind, Module};

const OP: &str = "AveragedModel";

/// Which average.
///
/// ```
/// use wgrad::optim::Average;
///
/// assert_eq!(Average::default(), Average::Equal);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Average {
    /// All updates count the same (stochastic weight averaging; Izmailov et al. 2018, [arXiv
    /// 1803.05407](https://arxiv.org/abs/1803.05407)).
    #[default]
    Equal,
    /// So much of the average stays in each update: an exponential moving average with this decay.
    Ema(f64),
}

/// An average of a model's weights, in memory of its own; `torch.optim.swa_utils.AveragedModel`.
///
/// It follows the tensors that it was made from: what optimisers write to them in place is what it averages.
///
/// ```
/// use wgrad::optim::{Average, AveragedModel, Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.5))?;
/// let mut average = AveragedModel::new([("x", &x)], Average::Ema(0.75))?;
/// for _ in 0..2 {
///     optimizer.zero_grad();
///     x.sum()?.backward()?;
///     optimizer.step()?;
///     average.update()?;
/// }
/// // The first update is a copy.
/// assert_eq!(average.tensors()[0].1.to_vec::<f32>()?, [0.75 * 0.5 + 0.25 * 0.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct AveragedModel {
    average: Average,
    entries: Vec<Entry>,
    use_buffers: bool,
    updates: usize,
}

/// A tensor of the model and its average.
struct Entry {
    path: String,
    source: Tensor,
    average: Tensor,
    is_buffer: bool,
}

impl Entry {
    fn new(path: String, source: Tensor, is_buffer: bool) -> Result<Entry> {
        let average = no_grad(|| source.detach().deep_clone())?;
        Ok(Entry { path, source, average, is_buffer })
    }
}

impl AveragedModel {
    /// An average of these parameters, which begins with their values now.
    ///
    /// # Errors
    /// [`Error::Argument`] for a decay that is not from 0 to 1; and as [`Stepper::new`](super::Stepper::new)
    /// for the parameters.
    pub fn new<P: Parameter>(params: impl IntoIterator<Item = P>, average: Average) -> Result<AveragedModel> {
        if let Average::Ema(decay) = average {
            check(OP, (0.0..=1.0).contains(&decay), || {
                format!("the decay is {decay}; it must be from 0 to 1")
            })?;
        }
        let params = parameters::collect(OP, Vec::new(), params)?;
        let entries = params.into_iter().map(|(path, source)| Entry::new(path, source, false));
        Ok(AveragedModel {
            average,
            entries: entries.collect::<Result<_>>()?,
            use_buffers: false,
            updates: 0,
        })
    }

    /// An average of a module's parameters. Each update copies its buffers, or averages them too.
    ///
    /// ```
    /// use wgrad::nn::BatchNorm1d;
    /// use wgrad::optim::{Average, AveragedModel};
    ///
    /// let norm = BatchNorm1d::new(3, &wgrad::Device::cpu())?;
    /// let average = AveragedModel::of(&norm, Average::Ema(0.999), false)?;
    /// assert_eq!(average.tensors()[2].0, "running_mean");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`AveragedModel::new`] and [`AveragedModel::with_buffers`].
    pub fn of(module: &dyn Module, average: Average, averages_buffers: bool) -> Result<AveragedModel> {
        let buffers = module.tensors().into_iter().filter(|(_, kind, _)| *kind == Kind::Buffer);
        let buffers = buffers.map(|(path, _, tensor)| (path, tensor));
        AveragedModel::new(module.named_parameters(), average)?.with_buffers(buffers, averages_buffers)
    }

    /// With the model's buffers, such as running statistics. Each update copies them, or averages them too.
    ///
    /// ```
    /// use wgrad::optim::{Average, AveragedModel};
    /// use wgrad::{Device, Tensor};
    ///
    /// let (weight, mean) = (Tensor::ones([2], &Device::cpu())?, Tensor::zeros([2], &Device::cpu())?);
    /// let average = AveragedModel::new([("weight", weight)], Average::Equal)?
    ///     .with_buffers([("mean", mean)], false)?;
    /// assert_eq!(average.tensors().len(), 2);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for a path that is there twice; [`Error::DType`] for integers that are to be
    /// averaged with equal weights.
    pub fn with_buffers<P: Parameter>(
        mut self,
        buffers: impl IntoIterator<Item = P>,
        averages: bool,
    ) -> Result<AveragedModel> {
        for buffer in buffers {
            let (path, tensor) = buffer.into_parts();
            let path = path.unwrap_or_else(|| self.entries.len().to_string());
            check(OP, self.entries.iter().all(|entry| entry.path != path), || {
                format!("two tensors are called {path}")
            })?;
            if averages && self.average == Average::Equal && !tensor.dtype().is_float() {
                let reason =
                    format!("of {path} has no equal average; use an exponential one, or copy buffers");
                return Err(Error::DType { op: OP, dtype: tensor.dtype(), reason });
            }
            self.entries.push(Entry::new(path, tensor, true)?);
        }
        self.use_buffers = averages;
        Ok(self)
    }

    /// Takes the tensors' values now into the average; `update_parameters`. The first time it copies them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn update(&mut self) -> Result<()> {
        no_grad(|| {
            let new = self.entries.iter().map(|entry| self.updated(entry)).collect::<Result<Vec<_>>>()?;
            for (entry, new) in self.entries.iter().zip(&new) {
                entry.average.copy_(new)?;
            }
            self.updates += 1;
            Ok(())
        })
    }

    fn updated(&self, entry: &Entry) -> Result<Tensor> {
        let source = entry.source.detach();
        if self.updates == 0 || (entry.is_buffer && !self.use_buffers) {
            return Ok(source);
        }
        let (old, new) = match source.dtype().is_float() {
            true => {
                let dtype = compute_dtype(source.dtype());
                (entry.average.to_dtype(dtype)?, source.to_dtype(dtype)?)
            }
            false => (entry.average.clone(), source),
        };
        match self.average {
            Average::Equal => old.add(new.sub(&old)?.mul(1.0 / (self.updates as f64 + 1.0))?),
            Average::Ema(decay) if new.dtype().is_float() => old.add(new.sub(&old)?.mul(1.0 - decay)?),
            Average::Ema(decay) => old.mul(decay)?.add(new.mul(1.0 - decay)?),
        }
    }

    /// How many updates there were.
    ///
    /// ```
    /// use wgrad::optim::{Average, AveragedModel};
    /// use wgrad::{Device, Tensor};
    ///
    /// let mut average = AveragedModel::new([Tensor::ones([2], &Device::cpu())?], Average::Equal)?;
    /// average.update()?;
    /// assert_eq!(average.n_averaged(), 1);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn n_averaged(&self) -> usize {
        self.updates
    }

    /// The averages with their paths, parameters first. They change with each update.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.entries.iter().map(|entry| (entry.path.clone(), entry.average.clone())).collect()
    }

    /// Exchanges the model's values with the averages: once to evaluate with the averages, again to go on.
    ///
    /// ```
    /// use wgrad::optim::{Average, AveragedModel};
    /// use wgrad::{Device, Tensor, no_grad};
    ///
    /// let x = Tensor::new([1.0], &Device::cpu())?.requires_grad_(true)?;
    /// let mut average = AveragedModel::new([&x], Average::Equal)?;
    /// average.update()?;
    /// no_grad(|| x.add_(2.0))?;
    /// average.update()?;
    /// average.swap()?;
    /// assert_eq!(x.to_vec::<f32>()?, [2.0]);
    /// average.swap()?;
    /// assert_eq!(x.to_vec::<f32>()?, [3.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device fails.
    pub fn swap(&mut self) -> Result<()> {
        no_grad(|| {
            for entry in &self.entries {
                let model = entry.source.detach().deep_clone()?;
                entry.source.copy_(&entry.average)?;
                entry.average.copy_(&model)?;
            }
            Ok(())
        })
    }

    /// The averages by path and how many updates there were, to go on later.
    ///
    /// # Errors
    /// If the device fails.
    pub fn state_dict(&self) -> Result<(Vec<(String, Tensor)>, usize)> {
        let copy = |entry: &Entry| Ok((entry.path.clone(), no_grad(|| entry.average.deep_clone())?));
        Ok((self.entries.iter().map(copy).collect::<Result<_>>()?, self.updates))
    }

    /// Goes on from saved averages.
    ///
    /// ```
    /// use wgrad::optim::{Average, AveragedModel};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?;
    /// let mut average = AveragedModel::new([&x], Average::Equal)?;
    /// average.update()?;
    /// let (tensors, updates) = average.state_dict()?;
    /// let mut resumed = AveragedModel::new([&x], Average::Equal)?;
    /// resumed.load_state_dict(&tensors, updates)?;
    /// assert_eq!(resumed.n_averaged(), 1);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if paths or shapes do not fit; nothing is changed then.
    pub fn load_state_dict(&mut self, tensors: &[(String, Tensor)], updates: usize) -> Result<()> {
        let fits = |(entry, (path, tensor)): (&Entry, &(String, Tensor))| {
            entry.path == *path && entry.average.shape() == tensor.shape()
        };
        check(OP, tensors.len() == self.entries.len() && self.entries.iter().zip(tensors).all(fits), || {
            "the state is that of other tensors".to_owned()
        })?;
        no_grad(|| {
            self.entries
                .iter()
                .zip(tensors)
                .try_for_each(|(entry, (_, tensor))| entry.average.copy_(tensor).map(drop))
        })?;
        self.updates = updates;
        Ok(())
    }
}
