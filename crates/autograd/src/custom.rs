//! Custom operations: a forward and a backward that the user writes; `torch.autograd.Function`.

use std::any::Any;
use std::collections::HashMap;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use wgrad_array::{Array, Error, GradRule, Result, Scalar, site};

use crate::tape::{
    Context, Derivative, Edge, Grads, Meta, Operand, SavedValue, Source, lock, output_edges, record,
};
use crate::{Tensor, is_grad_enabled, no_grad};

/// An operation with a derivative of its own; `torch.autograd.Function`.
///
/// The type's fields are the operation's settings. `forward` runs without recording; `backward` runs like the derivative of any other
/// operation, so that a backward written in tensor operations is differentiable again.
///
/// A rounding whose gradient passes as if it had not been there (a *straight-through estimator*):
///
/// ```
/// use wgrad::{BackwardContext, Device, ForwardContext, Function, Result, Tensor};
///
/// struct RoundThrough;
///
/// impl Function for RoundThrough {
///     fn forward(&self, _ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
///         Ok(vec![inputs[0].round()?])
///     }
///
///     fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
///         Ok(vec![Some(ctx.grad(0)?)])
///     }
/// }
///
/// let x = Tensor::new([0.3, 1.7], &Device::cpu())?.requires_grad_(true)?;
/// let y = RoundThrough.apply_one(&[&x])?;
/// y.sum()?.backward()?;
/// assert_eq!(y.to_vec::<f32>()?, [0.0, 2.0]);
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [1.0, 1.0]);
/// assert_eq!(y.grad_fn().unwrap().name(), "RoundThroughBackward");
/// # Ok::<(), wgrad::Error>(())
/// ```
pub trait Function: Sized + Send + Sync + 'static {
    /// Whether the gradients that `backward` gives have no derivatives themselves; `once_differentiable`. Asking for these is an
    /// error then.
    const ONCE_DIFFERENTIABLE: bool = false;

    /// Computes the outputs, and says in `ctx` what `backward` needs. Grad mode is off.
    ///
    /// # Errors
    /// Whatever the operation refuses.
    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>>;

    /// Computes the gradient of each input from those of the outputs; `None` where it is zero or not needed.
    ///
    /// # Errors
    /// An error ends the backward.
    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>>;

    /// Runs the operation, and records it if grad mode is on and an input requires grad.
    ///
    /// # Errors
    /// Those of `forward`; and [`Error::Autograd`] if it marked what is not among its inputs or outputs, or wrote in place where that
    /// is forbidden ([`Tensor::copy_`] tells where). What it wrote is undone then.
    #[track_caller]
    fn apply(self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let _line = site::enter(node_name::<Self>(), Location::caller());
        apply(self, inputs)
    }

    /// [`Function::apply`] of an operation with one output.
    ///
    /// # Errors
    /// As [`Function::apply`], and if there are more outputs or none.
    #[track_caller]
    fn apply_one(self, inputs: &[&Tensor]) -> Result<Tensor> {
        let _line = site::enter(node_name::<Self>(), Location::caller());
        let mut outputs = apply(self, inputs)?;
        match (outputs.pop(), outputs.len()) {
            (Some(output), 0) => Ok(output),
            (_, more) => Err(wrong::<Self>(format!(
                "forward gave {} outputs where one was asked for; use apply",
                if more == 0 { 0 } else { more + 1 }
            ))),
        }
    }
}

/// What `forward` tells about its operation.
pub struct ForwardContext {
    needs: Vec<bool>,
    saved: Vec<(Tensor, Array)>,
    value: Option<Arc<dyn Any + Send + Sync>>,
    without_gradient: Vec<Tensor>,
    dirty: Vec<Tensor>,
}

impl ForwardContext {
    /// Keeps tensors for `backward`, as they are now. Inputs and outputs among them are known there as such, so that gradients of
    /// gradients find their way.
    ///
    /// # Errors
    /// If a value is the result of an evaluation that failed.
    pub fn save_for_backward(&mut self, tensors: &[&Tensor]) -> Result<()> {
        for &tensor in tensors {
            self.saved.push((tensor.clone(), tensor.array()?));
        }
        Ok(())
    }

    /// Keeps a value of any type for `backward`, such as numbers that `forward` computed. A second one replaces the first.
    pub fn save_value(&mut self, value: impl Any + Send + Sync) {
        self.value = Some(Arc::new(value));
    }

    /// Whether the gradient of an input may be asked for; `needs_input_grad`.
    pub fn needs_input_grad(&self, input: usize) -> bool {
        self.needs.get(input).copied().unwrap_or(false)
    }

    /// Marks outputs that have no gradient. Integers and bools have none anyway.
    pub fn mark_non_differentiable(&mut self, outputs: &[&Tensor]) {
        self.without_gradient.extend(outputs.iter().map(|&output| output.clone()));
    }

    /// Marks inputs that `forward` wrote in place. They must be among the outputs.
    pub fn mark_dirty(&mut self, inputs: &[&Tensor]) {
        self.dirty.extend(inputs.iter().map(|&input| input.clone()));
    }
}

/// What `backward` gets.
pub struct BackwardContext<'a> {
    context: &'a Context<'a>,
    value: Option<&'a (dyn Any + Send + Sync)>,
    outputs: &'a [Meta],
}

impl BackwardContext<'_> {
    /// The gradient of an output: zeros if the output takes no part.
    ///
    /// # Errors
    /// If there is no such output.
    pub fn grad(&self, output: usize) -> Result<Tensor> {
        if let Some(grad) = self.context.grad_of(output) {
            return Ok(grad.clone());
        }
        let meta = self.outputs.get(output).ok_or_else(|| self.missing("output", output))?;
        let zeros = Array::full(&meta.shape, Scalar::Int(0), meta.dtype, &meta.device)?;
        Ok(Tensor::from_array(zeros))
    }

    /// The gradient of an output; `None` if the output takes no part.
    pub fn grad_if_defined(&self, output: usize) -> Option<Tensor> {
        self.context.grad_of(output).cloned()
    }

    /// A tensor that `forward` saved, by the order in which it did.
    ///
    /// # Errors
    /// If it saved fewer.
    pub fn saved(&self, position: usize) -> Result<Tensor> {
        self.context.value(position)
    }

    /// The value that `forward` saved, if it is of this type.
    pub fn value<T: 'static>(&self) -> Option<&T> {
        self.value.and_then(|value| value.downcast_ref())
    }

    /// Whether the gradient of an input is asked for; `needs_input_grad`.
    pub fn needs_input_grad(&self, input: usize) -> bool {
        self.context.needs(input)
    }

    fn missing(&self, what: &str, number: usize) -> Error {
        let reason = format!("backward asked for {what} {number}, which there is not");
        Error::Autograd { op: self.context.name, rule: GradRule::Hook, reason }
    }
}

fn apply<F: Function>(function: F, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let operands = inputs.iter().map(|input| input.operand()).collect::<Result<Vec<Operand>>>()?;
    let needs: Vec<bool> = operands.iter().map(Operand::needs_grad).collect();
    let recorded = needs.contains(&true);
    let mut ctx = ForwardContext {
        needs,
        saved: Vec::new(),
        value: None,
        without_gradient: Vec::new(),
        dirty: Vec::new(),
    };
    let outputs = no_grad(|| function.forward(&mut ctx, inputs));
    let done = outputs.and_then(|outputs| {
        check_marks::<F>(&ctx, inputs, &outputs, recorded)?;
        if recorded { connect(function, ctx, inputs, &operands, outputs) } else { Ok(outputs) }
    });
    if done.is_err() {
        for (input, operand) in inputs.iter().zip(&operands) {
            if !input.array()?.is_same(&operand.array) {
                no_grad(|| input.update_value(|_| Ok(operand.array.clone())))?;
            }
        }
    }
    done
}

fn check_marks<F: Function>(
    ctx: &ForwardContext,
    inputs: &[&Tensor],
    outputs: &[Tensor],
    recorded: bool,
) -> Result<()> {
    let among = |tensor: &Tensor, tensors: &[Tensor]| tensors.iter().any(|other| other.is_same(tensor));
    if !ctx.without_gradient.iter().all(|tensor| among(tensor, outputs)) {
        return Err(wrong::<F>("forward marked as non-differentiable what is no output of it".to_owned()));
    }
    for dirty in &ctx.dirty {
        if !inputs.iter().any(|input| input.is_same(dirty)) || !among(dirty, outputs) {
            return Err(wrong::<F>(
                "forward marked as dirty what is not both an input and an output".to_owned(),
            ));
        }
        if recorded {
            dirty.check_history(node_name::<F>())?;
        }
    }
    Ok(())
}

/// Records the operation and gives its outputs their place in the graph.
fn connect<F: Function>(
    function: F,
    ctx: ForwardContext,
    inputs: &[&Tensor],
    operands: &[Operand],
    outputs: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    let arrays = outputs.iter().map(Tensor::array).collect::<Result<Vec<Array>>>()?;
    let metas: Vec<Meta> = arrays.iter().map(Meta::of).collect();
    let position = |tensor: &Tensor| {
        let output = outputs.iter().position(|output| output.is_same(tensor));
        let input =
            inputs.iter().position(|input| input.is_same(tensor)).and_then(|at| u8::try_from(at).ok());
        match (input, output) {
            (_, Some(output)) if ctx.dirty.iter().any(|dirty| dirty.is_same(tensor)) => {
                Source::Output(output as u32)
            }
            (Some(input), _) => Source::Input(input),
            (None, Some(output)) => Source::Output(output as u32),
            (None, None) => Source::Constant,
        }
    };
    let saved: Vec<SavedValue> = ctx
        .saved
        .iter()
        .map(|(tensor, array)| SavedValue::new(Some(array.clone()), position(tensor)))
        .collect();
    let (count, value) = (inputs.len(), ctx.value.clone());
    let backward = move |context: &Context<'_>| {
        let value = value.as_deref();
        let ctx = BackwardContext { context, value, outputs: &metas };
        gradients(&function, &ctx, count)
    };
    let operands: Vec<Operand> = operands
        .iter()
        .map(|operand| Operand { array: operand.array.clone(), edge: operand.edge.clone() })
        .collect();
    let edges = output_edges(&arrays, operands, |_, _| Derivative::saving(node_name::<F>(), backward, saved));
    let mut connected = Vec::with_capacity(outputs.len());
    for ((output, array), edge) in outputs.into_iter().zip(arrays).zip(edges) {
        let has_gradient = !ctx.without_gradient.iter().any(|other| other.is_same(&output));
        let edge: Option<Edge> = edge.filter(|_| has_gradient);
        if ctx.dirty.iter().any(|dirty| dirty.is_same(&output)) {
            output.store(&array, edge)?;
            connected.push(output);
        } else {
            connected.push(Tensor::from_edge(array, edge));
        }
    }
    Ok(connected)
}

/// The gradients of the inputs: as many as there are inputs.
fn gradients<F: Function>(function: &F, ctx: &BackwardContext<'_>, inputs: usize) -> Result<Grads> {
    let once = F::ONCE_DIFFERENTIABLE && is_grad_enabled();
    let given = if once { no_grad(|| function.backward(ctx)) } else { function.backward(ctx) }?;
    if given.len() != inputs {
        return Err(wrong::<F>(format!("backward gave {} gradients for {inputs} inputs", given.len())));
    }
    let mut grads: Grads = given.into_iter().collect();
    let sources: Vec<&Tensor> =
        ctx.context.grads.iter().flatten().filter(|grad| grad.requires_grad()).collect();
    if once && !sources.is_empty() {
        for grad in grads.iter_mut().flatten() {
            let operands = sources.iter().map(|source| source.operand()).collect::<Result<Vec<_>>>()?;
            *grad = record(grad.array()?, operands, |_, _| Derivative::new(node_name::<F>(), twice));
        }
    }
    Ok(grads)
}

/// The derivative of the gradients of a function that is differentiable once.
fn twice(context: &Context<'_>) -> Result<Grads> {
    Err(Error::Autograd {
        op: context.name,
        rule: GradRule::NotDifferentiable,
        reason: "this function is differentiable once; write its backward in tensor operations, without \
                 ONCE_DIFFERENTIABLE, for gradients of gradients"
            .to_owned(),
    })
}

fn wrong<F: Function>(reason: String) -> Error {
    Error::Autograd { op: node_name::<F>(), rule: GradRule::Hook, reason }
}

/// `NameBackward` for a type `Name`. Each type's name is made once and kept.
fn node_name<F: Function>() -> &'static str {
    static NAMES: Mutex<Option<HashMap<&'static str, &'static str>>> = Mutex::new(None);
    let path = std::any::type_name::<F>();
    let mut names = lock(&NAMES);
    names.get_or_insert_default().entry(path).or_insert_with(|| {
        let plain = path.split('<').next().unwrap_or(path);
        let name = plain.rsplit("::").next().unwrap_or(plain);
        Box::leak(format!("{name}Backward").into_boxed_str())
    })
}
