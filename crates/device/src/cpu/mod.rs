//! The CPU executor.

use std::sync::Arc;

use crate::kernel::Kernel;
use crate::{Buffer, Executor, Limits, Prepared, Result, Stats};

/// The CPU executor.
pub struct Cpu {
    limits: Limits,
}

impl Cpu {
    /// The executor of this machine's CPU.
    pub fn new() -> Cpu {
        Cpu { limits: Limits { buffers: 64, instructions: 512, f64: true } }
    }
}

impl Executor for Cpu {
    fn limits(&self) -> &Limits {
        &self.limits
    }
    fn alloc(&self, _bytes: usize) -> Result<Buffer> {
        unimplemented!()
    }
    fn upload(&self, _bytes: &[u8]) -> Result<Buffer> {
        unimplemented!()
    }
    fn download(&self, _buffer: &Buffer, _offset: usize, _out: &mut [u8]) -> Result<()> {
        unimplemented!()
    }
    fn prepare(&self, _kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        unimplemented!()
    }
    fn flush(&self) -> Result<()> {
        unimplemented!()
    }
    fn synchronize(&self) -> Result<()> {
        unimplemented!()
    }
    fn stats(&self) -> Stats {
        unimplemented!()
    }
    fn trim(&self) {}
    fn set_memory_limit(&self, _limit: Option<u64>) {}
    fn reset_peak(&self) {}
}
