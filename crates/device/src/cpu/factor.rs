//! The rows and columns of a product's factors. Each is a dim with one stride, or is composed of several
//! dims, as those of convolution windows are. Blocks of composed ones are packed: copied to contiguous memory
//! that stays in the cache while the block is multiplied.
#![allow(unsafe_code)]

use std::ops::Range;

use smallvec::SmallVec;

/// The rows or the columns of a matrix in memory: the sizes and strides of the dims that they are composed
/// of, outermost first.
pub struct MatrixAxis {
    parts: SmallVec<[(usize, isize); 4]>,
}

/// A matrix in memory.
#[derive(Clone, Copy)]
pub struct StridedMatrix {
    /// The address of the first element.
    pub start: *const u8,
    /// The stride from row to row, in elements.
    pub row: isize,
    /// The stride from column to column, in elements.
    pub column: isize,
}

impl MatrixAxis {
    /// An axis that is composed of these dims. Neighbouring dims that one stride can walk through become one.
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

    /// The stride, if one stride leads through all indices.
    pub fn stride(&self) -> Option<isize> {
        match self.parts[..] {
            [(_, stride)] => Some(stride),
            _ => None,
        }
    }

    /// The distance from index 0 to this index, in elements.
    pub fn offset(&self, mut index: usize) -> isize {
        let mut offset = 0;
        for &(size, stride) in self.parts[1..].iter().rev() {
            offset += (index % size) as isize * stride;
            index /= size;
        }
        offset + index as isize * self.parts[0].1
    }

    /// The size and the stride of the innermost dim.
    fn innermost(&self) -> (usize, isize) {
        self.parts[self.parts.len() - 1]
    }

    /// The offset and the length of each run of a range of indices that has one stride.
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

/// Packs a block of the matrix whose first element is at `source` into contiguous memory. It copies along the
/// axis with the longer runs, or along rows if `by_rows`.
///
/// # Safety
/// The block's elements, of `width` bytes each, are valid, and `target` has room for as many.
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
