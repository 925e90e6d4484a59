//! What a device must be able to do: hold bytes and run kernels.

use std::any::Any;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::kernel::Kernel;
use crate::{Error, Result, Scalar, Stats};

/// Memory of a device. Cloning shares it; when the last handle goes, the memory returns to the device's pool
/// at once, also while kernels that use it are still on their way (a device runs its work in order).
#[derive(Clone)]
pub struct Buffer(Arc<dyn Memory>);

/// What an executor keeps behind a [`Buffer`]; dropping it gives the memory back.
pub trait Memory: Any + Send + Sync {
    /// The bytes that were asked for.
    fn bytes(&self) -> usize;
}

impl Buffer {
    /// Wraps an executor's memory.
    pub fn new(memory: impl Memory) -> Buffer {
        Buffer(Arc::new(memory))
    }

    /// The bytes that were asked for.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Whether nobody else holds this memory.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// How many handles hold this memory.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether both are the same memory.
    pub fn is_same(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that tells live memories apart.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as *const () as usize
    }

    /// The executor's own memory behind it.
    pub fn downcast<M: Memory>(&self) -> Option<&M> {
        (&*self.0 as &dyn Any).downcast_ref()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes())
    }
}

/// Memory from some place in a buffer on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Where in it, in bytes: a multiple of four elements of each dtype that is read there.
    pub begin: usize,
}

impl<'a> From<&'a Buffer> for Place<'a> {
    fn from(buffer: &'a Buffer) -> Place<'a> {
        Place { buffer, begin: 0 }
    }
}

impl Place<'_> {
    /// The bytes from the place to the buffer's end.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes().saturating_sub(self.begin)
    }
}

/// Bytes of this machine's memory that work for a device needs for a while. They count as in use until this
/// is dropped.
#[must_use = "the bytes are given back as soon as this is dropped"]
pub struct Reservation(#[expect(dead_code, reason = "held for its drop")] Option<Box<dyn Any + Send + Sync>>);

impl Reservation {
    /// What gives the bytes back when it is dropped; none: nothing was counted.
    pub fn new(held: Option<Box<dyn Any + Send + Sync>>) -> Reservation {
        Reservation(held)
    }
}

/// A kernel made ready on one device: compiled, its numbers laid out.
pub trait Prepared: Send + Sync {
    /// Runs it, or puts it into the device's queue. `places` in the order of the kernel's buffer numbers,
    /// `params` in that of its parameters; offsets of accesses count from the places. An output's contents
    /// are undefined before; inputs must hold their values.
    fn launch_at(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()>;

    /// [`Prepared::launch_at`] from the buffers' beginnings on.
    fn launch(&self, buffers: &[&Buffer], params: &[Scalar]) -> Result<()> {
        let places: SmallVec<[Place<'_>; 8]> = buffers.iter().map(|&buffer| Place::from(buffer)).collect();
        self.launch_at(&places, params)
    }

    /// About how many bytes of this machine's memory it keeps, its share of a text that several have in
    /// common included. What the driver keeps of compiled code is bounded by the device itself.
    fn bytes(&self) -> usize;
}

/// The bytes behind a vector.
pub(crate) fn bytes_of<T>(items: &Vec<T>) -> usize {
    items.capacity() * size_of::<T>()
}

/// That no memory is written and given under another number too: `written` says so of the buffers that a
/// kernel uses.
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

/// The numbers that the scheduler needs of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most buffers that one kernel may use.
    pub buffers: usize,
    /// The most instructions that a fused body should have.
    pub instructions: usize,
    /// Whether a function counts among them as what it is made of
    /// ([`UnaryOp::size`](crate::kernel::UnaryOp::size)), since all of that is compiled wherever it is
    /// called.
    pub inlined: bool,
    /// The most bytes over which one operand of a kernel should reach.
    pub binding: usize,
    /// The most bytes of one buffer.
    pub allocation: u64,
    /// Whether f64 arrays can live here.
    pub f64: bool,
}

/// A device's memory and its way to run kernels. All methods may be called from several threads at once; work
/// launched by one thread runs in the order of its launches.
pub trait Executor: Send + Sync {
    /// What the scheduler must keep to.
    fn limits(&self) -> &Limits;
    /// Fresh memory with undefined contents.
    fn alloc(&self, bytes: usize) -> Result<Buffer>;
    /// Counts bytes that the host needs for a while on the device's behalf, such as a factorization's, as in
    /// use: an [`Error::OutOfMemory`] if there is no room for them under the limit. An executor that has no
    /// limit to keep counts nothing.
    fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let _ = bytes;
        Ok(Reservation::new(None))
    }
    /// Fresh memory with these contents.
    fn upload(&self, bytes: &[u8]) -> Result<Buffer>;
    /// Waits for the work before it and reads `out.len()` bytes from `offset` on. The first read after a
    /// kernel met a bad index, or after the device refused work, returns that error.
    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()>;
    /// Whether all indices that were read since the last time were in range: waits for the kernels that read
    /// them. An executor whose launches report such an index themselves has nothing to say here.
    fn check_indices(&self) -> Result<()> {
        Ok(())
    }
    /// How many times an index was found to be out of range after the launch that read it had returned.
    /// Another thread's read may have been told of it.
    fn index_failures(&self) -> u64 {
        0
    }
    /// Makes a kernel ready. Compiled code is cached by structure.
    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>>;
    /// Sends everything launched so far on its way, without waiting.
    fn flush(&self) -> Result<()>;
    /// Waits until everything launched so far is done, and reports its errors.
    fn synchronize(&self) -> Result<()>;
    /// The counters.
    fn stats(&self) -> Stats;
    /// Gives pooled memory that nobody uses back to the system.
    fn trim(&self);
    /// Bounds the memory in use and pooled, in bytes; `None` is the device's own bound.
    fn set_memory_limit(&self, limit: Option<u64>);
    /// Sets the peak to what is in use now.
    fn reset_peak(&self);
}
