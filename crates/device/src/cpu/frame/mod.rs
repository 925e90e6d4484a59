//! A frame: one thread's state while it runs a program over tiles.
//!
//! Every value is a pointer to its lanes, or to one number that stands for all of them. Loads of contiguous memory point
//! right into the buffer, results that are stored contiguously are computed right there; everything else lies in the
//! frame's own memory, which a thread keeps from launch to launch.
#![allow(unsafe_code)]

mod ahead;
mod elements;
mod instructions;

use std::cell::Cell;

use super::affine::{AffineMap, Tile};
use super::memory::CpuMemory;
use super::program::{CpuProgram, Inst, ProgramOptions};
use super::simd::{Raw, SimdArgs, lanes};
use crate::executor::bytes_of;
use crate::kernel::IndexedDim;
use crate::{Error, Result, Scalar};
use ahead::Ahead;
pub use ahead::FAR_BYTES;
pub use elements::checked;

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
    pub affine: AffineMap,
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
    /// Whether its memory is so large that it's worth fetching ahead.
    pub far: bool,
}

/// What the maps of a kernel are in a layout.
#[derive(Debug)]
pub struct Maps {
    /// Its accesses.
    pub ports: Vec<Port>,
    /// Its ranges with their sizes.
    pub ranges: Vec<(AffineMap, usize)>,
    /// Coordinates.
    pub coords: Vec<AffineMap>,
}

impl Maps {
    /// The bytes of its lists.
    pub fn bytes(&self) -> usize {
        bytes_of(&self.ports) + bytes_of(&self.ranges) + bytes_of(&self.coords)
    }
}

#[derive(Clone, Copy)]
struct LanePointer {
    at: *mut u8,
    /// One number stands for all lanes.
    single: bool,
}

/// What a thread keeps from launch to launch.
#[derive(Default)]
struct Reserve {
    memory: Option<FrameMemory>,
    slots: Vec<LanePointer>,
}

struct FrameMemory {
    start: *mut u8,
    layout: std::alloc::Layout,
}

impl Drop for FrameMemory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and is dropped once.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
    }
}

thread_local! {
    static RESERVE: Cell<Option<Reserve>> = const { Cell::new(None) };
}

/// One thread's state while it runs a program.
pub struct CpuFrame<'a> {
    program: &'a CpuProgram,
    maps: &'a Maps,
    buffers: &'a [RawBuffer],
    params: &'a [Scalar],
    reserve: Reserve,
    memory: *mut u8,
    ahead: Ahead,
}

impl Drop for CpuFrame<'_> {
    fn drop(&mut self) {
        let reserve = std::mem::take(&mut self.reserve);
        // A thread that is ending has no use for it.
        let _ = RESERVE.try_with(|cell| cell.set(Some(reserve)));
    }
}

impl<'a> CpuFrame<'a> {
    /// A frame for a program, with its uniform values computed.
    ///
    /// # Safety
    /// Every unguarded and not indexed access stays inside of its buffer over the whole space, and nobody else writes
    /// to what it reads or uses what it writes until the frame is dropped.
    pub unsafe fn new(
        program: &'a CpuProgram,
        maps: &'a Maps,
        buffers: &'a [RawBuffer],
        params: &'a [Scalar],
    ) -> Result<CpuFrame<'a>> {
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
            reserve.memory = Some(FrameMemory { start, layout });
        }
        let memory = reserve.memory.as_ref().map_or(std::ptr::null_mut(), |block| block.start);
        reserve.slots.clear();
        reserve.slots.resize(program.values, LanePointer { at: memory, single: true });
        let mut frame = CpuFrame { program, maps, buffers, params, reserve, memory, ahead: Ahead::default() };
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
            // SAFETY: `CpuProgram::place` made room for as many lanes.
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
                (place.fold.merge)(&SimdArgs {
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

    fn slot(&self, value: u32) -> LanePointer {
        self.reserve.slots[value as usize]
    }

    fn set(&mut self, inst: &Inst, at: *mut u8, single: bool) {
        self.reserve.slots[inst.value as usize] = LanePointer { at, single };
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

    /// Has the next tile's elements of an access fetched, if it's worth it, given where this tile's lie.
    fn fetch_ahead(&mut self, access: usize, at: *const u8, tile: &Tile) {
        let port = &self.maps.ports[access];
        if port.far {
            let ProgramOptions { column, keep, .. } = self.program.options;
            // Tiles go along the rows, unless they have whole ones.
            let by_rows = (column || keep) && port.affine.p.rank() == 1;
            let elements =
                if by_rows { port.affine.p.stride() * tile.rows as isize } else { tile.lanes() as isize };
            self.ahead.note(access, at, elements * port.size as isize, tile.lanes() * port.size);
        }
    }
}

/// The raw memory of a buffer, from one of its bytes on.
pub fn raw(memory: &CpuMemory, begin: usize, bytes: usize) -> RawBuffer {
    let begin = begin.min(bytes);
    RawBuffer { start: memory.pointer().wrapping_add(begin), bytes: bytes - begin }
}
