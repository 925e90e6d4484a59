//! A device that counts what is read from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wgrad::{Device, Result, Stats};
use wgrad_device::kernel::Kernel;
use wgrad_device::{Buffer, Executor, Limits, Prepared, Reservation};

struct Counting {
    device: Device,
    reads: Arc<AtomicU64>,
}

/// A device that works as this one, with plans of its own, and how often somebody has read from it.
pub fn counting(device: &Device) -> (Device, Arc<AtomicU64>) {
    let reads = Arc::new(AtomicU64::new(0));
    let executor = Counting { device: device.clone(), reads: reads.clone() };
    (Device::from_executor(format!("counting {device}"), Box::new(executor)), reads)
}

impl Executor for Counting {
    fn limits(&self) -> &Limits {
        self.device.executor().limits()
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.device.executor().alloc(bytes)
    }

    fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.device.executor().reserve(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        self.device.executor().upload(bytes)
    }

    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.device.executor().download(buffer, offset, out)
    }

    fn check_indices(&self) -> Result<()> {
        self.device.executor().check_indices()
    }

    fn index_failures(&self) -> u64 {
        self.device.executor().index_failures()
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        self.device.executor().prepare(kernel)
    }

    fn flush(&self) -> Result<()> {
        self.device.executor().flush()
    }

    fn synchronize(&self) -> Result<()> {
        self.device.executor().synchronize()
    }

    fn stats(&self) -> Stats {
        self.device.executor().stats()
    }

    fn trim(&self) {
        self.device.executor().trim();
    }

    fn set_memory_limit(&self, limit: Option<u64>) {
        self.device.executor().set_memory_limit(limit);
    }

    fn reset_peak(&self) {
        self.device.executor().reset_peak();
    }
}
