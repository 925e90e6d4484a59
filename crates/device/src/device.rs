//! Devices: naming, choosing, opening once, sharing.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::{Error, Executor, Result, Stats, cpu::Cpu};

/// A place where tensors live and kernels run. A cheap handle; all handles of one device are equal.
///
/// ```
/// use wgrad_device::Device;
/// let cpu: Device = "cpu".parse()?;
/// assert_eq!(cpu, Device::cpu());
/// assert_eq!(cpu.to_string(), "cpu");
/// # Ok::<(), wgrad_device::Error>(())
/// ```
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    name: String,
    executor: Box<dyn Executor>,
    plans: Plans,
}

/// What the scheduler keeps with a device.
#[derive(Default)]
pub struct Plans {
    /// Bytes in use when pending work was last evaluated for the memory that it held.
    pub bytes_at_flush: AtomicU64,
    /// Graphs scheduled.
    pub built: AtomicU64,
    /// Graphs whose plan was known.
    pub hits: AtomicU64,
}

static CPU: LazyLock<Device> = LazyLock::new(|| Device::from_executor("cpu", Box::new(Cpu::new())));

impl Device {
    /// The CPU. Always there.
    pub fn cpu() -> Device {
        CPU.clone()
    }

    /// A device around an executor of one's own; its name is what [`Display`](fmt::Display) shows.
    pub fn from_executor(name: impl Into<String>, executor: Box<dyn Executor>) -> Device {
        Device(Arc::new(Inner { name: name.into(), executor, plans: Plans::default() }))
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        *self == *CPU
    }

    /// The device's name with its index: `cpu`, `mps:0`, `vulkan:1`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its memory and its way to run kernels.
    pub fn executor(&self) -> &dyn Executor {
        &*self.0.executor
    }

    /// The scheduler's counters.
    pub fn plans(&self) -> &Plans {
        &self.0.plans
    }

    /// A number that tells devices apart.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as *const () as usize
    }

    /// Waits until all work given to the device is done, and returns what went wrong in it.
    pub fn synchronize(&self) -> Result<()> {
        self.executor().synchronize()
    }

    /// What it has done so far, and the memory it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            plans_built: self.0.plans.built.load(Ordering::Relaxed),
            plan_hits: self.0.plans.hits.load(Ordering::Relaxed),
            ..self.executor().stats()
        }
    }

    /// Sets the memory peak of [`Device::stats`] to what is in use now.
    pub fn reset_peak(&self) {
        self.executor().reset_peak();
    }

    /// Gives pooled memory that nobody uses back to the system.
    pub fn trim(&self) {
        self.executor().trim();
    }

    /// Bounds the device's memory, in bytes; an allocation over it is an [`Error::OutOfMemory`]. `None` lifts the bound.
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

    fn from_str(text: &str) -> Result<Device> {
        match text {
            "cpu" => Ok(Device::cpu()),
            _ => Err(Error::Parse {
                what: "device",
                text: text.to_owned(),
                expected: "cpu, mps:0, vulkan:0, dx12:0, gl:0 or wgpu:0".to_owned(),
            }),
        }
    }
}
