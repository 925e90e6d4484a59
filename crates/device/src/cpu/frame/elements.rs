//! Moves a tile's elements from memory to lanes and back.
//!
//! Contiguous elements are used in place; others are gathered and scattered run by run, in the direction in
//! which memory is contiguous. Elements whose addresses depend on guards or indices are checked here before
//! they are read.
#![allow(unsafe_code)]

use super::{CpuFrame, LanePointer, Port};
use crate::cpu::affine::{AffineMap, Grid, LaneRun, Tile};
use crate::cpu::program::{Inst, invalid};
use crate::cpu::simd::{SimdArgs, lanes};
use crate::kernel::{IndexedDim, Ty};
use crate::{Error, Result};

impl CpuFrame<'_> {
    pub(super) fn store(&mut self, access: usize, value: LanePointer, tile: &Tile) -> Result<()> {
        let port = &self.maps.ports[access];
        let n = tile.lanes();
        let scratch = self.program.scratch[0];
        let (size, lane_step) = (port.size as isize, isize::from(!value.single));
        let contiguous = self.contiguous(port, tile);
        // SAFETY: `CpuProgram::place` gave the scratch area room for all lanes of a tile, the value's lanes
        // were written by its instruction, and a store is never guarded or indexed, so the caller of
        // `CpuFrame::new` has promised that the tile's elements lie inside of the buffer.
        unsafe {
            let mut source = value.at;
            if let Some(convert) = port.store {
                if let (Some(dst), false) = (contiguous, value.single) {
                    convert(&SimdArgs::new(dst, source, n));
                    return Ok(());
                }
                let converted = self.memory.add(scratch);
                convert(&SimdArgs::new(converted, source, if value.single { 1 } else { n }));
                source = converted;
            }
            if let Some(dst) = contiguous {
                if dst != source {
                    lanes::copy(dst, 1, source, lane_step, n, port.size);
                }
                return Ok(());
            }
            if let Some(grid) = port.affine.grid(tile) {
                let dst = (self.element(port, grid.base), grid.row, grid.column);
                let source = (source.cast_const(), lane_step * tile.columns as isize, lane_step);
                lanes::copy_grid(dst, source, (tile.rows, tile.columns), port.size);
                return Ok(());
            }
            port.affine.patches(tile, |patch| {
                let dst = (self.element(port, patch.start), patch.row, patch.column);
                let source = source.offset(lane_step * patch.lane as isize * size).cast_const();
                let source = (source, lane_step * patch.columns as isize, lane_step);
                lanes::copy_grid(dst, source, (patch.rows, patch.columns), port.size);
            });
            Ok(())
        }
    }

    pub(super) fn load(
        &mut self,
        inst: &Inst,
        access: usize,
        indices: &[(u32, Ty)],
        tile: &Tile,
        memory: *mut u8,
    ) -> Result<()> {
        let port = &self.maps.ports[access];
        let n = tile.lanes();
        // Elements that must be converted to register values are gathered in scratch memory first.
        // SAFETY: `CpuProgram::place` put the scratch area inside of the frame's memory.
        let raw =
            if port.load.is_some() { unsafe { self.memory.add(self.program.scratch[0]) } } else { memory };
        let found = if !indices.is_empty() {
            self.load_indexed(port, indices, tile, raw)?
        } else if port.guards.is_empty() {
            self.load_inside(port, tile, raw)
        } else {
            self.load_guarded(port, tile, raw)?
        };
        if found.at != raw {
            self.note_next_tile(access, found.at, tile);
        }
        let (at, single) = match port.load {
            Some(convert) => {
                // SAFETY: `found` points to the tile's lanes, or to one value; the result has room for all
                // lanes and does not overlap the scratch area.
                unsafe { convert(&SimdArgs::new(memory, found.at, if found.single { 1 } else { n })) };
                (memory, found.single)
            }
            None => (found.at, found.single),
        };
        self.set(inst, at, single || n == 1);
        Ok(())
    }

    /// Loads elements that all lie inside of the buffer: in place where they are contiguous, else gathered in
    /// `raw`.
    fn load_inside(&self, port: &Port, tile: &Tile, raw: *mut u8) -> LanePointer {
        let n = tile.lanes();
        // SAFETY: the elements of the tile lie inside of the buffer (the caller of `CpuFrame::new` promises
        // it, or `check` has found it), and `raw` has room for all lanes.
        unsafe {
            let Some(grid) = port.affine.grid(tile) else {
                port.affine.patches(tile, |patch| {
                    let dst = (raw.add(patch.lane * port.size), patch.columns as isize, 1);
                    let src = (self.element(port, patch.start).cast_const(), patch.row, patch.column);
                    lanes::copy_grid(dst, src, (patch.rows, patch.columns), port.size);
                });
                return LanePointer { at: raw, single: false };
            };
            let (rows, columns) = (tile.rows as isize, tile.columns as isize);
            let row = if rows == 1 { 0 } else { grid.row };
            let column = if columns == 1 { 0 } else { grid.column };
            let src = self.element(port, grid.base);
            if row == 0 && column == 0 {
                lanes::copy(raw, 1, src, 1, 1, port.size);
                return LanePointer { at: raw, single: true };
            }
            let contiguous =
                (columns == 1 || column == 1) && (rows == 1 || row == if columns == 1 { 1 } else { columns });
            if contiguous {
                if !port.copied {
                    return LanePointer { at: src, single: false };
                }
                lanes::copy(raw, 1, src, 1, n, port.size);
                return LanePointer { at: raw, single: false };
            }
            let (dst, src) = ((raw, columns, 1), (src.cast_const(), row, column));
            lanes::copy_grid(dst, src, (tile.rows, tile.columns), port.size);
            LanePointer { at: raw, single: false }
        }
    }

    /// Loads the elements for which all guards hold, and zeros for the others.
    fn load_guarded(&self, port: &Port, tile: &Tile, raw: *mut u8) -> Result<LanePointer> {
        let n = tile.lanes();
        let mut all = true;
        let mut grids: smallvec::SmallVec<[(Grid, usize); 4]> = smallvec::SmallVec::new();
        for &guard in &port.guards {
            let (affine, size) = &self.maps.ranges[guard];
            let grid = affine.grid(tile);
            match grid.and_then(|grid| certain(grid, *size, tile)) {
                Some(true) => continue,
                Some(false) => {
                    // SAFETY: `raw` has room for one lane, which has at most 8 bytes.
                    unsafe { raw.write_bytes(0, 8) };
                    return Ok(LanePointer { at: raw, single: true });
                }
                None => all = false,
            }
            if let Some(grid) = grid {
                grids.push((grid, *size));
            } else {
                return self.load_guarded_runs(port, tile, raw);
            }
        }
        let Some(grid) = port.affine.grid(tile) else { return self.load_guarded_runs(port, tile, raw) };
        if all {
            let (low, high) = grid.bounds(tile.rows, tile.columns);
            self.check(port, low, high)?;
            return Ok(self.load_inside(port, tile, raw));
        }
        // SAFETY: the caller gives `raw` room for all lanes of the tile, and `check` has found the run to lie
        // inside of the buffer before it is read.
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
        Ok(LanePointer { at: raw, single: false })
    }

    /// As [`load_guarded`](Self::load_guarded), run by run, where the guards or the access form no grid over
    /// the tile. A run has one stride in the access and in every guard.
    fn load_guarded_runs(&self, port: &Port, tile: &Tile, raw: *mut u8) -> Result<LanePointer> {
        // SAFETY: the caller gives `raw` room for all lanes of the tile, and `check` has found the run to lie
        // inside of the buffer before it is read.
        unsafe {
            raw.write_bytes(0, tile.lanes() * port.size);
            let guards = || port.guards.iter().map(|&guard| &self.maps.ranges[guard]);
            for row in 0..tile.rows {
                let (p, mut q) = (tile.p + row, tile.q);
                let end = tile.q + tile.columns;
                while q < end {
                    let shortest = guards().map(|(affine, _)| affine.run_from(q)).min().unwrap_or(usize::MAX);
                    let n = shortest.min(port.affine.run_from(q)).min(end - q);
                    let (mut low, mut high) = (0, n as isize);
                    for (affine, size) in guards() {
                        let (from, to) =
                            inside(affine.at(tile, p, q), affine.q.stride(), *size as isize, n as isize);
                        (low, high) = (low.max(from), high.min(to));
                    }
                    if low < high {
                        let step = port.affine.q.stride();
                        let first = port.affine.at(tile, p, q) + step * low;
                        let last = first + step * (high - low - 1);
                        self.check(port, first.min(last), first.max(last))?;
                        let lane = row * tile.columns + q - tile.q + low as usize;
                        let (dst, src) = (raw.add(lane * port.size), self.element(port, first));
                        lanes::copy(dst, 1, src, step, (high - low) as usize, port.size);
                    }
                    q += n;
                }
            }
        }
        Ok(LanePointer { at: raw, single: false })
    }

    /// Checks that elements `low..=high` lie inside of the buffer.
    fn check(&self, port: &Port, low: isize, high: isize) -> Result<()> {
        let elements = self.buffers[port.buffer].bytes / port.size;
        if low < 0 || high >= elements as isize {
            return Err(invalid(format!("elements {low} to {high} of a buffer of {elements}")));
        }
        Ok(())
    }

    /// Loads elements whose addresses depend on index values that the body computed.
    fn load_indexed(
        &self,
        port: &Port,
        indices: &[(u32, Ty)],
        tile: &Tile,
        raw: *mut u8,
    ) -> Result<LanePointer> {
        // If each index is one number for the whole tile, it only shifts the access.
        if port.guards.is_empty()
            && indices.iter().all(|&(value, _)| self.slot(value).single)
            && let Some(grid) = port.affine.grid(tile)
        {
            let mut moved = 0;
            for (dim, &(value, ty)) in port.indexed.iter().zip(indices) {
                // SAFETY: the index's instruction wrote a value of this type to its slot (`Loop::check`
                // compares the types).
                let index = unsafe { index_at(self.slot(value).at, ty, 0) };
                moved += checked(dim, index)? * dim.stride;
            }
            let (low, high) = grid.bounds(tile.rows, tile.columns);
            self.check(port, low + moved, high + moved)?;
            let affine = AffineMap { offset: port.affine.offset + moved, ..port.affine.clone() };
            let port = Port { affine, guards: Vec::new(), indexed: Vec::new(), ..*port };
            return Ok(self.load_inside(&port, tile, raw));
        }
        self.load_masked(port, indices, tile, raw)
    }

    /// Loads lane by lane: where all guards hold, the element that the affine map and the indices address.
    fn load_masked(
        &self,
        port: &Port,
        indices: &[(u32, Ty)],
        tile: &Tile,
        raw: *mut u8,
    ) -> Result<LanePointer> {
        let n = tile.lanes();
        // SAFETY: both scratch areas have room for all lanes, do not overlap, and are initialised here before
        // slices of them are made.
        let (offsets, mask) = unsafe {
            let offsets = self.memory.add(self.program.scratch[1]).cast::<i64>();
            let mask = self.memory.add(self.program.scratch[2]);
            offsets.write_bytes(0, n);
            mask.write_bytes(1, n);
            (std::slice::from_raw_parts_mut(offsets, n), std::slice::from_raw_parts_mut(mask, n))
        };
        for &guard in &port.guards {
            let (affine, size) = &self.maps.ranges[guard];
            let _ = affine.runs::<()>(tile, |LaneRun { lane, n, start, stride }| {
                let (from, to) = inside(start, stride, *size as isize, n as isize);
                mask[lane..lane + from.min(n as isize) as usize].fill(0);
                mask[lane + to.max(from).min(n as isize) as usize..lane + n].fill(0);
                Ok(())
            });
        }
        let _ = port.affine.runs::<()>(tile, |LaneRun { lane, n, start, stride }| {
            for (i, offset) in offsets[lane..lane + n].iter_mut().enumerate() {
                *offset = (start + i as isize * stride) as i64;
            }
            Ok(())
        });
        for (dim, &(value, ty)) in port.indexed.iter().zip(indices) {
            let slot = self.slot(value);
            for (i, (offset, inside)) in offsets.iter_mut().zip(mask.iter()).enumerate() {
                if *inside != 0 {
                    // SAFETY: the slot holds n lanes of this type, or one if it is `single`.
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
        // SAFETY: `raw` has room for all lanes, and every offset whose mask is set was found to be below the
        // number of elements.
        unsafe { lanes::gather(raw, self.element(port, 0), offsets, mask, port.size) };
        Ok(LanePointer { at: raw, single: false })
    }
}

/// Reads lane `lane` of index values.
///
/// # Safety
/// There are more than `lane` lanes of this type.
unsafe fn index_at(lanes: *const u8, ty: Ty, lane: usize) -> i64 {
    // SAFETY: passed on to the caller.
    unsafe {
        match ty {
            Ty::I64 => lanes.cast::<i64>().add(lane).read(),
            _ => i64::from(lanes.cast::<i32>().add(lane).read()),
        }
    }
}

/// Checks that an index lies inside of its dim, and returns it.
pub fn checked(dim: &IndexedDim, index: i64) -> Result<isize> {
    if index < 0 || index as u64 >= dim.size as u64 {
        return Err(Error::Index { op: dim.op, index, size: dim.size, called_at: None });
    }
    Ok(index as isize)
}

/// Whether a range check holds for all lanes of a tile or for none; `None` if it holds for some.
pub(super) fn certain(grid: Grid, size: usize, tile: &Tile) -> Option<bool> {
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
        1 => (-start, size - start),
        s if s > 0 => (ceil(-start, s), ceil(size - start, s)),
        s => (ceil(start - size + 1, -s), ceil(start + 1, -s)),
    };
    let from = from.clamp(0, n);
    (from, to.clamp(from, n))
}

/// Writes a function of a map's values to the lanes of a tile. Returns true if one value stands for all
/// lanes.
pub(super) fn fill<T: Copy>(
    affine: &AffineMap,
    tile: &Tile,
    dst: *mut T,
    value: impl Fn(isize) -> T,
) -> bool {
    if let Some(grid) = affine.grid(tile)
        && (tile.rows == 1 || grid.row == 0)
        && (tile.columns == 1 || grid.column == 0)
    {
        // SAFETY: all callers pass the memory of a result, which has room for the tile's lanes.
        unsafe { dst.write(value(grid.base)) };
        return true;
    }
    affine.patches(tile, |patch| {
        for i in 0..patch.rows {
            let (lane, start) = (patch.lane + i * patch.columns, patch.start + i as isize * patch.row);
            for j in 0..patch.columns {
                // SAFETY: the patches of a tile cover its lanes, and there is room for all of them.
                unsafe { dst.add(lane + j).write(value(start + j as isize * patch.column)) };
            }
        }
    });
    false
}
