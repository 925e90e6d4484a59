//! The reasons for which a plan writes a result to memory. They are noted where that is decided, and shown in
//! the text of a plan.

use std::fmt;

/// Why a plan writes a result to memory.
///
/// ```
/// use wgrad_array::{Array, BinaryOp, Device, Why};
/// let x = Array::from_slice(&[1.0f32, 2.0], &[2], &Device::cpu())?;
/// let y = x.binary(BinaryOp::Add, &x)?;
/// let explanation = y.explain()?;
/// assert_eq!(explanation.plans[0].kernels[0].stores[0].why, Why::Result);
/// assert_eq!(Why::Result.to_string(), "a result");
/// # Ok::<(), wgrad_array::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The program asked for it, or it belongs to the training step that ends with this evaluation.
    Result,
    /// The program holds it and may read it later, and recomputing it then would cost much, or would keep
    /// memory alive that can be freed now.
    Held,
    /// A result of the evaluation is a view of it.
    Viewed,
    /// It is an operand of a matrix product, scatter, scan, sort or gather, which read their operands from
    /// memory.
    Operand,
    /// Another kernel than the one that computes it reads it.
    Shared,
    /// The expressions that use it would be too large for one kernel.
    Large,
    /// Several kernels would recompute it, which costs more than storing and loading it.
    Repeated,
    /// A kernel reads it through a view that strides cannot express.
    Strides,
    /// The operation requires it, because its result is read several times in different orders.
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
