//! Where in a program an operation was called: for errors that come late, and for what plans say about themselves.

use std::cell::Cell;
use std::panic::Location;

thread_local! {
    static CURRENT: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
}

/// The line that operations made on this thread are ascribed to while this lives; see [`enter`].
#[must_use = "operations are ascribed to the line while this lives"]
pub struct Site {
    before: Option<&'static Location<'static>>,
}

/// Ascribes the operations that this thread makes to a line of the program. The outermost call counts: what a method calls
/// in turn belongs to the line that called the method.
#[inline]
pub fn enter(line: &'static Location<'static>) -> Site {
    let before = CURRENT.get();
    if before.is_none() {
        CURRENT.set(Some(line));
    }
    Site { before }
}

/// Ascribes the operations that this thread makes to this line, or to the lines that call them, whatever was said before: a
/// derivative to that of its operation, a user's function to its own lines.
#[inline]
pub fn replace(line: Option<&'static Location<'static>>) -> Site {
    Site { before: CURRENT.replace(line) }
}

/// The line that operations of this thread are ascribed to.
#[inline]
pub fn current() -> Option<&'static Location<'static>> {
    CURRENT.get()
}

impl Drop for Site {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}
