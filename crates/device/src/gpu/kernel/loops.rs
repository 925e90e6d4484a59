//! Fused loops: how they are spread over workgroups, and their source.
//!
//! - Without inner dims each invocation computes one element, or four consecutive ones.
//! - Some lanes walk along a row and join their partial results in a fixed tree, with one pass over the row
//!   for each stage.
//! - If the elements of a row are strided and those of neighbouring rows contiguous, each invocation walks
//!   along one row, or four.
//! - Few long rows are cut into chunks: one dispatch folds the chunks into partial results, and a second one
//!   joins them in a fixed order. Later stages follow in the same way, and stores of elements come last.

use super::body::ShaderBody;
use super::emit::{Emitter, GROUP, LANES, Width, element_bytes};
use super::fold::ShaderFold;
use super::nest::{BufferWindows, Nest, raise};
use crate::Result;
use crate::gpu::GpuShared;
use crate::gpu::program::Dispatch;
use crate::kernel::{Instr, Level, Loop, Reg, Store, Ty};

/// The most loop iterations of an invocation. Software adapters stop all loops of an invocation after 65,535.
const MAX_ITERATIONS: usize = 16 << 10;
/// The iterations after which a float sum is added to the total and begun anew, so that long sums are trees
/// of short ones.
const BLOCK: usize = 32;

/// How the rows of a loop are spread over invocations.
#[derive(Clone, Debug)]
struct RowSchedule {
    /// The dim that is vectorised.
    vector: Option<usize>,
    /// The number of invocations that walk along one row.
    lanes: u32,
    workgroup: u32,
    /// Whether the lanes of a row are a whole workgroup and one subgroup, so that they exchange states by
    /// subgroup broadcasts.
    broadcasts: bool,
}

/// The dispatches of a loop, and the bytes that its buffers need.
pub(super) fn plan(shared: &GpuShared, kernel: &Loop, needs: &mut Vec<u64>) -> Result<Vec<Dispatch>> {
    let nest = Nest::new(kernel, 0);
    nest.needs(needs);
    if nest.kernel.rows() == 0 || (nest.kernel.inner == 0 && nest.kernel.row_elements() == 0) {
        for access in &kernel.accesses {
            raise(needs, access.buffer, 0);
        }
        return Ok(Vec::new());
    }
    if nest.kernel.inner == 0 {
        return elementwise(shared, &nest);
    }
    let rows = choose_rows(shared, &nest);
    let used: Vec<usize> = (0..nest.kernel.accesses.len()).collect();
    let outer: Vec<usize> = (0..nest.kernel.outer()).collect();
    if !is_split(shared, &nest, &rows)
        && let Ok(spaces) = nest.spaces(&used, &outer, rows.vector, &shared.caps)
    {
        return spaces.iter().map(|(part, windows)| whole_rows(shared, part, windows, &rows)).collect();
    }
    let mut steps = Vec::new();
    split(shared, &nest, &rows, &mut steps)?;
    Ok(steps)
}

fn elementwise(shared: &GpuShared, nest: &Nest) -> Result<Vec<Dispatch>> {
    let rank = nest.kernel.sizes.len();
    let last = nest.kernel.sizes.last().copied().unwrap_or(1);
    let vector = (rank > 0 && (last >= 16 || last % 4 == 0)).then(|| rank - 1);
    let dims: Vec<usize> = (0..rank).collect();
    let used: Vec<usize> = (0..nest.kernel.accesses.len()).collect();
    let spaces = nest.spaces(&used, &dims, vector, &shared.caps);
    // Four elements that are contiguous for one access can be further apart for another than a binding
    // reaches.
    let (vector, spaces) = match spaces {
        Err(_) if vector.is_some() => (None, nest.spaces(&used, &dims, None, &shared.caps)?),
        spaces => (vector, spaces?),
    };
    spaces.iter().map(|(part, windows)| elements(shared, part, windows, vector)).collect()
}

/// One dispatch for a loop without inner dims.
fn elements(
    shared: &GpuShared,
    nest: &Nest,
    windows: &BufferWindows,
    vector: Option<usize>,
) -> Result<Dispatch> {
    // To a GPU a workgroup is a unit of parallel work; on a software adapter it is a function call.
    let (workgroup, each) = if shared.caps.spread.software { (8, 64) } else { (64, 1) };
    let mut body = ShaderBody::new(nest, windows, vector, Ty::F32);
    let mut e = Emitter::new(shared, "Elementwise work.", workgroup);
    let dims: Vec<usize> = (0..nest.kernel.sizes.len()).collect();
    let threads = count(nest, &dims, vector);
    let limit = e.uniform("threads", threads);
    let share = workgroup * each;
    if each > 1 {
        e.line(format!("let begin = ({GROUP}) * {share}u;"));
        e.line(format!("let end = min(begin + {share}u, {limit});"));
        e.open(format!("for (var thread = begin + local; thread < end; thread += {workgroup}u) {{"));
    } else {
        e.line(format!("let thread = ({GROUP}) * {workgroup}u + local;"));
        e.open(format!("if (thread < {limit}) {{"));
    }
    indices(&mut e, nest, &dims, vector, "thread");
    validity(&mut e, &mut body);
    let values: Vec<Reg> = nest.kernel.stores.iter().map(|store| store.value).collect();
    body.require(&mut e, &values)?;
    for store in &nest.kernel.stores {
        body.store(&mut e, store)?;
    }
    e.close();
    e.finish(threads.div_ceil(share as usize))
}

/// The number of invocations that some dims take.
pub(super) fn count(nest: &Nest, dims: &[usize], vector: Option<usize>) -> usize {
    let of = |&d: &usize| {
        let size = nest.kernel.sizes[d];
        if vector == Some(d) { size.div_ceil(4) } else { size }
    };
    dims.iter().map(of).product()
}

/// Defines the indices `i0`, `i1`, … of some dims from the number of an invocation.
pub(super) fn indices(e: &mut Emitter<'_>, nest: &Nest, dims: &[usize], vector: Option<usize>, number: &str) {
    let mut rest = number.to_owned();
    for (n, &d) in dims.iter().enumerate().rev() {
        let index = if n == 0 {
            rest.clone()
        } else {
            let size = count(nest, &[d], vector);
            let divisor = e.uniform(&format!("count{d}"), size);
            let reciprocal = e.float_uniform(&format!("reciprocal{d}"), 1.0 / size as f32);
            e.line(format!("let split{d} = divide({rest}, {divisor}, {reciprocal});"));
            rest = format!("split{d}.x");
            format!("split{d}.y")
        };
        let times = if vector == Some(d) { " * 4u" } else { "" };
        e.line(format!("let i{d} = {index}{times};"));
    }
}

/// Defines which of the four indices of a vector exist, if some may not.
pub(super) fn validity(e: &mut Emitter<'_>, body: &mut ShaderBody<'_>) {
    body.valid = None;
    if let Some(d) = body.vector.filter(|&d| !body.nest.kernel.sizes[d].is_multiple_of(4)) {
        let size = e.uniform(&format!("size{d}"), body.nest.kernel.sizes[d]);
        e.line(format!("let valid = (vec4<u32>(i{d}) + {LANES}) < vec4<u32>({size});"));
        body.valid = Some("valid".to_owned());
    }
}

fn choose_rows(shared: &GpuShared, nest: &Nest) -> RowSchedule {
    let kernel = &nest.kernel;
    let (outer, rank) = (kernel.outer(), kernel.sizes.len());
    let (mut along, mut across) = (0, 0);
    for access in &kernel.accesses {
        let element_level = access.strides[outer..].iter().any(|&s| s != 0);
        if element_level {
            along += usize::from(rank > outer && access.strides[rank - 1].unsigned_abs() == 1);
            across += usize::from(outer > 0 && access.strides[outer - 1].unsigned_abs() == 1);
        }
    }
    let long_enough = |size: usize| size >= 16 || (size >= 4 && size.is_multiple_of(4));
    if across > along && outer > 0 {
        let vector = long_enough(kernel.sizes[outer - 1]).then(|| outer - 1);
        let workgroup = if shared.caps.spread.software { 16 } else { 64 };
        return RowSchedule { vector, lanes: 1, workgroup, broadcasts: false };
    }
    let vector = (rank > outer && long_enough(kernel.sizes[rank - 1])).then(|| rank - 1);
    let dims: Vec<usize> = (outer..rank).collect();
    let vectors = count(nest, &dims, vector);
    let (lanes, workgroup) = match (shared.caps.spread.software, vectors) {
        (_, ..=8) => (1, 64),
        (true, _) => (8, 8),
        (false, ..=256) => (16, 64),
        (false, ..=1024) => (64, 64),
        (false, _) => (256, 256),
    };
    let broadcasts = lanes == workgroup && shared.caps.spread.subgroup == Some(lanes as usize);
    RowSchedule { vector, lanes, workgroup, broadcasts }
}

impl RowSchedule {
    /// Whether the four indices of a vector belong to four rows.
    fn across(&self, nest: &Nest) -> bool {
        self.vector.is_some_and(|d| d < nest.kernel.outer())
    }

    fn row_width(&self, nest: &Nest) -> Width {
        if self.across(nest) { Width::Four } else { Width::One }
    }

    fn element_width(&self) -> Width {
        if self.vector.is_some() { Width::Four } else { Width::One }
    }
}

fn outer_dims(nest: &Nest) -> Vec<usize> {
    (0..nest.kernel.outer()).collect()
}

fn inner_dims(nest: &Nest) -> Vec<usize> {
    (nest.kernel.outer()..nest.kernel.sizes.len()).collect()
}

/// The passes over a row that the loop needs.
fn passes(body: &ShaderBody<'_>) -> Vec<usize> {
    let folds = body.nest.kernel.body.iter().enumerate();
    let folds = folds.filter(|(_, i)| matches!(i, Instr::Reduce { .. })).map(|(r, _)| body.stages[r] - 1);
    let stores = body.nest.kernel.stores.iter().filter(|s| is_element_store(body, s));
    let mut passes: Vec<usize> = folds.chain(stores.map(|s| body.stages[s.value as usize])).collect();
    passes.sort_unstable();
    passes.dedup();
    passes
}

fn is_element_store(body: &ShaderBody<'_>, store: &Store) -> bool {
    body.nest.kernel.store_level(&body.nest.kernel.accesses[store.access]) == Level::Element
}

/// The folds of a pass: their registers, the registers of their operands, and the reductions.
fn folds_of(body: &ShaderBody<'_>, pass: usize) -> Vec<(Reg, Reg, ShaderFold)> {
    let kernel = &body.nest.kernel;
    let mut folds = Vec::new();
    for (reg, instr) in kernel.body.iter().enumerate() {
        if let Instr::Reduce { op, a } = instr
            && body.stages[reg] == pass + 1
        {
            folds.push((reg as Reg, *a, ShaderFold { op: *op, ty: body.types[*a as usize] }));
        }
    }
    folds
}

/// The loop iterations that the work on one element takes.
fn weight(nest: &Nest) -> usize {
    use crate::kernel::BinaryOp::{Pow, Rem};
    use crate::kernel::UnaryOp::{Cos, Sin};
    let types = nest.kernel.types(Ty::F32);
    let of = |instr: &Instr| match instr {
        Instr::Binary { op: Pow, a, .. } if !types[*a as usize].is_float() => 64,
        Instr::Binary { op: Rem, a, .. } if types[*a as usize] == Ty::F32 => 36,
        Instr::Binary { op: Rem, a, .. } if types[*a as usize] == Ty::F64 => 191,
        Instr::Unary { op: Sin | Cos, a } if types[*a as usize] == Ty::F64 => 7,
        _ => 0,
    };
    1 + nest.kernel.body.iter().map(of).sum::<usize>()
}

/// Whether the rows of a loop are cut into chunks, because they are too long for one walk or too few to keep
/// the device busy.
fn is_split(shared: &GpuShared, nest: &Nest, rows: &RowSchedule) -> bool {
    let threads = count(nest, &outer_dims(nest), rows.vector) * rows.lanes as usize;
    let vectors = count(nest, &inner_dims(nest), rows.vector);
    let walk = vectors.div_ceil(rows.lanes as usize);
    let stages = nest.kernel.stages().into_iter().max().unwrap_or(0) + 1;
    if walk * weight(nest) * stages > MAX_ITERATIONS {
        return true;
    }
    // The invocations that keep the device busy, and the steps of a walk that are worth two dispatches.
    let (busy, worth) = if shared.caps.spread.software { (16, 2048) } else { (8 << 10, 32) };
    threads <= busy && walk >= worth
}

/// One dispatch that runs all stages of whole rows.
fn whole_rows(
    shared: &GpuShared,
    nest: &Nest,
    windows: &BufferWindows,
    rows: &RowSchedule,
) -> Result<Dispatch> {
    let mut body = ShaderBody::new(nest, windows, rows.vector, Ty::F32);
    let mut e = Emitter::new(shared, "Rows of elements, folded and mixed.", rows.workgroup);
    let groups = begin_rows(&mut e, &mut body, rows, None);
    let passes = passes(&body);
    let mut stored = vec![false; nest.kernel.stores.len()];
    for &pass in &passes {
        row_values(&mut e, &mut body, pass)?;
        let vectors = count(nest, &inner_dims(nest), rows.vector);
        let end = e.uniform("vectors", vectors);
        let walk = vectors.div_ceil(rows.lanes as usize);
        let range = ("lane".to_owned(), end);
        walk_row(&mut e, &mut body, rows, pass, &range, walk)?;
        for (reg, _, fold) in folds_of(&body, pass) {
            let width = rows.row_width(nest);
            let name = format!("row_{}_{reg}", format!("{:?}", fold.op).to_lowercase());
            e.line(format!("let {name} = {};", fold.result(&format!("state_{reg}"), width)));
            body.define(reg, name);
        }
    }
    store_rows(&mut e, &mut body, rows, &mut stored)?;
    e.finish(groups)
}

/// Defines the invocation's row, its lane and its outer indices, and the number of its chunk if there are
/// chunks. Returns the number of workgroups.
fn begin_rows(
    e: &mut Emitter<'_>,
    body: &mut ShaderBody<'_>,
    rows: &RowSchedule,
    chunks: Option<usize>,
) -> usize {
    let nest = body.nest;
    let (lanes, workgroup) = (rows.lanes, rows.workgroup);
    let threads = count(nest, &outer_dims(nest), rows.vector);
    let per_group = (workgroup / lanes) as usize;
    let row_groups = threads.div_ceil(per_group);
    let limit = e.uniform("rows", threads);
    if chunks.is_some() {
        let groups = e.uniform("row_groups", row_groups);
        let reciprocal = e.float_uniform("row_groups_reciprocal", 1.0 / row_groups as f32);
        e.line(format!("let chunk_and_group = divide({GROUP}, {groups}, {reciprocal});"));
        e.line("let chunk = chunk_and_group.x;");
        let count = e.uniform("chunks_here", chunks.unwrap_or(1));
        e.line(format!("let chunk_live = chunk < {count};"));
        e.line("let group = chunk_and_group.y;");
    } else {
        e.line(format!("let group = {GROUP};"));
    }
    e.line(format!("let thread = group * {per_group}u + local / {lanes}u;"));
    e.line(format!("let lane = local % {lanes}u;"));
    let live = if chunks.is_some() {
        format!("thread < {limit} && chunk_live")
    } else {
        format!("thread < {limit}")
    };
    e.line(format!("let live = {live};"));
    e.line(format!("let row = min(thread, {limit} - 1u);"));
    body.live = Some("live".to_owned());
    indices(e, nest, &outer_dims(nest), rows.vector, "row");
    body.valid = None;
    if rows.across(nest) {
        validity(e, body);
    }
    row_groups * chunks.unwrap_or(1)
}

/// Defines the row values that the elements and folds of a pass need.
fn row_values(e: &mut Emitter<'_>, body: &mut ShaderBody<'_>, pass: usize) -> Result<()> {
    let kernel = &body.nest.kernel;
    let mut targets: Vec<Reg> = folds_of(body, pass).iter().map(|&(_, a, _)| a).collect();
    let stores = kernel.stores.iter().filter(|s| is_element_store(body, s));
    targets.extend(stores.filter(|s| body.stages[s.value as usize] == pass).map(|s| s.value));
    let row_regs = needed_rows(body, &targets);
    body.require(e, &row_regs)
}

/// The row values that some values need.
fn needed_rows(body: &ShaderBody<'_>, targets: &[Reg]) -> Vec<Reg> {
    let mut seen = vec![false; body.types.len()];
    let mut open = targets.to_vec();
    let mut rows = Vec::new();
    while let Some(reg) = open.pop() {
        if std::mem::replace(&mut seen[reg as usize], true) || body.is_defined(reg) {
            continue;
        }
        if body.levels[reg as usize] == Level::Row {
            rows.push(reg);
        } else {
            open.extend(body.nest.kernel.body[reg as usize].operands());
        }
    }
    rows
}

/// Writes one pass over the vectors `range` of a row. Each fold is joined over the lanes and ends in a
/// variable `state_<register>`.
fn walk_row(
    e: &mut Emitter<'_>,
    body: &mut ShaderBody<'_>,
    rows: &RowSchedule,
    pass: usize,
    range: &(String, String),
    walk: usize,
) -> Result<()> {
    let nest = body.nest;
    let folds = folds_of(body, pass);
    let element_width = rows.element_width();
    for (reg, _, fold) in &folds {
        let state = fold.state(element_width);
        e.line(format!("var fold_{reg}: {state} = {};", fold.start(element_width)));
    }
    let lanes = rows.lanes;
    let blocks = walk > BLOCK * 2 && folds.iter().any(|(_, _, fold)| fold.is_rounded());
    let (start, end) = range;
    if blocks {
        let stride = BLOCK as u32 * lanes;
        e.open(format!("for (var block = {start}; block < {end}; block += {stride}u) {{"));
        for (reg, _, fold) in folds.iter().filter(|(_, _, fold)| fold.is_rounded()) {
            e.line(format!("var part_{reg}: {} = {};", fold.state(element_width), fold.start(element_width)));
        }
        e.line(format!("let block_end = min({end}, block + {stride}u);"));
        e.open(format!("for (var v = block; v < block_end; v += {lanes}u) {{"));
    } else {
        e.open(format!("for (var v = {start}; v < {end}; v += {lanes}u) {{"));
    }
    let mark = body.mark();
    let outer_valid = body.valid.clone();
    indices(e, nest, &inner_dims(nest), rows.vector, "v");
    if !rows.across(nest) {
        validity(e, body);
    }
    let values: Vec<Reg> = folds.iter().map(|&(_, a, _)| a).collect();
    body.require(e, &values)?;
    for (reg, a, fold) in &folds {
        let value = body.value(*a, element_width);
        let position = position(e, body, rows);
        let valid = if rows.across(nest) { None } else { body.valid.clone() };
        let lifted = fold.lift(&value, &position, element_width, valid.as_deref());
        let state = if blocks && fold.is_rounded() { "part" } else { "fold" };
        e.line(format!("{state}_{reg} = {};", fold.join(&format!("{state}_{reg}"), &lifted, element_width)));
    }
    let element_stores = nest.kernel.stores.iter().filter(|s| is_element_store(body, s));
    let now: Vec<&Store> = element_stores.filter(|s| body.stages[s.value as usize] == pass).collect();
    let values: Vec<Reg> = now.iter().map(|s| s.value).collect();
    body.require(e, &values)?;
    for store in now {
        body.store(e, store)?;
    }
    body.forget(mark);
    body.valid = outer_valid;
    e.close();
    if blocks {
        for (reg, _, fold) in folds.iter().filter(|(_, _, fold)| fold.is_rounded()) {
            let joined = fold.join(&format!("fold_{reg}"), &format!("part_{reg}"), element_width);
            e.line(format!("fold_{reg} = {joined};"));
        }
        e.close();
    }
    for (reg, _, fold) in &folds {
        let along = element_width == Width::Four && !rows.across(nest);
        let state = if along { fold.across(&format!("fold_{reg}")) } else { format!("fold_{reg}") };
        if lanes == 1 {
            e.line(format!("let state_{reg} = {state};"));
        } else {
            e.line(format!("let own_{reg} = {state};"));
        }
    }
    join_lanes(e, rows, &folds, states_at_once(e, body, rows));
    Ok(())
}

/// How many states of each type lie in workgroup memory at a time: `None` if those of all folds fit into it,
/// else as many as fit, and at least one.
fn states_at_once(e: &Emitter<'_>, body: &ShaderBody<'_>, rows: &RowSchedule) -> Option<usize> {
    let passes = body.stages.iter().copied().max().unwrap_or(0) + 1;
    let folds = (0..passes).flat_map(|pass| folds_of(body, pass));
    let stored = folds.filter(|(_, _, fold)| !(rows.broadcasts && fold.is_broadcastable()));
    let mut types: Vec<&str> = stored.map(|(_, _, fold)| fold.shared_state()).collect();
    let bytes = |types: &[&str]| types.iter().map(|ty| element_bytes(ty) * rows.workgroup).sum::<u32>();
    if bytes(&types) <= e.room() {
        return None;
    }
    types.sort_unstable();
    types.dedup();
    Some((e.room() / bytes(&types)).max(1) as usize)
}

/// Joins the lanes' states in a fixed tree. If workgroup memory does not hold all states, they are joined in
/// turns.
fn join_lanes(
    e: &mut Emitter<'_>,
    rows: &RowSchedule,
    folds: &[(Reg, Reg, ShaderFold)],
    at_once: Option<usize>,
) {
    if rows.lanes == 1 || folds.is_empty() {
        return;
    }
    let (broadcast, stored): (Vec<_>, Vec<_>) =
        folds.iter().partition(|(_, _, fold)| rows.broadcasts && fold.is_broadcastable());
    for &(reg, _, fold) in broadcast {
        for i in 0..rows.lanes {
            e.line(format!("let broadcast_{reg}_{i} = subgroupBroadcast(own_{reg}, {i}u);"));
        }
        join_last(e, reg, fold, (0..rows.lanes).map(|i| format!("broadcast_{reg}_{i}")).collect());
    }
    let last = rows.lanes.min(8);
    for turn in turns(&stored, at_once) {
        if at_once.is_some() && e.has_workgroup_memory() {
            // Other invocations may still be reading the states of the turn before.
            e.line("workgroupBarrier();");
        }
        join_in_workgroup_memory(e, rows, &turn, last);
        for (reg, fold, lanes) in turn {
            let state = |i: u32| fold.of_shared(&format!("{lanes}[local - lane + {i}u]"));
            join_last(e, reg, fold, (0..last).map(state).collect());
        }
    }
}

/// The folds that lie in workgroup memory at the same time, each with the name of its array there.
fn turns(folds: &[&(Reg, Reg, ShaderFold)], at_once: Option<usize>) -> Vec<Vec<(Reg, ShaderFold, String)>> {
    let mut turns: Vec<Vec<(Reg, ShaderFold, String)>> = Vec::new();
    for &&(reg, _, fold) in folds {
        let state = fold.shared_state();
        let of_this_type = |turn: &Vec<(Reg, ShaderFold, String)>| {
            turn.iter().filter(|(_, f, _)| f.shared_state() == state).count()
        };
        let place = turns.last().map_or(0, of_this_type);
        let full = at_once.is_some_and(|most| place == most);
        let lanes = match at_once {
            None => format!("lanes_{reg}"),
            Some(_) => format!("lanes_{}_{}", state.to_lowercase(), if full { 0 } else { place }),
        };
        match turns.last_mut() {
            Some(turn) if !full => turn.push((reg, fold, lanes)),
            _ => turns.push(vec![(reg, fold, lanes)]),
        }
    }
    turns
}

/// Writes the lanes' states to workgroup memory, and joins them there until `last` states of each row are
/// left.
///
/// Every lane joins the last few on its own, which is cheaper than the barriers between the steps.
fn join_in_workgroup_memory(
    e: &mut Emitter<'_>,
    rows: &RowSchedule,
    folds: &[(Reg, ShaderFold, String)],
    last: u32,
) {
    for (reg, fold, lanes) in folds {
        e.workgroup_array(lanes, fold.shared_state(), rows.workgroup);
        e.line(format!("{lanes}[local] = {};", fold.to_shared(&format!("own_{reg}"))));
    }
    e.line("workgroupBarrier();");
    let mut distance = rows.lanes / 2;
    while distance >= last {
        e.open(format!("if (lane < {distance}u) {{"));
        for (_, fold, lanes) in folds {
            let joined = fold.join(
                &fold.of_shared(&format!("{lanes}[local]")),
                &fold.of_shared(&format!("{lanes}[local + {distance}u]")),
                Width::One,
            );
            e.line(format!("{lanes}[local] = {};", fold.to_shared(&joined)));
        }
        e.close();
        e.line("workgroupBarrier();");
        distance /= 2;
    }
}

/// Joins states in pairs until the state of the row is left.
fn join_last(e: &mut Emitter<'_>, reg: Reg, fold: ShaderFold, mut states: Vec<String>) {
    let mut level = 0;
    while states.len() > 1 {
        let mut joined = Vec::new();
        for (i, pair) in states.chunks(2).enumerate() {
            let name = format!("join_{reg}_{level}_{i}");
            e.line(format!("let {name} = {};", fold.join(&pair[0], &pair[1], Width::One)));
            joined.push(name);
        }
        states = joined;
        level += 1;
    }
    e.line(format!("let state_{reg} = {};", states[0]));
}

/// The position of the element in its row, in row-major order.
fn position(e: &mut Emitter<'_>, body: &ShaderBody<'_>, rows: &RowSchedule) -> String {
    let nest = body.nest;
    let mut terms = Vec::new();
    let mut stride = 1usize;
    for d in inner_dims(nest).into_iter().rev() {
        let first = e.uniform(&format!("first_{d}"), nest.first[d]);
        if d + 1 == nest.kernel.sizes.len() {
            terms.push(format!("i{d} + {first}"));
        } else {
            let step = e.uniform(&format!("position_stride{d}"), stride);
            terms.push(format!("(i{d} + {first}) * {step}"));
        }
        stride *= nest.full[d];
    }
    let first = if terms.is_empty() { "0u".to_owned() } else { terms.join(" + ") };
    match (rows.element_width(), rows.across(nest)) {
        (Width::One, _) => format!("({first})"),
        (Width::Four, true) => format!("vec4<u32>({first})"),
        (Width::Four, false) => format!("(vec4<u32>({first}) + {LANES})"),
    }
}

/// Writes the stores of row values, by the first lane of each row.
fn store_rows(
    e: &mut Emitter<'_>,
    body: &mut ShaderBody<'_>,
    rows: &RowSchedule,
    stored: &mut [bool],
) -> Result<()> {
    let nest = body.nest;
    let all = nest.kernel.stores.iter().enumerate();
    let now: Vec<&Store> = all
        .filter(|(i, s)| !is_element_store(body, s) && !std::mem::replace(&mut stored[*i], true))
        .map(|(_, s)| s)
        .collect();
    let values: Vec<Reg> = now.iter().map(|s| s.value).collect();
    body.require(e, &values)?;
    if rows.lanes > 1 {
        e.line("let first_lane = live && lane == 0u;");
        body.live = Some("first_lane".to_owned());
    }
    for store in now {
        body.store(e, store)?;
    }
    Ok(())
}

mod chunks;
use chunks::split;
