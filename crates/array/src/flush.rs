//! Evaluation that nobody asked for: pending work, and the memory that it holds, stay bounded in a program that never reads a value.
//!
//! - A chain of [`MAX_DEPTH`] pending operations is evaluated.
//! - A *step* of training ends where the values that the program keeps are evaluated together: see [`note_update`] and
//!   [`end_step`]. An evaluation that somebody asks for after an update ends the step too, so that it is one plan.
//! - An evaluation also finishes the small pending results, such as counters, that read what it computes.
//! - When memory has grown, and before an allocation fails, the pending values that hold the most memory for their own size are
//!   evaluated.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use wgrad_device::Device;

use crate::graph::{Graph, Offers, Ref};
use crate::node::{Node, NodeRef};
use crate::op::Op;
use crate::{eval, registry};

/// A chain of this many pending operations is evaluated: enough for forward and backward of a deep model to be seen as
/// one graph, few enough that memory held by pending work stays bounded.
const MAX_DEPTH: u32 = 2048;
/// Pending values are evaluated when the device's memory in use has grown by this many bytes, and by a quarter, since the last
/// evaluation.
const MAX_GROWTH: u64 = 64 << 20;
/// Memory is looked at once in so many operations.
const INTERVAL: u64 = 32;
/// A result of at most this many elements is finished along with what it reads.
const SMALL: usize = 1024;
/// Pending values that hold less memory than this are not worth an evaluation of their own.
const LITTLE: usize = 1 << 16;

thread_local! {
    /// The number of this thread's next node when a parameter was last updated, if that has not been evaluated.
    static UPDATED: Cell<Option<u64>> = const { Cell::new(None) };
    /// How many [`Alone`] there are.
    static ALONE: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread's evaluations compute what they are asked for and nothing beside.
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

/// Evaluates a chain, after counting it anew: much of it may have been evaluated since its parts were built.
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

/// Notes that a parameter's new value is pending: what this thread has made so far belongs to a step that ends with the next
/// [`end_step`], or with the next evaluation.
pub fn note_update() {
    UPDATED.set(Some(registry::made_here()));
}

/// Whether a parameter was updated on this thread since the last step ended.
pub fn is_updated() -> bool {
    UPDATED.get().is_some()
}

/// Evaluates what this thread made up to the last update and what somebody still holds: parameters, moments, counters, losses.
/// What fails is met again by whoever reads the values.
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

/// What an evaluation computes beside what it was asked for, if somebody holds it.
#[derive(Default)]
pub(crate) struct Companions {
    /// The rest of the step.
    results: Vec<NodeRef>,
    /// Small results, if they read what is computed.
    followers: Vec<NodeRef>,
    ends_step: bool,
}

impl Companions {
    pub(crate) fn offers(&self) -> Offers<'_> {
        Offers { results: &self.results, followers: &self.followers }
    }

    /// For an evaluation that there is no memory for otherwise.
    pub(crate) fn clear(&mut self) {
        *self = Companions::default();
    }

    /// To be called when they are computed.
    pub(crate) fn done(&self) {
        if self.ends_step {
            UPDATED.set(None);
        }
    }
}

/// What an evaluation on a device that somebody asks for computes beside that.
pub(crate) fn companions(device: &Device) -> Companions {
    if ALONE.get() > 0 {
        return Companions::default();
    }
    let updated = UPDATED.get();
    let of_step = |number: u64| updated.is_some_and(|updated| number < updated);
    // What nothing pending was made of is a result.
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

/// Notes how much memory is in use after an evaluation.
pub(crate) fn note_memory(device: &Device) {
    device.plans().bytes_at_flush.store(device.executor().stats().bytes_in_use, Ordering::Relaxed);
}

/// Whether a node computes something: views and constants need no memory of their own.
fn is_work(node: &NodeRef) -> bool {
    node.work().as_ref().is_some_and(|work| !matches!(work.op, Op::View(_) | Op::Full(_)))
}

/// Evaluates the pending values, of any thread, that hold the most memory for their own size.
pub(crate) fn relieve(device: &Device) {
    if ALONE.get() > 0 {
        return;
    }
    let _alone = Alone::new();
    let pending = registry::pending_anywhere(device);
    let offers = Offers { results: &pending, followers: &[] };
    let graph = Graph::with([], offers, device.executor().limits().binding);
    // The bytes that nobody but pending work holds, by node; what two operands hold together counts twice.
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
