//! The device's queue: dispatches are gathered into command buffers and sent off many at a time.
//!
//! - All numbers of the dispatches of one command buffer lie in one uniform buffer, written once a submit; each dispatch
//!   binds its part by a dynamic offset.
//! - Bind groups are cached by what they bind. A program that repeats itself creates no driver objects.
//! - Work runs in the order in which it was encoded; few submits are in flight at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Shared;
use super::memory::Block;
use super::pipeline::Pipeline;
use crate::{Error, Result};

const PARAMS_BYTES: u64 = 256 << 10;
const MAX_DISPATCHES: usize = 128;
const MAX_IN_FLIGHT: usize = 8;
const MAX_GROUPS: usize = 8192;
/// The words at the start of the device's own buffer that describe a failed index.
const FAILURE_BYTES: u64 = 32;
/// The most bytes that a download moves at a time.
const MAX_STAGING: u64 = 64 << 20;

/// A part of a block, as it is bound.
pub(super) struct Binding<'a> {
    pub(super) block: &'a Block,
    pub(super) offset: u64,
    pub(super) size: u64,
}

type GroupKey = (usize, SmallVec<[(u64, u64, u64); 8]>);

/// What is encoded and not yet submitted, and the caches of what dispatches need.
pub(super) struct Stream {
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
    /// Whether a kernel that checks indices ran since the failures were read.
    indices_unread: bool,
    align: usize,
}

impl Stream {
    pub(super) fn new(device: &wgpu::Device, internal_bytes: u64) -> Stream {
        use wgpu::BufferUsages as Usage;
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        Stream {
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
            indices_unread: false,
            align: device.limits().min_uniform_buffer_offset_alignment.max(16) as usize,
        }
    }

    /// Whether work is encoded that the device has not got.
    pub(super) fn is_pending(&self) -> bool {
        self.encoder.is_some()
    }

    /// Appends a dispatch.
    pub(super) fn dispatch(
        &mut self,
        shared: &Shared,
        pipeline: &Arc<Pipeline>,
        bindings: &[Binding<'_>],
        words: &[u32],
        groups: [u32; 3],
        checks_indices: bool,
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

    /// Sends what is encoded on its way.
    pub(super) fn submit(&mut self, shared: &Shared) -> Option<wgpu::SubmissionIndex> {
        self.pass = None;
        let encoder = self.encoder.take()?;
        if !self.words.is_empty() {
            shared.queue.write_buffer(&self.params, 0, &self.words);
        }
        let index = shared.queue.submit([encoder.finish()]);
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

    /// Waits until everything is done, and reports what went wrong.
    pub(super) fn synchronize(&mut self, shared: &Shared) -> Result<()> {
        if self.indices_unread {
            self.read(shared, None, &mut [])?;
        }
        self.submit(shared);
        wait(shared, None);
        self.in_flight.clear();
        shared.failures.take(&shared.name)
    }

    /// Reads bytes of a block, after all work before it.
    pub(super) fn download(
        &mut self,
        shared: &Shared,
        block: &Block,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let mut start = offset;
        for part in out.chunks_mut(MAX_STAGING as usize - 8) {
            self.read(shared, Some((block, start)), part)?;
            start += part.len() as u64;
        }
        shared.failures.take(&shared.name)
    }

    /// Reads a piece of a block, and the index failures if there may be any.
    fn read(&mut self, shared: &Shared, from: Option<(&Block, u64)>, out: &mut [u8]) -> Result<()> {
        let skip = from.map_or(0, |(_, start)| start % 4);
        let bytes = (skip + out.len() as u64).next_multiple_of(8);
        let check = std::mem::take(&mut self.indices_unread);
        let staging = self.take_staging(shared, bytes + FAILURE_BYTES);
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
        if !matches!(outcome.get(), Some(Ok(()))) {
            shared.failures.take(&shared.name)?;
            return Err(refused(shared, "a read-back failed"));
        }
        match staging.slice(..bytes + FAILURE_BYTES).get_mapped_range() {
            Ok(view) => {
                out.copy_from_slice(&view[skip as usize..skip as usize + out.len()]);
                if check {
                    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&view[bytes as usize..]);
                    shared.record_index_failure(&words);
                }
            }
            Err(error) => return Err(refused(shared, &error.to_string())),
        }
        staging.unmap();
        self.staging.push(staging);
        Ok(())
    }

    fn take_staging(&mut self, shared: &Shared, bytes: u64) -> wgpu::Buffer {
        let fits = |buffer: &wgpu::Buffer| buffer.size() >= bytes && buffer.size() <= bytes.max(1024) * 4;
        if let Some(found) = self.staging.iter().position(fits) {
            return self.staging.swap_remove(found);
        }
        if self.staging.len() >= 8 {
            self.staging.remove(0);
        }
        shared.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes.next_power_of_two().max(4096),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Forgets everything that keeps freed buffers alive.
    pub(super) fn drop_caches(&mut self) {
        self.groups.clear();
        self.staging.clear();
    }
}

fn refused(shared: &Shared, reason: &str) -> Error {
    Error::Kernel { device: shared.name.clone(), reason: reason.to_owned() }
}

fn wait(shared: &Shared, submission_index: Option<wgpu::SubmissionIndex>) {
    if let Err(error) = shared.device.poll(wgpu::PollType::Wait { submission_index, timeout: None }) {
        shared.failures.record(refused(shared, &error.to_string()));
    }
}

fn bind(shared: &Shared, pipeline: &Pipeline, bindings: &[Binding<'_>]) -> wgpu::BindGroup {
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
    shared: &Shared,
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
