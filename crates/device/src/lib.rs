//! Devices: where the bytes of wgrad's arrays live and its kernels run.
//!
//! This crate knows dtypes, layouts, memory and kernels, and nothing of arrays or gradients. The scheduler
//! above it describes work as a [`kernel::Kernel`], and the [`Executor`] of a [`Device`] prepares and
//! launches it. There are two executors: the block-wise interpreter in `cpu`, and the WGSL generator on wgpu
//! in `gpu` (feature `gpu`). Both run the same kernels, so each checks the other.

mod cpu;
mod device;
mod dtype;
mod error;
mod executor;
#[cfg(feature = "gpu")]
mod gpu;
pub mod kernel;
pub mod layout;
mod normal;
mod philox;
mod scalar;
mod stats;

pub use device::{Device, DeviceInfo, DeviceKind, DeviceOptions, SchedulerState};
pub use dtype::{Category, DType, Element, default_dtype, set_default_dtype};
pub use error::{Error, GradRule, Result};
pub use executor::{Buffer, Executor, Limits, Memory, Place, Prepared, Reservation};
pub use layout::Layout;
pub use philox::philox4x32_10;
pub use scalar::Scalar;
pub use stats::Stats;

/// Returns the WGSL of every kernel that this process compiles while a function runs. This is a hook for
/// tests.
#[cfg(feature = "gpu")]
#[doc(hidden)]
pub fn gpu_sources(run: impl FnOnce()) -> Vec<String> {
    gpu::sources(run)
}
