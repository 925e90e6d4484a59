//! Running folds along the last dim: each invocation walks a piece of 256 elements.
//!
//! Longer rows take three steps: the pieces' totals, a running fold of those (in the same way), and the
//! pieces again, each beginning where the one before ended. The order is fixed, whatever the device.

use super::body::ShaderBody;
use super::emit::{Emitter, GROUP, Width};
use super::fold::ShaderFold;
use super::loops::{count, indices};
use super::nest::Nest;
use crate::gpu::GpuShared;
use crate::gpu::program::{BoundMemory, Dispatch, Window};
use crate::kernel::{Access, Instr, Loop, ReduceOp, Scan, Store, Ty};
use crate::layout::{Dims, Strides, contiguous_strides};
use crate::{DType, Result};

/// Elements of a piece.
const PIECE: usize = 256;
/// Rows that keep a device busy without being cut, and their length at most.
const MANY_ROWS: usize = 64;
const SHORT_ROW: usize = 8192;
const WORKGROUP: u32 = 64;
/// Accesses to temporaries have buffer numbers from here on.
pub(super) const TEMPS: usize = 1 << 20;

/// The steps of a scan, and the bytes that its buffers and temporaries need.
pub(super) fn plan(
    shared: &GpuShared,
    scan: &Scan,
    needs: &mut Vec<u64>,
    temps: &mut Vec<usize>,
) -> Result<Vec<Dispatch>> {
    let mut steps = Vec::new();
    let whole = nest(scan.sizes.clone(), vec![scan.source.clone(), scan.target.clone()]);
    whole.needs(needs);
    if !scan.sizes.contains(&0) {
        run(shared, scan.op, &scan.sizes, &scan.source, &scan.target, temps, &mut steps)?;
    }
    Ok(steps)
}

/// Adds the steps of a scan between buffers or temporaries.
pub(super) fn run(
    shared: &GpuShared,
    op: ReduceOp,
    sizes: &Dims,
    source: &Access,
    target: &Access,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let fold = ShaderFold { op, ty: Ty::of(source.dtype) };
    let (outer, n) = sizes.split_at(sizes.len().saturating_sub(1));
    let n = n.first().copied().unwrap_or(1);
    let rows: usize = outer.iter().product();
    let whole = if rows >= MANY_ROWS && n <= SHORT_ROW { SHORT_ROW } else { PIECE };
    if n <= whole {
        return pieces(shared, fold, outer, n, n, source, Some(target), None, steps);
    }
    let count = n.div_ceil(PIECE);
    let mut totals_sizes: Dims = outer.into();
    totals_sizes.push(count);
    let dtype = state_dtype(fold.ty);
    let totals = Access::new(TEMPS + temps.len(), dtype, &contiguous_strides(&totals_sizes), 0);
    temps.push(rows * count * dtype.size());
    pieces(shared, fold, outer, n, PIECE, source, None, Some(&totals), steps)?;
    run(shared, op, &totals_sizes, &totals, &totals, temps, steps)?;
    pieces(shared, fold, outer, n, PIECE, source, Some(target), Some(&totals), steps)
}

/// The dtype that a running state is kept as.
fn state_dtype(ty: Ty) -> DType {
    match ty {
        Ty::Bool => DType::Bool,
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
        Ty::I32 | Ty::U32 => DType::I32,
    }
}

/// A space with accesses and nothing computed.
pub(super) fn nest(sizes: Dims, accesses: Vec<Access>) -> Nest {
    let (first, full) = (vec![0; sizes.len()], sizes.to_vec());
    let kernel = Loop { sizes, inner: 0, accesses, ranges: Vec::new(), body: Vec::new(), stores: Vec::new() };
    Nest { kernel, first, full }
}

/// Lets a window of a temporary, which accesses name by a buffer's number, say so.
pub(super) fn name_temp(window: &mut Window) {
    if let BoundMemory::Buffer(number @ TEMPS..) = window.slot {
        window.slot = BoundMemory::Temp(number - TEMPS);
    }
}

/// The access of an element in pieces: its last dim becomes the piece and the place in it.
fn in_pieces(access: &Access, size: usize, along: bool) -> Access {
    let mut strides: Strides = access.strides.clone();
    let last = strides.pop().unwrap_or(0);
    strides.extend(if along { [last * size as isize, last] } else { [last, 0] });
    Access { strides, ..access.clone() }
}

/// A walk over all pieces of `size` elements: it writes running values to `target`, beginning from the total
/// before if there are `totals`, or without a target the totals themselves.
#[allow(clippy::too_many_arguments)]
fn pieces(
    shared: &GpuShared,
    fold: ShaderFold,
    outer: &[usize],
    n: usize,
    size: usize,
    source: &Access,
    target: Option<&Access>,
    totals: Option<&Access>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let mut sizes: Dims = outer.into();
    let piece = sizes.len();
    sizes.extend([n.div_ceil(size), size.min(n)]);
    let mut accesses = vec![in_pieces(source, size, true)];
    let mut body = vec![Instr::Load { access: 0, indices: Default::default() }, Instr::Accumulator];
    let mut stores = Vec::new();
    if let Some(target) = target {
        accesses.push(in_pieces(target, size, true));
        stores.push(Store { access: 1, value: 1 });
        if let Some(totals) = totals {
            let mut before = in_pieces(totals, size, false);
            before.offset -= before.strides[piece];
            accesses.push(before);
            body.push(Instr::Load { access: 2, indices: Default::default() });
        }
    } else if let Some(totals) = totals {
        accesses.push(in_pieces(totals, size, false));
        stores.push(Store { access: 1, value: 1 });
    }
    let used: Vec<usize> = (0..accesses.len()).collect();
    let mut nest = nest(sizes, accesses);
    nest.kernel.body = body;
    nest.kernel.stores = stores;
    let dims: Vec<usize> = (0..=piece).collect();
    for (part, mut windows) in nest.spaces(&used, &dims, None, &shared.caps)? {
        windows.values_mut().for_each(name_temp);
        let mut body = ShaderBody::new(&part, &windows, None, fold.ty);
        let mut e = Emitter::new(shared, "Pieces of rows, folded as they run.", WORKGROUP);
        let threads = count(&part, &dims, None);
        let limit = e.number("threads", threads);
        e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
        e.open(format!("if (thread >= {limit}) {{"));
        e.line("return;");
        e.close();
        indices(&mut e, &part, &dims, None, "thread");
        let first = e.number("first_piece", part.first[piece]);
        let (size, n) = (e.number("piece_size", size), e.number("row_size", n));
        e.line(format!("let length = min({size}, {n} - (i{piece} + {first}) * {size});"));
        e.line(format!("var state: {} = {};", fold.state(Width::One), fold.start(Width::One)));
        body.accumulator = Some("state".to_owned());
        if target.is_some() && totals.is_some() {
            e.open(format!("if (i{piece} + {first} > 0u) {{"));
            let mark = body.mark();
            body.require(&mut e, &[2])?;
            e.line(format!("state = {};", body.value(2, Width::One)));
            body.forget(mark);
            e.close();
        }
        let place = piece + 1;
        e.open(format!("for (var i{place} = 0u; i{place} < length; i{place}++) {{"));
        let mark = body.mark();
        body.require(&mut e, &[0, 1])?;
        e.line(format!("state = {};", fold.join("state", &body.value(0, Width::One), Width::One)));
        if target.is_some() {
            body.store(&mut e, &part.kernel.stores[0])?;
        }
        body.forget(mark);
        e.close();
        if target.is_none() {
            body.require(&mut e, &[1])?;
            body.store(&mut e, &part.kernel.stores[0])?;
        }
        steps.push(e.finish(threads.div_ceil(WORKGROUP as usize))?);
    }
    Ok(())
}
