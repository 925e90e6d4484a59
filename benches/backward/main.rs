//! Times forward and backward on the CPU and on every GPU adapter, task by task.
//!
//! ```text
//! cargo bench --bench backward                                  all standard tasks on all devices
//! cargo bench --bench backward -- --set operators               sorts, Fourier transforms, convolutions …, one by one
//! cargo bench --bench backward -- --tasks seed_1000000,softmax  tasks whose names start so
//! cargo bench --bench backward -- --devices cpu,vulkan:0        these devices
//! cargo bench --bench backward -- --quick                       small sizes, few runs: does it work?
//! cargo bench --bench backward -- --json FILE --svg FILE        JSON lines; a chart
//! cargo bench --bench backward -- --against FILE                ratios to another library's JSON lines
//! ```
//!
//! The way of the numbers: `inputs` makes the same data in every library, `tasks` says what one run is, `measure` runs and
//! counts, `report` prints the table and the JSON lines, `against` reads another library's lines (those of
//! `benches/pytorch_eager.py`, say) and compares, `chart` draws.

mod against;
mod chart;
mod inputs;
mod machine;
mod measure;
mod options;
mod report;
mod tasks;

use anyhow::{Context, Result, bail, ensure};
use wgrad::Device;

use crate::options::Options;

fn main() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let other = options.against.as_deref().map(against::read).transpose()?;
    let mut tasks = tasks::all(options.set, options.quick);
    tasks.retain(|task| options.wants(task));
    ensure!(!tasks.is_empty(), "no task of the set begins so");
    let mut report = report::Report::new(options.json.as_deref())?;
    for name in &options.devices {
        let device: Device = name.parse().with_context(|| format!("opening {name}"))?;
        report.device(&device)?;
        for task in &tasks {
            if task.runs_on(name) {
                report.add(&device, &task.name, measure::measure(task, &device, options.quick))?;
            }
        }
    }
    println!("\n{}", report.table());
    if let Some(other) = &other {
        println!("{}", other.table(&report));
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, chart::draw(&report)).with_context(|| format!("writing {}", path.display()))?;
    }
    let failed = report.failed();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
