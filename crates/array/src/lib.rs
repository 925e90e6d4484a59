//! Lazy n-dimensional arrays without gradients.
//!
//! An [`Array`] is an immutable value: a handle to a `node`. Operations (`ops`) check shapes, dtypes and devices at once and make nodes
//! that describe work (`op`); evaluation (`eval`) collects what is pending (`graph`), finds or makes a plan for it (`plan`:
//! which values are stored, which work shares a kernel), and launches the plan's kernels on the device. What nobody asks for is evaluated
//! when too much is pending (`flush`, which knows the pending nodes from the `registry`). Data with a fault, such as an index
//! out of range, spoil the values that depend on them (`fault`), and nothing else: what was written in place goes back (`fallback`).

mod array;
mod bounds;
mod debug;
mod eval;
mod explain;
mod expr;
mod fallback;
mod fault;
mod flush;
mod graph;
mod kept;
mod node;
mod op;
mod ops;
mod plan;
mod read;
mod registry;
mod room;
pub mod site;
#[cfg(test)]
mod tests;

pub use array::Array;
pub use eval::with_fusion;
pub use explain::Explanation;
pub use expr::{Expr, Side};
pub use fallback::Fallback;
pub use flush::{end_step, is_updated, note_update};
pub use ops::{QrMode, WithOpName};
pub use plan::{KernelOutline, Operation, Outline, ReadMemory, Stored, Why};
pub use read::host_vec;
pub use room::{Room, reserve};
pub use wgrad_device::kernel::{BinaryOp, ReduceOp, ScatterOp, Traffic, UnaryOp};
pub use wgrad_device::{
    Category, DType, Device, DeviceInfo, DeviceKind, DeviceOptions, Element, Error, GradRule, Layout, Result,
    Scalar, Stats, default_dtype, layout, philox4x32_10, set_default_dtype,
};
pub use wgrad_linalg::{Triangle, Vectors};
