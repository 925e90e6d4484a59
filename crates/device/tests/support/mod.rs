//! Helpers that the tests of all crates share: the devices to run on, and facts about their drivers.
#![allow(dead_code)] // Each test file uses its own part.

use wgrad_device::{Device, DeviceInfo, DeviceKind, DeviceOptions};

/// The devices of this machine: the CPU, then all adapters. If there is no adapter, this prints a note, or
/// fails if `WGRAD_REQUIRE_GPU` is 1.
pub fn devices() -> Vec<Device> {
    let infos = Device::available();
    if infos.len() == 1 {
        eprintln!("no GPU adapter here: only the CPU is tested");
        assert_ne!(std::env::var("WGRAD_REQUIRE_GPU").as_deref(), Ok("1"), "WGRAD_REQUIRE_GPU is set");
    }
    infos.iter().map(|info| info.name.parse().expect("a device that was listed")).collect()
}

/// The names of [`devices`], or only the one that `WGRAD_DEVICE` names.
pub fn names() -> Vec<String> {
    let named = named().map(|name| name.parse::<Device>().expect("a device in WGRAD_DEVICE"));
    named.map_or_else(devices, |device| vec![device]).iter().map(|device| device.name().to_owned()).collect()
}

/// Whether `WGRAD_DEVICE` names a device.
pub fn is_named() -> bool {
    named().is_some()
}

fn named() -> Option<String> {
    std::env::var("WGRAD_DEVICE").ok().filter(|name| !name.is_empty())
}

/// The adapters of this machine, as [`devices`].
pub fn gpus() -> Vec<Device> {
    devices().into_iter().filter(|device| !device.is_cpu()).collect()
}

/// New devices with these options, on all adapters of this machine.
pub fn fresh(options: &DeviceOptions) -> Vec<Device> {
    let open = |device: &Device| Device::open_with(device.name(), options.clone());
    gpus().iter().map(|device| open(device).expect("a device that was listed")).collect()
}

/// The description of a device.
pub fn info(device: &Device) -> DeviceInfo {
    let mut infos = Device::available().into_iter();
    infos.find(|info| info.name == device.name()).expect("a device that was listed")
}

/// Whether a device uses NVIDIA's own driver, for which tests allow larger errors.
pub fn is_nvidia(device: &Device) -> bool {
    !device.is_cpu() && info(device).driver.contains("NVIDIA")
}

/// Whether this machine has no hardware device besides the processor.
pub fn all_software() -> bool {
    Device::available().iter().all(|info| matches!(info.kind, DeviceKind::Cpu | DeviceKind::Software))
}
