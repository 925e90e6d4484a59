//! One layer with options: outputs and gradients of one or more calls, and what the calls change of its
//! state.

mod criteria;
pub(super) mod options;
mod plain;
mod sequences;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};
use wgrad::nn::{Layer, Module, StateDict};
use wgrad::{Device, GradOptions, Tensor};

use crate::case::Case;
use crate::node::Node;
use crate::recorded::compare::{Tolerance, compare_numbers};
use crate::recorded::numbers::Numbers;
use crate::report::Outcome;
use crate::tree::Tree;
use options::Args;

/// A row of a table: a layer's name in PyTorch, and how it is made of its options.
type Row = (&'static str, fn(&Args<'_, '_>) -> Result<Built>);

/// What a layer gives in a call, in order.
type Forward = dyn Fn(&Call<'_>) -> Result<Vec<Option<Tensor>>>;

/// A layer, and how it is called.
pub struct Built {
    pub module: Box<dyn Module>,
    forward: Box<Forward>,
}

/// A layer that is called in its own way, which gives tensors or none.
fn built<M: Module + Clone + 'static>(
    module: M,
    forward: impl Fn(&M, &Call<'_>) -> Result<Vec<Option<Tensor>>> + 'static,
) -> Result<Built> {
    let handle = module.clone();
    Ok(Built { module: Box::new(module), forward: Box::new(move |call| forward(&handle, call)) })
}

/// A layer that gives one tensor.
fn giving<M: Module + Clone + 'static>(
    module: M,
    forward: impl Fn(&M, &Call<'_>) -> Result<Tensor> + 'static,
) -> Result<Built> {
    built(module, move |module, call| Ok(vec![Some(forward(module, call)?)]))
}

/// A layer of one input and one output.
fn layer<L: Layer + Clone + 'static>(layer: L) -> Result<Built> {
    giving(layer, |layer, call| Ok(layer.forward(call.input("input")?)?))
}

/// A call's inputs by name, and its other arguments.
pub struct Call<'a> {
    inputs: BTreeMap<String, Tensor>,
    args: Node<'a>,
    packed: Option<Node<'a>>,
    used: RefCell<BTreeSet<String>>,
}

impl Call<'_> {
    fn find(&self, name: &str) -> Option<&Tensor> {
        self.used.borrow_mut().insert(name.to_owned());
        self.inputs.get(name)
    }

    fn input(&self, name: &str) -> Result<&Tensor> {
        self.find(name).with_context(|| format!("the call has no input {name:?}"))
    }

    /// An input of numbers that a layer takes from the host.
    fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.input(name)?.to_vec::<i64>()?.into_iter().map(|size| size as usize).collect())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.args.read(name, Node::bool)?.unwrap_or(default))
    }
}

/// The layer of `{"layer": …, "args": …}`.
pub fn build(name: &str, args: &Args<'_, '_>) -> Result<Built> {
    let tables = [plain::LAYERS, sequences::LAYERS, criteria::LAYERS];
    let row = tables.into_iter().flatten().find(|(known, _)| *known == name);
    let (_, make) = row.ok_or_else(|| anyhow!("{name} is a layer that the runner does not know"))?;
    make(args).with_context(|| format!("making {name}"))
}

pub fn run(case: &Case<'_>, device: &Device) -> Result<Outcome> {
    let body = &case.body;
    body.read("note", Node::text)?;
    let name = body.get("layer")?.text()?;
    let built = build(name, &Args { node: body.get("args")?, case, device })?;
    let mut state = StateDict::new();
    for (key, tensor) in body.get("state")?.entries()? {
        state.insert(key.to_owned(), case.tensor(tensor.text()?, device)?);
    }
    built.module.load_state_dict(&state, true)?;
    let mut calls = Vec::new();
    for (i, call) in body.get("calls")?.items()?.iter().enumerate() {
        calls.push(replay(case, device, &built, i, call).with_context(|| format!("call {i}"))?);
    }
    Ok(case.compare(&Tree::map([("calls", Tree::List(calls))]))?.into())
}

fn replay(case: &Case<'_>, device: &Device, built: &Built, i: usize, spec: &Node<'_>) -> Result<Tree> {
    built.module.set_training(spec.get("train")?.bool()?);
    let mut call = Call {
        inputs: BTreeMap::new(),
        args: spec.get("args")?,
        packed: spec.find("packed"),
        used: RefCell::default(),
    };
    let mut inputs: Vec<(String, Tensor)> = Vec::new();
    for input in spec.get("inputs")?.items()? {
        let name = input.get("name")?.text()?.to_owned();
        let tensor = case.tensor(input.get("tensor")?.text()?, device)?;
        if input.read("requires_grad", Node::bool)?.unwrap_or(false) {
            inputs.push((name.clone(), tensor.requires_grad_(true)?));
        }
        call.inputs.insert(name, tensor);
    }
    let before = values(&*built.module)?;
    let outputs = (built.forward)(&call)?;
    let used = call.used.borrow();
    if let Some(name) = call.inputs.keys().find(|name| !used.contains(*name)) {
        bail!("the runner does not know what to do with the input {name:?}");
    }
    let seeds = spec.get("grad_outputs")?.list(|seed| seed.optional(Node::text))?;
    ensure!(seeds.len() == outputs.len(), "{} outputs instead of {}", outputs.len(), seeds.len());
    let mut roots = Vec::new();
    for (output, seed) in outputs.iter().zip(&seeds) {
        match (output, seed) {
            (Some(output), Some(seed)) => roots.push((output, Some(case.tensor(seed, device)?))),
            (None, Some(_)) => bail!("an output is missing"),
            _ => {}
        }
    }
    let mut tree = BTreeMap::from([("outputs".to_owned(), Tree::list(outputs.clone()))]);
    let mut parameters = built.module.named_parameters();
    parameters.retain(|(_, tensor)| tensor.requires_grad());
    let wanted = !inputs.is_empty() || !parameters.is_empty();
    if wanted && !roots.is_empty() {
        let (roots, seeds): (Vec<&Tensor>, Vec<_>) = roots.into_iter().unzip();
        let leaves: Vec<&Tensor> = inputs.iter().chain(&parameters).map(|(_, tensor)| tensor).collect();
        let options = GradOptions::new().grad_outputs(seeds).allow_unused(true);
        let mut gradients = wgrad::grad(&roots, &leaves, options)?;
        let behind = gradients.split_off(inputs.len());
        for (part, leaves, gradients) in [("grads", inputs, gradients), ("param_grads", parameters, behind)] {
            let expected = case.expected_at(&["calls", &i.to_string(), part])?;
            let named = leaves.into_iter().map(|(name, _)| name).zip(gradients);
            tree.insert(part.to_owned(), gradients_of(named, expected)?);
        }
    }
    tree.insert("state".to_owned(), changed(&*built.module, &before)?);
    Ok(Tree::Map(tree))
}

/// The gradients that there are. One that is not expected may be 0.
fn gradients_of(
    named: impl Iterator<Item = (String, Option<Tensor>)>,
    expected: &serde_json::Value,
) -> Result<Tree> {
    let mut map = BTreeMap::new();
    for (name, gradient) in named {
        let Some(gradient) = gradient else { continue };
        if expected.get(&name).is_some() || gradient.count_nonzero(())?.item::<i64>()? > 0 {
            map.insert(name, Tree::Tensor(gradient));
        }
    }
    Ok(Tree::Map(map))
}

fn values(module: &dyn Module) -> Result<BTreeMap<String, Numbers>> {
    module.state_dict()?.iter().map(|(name, tensor)| Ok((name.clone(), Numbers::of(tensor)?))).collect()
}

/// The entries of a module's state that are no longer what they were.
fn changed(module: &dyn Module, before: &BTreeMap<String, Numbers>) -> Result<Tree> {
    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
    let mut changed = Vec::new();
    for (name, tensor) in module.state_dict()? {
        let old = before.get(&name).with_context(|| format!("{name} was not there before"))?;
        if compare_numbers(&Numbers::of(&tensor)?, old, exact).is_err() {
            changed.push((name, tensor));
        }
    }
    Ok(Tree::map(changed))
}
