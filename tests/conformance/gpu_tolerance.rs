//! Where a GPU's arithmetic is allowed a larger error than the cases say. One table: per operator a factor for all of its
//! tolerances, why, and the largest error seen in units of the cases' own tolerance.

use wgrad::Device;

/// An operator's row.
struct Row {
    op: &'static str,
    factor: f64,
    /// What limits the accuracy.
    _reason: &'static str,
    /// The largest error of all its cases on the adapters tried, in units of the cases' own tolerance.
    _measured: f64,
}

/// All cases of the project's own folder pass on Mesa's Vulkan and GL with their own tolerances; the rows are for cases like them.
const ROWS: &[Row] = &[
    Row {
        op: "pow",
        factor: 1.5,
        _reason: "a second gradient is the difference of two powers, each a unit or two off, that cancel 430-fold; the CPU's are half a unit off",
        _measured: 1.08,
    },
    Row {
        op: "cumprod",
        factor: 4.0,
        _reason: "a second gradient is divided by an element of 0.0007 after its terms cancel; the CPU has them in f64",
        _measured: 3.08,
    },
];

/// How many times a case's tolerance an operator may miss by on a device.
pub fn factor(op: &str, device: &Device) -> f64 {
    let row = ROWS.iter().find(|row| row.op == op && !device.is_cpu());
    row.map_or(1.0, |row| row.factor)
}
