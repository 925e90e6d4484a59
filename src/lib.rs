//! PyTorch's autograd in Rust, on any GPU.
//!
//! Who knows `requires_grad_`, `backward()`, `.grad`, `detach()`, `to(device)` and `no_grad` from PyTorch knows this library. The
//! same program runs on the CPU and, through wgpu, on Metal, Vulkan, Direct3D 12 and OpenGL.
//!
//! ```
//! use wgrad::{Device, Tensor};
//!
//! let device = Device::best()?;
//! let x = Tensor::new([1.0, 9.0, 0.0], &device)?.requires_grad_(true)?;
//! let y = (x.pow(2.0)? + 100.0)?;
//! let loss = y.mean()?;
//! loss.backward()?;
//!
//! assert_eq!(y.to_vec::<f32>()?, [101.0, 181.0, 100.0]);
//! let gradient = x.grad().expect("x is a leaf that requires grad").to_vec::<f32>()?;
//! for (got, expected) in gradient.iter().zip([2.0 / 3.0, 6.0, 0.0]) {
//!     assert!((got - expected).abs() < 1e-6);
//! }
//! # Ok::<(), wgrad::Error>(())
//! ```
//!
//! # Where to look
//! - [`Tensor`] has all operations, with PyTorch's names and meanings, and explains the two ways to copy: Rust's `clone()` copies the handle,
//!   [`Tensor::deep_clone`] is PyTorch's `clone()`.
//! - [`TensorExpr`] is for formulas: operators and methods mixed, with one `?` at the end.
//! - [`Device`] chooses where things happen: [`Device::best`], [`Device::cpu`], `"vulkan:0".parse()`. The environment variable
//!   `WGRAD_DEVICE` overrides `best()`.
//! - [`Tensor::backward`], [`Tensor::backward_with`], [`backward`] and [`grad`] compute gradients; all derivatives can be
//!   differentiated again.
//! - [`no_grad`](fn@no_grad), as a function around a closure and as an attribute of a function, [`enable_grad`], [`set_grad_enabled`] and
//!   [`GradModeGuard`] say what is recorded.
//! - [`Error`] is the one error type. No input makes the library panic.
//!
//! # Laziness
//! An operation checks its arguments at once, so that a wrong call fails at its own line, but computes nothing. Work is done when a
//! value is read ([`Tensor::to_vec`], [`Tensor::item`], printing), at [`Tensor::eval`] and [`Tensor::eval_all`], at the end of a step of
//! training, or when much is pending; it is then fused into few kernels. A program is right, bounded in memory and fast whatever it reads.
//! `WGRAD_FUSION=0` in the environment computes every operation on its own, which is
//! slow and helps to find out whether fusion is at fault. [`Tensor::explain`] says what reading a tensor would do: which kernels, what they
//! compute, read and store, and why. `WGRAD_DEBUG=plan` in the environment writes each plan that is built to standard error, `WGRAD_DEBUG=run` each
//! evaluation.
//!
//! # Features
//! `gpu` (on by default) brings in wgpu. Without it only the CPU executor is built.
//!
//! `nn` (on by default) brings in layers and optimisers. Without it nothing of them is built.

// Tensors, and what their methods take.
pub use wgrad_autograd::{
    BatchNormOptions, Bound, ConvOptions, CrossEntropyOptions, Data, FftNorm, GridPadding, GridSampling,
    Index, IntArray, Interpolation, NormOrder, Number, Options, PadMode, Padding, PoolOptions, QrMode,
    Reduction, Rounding, Scale, ScatterReduce, Target, Tensor, Triangle, Unique, Value,
};
// Formulas of tensors.
pub use wgrad_autograd::{AsTensor, ExprOperand, TensorExpr};
// Devices, dtypes, numbers, errors.
pub use wgrad_autograd::{
    DType, Device, DeviceInfo, DeviceKind, DeviceOptions, Element, Error, GradRule, Result, Scalar, Stats,
    bf16, default_dtype, f16, set_default_dtype,
};
// What evaluations do.
pub use wgrad_autograd::{Explanation, KernelOutline, Operation, Outline, ReadMemory, Stored, Traffic, Why};
// Gradients.
pub use wgrad_autograd::{
    BackwardOptions, GradFn, GradFnMetadata, GradOptions, HookHandle, backward, detect_anomaly, grad,
    gradcheck, gradgradcheck, register_any_grad_hook, register_multi_grad_hook, save_on_cpu,
    saved_tensors_hooks, tape,
};
// Operations of one's own.
pub use wgrad_autograd::{BackwardContext, ForwardContext, Function};
// Whether operations are recorded.
pub use wgrad_autograd::{
    GradModeGuard, enable_grad, is_grad_enabled, no_grad, no_grad_async, set_grad_enabled,
};
// Random numbers.
pub use wgrad_autograd::{Generator, GeneratorState, default_generator, manual_seed};
// Training.
#[cfg(feature = "nn")]
pub use wgrad_nn::{self as nn, optim};

/// The pages' examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/steps.md")]
#[doc = include_str!("../docs/formulas.md")]
struct Pages;
