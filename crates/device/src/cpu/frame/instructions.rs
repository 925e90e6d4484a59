//! What each instruction does to the lanes of a tile.
//!
//! The SAFETY comments of this module rely on three invariants of a compiled program:
//!
//! - *Room*: [`CpuProgram::place`] lays out a frame's memory for the program's largest tile. There is room
//!   for all lanes of each result, of each accumulator and of each scratch area, and 64 bytes for a uniform
//!   value.
//! - *Definedness*: the compiler places an instruction after those that make its operands. Each operand's
//!   pointer was therefore set in this launch, and leads to as many initialised lanes as the tile has, or to
//!   one value if it is `single`.
//! - *No overlap*: liveness analysis gives a result memory that no live value has. A result that is computed
//!   in an output (`Inst::direct`) overlaps no operand either, since the kernel does not read that output.
//!
//! [`CpuProgram::place`]: crate::cpu::program::CpuProgram::place
#![allow(unsafe_code)]

use super::elements::{certain, fill};
use super::{CpuFrame, LanePointer};
use crate::Result;
use crate::cpu::affine::Tile;
use crate::cpu::program::{Inst, LaneOp, cell, invalid};
use crate::cpu::simd::{Raw, SimdArgs, binary, fused, lanes};

/// An instruction with the tile that it runs over.
#[derive(Clone, Copy)]
struct LaneStep<'s> {
    inst: &'s Inst,
    tile: &'s Tile,
    /// The number of the tile's lanes.
    n: usize,
    /// The position of the tile's first element in its row.
    start: usize,
    /// The part of the frame's memory that belongs to the result.
    memory: *mut u8,
}

impl CpuFrame<'_> {
    /// Runs instructions over a tile whose first element is at position `start` of its row.
    pub fn run(&mut self, list: &[Inst], tile: &Tile, start: usize) -> Result<()> {
        let n = tile.lanes();
        for inst in list {
            // SAFETY: the offset lies inside of the frame's memory (room).
            let memory = unsafe { self.memory.add(inst.memory) };
            self.prefetcher.fetch();
            self.step(LaneStep { inst, tile, n, start, memory })?;
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, step: LaneStep<'_>) -> Result<()> {
        let LaneStep { inst, tile, memory, .. } = step;
        match &inst.op {
            LaneOp::Const(bits) => self.set_cell(inst, memory, *bits),
            LaneOp::Param { index, ty } => {
                let value = *self.params.get(*index).ok_or_else(|| invalid("too few parameters"))?;
                self.set_cell(inst, memory, cell(value, *ty));
            }
            LaneOp::Words { params } => self.words(step, *params)?,
            LaneOp::Load { access, indices } => self.load(inst, *access, indices, tile, memory)?,
            LaneOp::Coord { coord } => {
                let affine = &self.maps.coords[*coord];
                let single = fill(affine, tile, memory.cast::<i32>(), |value| value as i32);
                self.set(inst, memory, single || step.n == 1);
            }
            LaneOp::InRange { range } => self.in_range(step, *range),
            LaneOp::Unary { run, a } => {
                let a = self.slot(*a);
                let dst = self.target(inst, tile, memory, a.single);
                // SAFETY: the operand is defined, the result has room, and they do not overlap.
                unsafe { run(&SimdArgs::new(dst, a.at, if a.single { 1 } else { step.n })) };
                self.set(inst, dst, a.single || step.n == 1);
            }
            LaneOp::Binary { run, a, b } => self.binary(step, run, self.slot(*a), self.slot(*b)),
            LaneOp::Fused { run, operands } => {
                self.fused(step, run, operands.map(|value| self.slot(value)));
            }
            LaneOp::Select { run, cond, a, b } => {
                self.select(step, run, [*cond, *a, *b].map(|value| self.slot(value)));
            }
            LaneOp::Random { run, index, words } => {
                self.random(step, *run, self.slot(*index), self.slot(*words));
            }
            LaneOp::Expand { a } => self.expand(step, self.slot(*a)),
            LaneOp::Fold { fold, a, factor } => self.fold(step, *fold, *a, *factor),
            LaneOp::Finish { fold } => self.finish(step, *fold),
            LaneOp::Store { access, a } => self.store(*access, self.slot(*a), tile)?,
        }
        Ok(())
    }

    /// The key and the stream of a random generator, from the four parameters that begin at `params`.
    fn words(&mut self, step: LaneStep<'_>, params: usize) -> Result<()> {
        for i in 0..4 {
            let word = self.params.get(params + i).ok_or_else(|| invalid("too few parameters"))?;
            // SAFETY: a uniform value has room for four words (room).
            unsafe { step.memory.cast::<u32>().add(i).write(word.as_i64() as u32) };
        }
        self.set(step.inst, step.memory, true);
        Ok(())
    }

    #[inline]
    fn in_range(&mut self, step: LaneStep<'_>, range: usize) {
        let (affine, size) = &self.maps.ranges[range];
        let inside = |value: isize| u8::from(value >= 0 && value < *size as isize);
        let single = match affine.grid(step.tile).and_then(|grid| certain(grid, *size, step.tile)) {
            Some(holds) => {
                // SAFETY: the result has room for a lane.
                unsafe { step.memory.write(u8::from(holds)) };
                true
            }
            None => fill(affine, step.tile, step.memory, inside),
        };
        self.set(step.inst, step.memory, single || step.n == 1);
    }

    #[inline]
    fn binary(&mut self, step: LaneStep<'_>, run: &binary::Forms, mut a: LanePointer, mut b: LanePointer) {
        let single = a.single && b.single;
        let dst = self.target(step.inst, step.tile, step.memory, single);
        let n = if single { 1 } else { step.n };
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
                a = self.broadcast(a, 0, n, run.width);
                b = self.broadcast(b, 1, n, run.width);
                run.lanes
            }
        };
        // SAFETY: the operands are defined, with lanes where this form of the loop reads lanes; the result
        // has room for n lanes and overlaps neither.
        unsafe { loops(&SimdArgs { b: b.at, ..SimdArgs::new(dst, a.at, n) }) };
        self.set(step.inst, dst, n == 1);
    }

    #[inline]
    fn fused(&mut self, step: LaneStep<'_>, run: &fused::Pairing, mut values: [LanePointer; 3]) {
        let single = values.iter().all(|value| value.single);
        let dst = self.target(step.inst, step.tile, step.memory, single);
        let n = if single { 1 } else { step.n };
        if values[0].single && values[1].single {
            values[0] = self.broadcast(values[0], 0, n, step.inst.width);
        }
        let [a, b, c] = values;
        let single = values.map(|value| value.single && n > 1);
        // SAFETY: the operands are defined, with lanes where this form of the loop reads lanes; the result
        // has room for n lanes and overlaps none.
        unsafe { run.form(single)(&SimdArgs { b: b.at, c: c.at, ..SimdArgs::new(dst, a.at, n) }) };
        self.set(step.inst, dst, n == 1);
    }

    #[inline]
    fn select(&mut self, step: LaneStep<'_>, run: &lanes::Choice, [cond, mut a, mut b]: [LanePointer; 3]) {
        let width = step.inst.width;
        let single = cond.single && a.single && b.single;
        let dst = self.target(step.inst, step.tile, step.memory, single);
        let n = if single { 1 } else { step.n };
        if cond.single {
            // SAFETY: the operands are defined; the result has room for n lanes and overlaps none.
            unsafe {
                let chosen = if cond.at.read() != 0 { a } else { b };
                lanes::copy(dst, 1, chosen.at, isize::from(!chosen.single), n, width);
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
                    a = self.broadcast(a, 0, n, width);
                    b = self.broadcast(b, 1, n, width);
                    run.lanes
                }
            };
            // SAFETY: the operands are defined, with lanes where this form of the loop reads lanes; the
            // result has room for n lanes and overlaps none.
            unsafe { loops(&SimdArgs { b: b.at, c: cond.at, ..SimdArgs::new(dst, a.at, n) }) };
        }
        self.set(step.inst, dst, n == 1);
    }

    #[inline]
    fn random(&mut self, step: LaneStep<'_>, run: Raw, index: LanePointer, words: LanePointer) {
        let dst = self.target(step.inst, step.tile, step.memory, index.single);
        let n = if index.single { 1 } else { step.n };
        // SAFETY: the indices and the four words are defined; the result has room for n lanes and overlaps
        // neither.
        unsafe { run(&SimdArgs { b: words.at, ..SimdArgs::new(dst, index.at, n) }) };
        self.set(step.inst, dst, n == 1);
    }

    #[inline]
    fn expand(&mut self, step: LaneStep<'_>, a: LanePointer) {
        let LaneStep { inst, tile, n, memory, .. } = step;
        if a.single {
            // The value is copied, because liveness analysis may give the row value's memory to another from
            // here on.
            // SAFETY: the operand is defined, and the result has room for one lane elsewhere.
            unsafe { lanes::copy(memory, 1, a.at, 1, 1, inst.width) };
            self.set(inst, memory, true);
            return;
        }
        let (rows, columns, width) = (tile.rows, tile.columns, inst.width);
        // SAFETY: the operand is defined and has a lane for each column, or for each row; the result has room
        // for rows times columns lanes elsewhere.
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

    #[inline]
    fn fold(&mut self, step: LaneStep<'_>, fold: usize, a: u32, factor: Option<u32>) {
        let LaneStep { inst, tile, n, start, .. } = step;
        let place = &self.program.folds[fold];
        let a = self.broadcast(self.slot(a), 0, n, inst.width);
        let (run, b) = match (factor, place.fold.products) {
            (Some(factor), Some([rows, columns])) => {
                let run = if self.program.options.column { columns } else { rows };
                (run, self.broadcast(self.slot(factor), 1, n, inst.width))
            }
            _ if self.program.options.column => (place.fold.columns, a),
            _ => (place.fold.rows, a),
        };
        // SAFETY: the operands are defined and have n lanes; the accumulators have room for the rows or
        // columns of a tile and lie apart from all values.
        unsafe {
            let accumulators = self.memory.add(self.program.accumulators.0);
            run(&SimdArgs {
                dst: accumulators.add(place.memory),
                a: a.at,
                b: b.at,
                c: accumulators.add(place.positions),
                n: tile.columns,
                rows: tile.rows,
                start,
            });
        }
    }

    #[inline]
    fn finish(&mut self, step: LaneStep<'_>, fold: usize) {
        let LaneStep { inst, tile, n, memory, .. } = step;
        let place = &self.program.folds[fold];
        let dst = self.target(inst, tile, memory, n == 1);
        // SAFETY: `begin` initialised the accumulators of n lanes; the result has room for n lanes and lies
        // apart from them.
        unsafe {
            let accumulators = self.memory.add(self.program.accumulators.0);
            let values = accumulators.add(place.memory);
            match place.fold.finish {
                Some(run) => run(&SimdArgs::new(dst, values, n)),
                None if place.fold.position => {
                    lanes::copy(dst, 1, accumulators.add(place.positions), 1, n, 8);
                }
                None => lanes::copy(dst, 1, values, 1, n, inst.width),
            }
        }
        self.set(inst, dst, n == 1);
    }

    /// The lanes of a value: a single number is broadcast into scratch area `part`.
    fn broadcast(&self, value: LanePointer, part: usize, n: usize, width: usize) -> LanePointer {
        if !value.single || n == 1 {
            return value;
        }
        // SAFETY: a scratch area has room for all lanes, and no value lies in it; the value is defined.
        unsafe {
            let at = self.memory.add(self.program.scratch[part]);
            lanes::copy(at, 1, value.at, 0, n, width);
            LanePointer { at, single: false }
        }
    }

    fn set_cell(&mut self, inst: &Inst, memory: *mut u8, bits: u64) {
        // SAFETY: every result has room for 8 bytes (room).
        unsafe { memory.cast::<u64>().write(bits) };
        self.set(inst, memory, true);
    }

    /// The memory for a result: the output, if the result is stored contiguously there, else the frame's
    /// memory.
    fn target(&mut self, inst: &Inst, tile: &Tile, memory: *mut u8, single: bool) -> *mut u8 {
        let Some(access) = inst.direct.filter(|_| !single) else { return memory };
        let Some(at) = self.contiguous(&self.maps.ports[access], tile) else { return memory };
        self.note_next_tile(access, at, tile);
        at
    }
}
