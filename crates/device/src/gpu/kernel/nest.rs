//! Simplifies loops before code is generated: dims are dropped, ordered and merged, and the space is cut into
//! parts whose memory fits into bindings.

use std::collections::BTreeMap;

use crate::gpu::Caps;
use crate::gpu::program::{BoundMemory, Window};
use crate::kernel::{Access, Instr, Loop, ReduceOp};
use crate::layout::Strides;
use crate::{Error, Result};

/// For each buffer of a kernel the window of its memory that a dispatch binds.
pub(super) type BufferWindows = BTreeMap<usize, Window>;

/// The most elements or vectors of one dispatch, so that their indices fit into 31 bits.
const MAX_THREADS: usize = 1 << 30;

/// Numbers of buffers and of temporaries stay below this. A number with a multiple of this added stands for
/// another part of the same memory.
const PARTS: usize = 1 << 21;
/// Numbers of buffers and of their parts stay below this; see [`further`].
const FURTHER: usize = 1 << (usize::BITS - 8);

/// A part of the index space of a loop. `kernel` has the sizes of this part, and offsets at its first index.
#[derive(Clone)]
pub(super) struct Nest {
    pub(super) kernel: Loop,
    /// The index of the whole space at which the part begins.
    pub(super) first: Vec<usize>,
    /// The sizes of the whole space.
    pub(super) full: Vec<usize>,
}

/// The windows in which buffers can be bound, or the number of an access whose elements do not fit into one
/// binding.
pub(super) enum Fit {
    Windows(BufferWindows),
    TooWide(usize),
}

impl Nest {
    /// The simplified form of a loop. The last `fixed` dims are kept as they are.
    pub(super) fn new(kernel: &Loop, fixed: usize) -> Nest {
        let mut kernel = kernel.clone();
        if !kernel.body.iter().any(|instr| matches!(instr, Instr::Reduce { .. })) {
            kernel.inner = 0;
        }
        let positional =
            |instr: &Instr| matches!(instr, Instr::Reduce { op: ReduceOp::ArgMax | ReduceOp::ArgMin, .. });
        let ordered = kernel.body.iter().any(positional);
        let (outer, rank) = (kernel.outer(), kernel.sizes.len());
        let used = |kernel: &Loop, d: usize| {
            kernel.body.iter().any(|instr| matches!(instr, Instr::Coord { dim } if *dim == d))
        };
        let movable_end = outer.min(rank - fixed);
        let mut order: Vec<usize> = (0..rank).collect();
        let steps = |d: usize| step_sizes(&kernel, d);
        order[..movable_end].sort_by_key(|&d| std::cmp::Reverse(steps(d)));
        if !ordered && fixed == 0 {
            order[outer..].sort_by_key(|&d| std::cmp::Reverse(steps(d)));
        }
        // A fold needs at least one inner dim.
        let flat = kernel.inner > 0 && kernel.sizes[outer..].iter().all(|&size| size == 1);
        let keep = |d: &usize| {
            kernel.sizes[*d] != 1 || used(&kernel, *d) || *d >= rank - fixed || (flat && *d == rank - 1)
        };
        let inner = order[outer..].iter().filter(|d| keep(d)).count();
        let order: Vec<usize> = order.iter().copied().filter(keep).collect();
        let mut nest = Nest { kernel, first: Vec::new(), full: Vec::new() };
        nest.reorder(&order);
        nest.kernel.inner = inner;
        let mut d = nest.kernel.sizes.len().saturating_sub(fixed);
        while d > 1 {
            d -= 1;
            let boundary = d == nest.kernel.outer() && nest.kernel.inner > 0;
            if !boundary && !used(&nest.kernel, d) && !used(&nest.kernel, d - 1) && nest.can_merge(d) {
                nest.merge(d);
            }
        }
        nest.first = vec![0; nest.kernel.sizes.len()];
        nest.full = nest.kernel.sizes.to_vec();
        nest
    }

    fn reorder(&mut self, order: &[usize]) {
        let pick = |strides: &Strides| order.iter().map(|&d| strides[d]).collect::<Strides>();
        let kernel = &mut self.kernel;
        kernel.sizes = order.iter().map(|&d| kernel.sizes[d]).collect();
        kernel.accesses.iter_mut().for_each(|access| access.strides = pick(&access.strides));
        kernel.ranges.iter_mut().for_each(|range| range.strides = pick(&range.strides));
        for instr in &mut kernel.body {
            if let Instr::Coord { dim } = instr {
                *dim = order.iter().position(|d| d == dim).unwrap_or(0);
            }
        }
    }

    fn all_strides(&self) -> impl Iterator<Item = &Strides> {
        let accesses = self.kernel.accesses.iter().map(|access| &access.strides);
        accesses.chain(self.kernel.ranges.iter().map(|range| &range.strides))
    }

    /// Whether every access walks through dims d - 1 and d with one stride.
    fn can_merge(&self, d: usize) -> bool {
        let size = self.kernel.sizes[d] as isize;
        let total = self.kernel.sizes[d].saturating_mul(self.kernel.sizes[d - 1]);
        total < MAX_THREADS * 16 && self.all_strides().all(|s| s[d - 1] == s[d] * size)
    }

    fn merge(&mut self, d: usize) {
        let kernel = &mut self.kernel;
        kernel.sizes[d - 1] *= kernel.sizes[d];
        kernel.sizes.remove(d);
        if d >= kernel.sizes.len() + 1 - kernel.inner {
            kernel.inner -= 1;
        }
        for access in &mut kernel.accesses {
            access.strides[d - 1] = access.strides.remove(d);
        }
        for range in &mut kernel.ranges {
            range.strides[d - 1] = range.strides.remove(d);
        }
        for instr in &mut kernel.body {
            if let Instr::Coord { dim } = instr {
                *dim -= usize::from(*dim > d - 1);
            }
        }
    }

    /// The part of the space whose indices in a dim are `start..start + len`.
    pub(super) fn restrict(&self, dim: usize, start: usize, len: usize) -> Nest {
        let mut part = self.clone();
        part.kernel.sizes[dim] = len;
        part.first[dim] += start;
        for access in &mut part.kernel.accesses {
            access.offset += access.strides[dim] * start as isize;
        }
        for range in &mut part.kernel.ranges {
            range.offset += range.strides[dim] * start as isize;
        }
        part
    }

    /// The size of the first of two halves of a dim, in whole vectors if the dim is vectorised; `None` if it
    /// cannot be halved.
    pub(super) fn half(&self, dim: usize, vector_dim: Option<usize>) -> Option<usize> {
        let unit = if vector_dim == Some(dim) { 4 } else { 1 };
        let (whole, half) = (self.kernel.sizes[dim], (self.kernel.sizes[dim] / 2).next_multiple_of(unit));
        (half > 0 && half < whole).then_some(half)
    }

    /// The windows in which the buffers of these accesses must be bound.
    pub(super) fn fit(&self, accesses: &[usize], caps: &Caps) -> Fit {
        let max_binding = caps.max_binding;
        let mut reach: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for &i in accesses {
            let access = &self.kernel.accesses[i];
            let Some((low, high)) = access_bytes(access, &self.kernel.sizes) else { continue };
            let entry = reach.entry(access.buffer).or_insert((low, high));
            *entry = (entry.0.min(low), entry.1.max(high));
        }
        let mut windows = BTreeMap::new();
        let mut bindings = reach.len();
        for (buffer, (low, high)) in reach {
            if self.is_read_anywhere(accesses, buffer, max_binding) {
                let several = several_windows(buffer, low, high, max_binding);
                bindings += several.len() - 1;
                if bindings <= caps.max_buffers {
                    windows.extend(several);
                    continue;
                }
            }
            let start = if high.next_multiple_of(256) <= max_binding { 0 } else { low / 256 * 256 };
            if high.next_multiple_of(256) - start > max_binding {
                let of_buffer = |i: &&usize| self.kernel.accesses[**i].buffer == buffer;
                let widest = accesses.iter().filter(of_buffer).max_by_key(|i| {
                    access_bytes(&self.kernel.accesses[**i], &self.kernel.sizes)
                        .map_or(0, |(low, high)| high - low)
                });
                return Fit::TooWide(*widest.unwrap_or(&0));
            }
            windows.insert(buffer, Window { slot: memory_of(buffer), start, end: high });
        }
        // Accesses over an empty space are never executed, but their buffers must be bound to something.
        for &i in accesses {
            let buffer = self.kernel.accesses[i].buffer;
            windows.entry(buffer).or_insert(Window { slot: memory_of(buffer), start: 0, end: 256 });
        }
        Fit::Windows(windows)
    }

    /// Whether a buffer is read at indices that come from data and that reach over more of it than one
    /// binding holds. No part of the space reads less.
    fn is_read_anywhere(&self, accesses: &[usize], buffer: usize, max_binding: u64) -> bool {
        let of_buffer = |i: usize| self.kernel.accesses[i].buffer == buffer;
        let reach = |i: usize| {
            let access = Access { strides: Strides::new(), ..self.kernel.accesses[i].clone() };
            access_bytes(&access, &[]).map_or(0, |(low, high)| high - low)
        };
        let is_stored = self.kernel.stores.iter().any(|store| of_buffer(store.access));
        !is_stored && accesses.iter().any(|&i| of_buffer(i) && reach(i) + 256 > max_binding)
    }

    /// The space with the parts of a buffer under numbers of their own, where each access to the buffer fits
    /// into a binding, but they lie too far apart for a common one. `None` if that is not so, if the buffer
    /// is written, or if too many bindings are needed.
    fn with_parts_of(&self, buffer: usize, accesses: &[usize], caps: &Caps) -> Option<Nest> {
        let kernel = &self.kernel;
        if kernel.stores.iter().any(|store| kernel.accesses[store.access].buffer == buffer) {
            return None;
        }
        let reach = |i: usize| access_bytes(&kernel.accesses[i], &kernel.sizes);
        let of_buffer = accesses.iter().copied().filter(|&i| kernel.accesses[i].buffer == buffer);
        let mut reaches: Vec<(u64, u64, usize)> =
            of_buffer.filter_map(|i| reach(i).map(|(low, high)| (low / 256 * 256, high, i))).collect();
        reaches.sort_unstable();
        let mut parts = self.clone();
        let (mut part, mut start) = (0, reaches.first()?.0);
        for (low, high, i) in reaches {
            if high.next_multiple_of(256) - start > caps.max_binding {
                (part, start) = (part + 1, low);
            }
            if high.next_multiple_of(256) - start > caps.max_binding {
                return None;
            }
            parts.kernel.accesses[i].buffer = buffer + part * PARTS;
        }
        let mut bound: Vec<usize> = accesses.iter().map(|&i| parts.kernel.accesses[i].buffer).collect();
        bound.sort_unstable();
        bound.dedup();
        (part > 0 && bound.len() <= caps.max_buffers).then_some(parts)
    }

    /// Cuts the space along `dims` until all of these accesses fit into bindings, and returns the parts with
    /// their windows.
    pub(super) fn spaces(
        &self,
        accesses: &[usize],
        dims: &[usize],
        vector_dim: Option<usize>,
        caps: &Caps,
    ) -> Result<Vec<(Nest, BufferWindows)>> {
        let count =
            |dims: &[usize]| dims.iter().map(|&d| self.kernel.sizes[d]).fold(1usize, usize::saturating_mul);
        let half = |d: usize| self.half(d, vector_dim);
        let halved = dims.iter().copied().filter(|&d| half(d).is_some());
        let wide = if count(dims) > MAX_THREADS {
            halved.max_by_key(|&d| self.kernel.sizes[d])
        } else {
            match self.fit(accesses, caps) {
                Fit::Windows(windows) => return Ok(vec![(self.clone(), windows)]),
                Fit::TooWide(access) => {
                    let access = &self.kernel.accesses[access];
                    if let Some(parts) = self.with_parts_of(access.buffer, accesses, caps) {
                        return parts.spaces(accesses, dims, vector_dim, caps);
                    }
                    let step = |d: usize| access.strides[d].unsigned_abs() * (self.kernel.sizes[d] - 1);
                    halved.filter(|&d| step(d) > 0).max_by_key(|&d| step(d))
                }
            }
        };
        let Some((dim, half)) = wide.and_then(|d| Some((d, half(d)?))) else {
            return Err(Error::Unsupported {
                op: "launch",
                reason: format!(
                    "an operand reaches over more than the {} bytes that this device binds at a time; \
                     make it contiguous, or split the operation",
                    caps.max_binding
                ),
            });
        };
        let mut parts = self.restrict(dim, 0, half).spaces(accesses, dims, vector_dim, caps)?;
        let rest = self.kernel.sizes[dim] - half;
        parts.extend(self.restrict(dim, half, rest).spaces(accesses, dims, vector_dim, caps)?);
        Ok(parts)
    }

    /// Raises the bytes that each buffer must have to those that unguarded accesses reach.
    pub(super) fn needs(&self, needs: &mut Vec<u64>) {
        for access in &self.kernel.accesses {
            let bytes = access_bytes(access, &self.kernel.sizes).map_or(0, |(_, high)| high);
            raise(needs, access.buffer, if access.guards.is_empty() { bytes } else { 0 });
        }
    }
}

/// The memory that belongs to the number of a buffer or of a part of one.
pub(super) const fn memory_of(number: usize) -> BoundMemory {
    BoundMemory::Buffer(number % PARTS)
}

/// The name of a buffer, or of a part of one, in the source.
pub(super) fn buffer_name(number: usize) -> String {
    match (number % PARTS, number / PARTS) {
        (buffer, 0) => format!("buffer{buffer}"),
        (buffer, part) => format!("buffer{buffer}_part{part}"),
    }
}

/// The key of the n-th window of a buffer that is bound in several windows.
pub(super) const fn further(buffer: usize, n: usize) -> usize {
    buffer + n * FURTHER
}

/// Adjacent windows that together cover a range of bytes of a buffer.
fn several_windows(buffer: usize, low: u64, high: u64, max_binding: u64) -> BufferWindows {
    let starts = (low / 256 * 256..high).step_by(max_binding as usize);
    let window = |(n, start)| {
        let end = high.min(start + max_binding);
        (further(buffer, n), Window { slot: memory_of(buffer), start, end })
    };
    starts.enumerate().map(window).collect()
}

/// Raises the bytes that a buffer must have.
pub(super) fn raise(needs: &mut Vec<u64>, buffer: usize, bytes: u64) {
    if needs.len() <= buffer {
        needs.resize(buffer + 1, 0);
    }
    needs[buffer] = needs[buffer].max(bytes);
}

/// The first byte and one past the last that an access may touch; `None` if the space is empty.
pub(super) fn access_bytes(access: &Access, sizes: &[usize]) -> Option<(u64, u64)> {
    if sizes.contains(&0) {
        return None;
    }
    let (mut low, mut high) = (access.offset, access.offset);
    let dims = access.strides.iter().copied().zip(sizes.iter().copied());
    for (stride, size) in dims.chain(access.indexed.iter().map(|dim| (dim.stride, dim.size.max(1)))) {
        let step = stride.saturating_mul(size as isize - 1);
        low = low.saturating_add(step.min(0));
        high = high.saturating_add(step.max(0));
    }
    let size = access.dtype.size() as u64;
    let high = u64::try_from(high).map_or(0, |high| high + 1);
    Some((u64::try_from(low).unwrap_or(0).saturating_mul(size), high.saturating_mul(size)))
}

/// The sum of a dim's strides in the stores and in the loads, by which dims are ordered: the dim with the
/// smallest steps becomes the innermost.
fn step_sizes(kernel: &Loop, d: usize) -> (usize, usize) {
    let element_level = |a: &Access| {
        kernel.inner == 0 || d < kernel.outer() || a.strides[kernel.outer()..].iter().any(|&s| s != 0)
    };
    let stored = |i: usize| kernel.stores.iter().any(|store| store.access == i);
    let sum = |stores: bool| {
        let accesses =
            kernel.accesses.iter().enumerate().filter(|(i, a)| stored(*i) == stores && element_level(a));
        accesses.map(|(_, a)| a.strides[d].unsigned_abs()).fold(0usize, usize::saturating_add)
    };
    let (stores, loads) = (sum(true), sum(false));
    if kernel.inner > 0 { (loads, stores) } else { (stores, loads) }
}
