//! Tasks on all threads of rayon's pool, with the caller among them.
//!
//! The caller starts at once and helpers join as they wake up, so that work which is done before that isn't delayed by
//! it: handing work over and waiting for it costs tens of microseconds.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use crate::{Error, Result};

/// Work (instructions times elements, about 0.05 ns each) below which other threads are left alone.
const PARALLEL_WORK: usize = 1 << 18;

/// What threads share while they run the tasks of one call.
struct Job {
    /// Only followed by those who drew a task's number.
    task: *const (dyn Fn(usize) -> Result<()> + Sync),
    tasks: usize,
    /// The next task's number, and beyond the last when all are drawn.
    next: AtomicUsize,
    /// Helpers that may still run a task.
    helping: AtomicUsize,
    first_error: Mutex<Option<(usize, Error)>>,
    caller: Thread,
}

// SAFETY: the function behind `task` is Sync, and outlives every use (see `parallel`).
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Draws tasks and runs them until none is left.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::AcqRel);
            if number >= self.tasks {
                return;
            }
            // SAFETY: the caller of `parallel` waits for everyone who drew a task.
            if let Err(error) = unsafe { (*self.task)(number) } {
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
                    *first = Some((number, error));
                }
            }
        }
    }

    fn help(&self) {
        /// Leaves also when a task unwinds, so that the caller doesn't wait forever.
        struct Leave<'a>(&'a Job);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let caller = self.0.caller.clone();
                if self.0.helping.fetch_sub(1, Ordering::AcqRel) == 1 {
                    caller.unpark();
                }
            }
        }
        // Before a task is drawn: whoever sees that all are drawn then also sees this helper.
        self.helping.fetch_add(1, Ordering::AcqRel);
        let _leave = Leave(self);
        self.work();
    }
}

/// Waits for the helpers that drew tasks, also when the caller's own task unwinds.
struct Wait<'a>(&'a Job);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.next.fetch_max(self.0.tasks, Ordering::AcqRel);
        let mut spins = 0;
        while self.0.helping.load(Ordering::Acquire) > 0 {
            if spins < 1000 {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
        }
    }
}

/// Runs tasks 0..n on all threads if they are worth it, and returns the error of the first task that failed.
pub fn parallel(tasks: usize, work: usize, task: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    if tasks <= 1 || work < PARALLEL_WORK {
        return (0..tasks).try_for_each(task);
    }
    let helpers = (rayon::current_num_threads() - 1).min(tasks - 1);
    if helpers == 0 {
        return (0..tasks).try_for_each(task);
    }
    // SAFETY: only the lifetime changes. A thread follows the pointer only between drawing a task's number and leaving;
    // helpers announce themselves before they draw, and `Wait` keeps this frame alive until all that did have left. Those
    // who come later find no task to draw.
    let task: *const (dyn Fn(usize) -> Result<()> + Sync) = unsafe {
        std::mem::transmute::<
            *const (dyn Fn(usize) -> Result<()> + Sync + '_),
            *const (dyn Fn(usize) -> Result<()> + Sync + 'static),
        >(task)
    };
    let job = Arc::new(Job {
        task,
        tasks,
        next: AtomicUsize::new(0),
        helping: AtomicUsize::new(0),
        first_error: Mutex::new(None),
        caller: std::thread::current(),
    });
    for _ in 0..helpers {
        let job = job.clone();
        rayon::spawn(move || job.help());
    }
    {
        let _wait = Wait(&job);
        job.work();
    }
    let first = job.first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
    first.map_or(Ok(()), |(_, error)| Err(error))
}
