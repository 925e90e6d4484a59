//! The adapters of this machine. They are listed once, best first, and each is opened at most once and then
//! shared.
//!
//! Listing never fails: a machine without drivers has an empty list.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use wgpu::{Backend, DeviceType};

use super::failure::Failures;
use super::turn::DriverTurn;
use super::{Gpu, Spread, windowless};
use crate::device::{DeviceInfo, DeviceKind, DeviceOptions};
use crate::{Device, Error, Result};

/// The least bytes of a binding, however low a limit is requested. No adapter has less, and kernels rely on
/// it.
const LEAST_BINDING: u64 = 4096;
/// The bytes of workgroup memory that kernels rely on, for the keys and places of a short sort, and for a
/// fold's state of each type for each of 256 lanes. WebGPU guarantees 16 KiB and workgroups of 256
/// invocations.
const LEAST_WORKGROUP_MEMORY: u32 = 12 << 10;

/// An adapter and the device that was opened on it.
pub(crate) struct Adapter {
    adapter: wgpu::Adapter,
    info: wgpu::AdapterInfo,
    name: String,
    device: Mutex<Option<(Device, Arc<Failures>)>>,
}

static ADAPTERS: LazyLock<Vec<Adapter>> = LazyLock::new(list);

/// All adapters that can run compute kernels, best first.
pub(crate) fn adapters() -> &'static [Adapter] {
    &ADAPTERS
}

/// The adapter of this name: `vulkan:0`, or `wgpu:1` for the second best of all.
pub(crate) fn find(family: &str, index: usize) -> Option<&'static Adapter> {
    if family == "wgpu" {
        return ADAPTERS.get(index);
    }
    let name = format!("{family}:{index}");
    ADAPTERS.iter().find(|adapter| adapter.name == name)
}

fn list() -> Vec<Adapter> {
    let backends = wgpu::Instance::enabled_backend_features();
    if backends.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<_> = windowless::instances(backends)
        .iter()
        .flat_map(|(instance, backends)| pollster::block_on(instance.enumerate_adapters(*backends)))
        .filter(can_compute)
        .map(|adapter| (adapter.get_info(), adapter))
        .collect();
    found.sort_by_key(|(info, _)| (rank(info.device_type), backend_rank(info.backend)));
    let mut counts = std::collections::HashMap::new();
    let named = found.into_iter().map(|(info, adapter)| {
        let family = family(info.backend);
        let index = counts.entry(family).and_modify(|n| *n += 1).or_insert(0usize);
        Adapter { name: format!("{family}:{index}"), adapter, info, device: Mutex::new(None) }
    });
    named.collect()
}

fn can_compute(adapter: &wgpu::Adapter) -> bool {
    let (limits, info) = (adapter.limits(), adapter.get_info());
    (info.backend != Backend::Gl || gl_has_kernels(&info.driver_info))
        && adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        && limits.max_storage_buffers_per_shader_stage >= 4
        && limits.max_compute_invocations_per_workgroup >= 256
        && limits.max_compute_workgroup_storage_size >= LEAST_WORKGROUP_MEMORY
}

/// Whether an OpenGL context of this version (`4.5 (Core Profile) …` or `OpenGL ES 3.2 …`) has compute
/// shaders, and `mix` for integers in its shading language. Version 4.5 and ES 3.1 do. A driver may offer a
/// context of version 3.3 with extensions that wgpu takes for them.
pub(super) fn gl_has_kernels(version: &str) -> bool {
    let (least, number) = match version.strip_prefix("OpenGL ES ") {
        Some(number) => ([3, 1], number),
        None => ([4, 5], version),
    };
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0)] >= least
}

const fn rank(kind: DeviceType) -> u8 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

const fn backend_rank(backend: Backend) -> u8 {
    match backend {
        Backend::Metal => 0,
        Backend::Vulkan => 1,
        Backend::Dx12 => 2,
        _ => 3,
    }
}

const fn family(backend: Backend) -> &'static str {
    match backend {
        Backend::Metal => "mps",
        Backend::Vulkan => "vulkan",
        Backend::Dx12 => "dx12",
        Backend::Gl => "gl",
        _ => "webgpu",
    }
}

impl Adapter {
    /// Its name among the devices.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its description.
    pub(crate) fn describe(&self) -> DeviceInfo {
        let kind = match self.info.device_type {
            DeviceType::DiscreteGpu => DeviceKind::DiscreteGpu,
            DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
            DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
            DeviceType::Other => DeviceKind::Other,
            DeviceType::Cpu => DeviceKind::Software,
        };
        DeviceInfo {
            name: self.name.clone(),
            adapter: self.info.name.clone(),
            driver: format!("{} {}", self.info.driver, self.info.driver_info).trim().to_owned(),
            backend: format!("{:?}", self.info.backend),
            kind,
        }
    }

    /// The shared device on this adapter. It is opened on the first call, and anew on the first call after it
    /// was lost.
    pub(crate) fn device(&self) -> Result<Device> {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((device, failures)) = &*device
            && failures.alive().is_ok()
        {
            return Ok(device.clone());
        }
        let gpu = self.executor(&DeviceOptions::default())?;
        let failures = gpu.shared.failures.clone();
        let opened = Device::from_executor(self.name.clone(), Box::new(gpu));
        *device = Some((opened.clone(), failures));
        Ok(opened)
    }

    /// Opens a new device on this adapter.
    pub(crate) fn open(&self, options: &DeviceOptions) -> Result<Device> {
        Ok(Device::from_executor(self.name.clone(), Box::new(self.executor(options)?)))
    }

    /// The executor of a new device with these options.
    pub(super) fn executor(&self, options: &DeviceOptions) -> Result<Gpu> {
        let mut limits = self.adapter.limits();
        let lower = |limit: &mut u32, to: Option<u32>| *limit = to.map_or(*limit, |to| to.min(*limit));
        lower(&mut limits.max_storage_buffers_per_shader_stage, options.max_storage_buffers);
        lower(&mut limits.max_compute_workgroups_per_dimension, options.max_workgroups_per_dimension);
        if let Some(bytes) = options.max_workgroup_memory {
            let limit = &mut limits.max_compute_workgroup_storage_size;
            *limit = (*limit).min(bytes.max(LEAST_WORKGROUP_MEMORY));
        }
        if let Some(bytes) = options.max_binding_bytes {
            limits.max_storage_buffer_binding_size =
                limits.max_storage_buffer_binding_size.min(bytes.max(LEAST_BINDING));
        }
        let software = self.info.device_type == DeviceType::Cpu && !options.as_hardware;
        let subgroup = self.info.subgroup_min_size as usize;
        let subgroups = software
            && !options.without_subgroups
            && self.adapter.features().contains(wgpu::Features::SUBGROUP)
            && self.info.subgroup_max_size as usize == subgroup
            && [4, 8, 16].contains(&subgroup);
        // WGSL can read the bits of an f64 only as one 64-bit word.
        let wide = wgpu::Features::SHADER_F64 | wgpu::Features::SHADER_INT64;
        let has_f64 = self.adapter.features().contains(wide) && !options.without_f64;
        let mut features = wgpu::Features::empty();
        features.set(wgpu::Features::SUBGROUP, subgroups);
        features.set(wide, has_f64);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgrad"),
            required_features: features,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let takes_turns = self.info.backend == Backend::Gl;
        let turn = DriverTurn::wait(takes_turns);
        let (device, queue) =
            pollster::block_on(self.adapter.request_device(&descriptor)).map_err(|error| {
                Error::DeviceUnavailable {
                    requested: self.name.clone(),
                    reason: error.to_string(),
                    available: crate::device::available_names(),
                }
            })?;
        let spread = Spread { software, subgroup: subgroups.then_some(subgroup) };
        let gpu = Gpu::new(self.name.clone(), device, queue, spread, takes_turns, options.memory_limit);
        drop(turn);
        gpu.shared.failures.take()?;
        Ok(gpu)
    }

    /// The same adapter without a shared device.
    #[cfg(test)]
    pub(super) fn unopened(&self) -> Adapter {
        let Adapter { adapter, info, name, .. } = self;
        Adapter { adapter: adapter.clone(), info: info.clone(), name: name.clone(), device: Mutex::new(None) }
    }

    /// The errors of the shared device.
    #[cfg(test)]
    pub(super) fn failures(&self) -> Option<Arc<Failures>> {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.as_ref().map(|(_, failures)| failures.clone())
    }
}
