//! Scatters: values that are written to indexed places.
//!
//! First every index tuple is checked and turned into a place. Then each thread owns a range of the output,
//! goes through all places in order, and applies those that fall into its range. So the additions and their
//! order do not depend on the number of threads. Halves are combined in f32 and rounded once.
#![allow(unsafe_code)]

use std::sync::Arc;

use half::{bf16, f16};

use super::Needs;
use super::affine::{AffineMap, Groups};
use super::frame::{RawBuffer, checked};
use super::memory::CpuPool;
use super::parallel::parallel;
use super::program::invalid;
use crate::executor::bytes_of;
use crate::kernel::{IndexedDim, Scatter, ScatterOp};
use crate::{DType, Result};

/// The least number of source elements of a task, since each task goes through all places.
const TASK_ELEMENTS: usize = 1 << 15;
/// The index tuples that one task turns into places.
const TASK_PLACES: usize = 1 << 14;

/// A scatter that is ready to run.
pub struct ScatterKernel {
    op: ScatterOp,
    dtype: DType,
    /// The map of the source; P counts the index tuples, Q the elements that each tuple moves.
    source: AffineMap,
    target: AffineMap,
    indices: Vec<ScatterIndex>,
    /// The number of index tuples, and of elements that each of them moves.
    places: usize,
    run: usize,
    buffers: (usize, usize),
    base: Option<usize>,
    elements: usize,
    required: Vec<usize>,
    written: Vec<bool>,
    pool: Arc<CpuPool>,
}

struct ScatterIndex {
    affine: AffineMap,
    buffer: usize,
    wide: bool,
    dim: IndexedDim,
}

/// The memory of an output during a launch.
#[derive(Clone, Copy)]
struct Output(*mut u8);

// SAFETY: each task reads and writes only the range of elements that it owns, or only reads.
unsafe impl Send for Output {}
// SAFETY: a shared reference gives no more than a copy of the pointer; the threads that have copies write to
// disjoint elements.
unsafe impl Sync for Output {}

impl Output {
    /// The output as elements of a type.
    fn cast<T>(self) -> *mut T {
        self.0.cast()
    }
}

impl ScatterKernel {
    /// The host memory that it keeps, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<ScatterKernel>()
            + bytes_of(&self.indices)
            + bytes_of(&self.required)
            + bytes_of(&self.written)
    }

    /// Prepares a scatter for launches.
    pub fn new(kernel: &Scatter, pool: &Arc<CpuPool>) -> Result<ScatterKernel> {
        let sizes = &kernel.sizes;
        let rank = sizes.len();
        let (source, target) = (&kernel.source, &kernel.target);
        let read = kernel.indices.iter().chain([source]);
        let buffers = read.clone().map(|a| a.buffer).chain(kernel.base).chain([target.buffer]).max();
        let mut required = vec![0; buffers.map_or(0, |last| last + 1)];
        let mut written = vec![false; required.len()];
        written[target.buffer] = true;
        let bytes =
            kernel.elements.checked_mul(source.dtype.size()).ok_or_else(|| invalid("too many elements"))?;
        for buffer in kernel.base.into_iter().chain([target.buffer]) {
            required[buffer] = bytes;
        }
        for access in read.filter(|_| !sizes.contains(&0)) {
            let bytes = super::reach(access.offset, &access.strides, sizes, access.dtype.size())?;
            required[access.buffer] = required[access.buffer].max(bytes);
        }
        // The last dims on which no index depends are moved together, as one run of each index tuple.
        let varies = |dim: usize| kernel.indices.iter().any(|a| a.strides[dim] != 0);
        let first = (0..rank).rev().find(|&dim| varies(dim)).map_or(0, |dim| dim + 1);
        let groups = Groups { batch: vec![], p: (0..first).collect(), q: (first..rank).collect() };
        let affine = |a: &crate::kernel::Access| AffineMap::new(a.offset, &a.strides, sizes, &groups);
        let index = |(a, dim): (&crate::kernel::Access, &IndexedDim)| ScatterIndex {
            affine: affine(a),
            buffer: a.buffer,
            wide: a.dtype == DType::I64,
            dim: dim.clone(),
        };
        Ok(ScatterKernel {
            op: kernel.op,
            dtype: source.dtype,
            source: affine(source),
            target: affine(target),
            indices: kernel.indices.iter().zip(&target.indexed).map(index).collect(),
            places: sizes[..first].iter().product(),
            run: sizes[first..].iter().product(),
            buffers: (source.buffer, target.buffer),
            base: kernel.base,
            elements: kernel.elements,
            required,
            written,
            pool: pool.clone(),
        })
    }

    /// The buffers that a launch must provide.
    pub fn needs(&self) -> Needs<'_> {
        Needs { required: &self.required, written: &self.written, params: 0 }
    }

    /// Scatters the source into the output.
    ///
    /// # Safety
    /// The buffers are as [`ScatterKernel::needs`] says, and nobody else uses what is written.
    pub unsafe fn run(&self, buffers: &[RawBuffer]) -> Result<()> {
        let memory = self.pool.alloc(self.places * size_of::<i64>())?;
        let places = memory.pointer().cast::<i64>();
        // SAFETY: the caller's obligations are passed on; the memory has room for all places, and
        // `find_places` initialises them.
        let places = unsafe {
            self.find_places(buffers, Output(places.cast()))?;
            std::slice::from_raw_parts(places, self.places)
        };
        macro_rules! with {
            ($source:ty, $acc:ty, $wide:expr, $narrow:expr, |$a:ident, $x:ident|
             $add:expr, $mul:expr, $max:expr, $min:expr) => {{
                // SAFETY: the caller's obligations are passed on, the dtype says that the elements are of
                // this type, and `find_places` has checked the places.
                unsafe {
                    match self.op {
                        ScatterOp::Assign => {
                            self.combine::<$source, $acc>(buffers, places, $wide, $narrow, |_, $x| $x)
                        }
                        ScatterOp::Add => {
                            self.combine::<$source, $acc>(buffers, places, $wide, $narrow, |$a, $x| $add)
                        }
                        ScatterOp::Mul => {
                            self.combine::<$source, $acc>(buffers, places, $wide, $narrow, |$a, $x| $mul)
                        }
                        ScatterOp::Max => {
                            self.combine::<$source, $acc>(buffers, places, $wide, $narrow, |$a, $x| $max)
                        }
                        ScatterOp::Min => {
                            self.combine::<$source, $acc>(buffers, places, $wide, $narrow, |$a, $x| $min)
                        }
                    }
                }
            }};
        }
        macro_rules! float {
            ($source:ty, $acc:ty, $wide:expr, $narrow:expr) => {
                with!(
                    $source,
                    $acc,
                    $wide,
                    $narrow,
                    |a, x| a + x,
                    a * x,
                    if (a > x) | a.is_nan() { a } else { x },
                    if (a < x) | a.is_nan() { a } else { x }
                )
            };
        }
        macro_rules! integer {
            ($ty:ty) => {
                with!($ty, $ty, |x| x, |x| x, |a, x| a.wrapping_add(x), a.wrapping_mul(x), a.max(x), a.min(x))
            };
        }
        match self.dtype {
            DType::F32 => float!(f32, f32, |x| x, |x| x),
            DType::F64 => float!(f64, f64, |x| x, |x| x),
            DType::F16 => float!(f16, f32, f16::to_f32, f16::from_f32),
            DType::BF16 => float!(bf16, f32, bf16::to_f32, bf16::from_f32),
            DType::I32 => integer!(i32),
            DType::I64 => integer!(i64),
            DType::U8 => integer!(u8),
            DType::Bool => with!(u8, u8, |x| u8::from(x != 0), |x| x, |a, x| a | x, a & x, a | x, a & x),
        }
    }

    /// Computes the place in the output that each index tuple addresses.
    ///
    /// # Safety
    /// As for [`ScatterKernel::run`]; `places` has room for all index tuples.
    unsafe fn find_places(&self, buffers: &[RawBuffer], places: Output) -> Result<()> {
        // The least and the largest offset of a run's elements from its place.
        let corners = self.target.q.bounds();
        parallel(self.places.div_ceil(TASK_PLACES), self.places * 16, &|task| {
            let end = ((task + 1) * TASK_PLACES).min(self.places);
            for p in task * TASK_PLACES..end {
                let mut place = self.target.offset + self.target.p.offset(p);
                for index in &self.indices {
                    let at = index.affine.offset + index.affine.p.offset(p);
                    let start = buffers[index.buffer].start;
                    // SAFETY: passed on to the caller.
                    let value = unsafe {
                        if index.wide {
                            start.cast::<i64>().offset(at).read()
                        } else {
                            i64::from(start.cast::<i32>().offset(at).read())
                        }
                    };
                    place += checked(&index.dim, value)? * index.dim.stride;
                }
                if self.run > 0 && (place + corners.0 < 0 || place + corners.1 >= self.elements as isize) {
                    return Err(invalid(format!("a scatter to element {place} of {}", self.elements)));
                }
                // SAFETY: `p` is below `self.places`, for which the caller has made room, and only this task
                // writes it.
                unsafe { places.cast::<i64>().add(p).write(place as i64) };
            }
            Ok(())
        })
    }

    /// # Safety
    /// As for [`ScatterKernel::run`]; the elements are of type `T`, and all places with their runs lie inside
    /// of the output.
    unsafe fn combine<T: Copy + Default, A: Copy>(
        &self,
        buffers: &[RawBuffer],
        places: &[i64],
        wide: impl Fn(T) -> A + Sync,
        narrow: impl Fn(A) -> T + Sync,
        op: impl Fn(A, A) -> A + Sync,
    ) -> Result<()> {
        let work = self.places.saturating_mul(self.run);
        let tasks = match work / TASK_ELEMENTS {
            0 | 1 => 1,
            tasks => tasks.min(rayon::current_num_threads()),
        };
        let range = self.elements.div_ceil(tasks);
        let output = Output(buffers[self.buffers.1].start);
        let source = buffers[self.buffers.0].start;
        let source = Output(source);
        let base = self.base.map(|base| Output(buffers[base].start));
        // Halves are combined in f32, in memory of their own.
        let aside =
            (size_of::<A>() != size_of::<T>()).then(|| self.pool.alloc(self.elements * size_of::<A>()));
        let aside = aside.transpose()?;
        let sums = Output(aside.as_ref().map_or(output.0, |memory| memory.pointer()));
        let corners = self.target.q.bounds();
        parallel(tasks, if tasks > 1 { usize::MAX } else { 0 }, &|task| {
            let (low, high) = ((task * range).min(self.elements), ((task + 1) * range).min(self.elements));
            let (low, high) = (low as isize, high as isize);
            // SAFETY: the caller promises the source and the output; `low..high` is this task's own range of
            // the output.
            unsafe {
                for i in low..high {
                    let first = base.map_or_else(T::default, |base| base.cast::<T>().offset(i).read());
                    sums.cast::<A>().offset(i).write(wide(first));
                }
                for (p, &place) in places.iter().enumerate() {
                    let place = place as isize;
                    if place + corners.1 < low || place + corners.0 >= high {
                        continue;
                    }
                    let whole = place + corners.0 >= low && place + corners.1 < high;
                    let from = self.source.offset + self.source.p.offset(p);
                    if let (true, [0 | 1, 0 | 1]) = (whole, [self.source.q.rank(), self.target.q.rank()]) {
                        let (read, write) = (self.source.q.stride(), self.target.q.stride());
                        for q in 0..self.run as isize {
                            let x = wide(source.cast::<T>().offset(from + q * read).read());
                            let sum = sums.cast::<A>().offset(place + q * write);
                            sum.write(op(sum.read(), x));
                        }
                        continue;
                    }
                    for q in 0..self.run {
                        let to = place + self.target.q.offset(q);
                        if to >= low && to < high {
                            let x = wide(source.cast::<T>().offset(from + self.source.q.offset(q)).read());
                            let sum = sums.cast::<A>().offset(to);
                            sum.write(op(sum.read(), x));
                        }
                    }
                }
                if aside.is_some() {
                    for i in low..high {
                        output.cast::<T>().offset(i).write(narrow(sums.cast::<A>().offset(i).read()));
                    }
                }
            }
            Ok(())
        })
    }
}
