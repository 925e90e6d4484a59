//! The data that this crate keeps with a device: the plan cache, and the tables of Fourier transforms.

use std::sync::RwLock;

use wgrad_device::Device;

use crate::ops::FourierTables;
use crate::plan::PlanCache;

/// This crate's data of a device. They are dropped with the device.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) plans: PlanCache,
    pub(crate) fourier: FourierTables,
    /// Locked for writing while a graph runs whose indices are checked by its kernels, and for reading by
    /// downloads. So a download does not get the report of another thread's bad index.
    pub(crate) checking: RwLock<()>,
}

/// This crate's data of a device.
pub(crate) fn kept(device: &Device) -> &Kept {
    match device.plans().kept() {
        Some(kept) => kept,
        None => unreachable!("only this crate keeps something with a device"),
    }
}
