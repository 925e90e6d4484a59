//! Nodes: what a handle to an array points to.
//!
//! A node's shape, dtype and device never change. Its outcome is set once: the value, or the fault of the data that the value
//! depends on. Until then the node is pending, and holds the operation and its operands.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use smallvec::SmallVec;
use wgrad_device::layout::Dims;
use wgrad_device::{Buffer, DType, Device, Error, Layout, Scalar};

use crate::fallback::Fallback;
use crate::op::Op;
use crate::site;

/// A shared node.
pub(crate) type NodeRef = Arc<Node>;

/// The operands of a pending operation.
pub(crate) type Inputs = SmallVec<[NodeRef; 3]>;

/// A value, or what is known of it before it is there.
pub(crate) struct Node {
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    /// The line of the program that asked for this operation.
    pub(crate) called_at: Option<&'static Location<'static>>,
    /// What the program called there: perhaps a method made of many operations. Empty if nobody said.
    pub(crate) called: &'static str,
    /// It is made of indices that may turn out to be out of range.
    may_fail: bool,
    /// The longest chain of pending operations that ends here; at least, since evaluations shorten it unnoticed.
    depth: AtomicU32,
    outcome: OnceLock<NodeOutcome>,
    pending: Mutex<Option<Pending>>,
    /// An evaluation has passed over this node without storing it.
    visited: AtomicBool,
    /// Pending work has been made of it.
    used: AtomicBool,
    /// A run may be writing over its memory.
    claimed: AtomicBool,
    /// How often it is held only to be gone back to, which is no reason to compute it.
    kept: AtomicIsize,
}

/// How the work ended.
enum NodeOutcome {
    // Most nodes are made pending, and are moved about less if they are small.
    Value(Box<Value>),
    Fault(Arc<Fault>),
}

/// Where an evaluated array's elements lie.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) buffer: Buffer,
    pub(crate) layout: Layout,
    /// The smallest and the largest element of integers that came from this machine's memory; of a view, those of the whole.
    pub(crate) bounds: Option<(i64, i64)>,
}

/// What is wrong with the data that a value depends on. All values that depend on it have the same fault, for good.
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Somebody has got the error: what was written in place goes back to what it was before.
    reported: AtomicBool,
}

impl Fault {
    pub(crate) fn new(error: Error) -> Arc<Fault> {
        Arc::new(Fault { error, reported: AtomicBool::new(false) })
    }

    /// The error, for somebody who asked for the value.
    pub(crate) fn report(&self) -> Error {
        self.reported.store(true, Ordering::Relaxed);
        self.error.clone()
    }

    pub(crate) fn is_reported(&self) -> bool {
        self.reported.load(Ordering::Relaxed)
    }
}

/// Work that has not been done.
pub(crate) struct Pending {
    pub(crate) op: Op,
    pub(crate) inputs: Inputs,
    /// The values that this one replaced in place, kept until it is known to be good.
    pub(crate) replaced: SmallVec<[Fallback; 1]>,
}

impl Node {
    /// A pending operation, or the fault of one of its operands.
    pub(crate) fn pending(op: Op, inputs: Inputs, shape: Dims, dtype: DType, device: &Device) -> NodeRef {
        let call = site::call();
        for input in &inputs {
            input.used.store(true, Ordering::Relaxed);
        }
        let depth = 1 + inputs.iter().map(|x| if x.is_pending() { x.depth() } else { 0 }).max().unwrap_or(0);
        let fault = inputs.iter().find_map(|input| input.fault());
        let may_fail = op.may_fail() || inputs.iter().any(|input| input.may_fail());
        let (outcome, pending) = match fault {
            Some(fault) => (OnceLock::from(NodeOutcome::Fault(fault.clone())), None),
            None => (OnceLock::new(), Some(Pending { op, inputs, replaced: SmallVec::new() })),
        };
        Arc::new(Node {
            shape,
            dtype,
            device: device.clone(),
            called_at: call.map(|call| call.line),
            called: call.map_or("", |call| call.name),
            may_fail,
            depth: AtomicU32::new(depth),
            outcome,
            pending: Mutex::new(pending),
            visited: AtomicBool::new(false),
            used: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            kept: AtomicIsize::new(0),
        })
    }

    /// A value that is there.
    pub(crate) fn evaluated(value: Value, dtype: DType, device: &Device) -> NodeRef {
        Arc::new(Node {
            shape: value.layout.shape().into(),
            dtype,
            device: device.clone(),
            called_at: None,
            called: "",
            may_fail: false,
            depth: AtomicU32::new(0),
            outcome: OnceLock::from(NodeOutcome::Value(Box::new(value))),
            pending: Mutex::new(None),
            visited: AtomicBool::new(false),
            used: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            kept: AtomicIsize::new(0),
        })
    }

    /// The number of elements.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of the elements.
    pub(crate) fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.size())
    }

    /// Whether its data may turn out to have a fault.
    pub(crate) fn may_fail(&self) -> bool {
        self.may_fail && self.is_pending()
    }

    /// Whether the work has not been done.
    pub(crate) fn is_pending(&self) -> bool {
        self.outcome.get().is_none()
    }

    /// The value, if it is there.
    pub(crate) fn value(&self) -> Option<&Value> {
        match self.outcome.get() {
            Some(NodeOutcome::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// The fault, if the data that the value depends on has one.
    pub(crate) fn fault(&self) -> Option<&Arc<Fault>> {
        match self.outcome.get() {
            Some(NodeOutcome::Fault(fault)) => Some(fault),
            _ => None,
        }
    }

    /// The pending work, or `None` once it has ended.
    pub(crate) fn work(&self) -> MutexGuard<'_, Option<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pending work with its result. If another thread was faster, its result stays: both are the same. What the value
    /// replaced in place is not needed any more.
    pub(crate) fn finish(&self, value: Value) {
        for fallback in self.end(NodeOutcome::Value(Box::new(value))) {
            fallback.clear();
        }
    }

    /// Ends the pending work with a fault.
    pub(crate) fn fail(&self, fault: &Arc<Fault>) {
        self.end(NodeOutcome::Fault(fault.clone()));
    }

    fn end(&self, outcome: NodeOutcome) -> SmallVec<[Fallback; 1]> {
        // The outcome must be there before the work goes, so that a reader finds one of the two.
        let _ = self.outcome.set(outcome);
        let work = self.work().take();
        let Some(Pending { inputs, replaced, .. }) = work else { return SmallVec::new() };
        drop_iteratively(inputs);
        replaced
    }

    /// At least the length of the longest chain of pending operations that ends here.
    pub(crate) fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Notes how long that chain really is.
    pub(crate) fn set_depth(&self, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Whether pending work was ever made of it.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that an evaluation passed over this node without storing it.
    pub(crate) fn mark_visited(&self) {
        self.visited.store(true, Ordering::Relaxed);
    }

    /// Whether an evaluation passed over this node without storing it.
    pub(crate) fn was_visited(&self) -> bool {
        self.visited.load(Ordering::Relaxed)
    }

    /// Notes that it is held once more, or once less, only to be gone back to.
    pub(crate) fn note_kept(&self, change: isize) {
        self.kept.fetch_add(change, Ordering::Relaxed);
    }

    /// How many hold it for a use of it.
    pub(crate) fn holders(self: &Arc<Node>) -> usize {
        Arc::strong_count(self).saturating_add_signed(-self.kept.load(Ordering::Relaxed))
    }

    /// Claims its memory for a run that may write over it; whether no other run has it.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Acquire)
    }

    /// Ends a claim.
    pub(crate) fn release(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// The constant that fills it, if it is a pending [`Op::Full`].
    pub(crate) fn as_full(&self) -> Option<Scalar> {
        if self.depth() != 1 || !self.is_pending() {
            return None;
        }
        match self.work().as_ref()?.op {
            Op::Full(value) => Some(value),
            _ => None,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(work) = self.pending.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop_iteratively(work.inputs);
        }
    }
}

/// Drops a pending operation's operands without recursion: a chain of a million operations must not overflow the stack.
fn drop_iteratively(inputs: Inputs) {
    thread_local! {
        static QUEUE: RefCell<Option<Vec<NodeRef>>> = const { RefCell::new(None) };
    }
    if inputs.iter().all(|x| x.depth() <= 1 || Arc::strong_count(x) > 1) {
        return;
    }
    // The outermost drop on this thread works the queue off; inner ones only add to it.
    let outermost = QUEUE.try_with(|queue| {
        let mut queue = queue.borrow_mut();
        match queue.as_mut() {
            Some(queue) => {
                queue.extend(inputs);
                false
            }
            None => {
                *queue = Some(inputs.into_iter().collect());
                true
            }
        }
    });
    if outermost == Ok(true) {
        while let Some(node) = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Vec::pop)) {
            drop(node);
        }
        QUEUE.set(None);
    }
}
