//! Where in a program an operation was called, and by which name: for errors that come late, and for what plans say about
//! themselves.

use std::cell::Cell;
use std::panic::Location;

thread_local! {
    static CURRENT: Cell<Option<Call>> = const { Cell::new(None) };
}

/// A call in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called: a method such as `softmax`, or the derivative of one, such as `SoftmaxBackward0`.
    pub name: &'static str,
    /// The line that called it.
    pub line: &'static Location<'static>,
}

/// The call that operations made on this thread are ascribed to while this lives; see [`enter`].
#[must_use = "operations are ascribed to the call while this lives"]
pub struct Site {
    /// What was said before, if this one said something else.
    before: Option<Option<Call>>,
}

/// Ascribes the operations that this thread makes to a call in the program. The outermost call counts: what a method calls
/// in turn belongs to the call of the method.
#[inline]
pub fn enter(name: &'static str, line: &'static Location<'static>) -> Site {
    if CURRENT.get().is_some() {
        return Site { before: None };
    }
    CURRENT.set(Some(Call { name, line }));
    Site { before: Some(None) }
}

/// Ascribes the operations that this thread makes to this call, or to the lines that call them, whatever was said before: a
/// derivative to the line of its operation, a user's function to its own lines.
#[inline]
pub fn replace(call: Option<Call>) -> Site {
    Site { before: Some(CURRENT.replace(call)) }
}

/// The line that operations of this thread are ascribed to.
#[inline]
pub fn current() -> Option<&'static Location<'static>> {
    CURRENT.get().map(|call| call.line)
}

/// The call that operations of this thread are ascribed to.
#[inline]
pub(crate) fn call() -> Option<Call> {
    CURRENT.get()
}

impl Drop for Site {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            CURRENT.set(before);
        }
    }
}
