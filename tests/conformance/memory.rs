//! How much memory the run held at most, where the system tells.

/// The most bytes: a machine with little memory must be able to run the tests.
const MOST: u64 = 2 << 30;

/// Prints the peak. 1 if it is too large, where every adapter is a software adapter; drivers of hardware map memory of their own.
pub fn check() -> usize {
    let Some(peak) = peak() else { return 0 };
    println!("memory: {} MiB at most", peak >> 20);
    let too_large = peak > MOST && crate::support::all_software();
    if too_large {
        println!("    more than {} MiB", MOST >> 20);
    }
    usize::from(too_large)
}

/// The most bytes that were in memory at a time.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
