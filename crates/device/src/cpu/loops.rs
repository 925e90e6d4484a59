//! Fused loops: a compiled program, the tiles that cover its space, and their distribution over the threads.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::affine::{AffineMap, Groups, Tile};
use super::compile;
use super::frame::{CpuFrame, FAR_BYTES, Maps, Port, RawBuffer};
use super::parallel::parallel;
use super::plan::{self, Mode};
use super::program::{CpuProgram, ProgramOptions, Stage};
use super::simd::convert;
use crate::executor::bytes_of;
use crate::kernel::{Access, Level, Loop};
use crate::{Result, Scalar};

/// The least number of elements of a task of an elementwise loop.
const TASK_ELEMENTS: usize = 1 << 14;
/// The most tasks of one launch.
const TASKS: usize = 64;

/// A loop that is ready to run.
pub struct LoopKernel {
    program: CpuProgram,
    maps: Maps,
    cover: SpaceTiling,
    /// The least bytes that each buffer must have.
    required: Vec<usize>,
    written: Vec<bool>,
    params: usize,
    work: usize,
}

/// How tiles cover an index space.
#[derive(Debug)]
enum SpaceTiling {
    Nothing,
    Elements {
        total: usize,
        lanes: usize,
        run: Option<usize>,
    },
    Tiles {
        batches: usize,
        p: usize,
        q: usize,
        rows: usize,
        columns: usize,
    },
    Rows {
        rows: usize,
        elements: usize,
        block: usize,
        chunk: Chunks,
        split: Option<usize>,
    },
    Columns {
        batches: usize,
        columns: usize,
        elements: usize,
        block: usize,
        chunk: Chunks,
        split: Option<usize>,
    },
}

/// How the elements of a row are cut into tiles: of so many lanes, ending where runs end.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    lanes: usize,
    run: Option<usize>,
}

/// A loop whose dims have been dealt into the groups of its tiles.
struct GroupedLoop<'l> {
    kernel: &'l Loop,
    groups: &'l Groups,
    /// Whether the loop writes each of its buffers.
    written: &'l [bool],
    /// The least bytes that each buffer must have.
    required: &'l [usize],
}

impl GroupedLoop<'_> {
    /// The loop's accesses, ranges and coordinates (those of the dims `coords`) as affine maps over the
    /// groups.
    fn maps(&self, coords: &[usize]) -> Maps {
        let map = |offset: isize, strides: &[isize]| {
            AffineMap::new(offset, strides, &self.kernel.sizes, self.groups)
        };
        let port = |access: &Access| Port {
            affine: map(access.offset, &access.strides),
            buffer: access.buffer,
            size: access.dtype.size(),
            load: convert::load(access.dtype),
            store: convert::store(access.dtype),
            guards: access.guards.to_vec(),
            indexed: access.indexed.to_vec(),
            copied: self.written[access.buffer],
            far: self.required[access.buffer] >= FAR_BYTES,
        };
        let coord = |&dim: &usize| {
            let mut strides = vec![0; self.kernel.sizes.len()];
            strides[dim] = 1;
            map(0, &strides)
        };
        let ranges = self.kernel.ranges.iter();
        Maps {
            ports: self.kernel.accesses.iter().map(port).collect(),
            ranges: ranges.map(|range| (map(range.offset, &range.strides), range.size)).collect(),
            coords: coords.iter().map(coord).collect(),
        }
    }

    /// The tiles for a mode, how the program for them is laid out, and the most lanes that a tile has. The
    /// lane memory and the passes are those of `draft`.
    fn tiling(&self, mode: Mode, draft: &CpuProgram) -> (ProgramOptions, SpaceTiling, usize) {
        let count = |dims: &[usize]| dims.iter().map(|&d| self.kernel.sizes[d]).product::<usize>();
        let (batches, p, q) = (count(&self.groups.batch), count(&self.groups.p), count(&self.groups.q));
        let maps = self.maps(&[]);
        let q_run = || {
            let ports = maps.ports.iter().map(|port| &port.affine);
            plan::long_run(ports.chain(maps.ranges.iter().map(|(affine, _)| affine)).map(|affine| &affine.q))
        };
        let passes = draft.stages.iter().filter(|stage| !stage.element.is_empty()).count();
        let lanes = plan::tile_lanes(draft.lane_bytes, if mode == Mode::Columns { 0 } else { q });
        let elementwise = ProgramOptions { expand: false, keep: true, column: false };
        match mode {
            _ if self.kernel.rows() == 0 => (draft.options, SpaceTiling::Nothing, 1),
            Mode::Elements => {
                (elementwise, SpaceTiling::Elements { total: q, lanes, run: q_run() }, lanes.min(q))
            }
            Mode::Tiles => {
                let (rows, columns) = plan::square_tile(draft.lane_bytes, p, q);
                (elementwise, SpaceTiling::Tiles { batches, p, q, rows, columns }, rows * columns)
            }
            Mode::Rows => {
                let keep = q <= if passes > 1 { plan::KEPT_LANES.max(lanes) } else { lanes };
                let block = if q <= lanes / 2 { (lanes / q.max(1)).min(p) } else { 1 };
                let chunk =
                    Chunks { lanes: if keep { q.max(1) } else { lanes }, run: q_run().filter(|_| !keep) };
                let split = plan::split(p, q, 1, chunk.run);
                let most = if keep { block * q } else { lanes }.max(block);
                let options = ProgramOptions { expand: block > 1, keep, column: false };
                (options, SpaceTiling::Rows { rows: p, elements: q, block, chunk, split }, most)
            }
            Mode::Columns => {
                let keep = passes > 1 && p <= 128;
                let block = if keep { (lanes.max(1024) / p.max(1)).max(64) } else { lanes }.min(q);
                let rows = if keep { p.max(1) } else { (lanes / block).clamp(1, p.max(1)) };
                let split = plan::split(batches * q.div_ceil(block), p, block, None).filter(|_| !keep);
                let options = ProgramOptions { expand: rows > 1, keep, column: true };
                let chunk = Chunks { lanes: rows, run: None };
                let cover = SpaceTiling::Columns { batches, columns: q, elements: p, block, chunk, split };
                (options, cover, rows * block)
            }
        }
    }
}

impl LoopKernel {
    /// The host memory that it keeps, in bytes.
    pub fn bytes(&self) -> usize {
        let lists = bytes_of(&self.required) + bytes_of(&self.written);
        size_of::<LoopKernel>() + self.program.bytes() + self.maps.bytes() + lists
    }

    /// Compiles a loop. If it is the epilogue of a product's panel (`panel`), it runs over ranges of its
    /// elements ([`LoopKernel::run_ranges`]) and reads the panel as its last buffer, whose size is not
    /// checked.
    pub fn new(kernel: &Loop, panel: bool) -> Result<LoopKernel> {
        kernel.check(None).map_err(super::program::invalid)?;
        let buffers = kernel.accesses.iter().map(|a| a.buffer + 1).max().unwrap_or(0);
        let checked = if panel { buffers.saturating_sub(1) } else { buffers };
        let mut required = vec![0; buffers];
        let mut written = vec![false; buffers];
        for store in &kernel.stores {
            written[kernel.accesses[store.access].buffer] = true;
        }
        for access in kernel.accesses.iter().filter(|a| a.buffer < checked) {
            let bytes = reach(access, kernel)?;
            required[access.buffer] = required[access.buffer].max(bytes);
        }
        let merged = plan::merge_dims(kernel);
        // Which dims lanes run along depends on the lane memory of a program, so a first one is compiled to
        // measure it.
        let options = ProgramOptions { expand: true, keep: true, column: false };
        let draft = compile::compile(&merged, options, &mut Vec::new())?;
        let (mode, groups) = plan::choose(&merged, !panel);
        let grouped =
            GroupedLoop { kernel: &merged, groups: &groups, written: &written, required: &required };
        let (options, cover, most) = grouped.tiling(mode, &draft);
        let mut coords = Vec::new();
        let mut program = compile::compile(&merged, options, &mut coords)?;
        if matches!(
            cover,
            SpaceTiling::Rows { split: Some(_), .. } | SpaceTiling::Columns { split: Some(_), .. }
        ) {
            // Every chunk of a row computes the row values that it needs, so they must not be computed in an
            // output that all chunks share.
            for inst in program.stages.iter_mut().flat_map(|stage| &mut stage.row) {
                inst.direct = None;
            }
        }
        program.place(most.max(1));
        let elements = kernel.sizes.iter().fold(1usize, |n, &size| n.saturating_mul(size));
        let work = elements.saturating_mul(program.work);
        let maps = grouped.maps(&coords);
        Ok(LoopKernel { maps, program, cover, required, written, params: kernel.params(), work })
    }

    /// Which buffers it writes.
    pub fn written(&self) -> &[bool] {
        &self.written
    }

    /// The number of parameters it reads.
    pub fn params(&self) -> usize {
        self.params
    }

    /// The least bytes that each buffer must have.
    pub fn required(&self) -> &[usize] {
        &self.required
    }

    /// Runs the loop over its whole space.
    ///
    /// # Safety
    /// The buffers have the required bytes, none that is written is also given under another number, and
    /// nobody else uses what is written.
    pub unsafe fn run(&self, buffers: &[RawBuffer], params: &[Scalar]) -> Result<()> {
        // SAFETY: the caller promises the buffers. The IR guarantees that stores reach each element of an
        // output once, so tasks, whose tiles are disjoint, write to disjoint elements.
        let frame = || unsafe { CpuFrame::new(&self.program, &self.maps, buffers, params) };
        match self.cover {
            SpaceTiling::Nothing => Ok(()),
            SpaceTiling::Elements { total, lanes, run } => {
                let unit = run.filter(|&run| run <= TASK_ELEMENTS).unwrap_or(lanes);
                let task = TASK_ELEMENTS.max(total.div_ceil(TASKS)).next_multiple_of(unit);
                parallel(total.div_ceil(task), self.work, &|number| {
                    let start = number * task;
                    self.elements(&mut frame()?, start, (start + task).min(total), lanes, run)
                })
            }
            SpaceTiling::Tiles { batches, p, q, rows, columns } => {
                let strips = p.div_ceil(rows);
                let per_task = (TASK_ELEMENTS / (rows * q)).max((batches * strips).div_ceil(TASKS)).max(1);
                parallel((batches * strips).div_ceil(per_task), self.work, &|number| {
                    let mut frame = frame()?;
                    let end = ((number + 1) * per_task).min(batches * strips);
                    for strip in number * per_task..end {
                        let (batch, first) = (strip / strips, strip % strips * rows);
                        let rows = rows.min(p - first);
                        for q0 in (0..q).step_by(columns) {
                            let columns = columns.min(q - q0);
                            let tile = Tile { batch, p: first, rows, q: q0, columns };
                            frame.run(&self.program.stages[0].element, &tile, 0)?;
                        }
                    }
                    Ok(())
                })
            }
            SpaceTiling::Rows { rows, elements, block, chunk, split } => {
                if let Some(split) = split {
                    return (0..rows).try_for_each(|row| {
                        let tile = Tile { batch: 0, p: row, rows: 1, q: 0, columns: 1 };
                        self.split(&frame, &tile, elements, chunk, split)
                    });
                }
                let blocks = rows.div_ceil(block);
                let per_task = (TASK_ELEMENTS / (block * elements).max(1)).max(blocks.div_ceil(TASKS)).max(1);
                parallel(blocks.div_ceil(per_task), self.work, &|number| {
                    let mut frame = frame()?;
                    for number in number * per_task..((number + 1) * per_task).min(blocks) {
                        let p = number * block;
                        let tile = Tile { batch: 0, p, rows: block.min(rows - p), q: 0, columns: 1 };
                        self.stages(&mut frame, &tile, elements, chunk)?;
                    }
                    Ok(())
                })
            }
            SpaceTiling::Columns { batches, columns, elements, block, chunk, split } => {
                let blocks = columns.div_ceil(block);
                let tile = |number: usize| {
                    let q = number % blocks * block;
                    Tile { batch: number / blocks, p: 0, rows: 1, q, columns: block.min(columns - q) }
                };
                if let Some(split) = split {
                    return (0..batches * blocks)
                        .try_for_each(|number| self.split(&frame, &tile(number), elements, chunk, split));
                }
                let per_task = (TASK_ELEMENTS / (block * elements).max(1))
                    .max((batches * blocks).div_ceil(TASKS))
                    .max(1);
                parallel((batches * blocks).div_ceil(per_task), self.work, &|number| {
                    let mut frame = frame()?;
                    for number in number * per_task..((number + 1) * per_task).min(batches * blocks) {
                        self.stages(&mut frame, &tile(number), elements, chunk)?;
                    }
                    Ok(())
                })
            }
        }
    }

    /// Runs an elementwise loop over ranges of its elements, on this thread.
    ///
    /// # Safety
    /// As for [`LoopKernel::run`]; the elements of the last buffer that the ranges address are valid.
    pub unsafe fn run_ranges(
        &self,
        buffers: &[RawBuffer],
        params: &[Scalar],
        mut ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<()> {
        let SpaceTiling::Elements { lanes, run, .. } = self.cover else { return Ok(()) };
        // SAFETY: passed on to the caller.
        let mut frame = unsafe { CpuFrame::new(&self.program, &self.maps, buffers, params)? };
        ranges.try_for_each(|range| self.elements(&mut frame, range.start, range.end, lanes, run))
    }

    fn elements(
        &self,
        frame: &mut CpuFrame,
        start: usize,
        end: usize,
        lanes: usize,
        run: Option<usize>,
    ) -> Result<()> {
        let list = &self.program.stages[0].element;
        let mut q = start;
        while q < end {
            let columns = plan::next_tile(q, end, run, lanes);
            frame.run(list, &Tile { batch: 0, p: 0, rows: 1, q, columns }, 0)?;
            q += columns;
        }
        Ok(())
    }

    /// Runs all stages of the rows (or columns) of `unit`, a tile with one element of each.
    fn stages(&self, frame: &mut CpuFrame, unit: &Tile, elements: usize, chunk: Chunks) -> Result<()> {
        for stage in &self.program.stages {
            frame.run(&stage.row, unit, 0)?;
            frame.run(&stage.row_stores, unit, 0)?;
            frame.begin(&stage.folds, unit.lanes());
            self.pass(frame, stage, unit, 0..elements, chunk)?;
        }
        Ok(())
    }

    /// Runs one pass over a range of the elements of each row (or column) of `unit`.
    fn pass(
        &self,
        frame: &mut CpuFrame,
        stage: &Stage,
        unit: &Tile,
        range: Range<usize>,
        chunk: Chunks,
    ) -> Result<()> {
        if stage.element.is_empty() {
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let n = plan::next_tile(at, range.end, chunk.run, chunk.lanes);
            let tile = if self.program.options.column {
                Tile { p: at, rows: n, ..*unit }
            } else {
                Tile { q: at, columns: n, ..*unit }
            };
            frame.run(&stage.element, &tile, at)?;
            at += n;
        }
        Ok(())
    }

    /// Runs all stages of one unit, and splits each pass into chunks of `split` elements over the threads.
    fn split<'f>(
        &self,
        frame: &(impl Fn() -> Result<CpuFrame<'f>> + Sync),
        unit: &Tile,
        elements: usize,
        chunk: Chunks,
        split: usize,
    ) -> Result<()> {
        let lanes = unit.lanes();
        let mut whole = frame()?;
        for (number, stage) in self.program.stages.iter().enumerate() {
            whole.run(&stage.row, unit, 0)?;
            whole.run(&stage.row_stores, unit, 0)?;
            whole.begin(&stage.folds, lanes);
            if stage.element.is_empty() {
                continue;
            }
            let known = whole.accumulators().to_vec();
            let tasks = elements.div_ceil(split);
            let parts: Vec<Mutex<Vec<u8>>> = (0..tasks).map(|_| Mutex::default()).collect();
            parallel(tasks, self.work, &|task| {
                let mut frame = frame()?;
                frame.accumulators().copy_from_slice(&known);
                for stage in &self.program.stages[..=number] {
                    frame.run(&stage.row, unit, 0)?;
                }
                let end = ((task + 1) * split).min(elements);
                self.pass(&mut frame, stage, unit, task * split..end, chunk)?;
                *parts[task].lock().unwrap_or_else(PoisonError::into_inner) = frame.accumulators().to_vec();
                Ok(())
            })?;
            for part in &parts {
                let part = part.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the part is a copy of the accumulators of a frame that ran the same program over
                // the same unit.
                unsafe { whole.merge(&stage.folds, lanes, &part) };
            }
        }
        Ok(())
    }
}

/// The bytes from the buffer's start that an access may touch without being checked.
fn reach(access: &Access, kernel: &Loop) -> Result<usize> {
    // A loop whose rows have no elements still computes and stores row values.
    let row_only = kernel.store_level(access) == Level::Row && kernel.inner > 0;
    let empty =
        kernel.sizes.iter().enumerate().any(|(d, &size)| size == 0 && !(row_only && d >= kernel.outer()));
    if !access.guards.is_empty() || !access.indexed.is_empty() || empty {
        return Ok(0);
    }
    super::reach(access.offset, &access.strides, &kernel.sizes, access.dtype.size())
}
