//! The CPU's memory pool.
//!
//! Fresh memory from the system costs more than most arithmetic done in it, because every page is faulted in
//! and cleared. So freed memory is kept in size classes, which are an eighth of a power of two apart, and is
//! handed out again.
//!
//! Guarantees: memory is aligned to 64 bytes and followed by [`PADDING`] readable bytes; a buffer's memory
//! returns to the pool when its last handle is dropped; bytes in use and pooled never exceed the limit; a
//! refusal by the system is an error, never an abort.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, Memory, Result, Stats};

/// Every buffer starts at a multiple of this: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;
/// Readable bytes after each buffer's end.
pub const PADDING: usize = 128;

/// Size classes: 64 bytes times (8 + i % 8) / 8 times 2^(i / 8), up to the largest power of two.
const CLASSES: usize = 8 * (usize::BITS as usize - 7);

/// The class for at least this many bytes, and the class's size; `None` if no memory can be that large.
fn class_of(bytes: usize) -> Option<(usize, usize)> {
    let units = bytes.max(1).div_ceil(ALIGNMENT);
    if units <= 8 {
        return Some((units - 1, units * ALIGNMENT));
    }
    // The octave (from one power of two to the next) of the request, and its size in eighths of the octave.
    let octave = (units - 1).ilog2();
    let step = 1usize << (octave - 3);
    let eighths = units.div_ceil(step);
    let class = (octave as usize - 3) * 8 + eighths - 1;
    let size = eighths.checked_mul(step)?.checked_mul(ALIGNMENT)?;
    (class < CLASSES && size <= isize::MAX as usize - 2 * PADDING).then_some((class, size))
}

/// The memory pool of one executor.
pub struct CpuPool {
    state: Mutex<CpuPoolState>,
    /// The limit when none is set: the machine's memory.
    own_limit: u64,
}

struct CpuPoolState {
    free: Vec<Vec<CpuBlock>>,
    limit: Option<u64>,
    in_use: u64,
    pooled: u64,
    peak: u64,
    requested: u64,
}

/// Memory of a class's size from the system's allocator.
struct CpuBlock {
    start: NonNull<u8>,
    class: usize,
    size: usize,
}

// SAFETY: a block owns plain memory that is not tied to a thread, so its owner may be sent to another one.
unsafe impl Send for CpuBlock {}
// SAFETY: a shared block gives access to its contents only through `CpuMemory::pointer`, a raw pointer whose
// users must order their reads and writes.
unsafe impl Sync for CpuBlock {}

impl CpuBlock {
    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size + PADDING, ALIGNMENT).ok()
    }

    fn new(class: usize, size: usize) -> Option<CpuBlock> {
        // SAFETY: the layout includes the padding, so its size is not 0.
        let start = NonNull::new(unsafe { std::alloc::alloc(CpuBlock::layout(size)?) })?;
        // SAFETY: the layout has `PADDING` bytes after `size`. They are cleared so that reading them is never
        // undefined.
        unsafe { start.as_ptr().add(size).write_bytes(0, PADDING) };
        Some(CpuBlock { start, class, size })
    }
}

impl Drop for CpuBlock {
    fn drop(&mut self) {
        if let Some(layout) = CpuBlock::layout(self.size) {
            // SAFETY: `new` allocated the memory with this layout, and only this drop frees it.
            unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// The memory behind a [`crate::Buffer`] of the CPU.
pub struct CpuMemory {
    /// `None` once the block has been given back to the pool.
    block: Option<CpuBlock>,
    bytes: usize,
    start: NonNull<u8>,
    pool: Arc<CpuPool>,
}

// SAFETY: `start` points into `block`, which moves along and is itself Send.
unsafe impl Send for CpuMemory {}
// SAFETY: `start` is only handed out as a raw pointer by `pointer`, whose users must order their reads and
// writes.
unsafe impl Sync for CpuMemory {}

impl CpuMemory {
    /// The address of the first byte. Users must order their reads and writes through it: kernels do so by
    /// the order of their launches, which the executor's contract asks of callers.
    pub fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Memory for CpuMemory {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let mut state = self.pool.state();
            state.in_use -= self.bytes as u64;
            state.pooled += block.size as u64;
            let class = block.class;
            state.free[class].push(block);
            // The block may be larger than the bytes that were counted as in use, so pooling it may exceed
            // the limit.
            if state.in_use + state.pooled > self.pool.limit(&state) {
                let returned = state.free[class].pop();
                state.pooled -= returned.as_ref().map_or(0, |block| block.size as u64);
                drop(state);
                drop(returned);
            }
        }
    }
}

/// Bytes outside of the pool that count as in use until this is dropped.
pub struct CpuReservation {
    bytes: u64,
    pool: Arc<CpuPool>,
}

impl Drop for CpuReservation {
    fn drop(&mut self) {
        self.pool.state().in_use -= self.bytes;
    }
}

impl CpuPool {
    /// An empty pool.
    pub fn new() -> CpuPool {
        let free = std::iter::repeat_with(Vec::new).take(CLASSES).collect();
        let state = CpuPoolState { free, limit: None, in_use: 0, pooled: 0, peak: 0, requested: 0 };
        CpuPool { state: Mutex::new(state), own_limit: system_memory() }
    }

    fn state(&self) -> MutexGuard<'_, CpuPoolState> {
        // No code under the lock can panic halfway through an update, so a poisoned state is still
        // consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self, state: &CpuPoolState) -> u64 {
        state.limit.unwrap_or(self.own_limit)
    }

    /// Memory with undefined contents.
    pub fn alloc(self: &Arc<CpuPool>, bytes: usize) -> Result<CpuMemory> {
        let class = class_of(bytes);
        let mut state = self.state();
        let limit = self.limit(&state);
        let out_of_memory = |used: u64| Error::OutOfMemory { requested: bytes as u64, used, limit };
        let Some((class, size)) = class else { return Err(out_of_memory(state.in_use)) };
        if state.in_use.saturating_add(bytes as u64) > limit {
            return Err(out_of_memory(state.in_use));
        }
        let mut block = state.free[class].pop();
        match &block {
            Some(block) => state.pooled -= block.size as u64,
            None => {
                if state.in_use + state.pooled + bytes as u64 > limit {
                    drop_blocks(&mut state);
                }
                state.requested += 1;
            }
        }
        state.in_use += bytes as u64;
        state.peak = state.peak.max(state.in_use);
        drop(state);
        if block.is_none() {
            // If the system refuses, the pool gives its free memory back, and the request is tried again.
            block = CpuBlock::new(class, size).or_else(|| {
                self.trim();
                CpuBlock::new(class, size)
            });
        }
        match block {
            Some(block) => {
                Ok(CpuMemory { start: block.start, block: Some(block), bytes, pool: self.clone() })
            }
            None => {
                let mut state = self.state();
                state.in_use -= bytes as u64;
                Err(out_of_memory(state.in_use))
            }
        }
    }

    /// Counts bytes that others allocate from the system as in use, until the result is dropped.
    pub fn reserve(self: &Arc<CpuPool>, bytes: usize) -> Result<CpuReservation> {
        let (bytes, mut state) = (bytes as u64, self.state());
        let limit = self.limit(&state);
        let after = state.in_use.saturating_add(bytes);
        if after > limit {
            return Err(Error::OutOfMemory { requested: bytes, used: state.in_use, limit });
        }
        if after.saturating_add(state.pooled) > limit {
            drop_blocks(&mut state);
        }
        state.in_use = after;
        state.peak = state.peak.max(after);
        Ok(CpuReservation { bytes, pool: self.clone() })
    }

    /// Returns all free memory to the system.
    pub fn trim(&self) {
        drop_blocks(&mut self.state());
    }

    /// Limits the bytes in use and pooled.
    pub fn set_limit(&self, limit: Option<u64>) {
        let mut state = self.state();
        state.limit = limit;
        if state.in_use + state.pooled > self.limit(&state) {
            drop_blocks(&mut state);
        }
    }

    /// Sets the peak to the bytes in use now.
    pub fn reset_peak(&self) {
        let mut state = self.state();
        state.peak = state.in_use;
    }

    /// The counters of memory; all others are 0.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            buffers_requested: state.requested,
            bytes_in_use: state.in_use,
            bytes_pooled: state.pooled,
            bytes_peak: state.peak,
            ..Stats::default()
        }
    }
}

fn drop_blocks(state: &mut CpuPoolState) {
    for class in &mut state.free {
        class.clear();
    }
    state.pooled = 0;
}

/// The machine's memory in bytes, where it can be known. It is the default limit, so that asking for more is
/// an error instead of the end of the process at the first write.
fn system_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_counts_until_it_is_given_back() {
        let pool = Arc::new(CpuPool::new());
        pool.set_limit(Some(1000));
        let held = pool.reserve(600).unwrap();
        assert!(matches!(pool.reserve(401), Err(Error::OutOfMemory { requested: 401, used: 600, .. })));
        assert!(pool.alloc(401).is_err() && pool.reserve(usize::MAX).is_err());
        drop(held);
        assert_eq!((pool.stats().bytes_in_use, pool.stats().bytes_peak), (0, 600));
        assert!(pool.alloc(900).is_ok());
    }

    #[test]
    fn classes_hold_what_they_are_for_and_waste_at_most_an_eighth() {
        let mut last = (0, ALIGNMENT);
        for bytes in (0..5000).chain((5000..1 << 22).step_by(997)) {
            let (class, size) = class_of(bytes).unwrap();
            assert!(size >= bytes && size.is_multiple_of(ALIGNMENT), "{bytes} in {size}");
            assert!(size - bytes <= ALIGNMENT.max(bytes / 8), "{bytes} in {size}");
            assert!(
                class >= last.0 && (class == last.0) == (size == last.1),
                "{bytes}: {class} {size} after {last:?}"
            );
            last = (class, size);
        }
        assert_eq!(class_of(usize::MAX), None);
        assert!(class_of(1 << 46).is_some());
    }
}
