//! Every operator above a GPU's limits: cases enlarged until a tensor of theirs is larger than a binding, and takes more workgroups
//! than a dim of a dispatch has.
//!
//! PyTorch's cases are small. Here a case's inputs are repeated along some of their dims, so that indices, targets and masks stay
//! valid, and the CPU executor, which PyTorch's cases prove, says what comes of it: values, gradients, gradients of gradients. A way of
//! repeating that the CPU refuses, or that leaves all tensors small, is not taken. A GPU opened with low limits must then give
//! the same within the case's own tolerances.
//!
//! Guarantee: each operator of the set passes in this way, on the GPU itself: a case that needs the host for a kernel must be right too,
//! but another one is taken then.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value as Json};
use wgrad::{Device, DeviceOptions, Tensor};

use crate::case::Case;
use crate::grow::{self, Ways};
use crate::ops::Op;
use crate::recorded::compare::{Tolerance, compare};
use crate::replay::{Part, Replayed, call, gradients, panic_text};
use crate::support;
use crate::tensors::{Layout, Numbers, Store, Values, supported};

/// Bytes of a binding. Half of it, the least that a part of an elementwise operation binds, takes more workgroups than a dim has.
const BINDING: usize = 512 << 10;
/// The most bytes of a tensor of an enlarged case.
const LARGEST: usize = 8 * BINDING;
/// The most bytes that the CPU may use for one.
const MEMORY: u64 = 512 << 20;
/// How many of an operator's cases are tried.
const CASES: usize = 16;
/// How many ways of enlarging an operator's cases may need the host before only one way of each further case is tried.
const HOSTED: usize = 4;

/// One thread at a time enlarges cases on the CPU: what fits into its memory must not depend on how far the others are.
static CPU: Mutex<()> = Mutex::new(());

/// Operators whose enlarged case has larger errors: how many times its tolerances, why, and the largest error seen.
const WIDER: &[(&str, f64, &str, f64)] = &[
    ("bilinear", 8.0, "products add thousands of terms that cancel, in f32", 4.85),
    ("dot", 2.0, "as bilinear", 1.59),
    ("index_put", 64.0, "the CPU adds a value 131,072 times to one element, in f32", 53.3),
    (
        "linalg.vector_norm",
        32.0,
        "the second derivative of a norm of order 1/2 is a small difference of large sums, which the CPU takes in f64",
        19.4,
    ),
    ("tensordot", 4.0, "as bilinear", 3.17),
];

/// The same on NVIDIA's driver alone.
const WIDER_ON_NVIDIA: &[(&str, f64, &str, f64)] = &[(
    "logaddexp",
    4.0,
    "second derivatives are differences of exponentials, which are a unit or two off there",
    2.35,
)];

/// 512 KiB a binding, 8 buffers a kernel, 32 workgroups a dim.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        max_storage_buffers: Some(8),
        max_binding_bytes: Some(BINDING as u64),
        max_workgroups_per_dimension: Some(32),
        ..DeviceOptions::default()
    }
}

/// What came of an operator above the limits.
pub enum Verdict {
    /// What came of its first case that no side refuses.
    Ran { id: String, dtype: String, replayed: Replayed },
    /// All of its cases are of a dtype that the device does not have.
    NoDtype,
}

/// Enlarges an operator's cases until one runs.
pub fn run(
    name: &str,
    op: Op,
    cases: &[&Case],
    store: &Store<'_>,
    device: &Device,
    factor: f64,
) -> anyhow::Result<Verdict> {
    let cpu = Device::cpu();
    cpu.set_memory_limit(Some(MEMORY));
    let own: &[_] = if support::is_nvidia(device) { WIDER_ON_NVIDIA } else { &[] };
    let factor = factor * WIDER.iter().chain(own).find(|row| row.0 == name).map_or(1.0, |row| row.1);
    let cases = candidates(cases, store, device);
    if cases.is_empty() {
        return Ok(Verdict::NoDtype);
    }
    // GL compiles slowly, and on one thread; what a second derivative adds is seen on the other backends.
    let twice = !device.name().starts_with("gl");
    let mut hosted = Vec::new();
    for case in cases {
        let mut inputs = Vec::new();
        for input in &case.inputs {
            inputs.push(store.input(input, &cpu, Layout::Stored)?.detach());
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        for way in Ways::new(&shapes, &case.args) {
            let turn = CPU.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(enlarged) = enlarge(op, case, &inputs, &way, &cpu) else { continue };
            let on_cpu = enlarged.compute(op, &cpu, twice);
            drop(turn);
            if let Some(failure) = &on_cpu.failure {
                anyhow::ensure!(!failure.starts_with("panicked"), "{}, {way}: the CPU {failure}", case.id);
                continue;
            }
            let before = device.stats();
            let on_gpu = enlarged.compute(op, device, twice);
            let on_host = device.stats().since(&before).hosted > 0;
            let replayed = enlarged.judge(&on_cpu, on_gpu, factor, store);
            let id = format!("{}, {way}", case.id);
            if !on_host || !replayed.passed() {
                return Ok(Verdict::Ran { id, dtype: case.dtype.clone(), replayed });
            }
            hosted.push(id);
            if hosted.len() >= HOSTED {
                break;
            }
        }
    }
    let failure = match hosted.first() {
        Some(id) => format!("{id}: needs the host, as all ways that were tried"),
        None => format!("{name}: no case of it can be enlarged"),
    };
    let replayed = Replayed { values: Some(Err(failure)), ..Replayed::default() };
    Ok(Verdict::Ran { id: "enlarged".to_owned(), dtype: String::new(), replayed })
}

/// The cases that are tried, in this order.
pub fn candidates<'a>(cases: &[&'a Case], store: &Store<'_>, device: &Device) -> Vec<&'a Case> {
    let mut cases = cases.to_vec();
    cases.retain(|case| supported(case, store, device).unwrap_or(false));
    cases.sort_by_cached_key(|case| order(case, store));
    cases.truncate(CASES);
    cases
}

/// The cases that say most come first: in f32, with derivatives, with a batch, with more different numbers.
fn order(case: &Case, store: &Store<'_>) -> impl Ord + use<> {
    let rank = |input: &crate::case::Input| match &input.strided {
        Some(view) => view.shape.len(),
        None => store.expected(&input.tensor).map_or(0, |numbers| numbers.shape.len()),
    };
    let rank = case.inputs.iter().map(rank).max().unwrap_or(0).min(3);
    let bytes: usize = case.inputs.iter().map(|input| store.bytes(&input.tensor)).sum();
    let strided = case.inputs.iter().any(|input| input.strided.is_some());
    let lacks = (case.dtype != "f32", case.grads.is_none(), case.grad_grads.is_none());
    (lacks, std::cmp::Reverse(rank), strided, std::cmp::Reverse(bytes))
}

/// A case with larger inputs or arguments.
pub struct Enlarged<'a> {
    pub case: &'a Case,
    pub inputs: Vec<Tensor>,
    pub args: Map<String, Json>,
    /// How many times as many elements the input has that grew most.
    pub growth: f64,
}

/// A case enlarged by the smallest power of two that brings a tensor above the limits; nothing if the CPU refuses it, or none does.
fn enlarge<'a>(
    op: Op,
    case: &'a Case,
    inputs: &[Tensor],
    way: &grow::Way,
    cpu: &Device,
) -> Option<Enlarged<'a>> {
    let bytes = |tensor: &Tensor| tensor.numel() * tensor.dtype().size();
    for times in (1..=18).map(|power| 1usize << power) {
        if inputs
            .iter()
            .enumerate()
            .any(|(i, tensor)| way.numel(i, tensor.shape(), times) * tensor.dtype().size() > LARGEST)
        {
            return None;
        }
        let larger: Vec<Tensor> = inputs
            .iter()
            .enumerate()
            .map(|(i, tensor)| way.input(i, tensor, times))
            .collect::<wgrad::Result<_>>()
            .ok()?;
        let args = way.args(&case.args, times);
        let growth =
            |(larger, tensor): (&Tensor, &Tensor)| larger.numel() as f64 / tensor.numel().max(1) as f64;
        let growth = larger.iter().zip(inputs).map(growth).fold(1.0, f64::max);
        let enlarged = Enlarged { case, inputs: larger, args, growth };
        let outputs = call(op, &enlarged.leaves(cpu).ok()?, &enlarged.args, cpu).ok()?;
        let largest = enlarged.inputs.iter().chain(&outputs).map(bytes).max()?;
        if largest > BINDING {
            return (largest <= LARGEST).then_some(enlarged);
        }
    }
    None
}

/// Tensors by what they are, a missing gradient being none.
type Named = Vec<(String, Option<Numbers>)>;

/// What an executor computes of a case: as many parts as it has, or came to before a failure.
#[derive(Default)]
pub struct Computed {
    values: Option<Named>,
    grads: Option<Named>,
    second: Option<Named>,
    pub failure: Option<String>,
}

impl Enlarged<'_> {
    /// The inputs on a device, those that require grad as leaves.
    fn leaves(&self, device: &Device) -> wgrad::Result<Vec<(String, Tensor)>> {
        let leaf = |(input, tensor): (&crate::case::Input, &Tensor)| {
            let leaf = tensor.to_device(device)?.detach();
            let leaf = if input.requires_grad { leaf.requires_grad_(true)? } else { leaf };
            Ok((input.name.clone(), leaf))
        };
        self.case.inputs.iter().zip(&self.inputs).map(leaf).collect()
    }

    /// Values, gradients and, if wanted twice, gradients of gradients on a device.
    pub fn compute(&self, op: Op, device: &Device, twice: bool) -> Computed {
        let mut computed = Computed::default();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.compute_parts(op, device, twice, &mut computed)));
        computed.failure = match outcome {
            Ok(outcome) => outcome.err(),
            Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
        };
        computed
    }

    fn compute_parts(
        &self,
        op: Op,
        device: &Device,
        twice: bool,
        computed: &mut Computed,
    ) -> Result<(), String> {
        let text = |error: wgrad::Error| error.to_string();
        let case = self.case;
        let inputs = self.leaves(device).map_err(text)?;
        let outputs = call(op, &inputs, &self.args, device).map_err(|stop| stop.to_string())?;
        let compared =
            outputs.iter().enumerate().filter(|(i, _)| case.outputs.get(*i).is_some_and(Option::is_some));
        computed.values = Some(numbers(compared.map(|(i, output)| (i.to_string(), Some(output))))?);
        if case.grads.is_none() {
            return Ok(());
        }
        let second = case.grad_grads.as_ref().filter(|_| twice);
        let twice = second.is_some();
        let mut seeds = Vec::new();
        for (i, output) in outputs.iter().enumerate() {
            if case.grad_outputs.get(i).is_some_and(Option::is_some) {
                seeds.push((i, ramp(output, i)?.requires_grad_(twice).map_err(text)?));
            }
        }
        let mut wanted: Vec<(String, Tensor)> =
            inputs.into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
        let pairs = seeds.iter().map(|(i, seed)| (outputs[*i].clone(), seed.clone())).collect();
        let first = gradients(pairs, &wanted, twice)?;
        computed.grads = Some(named(&first)?);
        let Some(second) = second else { return Ok(()) };
        wanted.extend(seeds.into_iter().map(|(i, seed)| (format!("grad_outputs.{i}"), seed)));
        let mut pairs = Vec::new();
        for (n, input) in second.v.keys().enumerate() {
            if let Some(Some(gradient)) = first.get(input) {
                pairs.push((gradient.clone(), ramp(gradient, n + 7)?));
            }
        }
        computed.second = Some(named(&gradients(pairs, &wanted, false)?)?);
        Ok(())
    }

    /// What was computed, against what is expected.
    pub fn judge(&self, expected: &Computed, actual: Computed, factor: f64, store: &Store<'_>) -> Replayed {
        let case = self.case;
        let mut cause = actual.failure;
        let mut part = |expected: &Option<Named>, actual: Option<Named>, check: Check<'_>| {
            let expected = expected.as_ref()?;
            let Some(actual) = actual else {
                return Some(Err(cause.take().unwrap_or_else(|| "did not come to it".to_owned())));
            };
            Some(check.run(expected, &actual))
        };
        let size = |name: Option<&String>| name.and_then(|name| store.expected(name).ok());
        let output = |i: &str| size(i.parse().ok().and_then(|i: usize| case.outputs.get(i)?.as_ref()));
        let gradient = |input: &str| size(case.grads.as_ref().and_then(|grads| grads.get(input)));
        let second = |input: &str| size(case.grad_grads.as_ref().and_then(|second| second.grads.get(input)));
        let check = |what, tolerance: (f64, f64), sums, before| Check {
            what,
            sums,
            tolerance: Tolerance::new(tolerance.0, tolerance.1, factor),
            growth: self.growth,
            before,
        };
        let values = check("output", (case.rtol, case.atol), false, &output);
        let grads = check("gradient of", (case.grad_rtol, case.grad_atol), true, &gradient);
        let twice = check("second gradient of", (case.grad_grad_rtol, case.grad_grad_atol), true, &second);
        Replayed {
            values: part(&expected.values, actual.values, values),
            grads: part(&expected.grads, actual.grads, grads),
            second: part(&expected.second, actual.second, twice),
        }
    }
}

fn named(tensors: &BTreeMap<String, Option<Tensor>>) -> Result<Named, String> {
    numbers(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.as_ref())))
}

fn numbers<'a>(tensors: impl Iterator<Item = (String, Option<&'a Tensor>)>) -> Result<Named, String> {
    let read = |(name, tensor): (String, Option<&Tensor>)| {
        Ok((name, tensor.map(Numbers::of).transpose().map_err(|error| error.to_string())?))
    };
    tensors.map(read).collect()
}

/// Numbers between 1/4 and 1 in a tensor's shape, dtype and device, in no regular order.
fn ramp(like: &Tensor, seed: usize) -> Result<Tensor, String> {
    let golden = 0.618_033_988_749_894_8;
    let number = |i: usize| (0.25 + 0.75 * ((i + 1 + 31 * seed) as f64 * golden).fract()) as f32;
    let all: Vec<f32> = (0..like.numel()).map(number).collect();
    let tensor = Tensor::from_slice(&all, like.shape(), &Device::cpu());
    let tensor = tensor.and_then(|t| t.to_dtype(like.dtype())).and_then(|t| t.to_device(like.device()));
    Ok(tensor.map_err(|error| error.to_string())?.detach())
}

/// How the results of a part are compared.
struct Check<'a> {
    what: &'a str,
    tolerance: Tolerance,
    growth: f64,
    /// Whether results that grew less than the inputs are sums.
    sums: bool,
    /// A result of PyTorch's before the case was enlarged.
    before: &'a dyn Fn(&str) -> Option<Numbers>,
}

impl Check<'_> {
    fn run(&self, expected: &Named, actual: &Named) -> Part {
        let (mut worst, mut failures) = (0.0f64, Vec::new());
        let names = |all: &Named| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if expected.is_empty() || names(expected) != names(actual) {
            return Err(format!("{}s {:?} for {:?}", self.what, names(actual), names(expected)));
        }
        for ((name, expected), (_, actual)) in expected.iter().zip(actual) {
            let outcome = match (expected, actual) {
                (None, None) => Ok(0.0),
                (Some(expected), Some(actual)) => {
                    compare(actual, expected, self.tolerance_of(name, expected))
                }
                (None, Some(_)) => Err("there is one".to_owned()),
                (Some(_), None) => Err("missing".to_owned()),
            };
            match outcome {
                Ok(error) => worst = worst.max(error),
                Err(failure) => failures.push(format!("{} {name}: {failure}", self.what)),
            }
        }
        if failures.is_empty() { Ok(worst) } else { Err(failures.join("; ")) }
    }

    /// A result that grew less than the inputs is made of many copies of what the case's own was. A gradient is their sum, whose terms may
    /// cancel, so an error that the case allows near zero may occur in each of them. A value may be a mean or a maximum as well: it is
    /// allowed as many as it is larger.
    fn tolerance_of(&self, name: &str, expected: &Numbers) -> Tolerance {
        let Some(before) = (self.before)(name) else { return self.tolerance };
        let elements = |numbers: &Numbers| numbers.shape.iter().product::<usize>().max(1) as f64;
        let copies = (self.growth * elements(&before).min(elements(expected)) / elements(expected)).max(1.0);
        let (small, large) = (largest(&before), largest(expected));
        let larger = if small > 0.0 { (large / small).max(1.0) } else { 1.0 };
        let most = if self.sums { copies } else { copies.min(larger) };
        Tolerance { atol: self.tolerance.atol * most, ..self.tolerance }
    }
}

/// The largest finite absolute value.
fn largest(numbers: &Numbers) -> f64 {
    match &numbers.values {
        Values::Float(values) => values.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max),
        Values::Integer(values) => values.iter().map(|x| x.unsigned_abs() as f64).fold(0.0, f64::max),
    }
}
