//! Rows that are cut into chunks: their partial results lie in scratch memory and are joined in a fixed
//! order.
//!
//! Each stage of the loop is one dispatch that folds the chunks, and one that joins the chunks of each row. A
//! last dispatch over chunks writes the elements that need the last results. Row values are recomputed in
//! each dispatch.

use super::*;
use crate::gpu::kernel::nest::Fit;

/// The places of partial and of final states in scratch memory, in words.
struct Scratch {
    partial: Vec<usize>,
    last: Vec<usize>,
    /// The rows that states are kept for, rounded up to whole vectors.
    slots: usize,
}

/// A part of the space whose buffers can be bound, and its chunks.
struct ChunkedPart {
    nest: Nest,
    windows: BufferWindows,
    /// The number of its first chunk, and how many it has.
    first: usize,
    chunks: usize,
}

/// One pass over rows that are cut into chunks.
#[derive(Clone, Copy)]
struct ChunkedPass<'c> {
    shared: &'c GpuShared,
    rows: &'c RowSchedule,
    cut: &'c Cut,
    pass: usize,
}

/// How a loop's rows are cut.
struct Cut {
    /// The parts of the space whose buffers can be bound.
    parts: Vec<ChunkedPart>,
    /// The vectors of a chunk.
    size: usize,
    chunks: usize,
    scratch: Scratch,
}

/// Adds the dispatches of a loop whose rows are cut into chunks.
pub(super) fn split(
    shared: &GpuShared,
    nest: &Nest,
    rows: &RowSchedule,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let row_level: Vec<usize> = (0..nest.kernel.accesses.len())
        .filter(|&i| nest.kernel.store_level(&nest.kernel.accesses[i]) == Level::Row)
        .collect();
    let cut = match nest.fit(&row_level, &shared.caps) {
        Fit::Windows(windows) => cut(shared, nest, rows)?.map(|cut| (cut, windows)),
        Fit::TooWide(_) => None,
    };
    let Some((cut, row_windows)) = cut else {
        return halve(shared, nest, rows, steps);
    };
    let body = ShaderBody::new(nest, &row_windows, rows.vector, Ty::F32);
    let passes = passes(&body);
    let last_fold = passes.iter().copied().filter(|&pass| !folds_of(&body, pass).is_empty()).max();
    for &pass in &passes {
        let chunked = ChunkedPass { shared, rows, cut: &cut, pass };
        for part in &cut.parts {
            steps.push(fold_chunks(chunked, part)?);
        }
        if !folds_of(&body, pass).is_empty() {
            steps.push(join_chunks(chunked, nest, &row_windows, last_fold == Some(pass))?);
        }
    }
    Ok(())
}

/// Adds the dispatches of the two halves of the rows, one after the other.
fn halve(shared: &GpuShared, nest: &Nest, rows: &RowSchedule, steps: &mut Vec<Dispatch>) -> Result<()> {
    let halved = outer_dims(nest).into_iter().filter_map(|d| Some((d, nest.half(d, rows.vector)?)));
    let Some((dim, half)) = halved.max_by_key(|&(d, _)| nest.kernel.sizes[d]) else {
        return Err(crate::Error::Unsupported {
            op: "launch",
            reason: format!(
                "the operands of one row reach over more than the {} bytes that this device binds at a time; \
                 make them contiguous, or split the operation",
                shared.caps.max_binding
            ),
        });
    };
    split(shared, &nest.restrict(dim, 0, half), rows, steps)?;
    split(shared, &nest.restrict(dim, half, nest.kernel.sizes[dim] - half), rows, steps)
}

/// Decides on the chunks; `None` if there are too many rows, or if they are too wide.
fn cut(shared: &GpuShared, nest: &Nest, rows: &RowSchedule) -> Result<Option<Cut>> {
    let windows = BufferWindows::new();
    let body = ShaderBody::new(nest, &windows, rows.vector, Ty::F32);
    let used: Vec<usize> = (0..nest.kernel.accesses.len()).collect();
    let inner_vector = rows.vector.filter(|_| !rows.across(nest));
    let Ok(spaces) = nest.spaces(&used, &inner_dims(nest), inner_vector, &shared.caps) else {
        return Ok(None);
    };
    let threads = count(nest, &outer_dims(nest), rows.vector);
    let slots = threads * rows.row_width(nest).count();
    let vectors_of = |part: &Nest| count(part, &inner_dims(part), rows.vector);
    let vectors: usize = spaces.iter().map(|(part, _)| vectors_of(part)).sum();
    let lanes = rows.lanes as usize;
    let passes = passes(&body);
    let words =
        |folds: &[(Reg, Reg, ShaderFold)]| folds.iter().map(|(_, _, fold)| fold.words()).sum::<usize>();
    let last_words: usize = passes.iter().map(|&pass| words(&folds_of(&body, pass))).sum();
    let partial_words = passes.iter().map(|&pass| words(&folds_of(&body, pass))).max().unwrap_or(0).max(1);
    let room = shared.caps.scratch_words.saturating_sub(slots * last_words) / (slots * partial_words);
    let longest = (BLOCK * BLOCK / weight(nest)).max(1) * lanes;
    let required = vectors.div_ceil(longest) + spaces.len() - 1;
    if required > room {
        return Ok(None);
    }
    let (busy, least) = if shared.caps.spread.software { (32 * lanes, 256) } else { (64 << 10, 4 * lanes) };
    let wanted = (busy / (threads * lanes).max(1)).min(vectors / least.max(1)).min(4096);
    let chunks = wanted.clamp(1, room.saturating_sub(spaces.len() - 1).max(1)).max(required);
    let size = vectors.div_ceil(chunks).clamp(1, longest);
    let mut parts = Vec::new();
    let mut chunks = 0;
    for (nest, windows) in spaces {
        let here = vectors_of(&nest).div_ceil(size);
        parts.push(ChunkedPart { nest, windows, first: chunks, chunks: here });
        chunks += here;
    }
    let mut partial = vec![0; body.types.len()];
    let mut last = vec![0; body.types.len()];
    let mut next_last = 0;
    for &pass in &passes {
        let mut next = slots * last_words;
        for (reg, _, fold) in folds_of(&body, pass) {
            last[reg as usize] = next_last;
            next_last += slots * fold.words();
            partial[reg as usize] = next;
            next += slots * fold.words() * chunks;
        }
        if next > shared.caps.scratch_words {
            return Ok(None);
        }
    }
    Ok(Some(Cut { parts, size, chunks, scratch: Scratch { partial, last, slots } }))
}

/// One dispatch that folds the chunks of a part, and writes the elements whose values are known in this pass.
fn fold_chunks(chunked: ChunkedPass<'_>, part: &ChunkedPart) -> Result<Dispatch> {
    let ChunkedPass { shared, rows, cut, pass } = chunked;
    let ChunkedPart { nest: part, windows, first, chunks } = part;
    let mut body = ShaderBody::new(part, windows, rows.vector, Ty::F32);
    let mut e = Emitter::new(shared, "Chunks of rows, folded.", rows.workgroup);
    let groups = begin_rows(&mut e, &mut body, rows, Some(*chunks));
    define_results(&mut e, &mut body, rows, pass, cut);
    row_values(&mut e, &mut body, pass)?;
    let vectors = count(part, &inner_dims(part), rows.vector);
    let size = e.uniform("chunk_size", cut.size);
    let end = e.uniform("vectors", vectors);
    e.line(format!("let chunk_begin = min(chunk * {size}, {end});"));
    e.line(format!("let chunk_end = min(chunk_begin + {size}, {end});"));
    let range = ("(chunk_begin + lane)".to_owned(), "chunk_end".to_owned());
    let walk = cut.size.div_ceil(rows.lanes as usize);
    walk_row(&mut e, &mut body, rows, pass, &range, walk)?;
    let folds = folds_of(&body, pass);
    if !folds.is_empty() {
        e.use_internal();
        let first = e.uniform("chunk_first", *first);
        let slots = e.uniform("slots", cut.scratch.slots);
        e.open(if rows.lanes > 1 { "if (live && lane == 0u) {" } else { "if (live) {" });
        e.line(format!("let place = (chunk + {first}) * {slots} + row * {}u;", rows.row_width(part).count()));
        for (reg, _, fold) in folds {
            let start = e.uniform(&format!("partial_{reg}"), cut.scratch.partial[reg as usize]);
            write_state(&mut e, fold, &format!("state_{reg}"), &start, "place", rows.row_width(part));
        }
        e.close();
    }
    e.finish(groups)
}

/// One dispatch that joins the chunks of each row and, after the last fold, writes the values of rows.
fn join_chunks(
    chunked: ChunkedPass<'_>,
    nest: &Nest,
    windows: &BufferWindows,
    last: bool,
) -> Result<Dispatch> {
    let ChunkedPass { shared, rows, cut, pass } = chunked;
    let width = rows.row_width(nest);
    let lanes = if width == Width::One && cut.chunks > 64 { 64 } else { 1 };
    let joining = RowSchedule { vector: rows.vector, lanes, workgroup: 64, broadcasts: false };
    let mut body = ShaderBody::new(nest, windows, rows.vector, Ty::F32);
    let mut e = Emitter::new(shared, "Chunks of rows, joined.", joining.workgroup);
    e.use_internal();
    let groups = begin_rows(&mut e, &mut body, &joining, None);
    let folds = folds_of(&body, pass);
    for (reg, _, fold) in &folds {
        e.line(format!("var fold_{reg}: {} = {};", fold.state(width), fold.start(width)));
    }
    let chunks = e.uniform("chunks", cut.chunks);
    let slots = e.uniform("slots", cut.scratch.slots);
    let stride = BLOCK as u32 * lanes;
    e.open(format!("for (var block = lane; block < {chunks}; block += {stride}u) {{"));
    for (reg, _, fold) in &folds {
        e.line(format!("var part_{reg}: {} = {};", fold.state(width), fold.start(width)));
    }
    e.line(format!("let block_end = min({chunks}, block + {stride}u);"));
    e.open(format!("for (var chunk = block; chunk < block_end; chunk += {lanes}u) {{"));
    e.line(format!("let place = chunk * {slots} + row * {}u;", width.count()));
    for (reg, _, fold) in &folds {
        let start = e.uniform(&format!("partial_{reg}"), cut.scratch.partial[*reg as usize]);
        let state = read_state(*fold, &start, "place", width);
        e.line(format!("part_{reg} = {};", fold.join(&format!("part_{reg}"), &state, width)));
    }
    e.close();
    for (reg, _, fold) in &folds {
        e.line(format!("fold_{reg} = {};", fold.join(&format!("fold_{reg}"), &format!("part_{reg}"), width)));
    }
    e.close();
    for (reg, ..) in &folds {
        let name = if lanes == 1 { "state" } else { "own" };
        e.line(format!("let {name}_{reg} = fold_{reg};"));
    }
    let at_once = states_at_once(&e, &body, &joining);
    join_lanes(&mut e, &joining, &folds, at_once);
    e.open(if lanes > 1 { "if (live && lane == 0u) {" } else { "if (live) {" });
    for (reg, _, fold) in &folds {
        let start = e.uniform(&format!("last_{reg}"), cut.scratch.last[*reg as usize]);
        write_state(
            &mut e,
            *fold,
            &format!("state_{reg}"),
            &start,
            &format!("row * {}u", width.count()),
            width,
        );
    }
    e.close();
    if last {
        define_results(&mut e, &mut body, rows, pass, cut);
        for (reg, _, fold) in &folds {
            let name = format!("row_{}_{reg}", format!("{:?}", fold.op).to_lowercase());
            e.line(format!("let {name} = {};", fold.result(&format!("state_{reg}"), width)));
            body.define(*reg, name);
        }
        store_rows(&mut e, &mut body, &joining, &mut vec![false; nest.kernel.stores.len()])?;
    }
    e.finish(groups)
}

/// Reads the results of the folds of earlier passes from scratch memory.
fn define_results(
    e: &mut Emitter<'_>,
    body: &mut ShaderBody<'_>,
    rows: &RowSchedule,
    pass: usize,
    cut: &Cut,
) {
    let nest = body.nest;
    let width = rows.row_width(nest);
    for earlier in 0..pass {
        for (reg, _, fold) in folds_of(body, earlier) {
            e.use_internal();
            let start = e.uniform(&format!("last_{reg}"), cut.scratch.last[reg as usize]);
            let state = read_state(fold, &start, &format!("row * {}u", width.count()), width);
            let name = format!("row_{}_{reg}", format!("{:?}", fold.op).to_lowercase());
            e.line(format!("let joined_{reg} = {state};"));
            e.line(format!("let {name} = {};", fold.result(&format!("joined_{reg}"), width)));
            body.define(reg, name);
        }
    }
}

/// Writes states to scratch memory, those of consecutive rows one after the other.
fn write_state(e: &mut Emitter<'_>, fold: ShaderFold, state: &str, start: &str, place: &str, width: Width) {
    let words = fold.words();
    for (c, component) in ["x", "y", "z", "w"].iter().take(width.count()).enumerate() {
        let part = if width == Width::Four { fold.component(state, component) } else { state.to_owned() };
        for (k, word) in fold.to_words(&part).iter().enumerate() {
            e.line(format!("internal.scratch[{start} + ({place} + {c}u) * {words}u + {k}u] = {word};"));
        }
    }
}

/// The expression of states in scratch memory.
fn read_state(fold: ShaderFold, start: &str, place: &str, width: Width) -> String {
    let words = fold.words();
    let one = |c: usize| {
        let word = |k: usize| format!("internal.scratch[{start} + ({place} + {c}u) * {words}u + {k}u]");
        fold.of_words(&(0..words).map(word).collect::<Vec<_>>())
    };
    match width {
        Width::One => one(0),
        Width::Four => fold.gather(&[one(0), one(1), one(2), one(3)]),
    }
}
