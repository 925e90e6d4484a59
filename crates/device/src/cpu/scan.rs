//! Scans: running reductions along the last dim of a space.
//!
//! Floats accumulate in f64. Threads share out the rows, and each row is scanned by one thread.
#![allow(unsafe_code)]

use super::Needs;
use super::affine::{AffineMap, Groups};
use super::frame::RawBuffer;
use super::parallel::parallel;
use crate::executor::bytes_of;
use crate::kernel::{ReduceOp, Scan};
use crate::{DType, Result};
use half::{bf16, f16};

/// The least number of elements of a task.
const TASK_ELEMENTS: usize = 1 << 14;
/// Rows that are scanned together where memory is contiguous across rows.
const SIDE_BY_SIDE: usize = 64;

/// A scan that is ready to run.
pub struct ScanKernel {
    op: ReduceOp,
    dtype: DType,
    /// The map from a row's number to its first element.
    source: AffineMap,
    target: AffineMap,
    /// The strides along a row, in the source and in the target.
    steps: (isize, isize),
    rows: usize,
    length: usize,
    buffers: (usize, usize),
    required: Vec<usize>,
    written: Vec<bool>,
}

impl ScanKernel {
    /// The host memory that it keeps, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<ScanKernel>() + bytes_of(&self.required) + bytes_of(&self.written)
    }

    /// Prepares a scan for launches.
    pub fn new(kernel: &Scan) -> Result<ScanKernel> {
        let rank = kernel.sizes.len();
        let (source, target) = (&kernel.source, &kernel.target);
        let (required, written) = super::moved((source, &kernel.sizes), (target, &kernel.sizes))?;
        let groups = Groups { q: (0..rank - 1).collect(), ..Groups::default() };
        Ok(ScanKernel {
            op: kernel.op,
            dtype: source.dtype,
            source: AffineMap::new(source.offset, &source.strides, &kernel.sizes, &groups),
            target: AffineMap::new(target.offset, &target.strides, &kernel.sizes, &groups),
            steps: (source.strides[rank - 1], target.strides[rank - 1]),
            rows: kernel.sizes[..rank - 1].iter().product(),
            length: kernel.sizes[rank - 1],
            buffers: (source.buffer, target.buffer),
            required,
            written,
        })
    }

    /// The buffers that a launch must provide.
    pub fn needs(&self) -> Needs<'_> {
        Needs { required: &self.required, written: &self.written, params: 0 }
    }

    /// Scans the rows.
    ///
    /// # Safety
    /// The buffers are as [`ScanKernel::needs`] says, and nobody else uses what is written.
    pub unsafe fn run(&self, buffers: &[RawBuffer]) -> Result<()> {
        macro_rules! scan {
            ($ty:ty, $acc:ty, $first:expr, |$a:ident, $x:ident| $step:expr, $wide:expr, $narrow:expr) => {{
                let step = |$a: $acc, x: $ty| -> $acc {
                    let $x: $acc = $wide(x);
                    $step
                };
                // SAFETY: the caller's obligations are passed on, and the dtype says that the elements are of
                // this type.
                unsafe { self.over::<$ty, $acc>(buffers, $first, step, $narrow) }
            }};
        }
        macro_rules! float {
            ($ty:ty, $wide:expr, $narrow:expr) => {
                match self.op {
                    ReduceOp::Sum => scan!($ty, f64, 0.0, |a, x| a + x, $wide, $narrow),
                    ReduceOp::Prod => scan!($ty, f64, 1.0, |a, x| a * x, $wide, $narrow),
                    ReduceOp::Max => scan!(
                        $ty,
                        f64,
                        f64::NEG_INFINITY,
                        |a, x| if a > x || a.is_nan() { a } else { x },
                        $wide,
                        $narrow
                    ),
                    _ => scan!(
                        $ty,
                        f64,
                        f64::INFINITY,
                        |a, x| if a < x || a.is_nan() { a } else { x },
                        $wide,
                        $narrow
                    ),
                }
            };
        }
        macro_rules! integer {
            ($ty:ident) => {
                match self.op {
                    ReduceOp::Sum => scan!($ty, $ty, 0, |a, x| a.wrapping_add(x), |x| x, |x| x),
                    ReduceOp::Prod => scan!($ty, $ty, 1, |a, x| a.wrapping_mul(x), |x| x, |x| x),
                    ReduceOp::Max => scan!($ty, $ty, $ty::MIN, |a, x| a.max(x), |x| x, |x| x),
                    _ => scan!($ty, $ty, $ty::MAX, |a, x| a.min(x), |x| x, |x| x),
                }
            };
        }
        match self.dtype {
            DType::F32 => float!(f32, f64::from, |x: f64| x as f32),
            DType::F64 => float!(f64, |x: f64| x, |x: f64| x),
            DType::F16 => float!(f16, f16::to_f64, |x: f64| f16::from_f32(x as f32)),
            DType::BF16 => float!(bf16, bf16::to_f64, |x: f64| bf16::from_f32(x as f32)),
            DType::I32 => integer!(i32),
            DType::I64 => integer!(i64),
            DType::U8 => integer!(u8),
            // Bools: the running `any` and `all`.
            DType::Bool => match self.op {
                ReduceOp::Sum | ReduceOp::Max => {
                    scan!(u8, u8, 0, |a, x| a | x, |x: u8| u8::from(x != 0), |x| x)
                }
                _ => scan!(u8, u8, 1, |a, x| a & x, |x: u8| u8::from(x != 0), |x| x),
            },
        }
    }

    /// # Safety
    /// As for [`ScanKernel::run`]; the elements are of type `T`.
    unsafe fn over<T: Copy, A: Copy + Sync>(
        &self,
        buffers: &[RawBuffer],
        first: A,
        step: impl Fn(A, T) -> A + Sync,
        narrow: impl Fn(A) -> T + Sync,
    ) -> Result<()> {
        let (source, target) = (buffers[self.buffers.0], buffers[self.buffers.1]);
        // Where memory is contiguous across rows, many rows are scanned at a time.
        let beside = self.source.q.stride() == 1 && self.target.q.stride() == 1 && self.steps != (1, 1);
        let block = if beside { SIDE_BY_SIDE } else { 1 };
        let per_task = (TASK_ELEMENTS / self.length.max(1)).max(1).next_multiple_of(block);
        parallel(self.rows.div_ceil(per_task), self.rows * self.length * 8, &|task| {
            let end = ((task + 1) * per_task).min(self.rows);
            let mut row = task * per_task;
            while row < end {
                let run = self.source.q.run().into_iter().chain(self.target.q.run()).min();
                let until_run = run.map_or(usize::MAX, |run| run - row % run);
                let n = block.min(end - row).min(until_run);
                let from = self.source.offset + self.source.q.offset(row);
                let to = self.target.offset + self.target.q.offset(row);
                let mut sums = [first; SIDE_BY_SIDE];
                // SAFETY: the caller promises that the elements are valid, and each row is read and written
                // by one task.
                unsafe {
                    let from = source.cast::<T>().cast_const().offset(from);
                    let to = target.cast::<T>().offset(to);
                    if n == 1 {
                        let mut sum = first;
                        for i in 0..self.length as isize {
                            sum = step(sum, from.offset(i * self.steps.0).read());
                            to.offset(i * self.steps.1).write(narrow(sum));
                        }
                    } else {
                        for i in 0..self.length as isize {
                            let (from, to) = (from.offset(i * self.steps.0), to.offset(i * self.steps.1));
                            for (lane, sum) in sums[..n].iter_mut().enumerate() {
                                *sum = step(*sum, from.add(lane).read());
                                to.add(lane).write(narrow(*sum));
                            }
                        }
                    }
                }
                row += n;
            }
            Ok(())
        })
    }
}
