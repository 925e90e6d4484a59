//! Affine maps from a kernel's index space to the elements of arrays. A view is compiled away by composing
//! its map with that of its reader.

use smallvec::SmallVec;
use wgrad_device::layout::{Dims, Strides, contiguous_strides};

use crate::op::Axis;

/// `offset + sum(coefficient * index of a space dim)`. The terms are sorted by dim, and no coefficient is 0.
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

/// A map from the indices of a kernel's space to the indices of an array. Where a guard fails the array has
/// no such index, and the value counts as 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Map {
    /// The index along each dim of the array; 0 where its size is 1.
    pub(crate) axes: SmallVec<[Affine; 4]>,
    /// Values that must lie in `0..size`.
    pub(crate) guards: SmallVec<[(Affine, usize); 1]>,
}

/// Why a map cannot be composed with a reshape over the present space.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Obstacle {
    /// It can if this dim of the space is first split in two, with an inner dim of this size.
    Split {
        /// The dim of the space.
        dim: usize,
        /// The inner part's size.
        inner: usize,
    },
    /// The composition is not affine, however dims are split.
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

    /// The map of an array before padding, given that of the padded array. The second result is the number of
    /// guards that were added at the end of the list.
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

    /// The map of an array of shape `to`, given the map of the same elements in shape `from`.
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
        // The indices are the digits of the linear index in the mixed radix of `to`. First the digits of its
        // smallest value, which become the offsets.
        let (mut rest, _) = linear.bounds(sizes);
        let mut axes: SmallVec<[Affine; 4]> = SmallVec::new();
        let mut highest: SmallVec<[isize; 4]> = SmallVec::new();
        for &stride in &strides {
            let digit = rest.div_euclid(stride);
            rest -= digit * stride;
            axes.push(Affine { offset: digit, terms: SmallVec::new() });
            highest.push(digit);
        }
        // Then each term is given to the outermost dim whose stride is not larger than its coefficient; the
        // coefficient must be a multiple of that stride.
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
            // The offsets belong to the smallest value. A term that counts down reaches it at its last index,
            // so its value at index 0 is higher by its whole reach.
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

    /// The position in memory of the mapped index, for an array with these strides and this offset.
    pub(crate) fn address(&self, strides: &[isize], offset: usize) -> Affine {
        let mut address = Affine { offset: offset as isize, terms: SmallVec::new() };
        for (axis, &stride) in self.axes.iter().zip(strides) {
            address.add(axis, stride);
        }
        address
    }
}

/// A kernel's index space: the dims of an array, each perhaps split into several dims.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Space {
    /// The array's shape.
    pub(crate) shape: Dims,
    /// For each dim of the array the sizes into which it is split, outermost first; none for a dim of size 1.
    parts: Vec<SmallVec<[usize; 2]>>,
}

impl Space {
    /// A space over a shape.
    pub(crate) fn new(shape: &[usize]) -> Space {
        let part = |&size: &usize| if size == 1 { SmallVec::new() } else { SmallVec::from_slice(&[size]) };
        Space { shape: shape.into(), parts: shape.iter().map(part).collect() }
    }

    /// The sizes of the space's dims.
    pub(crate) fn sizes(&self) -> Dims {
        self.parts.iter().flatten().copied().collect()
    }

    /// For each dim of the space the dim of the array of which it is a part.
    pub(crate) fn owners(&self) -> SmallVec<[usize; 4]> {
        self.parts.iter().enumerate().flat_map(|(owner, parts)| parts.iter().map(move |_| owner)).collect()
    }

    /// Whether some dim of the array is split.
    pub(crate) fn has_split(&self) -> bool {
        self.parts.iter().any(|parts| parts.len() > 1)
    }

    /// Splits a dim of the space in two; the inner one has the size `inner`.
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

    /// The map to the array itself, with the given dims reduced to size 1.
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

    /// For each index of a space, in row-major order, the position of the element to which a map leads.
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

    /// Composes a map with a reshape, splitting dims as required, and checks that element n of `from` is
    /// element n of `to`. False if the composition is not affine.
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
