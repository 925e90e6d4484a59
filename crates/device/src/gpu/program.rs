//! A prepared kernel: a few dispatches with their uniforms laid out, which need only buffers and parameters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::GpuShared;
use super::memory::{GpuBlock, GpuMemory};
use super::pipeline::Shader;
use super::stream::{Binding, EncodedDispatch};
use crate::executor::{bytes_of, check_written};
use crate::kernel::{Traffic, Ty};
use crate::{Error, Place, Prepared, Result, Scalar};

/// The memory that a binding refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BoundMemory {
    /// A buffer that is given at launch.
    Buffer(usize),
    /// A temporary, which exists only during the launch.
    Temp(usize),
}

/// The part of a buffer or a temporary that a dispatch binds.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) slot: BoundMemory,
    /// The first byte; a multiple of 256.
    pub(super) start: u64,
    /// One past the last byte that is needed.
    pub(super) end: u64,
}

/// A uniform whose value is known at launch only.
#[derive(Clone, Copy, Debug)]
pub(super) enum UniformPatch {
    /// A parameter, in the representation of its type.
    Scalar { param: usize, ty: Ty },
    /// The position of the last element of this size in a binding.
    Last { binding: usize, bytes: u64 },
    /// Adds to the uniform the number of elements of this size by which the memory given for a buffer begins
    /// after its binding.
    Begin { buffer: usize, bytes: u64 },
}

/// Bindings begin at multiples of this many bytes.
const BINDING_ALIGN: u64 = 256;

/// A dispatch of a compiled kernel.
pub(super) struct Dispatch {
    pub(super) shader: Arc<Shader>,
    pub(super) windows: Vec<Window>,
    pub(super) words: Vec<u32>,
    pub(super) patches: Vec<(usize, UniformPatch)>,
    pub(super) groups: [u32; 3],
    pub(super) checks_indices: bool,
}

/// A prepared kernel.
pub(super) struct GpuProgram {
    // The steps are dropped before `shared`, whose last owner must drop the driver's objects while it holds
    // the turn. Until then `shared` holds the compiled forms of these shaders as well.
    pub(super) steps: Vec<Dispatch>,
    pub(super) shared: Arc<GpuShared>,
    /// The bytes of each temporary.
    pub(super) temps: Vec<usize>,
    /// The bytes that each buffer must have.
    pub(super) needs: Vec<u64>,
    /// Whether each buffer is written.
    pub(super) written: Vec<bool>,
    pub(super) params: usize,
    pub(super) traffic: Traffic,
}

impl Prepared for GpuProgram {
    fn launch_at(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()> {
        let shared = &self.shared;
        self.check(places, params)?;
        shared.failures.alive()?;
        let _turn = shared.turn();
        let temps: Vec<GpuMemory> =
            self.temps.iter().map(|&bytes| shared.pool.alloc(bytes)).collect::<Result<_>>()?;
        let blocks: Vec<&GpuBlock> =
            places.iter().map(|place| shared.block(place.buffer)).collect::<Result<_>>()?;
        let begin = |slot: BoundMemory| match slot {
            BoundMemory::Buffer(i) => (blocks[i], places[i].begin as u64),
            BoundMemory::Temp(i) => (temps[i].block(), 0),
        };
        let pipelines: smallvec::SmallVec<[_; 4]> =
            self.steps.iter().map(|step| shared.pipelines.get(&step.shader)).collect::<Result<_>>()?;
        let mut stream = shared.stream();
        for (dispatch, pipeline) in self.steps.iter().zip(&pipelines) {
            let bind = |window: &Window| bind(shared, begin(window.slot), window);
            let bindings: smallvec::SmallVec<[Binding<'_>; 8]> = dispatch.windows.iter().map(bind).collect();
            let mut words: smallvec::SmallVec<[u32; 64]> = dispatch.words.as_slice().into();
            for &(word, patch) in &dispatch.patches {
                match patch {
                    UniformPatch::Scalar { param, ty } => write_scalar(&mut words[word..], params[param], ty),
                    UniformPatch::Last { binding, bytes } => {
                        words[word] = (bindings[binding].size / bytes) as u32 - 1
                    }
                    UniformPatch::Begin { buffer, bytes } => {
                        let beyond = (places[buffer].begin as u64 % BINDING_ALIGN / bytes) as u32;
                        words[word] = words[word].wrapping_add(beyond);
                    }
                }
            }
            stream.dispatch(
                shared,
                EncodedDispatch {
                    pipeline,
                    bindings: &bindings,
                    words: &words,
                    groups: dispatch.groups,
                    checks_indices: dispatch.checks_indices,
                },
            );
        }
        drop(stream);
        shared.counters.read.fetch_add(self.traffic.read, Ordering::Relaxed);
        shared.counters.written.fetch_add(self.traffic.written, Ordering::Relaxed);
        Ok(())
    }

    fn bytes(&self) -> usize {
        let step = |step: &Dispatch| {
            let source = step.shader.source_bytes() / Arc::strong_count(&step.shader);
            size_of::<Dispatch>()
                + source
                + bytes_of(&step.windows)
                + bytes_of(&step.words)
                + bytes_of(&step.patches)
        };
        let own = bytes_of(&self.temps) + bytes_of(&self.needs) + bytes_of(&self.written);
        size_of::<GpuProgram>() + own + self.steps.iter().map(step).sum::<usize>()
    }
}

impl GpuProgram {
    /// Checks a launch. Kernels access memory without checks inside of these bounds, so a buffer that is too
    /// small must be refused.
    fn check(&self, places: &[Place<'_>], params: &[Scalar]) -> Result<()> {
        let wrong = |reason: String| Err(Error::Argument { op: "launch", reason });
        if places.len() < self.needs.len() || params.len() < self.params {
            return wrong(format!(
                "a kernel of {} buffers and {} parameters got {} and {}",
                self.needs.len(),
                self.params,
                places.len(),
                params.len()
            ));
        }
        for (i, (place, &need)) in places.iter().zip(&self.needs).enumerate() {
            if (place.bytes() as u64) < need {
                return wrong(format!(
                    "buffer {i} has {} bytes, and the kernel reaches {need}",
                    place.bytes()
                ));
            }
        }
        check_written(places, &self.written)
    }
}

/// The binding of a window of a block, where the given memory begins at byte `begin` of the block.
fn bind<'a>(shared: &GpuShared, (block, begin): (&'a GpuBlock, u64), window: &Window) -> Binding<'a> {
    let aligned = begin / BINDING_ALIGN * BINDING_ALIGN;
    // Only accesses that guards prevent have a window beyond the buffer; any part of the buffer may be bound
    // for them.
    let start = if aligned + window.start < block.size { aligned + window.start } else { 0 };
    let rest = block.size - start;
    let needed = (begin + window.end).next_multiple_of(BINDING_ALIGN).min(block.size).saturating_sub(start);
    let size = if rest <= shared.caps.max_binding { rest } else { needed.max(256) };
    Binding { block, offset: start, size: size.min(shared.caps.max_binding) }
}

/// Writes a parameter to the words of a uniform of its type.
fn write_scalar(words: &mut [u32], value: Scalar, ty: Ty) {
    match ty {
        Ty::Bool => words[0] = u32::from(value.as_bool()),
        Ty::U32 | Ty::I32 => words[0] = value.as_i64() as u32,
        Ty::I64 => {
            words[0] = value.as_i64() as u32;
            words[1] = (value.as_i64() >> 32) as u32;
        }
        Ty::F32 => words[0] = (value.as_f64() as f32).to_bits(),
        Ty::F64 => {
            let bits = value.as_f64().to_bits();
            (words[0], words[1]) = (bits as u32, (bits >> 32) as u32);
        }
    }
}
