//! The device's queue. Dispatches are gathered into command buffers and submitted many at a time.
//!
//! - The uniforms of all dispatches of a command buffer lie in one uniform buffer, which is written once for
//!   each submit. Each dispatch binds its part by a dynamic offset.
//! - Bind groups are cached by what they bind, so a program that repeats itself creates no objects of the
//!   driver.
//! - Work runs in the order in which it was encoded; few submits are in flight at a time.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::GpuShared;
use super::memory::GpuBlock;
use super::pipeline::Pipeline;
use crate::Result;

const PARAMS_BYTES: u64 = 256 << 10;
const MAX_DISPATCHES: usize = 128;
const MAX_IN_FLIGHT: usize = 8;
const MAX_GROUPS: usize = 8192;
/// The bytes at the start of the internal buffer that describe an index failure.
const FAILURE_BYTES: u64 = 32;
/// The most bytes that are moved at a time between the device and the host.
const MAX_STAGING: u64 = 64 << 20;

/// A part of a block that is bound.
pub(super) struct Binding<'a> {
    pub(super) block: &'a GpuBlock,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A dispatch with everything that it binds.
pub(super) struct EncodedDispatch<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) bindings: &'a [Binding<'a>],
    /// The words of its uniforms.
    pub(super) words: &'a [u32],
    /// Workgroups in each dimension.
    pub(super) groups: [u32; 3],
    /// Whether the kernel reports indices that are out of range.
    pub(super) checks_indices: bool,
}

/// The number of bindings, and the buffer, the offset and the size of each.
type GroupKey = (usize, SmallVec<[(u64, u64, u64); 8]>);

/// The commands that are encoded and not yet submitted, and the caches of objects that dispatches need.
pub(super) struct CommandStream {
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    dispatches: usize,
    words: Vec<u8>,
    params: wgpu::Buffer,
    params_groups: HashMap<(u64, bool), wgpu::BindGroup>,
    internal: wgpu::Buffer,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    staging: Vec<wgpu::Buffer>,
    /// The bytes written to buffers since the last submit, and the last submit that was made only to send
    /// such bytes.
    unsent: u64,
    sent: Option<wgpu::SubmissionIndex>,
    /// Whether a kernel that checks indices has run since index failures were last read.
    indices_unread: bool,
    align: usize,
}

impl CommandStream {
    pub(super) fn new(device: &wgpu::Device, internal_bytes: u64) -> CommandStream {
        use wgpu::BufferUsages as Usage;
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        CommandStream {
            pass: None,
            encoder: None,
            dispatches: 0,
            words: Vec::new(),
            params: buffer(PARAMS_BYTES, Usage::UNIFORM | Usage::COPY_DST),
            params_groups: HashMap::new(),
            internal: buffer(internal_bytes, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST),
            groups: HashMap::new(),
            in_flight: VecDeque::new(),
            staging: Vec::new(),
            unsent: 0,
            sent: None,
            indices_unread: false,
            align: device.limits().min_uniform_buffer_offset_alignment.max(16) as usize,
        }
    }

    /// Whether commands are encoded that have not been submitted.
    pub(super) fn is_pending(&self) -> bool {
        self.encoder.is_some()
    }

    /// Appends a dispatch.
    pub(super) fn dispatch(
        &mut self,
        shared: &GpuShared,
        EncodedDispatch { pipeline, bindings, words, groups, checks_indices }: EncodedDispatch<'_>,
    ) {
        let room = pipeline.params_bytes as usize;
        if self.words.len() + room + self.align > PARAMS_BYTES as usize || self.dispatches >= MAX_DISPATCHES {
            self.submit(shared);
        }
        let offset = self.words.len();
        self.words.extend_from_slice(bytemuck::cast_slice(words));
        self.words.resize((offset + room).next_multiple_of(self.align), 0);
        let key = (
            pipeline.bindings,
            bindings.iter().map(|b| (b.block.id, b.block.offset + b.offset, b.size)).collect(),
        );
        if self.groups.len() > MAX_GROUPS {
            self.groups.clear();
        }
        let group = self.groups.entry(key).or_insert_with(|| bind(shared, pipeline, bindings));
        let params_key = (pipeline.params_bytes, pipeline.internal);
        let params_group = self
            .params_groups
            .entry(params_key)
            .or_insert_with(|| bind_params(shared, pipeline, &self.params, &self.internal));
        if self.encoder.is_none() {
            self.encoder = Some(shared.device.create_command_encoder(&Default::default()));
        }
        if self.pass.is_none() {
            let encoder = self.encoder.as_mut().map(|e| e.begin_compute_pass(&Default::default()));
            self.pass = encoder.map(wgpu::ComputePass::forget_lifetime);
        }
        if let Some(pass) = &mut self.pass {
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &*group, &[]);
            pass.set_bind_group(1, &*params_group, &[offset as u32]);
            pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        }
        self.dispatches += 1;
        self.indices_unread |= checks_indices;
        shared.counters.dispatches.fetch_add(1, Ordering::Relaxed);
    }

    /// Submits the encoded commands; `None` if there are none.
    pub(super) fn submit(&mut self, shared: &GpuShared) -> Option<wgpu::SubmissionIndex> {
        self.pass = None;
        let encoder = self.encoder.take()?;
        if !self.words.is_empty() {
            shared.queue.write_buffer(&self.params, 0, &self.words);
        }
        let index = shared.queue.submit([encoder.finish()]);
        self.unsent = 0;
        shared.pool.epoch.fetch_add(1, Ordering::AcqRel);
        shared.counters.submits.fetch_add(1, Ordering::Relaxed);
        self.words.clear();
        self.dispatches = 0;
        self.in_flight.push_back(index.clone());
        if self.in_flight.len() > MAX_IN_FLIGHT
            && let Some(oldest) = self.in_flight.pop_front()
        {
            wait(shared, Some(oldest));
        }
        Some(index)
    }

    /// Waits until all work is done, and reports its errors.
    pub(super) fn synchronize(&mut self, shared: &GpuShared) -> Result<()> {
        if self.indices_unread {
            self.read(shared, None, &mut [])?;
        }
        self.submit(shared);
        wait(shared, None);
        self.in_flight.clear();
        shared.failures.take()
    }

    /// Waits for the kernels that checked indices, and reports an index that was out of range.
    pub(super) fn check_indices(&mut self, shared: &GpuShared) -> Result<()> {
        if !self.indices_unread {
            return Ok(());
        }
        self.read(shared, None, &mut [])?;
        shared.failures.take()
    }

    /// Reads bytes of a block after all work that was encoded before.
    pub(super) fn download(
        &mut self,
        shared: &GpuShared,
        block: &GpuBlock,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let mut start = offset;
        for part in out.chunks_mut(MAX_STAGING as usize - 8) {
            self.read(shared, Some((block, start)), part)?;
            start += part.len() as u64;
        }
        shared.failures.take()
    }

    /// Reads a part of a block, and index failures if there may be any.
    fn read(&mut self, shared: &GpuShared, from: Option<(&GpuBlock, u64)>, out: &mut [u8]) -> Result<()> {
        let skip = from.map_or(0, |(_, start)| start % 4);
        let bytes = (skip + out.len() as u64).next_multiple_of(8);
        let staging = self.take_staging(shared, bytes + FAILURE_BYTES)?;
        let check = std::mem::take(&mut self.indices_unread);
        self.pass = None;
        let encoder =
            self.encoder.get_or_insert_with(|| shared.device.create_command_encoder(&Default::default()));
        if let Some((block, start)) = from {
            let aligned = (skip + out.len() as u64).next_multiple_of(4);
            encoder.copy_buffer_to_buffer(&block.buffer, block.offset + start - skip, &staging, 0, aligned);
        }
        if check {
            encoder.copy_buffer_to_buffer(&self.internal, 0, &staging, bytes, FAILURE_BYTES);
            encoder.clear_buffer(&self.internal, 0, Some(FAILURE_BYTES));
        }
        let index = self.submit(shared);
        let outcome = Arc::new(std::sync::OnceLock::new());
        let sink = outcome.clone();
        staging.slice(..bytes + FAILURE_BYTES).map_async(wgpu::MapMode::Read, move |result| {
            let _ = sink.set(result);
        });
        wait(shared, index);
        self.in_flight.clear();
        // An error means that the bytes are not valid.
        shared.failures.take()?;
        if !matches!(outcome.get(), Some(Ok(()))) {
            return Err(shared.failures.refused("a read-back failed"));
        }
        match staging.slice(..bytes + FAILURE_BYTES).get_mapped_range() {
            Ok(view) => {
                out.copy_from_slice(&view[skip as usize..skip as usize + out.len()]);
                if check {
                    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view[bytes as usize..]);
                    shared.record_index_failure(&words);
                }
            }
            Err(error) => return Err(shared.failures.refused(error.to_string())),
        }
        staging.unmap();
        self.staging.push(staging);
        Ok(())
    }

    fn take_staging(&mut self, shared: &GpuShared, bytes: u64) -> Result<wgpu::Buffer> {
        let fits = |buffer: &wgpu::Buffer| buffer.size() >= bytes && buffer.size() <= bytes.max(1024) * 4;
        if let Some(found) = self.staging.iter().position(fits) {
            return Ok(self.staging.swap_remove(found));
        }
        if self.staging.len() >= 8 {
            self.staging.remove(0);
        }
        shared.pool.for_reading(bytes.next_power_of_two().max(4096))
    }

    /// Writes bytes to a block. The write reaches the device before all commands that are not yet submitted.
    pub(super) fn write(&mut self, shared: &GpuShared, block: &GpuBlock, bytes: &[u8]) {
        let (whole, last) = bytes.split_at(bytes.len() / 4 * 4);
        let mut start = block.offset;
        for part in whole.chunks(MAX_STAGING as usize) {
            shared.queue.write_buffer(&block.buffer, start, part);
            start += part.len() as u64;
            // The driver keeps a copy of the written bytes until the next submit, and loses the device if it
            // runs out of memory for it.
            self.unsent += part.len() as u64;
            if self.unsent >= MAX_STAGING {
                self.unsent = 0;
                let sent = shared.queue.submit([]);
                if let Some(before) = self.sent.replace(sent) {
                    wait(shared, Some(before));
                }
            }
        }
        if !last.is_empty() {
            let mut padded = [0u8; 4];
            padded[..last.len()].copy_from_slice(last);
            shared.queue.write_buffer(&block.buffer, start, &padded);
        }
    }

    /// Clears the caches, which keep freed buffers alive.
    pub(super) fn drop_caches(&mut self) {
        self.groups.clear();
        self.staging.clear();
    }
}

/// Waits for a submit, or for all of them.
fn wait(shared: &GpuShared, submission_index: Option<wgpu::SubmissionIndex>) {
    // Work on a lost device may never be done.
    if shared.failures.alive().is_err() {
        return;
    }
    // wgpu panics if the device is lost while it waits. It holds no lock at that point, so catching the panic
    // is safe.
    let poll = |submission_index| {
        let way = wgpu::PollType::Wait { submission_index, timeout: None };
        catch_unwind(AssertUnwindSafe(|| shared.device.poll(way)))
    };
    let mut outcome = poll(submission_index);
    if let Ok(Err(error @ wgpu::PollError::WrongSubmissionIndex(..))) = &outcome {
        // The driver refused the submit. Waiting for all submits before it also finds out whether the device
        // was lost.
        shared.failures.record(shared.failures.refused(error.to_string()));
        outcome = poll(None);
    }
    match outcome {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => shared.failures.record(shared.failures.refused(error.to_string())),
        Err(panic) => shared.failures.lose(panic_message(&*panic)),
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the driver failed while it was waited for")
}

fn bind(shared: &GpuShared, pipeline: &Pipeline, bindings: &[Binding<'_>]) -> wgpu::BindGroup {
    let entries: Vec<_> = (0u32..)
        .zip(bindings)
        .map(|(binding, Binding { block, offset, size })| {
            let (buffer, offset) = (&block.buffer, block.offset + offset);
            let part = wgpu::BufferBinding { buffer, offset, size: std::num::NonZero::new(*size) };
            wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(part) }
        })
        .collect();
    let layout = &pipeline.buffers;
    shared.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

fn bind_params(
    shared: &GpuShared,
    pipeline: &Pipeline,
    params: &wgpu::Buffer,
    internal: &wgpu::Buffer,
) -> wgpu::BindGroup {
    let uniform = wgpu::BufferBinding {
        buffer: params,
        offset: 0,
        size: std::num::NonZero::new(pipeline.params_bytes),
    };
    let mut entries =
        vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
    if pipeline.internal {
        entries.push(wgpu::BindGroupEntry { binding: 1, resource: internal.as_entire_binding() });
    }
    let layout = &pipeline.params;
    shared.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}
