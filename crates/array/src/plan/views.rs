//! Following views: from an operand that is a view to the array in memory, or to the computation, behind it.

use smallvec::SmallVec;
use wgrad_device::Layout;
use wgrad_device::layout::Strides;

use super::facts::{Facts, Slot};
use super::map::{Map, Obstacle};
use crate::graph::Ref;
use crate::op::{Axis, Op, View};

/// What lies behind a view.
#[allow(clippy::large_enum_variant, reason = "a short-lived value on the stack")]
pub(super) enum Below {
    /// The viewed operand, the map from the index space to its indices, and how many guards the view added.
    Operand(Ref, Map, usize),
    /// Memory in which the view itself lies with this layout; the view's own map applies to it.
    Memory(Slot, Layout),
}

impl Facts<'_> {
    /// Follows a view by one step. `map` leads from a space of these sizes to the view's indices. An operand
    /// for which `computed` is true is computed by the kernel itself, so it must not be read from memory.
    pub(super) fn below(
        &self,
        step: u32,
        map: &Map,
        sizes: &[usize],
        computed: impl Fn(Ref) -> bool,
    ) -> Result<Below, Obstacle> {
        let node = &self.steps[step as usize];
        let (Op::View(view), Some(&base)) = (&node.op, node.inputs.first()) else {
            return Err(Obstacle::NotAffine);
        };
        let base_shape = self.shape(base);
        Ok(match view {
            View::Affine(axes) => Below::Operand(base, map.through_axes(axes, base_shape), 0),
            View::Reshape => {
                if let Some((slot, layout)) = self.memory(base).filter(|_| !computed(base))
                    && let Some(layout) = layout.reshape(&node.shape)
                {
                    return Ok(Below::Memory(slot, layout));
                }
                Below::Operand(base, map.through_reshape(&node.shape, base_shape, sizes)?, 0)
            }
            View::Pad { before } => {
                let (inner, added) = map.through_pad(before, base_shape, sizes);
                Below::Operand(base, inner, added)
            }
        })
    }

    /// The memory and the layout of an operand that lies in memory, or is a view of such an array that
    /// strides can express.
    pub(crate) fn strided(&self, operand: Ref) -> Option<(Slot, Layout)> {
        let mut views: SmallVec<[(&View, &[usize]); 4]> = SmallVec::new();
        let mut at = operand;
        let (slot, mut layout) = loop {
            if let Some(found) = self.memory(at) {
                break found;
            }
            let Ref::Node(step) = at else { return None };
            let step = &self.steps[step as usize];
            let Op::View(view) = &step.op else { return None };
            views.push((view, &step.shape));
            at = step.inputs[0];
        };
        for (view, shape) in views.into_iter().rev() {
            layout = view_layout(&layout, view, shape)?;
        }
        Some((slot, layout))
    }

    /// The operand behind a chain of views: the first one that is not a view, or that is in memory.
    pub(super) fn viewed(&self, mut operand: Ref) -> Ref {
        while let Ref::Node(step) = operand {
            let step = &self.steps[step as usize];
            match step.op {
                Op::View(_) if !step.anchor => operand = step.inputs[0],
                _ => break,
            }
        }
        operand
    }
}

/// The layout of a view of a layout, if strides can express it.
pub(crate) fn view_layout(base: &Layout, view: &View, shape: &[usize]) -> Option<Layout> {
    match view {
        View::Affine(axes) => Some(affine_layout(base, axes, shape)),
        View::Reshape => base.reshape(shape),
        View::Pad { .. } => None,
    }
}

/// The layout of an affine view of a layout.
pub(crate) fn affine_layout(base: &Layout, axes: &[Axis], shape: &[usize]) -> Layout {
    let mut strides: Strides = SmallVec::from_elem(0, shape.len());
    let mut offset = base.offset() as isize;
    for (axis, &stride) in axes.iter().zip(base.strides()) {
        // The steps of an empty view are not checked, so these products may overflow.
        offset = offset.wrapping_add(axis.offset.wrapping_mul(stride));
        for &(dim, step) in &axis.terms {
            strides[dim] = strides[dim].wrapping_add(step.wrapping_mul(stride));
        }
    }
    // The offset of an empty view may lie past the end of the memory.
    let offset = if shape.contains(&0) { base.offset() } else { offset as usize };
    Layout::new(shape, &strides, offset)
}
