//! Facts about a kernel: the types, levels and passes of its values, and the memory that it moves.

use super::visit::Touched;
use super::{Access, Instr, Kernel, Loop, Range, Ty};
use crate::layout::Dims;

/// How often a value of a loop is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Once for each row, since it depends on outer dims and finished reductions only.
    Row,
    /// Once for each element of a row. In a loop without inner dims a row is one element, and all values are
    /// of this level.
    Element,
}

/// The bytes that a kernel reads and writes. Each access counts once, with the distinct elements that it
/// touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl Loop {
    /// The number of outer dims.
    pub fn outer(&self) -> usize {
        self.sizes.len() - self.inner
    }

    /// The number of rows: the product of the outer sizes.
    pub fn rows(&self) -> usize {
        elements(&self.sizes[..self.outer()])
    }

    /// The number of elements of a row: the product of the inner sizes.
    pub fn row_elements(&self) -> usize {
        elements(&self.sizes[self.outer()..])
    }

    /// The number of parameters that a launch must give.
    pub fn params(&self) -> usize {
        let last = |instr: &Instr| match instr {
            Instr::Param { index, .. } => index + 1,
            Instr::Philox { params, .. } | Instr::Normal { params, .. } => params + 4,
            _ => 0,
        };
        self.body.iter().map(last).max().unwrap_or(0)
    }

    /// The type of each value of the body; `accumulator` is that of [`Instr::Accumulator`].
    pub fn types(&self, accumulator: Ty) -> Vec<Ty> {
        let mut types: Vec<Ty> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            types.push(match instr {
                Instr::Load { access, .. } => Ty::of(self.accesses[*access].dtype),
                Instr::Accumulator => accumulator,
                Instr::Param { ty, .. } => *ty,
                Instr::Const(value) => value.ty(),
                Instr::Coord { .. } => Ty::I32,
                Instr::InRange { .. } => Ty::Bool,
                Instr::Unary { op, a } => op.result(types[*a as usize]),
                Instr::Binary { op, a, .. } => op.result(types[*a as usize]),
                Instr::Select { a, .. } => types[*a as usize],
                Instr::Cast { to, .. } => Ty::of(*to),
                Instr::Philox { .. } => Ty::U32,
                Instr::Normal { .. } => Ty::F32,
                Instr::Reduce { op, a } => op.result(types[*a as usize]),
            });
        }
        types
    }

    /// Whether each value is computed once for each row or for each element.
    pub fn levels(&self) -> Vec<Level> {
        let outer = self.outer();
        let mut levels: Vec<Level> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            let own = match instr {
                _ if self.inner == 0 => Level::Element,
                Instr::Load { access, .. } => self.access_level(&self.accesses[*access]),
                Instr::Coord { dim } if *dim >= outer => Level::Element,
                Instr::InRange { range } => self.range_level(&self.ranges[*range]),
                _ => Level::Row,
            };
            let level = match instr {
                Instr::Reduce { .. } => Level::Row,
                _ => instr.operands().iter().map(|&r| levels[r as usize]).fold(own, Level::max),
            };
            levels.push(level);
        }
        levels
    }

    /// The pass over the row in which each value is known: the result of a reduction is known one pass after
    /// its operand. Row values of stage s are computed between pass s - 1 and pass s. A loop has `max stage +
    /// 1` stages, of which the last may have row values only.
    pub fn stages(&self) -> Vec<usize> {
        let mut stages: Vec<usize> = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            let stage = instr.operands().iter().map(|&r| stages[r as usize]).max().unwrap_or(0);
            stages.push(stage + usize::from(matches!(instr, Instr::Reduce { .. })));
        }
        stages
    }

    /// Whether a store through this access happens once for each row or for each element.
    pub fn store_level(&self, access: &Access) -> Level {
        self.access_level(access)
    }

    fn access_level(&self, access: &Access) -> Level {
        let steps = self.inner == 0 || access.strides[self.outer()..].iter().any(|&s| s != 0);
        let guarded = access.guards.iter().map(|&g| self.range_level(&self.ranges[g])).max();
        if steps { Level::Element } else { guarded.unwrap_or(Level::Row) }
    }

    fn range_level(&self, range: &Range) -> Level {
        let steps = self.inner == 0 || range.strides[self.outer()..].iter().any(|&s| s != 0);
        if steps { Level::Element } else { Level::Row }
    }
}

/// The bytes of the distinct elements that an access touches or, if it is indexed, may touch.
fn access_bytes(access: &Access, sizes: &Dims) -> u64 {
    let dims = || access.strides.iter().zip(sizes);
    let touched: Dims =
        dims().map(|(&stride, &size)| if stride == 0 && size != 0 { 1 } else { size }).collect();
    // Windows overlap: together they have no more elements than lie between the first and the last one.
    let reach = if access.indexed.is_empty() {
        let ways = dims().map(|(s, &n)| s.unsigned_abs().saturating_mul(n.saturating_sub(1)));
        ways.fold(1, usize::saturating_add)
    } else {
        usize::MAX
    };
    (elements(&touched).min(reach) as u64).saturating_mul(access.dtype.size() as u64)
}

/// The number of elements of these sizes; it saturates.
fn elements(sizes: &[usize]) -> usize {
    if sizes.contains(&0) { 0 } else { sizes.iter().fold(1, |n: usize, &size| n.saturating_mul(size)) }
}

impl Instr {
    /// As [`UnaryOp::size`](super::UnaryOp::size).
    pub fn size(&self) -> usize {
        match self {
            Instr::Unary { op, .. } => op.size(),
            Instr::Binary { op, .. } => op.size(),
            Instr::Philox { .. } => 16,
            Instr::Normal { .. } => 32,
            _ => 1,
        }
    }

    /// The registers that it reads.
    pub fn operands(&self) -> smallvec::SmallVec<[super::Reg; 3]> {
        match self {
            Instr::Load { indices, .. } => indices.iter().copied().collect(),
            Instr::Unary { a, .. } | Instr::Cast { a, .. } | Instr::Reduce { a, .. } => {
                smallvec::smallvec![*a]
            }
            Instr::Philox { index, .. } | Instr::Normal { index, .. } => smallvec::smallvec![*index],
            Instr::Binary { a, b, .. } => smallvec::smallvec![*a, *b],
            Instr::Select { cond, a, b } => smallvec::smallvec![*cond, *a, *b],
            Instr::Accumulator
            | Instr::Param { .. }
            | Instr::Const(_)
            | Instr::Coord { .. }
            | Instr::InRange { .. } => smallvec::SmallVec::new(),
        }
    }
}

impl Instr {
    /// Renumbers the registers that it reads.
    pub fn renumber(&mut self, new: impl FnMut(&mut super::Reg)) {
        match self {
            Instr::Load { indices, .. } => indices.iter_mut().for_each(new),
            Instr::Unary { a, .. } | Instr::Cast { a, .. } | Instr::Reduce { a, .. } => {
                [a].into_iter().for_each(new);
            }
            Instr::Philox { index, .. } | Instr::Normal { index, .. } => [index].into_iter().for_each(new),
            Instr::Binary { a, b, .. } => [a, b].into_iter().for_each(new),
            Instr::Select { cond, a, b } => [cond, a, b].into_iter().for_each(new),
            Instr::Accumulator
            | Instr::Param { .. }
            | Instr::Const(_)
            | Instr::Coord { .. }
            | Instr::InRange { .. } => {}
        }
    }
}

impl Kernel {
    /// The bytes that it reads and writes; each access counts once.
    pub fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        for Touched { access, sizes, is_written } in self.accesses() {
            let moved = if is_written { &mut traffic.written } else { &mut traffic.read };
            *moved = moved.saturating_add(access_bytes(access, &sizes));
        }
        if let Kernel::Scatter(kernel) = self {
            // A scatter writes its whole output, and reads its whole base if there is one.
            traffic.written = (kernel.elements as u64).saturating_mul(kernel.target.dtype.size() as u64);
            let base = if kernel.base.is_some() { traffic.written } else { 0 };
            traffic.read = traffic.read.saturating_add(base);
        }
        traffic
    }

    /// The number of parameters that a launch must give.
    pub fn params(&self) -> usize {
        self.body().map_or(0, |(body, _)| body.params())
    }
}
