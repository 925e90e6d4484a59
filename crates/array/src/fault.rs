//! Faults of data: which values have one, and why.
//!
//! A kernel that meets an index out of range says so, but not whose index it was: many operations share a kernel. So the
//! indices of the graph that failed are looked at one by one, on this machine. That is slow, and happens once a fault.

use wgrad_device::{Device, Error, Result};

use crate::bounds::first_outside;
use crate::graph::{Graph, Ref};
use crate::node::{Fault, NodeRef};
use crate::op::Op;
use crate::registry;

/// Finds the operations of a graph whose indices are out of range, and gives their fault to all pending values that depend on
/// them. Whether there was one.
///
/// # Errors
/// If computing an index fails for want of resources.
pub(crate) fn find(graph: &Graph, device: &Device) -> Result<bool> {
    let mut found = false;
    for node in &graph.nodes {
        let Some((op, size, index)) = checked(node) else { continue };
        // Computing an index may meet a fault of its own.
        let Some(value) = first_outside_of(&index, size)? else { continue };
        node.fail(&Fault::new(Error::Index { op, index: value, size, called_at: node.called_at }));
        found = true;
        spread(graph);
    }
    if found {
        let pending = registry::pending_anywhere(device);
        let all = Graph::collect(&pending);
        spread(&all);
        all.recycle();
    }
    Ok(found)
}

/// An operation whose index may be out of range: its name, the size of the dim, the index.
fn checked(node: &NodeRef) -> Option<(&'static str, usize, NodeRef)> {
    let work = node.work();
    let work = work.as_ref()?;
    match work.op {
        Op::Gather { dim, name, checked: true } => {
            Some((name, work.inputs[0].shape[dim], work.inputs[1].clone()))
        }
        Op::Scatter { dim, name, checked: true, .. } => Some((name, node.shape[dim], work.inputs[1].clone())),
        _ => None,
    }
}

fn first_outside_of(index: &NodeRef, size: usize) -> Result<Option<i64>> {
    if index.fault().is_some() { Ok(None) } else { first_outside(index, size) }
}

/// Gives the faults of a graph's values to the pending ones that depend on them.
pub(crate) fn spread(graph: &Graph) {
    for (i, node) in graph.nodes.iter().enumerate() {
        let of_input = |input: &Ref| match input {
            Ref::Node(input) => graph.nodes[*input as usize].fault(),
            Ref::Leaf(leaf) => graph.leaves[*leaf as usize].node.fault(),
        };
        if let Some(fault) = graph.inputs(i as u32).iter().find_map(of_input) {
            node.fail(fault);
        }
    }
}
