//! PyTorch's autograd in Rust, on any GPU.
//!
//! ```
//! use wgrad::{Device, Tensor};
//!
//! let x = Tensor::new([1f32, 9.0, 0.0], &Device::cpu())?.requires_grad_(true)?;
//! let y = (x.pow(2.0)? + 100.0)?;
//! let loss = y.mean()?;
//! loss.backward()?;
//! println!("{}", x.grad().unwrap());
//! # Ok::<(), wgrad::Error>(())
//! ```

// Tensors, and what their methods take.
pub use wgrad_autograd::{BatchNormOptions, Bound, ConvOptions, CrossEntropyOptions, Data, FftNorm, Index, IntArray, Interpolation, Options, PadMode, Padding, PoolOptions, Reduction, Rounding, Scale, ScatterReduce, Target, Unique, Tensor, Value};
// Devices, dtypes, numbers, errors.
pub use wgrad_autograd::{DType, Device, Element, Error, GradRule, Result, Scalar, Stats};
// Gradients.
pub use wgrad_autograd::{BackwardOptions, GradFn, GradOptions, HookHandle, backward, grad, tape};
// Whether operations are recorded.
pub use wgrad_autograd::{GradModeGuard, enable_grad, is_grad_enabled, no_grad, no_grad_async, set_grad_enabled};
// Random numbers.
pub use wgrad_autograd::manual_seed;
