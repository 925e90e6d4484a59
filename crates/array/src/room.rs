//! Host memory that an operation needs besides its arrays. It counts against the same limits as the arrays'
//! memory.

use smallvec::SmallVec;
use wgrad_device::{Device, Reservation, Result};

/// Reservations of memory, on the CPU and on the device for which the memory is used. The bytes count as in
/// use until this is dropped.
pub type Room = SmallVec<[Reservation; 2]>;

/// Reserves bytes of host memory for work on arrays of a device. Nothing is allocated; the bytes count
/// against the memory limits of the CPU and of the device until the result is dropped.
///
/// ```
/// use wgrad_array::{Device, reserve};
/// let cpu = Device::cpu();
/// let before = cpu.stats().bytes_in_use;
/// let room = reserve(&cpu, 1 << 20)?;
/// assert!(cpu.stats().bytes_in_use >= before + (1 << 20));
/// drop(room);
/// # Ok::<(), wgrad_array::Error>(())
/// ```
///
/// # Errors
/// [`OutOfMemory`](wgrad_device::Error::OutOfMemory) if they exceed the memory limit of the CPU or of the
/// device, or if the system refuses to allocate as much.
pub fn reserve(device: &Device, bytes: usize) -> Result<Room> {
    // Without a memory limit, trying an allocation shows whether the system has as much.
    drop(crate::host_vec::<u8>(bytes)?);
    let host = Device::cpu();
    let own = Some(device).filter(|&device| *device != host);
    [&host].into_iter().chain(own).map(|device| device.executor().reserve(bytes)).collect()
}
