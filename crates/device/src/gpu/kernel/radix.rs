//! Rows of keys, sorted with their entries' numbers by radix, four bits at a time, keeping the order of equal keys.
//!
//! A row of up to 256 keys is one invocation's. Longer ones are cut into blocks of 256: one dispatch counts each block's digits, a running
//! sum over the counts of a row finds the places, and another dispatch moves the keys there.

use super::emit::{Emitter, GROUP};
use super::scan::{self, TEMPS};
use crate::gpu::Shared;
use crate::gpu::program::{Dispatch, Slot, Window};
use crate::kernel::{Access, ReduceOp};
use crate::{DType, Result};

pub(super) const WORKGROUP: u32 = 64;
/// Keys that one invocation sorts.
const SHARE: usize = 256;
/// Bits of a digit.
const DIGIT: usize = 4;

/// Temporaries of keys (u32) and of their entries' numbers.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) keys: usize,
    pub(super) order: usize,
}

/// Temporaries for rows of keys: where they are, and where they are moved to.
pub(super) struct Rows {
    pub(super) rows: usize,
    pub(super) length: usize,
    pub(super) at: Keys,
    spare: Keys,
    digits: usize,
}

/// A new temporary of so many bytes.
pub(super) fn temp(temps: &mut Vec<usize>, bytes: usize) -> usize {
    temps.push(bytes.max(4));
    temps.len() - 1
}

pub(super) fn temp_window(temp: usize) -> Window {
    Window { slot: Slot::Temp(temp), start: 0, end: 256 }
}

/// Begins a kernel in which each invocation has a number below `threads`.
pub(super) fn begin(e: &mut Emitter<'_>, threads: usize) {
    let limit = e.number("threads", threads);
    e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
    e.open(format!("if (thread >= {limit}) {{"));
    e.line("return;");
    e.close();
}

impl Rows {
    /// The temporaries for sorting these keys.
    pub(super) fn new(rows: usize, length: usize, at: Keys, temps: &mut Vec<usize>) -> Rows {
        let spare = Keys { keys: temp(temps, rows * length * 4), order: temp(temps, rows * length * 4) };
        let blocks = if length > SHARE { length.div_ceil(SHARE) } else { 0 };
        Rows { rows, length, at, spare, digits: temp(temps, rows * blocks * 16 * 4) }
    }

    /// The first so many rows only, in the same temporaries.
    pub(super) fn first(&self, rows: usize) -> Rows {
        Rows { rows, ..*self }
    }

    /// Adds the steps that sort each row by the last bits of its keys; the sorted ones are then where `at` says.
    pub(super) fn sort(
        &mut self,
        shared: &Shared,
        bits: usize,
        temps: &mut Vec<usize>,
        steps: &mut Vec<Dispatch>,
    ) -> Result<()> {
        if self.length <= SHARE {
            steps.push(self.sort_short(shared, bits)?);
            return Ok(());
        }
        let blocks = self.length.div_ceil(SHARE);
        let scan_temps = temps.len();
        for shift in (0..bits).step_by(DIGIT) {
            let mut count = Emitter::new(shared, "Digits of keys, counted.", WORKGROUP);
            begin(&mut count, self.rows * blocks);
            count.bind("keys", "u32", temp_window(self.at.keys));
            count.bind("digits", "i32", temp_window(self.digits));
            self.insert(&mut count, include_str!("../../../shaders/radix_count.wgsl"), shift);
            steps.push(count.finish((self.rows * blocks).div_ceil(WORKGROUP as usize))?);
            let counts = blocks * 16;
            let all = Access::new(TEMPS + self.digits, DType::I32, &[counts as isize, 1], 0);
            // Every digit's scan uses the same temporaries.
            let mut used: Vec<usize> = temps[..scan_temps].to_vec();
            let sizes = smallvec::smallvec![self.rows, counts];
            scan::run(shared, ReduceOp::Sum, &sizes, &all, &all, &mut used, steps)?;
            if temps.len() == scan_temps {
                *temps = used;
            }
            let mut moves = Emitter::new(shared, "Keys moved to their places by a digit.", WORKGROUP);
            begin(&mut moves, self.rows * blocks);
            self.bind(&mut moves);
            moves.bind("digits", "i32", temp_window(self.digits));
            self.insert(&mut moves, include_str!("../../../shaders/radix_move.wgsl"), shift);
            steps.push(moves.finish((self.rows * blocks).div_ceil(WORKGROUP as usize))?);
            std::mem::swap(&mut self.at, &mut self.spare);
        }
        Ok(())
    }

    fn bind(&self, e: &mut Emitter<'_>) {
        e.bind("keys", "u32", temp_window(self.at.keys));
        e.bind("order", "u32", temp_window(self.at.order));
        e.bind("keys_moved", "u32", temp_window(self.spare.keys));
        e.bind("order_moved", "u32", temp_window(self.spare.order));
    }

    fn insert(&self, e: &mut Emitter<'_>, file: &str, shift: usize) {
        let blocks = self.length.div_ceil(SHARE);
        let (length, shift) = (e.number("length", self.length), e.number("shift", shift));
        let reciprocal = e.float("blocks_reciprocal", 1.0 / blocks as f32);
        let blocks = e.number("blocks", blocks);
        let places =
            [("length", &length), ("shift", &shift), ("blocks", &blocks), ("reciprocal", &reciprocal)];
        e.insert(file, &places.map(|(place, value)| (place, value.as_str())));
    }

    /// Each row sorted by one invocation: two digits a turn, there and back.
    fn sort_short(&self, shared: &Shared, bits: usize) -> Result<Dispatch> {
        let mut e = Emitter::new(shared, "Short rows of keys, sorted.", WORKGROUP);
        begin(&mut e, self.rows);
        self.bind(&mut e);
        let (length, bits) = (e.number("length", self.length), e.number("bits", bits));
        e.line(format!("let begin = thread * {length};"));
        e.line(format!("let end = begin + {length};"));
        e.line("var places: array<u32, 16>;");
        e.line("var next = 0u;");
        e.open(format!("for (var shift = 0u; shift < {bits}; shift += {}u) {{", 2 * DIGIT));
        let file = include_str!("../../../shaders/radix_row.wgsl");
        let (here, there) = (["keys", "order"], ["keys_moved", "order_moved"]);
        for (from, to, shift) in
            [(here, there, "shift".to_owned()), (there, here, format!("(shift + {DIGIT}u)"))]
        {
            e.insert(
                file,
                &[
                    ("keys", from[0]),
                    ("order", from[1]),
                    ("keys_moved", to[0]),
                    ("order_moved", to[1]),
                    ("shift", &shift),
                ],
            );
        }
        e.close();
        e.finish(self.rows.div_ceil(WORKGROUP as usize))
    }
}
