//! Nodes of the graph of operations, to which the handles ([`Array`](crate::Array)) point.
//!
//! A node's shape, dtype and device never change. Its outcome is set once: the value, or the fault of the
//! data on which the value depends. Until then the node is pending, and holds the operation and its operands.

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

/// A value, or the pending operation that computes it.
pub(crate) struct Node {
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    pub(crate) device: Device,
    /// The line of the program that called for this operation.
    pub(crate) called_at: Option<&'static Location<'static>>,
    /// The method that the program called there, which may consist of many operations. Empty if it is not
    /// known.
    pub(crate) called: &'static str,
    /// Whether it depends on indices that may turn out to be out of range.
    may_fail: bool,
    /// An upper bound of the length of the longest chain of pending operations that ends here. Evaluations
    /// shorten chains without updating it.
    depth: AtomicU32,
    outcome: OnceLock<NodeOutcome>,
    pending: Mutex<Option<Pending>>,
    /// Whether an evaluation has computed results from this node without storing its value.
    visited: AtomicBool,
    /// Whether it is an operand of an operation that was pending when it was made.
    used: AtomicBool,
    /// Whether a run may be overwriting its memory.
    claimed: AtomicBool,
    /// The number of handles that exist only as fallbacks. They are no reason to compute the value.
    kept: AtomicIsize,
}

/// The outcome of an operation.
enum NodeOutcome {
    // Boxed, since most nodes are pending when they are made, and a small node is cheaper to move.
    Value(Box<Value>),
    Fault(Arc<Fault>),
}

/// The memory and the layout of an evaluated array's elements.
#[derive(Clone)]
pub(crate) struct Value {
    pub(crate) buffer: Buffer,
    pub(crate) layout: Layout,
    /// For integers that were uploaded from host memory: the smallest and the largest element. For a view,
    /// those of the viewed array.
    pub(crate) bounds: Option<(i64, i64)>,
}

/// An error in the data on which a value depends. All values that depend on these data have the same fault,
/// for good.
pub(crate) struct Fault {
    pub(crate) error: Error,
    /// Whether the error has been returned to a caller. Then arrays that were written in place fall back to
    /// their previous values.
    reported: AtomicBool,
}

impl Fault {
    pub(crate) fn new(error: Error) -> Arc<Fault> {
        Arc::new(Fault { error, reported: AtomicBool::new(false) })
    }

    /// The error, to be returned to a caller who asked for the value.
    pub(crate) fn report(&self) -> Error {
        self.reported.store(true, Ordering::Relaxed);
        self.error.clone()
    }

    pub(crate) fn is_reported(&self) -> bool {
        self.reported.load(Ordering::Relaxed)
    }
}

/// An operation that has not been computed yet.
pub(crate) struct Pending {
    pub(crate) op: Op,
    pub(crate) inputs: Inputs,
    /// The values that this one replaced in place. They are kept until this one is computed without a fault.
    pub(crate) replaced: SmallVec<[Fallback; 1]>,
}

impl Node {
    /// A node for a pending operation. If an operand has a fault, the node has the same fault.
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

    /// A node with a value.
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

    /// The size of the elements in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.size())
    }

    /// Whether it is pending and its data may turn out to have a fault.
    pub(crate) fn may_fail(&self) -> bool {
        self.may_fail && self.is_pending()
    }

    /// Whether it has no outcome yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.outcome.get().is_none()
    }

    /// The value, if it has been computed.
    pub(crate) fn value(&self) -> Option<&Value> {
        match self.outcome.get() {
            Some(NodeOutcome::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// The fault, if the data on which the value depends have one.
    pub(crate) fn fault(&self) -> Option<&Arc<Fault>> {
        match self.outcome.get() {
            Some(NodeOutcome::Fault(fault)) => Some(fault),
            _ => None,
        }
    }

    /// The pending operation, or `None` once the node has an outcome.
    pub(crate) fn work(&self) -> MutexGuard<'_, Option<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the value. If another thread has set it already, that value stays; both are equal. The values
    /// that this one replaced in place are released.
    pub(crate) fn finish(&self, value: Value) {
        for fallback in self.end(NodeOutcome::Value(Box::new(value))) {
            fallback.clear();
        }
    }

    /// Sets a fault as the outcome.
    pub(crate) fn fail(&self, fault: &Arc<Fault>) {
        self.end(NodeOutcome::Fault(fault.clone()));
    }

    fn end(&self, outcome: NodeOutcome) -> SmallVec<[Fallback; 1]> {
        // The outcome is set before the operation is taken, so that a reader always finds one of the two.
        let _ = self.outcome.set(outcome);
        let work = self.work().take();
        let Some(Pending { inputs, replaced, .. }) = work else { return SmallVec::new() };
        drop_iteratively(inputs);
        replaced
    }

    /// An upper bound of the length of the longest chain of pending operations that ends here.
    pub(crate) fn depth(&self) -> u32 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Sets the exact length of that chain.
    pub(crate) fn set_depth(&self, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// Whether it was ever an operand of another operation.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Notes that an evaluation has computed results from this node without storing its value.
    pub(crate) fn mark_visited(&self) {
        self.visited.store(true, Ordering::Relaxed);
    }

    /// Whether an evaluation has computed results from this node without storing its value.
    pub(crate) fn was_visited(&self) -> bool {
        self.visited.load(Ordering::Relaxed)
    }

    /// Changes the number of handles that exist only as fallbacks.
    pub(crate) fn note_kept(&self, change: isize) {
        self.kept.fetch_add(change, Ordering::Relaxed);
    }

    /// The number of handles, without those that exist only as fallbacks.
    pub(crate) fn holders(self: &Arc<Node>) -> usize {
        Arc::strong_count(self).saturating_add_signed(-self.kept.load(Ordering::Relaxed))
    }

    /// Claims its memory for a run that may overwrite it. False if another run has claimed it.
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

/// Drops a pending operation's operands without recursion, so that a chain of a million operations does not
/// overflow the stack.
fn drop_iteratively(inputs: Inputs) {
    thread_local! {
        static QUEUE: RefCell<Option<Vec<NodeRef>>> = const { RefCell::new(None) };
    }
    if inputs.iter().all(|x| x.depth() <= 1 || Arc::strong_count(x) > 1) {
        return;
    }
    // The outermost call on this thread drops everything in the queue; the calls that this causes only add to
    // it.
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
