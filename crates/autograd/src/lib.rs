//! PyTorch's autograd: tensors that remember how they were computed, and their derivatives.
//!
//! A [`Tensor`] holds a lazy array of `wgrad-array` and its place on the [`tape`]. Operations (`ops`) compute arrays and record
//! nodes; [`Tensor::backward`] and [`grad`] (`engine`) walk the nodes from the newest to the oldest. Whether operations record is
//! the thread's grad mode ([`no_grad()`]).

mod args;
mod engine;
mod explain;
mod expr;
mod gradcheck;
mod graph;
mod hooks;
mod mode;
mod ops;
mod print;
mod steps;
mod storage;
pub mod tape;
mod tensor;
mod view;
mod warning;

pub use half::{bf16, f16};

pub use args::{IntArray, Options, Value};
pub use engine::{BackwardOptions, GradOptions, backward, grad};
pub use expr::{AsTensor, ExprOperand, TensorExpr};
pub use gradcheck::{gradcheck, gradgradcheck};
pub use graph::GradFn;
pub use hooks::HookHandle;
pub use mode::{GradModeGuard, enable_grad, is_grad_enabled, no_grad, no_grad_async, set_grad_enabled};
pub use ops::{
    BatchNormOptions, Bound, ConvOptions, CrossEntropyOptions, Data, FftNorm, GridPadding, GridSampling,
    Index, Interpolation, NormOrder, Number, PadMode, Padding, PoolOptions, Reduction, Rounding, Scale,
    ScatterReduce, Target, Unique, manual_seed,
};
pub use tensor::Tensor;
pub use wgrad_array::{DType, Device, DeviceInfo, DeviceKind, DeviceOptions, Element, Error, GradRule};
pub use wgrad_array::{Explanation, KernelOutline, Operation, Outline, ReadMemory, Stored, Traffic, Why};
pub use wgrad_array::{QrMode, Result, Scalar, Stats, Triangle, default_dtype, set_default_dtype};
pub use wgrad_macros::no_grad;
