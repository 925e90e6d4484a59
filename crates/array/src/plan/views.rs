//! The way from an operand through views to what is in memory or computed.

use smallvec::SmallVec;
use wgrad_device::Layout;
use wgrad_device::layout::Strides;

use super::facts::{Facts, Slot};
use super::map::{Map, Obstacle};
use crate::graph::Ref;
use crate::op::{Axis, Op, View};

/// What is behind a view, at an index space's map.
#[allow(clippy::large_enum_variant, reason = "it lives for a moment only")]
pub(super) enum Below {
    /// What it views, and the map there, with so many guards more.
    Operand(Ref, Map, usize),
    /// Memory that holds the view with this layout, at the view's own map.
    Memory(Slot, Layout),
}

impl Facts<'_> {
    /// Goes through a view, given its map from a space of these sizes. What is `computed` by the kernel itself is not taken from memory.
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

    /// Where an operand lies that is in memory, or views something there through strides.
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

    /// What an operand views, down to the first thing that is not a view, or is in memory.
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
        // Steps in an empty view may be no numbers.
        offset = offset.wrapping_add(axis.offset.wrapping_mul(stride));
        for &(dim, step) in &axis.terms {
            strides[dim] = strides[dim].wrapping_add(step.wrapping_mul(stride));
        }
    }
    // An empty view may start past the end.
    let offset = if shape.contains(&0) { base.offset() } else { offset as usize };
    Layout::new(shape, &strides, offset)
}
