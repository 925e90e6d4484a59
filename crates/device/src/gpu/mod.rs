//! The wgpu executor: it translates kernels to WGSL and runs them on Metal, Vulkan, Direct3D 12 and OpenGL.
//!
//! The modules, in the order in which data flows: `adapter` finds devices (through `windowless`) and opens
//! them, `memory` holds bytes, `kernel` plans a kernel and writes its WGSL (with the shared functions from
//! `prelude`), `pipeline` compiles it and keeps the compiled form, `program` launches it, and `stream` sends
//! it to the device and reads results back. Kernels that a device's limits rule out are run on the CPU by
//! `hosted`. `failure` keeps an error until the next call that reports errors.
//!
//! Guarantees: results are the same bits on every run on one device; no invocation runs more than a few
//! thousand loop iterations, and no dispatch exceeds the adapter's limits, whatever the sizes; errors of the
//! driver become errors of the next call that needs a value.

mod adapter;
mod failure;
mod hosted;
mod kernel;
mod memory;
mod pipeline;
mod prelude;
mod program;
mod shader;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod windowless;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use adapter::{adapters, find};
pub(crate) use pipeline::sources;

use crate::kernel::Kernel;
use crate::{Buffer, Error, Executor, Limits, Prepared, Reservation, Result, Stats};
use failure::Failures;
use hosted::Hosted;
use memory::{GpuMemory, GpuPool};
use pipeline::Pipelines;
use stream::CommandStream;
use turn::DriverTurn;

/// The most bytes of the internal buffer, which holds index failures and scratch memory.
const INTERNAL_BYTES: u64 = 1 << 20;

/// The executor of one adapter.
pub(crate) struct Gpu {
    shared: Arc<GpuShared>,
    limits: Limits,
}

/// The state of a device that its programs and its memory share.
struct GpuShared {
    /// Whether calls of the driver must take turns with those of other threads (see `turn`).
    takes_turns: bool,
    name: String,
    // The order of the fields is that in which they are dropped. Dropping objects of the driver needs the
    // turn, which `last_turn` holds until it is dropped itself; the pool takes a turn of its own after that.
    stream: Mutex<CommandStream>,
    pipelines: Pipelines,
    queue: wgpu::Queue,
    device: wgpu::Device,
    last_turn: Option<DriverTurn>,
    pool: Arc<GpuPool>,
    caps: Caps,
    failures: Arc<Failures>,
    counters: GpuCounters,
    /// The names of operations whose indices are checked; kernels report an operation by its position here.
    checked_ops: Mutex<Vec<&'static str>>,
}

/// What decides how work is spread over workgroups.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// Whether the adapter runs on the processor, where few workgroups and sequential work are cheap.
    software: bool,
    /// The size of a subgroup, whose invocations can read each other's values by broadcasts. It is set on
    /// software adapters only, and only where the size never changes.
    subgroup: Option<usize>,
}

impl Drop for GpuShared {
    fn drop(&mut self) {
        self.last_turn = self.turn();
    }
}

/// The capabilities of a device on which the planning of kernels depends.
#[derive(Clone, Debug)]
struct Caps {
    spread: Spread,
    max_binding: u64,
    max_workgroups: u32,
    /// The words of scratch memory in the internal buffer.
    scratch_words: usize,
    /// The storage buffers that one kernel may bind besides the internal buffer.
    max_buffers: usize,
    /// The bytes of workgroup memory that one kernel may declare.
    workgroup_memory: u32,
    /// Whether kernels may compute in f64.
    f64: bool,
}

#[derive(Default)]
struct GpuCounters {
    dispatches: AtomicU64,
    hosted: AtomicU64,
    submits: AtomicU64,
    bad_indices: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

impl Gpu {
    fn new(
        name: String,
        device: wgpu::Device,
        queue: wgpu::Queue,
        spread: Spread,
        takes_turns: bool,
        memory_limit: Option<u64>,
    ) -> Gpu {
        let failures = Arc::new(Failures::new(name.clone()));
        let sink = failures.clone();
        let label = name.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            log::error!("{label}: {error}");
            sink.record(sink.refused(error.to_string()));
        }));
        let sink = failures.clone();
        device.set_device_lost_callback(move |_, reason| sink.lose(&reason));
        let limits = device.limits();
        let max_binding =
            limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(1 << 31) / 256 * 256;
        let internal = INTERNAL_BYTES.min(max_binding);
        let caps = Caps {
            spread,
            max_binding,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            scratch_words: (internal as usize - 64) / 4,
            max_buffers: (limits.max_storage_buffers_per_shader_stage as usize - 1).min(24),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            f64: device.features().contains(wgpu::Features::SHADER_F64),
        };
        let pool = Arc::new(GpuPool::new(device.clone(), takes_turns, failures.clone(), memory_limit));
        // A binding begins at a multiple of 256 bytes, so up to two such units are lost at its ends.
        let binding = (caps.max_binding as usize).saturating_sub(512);
        let limits = Limits {
            buffers: caps.max_buffers,
            instructions: 256,
            inlined: spread.software,
            binding,
            allocation: limits.max_buffer_size,
            f64: caps.f64,
        };
        let shared = GpuShared {
            takes_turns,
            stream: Mutex::new(CommandStream::new(&device, internal)),
            pipelines: Pipelines::new(device.clone(), failures.clone()),
            name,
            queue,
            device,
            last_turn: None,
            pool,
            caps,
            failures,
            counters: GpuCounters::default(),
            checked_ops: Mutex::default(),
        };
        Gpu { shared: Arc::new(shared), limits }
    }
}

impl GpuShared {
    /// The turn, which every public call that may reach the driver holds. Such calls do not nest.
    fn turn(&self) -> Option<DriverTurn> {
        DriverTurn::wait(self.takes_turns)
    }

    fn stream(&self) -> MutexGuard<'_, CommandStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number by which kernels report an operation.
    fn checked_op(&self, op: &'static str) -> u32 {
        let mut ops = self.checked_ops.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ops.iter().position(|&known| known == op);
        known.unwrap_or_else(|| {
            ops.push(op);
            ops.len() - 1
        }) as u32
    }

    /// Records the error for an index failure that a kernel wrote to the internal buffer.
    fn record_index_failure(&self, words: &[u32]) {
        let &[failures, op, size, low, high, ..] = words else { return };
        if failures > 0 {
            self.counters.bad_indices.fetch_add(1, Ordering::AcqRel);
            let ops = self.checked_ops.lock().unwrap_or_else(PoisonError::into_inner);
            let op = ops.get(op as usize).copied().unwrap_or("index");
            let index = (u64::from(high) << 32 | u64::from(low)) as i64;
            self.failures.record(Error::Index { op, index, size: size as usize, called_at: None });
        }
    }

    /// The block behind a buffer. It is an error if the buffer belongs to another device.
    fn block<'a>(&self, buffer: &'a Buffer) -> Result<&'a memory::GpuBlock> {
        let memory = buffer.downcast::<GpuMemory>().filter(|memory| memory.is_of(&self.pool));
        memory.map(GpuMemory::block).ok_or_else(|| Error::DeviceMismatch {
            op: "launch",
            lhs: self.name.clone(),
            rhs: "a buffer of another device".to_owned(),
        })
    }
}

impl Executor for Gpu {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.shared.failures.alive()?;
        let _turn = self.shared.turn();
        Ok(Buffer::new(self.shared.pool.alloc(bytes)?))
    }

    fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.shared.failures.alive()?;
        Ok(Reservation::new(Some(Box::new(self.shared.pool.reserve(bytes)?))))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let shared = &self.shared;
        shared.failures.alive()?;
        let _turn = shared.turn();
        let memory = shared.pool.alloc(bytes.len())?;
        let block = memory.block();
        let mut stream = shared.stream();
        // The write reaches the device before the commands that are encoded but not submitted. If those
        // commands may still use the former contents of the block, they are submitted first.
        if stream.is_pending() && block.epoch == shared.pool.epoch.load(Ordering::Acquire) {
            stream.submit(shared);
        }
        stream.write(shared, block, bytes);
        drop(stream);
        Ok(Buffer::new(memory))
    }

    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        let block = self.shared.block(buffer)?;
        if offset.checked_add(out.len()).is_none_or(|end| end > buffer.bytes()) {
            return Err(Error::Argument {
                op: "download",
                reason: format!(
                    "{} bytes from {offset} on leave a buffer of {} bytes",
                    out.len(),
                    buffer.bytes()
                ),
            });
        }
        self.shared.failures.alive()?;
        if out.is_empty() {
            return Ok(());
        }
        let _turn = self.shared.turn();
        self.shared.stream().download(&self.shared, block, offset as u64, out)
    }

    fn index_failures(&self) -> u64 {
        self.shared.counters.bad_indices.load(Ordering::Acquire)
    }

    fn check_indices(&self) -> Result<()> {
        let _turn = self.shared.turn();
        self.shared.stream().check_indices(&self.shared)
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        self.shared.failures.alive()?;
        let _turn = self.shared.turn();
        match kernel::prepare(&self.shared, kernel) {
            Ok(program) => Ok(Arc::new(program)),
            Err(refusal @ Error::Unsupported { .. }) => {
                Ok(Arc::new(Hosted::new(&self.shared, kernel, &refusal)?))
            }
            Err(error) => Err(error),
        }
    }

    fn flush(&self) -> Result<()> {
        let _turn = self.shared.turn();
        self.shared.stream().submit(&self.shared);
        self.shared.failures.alive()
    }

    fn synchronize(&self) -> Result<()> {
        let _turn = self.shared.turn();
        self.shared.stream().synchronize(&self.shared)
    }

    fn stats(&self) -> Stats {
        let GpuShared { counters, pipelines, pool, .. } = &*self.shared;
        let held = pool.held();
        Stats {
            dispatches: counters.dispatches.load(Ordering::Relaxed),
            hosted: counters.hosted.load(Ordering::Relaxed),
            submits: counters.submits.load(Ordering::Relaxed),
            pipelines_compiled: pipelines.compiled.load(Ordering::Relaxed),
            pipeline_hits: pipelines.hits.load(Ordering::Relaxed),
            buffers_requested: held.requested,
            bytes_read: counters.read.load(Ordering::Relaxed),
            bytes_written: counters.written.load(Ordering::Relaxed),
            bytes_in_use: held.in_use,
            bytes_pooled: held.pooled,
            bytes_peak: held.peak,
            ..Stats::default()
        }
    }

    fn trim(&self) {
        let _turn = self.shared.turn();
        self.shared.stream().drop_caches();
        self.shared.pipelines.trim();
        self.shared.pool.trim();
    }

    fn set_memory_limit(&self, limit: Option<u64>) {
        let _turn = self.shared.turn();
        self.shared.stream().drop_caches();
        self.shared.pool.set_limit(limit);
    }

    fn reset_peak(&self) {
        self.shared.pool.reset_peak();
    }
}
