//! Evaluation: collect, plan, run; and what an evaluation brings to an end beside what was asked for.
//!
//! An evaluation that fails changes nothing. If resources were missing, everything pending stays pending. If the data have a
//! fault, the values that depend on it have that fault for good (`fault`), and all others are computed.

use std::cell::Cell;
use std::sync::LazyLock;

use wgrad_device::{Device, Error, Result};

use crate::flush::{self, Companions};
use crate::graph::Graph;
use crate::node::{Node, NodeRef};
use crate::{fault, plan};

/// How often an evaluation is tried again after an index out of range that none of its operations has.
const MOST_UNEXPLAINED: u32 = 3;

/// Computes these nodes and all that they need, because somebody asked for them. The first fault among them is reported.
pub(crate) fn evaluate<'a>(nodes: impl Iterator<Item = &'a NodeRef> + Clone) -> Result<()> {
    compute(nodes.clone())?;
    match nodes.into_iter().find_map(|node| node.fault()) {
        Some(fault) => Err(fault.report()),
        None => Ok(()),
    }
}

/// Computes these nodes and all that they need, though nobody asked for them. What fails for want of resources stays pending, and
/// is met again by whoever reads the values; so is a fault.
pub(crate) fn evaluate_unasked<'a>(nodes: impl Iterator<Item = &'a NodeRef> + Clone) {
    if let Err(error) = compute(nodes) {
        log::warn!("automatic evaluation failed, what was pending stays pending: {error}");
    }
}

/// Computes this node and what it needs, and nothing beside.
pub(crate) fn compute_alone(node: &NodeRef) -> Result<()> {
    let _alone = flush::Alone::new();
    compute(std::iter::once(node))
}

/// Computes nodes of any devices. Those whose data have a fault have it afterwards.
fn compute<'a>(nodes: impl Iterator<Item = &'a NodeRef> + Clone) -> Result<()> {
    let mut waiting: Vec<&NodeRef> = nodes.filter(|node| node.is_pending()).collect();
    while let Some(device) = waiting.first().map(|node| node.device.clone()) {
        let (here, elsewhere): (Vec<&NodeRef>, _) = waiting.into_iter().partition(|n| n.device == device);
        let mut companions = flush::companions(&device);
        compute_on(&device, &here, &mut companions)?;
        waiting = elsewhere;
    }
    Ok(())
}

/// Computes nodes of a device, and of their companions those that somebody holds.
pub(crate) fn compute_on(device: &Device, nodes: &[&NodeRef], companions: &mut Companions) -> Result<()> {
    let (mut relieved, mut unexplained) = (false, 0);
    loop {
        let binding = device.executor().limits().binding;
        let graph = Graph::with(nodes.iter().copied(), companions.offers(), binding);
        match run(graph, device) {
            Ok(true) => break,
            // Faults were found, or another thread was faster: the graph has become smaller.
            Ok(false) => {}
            Err(Error::OutOfMemory { .. }) if !relieved => {
                relieved = true;
                companions.clear();
                flush::relieve(device);
            }
            // Another thread's index, whose fault was met here.
            Err(Error::Index { .. }) if unexplained < MOST_UNEXPLAINED => unexplained += 1,
            Err(error) => return Err(error),
        }
    }
    companions.done();
    flush::note_memory(device);
    Ok(())
}

/// Runs a graph; whether all of it is done.
pub(crate) fn run(mut graph: Graph, device: &Device) -> Result<bool> {
    if graph.has_fault {
        fault::spread(&graph);
        graph.recycle();
        return Ok(false);
    }
    let done = if graph.roots.is_empty() {
        Ok(true)
    } else {
        match plan::plan(&mut graph, device, fusion()) {
            Ok(Some(plan)) => match plan.run(&graph, device) {
                // The other thread will soon be done with what this graph wants too.
                Ok(false) => {
                    std::thread::yield_now();
                    Ok(false)
                }
                Ok(true) => Ok(true),
                Err(error @ Error::Index { .. }) => {
                    fault::find(&graph, device).and_then(|found| if found { Ok(false) } else { Err(error) })
                }
                Err(error) => Err(error),
            },
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        }
    };
    graph.recycle();
    done
}

thread_local! {
    static FUSION: Cell<Option<bool>> = const { Cell::new(None) };
}

static FUSION_BY_DEFAULT: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("WGRAD_FUSION").is_none_or(|value| value != "0"));

pub(crate) fn fusion() -> bool {
    FUSION.get().unwrap_or(*FUSION_BY_DEFAULT)
}

/// Runs a closure with fusion switched on or off for this thread, whatever `WGRAD_FUSION` says. Without it every operation is evaluated on its own: slow, and the
/// reference that fused results are compared with.
pub fn with_fusion<R>(on: bool, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FUSION.set(self.0);
        }
    }
    let _restore = Restore(FUSION.replace(Some(on)));
    run()
}

/// The error for a value that is not there after a successful evaluation.
pub(crate) fn lost_value(op: &'static str, node: &Node) -> Error {
    Error::Unsupported {
        op,
        reason: format!(
            "an array {}{:?} has no value after its evaluation; please report this",
            node.dtype, node.shape
        ),
    }
}
