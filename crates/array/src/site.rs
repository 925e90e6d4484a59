//! The calls in the user's program to which operations are attributed. Errors that are found late, and the
//! texts of plans, name them.

use std::cell::Cell;
use std::panic::Location;

thread_local! {
    static CURRENT: Cell<Option<CallSite>> = const { Cell::new(None) };
}

/// A call in the user's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// The name of the called method, such as `softmax`, or of its derivative, such as `SoftmaxBackward0`.
    pub name: &'static str,
    /// The line with the call.
    pub line: &'static Location<'static>,
}

/// A guard: while it lives, the operations that this thread makes are attributed to a call; see [`enter`].
#[must_use = "operations are attributed to the call while this lives"]
pub struct Site {
    /// What was said before, if this one said something else.
    before: Option<Option<CallSite>>,
}

/// Attributes the operations that this thread makes to a call in the program. The outermost call counts: the
/// calls inside a method belong to the call of the method.
#[inline]
pub fn enter(name: &'static str, line: &'static Location<'static>) -> Site {
    if CURRENT.get().is_some() {
        return Site { before: None };
    }
    CURRENT.set(Some(CallSite { name, line }));
    Site { before: Some(None) }
}

/// Attributes the operations that this thread makes to this call even inside another one: those of a
/// derivative to the line of its operation. `None` ends the attribution, so that in a user's function each
/// call counts for itself.
#[inline]
pub fn replace(call: Option<CallSite>) -> Site {
    Site { before: Some(CURRENT.replace(call)) }
}

/// The line to which operations of this thread are attributed.
#[inline]
pub fn current() -> Option<&'static Location<'static>> {
    CURRENT.get().map(|call| call.line)
}

/// The call to which operations of this thread are attributed.
#[inline]
pub(crate) fn call() -> Option<CallSite> {
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
