//! Whose turn it is to call OpenGL. All of its devices share one context, which wgpu locks for each call,
//! also for one that waits for the GPU; a thread that cannot lock it within seconds panics there. Here
//! threads wait as long as it takes.

use std::sync::{Condvar, Mutex, PoisonError};

/// Whether somebody has the turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The turn, until it is dropped. It may be handed to another thread, as a mutex's guard may not.
#[derive(Debug)]
pub(super) struct DriverTurn(());

impl DriverTurn {
    /// Waits for the turn where turns are taken. They do not nest.
    pub(super) fn wait(is_taken: bool) -> Option<DriverTurn> {
        is_taken.then(|| {
            let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            let free = FREE.wait_while(taken, |taken| *taken);
            *free.unwrap_or_else(PoisonError::into_inner) = true;
            DriverTurn(())
        })
    }
}

impl Drop for DriverTurn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}
