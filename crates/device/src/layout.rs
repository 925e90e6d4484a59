//! Shapes, strides and offsets, which say where the elements of an array lie in its buffer.

use smallvec::SmallVec;

use crate::{Error, Result};

/// Sizes of dims, outermost first.
pub type Dims = SmallVec<[usize; 4]>;
/// Steps of dims in elements, outermost first; 0 for an expanded dim, negative for a flipped one.
pub type Strides = SmallVec<[isize; 4]>;

/// The most dims of an array, as in PyTorch.
pub const MAX_RANK: usize = 64;

/// Shape, strides and offset of an array in its buffer, counted in elements.
///
/// Invariant: every index inside the shape lies inside the buffer that the layout was made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    shape: Dims,
    strides: Strides,
    offset: usize,
}

impl Layout {
    /// A layout with these strides. The caller must ensure the invariant.
    pub fn new(shape: &[usize], strides: &[isize], offset: usize) -> Layout {
        debug_assert_eq!(shape.len(), strides.len());
        Layout { shape: shape.into(), strides: strides.into(), offset }
    }

    /// The row-major layout of a shape that begins at the start of its buffer.
    pub fn contiguous(shape: &[usize]) -> Layout {
        Layout { shape: shape.into(), strides: contiguous_strides(shape), offset: 0 }
    }

    /// The sizes of the dims.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The strides of the dims, in elements.
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }

    /// The position of the element whose indices are all 0, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of elements; the shape was checked against overflow when it was made.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements are contiguous in row-major order. Strides of dims of size 1 do not matter.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1isize;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size == 0 {
                return true;
            }
            if size != 1 {
                if stride != expected {
                    return false;
                }
                expected *= size as isize;
            }
        }
        true
    }

    /// The same elements in another shape of as many elements, if strides can express it.
    pub fn reshape(&self, shape: &[usize]) -> Option<Layout> {
        if self.elements() == 0 {
            return Some(Layout {
                shape: shape.into(),
                strides: contiguous_strides(shape),
                offset: self.offset,
            });
        }
        // Walk through both shapes from the last dim: old dims that one stride leads through form a run,
        // which is split into new dims.
        let mut strides: Strides = SmallVec::from_elem(0, shape.len());
        let mut new = shape.len();
        let mut old = self.shape.len();
        while old > 0 {
            old -= 1;
            if self.shape[old] == 1 {
                continue;
            }
            let base = self.strides[old];
            let mut run = self.shape[old];
            while old > 0 {
                let (size, stride) = (self.shape[old - 1], self.strides[old - 1]);
                if size == 1 {
                    old -= 1;
                } else if stride == base * run as isize {
                    run *= size;
                    old -= 1;
                } else {
                    break;
                }
            }
            let mut step = base;
            while run > 1 {
                new = new.checked_sub(1)?;
                let size = shape[new];
                if !run.is_multiple_of(size) {
                    return None;
                }
                strides[new] = step;
                step *= size as isize;
                run /= size;
            }
        }
        Some(Layout { shape: shape.into(), strides, offset: self.offset })
    }
}

/// The strides of a row-major array.
pub fn contiguous_strides(shape: &[usize]) -> Strides {
    let mut strides: Strides = SmallVec::from_elem(1, shape.len());
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d].max(1) as isize;
    }
    strides
}

/// The number of elements of a shape. It is an error if the elements, or their bytes at up to 8 each, cannot
/// be addressed, or if there are more than [`MAX_RANK`] dims. Every shape is checked here before an array
/// gets it.
///
/// A shape with an empty dim has no elements; its other sizes need only have a product that is an isize.
pub fn checked_elements(op: &'static str, shape: &[usize]) -> Result<usize> {
    check_rank(op, shape)?;
    let overflow = || Error::SizeOverflow { op, shape: shape.to_vec() };
    let product =
        shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1))).ok_or_else(overflow)?;
    let empty = shape.contains(&0);
    if product > (if empty { isize::MAX as usize } else { isize::MAX as usize / 8 }) {
        return Err(overflow());
    }
    Ok(if empty { 0 } else { product })
}

/// Checks that a shape has at most [`MAX_RANK`] dims.
pub fn check_rank(op: &'static str, shape: &[usize]) -> Result<()> {
    if shape.len() <= MAX_RANK {
        return Ok(());
    }
    let reason = format!("has {} dims; {MAX_RANK} are the most", shape.len());
    Err(Error::Shape { op, shape: shape.to_vec(), reason })
}

/// The shape to which two shapes broadcast by NumPy's rules.
pub fn broadcast_shapes(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Result<Dims> {
    let rank = lhs.len().max(rhs.len());
    let mut shape: Dims = SmallVec::from_elem(1, rank);
    for (i, out) in shape.iter_mut().rev().enumerate() {
        let a = lhs.len().checked_sub(i + 1).map_or(1, |d| lhs[d]);
        let b = rhs.len().checked_sub(i + 1).map_or(1, |d| rhs[d]);
        *out = match (a, b) {
            (1, n) | (n, 1) => n,
            (a, b) if a == b => a,
            (a, b) => {
                return Err(Error::ShapeMismatch {
                    op,
                    lhs: lhs.to_vec(),
                    rhs: rhs.to_vec(),
                    reason: format!(
                        "do not broadcast: sizes {a} and {b} differ at dim {} from the end and neither is 1",
                        i + 1
                    ),
                });
            }
        };
    }
    checked_elements(op, &shape)?;
    Ok(shape)
}

/// A dim counted from the front, from one that may be negative. A 0-dim array accepts 0 and -1, as in
/// PyTorch.
pub fn normalize_dim(op: &'static str, dim: isize, rank: usize) -> Result<usize> {
    let range = rank.max(1) as isize;
    if dim < -range || dim >= range {
        return Err(Error::Dim { op, dim, rank });
    }
    Ok((if dim < 0 { dim + range } else { dim }) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_keeps_memory_where_strides_allow() {
        let transposed = Layout::new(&[4, 6], &[1, 4], 3);
        assert_eq!(transposed.reshape(&[24]), None);
        assert_eq!(transposed.reshape(&[2, 2, 6]).unwrap(), Layout::new(&[2, 2, 6], &[2, 1, 4], 3));
        let expanded = Layout::new(&[3, 5], &[1, 0], 0);
        assert_eq!(expanded.reshape(&[3, 5, 1]).unwrap().strides()[..2], [1, 0]);
        assert!(Layout::contiguous(&[2, 3, 4]).reshape(&[6, 4]).unwrap().is_contiguous());
        assert!(Layout::new(&[0, 3], &[7, 9], 0).reshape(&[3, 0]).is_some());
        assert_eq!(Layout::contiguous(&[]).reshape(&[1, 1]).unwrap().shape(), [1, 1]);
    }

    #[test]
    fn sizes_that_overflow_are_errors_even_beside_an_empty_dim() {
        assert!(checked_elements("zeros", &[usize::MAX, 2]).is_err());
        assert!(checked_elements("zeros", &[0, usize::MAX, 2]).is_err());
        assert!(checked_elements("zeros", &[0, usize::MAX]).is_err());
        assert!(checked_elements("zeros", &[1 << 62]).is_err());
        assert_eq!(checked_elements("zeros", &[0, 7]).unwrap(), 0);
        // It has no elements to address, and its strides are isizes.
        assert_eq!(checked_elements("zeros", &[0, 1 << 62]).unwrap(), 0);
        assert_eq!(contiguous_strides(&[0, 1 << 62])[..], [1 << 62, 1]);
        assert!(broadcast_shapes("add", &[1 << 40, 1], &[1, 1 << 40]).is_err());
    }

    #[test]
    fn more_than_64_dims_are_an_error() {
        assert_eq!(checked_elements("zeros", &[1; 64]).unwrap(), 1);
        assert!(matches!(checked_elements("zeros", &[1; 65]), Err(Error::Shape { .. })));
    }
}
