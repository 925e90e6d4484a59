//! Runs a task and counts.
//!
//! A run ends when its results, gradients and new weights are computed and the device has nothing left to do. The first run is
//! timed by itself; three more warm up; then at least 5 runs and at least 1 s are timed, again if other programs used
//! the processor meanwhile. Dispatches and bytes are those of one run after the warm-up.

use std::time::Instant;

use anyhow::Result;
use wgrad::{DType, Device, Tensor};

use crate::machine::{Usage, clear_peak_memory, peak_memory_mb};
use crate::tasks::{Outcome, Run, Task};

/// The share of a core that others may use while a task is timed.
const QUIET: f64 = 0.15;

/// What was measured of one task on one device.
pub struct Measurement {
    pub first_s: f64,
    pub median_s: f64,
    pub min_s: f64,
    pub runs: usize,
    /// How many cores other programs used meanwhile; not known on every system.
    pub other_cpu: Option<f64>,
    /// The most memory the process had while the task ran.
    pub peak_rss_mb: Option<f64>,
    /// Of one run.
    pub dispatches: u64,
    /// Planned to be read and written by the kernels of one run.
    pub bytes_moved: u64,
    /// The most memory in use on the device.
    pub bytes_peak: u64,
    pub check: Check,
}

/// Values to be compared between libraries.
pub struct Check {
    /// One loss, or those of the first three training steps.
    pub losses: Vec<f64>,
    /// Gradients or results, by name: norm, sum, first and last element.
    pub compared: Vec<(&'static str, [f64; 4])>,
}

/// Runs a task on a device.
pub fn measure(task: &Task, device: &Device, quick: bool) -> Result<Measurement> {
    clear_peak_memory();
    let mut run = task.set_up(device)?;
    device.synchronize()?;
    let start = Instant::now();
    let outcome = complete(&mut run, device)?;
    let first_s = start.elapsed().as_secs_f64();
    let mut check = Check { losses: losses(&outcome)?, compared: vec![] };
    for (name, value) in &outcome.compared {
        check.compared.push((name, figures(value)?));
    }
    let trains = outcome.trains;
    drop(outcome);

    let (warm_ups, least_runs, least_s, tries) = if quick { (1, 2, 0.0, 1) } else { (3, 5, 1.0, 2) };
    for i in 0..warm_ups.max(if trains { 2 } else { 0 }) {
        let outcome = complete(&mut run, device)?;
        if trains && i < 2 {
            check.losses.extend(losses(&outcome)?);
        }
    }
    let before = device.stats();
    complete(&mut run, device)?;
    let stats = device.stats().since(&before);

    device.reset_peak();
    let mut best: Option<(Option<f64>, Vec<f64>)> = None;
    for _ in 0..tries {
        let (mut times, usage, start) = (Vec::new(), Usage::now(), Instant::now());
        while times.len() < least_runs || (start.elapsed().as_secs_f64() < least_s && times.len() < 100_000) {
            let start = Instant::now();
            drop(complete(&mut run, device)?);
            times.push(start.elapsed().as_secs_f64());
        }
        let other = usage.by_others_since();
        if best.as_ref().is_none_or(|(least, _)| other < *least) {
            best = Some((other, times));
        }
        if other.is_none_or(|cores| cores < QUIET) {
            break;
        }
    }
    let (other_cpu, mut times) = best.unwrap_or_default();
    times.sort_by(f64::total_cmp);
    Ok(Measurement {
        first_s,
        median_s: median(&times),
        min_s: times.first().copied().unwrap_or(f64::NAN),
        runs: times.len(),
        other_cpu,
        peak_rss_mb: peak_memory_mb(),
        dispatches: stats.dispatches,
        bytes_moved: stats.bytes_read + stats.bytes_written,
        bytes_peak: device.stats().bytes_peak,
        check,
    })
}

fn complete(run: &mut Run, device: &Device) -> Result<Outcome> {
    let outcome = run()?;
    let compared = outcome.compared.iter().map(|(_, value)| value);
    Tensor::eval_all(outcome.loss.iter().chain(compared).chain(&outcome.rest))?;
    device.synchronize()?;
    Ok(outcome)
}

fn losses(outcome: &Outcome) -> Result<Vec<f64>> {
    Ok(outcome.loss.iter().map(|loss| loss.item::<f32>().map(f64::from)).collect::<wgrad::Result<_>>()?)
}

fn figures(value: &Tensor) -> Result<[f64; 4]> {
    Ok(match value.dtype() {
        DType::F64 => figures_of(value.to_vec::<f64>()?.iter().copied()),
        DType::I64 => figures_of(value.to_vec::<i64>()?.iter().map(|&v| v as f64)),
        _ => figures_of(value.to_vec::<f32>()?.iter().map(|&v| f64::from(v))),
    })
}

fn figures_of(values: impl DoubleEndedIterator<Item = f64> + Clone) -> [f64; 4] {
    let squares: f64 = values.clone().map(|v| v * v).sum();
    let ends = [values.clone().next(), values.clone().next_back()].map(|v| v.unwrap_or(f64::NAN));
    [squares.sqrt(), values.sum(), ends[0], ends[1]]
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
