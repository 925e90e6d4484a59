//! The CPU executor: a block-wise vectorised interpreter of the kernel IR.
//!
//! - [`memory`] is the pool that buffers come from.

mod memory;
#[path = "../../tests/common/reference.rs"]
#[allow(missing_docs, dead_code)]
mod reference;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memory::{CpuMemory, Pool};

use crate::kernel::{Kernel, Traffic};
use crate::{Buffer, Error, Executor, Limits, Prepared, Result, Scalar, Stats};

/// The CPU executor. Launches run to their end before they return, so there is never anything to flush or to wait for.
pub struct Cpu {
    limits: Limits,
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    structures: Mutex<HashSet<Kernel>>,
}

#[derive(Default)]
struct Counters {
    dispatches: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    compiled: AtomicU64,
    hits: AtomicU64,
}

impl Counters {
    fn launched(&self, traffic: Traffic) {
        self.dispatches.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(traffic.read, Ordering::Relaxed);
        self.bytes_written.fetch_add(traffic.written, Ordering::Relaxed);
    }
}

impl Cpu {
    /// The executor of this machine's CPU.
    pub fn new() -> Cpu {
        Cpu {
            limits: Limits { buffers: 64, instructions: 512, f64: true },
            pool: Arc::new(Pool::new()),
            counters: Arc::default(),
            structures: Mutex::default(),
        }
    }
}

/// The CPU memory behind a buffer.
fn memory_of(buffer: &Buffer) -> Result<&CpuMemory> {
    buffer.downcast::<CpuMemory>().ok_or_else(|| Error::Argument {
        op: "launch",
        reason: "a buffer of another device was given to the CPU; move it with to() first".to_owned(),
    })
}

impl Executor for Cpu {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(self.pool.alloc(bytes)?))
    }

    #[allow(unsafe_code)]
    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let memory = self.pool.alloc(bytes.len())?;
        // SAFETY: the memory is fresh and has as many bytes.
        unsafe { memory.pointer().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(Buffer::new(memory))
    }

    #[allow(unsafe_code)]
    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        let memory = memory_of(buffer)?;
        if offset.checked_add(out.len()).is_none_or(|end| end > buffer.bytes()) {
            return Err(Error::Argument {
                op: "download",
                reason: format!("{} bytes from {offset} on, of a buffer of {}", out.len(), buffer.bytes()),
            });
        }
        // SAFETY: the range was checked; nothing writes to the buffer meanwhile, as the caller orders its work.
        unsafe { out.as_mut_ptr().copy_from_nonoverlapping(memory.pointer().add(offset), out.len()) };
        Ok(())
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        let mut structures = self.structures.lock().unwrap_or_else(PoisonError::into_inner);
        let counter =
            if structures.insert(kernel.clone()) { &self.counters.compiled } else { &self.counters.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Naive {
            kernel: kernel.clone(),
            traffic: kernel.traffic(),
            counters: self.counters.clone(),
        }))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            dispatches: read(&self.counters.dispatches),
            bytes_read: read(&self.counters.bytes_read),
            bytes_written: read(&self.counters.bytes_written),
            pipelines_compiled: read(&self.counters.compiled),
            pipeline_hits: read(&self.counters.hits),
            ..self.pool.stats()
        }
    }

    fn trim(&self) {
        self.pool.trim();
    }

    fn set_memory_limit(&self, limit: Option<u64>) {
        self.pool.set_limit(limit);
    }

    fn reset_peak(&self) {
        self.pool.reset_peak();
    }
}

/// The reference interpreter on copies of the buffers, until the fast one is here.
struct Naive {
    kernel: Kernel,
    traffic: Traffic,
    counters: Arc<Counters>,
}

impl Prepared for Naive {
    #[allow(unsafe_code)]
    fn launch(&self, buffers: &[&Buffer], params: &[Scalar]) -> Result<()> {
        self.counters.launched(self.traffic);
        let mut copies = Vec::new();
        for buffer in buffers {
            let mut bytes = vec![0; buffer.bytes()];
            // SAFETY: the buffer has as many bytes.
            unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(memory_of(buffer)?.pointer(), bytes.len()) };
            copies.push(bytes);
        }
        reference::run(&self.kernel, &mut copies, params)?;
        for (buffer, bytes) in buffers.iter().zip(&copies) {
            // SAFETY: as above.
            unsafe { memory_of(buffer)?.pointer().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        Ok(())
    }
}
