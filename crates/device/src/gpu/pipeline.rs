//! Compiled kernels, cached by their source.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::Failures;
use crate::Result;

/// A kernel's source with what is needed to bind its arguments.
pub(super) struct Source {
    /// The whole WGSL text; its entry point is `main`.
    pub(super) wgsl: String,
    /// Storage buffers: bindings 0.. of group 0.
    pub(super) bindings: usize,
    /// Bytes of the numbers, in group 1.
    pub(super) params_bytes: usize,
    /// Whether it uses the device's own buffer (index failures and scratch), in group 1.
    pub(super) internal: bool,
}

/// A compiled kernel.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) buffers: wgpu::BindGroupLayout,
    pub(super) params: wgpu::BindGroupLayout,
    /// Bytes that are bound for the numbers.
    pub(super) params_bytes: u64,
    pub(super) bindings: usize,
    pub(super) internal: bool,
}

/// All kernels compiled on a device.
pub(super) struct Pipelines {
    device: wgpu::Device,
    failures: Arc<Failures>,
    state: Mutex<State>,
    pub(super) compiled: AtomicU64,
    pub(super) hits: AtomicU64,
}

#[derive(Default)]
struct State {
    by_source: HashMap<Arc<str>, Arc<Pipeline>>,
    buffer_layouts: HashMap<usize, wgpu::BindGroupLayout>,
    param_layouts: HashMap<(u64, bool), wgpu::BindGroupLayout>,
}

/// Every source that this process compiled, for tests that translate them to other shading languages.
static SOURCES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Every source that this process compiled.
pub(crate) fn sources() -> Vec<String> {
    SOURCES.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

impl Pipelines {
    pub(super) fn new(device: wgpu::Device, failures: Arc<Failures>) -> Pipelines {
        Pipelines {
            device,
            failures,
            state: Mutex::default(),
            compiled: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// The compiled form of a source.
    pub(super) fn get(&self, source: &Source) -> Result<Arc<Pipeline>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = state.by_source.get(source.wgsl.as_str()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.compile(&mut state, source)?);
        self.compiled.fetch_add(1, Ordering::Relaxed);
        SOURCES.lock().unwrap_or_else(PoisonError::into_inner).insert(source.wgsl.clone());
        state.by_source.insert(source.wgsl.as_str().into(), pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, state: &mut State, source: &Source) -> Result<Pipeline> {
        let params_bytes = (source.params_bytes as u64).next_power_of_two().max(64);
        let buffers = state
            .buffer_layouts
            .entry(source.bindings)
            .or_insert_with(|| buffer_layout(&self.device, source.bindings))
            .clone();
        let params = state
            .param_layouts
            .entry((params_bytes, source.internal))
            .or_insert_with(|| params_layout(&self.device, params_bytes, source.internal))
            .clone();
        let scopes =
            [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation]
                .map(|filter| self.device.push_error_scope(filter));
        let module = super::shader::create(&self.device, &source.wgsl);
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&buffers), Some(&params)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let errors = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop()));
        if let Some(error) = errors.last() {
            log::debug!("refused: {error}\n{}", source.wgsl);
            return Err(self.failures.refused(error.to_string()));
        }
        let Source { bindings, internal, .. } = *source;
        Ok(Pipeline { pipeline, buffers, params, params_bytes, bindings, internal })
    }
}

fn storage(binding: u32) -> wgpu::BindGroupLayoutEntry {
    // Everything is bound writable: parts of one buffer may then be read and written in one dispatch.
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: false },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}

fn buffer_layout(device: &wgpu::Device, bindings: usize) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0..bindings as u32).map(storage).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

fn params_layout(device: &wgpu::Device, bytes: u64, internal: bool) -> wgpu::BindGroupLayout {
    let params = wgpu::BindGroupLayoutEntry {
        binding: 0,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: true,
            min_binding_size: std::num::NonZero::new(bytes),
        },
        count: None,
    };
    let entries: Vec<_> = std::iter::once(params).chain(internal.then(|| storage(1))).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}
