//! Replays PyTorch's operator test cases on every device and compares with what PyTorch gives: values, gradients, and
//! gradients of gradients. `README.md` beside this file says where the cases come from and how to run a part of them.

#![allow(missing_docs)]

mod call;
mod case;
mod choice;
mod enlarged;
mod errors;
mod expanded;
mod gpu_tolerance;
mod grow;
mod limits;
mod memory;
mod ops;
#[path = "../recorded/mod.rs"]
mod recorded;
mod replay;
mod report;
mod source;
mod structure;
#[path = "../../crates/device/tests/support/mod.rs"]
mod support;
mod tensors;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use case::{Case, CaseFile};
use choice::Candidate;
use replay::Setting;
use report::{Count, OpReport};
use source::Files;
use tensors::{Layout, Store};
use wgrad::{Device, DeviceOptions};

/// What is replayed on a device.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// All cases; on the CPU in all layouts.
    All,
    /// The cases and layouts that were chosen for it.
    Chosen,
    /// The largest case of each operator, or of those chosen, with low limits.
    Limited,
    /// A case of each operator, or of those chosen, enlarged until it is above limits that are not as low.
    Enlarged,
}

/// A device, and what is replayed there.
struct Target {
    name: String,
    pass: Pass,
    /// By operator, its cases and their layouts; operators without are left out. The passes with limits look for a case themselves.
    wanted: BTreeMap<usize, Vec<Candidate>>,
    /// Whether calls of the errors are replayed too.
    errors: bool,
    compiled: AtomicU64,
}

/// An operator of the set.
struct Operator<'a> {
    name: &'a str,
    op: ops::Op,
    cases: Vec<Case>,
    store: Store<'a>,
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
    let unknown = count_unknown(&set, &filter);
    let operators = operators(&set, &filter)?;
    let errors = set.get("errors").filter(|_| filter.op("errors"));
    let (cpu, gpus) = targets(&operators, &filter)?;
    let mut total = Count { passed: 0, total: unknown };
    // A GPU's results are expected to be right where the CPU's are: these come first.
    for targets in [cpu, gpus] {
        total = total + replay_all(&targets, &operators, errors, &filter)?;
    }
    let too_large = memory::check();
    println!("{} passed, {} failed", total.passed, total.failed() + too_large);
    Ok(total.failed() + too_large)
}

/// The operators that are wanted, with their cases.
fn operators<'a>(set: &'a BTreeMap<String, Files>, filter: &Filter) -> Result<Vec<Operator<'a>>> {
    let mut operators = Vec::new();
    for (name, files) in set.iter().filter(|(name, _)| name.as_str() != "errors" && filter.op(name)) {
        let Some(op) = ops::find(name) else { continue };
        let context = || format!("the cases of {name}");
        let mut file: CaseFile = serde_json::from_slice(&files.json).with_context(context)?;
        anyhow::ensure!(file.op == *name, "the file of {name} is about {}", file.op);
        file.cases.retain(|case| filter.case(name, &case.id));
        let store = Store::new(&files.safetensors).with_context(context)?;
        operators.push(Operator { name, op, cases: file.cases, store });
    }
    Ok(operators)
}

/// All cases, in these layouts.
fn candidates(operators: &[Operator<'_>], layouts: &[Layout]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (at, operator) in operators.iter().enumerate() {
        for (case, what) in operator.cases.iter().enumerate() {
            let suits = |layout: &&Layout| tensors::suits(operator.name, what, &operator.store, **layout);
            let of = |&layout: &Layout| Candidate { operator: at, case, layout };
            all.extend(layouts.iter().filter(suits).map(of));
        }
    }
    all
}

fn by_operator(candidates: impl IntoIterator<Item = Candidate>) -> BTreeMap<usize, Vec<Candidate>> {
    let mut found: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    candidates.into_iter().for_each(|candidate| found.entry(candidate.operator).or_default().push(candidate));
    found
}

/// What is replayed on the CPU and on the GPUs: on the device in `WGRAD_DEVICE`, or on all devices of this machine, and with the
/// project's own cases on its GPUs twice more with low limits. With the option `--limits` these passes are all that is run, on the
/// device in `WGRAD_DEVICE` too.
fn targets(operators: &[Operator<'_>], filter: &Filter) -> Result<(Vec<Target>, Vec<Target>)> {
    let limits_only = std::env::args().any(|arg| arg == "--limits");
    let named = support::is_named();
    let names = support::names();
    let with_limits = limits_only || (!named && std::env::var_os("WGRAD_CONFORMANCE_DIR").is_none());
    let everything = candidates(operators, &Layout::ALL);
    let mut cpu = Vec::new();
    if names.iter().any(|name| name == "cpu") && !limits_only {
        cpu.push(Target::new("cpu", Pass::All, by_operator(everything.iter().copied())));
    }
    let names: Vec<&String> = names.iter().filter(|name| *name != "cpu").collect();
    if names.is_empty() {
        return Ok((cpu, Vec::new()));
    }
    let devices = names.iter().map(|name| name.parse()).collect::<wgrad::Result<Vec<Device>>>()?;
    let all = !filter.0.is_empty() || std::env::var("WGRAD_CONFORMANCE").is_ok_and(|value| value == "all");
    let surveyed =
        if all { Vec::new() } else { choice::survey(operators, &everything, &choice::limits(&devices)) };
    let mut gpus = Vec::new();
    for (name, device) in names.into_iter().zip(&devices) {
        let supported = |candidate: &Candidate| {
            let operator = &operators[candidate.operator];
            let case = &operator.cases[candidate.case];
            tensors::supported(case, &operator.store, device).unwrap_or(false)
        };
        if !limits_only {
            let wanted = if all {
                everything.iter().copied().filter(|candidate| candidate.layout == Layout::Stored).collect()
            } else {
                let chosen =
                    choice::choose(surveyed.iter().filter(|surveyed| supported(&surveyed.candidate)));
                println!(
                    "{name}: {} of {} cases and layouts are chosen; with them all {} pairs of an operator and a dtype and \
                     parts of kernels are met (choice {:016x})",
                    chosen.candidates.len(),
                    everything.len(),
                    chosen.parts,
                    structure::hash(&chosen.candidates)
                );
                chosen.candidates
            };
            let pass = if all { Pass::All } else { Pass::Chosen };
            gpus.push(Target::new(name, pass, by_operator(wanted)));
        }
        for pass in [Pass::Limited, Pass::Enlarged].into_iter().filter(|_| with_limits) {
            let looked_at = (0..operators.len()).filter_map(|at| looked_at(operators, at, pass, device));
            let wanted: Vec<Candidate> = if all {
                looked_at.collect()
            } else {
                let wanted: HashSet<Candidate> = looked_at.collect();
                let parts = surveyed.iter().filter(|surveyed| wanted.contains(&surveyed.candidate));
                let chosen = choice::choose_forms(parts);
                let is_hosted =
                    |at: &&Candidate| pass == Pass::Limited && limits::is_hosted(operators[at.operator].name);
                let hosted = wanted.iter().filter(is_hosted);
                let chosen: BTreeSet<Candidate> =
                    chosen.candidates.into_iter().chain(hosted.copied()).collect();
                println!("{name}{}: {} operators are chosen", pass.suffix(), chosen.len());
                chosen.into_iter().collect()
            };
            gpus.push(Target::new(name, pass, by_operator(wanted)));
        }
    }
    Ok((cpu, gpus))
}

/// The case that a pass with limits takes of an operator, or looks at first.
fn looked_at(operators: &[Operator<'_>], at: usize, pass: Pass, device: &Device) -> Option<Candidate> {
    let Operator { cases, store, .. } = &operators[at];
    let case = match pass {
        Pass::Limited => limits::largest(cases, store),
        _ => enlarged::candidates(&cases.iter().collect::<Vec<_>>(), store, device).first().copied(),
    };
    let case = cases.iter().position(|other| case.is_some_and(|case| std::ptr::eq(case, other)))?;
    Some(Candidate { operator: at, case, layout: Layout::Stored })
}

impl Pass {
    fn suffix(self) -> &'static str {
        match self {
            Pass::All | Pass::Chosen => "",
            Pass::Limited => " with low limits",
            Pass::Enlarged => " above its limits",
        }
    }
}

impl Target {
    fn new(name: &str, pass: Pass, wanted: BTreeMap<usize, Vec<Candidate>>) -> Target {
        let errors = matches!(pass, Pass::All | Pass::Chosen);
        Target { name: name.to_owned(), pass, wanted, errors, compiled: AtomicU64::new(0) }
    }

    /// A device for one thread. A GPU is opened anew: a driver that runs on the processor works off a device's queue, and compiles
    /// the kernels in it, on one thread.
    fn open(&self) -> Result<Device> {
        let options = match self.pass {
            Pass::All | Pass::Chosen => DeviceOptions::default(),
            Pass::Limited => limits::options(),
            Pass::Enlarged => enlarged::options(),
        };
        let device =
            if self.name == "cpu" { Ok(Device::cpu()) } else { Device::open_with(&self.name, options) };
        device.with_context(|| format!("device {}{}", self.name, self.pass.suffix()))
    }
}

/// One thread's share: an operator on a target, or the target's errors.
type Job = (usize, Option<usize>);

/// Replays targets, a thread for each core, and prints their tables. All of GL shares one context, so one thread works for it while the
/// others see to the rest, and helps them when it is done.
fn replay_all(
    targets: &[Target],
    operators: &[Operator<'_>],
    errors: Option<&Files>,
    filter: &Filter,
) -> Result<Count> {
    let begin = std::time::Instant::now();
    let mut queues: [VecDeque<Job>; 2] = Default::default();
    for (at, target) in targets.iter().enumerate() {
        let jobs = target.wanted.keys().map(|&operator| (at, Some(operator)));
        let errors = (errors.is_some() && target.errors).then_some((at, None));
        queues[usize::from(target.name.starts_with("gl"))].extend(jobs.chain(errors));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let gl = usize::from(!queues[1].is_empty());
    let queues = queues.map(Mutex::new);
    let reports: Mutex<BTreeMap<Job, Result<Report>>> = Mutex::default();
    let work = |order: &[usize]| {
        let mut open: Option<(usize, Device)> = None;
        for &queue in order {
            loop {
                let job = queues[queue].lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((at, operator)) = job else { break };
                let target = &targets[at];
                if open.as_ref().is_none_or(|(of, _)| *of != at) {
                    if let Some((of, device)) = open.take() {
                        targets[of].close(&device);
                    }
                    match target.open() {
                        Ok(device) => open = Some((at, device)),
                        Err(error) => {
                            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                            reports.insert((at, operator), Err(error));
                            continue;
                        }
                    }
                }
                let Some((_, device)) = &open else { continue };
                let report = match (operator, errors) {
                    (Some(operator), _) => {
                        replay_op(&operators[operator], &target.wanted[&operator], device, target.pass)
                            .map(Report::Operator)
                    }
                    (None, Some(files)) => {
                        errors::run(files, device, &filter.0).map(|(count, text)| Report::Errors(count, text))
                    }
                    (None, None) => continue,
                };
                reports.lock().unwrap_or_else(PoisonError::into_inner).insert((at, operator), report);
            }
        }
        if let Some((of, device)) = open.take() {
            targets[of].close(&device);
        }
    };
    // A failed case reports its panic itself; this line is for one that ends the process.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    std::thread::scope(|scope| {
        for thread in 0..threads.max(1 + gl) {
            let order: &[usize] = if thread < gl { &[1, 0] } else { &[0] };
            scope.spawn(move || work(order));
        }
    });
    std::panic::set_hook(hook);
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut total = Count::default();
    for (at, target) in targets.iter().enumerate() {
        let own: Vec<Job> = reports.keys().copied().filter(|job| job.0 == at).collect();
        let own = own.into_iter().filter_map(|job| reports.remove(&job)).collect::<Result<Vec<_>>>()?;
        total = total + target.print(own);
    }
    println!("{:.0} s", begin.elapsed().as_secs_f64());
    Ok(total)
}

/// What came of a job.
enum Report {
    Operator(OpReport),
    Errors(Count, String),
}

impl Target {
    /// A thread is done with a device.
    fn close(&self, device: &Device) {
        // The CPU's threads share one.
        let compiled = device.stats().pipelines_compiled;
        if device.is_cpu() {
            self.compiled.store(compiled, Ordering::Relaxed);
        } else {
            self.compiled.fetch_add(compiled, Ordering::Relaxed);
        }
    }

    /// Prints its table; all counts together.
    fn print(&self, reports: Vec<Report>) -> Count {
        let name = format!("{}{}", self.name, self.pass.suffix());
        println!("\ndevice {name}\n{}", report::heading());
        let (mut count, mut skipped) = (Count::default(), 0);
        let mut errors = None;
        for report in reports {
            match report {
                Report::Operator(report) => {
                    println!("{report}");
                    report.failures.iter().for_each(|failure| println!("    {failure}"));
                    if report.skipped > 0 {
                        println!("    {} cases skipped on {name}: it has no such dtype", report.skipped);
                    }
                    if report.no_dtype > 0 && report.skipped == 0 {
                        println!(
                            "    skipped on {name}: all of its cases are of a dtype that it does not have"
                        );
                    }
                    skipped += report.skipped + report.no_dtype;
                    count = count + report.cases;
                }
                Report::Errors(own, text) => {
                    count = count + own;
                    errors = Some(text);
                }
            }
        }
        errors.iter().for_each(|text| print!("{text}"));
        if self.pass == Pass::Enlarged {
            println!(
                "operators above the limits of {}: {} passed, {skipped} without a dtype",
                self.name, count.passed
            );
        }
        println!(
            "{name}: {} passed, {} failed, {skipped} skipped; {} kernels compiled",
            count.passed,
            count.failed(),
            self.compiled.load(Ordering::Relaxed)
        );
        count
    }
}

/// Every operator of the set must be known; each that is not counts as failed.
fn count_unknown(set: &BTreeMap<String, Files>, filter: &Filter) -> usize {
    let unknown = |op: &&String| op.as_str() != "errors" && filter.op(op) && ops::find(op).is_none();
    let print = |op: &String| println!("operator {op} is unknown: add it to the table in ops");
    set.keys().filter(unknown).inspect(|op| print(op)).count()
}

/// Replays what is wanted of an operator.
fn replay_op(operator: &Operator<'_>, wanted: &[Candidate], device: &Device, pass: Pass) -> Result<OpReport> {
    let Operator { name, op, cases, store } = operator;
    let mut report = OpReport::new(name);
    let factor = gpu_tolerance::factor(name, device);
    if pass == Pass::Enlarged {
        let cases: Vec<&Case> = cases.iter().collect();
        match enlarged::run(name, *op, &cases, store, device, factor)? {
            enlarged::Verdict::Ran { id, dtype, replayed } => report.add(&id, &dtype, &replayed),
            enlarged::Verdict::NoDtype => report.no_dtype += 1,
        }
        return Ok(report);
    }
    for &Candidate { case, layout, .. } in wanted {
        let case = &cases[case];
        if !tensors::supported(case, store, device)? {
            report.skipped += 1;
            continue;
        }
        let setting = Setting { case, store, device, factor, layout };
        let before = device.stats();
        let mut replayed = replay::replay(*op, &setting);
        if pass == Pass::Limited
            && replayed.passed()
            && let Err(failure) = limits::check_hosted(name, device.stats().since(&before).hosted)
        {
            replayed.values = Some(Err(failure));
        }
        report.add(&format!("{}{layout}", case.id), &case.dtype, &replayed);
    }
    Ok(report)
}
