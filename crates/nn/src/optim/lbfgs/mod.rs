//! L-BFGS, which computes the loss several times in a step.
//!
//! Vectors stay on the device: all parameters flattened, one after the other. What decides how to go on
//! (losses, slopes, the sizes of gradients) is read, a few numbers for each time that the loss is computed. A
//! step that fails leaves parameters and memory as they were.

mod memory;
mod search;

use wgrad_autograd::{DType, Device, Error, Result, Tensor, enable_grad, no_grad};

use super::parameters::{self, Parameter};
use super::setting::{Setting, Settings, Typed, check, not_negative, settings};
use super::state::{GroupState, OF_PYTORCH_ALONE, OptimizerState, refuse};
use super::stepper::no_group;
use super::{Named, Optimizer};
use crate::optim::rule::compute_dtype;
use memory::Memory;
use search::{Point, Wolfe};

const OP: &str = "LBFGS";

settings! {
    /// Settings of [`Lbfgs`].
    LbfgsOptions of "LBFGS" {
        /// The length of a step, relative to the one that the quadratic model asks for; 1.
        lr: f64 = 1.0, example 0.5;
        /// How many iterations a step has at most; 20.
        max_iter: usize = 20, example 10;
        /// How often a step computes the loss at most; `None`: 5/4 of `max_iter`.
        max_eval: Option<usize> = None, example Some(30);
        /// A step ends where no element of the gradient is larger; 1e-7.
        tolerance_grad: f64 = 1e-7, example 1e-5;
        /// A step ends where neither loss nor parameters change by more; 1e-9.
        tolerance_change: f64 = 1e-9, example 1e-7;
        /// How many changes are remembered; 100.
        history_size: usize = 100, example 10;
        /// How lengths of steps are found; `None`: they are all `lr`.
        line_search_fn: Option<LineSearch> = None, example Some(wgrad::optim::LineSearch::StrongWolfe);
        /// Whether to go up instead of down; off.
        maximize: bool = false, example true;
    }
}

/// How [`Lbfgs`] finds the length of a step.
///
/// ```
/// use wgrad::optim::{LbfgsOptions, LineSearch};
///
/// let options = LbfgsOptions::new().line_search_fn(Some(LineSearch::StrongWolfe));
/// assert_eq!(options.line_search_fn, Some(LineSearch::StrongWolfe));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineSearch {
    /// By a bracket and cubic interpolation, until the strong Wolfe conditions hold.
    StrongWolfe,
}

impl From<LineSearch> for Setting {
    fn from(LineSearch::StrongWolfe: LineSearch) -> Setting {
        Setting::Text("strong_wolfe".to_owned())
    }
}

impl Typed for LineSearch {
    const KIND: &'static str = "strong_wolfe or nothing";

    fn from_setting(setting: &Setting) -> Option<LineSearch> {
        matches!(setting, Setting::Text(name) if name == "strong_wolfe").then_some(LineSearch::StrongWolfe)
    }
}

/// L-BFGS (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5, with the line search of 3.5);
/// `torch.optim.LBFGS`.
///
/// It has one group, and needs [`Optimizer::step_with`].
///
/// ```
/// use wgrad::optim::{Lbfgs, LbfgsOptions, LineSearch, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([-1.0, 1.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Lbfgs::new([&x], LbfgsOptions::new().line_search_fn(Some(LineSearch::StrongWolfe)))?;
/// for _ in 0..5 {
///     optimizer.step_with(&mut || {
///         x.zero_grad();
///         let (a, b) = (x.select(0, 0)?, x.select(0, 1)?);
///         let valley = b.sub(a.square()?)?.square()?.mul(100.0)?;
///         let loss = a.rsub(1.0)?.square()?.add(valley)?;
///         loss.backward()?;
///         Ok(loss)
///     })?;
/// }
/// assert!(x.sub(1.0)?.abs()?.max()?.item::<f32>()? < 0.01);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Lbfgs {
    options: LbfgsOptions,
    params: Vec<(String, Tensor)>,
    memory: Memory,
}

impl LbfgsOptions {
    fn check(&self) -> Result<()> {
        not_negative(OP, "lr", self.lr)?;
        not_negative(OP, "tolerance_grad", self.tolerance_grad)?;
        not_negative(OP, "tolerance_change", self.tolerance_change)?;
        check(OP, self.history_size > 0, || "history_size is 0; it must be at least 1".to_owned())
    }

    fn most_evaluations(&self) -> usize {
        self.max_eval.unwrap_or(self.max_iter.saturating_mul(5) / 4)
    }
}

/// Where a loss is computed: so far along a direction from a point whose slope along it is known.
struct Along<'a> {
    direction: &'a Tensor,
    length: f64,
    start: &'a Point,
}

impl Along<'_> {
    /// The loss there, from its rounded value. The slopes at both ends tell by how much it differs from the
    /// loss at the start; where that agrees with the rounded value up to a few roundings, it has more digits,
    /// and what compares losses does not take rounding for a rise.
    fn loss(&self, value: f64, slope: f64, precision: f64) -> f64 {
        let Point { loss, slope: first, .. } = self.start;
        let finer = loss + self.length * (first + slope) / 2.0;
        let allowed = 4.0 * precision * value.abs().max(loss.abs());
        if (finer - value).abs() <= allowed { finer } else { value }
    }
}

type Closure<'a> = &'a mut dyn FnMut() -> Result<Tensor>;

impl Lbfgs {
    /// An optimiser of these parameters, which are all on one device.
    ///
    /// ```
    /// use wgrad::optim::{Lbfgs, LbfgsOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([3], &Device::cpu())?.requires_grad_(true)?;
    /// let optimizer = Lbfgs::new([("x", x)], LbfgsOptions::new().history_size(10))?;
    /// # let _ = optimizer;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Stepper::new`](super::Stepper::new), and for parameters on several devices.
    pub fn new<P: Parameter>(params: impl IntoIterator<Item = P>, options: LbfgsOptions) -> Result<Lbfgs> {
        options.check()?;
        let params = parameters::collect(OP, Vec::new(), params)?;
        for (path, param) in &params {
            let device = params.first().map(|(_, first)| first.device());
            check(OP, device == Some(param.device()), || {
                format!("{path} is on another device than the first")
            })?;
        }
        Ok(Lbfgs { options, params, memory: Memory::default() })
    }

    /// The gradients of all parameters in a row.
    fn flat_grad(&self) -> Result<Tensor> {
        let flat = |(_, param): &(String, Tensor)| {
            let grad = param.grad().map_or_else(|| param.detach().zeros_like(), Ok)?;
            grad.detach().reshape([-1])?.to_dtype(compute_dtype(param.dtype()))
        };
        let flat = self.params.iter().map(flat).collect::<Result<Vec<_>>>()?;
        let flat = Tensor::cat(&flat.iter().collect::<Vec<_>>(), 0)?;
        if self.options.maximize { flat.neg() } else { Ok(flat) }
    }

    /// The parameters' values, not changed by what is written later.
    fn values(&self) -> Result<Vec<Tensor>> {
        self.params.iter().map(|(_, param)| param.detach().deep_clone()).collect()
    }

    /// Sets the parameters to these values, and so much of a direction from there.
    fn place(&self, values: &[Tensor], length: f64, direction: &Tensor) -> Result<()> {
        let mut start = 0;
        for ((_, param), value) in self.params.iter().zip(values) {
            let part = direction.narrow(0, start as isize, param.numel())?.reshape(param.shape())?;
            let wide = value.to_dtype(compute_dtype(value.dtype()))?;
            param.copy_(&wide.add(part.mul(length)?)?)?;
            start += param.numel();
        }
        Ok(())
    }

    /// The loss and its gradient where the parameters are now, which is so far along a direction.
    fn evaluate(&self, closure: Closure<'_>, along: Option<&Along<'_>>) -> Result<(Point, Tensor)> {
        let loss = enable_grad(closure)?;
        let grad = self.flat_grad()?;
        let slope = match along {
            Some(along) => grad.dot(along.direction)?,
            None => grad.abs()?.sum()?,
        };
        let (value, largest) = (loss.detach().reshape(())?, largest(&grad)?);
        let [value, slope, largest] = read([&value, &slope, &largest])?;
        let value = if self.options.maximize { -value } else { value };
        let precision = if loss.dtype() == DType::F64 { f64::EPSILON } else { f32::EPSILON.into() };
        let value = along.map_or(value, |along| along.loss(value, slope, precision));
        Ok((Point { loss: value, slope, largest, grad }, loss))
    }

    /// A step with this memory, which is changed; the loss before it.
    fn iterate(&self, memory: &mut Memory, closure: Closure<'_>) -> Result<Tensor> {
        let LbfgsOptions { lr, max_iter, tolerance_grad, tolerance_change, .. } = self.options;
        let most = self.options.most_evaluations();
        let (mut point, before) = self.evaluate(closure, None)?;
        let sum_of_sizes = point.slope;
        memory.evaluations += 1;
        let mut evaluations = 1;
        if point.largest <= tolerance_grad {
            return Ok(before);
        }
        for iteration in 1..=max_iter {
            memory.iterations += 1;
            let direction = memory.direction(&point.grad, self.options.history_size)?;
            let previous = point.loss;
            let length = if memory.iterations == 1 { lr * (1.0 / sum_of_sizes).min(1.0) } else { lr };
            let [slope, size] = read([&point.grad.dot(&direction)?, &largest(&direction)?])?;
            memory.went(&point, &direction, length);
            if slope > -tolerance_change {
                break;
            }
            point.slope = slope;
            let length = match self.options.line_search_fn {
                Some(LineSearch::StrongWolfe) => {
                    let values = self.values()?;
                    let search = Wolfe { size, tolerance_change, most: most.saturating_sub(evaluations) };
                    let mut evaluate = |length: f64| {
                        self.place(&values, length, &direction)?;
                        let along = Along { direction: &direction, length, start: &point };
                        Ok(self.evaluate(closure, Some(&along))?.0)
                    };
                    let found = search.run(&point, length, &mut evaluate)?;
                    self.place(&values, found.length, &direction)?;
                    evaluations += found.evaluations;
                    memory.evaluations += found.evaluations;
                    point = found.point;
                    found.length
                }
                None => {
                    self.place(&self.values()?, length, &direction)?;
                    if iteration != max_iter {
                        let along = Along { direction: &direction, length, start: &point };
                        point = self.evaluate(closure, Some(&along))?.0;
                        evaluations += 1;
                        memory.evaluations += 1;
                    }
                    length
                }
            };
            memory.length = length;
            let ends = evaluations >= most
                || point.largest <= tolerance_grad
                || (length * size).abs() <= tolerance_change
                || (point.loss - previous).abs() < tolerance_change;
            if ends {
                break;
            }
        }
        Ok(before)
    }
}

/// The largest size of an element; 0 if there is none.
fn largest(x: &Tensor) -> Result<Tensor> {
    if x.numel() == 0 { x.sum() } else { x.abs()?.max() }
}

/// Reads some numbers at once.
fn read<const N: usize>(numbers: [&Tensor; N]) -> Result<[f64; N]> {
    let dtype = numbers.iter().fold(DType::F32, |dtype, number| dtype.promote(number.dtype()));
    let same = numbers.iter().map(|number| number.to_dtype(dtype)).collect::<Result<Vec<_>>>()?;
    let stacked = Tensor::stack(&same.iter().collect::<Vec<_>>(), 0)?;
    let values = stacked.to_device(&Device::cpu())?.to_dtype(DType::F64)?.to_vec::<f64>()?;
    values.try_into().map_err(|_| Error::Argument { op: OP, reason: "a number was lost".to_owned() })
}

impl Optimizer for Lbfgs {
    fn step(&mut self) -> Result<()> {
        Err(Error::Argument {
            op: OP,
            reason: "it computes the loss several times; call step_with".to_owned(),
        })
    }

    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor> {
        no_grad(|| {
            let before = self.values()?;
            let mut memory = self.memory.clone();
            match self.iterate(&mut memory, closure) {
                Ok(loss) => {
                    self.memory = memory;
                    Ok(loss)
                }
                Err(error) => {
                    for ((_, param), value) in self.params.iter().zip(&before) {
                        param.copy_(value)?;
                    }
                    Err(error)
                }
            }
        })
    }

    fn step_unless(&mut self, _skip: &Tensor) -> Result<()> {
        self.step()
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.params.clone()
    }

    fn groups(&self) -> usize {
        1
    }

    fn settings(&self, group: usize) -> Result<Settings> {
        if group != 0 {
            return Err(no_group(OP, group, 1));
        }
        let mut settings = self.options.settings();
        settings.insert("max_eval".to_owned(), self.options.most_evaluations().into());
        Ok(settings)
    }

    fn set(&mut self, group: usize, name: &str, value: Setting) -> Result<()> {
        if group != 0 {
            return Err(no_group(OP, group, 1));
        }
        let mut options = self.options.clone();
        let known = options.set(name, &value)?;
        check(OP, known, || format!("there is no setting {name:?}"))?;
        options.check()?;
        self.options = options;
        Ok(())
    }

    fn state_dict(&self) -> Result<OptimizerState> {
        let mut saved = OptimizerState::default();
        if let Some((path, _)) = self.params.first() {
            saved.state.insert(path.clone(), self.memory.save()?);
        }
        saved.groups.push(GroupState {
            parameters: self.params.iter().map(|(path, _)| path.clone()).collect(),
            settings: self.settings(0)?,
        });
        Ok(saved)
    }

    fn load_state_dict(&mut self, saved: &OptimizerState) -> Result<()> {
        let mut problems = Vec::new();
        let mut options = self.options.clone();
        match saved.groups.as_slice() {
            [group] => {
                let known = |name: &&String| !OF_PYTORCH_ALONE.contains(&name.as_str());
                for name in group.settings.keys().filter(known) {
                    match options.set(name, &group.settings[name]) {
                        Ok(true) => {}
                        Ok(false) => problems.push(format!("the setting {name} is unknown")),
                        Err(error) => problems.push(error.to_string()),
                    }
                }
                let own: Vec<&String> = self.params.iter().map(|(path, _)| path).collect();
                if own.iter().copied().ne(&group.parameters) {
                    problems.push(format!("the parameters are {:?} instead of {own:?}", group.parameters));
                }
            }
            groups => problems.push(format!("{} groups instead of 1", groups.len())),
        }
        if let Err(error) = options.check() {
            problems.push(error.to_string());
        }
        let first = self.params.first();
        problems.extend(
            saved
                .state
                .keys()
                .filter(|path| first.is_none_or(|(first, _)| first != *path))
                .map(|path| format!("{path} has a state; all of it belongs to the first parameter")),
        );
        let mut memory = Memory::default();
        if let Some((path, param)) = first
            && let Some(tensors) = saved.state.get(path)
        {
            let elements = self.params.iter().map(|(_, param)| param.numel()).sum();
            memory = Memory::load(tensors, elements, param, &mut problems)?;
        }
        refuse(OP, &problems)?;
        (self.options, self.memory) = (options, memory);
        Ok(())
    }
}
