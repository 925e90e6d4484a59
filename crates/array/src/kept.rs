//! What is kept with a device: plans, and the tables of Fourier transforms.

use std::sync::RwLock;

use wgrad_device::Device;

use crate::ops::FourierTables;
use crate::plan::PlanCache;

/// Kept with a device, and dropped with it.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) plans: PlanCache,
    pub(crate) fourier: FourierTables,
    /// Held while a graph whose indices are checked late runs, and shared by those who read.
    pub(crate) checking: RwLock<()>,
}

/// What is kept with a device.
pub(crate) fn kept(device: &Device) -> &Kept {
    match device.plans().kept() {
        Some(kept) => kept,
        None => unreachable!("only this crate keeps something with a device"),
    }
}
