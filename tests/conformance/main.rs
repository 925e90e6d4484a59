//! Replays PyTorch's operator test cases on every device and compares with what PyTorch gives: values, gradients, and
//! gradients of gradients. `README.md` beside this file says where the cases come from and how to run a part of them.

#![allow(missing_docs)]

mod call;
mod case;
mod compare;
mod errors;
mod ops;
mod replay;
mod report;
mod source;
mod tensors;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use case::CaseFile;
use report::OpReport;
use source::Files;
use tensors::Store;
use wgrad::Device;

/// Operators and case ids to run; empty for all.
struct Filter(Vec<String>);

impl Filter {
    /// From `WGRAD_CONFORMANCE_OPS` (`pow,mul/3`) and the arguments that are not options.
    fn new() -> Filter {
        let variable = std::env::var("WGRAD_CONFORMANCE_OPS").unwrap_or_default();
        let names = variable.split(',').map(str::to_owned).chain(std::env::args().skip(1));
        Filter(names.filter(|name| !name.is_empty() && !name.starts_with('-')).collect())
    }

    fn op(&self, op: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name.split('/').next() == Some(op))
    }

    fn case(&self, op: &str, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == op || name == id)
    }
}

fn main() -> ExitCode {
    // Asked for its tests by a harness, it has none to name.
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; how many failed.
fn run() -> Result<usize> {
    let filter = Filter::new();
    let (origin, set) = source::read()?;
    println!("cases from {origin}");
    let (mut passed, mut failed) = (0, count_unknown(&set, &filter));
    let device = device()?;
    println!("\ndevice {device}\n{}", report::heading());
    let jobs: Vec<(&String, &Files)> =
        set.iter().filter(|(op, _)| op.as_str() != "errors" && filter.op(op)).collect();
    for report in replay_all(&jobs, &filter, &device)? {
        println!("{report}");
        report.failures.iter().for_each(|failure| println!("    {failure}"));
        if report.skipped > 0 {
            println!("    {} cases skipped: {device} has no such dtype", report.skipped);
        }
        passed += report.cases.passed;
        failed += report.cases.failed();
    }
    if let Some(files) = set.get("errors").filter(|_| filter.op("errors")) {
        let count = errors::run(files, &device, &filter.0)?;
        passed += count.passed;
        failed += count.failed();
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed)
}

/// Every operator of the set must be known; each that is not counts as failed.
fn count_unknown(set: &BTreeMap<String, Files>, filter: &Filter) -> usize {
    let unknown = |op: &&String| op.as_str() != "errors" && filter.op(op) && ops::find(op).is_none();
    let print = |op: &String| println!("operator {op} is unknown: add it to the table in ops");
    set.keys().filter(unknown).inspect(|op| print(op)).count()
}

/// The device in `WGRAD_DEVICE`, or the CPU.
fn device() -> Result<Device> {
    match std::env::var("WGRAD_DEVICE") {
        Ok(name) if !name.is_empty() => Ok(name.parse()?),
        _ => Ok(Device::cpu()),
    }
}

/// Replays operators on as many threads as there are processors; reports in the operators' order.
fn replay_all(jobs: &[(&String, &Files)], filter: &Filter, device: &Device) -> Result<Vec<OpReport>> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let work = || {
        while let Some((op, files)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = replay_op(op, files, filter, device).with_context(|| format!("the cases of {op}"));
            if let Ok(mut reports) = reports.lock() {
                reports.push((op.as_str(), report));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // A failed case reports its panic itself.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    std::panic::set_hook(hook);
    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|(op, _)| *op);
    reports.into_iter().map(|(_, report)| report).filter_map(Result::transpose).collect()
}

/// `None` for an operator that is unknown.
fn replay_op(name: &str, files: &Files, filter: &Filter, device: &Device) -> Result<Option<OpReport>> {
    let Some(op) = ops::find(name) else { return Ok(None) };
    let file: CaseFile = serde_json::from_slice(&files.json)?;
    anyhow::ensure!(file.op == name, "the file is about {}", file.op);
    let store = Store::new(&files.safetensors)?;
    let mut report = OpReport::new(name);
    for case in file.cases.iter().filter(|case| filter.case(name, &case.id)) {
        if !tensors::supported(case, &store, device)? {
            report.skipped += 1;
            continue;
        }
        report.add(&case.id, &case.dtype, &replay::replay(op, case, &store, device));
    }
    Ok(Some(report))
}
