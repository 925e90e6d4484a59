//! Automatic evaluation: pending work stays bounded in a loop that never reads a value.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::Array;
use crate::graph::Graph;

/// A chain of this many pending operations is evaluated: enough for forward and backward of a deep model to be seen as
/// one graph, few enough that memory held by pending work stays bounded.
const MAX_DEPTH: u32 = 2048;
/// Pending work is evaluated when the device's memory in use has grown by this many bytes since the last time: what
/// pending operations read cannot be freed before they ran.
const MAX_GROWTH: u64 = 1 << 30;
/// Memory is looked at once in so many operations.
const INTERVAL: u32 = 32;

/// Evaluates an array if too much is pending. An error is met again, and reported, by whoever reads the value.
pub(crate) fn after_building(array: &Array) {
    thread_local! {
        static BUILT: Cell<u32> = const { Cell::new(0) };
    }
    let built = BUILT.get().wrapping_add(1);
    BUILT.set(built);
    if (array.depth() >= MAX_DEPTH && is_deep(array)
        || built.is_multiple_of(INTERVAL) && memory_has_grown(array))
        && let Err(error) = array.eval()
    {
        log::warn!("automatic evaluation of {array:?} failed, it stays pending: {error}");
    }
}

/// Counts the chain anew: much of it may have been evaluated since its parts were built.
fn is_deep(array: &Array) -> bool {
    let graph = Graph::collect(&[array]);
    graph.measure_depths();
    graph.recycle();
    array.depth() >= MAX_DEPTH
}

fn memory_has_grown(array: &Array) -> bool {
    let mark = &array.device().plans().bytes_at_flush;
    let (used, marked) = (array.device().executor().stats().bytes_in_use, mark.load(Ordering::Relaxed));
    let grown = used > marked.saturating_add(MAX_GROWTH);
    if grown || used < marked {
        mark.store(used, Ordering::Relaxed);
    }
    grown
}
