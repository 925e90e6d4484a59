//! Why a result is in memory: noted where that is decided, told by the text of a plan.

use std::fmt;

/// Why a plan writes a result to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It was asked for, or belongs to the step of training that the evaluation ends.
    Result,
    /// Somebody holds it who may read it later, and computing it anew would cost much, or keep memory that is free otherwise.
    Held,
    /// A result of the evaluation is a view of it.
    Viewed,
    /// A product, scatter, scan, sort or gather reads it, and reads memory only.
    Operand,
    /// It is read by another kernel than the one that computes it.
    Shared,
    /// The expressions that use it would be too large for one kernel.
    Large,
    /// Several kernels would compute it, which costs more than reading it.
    Repeated,
    /// A view of it cannot be followed by strides.
    Strides,
    /// The operation says so: its result is read several times, in several orders.
    Always,
    /// It has no elements.
    Empty,
    /// Fusion is switched off.
    Unfused,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Why::Result => "a result",
            Why::Held => "somebody holds it",
            Why::Viewed => "a result is a view of it",
            Why::Operand => "an operand that must be in memory",
            Why::Shared => "another kernel reads it",
            Why::Large => "the expression is too large for a kernel",
            Why::Repeated => "several kernels would compute it",
            Why::Strides => "strides cannot follow a view of it",
            Why::Always => "it is read in several orders",
            Why::Empty => "it has no elements",
            Why::Unfused => "fusion is off",
        })
    }
}
