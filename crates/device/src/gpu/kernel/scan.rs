//! Scans: running reductions along the last dim. Each invocation walks along a piece of 256 elements.
//!
//! Longer rows take three steps: the totals of the pieces, a scan of these totals, and a second walk along
//! the pieces, each of which begins from the total before it. The order of all operations is fixed, whatever
//! the device.

use super::body::ShaderBody;
use super::emit::{Emitter, GROUP, Width};
use super::fold::ShaderFold;
use super::loops::{count, indices};
use super::nest::Nest;
use crate::gpu::GpuShared;
use crate::gpu::program::{BoundMemory, Dispatch, Window};
use crate::kernel::{Access, Instr, Loop, Scan, Store, Ty};
use crate::layout::{Dims, Strides, contiguous_strides};
use crate::{DType, Result};

/// The elements of a piece.
const PIECE: usize = 256;
/// At least this many rows keep a device busy and are not cut, if they have at most `SHORT_ROW` elements.
const MANY_ROWS: usize = 64;
const SHORT_ROW: usize = 8192;
const WORKGROUP: u32 = 64;
/// Accesses to temporaries have buffer numbers from this one on.
pub(super) const TEMPS: usize = 1 << 20;

/// The dispatches of a scan, and the bytes that its buffers and temporaries need.
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
        run(shared, scan, temps, &mut steps)?;
    }
    Ok(steps)
}

/// Adds the dispatches of a scan, whose accesses may be to buffers or to temporaries.
pub(super) fn run(
    shared: &GpuShared,
    Scan { op, sizes, source, target }: &Scan,
    temps: &mut Vec<usize>,
    steps: &mut Vec<Dispatch>,
) -> Result<()> {
    let fold = ShaderFold { op: *op, ty: Ty::of(source.dtype) };
    let (outer, n) = sizes.split_at(sizes.len().saturating_sub(1));
    let n = n.first().copied().unwrap_or(1);
    let rows: usize = outer.iter().product();
    let whole = if rows >= MANY_ROWS && n <= SHORT_ROW { SHORT_ROW } else { PIECE };
    if n <= whole {
        let piece = Pieces { fold, outer, n, size: n, source, target: Some(target), totals: None };
        return piece.write(shared, steps);
    }
    let count = n.div_ceil(PIECE);
    let mut totals_sizes: Dims = outer.into();
    totals_sizes.push(count);
    let dtype = state_dtype(fold.ty);
    let totals = Access::new(TEMPS + temps.len(), dtype, &contiguous_strides(&totals_sizes), 0);
    temps.push(rows * count * dtype.size());
    let pieces = Pieces { fold, outer, n, size: PIECE, source, target: None, totals: Some(&totals) };
    pieces.write(shared, steps)?;
    let of_totals = Scan { op: *op, sizes: totals_sizes, source: totals.clone(), target: totals.clone() };
    run(shared, &of_totals, temps, steps)?;
    Pieces { target: Some(target), ..pieces }.write(shared, steps)
}

/// The dtype in which totals are stored.
fn state_dtype(ty: Ty) -> DType {
    match ty {
        Ty::Bool => DType::Bool,
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
        Ty::I32 | Ty::U32 => DType::I32,
    }
}

/// An index space with accesses and an empty body.
pub(super) fn nest(sizes: Dims, accesses: Vec<Access>) -> Nest {
    let (first, full) = (vec![0; sizes.len()], sizes.to_vec());
    let kernel = Loop { sizes, inner: 0, accesses, ranges: Vec::new(), body: Vec::new(), stores: Vec::new() };
    Nest { kernel, first, full }
}

/// Makes a window refer to a temporary, if its buffer number is that of one.
pub(super) fn name_temp(window: &mut Window) {
    if let BoundMemory::Buffer(number @ TEMPS..) = window.slot {
        window.slot = BoundMemory::Temp(number - TEMPS);
    }
}

/// The access with its last dim split in two, the number of the piece and the place in it. With `along` false
/// it has one element for each piece.
fn in_pieces(access: &Access, size: usize, along: bool) -> Access {
    let mut strides: Strides = access.strides.clone();
    let last = strides.pop().unwrap_or(0);
    strides.extend(if along { [last * size as isize, last] } else { [last, 0] });
    Access { strides, ..access.clone() }
}

/// The rows of a scan, cut into pieces that an invocation each walks along.
#[derive(Clone, Copy)]
struct Pieces<'p> {
    fold: ShaderFold,
    /// The sizes of the dims that number rows.
    outer: &'p [usize],
    /// The elements of a row, and of a piece.
    n: usize,
    size: usize,
    source: &'p Access,
    /// The running values; without it the totals of the pieces are written.
    target: Option<&'p Access>,
    /// The totals of the pieces. If there is a target, each piece begins from the total before it.
    totals: Option<&'p Access>,
}

impl Pieces<'_> {
    /// Adds the dispatches that walk along all pieces.
    fn write(&self, shared: &GpuShared, steps: &mut Vec<Dispatch>) -> Result<()> {
        let Pieces { outer, n, size, target, totals, .. } = *self;
        let nest = self.nest();
        let piece = outer.len();
        let used: Vec<usize> = (0..nest.kernel.accesses.len()).collect();
        let dims: Vec<usize> = (0..=piece).collect();
        for (part, mut windows) in nest.spaces(&used, &dims, None, &shared.caps)? {
            windows.values_mut().for_each(name_temp);
            let mut body = ShaderBody::new(&part, &windows, None, self.fold.ty);
            let mut e = Emitter::new(shared, "Pieces of rows, folded as they run.", WORKGROUP);
            let threads = count(&part, &dims, None);
            let limit = e.uniform("threads", threads);
            e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
            e.open(format!("if (thread >= {limit}) {{"));
            e.line("return;");
            e.close();
            indices(&mut e, &part, &dims, None, "thread");
            let first = e.uniform("first_piece", part.first[piece]);
            let (size, n) = (e.uniform("piece_size", size), e.uniform("row_size", n));
            e.line(format!("let length = min({size}, {n} - (i{piece} + {first}) * {size});"));
            e.line(format!("var state: {} = {};", self.fold.state(Width::One), self.fold.start(Width::One)));
            body.accumulator = Some("state".to_owned());
            if target.is_some() && totals.is_some() {
                e.open(format!("if (i{piece} + {first} > 0u) {{"));
                let mark = body.mark();
                body.require(&mut e, &[2])?;
                e.line(format!("state = {};", body.value(2, Width::One)));
                body.forget(mark);
                e.close();
            }
            self.walk(&mut e, &mut body)?;
            steps.push(e.finish(threads.div_ceil(WORKGROUP as usize))?);
        }
        Ok(())
    }

    /// The space of the pieces, with their accesses: the source, then the target or the totals, then the
    /// total before.
    fn nest(&self) -> Nest {
        let mut sizes: Dims = self.outer.into();
        let piece = sizes.len();
        sizes.extend([self.n.div_ceil(self.size), self.size.min(self.n)]);
        let mut accesses = vec![in_pieces(self.source, self.size, true)];
        let mut body = vec![Instr::Load { access: 0, indices: Default::default() }, Instr::Accumulator];
        let mut stores = Vec::new();
        if let Some(target) = self.target {
            accesses.push(in_pieces(target, self.size, true));
            stores.push(Store { access: 1, value: 1 });
            if let Some(totals) = self.totals {
                let mut before = in_pieces(totals, self.size, false);
                before.offset -= before.strides[piece];
                accesses.push(before);
                body.push(Instr::Load { access: 2, indices: Default::default() });
            }
        } else if let Some(totals) = self.totals {
            accesses.push(in_pieces(totals, self.size, false));
            stores.push(Store { access: 1, value: 1 });
        }
        let mut nest = nest(sizes, accesses);
        nest.kernel.body = body;
        nest.kernel.stores = stores;
        nest
    }

    /// Writes the loop along a piece, which stores the state after each element, or once at the end.
    fn walk(&self, e: &mut Emitter<'_>, body: &mut ShaderBody<'_>) -> Result<()> {
        let store = &body.nest.kernel.stores[0];
        let place = self.outer.len() + 1;
        e.open(format!("for (var i{place} = 0u; i{place} < length; i{place}++) {{"));
        let mark = body.mark();
        body.require(e, &[0, 1])?;
        e.line(format!("state = {};", self.fold.join("state", &body.value(0, Width::One), Width::One)));
        if self.target.is_some() {
            body.store(e, store)?;
        }
        body.forget(mark);
        e.close();
        if self.target.is_none() {
            body.require(e, &[1])?;
            body.store(e, store)?;
        }
        Ok(())
    }
}
