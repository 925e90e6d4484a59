//! A table of what a model is made of and what one forward of it costs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use wgrad_autograd::Result;

use super::{ForwardHookHandle, Kind, Module, Value, Visitor, Walk, state};

/// A layer of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Its path; empty for the whole.
    pub path: String,
    /// The name of its struct.
    pub type_name: &'static str,
    /// The shape of its last output in the forward; `None` if it was not called, or is no layer that says.
    pub output: Option<Vec<usize>>,
    /// How many numbers it and what is in it trains, shared ones once.
    pub parameters: usize,
    /// The multiplications and additions of the products with its own weights, in all its calls.
    pub operations: u64,
}

/// What a model is made of: [`Module::summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The whole, and all structs in it, in the order of a walk.
    pub rows: Vec<SummaryRow>,
    /// The elements of all parameters, shared ones once.
    pub parameters: usize,
    /// Those of parameters that require grad.
    pub trainable: usize,
    /// The operations of all rows.
    pub operations: u64,
}

/// The shapes of the input and the output of each call of a layer.
type Calls = Arc<Mutex<Vec<(Vec<usize>, Vec<usize>)>>>;

/// Hooks that are removed when the forward is over, also if it fails.
struct Observers(Vec<ForwardHookHandle>);

impl Drop for Observers {
    fn drop(&mut self) {
        self.0.iter().for_each(ForwardHookHandle::remove);
    }
}

pub(super) fn summarize(module: &dyn Module, forward: impl FnOnce() -> Result<()>) -> Result<Summary> {
    let mut calls: BTreeMap<String, Calls> = BTreeMap::new();
    let mut observers = Observers(Vec::new());
    for (path, hooks) in state::hooks(module) {
        let seen = calls.entry(path).or_default().clone();
        observers.0.push(hooks.register(move |input, output| {
            let shapes = (input.shape().to_vec(), output.shape().to_vec());
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(shapes);
            Ok(None)
        }));
    }
    forward()?;
    drop(observers);
    let mut structs = Structs(vec![(String::new(), module.type_name())]);
    module.visit(&mut Walk::new(&mut structs));
    let tensors = module.tensors();
    let named: Vec<_> = tensors.iter().filter(|(_, kind, _)| *kind == Kind::Parameter).collect();
    let unique = module.named_parameters();
    let rows: Vec<SummaryRow> = structs
        .0
        .into_iter()
        .map(|(path, type_name)| {
            let inside = |name: &str| within(&path, name).map(str::to_owned);
            // A weight that is shared inside counts once; one that is shared with another layer counts here
            // too.
            let mut known = Vec::new();
            for (name, _, tensor) in &named {
                if inside(name).is_some() && !known.iter().any(|other| tensor.is_same(other)) {
                    known.push(tensor.clone());
                }
            }
            let own: Vec<(String, Vec<usize>)> = named
                .iter()
                .filter_map(|(name, _, tensor)| Some((inside(name)?, tensor.shape().to_vec())))
                .collect();
            let calls =
                calls.get(&path).map(|calls| calls.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let calls = calls.unwrap_or_default();
            SummaryRow {
                type_name,
                output: calls.last().map(|(_, output)| output.clone()),
                parameters: known.iter().map(|tensor| tensor.numel()).sum(),
                operations: calls.iter().map(|(x, y)| operations(type_name, &own, x, y)).sum(),
                path,
            }
        })
        .collect();
    Ok(Summary {
        parameters: unique.iter().map(|(_, tensor)| tensor.numel()).sum(),
        trainable: unique
            .iter()
            .filter(|(_, tensor)| tensor.requires_grad())
            .map(|(_, tensor)| tensor.numel())
            .sum(),
        operations: rows.iter().map(|row| row.operations).sum(),
        rows,
    })
}

/// What is left of a path behind that of a struct it is in.
fn within<'p>(outer: &str, path: &'p str) -> Option<&'p str> {
    if outer.is_empty() { Some(path) } else { path.strip_prefix(outer)?.strip_prefix('.') }
}

/// The multiplications and additions of a layer's products, from its weights and the shapes of its input and
/// output.
fn operations(type_name: &str, weights: &[(String, Vec<usize>)], input: &[usize], output: &[usize]) -> u64 {
    let elements = |shape: &[usize]| shape.iter().map(|&size| size as u64).product::<u64>();
    let weight = || weights.iter().find(|(name, _)| name == "weight").map(|(_, shape)| shape.as_slice());
    // Each element of a tensor is a sum over the weight without its first dim.
    let each = |tensor: &[usize]| {
        weight().map_or(0, |weight| 2 * elements(tensor) * elements(weight.get(1..).unwrap_or_default()))
    };
    match type_name {
        "Linear" | "Bilinear" | "Conv1d" | "Conv2d" | "Conv3d" => each(output),
        "ConvTranspose1d" | "ConvTranspose2d" | "ConvTranspose3d" => each(input),
        // Every vector of the input meets all matrices; what is a layer of its own has a row of its own.
        "RNN" | "LSTM" | "GRU" | "MultiheadAttention" | "LoRA" => {
            let own = weights.iter().filter(|(name, shape)| shape.len() == 2 && is_own(name));
            let places = elements(input.split_last().map_or(&[], |(_, places)| places));
            own.map(|(_, shape)| 2 * places * elements(shape)).sum()
        }
        _ => 0,
    }
}

/// Whether a weight is no layer's in the layer.
fn is_own(name: &str) -> bool {
    !name.contains('.') || name.starts_with("lora_")
}

struct Structs(Vec<(String, &'static str)>);

impl Visitor for Structs {
    fn value(&mut self, _: &str, _: Value<'_>) {}

    fn module(&mut self, path: &str, module: &dyn Module) {
        self.0.push((path.to_owned(), module.type_name()));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |row: &SummaryRow| match row.path.as_str() {
            "" => row.type_name.to_owned(),
            path => format!("{path} ({})", row.type_name),
        };
        let width = self.rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:<width$}  {:<20} {:>14} {:>16}", "layer", "output", "parameters", "operations")?;
        for row in &self.rows {
            let output = row.output.as_ref().map(|shape| format!("{shape:?}")).unwrap_or_default();
            writeln!(f, "{:<width$}  {output:<20} {:>14} {:>16}", name(row), row.parameters, row.operations)?;
        }
        writeln!(
            f,
            "{} parameters, {} of them trained; {} operations",
            self.parameters, self.trainable, self.operations
        )
    }
}
