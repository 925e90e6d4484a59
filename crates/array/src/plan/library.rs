//! The kernels that are not loops (matrix products, scatters, scans and sorts), and updates of a part of an
//! array, which are loops that copy. They are set up from the layouts of their operands, which are in memory.

use wgrad_device::kernel::{Access, IndexedDim, Instr, Kernel, Loop, Matmul, Scan, Scatter, Sort, Store};
use wgrad_device::layout::{Dims, Strides, contiguous_strides};
use wgrad_device::{Error, Result};

use super::factor::MatmulOperand;
use super::facts::{Facts, Slot};
use super::map::Space;
use super::schedule::PlannedOverwrite;
use crate::graph::Ref;
use crate::op::Op;

/// A matrix product with its epilogue, which is given as a loop over `space`.
pub(super) fn matmul(facts: &Facts<'_>, step: u32, space: &Space, epilogue: Loop) -> Result<Matmul> {
    let node = &facts.steps[step as usize];
    let operand = |i: usize| match MatmulOperand::of(facts, node.inputs[i]) {
        Some(factor) => Ok(factor.access(facts, node.inputs[i], i)),
        None => Err(not_in_memory()),
    };
    let ((lhs, lhs_parts), (rhs, rhs_parts)) = (operand(0)?, operand(1)?);
    let lhs_shape = facts.shape(node.inputs[0]);
    let k = lhs_shape[lhs_shape.len() - 1];
    let epilogue = over_product(facts, step, space, epilogue).ok_or_else(|| wrong_step("matmul"))?;
    let mut product = Matmul { k, lhs, rhs, lhs_parts, rhs_parts, epilogue };
    while merge_batch(&mut product) {}
    Ok(product)
}

/// Merges the last batch dim into m if both operands and the epilogue allow it: many small products with one
/// right-hand matrix become one large product. A batch dim of size 1 is removed in any case.
fn merge_batch(product: &mut Matmul) -> bool {
    let rank = product.epilogue.sizes.len();
    let Some(batch) = rank.checked_sub(3) else { return false };
    let m = rank - 2;
    let (count, rows) = (product.epilogue.sizes[batch], product.epilogue.sizes[m]);
    let follows = |strides: &Strides| strides[batch] == strides[m] * rows as isize;
    let counted = |instr: &Instr| matches!(instr, Instr::Coord { dim } if *dim == batch || *dim == m);
    let merges = product.rhs.strides[batch] == 0
        && product.lhs_parts.rows.is_empty()
        && (rows == 1
            || follows(&product.lhs.strides)
                && product.epilogue.accesses.iter().all(|access| follows(&access.strides))
                && product.epilogue.ranges.iter().all(|range| follows(&range.strides))
                && !product.epilogue.body.iter().any(counted));
    if count != 1 && !merges {
        return false;
    }
    product.epilogue.sizes[m] *= count;
    product.epilogue.sizes.remove(batch);
    let take_out = |strides: &mut Strides| {
        let step = strides.remove(batch);
        if rows == 1 && count != 1 {
            strides[batch] = step;
        }
    };
    take_out(&mut product.lhs.strides);
    product.rhs.strides.remove(batch);
    product.epilogue.accesses.iter_mut().for_each(|access| take_out(&mut access.strides));
    product.epilogue.ranges.iter_mut().for_each(|range| take_out(&mut range.strides));
    for instr in &mut product.epilogue.body {
        if let Instr::Coord { dim } = instr
            && *dim > batch
        {
            *dim -= 1;
        }
    }
    true
}

/// The epilogue over exactly the dims `batch.., m, n` of the product. `None` if one of these dims was split
/// to follow a reshape, and some access needs its parts separately.
pub(super) fn over_product(facts: &Facts<'_>, step: u32, space: &Space, mut kernel: Loop) -> Option<Loop> {
    let shape = &facts.steps[step as usize].shape;
    let (owners, sizes) = (space.owners(), space.sizes());
    // A dim of size 1 has no dim in the space; it gets one with stride 0.
    let widen = |strides: &Strides| -> Option<Strides> {
        let stride = |d: usize| {
            let mut parts = (0..owners.len()).rev().filter(|&at| owners[at] == d);
            let Some(last) = parts.next() else { return Some(0) };
            let mut next = strides[last] * sizes[last] as isize;
            let one = parts.all(|at| {
                let follows = strides[at] == next;
                next *= sizes[at] as isize;
                follows
            });
            one.then(|| strides[last])
        };
        (0..shape.len()).map(stride).collect()
    };
    for access in &mut kernel.accesses {
        access.strides = widen(&access.strides)?;
    }
    for range in &mut kernel.ranges {
        range.strides = widen(&range.strides)?;
    }
    for instr in &mut kernel.body {
        if let Instr::Coord { dim } = instr {
            let owner = owners[*dim];
            if owners.iter().filter(|&&o| o == owner).count() > 1 {
                return None;
            }
            *dim = owner;
        }
    }
    kernel.sizes = shape.clone();
    Some(kernel)
}

/// An access to an operand in memory, its dims in the given order.
fn operand_access(facts: &Facts<'_>, operand: Ref, buffer: usize, order: &[usize]) -> Result<Access> {
    let (_, layout) = facts.strided(operand).ok_or_else(not_in_memory)?;
    let sizes = layout.shape();
    let strides: Strides =
        order.iter().map(|&d| if sizes[d] == 1 { 0 } else { layout.strides()[d] }).collect();
    Ok(Access::new(buffer, facts.dtype(operand), &strides, layout.offset() as isize))
}

/// A scatter from its operands in memory.
pub(super) fn scatter(facts: &Facts<'_>, step: u32) -> Result<Scatter> {
    let node = &facts.steps[step as usize];
    let Op::Scatter { op, dim, name, .. } = node.op else { return Err(wrong_step("scatter")) };
    let order: Vec<usize> = (0..node.shape.len()).collect();
    let (source, index) = (
        operand_access(facts, node.inputs[0], 0, &order)?,
        operand_access(facts, node.inputs[1], 1, &order)?,
    );
    let mut strides = contiguous_strides(&node.shape);
    let sizes: Dims = facts.shape(node.inputs[1]).into();
    let stride = std::mem::take(&mut strides[dim]);
    for (stride, &size) in strides.iter_mut().zip(&sizes) {
        if size == 1 {
            *stride = 0;
        }
    }
    let mut target = Access::new(node.inputs.len(), node.dtype, &strides, 0);
    target.indexed.push(IndexedDim { stride, size: node.shape[dim], op: name });
    Ok(Scatter {
        op,
        sizes,
        source,
        indices: vec![index],
        target,
        base: (node.inputs.len() == 3).then_some(2),
        elements: node.shape.iter().product(),
    })
}

/// The loop that copies an update's box of elements from its operand in memory. The buffer to which it writes
/// begins at the box's first element, rounded down to [`ALIGNED`](crate::op::ALIGNED).
pub(super) fn update(facts: &Facts<'_>, step: u32) -> Result<Loop> {
    let node = &facts.steps[step as usize];
    let Op::Update { beyond, .. } = node.op else { return Err(wrong_step("update")) };
    let sizes: Dims = facts.shape(node.inputs[1]).into();
    let order: Vec<usize> = (0..sizes.len()).collect();
    let source = operand_access(facts, node.inputs[1], 0, &order)?;
    let strides: Strides = contiguous_strides(&node.shape)
        .iter()
        .zip(&sizes)
        .map(|(&stride, &size)| if size == 1 { 0 } else { stride })
        .collect();
    let target = Access { partial: true, ..Access::new(1, node.dtype, &strides, beyond as isize) };
    Ok(copying(sizes, source, target))
}

/// The memory of which [`update`] overwrites a part.
pub(super) fn overwrite(facts: &Facts<'_>, step: u32, base: Slot) -> PlannedOverwrite {
    let node = &facts.steps[step as usize];
    let reads_base = |input: &&Ref| match (**input, base) {
        (Ref::Leaf(leaf), Slot::Leaf(memory)) => facts.graph.leaves[leaf as usize].memory == memory,
        (Ref::Node(step), Slot::Step(base)) => step == base,
        _ => false,
    };
    let readers = facts.steps.iter().flat_map(|step| &step.inputs).filter(reads_base).count();
    let wanted = match base {
        Slot::Leaf(memory) => facts.graph.memory[memory as usize].kept,
        Slot::Step(base) => {
            let marked = |marks: &[bool]| marks.get(base as usize).copied().unwrap_or(false);
            marked(&facts.graph.held) || marked(&facts.graph.is_root)
        }
    };
    let strides = contiguous_strides(&node.shape);
    let access = |buffer| Access::new(buffer, node.dtype, &strides, 0);
    PlannedOverwrite {
        base,
        copy: Kernel::Loop(copying(node.shape.clone(), access(0), access(1))),
        sole: readers == 1 && !wanted,
        start: node.first_scalar,
    }
}

/// A loop that copies elements.
fn copying(sizes: Dims, source: Access, target: Access) -> Loop {
    let load = Instr::Load { access: 0, indices: Default::default() };
    Loop {
        sizes,
        inner: 0,
        accesses: vec![source, target],
        ranges: Vec::new(),
        body: vec![load],
        stores: vec![Store { access: 1, value: 0 }],
    }
}

/// A scan from its operand in memory.
pub(super) fn scan(facts: &Facts<'_>, step: u32) -> Result<Scan> {
    let node = &facts.steps[step as usize];
    let Op::Scan { op, dim } = node.op else { return Err(wrong_step("scan")) };
    let (sizes, source, target) = along(facts, step, dim)?;
    Ok(Scan { op, sizes, source, target })
}

/// A sort from its operand in memory.
pub(super) fn sort(facts: &Facts<'_>, step: u32) -> Result<Sort> {
    let node = &facts.steps[step as usize];
    let Op::Sort { dim, descending, first } = node.op else { return Err(wrong_step("sort")) };
    let (sizes, source, target) = along(facts, step, dim)?;
    Ok(Sort { descending, sizes, source, target, first, count: node.shape[dim] })
}

/// The sizes of a step's operand, and the accesses to the operand and to the result. In all three, `dim`,
/// along which the step works, is the last dim.
fn along(facts: &Facts<'_>, step: u32, dim: usize) -> Result<(Dims, Access, Access)> {
    let node = &facts.steps[step as usize];
    let order: Vec<usize> = (0..node.shape.len()).filter(|&d| d != dim).chain([dim]).collect();
    let source = operand_access(facts, node.inputs[0], 0, &order)?;
    let dense = contiguous_strides(&node.shape);
    let strides: Strides = order.iter().map(|&d| if node.shape[d] == 1 { 0 } else { dense[d] }).collect();
    let shape = facts.shape(node.inputs[0]);
    let sizes = order.iter().map(|&d| shape[d]).collect();
    Ok((sizes, source, Access::new(1, node.dtype, &strides, 0)))
}

fn not_in_memory() -> Error {
    Error::Unsupported { op: "eval", reason: "an operand is not in memory; please report this".into() }
}

/// The error for a step that is not of the kind for which a kernel was planned.
fn wrong_step(op: &'static str) -> Error {
    Error::Unsupported { op, reason: "a kernel was planned for another operation; please report this".into() }
}
