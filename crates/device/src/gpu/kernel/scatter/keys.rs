//! The keys of a scatter's entries: they are computed from the indices, and sorted.

use super::{BufferWindows, ScatterSpace, Sorted};
use crate::Result;
use crate::gpu::GpuShared;
use crate::gpu::kernel::body::ShaderBody;
use crate::gpu::kernel::emit::{Emitter, Width};
use crate::gpu::kernel::loops::indices;
use crate::gpu::kernel::radix::{Keys, RadixRows, WORKGROUP, begin, temp_window};
use crate::gpu::program::Dispatch;
use crate::kernel::{Instr, Ty};

/// Writes the key and the number of each entry.
pub(super) fn make_keys(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    windows: &BufferWindows,
    keys: usize,
    order: usize,
) -> Result<Dispatch> {
    let kernel = layout.kernel;
    // A loop that only loads them gives the values of the indices.
    let mut nest = layout.nest.clone();
    nest.kernel.body = (0..kernel.indices.len())
        .map(|i| Instr::Load { access: 2 + i, indices: Default::default() })
        .collect();
    let mut body = ShaderBody::new(&nest, windows, None, Ty::F32);
    let mut e = Emitter::new(shared, "The places that entries write to.", WORKGROUP);
    begin(&mut e, layout.entries);
    indices(&mut e, &layout.nest, &layout.entry_dims, None, "thread");
    for &d in &layout.free_dims {
        e.line(format!("let i{d} = 0u;"));
    }
    let regs: Vec<u32> = (0..kernel.indices.len() as u32).collect();
    body.require(&mut e, &regs)?;
    let mut key = e.signed_uniform("target_offset", kernel.target.offset);
    for &d in layout.entry_dims.iter().filter(|&&d| kernel.target.strides[d] != 0) {
        let stride = e.signed_uniform(&format!("target_stride{d}"), kernel.target.strides[d]);
        key = format!("{key} + i{d} * {stride}");
    }
    for (k, (dim, &reg)) in kernel.target.indexed.iter().zip(&regs).enumerate() {
        let size = e.uniform(&format!("target_size{k}"), dim.size);
        let op = shared.checked_op(dim.op) as usize;
        let op = e.uniform(&format!("target_op{k}"), op);
        let stride = e.signed_uniform(&format!("target_index_stride{k}"), dim.stride);
        let check = if body.types[reg as usize] == Ty::I64 { "checked_i64" } else { "checked_i32" };
        e.use_checks();
        e.line(format!("let index{k} = {check}({}, {size}, {op}, true);", body.value(reg, Width::One)));
        key = format!("{key} + index{k} * {stride}");
    }
    e.bind("keys", "u32", temp_window(keys));
    e.bind("order", "u32", temp_window(order));
    e.line(format!("keys[thread] = {key};"));
    e.line("order[thread] = thread;");
    e.finish(layout.entries.div_ceil(WORKGROUP as usize))
}

/// Sorts the entries by their keys.
pub(super) fn sort(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    sorted: &mut Sorted,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let Some(order) = sorted.order else { return Ok(()) };
    let bits = usize::BITS - (layout.kernel.elements - 1).leading_zeros();
    let at = Keys { keys: sorted.keys, order };
    let mut keys = RadixRows::new(shared, 1, layout.entries, bits.max(1) as usize, at, temps);
    keys.sort(shared, temps, steps)?;
    (sorted.keys, sorted.order) = (keys.at.keys, Some(keys.at.order));
    Ok(())
}
