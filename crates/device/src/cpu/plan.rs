//! How a loop's space is cut into tiles: which dims lanes run along, how large tiles are, what is split over threads.
//!
//! All choices depend on the kernel's numbers alone, never on the number of threads, so that results don't either.

use super::affine::{Groups, Walk};
use crate::kernel::{Const, Instr, Level, Loop, Ty};
use crate::layout::{Dims, Strides};

/// Bytes of lane memory that a tile should need: most of a first-level cache.
const TILE_BYTES: usize = 24 << 10;
/// The most lanes of a tile: enough to make what an instruction costs beside its loop small.
const MOST_LANES: usize = 1024;
/// From so many elements on, memory is slower than instructions are, and smaller tiles keep it busier: the instructions
/// that touch memory come sooner after each other (12.5 ms with 2048 lanes, 9.2 with 1024, 7.9 with 512 for a chain of
/// five instructions over 10^7 elements on one thread).
const STREAM_ELEMENTS: usize = 1 << 16;
const STREAM_LANES: usize = 512;
/// The most lanes of a tile for which a row's values are kept from pass to pass: they fit into the second-level cache.
pub const KEPT_LANES: usize = 8192;
/// Runs of at least this many elements make tiles end where they do.
const LONG_RUN: usize = 128;
/// Elements of a chunk of a row that is split.
const SPLIT_ELEMENTS: usize = 1 << 16;
/// At most so many rows (or blocks of columns) are split; more keep the threads busy by themselves.
const SPLIT_UNITS: usize = 16;

/// Lanes of a tile for a program with this much lane memory, over runs of this many elements.
pub fn tile_lanes(lane_bytes: usize, run: usize) -> usize {
    let most = if run >= STREAM_ELEMENTS { STREAM_LANES } else { MOST_LANES };
    (TILE_BYTES / lane_bytes / 64 * 64).clamp(64, most)
}

/// Rows and columns of a tile of two dims: long enough in both for whole cache lines and their neighbours.
pub fn square_tile(lane_bytes: usize, p: usize, q: usize) -> (usize, usize) {
    let side = if lane_bytes * 64 * 64 <= TILE_BYTES { 64 } else { 32 };
    let columns = q.min(side);
    (p.min(side * side / columns).min((TILE_BYTES / lane_bytes / columns).max(8)), columns)
}

/// Leaves out dims of size 1 and merges dims that every map steps through as one.
pub fn merge_dims(kernel: &Loop) -> Loop {
    let rank = kernel.sizes.len();
    let outer = kernel.outer();
    let mut kernel = kernel.clone();
    let mut fixed = vec![false; rank];
    for instr in &mut kernel.body {
        match instr {
            Instr::Coord { dim } if kernel.sizes[*dim] == 1 => *instr = Instr::Const(Const::new(0, Ty::I32)),
            Instr::Coord { dim } => fixed[*dim] = true,
            _ => {}
        }
    }
    // For each dim that stays: its number, and its size with what was merged into it.
    let mut kept: Vec<(usize, usize)> = Vec::new();
    for dim in 0..rank {
        let size = kernel.sizes[dim];
        if size == 1 {
            continue;
        }
        let merges = kept.last().is_some_and(|&(last, _)| {
            let all =
                kernel.accesses.iter().map(|a| &a.strides).chain(kernel.ranges.iter().map(|r| &r.strides));
            let same_level = (last < outer) == (dim < outer);
            let mut all = all;
            same_level
                && !fixed[last]
                && !fixed[dim]
                && all.all(|strides| strides[last] == strides[dim].wrapping_mul(size as isize))
        });
        match kept.last_mut() {
            Some(last) if merges => *last = (dim, last.1 * size),
            _ => kept.push((dim, size)),
        }
    }
    let mut number = vec![0; rank];
    for (new, &(old, _)) in kept.iter().enumerate() {
        number[old] = new;
    }
    let strides = |old: &Strides| -> Strides { kept.iter().map(|&(dim, _)| old[dim]).collect() };
    let mut merged = kernel.clone();
    merged.sizes = kept.iter().map(|&(_, size)| size).collect::<Dims>();
    merged.inner = kept.iter().filter(|&&(dim, _)| dim >= outer).count();
    for access in &mut merged.accesses {
        access.strides = strides(&access.strides);
    }
    for range in &mut merged.ranges {
        range.strides = strides(&range.strides);
    }
    for instr in &mut merged.body {
        if let Instr::Coord { dim } = instr {
            *dim = number[*dim];
        }
    }
    if kernel.inner > 0 && merged.inner == 0 {
        // A row of one element is still a row.
        merged.sizes.push(1);
        merged.inner = 1;
        let all = merged.accesses.iter_mut().map(|a| &mut a.strides);
        for strides in all.chain(merged.ranges.iter_mut().map(|r| &mut r.strides)) {
            strides.push(0);
        }
    }
    merged
}

/// How tiles cover a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Lanes run through all elements.
    Elements,
    /// Tiles of two dims, for maps whose contiguous dims differ.
    Tiles,
    /// Lanes run along the elements of rows.
    Rows,
    /// Lanes run along rows, for reductions over strided dims.
    Columns,
}

/// The mode for a loop, and the dims' groups.
pub fn choose(kernel: &Loop, may_tile: bool) -> (Mode, Groups) {
    let rank = kernel.sizes.len();
    let outer = kernel.outer();
    if kernel.inner > 0 {
        return choose_reduction(kernel);
    }
    if may_tile && rank >= 2 {
        let last = rank - 1;
        let other = kernel.accesses.iter().find_map(|access| {
            let dim = (0..last).rev().find(|&d| access.strides[d].abs() == 1 && kernel.sizes[d] >= 8);
            dim.filter(|_| access.strides[last].abs() > 1 && kernel.sizes[last] >= 8)
        });
        if let Some(other) = other {
            let batch = (0..last).filter(|&d| d != other).collect();
            return (Mode::Tiles, Groups { batch, p: vec![other], q: vec![last] });
        }
    }
    (Mode::Elements, Groups { batch: vec![], p: vec![], q: (0..outer).collect() })
}

fn choose_reduction(kernel: &Loop) -> (Mode, Groups) {
    let outer = kernel.outer();
    let inner: Vec<usize> = (outer..kernel.sizes.len()).collect();
    let rows = (Mode::Rows, Groups { batch: vec![], p: (0..outer).collect(), q: inner.clone() });
    if outer == 0 {
        return rows;
    }
    let last = outer - 1;
    let columns = kernel.sizes[last];
    let alone = columns >= 64 || columns * kernel.row_elements() >= 128;
    let (batch, q) = if alone { ((0..last).collect(), vec![last]) } else { (vec![], (0..outer).collect()) };
    let columns = Groups { batch, p: inner, q };
    // What a lane costs along these dims, roughly, in loads of a vector's lane.
    let cost = |dims: &[usize]| -> f64 {
        let lanes: usize = dims.iter().map(|&d| kernel.sizes[d]).product();
        let element = |access: &&crate::kernel::Access| kernel.store_level(access) == Level::Element;
        let each = kernel.accesses.iter().filter(element).map(|access| {
            let walk = Walk::new(dims.iter().map(|&d| (kernel.sizes[d], access.strides[d])));
            let run = walk.run().unwrap_or(lanes).max(1);
            (if walk.stride().abs() <= 1 { 0.1 } else { 1.0 }) + 4.0 / run as f64
        });
        // Short rows of lanes cost instructions.
        each.sum::<f64>() + 4.0 / lanes.clamp(1, 64) as f64
    };
    if cost(&columns.q) < cost(&rows.1.q) { (Mode::Columns, columns) } else { rows }
}

/// The least run that tiles should end with, among the walks along lanes.
pub fn long_run<'a>(walks: impl Iterator<Item = &'a Walk>) -> Option<usize> {
    walks.filter_map(Walk::run).filter(|&run| run >= LONG_RUN).min()
}

/// Lanes from `start` on that make up the next tile: up to the next end of a run, evenly cut if runs are long.
pub fn next_tile(start: usize, end: usize, run: Option<usize>, lanes: usize) -> usize {
    let Some(run) = run else { return lanes.min(end - start) };
    let pieces = run.div_ceil(lanes);
    let piece = run.div_ceil(pieces).next_multiple_of(16).min(lanes);
    (run - start % run).min(piece).min(end - start)
}

/// Elements of a chunk, if units (rows, or blocks of columns) of this many elements and lanes should be split.
pub fn split(units: usize, elements: usize, lanes: usize, run: Option<usize>) -> Option<usize> {
    let chunk = (SPLIT_ELEMENTS / lanes.max(1)).max(1);
    let chunk = match run {
        Some(run) if run <= chunk => chunk / run * run,
        _ => chunk,
    };
    (units <= SPLIT_UNITS && elements >= 2 * chunk).then_some(chunk)
}
