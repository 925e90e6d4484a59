//! Memory of this machine that work needs beside its arrays: it counts against the same limits as theirs.

use smallvec::SmallVec;
use wgrad_device::{Device, Reservation, Result};

/// Memory that counts as in use: this machine's, and that of the device for which it is used.
pub type Room = SmallVec<[Reservation; 2]>;

/// Counts bytes of this machine's memory that are needed for a while for arrays of a device.
///
/// # Errors
/// [`OutOfMemory`](wgrad_device::Error::OutOfMemory) if the limit of the CPU, or the device's own, has no room for them.
pub fn reserve(device: &Device, bytes: usize) -> Result<Room> {
    // What the system would not give at all is refused where no limit is known, too.
    drop(crate::host_vec::<u8>(bytes)?);
    let host = Device::cpu();
    let own = Some(device).filter(|&device| *device != host);
    [&host].into_iter().chain(own).map(|device| device.executor().reserve(bytes)).collect()
}
