//! What a node holds, and what its derivative gets to see.

use std::array;
use std::panic::Location;
use std::sync::Arc;

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, broadcast_shapes};
use wgrad_array::{Array, DType, Device, Error, GradRule, Result, Scalar};

use super::{NodeKey, NodeRef};
use crate::hooks::NodeHooks;
use crate::saved::Packed;
use crate::{Tensor, TensorExpr, is_grad_enabled};

/// The gradients for a node's inputs; `None` where none is needed, or where it is zero.
pub(crate) type Grads = SmallVec<[Option<Tensor>; 2]>;
/// What is known of a node's outputs.
pub(crate) type Outputs = SmallVec<[Meta; 1]>;

/// Where a gradient goes: an output of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) node: NodeRef,
    pub(crate) output: u32,
}

/// One recorded operation.
pub(crate) struct Node {
    /// PyTorch's name: `MulBackward0`.
    pub(crate) name: &'static str,
    /// Edges lead from larger to smaller numbers, except to AccumulateGrad, which has the largest so that it runs as
    /// soon as it can.
    pub(crate) sequence: u64,
    /// The line of the program that called the operation.
    pub(crate) called_at: Option<&'static Location<'static>>,
    /// For each input of the operation, where its gradient goes.
    pub(crate) edges: SmallVec<[Option<Edge>; 2]>,
    /// For each output, what its gradient must look like.
    pub(crate) outputs: Outputs,
    /// Values that the derivative needs.
    pub(crate) saved: SmallVec<[SavedValue; 2]>,
    /// Whether a backward has freed the saved values.
    pub(crate) freed: bool,
    /// The derivative.
    pub(crate) function: Function,
    /// Hooks, if any were registered.
    pub(crate) hooks: Option<Box<NodeHooks>>,
}

/// Shape, dtype and device of an output.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
}

impl Meta {
    /// For errors.
    pub(crate) fn describe(&self) -> String {
        format!("{} of shape {:?} on {}", self.dtype, self.shape.as_slice(), self.device)
    }

    pub(crate) fn of(array: &Array) -> Meta {
        Meta { shape: Dims::from_slice(array.shape()), dtype: array.dtype(), device: array.device().clone() }
    }
}

/// A value as it was when the operation ran: arrays never change.
#[derive(Clone, Debug)]
pub(crate) struct SavedValue {
    /// None where it turned out that no wanted gradient needs it.
    pub(crate) array: Option<Array>,
    pub(crate) source: Source,
    /// The value in the hands of hooks; there is no array then.
    pub(crate) packed: Option<Box<Packed>>,
}

impl SavedValue {
    pub(crate) fn new(array: Option<Array>, source: Source) -> SavedValue {
        SavedValue { array, source, packed: None }
    }

    /// Hands the value to the hooks in force, if there are.
    pub(crate) fn pack(&mut self) {
        if let Some(packed) = self.array.as_ref().and_then(Packed::new) {
            self.packed = Some(Box::new(packed));
            self.array = None;
        }
    }

    /// The value, if it was saved.
    fn value(&self, node: &'static str) -> Result<Option<Array>> {
        match &self.packed {
            Some(packed) => packed.unpack(node).map(Some),
            None => Ok(self.array.clone()),
        }
    }
}

/// Where a saved value came from, so that gradients of gradients find their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The operation's own input with this number.
    Input(u8),
    /// The operation's own output with this number.
    Output(u32),
    /// Something without a gradient.
    Constant,
}

/// A derivative with settings of its own.
pub(crate) type SharedFunction = dyn Fn(&Context) -> Result<Grads> + Send + Sync;

/// A derivative: gradients for the inputs from gradients for the outputs, written in tensor operations, so that it is
/// recorded itself where gradients of gradients are asked for.
#[derive(Clone)]
pub(crate) enum Function {
    /// One that needs nothing but what it finds in its context.
    Plain(fn(&Context) -> Result<Grads>),
    /// One with a number.
    Scalar(fn(&Context, Scalar) -> Result<Grads>, Scalar),
    /// One with settings of its own.
    Shared(Arc<SharedFunction>),
    /// The end of the way: the gradient of a leaf.
    Accumulate(Tensor),
}

/// What a derivative gets.
pub(crate) struct Context<'a> {
    pub(crate) key: &'a NodeKey,
    pub(crate) name: &'static str,
    pub(crate) grads: &'a [Option<Tensor>],
    pub(crate) saved: &'a [SavedValue],
    pub(crate) needs: &'a [bool],
}

impl Context<'_> {
    /// The gradient of the only output. The engine runs no node whose outputs all lack one.
    pub(crate) fn grad(&self) -> Result<&Tensor> {
        self.grads.first().and_then(Option::as_ref).ok_or_else(|| self.broken("no gradient for its output"))
    }

    /// The gradient of the output with this number, if it takes part.
    pub(crate) fn grad_of(&self, output: usize) -> Option<&Tensor> {
        self.grads.get(output).and_then(Option::as_ref)
    }

    /// Whether this input's gradient is wanted.
    pub(crate) fn needs(&self, input: usize) -> bool {
        self.needs.get(input).copied().unwrap_or(false)
    }

    /// The gradient of the only output, in a formula.
    pub(crate) fn g(&self) -> TensorExpr {
        self.grad().cloned().into()
    }

    /// The saved values in the order in which they were saved, all or the first ones, in a formula.
    pub(crate) fn saved<const N: usize>(&self) -> [TensorExpr; N] {
        array::from_fn(|position| self.value(position).into())
    }

    /// The gradient of the only output, and the saved values.
    pub(crate) fn parts<const N: usize>(&self) -> (TensorExpr, [TensorExpr; N]) {
        (self.g(), self.saved())
    }

    /// [`Context::parts`], halves in f32.
    pub(crate) fn wide_parts<const N: usize>(&self) -> (TensorExpr, [TensorExpr; N]) {
        let g = self.grad().and_then(Tensor::widened);
        (g.into(), array::from_fn(|position| self.value(position).and_then(Tensor::into_widened).into()))
    }

    /// The saved values as tensors.
    pub(crate) fn tensors<const N: usize>(&self) -> Result<[Tensor; N]> {
        let values =
            (0..N).map(|position| self.value(position)).collect::<Result<SmallVec<[Tensor; N]>>>()?;
        values.into_inner().map_err(|_| self.broken("values that were not saved"))
    }

    /// The saved value at this place, connected to the graph if gradients of gradients are recorded.
    pub(crate) fn value(&self, position: usize) -> Result<Tensor> {
        let missing = || self.broken("a value that was not saved");
        let saved = self.saved.get(position).ok_or_else(missing)?;
        let edge = if is_grad_enabled() { self.edge(saved.source)? } else { None };
        Ok(Tensor::from_edge(saved.value(self.name)?.ok_or_else(missing)?, edge))
    }

    fn edge(&self, source: Source) -> Result<Option<Edge>> {
        match source {
            Source::Constant => Ok(None),
            Source::Output(output) => Ok(self.key.upgrade().map(|node| Edge { node, output })),
            Source::Input(input) => self
                .key
                .with(|node| node.edges.get(usize::from(input)).cloned().flatten())
                .ok_or_else(|| self.broken("its own node is gone")),
        }
    }

    /// The shape of an input whose gradient is wanted.
    pub(crate) fn input_shape(&self, input: u8) -> Result<Dims> {
        let edge = self.edge(Source::Input(input))?;
        edge.and_then(|edge| {
            edge.node.with(|node| node.outputs.get(edge.output as usize).map(|m| m.shape.clone()))
        })
        .ok_or_else(|| self.broken("the shape of an input without gradient"))
    }

    /// The gradients in the inputs' order: each is computed only if it is wanted.
    pub(crate) fn each(&self, inputs: usize, gradient: impl Fn(usize) -> Result<Tensor>) -> Result<Grads> {
        (0..inputs).map(|i| self.needs(i).then(|| gradient(i)).transpose()).collect()
    }

    /// As [`Context::each`], of formulas.
    pub(crate) fn gradients(&self, inputs: usize, gradient: impl Fn(usize) -> TensorExpr) -> Result<Grads> {
        self.each(inputs, |i| gradient(i).done())
    }

    /// The gradient of the only input, by a formula.
    pub(crate) fn gradient(&self, gradient: impl Fn() -> TensorExpr) -> Result<Grads> {
        self.each(1, |_| gradient().done())
    }

    fn broken(&self, what: &str) -> Error {
        Error::Autograd {
            op: self.name,
            rule: GradRule::NotDifferentiable,
            reason: format!("the derivative asked for {what}"),
        }
    }
}

impl Function {
    /// Computes the gradients. The engine handles AccumulateGrad itself.
    pub(crate) fn call(&self, context: &Context) -> Result<Grads> {
        match self {
            Function::Plain(function) => function(context),
            Function::Scalar(function, scalar) => function(context, *scalar),
            Function::Shared(function) => function(context),
            Function::Accumulate(_) => Ok(Grads::new()),
        }
    }
}

/// What is wrong with a gradient for an output that looks like this; `None` if it fits as it is.
pub(crate) enum Mismatch {
    /// It must be summed down, or cast, to the output's shape and dtype.
    Adapt,
    /// It cannot be made to fit.
    Error(Error),
}

/// Compares a gradient with the output it is for.
pub(crate) fn mismatch(op: &'static str, grad: &Tensor, meta: &Meta) -> Option<Mismatch> {
    if grad.device() != &meta.device {
        return Some(Mismatch::Error(gradient_error(op, grad, meta)));
    }
    if grad.shape() == meta.shape.as_slice() {
        return match (grad.dtype() == meta.dtype, grad.dtype().is_float()) {
            (true, _) => None,
            (false, true) => Some(Mismatch::Adapt),
            (false, false) => Some(Mismatch::Error(gradient_error(op, grad, meta))),
        };
    }
    match broadcast_shapes(op, &meta.shape, grad.shape()) {
        Ok(shape) if shape.as_slice() == grad.shape() => Some(Mismatch::Adapt),
        _ => Some(Mismatch::Error(gradient_error(op, grad, meta))),
    }
}

fn gradient_error(op: &'static str, grad: &Tensor, meta: &Meta) -> Error {
    Error::Autograd {
        op,
        rule: GradRule::GradientMismatch,
        reason: format!(
            "a gradient is {}, but what it belongs to is {}",
            grad.meta().describe(),
            meta.describe()
        ),
    }
}
