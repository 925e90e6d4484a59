//! Compiles kernels of the IR to programs: it decides how work is spread over workgroups, and writes the
//! WGSL.

mod access;

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
mod value_numbering;

use std::sync::Arc;

use super::GpuShared;
use super::program::GpuProgram;
use crate::kernel::{Kernel, Ty};
use crate::{DType, Error, Result};

/// Prepares a kernel for launches.
pub(super) fn prepare(shared: &Arc<GpuShared>, kernel: &Kernel) -> Result<GpuProgram> {
    kernel.check().map_err(|reason| shared.failures.refused(reason))?;
    if !shared.caps.f64 && kernel.uses(Ty::F64) {
        return Err(Error::DType {
            op: "kernel",
            dtype: DType::F64,
            reason: format!("does not exist on {}; use f32 here, or the CPU for f64", shared.name),
        });
    }
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
    let mut written = vec![false; needs.len()];
    kernel
        .written()
        .into_iter()
        .filter(|&buffer| buffer < needs.len())
        .for_each(|buffer| written[buffer] = true);
    Ok(GpuProgram { shared: shared.clone(), steps, temps, needs, written, params, traffic })
}
