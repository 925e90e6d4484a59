//! Runs what the command line asks for: the whole run, divided among workers; the part of one worker; or a
//! single case.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wgrad::Device;

use crate::hostile::{Ended, METHODS, UNKNOWN, try_call};
use crate::options::FuzzOptions;
use crate::page::{self, RunSummary};
use crate::program::check::{ProgramFault, ProgramVerdict, TestDevice, check};
use crate::program::{Action, RandomProgram, generate, shrink};
use crate::supervise;
use crate::supervise::{ReportedFault, WorkerJob, WorkerMessage};

/// The memory limit of a device for hostile calls, and the address space of their process, in bytes.
const DEVICE_LIMIT: u64 = 256 << 20;
const PROCESS_LIMIT: u64 = 6 << 30;

/// Runs everything. True if no fault was found.
pub fn run(options: &FuzzOptions) -> Result<bool, String> {
    if let Some(seed) = options.only {
        return only_program(options, seed);
    }
    if let Some(number) = options.call {
        return only_call(options, number);
    }
    if let Some(first) = options.worker {
        return if options.programs > 0 { programs(options, first) } else { calls(options, first) };
    }
    let mut parts = Vec::new();
    if options.programs > 0 {
        parts.push(supervised(options, "programs", &options.devices.join(","), options.programs)?);
    }
    if options.calls > 0 {
        if !UNKNOWN.is_empty() {
            return Err(format!("fuzz/src/hostile/make.rs makes no arguments for {UNKNOWN:?}"));
        }
        for device in &options.devices {
            parts.push(supervised(options, "calls", device, options.calls)?);
        }
    }
    if parts.is_empty() {
        return Err("say what to try: --programs N, --calls N, or both".to_owned());
    }
    if let Some(path) = &options.page {
        std::fs::write(path, page::write(options, &parts)).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(parts.iter().all(|part| part.faults == 0))
}

/// All programs, or all calls on a device, in workers.
fn supervised(
    options: &FuzzOptions,
    what: &'static str,
    device: &str,
    count: u64,
) -> Result<RunSummary, String> {
    let start = Instant::now();
    let mut part =
        RunSummary { what, device: device.to_owned(), count, faults: 0, counts: BTreeMap::new(), seconds: 0 };
    let first = if what == "programs" { options.seed } else { 0 };
    let arguments = |first: u64, count: u64| {
        let mut all = vec![format!("--{what}"), count.to_string(), "--worker".to_owned(), first.to_string()];
        all.extend([
            "--devices".to_owned(),
            device.to_owned(),
            "--seed".to_owned(),
            options.seed.to_string(),
        ]);
        all
    };
    let hostile = what == "calls";
    let work = WorkerJob {
        arguments: &arguments,
        first,
        count,
        memory: hostile.then_some(PROCESS_LIMIT),
        patience: Duration::from_secs(if hostile { 10 } else { 120 }),
    };
    let mut faults = 0;
    let counts = &mut part.counts;
    let report = |ReportedFault { number, kind, text }: ReportedFault| {
        faults += 1;
        let again = if hostile {
            format!("--call {number} --seed {} --devices {device}", options.seed)
        } else {
            format!("--only {number} --devices {device}")
        };
        println!("{kind}, cargo run --release -p fuzz -- {again}\n{text}\n");
    };
    supervise::run(&work, report, |name, n| {
        let count = counts.entry(name.clone()).or_insert(0.0);
        *count = if name.starts_with("most") { count.max(n) } else { *count + n };
    })
    .map_err(|error| format!("a worker cannot be run: {error}"))?;
    part.faults = faults;
    part.seconds = start.elapsed().as_secs();
    println!("{}", page::summary(&part));
    Ok(part)
}

fn open(name: &str) -> Result<Device, String> {
    name.parse().map_err(|error| format!("{name}: {error}"))
}

fn targets(options: &FuzzOptions) -> Result<Vec<TestDevice>, String> {
    options.devices.iter().map(|name| Ok(TestDevice { name: name.clone(), device: open(name)? })).collect()
}

/// The worker for programs: seeds from the first on.
fn programs(options: &FuzzOptions, first: u64) -> Result<bool, String> {
    let (cpu, targets) = (Device::cpu(), targets(options)?);
    let mut rules = BTreeMap::<&str, f64>::new();
    let mut counts = Counts::default();
    for seed in first..first + options.programs {
        WorkerMessage::At(seed).send();
        let program = generate(seed, &cpu).map_err(|error| format!("program {seed}: {error}"))?;
        for step in &program.steps {
            if let Action::Call(call) = &step.action {
                *rules.entry(call.rule.name).or_default() += 1.0;
            }
        }
        counts.add("steps", program.steps.len() as f64);
        match check(&program, &cpu, &targets) {
            ProgramVerdict::Agrees { elements, worst, derivatives } => {
                counts.add("programs that agree", 1.0);
                counts.add("elements compared", elements as f64);
                counts.add("derivatives compared with differences", derivatives as f64);
                counts.most("most of what is allowed", worst);
            }
            ProgramVerdict::Unclear => counts.add("programs that say nothing", 1.0),
            ProgramVerdict::Fault(fault) => {
                let (small, fault) = smallest(program, &fault, &cpu, &targets);
                WorkerMessage::Fault(fault.kind.to_owned(), format!("{fault}\n{small}")).send();
            }
        }
    }
    for (name, count) in rules {
        counts.add(&format!("rule {name}"), count);
    }
    counts.send();
    Ok(true)
}

/// Counts that a worker reports at its end.
#[derive(Default)]
struct Counts(BTreeMap<String, f64>);

impl Counts {
    fn add(&mut self, name: &str, n: f64) {
        *self.0.entry(name.to_owned()).or_default() += n;
    }
    fn most(&mut self, name: &str, n: f64) {
        let most = self.0.entry(name.to_owned()).or_default();
        *most = most.max(n);
    }
    fn send(self) {
        for (name, count) in self.0 {
            WorkerMessage::Count(name, count).send();
        }
    }
}

/// The smallest program with the same fault that shrinking finds.
fn smallest(
    program: RandomProgram,
    fault: &ProgramFault,
    cpu: &Device,
    targets: &[TestDevice],
) -> (RandomProgram, ProgramFault) {
    let same = |program: &RandomProgram| match check(program, cpu, targets) {
        ProgramVerdict::Fault(found) => (found.kind == fault.kind && found.way == fault.way).then_some(found),
        _ => None,
    };
    let small = shrink(program, |program| same(program).is_some(), Duration::from_secs(20));
    let fault = same(&small).unwrap_or_else(|| fault.clone());
    (small, fault)
}

fn only_program(options: &FuzzOptions, seed: u64) -> Result<bool, String> {
    let (cpu, targets) = (Device::cpu(), targets(options)?);
    let program = generate(seed, &cpu).map_err(|error| error.to_string())?;
    println!("{program}");
    match check(&program, &cpu, &targets) {
        ProgramVerdict::Agrees { elements, worst, .. } => {
            println!(
                "{elements} elements agree; the worst is off by {:.1} % of what is allowed",
                100.0 * worst
            );
            Ok(true)
        }
        ProgramVerdict::Unclear => {
            println!("noise moves it across a discontinuity, so nothing can be said");
            Ok(true)
        }
        ProgramVerdict::Fault(fault) => {
            println!("{fault}\n");
            let (small, fault) = smallest(program, &fault, &cpu, &targets);
            println!("{small}{fault}");
            Ok(false)
        }
    }
}

fn limited(name: &str) -> Result<Device, String> {
    let device = open(name)?;
    device.set_memory_limit(Some(DEVICE_LIMIT));
    Ok(device)
}

/// The worker for hostile calls: numbers from the first on.
fn calls(options: &FuzzOptions, first: u64) -> Result<bool, String> {
    let name = options.devices.first().ok_or("calls need a device")?;
    let device = limited(name)?;
    let mut counts = Counts::default();
    // A call may end the process, so the counts are reported from time to time.
    for number in first..first + options.calls {
        WorkerMessage::At(number).send();
        let tried =
            try_call(options.seed, number, &device, |text| WorkerMessage::Doing(text.to_owned()).send());
        match tried.ended {
            Ended::Value => counts.add("calls with values", 1.0),
            Ended::Error => counts.add("calls refused", 1.0),
            Ended::Fault { kind, text } => {
                WorkerMessage::Fault(kind.to_owned(), format!("{}\n  {text}", tried.text)).send();
                counts.add("calls with faults", 1.0);
            }
        }
        counts.add(&format!("method {}", tried.method), 1.0);
        if number % 50 == 49 {
            std::mem::take(&mut counts).send();
        }
    }
    counts.send();
    Ok(true)
}

fn only_call(options: &FuzzOptions, number: u64) -> Result<bool, String> {
    let name = options.devices.first().ok_or("a call needs a device")?;
    let device = limited(name)?;
    println!("{} of {} methods", METHODS[number as usize % METHODS.len()].0, METHODS.len());
    let tried = try_call(options.seed, number, &device, |text| println!("{text}"));
    println!("{}", tried.text);
    match tried.ended {
        Ended::Value => println!("a value"),
        Ended::Error => println!("an error"),
        Ended::Fault { kind, text } => {
            println!("{kind}: {text}");
            return Ok(false);
        }
    }
    Ok(true)
}
