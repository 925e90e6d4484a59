//! Writing fused bodies: expressions of the graph become instructions over an index space.

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
pub(crate) enum Stop {
    /// A dim of the space must be split in two first; the inner one gets this size.
    Split(usize, usize),
    /// This operand must be in memory first.
    Store(Ref),
    /// It needs a result of this very kernel at other indices than where it is computed.
    Conflict,
}

/// What is behind a view.
#[allow(clippy::large_enum_variant, reason = "it lives for a moment only")]
enum Through {
    /// What it views, and the map there.
    Base(Ref, Map),
    /// Its value.
    Value(Reg),
}

/// A body that is being written. All of its lists only grow, so that what was written last can be taken back.
pub(crate) struct Body {
    pub(crate) space: Space,
    pub(crate) accesses: Vec<Access>,
    pub(crate) ranges: Vec<Range>,
    pub(crate) instructions: Vec<Instr>,
    pub(crate) stores: Vec<Store>,
    /// Which memory each of the kernel's buffers is.
    pub(crate) slots: Vec<Slot>,
    /// Which of the graph's scalars each parameter is.
    pub(crate) params: Vec<u32>,
    /// The values there are.
    known: Vec<Known>,
    /// The last value there is of each operand.
    last: HashMap<Ref, u32, BuildHasherDefault<WordHasher>>,
    /// The registers of the instructions.
    numbered: HashMap<Instr, Reg, BuildHasherDefault<WordHasher>>,
    /// The steps computed here: not to be loaded.
    pub(crate) members: Vec<u32>,
}

/// The value of an operand at a map.
struct Known {
    operand: Ref,
    map: Map,
    reg: Reg,
    /// The operand's value at another map that was known before.
    before: Option<u32>,
}

/// How long a body's lists were at some time.
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

impl Body {
    pub(crate) fn new(space: Space) -> Body {
        Body {
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

    /// Where writing has come to.
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

    /// Takes back all that was written since the mark.
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

    /// Remembers an operand's value at a map.
    fn remember(&mut self, operand: Ref, map: Map, reg: Reg) {
        let before = self.last.insert(operand, self.known.len() as u32);
        self.known.push(Known { operand, map, reg, before });
    }

    /// The value of an operand at a map, if it was written before.
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

    /// Adds an instruction, unless its value is there already.
    fn push(&mut self, instr: Instr) -> Reg {
        if let Some(&reg) = self.numbered.get(&instr) {
            return reg;
        }
        let reg = self.instructions.len() as Reg;
        self.numbered.insert(instr.clone(), reg);
        self.instructions.push(instr);
        reg
    }

    /// Says that a step's value at a map is this register.
    pub(crate) fn define(&mut self, step: u32, map: Map, reg: Reg) {
        self.remember(Ref::Node(step), map, reg);
    }

    /// The register of a step's value at a map.
    pub(crate) fn lookup(&self, step: u32, map: &Map) -> Option<Reg> {
        self.find(Ref::Node(step), map)
    }

    /// The steps whose values are computed here without being members: recomputed work.
    pub(crate) fn recomputed(&self) -> impl Iterator<Item = u32> + '_ {
        self.known.iter().filter_map(|known| match known.operand {
            Ref::Node(step) if !self.members.contains(&step) => Some(step),
            _ => None,
        })
    }

    /// The steps whose values are computed here, members or not, in the order in which they were made.
    pub(crate) fn steps(&self) -> Vec<u32> {
        let mut steps: Vec<u32> = self.members.iter().copied().chain(self.recomputed()).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Writes an accumulator, an epilogue's first value.
    pub(crate) fn accumulator(&mut self) -> Reg {
        self.push(Instr::Accumulator)
    }

    /// Writes a reduction of a value, rounded to its dtype.
    pub(crate) fn reduce(&mut self, op: wgrad_device::kernel::ReduceOp, a: Reg, dtype: DType) -> Reg {
        let reg = self.push(Instr::Reduce { op, a });
        self.rounded(reg, dtype)
    }

    /// Rounds a computed value to what an element of its dtype holds.
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

    /// The number of an access that is read through.
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

    /// The value of an operand for each index of the space, its own index given by the map.
    pub(crate) fn value(&mut self, facts: &Facts<'_>, operand: Ref, map: Map) -> Result<Reg, Stop> {
        let (mut at, mut map) = (operand, map);
        // Views only change the map; chains of them may be long, so they are followed without recursion.
        loop {
            if let Some(reg) = self.find(at, &map) {
                return Ok(reg);
            }
            if let Ref::Node(step) = at
                && self.members.contains(&step)
            {
                return Err(Stop::Conflict);
            }
            if let Some((slot, layout)) = facts.memory(at) {
                return Ok(self.load(slot, &layout, facts.dtype(at), &map));
            }
            let Ref::Node(step) = at else { return Err(Stop::Conflict) };
            let node = &facts.steps[step as usize];
            if !matches!(node.op, Op::View(_)) {
                let reg = self.compute(facts, step, &map)?;
                self.remember(at, map, reg);
                return Ok(reg);
            }
            match self.through(facts, step, &map)? {
                Through::Base(base, base_map) => (at, map) = (base, base_map),
                Through::Value(reg) => {
                    self.remember(at, map, reg);
                    return Ok(reg);
                }
            }
        }
    }

    /// Goes through a view, given its map.
    fn through(&mut self, facts: &Facts<'_>, step: u32, map: &Map) -> Result<Through, Stop> {
        let node = &facts.steps[step as usize];
        match facts.below(step, map, &self.space.sizes(), |base| self.computes(base)) {
            Ok(Below::Operand(base, map, 0)) => Ok(Through::Base(base, map)),
            Ok(Below::Operand(base, map, added)) => {
                let guards: SmallVec<[_; 1]> = map.guards[map.guards.len() - added..].into();
                let inner = self.value(facts, base, map)?;
                Ok(Through::Value(self.zero_outside(inner, &guards, node.dtype)))
            }
            Ok(Below::Memory(slot, layout)) => Ok(Through::Value(self.load(slot, &layout, node.dtype, map))),
            Err(Obstacle::Split { dim, inner }) => Err(Stop::Split(dim, inner)),
            Err(Obstacle::NotAffine) if self.computes(node.inputs[0]) => Err(Stop::Conflict),
            Err(Obstacle::NotAffine) => Err(Stop::Store(node.inputs[0])),
        }
    }

    fn computes(&self, operand: Ref) -> bool {
        matches!(operand, Ref::Node(step) if self.members.contains(&step))
    }

    fn zero_outside(&mut self, inner: Reg, guards: &[(Affine, usize)], dtype: DType) -> Reg {
        // A guarded load gives 0 on its own.
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

    /// The value of an operation that is computed here.
    pub(crate) fn compute(&mut self, facts: &Facts<'_>, step: u32, map: &Map) -> Result<Reg, Stop> {
        let node = &facts.steps[step as usize];
        let input = |i: usize| node.inputs[i];
        let reg = match &node.op {
            Op::Full(_) => self.param(node.first_scalar, node.dtype),
            Op::Coordinate { dim } => self.affine(&map.axes[*dim]),
            Op::Random { kind, .. } => self.random(facts, step, *kind, map),
            Op::Copy | Op::Store => self.value(facts, input(0), map.clone())?,
            Op::View(_) => match self.through(facts, step, map)? {
                Through::Base(base, map) => self.value(facts, base, map)?,
                Through::Value(reg) => reg,
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
                let mut side = |body: &mut Body, number: bool| {
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
                let (slot, layout) = facts.strided(input(0)).ok_or(Stop::Store(input(0)))?;
                if let Slot::Step(source) = slot
                    && self.members.contains(&source)
                {
                    return Err(Stop::Conflict);
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
            | Op::Sort { .. } => return Err(Stop::Conflict),
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
