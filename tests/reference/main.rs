//! Replays what PyTorch's training library gives: optimisers, schedules, layers, whole training runs. On
//! every device, and from files alone. `README.md` beside this file says where they come from and how to run
//! a part of them.

#![allow(missing_docs)]

mod case;
mod node;
#[path = "../recorded/mod.rs"]
mod recorded;
mod report;
#[path = "../../crates/device/tests/support/mod.rs"]
mod support;
mod topics;
mod tree;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use case::{Case, Topic};
use recorded::files;
use report::{Counts, TopicReport};
use topics::Run;
use wgrad::Device;

/// Topics and ids of cases to run; empty for all.
struct Filter(Vec<String>);

impl Filter {
    /// From the arguments that are not options.
    fn new() -> Filter {
        Filter(std::env::args().skip(1).filter(|name| !name.is_empty() && !name.starts_with('-')).collect())
    }

    fn topic(&self, topic: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name.split('/').next() == Some(topic))
    }

    fn case(&self, topic: &str, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|name| name == topic || name == id)
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
            println!("reference: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything; how many failed.
fn run() -> Result<usize> {
    let filter = Filter::new();
    let (origin, set) = files::read("WGRAD_REFERENCE_DIR", "tests/reference/data.tar.gz")?;
    println!("cases from {origin}");
    let mut known: Vec<(Topic<'_>, Run)> = Vec::new();
    for (name, files) in set.iter().filter(|(name, _)| filter.topic(name)) {
        let topic = Topic::new(name, files).with_context(|| format!("the cases of {name}"))?;
        match topics::find(name) {
            Some(run) => known.push((topic, run)),
            None => println!("{name:<16} not replayed: {} cases", topic.cases.len()),
        }
    }
    let names = support::names();
    // A failed case reports its panic itself.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> =
            names.iter().map(|name| scope.spawn(|| replay_on(name, &known, &filter))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread ended early")));
        joined.collect::<Result<Result<Vec<Counts>>>>()
    });
    std::panic::set_hook(hook);
    let total = counts??.into_iter().fold(Counts::default(), |total, counts| total + counts);
    if total.waiting > 0 {
        println!("{} waiting", total.waiting);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed)
}

/// Replays all topics on a device, and prints a line for each.
fn replay_on(name: &str, topics: &[(Topic<'_>, Run)], filter: &Filter) -> Result<Counts> {
    let device: Device = name.parse().with_context(|| format!("device {name}"))?;
    // Software adapters are slow: on GPUs one case of each kind is replayed, unless cases are named or all are asked for.
    let is_thorough =
        name == "cpu" || !filter.0.is_empty() || std::env::var("WGRAD_REFERENCE").is_ok_and(|v| v == "all");
    let mut counts = Counts::default();
    for (topic, run) in topics {
        let mut report = TopicReport::new(&topic.name, name);
        let mut met = HashSet::new();
        for stored in topic.cases.iter().filter(|case| filter.case(&topic.name, &case.id)) {
            if !met.insert(stored.kind()) && !is_thorough {
                continue;
            }
            let case = &Case::new(topic, stored);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(case, &device)));
            let outcome = outcome.unwrap_or_else(|panic| Err(anyhow!("panic: {}", panic_text(&*panic))));
            report.add(case.id, outcome, &case.body.unread());
        }
        print!("{report}");
        counts = counts + report.counts;
    }
    Ok(counts)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned())).unwrap_or_default()
}
