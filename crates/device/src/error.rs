//! The error type of the whole library.

use std::borrow::Cow;
use std::fmt::Debug;
use std::panic::Location;

use crate::DType;

/// The most characters of a list of sizes or dims in an error's text.
const LIST: usize = 90;
/// The most characters of a reason, so that a whole message stays below 500: an error is read on a screen and
/// kept in logs, whatever the shapes that led to it.
const REASON: usize = 240;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error: what went wrong, in which operation, with which shapes, dtypes or devices, and what to do about
/// it.
///
/// A failed call leaves all its arguments as they were.
///
/// The message has fewer than 500 characters. Long shapes, and reasons that contain such, lose their middle
/// in it; the fields have them whole.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape that the operation cannot work with.
    #[error("{op}: shape {} {}", list(.shape), brief(.reason, REASON))]
    Shape {
        /// The operation.
        op: &'static str,
        /// The offending shape.
        shape: Vec<usize>,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// Two shapes that do not fit together.
    #[error("{op}: shapes {} and {} {}", list(.lhs), list(.rhs), brief(.reason, REASON))]
    ShapeMismatch {
        /// The operation.
        op: &'static str,
        /// The first shape.
        lhs: Vec<usize>,
        /// The second shape.
        rhs: Vec<usize>,
        /// Why they do not fit, and what would.
        reason: String,
    },
    /// A dim that the array does not have.
    #[error(
        "{op}: dim {dim} is out of range for {rank} dims (expected {}..={})",
        -(*.rank as isize).max(1),
        (*.rank as isize).max(1) - 1
    )]
    Dim {
        /// The operation.
        op: &'static str,
        /// The dim as given.
        dim: isize,
        /// The number of dims there are.
        rank: usize,
    },
    /// A dim named twice.
    #[error("{op}: dim {dim} appears more than once in {}; name each dim once", list(.dims))]
    DuplicateDim {
        /// The operation.
        op: &'static str,
        /// The dim, counted from the front.
        dim: usize,
        /// All dims as given.
        dims: Vec<isize>,
    },
    /// An index or a range outside of a dim.
    #[error("{op}: index {index} is out of range for a dim of size {size}{}", line(*.called_at))]
    Index {
        /// The operation.
        op: &'static str,
        /// The first offending index.
        index: i64,
        /// The size of the dim.
        size: usize,
        /// The call of the operation, if the index was checked later.
        called_at: Option<&'static Location<'static>>,
    },
    /// An argument whose value is not allowed.
    #[error("{op}: {}", brief(.reason, REASON))]
    Argument {
        /// The operation.
        op: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A matrix that has no such result: it is singular, not positive definite or not finite. PyTorch's
    /// `LinAlgError`.
    #[error("{op}: matrix {matrix} of the batch {}", brief(.reason, REASON))]
    LinAlg {
        /// The operation.
        op: &'static str,
        /// The number of the first such matrix of the batch, in row-major order; 0 if there is no batch.
        matrix: usize,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A dtype that the operation cannot work with.
    #[error("{op}: dtype {dtype} {}", brief(.reason, REASON))]
    DType {
        /// The operation.
        op: &'static str,
        /// The offending dtype.
        dtype: DType,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Operands on two devices.
    #[error(
        "{op}: operands are on {} and {}; move one of them with to()",
        brief(.lhs, LIST),
        brief(.rhs, LIST)
    )]
    DeviceMismatch {
        /// The operation.
        op: &'static str,
        /// The device of the first operand.
        lhs: String,
        /// The device of the second operand.
        rhs: String,
    },
    /// A size that does not fit into the machine's integers.
    #[error("{op}: shape {} has more elements than can be addressed", list(.shape))]
    SizeOverflow {
        /// The operation.
        op: &'static str,
        /// The shape asked for.
        shape: Vec<usize>,
    },
    /// A reduction without an identity over no elements.
    #[error(
        "{op}: a reduction over no elements (shape {}) has no value; give a dim that is not empty",
        list(.shape)
    )]
    EmptyReduction {
        /// The operation.
        op: &'static str,
        /// The shape of the input.
        shape: Vec<usize>,
    },
    /// More memory than the device has, or than its limit allows.
    #[error(
        "out of memory: {requested} bytes requested, {used} in use, limit {limit}; \
         drop tensors, use smaller batches or raise the limit"
    )]
    OutOfMemory {
        /// Bytes of the allocation that failed.
        requested: u64,
        /// Bytes in use at that moment.
        used: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A device that this machine does not have.
    #[error(
        "device {} is not available ({}); available: {}",
        brief(.requested, LIST),
        brief(.reason, LIST),
        brief(.available, REASON)
    )]
    DeviceUnavailable {
        /// The device asked for.
        requested: String,
        /// Why there is none.
        reason: String,
        /// The devices there are.
        available: String,
    },
    /// The device was lost, and its tensors with it.
    #[error(
        "device {} was lost: {}; its tensors are gone: open it again, or another device, and make them anew",
        brief(.device, LIST),
        brief(.reason, REASON)
    )]
    DeviceLost {
        /// The device.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The driver refused a kernel or a command.
    #[error("device {} refused a kernel: {}", brief(.device, LIST), brief(.reason, REASON))]
    Kernel {
        /// The device.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// Something this device or this operation does not do.
    #[error("{op}: {}", brief(.reason, REASON))]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What is not supported, and what to use instead.
        reason: String,
    },
    /// A text that is not the name of a device or dtype, or a malformed data file.
    #[error(
        "cannot read {} as {what}; expected {}",
        brief(&format!("{text:?}"), LIST),
        brief(.expected, REASON)
    )]
    Parse {
        /// What kind of thing was to be read.
        what: &'static str,
        /// The text.
        text: String,
        /// What it should look like.
        expected: String,
    },
    /// Values that do not fit the module they were to be loaded into. Nothing was loaded.
    #[error(
        "load_state_dict: missing {}, unexpected {}, of other shapes {}; leave out what does not fit, or load without strict",
        names(.missing),
        names(.unexpected),
        names(.mismatched)
    )]
    StateDict {
        /// The module's values that were not given.
        missing: Vec<String>,
        /// What was given under names that the module does not have.
        unexpected: Vec<String>,
        /// What has another shape than the module's value, with both shapes.
        mismatched: Vec<String>,
    },
    /// A call that the rules of autograd do not allow.
    #[error("{op}: {}", brief(.reason, REASON))]
    Autograd {
        /// The call.
        op: &'static str,
        /// Which rule, for which kind of tensor.
        rule: GradRule,
        /// What happened and what to do.
        reason: String,
    },
    /// An error of a part of a formula, which is told at the end of the formula; see [`Error::root`].
    #[error("{error}{}", line(Some(*.called_at)))]
    At {
        /// The error of the part.
        error: Box<Error>,
        /// The line of the part.
        called_at: &'static Location<'static>,
    },
}

impl Error {
    /// The error without the line of a formula that [`Error::At`] adds to it: what to match on.
    pub fn root(&self) -> &Error {
        match self {
            Error::At { error, .. } => error.root(),
            error => error,
        }
    }

    /// The error with the line of the part of a formula that gave it. One that has a line keeps its own.
    pub fn at(self, called_at: &'static Location<'static>) -> Error {
        match self {
            Error::At { .. } | Error::Index { called_at: Some(_), .. } => self,
            error => Error::At { error: Box::new(error), called_at },
        }
    }
}

/// The place where an operation was called, as a part of a sentence.
fn line(called_at: Option<&'static Location<'static>>) -> String {
    called_at.map(|line| format!(", in the call at {line}")).unwrap_or_default()
}

/// The rule of autograd that a call broke; see [`Error::Autograd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GradRule {
    /// Backward without a gradient needs outputs of one element.
    ImplicitGradient,
    /// The output has no graph.
    NoGraph,
    /// The saved values were freed by an earlier backward.
    GraphFreed,
    /// An input that the outputs do not depend on.
    UnusedInput,
    /// A gradient of the wrong shape, dtype or device.
    GradientMismatch,
    /// An in-place write to a leaf that requires grad, or to a view of one.
    LeafInPlace,
    /// An in-place write through a view that does not allow it.
    ViewInPlace,
    /// An in-place write to a tensor whose elements share memory.
    Overlap,
    /// Only floating-point tensors can require grad.
    RequiresGradDType,
    /// Only leaves can stop requiring grad.
    RequiresGradNonLeaf,
    /// The call needs a tensor that requires grad.
    NeedsRequiresGrad,
    /// The call needs a leaf.
    NeedsLeaf,
    /// A hook or function gave back something of the wrong kind.
    Hook,
    /// A gradient that is NaN, in anomaly mode.
    Anomaly,
    /// An operation that cannot be differentiated.
    NotDifferentiable,
    /// Options that contradict each other, or a list that must not be empty.
    Options,
}

/// A list of sizes or dims as text, of at most [`LIST`] characters.
fn list(numbers: &[impl Debug]) -> String {
    brief(&format!("{numbers:?}"), LIST).into_owned()
}

/// A list of names, as text.
fn names(list: &[String]) -> String {
    if list.is_empty() { "nothing".to_owned() } else { brief(&list.join(", "), LIST).into_owned() }
}

/// A text of at most `most` characters; a longer one loses its middle.
fn brief(text: &str, most: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= most {
        return Cow::Borrowed(text);
    }
    const GAP: &str = " … ";
    let kept = most - GAP.chars().count();
    let head = text.chars().take(kept / 2);
    let tail = text.chars().skip(count - kept.div_ceil(2));
    Cow::Owned(head.chain(GAP.chars()).chain(tail).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_keep_both_ends() {
        let shape = vec![usize::MAX; 1000];
        let reason = "é".repeat(10_000);
        let errors = [
            Error::ShapeMismatch {
                op: "add",
                lhs: shape.clone(),
                rhs: shape.clone(),
                reason: reason.clone(),
            },
            Error::DuplicateDim { op: "permute", dim: 0, dims: vec![-1; 1000] },
            Error::SizeOverflow { op: "zeros", shape: shape.clone() },
            Error::EmptyReduction { op: "amax", shape },
            Error::Argument { op: "pad", reason: reason.clone() },
            Error::DeviceLost { device: reason.clone(), reason: reason.clone() },
            Error::DeviceUnavailable {
                requested: reason.clone(),
                reason: reason.clone(),
                available: reason.clone(),
            },
            Error::StateDict {
                missing: vec![reason.clone(); 3],
                unexpected: vec![reason.clone()],
                mismatched: vec![reason.clone()],
            },
            Error::Parse { what: "device", text: "\u{1}".repeat(1000), expected: reason },
        ];
        for error in errors {
            assert!(error.to_string().chars().count() < 500, "{error}");
        }
        let error = Error::Argument { op: "pad", reason: "x".repeat(10_000) }.at(Location::caller());
        assert!(error.to_string().chars().count() < 500, "{error}");
        let mut shape = vec![1; 1000];
        (shape[0], shape[999]) = (7, 9);
        let text = Error::SizeOverflow { op: "zeros", shape }.to_string();
        assert!(text.starts_with("zeros: shape [7, 1, ") && text.contains(" … "), "{text}");
        assert!(text.ends_with(", 1, 9] has more elements than can be addressed"), "{text}");
        let short = Error::SizeOverflow { op: "zeros", shape: vec![2, 3] }.to_string();
        assert_eq!(short, "zeros: shape [2, 3] has more elements than can be addressed");
    }
}
