//! The checks of one case.

use serde_json::{Map, Value as Json};
use wgrad::{DType, Device, Error, GradOptions, GradRule, Result, Tensor, grad, gradcheck, gradgradcheck};

use crate::call::{Call, Stop};
use crate::case::Case;
use crate::ops::Op;
use crate::tensors::{Layout, Numbers, Store, Values, expanded_dim};

/// An operator, an input of it, and the function that this input is the value of: where the gradient is only that of such
/// values, or is that of what they were made from.
const MADE_BY: &[(&str, &str, Maker)] = &[
    // The probabilities of each moment are taken to sum to one.
    ("ctc_loss", "log_probs", |x| x.log_softmax(-1)),
    // One triangle is read, and the gradient is that of the whole symmetric matrix.
    ("linalg.cholesky", "A", symmetric),
    ("linalg.eigh", "A", symmetric),
    ("linalg.eigvalsh", "A", symmetric),
];

/// Operators whose second derivative is, as PyTorch's, not a number where their first output is 0.
const NO_SECOND_AT_ZERO: &[&str] = &["std", "std_mean"];

type Maker = fn(&Tensor) -> Result<Tensor>;

fn symmetric(x: &Tensor) -> Result<Tensor> {
    x.add(x.transpose(-2, -1)?)?.mul(0.5)
}

/// The step of the slopes, and how much they may differ where a function is smooth: `BEND * (1 + |slope|)`.
const STEP: f64 = 1e-6;
const BEND: f64 = 1e-3;

/// A case that passed.
pub struct Verdict {
    /// Whether its second derivative was checked too.
    pub second: bool,
}

/// Why a case did not pass.
pub enum Problem {
    /// The function has no derivative there.
    Kink,
    /// The operator does not take inputs with these values, as a matrix of equal rows where an inverse is wanted.
    Refused,
    Wrong(String),
}

/// A case as a function of its inputs in f64, those that require grad being leaves.
struct Function<'a> {
    op: Op,
    case: &'a Case,
    args: Map<String, Json>,
    makers: Vec<(&'static str, Maker)>,
    /// How the inputs that require grad lie in the leaves' memory.
    layout: Layout,
    /// The inputs' shapes.
    shapes: Vec<Vec<usize>>,
}

/// Checks first derivatives of a case, and second ones unless the operator is known to have none. In other layouts than the case's the inputs
/// that require grad are views of the leaves.
///
/// # Errors
/// If a check fails.
pub fn check(
    name: &str,
    op: Op,
    case: &Case,
    store: &Store,
    has_second: bool,
    layout: Layout,
) -> std::result::Result<Verdict, Problem> {
    let makers = MADE_BY.iter().filter(|(op, ..)| *op == name).map(|&(_, input, maker)| (input, maker));
    let args = in_f64(&case.args);
    let mut function = Function { op, case, args, makers: makers.collect(), layout, shapes: Vec::new() };
    let mut inputs = Vec::new();
    for input in &case.inputs {
        let leaf = leaf(input, store, layout);
        let (leaf, shape) = leaf.map_err(|e| Problem::Wrong(format!("input {}: {e:#}", input.name)))?;
        function.shapes.push(shape);
        inputs.push(leaf);
    }
    let value = |x: &[Tensor]| function.call(x);
    if layout == Layout::Expanded
        && function.call(&inputs).and_then(|y| y.iter().try_for_each(Tensor::eval)).is_err()
    {
        return Err(Problem::Refused);
    }
    if let Err(error) = gradcheck(value, &inputs) {
        return Err(judge("gradcheck", error, &value, &inputs));
    }
    if NO_SECOND_AT_ZERO.contains(&name)
        && function.has_zero(&inputs).map_err(|e| Problem::Wrong(e.to_string()))?
    {
        return Ok(Verdict { second: false });
    }
    match gradgradcheck(value, &inputs) {
        Ok(()) => Ok(Verdict { second: true }),
        Err(Error::Autograd { rule: GradRule::NotDifferentiable, .. }) if !has_second => {
            Ok(Verdict { second: false })
        }
        Err(error) => Err(judge("gradgradcheck", error, &|x| function.gradients(x), &inputs)),
    }
}

/// What a failed check means: nothing at a kink.
fn judge(
    check: &str,
    error: Error,
    function: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    inputs: &[Tensor],
) -> Problem {
    match is_smooth(function, inputs) {
        Ok(false) => Problem::Kink,
        Ok(true) => Problem::Wrong(format!("{check}: {error}")),
        Err(other) => Problem::Wrong(format!("{check}: {error}; {other}")),
    }
}

impl Function<'_> {
    /// The outputs that get a gradient.
    fn call(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        // The same random numbers each time.
        wgrad::manual_seed(0);
        let mut named = Vec::new();
        for ((input, tensor), shape) in self.case.inputs.iter().zip(inputs).zip(&self.shapes) {
            let tensor = &view(tensor, shape, self.layout)?;
            let maker = self.makers.iter().find(|(name, _)| *name == input.name);
            let tensor = maker.map_or_else(|| Ok(tensor.clone()), |(_, maker)| maker(tensor))?;
            named.push((input.name.clone(), tensor));
        }
        let outputs = Call::bind(&named, &self.args, &Device::cpu()).and_then(|call| (self.op)(&call));
        let outputs = outputs.map_err(|stop| match stop {
            Stop::Library(error) => error,
            Stop::Arguments(reason) => Error::Argument { op: "gradcheck", reason },
        })?;
        let seeds = self.case.grad_outputs.iter().map(Option::is_some).chain(std::iter::repeat(false));
        Ok(outputs.into_iter().zip(seeds).filter(|(_, seeded)| *seeded).map(|(output, _)| output).collect())
    }

    /// Whether an element of the first output is 0.
    fn has_zero(&self, inputs: &[Tensor]) -> Result<bool> {
        let outputs = self.call(inputs)?;
        let values = outputs.first().map(|output| output.detach().to_vec::<f64>()).transpose()?;
        Ok(values.unwrap_or_default().contains(&0.0))
    }

    /// The gradients of all outputs, each element of which counts differently.
    fn gradients(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let outputs = self.call(inputs)?;
        let mut seeds = Vec::new();
        for (i, output) in outputs.iter().enumerate() {
            let from = 0.5 + i as f64;
            let ramp = Tensor::linspace(from, from + 1.0, output.numel(), (DType::F64, output.device()))?;
            seeds.push(Some(ramp.reshape(output.shape())?));
        }
        let outputs: Vec<&Tensor> = outputs.iter().collect();
        let wanted: Vec<&Tensor> = inputs.iter().filter(|input| input.requires_grad()).collect();
        let options = GradOptions::new().grad_outputs(seeds).allow_unused(true);
        Ok(grad(&outputs, &wanted, options)?.into_iter().flatten().collect())
    }
}

/// The arguments, with f64 where they ask for another float dtype: a cast to fewer digits is a staircase.
fn in_f64(args: &Map<String, Json>) -> Map<String, Json> {
    let mut args = args.clone();
    if let Some(Json::String(dtype)) = args.get_mut("dtype")
        && dtype.parse::<DType>().is_ok_and(DType::is_float)
    {
        *dtype = DType::F64.to_string();
    }
    args
}

/// An input with its shape: floats in f64, those that require grad as leaves from which [`view`] makes the input.
fn leaf(input: &crate::case::Input, store: &Store, layout: Layout) -> anyhow::Result<(Tensor, Vec<usize>)> {
    let cpu = Device::cpu();
    let tensor = store.input(input, &cpu, Layout::Stored)?.detach();
    let numbers = Numbers::of(&tensor)?;
    let Values::Float(values) = &numbers.values else {
        return Ok((layout.lay(&tensor, &cpu)?, numbers.shape));
    };
    anyhow::ensure!(values.iter().all(|x| x.is_finite()), "it has elements that are not finite");
    let tensor = Tensor::from_slice(values, &numbers.shape[..], &cpu)?;
    let whole = match layout {
        Layout::Stored => tensor,
        Layout::Transposed => tensor.permute(&reversed(numbers.shape.len())[..])?,
        Layout::Sliced => {
            let flat = tensor.reshape([-1])?;
            Tensor::stack(&[&flat.flip([0])?, &flat], 1)?
        }
        Layout::Expanded => match expanded_dim(&numbers.shape) {
            Some(dim) => tensor.narrow(dim as isize, 0, 1)?,
            None => tensor,
        },
    };
    let leaf = Tensor::from_slice(&whole.to_vec::<f64>()?, whole.shape(), &cpu)?;
    if input.requires_grad {
        return Ok((leaf.requires_grad_(true)?, numbers.shape));
    }
    Ok((leaf, numbers.shape))
}

/// The input that a leaf holds in a layout; integers lie in theirs already.
fn view(leaf: &Tensor, shape: &[usize], layout: Layout) -> Result<Tensor> {
    match layout {
        Layout::Transposed if leaf.dtype().is_float() => leaf.permute(&reversed(shape.len())[..]),
        Layout::Sliced if leaf.dtype().is_float() => leaf.select(1, 1)?.reshape(shape),
        Layout::Expanded if leaf.dtype().is_float() && leaf.shape() != shape => leaf.expand(shape),
        _ => Ok(leaf.clone()),
    }
}

fn reversed(rank: usize) -> Vec<i64> {
    (0..rank as i64).rev().collect()
}

/// Whether the slopes of a function to both sides agree, for each element of each input that requires grad.
fn is_smooth(function: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor]) -> Result<bool> {
    let values = |inputs: &[Tensor]| -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for output in function(inputs)? {
            all.extend(output.detach().to_dtype(DType::F64)?.to_vec::<f64>()?);
        }
        Ok(all)
    };
    let middle = values(inputs)?;
    for (i, input) in inputs.iter().enumerate().filter(|(_, input)| input.requires_grad()) {
        let numbers = input.to_vec::<f64>()?;
        for element in 0..numbers.len() {
            let moved = |step: f64| {
                let mut numbers = numbers.clone();
                numbers[element] += step;
                let mut inputs = inputs.to_vec();
                inputs[i] =
                    Tensor::from_slice(&numbers, input.shape(), input.device())?.requires_grad_(true)?;
                values(&inputs)
            };
            let (down, up, far) = (moved(-STEP)?, moved(STEP)?, moved(2.0 * STEP)?);
            for (((down, middle), up), far) in down.iter().zip(&middle).zip(&up).zip(&far) {
                let (left, right) = ((middle - down) / STEP, (up - middle) / STEP);
                // A jump in the middle of which the point lies has the same slopes to both sides, for one length of step.
                let wide = (far - middle) / (2.0 * STEP);
                let bend = (left - right).abs().max((right - wide).abs());
                // A NaN, at the edge of the function's domain, is no slope either.
                if bend.is_nan() || bend > BEND * (1.0 + left.abs().max(right.abs())) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}
