//! Affine maps over a space whose dims are dealt into groups, and how they look from within a tile of it.
//!
//! The dims of a space go into three groups: those that blocks are numbered by (batch), the rows of a tile (P) and its
//! columns (Q). Within each group an index counts through the dims in row-major order. A tile is a range of P indices
//! times a range of Q indices under one batch index; its lanes are numbered row by row.

use smallvec::SmallVec;

/// One map's way through the dims of a group: merged where strides allow, dims of size 1 left out, innermost last.
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

    /// Where an index leads.
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

    /// The step from an index to the next, within a run.
    pub fn stride(&self) -> isize {
        self.dims.last().map_or(0, |&(_, stride)| stride)
    }

    /// The number of dims left.
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

    /// The length of runs of one stride; `None` if all indices are one run.
    pub fn run(&self) -> Option<usize> {
        if self.dims.len() > 1 { self.dims.last().map(|&(size, _)| size) } else { None }
    }

    /// The offset of an index, and the stride over the `n` indices from it on if they are one run.
    fn span(&self, start: usize, n: usize) -> (isize, Option<isize>) {
        let inside = self.run().is_none_or(|run| n == 1 || start % run + n <= run);
        (self.offset(start), inside.then(|| self.stride()))
    }
}

/// A range of P indices times a range of Q indices.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// The batch index.
    pub batch: usize,
    /// The first row.
    pub p: usize,
    /// Rows.
    pub rows: usize,
    /// The first column.
    pub q: usize,
    /// Columns.
    pub columns: usize,
}

impl Tile {
    /// The number of lanes.
    pub fn lanes(&self) -> usize {
        self.rows * self.columns
    }
}

/// A map's values over a tile where they form a grid: `base + row * rows + column * columns`.
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

/// A run of lanes whose values are `start + i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct LaneRun {
    /// The first lane.
    pub lane: usize,
    /// Lanes.
    pub n: usize,
    /// The first value.
    pub start: isize,
    /// The step from lane to lane.
    pub stride: isize,
}

/// Lanes whose values form a grid of their own: `start + i * row + j * column` at lane `lane + i * columns + j`.
#[derive(Clone, Copy, Debug)]
pub struct LaneGrid {
    /// The first lane.
    pub lane: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// The first value.
    pub start: isize,
    /// The step from row to row.
    pub row: isize,
    /// The step from column to column.
    pub column: isize,
}

/// Which dims go into which group, each list outermost first.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Dims that number blocks.
    pub batch: Vec<usize>,
    /// Dims of a tile's rows.
    pub p: Vec<usize>,
    /// Dims of a tile's columns.
    pub q: Vec<usize>,
}

/// An affine map over a space in groups.
#[derive(Clone, Debug)]
pub struct AffineMap {
    /// The value at index 0.
    pub offset: isize,
    /// Through the batch dims.
    pub batch: Walk,
    /// Through the P dims.
    pub p: Walk,
    /// Through the Q dims.
    pub q: Walk,
}

impl AffineMap {
    /// `offset + sum(strides * index)`.
    pub fn new(offset: isize, strides: &[isize], sizes: &[usize], groups: &Groups) -> AffineMap {
        let walk = |dims: &[usize]| Walk::new(dims.iter().map(|&d| (sizes[d], strides[d])));
        AffineMap { offset, batch: walk(&groups.batch), p: walk(&groups.p), q: walk(&groups.q) }
    }

    /// The values over a tile, if they form a grid.
    pub fn grid(&self, tile: &Tile) -> Option<Grid> {
        let (p, row) = self.p.span(tile.p, tile.rows);
        let (q, column) = self.q.span(tile.q, tile.columns);
        let base = self.offset + self.batch.offset(tile.batch) + p + q;
        Some(Grid { base, row: row?, column: column? })
    }

    /// Calls `patch` with patches of a tile's lanes, in the order of lanes: as large as the two innermost dims of Q where they begin and end
    /// inside of the tile, else parts of a run.
    pub fn patches(&self, tile: &Tile, mut patch: impl FnMut(LaneGrid)) {
        let base = self.offset + self.batch.offset(tile.batch);
        let end = tile.q + tile.columns;
        let column = self.q.stride();
        let dims = &self.q.dims;
        // What a walk has not is as long as all: its index is always 0.
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

    /// How many lanes from a column on are in one run.
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
        // Three dims that no strides make one: patches are planes of the two innermost.
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
