//! Where a step of training ends.
//!
//! A program that never reads a value still trains: each step must be evaluated, and as a whole, so that it is one plan that
//! the next step finds again. A step ends where a backward begins at a line of the program that has begun one in this step
//! already, and a parameter was updated meanwhile. So a step may have several backwards (those of a generator and a discriminator,
//! those of accumulated gradients) and is still one.

use std::cell::{Cell, RefCell};
use std::panic::Location;

use wgrad_array::site;

type Line = Option<&'static Location<'static>>;

thread_local! {
    /// The lines that have begun a backward in this step.
    static BEGUN: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    /// Backwards that are running, one inside of another.
    static RUNNING: Cell<u32> = const { Cell::new(0) };
}

/// A backward that is running.
pub(super) struct Running(());

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// Notes that a backward begins, and ends the step before it if there is one.
pub(super) fn begin_backward() -> Running {
    let nested = RUNNING.get() > 0;
    RUNNING.set(RUNNING.get() + 1);
    let running = Running(());
    if nested {
        return running;
    }
    let line = site::current();
    let ends = BEGUN.with_borrow_mut(|begun| {
        // An evaluation that somebody asked for has ended the step.
        if !wgrad_array::is_updated() {
            begun.clear();
        }
        let ends = begun.contains(&line);
        if ends {
            begun.clear();
        }
        begun.push(line);
        ends
    });
    if ends {
        wgrad_array::end_step();
    }
    running
}
