//! Faults of data: which values have one, and why.
//!
//! A kernel reports that an index was out of range, but not to which operation it belongs, since many
//! operations share a kernel. So the host looks at the indices of the failed graph one by one. That is slow,
//! and happens once for each fault.

use wgrad_device::{Device, Error, Result};

use crate::bounds::first_outside;
use crate::graph::{Graph, Ref};
use crate::node::{Fault, NodeRef};
use crate::op::Op;
use crate::registry;

/// Finds the operations of a graph whose indices are out of range, and sets their fault on all pending nodes
/// that depend on them. False if there is no such operation.
///
/// # Errors
/// If an index cannot be computed, because memory or the device is lacking.
pub(crate) fn find(graph: &Graph, device: &Device) -> Result<bool> {
    let mut found = false;
    for node in &graph.nodes {
        let Some((op, size, index)) = checked(node) else { continue };
        // The index may itself depend on data with a fault.
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

/// For an operation whose index may be out of range: its name, the size of the dim, and the index.
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

/// Sets the faults of a graph's nodes on the pending nodes that depend on them.
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
