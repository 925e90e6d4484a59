//! Replays PyTorch's operator test cases on every device and compares with what PyTorch gives: values, gradients, and
//! gradients of gradients. `README.md` beside this file says where the cases come from and how to run a part of them.

#![allow(missing_docs)]

mod call;
mod case;
mod compare;
mod enlarged;
mod errors;
mod gpu_tolerance;
mod grow;
mod limits;
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
use replay::Setting;
use report::{Count, OpReport};
use source::Files;
use tensors::Store;
use wgrad::{Device, DeviceOptions};

/// What is replayed on a device.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// All cases.
    All,
    /// The largest case of each operator, with low limits.
    Limited,
    /// A case of each operator, enlarged until it is above limits that are not as low.
    Enlarged,
}

/// A device, and what is replayed there.
struct Target {
    name: String,
    pass: Pass,
}

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
    for target in targets()? {
        let count = run_device(&target, &set, &filter).with_context(|| format!("device {}", target.name))?;
        passed += count.passed;
        failed += count.failed();
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed)
}

/// The device in `WGRAD_DEVICE`, or all devices of this machine, and with the project's own cases its GPUs twice more with low limits.
/// With the option `--limits` these passes are all that is run, on the device in `WGRAD_DEVICE` too.
fn targets() -> Result<Vec<Target>> {
    let target = |pass: Pass| move |name: String| Target { name, pass };
    let limits_only = std::env::args().any(|arg| arg == "--limits");
    if let Some(name) = std::env::var("WGRAD_DEVICE").ok().filter(|name| !name.is_empty()) {
        let passes: &[Pass] = if limits_only { &[Pass::Limited, Pass::Enlarged] } else { &[Pass::All] };
        return Ok(passes.iter().map(|&pass| target(pass)(name.clone())).collect());
    }
    let names: Vec<String> = Device::available().into_iter().map(|info| info.name).collect();
    if names.len() == 1 {
        println!("no GPU adapter here: only the CPU is tested");
        let required = std::env::var("WGRAD_REQUIRE_GPU").is_ok_and(|value| value == "1");
        anyhow::ensure!(!required, "WGRAD_REQUIRE_GPU is set, and there is no adapter");
    }
    let own_cases = std::env::var_os("WGRAD_CONFORMANCE_DIR").is_none();
    let gpus: Vec<String> = names.iter().filter(|name| own_cases && *name != "cpu").cloned().collect();
    let mut targets = Vec::new();
    if !limits_only {
        targets.extend(names.into_iter().map(target(Pass::All)));
    }
    for pass in [Pass::Limited, Pass::Enlarged] {
        targets.extend(gpus.iter().cloned().map(target(pass)));
    }
    Ok(targets)
}

/// Replays everything on a device and prints its table.
fn run_device(target: &Target, set: &BTreeMap<String, Files>, filter: &Filter) -> Result<Count> {
    let begin = std::time::Instant::now();
    let devices = handles(target)?;
    let name = match target.pass {
        Pass::All => target.name.clone(),
        Pass::Limited => format!("{} with low limits", target.name),
        Pass::Enlarged => format!("{} above its limits", target.name),
    };
    println!("\ndevice {name}\n{}", report::heading());
    let mut count = Count::default();
    let mut skipped = 0;
    let jobs: Vec<(&String, &Files)> =
        set.iter().filter(|(op, _)| op.as_str() != "errors" && filter.op(op)).collect();
    for report in replay_all(&jobs, filter, &devices, target.pass)? {
        println!("{report}");
        report.failures.iter().for_each(|failure| println!("    {failure}"));
        if report.skipped > 0 {
            println!("    {} cases skipped on {name}: it has no such dtype", report.skipped);
        }
        if report.no_dtype > 0 && report.skipped == 0 {
            println!("    skipped on {name}: all of its cases are of a dtype that it does not have");
        }
        skipped += report.skipped + report.no_dtype;
        count = count + report.cases;
    }
    let errors = set.get("errors").filter(|_| filter.op("errors") && target.pass == Pass::All);
    if let (Some(files), Some(device)) = (errors, devices.first()) {
        count = count + errors::run(files, device, &filter.0)?;
    }
    if target.pass == Pass::Enlarged {
        println!(
            "operators above the limits of {}: {} passed, {skipped} without a dtype",
            target.name, count.passed
        );
    }
    let kernels: u64 = devices.iter().map(|device| device.stats().pipelines_compiled).sum();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{name}: {} passed, {} failed, {skipped} skipped; {kernels} kernels compiled, {seconds:.0} s",
        count.passed,
        count.failed()
    );
    Ok(count)
}

/// A device's handles, one a thread. A GPU is opened for each of them anew: a driver that runs on the processor works
/// off a device's queue, and compiles the kernels in it, on one thread.
fn handles(target: &Target) -> Result<Vec<Device>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let device: Device = target.name.parse()?;
    if device.is_cpu() {
        return Ok(vec![device; threads]);
    }
    let options = match target.pass {
        Pass::All => DeviceOptions::default(),
        Pass::Limited => limits::options(),
        Pass::Enlarged => enlarged::options(),
    };
    let fresh = |_| Device::open_with(device.name(), options.clone());
    Ok((0..threads).map(fresh).collect::<wgrad::Result<_>>()?)
}

/// Every operator of the set must be known; each that is not counts as failed.
fn count_unknown(set: &BTreeMap<String, Files>, filter: &Filter) -> usize {
    let unknown = |op: &&String| op.as_str() != "errors" && filter.op(op) && ops::find(op).is_none();
    let print = |op: &String| println!("operator {op} is unknown: add it to the table in ops");
    set.keys().filter(unknown).inspect(|op| print(op)).count()
}

/// Replays operators on a thread for each handle of a device; reports in the operators' order.
fn replay_all(
    jobs: &[(&String, &Files)],
    filter: &Filter,
    devices: &[Device],
    pass: Pass,
) -> Result<Vec<OpReport>> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    let work = |device: &Device| {
        while let Some((op, files)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report =
                replay_op(op, files, filter, device, pass).with_context(|| format!("the cases of {op}"));
            if let Ok(mut reports) = reports.lock() {
                reports.push((op.as_str(), report));
            }
        }
    };
    // A failed case reports its panic itself; this line is for one that ends the process.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    std::thread::scope(|scope| devices.iter().for_each(|device| _ = scope.spawn(|| work(device))));
    std::panic::set_hook(hook);
    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|(op, _)| *op);
    reports.into_iter().map(|(_, report)| report).filter_map(Result::transpose).collect()
}

/// `None` for an operator that is unknown.
fn replay_op(
    name: &str,
    files: &Files,
    filter: &Filter,
    device: &Device,
    pass: Pass,
) -> Result<Option<OpReport>> {
    let Some(op) = ops::find(name) else { return Ok(None) };
    let file: CaseFile = serde_json::from_slice(&files.json)?;
    anyhow::ensure!(file.op == name, "the file is about {}", file.op);
    let store = Store::new(&files.safetensors)?;
    let mut report = OpReport::new(name);
    let factor = gpu_tolerance::factor(name, device);
    let mut cases: Vec<&case::Case> = match pass {
        Pass::Limited => limits::largest(&file.cases, &store).into_iter().collect(),
        Pass::All | Pass::Enlarged => file.cases.iter().collect(),
    };
    cases.retain(|case| filter.case(name, &case.id));
    if pass == Pass::Enlarged {
        match enlarged::run(name, op, &cases, &store, device, factor)? {
            enlarged::Verdict::Ran { id, dtype, replayed } => report.add(&id, &dtype, &replayed),
            enlarged::Verdict::NoDtype => report.no_dtype += 1,
        }
        return Ok(Some(report));
    }
    for case in cases {
        if !tensors::supported(case, &store, device)? {
            report.skipped += 1;
            continue;
        }
        let setting = Setting { case, store: &store, device, factor };
        let before = device.stats();
        let mut replayed = replay::replay(op, &setting);
        if pass == Pass::Limited
            && replayed.passed()
            && let Err(failure) = limits::check_hosted(name, device.stats().since(&before).hosted)
        {
            replayed.values = Some(Err(failure));
        }
        report.add(&case.id, &case.dtype, &replayed);
    }
    Ok(Some(report))
}
