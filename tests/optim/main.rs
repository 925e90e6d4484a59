//! What must hold of optimisers beside PyTorch's values, which `tests/reference` compares: plans, reads and
//! memory of a training loop, skipped and failed steps, saved states, odd shapes.

#![allow(missing_docs)]

mod counting;
mod kinds;
mod loops;
mod scaling;
mod states;
mod steps;
#[path = "../../crates/device/tests/support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
