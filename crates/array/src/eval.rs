//! Evaluation: collecting a graph, planning it, and running the plan.
//!
//! A failed evaluation leaves everything intact. If memory or the device is lacking, all nodes stay pending.
//! If data have a fault, the values that depend on them have that fault for good (`fault`), and all others
//! are computed.

use std::cell::Cell;
use std::sync::LazyLock;

use wgrad_device::{Device, Error, Result};

use crate::flush::{self, Companions};
use crate::graph::Graph;
use crate::node::{Node, NodeRef};
use crate::{fault, plan};

/// How often an evaluation is repeated after the report of a bad index that belongs to none of its
/// operations.
const MOST_UNEXPLAINED: u32 = 3;

/// Computes these nodes because the program asked for them. The first fault among them is returned, and
/// counts as reported.
pub(crate) fn evaluate<'a>(nodes: impl Iterator<Item = &'a NodeRef> + Clone) -> Result<()> {
    compute(nodes.clone())?;
    match nodes.into_iter().find_map(|node| node.fault()) {
        Some(fault) => Err(fault.report()),
        None => Ok(()),
    }
}

/// Computes these nodes although the program did not ask for them. If that fails they stay pending, and the
/// error is returned to those who read them; the same holds for a fault.
pub(crate) fn evaluate_unasked<'a>(nodes: impl Iterator<Item = &'a NodeRef> + Clone) {
    if let Err(error) = compute(nodes) {
        log::warn!("automatic evaluation failed, what was pending stays pending: {error}");
    }
}

/// Computes this node without companions.
pub(crate) fn compute_alone(node: &NodeRef) -> Result<()> {
    let _alone = flush::Alone::new();
    compute(std::iter::once(node))
}

/// Computes nodes on any devices. Afterwards each has its value, or the fault of its data.
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

/// Computes nodes of a device, and those of the companions that are held elsewhere.
pub(crate) fn compute_on(device: &Device, nodes: &[&NodeRef], companions: &mut Companions) -> Result<()> {
    let (mut relieved, mut unexplained) = (false, 0);
    loop {
        let binding = device.executor().limits().binding;
        let graph = Graph::with(nodes.iter().copied(), companions.offers(), binding);
        match run(graph, device) {
            Ok(true) => break,
            // Faults were found, or another thread has computed a part: the graph is collected again, and is
            // smaller.
            Ok(false) => {}
            Err(Error::OutOfMemory { .. }) if !relieved => {
                relieved = true;
                companions.clear();
                flush::relieve(device);
            }
            // The reported index may belong to another thread's graph.
            Err(Error::Index { .. }) if unexplained < MOST_UNEXPLAINED => unexplained += 1,
            Err(error) => return Err(error),
        }
    }
    companions.done();
    flush::note_memory(device);
    Ok(())
}

/// Runs a graph. False if a part of it still has to be computed.
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
                // Another thread is overwriting an array that this graph reads, and will soon be done.
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

/// Runs a closure with fusion on or off for this thread, whatever `WGRAD_FUSION` says. Without fusion every
/// operation has a kernel of its own. That is slow, and serves as the reference with which fused results are
/// compared.
///
/// ```
/// use wgrad_array::{Array, BinaryOp, Device, UnaryOp, with_fusion};
/// let x = Array::from_slice(&[0.0f32, 1.0], &[2], &Device::cpu())?;
/// let y = x.unary(UnaryOp::Exp)?.binary(BinaryOp::Add, &x)?;
/// assert_eq!(with_fusion(true, || y.explain())?.launches(), 1);
/// assert_eq!(with_fusion(false, || y.explain())?.launches(), 2);
/// # Ok::<(), wgrad_array::Error>(())
/// ```
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

/// The error for a node without a value after a successful evaluation.
pub(crate) fn lost_value(op: &'static str, node: &Node) -> Error {
    Error::Unsupported {
        op,
        reason: format!(
            "an array {}{:?} has no value after its evaluation; please report this",
            node.dtype, node.shape
        ),
    }
}
