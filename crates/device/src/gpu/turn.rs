//! Turns at calling OpenGL. All of its devices share one context, which wgpu locks for each call, also for
//! one that waits for the GPU, and wgpu panics in a thread that cannot take the lock within seconds. Here
//! threads wait for their turn as long as it takes.

use std::sync::{Condvar, Mutex, PoisonError};

/// Whether a thread has the turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The turn, which ends when this is dropped. Unlike the guard of a mutex it may be moved to another thread.
#[derive(Debug)]
pub(super) struct DriverTurn(());

impl DriverTurn {
    /// Waits for the turn, if turns are taken on this device. Turns do not nest.
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
