//! Automatic evaluation. It bounds pending work, and the memory that it holds, in a program that never reads
//! a value.
//!
//! - A chain of [`MAX_DEPTH`] pending operations is evaluated.
//! - At the end of a training *step*, the values that the program still holds are evaluated together: see
//!   [`note_update`] and [`end_step`]. If the program itself asks for a value after an update, that
//!   evaluation ends the step, so that the step takes one plan.
//! - An evaluation also computes small pending results, such as counters, that depend on what it computes.
//! - When the memory in use has grown, and before an allocation fails, those pending values are evaluated
//!   that hold much more memory than their own size.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use wgrad_device::Device;

use crate::graph::{Graph, Offers, Ref};
use crate::node::{Node, NodeRef};
use crate::op::Op;
use crate::{eval, registry};

/// A chain of this many pending operations is evaluated. Forward and backward of a deep model still fit into
/// one graph, and the memory held by pending work stays bounded.
const MAX_DEPTH: u32 = 2048;
/// Pending values are evaluated when the device's memory in use has grown, since the last evaluation, by this
/// many bytes and by a quarter.
const MAX_GROWTH: u64 = 64 << 20;
/// The memory in use is checked once for each this many operations.
const INTERVAL: u64 = 32;
/// A pending result of at most this many elements is computed along with the values that it reads.
const SMALL: usize = 1024;
/// A pending value that holds fewer bytes than this is not worth an evaluation of its own.
const LITTLE: usize = 1 << 16;

thread_local! {
    /// The number of this thread's next node at the last update of a parameter, unless that has been
    /// evaluated since.
    static UPDATED: Cell<Option<u64>> = const { Cell::new(None) };
    /// The number of living [`Alone`] guards.
    static ALONE: Cell<u32> = const { Cell::new(0) };
}

/// A guard: while it lives, this thread's evaluations compute only what they are asked for.
pub(crate) struct Alone(());

impl Alone {
    pub(crate) fn new() -> Alone {
        ALONE.set(ALONE.get() + 1);
        Alone(())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        ALONE.set(ALONE.get() - 1);
    }
}

/// Registers a pending node that was just made, and evaluates if too much is pending.
pub(crate) fn after_building(node: &NodeRef) {
    let number = registry::add(node);
    if node.depth() >= MAX_DEPTH {
        evaluate_deep(node);
    } else if number % INTERVAL == INTERVAL - 1 && memory_has_grown(&node.device) {
        relieve(&node.device);
    }
}

/// Evaluates a chain if it is still too long: parts of it may have been evaluated since the depths were
/// counted.
fn evaluate_deep(node: &NodeRef) {
    let graph = Graph::with([node], Offers::default(), node.device.executor().limits().binding);
    graph.measure_depths();
    if node.depth() < MAX_DEPTH {
        return graph.recycle();
    }
    match eval::run(graph, &node.device) {
        Ok(true) => {}
        Ok(false) => eval::evaluate_unasked(std::iter::once(node)),
        Err(error) => log::warn!("automatic evaluation failed, what was pending stays pending: {error}"),
    }
}

fn memory_has_grown(device: &Device) -> bool {
    let mark = &device.plans().bytes_at_flush;
    let (used, marked) = (device.executor().stats().bytes_in_use, mark.load(Ordering::Relaxed));
    let grown = used > marked.saturating_add(MAX_GROWTH.max(marked / 4));
    if grown || used < marked {
        mark.store(used, Ordering::Relaxed);
    }
    grown
}

/// Notes that a parameter's new value is pending. The arrays that this thread has made so far belong to a
/// step, which ends with the next [`end_step`] or with the next evaluation.
pub fn note_update() {
    UPDATED.set(Some(registry::made_here()));
}

/// Whether a parameter was updated on this thread since the last step ended.
pub fn is_updated() -> bool {
    UPDATED.get().is_some()
}

/// Evaluates the arrays that this thread made before the last update and that are still held: parameters,
/// moments, counters, losses. If that fails they stay pending, and the error is returned to those who read
/// them.
///
/// ```
/// use wgrad_array::{Array, BinaryOp, Device, end_step, is_updated, note_update};
/// let mut weight = Array::from_slice(&[1.0f32, 2.0], &[2], &Device::cpu())?;
/// weight = weight.binary_scalar(BinaryOp::Sub, 0.25)?;
/// note_update();
/// assert!(is_updated() && weight.is_pending());
/// end_step();
/// assert!(weight.is_evaluated());
/// # Ok::<(), wgrad_array::Error>(())
/// ```
pub fn end_step() {
    let Some(updated) = UPDATED.take() else { return };
    let pending = registry::pending_here(|number, _| number < updated);
    let mut pending: Vec<NodeRef> = pending.into_iter().map(|(_, node)| node).filter(is_work).collect();
    while let Some(device) = pending.first().map(|node| node.device.clone()) {
        let (results, elsewhere) = pending.into_iter().partition(|node| node.device == device);
        let mut companions = Companions { results, ..Companions::default() };
        if let Err(error) = eval::compute_on(&device, &[], &mut companions) {
            log::warn!("the end of a step failed, what was pending stays pending: {error}");
        }
        pending = elsewhere;
    }
}

/// The nodes that an evaluation computes in addition to those that it was asked for, if they are held
/// elsewhere.
#[derive(Default)]
pub(crate) struct Companions {
    /// The other results of the step.
    results: Vec<NodeRef>,
    /// Small results. They are computed if they depend on what the evaluation computes.
    followers: Vec<NodeRef>,
    ends_step: bool,
}

impl Companions {
    pub(crate) fn offers(&self) -> Offers<'_> {
        Offers { results: &self.results, followers: &self.followers }
    }

    /// Leaves them out, for an evaluation that lacks memory.
    pub(crate) fn clear(&mut self) {
        *self = Companions::default();
    }

    /// Must be called when they have been computed.
    pub(crate) fn done(&self) {
        if self.ends_step {
            UPDATED.set(None);
        }
    }
}

/// The companions of an evaluation on a device that the program asks for.
pub(crate) fn companions(device: &Device) -> Companions {
    if ALONE.get() > 0 {
        return Companions::default();
    }
    let updated = UPDATED.get();
    let of_step = |number: u64| updated.is_some_and(|updated| number < updated);
    // A node that is no operand of another one is a result.
    let small = |node: &Node| !node.was_used() && node.elements() <= SMALL;
    let mut pending =
        registry::pending_here(|number, node| node.device == *device && (of_step(number) || small(node)));
    let step = pending.partition_point(|(number, _)| of_step(*number));
    let followers = pending.split_off(step).into_iter().map(|(_, node)| node);
    let results = pending.into_iter().map(|(_, node)| node);
    Companions {
        results: results.filter(is_work).collect(),
        followers: followers.filter(is_work).collect(),
        ends_step: updated.is_some(),
    }
}

/// Notes the memory in use after an evaluation.
pub(crate) fn note_memory(device: &Device) {
    device.plans().bytes_at_flush.store(device.executor().stats().bytes_in_use, Ordering::Relaxed);
}

/// Whether a node is more than a view or a constant, which need no memory of their own.
fn is_work(node: &NodeRef) -> bool {
    node.work().as_ref().is_some_and(|work| !matches!(work.op, Op::View(_) | Op::Full(_)))
}

/// Evaluates the pending values of all threads that hold much more memory than their own size.
pub(crate) fn relieve(device: &Device) {
    if ALONE.get() > 0 {
        return;
    }
    let _alone = Alone::new();
    let pending = registry::pending_anywhere(device);
    let offers = Offers { results: &pending, followers: &[] };
    let graph = Graph::with([], offers, device.executor().limits().binding);
    // For each node the bytes that only pending work holds. Memory that two operands hold counts twice.
    let mut holds = vec![0usize; graph.nodes.len()];
    let mut chosen = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let of_input = |input: &Ref| match input {
            Ref::Node(node) => holds[*node as usize],
            Ref::Leaf(leaf) => {
                let leaf = &graph.leaves[*leaf as usize];
                let memory = graph.memory.get(leaf.memory as usize);
                memory.filter(|memory| !memory.kept).map_or(0, |memory| memory.buffer.bytes())
            }
        };
        holds[i] = graph.inputs(i as u32).iter().map(of_input).fold(0, usize::saturating_add);
        if graph.is_root[i] && is_work(node) && holds[i] >= LITTLE && holds[i] / 2 > node.bytes() {
            chosen.push(node.clone());
        }
    }
    graph.recycle();
    drop(pending);
    eval::evaluate_unasked(chosen.iter());
}
