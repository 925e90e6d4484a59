//! What an optimiser does with one parameter: pure functions from gradient, value and state to new ones.
//! Everything else (groups, which parameters had gradients, skipped steps, writing in place, saving) is the
//! same for all of them and stands in [`stepper`](super::stepper).

use wgrad_autograd::{DType, Error, Result, Tensor};

use super::Settings;
use super::setting::Setting;

/// Settings that can be read and written by PyTorch's names; [`Rule`] has an example.
pub trait Named: Clone {
    /// The optimiser's name, for errors.
    const OPTIMISER: &'static str;

    /// All of them.
    fn settings(&self) -> Settings;

    /// Sets one; false if there is none of this name.
    ///
    /// # Errors
    /// If the value is of the wrong kind.
    fn set(&mut self, name: &str, value: &Setting) -> Result<bool>;
}

/// Numbers that the parameters of a group have in common while they step together: 0-dim tensors on their
/// device.
///
/// The first is the number of steps. They change once a step, whatever the number of parameters.
pub struct Shared {
    /// PyTorch's name of each.
    pub names: &'static [&'static str],
    /// Their values before the first step.
    pub start: Vec<f64>,
    /// Whether PyTorch saves them. If not, a parameter whose state is loaded has these values.
    pub resumed: Option<Vec<f64>>,
}

impl Shared {
    /// None at all.
    pub fn none() -> Shared {
        Shared { names: &[], start: Vec::new(), resumed: None }
    }

    /// The number of steps alone.
    pub fn steps() -> Shared {
        Shared { names: &["step"], start: vec![0.0], resumed: None }
    }
}

/// A parameter in a step; [`Rule`] has an example. Halves are given as f32.
pub struct Input<'a> {
    /// Its value.
    pub param: &'a Tensor,
    /// Its gradient, negated to maximise.
    pub grad: &'a Tensor,
    /// Its state, in the order of [`Rule::slots`].
    pub state: &'a [Tensor],
    /// What [`Rule::factors`] gave.
    pub factors: &'a [Tensor],
}

impl Input<'_> {
    /// A tensor of the state, by its place in [`Rule::slots`].
    ///
    /// # Errors
    /// [`Argument`](wgrad_autograd::Error::Argument) if there is none.
    pub fn slot(&self, place: usize) -> Result<&Tensor> {
        self.state.get(place).ok_or_else(|| missing("state", place))
    }

    /// What [`Rule::factors`] gave, by its place.
    ///
    /// # Errors
    /// [`Argument`](wgrad_autograd::Error::Argument) if there is none.
    pub fn factor(&self, place: usize) -> Result<&Tensor> {
        self.factors.get(place).ok_or_else(|| missing("factors", place))
    }
}

fn missing(what: &str, place: usize) -> Error {
    Error::Argument { op: "step", reason: format!("the rule was given no {what} at {place}") }
}

/// The shared numbers of a rule that has as many.
pub(super) fn shared<const N: usize>(numbers: &[Tensor]) -> Result<&[Tensor; N]> {
    numbers.try_into().map_err(|_| Error::Argument {
        op: "step",
        reason: format!("the rule was given {} shared numbers; it has {N}", numbers.len()),
    })
}

/// What a step makes of a parameter; [`Rule`] has an example.
pub struct Output {
    /// The new value.
    pub param: Tensor,
    /// The new state, in the order of [`Rule::slots`].
    pub state: Vec<Tensor>,
}

/// The rule by which an optimiser changes a parameter. Its settings are the fields of the type.
///
/// A rule of one's own makes an optimiser that has all that the others have:
///
/// ```
/// use wgrad::optim::{Input, Named, Optimizer, Output, Rule, Setting, Settings, Shared, Stepper};
/// use wgrad::{Device, Result, Tensor};
///
/// /// Steps of one size, by the signs of gradients.
/// #[derive(Clone)]
/// struct Signs {
///     lr: f64,
/// }
///
/// impl Named for Signs {
///     const OPTIMISER: &'static str = "Signs";
///
///     fn settings(&self) -> Settings {
///         [("lr".to_owned(), self.lr.into())].into()
///     }
///
///     fn set(&mut self, name: &str, value: &Setting) -> Result<bool> {
///         match (name, value.as_f64()) {
///             ("lr", Some(lr)) => self.lr = lr,
///             _ => return Ok(false),
///         }
///         Ok(true)
///     }
/// }
///
/// impl Rule for Signs {
///     fn check(&self) -> Result<()> {
///         Ok(())
///     }
///
///     fn maximize(&self) -> bool {
///         false
///     }
///
///     fn shared(&self) -> Shared {
///         Shared::none()
///     }
///
///     fn slots(&self, _param: &Tensor) -> &'static [&'static str] {
///         &[]
///     }
///
///     fn update(&self, input: &Input<'_>) -> Result<Output> {
///         let param = input.param.sub(input.grad.sign()?.mul(self.lr)?)?;
///         Ok(Output { param, state: Vec::new() })
///     }
/// }
///
/// let x = Tensor::new([1.0, -2.0], Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Stepper::new([&x], Signs { lr: 0.5 })?;
/// x.square()?.sum()?.backward()?;
/// optimizer.step()?;
/// assert_eq!(x.to_vec::<f32>()?, [0.5, -1.5]);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Rule: Named + Send + Sync + 'static {
    /// Whether the state is made with the optimiser and not in a parameter's first step.
    const EAGER: bool = false;

    /// Fails for settings that make no sense.
    ///
    /// # Errors
    /// [`Argument`](wgrad_autograd::Error::Argument).
    fn check(&self) -> Result<()>;

    /// Fails for parameters that it cannot change.
    ///
    /// # Errors
    /// For a shape that the rule is not made for.
    fn check_param(&self, _path: &str, _param: &Tensor) -> Result<()> {
        Ok(())
    }

    /// Whether to go up instead of down.
    fn maximize(&self) -> bool;

    /// The numbers that parameters share.
    fn shared(&self) -> Shared {
        Shared::steps()
    }

    /// The shared numbers after a step, in f32.
    ///
    /// # Errors
    /// If the device fails.
    fn tick(&self, old: &[Tensor]) -> Result<Vec<Tensor>> {
        old.iter().map(|step| step.add(1.0)).collect()
    }

    /// What is computed once for all parameters that share numbers, from those before and after the step, in
    /// the parameters' precision.
    ///
    /// # Errors
    /// If the device fails.
    fn factors(&self, _old: &[Tensor], _new: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(Vec::new())
    }

    /// PyTorch's names of a parameter's state.
    fn slots(&self, param: &Tensor) -> &'static [&'static str];

    /// A slot before the first step.
    ///
    /// # Errors
    /// If there is not enough memory.
    fn begin(&self, _slot: &'static str, param: &Tensor) -> Result<Tensor> {
        param.zeros_like()
    }

    /// The step itself.
    ///
    /// # Errors
    /// If the device fails.
    fn update(&self, input: &Input<'_>) -> Result<Output>;
}

/// The dtype to compute in: f32 for halves.
pub(super) fn compute_dtype(dtype: DType) -> DType {
    if dtype.is_half() { DType::F32 } else { dtype }
}

/// `1 - beta^t` for a 0-dim number of steps: `-expm1(t * ln beta)`, which keeps its digits where beta is
/// close to 1.
pub(super) fn one_minus_power(step: &Tensor, beta: f64) -> Result<Tensor> {
    // exp(-70) is 0 beside 1 in every dtype.
    step.mul(beta.max(4e-31).ln())?.expm1()?.neg()
}

/// `old + weight * (new - old)`.
pub(super) fn toward(old: &Tensor, new: &Tensor, weight: f64) -> Result<Tensor> {
    old.add(new.sub(old)?.mul(weight)?)
}

/// `beta * old + (1 - beta) * new^2`.
pub(super) fn mean_of_squares(old: &Tensor, new: &Tensor, beta: f64) -> Result<Tensor> {
    old.mul(beta)?.add(new.mul(new)?.mul(1.0 - beta)?)
}

/// The gradient with weight decay as a part of the loss.
pub(super) fn with_decay(grad: &Tensor, param: &Tensor, weight_decay: f64) -> Result<Tensor> {
    if weight_decay == 0.0 { Ok(grad.clone()) } else { grad.add(param.mul(weight_decay)?) }
}

/// The parameter after weight decay beside the loss.
pub(super) fn decayed(param: &Tensor, lr: f64, weight_decay: f64) -> Result<Tensor> {
    if weight_decay == 0.0 { Ok(param.clone()) } else { param.mul(1.0 - lr * weight_decay) }
}

/// How weight decay is applied.
pub(super) struct Decay {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
    /// Whether it shrinks the parameter and does not go into the gradient.
    pub(super) is_decoupled: bool,
}

/// A parameter and its gradient after weight decay, and the running means of the gradient and of its square.
pub(super) struct Moments {
    pub(super) param: Tensor,
    pub(super) grad: Tensor,
    pub(super) mean: Tensor,
    pub(super) square: Tensor,
}

/// What Adam and its relatives begin a step with; the means are the first two slots.
pub(super) fn moments(input: &Input<'_>, decay: &Decay, betas: [f64; 2]) -> Result<Moments> {
    let (param, grad) = if decay.is_decoupled {
        (decayed(input.param, decay.lr, decay.weight_decay)?, input.grad.clone())
    } else {
        (input.param.clone(), with_decay(input.grad, input.param, decay.weight_decay)?)
    };
    let mean = toward(input.slot(0)?, &grad, 1.0 - betas[0])?;
    let square = mean_of_squares(input.slot(1)?, &grad, betas[1])?;
    Ok(Moments { param, grad, mean, square })
}
