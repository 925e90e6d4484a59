//! Affine maps over an index space whose dims are dealt into groups, and their values within a tile of the
//! space.
//!
//! The dims of a space are dealt into three groups: the dims that number blocks of tiles (batch), the dims of
//! a tile's rows (P) and those of its columns (Q). Within each group one index counts through the dims in
//! row-major order. A tile is a range of P indices times a range of Q indices at one batch index; its lanes
//! are numbered row by row.

use smallvec::SmallVec;

/// The part of a map that depends on the dims of one group, innermost dim last. Dims of size 1 are left out,
/// and neighbouring dims are merged where one stride leads through both.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    dims: SmallVec<[(usize, isize); 2]>,
}

impl Walk {
    /// The walk through dims of these sizes with these strides, outermost first.
    pub fn new(dims: impl IntoIterator<Item = (usize, isize)>) -> Walk {
        let mut merged: SmallVec<[(usize, isize); 2]> = SmallVec::new();
        for (size, stride) in dims {
            if size == 1 {
                continue;
            }
            match merged.last_mut() {
                Some((outer, step)) if *step == stride.wrapping_mul(size as isize) => {
                    *outer *= size;
                    *step = stride;
                }
                _ => merged.push((size, stride)),
            }
        }
        Walk { dims: merged }
    }

    /// The offset that an index of the group adds to the map's value.
    pub fn offset(&self, mut index: usize) -> isize {
        match &self.dims[..] {
            [] => 0,
            [(_, stride)] => index as isize * stride,
            [first, rest @ ..] => {
                let mut offset = 0;
                for &(size, stride) in rest.iter().rev() {
                    offset += (index % size) as isize * stride;
                    index /= size;
                }
                offset + index as isize * first.1
            }
        }
    }

    /// The stride of the innermost dim: the step from an index to the next within a run.
    pub fn stride(&self) -> isize {
        self.dims.last().map_or(0, |&(_, stride)| stride)
    }

    /// The number of dims after merging.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The least and the largest offset.
    pub fn bounds(&self) -> (isize, isize) {
        let mut bounds = (0, 0);
        for &(size, stride) in &self.dims {
            let way = stride * (size as isize - 1).max(0);
            bounds = (bounds.0 + way.min(0), bounds.1 + way.max(0));
        }
        bounds
    }

    /// The number of consecutive indices that have one stride; `None` if all have.
    pub fn run(&self) -> Option<usize> {
        if self.dims.len() > 1 { self.dims.last().map(|&(size, _)| size) } else { None }
    }

    /// The offset of index `start`, and the stride of the `n` indices from it on if they lie in one run.
    fn span(&self, start: usize, n: usize) -> (isize, Option<isize>) {
        let inside = self.run().is_none_or(|run| n == 1 || start % run + n <= run);
        (self.offset(start), inside.then(|| self.stride()))
    }
}

/// A part of an index space: a range of P indices (rows) times a range of Q indices (columns).
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// The batch index.
    pub batch: usize,
    /// The first row.
    pub p: usize,
    /// The number of rows.
    pub rows: usize,
    /// The first column.
    pub q: usize,
    /// The number of columns.
    pub columns: usize,
}

impl Tile {
    /// The number of lanes.
    pub fn lanes(&self) -> usize {
        self.rows * self.columns
    }
}

/// The values of a map over a tile, if they form a grid: `base + row * i + column * j` at row i and column j.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// The value at the tile's first lane.
    pub base: isize,
    /// The step from row to row.
    pub row: isize,
    /// The step from column to column.
    pub column: isize,
}

impl Grid {
    /// The least and the largest value over this many rows and columns.
    pub fn bounds(&self, rows: usize, columns: usize) -> (isize, isize) {
        let row = self.row * (rows as isize - 1);
        let column = self.column * (columns as isize - 1);
        (self.base + row.min(0) + column.min(0), self.base + row.max(0) + column.max(0))
    }
}

/// Consecutive lanes on which a map has the values `start + i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct LaneRun {
    /// The first lane.
    pub lane: usize,
    /// The number of lanes.
    pub n: usize,
    /// The first value.
    pub start: isize,
    /// The step from lane to lane.
    pub stride: isize,
}

/// Consecutive lanes on which a map's values form a grid: `start + i * row + j * column` at lane `lane + i *
/// columns + j`.
#[derive(Clone, Copy, Debug)]
pub struct LaneGrid {
    /// The first lane.
    pub lane: usize,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub columns: usize,
    /// The first value.
    pub start: isize,
    /// The step from row to row.
    pub row: isize,
    /// The step from column to column.
    pub column: isize,
}

/// The dims of each group, outermost first.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// The dims that number blocks of tiles.
    pub batch: Vec<usize>,
    /// The dims of a tile's rows.
    pub p: Vec<usize>,
    /// The dims of a tile's columns.
    pub q: Vec<usize>,
}

/// An affine map over an index space whose dims are dealt into groups.
#[derive(Clone, Debug)]
pub struct AffineMap {
    /// The value at index 0.
    pub offset: isize,
    /// The part that depends on the batch index.
    pub batch: Walk,
    /// The part that depends on the P index.
    pub p: Walk,
    /// The part that depends on the Q index.
    pub q: Walk,
}

impl AffineMap {
    /// The map `offset + sum(strides * index)`.
    pub fn new(offset: isize, strides: &[isize], sizes: &[usize], groups: &Groups) -> AffineMap {
        let walk = |dims: &[usize]| Walk::new(dims.iter().map(|&d| (sizes[d], strides[d])));
        AffineMap { offset, batch: walk(&groups.batch), p: walk(&groups.p), q: walk(&groups.q) }
    }

    /// The map's values over a tile, if they form a grid.
    pub fn grid(&self, tile: &Tile) -> Option<Grid> {
        let (p, row) = self.p.span(tile.p, tile.rows);
        let (q, column) = self.q.span(tile.q, tile.columns);
        let base = self.offset + self.batch.offset(tile.batch) + p + q;
        Some(Grid { base, row: row?, column: column? })
    }

    /// Calls `patch` with grids that together cover a tile's lanes in order. Each grid is as large as the two
    /// innermost dims of Q if it begins and ends inside of the tile, and else a part of a run.
    pub fn patches(&self, tile: &Tile, mut patch: impl FnMut(LaneGrid)) {
        let base = self.offset + self.batch.offset(tile.batch);
        let end = tile.q + tile.columns;
        let column = self.q.stride();
        let dims = &self.q.dims;
        // A dim that the walk does not have is taken as infinitely long, so that its index is always 0.
        let (outer, height, row, length) = match dims[..] {
            [ref outer @ .., (height, row), (length, _)] => {
                (Walk { dims: outer.into() }, height, row, length)
            }
            _ => (Walk::default(), usize::MAX, 0, usize::MAX),
        };
        for p in 0..tile.rows {
            let base = base + self.p.offset(tile.p + p);
            let mut q = tile.q;
            while q < end {
                let (r, c, left) = (q / length % height, q % length, end - q);
                let (rows, columns) = if c == 0 && left >= length {
                    ((left / length).min(height - r), length)
                } else {
                    (1, left.min(length - c))
                };
                patch(LaneGrid {
                    lane: p * tile.columns + q - tile.q,
                    rows,
                    columns,
                    start: base + outer.offset(q / length / height) + r as isize * row + c as isize * column,
                    row,
                    column,
                });
                q += rows * columns;
            }
        }
    }

    /// Calls `run` with every run of lanes of a tile, in the order of lanes.
    pub fn runs<E>(&self, tile: &Tile, mut run: impl FnMut(LaneRun) -> Result<(), E>) -> Result<(), E> {
        let mut done = Ok(());
        self.patches(tile, |patch| {
            for i in 0..patch.rows {
                if done.is_ok() {
                    done = run(LaneRun {
                        lane: patch.lane + i * patch.columns,
                        n: patch.columns,
                        start: patch.start + i as isize * patch.row,
                        stride: patch.column,
                    });
                }
            }
        });
        done
    }

    /// The number of lanes from column `q` on that lie in one run.
    pub fn run_from(&self, q: usize) -> usize {
        self.q.run().map_or(usize::MAX, |length| length - q % length)
    }

    /// The value at one row and column.
    pub fn at(&self, tile: &Tile, p: usize, q: usize) -> isize {
        self.offset + self.batch.offset(tile.batch) + self.p.offset(p) + self.q.offset(q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_grids_agree_with_the_definition() {
        let sizes = [3, 4, 1, 5];
        let strides = [20, -5, 0, 1];
        let groups = Groups { batch: vec![], p: vec![0], q: vec![1, 2, 3] };
        let affine = AffineMap::new(100, &strides, &sizes, &groups);
        let value = |p: usize, q: usize| 100 + 20 * p as isize - 5 * (q / 5) as isize + (q % 5) as isize;
        for (q, columns) in [(0, 20), (3, 9), (5, 5), (7, 2), (19, 1)] {
            let tile = Tile { batch: 0, p: 1, rows: 2, q, columns };
            let mut seen = Vec::new();
            affine
                .runs::<()>(&tile, |run| {
                    assert_eq!(run.lane, seen.len());
                    seen.extend((0..run.n as isize).map(|i| run.start + i * run.stride));
                    Ok(())
                })
                .unwrap();
            let expected: Vec<isize> =
                (0..2 * columns).map(|lane| value(1 + lane / columns, q + lane % columns)).collect();
            assert_eq!(seen, expected);
            if let Some(grid) = affine.grid(&tile) {
                let (row, column) = ((2 * columns - 1) / columns, (columns - 1) as isize);
                assert_eq!(
                    grid.base + grid.row * row as isize + grid.column * column,
                    *expected.last().unwrap()
                );
            }
        }
        // Three dims that cannot be merged: the grids are planes of the two innermost.
        let (sizes, strides) = ([2, 3, 4, 2], [100, 50, 7, 0]);
        let planes =
            AffineMap::new(0, &strides, &sizes, &Groups { batch: vec![], p: vec![0], q: vec![1, 2, 3] });
        for (q, columns) in [(0, 24), (1, 22), (8, 8), (9, 12), (23, 1)] {
            let mut seen = Vec::new();
            planes.patches(&Tile { batch: 0, p: 0, rows: 2, q, columns }, |patch| {
                assert_eq!(patch.lane, seen.len());
                for i in 0..patch.rows as isize {
                    let row = patch.start + i * patch.row;
                    seen.extend((0..patch.columns as isize).map(|j| row + j * patch.column));
                }
            });
            let value = |p: usize, q: usize| (100 * p + 50 * (q / 8) + 7 * (q / 2 % 4)) as isize;
            let expected: Vec<isize> =
                (0..2 * columns).map(|lane| value(lane / columns, q + lane % columns)).collect();
            assert_eq!(seen, expected, "{columns} columns from {q} on");
        }
        assert!(affine.grid(&Tile { batch: 0, p: 0, rows: 1, q: 3, columns: 9 }).is_none());
        assert!(Walk::new([(3, 20), (4, 5), (5, 1)]).run().is_none());
    }
}
