//! Matrix products with their epilogues.
//!
//! f32 and f64 go through a library ([`super::gemm`]), split by rows, columns or batches over the threads; halves are converted to
//! f32 first; integers have a plain loop. If the epilogue only stores the product it is computed in place; otherwise
//! each task runs the epilogue over the panel that it has just computed. However it is split, an element's sum is
//! formed in the same order.
#![allow(unsafe_code)]

use std::sync::Arc;

use smallvec::smallvec;

use super::Needs;
use super::frame::RawBuffer;
use super::gemm::{self, Matrix, Sizes};
use super::loops::LoopKernel;
use super::memory::{CpuMemory, Pool};
use super::parallel::parallel;
use super::program::{invalid, width};
use super::simd::{Args, Body, Lean, Level, Raw, Versions, input, output};
use crate::kernel::{Access, BinaryOp, Instr, Loop, Matmul, ReduceOp, Reg, Store, Ty};
use crate::layout::{Dims, contiguous_strides};
use crate::{DType, Result, Scalar};

/// Multiplications that a task has at least.
const TASK_WORK: usize = 1 << 20;

/// A product with an epilogue is split by rows from so many on, even if its columns are more.
const EPILOGUE_ROWS: usize = 128;

/// A matrix product that is ready to run.
pub struct MatmulKernel {
    /// Sizes of the batch dims.
    batch: Dims,
    m: usize,
    n: usize,
    k: usize,
    ty: Ty,
    lhs: Operand,
    rhs: Operand,
    /// Where products go right away, if the epilogue stores them as they are.
    direct: Option<Access>,
    /// What else there is to do.
    epilogue: Option<LoopKernel>,
    params: usize,
    /// Adds a multiple of one row to another, for integers.
    axpy: Option<Raw>,
    required: Vec<usize>,
    written: Vec<bool>,
    pool: Arc<Pool>,
}

/// A factor: as it lies in its buffer, or to be copied to a contiguous one of the accumulator's type.
struct Operand {
    access: Access,
    copy: Option<(LoopKernel, usize)>,
}

/// A factor's place during a launch.
#[derive(Clone, Copy)]
struct Place {
    start: *const u8,
}

// SAFETY: factors are only read during a launch.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

/// A product of a matrix by a vector as a loop with a sum: such a product is read once, and packing it for the blocked
/// product would cost more than the sum.
pub fn as_loop(kernel: &Matmul) -> Option<Loop> {
    let rank = kernel.epilogue.sizes.len();
    let sizes = kernel.epilogue.sizes.get(rank.checked_sub(2)?..)?;
    let fits = |access: &Access| access.strides.len() == rank && access.dtype != DType::Bool;
    if !sizes.contains(&1) || !fits(&kernel.lhs) || !fits(&kernel.rhs) || kernel.epilogue.inner != 0 {
        return None;
    }
    let ordered = |(i, instr): (usize, &Instr)| instr.operands().iter().all(|&r| (r as usize) < i);
    if !kernel.epilogue.body.iter().enumerate().all(ordered) {
        return None;
    }
    // One more dim, the innermost, is summed over.
    let mut sum = kernel.epilogue.clone();
    sum.inner = 1;
    sum.sizes.push(kernel.k);
    for strides in
        sum.accesses.iter_mut().map(|a| &mut a.strides).chain(sum.ranges.iter_mut().map(|r| &mut r.strides))
    {
        strides.push(0);
    }
    let factors = sum.accesses.len();
    for (access, dim) in [(&kernel.lhs, rank - 1), (&kernel.rhs, rank - 2)] {
        let mut access = access.clone();
        let along = std::mem::replace(&mut access.strides[dim], 0);
        access.strides.push(along);
        sum.accesses.push(access);
    }
    let load = |access: usize| Instr::Load { access, indices: smallvec![] };
    let product = [
        load(factors),
        load(factors + 1),
        Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
        Instr::Reduce { op: ReduceOp::Sum, a: 2 },
    ];
    // Every accumulator is the sum; other registers move behind it.
    let first = product.len() as Reg;
    let places: Vec<Reg> = kernel
        .epilogue
        .body
        .iter()
        .scan(first, |next, instr| {
            let own = *next;
            *next += Reg::from(*instr != Instr::Accumulator);
            Some(if *instr == Instr::Accumulator { first - 1 } else { own })
        })
        .collect();
    sum.body.retain(|instr| *instr != Instr::Accumulator);
    for instr in &mut sum.body {
        instr.renumber(|reg| *reg = places[*reg as usize]);
    }
    sum.body.splice(0..0, product);
    for store in &mut sum.stores {
        store.value = *places.get(store.value as usize)?;
    }
    Some(sum)
}

impl MatmulKernel {
    /// Makes a product ready.
    pub fn new(kernel: &Matmul, pool: &Arc<Pool>) -> Result<MatmulKernel> {
        let sizes = &kernel.epilogue.sizes;
        let rank = sizes.len();
        let plain = |access: &Access| {
            access.strides.len() == rank && access.guards.is_empty() && access.indexed.is_empty()
        };
        if rank < 2 || kernel.epilogue.inner != 0 || !plain(&kernel.lhs) || !plain(&kernel.rhs) {
            return Err(invalid("a matmul whose space and factors don't fit"));
        }
        if kernel.lhs.dtype != kernel.rhs.dtype {
            return Err(invalid(format!("a matmul of {} by {}", kernel.lhs.dtype, kernel.rhs.dtype)));
        }
        let ty = kernel.accumulator();
        let (m, n) = (sizes[rank - 2], sizes[rank - 1]);
        let mut lhs_sizes = sizes.clone();
        lhs_sizes[rank - 1] = kernel.k;
        let mut rhs_sizes = sizes.clone();
        rhs_sizes[rank - 2] = kernel.k;

        // The epilogue reads products as the elements of one more buffer: a panel's, or that of the output which they are.
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
        for (access, sizes) in [(&kernel.lhs, &lhs_sizes), (&kernel.rhs, &rhs_sizes)] {
            if !sizes.contains(&0) {
                let bytes = super::reach(access.offset, &access.strides, sizes, access.dtype.size())?;
                required[access.buffer] = required[access.buffer].max(bytes);
            }
            if written[access.buffer] {
                return Err(invalid("a matmul that writes to its own factor"));
            }
        }
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
            lhs: Operand::new(&kernel.lhs, &lhs_sizes, ty)?,
            rhs: Operand::new(&kernel.rhs, &rhs_sizes, ty)?,
            direct,
            epilogue,
            params,
            axpy,
            required,
            written,
            pool: pool.clone(),
        })
    }

    /// What a launch must bring.
    pub fn needs(&self) -> Needs<'_> {
        Needs { required: &self.required, written: &self.written, params: self.params }
    }

    /// Runs it.
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
        let (lhs, _lhs_copy) = unsafe { self.lhs.bring(buffers, &self.pool)? };
        // SAFETY: as above.
        let (rhs, _rhs_copy) = unsafe { self.rhs.bring(buffers, &self.pool)? };
        // Panels: all of a product, or pieces of its longer side.
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let tasks = match work.saturating_mul(batches) / TASK_WORK {
            0 | 1 => 1,
            tasks => tasks.min(rayon::current_num_threads()),
        };
        let wanted = tasks.div_ceil(batches);
        // An epilogue's tiles run along whole rows if a panel has them.
        let by_rows = m >= n || (self.epilogue.is_some() && m >= EPILOGUE_ROWS);
        let (side, unit) = if by_rows { (m, 8) } else { (n, 16) };
        let piece = side.div_ceil(wanted).next_multiple_of(unit);
        let pieces = side.div_ceil(piece);
        parallel(batches * pieces, work.saturating_mul(batches), &|task| {
            let (batch, start) = (task / pieces, task % pieces * piece);
            let end = (start + piece).min(side);
            let (rows, columns) = if by_rows { (start..end, 0..n) } else { (0..m, start..end) };
            // SAFETY: passed on to the caller; panels are disjoint.
            unsafe { self.panel(buffers, params, lhs, rhs, batch, rows, columns) }
        })
    }

    /// # Safety
    /// As for [`MatmulKernel::run`]; nobody else computes these elements.
    #[allow(clippy::too_many_arguments)]
    unsafe fn panel(
        &self,
        buffers: &[RawBuffer],
        params: &[Scalar],
        lhs: Place,
        rhs: Place,
        batch: usize,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) -> Result<()> {
        let size = width(self.ty);
        let rank = self.batch.len();
        let at = |access: &Access, start: *const u8, row: usize, column: usize| {
            let strides = &access.strides;
            let element = access.offset
                + self.batch_offset(batch, &strides[..rank])
                + row as isize * strides[rank]
                + column as isize * strides[rank + 1];
            start.wrapping_offset(element * size as isize)
        };
        let (m, n) = (rows.len(), columns.len());
        let lhs_at = at(&self.lhs.access, lhs.start, rows.start, 0);
        let rhs_at = at(&self.rhs.access, rhs.start, 0, columns.start);
        let first = (batch * self.m + rows.start) * self.n + columns.start;
        let panel;
        // Where element 0 of the whole product lies, or would lie.
        let start = if let Some(access) = &self.direct {
            let start = buffers[access.buffer].start;
            let target = at(access, start, rows.start, columns.start).cast_mut();
            let strides = (access.strides[rank], access.strides[rank + 1]);
            // SAFETY: the panel lies inside of the output.
            unsafe { self.multiply(m, n, lhs_at, rhs_at, target, strides) };
            start
        } else {
            // Rows lie as far from each other as in the whole product, so that one map serves the epilogue for all of them.
            panel = self.pool.alloc(m * self.n * size)?;
            let target = panel.pointer();
            if self.k == 0 {
                // SAFETY: the panel has as many bytes.
                unsafe { target.write_bytes(0, m * self.n * size) };
            } else {
                // SAFETY: as above.
                unsafe { self.multiply(m, n, lhs_at, rhs_at, target, (self.n as isize, 1)) };
            }
            target.wrapping_sub(first * size)
        };
        let Some(epilogue) = &self.epilogue else { return Ok(()) };
        let mut buffers: smallvec::SmallVec<[RawBuffer; 8]> = buffers[..self.required.len()].into();
        buffers.push(RawBuffer { start, bytes: usize::MAX });
        let ranges = (0..m).map(|row| first + row * self.n..first + row * self.n + n);
        // SAFETY: passed on to the caller; the ranges' products have been computed.
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

    /// # Safety
    /// All elements that the factors' and the target's strides lead to are valid.
    unsafe fn multiply(
        &self,
        m: usize,
        n: usize,
        lhs: *const u8,
        rhs: *const u8,
        target: *mut u8,
        (row, column): (isize, isize),
    ) {
        let rank = self.batch.len();
        let (l, r) = (&self.lhs.access.strides[rank..], &self.rhs.access.strides[rank..]);
        // SAFETY: passed on to the caller.
        unsafe {
            if !matches!(self.ty, Ty::F32 | Ty::F64) {
                return self.multiply_integers(m, n, lhs, rhs, target, (row, column));
            }
            let lhs = Matrix { start: lhs, row: l[0], column: l[1] };
            let rhs = Matrix { start: rhs, row: r[0], column: r[1] };
            let target = Matrix { start: target, row, column };
            gemm::multiply(self.ty == Ty::F64, Sizes { m, k: self.k, n }, lhs, rhs, target, false);
        }
    }

    /// # Safety
    /// As for [`MatmulKernel::multiply`]; the factors are contiguous copies.
    unsafe fn multiply_integers(
        &self,
        m: usize,
        n: usize,
        lhs: *const u8,
        rhs: *const u8,
        target: *mut u8,
        (row, column): (isize, isize),
    ) {
        /// Columns whose sums stay in the first-level cache, and rows of `rhs` that stay in the second while all rows
        /// of `lhs` meet them.
        const BLOCK: (usize, usize) = (1024, 64);
        let size = width(self.ty);
        let Some(axpy) = self.axpy else { return };
        let rank = self.batch.len();
        let (l, r) = (&self.lhs.access.strides[rank..], &self.rhs.access.strides[rank..]);
        let mut sums = [0u64; BLOCK.0];
        let bytes = sums.as_mut_ptr().cast::<u8>();
        // SAFETY: passed on to the caller.
        unsafe {
            for j in (0..n).step_by(BLOCK.0) {
                let width = BLOCK.0.min(n - j);
                for k0 in (0..self.k).step_by(BLOCK.1) {
                    for i in 0..m {
                        let place = target.offset((i as isize * row + j as isize * column) * size as isize);
                        if k0 == 0 {
                            bytes.write_bytes(0, width * size);
                        } else {
                            super::simd::lanes::copy(bytes, 1, place, column, width, size);
                        }
                        for k in k0..(k0 + BLOCK.1).min(self.k) {
                            let factor = lhs.offset((i as isize * l[0] + k as isize * l[1]) * size as isize);
                            let source = rhs.offset((k as isize * r[0] + j as isize) * size as isize);
                            axpy(&Args { b: factor, ..Args::new(bytes, source, width) });
                        }
                        super::simd::lanes::copy(place, column, bytes, 1, width, size);
                    }
                }
            }
        }
    }
}

impl Operand {
    fn new(access: &Access, sizes: &Dims, ty: Ty) -> Result<Operand> {
        let float = matches!(access.dtype, DType::F32 | DType::F64);
        if float || sizes.contains(&0) {
            return Ok(Operand { access: access.clone(), copy: None });
        }
        // Dims that the factor is repeated along aren't copied; of its rows and columns all are.
        let rank = sizes.len();
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
        let dtype = dtype_of(ty);
        let copy = Loop {
            inner: 0,
            accesses: vec![Access { buffer: 0, ..access.clone() }, Access::new(1, dtype, &strides, 0)],
            ranges: vec![],
            body: vec![Instr::Load { access: 0, indices: smallvec![] }],
            stores: vec![Store { access: 1, value: 0 }],
            sizes: copied.clone(),
        };
        let bytes = copied.iter().product::<usize>() * dtype.size();
        let place = Access::new(access.buffer, dtype, &strides, 0);
        Ok(Operand { access: place, copy: Some((LoopKernel::new(&copy, false)?, bytes)) })
    }

    /// The factor's memory, and what keeps it alive.
    ///
    /// # Safety
    /// As for [`MatmulKernel::run`].
    unsafe fn bring(&self, buffers: &[RawBuffer], pool: &Arc<Pool>) -> Result<(Place, Option<CpuMemory>)> {
        let source = buffers[self.access.buffer];
        let Some((kernel, bytes)) = &self.copy else { return Ok((Place { start: source.start }, None)) };
        let memory = pool.alloc(*bytes)?;
        // SAFETY: passed on to the caller; the copy is fresh memory of the right size.
        unsafe { kernel.run(&[source, RawBuffer { start: memory.pointer(), bytes: *bytes }], &[])? };
        Ok((Place { start: memory.pointer() }, Some(memory)))
    }
}

/// The dtype whose elements are a type's registers.
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

/// Truth values.
impl MultiplyAdd for u8 {
    #[inline(always)]
    fn multiply_add(self, a: u8, b: u8) -> u8 {
        self | (a & b)
    }
}

impl<T: MultiplyAdd> Body for Axpy<T> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold n lanes, and one value.
        let (dst, a, b) =
            unsafe { (output::<T>(args.dst, args.n), input::<T>(args.a, args.n), input::<T>(args.b, 1)) };
        let b = b[0];
        for (dst, &a) in dst.iter_mut().zip(a) {
            *dst = dst.multiply_add(a, b);
        }
    }
}
