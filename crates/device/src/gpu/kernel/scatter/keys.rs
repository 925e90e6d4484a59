//! The entries' keys: made of indices, and sorted.

use super::{Layout, Sorted, WORKGROUP, Windows, begin, temp, temp_window};
use crate::gpu::Shared;
use crate::gpu::kernel::body::Body;
use crate::gpu::kernel::emit::{Emitter, Width};
use crate::gpu::kernel::loops::indices;
use crate::gpu::kernel::scan::{self, TEMPS};
use crate::gpu::program::Dispatch;
use crate::kernel::{Access, Instr, ReduceOp, Ty};
use crate::{DType, Result};

/// Keys that one invocation sorts.
const SHARE: usize = 256;

/// Writes the key and the number of each entry.
pub(super) fn make_keys(
    shared: &Shared,
    layout: &Layout<'_>,
    windows: &Windows,
    keys: usize,
    order: usize,
) -> Result<Dispatch> {
    let kernel = layout.kernel;
    // The indices' values come from the body of a loop that only loads them.
    let mut nest = layout.nest.clone();
    nest.kernel.body = (0..kernel.indices.len())
        .map(|i| Instr::Load { access: 2 + i, indices: Default::default() })
        .collect();
    let mut body = Body::new(&nest, windows, None, Ty::F32)?;
    let mut e = Emitter::new(shared, "The places that entries write to.", WORKGROUP);
    begin(&mut e, layout.entries);
    indices(&mut e, &layout.nest, &layout.entry_dims, None, "thread");
    for &d in &layout.free_dims {
        e.line(format!("let i{d} = 0u;"));
    }
    let regs: Vec<u32> = (0..kernel.indices.len() as u32).collect();
    body.require(&mut e, &regs)?;
    let mut key = e.signed("target_offset", kernel.target.offset);
    for &d in layout.entry_dims.iter().filter(|&&d| kernel.target.strides[d] != 0) {
        let stride = e.signed(&format!("target_stride{d}"), kernel.target.strides[d]);
        key = format!("{key} + i{d} * {stride}");
    }
    for (k, (dim, &reg)) in kernel.target.indexed.iter().zip(&regs).enumerate() {
        let size = e.number(&format!("target_size{k}"), dim.size);
        let op = shared.checked_op(dim.op) as usize;
        let op = e.number(&format!("target_op{k}"), op);
        let stride = e.signed(&format!("target_index_stride{k}"), dim.stride);
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

/// Sorts the entries by their keys, four bits at a time.
pub(super) fn sort(
    shared: &Shared,
    layout: &Layout<'_>,
    sorted: &mut Sorted,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let Some(mut order) = sorted.order else { return Ok(()) };
    let blocks = layout.entries.div_ceil(SHARE);
    let (mut keys, mut other_keys) = (sorted.keys, temp(temps, layout.entries * 4));
    let mut other_order = temp(temps, layout.entries * 4);
    let digits = temp(temps, blocks * 16 * 4);
    let bits = usize::BITS - (layout.kernel.elements - 1).leading_zeros();
    let scan_temps = temps.len();
    for shift in (0..bits.max(1) as usize).step_by(4) {
        let mut count = Emitter::new(shared, "Digits of keys, counted.", WORKGROUP);
        begin(&mut count, blocks);
        count.bind("keys", "u32", temp_window(keys));
        count.bind("digits", "i32", temp_window(digits));
        radix(
            &mut count,
            include_str!("../../../../shaders/radix_count.wgsl"),
            layout.entries,
            shift,
            blocks,
        );
        steps.push(count.finish(blocks.div_ceil(WORKGROUP as usize))?);
        let all = Access::new(TEMPS + digits, DType::I32, &[1], 0);
        // Every digit's scan uses the same temporaries.
        let mut used: Vec<usize> = temps[..scan_temps].to_vec();
        scan::run(shared, ReduceOp::Sum, &smallvec::smallvec![blocks * 16], &all, &all, &mut used, steps)?;
        if temps.len() == scan_temps {
            *temps = used;
        }
        let mut moves = Emitter::new(shared, "Keys moved to their places by a digit.", WORKGROUP);
        begin(&mut moves, blocks);
        moves.bind("keys", "u32", temp_window(keys));
        moves.bind("order", "u32", temp_window(order));
        moves.bind("digits", "i32", temp_window(digits));
        moves.bind("keys_moved", "u32", temp_window(other_keys));
        moves.bind("order_moved", "u32", temp_window(other_order));
        radix(&mut moves, include_str!("../../../../shaders/radix_move.wgsl"), layout.entries, shift, blocks);
        steps.push(moves.finish(blocks.div_ceil(WORKGROUP as usize))?);
        std::mem::swap(&mut keys, &mut other_keys);
        std::mem::swap(&mut order, &mut other_order);
    }
    sorted.keys = keys;
    sorted.order = Some(order);
    Ok(())
}

fn radix(e: &mut Emitter<'_>, file: &str, entries: usize, shift: usize, blocks: usize) {
    let (count, shift, blocks) =
        (e.number("count", entries), e.number("shift", shift), e.number("blocks", blocks));
    e.insert(file, &[("count", &count), ("shift", &shift), ("blocks", &blocks)]);
}
