//! Lazy n-dimensional arrays without gradients.
//!
//! An [`Array`] is an immutable value. Operations (`ops`) check shapes, dtypes and devices at once and describe work
//! (`op`); evaluation (`eval`) collects what is pending (`graph`), finds or makes a plan for it (`plan`: which values are
//! stored, which work shares a kernel), and launches the plan's kernels on the device.

mod array;
mod eval;
mod expr;
mod flush;
mod graph;
mod op;
mod ops;
mod plan;

pub use array::{Array, host_vec};
pub use eval::with_fusion;
pub use expr::{Expr, Side};
pub use ops::QrMode;
pub use wgrad_device::kernel::{BinaryOp, ReduceOp, ScatterOp, UnaryOp};
pub use wgrad_device::{
    Category, DType, Device, DeviceInfo, DeviceKind, DeviceOptions, Element, Error, GradRule, Layout, Result,
    Scalar, Stats, layout, philox4x32_10,
};
pub use wgrad_linalg::{Triangle, Vectors};
