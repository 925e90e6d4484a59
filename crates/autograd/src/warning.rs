//! Warnings about calls that are allowed and rarely meant: one for each line of the caller's source, as PyTorch's.

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Mutex;

use crate::Tensor;
use crate::tape::lock;

/// The calls that a warning was logged for. There are not more than the program's source has.
static WARNED: Mutex<BTreeSet<Location<'static>>> = Mutex::new(BTreeSet::new());

/// Logs a warning for the caller's line, the first time.
#[track_caller]
fn warn_once(text: impl FnOnce() -> String) {
    let place = Location::caller();
    // Logged after the lock is released: a logger may call anything.
    let first = lock(&WARNED).insert(*place);
    if first {
        log::warn!("{place}: {}", text());
    }
}

/// Warns of a loss whose target has another shape than its input, and is broadcast: of [3, 1] and [3] that makes 9 losses.
#[track_caller]
pub(crate) fn target_broadcasts(op: &'static str, input: &Tensor, target: &Tensor) {
    if input.shape() != target.shape() {
        warn_once(|| {
            format!(
                "{op} broadcasts a target of shape {:?} and an input of shape {:?}, which rarely gives the loss that is meant; \
                 give both the same shape",
                target.shape(),
                input.shape()
            )
        });
    }
}

/// Warns of gradients that keep their own graph: it leads to the leaves, which hold the gradients.
#[track_caller]
pub(crate) fn graph_in_gradients() {
    warn_once(|| {
        "backward with create_graph(true) leaves in each leaf a gradient whose graph leads back to the leaf; use grad(), or call \
         zero_grad() when the gradients are not needed any more, or both stay in memory"
            .to_owned()
    });
}

/// Warns of a source that is written several times. A single number is meant to be.
#[track_caller]
pub(crate) fn source_broadcasts(op: &'static str, tensor: &Tensor, source: &Tensor) {
    if tensor.shape() != source.shape() && source.numel() != 1 {
        warn_once(|| {
            format!(
                "{op} broadcasts a source of shape {:?} to the shape {:?} of the tensor it is written to; if that is meant, \
                 expand() the source",
                source.shape(),
                tensor.shape()
            )
        });
    }
}
