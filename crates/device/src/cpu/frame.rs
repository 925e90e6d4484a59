//! A frame: one thread's state while it runs a program over tiles.
//!
//! Every value is a pointer to its lanes, or to one number that stands for all of them. Loads of contiguous memory point
//! right into the buffer, results that are stored contiguously are computed right there; everything else lies in the
//! frame's own memory, which a thread keeps from launch to launch.
#![allow(unsafe_code)]

use std::cell::Cell;

use super::affine::{Affine, Grid, Run, Tile};
use super::memory::CpuMemory;
use super::program::{Inst, Op, Program, cell, invalid};
use super::simd::{Args, Raw, lanes};
use crate::kernel::{IndexedDim, Ty};
use crate::{Error, Result, Scalar};

/// A buffer's memory during a launch.
#[derive(Clone, Copy)]
pub struct RawBuffer {
    /// Its first byte.
    pub start: *mut u8,
    /// Its size.
    pub bytes: usize,
}

impl RawBuffer {
    /// Its first element.
    pub fn cast<T>(self) -> *mut T {
        self.start.cast()
    }
}

// SAFETY: launches write to disjoint places from their threads, and their callers order them.
unsafe impl Send for RawBuffer {}
// SAFETY: as above.
unsafe impl Sync for RawBuffer {}

/// An access, ready to run.
#[derive(Debug)]
pub struct Port {
    /// The element at each index.
    pub affine: Affine,
    /// Which buffer.
    pub buffer: usize,
    /// Bytes of an element.
    pub size: usize,
    /// From elements to registers.
    pub load: Option<Raw>,
    /// From registers to elements.
    pub store: Option<Raw>,
    /// Positions of its ranges.
    pub guards: Vec<usize>,
    /// Its indexed dims.
    pub indexed: Vec<IndexedDim>,
    /// Whether loads must copy, because the kernel writes to the buffer.
    pub copied: bool,
}

/// What the maps of a kernel are in a layout.
#[derive(Debug)]
pub struct Maps {
    /// Its accesses.
    pub ports: Vec<Port>,
    /// Its ranges with their sizes.
    pub ranges: Vec<(Affine, usize)>,
    /// Coordinates.
    pub coords: Vec<Affine>,
}

#[derive(Clone, Copy)]
struct Slot {
    at: *mut u8,
    /// One number stands for all lanes.
    single: bool,
}

/// What a thread keeps from launch to launch.
#[derive(Default)]
struct Reserve {
    memory: Option<CpuMemoryBlock>,
    slots: Vec<Slot>,
}

struct CpuMemoryBlock {
    start: *mut u8,
    layout: std::alloc::Layout,
}

impl Drop for CpuMemoryBlock {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and is dropped once.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}

thread_local! {
    static RESERVE: Cell<Option<Reserve>> = const { Cell::new(None) };
}

/// One thread's state while it runs a program.
pub struct Frame<'a> {
    program: &'a Program,
    maps: &'a Maps,
    buffers: &'a [RawBuffer],
    params: &'a [Scalar],
    reserve: Reserve,
    memory: *mut u8,
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        let reserve = std::mem::take(&mut self.reserve);
        // A thread that is ending has no use for it.
        let _ = RESERVE.try_with(|cell| cell.set(Some(reserve)));
    }
}

impl<'a> Frame<'a> {
    /// A frame for a program, with its uniform values computed.
    ///
    /// # Safety
    /// Every unguarded and not indexed access stays inside of its buffer over the whole space, and nobody else writes
    /// to what it reads or uses what it writes until the frame is dropped.
    pub unsafe fn new(
        program: &'a Program,
        maps: &'a Maps,
        buffers: &'a [RawBuffer],
        params: &'a [Scalar],
    ) -> Result<Frame<'a>> {
        let mut reserve = RESERVE.try_with(Cell::take).ok().flatten().unwrap_or_default();
        if reserve.memory.as_ref().is_none_or(|block| block.layout.size() < program.memory) {
            reserve.memory = None;
            let bytes = program.memory.next_power_of_two().max(1 << 16);
            let out_of_memory = || Error::OutOfMemory { requested: bytes as u64, used: 0, limit: u64::MAX };
            let layout = std::alloc::Layout::from_size_align(bytes, 4096).map_err(|_| out_of_memory())?;
            // SAFETY: the layout's size isn't 0.
            let start = unsafe { std::alloc::alloc_zeroed(layout) };
            if start.is_null() {
                return Err(out_of_memory());
            }
            reserve.memory = Some(CpuMemoryBlock { start, layout });
        }
        let memory = reserve.memory.as_ref().map_or(std::ptr::null_mut(), |block| block.start);
        reserve.slots.clear();
        reserve.slots.resize(program.values, Slot { at: memory, single: true });
        let mut frame = Frame { program, maps, buffers, params, reserve, memory };
        let one = Tile { batch: 0, p: 0, rows: 1, q: 0, columns: 1 };
        frame.run(&program.uniform, &one, 0)?;
        Ok(frame)
    }

    /// The frame's accumulators.
    pub fn accumulators(&mut self) -> &mut [u8] {
        let (start, bytes) = self.program.accumulators;
        // SAFETY: the region lies in the frame's memory, and `begin` initialises what is read of it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(start), bytes) }
    }

    /// Sets a stage's accumulators of this many lanes to where folds start.
    pub fn begin(&mut self, folds: &[usize], lanes: usize) {
        let start = self.program.accumulators.0;
        for &fold in folds {
            let place = &self.program.folds[fold];
            let identity = place.fold.identity.to_ne_bytes();
            // SAFETY: `Program::place` made room for as many lanes.
            unsafe {
                let values = self.memory.add(start + place.memory);
                lanes::copy(values, 1, identity.as_ptr(), 0, lanes, place.fold.accumulator);
                if place.fold.position {
                    self.memory.add(start + place.positions).write_bytes(0, lanes * 8);
                }
            }
        }
    }

    /// Folds the accumulators of a stage that another frame left after later elements into this one's.
    ///
    /// # Safety
    /// `other` is a copy of a frame's accumulators of the same program and as many lanes.
    pub unsafe fn merge(&mut self, folds: &[usize], lanes: usize, other: &[u8]) {
        let start = self.program.accumulators.0;
        for &fold in folds {
            let place = &self.program.folds[fold];
            // SAFETY: both have room for as many lanes.
            unsafe {
                (place.fold.merge)(&Args {
                    dst: self.memory.add(start + place.memory),
                    a: other.as_ptr().add(place.memory),
                    b: other.as_ptr().add(place.positions.min(other.len())),
                    c: self.memory.add(start + place.positions),
                    n: lanes,
                    rows: 1,
                    start: 0,
                });
            }
        }
    }

    fn slot(&self, value: u32) -> Slot {
        self.reserve.slots[value as usize]
    }

    fn set(&mut self, inst: &Inst, at: *mut u8, single: bool) {
        self.reserve.slots[inst.value as usize] = Slot { at, single };
    }

    /// Where an access's elements of a tile lie, if they are contiguous.
    fn contiguous(&self, port: &Port, tile: &Tile) -> Option<*mut u8> {
        let grid = port.affine.grid(tile)?;
        let columns = tile.columns == 1 || grid.column == 1;
        let step = if tile.columns == 1 { 1 } else { tile.columns as isize };
        let rows = tile.rows == 1 || grid.row == step;
        // SAFETY: the tile lies inside of the space, and its elements inside of the buffer.
        (columns && rows).then(|| unsafe { self.element(port, grid.base) })
    }

    /// # Safety
    /// The element lies inside of the buffer.
    unsafe fn element(&self, port: &Port, element: isize) -> *mut u8 {
        // Wrapping, because a panel's start may lie anywhere before its first element.
        self.buffers[port.buffer].start.wrapping_offset(element.wrapping_mul(port.size as isize))
    }

    /// Runs instructions over a tile whose first element is at this position in its row.
    pub fn run(&mut self, list: &[Inst], tile: &Tile, start: usize) -> Result<()> {
        let n = tile.lanes();
        for inst in list {
            // SAFETY: in all that follows, the frame's memory was laid out for the program's largest tile, and each
            // value's lanes were written by its instruction; results never overlap operands.
            let memory = unsafe { self.memory.add(inst.memory) };
            match &inst.op {
                Op::Const(bits) => self.set_cell(inst, memory, *bits),
                Op::Param { index, ty } => {
                    let value = *self.params.get(*index).ok_or_else(|| invalid("too few parameters"))?;
                    self.set_cell(inst, memory, cell(value, *ty));
                }
                Op::Words { params } => {
                    for i in 0..4 {
                        let word =
                            self.params.get(params + i).ok_or_else(|| invalid("too few parameters"))?;
                        // SAFETY: a cell has room for four words.
                        unsafe { memory.cast::<u32>().add(i).write(word.as_i64() as u32) };
                    }
                    self.set(inst, memory, true);
                }
                Op::Load { access, indices } => self.load(inst, *access, indices, tile, memory)?,
                Op::Coord { coord } => {
                    let affine = &self.maps.coords[*coord];
                    let single = fill(affine, tile, memory.cast::<i32>(), |value| value as i32);
                    self.set(inst, memory, single || n == 1);
                }
                Op::InRange { range } => {
                    let (affine, size) = &self.maps.ranges[*range];
                    let inside = |value: isize| u8::from(value >= 0 && value < *size as isize);
                    let single = match affine.grid(tile).and_then(|grid| certain(grid, *size, tile)) {
                        Some(holds) => {
                            // SAFETY: there is room for a lane.
                            unsafe { memory.write(u8::from(holds)) };
                            true
                        }
                        None => fill(affine, tile, memory, inside),
                    };
                    self.set(inst, memory, single || n == 1);
                }
                Op::Unary { run, a } => {
                    let a = self.slot(*a);
                    let dst = self.target(inst, tile, memory, a.single);
                    // SAFETY: as above.
                    unsafe { run(&Args::new(dst, a.at, if a.single { 1 } else { n })) };
                    self.set(inst, dst, a.single || n == 1);
                }
                Op::Binary { run, a, b } => {
                    let (mut a, mut b) = (self.slot(*a), self.slot(*b));
                    let single = a.single && b.single;
                    let dst = self.target(inst, tile, memory, single);
                    let n = if single { 1 } else { n };
                    let loops = match run.single {
                        _ if a.single == b.single => run.lanes,
                        Some([first, second]) => {
                            if b.single {
                                first
                            } else {
                                second
                            }
                        }
                        None => {
                            a = self.spread(a, 0, n, run.width);
                            b = self.spread(b, 1, n, run.width);
                            run.lanes
                        }
                    };
                    // SAFETY: as above.
                    unsafe { loops(&Args { b: b.at, ..Args::new(dst, a.at, n) }) };
                    self.set(inst, dst, n == 1);
                }
                Op::Select { run, cond, a, b } => {
                    let (cond, mut a, mut b) = (self.slot(*cond), self.slot(*a), self.slot(*b));
                    let single = cond.single && a.single && b.single;
                    let dst = self.target(inst, tile, memory, single);
                    let n = if single { 1 } else { n };
                    if cond.single {
                        // SAFETY: as above.
                        unsafe {
                            let chosen = if cond.at.read() != 0 { a } else { b };
                            lanes::copy(dst, 1, chosen.at, isize::from(!chosen.single), n, inst.width);
                        }
                    } else {
                        let loops = match (run.single, a.single, b.single) {
                            (_, false, false) => run.lanes,
                            (Some([only_b, only_a, neither]), a, b) => match (a, b) {
                                (true, false) => only_b,
                                (false, _) => only_a,
                                (true, true) => neither,
                            },
                            (None, ..) => {
                                a = self.spread(a, 0, n, inst.width);
                                b = self.spread(b, 1, n, inst.width);
                                run.lanes
                            }
                        };
                        // SAFETY: as above.
                        unsafe { loops(&Args { b: b.at, c: cond.at, ..Args::new(dst, a.at, n) }) };
                    }
                    self.set(inst, dst, n == 1);
                }
                Op::Random { run, index, words } => {
                    let (index, words) = (self.slot(*index), self.slot(*words));
                    let dst = self.target(inst, tile, memory, index.single);
                    let n = if index.single { 1 } else { n };
                    // SAFETY: as above.
                    unsafe { run(&Args { b: words.at, ..Args::new(dst, index.at, n) }) };
                    self.set(inst, dst, n == 1);
                }
                Op::Expand { a } => {
                    let a = self.slot(*a);
                    if a.single {
                        // Copied, because the row value's memory may be given to another from here on.
                        // SAFETY: as above.
                        unsafe { lanes::copy(memory, 1, a.at, 1, 1, inst.width) };
                        self.set(inst, memory, true);
                        continue;
                    }
                    let (rows, columns, width) = (tile.rows, tile.columns, inst.width);
                    // SAFETY: as above.
                    unsafe {
                        if self.program.options.column {
                            for row in 0..rows {
                                lanes::copy(memory.add(row * columns * width), 1, a.at, 1, columns, width);
                            }
                        } else {
                            for row in 0..rows {
                                let (dst, src) = (memory.add(row * columns * width), a.at.add(row * width));
                                lanes::copy(dst, 1, src, 0, columns, width);
                            }
                        }
                    }
                    self.set(inst, memory, n == 1);
                }
                Op::Fold { fold, a } => {
                    let place = &self.program.folds[*fold];
                    let a = self.spread(self.slot(*a), 0, n, inst.width);
                    let column = self.program.options.column;
                    let run = if column { place.fold.columns } else { place.fold.rows };
                    // SAFETY: as above; accumulators have room for the rows or columns of a tile.
                    unsafe {
                        let accumulators = self.memory.add(self.program.accumulators.0);
                        run(&Args {
                            dst: accumulators.add(place.memory),
                            a: a.at,
                            b: a.at,
                            c: accumulators.add(place.positions),
                            n: tile.columns,
                            rows: tile.rows,
                            start,
                        });
                    }
                }
                Op::Finish { fold } => {
                    let place = &self.program.folds[*fold];
                    let dst = self.target(inst, tile, memory, n == 1);
                    // SAFETY: as above.
                    unsafe {
                        let accumulators = self.memory.add(self.program.accumulators.0);
                        let values = accumulators.add(place.memory);
                        match place.fold.finish {
                            Some(run) => run(&Args::new(dst, values, n)),
                            None if place.fold.position => {
                                lanes::copy(dst, 1, accumulators.add(place.positions), 1, n, 8);
                            }
                            None => lanes::copy(dst, 1, values, 1, n, inst.width),
                        }
                    }
                    self.set(inst, dst, n == 1);
                }
                Op::Store { access, a } => self.store(*access, self.slot(*a), tile)?,
            }
        }
        Ok(())
    }

    /// Lanes of a value, in a part of the scratch if it is a single number.
    fn spread(&self, value: Slot, part: usize, n: usize, width: usize) -> Slot {
        if !value.single || n == 1 {
            return value;
        }
        // SAFETY: the scratch has room for all lanes.
        unsafe {
            let at = self.memory.add(self.program.scratch[part]);
            lanes::copy(at, 1, value.at, 0, n, width);
            Slot { at, single: false }
        }
    }

    fn set_cell(&mut self, inst: &Inst, memory: *mut u8, bits: u64) {
        // SAFETY: a cell has room for 8 bytes.
        unsafe { memory.cast::<u64>().write(bits) };
        self.set(inst, memory, true);
    }

    /// Where a result goes: into the output, if it is contiguous there, or the frame's memory.
    fn target(&self, inst: &Inst, tile: &Tile, memory: *mut u8, single: bool) -> *mut u8 {
        match inst.direct {
            Some(access) if !single => self.contiguous(&self.maps.ports[access], tile).unwrap_or(memory),
            _ => memory,
        }
    }

    fn store(&mut self, access: usize, value: Slot, tile: &Tile) -> Result<()> {
        let port = &self.maps.ports[access];
        let n = tile.lanes();
        let scratch = self.program.scratch[0];
        let (size, lane_step) = (port.size as isize, isize::from(!value.single));
        let contiguous = self.contiguous(port, tile);
        // SAFETY: the frame's memory was laid out for such tiles, and all elements of a stored tile lie inside of the
        // buffer.
        unsafe {
            let mut source = value.at;
            if let Some(convert) = port.store {
                if let (Some(dst), false) = (contiguous, value.single) {
                    convert(&Args::new(dst, source, n));
                    return Ok(());
                }
                let converted = self.memory.add(scratch);
                convert(&Args::new(converted, source, if value.single { 1 } else { n }));
                source = converted;
            }
            if let Some(dst) = contiguous {
                if dst != source {
                    lanes::copy(dst, 1, source, lane_step, n, port.size);
                }
                return Ok(());
            }
            if let Some(grid) = port.affine.grid(tile) {
                let (rows, columns) = (tile.rows as isize, tile.columns as isize);
                let dst = self.element(port, grid.base);
                // Along the memory's direction, whichever that is.
                if rows > 1 && grid.row.abs() < grid.column.abs() {
                    for column in 0..columns {
                        let dst = dst.offset(column * grid.column * size);
                        let source = source.offset(lane_step * column * size);
                        lanes::copy(dst, grid.row, source, lane_step * columns, tile.rows, port.size);
                    }
                } else {
                    for row in 0..rows {
                        let dst = dst.offset(row * grid.row * size);
                        let source = source.offset(lane_step * row * columns * size);
                        lanes::copy(dst, grid.column, source, lane_step, tile.columns, port.size);
                    }
                }
                return Ok(());
            }
            port.affine.runs(tile, |run| {
                let dst = self.element(port, run.start);
                let source = source.offset(lane_step * run.lane as isize * size);
                lanes::copy(dst, run.stride, source, lane_step, run.n, port.size);
                Ok(())
            })
        }
    }

    fn load(
        &mut self,
        inst: &Inst,
        access: usize,
        indices: &[(u32, Ty)],
        tile: &Tile,
        memory: *mut u8,
    ) -> Result<()> {
        let port = &self.maps.ports[access];
        let n = tile.lanes();
        // Raw elements that aren't registers yet go to the scratch first.
        // SAFETY: the frame's memory was laid out for such tiles.
        let raw =
            if port.load.is_some() { unsafe { self.memory.add(self.program.scratch[0]) } } else { memory };
        let found = if !indices.is_empty() {
            self.load_indexed(port, indices, tile, raw)?
        } else if port.guards.is_empty() {
            self.load_inside(port, tile, raw)
        } else {
            self.load_guarded(port, tile, raw)?
        };
        let (at, single) = match port.load {
            Some(convert) => {
                // SAFETY: as above.
                unsafe { convert(&Args::new(memory, found.at, if found.single { 1 } else { n })) };
                (memory, found.single)
            }
            None => (found.at, found.single),
        };
        self.set(inst, at, single || n == 1);
        Ok(())
    }

    /// Elements that all lie inside of the buffer, where they are or gathered in `raw`.
    fn load_inside(&self, port: &Port, tile: &Tile, raw: *mut u8) -> Slot {
        let n = tile.lanes();
        // SAFETY: the elements of the tile lie inside of the buffer, and `raw` has room for all lanes.
        unsafe {
            let Some(grid) = port.affine.grid(tile) else {
                let _ = port.affine.runs::<()>(tile, |run| {
                    let dst = raw.add(run.lane * port.size);
                    lanes::copy(dst, 1, self.element(port, run.start), run.stride, run.n, port.size);
                    Ok(())
                });
                return Slot { at: raw, single: false };
            };
            let (rows, columns) = (tile.rows as isize, tile.columns as isize);
            let row = if rows == 1 { 0 } else { grid.row };
            let column = if columns == 1 { 0 } else { grid.column };
            let src = self.element(port, grid.base);
            if row == 0 && column == 0 {
                lanes::copy(raw, 1, src, 1, 1, port.size);
                return Slot { at: raw, single: true };
            }
            let contiguous =
                (columns == 1 || column == 1) && (rows == 1 || row == if columns == 1 { 1 } else { columns });
            if contiguous {
                if !port.copied {
                    return Slot { at: src, single: false };
                }
                lanes::copy(raw, 1, src, 1, n, port.size);
                return Slot { at: raw, single: false };
            }
            gather_grid(raw, src, row, column, tile, port.size);
            Slot { at: raw, single: false }
        }
    }

    /// Elements where all guards hold, zeros elsewhere.
    fn load_guarded(&self, port: &Port, tile: &Tile, raw: *mut u8) -> Result<Slot> {
        let n = tile.lanes();
        let mut all = true;
        let mut grids: smallvec::SmallVec<[(Grid, usize); 4]> = smallvec::SmallVec::new();
        for &guard in &port.guards {
            let (affine, size) = &self.maps.ranges[guard];
            let grid = affine.grid(tile);
            match grid.and_then(|grid| certain(grid, *size, tile)) {
                Some(true) => continue,
                Some(false) => {
                    // SAFETY: `raw` has room for a lane of 8 bytes.
                    unsafe { raw.write_bytes(0, 8) };
                    return Ok(Slot { at: raw, single: true });
                }
                None => all = false,
            }
            if let Some(grid) = grid {
                grids.push((grid, *size));
            } else {
                return self.load_masked(port, &[], tile, raw);
            }
        }
        let Some(grid) = port.affine.grid(tile) else { return self.load_masked(port, &[], tile, raw) };
        if all {
            let (low, high) = grid.bounds(tile.rows, tile.columns);
            self.check(port, low, high)?;
            return Ok(self.load_inside(port, tile, raw));
        }
        // SAFETY: `raw` has room for all lanes; what is read was checked.
        unsafe {
            raw.write_bytes(0, n * port.size);
            for row in 0..tile.rows {
                let (mut low, mut high) = (0, tile.columns as isize);
                for (guard, size) in &grids {
                    let first = guard.base + guard.row * row as isize;
                    let (from, to) = inside(first, guard.column, *size as isize, tile.columns as isize);
                    low = low.max(from);
                    high = high.min(to);
                }
                if low < high {
                    let first = grid.base + grid.row * row as isize + grid.column * low;
                    let last = first + grid.column * (high - low - 1);
                    self.check(port, first.min(last), first.max(last))?;
                    let dst = raw.add((row * tile.columns + low as usize) * port.size);
                    let src = self.element(port, first);
                    lanes::copy(dst, 1, src, grid.column, (high - low) as usize, port.size);
                }
            }
        }
        Ok(Slot { at: raw, single: false })
    }

    /// That these elements lie inside of the buffer.
    fn check(&self, port: &Port, low: isize, high: isize) -> Result<()> {
        let elements = self.buffers[port.buffer].bytes / port.size;
        if low < 0 || high >= elements as isize {
            return Err(invalid(format!("elements {low} to {high} of a buffer of {elements}")));
        }
        Ok(())
    }

    /// Elements moved by values of the body.
    fn load_indexed(&self, port: &Port, indices: &[(u32, Ty)], tile: &Tile, raw: *mut u8) -> Result<Slot> {
        // One index for the whole tile moves the access as it is.
        if port.guards.is_empty()
            && indices.iter().all(|&(value, _)| self.slot(value).single)
            && let Some(grid) = port.affine.grid(tile)
        {
            let mut moved = 0;
            for (dim, &(value, ty)) in port.indexed.iter().zip(indices) {
                // SAFETY: the slot holds an index of this type.
                let index = unsafe { index_at(self.slot(value).at, ty, 0) };
                moved += checked(dim, index)? * dim.stride;
            }
            let (low, high) = grid.bounds(tile.rows, tile.columns);
            self.check(port, low + moved, high + moved)?;
            let affine = Affine { offset: port.affine.offset + moved, ..port.affine.clone() };
            let port = Port { affine, guards: Vec::new(), indexed: Vec::new(), ..*port };
            return Ok(self.load_inside(&port, tile, raw));
        }
        self.load_masked(port, indices, tile, raw)
    }

    /// Lane by lane: where guards hold, the element that the map and the indices lead to.
    fn load_masked(&self, port: &Port, indices: &[(u32, Ty)], tile: &Tile, raw: *mut u8) -> Result<Slot> {
        let n = tile.lanes();
        // SAFETY: the scratch has room for all lanes, and is initialised before it is read.
        let (offsets, mask) = unsafe {
            let offsets = self.memory.add(self.program.scratch[1]).cast::<i64>();
            let mask = self.memory.add(self.program.scratch[2]);
            offsets.write_bytes(0, n);
            mask.write_bytes(1, n);
            (std::slice::from_raw_parts_mut(offsets, n), std::slice::from_raw_parts_mut(mask, n))
        };
        for &guard in &port.guards {
            let (affine, size) = &self.maps.ranges[guard];
            let _ = affine.runs::<()>(tile, |Run { lane, n, start, stride }| {
                let (from, to) = inside(start, stride, *size as isize, n as isize);
                mask[lane..lane + from.min(n as isize) as usize].fill(0);
                mask[lane + to.max(from).min(n as isize) as usize..lane + n].fill(0);
                Ok(())
            });
        }
        let _ = port.affine.runs::<()>(tile, |Run { lane, n, start, stride }| {
            for (i, offset) in offsets[lane..lane + n].iter_mut().enumerate() {
                *offset = (start + i as isize * stride) as i64;
            }
            Ok(())
        });
        for (dim, &(value, ty)) in port.indexed.iter().zip(indices) {
            let slot = self.slot(value);
            for (i, (offset, inside)) in offsets.iter_mut().zip(mask.iter()).enumerate() {
                if *inside != 0 {
                    // SAFETY: the slot holds indices of this type.
                    let index = unsafe { index_at(slot.at, ty, if slot.single { 0 } else { i }) };
                    *offset += (checked(dim, index)? * dim.stride) as i64;
                }
            }
        }
        let elements = (self.buffers[port.buffer].bytes / port.size) as u64;
        let outside = offsets.iter().zip(mask.iter()).find(|&(&o, &m)| m != 0 && o as u64 >= elements);
        if let Some((&offset, _)) = outside {
            return Err(invalid(format!("element {offset} of a buffer of {elements}")));
        }
        let mask = if port.guards.is_empty() { None } else { Some(&*mask) };
        // SAFETY: `raw` has room for all lanes; the offsets were checked.
        unsafe { lanes::gather(raw, self.element(port, 0), offsets, mask, port.size) };
        Ok(Slot { at: raw, single: false })
    }
}

/// Gathers a grid into rows of lanes, along the memory's direction.
///
/// # Safety
/// `raw` has room for the tile's lanes, and the grid's elements are valid.
unsafe fn gather_grid(raw: *mut u8, src: *const u8, row: isize, column: isize, tile: &Tile, size: usize) {
    let bytes = size as isize;
    // SAFETY: passed on to the caller.
    unsafe {
        if tile.rows > 1 && row.abs() < column.abs() && row != 0 {
            for c in 0..tile.columns {
                let (dst, src) = (raw.add(c * size), src.offset(c as isize * column * bytes));
                lanes::copy(dst, tile.columns as isize, src, row, tile.rows, size);
            }
        } else {
            for r in 0..tile.rows {
                let (dst, src) = (raw.add(r * tile.columns * size), src.offset(r as isize * row * bytes));
                lanes::copy(dst, 1, src, column, tile.columns, size);
            }
        }
    }
}

/// An index from its lanes.
///
/// # Safety
/// There is such a lane of this type.
unsafe fn index_at(lanes: *const u8, ty: Ty, lane: usize) -> i64 {
    // SAFETY: passed on to the caller.
    unsafe {
        match ty {
            Ty::I64 => lanes.cast::<i64>().add(lane).read(),
            _ => i64::from(lanes.cast::<i32>().add(lane).read()),
        }
    }
}

/// An index that lies inside of its dim.
pub fn checked(dim: &IndexedDim, index: i64) -> Result<isize> {
    if index < 0 || index as u64 >= dim.size as u64 {
        return Err(Error::Index { op: dim.op, index, size: dim.size });
    }
    Ok(index as isize)
}

/// Whether a range check holds for all of a tile or for none of it; `None` if for some.
fn certain(grid: Grid, size: usize, tile: &Tile) -> Option<bool> {
    let (low, high) = grid.bounds(tile.rows, tile.columns);
    if low >= 0 && high < size as isize {
        Some(true)
    } else if high < 0 || low >= size as isize {
        Some(false)
    } else {
        None
    }
}

/// The indices i below n with `0 <= start + i * stride < size`, as a range.
fn inside(start: isize, stride: isize, size: isize, n: isize) -> (isize, isize) {
    let ceil = |a: isize, b: isize| a.div_euclid(b) + isize::from(a.rem_euclid(b) != 0);
    let (from, to) = match stride {
        0 if start >= 0 && start < size => (0, n),
        0 => (0, 0),
        s if s > 0 => (ceil(-start, s), ceil(size - start, s)),
        s => (ceil(start - size + 1, -s), ceil(start + 1, -s)),
    };
    let from = from.clamp(0, n);
    (from, to.clamp(from, n))
}

/// Writes a function of a map's values to lanes; true if one stands for all.
fn fill<T: Copy>(affine: &Affine, tile: &Tile, dst: *mut T, value: impl Fn(isize) -> T) -> bool {
    if let Some(grid) = affine.grid(tile)
        && (tile.rows == 1 || grid.row == 0)
        && (tile.columns == 1 || grid.column == 0)
    {
        // SAFETY: there is room for the tile's lanes.
        unsafe { dst.write(value(grid.base)) };
        return true;
    }
    let _ = affine.runs::<()>(tile, |run| {
        for i in 0..run.n {
            // SAFETY: as above.
            unsafe { dst.add(run.lane + i).write(value(run.start + i as isize * run.stride)) };
        }
        Ok(())
    });
    false
}

/// The raw memory of buffers.
pub fn raw(memory: &CpuMemory, bytes: usize) -> RawBuffer {
    RawBuffer { start: memory.pointer(), bytes }
}
