//! Scatters: values that are written to indexed places. They use no float atomics, so every run gives the
//! same bits.
//!
//! Each index of the dims on which the place depends is an entry, whose key is the place that it writes to.
//! The entries are sorted by key, keeping their order (`radix`). Then every element of the output finds its
//! entries by bisection, and joins their values in order. Runs of 128 and of 16,384 entries with one key are
//! joined before that, so that many entries in one place stay cheap. Dims that the indices do not depend on,
//! such as the features of an embedding, take no part in the sort.

mod keys;

use super::access::{Form, ShaderBuffer, element_type};
use super::body::ShaderBody;
use super::emit::{Emitter, Width, type_name};
use super::fold::ShaderFold;
use super::loops::{count, indices};
use super::nest::{BufferWindows, Fit, Nest, raise};
use super::radix::{WORKGROUP, begin, temp, temp_window};
use super::scan;
use crate::gpu::GpuShared;
use crate::gpu::program::{BoundMemory, Dispatch, Window};
use crate::kernel::{Instr, ReduceOp, Scatter, ScatterOp, Ty};
use crate::{DType, Error, Result};
use keys::{make_keys, sort};

/// The length of runs of entries that are joined before the output is written.
const RUN: usize = 128;
/// Up to this many entries, every element looks at all of them, and they are not sorted.
const FEW: usize = 256;

/// The position of the target among the accesses of a [`ScatterSpace`].
const TARGET: usize = 1;

/// The index space of a scatter, with its dims dealt into those of the entries and the rest.
struct ScatterSpace<'k> {
    kernel: &'k Scatter,
    /// The space of the source with these accesses: the source, the affine part of the target, the indices.
    nest: Nest,
    /// The dims whose indices number the entries.
    entry_dims: Vec<usize>,
    /// The free dims: those that the place depends on only through a stride of the target.
    free_dims: Vec<usize>,
    entries: usize,
    free: usize,
    ty: Ty,
}

/// The dispatches of a scatter, and the bytes that its buffers and temporaries need.
pub(super) fn plan(
    shared: &GpuShared,
    kernel: &Scatter,
    needs: &mut Vec<u64>,
    temps: &mut Vec<usize>,
) -> Result<Vec<Dispatch>> {
    let output_bytes = (kernel.elements * kernel.target.dtype.size()) as u64;
    raise(needs, kernel.target.buffer, output_bytes);
    if let Some(base) = kernel.base {
        raise(needs, base, output_bytes);
    }
    let mut accesses = vec![kernel.source.clone(), kernel.target.clone()];
    accesses.extend(kernel.indices.iter().cloned());
    let nest = scan::nest(kernel.sizes.clone(), accesses);
    nest.needs(needs);
    if kernel.elements == 0 {
        return Ok(Vec::new());
    }
    if kernel.elements >= 1 << 31 {
        let reason = format!(
            "{} elements are more than indices of 31 bits reach; split the operation",
            kernel.elements
        );
        return Err(Error::Unsupported { op: "scatter", reason });
    }
    let mut steps = Vec::new();
    in_parts(shared, kernel, nest, temps, &mut steps)?;
    Ok(steps)
}

/// Adds the dispatches of a scatter. If the values, the indices or the entries are more than can be bound,
/// its two halves are run one after the other, and the second one starts from the output of the first. Sums
/// in 16-bit floats are then rounded in between.
fn in_parts(
    shared: &GpuShared,
    kernel: &Scatter,
    nest: Nest,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let max_binding = shared.caps.max_binding;
    let layout = ScatterSpace::new(kernel, nest);
    let read: Vec<usize> = (0..layout.nest.kernel.accesses.len()).filter(|&i| i != TARGET).collect();
    let whole = layout.entries as u64 * 4 <= max_binding;
    let wide = match layout.nest.fit(&read, &shared.caps) {
        Fit::Windows(windows) if whole => {
            let mut own = Vec::new();
            one_part(shared, &layout, &windows, &mut own, steps)?;
            // Parts are run one after the other, so they share temporaries.
            temps.resize(temps.len().max(own.len()), 0);
            temps.iter_mut().zip(own).for_each(|(bytes, own)| *bytes = own.max(*bytes));
            return Ok(());
        }
        Fit::Windows(_) => None,
        Fit::TooWide(access) => Some(access),
    };
    // Only a cut along the outermost dim of the entries keeps their order.
    let first_entry = layout.entry_dims.iter().copied().find(|&d| kernel.sizes[d] > 1);
    let step = |d: usize| {
        let stride = wide.map_or(0, |access| layout.nest.kernel.accesses[access].strides[d]);
        stride.unsigned_abs().saturating_mul(kernel.sizes[d] - 1)
    };
    let dim = match wide {
        None => first_entry,
        Some(_) => layout.free_dims.iter().copied().chain(first_entry).max_by_key(|&d| step(d)),
    };
    let Some(dim) = dim.filter(|&d| kernel.sizes[d] > 1) else {
        let reason = format!("a value lies beyond the {max_binding} bytes that this device binds at a time");
        return Err(Error::Unsupported { op: "scatter", reason });
    };
    let half = kernel.sizes[dim] / 2;
    for (start, len) in [(0, half), (half, kernel.sizes[dim] - half)] {
        let mut part = kernel.clone();
        part.sizes[dim] = len;
        let Scatter { source, target, indices, .. } = &mut part;
        for access in [source, target].into_iter().chain(indices) {
            access.offset += access.strides[dim] * start as isize;
        }
        if start > 0 {
            part.base = Some(kernel.target.buffer);
        }
        in_parts(shared, &part, layout.nest.restrict(dim, start, len), temps, steps)?;
    }
    Ok(())
}

/// Adds the dispatches of a scatter whose operands can be bound.
fn one_part(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    windows: &BufferWindows,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    if layout.entries == 0 || layout.free == 0 {
        return outputs(shared, layout, windows, &Sorted::nothing(), steps);
    }
    let mut sorted = Sorted { keys: temp(temps, layout.entries * 4), order: None, runs: None };
    let order = temp(temps, layout.entries * 4);
    steps.push(make_keys(shared, layout, windows, sorted.keys, order)?);
    if layout.entries > FEW {
        sorted.order = Some(order);
        sort(shared, layout, &mut sorted, temps, steps)?;
        let is_deep = layout.entries > RUN * 4 && layout.kernel.op != ScatterOp::Assign;
        let values = layout.entries.div_ceil(RUN) * layout.free;
        if is_deep && (values * layout.value_bytes()) as u64 <= shared.caps.max_binding {
            let runs = temp(temps, values * layout.value_bytes());
            let long_runs =
                temp(temps, layout.entries.div_ceil(RUN * RUN) * layout.free * layout.value_bytes());
            sorted.runs = Some((runs, long_runs));
            steps.push(join_runs(shared, layout, windows, &sorted, RUN)?);
            steps.push(join_runs(shared, layout, windows, &sorted, RUN * RUN)?);
        }
    }
    outputs(shared, layout, windows, &sorted, steps)
}

/// The temporaries of the entries.
struct Sorted {
    keys: usize,
    /// The numbers of the entries in the order of their keys; `None` if the entries are not sorted.
    order: Option<usize>,
    /// The joined values of runs of entries, and of longer runs.
    runs: Option<(usize, usize)>,
}

impl Sorted {
    fn nothing() -> Sorted {
        Sorted { keys: 0, order: None, runs: None }
    }
}

impl<'k> ScatterSpace<'k> {
    fn new(kernel: &'k Scatter, nest: Nest) -> ScatterSpace<'k> {
        let rank = kernel.sizes.len();
        let indexed = |d: usize| kernel.indices.iter().any(|access| access.strides[d] != 0);
        let mut free_dims: Vec<usize> = (0..rank)
            .filter(|&d| !indexed(d) && kernel.target.strides[d] > 0 && kernel.sizes[d] > 1)
            .collect();
        if !is_mixed_radix(kernel, &free_dims) {
            free_dims.clear();
        }
        let entry_dims: Vec<usize> = (0..rank).filter(|d| !free_dims.contains(d)).collect();
        let product = |dims: &[usize]| dims.iter().map(|&d| kernel.sizes[d]).product();
        let (entries, free) = (product(&entry_dims), product(&free_dims));
        ScatterSpace { kernel, nest, entry_dims, free_dims, entries, free, ty: Ty::of(kernel.target.dtype) }
    }

    fn value_bytes(&self) -> usize {
        values_memory(self.ty, "").dtype.size()
    }

    fn fold(&self) -> ShaderFold {
        let op = match self.kernel.op {
            ScatterOp::Assign | ScatterOp::Add => ReduceOp::Sum,
            ScatterOp::Mul => ReduceOp::Prod,
            ScatterOp::Max => ReduceOp::Max,
            ScatterOp::Min => ReduceOp::Min,
        };
        ShaderFold { op, ty: self.ty }
    }
}

/// The dims that a place is composed of: strides and sizes, largest stride first, with whether they are free
/// dims.
fn radixes(kernel: &Scatter, free_dims: &[usize]) -> Vec<(isize, usize, bool)> {
    let affine = (0..kernel.sizes.len())
        .filter(|&d| kernel.target.strides[d] != 0 && kernel.sizes[d] > 1)
        .map(|d| (kernel.target.strides[d], kernel.sizes[d], free_dims.contains(&d)));
    let indexed = kernel.target.indexed.iter().filter(|dim| dim.size > 1);
    let mut parts: Vec<_> = affine.chain(indexed.map(|dim| (dim.stride, dim.size, false))).collect();
    parts.sort_by_key(|&(stride, ..)| std::cmp::Reverse(stride));
    parts
}

/// Whether the index of each dim can be recovered from a place.
fn is_mixed_radix(kernel: &Scatter, free_dims: &[usize]) -> bool {
    let mut below = 1;
    radixes(kernel, free_dims).iter().rev().all(|&(stride, size, _)| {
        let fits = stride >= below;
        below += stride * (size as isize - 1);
        fits
    })
}

/// The array of joined values in a temporary.
fn values_memory(ty: Ty, name: &str) -> ShaderBuffer<'_> {
    let dtype = match ty {
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
        _ => DType::I32,
    };
    ShaderBuffer { buffer: name, dtype, form: Form::Elements, mixed: false }
}

fn from_memory(ty: Ty, value: &str) -> String {
    if ty == Ty::Bool { format!("({value} != 0)") } else { value.to_owned() }
}

/// Writes the function that reads the source's element of an entry and a free index.
fn source_function(e: &mut Emitter<'_>, layout: &ScatterSpace<'_>, windows: &BufferWindows) -> Result<()> {
    let mut nest = layout.nest.clone();
    nest.kernel.body = vec![Instr::Load { access: 0, indices: Default::default() }];
    nest.kernel.accesses.truncate(1);
    let mut body = ShaderBody::new(&nest, windows, None, Ty::F32);
    indices(e, &layout.nest, &layout.entry_dims, None, "entry");
    indices(e, &layout.nest, &layout.free_dims, None, "free");
    body.require(e, &[0])?;
    e.line(format!("return {};", body.value(0, Width::One)));
    e.end_function(&format!("fn source(entry: u32, free: u32) -> {}", type_name(layout.ty, Width::One)));
    Ok(())
}

/// One dispatch that joins the values of runs of entries with one key. Other runs are skipped, and never
/// read.
fn join_runs(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    windows: &BufferWindows,
    sorted: &Sorted,
    length: usize,
) -> Result<Dispatch> {
    let fold = layout.fold();
    let mut e = Emitter::new(shared, "Runs of entries, joined.", WORKGROUP);
    let (runs, long_runs) = sorted.runs.unwrap_or_default();
    let is_long = length > RUN;
    if !is_long {
        source_function(&mut e, layout, windows)?;
    }
    let count = layout.entries.div_ceil(length);
    begin(&mut e, count * layout.free);
    let free = e.uniform("free_count", layout.free);
    let reciprocal = e.float_uniform("free_reciprocal", 1.0 / layout.free as f32);
    let entries = e.uniform("entries", layout.entries);
    e.line(format!("let run_and_free = divide(thread, {free}, {reciprocal});"));
    e.line(format!("let begin = run_and_free.x * {length}u;"));
    e.line(format!("let end = min(begin + {length}u, {entries});"));
    e.bind("keys", "u32", temp_window(sorted.keys));
    e.open("if (keys[begin] != keys[end - 1u]) {");
    e.line("return;");
    e.close();
    let state = fold.state(Width::One);
    let element = element_type(values_memory(layout.ty, "").dtype, false, false);
    e.bind("runs", element, temp_window(runs));
    e.line(format!("var state: {state} = {};", fold.start(Width::One)));
    let (target, value) = if is_long {
        e.bind("long_runs", element, temp_window(long_runs));
        e.open(format!("for (var run = begin / {RUN}u; run * {RUN}u < end; run++) {{"));
        let at = format!("(run * {free} + run_and_free.y)");
        ("long_runs", from_memory(layout.ty, &values_memory(layout.ty, "runs").load(&at)))
    } else {
        e.bind("order", "u32", temp_window(sorted.order.unwrap_or_default()));
        e.open("for (var entry = begin; entry < end; entry++) {");
        ("runs", "source(order[entry], run_and_free.y)".to_owned())
    };
    e.line(format!("state = {};", fold.join("state", &value, Width::One)));
    e.close();
    let result = if layout.ty == Ty::Bool { "select(0, 1, state)" } else { "state" };
    values_memory(layout.ty, target).store(&mut e, "thread", result);
    e.finish((count * layout.free).div_ceil(WORKGROUP as usize))
}

/// Adds the dispatches that write all elements of the output, in parts that can be bound.
fn outputs(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    windows: &BufferWindows,
    sorted: &Sorted,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let kernel = layout.kernel;
    let size = kernel.target.dtype.size();
    let most = (shared.caps.max_binding as usize / size) / 256 * 256;
    for first in (0..kernel.elements).step_by(most) {
        steps.push(output_part(shared, layout, windows, sorted, first, most.min(kernel.elements - first))?);
    }
    Ok(())
}

fn output_part(
    shared: &GpuShared,
    layout: &ScatterSpace<'_>,
    windows: &BufferWindows,
    sorted: &Sorted,
    first: usize,
    len: usize,
) -> Result<Dispatch> {
    let kernel = layout.kernel;
    let (dtype, ty) = (kernel.target.dtype, layout.ty);
    let has_entries = layout.entries > 0 && layout.free > 0;
    let mut e = Emitter::new(shared, "The output of a scatter.", WORKGROUP);
    if has_entries {
        source_function(&mut e, layout, windows)?;
    }
    // If several elements share a word, one invocation writes the whole word.
    let per_word = 4 / dtype.size().min(4);
    let threads = len.div_ceil(per_word);
    begin(&mut e, threads);
    let window = |buffer: usize| Window {
        slot: BoundMemory::Buffer(buffer),
        start: (first * dtype.size()) as u64,
        end: ((first + len) * dtype.size()) as u64,
    };
    let element = element_type(dtype, false, false);
    e.bind("result", element, window(kernel.target.buffer));
    let in_place = kernel.base == Some(kernel.target.buffer);
    if let Some(base) = kernel.base.filter(|_| !in_place) {
        e.bind("base", element, window(base));
    }
    let base = if in_place { "result" } else { "base" };
    let t = type_name(ty, Width::One);
    e.line(format!("var values: array<{t}, {per_word}>;"));
    e.open(format!("for (var part = 0u; part < {per_word}u; part++) {{"));
    e.line(format!("let element = thread * {per_word}u + part;"));
    let start = if kernel.base.is_some() {
        ShaderBuffer { buffer: base, dtype, form: Form::Elements, mixed: false }.load("element")
    } else {
        super::access::zero(ty, Width::One)
    };
    e.line(format!("var value: {t} = {start};"));
    if has_entries {
        join_entries(&mut e, layout, sorted, first);
    }
    e.line("values[part] = value;");
    e.close();
    let value = |i: usize| format!("values[{i}]");
    match dtype {
        DType::F32 | DType::I32 | DType::I64 | DType::F64 => {
            ShaderBuffer { buffer: "result", dtype, form: Form::Elements, mixed: false }.store(
                &mut e,
                "thread",
                &value(0),
            );
        }
        DType::F16 | DType::BF16 => {
            let bits = if dtype == DType::F16 { "f16_bits" } else { "bf16_bits" };
            e.line(format!("result[thread] = {bits}({}) | ({bits}({}) << 16u);", value(0), value(1)));
        }
        DType::U8 | DType::Bool => {
            let bits = |i: usize| match dtype {
                DType::U8 => format!("bitcast<u32>({})", value(i)),
                _ => format!("select(0u, 1u, {})", value(i)),
            };
            let all = [bits(0), bits(1), bits(2), bits(3)].join(", ");
            e.line(format!("result[thread] = bytes_join(vec4<u32>({all}));"));
        }
    }
    e.finish(threads.div_ceil(WORKGROUP as usize))
}

/// Joins the values of an element's entries with `value`.
fn join_entries(e: &mut Emitter<'_>, layout: &ScatterSpace<'_>, sorted: &Sorted, first: usize) {
    let kernel = layout.kernel;
    let fold = layout.fold();
    let first = e.uniform("first_element", first);
    e.line(format!("let place = element + {first};"));
    if layout.free_dims.is_empty() {
        e.line("let key = place;");
        e.line("let free = 0u;");
        e.line("let is_target = true;");
    } else {
        decode_place(e, layout);
    }
    let entries = e.uniform("entries", layout.entries);
    e.bind("keys", "u32", temp_window(sorted.keys));
    let take = |value: &str| match kernel.op {
        ScatterOp::Assign => format!("value = {value};"),
        _ => format!("value = {};", fold.join("value", value, Width::One)),
    };
    let Some(order) = sorted.order else {
        e.open(format!("for (var entry = 0u; entry < {entries}; entry++) {{"));
        e.open("if (keys[entry] == key && is_target) {");
        e.line(take("source(entry, free)"));
        e.close();
        e.close();
        return;
    };
    e.bind("order", "u32", temp_window(order));
    e.insert(include_str!("../../../shaders/scatter.wgsl"), &[("entries", &entries)]);
    if kernel.op == ScatterOp::Assign {
        e.open("if (end > begin) {");
        e.line("value = source(order[end - 1u], free);");
        e.close();
        return;
    }
    e.line("var entry = begin;");
    let walk = |e: &mut Emitter<'_>, condition: &str| {
        e.open(format!("for (; {condition}; entry++) {{"));
        e.line(take("source(order[entry], free)"));
        e.close();
    };
    if let Some((runs, long_runs)) = sorted.runs {
        let memory = values_memory(layout.ty, "");
        let element = element_type(memory.dtype, false, false);
        let count = e.uniform("free_count", layout.free);
        let long = RUN * RUN;
        let leap = |e: &mut Emitter<'_>, name: &str, temp: usize, length: usize, also: &str| {
            e.bind(name, element, temp_window(temp));
            let at = format!("(entry / {length}u * {count} + free)");
            let value = from_memory(layout.ty, &values_memory(layout.ty, name).load(&at));
            e.open(format!("for (; entry + {length}u <= end{also}; entry += {length}u) {{"));
            e.line(take(&value));
            e.close();
        };
        walk(e, &format!("entry < end && entry % {RUN}u != 0u"));
        leap(e, "runs", runs, RUN, &format!(" && entry % {long}u != 0u"));
        leap(e, "long_runs", long_runs, long, "");
        leap(e, "runs", runs, RUN, "");
    }
    walk(e, "entry < end");
}

/// Computes the key and the free index from the place of an element.
fn decode_place(e: &mut Emitter<'_>, layout: &ScatterSpace<'_>) {
    let kernel = layout.kernel;
    let offset = e.signed_uniform("target_offset", kernel.target.offset);
    e.line(format!("var rest = place - {offset};"));
    e.line(format!("var key = {offset};"));
    e.line(format!("var is_target = place >= {offset};"));
    e.line("rest = select(0u, rest, is_target);");
    for (n, (stride, size, is_free)) in radixes(kernel, &layout.free_dims).into_iter().enumerate() {
        let step = e.uniform(&format!("radix_stride{n}"), stride as usize);
        let reciprocal = e.float_uniform(&format!("radix_reciprocal{n}"), 1.0 / stride as f32);
        let size = e.uniform(&format!("radix_size{n}"), size);
        e.line(format!("let radix{n} = divide(rest, {step}, {reciprocal});"));
        e.line(format!("is_target = is_target && radix{n}.x < {size};"));
        e.line(format!("rest = radix{n}.y;"));
        if is_free {
            e.line(format!("let digit{n} = radix{n}.x;"));
        } else {
            e.line(format!("key += radix{n}.x * {step};"));
        }
    }
    e.line("is_target = is_target && rest == 0u;");
    // The digits are in the order of falling strides, but the free index is row-major.
    let parts = radixes(kernel, &layout.free_dims);
    let mut free = "0u".to_owned();
    for &d in &layout.free_dims {
        let n = parts.iter().position(|&(stride, _, is_free)| is_free && stride == kernel.target.strides[d]);
        let size = e.uniform(&format!("free_size{d}"), count(&layout.nest, &[d], None));
        free = format!("({free} * {size} + digit{})", n.unwrap_or(0));
    }
    e.line(format!("let free = {free};"));
}
