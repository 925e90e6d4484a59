//! A registry of the pending nodes of this process, by the thread that made them.
//!
//! It holds weak references, so it changes neither which nodes count as held nor when memory is freed.
//! Nothing is dropped or evaluated while a list is locked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wgrad_device::Device;

use crate::node::{Node, NodeRef};

/// A list is cleaned of entries that are no longer pending when it reaches this length, and then each time
/// that it has become twice as long.
const SHORTEST: usize = 1024;

/// The nodes that one thread has made.
#[derive(Default)]
struct List(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// The number of nodes that the thread has made.
    made: u64,
    nodes: Vec<(u64, Weak<Node>)>,
    /// The length at which the list is cleaned next.
    limit: usize,
}

/// The lists of all threads. The list of a thread that has ended stays while one of its nodes is pending.
static LISTS: Mutex<Vec<Arc<List>>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: Arc<List> = {
        let list = Arc::new(List::default());
        let mut lists = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
        lists.retain(|list| Arc::strong_count(list) > 1 || !list.lock().nodes.is_empty());
        lists.push(list.clone());
        list
    };
}

impl List {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pending nodes for which `wanted` is true, with their numbers. Entries that are no longer pending
    /// are removed.
    fn pending(&self, wanted: impl Fn(u64, &Node) -> bool) -> Vec<(u64, NodeRef)> {
        let (mut found, mut others) = (Vec::new(), Vec::new());
        let mut entries = self.lock();
        entries.nodes.retain(|(number, weak)| {
            if weak.strong_count() == 0 {
                return false;
            }
            let Some(node) = weak.upgrade() else { return false };
            let pending = node.is_pending();
            if pending && wanted(*number, &node) {
                found.push((*number, node))
            } else {
                others.push(node)
            }
            pending
        });
        entries.limit = (entries.nodes.len() * 2).max(SHORTEST);
        // These may be the last handles to their nodes, so they are dropped after the lock is released.
        drop(entries);
        drop(others);
        found
    }
}

/// Registers a pending node of this thread. The result is its number: how many the thread has made before.
pub(crate) fn add(node: &NodeRef) -> u64 {
    let added = OWN.try_with(|list| {
        let mut entries = list.lock();
        let number = entries.made;
        entries.made += 1;
        entries.nodes.push((number, Arc::downgrade(node)));
        (number, entries.nodes.len() >= entries.limit.max(SHORTEST))
    });
    // The list of a thread that is ending may be gone already; then the node is not registered.
    let Ok((number, long)) = added else { return 0 };
    if long {
        let _ = OWN.try_with(|list| list.pending(|_, _| false));
    }
    number
}

/// The number of nodes that this thread has made.
pub(crate) fn made_here() -> u64 {
    OWN.try_with(|list| list.lock().made).unwrap_or(0)
}

/// This thread's pending nodes for which `wanted` is true, with their numbers, in the order in which they
/// were made.
pub(crate) fn pending_here(wanted: impl Fn(u64, &Node) -> bool) -> Vec<(u64, NodeRef)> {
    OWN.try_with(|list| list.pending(wanted)).unwrap_or_default()
}

/// All threads' pending nodes on a device.
pub(crate) fn pending_anywhere(device: &Device) -> Vec<NodeRef> {
    let lists: Vec<Arc<List>> = LISTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let pending = lists.iter().flat_map(|list| list.pending(|_, node| node.device == *device));
    pending.map(|(_, node)| node).collect()
}
