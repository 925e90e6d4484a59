//! Every differentiable operator against finite differences, in f64 on the CPU: first derivatives with `gradcheck`, second ones
//! with `gradgradcheck`.
//!
//! Operators, calls and inputs are those of the conformance set, so an operator that is new there is checked here too. All
//! its small cases are taken; their float inputs become f64, those that require grad leaves. Some are checked again with inputs
//! that are transposed, sliced and expanded views of leaves. An operator fails if a check fails, or if nothing of it could be checked.
//!
//! A derivative says nothing at a kink. Where a check fails and the one-sided slopes of the function itself disagree, the
//! case is passed over; how many were is printed.
//!
//!     cargo test --workspace --test gradcheck                   # all operators
//!     cargo test --workspace --test gradcheck -- pow cumsum/3   # some, or one case

#![allow(missing_docs)]

// What the conformance run needs of them beyond this one is unused here.
#[allow(dead_code)]
#[path = "../conformance/call.rs"]
mod call;
#[allow(dead_code)]
#[path = "../conformance/case.rs"]
mod case;
mod check;
#[path = "../conformance/ops/mod.rs"]
mod ops;
#[path = "../recorded/mod.rs"]
mod recorded;
#[path = "../conformance/source.rs"]
mod source;
#[allow(dead_code)]
#[path = "../conformance/tensors.rs"]
mod tensors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use case::{Case, CaseFile};
use check::{Problem, Verdict};
use source::Files;
use tensors::{Layout, Numbers, Store, Values};
use wgrad::{DType, Device, Tensor, gradcheck, gradgradcheck};

/// How large a case may be: elements that require grad and elements of outputs that get a gradient, together. An operator
/// without such small ones is checked on its smallest one.
const ELEMENTS: usize = 64;

/// How many checks in other layouts an operator gets: its smallest cases in each of them.
const LAID_OUT: usize = 6;

/// An operator, an argument of it, and why cases that give this argument are not checked.
const UNCHECKED: &[(&str, &str, &str)] = &[
    (
        "cosine_similarity",
        "eps",
        "a norm below eps is replaced, but its gradient is PyTorch's: that of the norm itself",
    ),
    ("embedding", "padding_idx", "the gradient leaves the padding row out, though the output depends on it"),
    (
        "embedding",
        "scale_grad_by_freq",
        "the gradient is divided by how often an index occurs, by definition",
    ),
];

/// An operator, a layout, and why its cases are not checked in this layout.
const NOT_LAID_OUT: &[(&str, Layout, &str)] = &[
    (
        "index_copy",
        Layout::Expanded,
        "its index would have equal elements, and which of their rows stays is not defined by the operator",
    ),
    (
        "linalg.qr",
        Layout::Expanded,
        "a matrix with equal rows or columns has less than full rank, and its Q and R have no derivative",
    ),
];

/// Operators of chance, which the set has in their predictable forms only.
const RANDOM: &[(&str, Function)] = &[("dropout", |x| x.dropout(0.4, true))];

type Function = fn(&Tensor) -> wgrad::Result<Tensor>;

/// Checks that passed, of both orders, and cases that were passed over.
#[derive(Default)]
struct Report {
    first: usize,
    second: usize,
    kinks: usize,
    /// Those of them in another layout than the case's.
    laid: usize,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    // Asked for its tests by a harness, it has none to name.
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("gradcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Checks everything; whether it is right.
fn run() -> Result<bool> {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (_, set) = source::read()?;
    let wanted = |op: &str| only.is_empty() || only.iter().any(|name| name.split('/').next() == Some(op));
    let jobs: Vec<(&String, &Files)> =
        set.iter().filter(|(op, _)| op.as_str() != "errors" && wanted(op)).collect();
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let work = || {
        while let Some((op, files)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = check_op(op, files, &only).with_context(|| format!("the cases of {op}"));
            if let Ok(mut reports) = reports.lock() {
                reports.push((op.as_str(), report));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));

    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|(op, _)| *op);
    let (mut operators, mut total) = (0, Report::default());
    for (op, report) in reports {
        let Some(report) = report? else { continue };
        report.failures.iter().for_each(|failure| println!("{op}: {failure}"));
        operators += 1;
        total.first += report.first;
        total.second += report.second;
        total.kinks += report.kinks;
        total.laid += report.laid;
        total.failures.extend(report.failures);
    }
    for (op, argument, reason) in UNCHECKED.iter().filter(|(op, ..)| wanted(op)) {
        println!("{op} is not checked with {argument}: {reason}");
    }
    for (op, layout, reason) in NOT_LAID_OUT.iter().filter(|(op, ..)| wanted(op)) {
        println!("{op} is not checked{layout}: {reason}");
    }
    // After the others: the generator is the process's.
    for (op, function) in RANDOM.iter().filter(|(op, _)| wanted(op)) {
        match check_random(*function) {
            Ok(()) => (total.first, total.second) = (total.first + 1, total.second + 1),
            Err(error) => {
                println!("{op}: with a fixed seed: {error}");
                total.failures.push(error.to_string());
            }
        }
    }
    println!(
        "gradcheck: {operators} operators, {} first and {} second derivatives, {} of them of views, {} cases at kinks passed over, {} failed",
        total.first,
        total.second,
        total.laid,
        total.kinks,
        total.failures.len()
    );
    anyhow::ensure!(operators > 0, "no such operator has gradients");
    Ok(total.failures.is_empty())
}

/// `None` for an operator that has no gradients, or does not exist.
fn check_op(name: &str, files: &Files, only: &[String]) -> Result<Option<Report>> {
    let Some(op) = ops::find(name) else { return Ok(None) };
    let file: CaseFile = serde_json::from_slice(&files.json)?;
    let store = Store::new(&files.safetensors)?;
    let any = |has: fn(&Case) -> bool| file.cases.iter().any(has);
    if !any(|case| case.grads.is_some()) {
        return Ok(None);
    }
    let has_second = any(|case| case.grad_grads.is_some());
    let mut report = Report::default();
    let mut cases = candidates(&file.cases, &store)?;
    cases.retain(|(_, case)| only.is_empty() || only.iter().any(|id| id == name || *id == case.id));
    let unchecked =
        |case: &Case| UNCHECKED.iter().any(|(op, arg, _)| *op == name && case.args.contains_key(*arg));
    cases.retain(|(_, case)| !unchecked(case));
    for (elements, case) in cases {
        if elements > ELEMENTS && report.first > 0 {
            break;
        }
        let others = report.laid < LAID_OUT && elements <= ELEMENTS;
        for layout in Layout::ALL {
            let stored = layout == Layout::Stored;
            let excluded = NOT_LAID_OUT.iter().any(|&(op, at, _)| op == name && at == layout);
            let suits = others && !excluded && tensors::suits(name, case, &store, layout);
            if !(stored || suits) {
                continue;
            }
            let check = || check::check(name, op, case, &store, has_second, layout);
            let checked = catch_unwind(AssertUnwindSafe(check));
            match checked.unwrap_or_else(|_| Err(Problem::Wrong("panicked".to_owned()))) {
                Ok(Verdict { second }) => {
                    report.first += 1;
                    report.second += usize::from(second);
                    report.laid += usize::from(!stored);
                }
                Err(Problem::Kink) => report.kinks += 1,
                Err(Problem::Refused) if !stored => {}
                Err(Problem::Refused) => report.failures.push(format!("{}: refused", case.id)),
                Err(Problem::Wrong(reason)) => report.failures.push(format!("{}{layout}: {reason}", case.id)),
            }
        }
    }
    if report.failures.is_empty() && only.is_empty() {
        let lacks = match (report.first, report.second) {
            (0, _) => Some("first"),
            (_, 0) if has_second => Some("second"),
            _ => None,
        };
        let lack = |order| format!("none of its cases could be used to check the {order} derivative");
        report.failures.extend(lacks.map(lack));
    }
    Ok(Some(report))
}

/// Both orders of an operator of chance.
fn check_random(function: Function) -> wgrad::Result<()> {
    let x = Tensor::linspace(-2.0, 3.0, 12, (DType::F64, &Device::cpu()))?.detach().requires_grad_(true)?;
    let seeded = |x: &[Tensor]| {
        wgrad::manual_seed(3);
        Ok(vec![function(&x[0])?])
    };
    gradcheck(seeded, std::slice::from_ref(&x))?;
    gradgradcheck(seeded, &[x])
}

/// The cases with finite gradients and their elements, by size.
fn candidates<'a>(cases: &'a [Case], store: &Store) -> Result<Vec<(usize, &'a Case)>> {
    let mut found = Vec::new();
    for case in cases {
        let Some(grads) = &case.grads else { continue };
        let (mut elements, mut finite) = (0, true);
        for gradient in grads.values() {
            let gradient = store.expected(gradient)?;
            elements += gradient.shape.iter().product::<usize>();
            finite &= is_finite(&gradient);
        }
        for seed in case.grad_outputs.iter().flatten() {
            elements += store.expected(seed)?.shape.iter().product::<usize>();
        }
        if finite && elements > 0 {
            found.push((elements, case));
        }
    }
    found.sort_by_key(|(elements, _)| *elements);
    Ok(found)
}

fn is_finite(numbers: &Numbers) -> bool {
    match &numbers.values {
        Values::Float(values) => values.iter().all(|x| x.is_finite()),
        Values::Integer(_) => true,
    }
}
