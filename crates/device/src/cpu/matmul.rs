//! Matrix products with their epilogues.
//!
//! f32 and f64 are multiplied by a library ([`super::gemm`]), split by rows, columns or batches over the
//! threads. Halves are converted to f32 first, and integers have a plain loop. If the epilogue only stores
//! the product, the product is computed in the output; otherwise each task runs the epilogue over the panel
//! that it has just computed. However the work is split, the terms of an element's sum are added in the same
//! order. If the rows or columns of a factor are composed of several dims, as those of windows are, each task
//! packs one block of it at a time into memory that stays in its cache, and multiplies that.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use smallvec::smallvec;

use super::Needs;
use super::factor::{MatrixAxis, StridedMatrix, pack};
use super::frame::RawBuffer;
use super::gemm::{self, Gemm};
use super::loops::LoopKernel;
use super::memory::{CpuMemory, CpuPool};
use super::parallel::parallel;
use super::program::width;
use super::simd::{Lean, Raw, SimdArgs, SimdBody, SimdLevel, Versions, input, output};
use crate::executor::bytes_of;
use crate::kernel::{Access, Instr, Loop, Matmul, Parts, Store, Ty};
use crate::layout::{Dims, contiguous_strides};
use crate::{DType, Result, Scalar};

/// The least number of multiplications of a task.
const TASK_WORK: usize = 1 << 20;

/// A product with an epilogue is split by rows if it has at least this many, even if it has more columns.
const EPILOGUE_ROWS: usize = 128;

/// The size of a packed block along the inner dim; the last block may have half as much.
const BLOCK_INNER: usize = 384;

/// The elements of a packed block. Together with the part of the result that it makes, a block fits into the
/// second-level cache.
const BLOCK_ELEMENTS: usize = 1 << 16;

/// A matrix product that is ready to run.
pub struct MatmulKernel {
    /// Sizes of the batch dims.
    batch: Dims,
    m: usize,
    n: usize,
    k: usize,
    ty: Ty,
    lhs: CpuFactor,
    rhs: CpuFactor,
    /// The output in which the product is computed, if the epilogue stores the product unchanged.
    direct: Option<Access>,
    /// The rest of the epilogue.
    epilogue: Option<LoopKernel>,
    params: usize,
    /// For integers, the loop that adds a multiple of one row to another.
    axpy: Option<Raw>,
    required: Vec<usize>,
    written: Vec<bool>,
    pool: Arc<CpuPool>,
}

/// A factor, which is read from its buffer, or from a contiguous copy of the accumulator's type.
struct CpuFactor {
    access: Access,
    /// The axes of its rows and of its columns.
    lines: [MatrixAxis; 2],
    /// Whether its blocks are packed before they are multiplied.
    in_blocks: bool,
    copy: Option<(LoopKernel, usize)>,
}

/// The memory of a factor during a launch.
#[derive(Clone, Copy)]
struct FactorPointer {
    start: *const u8,
}

// SAFETY: a launch only reads its factors (`Matmul::check` refuses an epilogue that writes to one), so
// threads may read through the pointer at the same time.
unsafe impl Send for FactorPointer {}
// SAFETY: a shared reference gives no more than a copy of the pointer, through which tasks only read.
unsafe impl Sync for FactorPointer {}

/// What all tasks of a launch use.
#[derive(Clone, Copy)]
struct ProductLaunch<'l> {
    buffers: &'l [RawBuffer],
    params: &'l [Scalar],
    lhs: FactorPointer,
    rhs: FactorPointer,
}

/// The part of the result that one task computes.
struct Panel {
    batch: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl MatmulKernel {
    /// The host memory that it keeps, in bytes.
    pub fn bytes(&self) -> usize {
        let copies = [&self.lhs, &self.rhs].into_iter().filter_map(|operand| operand.copy.as_ref());
        let loops = copies.map(|(copy, _)| copy).chain(&self.epilogue);
        let lists = bytes_of(&self.required) + bytes_of(&self.written);
        size_of::<MatmulKernel>() + loops.map(LoopKernel::bytes).sum::<usize>() + lists
    }

    /// Prepares a product for launches.
    pub fn new(kernel: &Matmul, pool: &Arc<CpuPool>) -> Result<MatmulKernel> {
        let sizes = &kernel.epilogue.sizes;
        let rank = sizes.len();
        let factors = kernel.factors();
        let ty = kernel.accumulator();
        let (m, n) = (sizes[rank - 2], sizes[rank - 1]);

        // The epilogue reads products as the elements of one more buffer: of the panel, or of the output in
        // which the product is computed.
        let buffers = kernel.epilogue.accesses.iter().map(|a| a.buffer + 1).max().unwrap_or(0);
        let product = buffers.max(kernel.lhs.buffer + 1).max(kernel.rhs.buffer + 1);
        let mut epilogue = kernel.epilogue.clone();
        let mut strides = contiguous_strides(sizes);
        for (stride, &size) in strides.iter_mut().zip(sizes) {
            *stride = if size == 1 { 0 } else { *stride };
        }
        let direct = epilogue.stores.iter().position(|store| {
            epilogue.body.get(store.value as usize) == Some(&Instr::Accumulator)
                && epilogue.accesses.get(store.access).is_some_and(|a| a.dtype == dtype_of(ty))
        });
        let direct = direct.filter(|_| kernel.k > 0).map(|at| epilogue.stores.remove(at).access);
        let direct = direct.map(|access| epilogue.accesses[access].clone());
        epilogue.accesses.push(match &direct {
            Some(access) => Access { buffer: product, ..access.clone() },
            None => Access::new(product, dtype_of(ty), &strides, 0),
        });
        let access = epilogue.accesses.len() - 1;
        for instr in &mut epilogue.body {
            if *instr == Instr::Accumulator {
                *instr = Instr::Load { access, indices: smallvec![] };
            }
        }
        let (mut required, mut written) = (vec![0; product], vec![false; product]);
        if let Some(access) = &direct {
            required[access.buffer] =
                super::reach(access.offset, &access.strides, sizes, access.dtype.size())?;
            written[access.buffer] = true;
        }
        let rest = LoopKernel::new(&epilogue, true)?;
        for (i, (&bytes, &writes)) in rest.required().iter().zip(rest.written()).take(product).enumerate() {
            required[i] = required[i].max(bytes);
            written[i] |= writes;
        }
        let params = rest.params();
        let epilogue = if epilogue.stores.is_empty() { None } else { Some(rest) };
        for (access, sizes) in &factors {
            if !sizes.contains(&0) {
                let bytes = super::reach(access.offset, &access.strides, sizes, access.dtype.size())?;
                required[access.buffer] = required[access.buffer].max(bytes);
            }
        }
        let [(lhs, lhs_sizes), (rhs, rhs_sizes)] = factors;
        let axpy = match ty {
            Ty::I32 => Some(Lean::pick::<Axpy<i32>>()),
            Ty::I64 => Some(Lean::pick::<Axpy<i64>>()),
            Ty::Bool => Some(Lean::pick::<Axpy<u8>>()),
            Ty::F32 | Ty::F64 | Ty::U32 => None,
        };
        Ok(MatmulKernel {
            batch: sizes[..rank - 2].into(),
            m,
            n,
            k: kernel.k,
            ty,
            lhs: CpuFactor::new(lhs, &lhs_sizes, [m, kernel.k], &kernel.lhs_parts, ty)?,
            rhs: CpuFactor::new(rhs, &rhs_sizes, [kernel.k, n], &kernel.rhs_parts, ty)?,
            direct,
            epilogue,
            params,
            axpy,
            required,
            written,
            pool: pool.clone(),
        })
    }

    /// The buffers and parameters that a launch must provide.
    pub fn needs(&self) -> Needs<'_> {
        Needs { required: &self.required, written: &self.written, params: self.params }
    }

    /// Computes the product and its epilogue.
    ///
    /// # Safety
    /// The buffers are as [`MatmulKernel::needs`] says, and nobody else uses what is written.
    pub unsafe fn run(&self, buffers: &[RawBuffer], params: &[Scalar]) -> Result<()> {
        let batches: usize = self.batch.iter().product();
        let (m, n, k) = (self.m, self.n, self.k);
        if batches * m * n == 0 {
            return Ok(());
        }
        // SAFETY: passed on to the caller.
        let (lhs, _lhs_copy) = unsafe { self.lhs.resolve(buffers, &self.pool)? };
        // SAFETY: passed on to the caller.
        let (rhs, _rhs_copy) = unsafe { self.rhs.resolve(buffers, &self.pool)? };
        // A panel is a whole product, or a part of its rows or of its columns.
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let tasks = match work.saturating_mul(batches) / TASK_WORK {
            0 | 1 => 1,
            tasks => tasks.min(rayon::current_num_threads()),
        };
        let wanted = tasks.div_ceil(batches);
        // A panel of whole rows lets the epilogue's tiles run along whole rows.
        let by_rows = match (self.lhs.in_blocks, self.rhs.in_blocks) {
            (false, false) => m >= n || (self.epilogue.is_some() && m >= EPILOGUE_ROWS),
            (true, true) => m >= n,
            // The split follows the packed factor, so that no two tasks pack the same block.
            (lhs, _) => lhs,
        };
        let launch = ProductLaunch { buffers, params, lhs, rhs };
        let (side, unit) = if by_rows { (m, 8) } else { (n, 16) };
        let piece = side.div_ceil(wanted).next_multiple_of(unit);
        let pieces = side.div_ceil(piece);
        parallel(batches * pieces, work.saturating_mul(batches), &|task| {
            let (batch, start) = (task / pieces, task % pieces * piece);
            let end = (start + piece).min(side);
            let (rows, columns) = if by_rows { (start..end, 0..n) } else { (0..m, start..end) };
            // SAFETY: passed on to the caller; the panels of the tasks are disjoint.
            unsafe { self.panel(launch, Panel { batch, rows, columns }) }
        })
    }

    /// # Safety
    /// As for [`MatmulKernel::run`]; nobody else uses the elements of this panel.
    unsafe fn panel(&self, launch: ProductLaunch<'_>, panel: Panel) -> Result<()> {
        let ProductLaunch { buffers, params, lhs, rhs } = launch;
        let Panel { batch, rows, columns } = panel;
        let size = width(self.ty);
        let rank = self.batch.len();
        let (m, n) = (rows.len(), columns.len());
        let lhs = self.lhs.batch(lhs.start, self.batch_offset(batch, &self.lhs.access.strides), size);
        let rhs = self.rhs.batch(rhs.start, self.batch_offset(batch, &self.rhs.access.strides), size);
        let first = (batch * self.m + rows.start) * self.n + columns.start;
        let memory;
        // The address that element 0 of the whole product has or, in a panel of its own, would have.
        let start = if let Some(access) = &self.direct {
            let start = buffers[access.buffer].start;
            let strides = (access.strides[rank], access.strides[rank + 1]);
            let element = access.offset
                + self.batch_offset(batch, &access.strides)
                + rows.start as isize * strides.0
                + columns.start as isize * strides.1;
            let (row, column) = strides;
            let target = StridedMatrix { start: start.wrapping_offset(element * size as isize), row, column };
            // SAFETY: `needs` asks for an output that the whole product fits into, and the panel is a part of
            // it.
            unsafe { self.multiply(rows, columns, [lhs, rhs], target)? };
            start
        } else {
            // Rows have the stride of the whole product, so that one map of the epilogue serves all panels.
            memory = self.pool.alloc(m * self.n * size)?;
            let target = memory.pointer();
            if self.k == 0 {
                // SAFETY: the panel was allocated with this many bytes.
                unsafe { target.write_bytes(0, m * self.n * size) };
            } else {
                let matrix = StridedMatrix { start: target, row: self.n as isize, column: 1 };
                // SAFETY: the panel's memory holds its rows at this distance from each other.
                unsafe { self.multiply(rows, columns, [lhs, rhs], matrix)? };
            }
            target.wrapping_sub(first * size)
        };
        let Some(epilogue) = &self.epilogue else { return Ok(()) };
        let mut buffers: smallvec::SmallVec<[RawBuffer; 8]> = buffers[..self.required.len()].into();
        buffers.push(RawBuffer { start, bytes: usize::MAX });
        let ranges = (0..m).map(|row| first + row * self.n..first + row * self.n + n);
        // SAFETY: the caller's obligations are passed on, and the products of these ranges have just been
        // computed.
        unsafe {
            if n == self.n {
                epilogue.run_ranges(&buffers, params, std::iter::once(first..first + m * n))
            } else {
                epilogue.run_ranges(&buffers, params, ranges)
            }
        }
    }

    fn batch_offset(&self, mut batch: usize, strides: &[isize]) -> isize {
        let mut offset = 0;
        for (&size, &stride) in self.batch.iter().zip(strides).rev() {
            offset += (batch % size) as isize * stride;
            batch /= size;
        }
        offset
    }

    /// Multiplies some rows of the left factor by some columns of the right one, given the first elements of
    /// their matrices.
    ///
    /// # Safety
    /// All elements that the axes of the factors and the strides of the target address are valid, and nobody
    /// else uses those of the target.
    unsafe fn multiply(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        [lhs, rhs]: [*const u8; 2],
        target: StridedMatrix,
    ) -> Result<()> {
        let size = width(self.ty);
        let (left, right) = (self.lhs.in_blocks, self.rhs.in_blocks);
        let inner = if left || right { self.k.div_ceil(self.k.div_ceil(BLOCK_INNER)) } else { self.k };
        let beside = |copied: bool, whole: usize| {
            if copied { (BLOCK_ELEMENTS / inner).next_multiple_of(16).min(whole) } else { whole }
        };
        let (m, n) = (beside(left, rows.len()), beside(right, columns.len()));
        let room = |copied: bool, beside: usize| if copied { beside * inner * size } else { 0 };
        let (left_room, right_room) = (self.pool.alloc(room(left, m))?, self.pool.alloc(room(right, n))?);
        let by_rows = self.axpy.is_some();
        for j in columns.clone().step_by(n) {
            let block_columns = j..(j + n).min(columns.end);
            for k in (0..self.k).step_by(inner) {
                let steps = k..(k + inner).min(self.k);
                // SAFETY: the caller's obligations are passed on, and the memory for packed blocks has room
                // for `inner` times `n` elements.
                let rhs = unsafe {
                    let block = (steps.clone(), block_columns.clone());
                    self.rhs.block(rhs, block, right_room.pointer(), size, by_rows)
                };
                for i in rows.clone().step_by(m) {
                    let block_rows = i..(i + m).min(rows.end);
                    let sizes = [block_rows.len(), steps.len(), block_columns.len()];
                    let element =
                        (i - rows.start) as isize * target.row + (j - columns.start) as isize * target.column;
                    let start = target.start.wrapping_offset(element * size as isize);
                    // SAFETY: passed on to the caller; a block fits into its room, and the rows and columns
                    // of the result that this block makes lie inside of the target.
                    unsafe {
                        let block = (block_rows, steps.clone());
                        let lhs = self.lhs.block(lhs, block, left_room.pointer(), size, by_rows);
                        let target = StridedMatrix { start, ..target };
                        let double = self.ty == Ty::F64;
                        self.multiply_blocks(Gemm { double, sizes, lhs, rhs, target, adds: k > 0 });
                    }
                }
            }
        }
        Ok(())
    }

    /// Multiplies two matrices and writes the product, or adds it to the target.
    ///
    /// # Safety
    /// As for [`MatmulKernel::multiply`].
    unsafe fn multiply_blocks(&self, product: Gemm) {
        // SAFETY: passed on to the caller.
        unsafe {
            if matches!(self.ty, Ty::F32 | Ty::F64) {
                gemm::multiply(product);
            } else {
                self.multiply_integers(product);
            }
        }
    }

    /// # Safety
    /// As for [`MatmulKernel::multiply`]; the columns of the right factor lie side by side.
    unsafe fn multiply_integers(&self, product: Gemm) {
        /// The columns whose sums stay in the first-level cache, and the rows of `rhs` that stay in the
        /// second-level cache while all rows of `lhs` are multiplied by them.
        const BLOCK: (usize, usize) = (1024, 64);
        let Gemm { sizes: [m, inner, n], lhs: a, rhs: b, target, adds, .. } = product;
        let start = target.start.cast_mut();
        let size = width(self.ty);
        let Some(axpy) = self.axpy else { return };
        let mut sums = [0u64; BLOCK.0];
        let bytes = sums.as_mut_ptr().cast::<u8>();
        // SAFETY: passed on to the caller.
        unsafe {
            for j in (0..n).step_by(BLOCK.0) {
                let width = BLOCK.0.min(n - j);
                for k0 in (0..inner).step_by(BLOCK.1) {
                    for i in 0..m {
                        let element = i as isize * target.row + j as isize * target.column;
                        let place = start.offset(element * size as isize);
                        if k0 == 0 && !adds {
                            bytes.write_bytes(0, width * size);
                        } else {
                            super::simd::lanes::copy(bytes, 1, place, target.column, width, size);
                        }
                        for k in k0..(k0 + BLOCK.1).min(inner) {
                            let factor =
                                a.start.offset((i as isize * a.row + k as isize * a.column) * size as isize);
                            let source = b.start.offset((k as isize * b.row + j as isize) * size as isize);
                            axpy(&SimdArgs { b: factor, ..SimdArgs::new(bytes, source, width) });
                        }
                        super::simd::lanes::copy(place, target.column, bytes, 1, width, size);
                    }
                }
            }
        }
    }
}

impl CpuFactor {
    fn new(access: &Access, sizes: &Dims, matrix: [usize; 2], parts: &Parts, ty: Ty) -> Result<CpuFactor> {
        let rank = sizes.len();
        let lines = |access: &Access| {
            let [rows, columns] = parts.of(matrix[0], matrix[1]);
            let strides = &access.strides[rank - rows.len() - columns.len()..];
            [
                MatrixAxis::new(&rows, &strides[..rows.len()]),
                MatrixAxis::new(&columns, &strides[rows.len()..]),
            ]
        };
        let in_blocks = |lines: &[MatrixAxis; 2]| lines.iter().any(|line| line.stride().is_none());
        let float = matches!(access.dtype, DType::F32 | DType::F64);
        if float || sizes.contains(&0) {
            let lines = lines(access);
            return Ok(CpuFactor { access: access.clone(), in_blocks: in_blocks(&lines), lines, copy: None });
        }
        if !parts.are_single() {
            // Windows overlap, so the memory that they reach over is copied once, and the windows address the
            // copy.
            let low: isize =
                access.strides.iter().zip(sizes).map(|(s, &n)| (s * (n as isize - 1)).min(0)).sum();
            let high: isize =
                access.strides.iter().zip(sizes).map(|(s, &n)| (s * (n as isize - 1)).max(0)).sum();
            let reach = smallvec![(high - low) as usize + 1];
            let from = Access::new(0, access.dtype, &[1], access.offset + low);
            let (kernel, bytes) = copy(from, &reach, &[1], ty)?;
            let place = Access { dtype: dtype_of(ty), offset: -low, ..access.clone() };
            // The loop for integers needs contiguous columns, which packed blocks have.
            let integers = !matches!(ty, Ty::F32 | Ty::F64);
            let lines = lines(&place);
            let in_blocks = integers || in_blocks(&lines);
            return Ok(CpuFactor { lines, in_blocks, access: place, copy: Some((kernel, bytes)) });
        }
        // Batch dims along which the factor is broadcast are not copied; its rows and columns always are.
        let mut copied = sizes.clone();
        for dim in 0..rank - 2 {
            if access.strides[dim] == 0 {
                copied[dim] = 1;
            }
        }
        let mut strides = contiguous_strides(&copied);
        for (stride, &size) in strides.iter_mut().zip(&copied) {
            *stride = if size == 1 { 0 } else { *stride };
        }
        let from = Access { buffer: 0, ..access.clone() };
        let (kernel, bytes) = copy(from, &copied, &strides, ty)?;
        let place = Access::new(access.buffer, dtype_of(ty), &strides, 0);
        Ok(CpuFactor { lines: lines(&place), in_blocks: false, access: place, copy: Some((kernel, bytes)) })
    }

    /// The first element of the matrix at offset `batch`.
    fn batch(&self, start: *const u8, batch: isize, size: usize) -> *const u8 {
        start.wrapping_offset((self.access.offset + batch) * size as isize)
    }

    /// A block of the matrix that begins at `start`: in place, or packed into `room`.
    ///
    /// # Safety
    /// The elements are valid, and `room` has space for them if they are packed.
    unsafe fn block(
        &self,
        start: *const u8,
        (rows, columns): (Range<usize>, Range<usize>),
        room: *mut u8,
        size: usize,
        by_rows: bool,
    ) -> StridedMatrix {
        if !self.in_blocks
            && let [Some(row), Some(column)] = self.lines.each_ref().map(MatrixAxis::stride)
        {
            let element = rows.start as isize * row + columns.start as isize * column;
            return StridedMatrix { start: start.wrapping_offset(element * size as isize), row, column };
        }
        // SAFETY: passed on to the caller.
        unsafe { pack(room, start, size, &self.lines, (rows, columns), by_rows) }
    }

    /// The factor's memory for this launch: its buffer, or a fresh copy with the owner that keeps the copy
    /// alive.
    ///
    /// # Safety
    /// As for [`MatmulKernel::run`].
    unsafe fn resolve(
        &self,
        buffers: &[RawBuffer],
        pool: &Arc<CpuPool>,
    ) -> Result<(FactorPointer, Option<CpuMemory>)> {
        let source = buffers[self.access.buffer];
        let Some((kernel, bytes)) = &self.copy else {
            return Ok((FactorPointer { start: source.start }, None));
        };
        let memory = pool.alloc(*bytes)?;
        // SAFETY: the caller's obligations are passed on; the target of the copy is fresh memory of the size
        // that the loop writes.
        unsafe { kernel.run(&[source, RawBuffer { start: memory.pointer(), bytes: *bytes }], &[])? };
        Ok((FactorPointer { start: memory.pointer() }, Some(memory)))
    }
}

/// The loop that copies elements to memory with these strides, converted to the register type `ty`, and the
/// bytes of that memory.
fn copy(from: Access, sizes: &Dims, strides: &[isize], ty: Ty) -> Result<(LoopKernel, usize)> {
    let dtype = dtype_of(ty);
    let copy = Loop {
        inner: 0,
        accesses: vec![from, Access::new(1, dtype, strides, 0)],
        ranges: vec![],
        body: vec![Instr::Load { access: 0, indices: smallvec![] }],
        stores: vec![Store { access: 1, value: 0 }],
        sizes: sizes.clone(),
    };
    Ok((LoopKernel::new(&copy, false)?, sizes.iter().product::<usize>() * dtype.size()))
}

/// The dtype whose elements have the bits of a register type.
fn dtype_of(ty: Ty) -> DType {
    match ty {
        Ty::Bool => DType::Bool,
        Ty::U32 | Ty::I32 => DType::I32,
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
    }
}

/// `dst[i] += b[0] * a[i]`
struct Axpy<T>(std::marker::PhantomData<T>);

trait MultiplyAdd: Copy {
    fn multiply_add(self, a: Self, b: Self) -> Self;
}

impl MultiplyAdd for i32 {
    #[inline(always)]
    fn multiply_add(self, a: i32, b: i32) -> i32 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl MultiplyAdd for i64 {
    #[inline(always)]
    fn multiply_add(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Bools: the product is `and`, the sum is `or`.
impl MultiplyAdd for u8 {
    #[inline(always)]
    fn multiply_add(self, a: u8, b: u8) -> u8 {
        self | (a & b)
    }
}

impl<T: MultiplyAdd> SimdBody for Axpy<T> {
    #[inline(always)]
    unsafe fn run<L: SimdLevel>(args: &SimdArgs) {
        // SAFETY: the caller promises n lanes at `dst` and `a`, and one value at `b`.
        let (dst, a, b) =
            unsafe { (output::<T>(args.dst, args.n), input::<T>(args.a, args.n), input::<T>(args.b, 1)) };
        let b = b[0];
        for (dst, &a) in dst.iter_mut().zip(a) {
            *dst = dst.multiply_add(a, b);
        }
    }
}
