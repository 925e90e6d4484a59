//! The operands of a matrix product as they lie in memory: matrices whose rows and columns consist of one dim
//! or several, each with its own stride. The windows of an image are such a matrix; a convolution reads them
//! that way, so they are never copied (no im2col buffer).

use smallvec::SmallVec;
use wgrad_device::kernel::{Access, Parts};
use wgrad_device::layout::{Dims, Strides};

use super::facts::{Facts, Slot};
use super::map::{Affine, Map, Obstacle, Space};
use super::views::Below;
use crate::graph::Ref;

/// The largest number of dims of which rows or columns may consist.
const MOST_PARTS: usize = 4;

/// An operand of a matrix product, in memory.
pub(super) struct MatmulOperand {
    pub(super) slot: Slot,
    /// The strides of the batch dims, then those of the parts of the rows and of the columns.
    strides: Strides,
    offset: isize,
    parts: Parts,
}

impl MatmulOperand {
    /// The operand, if it lies in memory or is a view of such an array that strides can express once dims are
    /// split.
    pub(super) fn of(facts: &Facts<'_>, operand: Ref) -> Option<MatmulOperand> {
        let shape = facts.shape(operand);
        if let Some((slot, layout)) = facts.strided(operand) {
            let dims = layout.strides().iter().zip(shape);
            let strides = dims.map(|(&stride, &size)| if size == 1 { 0 } else { stride }).collect();
            return Some(MatmulOperand {
                slot,
                strides,
                offset: layout.offset() as isize,
                parts: Parts::default(),
            });
        }
        let mut space = Space::new(shape);
        let (slot, address) = loop {
            match walk(facts, operand, &space) {
                Ok(found) => break found,
                Err(Some((dim, inner))) if space.sizes().len() < 3 * MOST_PARTS => space.split(dim, inner),
                Err(_) => return None,
            }
        };
        let (sizes, owners) = (space.sizes(), space.owners());
        let all = address.strides(sizes.len());
        let mut factor =
            MatmulOperand { slot, strides: Strides::new(), offset: address.offset, parts: Parts::default() };
        for d in 0..shape.len() {
            // Neighbouring parts are merged if one stride expresses both.
            let mut made: SmallVec<[(usize, isize); 4]> = SmallVec::new();
            for (at, _) in owners.iter().enumerate().filter(|(_, owner)| **owner == d) {
                match made.last_mut() {
                    Some(last) if last.1 == all[at] * sizes[at] as isize => {
                        *last = (last.0 * sizes[at], all[at])
                    }
                    _ => made.push((sizes[at], all[at])),
                }
            }
            let dims = match (d + 3).saturating_sub(shape.len()) {
                0 => None,
                1 => Some(&mut factor.parts.rows),
                _ => Some(&mut factor.parts.columns),
            };
            match (made.len(), dims) {
                (0, _) => factor.strides.push(0),
                (1, _) => factor.strides.push(made[0].1),
                (2..=MOST_PARTS, Some(parts)) => {
                    *parts = made.iter().map(|part| part.0).collect::<Dims>();
                    factor.strides.extend(made.iter().map(|part| part.1));
                }
                _ => return None,
            }
        }
        let reach: usize = sizes.iter().zip(&all).map(|(&n, s)| (n - 1) * s.unsigned_abs()).sum();
        ((reach + 1) * facts.dtype(operand).size() <= facts.limits.binding).then_some(factor)
    }

    pub(super) fn access(&self, facts: &Facts<'_>, operand: Ref, buffer: usize) -> (Access, Parts) {
        (Access::new(buffer, facts.dtype(operand), &self.strides, self.offset), self.parts.clone())
    }
}

/// Follows views to memory. If that fails, the error holds the dim that must be split first and the size of
/// the inner part, or `None` if no split helps.
fn walk(facts: &Facts<'_>, operand: Ref, space: &Space) -> Result<(Slot, Affine), Option<(usize, usize)>> {
    let (mut at, mut map): (Ref, Map) = (operand, space.identity(|_| false));
    loop {
        if let Some((slot, layout)) = facts.memory(at) {
            return Ok((slot, map.address(layout.strides(), layout.offset())));
        }
        let Ref::Node(step) = at else { return Err(None) };
        let below =
            facts.below(step, &map, &space.sizes(), |_| false).map_err(|obstacle| match obstacle {
                Obstacle::Split { dim, inner } => Some((dim, inner)),
                Obstacle::NotAffine => None,
            })?;
        (at, map) = match below {
            Below::Operand(base, map, 0) => (base, map),
            Below::Operand(..) => return Err(None),
            Below::Memory(slot, layout) => return Ok((slot, map.address(layout.strides(), layout.offset()))),
        };
    }
}
