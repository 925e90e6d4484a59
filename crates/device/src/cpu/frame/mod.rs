//! A frame: one thread's state while it runs a program over tiles.
//!
//! Every value is a pointer to its lanes, or to one number that stands for all of them. A load of contiguous
//! memory points into the buffer itself, and a result that is stored contiguously is computed in the output
//! itself. Everything else lies in the frame's own memory, which a thread keeps from launch to launch.
#![allow(unsafe_code)]

mod elements;
mod instructions;
mod prefetch;

use std::cell::Cell;

use super::affine::{AffineMap, Tile};
use super::memory::CpuMemory;
use super::program::{CpuProgram, Inst, ProgramOptions};
use super::simd::{Raw, SimdArgs, lanes};
use crate::executor::bytes_of;
use crate::kernel::IndexedDim;
use crate::{Error, Result, Scalar};
pub use elements::checked;
pub use prefetch::FAR_BYTES;
use prefetch::Prefetcher;

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

// SAFETY: the threads of a launch write to disjoint elements (each kernel splits its output), and the
// executor's contract obliges callers to order launches that share buffers. So sending the pointer to another
// thread cannot make a data race.
unsafe impl Send for RawBuffer {}
// SAFETY: a shared reference gives no more than a copy of the pointer; the threads that have copies write to
// disjoint elements.
unsafe impl Sync for RawBuffer {}

/// An access of a kernel, with what the interpreter needs to run it.
#[derive(Debug)]
pub struct Port {
    /// The map from indices of the space to elements of the buffer.
    pub affine: AffineMap,
    /// The number of the buffer.
    pub buffer: usize,
    /// The size of an element in bytes.
    pub size: usize,
    /// The loop that converts elements to register values; `None` if they have the same bits.
    pub load: Option<Raw>,
    /// The loop that converts register values to elements; `None` if they have the same bits.
    pub store: Option<Raw>,
    /// The numbers of the ranges that guard the access.
    pub guards: Vec<usize>,
    /// Its indexed dims.
    pub indexed: Vec<IndexedDim>,
    /// Whether loads must copy elements, because the kernel also writes to the buffer.
    pub copied: bool,
    /// Whether the buffer is so large that prefetching its elements pays.
    pub far: bool,
}

/// The affine maps of a kernel over its space, once the dims have been dealt into groups.
#[derive(Debug)]
pub struct Maps {
    /// The accesses.
    pub ports: Vec<Port>,
    /// The range checks: each is a map and the size that its values must stay below.
    pub ranges: Vec<(AffineMap, usize)>,
    /// The maps of the coordinates that the body uses.
    pub coords: Vec<AffineMap>,
}

impl Maps {
    /// The heap memory that the maps take, in bytes.
    pub fn bytes(&self) -> usize {
        bytes_of(&self.ports) + bytes_of(&self.ranges) + bytes_of(&self.coords)
    }
}

#[derive(Clone, Copy)]
struct LanePointer {
    at: *mut u8,
    /// Whether one number stands for all lanes.
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
        // SAFETY: `CpuFrame::new` allocated the memory with this layout, and only this drop frees it.
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
    prefetcher: Prefetcher,
}

impl Drop for CpuFrame<'_> {
    fn drop(&mut self) {
        let reserve = std::mem::take(&mut self.reserve);
        // Setting fails only while the thread ends; then the reserve is simply freed.
        let _ = RESERVE.try_with(|cell| cell.set(Some(reserve)));
    }
}

impl<'a> CpuFrame<'a> {
    /// Makes a frame for a program, and computes the program's uniform values.
    ///
    /// # Safety
    /// Every access that is neither guarded nor indexed stays inside of its buffer over the whole space.
    /// Until the frame is dropped, nobody else writes to what the frame reads or uses what the frame writes.
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
            // SAFETY: the size is at least 64 KiB, so it is not 0.
            let start = unsafe { std::alloc::alloc_zeroed(layout) };
            if start.is_null() {
                return Err(out_of_memory());
            }
            reserve.memory = Some(FrameMemory { start, layout });
        }
        let memory = reserve.memory.as_ref().map_or(std::ptr::null_mut(), |block| block.start);
        reserve.slots.clear();
        reserve.slots.resize(program.values, LanePointer { at: memory, single: true });
        let mut frame =
            CpuFrame { program, maps, buffers, params, reserve, memory, prefetcher: Prefetcher::default() };
        let one = Tile { batch: 0, p: 0, rows: 1, q: 0, columns: 1 };
        frame.run(&program.uniform, &one, 0)?;
        Ok(frame)
    }

    /// The frame's accumulators.
    pub fn accumulators(&mut self) -> &mut [u8] {
        let (start, bytes) = self.program.accumulators;
        // SAFETY: `CpuProgram::place` put the region inside of the frame's memory. The memory was zeroed when
        // it was allocated, so every byte is initialised.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(start), bytes) }
    }

    /// Sets the accumulators of a stage's folds to the identity of each fold, for `lanes` lanes.
    pub fn begin(&mut self, folds: &[usize], lanes: usize) {
        let start = self.program.accumulators.0;
        for &fold in folds {
            let place = &self.program.folds[fold];
            let identity = place.fold.identity.to_ne_bytes();
            // SAFETY: `CpuProgram::place` made room for the accumulators of the largest tile, which has at
            // least `lanes` lanes.
            unsafe {
                let values = self.memory.add(start + place.memory);
                lanes::copy(values, 1, identity.as_ptr(), 0, lanes, place.fold.accumulator);
                if place.fold.position {
                    self.memory.add(start + place.positions).write_bytes(0, lanes * 8);
                }
            }
        }
    }

    /// Merges the accumulators that another frame computed from later elements of the same row into this
    /// frame's.
    ///
    /// # Safety
    /// `other` is a copy of the accumulators of a frame that runs the same program with the same number of
    /// lanes.
    pub unsafe fn merge(&mut self, folds: &[usize], lanes: usize, other: &[u8]) {
        let start = self.program.accumulators.0;
        for &fold in folds {
            let place = &self.program.folds[fold];
            // SAFETY: the caller promises that both regions were laid out by the same program, so each has
            // room for `lanes` values at the same places; a copy does not overlap the original.
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

    /// The address of an access's elements of a tile, if they are contiguous in lane order.
    fn contiguous(&self, port: &Port, tile: &Tile) -> Option<*mut u8> {
        let grid = port.affine.grid(tile)?;
        let columns = tile.columns == 1 || grid.column == 1;
        let step = if tile.columns == 1 { 1 } else { tile.columns as isize };
        let rows = tile.rows == 1 || grid.row == step;
        // SAFETY: tiles lie inside of the space, and the caller of `CpuFrame::new` promises that an unguarded
        // access stays inside of its buffer over the whole space.
        (columns && rows).then(|| unsafe { self.element(port, grid.base) })
    }

    /// # Safety
    /// The element lies inside of the buffer.
    unsafe fn element(&self, port: &Port, element: isize) -> *mut u8 {
        // The arithmetic wraps, because the start of a product's panel is the address that element 0 of the
        // whole product would have, which may lie outside of the panel's memory.
        self.buffers[port.buffer].start.wrapping_offset(element.wrapping_mul(port.size as isize))
    }

    /// Notes the elements of an access in the next tile for prefetching, given where this tile's elements
    /// lie.
    fn note_next_tile(&mut self, access: usize, at: *const u8, tile: &Tile) {
        let port = &self.maps.ports[access];
        if port.far {
            let ProgramOptions { column, keep, .. } = self.program.options;
            // Consecutive tiles follow each other along a row, unless a tile holds whole rows.
            let by_rows = (column || keep) && port.affine.p.rank() == 1;
            let elements =
                if by_rows { port.affine.p.stride() * tile.rows as isize } else { tile.lanes() as isize };
            self.prefetcher.note(access, at, elements * port.size as isize, tile.lanes() * port.size);
        }
    }
}

/// The memory of a buffer from byte `begin` on.
pub fn raw(memory: &CpuMemory, begin: usize, bytes: usize) -> RawBuffer {
    let begin = begin.min(bytes);
    RawBuffer { start: memory.pointer().wrapping_add(begin), bytes: bytes - begin }
}
