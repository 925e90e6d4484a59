//! The CPU executor: a block-wise vectorised interpreter of the kernel IR.
//!
//! The modules, in the order in which a kernel passes through them:
//! - [`memory`] is the pool that buffers come from;
//! - [`plan`] cuts a loop's space into tiles, [`affine`] finds a tile's elements in memory;
//! - [`compile`] turns a loop's body into the instructions of a [`program`], each a loop over a tile's lanes
//!   from [`simd`];
//! - [`frame`] runs instructions over a tile, [`loops`] runs tiles, [`parallel`] shares them out over the
//!   threads;
//! - [`matmul`], [`scatter`], [`scan`] and [`sort`] are the other kinds of kernels.
//!
//! Results depend on the kernel and its inputs only, bit for bit, and never on the number of threads.

mod affine;
mod compile;
mod factor;
mod frame;
mod gemm;
mod loops;
mod matmul;
mod memory;
mod parallel;
mod plan;
mod program;
mod scan;
mod scatter;
mod simd;
mod sort;
#[cfg(test)]
mod tests;
mod vector;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use smallvec::SmallVec;

use crate::executor::check_written;
use crate::kernel::{Access, Kernel, Traffic};
use crate::{Buffer, Error, Executor, Limits, Place, Prepared, Reservation, Result, Scalar, Stats};
use frame::RawBuffer;
use loops::LoopKernel;
use matmul::MatmulKernel;
use memory::{CpuMemory, CpuPool};
use scan::ScanKernel;
use scatter::ScatterKernel;
use sort::SortKernel;

/// The most structures that are remembered for the counters, and the least number of cached kernels at which
/// those that were dropped are removed.
const REMEMBERED: usize = 1024;

/// The CPU executor. A launch returns when its work is done, so there is never anything to flush or to wait
/// for.
pub struct Cpu {
    limits: Limits,
    pool: Arc<CpuPool>,
    counters: Arc<CpuCounters>,
    known: Mutex<KernelCache>,
}

/// The kernels that have been prepared.
#[derive(Default)]
struct KernelCache {
    /// Weak references, since the plans own the prepared kernels.
    kernels: HashMap<Kernel, Weak<Ready>>,
    /// The number of entries at which those of dropped kernels are removed.
    room: usize,
    /// Hashes of the kernels' structures: of kernels without their sizes, strides, offsets and constants.
    structures: HashSet<u64>,
}

#[derive(Default)]
struct CpuCounters {
    dispatches: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    compiled: AtomicU64,
    hits: AtomicU64,
}

impl Cpu {
    /// The executor of this machine's CPU.
    pub fn new() -> Cpu {
        Cpu {
            // The lanes of a body should stay in the first-level cache, and fusing more than this saves
            // nothing.
            limits: Limits {
                buffers: 32,
                instructions: 256,
                inlined: false,
                binding: usize::MAX,
                allocation: u64::MAX,
                f64: true,
            },
            pool: Arc::new(CpuPool::new()),
            counters: Arc::default(),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, KernelCache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CPU memory behind a buffer.
fn memory_of(buffer: &Buffer) -> Result<&CpuMemory> {
    buffer.downcast::<CpuMemory>().ok_or_else(|| Error::DeviceMismatch {
        op: "launch",
        lhs: "cpu".to_owned(),
        rhs: "a buffer of another device".to_owned(),
    })
}

/// The bytes from the buffer's start that an affine access over these sizes touches. It is an error if the
/// access reaches before the start.
fn reach(offset: isize, strides: &[isize], sizes: &[usize], element: usize) -> Result<usize> {
    if sizes.contains(&0) && !strides.iter().zip(sizes).all(|(&stride, &size)| size != 0 || stride == 0) {
        return Ok(0);
    }
    let (mut low, mut high) = (offset as i128, offset as i128);
    for (&stride, &size) in strides.iter().zip(sizes) {
        let way = stride as i128 * (size.max(1) as i128 - 1);
        low += way.min(0);
        high += way.max(0);
    }
    let bytes = (high + 1) * element as i128;
    if low < 0 || bytes > isize::MAX as i128 {
        return Err(program::invalid(format!("an access to elements {low} to {high}")));
    }
    Ok(bytes as usize)
}

/// The bytes that each buffer must have, and whether it is written, for a kernel that reads `source` and
/// writes `target`, each over its own sizes.
fn moved(source: (&Access, &[usize]), target: (&Access, &[usize])) -> Result<(Vec<usize>, Vec<bool>)> {
    let mut required = vec![0; source.0.buffer.max(target.0.buffer) + 1];
    let mut written = vec![false; required.len()];
    written[target.0.buffer] = true;
    for (access, sizes) in [source, target].into_iter().filter(|_| !target.1.contains(&0)) {
        let bytes = reach(access.offset, &access.strides, sizes, access.dtype.size())?;
        required[access.buffer] = required[access.buffer].max(bytes);
    }
    Ok((required, written))
}

impl Executor for Cpu {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(self.pool.alloc(bytes)?))
    }

    fn reserve(&self, bytes: usize) -> Result<Reservation> {
        Ok(Reservation::new(Some(Box::new(self.pool.reserve(bytes)?))))
    }

    #[allow(unsafe_code)]
    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let memory = self.pool.alloc(bytes.len())?;
        // SAFETY: the memory was allocated with this many bytes, and nobody else has a pointer to it yet.
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
        // SAFETY: the range was checked to lie inside of the buffer. The executor's contract obliges callers
        // to order a download after the launches that write to the buffer.
        unsafe { out.as_mut_ptr().copy_from_nonoverlapping(memory.pointer().add(offset), out.len()) };
        Ok(())
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        if let Some(prepared) = self.known().kernels.get(kernel).and_then(Weak::upgrade) {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(prepared);
        }
        kernel.check().map_err(program::invalid)?;
        let work = match kernel {
            Kernel::Loop(kernel) => ReadyKernel::Loop(Box::new(LoopKernel::new(kernel, false)?)),
            Kernel::Matmul(kernel) => match vector::as_loop(kernel) {
                Some(kernel) => ReadyKernel::Loop(Box::new(LoopKernel::new(&kernel, false)?)),
                None => ReadyKernel::Matmul(Box::new(MatmulKernel::new(kernel, &self.pool)?)),
            },
            Kernel::Scatter(kernel) => {
                ReadyKernel::Scatter(Box::new(ScatterKernel::new(kernel, &self.pool)?))
            }
            Kernel::Scan(kernel) => ReadyKernel::Scan(Box::new(ScanKernel::new(kernel)?)),
            Kernel::Sort(kernel) => ReadyKernel::Sort(Box::new(SortKernel::new(kernel, &self.pool)?)),
        };
        let prepared = Arc::new(Ready { work, traffic: kernel.traffic(), counters: self.counters.clone() });
        let mut known = self.known();
        if known.kernels.len() >= known.room {
            known.kernels.retain(|_, kernel| kernel.strong_count() > 0);
            known.room = (2 * known.kernels.len()).max(REMEMBERED);
        }
        if known.structures.len() >= REMEMBERED {
            known.structures.clear();
        }
        let new = known.structures.insert(structure(kernel));
        let counter = if new { &self.counters.compiled } else { &self.counters.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        known.kernels.insert(kernel.clone(), Arc::downgrade(&prepared));
        Ok(prepared)
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

/// The hash of a kernel's structure, by which the counters decide whether it was compiled before.
fn structure(kernel: &Kernel) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(kernel.structure())
}

/// A prepared kernel.
struct Ready {
    work: ReadyKernel,
    traffic: Traffic,
    counters: Arc<CpuCounters>,
}

enum ReadyKernel {
    Loop(Box<LoopKernel>),
    Matmul(Box<MatmulKernel>),
    Scatter(Box<ScatterKernel>),
    Scan(Box<ScanKernel>),
    Sort(Box<SortKernel>),
}

/// What a launch must provide: the bytes of each buffer, which buffers are written, and the number of
/// parameters.
struct Needs<'a> {
    required: &'a [usize],
    written: &'a [bool],
    params: usize,
}

impl Prepared for Ready {
    fn bytes(&self) -> usize {
        let work = match &self.work {
            ReadyKernel::Loop(kernel) => kernel.bytes(),
            ReadyKernel::Matmul(kernel) => kernel.bytes(),
            ReadyKernel::Scatter(kernel) => kernel.bytes(),
            ReadyKernel::Scan(kernel) => kernel.bytes(),
            ReadyKernel::Sort(kernel) => kernel.bytes(),
        };
        size_of::<Ready>() + work
    }

    #[allow(unsafe_code)]
    fn launch_at(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()> {
        let needs = match &self.work {
            ReadyKernel::Loop(kernel) => {
                Needs { required: kernel.required(), written: kernel.written(), params: kernel.params() }
            }
            ReadyKernel::Matmul(kernel) => kernel.needs(),
            ReadyKernel::Scatter(kernel) => kernel.needs(),
            ReadyKernel::Scan(kernel) => kernel.needs(),
            ReadyKernel::Sort(kernel) => kernel.needs(),
        };
        let raw = bind(&needs, places, params)?;
        self.counters.dispatches.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_read.fetch_add(self.traffic.read, Ordering::Relaxed);
        self.counters.bytes_written.fetch_add(self.traffic.written, Ordering::Relaxed);
        // SAFETY: `bind` has checked the buffers' sizes, and that none that is written is given twice. The
        // executor's contract obliges callers to order launches that share buffers.
        unsafe {
            match &self.work {
                ReadyKernel::Loop(kernel) => kernel.run(&raw, params),
                ReadyKernel::Matmul(kernel) => kernel.run(&raw, params),
                ReadyKernel::Scatter(kernel) => kernel.run(&raw),
                ReadyKernel::Scan(kernel) => kernel.run(&raw),
                ReadyKernel::Sort(kernel) => kernel.run(&raw),
            }
        }
    }
}

/// The memory of the buffers, after checking it against the kernel's needs.
fn bind(needs: &Needs, places: &[Place<'_>], params: &[Scalar]) -> Result<SmallVec<[RawBuffer; 8]>> {
    let wrong = |reason: String| Error::Argument { op: "launch", reason };
    if places.len() < needs.required.len() || params.len() < needs.params {
        return Err(wrong(format!(
            "{} buffers and {} parameters where the kernel needs {} and {}",
            places.len(),
            params.len(),
            needs.required.len(),
            needs.params
        )));
    }
    let mut raw: SmallVec<[RawBuffer; 8]> = SmallVec::new();
    for (number, place) in places.iter().enumerate() {
        let buffer = frame::raw(memory_of(place.buffer)?, place.begin, place.buffer.bytes());
        let required = needs.required.get(number).copied().unwrap_or(0);
        if buffer.bytes < required {
            return Err(wrong(format!(
                "buffer {number} has {} bytes, the kernel needs {required}",
                buffer.bytes
            )));
        }
        raw.push(buffer);
    }
    check_written(places, needs.written)?;
    Ok(raw)
}
