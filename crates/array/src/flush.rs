//! Automatic evaluation: pending work stays bounded in a loop that never reads a value.

use crate::Array;

/// A chain of this many pending operations is evaluated. High enough for forward and backward of a deep model to be seen as one graph, low enough that scheduling
/// stays a small part of a step.
const MAX_DEPTH: u32 = 2048;

/// Evaluates an array whose chain of pending operations has grown too long. An error is met again, and reported, by whoever reads
/// the value.
pub(crate) fn after_building(array: &Array) {
    if array.0.depth >= MAX_DEPTH
        && let Err(error) = array.eval()
    {
        log::warn!("automatic evaluation of {array:?} failed, it stays pending: {error}");
    }
}
