//! Compiled kernels, which are found by their source and kept up to a bound.
//!
//! A driver keeps far more of a kernel than its source: Mesa's software adapters keep a megabyte. So a device
//! bounds its compiled kernels. Beyond the bound it drops the one that was launched least recently, even if a
//! program still refers to it. A program whose kernel was dropped compiles it again and raises the bound by
//! its size, so that programs that take turns do not compile for ever. What a device keeps is therefore the
//! bound, or what its active programs need.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::Failures;
use crate::Result;

/// The bytes of compiled kernels that a device keeps before it drops one.
const KEPT: u64 = 256 << 20;

/// The estimate of the bytes that a driver keeps of a kernel for each byte of its source. Mesa's software
/// adapters keep about as much; other drivers keep less, so more of their kernels are kept.
const COMPILED_PER_SOURCE: u64 = 96;

/// A kernel's source, and what is needed to bind its arguments.
pub(super) struct ShaderSource {
    /// The WGSL source; its entry point is `main`.
    pub(super) wgsl: String,
    /// The number of storage buffers, which are the bindings of group 0.
    pub(super) bindings: usize,
    /// The bytes of the uniforms, which are in group 1.
    pub(super) params_bytes: usize,
    /// Whether it uses the internal buffer (index failures and scratch memory), which is in group 1.
    pub(super) internal: bool,
}

impl ShaderSource {
    /// The estimated bytes of its compiled form.
    fn compiled_bytes(&self) -> u64 {
        self.wgsl.len() as u64 * COMPILED_PER_SOURCE
    }
}

/// A compiled kernel.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) buffers: wgpu::BindGroupLayout,
    pub(super) params: wgpu::BindGroupLayout,
    /// The bytes that are bound for the uniforms.
    pub(super) params_bytes: u64,
    pub(super) bindings: usize,
    pub(super) internal: bool,
}

/// A kernel's source and, until it is dropped, its compiled form. Programs hold these.
pub(super) struct Shader {
    source: ShaderSource,
    compiled: Mutex<Option<Arc<Pipeline>>>,
    /// The time of its last use, by the clock of [`Pipelines`].
    used: AtomicU64,
}

impl Shader {
    fn compiled(&self) -> MutexGuard<'_, Option<Arc<Pipeline>>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of its source.
    pub(super) fn source_bytes(&self) -> usize {
        self.source.wgsl.len()
    }
}

/// A shader that is hashed and compared by its source.
struct BySource(Arc<Shader>);

impl Borrow<str> for BySource {
    fn borrow(&self) -> &str {
        &self.0.source.wgsl
    }
}

impl PartialEq for BySource {
    fn eq(&self, other: &BySource) -> bool {
        self.0.source.wgsl == other.0.source.wgsl
    }
}

impl Eq for BySource {}

impl Hash for BySource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.source.wgsl.hash(state);
    }
}

/// The kernels compiled on a device.
pub(super) struct Pipelines {
    device: wgpu::Device,
    failures: Arc<Failures>,
    state: Mutex<PipelineCache>,
    /// Counts uses; a shader's last use is a value of this clock.
    clock: AtomicU64,
    pub(super) compiled: AtomicU64,
    pub(super) hits: AtomicU64,
}

struct PipelineCache {
    shaders: HashSet<BySource>,
    /// The estimated bytes of all compiled forms, and their bound.
    bytes: u64,
    bound: u64,
    buffer_layouts: HashMap<usize, wgpu::BindGroupLayout>,
    param_layouts: HashMap<(u64, bool), wgpu::BindGroupLayout>,
}

/// The sources that have been compiled since a test asked for them.
static SOURCES: Mutex<Option<BTreeSet<String>>> = Mutex::new(None);

/// Returns every source that this process compiles while a function runs.
pub(crate) fn sources(run: impl FnOnce()) -> Vec<String> {
    let sources = || SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    *sources() = Some(BTreeSet::new());
    run();
    sources().take().into_iter().flatten().collect()
}

impl Pipelines {
    pub(super) fn new(device: wgpu::Device, failures: Arc<Failures>) -> Pipelines {
        let state = PipelineCache {
            shaders: HashSet::new(),
            bytes: 0,
            bound: KEPT,
            buffer_layouts: HashMap::new(),
            param_layouts: HashMap::new(),
        };
        Pipelines {
            device,
            failures,
            state: Mutex::new(state),
            clock: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PipelineCache> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shader of a source, which is compiled unless its compiled form is kept.
    pub(super) fn shader(&self, source: ShaderSource) -> Result<Arc<Shader>> {
        let mut state = self.lock();
        let known = state.shaders.get(source.wgsl.as_str()).map(|known| known.0.clone());
        let shader = known.unwrap_or_else(|| {
            Arc::new(Shader { source, compiled: Mutex::default(), used: AtomicU64::new(0) })
        });
        self.touch(&shader);
        if shader.compiled().is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        } else {
            self.compile_and_keep(&mut state, &shader)?;
        }
        Ok(shader)
    }

    /// A shader's compiled form, which is compiled again if it was dropped.
    pub(super) fn get(&self, shader: &Arc<Shader>) -> Result<Arc<Pipeline>> {
        self.touch(shader);
        if let Some(pipeline) = &*shader.compiled() {
            return Ok(pipeline.clone());
        }
        let mut state = self.lock();
        // Another thread may have compiled it meanwhile.
        if let Some(pipeline) = &*shader.compiled() {
            return Ok(pipeline.clone());
        }
        state.bound = state.bound.saturating_add(shader.source.compiled_bytes());
        self.compile_and_keep(&mut state, shader)
    }

    /// Drops the shaders that no program holds.
    pub(super) fn trim(&self) {
        let mut state = self.lock();
        let PipelineCache { shaders, bytes, .. } = &mut *state;
        shaders.retain(|shader| {
            let held = Arc::strong_count(&shader.0) > 1;
            if !held && shader.0.compiled().is_some() {
                *bytes -= shader.0.source.compiled_bytes();
            }
            held
        });
    }

    /// Sets the bound.
    #[cfg(test)]
    pub(super) fn set_bound(&self, bytes: u64) {
        self.lock().bound = bytes;
    }

    /// The number of compiled forms.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.lock().shaders.iter().filter(|shader| shader.0.compiled().is_some()).count()
    }

    fn touch(&self, shader: &Shader) {
        shader.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn compile_and_keep(&self, state: &mut PipelineCache, shader: &Arc<Shader>) -> Result<Arc<Pipeline>> {
        let pipeline = Arc::new(self.compile(state, &shader.source)?);
        self.compiled.fetch_add(1, Ordering::Relaxed);
        if let Some(sources) = &mut *SOURCES.lock().unwrap_or_else(PoisonError::into_inner) {
            sources.insert(shader.source.wgsl.clone());
        }
        *shader.compiled() = Some(pipeline.clone());
        state.bytes += shader.source.compiled_bytes();
        state.shaders.insert(BySource(shader.clone()));
        state.make_room(shader);
        Ok(pipeline)
    }

    fn compile(&self, state: &mut PipelineCache, source: &ShaderSource) -> Result<Pipeline> {
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
        let ShaderSource { bindings, internal, .. } = *source;
        Ok(Pipeline { pipeline, buffers, params, params_bytes, bindings, internal })
    }
}

impl PipelineCache {
    /// Drops the compiled forms that were used least recently until the bound is kept, but never that of
    /// `kept`.
    fn make_room(&mut self, kept: &Arc<Shader>) {
        if self.bytes <= self.bound {
            return;
        }
        let mut kernels: Vec<Arc<Shader>> = self.shaders.iter().map(|shader| shader.0.clone()).collect();
        kernels.retain(|shader| !Arc::ptr_eq(shader, kept) && shader.compiled().is_some());
        kernels.sort_by_key(|shader| shader.used.load(Ordering::Relaxed));
        // Frees an eighth more, so that the next kernel finds room.
        let target = self.bound - self.bound / 8;
        for shader in kernels {
            if self.bytes <= target {
                break;
            }
            *shader.compiled() = None;
            self.bytes -= shader.source.compiled_bytes();
        }
        // Sources that no program holds are dropped too; a kernel that needs one generates it again.
        self.shaders.retain(|shader| Arc::strong_count(&shader.0) > 1 || shader.0.compiled().is_some());
    }
}

fn storage(binding: u32) -> wgpu::BindGroupLayoutEntry {
    // All storage is bound writable, so that parts of one buffer may be read and written in one dispatch.
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
