//! What Linux tells about the process and its neighbours. Elsewhere nothing is known.

use std::fs;
use std::time::Instant;

/// The clock ticks of `/proc`, in seconds.
const TICK: f64 = 0.01;

/// The processor time used up to a moment.
pub struct Usage {
    at: Instant,
    ticks: Option<(f64, f64)>,
}

impl Usage {
    pub fn now() -> Usage {
        Usage { at: Instant::now(), ticks: ticks() }
    }

    /// How many cores other programs have used since, on average.
    pub fn by_others_since(&self) -> Option<f64> {
        let ((all, own), (all_now, own_now)) = (self.ticks?, ticks()?);
        let others = (all_now - all) - (own_now - own);
        Some((others * TICK / self.at.elapsed().as_secs_f64()).max(0.0))
    }
}

/// Busy ticks of the machine and of this process.
fn ticks() -> Option<(f64, f64)> {
    let numbers =
        |line: &str| -> Vec<f64> { line.split_whitespace().map_while(|n| n.parse().ok()).collect() };
    let machine = fs::read_to_string("/proc/stat").ok()?;
    // user nice system idle iowait irq softirq steal: all but idle and iowait.
    let machine = numbers(machine.lines().next()?.strip_prefix("cpu")?);
    let busy = machine.iter().take(8).sum::<f64>() - machine.get(3)? - machine.get(4)?;
    let process = fs::read_to_string("/proc/self/stat").ok()?;
    // After the name in parentheses and the state: utime, stime and those of waited-for children from the 11th on.
    let process = numbers(process.rsplit(')').next()?.trim_start().get(1..)?);
    Some((busy, process.iter().skip(10).take(4).sum()))
}

/// Starts the measurement of [`peak_memory_mb`] anew.
pub fn clear_peak_memory() {
    // Without it, the peak is that of the whole process so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most resident memory of the process.
pub fn peak_memory_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}
