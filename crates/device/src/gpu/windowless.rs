//! Instances of wgpu that do not connect to a desktop.
//!
//! wgpu asks Vulkan for the extensions that draw into windows of Wayland and X11. Mesa's layer that orders
//! devices then connects to the desktop to ask which device it prefers, and where there is no desktop,
//! libwayland writes to standard error. A library that draws nothing should not do that.
#![allow(unsafe_code)]

use wgpu::{Backends, Instance, InstanceFlags};

/// The instances for these backends, each with the backends whose adapters it lists.
pub(super) fn instances(backends: Backends) -> Vec<(Instance, Backends)> {
    let flags = InstanceFlags::empty().with_env();
    let mut found = Vec::new();
    let mut rest = backends;
    if backends.contains(Backends::VULKAN)
        && let Some(instance) = vulkan(flags)
    {
        found.push((instance, Backends::VULKAN));
        rest -= Backends::VULKAN;
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = flags;
    descriptor.backends = rest;
    found.push((Instance::new(descriptor), rest));
    found
}

/// An instance for Vulkan without the extensions for windows; `None` where Vulkan is missing.
#[cfg(all(unix, not(target_vendor = "apple"), not(target_os = "android")))]
fn vulkan(flags: InstanceFlags) -> Option<Instance> {
    use wgpu::hal::{InstanceDescriptor, api, vulkan};
    let descriptor = InstanceDescriptor {
        name: "wgrad",
        flags,
        memory_budget_thresholds: Default::default(),
        backend_options: Default::default(),
        telemetry: None,
        display: None,
    };
    let without_windows = |args: vulkan::CreateInstanceCallbackArgs<'_, '_, '_>| {
        let windows = [c"VK_KHR_wayland_surface", c"VK_KHR_xcb_surface", c"VK_KHR_xlib_surface"];
        args.extensions.retain(|extension| !windows.contains(extension));
    };
    // SAFETY: the callback only removes extensions, so the list becomes that of a machine without a desktop.
    // wgpu-hal leaves out extensions that a driver does not offer, and checks for each of these three before
    // it makes a surface of its kind, which is all that it uses them for. No surface is ever made here.
    let instance =
        unsafe { vulkan::Instance::init_with_callback(&descriptor, Some(Box::new(without_windows))) };
    // SAFETY: the instance was just created for Vulkan, which `from_hal` is told, and nobody else holds it.
    Some(unsafe { Instance::from_hal::<api::Vulkan>(instance.ok()?) })
}

/// On other systems, wgpu's own instance does not look for a desktop.
#[cfg(not(all(unix, not(target_vendor = "apple"), not(target_os = "android"))))]
fn vulkan(_: InstanceFlags) -> Option<Instance> {
    None
}
