//! Affine maps from a kernel's index space to the elements of arrays: how views disappear.

use smallvec::SmallVec;
use wgrad_device::layout::{Dims, Strides, contiguous_strides};

use crate::op::Axis;

/// `offset + sum(coefficient * index of a space dim)`. Terms are sorted by dim; no coefficient is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Affine {
    pub(crate) offset: isize,
    pub(crate) terms: SmallVec<[(usize, isize); 2]>,
}

impl Affine {
    fn add(&mut self, other: &Affine, factor: isize) {
        self.offset += other.offset * factor;
        for &(dim, coefficient) in &other.terms {
            match self.terms.binary_search_by_key(&dim, |term| term.0) {
                Ok(at) => self.terms[at].1 += coefficient * factor,
                Err(at) => self.terms.insert(at, (dim, coefficient * factor)),
            }
        }
        self.terms.retain(|term| term.1 != 0);
    }

    /// The smallest and the largest value over a space.
    fn bounds(&self, sizes: &[usize]) -> (isize, isize) {
        let mut bounds = (self.offset, self.offset);
        for &(dim, coefficient) in &self.terms {
            let reach = coefficient * (sizes[dim] as isize - 1);
            if reach > 0 { bounds.1 += reach } else { bounds.0 += reach }
        }
        bounds
    }

    /// The step of each dim of a space.
    pub(crate) fn strides(&self, rank: usize) -> Strides {
        let mut strides: Strides = SmallVec::from_elem(0, rank);
        for &(dim, coefficient) in &self.terms {
            strides[dim] = coefficient;
        }
        strides
    }
}

/// For every index of a kernel's space: an index of an array. Valid where all guards hold; what the array has no index for
/// counts as 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Map {
    /// The index along each dim of the array; 0 where its size is 1.
    pub(crate) axes: SmallVec<[Affine; 4]>,
    /// Values that must lie in `0..size`.
    pub(crate) guards: SmallVec<[(Affine, usize); 1]>,
}

/// Why a reshape cannot be followed through the space as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Obstacle {
    /// It could if this dim were two, the inner one of this size.
    Split {
        /// The dim of the space.
        dim: usize,
        /// The inner part's size.
        inner: usize,
    },
    /// No splitting of dims helps.
    NotAffine,
}

impl Map {
    /// The map of an array viewed through affine axes, given the view's map.
    pub(crate) fn through_axes(&self, axes: &[Axis], base_shape: &[usize]) -> Map {
        let axes = axes.iter().zip(base_shape).map(|(axis, &size)| {
            let mut composed = Affine { offset: axis.offset, terms: SmallVec::new() };
            if size == 1 {
                return Affine::default();
            }
            for &(dim, step) in &axis.terms {
                composed.add(&self.axes[dim], step);
            }
            composed
        });
        Map { axes: axes.collect(), guards: self.guards.clone() }
    }

    /// The map of a padded array, given that of the result. Says how many guards were added (at the end).
    pub(crate) fn through_pad(
        &self,
        before: &[isize],
        base_shape: &[usize],
        sizes: &[usize],
    ) -> (Map, usize) {
        let mut map = self.clone();
        for ((axis, &before), &size) in map.axes.iter_mut().zip(before).zip(base_shape) {
            axis.offset -= before;
            let (low, high) = axis.bounds(sizes);
            if low < 0 || high >= size as isize {
                map.guards.push((axis.clone(), size));
            }
            if size == 1 {
                *axis = Affine::default();
            }
        }
        let added = map.guards.len() - self.guards.len();
        (map, added)
    }

    /// The map of an array of shape `to`, given that of the same elements in shape `from`.
    pub(crate) fn through_reshape(
        &self,
        from: &[usize],
        to: &[usize],
        sizes: &[usize],
    ) -> Result<Map, Obstacle> {
        let mut linear = Affine::default();
        for (axis, &stride) in self.axes.iter().zip(&contiguous_strides(from)) {
            linear.add(axis, stride);
        }
        let strides = contiguous_strides(to);
        // Digits of the linear index in the mixed radix of `to`: first those of its smallest value, ...
        let (mut rest, _) = linear.bounds(sizes);
        let mut axes: SmallVec<[Affine; 4]> = SmallVec::new();
        let mut highest: SmallVec<[isize; 4]> = SmallVec::new();
        for &stride in &strides {
            let digit = rest.div_euclid(stride);
            rest -= digit * stride;
            axes.push(Affine { offset: digit, terms: SmallVec::new() });
            highest.push(digit);
        }
        // ... then each term goes to the dim whose stride its coefficient is a multiple of.
        for &(dim, coefficient) in &linear.terms {
            let step = coefficient.abs();
            let place = (0..to.len()).find(|&d| to[d] > 1 && strides[d] <= step);
            let Some(place) = place.filter(|&d| step % strides[d] == 0) else {
                return Err(Obstacle::NotAffine);
            };
            let multiple = step / strides[place];
            let reach = multiple * (sizes[dim] as isize - 1);
            if reach >= to[place] as isize {
                let inner = to[place] / multiple as usize;
                let divides = to[place].is_multiple_of(multiple as usize)
                    && inner > 1
                    && sizes[dim].is_multiple_of(inner);
                return Err(if divides { Obstacle::Split { dim, inner } } else { Obstacle::NotAffine });
            }
            highest[place] += reach;
            // A falling term starts from its top: the digits above are those of the bottom.
            let sign = coefficient.signum();
            axes[place].offset += if sign < 0 { reach } else { 0 };
            axes[place].terms.push((dim, sign * multiple));
        }
        let fits = axes.iter().zip(&highest).zip(to).all(|((axis, &high), &size)| {
            let (low, _) = axis.bounds(sizes);
            low >= 0 && high < size as isize
        });
        if !fits {
            return Err(Obstacle::NotAffine);
        }
        for (axis, &size) in axes.iter_mut().zip(to) {
            axis.terms.sort_unstable_by_key(|term| term.0);
            if size == 1 {
                *axis = Affine::default();
            }
        }
        Ok(Map { axes, guards: self.guards.clone() })
    }

    /// Where the mapped index lies in memory with these strides.
    pub(crate) fn address(&self, strides: &[isize], offset: usize) -> Affine {
        let mut address = Affine { offset: offset as isize, terms: SmallVec::new() };
        for (axis, &stride) in self.axes.iter().zip(strides) {
            address.add(axis, stride);
        }
        address
    }
}

/// The dims of a kernel's index space: the sizes of an array, each perhaps split into several dims.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Space {
    /// The array's shape.
    pub(crate) shape: Dims,
    /// For each dim of the array: the sizes that it is split into, outermost first; none for size 1.
    parts: Vec<SmallVec<[usize; 2]>>,
}

impl Space {
    /// A space over a shape.
    pub(crate) fn new(shape: &[usize]) -> Space {
        let part = |&size: &usize| if size == 1 { SmallVec::new() } else { SmallVec::from_slice(&[size]) };
        Space { shape: shape.into(), parts: shape.iter().map(part).collect() }
    }

    /// The sizes of the space's own dims.
    pub(crate) fn sizes(&self) -> Dims {
        self.parts.iter().flatten().copied().collect()
    }

    /// For each dim of the space, the dim of the array that it is part of.
    pub(crate) fn owners(&self) -> SmallVec<[usize; 4]> {
        self.parts.iter().enumerate().flat_map(|(owner, parts)| parts.iter().map(move |_| owner)).collect()
    }

    /// Whether a dim of the array is several dims of the space.
    pub(crate) fn has_split(&self) -> bool {
        self.parts.iter().any(|parts| parts.len() > 1)
    }

    /// Splits a dim of the space in two.
    pub(crate) fn split(&mut self, dim: usize, inner: usize) {
        let mut first = 0;
        for parts in &mut self.parts {
            if dim < first + parts.len() {
                let at = dim - first;
                let whole = parts[at];
                parts[at] = whole / inner;
                parts.insert(at + 1, inner);
                return;
            }
            first += parts.len();
        }
    }

    /// The map to the array itself, with the given dims folded to size 1.
    pub(crate) fn identity(&self, folded: impl Fn(usize) -> bool) -> Map {
        let mut dim = 0;
        let axes = self.parts.iter().enumerate().map(|(owner, parts)| {
            let mut axis = Affine::default();
            let strides = contiguous_strides(parts);
            for &stride in &strides {
                axis.terms.push((dim, stride));
                dim += 1;
            }
            if folded(owner) { Affine::default() } else { axis }
        });
        Map { axes: axes.collect(), guards: SmallVec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The element that a map picks for each index of a space, row-major.
    fn picked(map: &Map, sizes: &[usize], shape: &[usize]) -> Vec<isize> {
        let address = map.address(&contiguous_strides(shape), 0);
        let strides = address.strides(sizes.len());
        let total: usize = sizes.iter().product();
        (0..total)
            .map(|mut n| {
                let mut at = address.offset;
                for d in (0..sizes.len()).rev() {
                    at += (n % sizes[d]) as isize * strides[d];
                    n /= sizes[d];
                }
                at
            })
            .collect()
    }

    /// Follows a reshape, splitting dims where asked, and checks that element n of `from` is element n of `to`.
    fn follow(from: &[usize], to: &[usize]) -> bool {
        let mut space = Space::new(from);
        loop {
            let identity = space.identity(|_| false);
            match identity.through_reshape(from, to, &space.sizes()) {
                Ok(map) => {
                    assert_eq!(picked(&map, &space.sizes(), to), picked(&identity, &space.sizes(), from));
                    return true;
                }
                Err(Obstacle::Split { dim, inner }) => space.split(dim, inner),
                Err(Obstacle::NotAffine) => return false,
            }
        }
    }

    #[test]
    fn reshapes_are_followed_by_splitting_dims() {
        assert!(follow(&[6, 4], &[2, 3, 4]));
        assert!(follow(&[24], &[2, 3, 4]));
        assert!(follow(&[2, 3, 4], &[24]));
        assert!(follow(&[2, 1, 12], &[4, 6]));
        assert!(follow(&[8, 9], &[2, 36, 1]));
        assert!(!follow(&[2, 3], &[3, 2]));
    }

    #[test]
    fn a_flipped_reshape_counts_down() {
        let space = Space::new(&[6]);
        let flipped = space
            .identity(|_| false)
            .through_axes(&[Axis { offset: 5, terms: smallvec::smallvec![(0, -1)] }], &[6]);
        let mut split = space.clone();
        assert_eq!(flipped.through_reshape(&[6], &[2, 3], &[6]), Err(Obstacle::Split { dim: 0, inner: 3 }));
        split.split(0, 3);
        let flipped = split
            .identity(|_| false)
            .through_axes(&[Axis { offset: 5, terms: smallvec::smallvec![(0, -1)] }], &[6]);
        let map = flipped.through_reshape(&[6], &[2, 3], &[2, 3]).unwrap();
        assert_eq!(picked(&map, &[2, 3], &[2, 3]), [5, 4, 3, 2, 1, 0]);
    }
}
