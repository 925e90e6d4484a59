//! Replays one case: its values, its gradients, its gradients of gradients.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wgrad::{Device, GradOptions, Tensor, grad};

use crate::call::{Call, Outcome};
use crate::case::{Case, Second};
use crate::expanded;
use crate::ops::Op;
use crate::recorded::compare::{Tolerance, compare};
use crate::tensors::{Layout, Numbers, Store};

/// The largest error in units of the tolerance, or what is wrong.
pub type Part = Result<f64, String>;

/// What came of a case; `None` for what the case does not have.
#[derive(Default)]
pub struct Replayed {
    pub values: Option<Part>,
    pub grads: Option<Part>,
    pub second: Option<Part>,
}

impl Replayed {
    /// Whether everything it has is right.
    pub fn passed(&self) -> bool {
        [&self.values, &self.grads, &self.second].into_iter().flatten().all(Part::is_ok)
    }
}

/// A case, and what it is replayed with.
pub struct Setting<'a> {
    pub case: &'a Case,
    pub store: &'a Store<'a>,
    pub device: &'a Device,
    /// How many times as wide the case's tolerances are.
    pub factor: f64,
    /// How the inputs lie in memory.
    pub layout: Layout,
}

/// Runs a case. A panic is a failure like any other.
pub fn replay(op: Op, setting: &Setting) -> Replayed {
    let case = setting.case;
    if setting.layout == Layout::Expanded {
        return expanded::replay(op, setting);
    }
    let mut replayed = Replayed::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(op, setting, &mut replayed)));
    let failure = match outcome {
        Ok(Ok(())) => return replayed,
        Ok(Err(failure)) => failure,
        Err(panic) => format!("panicked: {}", panic_text(&*panic)),
    };
    // It belongs to the first part that has no result yet; later parts never ran.
    let mut cause = Some(failure);
    let parts = [
        (&mut replayed.values, true),
        (&mut replayed.grads, case.grads.is_some()),
        (&mut replayed.second, case.grad_grads.is_some()),
    ];
    for (part, wanted) in parts {
        if wanted && part.is_none() {
            *part = Some(Err(cause.take().unwrap_or_else(|| "did not come to it".to_owned())));
        }
    }
    replayed
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned())).unwrap_or_default()
}

fn run(op: Op, setting: &Setting, replayed: &mut Replayed) -> Result<(), String> {
    let &Setting { case, store, device, factor, layout } = setting;
    let mut inputs = Vec::new();
    for input in &case.inputs {
        let tensor =
            store.input(input, device, layout).map_err(|error| format!("input {}: {error}", input.name))?;
        inputs.push((input.name.clone(), tensor));
    }
    let outputs = call(op, &inputs, &case.args, device).map_err(|stop| stop.to_string())?;
    if outputs.len() != case.outputs.len() {
        return Err(format!("{} outputs instead of {}", outputs.len(), case.outputs.len()));
    }
    if wrong_values(case) {
        println!("    {}: not compared, since the expected results are wrong", case.id);
        replayed.values = Some(Errors::default().done());
        return Ok(());
    }
    let mut values = Errors::default();
    for (i, (output, name)) in outputs.iter().zip(&case.outputs).enumerate() {
        if let Some(name) = name {
            let tolerance = Tolerance::new(case.rtol, case.atol, factor);
            values.check(&format!("output {i}"), Some(output), name, tolerance, store)?;
        }
    }
    replayed.values = Some(values.done());
    let Some(expected) = case.grads.as_ref() else { return Ok(()) };
    if wrong_gradient(case, &inputs) {
        println!("    {}: gradients not compared, since the expected ones are wrong", case.id);
        return Ok(());
    }

    let mut seeds: BTreeMap<usize, Tensor> = BTreeMap::new();
    for (i, name) in case.grad_outputs.iter().enumerate() {
        if let Some(name) = name {
            let seed = store.tensor(name, device).map_err(|error| error.to_string())?;
            if case.grad_grads.is_some() {
                seed.requires_grad_(true).map_err(|error| error.to_string())?;
            }
            seeds.insert(i, seed);
        }
    }
    let wanted: Vec<(String, Tensor)> = inputs
        .iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .map(|(n, t)| (n.clone(), t.clone()))
        .collect();
    let pairs =
        seeds.iter().filter_map(|(&i, seed)| outputs.get(i).map(|output| (output.clone(), seed.clone())));
    let first = gradients(pairs.collect(), &wanted, case.grad_grads.is_some())?;
    let mut errors = Errors::default();
    for (input, name) in expected {
        let actual = first.get(input).ok_or_else(|| format!("no input {input} requires grad"))?;
        let tolerance = Tolerance::new(case.grad_rtol, case.grad_atol, factor);
        errors.check(&format!("gradient of {input}"), actual.as_ref(), name, tolerance, store)?;
    }
    replayed.grads = Some(errors.done());
    let Some(second) = &case.grad_grads else { return Ok(()) };
    replayed.second = Some(run_second(second, setting, &first, wanted, seeds)?);
    Ok(())
}

/// Whether the expected outputs are known to be wrong. The one case: of a batch's targets in one strided list PyTorch's ctc_loss on
/// the CPU finds the first labels as if the list were contiguous, so that it reads elements between those of the view.
fn wrong_values(case: &Case) -> bool {
    let in_a_strided_list = |input: &crate::case::Input| {
        input.name == "targets"
            && input.strided.as_ref().is_some_and(|view| view.stride.len() == 1 && view.stride != [1])
    };
    case.id.starts_with("ctc_loss/") && case.inputs.iter().any(in_a_strided_list)
}

/// Whether the expected gradient is known to be wrong. The one case: for a matrix PyTorch's batch_norm backward on the CPU reads a strided
/// weight as if it were contiguous, in training and outside of it.
fn wrong_gradient(case: &Case, inputs: &[(String, Tensor)]) -> bool {
    let has = |wanted: &str, what: fn(&Tensor) -> bool| {
        inputs.iter().any(|(name, tensor)| name == wanted && what(tensor))
    };
    case.id.starts_with("batch_norm/")
        && has("input", |input| input.rank() == 2)
        // However it lies here, it was strided there.
        && case.inputs.iter().any(|input| {
            input.name == "weight" && input.strided.as_ref().is_some_and(|view| view.stride != [1])
        })
}

fn run_second(
    second: &Second,
    setting: &Setting,
    first: &BTreeMap<String, Option<Tensor>>,
    mut wanted: Vec<(String, Tensor)>,
    seeds: BTreeMap<usize, Tensor>,
) -> Result<Part, String> {
    let &Setting { case, store, device, factor, .. } = setting;
    wanted.extend(seeds.into_iter().map(|(i, seed)| (format!("grad_outputs.{i}"), seed)));
    let mut pairs = Vec::new();
    for (input, name) in &second.v {
        if let Some(Some(gradient)) = first.get(input) {
            pairs.push((gradient.clone(), store.tensor(name, device).map_err(|error| error.to_string())?));
        }
    }
    let gradients = gradients(pairs, &wanted, false)?;
    let mut errors = Errors::default();
    for (input, name) in &second.grads {
        let actual = gradients.get(input).ok_or_else(|| format!("nothing is called {input}"))?;
        let tolerance = Tolerance::new(case.grad_grad_rtol, case.grad_grad_atol, factor);
        errors.check(&format!("second gradient of {input}"), actual.as_ref(), name, tolerance, store)?;
    }
    Ok(errors.done())
}

/// Calls an operator with everything checked: an argument left over is an error.
pub fn call(
    op: Op,
    inputs: &[(String, Tensor)],
    args: &serde_json::Map<String, serde_json::Value>,
    device: &Device,
) -> Outcome {
    let call = Call::bind(inputs, args, device)?;
    let outputs = op(&call);
    // A call that failed may not have come to all of its arguments.
    if outputs.is_ok() {
        call.finish()?;
    }
    outputs
}

/// The gradients of pairs of outputs and their gradients for named inputs; `None` where there is none.
pub fn gradients(
    pairs: Vec<(Tensor, Tensor)>,
    wanted: &[(String, Tensor)],
    create_graph: bool,
) -> Result<BTreeMap<String, Option<Tensor>>, String> {
    let (outputs, seeds): (Vec<Tensor>, Vec<Tensor>) =
        pairs.into_iter().filter(|(output, _)| output.requires_grad()).unzip();
    let names = wanted.iter().map(|(name, _)| name.clone());
    if outputs.is_empty() || wanted.is_empty() {
        return Ok(names.map(|name| (name, None)).collect());
    }
    let options = GradOptions::new()
        .grad_outputs(seeds.into_iter().map(Some))
        .create_graph(create_graph)
        .allow_unused(true);
    let outputs: Vec<&Tensor> = outputs.iter().collect();
    let inputs: Vec<&Tensor> = wanted.iter().map(|(_, tensor)| tensor).collect();
    let found = grad(&outputs, &inputs, options).map_err(|error| error.to_string())?;
    Ok(names.zip(found).collect())
}

/// Comparisons of one part, collected.
#[derive(Default)]
struct Errors {
    worst: f64,
    failures: Vec<String>,
}

impl Errors {
    fn check(
        &mut self,
        what: &str,
        actual: Option<&Tensor>,
        expected: &str,
        tolerance: Tolerance,
        store: &Store,
    ) -> Result<(), String> {
        let expected = store.expected(expected).map_err(|error| error.to_string())?;
        let outcome = match actual {
            None if expected.is_zero() => Ok(0.0),
            None => Err("missing".to_owned()),
            Some(tensor) => Numbers::of(tensor)
                .map_err(|error| error.to_string())
                .and_then(|actual| compare(&actual, &expected, tolerance)),
        };
        match outcome {
            Ok(error) => self.worst = self.worst.max(error),
            Err(failure) => self.failures.push(format!("{what}: {failure}")),
        }
        Ok(())
    }

    fn done(self) -> Part {
        if self.failures.is_empty() { Ok(self.worst) } else { Err(self.failures.join("; ")) }
    }
}
