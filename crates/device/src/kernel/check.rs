//! Checks the rules of the IR. Both executors call this, so both refuse the same kernels, and neither runs a
//! kernel that refers to something it does not have, reaches before its buffers, or overwrites what it still
//! has to read.

use smallvec::SmallVec;

use super::visit::Touched;
use super::{Access, Instr, Kernel, Loop, Matmul, ReduceOp, Scan, Scatter, Store, Ty};
use crate::DType;

/// The reason why a kernel is refused.
type Reason = String;

/// The bound of buffer and parameter numbers, since tables have an entry for each.
const MOST_BUFFERS: usize = 1 << 16;

impl Kernel {
    /// Checks the guarantees of a kernel; the error says which rule it breaks.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        match self {
            Kernel::Loop(kernel) => {
                kernel.check(None)?;
                kernel.check_reach()?;
                kernel.check_order()
            }
            Kernel::Matmul(kernel) => kernel.check(),
            Kernel::Scatter(kernel) => kernel.check(),
            Kernel::Scan(kernel) => kernel.check(),
            Kernel::Sort(kernel) => {
                if !kernel.fits() {
                    return Err("a sort whose accesses don't fit its space".to_owned());
                }
                check_sizes(&kernel.sizes)
            }
        }?;
        let unguarded = |touched: &&Touched<'_>| touched.access.guards.is_empty();
        self.accesses()
            .iter()
            .filter(unguarded)
            .try_for_each(|touched| reaches(touched.access, &touched.sizes))
    }
}

impl Loop {
    /// Checks that operands come before their users, that their types fit, and that everything a body refers
    /// to exists. `accumulator` is the type of [`Instr::Accumulator`] if there is one.
    pub(crate) fn check(&self, accumulator: Option<Ty>) -> Result<(), Reason> {
        for (i, instr) in self.body.iter().enumerate() {
            if instr.operands().iter().any(|&r| r as usize >= i) {
                return Err(format!("instruction {i} reads a value that comes later"));
            }
            let sound = match instr {
                Instr::Load { access, indices } => {
                    self.accesses.get(*access).is_some_and(|a| a.indexed.len() == indices.len())
                }
                Instr::Coord { dim } => *dim < self.sizes.len(),
                Instr::InRange { range } => *range < self.ranges.len(),
                Instr::Accumulator => accumulator.is_some(),
                Instr::Reduce { .. } => self.inner > 0,
                Instr::Param { index, .. }
                | Instr::Philox { params: index, .. }
                | Instr::Normal { params: index, .. } => *index < MOST_BUFFERS,
                _ => true,
            };
            if !sound {
                return Err(format!("instruction {i} names what the kernel doesn't have: {instr:?}"));
            }
        }
        check_sizes(&self.sizes)?;
        let rank = self.sizes.len();
        let fits = self.accesses.iter().all(|a| {
            a.strides.len() == rank
                && a.buffer < MOST_BUFFERS
                && a.guards.iter().all(|&g| g < self.ranges.len())
        });
        if !fits || self.inner > rank || self.ranges.iter().any(|r| r.strides.len() != rank) {
            return Err("an access or range doesn't fit the space".to_owned());
        }
        let types = self.types(accumulator.unwrap_or(Ty::F32));
        for (i, instr) in self.body.iter().enumerate() {
            let ty = |r: &super::Reg| types[*r as usize];
            let sound = match instr {
                Instr::Load { indices, .. } => indices.iter().all(|r| matches!(ty(r), Ty::I32 | Ty::I64)),
                Instr::Binary { a, b, .. } => ty(a) == ty(b),
                Instr::Select { cond, a, b } => ty(cond) == Ty::Bool && ty(a) == ty(b),
                Instr::Philox { index, .. } | Instr::Normal { index, .. } => ty(index) == Ty::I32,
                _ => true,
            };
            if !sound {
                return Err(format!("operands of instruction {i} have the wrong types: {instr:?}"));
            }
        }
        for Store { access, value } in &self.stores {
            let access = self.accesses.get(*access).ok_or("a store without its access")?;
            let ty = types.get(*value as usize).ok_or("a store without its value")?;
            if Ty::of(access.dtype) != *ty || !access.guards.is_empty() || !access.indexed.is_empty() {
                return Err(format!("a store of {ty:?} as {} with guards or indices", access.dtype));
            }
        }
        Ok(())
    }

    /// The numbers of the buffers that it writes.
    fn written(&self) -> impl Iterator<Item = usize> {
        self.stores.iter().filter_map(|store| self.accesses.get(store.access)).map(|access| access.buffer)
    }

    /// Checks that unguarded accesses begin inside of their buffers.
    fn check_reach(&self) -> Result<(), Reason> {
        // A loop whose rows have no elements still computes and stores row values.
        let sizes: SmallVec<[usize; 8]> = match self.inner {
            0 => self.sizes.as_slice().into(),
            _ => {
                let outer = self.outer();
                let inner = self.sizes[outer..].iter().map(|&size| size.max(1));
                self.sizes[..outer].iter().copied().chain(inner).collect()
            }
        };
        self.accesses.iter().filter(|a| a.guards.is_empty()).try_for_each(|a| reaches(a, &sizes))
    }

    /// Checks for hazards: a loop may read a buffer that it writes only at the element that it writes, and
    /// only without inner dims.
    fn check_order(&self) -> Result<(), Reason> {
        let stores = || self.stores.iter().map(|store| &self.accesses[store.access]);
        for load in self.body.iter().filter_map(|instr| match instr {
            Instr::Load { access, .. } => Some(&self.accesses[*access]),
            _ => None,
        }) {
            let same = |store: &Access| {
                self.inner == 0
                    && load.indexed.is_empty()
                    && (&load.strides, load.offset) == (&store.strides, store.offset)
                    && load.dtype.size() == store.dtype.size()
            };
            if stores().any(|store| store.buffer == load.buffer && !same(store)) {
                return Err("a loop that writes to what it reads elsewhere".to_owned());
            }
        }
        Ok(())
    }
}

impl Matmul {
    fn check(&self) -> Result<(), Reason> {
        if !self.fits() {
            return Err("a matmul whose space and factors don't fit".to_owned());
        }
        self.epilogue.check(Some(self.accumulator()))?;
        self.epilogue.check_reach()?;
        self.epilogue.check_order()?;
        for (factor, sizes) in self.factors() {
            check_sizes(&sizes)?;
            if self.epilogue.written().any(|buffer| buffer == factor.buffer) {
                return Err("a matmul that writes to its own factor".to_owned());
            }
        }
        Ok(())
    }
}

impl Scatter {
    fn check(&self) -> Result<(), Reason> {
        let rank = self.sizes.len();
        let fits = self.source.is_plain(rank)
            && self.indices.iter().all(|a| a.is_plain(rank) && matches!(a.dtype, DType::I32 | DType::I64))
            && self.target.strides.len() == rank
            && self.target.guards.is_empty()
            && self.target.indexed.len() == self.indices.len()
            && self.source.dtype == self.target.dtype
            && self.base.is_none_or(|base| base < MOST_BUFFERS);
        if !fits {
            return Err("a scatter whose accesses don't fit its space".to_owned());
        }
        check_sizes(&self.sizes)?;
        check_sizes(&[self.elements])?;
        if self.indices.iter().chain([&self.source]).any(|access| access.buffer == self.target.buffer) {
            return Err("a scatter that writes to its own source".to_owned());
        }
        Ok(())
    }
}

impl Scan {
    fn check(&self) -> Result<(), Reason> {
        let Scan { op, sizes, source, target } = self;
        let fits = [source, target].iter().all(|access| access.is_plain(sizes.len()));
        if sizes.is_empty() || !fits || source.dtype != target.dtype {
            return Err("a scan whose accesses don't fit its space".to_owned());
        }
        if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) {
            return Err("a scan that gives positions".to_owned());
        }
        check_sizes(sizes)?;
        if source.buffer == target.buffer && source != target {
            return Err("a scan that writes to what it reads elsewhere".to_owned());
        }
        Ok(())
    }
}

/// Checks that the indices of a space, and eight bytes for each, can be counted. Dims of size 0 are left out,
/// since they must not hide the others.
fn check_sizes(sizes: &[usize]) -> Result<(), Reason> {
    let product = sizes.iter().try_fold(8usize, |product, &size| product.checked_mul(size.max(1)));
    match product {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(format!("a space of sizes {sizes:?}")),
    }
}

/// Checks that an access begins inside of its buffer, and ends where a byte can be addressed.
fn reaches(access: &Access, sizes: &[usize]) -> Result<(), Reason> {
    if access.buffer >= MOST_BUFFERS {
        return Err(format!("buffer {}", access.buffer));
    }
    if sizes.contains(&0) {
        return Ok(());
    }
    let (mut low, mut high) = (access.offset as i128, access.offset as i128);
    let dims = access.strides.iter().copied().zip(sizes.iter().copied());
    for (stride, size) in dims.chain(access.indexed.iter().map(|dim| (dim.stride, dim.size))) {
        let way = (stride as i128).saturating_mul(size.max(1) as i128 - 1);
        low = low.saturating_add(way.min(0));
        high = high.saturating_add(way.max(0));
    }
    if low < 0 || high >= isize::MAX as i128 / access.dtype.size() as i128 {
        return Err(format!("an access to elements {low} to {high}"));
    }
    Ok(())
}
