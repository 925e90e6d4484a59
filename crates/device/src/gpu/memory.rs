//! The pool of device memory. It asks the driver for few large buffers and hands out parts of them.
//!
//! - Sizes are rounded up to classes, and a freed block serves the next request of its class. Blocks of up to
//!   64 KiB are parts of pages of 1 MiB; larger ones are buffers of their own.
//! - Every block starts and ends at a multiple of 256 bytes. So it can be bound, and a vector that begins
//!   inside of the requested bytes never leaves the block.
//! - A block may be handed out again while kernels that use it are still queued, since the queue runs in
//!   order. Only an upload can reach the device before kernels that are encoded and not yet submitted;
//!   [`GpuBlock::epoch`] tells when that matters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wgpu::BufferUsages as Usage;

use super::failure::Failures;
use super::turn::DriverTurn;
use crate::{Error, Memory, Result};

const ALIGN: u64 = 256;
const SMALL: u64 = 64 << 10;
const PAGE: u64 = 1 << 20;
/// The epoch of a block that no kernel has used.
const NEVER: u64 = u64::MAX;

/// A part of a device buffer.
#[derive(Clone, Debug)]
pub(super) struct GpuBlock {
    pub(super) buffer: wgpu::Buffer,
    /// The number of the device buffer.
    pub(super) id: u64,
    pub(super) offset: u64,
    /// A multiple of 256.
    pub(super) size: u64,
    /// The number of the submit that was being encoded when the block was last freed.
    pub(super) epoch: u64,
}

/// The pool of a device.
pub(super) struct GpuPool {
    device: wgpu::Device,
    max_buffer: u64,
    state: Mutex<GpuPoolState>,
    /// The number of submits so far; the stream increments it.
    pub(super) epoch: AtomicU64,
    failures: Arc<Failures>,
    /// Whether calls of the driver must take turns.
    takes_turns: bool,
    last_turn: Option<DriverTurn>,
}

#[derive(Default)]
struct GpuPoolState {
    free: HashMap<u64, Vec<GpuBlock>>,
    /// The number of live blocks of each page.
    pages: HashMap<u64, usize>,
    reserved: u64,
    in_use: u64,
    peak: u64,
    limit: Option<u64>,
    requested: u64,
    next_id: u64,
}

/// The bytes that the pool holds, and how often it asked the driver.
pub(super) struct Held {
    pub(super) in_use: u64,
    pub(super) pooled: u64,
    pub(super) peak: u64,
    pub(super) requested: u64,
}

/// The memory of a buffer: a block that returns to the pool when this is dropped.
pub(super) struct GpuMemory {
    // The block is dropped before the pool. If this is the pool's last owner, the pool takes a turn and drops
    // the driver's buffer itself.
    block: GpuBlock,
    pool: Arc<GpuPool>,
    bytes: usize,
}

impl GpuMemory {
    pub(super) fn block(&self) -> &GpuBlock {
        &self.block
    }

    /// Whether the memory lives on this device.
    pub(super) fn is_of(&self, pool: &Arc<GpuPool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Memory for GpuMemory {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        self.pool.release(self.block.clone());
    }
}

/// Bytes of the host's memory that count as memory of the device.
pub(super) struct GpuReservation {
    bytes: u64,
    pool: Arc<GpuPool>,
}

impl Drop for GpuReservation {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.reserved -= self.bytes;
        state.in_use -= self.bytes;
    }
}

impl GpuPool {
    pub(super) fn new(
        device: wgpu::Device,
        takes_turns: bool,
        failures: Arc<Failures>,
        limit: Option<u64>,
    ) -> GpuPool {
        let max_buffer = device.limits().max_buffer_size / ALIGN * ALIGN;
        let state = Mutex::new(GpuPoolState { limit, ..GpuPoolState::default() });
        GpuPool {
            device,
            max_buffer,
            state,
            epoch: AtomicU64::new(0),
            failures,
            takes_turns,
            last_turn: None,
        }
    }

    /// Memory of at least `bytes` bytes.
    pub(super) fn alloc(self: &Arc<GpuPool>, bytes: usize) -> Result<GpuMemory> {
        let block = self.take(bytes as u64)?;
        Ok(GpuMemory { block, pool: self.clone(), bytes })
    }

    fn take(&self, bytes: u64) -> Result<GpuBlock> {
        let mut state = self.lock();
        let size = class(bytes)
            .filter(|&size| size <= self.max_buffer)
            .unwrap_or_else(|| bytes.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX));
        if size > self.max_buffer {
            return Err(state.out_of_memory(bytes, self.max_buffer));
        }
        if let Some(block) = state.free.get_mut(&size).and_then(Vec::pop) {
            state.hand_out(&block);
            return Ok(block);
        }
        let page = size <= SMALL;
        let reserve = if page { PAGE.min(self.max_buffer) } else { size };
        if state.limit.is_some_and(|limit| state.reserved + reserve > limit) {
            state.trim();
        }
        // If the limit has no room for a page, a small block is a buffer of its own.
        let (page, reserve) = match state.limit {
            Some(limit) if state.reserved + reserve > limit && page => (false, size),
            _ => (page, reserve),
        };
        if let Some(limit) = state.limit.filter(|&limit| state.reserved + reserve > limit) {
            return Err(state.out_of_memory(bytes, limit));
        }
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffer = self.create(&mut state, bytes, reserve, usage)?;
        state.requested += 1;
        state.reserved += reserve;
        state.next_id += 1;
        let id = state.next_id;
        let block = GpuBlock { buffer, id, offset: 0, size, epoch: NEVER };
        if page {
            state.pages.insert(id, 0);
            let parts = (1..reserve / size).rev();
            let rest = parts.map(|i| GpuBlock { offset: i * size, ..block.clone() });
            state.free.entry(size).or_default().extend(rest);
        }
        state.hand_out(&block);
        Ok(block)
    }

    /// Counts bytes outside of the device's memory as in use and reserved, until the result is dropped.
    pub(super) fn reserve(self: &Arc<GpuPool>, bytes: usize) -> Result<GpuReservation> {
        let (bytes, mut state) = (bytes as u64, self.lock());
        let beyond = |state: &GpuPoolState| match state.reserved.checked_add(bytes) {
            Some(after) => state.limit.filter(|&limit| after > limit),
            None => Some(u64::MAX),
        };
        if beyond(&state).is_some() {
            state.trim();
        }
        if let Some(limit) = beyond(&state) {
            return Err(state.out_of_memory(bytes, limit));
        }
        state.reserved += bytes;
        state.in_use += bytes;
        state.peak = state.peak.max(state.in_use);
        Ok(GpuReservation { bytes, pool: self.clone() })
    }

    /// A buffer that the host can map for reading. It does not count as memory of the device.
    pub(super) fn for_reading(&self, size: u64) -> Result<wgpu::Buffer> {
        self.create(&mut self.lock(), size, size, Usage::MAP_READ | Usage::COPY_DST)
    }

    /// Creates a buffer for an allocation of `bytes` bytes. If the driver refuses, the pool gives it back all
    /// free memory that no bind group refers to, and tries again.
    fn create(&self, state: &mut GpuPoolState, bytes: u64, size: u64, usage: Usage) -> Result<wgpu::Buffer> {
        if let Some(buffer) = self.try_create(size, usage) {
            return Ok(buffer);
        }
        self.failures.alive()?;
        state.trim();
        let limit = state.limit.unwrap_or(self.max_buffer);
        self.try_create(size, usage).ok_or_else(|| state.out_of_memory(bytes, limit))
    }

    fn try_create(&self, size: u64, usage: Usage) -> Option<wgpu::Buffer> {
        let scopes =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory]
                .map(|filter| self.device.push_error_scope(filter));
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        });
        // Error scopes are a stack: the last one pushed is popped first.
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).count();
        (errors == 0).then_some(buffer)
    }

    fn release(&self, mut block: GpuBlock) {
        let mut state = self.lock();
        block.epoch = self.epoch.load(Ordering::Acquire);
        state.in_use -= block.size;
        if let Some(live) = state.pages.get_mut(&block.id) {
            *live -= 1;
        }
        state.free.entry(block.size).or_default().push(block);
    }

    /// Returns free memory to the driver: buffers, and pages without live blocks.
    pub(super) fn trim(&self) {
        self.lock().trim();
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let mut state = self.lock();
        state.limit = limit;
        if limit.is_some_and(|limit| state.reserved > limit) {
            state.trim();
        }
    }

    pub(super) fn reset_peak(&self) {
        let mut state = self.lock();
        state.peak = state.in_use;
    }

    pub(super) fn held(&self) -> Held {
        let state = self.lock();
        Held {
            in_use: state.in_use,
            pooled: state.reserved - state.in_use,
            peak: state.peak,
            requested: state.requested,
        }
    }

    fn lock(&self) -> MutexGuard<'_, GpuPoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GpuPool {
    fn drop(&mut self) {
        self.last_turn = DriverTurn::wait(self.takes_turns);
    }
}

impl GpuPoolState {
    fn hand_out(&mut self, block: &GpuBlock) {
        self.in_use += block.size;
        self.peak = self.peak.max(self.in_use);
        if let Some(live) = self.pages.get_mut(&block.id) {
            *live += 1;
        }
    }

    fn trim(&mut self) {
        let GpuPoolState { free, pages, reserved, .. } = self;
        for (size, blocks) in free.iter_mut() {
            blocks.retain(|block| match pages.get(&block.id) {
                Some(&live) => live > 0,
                None => {
                    *reserved -= size;
                    false
                }
            });
        }
        free.retain(|_, blocks| !blocks.is_empty());
        pages.retain(|_, live| {
            if *live == 0 {
                *reserved -= PAGE;
            }
            *live > 0
        });
    }

    fn out_of_memory(&self, requested: u64, limit: u64) -> Error {
        Error::OutOfMemory { requested, used: self.in_use, limit }
    }
}

/// The size of the class of a request. Large requests are rounded up by at most an eighth.
fn class(bytes: u64) -> Option<u64> {
    let power = bytes.max(ALIGN).checked_next_power_of_two()?;
    let step = if power <= SMALL { power } else { (power / 16).max(ALIGN) };
    bytes.max(1).checked_next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn classes_hold_the_request_and_waste_little() {
        for bytes in (0..200_000).chain((1u64 << 20..1 << 28).step_by(77_777)) {
            let size = class(bytes).unwrap();
            assert!(size >= bytes && size.is_multiple_of(256), "{bytes} became {size}");
            assert!(bytes <= 65_536 || size - bytes <= bytes / 8 + 256, "{bytes} became {size}");
        }
        assert_eq!(class(u64::MAX), None);
    }
}
