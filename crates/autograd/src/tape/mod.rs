//! The tape: one arena with all recorded nodes of the process.
//!
//! A node lives in a slot that its owners (tensors, and the nodes recorded after it) count. The last owner frees the
//! slot at once, without recursion however long the chain of nodes behind it is. A slot is reused under a new
//! generation, so that a key held weakly finds its own node or none.
//!
//! Locks are held for a few instructions only, never while a kernel or user code runs or a value is dropped.

mod node;
mod record;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use node::{
    Context, Edge, Function, Grads, Meta, Mismatch, Node, Outputs, SavedValue, Source, mismatch,
};
pub(crate) use record::{Derivative, Operand, output_edges, record, record_edge, record_outputs};

/// Locks a mutex. Nothing that may panic runs under the tape's and the tensors' locks, so poison says nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the tape; see [`stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapeStats {
    /// Nodes alive now.
    pub live: u64,
    /// Nodes recorded since the process started.
    pub recorded: u64,
    /// Slots that exist, in use or free.
    pub slots: u64,
}

/// How many nodes live on the tape, and how many were ever recorded.
///
/// ```
/// use wgrad_autograd::{Device, Tensor, tape};
/// let x = Tensor::ones([3], &Device::cpu())?.requires_grad_(true)?;
/// let before = tape::stats().live;
/// let y = x.exp()?.sum()?;
/// assert_eq!(tape::stats().live, before + 3); // exp, sum and the leaf's AccumulateGrad
/// drop(y);
/// assert_eq!(tape::stats().live, before);
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
pub fn stats() -> TapeStats {
    let mut stats =
        TapeStats { live: 0, recorded: 0, slots: u64::from(TAPE.claimed.load(Ordering::Relaxed)) };
    let mut freed = 0;
    for shard in &TAPE.shards {
        let shard = lock(shard);
        stats.recorded += shard.recorded;
        freed += shard.freed;
    }
    // Shards are read one after the other; a node may move from one's count to the other's in between.
    stats.live = stats.recorded.saturating_sub(freed);
    stats
}

/// The next sequence number: larger than that of every node an operation starting now can depend on.
pub(crate) fn next_sequence() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const SHARDS: usize = 16;
/// The first chunk has 2^10 slots, each further one twice as many.
const FIRST_CHUNK_BITS: u32 = 10;
const CHUNKS: usize = 22;
/// Slots a shard claims at a time.
const CLAIM: u32 = 64;
const LAST_CLAIM: u32 = u32::MAX - (1 << FIRST_CHUNK_BITS) - SHARDS as u32 * CLAIM;

static TAPE: Tape = Tape {
    chunks: [const { OnceLock::new() }; CHUNKS],
    shards: [const { Mutex::new(Shard { free: Vec::new(), recorded: 0, freed: 0 }) }; SHARDS],
    claimed: AtomicU32::new(0),
};

struct Tape {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    shards: [Mutex<Shard>; SHARDS],
    claimed: AtomicU32,
}

/// Free slots, and counts. Each thread works with one shard, so that threads seldom wait for each other.
struct Shard {
    free: Vec<u32>,
    recorded: u64,
    freed: u64,
}

struct Slot {
    /// The generation in the upper half, the number of owners in the lower.
    owners: AtomicU64,
    node: Mutex<Option<Node>>,
}

impl Tape {
    fn slot(&self, index: u32) -> &Slot {
        let position = index + (1 << FIRST_CHUNK_BITS);
        let bits = u32::BITS - 1 - position.leading_zeros();
        let chunk = self.chunks[(bits - FIRST_CHUNK_BITS) as usize].get_or_init(|| {
            (0..1usize << bits).map(|_| Slot { owners: AtomicU64::new(0), node: Mutex::new(None) }).collect()
        });
        &chunk[(position - (1 << bits)) as usize]
    }

    fn shard(&self) -> &Mutex<Shard> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) as usize % SHARDS;
        }
        &self.shards[MINE.try_with(|&mine| mine).unwrap_or(0)]
    }

    /// A free slot's index. Fresh ones are claimed in small blocks.
    fn take_slot(&self) -> u32 {
        let mut shard = lock(self.shard());
        shard.recorded += 1;
        if let Some(index) = shard.free.pop() {
            return index;
        }
        let first = self.claimed.fetch_add(CLAIM, Ordering::Relaxed);
        // Four thousand million live nodes take a terabyte; memory ends long before.
        assert!(first < LAST_CLAIM, "the tape is full");
        shard.free.extend((first + 1..first + CLAIM).rev());
        first
    }
}

/// Which node, and which use of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeKey {
    index: u32,
    generation: u32,
}

impl NodeKey {
    /// The slot's number: dense, for tables indexed by node.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// An owner of the node, if it still lives.
    pub(crate) fn upgrade(self) -> Option<NodeRef> {
        let owners = &TAPE.slot(self.index).owners;
        let mut current = owners.load(Ordering::Relaxed);
        loop {
            if (current >> 32) as u32 != self.generation || current as u32 == 0 {
                return None;
            }
            match owners.compare_exchange_weak(current, current + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(NodeRef(self)),
                Err(now) => current = now,
            }
        }
    }

    /// Looks at a node that somebody is known to own. `None` only if that was wrong.
    pub(crate) fn with<R>(self, look: impl FnOnce(&mut Node) -> R) -> Option<R> {
        let slot = TAPE.slot(self.index);
        let mut node = lock(&slot.node);
        if (slot.owners.load(Ordering::Relaxed) >> 32) as u32 != self.generation {
            return None;
        }
        node.as_mut().map(look)
    }
}

/// An owner of a node.
#[derive(Debug)]
pub(crate) struct NodeRef(NodeKey);

impl NodeRef {
    /// Puts a node on the tape.
    #[inline]
    pub(crate) fn insert(node: Node) -> NodeRef {
        let index = TAPE.take_slot();
        let slot = TAPE.slot(index);
        *lock(&slot.node) = Some(node);
        let owners = slot.owners.fetch_add(1, Ordering::Release);
        NodeRef(NodeKey { index, generation: (owners >> 32) as u32 })
    }

    pub(crate) fn key(&self) -> NodeKey {
        self.0
    }

    /// Looks at the node. User code and drops of values belong outside.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Node) -> R) -> R {
        match lock(&TAPE.slot(self.0.index).node).as_mut() {
            Some(node) => look(node),
            None => unreachable!("an owned node is in its slot"),
        }
    }
}

impl Clone for NodeRef {
    fn clone(&self) -> NodeRef {
        TAPE.slot(self.0.index).owners.fetch_add(1, Ordering::Relaxed);
        NodeRef(self.0)
    }
}

impl PartialEq for NodeRef {
    fn eq(&self, other: &NodeRef) -> bool {
        self.0 == other.0
    }
}

impl Drop for NodeRef {
    fn drop(&mut self) {
        let slot = TAPE.slot(self.0.index);
        if slot.owners.fetch_sub(1, Ordering::Release) as u32 != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let node = lock(&slot.node).take();
        slot.owners.store(u64::from(self.0.generation.wrapping_add(1)) << 32, Ordering::Release);
        {
            let mut shard = lock(TAPE.shard());
            shard.free.push(self.0.index);
            shard.freed += 1;
        }
        if let Some(node) = node {
            drop_iteratively(node);
        }
    }
}

/// Drops a node, and what only it owned, without recursion.
fn drop_iteratively(node: Node) {
    thread_local! {
        static QUEUE: RefCell<Option<Vec<Node>>> = const { RefCell::new(None) };
    }
    let mut first = Some(node);
    // The outermost drop on this thread works the queue off; inner ones only add to it.
    let outermost = QUEUE.try_with(|queue| match (&mut *queue.borrow_mut(), first.take()) {
        (Some(queue), Some(node)) => {
            queue.push(node);
            false
        }
        (empty, node) => {
            *empty = Some(Vec::new());
            first = node;
            true
        }
    });
    drop(first);
    if outermost == Ok(true) {
        while let Some(node) = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Vec::pop)) {
            drop(node);
        }
        QUEUE.set(None);
    }
}
