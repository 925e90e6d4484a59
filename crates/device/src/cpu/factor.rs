//! The rows and columns of a product's factors: dims of one stride, or made of several, as those of windows are. Blocks of
//! the latter are copied to contiguous memory that stays in the cache while it is multiplied.
#![allow(unsafe_code)]

use std::ops::Range;

use smallvec::SmallVec;

/// The rows or the columns of a matrix in memory: the sizes that their index is made of, outermost first, and their strides.
pub struct MatrixAxis {
    parts: SmallVec<[(usize, isize); 4]>,
}

/// A matrix in memory.
#[derive(Clone, Copy)]
pub struct StridedMatrix {
    /// Its first element.
    pub start: *const u8,
    /// Elements from a row to the next.
    pub row: isize,
    /// Elements from a column to the next.
    pub column: isize,
}

impl MatrixAxis {
    /// A line of these parts; those that continue each other become one.
    pub fn new(sizes: &[usize], strides: &[isize]) -> MatrixAxis {
        let mut parts: SmallVec<[(usize, isize); 4]> = SmallVec::new();
        for (&size, &stride) in sizes.iter().zip(strides) {
            match parts.last_mut() {
                _ if size == 1 && sizes.len() > 1 => {}
                Some(last) if last.1 == stride * size as isize => *last = (last.0 * size, stride),
                _ => parts.push((size, stride)),
            }
        }
        if parts.is_empty() {
            parts.push((1, 0));
        }
        MatrixAxis { parts }
    }

    /// The stride, if there is only one.
    pub fn stride(&self) -> Option<isize> {
        match self.parts[..] {
            [(_, stride)] => Some(stride),
            _ => None,
        }
    }

    /// Elements from the first row or column to this one.
    pub fn offset(&self, mut index: usize) -> isize {
        let mut offset = 0;
        for &(size, stride) in self.parts[1..].iter().rev() {
            offset += (index % size) as isize * stride;
            index /= size;
        }
        offset + index as isize * self.parts[0].1
    }

    /// The size and the stride of the innermost part.
    fn innermost(&self) -> (usize, isize) {
        self.parts[self.parts.len() - 1]
    }

    /// Offsets and lengths of the pieces of a range that have one stride.
    fn runs(&self, range: Range<usize>) -> SmallVec<[(isize, usize); 32]> {
        let (size, _) = self.innermost();
        let mut runs = SmallVec::new();
        let mut at = range.start;
        while at < range.end {
            let len = (size - at % size).min(range.end - at);
            runs.push((self.offset(at), len));
            at += len;
        }
        runs
    }
}

/// Copies a block of a matrix whose first element is at `source` to contiguous memory, along the dim that is read in longer pieces;
/// by rows if `by_rows`.
///
/// # Safety
/// The block's elements of `width` bytes are valid, and there is room for as many at `target`.
pub unsafe fn pack(
    target: *mut u8,
    source: *const u8,
    width: usize,
    [rows, columns]: &[MatrixAxis; 2],
    (row_range, column_range): (Range<usize>, Range<usize>),
    by_rows: bool,
) -> StridedMatrix {
    let (row_count, column_count) = (row_range.len() as isize, column_range.len() as isize);
    let worth = |line: &MatrixAxis| match line.innermost() {
        (size, 1) => size * 8,
        (size, _) => size,
    };
    let (lines, row, column) = if by_rows || worth(columns) >= worth(rows) {
        ([(rows, row_range), (columns, column_range)], column_count, 1)
    } else {
        ([(columns, column_range), (rows, row_range)], 1, row_count)
    };
    // SAFETY: passed on to the caller.
    unsafe {
        match width {
            1 => pack_lines::<u8>(target, source, lines),
            4 => pack_lines::<u32>(target.cast(), source.cast(), lines),
            _ => pack_lines::<u64>(target.cast(), source.cast(), lines),
        }
    }
    StridedMatrix { start: target, row, column }
}

/// # Safety
/// As for [`pack`].
unsafe fn pack_lines<T: Copy>(
    mut target: *mut T,
    source: *const T,
    [(outer, outer_range), (inner, inner_range)]: [(&MatrixAxis, Range<usize>); 2],
) {
    let runs = inner.runs(inner_range);
    let (_, stride) = inner.innermost();
    for index in outer_range {
        let line = source.wrapping_offset(outer.offset(index));
        for &(offset, len) in &runs {
            let from = line.wrapping_offset(offset);
            // SAFETY: passed on to the caller.
            unsafe {
                if stride == 1 {
                    std::ptr::copy_nonoverlapping(from, target, len);
                } else {
                    for i in 0..len {
                        target.add(i).write(from.offset(i as isize * stride).read());
                    }
                }
                target = target.add(len);
            }
        }
    }
}
