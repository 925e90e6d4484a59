//! Sorts: the order of the elements along the last dim of a space.
//!
//! Each element becomes one number: a key that compares as the element does in the high bits, and its
//! position in the row in the low bits. No two of these numbers are equal, so any sort of them is stable, and
//! the result does not depend on threads. Long rows are sorted by radix, eight bits of the key at a time, and
//! short rows by comparison. If only few places are wanted, a selection separates their elements from the
//! others first. Threads share out the rows; if there are few long rows, all threads sort each of them.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::Needs;
use super::affine::{AffineMap, Groups};
use super::frame::RawBuffer;
use super::memory::{CpuMemory, CpuPool};
use super::parallel::parallel;
use crate::executor::bytes_of;
use crate::kernel::Sort;
use crate::{DType, Error, Result};
use half::{bf16, f16};
use smallvec::SmallVec;

/// The least number of elements of a task.
const TASK_ELEMENTS: usize = 1 << 12;
/// Rows that are read together where memory is contiguous across rows.
const SIDE_BY_SIDE: usize = 16;
/// A row of at least this many elements may be sorted by all threads.
const LONG_ROW: usize = 1 << 15;
/// Elements of a long row that one task reads or writes.
const PIECE: usize = 1 << 14;

/// A long row is cut into this many pieces, each with digit counts of its own.
const PIECES: usize = 16;
/// A row is sorted by radix if it has at least this many elements for each digit of eight bits.
const RADIX: usize = 256;

/// A sort that is ready to run.
pub struct SortKernel {
    descending: bool,
    dtype: DType,
    /// The map from a row's number to its first element.
    source: AffineMap,
    target: AffineMap,
    /// The strides along a row, in the source and in the target.
    steps: (isize, isize),
    rows: usize,
    length: usize,
    /// The first place that is wanted, and how many are.
    first: usize,
    count: usize,
    buffers: (usize, usize),
    required: Vec<usize>,
    written: Vec<bool>,
    pool: Arc<CpuPool>,
}

/// A key and a position in a row as one number, with the key in the high bits.
trait SortEntry: Copy + Ord + Send + Sync {
    fn new(key: u64, place: usize) -> Self;
    fn place(self) -> i64;
    /// The digit of eight bits of the key that begins at bit `shift`.
    fn digit(self, shift: u32) -> usize;
}

/// For keys and positions of at most 32 bits.
impl SortEntry for u64 {
    fn new(key: u64, place: usize) -> u64 {
        key << 32 | place as u64
    }
    fn place(self) -> i64 {
        i64::from(self as u32)
    }
    fn digit(self, shift: u32) -> usize {
        usize::from((self >> (32 + shift)) as u8)
    }
}

impl SortEntry for u128 {
    fn new(key: u64, place: usize) -> u128 {
        u128::from(key) << 64 | place as u128
    }
    fn place(self) -> i64 {
        self as u64 as i64
    }
    fn digit(self, shift: u32) -> usize {
        usize::from((self >> (64 + shift)) as u8)
    }
}

/// The key of a float from its bits without the sign. Both zeros have one key, and all NaN the largest.
fn float_key(magnitude: u64, negative: bool, nan: bool, bits: u32) -> u64 {
    let middle = 1 << (bits - 1);
    match (nan, negative) {
        (true, _) => middle + (middle - 1),
        (false, true) => middle - magnitude,
        (false, false) => middle + magnitude,
    }
}

impl SortKernel {
    /// The host memory that it keeps, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<SortKernel>() + bytes_of(&self.required) + bytes_of(&self.written)
    }

    /// Prepares a sort for launches.
    pub fn new(kernel: &Sort, pool: &Arc<CpuPool>) -> Result<SortKernel> {
        let rank = kernel.sizes.len();
        let (source, target) = (&kernel.source, &kernel.target);
        let target_sizes = kernel.target_sizes();
        let (required, written) = super::moved((source, &kernel.sizes), (target, &target_sizes))?;
        let groups = Groups { q: (0..rank - 1).collect(), ..Groups::default() };
        Ok(SortKernel {
            descending: kernel.descending,
            dtype: source.dtype,
            source: AffineMap::new(source.offset, &source.strides, &kernel.sizes, &groups),
            target: AffineMap::new(target.offset, &target.strides, &kernel.sizes, &groups),
            steps: (source.strides[rank - 1], target.strides[rank - 1]),
            rows: if target_sizes.contains(&0) { 0 } else { kernel.sizes[..rank - 1].iter().product() },
            length: kernel.sizes[rank - 1],
            first: kernel.first,
            count: kernel.count,
            buffers: (source.buffer, target.buffer),
            required,
            written,
            pool: pool.clone(),
        })
    }

    /// The buffers that a launch must provide.
    pub fn needs(&self) -> Needs<'_> {
        Needs { required: &self.required, written: &self.written, params: 0 }
    }

    /// Sorts the rows.
    ///
    /// # Safety
    /// The buffers are as [`SortKernel::needs`] says, and nobody else uses what is written.
    pub unsafe fn run(&self, buffers: &[RawBuffer]) -> Result<()> {
        // Calls `with_keys` with the key of each dtype and the number of its bits.
        macro_rules! sort {
            ($ty:ty, $bits:literal, $key:expr) => {
                // SAFETY: the caller's obligations are passed on, and the dtype says that the elements are of
                // this type.
                unsafe { self.with_keys::<$ty>(buffers, $bits, $key) }
            };
        }
        macro_rules! float {
            ($ty:ty, $bits:literal) => {
                sort!($ty, $bits, |x: $ty| {
                    let magnitude = u64::from(x.to_bits()) & ((1 << ($bits - 1)) - 1);
                    float_key(magnitude, x.is_sign_negative(), x.is_nan(), $bits)
                })
            };
        }
        match self.dtype {
            DType::F64 => float!(f64, 64),
            DType::F32 => float!(f32, 32),
            DType::F16 => float!(f16, 16),
            DType::BF16 => float!(bf16, 16),
            DType::I64 => sort!(i64, 64, |x: i64| x as u64 ^ 1 << 63),
            DType::I32 => sort!(i32, 32, |x: i32| u64::from(x as u32 ^ 1 << 31)),
            DType::U8 => sort!(u8, 8, u64::from),
            DType::Bool => sort!(u8, 1, |x: u8| u64::from(x != 0)),
        }
    }

    /// # Safety
    /// As for [`SortKernel::run`]; the elements are of type `T`.
    unsafe fn with_keys<T: Copy>(
        &self,
        buffers: &[RawBuffer],
        bits: u32,
        key: impl Fn(T) -> u64 + Sync,
    ) -> Result<()> {
        let flip = if self.descending { u64::MAX >> (64 - bits) } else { 0 };
        let key = move |x: T| key(x) ^ flip;
        // SAFETY: passed on to the caller.
        unsafe {
            if bits <= 32 && self.length <= 1 << 32 {
                self.over::<T, u64>(buffers, bits, key)
            } else {
                self.over::<T, u128>(buffers, bits, key)
            }
        }
    }

    /// Sorts all rows, with the elements' keys in entries of type `E`.
    ///
    /// # Safety
    /// As for [`SortKernel::with_keys`].
    unsafe fn over<T: Copy, E: SortEntry>(
        &self,
        buffers: &[RawBuffer],
        bits: u32,
        key: impl Fn(T) -> u64 + Sync,
    ) -> Result<()> {
        // SAFETY: passed on to the caller.
        unsafe {
            if self.length >= LONG_ROW && self.rows < rayon::current_num_threads() {
                self.long_rows::<T, E>(buffers, bits, key)
            } else {
                self.blocks_of_rows::<T, E>(buffers, bits, key)
            }
        }
    }

    /// Memory for as many entries.
    fn entries<E>(&self, count: Option<usize>) -> Result<CpuMemory> {
        let bytes = count.and_then(|count| count.checked_mul(size_of::<E>()));
        self.pool.alloc(bytes.ok_or_else(|| Error::Unsupported {
            op: "sort",
            reason: format!("keys of rows of {} elements are more than memory can hold", self.length),
        })?)
    }

    /// Sorts one row after the other, each on all threads.
    ///
    /// # Safety
    /// As for [`SortKernel::with_keys`].
    unsafe fn long_rows<T: Copy, E: SortEntry>(
        &self,
        buffers: &[RawBuffer],
        bits: u32,
        key: impl Fn(T) -> u64 + Sync,
    ) -> Result<()> {
        let (source, target) = (buffers[self.buffers.0], buffers[self.buffers.1]);
        let memory = self.entries::<E>(self.length.checked_mul(2))?;
        let entries = DisjointPointer(memory.pointer().cast::<E>());
        for row in 0..self.rows {
            let from = self.source.offset + self.source.q.offset(row);
            let to = self.target.offset + self.target.q.offset(row);
            // SAFETY: the caller promises the row's elements and places; there is room for twice as many
            // entries as a row has, and each piece of them belongs to one task.
            unsafe {
                let from = DisjointPointer(source.cast::<T>().offset(from));
                let to = DisjointPointer(target.cast::<i64>().offset(to));
                self.pieces(self.length, &|i| {
                    entries.at(i as isize).write(E::new(key(from.at(i as isize * self.steps.0).read()), i));
                })?;
                let spare = entries.at(self.length as isize);
                let wanted = self.sorted(entries.at(0), spare, bits, PIECES)?;
                self.pieces(self.count, &|i| {
                    to.at(i as isize * self.steps.1).write(wanted[i].place());
                })?;
            }
        }
        Ok(())
    }

    /// Shares the rows out over the threads, in blocks of neighbouring rows where memory runs along the rows'
    /// numbers: each cache line is then read and written once for the whole block.
    ///
    /// # Safety
    /// As for [`SortKernel::with_keys`].
    unsafe fn blocks_of_rows<T: Copy, E: SortEntry>(
        &self,
        buffers: &[RawBuffer],
        bits: u32,
        key: impl Fn(T) -> u64 + Sync,
    ) -> Result<()> {
        let beside = self.source.q.stride() == 1 && self.steps.0 != 1 && self.length < LONG_ROW;
        let shared_out = self.rows.div_ceil(rayon::current_num_threads());
        let block = if beside { SIDE_BY_SIDE.min(shared_out).max(1) } else { 1 };
        let per_task = (TASK_ELEMENTS / self.length.max(1)).max(1).next_multiple_of(block);
        let count = (block + 1).checked_mul(self.length);
        let work = self.rows.saturating_mul(self.length).saturating_mul(64);
        parallel(self.rows.div_ceil(per_task), work, &|task| {
            let memory = self.entries::<E>(count)?;
            let entries = memory.pointer().cast::<E>();
            let end = ((task + 1) * per_task).min(self.rows);
            for first_row in (task * per_task..end).step_by(block) {
                let rows = block.min(end - first_row);
                // SAFETY: the caller promises the rows' elements and places, and a row belongs to one task;
                // there is room for the entries of `block` rows and of a spare one.
                unsafe {
                    let spare = entries.add(block * self.length);
                    self.block::<T, E>(buffers, first_row..first_row + rows, (entries, spare), bits, &key)?;
                }
            }
            Ok(())
        })
    }

    /// Sorts a block of at most [`SIDE_BY_SIDE`] rows on this thread.
    ///
    /// # Safety
    /// As for [`SortKernel::with_keys`]; nobody else uses the entries, which have room for the rows and for a
    /// spare one.
    #[inline]
    unsafe fn block<T: Copy, E: SortEntry>(
        &self,
        buffers: &[RawBuffer],
        range: Range<usize>,
        (entries, spare): (*mut E, *mut E),
        bits: u32,
        key: &impl Fn(T) -> u64,
    ) -> Result<()> {
        let (source, target) = (buffers[self.buffers.0], buffers[self.buffers.1]);
        let rows = range.len();
        let mut places = [(0isize, 0isize); SIDE_BY_SIDE];
        for (place, row) in places.iter_mut().zip(range) {
            *place = (
                self.source.offset + self.source.q.offset(row),
                self.target.offset + self.target.q.offset(row),
            );
        }
        // SAFETY: passed on to the caller.
        unsafe {
            let (from, to) = (source.cast::<T>().cast_const(), target.cast::<i64>());
            for i in 0..self.length {
                let step = i as isize * self.steps.0;
                for (r, place) in places[..rows].iter().enumerate() {
                    let entry = E::new(key(from.offset(place.0 + step).read()), i);
                    entries.add(r * self.length + i).write(entry);
                }
            }
            let mut wanted: SmallVec<[&[E]; SIDE_BY_SIDE]> = SmallVec::new();
            for r in 0..rows {
                let row = entries.add(r * self.length);
                let mut found = self.sorted(row, spare, bits, 1)?;
                // The next row needs the spare memory.
                if rows > 1 && found.as_ptr() == spare.add(self.first) {
                    row.copy_from_nonoverlapping(spare, self.length);
                    found = std::slice::from_raw_parts(row.add(self.first), self.count);
                }
                wanted.push(found);
            }
            for i in 0..self.count {
                let step = i as isize * self.steps.1;
                for (place, row) in places.iter().zip(&wanted) {
                    to.offset(place.1 + step).write(row[i].place());
                }
            }
        }
        Ok(())
    }

    /// The entries that belong to the wanted places, in order. They lie in `row` or in `spare`.
    ///
    /// # Safety
    /// Both point to memory for as many entries as a row has, which nobody else uses.
    unsafe fn sorted<'e, E: SortEntry>(
        &self,
        row: *mut E,
        spare: *mut E,
        bits: u32,
        pieces: usize,
    ) -> Result<&'e [E]> {
        let (first, count, length) = (self.first, self.count, self.length);
        let few = count < length / 4;
        // SAFETY: passed on to the caller.
        unsafe {
            if length >= RADIX * bits.div_ceil(8) as usize && (!few || bits <= 8) {
                let sorted = radix(row, spare, length, bits, pieces)?;
                return Ok(std::slice::from_raw_parts(sorted.add(first), count));
            }
            let entries = std::slice::from_raw_parts_mut(row, length);
            if first > 0 {
                entries.select_nth_unstable(first);
            }
            let rest = &mut entries[first..];
            if count < rest.len() {
                rest.select_nth_unstable(count);
            }
            let wanted = &mut rest[..count];
            wanted.sort_unstable();
            Ok(wanted)
        }
    }

    /// Calls a function for each number below `n`, on all threads.
    fn pieces(&self, n: usize, each: &(dyn Fn(usize) + Sync)) -> Result<()> {
        parallel(n.div_ceil(PIECE), n.saturating_mul(16), &|piece| {
            (piece * PIECE..((piece + 1) * PIECE).min(n)).for_each(each);
            Ok(())
        })
    }
}

/// Sorts entries by the low `bits` bits of their keys, one digit of eight bits after the other, and returns
/// where they lie then: `row` or `spare`. Each piece of the entries is counted, and moved behind the entries
/// of the pieces before it, by one task.
///
/// # Safety
/// Both point to memory for `length` entries, which nobody else uses.
unsafe fn radix<E: SortEntry>(
    row: *mut E,
    spare: *mut E,
    length: usize,
    bits: u32,
    pieces: usize,
) -> Result<*mut E> {
    let (mut from, mut to) = (DisjointPointer(row), DisjointPointer(spare));
    let mut counts = vec![[0usize; 256]; pieces];
    let size = length.div_ceil(pieces);
    let piece = |p: usize| (p * size).min(length) as isize..((p + 1) * size).min(length) as isize;
    for shift in (0..bits).step_by(8) {
        let places = DisjointPointer(counts.as_mut_ptr());
        // SAFETY: task p alone uses the counts of piece p, and all tasks only read the entries.
        parallel(pieces, length * 16, &|p| unsafe {
            let places = &mut *places.at(p as isize);
            places.fill(0);
            piece(p).for_each(|i| places[from.at(i).read().digit(shift)] += 1);
            Ok(())
        })?;
        if (0..256).any(|digit| counts.iter().map(|piece| piece[digit]).sum::<usize>() == length) {
            continue;
        }
        let mut next = 0;
        for digit in 0..256 {
            for piece in &mut counts {
                next += std::mem::replace(&mut piece[digit], next);
            }
        }
        let places = DisjointPointer(counts.as_mut_ptr());
        // SAFETY: task p alone uses the places of piece p. The prefix sums over digits and pieces give each
        // entry a place of its own below `length`, so no two tasks write to one place.
        parallel(pieces, length * 32, &|p| unsafe {
            let places = &mut *places.at(p as isize);
            for i in piece(p) {
                let entry = from.at(i).read();
                let place = &mut places[entry.digit(shift)];
                to.at(*place as isize).write(entry);
                *place += 1;
            }
            Ok(())
        })?;
        std::mem::swap(&mut from, &mut to);
    }
    Ok(from.0)
}

/// A pointer to memory of which each task uses a part of its own.
struct DisjointPointer<T>(*mut T);

impl<T> DisjointPointer<T> {
    /// # Safety
    /// The place lies inside of the memory.
    unsafe fn at(&self, place: isize) -> *mut T {
        // SAFETY: passed on to the caller.
        unsafe { self.0.offset(place) }
    }
}

// SAFETY: the functions that share it between tasks give each a disjoint part to write to, or only read.
unsafe impl<T> Sync for DisjointPointer<T> {}
