//! Lazy n-dimensional arrays without gradients.
//!
//! An [`Array`] is a handle to a `node` of the graph of operations, and its value never changes. Operations
//! (`ops`) check shapes, dtypes and devices at once and make pending nodes, which describe the work (`op`).
//! Evaluation (`eval`) collects pending nodes into a `graph`, finds or makes a plan for it (`plan`: which
//! results are stored, which work shares a kernel), and launches the plan's kernels on the device. The crate
//! also evaluates arrays for which nobody asks, when too much is pending (`flush`; the `registry` lists the
//! pending nodes). Faulty data, such as an index out of range, are an error of the values that depend on them
//! and of no others (`fault`); an array that was written in place then falls back to its previous value
//! (`fallback`).
//!
//! ```
//! use wgrad_array::{Array, BinaryOp, Device, ReduceOp};
//! let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], &Device::cpu())?;
//! let squares = x.binary(BinaryOp::Mul, &x)?;
//! let sums = squares.reduce(ReduceOp::Sum, &[1], false)?;
//! assert!(sums.is_pending());
//! assert_eq!(sums.explain()?.launches(), 1); // one kernel, which does not store the squares
//! assert_eq!(sums.to_vec::<f32>()?, [5.0, 25.0]);
//! # Ok::<(), wgrad_array::Error>(())
//! ```

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
pub use expr::{Expr, Formula, Side, Term};
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
