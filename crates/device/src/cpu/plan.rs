//! Decides how a loop's space is cut into tiles: which dims lanes run along, how large tiles are, and which
//! rows are split over threads.
//!
//! All choices depend on the kernel alone and never on the number of threads, so that results do not depend
//! on it either.

use super::affine::{Groups, Walk};
use crate::kernel::{Const, Instr, Level, Loop, Ty};
use crate::layout::{Dims, Strides};

/// The lane memory that a tile should need, in bytes: most of a first-level cache.
const TILE_BYTES: usize = 24 << 10;
/// The most lanes of a tile: enough that the fixed cost of an instruction is small beside its loop.
const MOST_LANES: usize = 1024;
/// From this many elements on, memory is slower than the instructions. Smaller tiles then keep memory busier,
/// because instructions that touch memory follow each other sooner: a chain of five instructions over 10^7
/// elements takes 12.5 ms with 2048 lanes, 9.2 with 1024 and 7.9 with 512, on one thread.
const STREAM_ELEMENTS: usize = 1 << 16;
const STREAM_LANES: usize = 512;
/// The most lanes of a tile that keeps a row's values from pass to pass, so that they fit into the
/// second-level cache.
pub const KEPT_LANES: usize = 8192;
/// Tiles end at the ends of runs that have at least this many elements.
const LONG_RUN: usize = 128;
/// The elements of a chunk of a split row.
const SPLIT_ELEMENTS: usize = 1 << 16;
/// At most this many rows (or blocks of columns) are split; more rows keep the threads busy without it.
const SPLIT_UNITS: usize = 16;

/// The lanes of a tile for a program that needs `lane_bytes` of lane memory a lane, over runs of `run`
/// elements.
pub fn tile_lanes(lane_bytes: usize, run: usize) -> usize {
    let most = if run >= STREAM_ELEMENTS { STREAM_LANES } else { MOST_LANES };
    (TILE_BYTES / lane_bytes / 64 * 64).clamp(64, most)
}

/// The rows and columns of a tile of two dims, which is long enough in both to use whole cache lines.
pub fn square_tile(lane_bytes: usize, p: usize, q: usize) -> (usize, usize) {
    let side = if lane_bytes * 64 * 64 <= TILE_BYTES { 64 } else { 32 };
    let columns = q.min(side);
    (p.min(side * side / columns).min((TILE_BYTES / lane_bytes / columns).max(8)), columns)
}

/// Removes dims of size 1, and merges neighbouring dims that all accesses and ranges walk through with one
/// stride.
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
    // For each dim that is kept its number, and its size together with the dims merged into it.
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
    /// Lanes run along all elements.
    Elements,
    /// Tiles have two dims, since the accesses differ in which dim is contiguous.
    Tiles,
    /// Lanes run along the elements of rows.
    Rows,
    /// Lanes run along rows, for reductions over strided dims.
    Columns,
}

/// The mode for a loop, and the groups that its dims are dealt into.
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
    // A rough cost of a lane along these dims, in loads of one lane of a vector.
    let cost = |dims: &[usize]| -> f64 {
        let lanes: usize = dims.iter().map(|&d| kernel.sizes[d]).product();
        let element = |access: &&crate::kernel::Access| kernel.store_level(access) == Level::Element;
        let each = kernel.accesses.iter().filter(element).map(|access| {
            let walk = Walk::new(dims.iter().map(|&d| (kernel.sizes[d], access.strides[d])));
            let run = walk.run().unwrap_or(lanes).max(1);
            (if walk.stride().abs() <= 1 { 0.1 } else { 1.0 }) + 4.0 / run as f64
        });
        // Few lanes a row mean more instructions for each lane.
        each.sum::<f64>() + 4.0 / lanes.clamp(1, 64) as f64
    };
    if cost(&columns.q) < cost(&rows.1.q) { (Mode::Columns, columns) } else { rows }
}

/// The shortest long run among the walks along lanes; tiles should end where it ends.
pub fn long_run<'a>(walks: impl Iterator<Item = &'a Walk>) -> Option<usize> {
    walks.filter_map(Walk::run).filter(|&run| run >= LONG_RUN).min()
}

/// The number of lanes of the tile that begins at `start`. It ends at the end of a run at the latest, and
/// long runs are cut evenly.
pub fn next_tile(start: usize, end: usize, run: Option<usize>, lanes: usize) -> usize {
    let Some(run) = run else { return lanes.min(end - start) };
    let pieces = run.div_ceil(lanes);
    let piece = run.div_ceil(pieces).next_multiple_of(16).min(lanes);
    (run - start % run).min(piece).min(end - start)
}

/// The elements of a chunk, if units (rows, or blocks of columns) with `elements` elements and `lanes` lanes
/// should be split; else `None`.
pub fn split(units: usize, elements: usize, lanes: usize, run: Option<usize>) -> Option<usize> {
    let chunk = (SPLIT_ELEMENTS / lanes.max(1)).max(1);
    let chunk = match run {
        Some(run) if run <= chunk => chunk / run * run,
        _ => chunk,
    };
    (units <= SPLIT_UNITS && elements >= 2 * chunk).then_some(chunk)
}
