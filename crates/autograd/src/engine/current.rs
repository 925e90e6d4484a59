//! Which nodes the backward of this thread gives gradients to. Only hooks on several tensors ask for that, so it is noted only while
//! there is one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::tape::NodeKey;

/// How many hooks there are that ask.
static ASKING: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The backwards that run, the innermost last.
    static RUNS: RefCell<Vec<(u64, HashSet<NodeKey>)>> = const { RefCell::new(Vec::new()) };
}

/// As long as it lives, backwards note where they go.
pub(crate) struct Asking(());

impl Asking {
    pub(crate) fn new() -> Asking {
        ASKING.fetch_add(1, Ordering::Relaxed);
        Asking(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A backward that has been noted.
pub(super) struct Noted(());

/// Notes a backward that gives gradients to these nodes, if somebody asks.
pub(super) fn note(nodes: impl Iterator<Item = NodeKey>) -> Option<Noted> {
    (ASKING.load(Ordering::Relaxed) > 0).then(|| {
        let run = NEXT.fetch_add(1, Ordering::Relaxed);
        RUNS.with_borrow_mut(|runs| runs.push((run, nodes.collect())));
        Noted(())
    })
}

impl Drop for Noted {
    fn drop(&mut self) {
        RUNS.with_borrow_mut(|runs| drop(runs.pop()));
    }
}

/// The number of the innermost backward.
pub(crate) fn innermost() -> Option<u64> {
    RUNS.with_borrow(|runs| runs.last().map(|(run, _)| *run))
}

/// How many of these nodes get a gradient from the innermost backward.
pub(crate) fn reached(nodes: impl Iterator<Item = NodeKey>) -> usize {
    RUNS.with_borrow(|runs| {
        runs.last().map_or(0, |(_, reached)| nodes.filter(|node| reached.contains(node)).count())
    })
}

/// Whether a backward with this number still runs on this thread.
pub(crate) fn is_running(run: u64) -> bool {
    RUNS.with_borrow(|runs| runs.iter().any(|(number, _)| *number == run))
}
