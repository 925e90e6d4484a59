//! PyTorch's autograd: tensors that remember how they were computed, and their derivatives.
//!
//! A [`Tensor`] holds a lazy array of `wgrad-array` and its place on the [`tape`]. Operations (`ops`) compute arrays and record
//! nodes; [`Tensor::backward`] and [`grad`] (`engine`) walk the nodes from the newest to the oldest. Whether operations record is
//! the thread's grad mode ([`no_grad()`]).

mod anomaly;
mod args;
mod custom;
mod engine;
mod explain;
mod expr;
mod generator;
mod gradcheck;
mod graph;
mod hooks;
mod mode;
mod multi_hooks;
mod ops;
mod print;
mod saved;
mod steps;
mod storage;
pub mod tape;
mod tensor;
mod view;
mod warning;

pub use half::{bf16, f16};

pub use anomaly::detect_anomaly;
pub use args::{IntArray, Options, Value};
pub use custom::{BackwardContext, ForwardContext, Function};
pub use engine::{BackwardOptions, GradOptions, backward, grad};
pub use expr::{AsTensor, ExprOperand, TensorExpr};
pub use generator::{Generator, GeneratorState, default_generator, manual_seed};
pub use gradcheck::{gradcheck, gradgradcheck};
pub use graph::{GradFn, GradFnMetadata};
pub use hooks::HookHandle;
pub use mode::{GradModeGuard, enable_grad, is_grad_enabled, no_grad, no_grad_async, set_grad_enabled};
pub use multi_hooks::{register_any_grad_hook, register_multi_grad_hook};
pub use ops::{
    BatchNormOptions, Bound, ConvOptions, CrossEntropyOptions, Data, FftNorm, GridPadding, GridSampling,
    Index, Interpolation, NormOrder, Number, PadMode, Padding, PoolOptions, Reduction, Rounding, Scale,
    ScatterReduce, Target, Unique,
};
pub use saved::{save_on_cpu, saved_tensors_hooks};
pub use tensor::Tensor;
pub use wgrad_array::{DType, Device, DeviceInfo, DeviceKind, DeviceOptions, Element, Error, GradRule};
pub use wgrad_array::{Explanation, KernelOutline, Operation, Outline, ReadMemory, Stored, Traffic, Why};
pub use wgrad_array::{QrMode, Result, Scalar, Stats, Triangle, default_dtype, set_default_dtype};
pub use wgrad_macros::no_grad;
