//! The backward engine: `backward` and `grad`, their options and their rules.

mod accumulate;
pub(crate) mod current;
mod run;
mod step;

use std::panic::Location;

use wgrad_array::{Array, Error, GradRule, Result, Scalar, site};

use crate::tape::{Edge, Mismatch, mismatch};
use crate::warning::graph_in_gradients;
use crate::{Tensor, no_grad};
use run::{Request, Wanted, run};

/// The options of [`Tensor::backward_with`] and [`backward`].
///
/// ```
/// use wgrad_autograd::{BackwardOptions, Device, Tensor};
/// let x = Tensor::new(&[1f32, 2.0], &Device::cpu())?.requires_grad_(true)?;
/// let y = x.mul(&x)?;
/// let weights = Tensor::new(&[1f32, 10.0], &Device::cpu())?;
/// y.backward_with(BackwardOptions::new().gradient(&weights).retain_graph(true))?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 40.0]);
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BackwardOptions {
    gradients: Vec<Option<Tensor>>,
    retain_graph: Option<bool>,
    create_graph: bool,
    inputs: Option<Vec<Tensor>>,
}

impl BackwardOptions {
    /// The defaults: implicit gradients, the graph freed, all leaves.
    pub fn new() -> BackwardOptions {
        BackwardOptions::default()
    }

    /// The gradient of the next output; of the only one, usually.
    pub fn gradient(mut self, gradient: &Tensor) -> Self {
        self.gradients.push(Some(gradient.clone()));
        self
    }

    /// The gradients of all outputs; `None` is the implicit one.
    pub fn gradients(mut self, gradients: impl IntoIterator<Item = Option<Tensor>>) -> Self {
        self.gradients = gradients.into_iter().collect();
        self
    }

    /// Keeps the saved values for another backward. The default is that of `create_graph`.
    pub fn retain_graph(mut self, retain: bool) -> Self {
        self.retain_graph = Some(retain);
        self
    }

    /// Records the backward itself, for gradients of gradients. A leaf's gradient then has a graph that leads to the leaf, and neither goes
    /// before [`Tensor::zero_grad`]; [`grad`] gives gradients that nothing holds.
    pub fn create_graph(mut self, create: bool) -> Self {
        self.create_graph = create;
        self
    }

    /// Accumulates into these tensors only, leaves or not.
    pub fn inputs(mut self, inputs: &[&Tensor]) -> Self {
        self.inputs = Some(inputs.iter().map(|&input| input.clone()).collect());
        self
    }
}

/// The options of [`grad`].
#[derive(Clone, Debug, Default)]
pub struct GradOptions {
    grad_outputs: Vec<Option<Tensor>>,
    retain_graph: Option<bool>,
    create_graph: bool,
    allow_unused: Option<bool>,
    materialize_grads: bool,
    is_grads_batched: bool,
}

impl GradOptions {
    /// The defaults: implicit gradients, the graph freed, an error for an unused input.
    pub fn new() -> GradOptions {
        GradOptions::default()
    }

    /// The gradients of the outputs; `None` is the implicit one.
    pub fn grad_outputs(mut self, gradients: impl IntoIterator<Item = Option<Tensor>>) -> Self {
        self.grad_outputs = gradients.into_iter().collect();
        self
    }

    /// Keeps the saved values for another backward. The default is that of `create_graph`.
    pub fn retain_graph(mut self, retain: bool) -> Self {
        self.retain_graph = Some(retain);
        self
    }

    /// Records the backward itself, for gradients of gradients.
    pub fn create_graph(mut self, create: bool) -> Self {
        self.create_graph = create;
        self
    }

    /// Gives `None` for an input that the outputs do not depend on, instead of an error.
    pub fn allow_unused(mut self, allow: bool) -> Self {
        self.allow_unused = Some(allow);
        self
    }

    /// Gives zeros for an input that the outputs do not depend on.
    pub fn materialize_grads(mut self, materialize: bool) -> Self {
        self.materialize_grads = materialize;
        self
    }

    /// Takes the first dim of each of `grad_outputs` as a batch of gradients, and gives batches of gradients.
    pub fn is_grads_batched(mut self, batched: bool) -> Self {
        self.is_grads_batched = batched;
        self
    }
}

/// # Gradients
impl Tensor {
    /// Computes the gradients of the leaves this tensor depends on, and adds them to their [`Tensor::grad`].
    ///
    /// The values saved for it are freed; see [`Tensor::backward_with`] to keep them.
    ///
    /// # Errors
    /// [`Error::Autograd`] if it has more than one element, or was not made by recorded operations from a leaf that requires grad, or if
    /// its graph was freed by an earlier backward.
    #[track_caller]
    pub fn backward(&self) -> Result<()> {
        let _line = site::enter("backward", Location::caller());
        backward(&[self], BackwardOptions::new())
    }

    /// [`Tensor::backward`] with options.
    ///
    /// # Errors
    /// As [`Tensor::backward`], and if the options contradict the graph.
    #[track_caller]
    pub fn backward_with(&self, options: BackwardOptions) -> Result<()> {
        let _line = site::enter("backward_with", Location::caller());
        backward(&[self], options)
    }
}

/// Backward from several outputs at once; `torch.autograd.backward`.
///
/// # Errors
/// As [`Tensor::backward`].
#[track_caller]
pub fn backward(outputs: &[&Tensor], options: BackwardOptions) -> Result<()> {
    let _line = site::enter("backward", Location::caller());
    const OP: &str = "backward";
    if options.create_graph {
        graph_in_gradients();
    }
    let roots = roots(OP, outputs, &options.gradients)?;
    let request = |wanted| Request {
        op: OP,
        roots,
        retain_graph: options.retain_graph.unwrap_or(options.create_graph),
        create_graph: options.create_graph,
        wanted,
    };
    let Some(inputs) = &options.inputs else {
        return run(request(None)).map(drop);
    };
    if inputs.is_empty() {
        return Err(options_error(
            OP,
            "inputs is empty; name at least one tensor, or leave it away for all leaves",
        ));
    }
    // A tensor that is named twice gets its gradient once.
    let mut edges: Vec<Edge> = Vec::new();
    let mut targets = Vec::new();
    for (edge, input) in wanted_edges(OP, inputs.iter())?.into_iter().zip(inputs) {
        if !edges.contains(&edge) {
            edges.push(edge);
            targets.push(input);
        }
    }
    let grads = run(request(Some(Wanted { edges, accumulate: true })))?;
    for (input, grad) in targets.into_iter().zip(grads) {
        // One that keeps its gradient has got it on the way.
        if let Some(grad) = grad
            && !input.retains_grad()
        {
            accumulate::accumulate(input, &grad, options.create_graph)?;
        }
    }
    Ok(())
}

/// The gradients of outputs with respect to inputs, which may be any tensors of the graph; `torch.autograd.grad`. No
/// `grad()` changes.
///
/// ```
/// use wgrad_autograd::{Device, GradOptions, Tensor, grad};
/// let x = Tensor::new(&[3f32], &Device::cpu())?.requires_grad_(true)?;
/// let y = x.pow(3.0)?;
/// let first = grad(&[&y], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
/// let second = grad(&[&first], &[&x], GradOptions::new())?.remove(0).unwrap();
/// assert_eq!((first.item::<f32>()?, second.item::<f32>()?), (27.0, 18.0));
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
///
/// # Errors
/// As [`Tensor::backward`]; and if an output does not depend on an input, unless that is allowed.
#[track_caller]
pub fn grad(outputs: &[&Tensor], inputs: &[&Tensor], options: GradOptions) -> Result<Vec<Option<Tensor>>> {
    let _line = site::enter("grad", Location::caller());
    const OP: &str = "grad";
    if inputs.is_empty() {
        return Err(options_error(OP, "no inputs were given; name the tensors whose gradients are wanted"));
    }
    if options.materialize_grads && options.allow_unused == Some(false) {
        return Err(options_error(
            OP,
            "materialize_grads gives zeros for unused inputs, so allow_unused cannot be false",
        ));
    }
    if options.is_grads_batched {
        return batched(outputs, inputs, options);
    }
    let roots = roots(OP, outputs, &options.grad_outputs)?;
    let wanted = Wanted { edges: wanted_edges(OP, inputs.iter().copied())?, accumulate: false };
    let mut grads = run(Request {
        op: OP,
        roots,
        retain_graph: options.retain_graph.unwrap_or(options.create_graph),
        create_graph: options.create_graph,
        wanted: Some(wanted),
    })?;
    for (i, (input, grad)) in inputs.iter().zip(&mut grads).enumerate() {
        if grad.is_some() {
            continue;
        }
        if options.materialize_grads {
            let zeros = no_grad(|| input.zeros_like())?;
            *grad = Some(if options.create_graph { zeros.requires_grad_(true)? } else { zeros });
        } else if options.allow_unused != Some(true) {
            return Err(Error::Autograd {
                op: OP,
                rule: GradRule::UnusedInput,
                reason: format!(
                    "the outputs do not depend on input {i}; allow_unused(true) gives None for it, \
                     materialize_grads(true) zeros"
                ),
            });
        }
    }
    Ok(grads)
}

/// One run for each gradient of the batch.
fn batched(outputs: &[&Tensor], inputs: &[&Tensor], options: GradOptions) -> Result<Vec<Option<Tensor>>> {
    const OP: &str = "grad";
    let size = match options.grad_outputs.iter().flatten().map(|g| g.shape().first()).collect::<Vec<_>>()[..]
    {
        [Some(&first), ref rest @ ..] if rest.iter().all(|&size| size == Some(&first)) => first,
        _ => {
            return Err(options_error(
                OP,
                "is_grads_batched needs grad_outputs with one and the same first dim",
            ));
        }
    };
    let mut batches: Vec<Vec<Tensor>> = vec![Vec::new(); inputs.len()];
    for i in 0..size {
        let slice = |g: &Option<Tensor>| g.as_ref().map(|g| g.select(0, i as isize)).transpose();
        let grad_outputs = options.grad_outputs.iter().map(slice).collect::<Result<Vec<_>>>()?;
        let keep = options.retain_graph.unwrap_or(options.create_graph) || i + 1 < size;
        let options =
            GradOptions { grad_outputs, is_grads_batched: false, ..options.clone() }.retain_graph(keep);
        for (batch, grad) in batches.iter_mut().zip(grad(outputs, inputs, options)?) {
            batch.extend(grad);
        }
    }
    let stack = |batch: Vec<Tensor>| {
        if batch.is_empty() {
            Ok(None)
        } else {
            Tensor::stack(&batch.iter().collect::<Vec<_>>(), 0).map(Some)
        }
    };
    batches.into_iter().map(stack).collect()
}

/// Where backward starts, and with which gradients.
fn roots(op: &'static str, outputs: &[&Tensor], gradients: &[Option<Tensor>]) -> Result<Vec<(Edge, Tensor)>> {
    if outputs.is_empty() {
        return Err(options_error(op, "no outputs were given; name at least one tensor"));
    }
    if !gradients.is_empty() && gradients.len() != outputs.len() {
        let reason = format!("{} gradients were given for {} outputs", gradients.len(), outputs.len());
        return Err(Error::Autograd { op, rule: GradRule::Options, reason });
    }
    let root = |(i, output): (usize, &&Tensor)| {
        let edge = output.gradient_edge().ok_or_else(|| Error::Autograd {
            op,
            rule: GradRule::NoGraph,
            reason: format!("output {i} does not require grad and has no graph; compute it from a tensor that requires grad, with grad mode on"),
        })?;
        let gradient = match gradients.get(i).and_then(Option::as_ref) {
            Some(gradient) => matching(op, gradient, output)?,
            None if output.numel() == 1 => {
                let ones = Array::full(output.shape(), Scalar::Int(1), output.dtype(), output.device())?;
                Tensor::from_array(ones)
            }
            None => {
                return Err(Error::Autograd {
                    op,
                    rule: GradRule::ImplicitGradient,
                    reason: format!(
                        "output {i} has shape {:?}; give its gradient, or reduce it to one element with sum() or mean()",
                        output.shape()
                    ),
                });
            }
        };
        // What is wrong with the output is wrong with its gradients, also where they do not depend on its value: a failed batch
        // must not move the parameters.
        let value = output.array()?;
        let tied = gradient.array()?.tied_to(&value)?;
        let gradient = if tied.is_same(&gradient.array()?) {
            gradient
        } else {
            Tensor::from_edge(tied, gradient.gradient_edge())
        };
        Ok((edge, gradient))
    };
    outputs.iter().enumerate().map(root).collect()
}

/// A gradient as given by the caller; it must have the output's shape.
fn matching(op: &'static str, gradient: &Tensor, output: &Tensor) -> Result<Tensor> {
    match mismatch(op, gradient, &output.meta()) {
        None => Ok(gradient.clone()),
        // Another dtype, of another kind of numbers as well, is cast as in PyTorch.
        _ if gradient.shape() == output.shape() && gradient.device() == output.device() => {
            gradient.to_dtype(output.dtype())
        }
        Some(Mismatch::Error(error)) => Err(error),
        Some(Mismatch::Adapt) => Err(Error::Autograd {
            op,
            rule: GradRule::GradientMismatch,
            reason: format!(
                "a gradient has shape {:?}, but its output has shape {:?}; they must be equal",
                gradient.shape(),
                output.shape()
            ),
        }),
    }
}

fn wanted_edges<'a>(op: &'static str, inputs: impl Iterator<Item = &'a Tensor>) -> Result<Vec<Edge>> {
    inputs
        .enumerate()
        .map(|(i, input)| {
            input.gradient_edge().ok_or_else(|| Error::Autograd {
                op,
                rule: GradRule::NeedsRequiresGrad,
                reason: format!("input {i} does not require grad; call requires_grad_(true) on it before the outputs are computed"),
            })
        })
        .collect()
}

fn options_error(op: &'static str, reason: &str) -> Error {
    Error::Autograd { op, rule: GradRule::Options, reason: reason.to_owned() }
}
