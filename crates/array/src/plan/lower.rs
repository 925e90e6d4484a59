//! Lowering: expressions of the graph become the instructions of a kernel over an index space.
//!
//! The writer does value numbering: an instruction that is already in the body is not written again, so
//! common subexpressions are computed once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use smallvec::{SmallVec, smallvec};
use wgrad_device::kernel::{Access, BinaryOp, Const, IndexedDim, Instr, Range, Reg, Store, Ty};
use wgrad_device::layout::contiguous_strides;
use wgrad_device::{DType, Layout};

use super::facts::{Facts, Slot};
use super::map::{Affine, Map, Obstacle, Space};
use super::views::Below;
use crate::graph::{Ref, WordHasher};
use crate::op::{Op, Operands, RandomKind};

/// Why an expression could not be written into a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LowerError {
    /// This dim of the space must be split in two first, with an inner dim of this size.
    Split(usize, usize),
    /// This operand must be in memory first.
    Store(Ref),
    /// The expression needs a result of this kernel at other indices than those at which the kernel computes
    /// it.
    Conflict,
}

/// What a view leads to.
#[allow(clippy::large_enum_variant, reason = "a short-lived value on the stack")]
enum ViewTarget {
    /// The viewed operand, and the map from the space to its indices.
    Base(Ref, Map),
    /// The register of the view's value, which has been written already.
    Value(Reg),
}

/// Writes a kernel's body. Its lists only grow, so that everything written since a [`Mark`] can be removed
/// again.
pub(crate) struct BodyWriter {
    pub(crate) space: Space,
    pub(crate) accesses: Vec<Access>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) instructions: Vec<Instr>,
    pub(crate) stores: Vec<Store>,
    /// For each of the kernel's buffers, its memory.
    pub(crate) slots: Vec<Slot>,
    /// For each parameter, its position among the graph's scalars.
    pub(crate) params: Vec<u32>,
    /// The operand values that have a register.
    known: Vec<KnownValue>,
    /// For each operand, the position of its latest entry in `known`.
    last: HashMap<Ref, u32, BuildHasherDefault<WordHasher>>,
    /// The register of each instruction, for value numbering.
    numbered: HashMap<Instr, Reg, BuildHasherDefault<WordHasher>>,
    /// The anchors computed by this kernel, which must not be loaded from memory.
    pub(crate) members: Vec<u32>,
}

/// The register that holds the value of an operand at the indices of a map.
struct KnownValue {
    operand: Ref,
    map: Map,
    reg: Reg,
    /// The position of the previous entry for the same operand (at another map).
    before: Option<u32>,
}

/// The lengths of a body's lists at some point of writing.
pub(crate) struct Mark {
    accesses: usize,
    ranges: usize,
    instructions: usize,
    stores: usize,
    slots: usize,
    params: usize,
    known: usize,
    members: usize,
}

impl BodyWriter {
    pub(crate) fn new(space: Space) -> BodyWriter {
        BodyWriter {
            space,
            accesses: Vec::new(),
            ranges: Vec::new(),
            instructions: Vec::new(),
            stores: Vec::new(),
            slots: Vec::new(),
            params: Vec::new(),
            known: Vec::new(),
            last: HashMap::default(),
            numbered: HashMap::default(),
            members: Vec::new(),
        }
    }

    /// The present lengths of the lists.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            accesses: self.accesses.len(),
            ranges: self.ranges.len(),
            instructions: self.instructions.len(),
            stores: self.stores.len(),
            slots: self.slots.len(),
            params: self.params.len(),
            known: self.known.len(),
            members: self.members.len(),
        }
    }

    /// Removes everything that was written since the mark.
    pub(crate) fn take_back(&mut self, mark: &Mark) {
        for instr in self.instructions.drain(mark.instructions..) {
            self.numbered.remove(&instr);
        }
        for known in self.known.drain(mark.known..).rev() {
            match known.before {
                Some(before) => self.last.insert(known.operand, before),
                None => self.last.remove(&known.operand),
            };
        }
        self.accesses.truncate(mark.accesses);
        self.ranges.truncate(mark.ranges);
        self.stores.truncate(mark.stores);
        self.slots.truncate(mark.slots);
        self.params.truncate(mark.params);
        self.members.truncate(mark.members);
    }

    /// Notes the register of an operand's value at a map.
    fn remember(&mut self, operand: Ref, map: Map, reg: Reg) {
        let before = self.last.insert(operand, self.known.len() as u32);
        self.known.push(KnownValue { operand, map, reg, before });
    }

    /// The register of an operand's value at a map, if it has been written.
    fn find(&self, operand: Ref, map: &Map) -> Option<Reg> {
        let mut at = self.last.get(&operand).copied();
        while let Some(place) = at {
            let known = &self.known[place as usize];
            if known.map == *map {
                return Some(known.reg);
            }
            at = known.before;
        }
        None
    }

    /// Adds an instruction unless the body has it already (value numbering), and returns its register.
    fn push(&mut self, instr: Instr) -> Reg {
        if let Some(&reg) = self.numbered.get(&instr) {
            return reg;
        }
        let reg = self.instructions.len() as Reg;
        self.numbered.insert(instr.clone(), reg);
        self.instructions.push(instr);
        reg
    }

    /// Notes the register of a step's value at a map.
    pub(crate) fn define(&mut self, step: u32, map: Map, reg: Reg) {
        self.remember(Ref::Node(step), map, reg);
    }

    /// The register of a step's value at a map.
    pub(crate) fn lookup(&self, step: u32, map: &Map) -> Option<Reg> {
        self.find(Ref::Node(step), map)
    }

    /// The steps that are computed here but are no members: recomputed work.
    pub(crate) fn recomputed(&self) -> impl Iterator<Item = u32> + '_ {
        self.known.iter().filter_map(|known| match known.operand {
            Ref::Node(step) if !self.members.contains(&step) => Some(step),
            _ => None,
        })
    }

    /// All steps computed here, members or not, in topological order.
    pub(crate) fn steps(&self) -> Vec<u32> {
        let mut steps: Vec<u32> = self.members.iter().copied().chain(self.recomputed()).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Writes the accumulator of a matrix product, the value with which its epilogue begins.
    pub(crate) fn accumulator(&mut self) -> Reg {
        self.push(Instr::Accumulator)
    }

    /// Writes a reduction of a value, rounded to its dtype.
    pub(crate) fn reduce(&mut self, op: wgrad_device::kernel::ReduceOp, a: Reg, dtype: DType) -> Reg {
        let reg = self.push(Instr::Reduce { op, a });
        self.rounded(reg, dtype)
    }

    /// Rounds a computed value to the precision of an element of its dtype.
    pub(crate) fn rounded(&mut self, reg: Reg, dtype: DType) -> Reg {
        if dtype.is_half() || dtype == DType::U8 { self.push(Instr::Cast { a: reg, to: dtype }) } else { reg }
    }

    fn slot(&mut self, slot: Slot) -> usize {
        self.slots.iter().position(|&s| s == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        })
    }

    /// An access at a map of memory with this layout.
    fn access(&mut self, slot: Slot, dtype: DType, address: &Affine, guards: &[(Affine, usize)]) -> Access {
        let rank = self.space.sizes().len();
        let guards = guards.iter().map(|(value, size)| self.range(value, *size, rank)).collect();
        let buffer = self.slot(slot);
        let strides = address.strides(rank);
        Access {
            buffer,
            dtype,
            strides,
            offset: address.offset,
            guards,
            indexed: SmallVec::new(),
            partial: false,
        }
    }

    fn range(&mut self, value: &Affine, size: usize, rank: usize) -> usize {
        let range = Range { strides: value.strides(rank), offset: value.offset, size };
        self.ranges.iter().position(|r| *r == range).unwrap_or_else(|| {
            self.ranges.push(range);
            self.ranges.len() - 1
        })
    }

    fn load(&mut self, slot: Slot, layout: &Layout, dtype: DType, map: &Map) -> Reg {
        let address = map.address(layout.strides(), layout.offset());
        let access = self.access(slot, dtype, &address, &map.guards);
        let access = self.reading(access);
        self.push(Instr::Load { access, indices: SmallVec::new() })
    }

    /// The position of this access for reading; it is added unless it is there.
    fn reading(&mut self, access: Access) -> usize {
        let stored = |at: usize| self.stores.iter().any(|store| store.access == at);
        let known = self.accesses.iter().enumerate().position(|(at, a)| *a == access && !stored(at));
        known.unwrap_or_else(|| {
            self.accesses.push(access);
            self.accesses.len() - 1
        })
    }

    /// Writes a step's value to its memory, dense in the step's shape.
    pub(crate) fn store(&mut self, facts: &Facts<'_>, step: u32, map: &Map, value: Reg) {
        let shape = &facts.steps[step as usize].shape;
        let address = map.address(&contiguous_strides(shape), 0);
        let access = self.access(Slot::Step(step), facts.steps[step as usize].dtype, &address, &[]);
        self.accesses.push(access);
        self.stores.push(Store { access: self.accesses.len() - 1, value });
    }

    fn param(&mut self, scalar: usize, dtype: DType) -> Reg {
        let index = self.param_index(scalar as u32);
        self.push(Instr::Param { index, ty: Ty::of(dtype) })
    }

    fn param_index(&mut self, scalar: u32) -> usize {
        self.params.iter().position(|&p| p == scalar).unwrap_or_else(|| {
            self.params.push(scalar);
            self.params.len() - 1
        })
    }

    fn constant(&mut self, value: i64, ty: Ty) -> Reg {
        self.push(Instr::Const(Const::new(value, ty)))
    }

    /// An affine value as I32.
    fn affine(&mut self, value: &Affine) -> Reg {
        let mut sum = self.constant(value.offset as i64, Ty::I32);
        for &(dim, coefficient) in &value.terms {
            let mut term = self.push(Instr::Coord { dim });
            if coefficient != 1 {
                let factor = self.constant(coefficient as i64, Ty::I32);
                term = self.push(Instr::Binary { op: BinaryOp::Mul, a: term, b: factor });
            }
            sum = self.push(Instr::Binary { op: BinaryOp::Add, a: sum, b: term });
        }
        sum
    }

    /// The value of an operand for each index of the space; the map leads from there to the operand's index.
    pub(crate) fn value(&mut self, facts: &Facts<'_>, operand: Ref, map: Map) -> Result<Reg, LowerError> {
        let (mut at, mut map) = (operand, map);
        // A view only changes the map. Chains of views may be long, so they are followed in a loop.
        loop {
            if let Some(reg) = self.find(at, &map) {
                return Ok(reg);
            }
            if let Ref::Node(step) = at
                && self.members.contains(&step)
            {
                return Err(LowerError::Conflict);
            }
            if let Some((slot, layout)) = facts.memory(at) {
                return Ok(self.load(slot, &layout, facts.dtype(at), &map));
            }
            let Ref::Node(step) = at else { return Err(LowerError::Conflict) };
            let node = &facts.steps[step as usize];
            if !matches!(node.op, Op::View(_)) {
                let reg = self.compute(facts, step, &map)?;
                self.remember(at, map, reg);
                return Ok(reg);
            }
            match self.through(facts, step, &map)? {
                ViewTarget::Base(base, base_map) => (at, map) = (base, base_map),
                ViewTarget::Value(reg) => {
                    self.remember(at, map, reg);
                    return Ok(reg);
                }
            }
        }
    }

    /// Follows a view by one step.
    fn through(&mut self, facts: &Facts<'_>, step: u32, map: &Map) -> Result<ViewTarget, LowerError> {
        let node = &facts.steps[step as usize];
        match facts.below(step, map, &self.space.sizes(), |base| self.computes(base)) {
            Ok(Below::Operand(base, map, 0)) => Ok(ViewTarget::Base(base, map)),
            Ok(Below::Operand(base, map, added)) => {
                let guards: SmallVec<[_; 1]> = map.guards[map.guards.len() - added..].into();
                let inner = self.value(facts, base, map)?;
                Ok(ViewTarget::Value(self.zero_outside(inner, &guards, node.dtype)))
            }
            Ok(Below::Memory(slot, layout)) => {
                Ok(ViewTarget::Value(self.load(slot, &layout, node.dtype, map)))
            }
            Err(Obstacle::Split { dim, inner }) => Err(LowerError::Split(dim, inner)),
            Err(Obstacle::NotAffine) if self.computes(node.inputs[0]) => Err(LowerError::Conflict),
            Err(Obstacle::NotAffine) => Err(LowerError::Store(node.inputs[0])),
        }
    }

    fn computes(&self, operand: Ref) -> bool {
        matches!(operand, Ref::Node(step) if self.members.contains(&step))
    }

    fn zero_outside(&mut self, inner: Reg, guards: &[(Affine, usize)], dtype: DType) -> Reg {
        // A load whose guards fail yields 0 already.
        if guards.is_empty() || matches!(self.instructions[inner as usize], Instr::Load { .. }) {
            return inner;
        }
        let rank = self.space.sizes().len();
        let mut inside = None;
        for (value, size) in guards {
            let range = self.range(value, *size, rank);
            let check = self.push(Instr::InRange { range });
            inside = Some(match inside {
                None => check,
                Some(before) => self.push(Instr::Binary { op: BinaryOp::And, a: before, b: check }),
            });
        }
        let zero = self.constant(0, Ty::of(dtype));
        match inside {
            Some(cond) => self.push(Instr::Select { cond, a: inner, b: zero }),
            None => inner,
        }
    }

    /// Writes the computation of a step.
    pub(crate) fn compute(&mut self, facts: &Facts<'_>, step: u32, map: &Map) -> Result<Reg, LowerError> {
        let node = &facts.steps[step as usize];
        let input = |i: usize| node.inputs[i];
        let reg = match &node.op {
            Op::Full(_) => self.param(node.first_scalar, node.dtype),
            Op::Coordinate { dim } => self.affine(&map.axes[*dim]),
            Op::Random { kind, .. } => self.random(facts, step, *kind, map),
            Op::Copy | Op::Store => self.value(facts, input(0), map.clone())?,
            Op::View(_) => match self.through(facts, step, map)? {
                ViewTarget::Base(base, map) => self.value(facts, base, map)?,
                ViewTarget::Value(reg) => reg,
            },
            Op::Unary(op) => {
                let a = self.value(facts, input(0), map.clone())?;
                let reg = self.push(Instr::Unary { op: *op, a });
                self.rounded(reg, node.dtype)
            }
            Op::Binary(op, operands) => {
                let a = match operands {
                    Operands::ScalarArray(_) => self.param(node.first_scalar, facts.dtype(input(0))),
                    _ => self.value(facts, input(0), map.clone())?,
                };
                let b = match operands {
                    Operands::Arrays => self.value(facts, input(1), map.clone())?,
                    Operands::ScalarArray(_) => self.value(facts, input(0), map.clone())?,
                    Operands::ArrayScalar(_) => self.param(node.first_scalar, facts.dtype(input(0))),
                };
                let reg = self.push(Instr::Binary { op: *op, a, b });
                self.rounded(reg, node.dtype)
            }
            Op::Select(a, b) => {
                let cond = self.value(facts, input(0), map.clone())?;
                let mut next = 1;
                let mut scalar = node.first_scalar;
                let mut side = |body: &mut BodyWriter, number: bool| {
                    if number {
                        scalar += 1;
                        Ok(body.param(scalar - 1, node.dtype))
                    } else {
                        next += 1;
                        body.value(facts, input(next - 1), map.clone())
                    }
                };
                let a = side(self, a.is_some())?;
                let b = side(self, b.is_some())?;
                self.push(Instr::Select { cond, a, b })
            }
            Op::Cast => {
                let a = self.value(facts, input(0), map.clone())?;
                self.push(Instr::Cast { a, to: node.dtype })
            }
            Op::Gather { dim, name, .. } => {
                let (slot, layout) = facts.strided(input(0)).ok_or(LowerError::Store(input(0)))?;
                if let Slot::Step(source) = slot
                    && self.members.contains(&source)
                {
                    return Err(LowerError::Conflict);
                }
                let index = self.value(facts, input(1), map.clone())?;
                let mut strides = contiguous_strides(layout.shape());
                strides.copy_from_slice(layout.strides());
                let stride = std::mem::take(&mut strides[*dim]);
                let address = map.address(&strides, layout.offset());
                let mut access = self.access(slot, node.dtype, &address, &map.guards);
                access.indexed = smallvec![IndexedDim { stride, size: layout.shape()[*dim], op: name }];
                let access = self.reading(access);
                self.push(Instr::Load { access, indices: smallvec![index] })
            }
            Op::Reduce { .. }
            | Op::Matmul
            | Op::Scatter { .. }
            | Op::Update { .. }
            | Op::Scan { .. }
            | Op::Sort { .. } => return Err(LowerError::Conflict),
        };
        Ok(reg)
    }

    fn random(&mut self, facts: &Facts<'_>, step: u32, kind: RandomKind, map: &Map) -> Reg {
        let node = &facts.steps[step as usize];
        let number = map.address(&contiguous_strides(&node.shape), 0);
        let index = self.affine(&number);
        let params = self.params.len();
        self.params.extend((0..4).map(|i| (node.first_scalar + i) as u32));
        match kind {
            RandomKind::Normal => self.push(Instr::Normal { index, params }),
            RandomKind::Bits => {
                let word = self.push(Instr::Philox { index, params });
                self.push(Instr::Cast { a: word, to: DType::I64 })
            }
            RandomKind::Uniform => {
                let word = self.push(Instr::Philox { index, params });
                let eight = self.constant(8, Ty::U32);
                let upper = self.push(Instr::Binary { op: BinaryOp::Shr, a: word, b: eight });
                let number = self.push(Instr::Cast { a: upper, to: DType::F32 });
                let unit = self.push(Instr::Const(Const::new(f64::from(2.0f32.powi(-24)), Ty::F32)));
                self.push(Instr::Binary { op: BinaryOp::Mul, a: number, b: unit })
            }
        }
    }
}
