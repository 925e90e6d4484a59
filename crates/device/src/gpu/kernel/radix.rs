//! Radix sort: sorts rows of keys together with the numbers of their entries, one digit at a time. Equal keys
//! keep their order.
//!
//! A short row is sorted by one invocation. Longer rows are cut into blocks: one dispatch counts the digits
//! of each block, a scan of a row's counts gives the places, and another dispatch moves the keys there.

use super::emit::{Emitter, GROUP};
use super::scan::{self, TEMPS};
use crate::gpu::GpuShared;
use crate::gpu::program::{BoundMemory, Dispatch, Window};
use crate::kernel::{Access, ReduceOp, Scan};
use crate::{DType, Result};

pub(super) const WORKGROUP: u32 = 64;

/// How keys are split into digits.
#[derive(Clone, Copy)]
struct Digits {
    /// The bits of a digit.
    bits: usize,
    /// The number of keys that one invocation counts and moves.
    share: usize,
}

impl Digits {
    /// The digits for rows of `length` keys whose last `bits` bits are compared. Large tables of counts fit
    /// into a processor's cache, but not into a GPU's registers.
    fn of(shared: &GpuShared, length: usize, bits: usize) -> Digits {
        let large = shared.caps.spread.software && length > 256 && bits > 4;
        if large { Digits { bits: 8, share: 1024 } } else { Digits { bits: 4, share: 256 } }
    }

    /// The number of different digits.
    fn count(self) -> usize {
        1 << self.bits
    }
}

/// The temporaries of keys (u32) and of the numbers of their entries.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) keys: usize,
    pub(super) order: usize,
}

/// Rows of keys, and the temporaries in which they lie and to which they are moved.
pub(super) struct RadixRows {
    pub(super) rows: usize,
    pub(super) length: usize,
    pub(super) at: Keys,
    spare: Keys,
    /// The bits of a key that are compared.
    bits: usize,
    by: Digits,
    counts: usize,
}

/// Adds a temporary of this many bytes.
pub(super) fn temp(temps: &mut Vec<usize>, bytes: usize) -> usize {
    temps.push(bytes.max(4));
    temps.len() - 1
}

/// The loop that moves keys to their places.
const PLACE: &str = include_str!("../../../shaders/radix_place.wgsl");

pub(super) fn temp_window(temp: usize) -> Window {
    Window { slot: BoundMemory::Temp(temp), start: 0, end: 256 }
}

/// Begins a kernel in which `thread` is the number of the invocation, and those beyond `threads` return.
pub(super) fn begin(e: &mut Emitter<'_>, threads: usize) {
    let limit = e.uniform("threads", threads);
    e.line(format!("let thread = ({GROUP}) * {WORKGROUP}u + local;"));
    e.open(format!("if (thread >= {limit}) {{"));
    e.line("return;");
    e.close();
}

impl RadixRows {
    /// Adds the temporaries for sorting these keys by their last `bits` bits.
    pub(super) fn new(
        shared: &GpuShared,
        rows: usize,
        length: usize,
        bits: usize,
        at: Keys,
        temps: &mut Vec<usize>,
    ) -> RadixRows {
        let spare = Keys { keys: temp(temps, rows * length * 4), order: temp(temps, rows * length * 4) };
        let by = Digits::of(shared, length, bits);
        let blocks = if length > by.share { length.div_ceil(by.share) } else { 0 };
        RadixRows { rows, length, at, spare, bits, by, counts: temp(temps, rows * blocks * by.count() * 4) }
    }

    /// The first `rows` rows, in the same temporaries.
    pub(super) fn first(&self, rows: usize) -> RadixRows {
        RadixRows { rows, ..*self }
    }

    /// Adds the dispatches that sort each row. The sorted keys are then in the temporaries `at`.
    pub(super) fn sort(
        &mut self,
        shared: &GpuShared,
        temps: &mut Vec<usize>,
        steps: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let blocks = self.length.div_ceil(self.by.share);
        let scan_temps = temps.len();
        for shift in (0..self.bits).step_by(self.by.bits) {
            if blocks == 1 {
                let mut e =
                    Emitter::new(shared, "Short rows of keys, moved to their places by a digit.", WORKGROUP);
                begin(&mut e, self.rows);
                self.bind(&mut e);
                self.insert(&mut e, include_str!("../../../shaders/radix_row.wgsl"), shift);
                self.insert(&mut e, PLACE, shift);
                steps.push(e.finish(self.rows.div_ceil(WORKGROUP as usize))?);
                std::mem::swap(&mut self.at, &mut self.spare);
                continue;
            }
            let mut count = Emitter::new(shared, "Digits of keys, counted.", WORKGROUP);
            begin(&mut count, self.rows * blocks);
            count.bind("keys", "u32", temp_window(self.at.keys));
            count.bind("counts", "i32", temp_window(self.counts));
            self.insert(&mut count, include_str!("../../../shaders/radix_count.wgsl"), shift);
            steps.push(count.finish((self.rows * blocks).div_ceil(WORKGROUP as usize))?);
            let counts = blocks * self.by.count();
            let all = Access::new(TEMPS + self.counts, DType::I32, &[counts as isize, 1], 0);
            // The scans of all digits use the same temporaries.
            let mut used: Vec<usize> = temps[..scan_temps].to_vec();
            let sizes = smallvec::smallvec![self.rows, counts];
            let sum = Scan { op: ReduceOp::Sum, sizes, source: all.clone(), target: all };
            scan::run(shared, &sum, &mut used, steps)?;
            if temps.len() == scan_temps {
                *temps = used;
            }
            let mut moves = Emitter::new(shared, "Keys moved to their places by a digit.", WORKGROUP);
            begin(&mut moves, self.rows * blocks);
            self.bind(&mut moves);
            moves.bind("counts", "i32", temp_window(self.counts));
            self.insert(&mut moves, include_str!("../../../shaders/radix_move.wgsl"), shift);
            self.insert(&mut moves, PLACE, shift);
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
        let blocks = self.length.div_ceil(self.by.share);
        let places = [
            ("digits", format!("{}u", self.by.count())),
            ("mask", format!("{}u", self.by.count() - 1)),
            ("share", format!("{}u", self.by.share)),
            ("length", e.uniform("length", self.length)),
            ("shift", e.uniform("shift", shift)),
            ("reciprocal", e.float_uniform("blocks_reciprocal", 1.0 / blocks as f32)),
            ("blocks", e.uniform("blocks", blocks)),
        ];
        e.insert(file, &places.each_ref().map(|(place, value)| (*place, value.as_str())));
    }
}
