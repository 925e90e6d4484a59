//! Runs tasks on the threads of rayon's pool and on the caller.
//!
//! The caller starts at once, and helpers join as they wake up. Handing work over and waiting for it takes
//! tens of microseconds, which would delay work that is done before that.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use crate::{Error, Result};

/// The least work, in instructions times elements (about 0.05 ns each), that is shared with other threads.
const PARALLEL_WORK: usize = 1 << 18;

/// The state that threads share while they run the tasks of one call.
struct Job {
    /// Only dereferenced by a thread that has drawn a task's number.
    task: *const (dyn Fn(usize) -> Result<()> + Sync),
    tasks: usize,
    /// The number of the next task; at least `tasks` once all have been drawn.
    next: AtomicUsize,
    /// The number of helpers that may still run a task.
    helping: AtomicUsize,
    first_error: Mutex<Option<(usize, Error)>>,
    caller: Thread,
}

// SAFETY: the function behind `task` is Sync, and `parallel` returns only after the last thread that may call
// it has left, so the pointer is valid on every thread that dereferences it.
unsafe impl Send for Job {}
// SAFETY: `task` may be called from several threads at once, since the function is Sync; all other fields are
// Sync themselves.
unsafe impl Sync for Job {}

impl Job {
    /// Draws tasks and runs them until none is left.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::AcqRel);
            if number >= self.tasks {
                return;
            }
            // SAFETY: the number is below `tasks`, so this thread drew a task before `Wait` set `next` to
            // `tasks`. The thread is the caller itself, or a helper that `helping` counts and `Wait` waits
            // for. So the function is still alive.
            if let Err(error) = unsafe { (*self.task)(number) } {
                let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
                    *first = Some((number, error));
                }
            }
        }
    }

    fn help(&self) {
        /// Counts the helper as gone also when a task unwinds, so that the caller does not wait forever.
        struct Leave<'a>(&'a Job);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let caller = self.0.caller.clone();
                if self.0.helping.fetch_sub(1, Ordering::AcqRel) == 1 {
                    caller.unpark();
                }
            }
        }
        // The helper is counted before it draws a task, so that a thread that sees all tasks drawn also sees
        // this helper.
        self.helping.fetch_add(1, Ordering::AcqRel);
        let _leave = Leave(self);
        self.work();
    }
}

/// Waits for the helpers that have drawn tasks, also when the caller's own task unwinds.
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

/// Runs the tasks `0..tasks`, on all threads if `work` is large enough, and returns the error of the first
/// task that failed.
pub fn parallel(tasks: usize, work: usize, task: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    if tasks <= 1 || work < PARALLEL_WORK {
        return (0..tasks).try_for_each(task);
    }
    let helpers = (rayon::current_num_threads() - 1).min(tasks - 1);
    if helpers == 0 {
        return (0..tasks).try_for_each(task);
    }
    // SAFETY: the transmute changes only the lifetime. A thread dereferences the pointer only between drawing
    // a task's number and leaving. Helpers are counted before they draw, and `Wait` keeps this stack frame
    // alive until all that drew a task have left. A helper that starts later finds no task to draw.
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
