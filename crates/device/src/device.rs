//! Devices: they are named, chosen, opened once and shared.

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use crate::{DType, Error, Executor, Result, Stats, cpu::Cpu};

/// A device that this machine has; see [`Device::available`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name by which it is opened: `cpu`, `mps:0`, `vulkan:0`.
    pub name: String,
    /// The system's name of the hardware or driver.
    pub adapter: String,
    /// The driver's name and version; empty if it has none, as on the CPU.
    pub driver: String,
    /// The interface through which it is reached: `Metal`, `Vulkan`, `Dx12`, `Gl`, or `none` for the CPU.
    pub backend: String,
    /// The kind of hardware.
    pub kind: DeviceKind,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.adapter, self.kind)
    }
}

/// The kind of hardware behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor, through the CPU executor.
    Cpu,
    /// A GPU with memory of its own.
    DiscreteGpu,
    /// A GPU that shares the processor's memory.
    IntegratedGpu,
    /// A GPU inside a virtual machine.
    VirtualGpu,
    /// A GPU interface implemented on the processor, such as Mesa's lavapipe: for tests, not for speed.
    Software,
    /// Unknown hardware.
    Other,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeviceKind::Cpu => "CPU",
            DeviceKind::DiscreteGpu => "discrete GPU",
            DeviceKind::IntegratedGpu => "integrated GPU",
            DeviceKind::VirtualGpu => "virtual GPU",
            DeviceKind::Software => "software",
            DeviceKind::Other => "other",
        })
    }
}

/// Options of a new device, which lower the adapter's limits; see [`Device::open_with`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The most storage buffers that one kernel binds; at least 4.
    pub max_storage_buffers: Option<u32>,
    /// The most bytes of one storage binding; at least 4,096.
    pub max_binding_bytes: Option<u64>,
    /// The most workgroups in one dimension of a dispatch.
    pub max_workgroups_per_dimension: Option<u32>,
    /// The most bytes of workgroup memory that one kernel declares; at least 12,288.
    pub max_workgroup_memory: Option<u32>,
    /// The most bytes in use and pooled.
    pub memory_limit: Option<u64>,
    /// Whether work is spread as on a hardware GPU, also on a software adapter, to test those kernels on
    /// machines without a GPU.
    pub as_hardware: bool,
    /// Whether subgroups are left unused, also where the adapter has them.
    pub without_subgroups: bool,
    /// Whether f64 is left unused, also where the adapter has it.
    pub without_f64: bool,
}

/// A place where tensors live and kernels run. It is a cheap handle; all handles of one device are equal.
///
/// ```
/// use wgrad_device::Device;
/// let cpu: Device = "cpu".parse()?;
/// assert_eq!(cpu, Device::cpu());
/// assert_eq!(cpu.to_string(), "cpu");
/// # Ok::<(), wgrad_device::Error>(())
/// ```
#[derive(Clone)]
pub struct Device(Arc<DeviceInner>);

struct DeviceInner {
    name: String,
    executor: Box<dyn Executor>,
    plans: SchedulerState,
}

/// The state that the scheduler keeps with a device.
#[derive(Default)]
pub struct SchedulerState {
    /// The bytes in use when pending work was last evaluated because of the memory that it held.
    pub bytes_at_flush: AtomicU64,
    /// The number of graphs that were scheduled.
    pub built: AtomicU64,
    /// The number of graphs whose plan was cached.
    pub hits: AtomicU64,
    /// The value of [`SchedulerState::kept`].
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl SchedulerState {
    /// A value that the scheduler keeps with the device. It is made on the first call, and dropped with the
    /// device, so it must not hold the device itself; buffers and prepared kernels do not. `None` if a value
    /// of another type is kept.
    pub fn kept<T: Any + Default + Send + Sync>(&self) -> Option<&T> {
        self.kept.get_or_init(|| Box::new(T::default())).downcast_ref()
    }
}

static CPU: LazyLock<Device> = LazyLock::new(|| Device::from_executor("cpu", Box::new(Cpu::new())));

impl Device {
    /// The CPU, which every machine has.
    pub fn cpu() -> Device {
        CPU.clone()
    }

    /// The first Metal GPU, as PyTorch's `mps`. On systems other than Apple's it is an
    /// [`Error::DeviceUnavailable`].
    pub fn mps() -> Result<Device> {
        open("mps", 0)
    }

    /// The i-th Vulkan adapter, best first.
    pub fn vulkan(index: usize) -> Result<Device> {
        open("vulkan", index)
    }

    /// The i-th Direct3D 12 adapter, best first.
    pub fn dx12(index: usize) -> Result<Device> {
        open("dx12", index)
    }

    /// The i-th OpenGL adapter, best first.
    pub fn gl(index: usize) -> Result<Device> {
        open("gl", index)
    }

    /// The i-th adapter of any backend, best first. It is the same device as under the name of its backend,
    /// and displays as that.
    pub fn wgpu(index: usize) -> Result<Device> {
        open("wgpu", index)
    }

    /// The device that `WGRAD_DEVICE` names, if that is set, else a discrete GPU, else an integrated or
    /// virtual one, else the CPU. Software adapters are used only when they are named.
    pub fn best() -> Result<Device> {
        match std::env::var("WGRAD_DEVICE") {
            Ok(name) if !name.is_empty() => name.parse(),
            _ => Ok(best_gpu().unwrap_or_else(Device::cpu)),
        }
    }

    /// The devices of this machine: the CPU, then all adapters, best first.
    pub fn available() -> Vec<DeviceInfo> {
        let cpu = DeviceInfo {
            name: "cpu".to_owned(),
            adapter: std::env::consts::ARCH.to_owned(),
            driver: String::new(),
            backend: "none".to_owned(),
            kind: DeviceKind::Cpu,
        };
        std::iter::once(cpu).chain(adapters()).collect()
    }

    /// A new device that nobody else shares, with limits lowered by `options`, to see how a program does on a
    /// smaller GPU. `name` is that of an adapter, as in [`Device::available`].
    pub fn open_with(name: &str, options: DeviceOptions) -> Result<Device> {
        let (family, index) =
            split(name).filter(|(family, _)| *family != "cpu").ok_or_else(|| unreadable(name))?;
        open_fresh(family, index, &options)
    }

    /// A device with an executor of the caller's own. Its name is what [`Display`](fmt::Display) shows.
    pub fn from_executor(name: impl Into<String>, executor: Box<dyn Executor>) -> Device {
        Device(Arc::new(DeviceInner { name: name.into(), executor, plans: SchedulerState::default() }))
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        *self == *CPU
    }

    /// The device's name with its index: `cpu`, `mps:0`, `vulkan:1`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether tensors of this dtype can live on this device. f64 is missing on GPUs whose adapter has no
    /// 64-bit floats and integers: all except those of Vulkan, and some of these. All other dtypes work
    /// everywhere.
    ///
    /// ```
    /// use wgrad_device::{DType, Device};
    /// assert!(Device::cpu().supports(DType::F64));
    /// ```
    pub fn supports(&self, dtype: DType) -> bool {
        dtype != DType::F64 || self.executor().limits().f64
    }

    /// The executor, which holds the device's memory and runs its kernels.
    pub fn executor(&self) -> &dyn Executor {
        &*self.0.executor
    }

    /// The state that the scheduler keeps with the device.
    pub fn plans(&self) -> &SchedulerState {
        &self.0.plans
    }

    /// A number that no other live device has.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as *const () as usize
    }

    /// Waits until all work of the device is done, and returns its errors.
    pub fn synchronize(&self) -> Result<()> {
        self.executor().synchronize()
    }

    /// The work that it has done so far, and the memory that it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            plans_built: self.0.plans.built.load(Ordering::Relaxed),
            plan_hits: self.0.plans.hits.load(Ordering::Relaxed),
            ..self.executor().stats()
        }
    }

    /// Sets the memory peak of [`Device::stats`] to the bytes in use now.
    pub fn reset_peak(&self) {
        self.executor().reset_peak();
    }

    /// Returns pooled memory that is not in use to the system.
    pub fn trim(&self) {
        self.executor().trim();
    }

    /// Limits the device's memory, in bytes. An allocation beyond it is an [`Error::OutOfMemory`]. `None`
    /// removes the limit.
    pub fn set_memory_limit(&self, limit: Option<u64>) {
        self.executor().set_memory_limit(limit);
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.0.name)
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `cpu`, `mps`, `mps:0`, `vulkan:0`, `dx12:0`, `gl:0` and `wgpu:0`; without an index the first is
    /// meant.
    fn from_str(text: &str) -> Result<Device> {
        match split(text) {
            Some(("cpu", 0)) => Ok(Device::cpu()),
            Some((family, index)) if family != "cpu" => open(family, index),
            _ => Err(unreadable(text)),
        }
    }
}

/// The family and the index of a device's name.
fn split(name: &str) -> Option<(&str, usize)> {
    let (family, index) = match name.split_once(':') {
        Some((family, index)) => (family, index.parse().ok().filter(|_| !index.starts_with('+'))?),
        None => (name, 0),
    };
    ["cpu", "mps", "vulkan", "dx12", "gl", "wgpu"].contains(&family).then_some((family, index))
}

fn unreadable(text: &str) -> Error {
    Error::Parse {
        what: "device",
        text: text.to_owned(),
        expected: "cpu, mps:0, vulkan:0, dx12:0, gl:0 or wgpu:0".to_owned(),
    }
}

/// The names and adapters of all devices, for error messages.
pub(crate) fn available_names() -> String {
    let names: Vec<String> = Device::available().iter().map(DeviceInfo::to_string).collect();
    names.join(", ")
}

fn unavailable(family: &str, index: usize) -> Error {
    let reason = if cfg!(not(feature = "gpu")) {
        "wgrad was built without the feature `gpu`"
    } else if family == "mps" && cfg!(not(target_vendor = "apple")) {
        "Metal exists on Apple systems only"
    } else if family == "dx12" && cfg!(not(windows)) {
        "Direct3D 12 exists on Windows only"
    } else {
        "no such adapter that can run compute kernels was found"
    };
    Error::DeviceUnavailable {
        requested: format!("{family}:{index}"),
        reason: reason.to_owned(),
        available: available_names(),
    }
}

#[cfg(feature = "gpu")]
fn open(family: &str, index: usize) -> Result<Device> {
    crate::gpu::find(family, index).ok_or_else(|| unavailable(family, index))?.device()
}

#[cfg(feature = "gpu")]
fn open_fresh(family: &str, index: usize, options: &DeviceOptions) -> Result<Device> {
    crate::gpu::find(family, index).ok_or_else(|| unavailable(family, index))?.open(options)
}

#[cfg(feature = "gpu")]
fn adapters() -> Vec<DeviceInfo> {
    crate::gpu::adapters().iter().map(|adapter| adapter.describe()).collect()
}

#[cfg(feature = "gpu")]
fn best_gpu() -> Option<Device> {
    use DeviceKind::{DiscreteGpu, IntegratedGpu, VirtualGpu};
    let hardware = |kind| matches!(kind, DiscreteGpu | IntegratedGpu | VirtualGpu);
    let found = crate::gpu::adapters().iter().filter(|adapter| hardware(adapter.describe().kind));
    found.into_iter().find_map(|adapter| match adapter.device() {
        Ok(device) => Some(device),
        Err(error) => {
            log::warn!("{} cannot be used: {error}", adapter.name());
            None
        }
    })
}

#[cfg(not(feature = "gpu"))]
fn open(family: &str, index: usize) -> Result<Device> {
    Err(unavailable(family, index))
}

#[cfg(not(feature = "gpu"))]
fn open_fresh(family: &str, index: usize, _options: &DeviceOptions) -> Result<Device> {
    Err(unavailable(family, index))
}

#[cfg(not(feature = "gpu"))]
fn adapters() -> Vec<DeviceInfo> {
    Vec::new()
}

#[cfg(not(feature = "gpu"))]
fn best_gpu() -> Option<Device> {
    None
}
