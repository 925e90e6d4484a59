//! The interface of a device: it holds bytes and runs kernels.

use std::any::Any;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::kernel::Kernel;
use crate::{Error, Result, Scalar, Stats};

/// A handle to memory of a device. Clones share the memory. When the last handle is dropped, the memory
/// returns to the device's pool at once, even while kernels that use it are queued, since a device runs its
/// work in order.
#[derive(Clone)]
pub struct Buffer(Arc<dyn Memory>);

/// The memory that an executor keeps behind a [`Buffer`]; dropping it gives the memory back.
pub trait Memory: Any + Send + Sync {
    /// The bytes that were requested.
    fn bytes(&self) -> usize;
}

impl Buffer {
    /// Wraps an executor's memory.
    pub fn new(memory: impl Memory) -> Buffer {
        Buffer(Arc::new(memory))
    }

    /// The bytes that were requested.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Whether nobody else holds this memory.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The number of handles to this memory.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether both are the same memory.
    pub fn is_same(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that no other live memory has.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as *const () as usize
    }

    /// The executor's own type of memory; `None` if it is another type.
    pub fn downcast<M: Memory>(&self) -> Option<&M> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes())
    }
}

/// The memory of a buffer from some byte on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The first byte, which must be a multiple of four elements of each dtype that is read there.
    pub begin: usize,
}

impl<'a> From<&'a Buffer> for Place<'a> {
    fn from(buffer: &'a Buffer) -> Place<'a> {
        Place { buffer, begin: 0 }
    }
}

impl Place<'_> {
    /// The bytes from here to the end of the buffer.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes().saturating_sub(self.begin)
    }
}

/// Host memory that work for a device needs for a while. It counts as in use until this is dropped.
#[must_use = "the bytes are given back as soon as this is dropped"]
pub struct Reservation(#[expect(dead_code, reason = "held for its drop")] Option<Box<dyn Any + Send + Sync>>);

impl Reservation {
    /// A reservation that ends when `held` is dropped; with `None` no bytes were counted.
    pub fn new(held: Option<Box<dyn Any + Send + Sync>>) -> Reservation {
        Reservation(held)
    }
}

/// A kernel that is prepared on one device: it is compiled, and its sizes, strides and offsets are laid out.
pub trait Prepared: Send + Sync {
    /// Runs the kernel, or enqueues it on the device. `places` are in the order of the kernel's buffer
    /// numbers, and `params` in the order of its parameters. Offsets of accesses are relative to the places.
    /// The contents of outputs are undefined before the launch, and inputs must hold their values.
    fn launch_at(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()>;

    /// [`Prepared::launch_at`] with each buffer from its first byte on.
    fn launch(&self, buffers: &[&Buffer], params: &[Scalar]) -> Result<()> {
        let places: SmallVec<[Place<'_>; 8]> = buffers.iter().map(|&buffer| Place::from(buffer)).collect();
        self.launch_at(&places, params)
    }

    /// The host memory that it keeps, in bytes, including its share of a source that several have in common.
    /// What the driver keeps of compiled code is bounded by the device itself.
    fn bytes(&self) -> usize;
}

/// The heap memory of a vector, in bytes.
pub(crate) fn bytes_of<T>(items: &Vec<T>) -> usize {
    items.capacity() * size_of::<T>()
}

/// Checks aliasing: no memory that the kernel writes may also be given under another number. `written` says
/// which of the buffers are written.
pub(crate) fn check_written(places: &[Place<'_>], written: &[bool]) -> Result<()> {
    let used = &places[..written.len().min(places.len())];
    for (number, place) in used.iter().enumerate().filter(|&(number, _)| written[number]) {
        if used.iter().enumerate().any(|(other, same)| other != number && same.buffer.is_same(place.buffer)) {
            let reason = format!("buffer {number} is written, and given under another number too");
            return Err(Error::Argument { op: "launch", reason });
        }
    }
    Ok(())
}

/// The limits of a device that the scheduler must know.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most buffers that one kernel may use.
    pub buffers: usize,
    /// The most instructions that a fused body should have.
    pub instructions: usize,
    /// Whether a function counts as the instructions that it is made of
    /// ([`UnaryOp::size`](crate::kernel::UnaryOp::size)), because all of them are compiled wherever it is
    /// called.
    pub inlined: bool,
    /// The most bytes that one operand of a kernel should span.
    pub binding: usize,
    /// The most bytes of one buffer.
    pub allocation: u64,
    /// Whether f64 arrays can live here.
    pub f64: bool,
}

/// The memory of a device and the way to run kernels on it. All methods may be called from several threads at
/// once. The work that one thread launches runs in the order of its launches, and callers must order launches
/// of several threads that share buffers.
pub trait Executor: Send + Sync {
    /// The limits of the device.
    fn limits(&self) -> &Limits;
    /// Fresh memory with undefined contents.
    fn alloc(&self, bytes: usize) -> Result<Buffer>;
    /// Counts host memory that work for the device needs for a while, such as that of a factorization, as in
    /// use. It is an [`Error::OutOfMemory`] if the limit has no room for it. An executor without a limit
    /// counts nothing.
    fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let _ = bytes;
        Ok(Reservation::new(None))
    }
    /// Fresh memory with these contents.
    fn upload(&self, bytes: &[u8]) -> Result<Buffer>;
    /// Waits for all work before this call, and reads `out.len()` bytes from `offset` on. The first read
    /// after a kernel found an index out of range, or after the device refused work, returns that error.
    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()>;
    /// Waits for the kernels that check indices, and reports an index that was out of range since the last
    /// report. An executor whose launches report such an index themselves does nothing here.
    fn check_indices(&self) -> Result<()> {
        Ok(())
    }
    /// The number of times that an index was found out of range after its launch had returned. Reads of other
    /// threads may have reported some of these.
    fn index_failures(&self) -> u64 {
        0
    }
    /// Prepares a kernel for launches. Compiled code is cached by the kernel's structure.
    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>>;
    /// Submits everything that was launched so far, without waiting.
    fn flush(&self) -> Result<()>;
    /// Waits until everything that was launched so far is done, and reports its errors.
    fn synchronize(&self) -> Result<()>;
    /// The counters.
    fn stats(&self) -> Stats;
    /// Returns pooled memory that is not in use to the system.
    fn trim(&self);
    /// Limits the memory in use and pooled, in bytes; `None` is the device's own limit.
    fn set_memory_limit(&self, limit: Option<u64>);
    /// Sets the peak to the bytes in use now.
    fn reset_peak(&self);
}
