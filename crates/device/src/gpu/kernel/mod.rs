//! From the kernel IR to programs: how work is spread over workgroups, and the WGSL that does it.

mod access;
mod alike;
mod body;
mod emit;
mod fold;
mod loops;
mod matmul;
mod nest;
mod radix;
mod scan;
mod scatter;
mod sort;

use std::sync::Arc;

use super::Shared;
use super::program::Program;
use crate::Result;
use crate::kernel::Kernel;

/// Makes a kernel ready to launch.
pub(super) fn prepare(shared: &Arc<Shared>, kernel: &Kernel) -> Result<Program> {
    let mut needs = Vec::new();
    let mut temps = Vec::new();
    let steps = match kernel {
        Kernel::Loop(kernel) => loops::plan(shared, kernel, &mut needs)?,
        Kernel::Matmul(kernel) => matmul::plan(shared, kernel, &mut needs, &mut temps)?,
        Kernel::Scatter(kernel) => scatter::plan(shared, kernel, &mut needs, &mut temps)?,
        Kernel::Scan(kernel) => scan::plan(shared, kernel, &mut needs, &mut temps)?,
        Kernel::Sort(kernel) => sort::plan(shared, kernel, &mut needs, &mut temps)?,
    };
    let (params, traffic) = (kernel.params(), kernel.traffic());
    Ok(Program { shared: shared.clone(), steps, temps, needs, params, traffic })
}
