//! Recording: from the operands of an operation to a node on the tape.

use smallvec::SmallVec;
use wgrad_array::{Array, Result, Scalar, site};

use super::{
    Context, Edge, Function, Grads, Meta, Node, NodeRef, Outputs, SavedValue, Source, next_sequence,
};
use crate::Tensor;

/// A tensor at the moment an operation reads it.
pub(crate) struct Operand {
    /// Its value.
    pub(crate) array: Array,
    /// Where its gradient goes, if it needs one and grad mode is on.
    pub(crate) edge: Option<Edge>,
}

impl Operand {
    /// Whether a gradient is to be recorded for it.
    pub(crate) fn needs_grad(&self) -> bool {
        self.edge.is_some()
    }
}

/// How an operation's gradient is found: its name, what it saves, its function.
pub(crate) struct Derivative {
    name: &'static str,
    saved: SmallVec<[SavedValue; 2]>,
    function: Function,
    /// Whether the last operand was a number, which has a place among the inputs but no node.
    number: bool,
}

impl Derivative {
    /// A derivative that needs nothing but its context.
    pub(crate) fn new(name: &'static str, function: fn(&Context) -> Result<Grads>) -> Derivative {
        Derivative::of(name, Function::Plain(function))
    }

    /// A derivative with a number.
    pub(crate) fn with_scalar(
        name: &'static str,
        scalar: Scalar,
        function: fn(&Context, Scalar) -> Result<Grads>,
    ) -> Derivative {
        Derivative::of(name, Function::Scalar(function, scalar))
    }

    /// A derivative with settings: what the closure captures.
    pub(crate) fn with(
        name: &'static str,
        function: impl Fn(&Context) -> Result<Grads> + Send + Sync + 'static,
    ) -> Derivative {
        Derivative::of(name, Function::Shared(std::sync::Arc::new(function)))
    }

    /// A derivative with settings, and with saved values that know where they came from.
    pub(crate) fn saving(
        name: &'static str,
        function: impl Fn(&Context) -> Result<Grads> + Send + Sync + 'static,
        saved: Vec<SavedValue>,
    ) -> Derivative {
        Derivative { saved: saved.into(), ..Derivative::with(name, function) }
    }

    fn of(name: &'static str, function: Function) -> Derivative {
        Derivative { name, saved: SmallVec::new(), function, number: false }
    }

    /// The operation of a tensor and a number.
    pub(crate) fn and_a_number(mut self) -> Derivative {
        self.number = true;
        self
    }

    /// Saves the operation's input with this number. Values are found again in the order in which they were saved.
    pub(crate) fn save_input(self, inputs: &[Operand], input: u8) -> Derivative {
        self.save_input_if(true, inputs, input)
    }

    /// Saves an input if its value is needed; takes up its place in the order in any case.
    pub(crate) fn save_input_if(mut self, needed: bool, inputs: &[Operand], input: u8) -> Derivative {
        let array = needed.then(|| inputs[usize::from(input)].array.clone());
        self.saved.push(SavedValue::new(array, Source::Input(input)));
        self
    }

    /// Saves the operation's first output.
    pub(crate) fn save_output(self, output: &Array) -> Derivative {
        self.save_outputs(std::slice::from_ref(output))
    }

    /// Saves the operation's outputs, all or the first ones.
    pub(crate) fn save_outputs(mut self, outputs: &[Array]) -> Derivative {
        let saved =
            |(i, output): (usize, &Array)| SavedValue::new(Some(output.clone()), Source::Output(i as u32));
        self.saved.extend(outputs.iter().enumerate().map(saved));
        self
    }

    /// A node with one input, whose gradient may be of no use, and one output of its own, outside of an operation.
    pub(crate) fn insert_for(self, output: Meta, input: Option<Edge>) -> Edge {
        Edge { node: insert(self, [input], smallvec::smallvec![output]), output: 0 }
    }

    /// Saves something without a gradient: an index, a mask.
    pub(crate) fn save(mut self, value: &Array) -> Derivative {
        self.saved.push(SavedValue::new(Some(value.clone()), Source::Constant));
        self
    }
}

/// The result of an operation on `inputs`, recorded if one of them needs a gradient and the result can have one.
pub(crate) fn record<I>(
    output: Array,
    inputs: I,
    derivative: impl FnOnce(&[Operand], &Array) -> Derivative,
) -> Tensor
where
    I: AsRef<[Operand]> + IntoIterator<Item = Operand>,
{
    let edge = record_edge(&output, inputs, derivative);
    Tensor::from_edge(output, edge)
}

/// The edge of an operation's result, if it is recorded.
pub(crate) fn record_edge<I>(
    output: &Array,
    inputs: I,
    derivative: impl FnOnce(&[Operand], &Array) -> Derivative,
) -> Option<Edge>
where
    I: AsRef<[Operand]> + IntoIterator<Item = Operand>,
{
    if !output.dtype().is_float() || !inputs.as_ref().iter().any(Operand::needs_grad) {
        return None;
    }
    let derivative = derivative(inputs.as_ref(), output);
    let edges = inputs.into_iter().map(|input| input.edge);
    let node = insert(derivative, edges, smallvec::smallvec![Meta::of(output)]);
    Some(Edge { node, output: 0 })
}

/// As [`record`], for an operation with several results. Those that cannot have a gradient (indices) get none.
pub(crate) fn record_outputs<I>(
    outputs: Vec<Array>,
    inputs: I,
    derivative: impl FnOnce(&[Operand], &[Array]) -> Derivative,
) -> Vec<Tensor>
where
    I: AsRef<[Operand]> + IntoIterator<Item = Operand>,
{
    let edges = output_edges(&outputs, inputs, derivative);
    outputs.into_iter().zip(edges).map(|(array, edge)| Tensor::from_edge(array, edge)).collect()
}

/// The edges of an operation's results: `None` for each where nothing is recorded.
pub(crate) fn output_edges<I>(
    outputs: &[Array],
    inputs: I,
    derivative: impl FnOnce(&[Operand], &[Array]) -> Derivative,
) -> Vec<Option<Edge>>
where
    I: AsRef<[Operand]> + IntoIterator<Item = Operand>,
{
    if !inputs.as_ref().iter().any(Operand::needs_grad) || !outputs.iter().any(|o| o.dtype().is_float()) {
        return outputs.iter().map(|_| None).collect();
    }
    let derivative = derivative(inputs.as_ref(), outputs);
    let node = insert(
        derivative,
        inputs.into_iter().map(|input| input.edge),
        outputs.iter().map(Meta::of).collect(),
    );
    let edge = |i: usize| Edge { node: node.clone(), output: i as u32 };
    outputs.iter().enumerate().map(|(i, o)| o.dtype().is_float().then(|| edge(i))).collect()
}

#[inline]
fn insert(
    mut derivative: Derivative,
    edges: impl IntoIterator<Item = Option<Edge>>,
    outputs: Outputs,
) -> NodeRef {
    derivative.saved.iter_mut().for_each(SavedValue::pack);
    NodeRef::insert(Node {
        name: derivative.name,
        sequence: next_sequence(),
        called_at: site::current(),
        edges: edges.into_iter().chain(derivative.number.then_some(None)).collect(),
        outputs,
        saved: derivative.saved,
        freed: false,
        function: derivative.function,
        hooks: None,
    })
}
