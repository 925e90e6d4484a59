//! From a fused loop's body to the instruction lists that run over blocks.
//!
//! Values that are the same everywhere are computed once a launch, those that belong to rows once a row, the others for
//! all lanes of a tile at a time. Each list is straight-line; memory for lanes is allotted by liveness, so that few
//! blocks stay in the first-level cache.

use smallvec::SmallVec;

use super::simd::{Raw, binary, convert, fold, lanes, unary};
use crate::kernel::{Instr, Level, Loop, Reg, Store, Ty};
use crate::{DType, Error, Result};

/// What one instruction of the interpreter does. Operands are value numbers.
#[derive(Clone, Debug)]
pub enum Op {
    /// A number of the kernel's.
    Const(u64),
    /// A number of the launch's.
    Param { index: usize, ty: Ty },
    /// The four words that a generator's key and stream consist of.
    Words { params: usize },
    /// The elements that an access addresses.
    Load { access: usize, indices: SmallVec<[(u32, Ty); 1]> },
    /// Indices along a dim.
    Coord { coord: usize },
    /// Whether a range check holds.
    InRange { range: usize },
    /// A loop over one operand.
    Unary { run: Raw, a: u32 },
    /// A loop over two.
    Binary { run: binary::Forms, a: u32, b: u32 },
    /// A choice.
    Select { run: lanes::Choice, cond: u32, a: u32, b: u32 },
    /// Random bits.
    Random { run: Raw, index: u32, words: u32 },
    /// Row values, once for every lane.
    Expand { a: u32 },
    /// Folds lanes into accumulators.
    Fold { fold: usize, a: u32 },
    /// The results of accumulators.
    Finish { fold: usize },
    /// Writes lanes to memory, unless they were computed there.
    Store { access: usize, a: u32 },
}

/// An instruction with the place of its result.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What to do.
    pub op: Op,
    /// The number of the value that it makes.
    pub value: u32,
    /// Bytes of a lane of the result, or of the operand of [`Op::Expand`] and [`Op::Fold`].
    pub width: usize,
    /// An access in whose memory the result may be computed right away.
    pub direct: Option<usize>,
    /// Which piece of lane memory the result gets.
    slot: usize,
    /// Where that lies in the frame's memory.
    pub memory: usize,
}

/// What happens between a pass over the row and the next.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Row values known before the pass.
    pub row: Vec<Inst>,
    /// Stores of row values.
    pub row_stores: Vec<Inst>,
    /// The pass.
    pub element: Vec<Inst>,
    /// The folds that it feeds.
    pub folds: Vec<usize>,
}

/// A fold with its place in a frame.
#[derive(Clone, Debug)]
pub struct FoldPlace {
    /// Its loops.
    pub fold: Folded,
    /// Where its accumulators lie, from the start of the frame's accumulators.
    pub memory: usize,
    /// Where its positions lie.
    pub positions: usize,
}

/// The loops of a fold.
pub type Folded = fold::Fold;

/// How a body is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether a tile may hold several rows of several elements, so that row values must be spread over lanes.
    pub expand: bool,
    /// Whether a row's elements all fit in one tile, so that they keep their values from pass to pass.
    pub keep: bool,
    /// Whether the rows of the tile are elements of the loop's rows, and lanes run along its outer dims.
    pub column: bool,
}

/// A compiled body.
#[derive(Clone, Debug)]
pub struct Program {
    /// How it is laid out.
    pub options: Options,
    /// Values that are the same everywhere.
    pub uniform: Vec<Inst>,
    /// The passes.
    pub stages: Vec<Stage>,
    /// All folds.
    pub folds: Vec<FoldPlace>,
    /// Value numbers in use.
    pub values: usize,
    /// Bytes of lane memory, per lane.
    pub lane_bytes: usize,
    /// Bytes of a frame's memory, after [`Program::place`].
    pub memory: usize,
    /// Where accumulators start in it, and their bytes.
    pub accumulators: (usize, usize),
    /// Where space for raw elements, offsets and masks starts in it.
    pub scratch: [usize; 3],
    /// Instructions that run for every element, as a measure of work.
    pub work: usize,
    slots: Vec<usize>,
}

/// Bytes of a register of a type.
pub const fn width(ty: Ty) -> usize {
    match ty {
        Ty::Bool => 1,
        Ty::U32 | Ty::I32 | Ty::F32 => 4,
        Ty::I64 | Ty::F64 => 8,
    }
}

/// The kernel breaks the IR's rules.
pub fn invalid(reason: impl Into<String>) -> Error {
    Error::Kernel { device: "cpu".to_owned(), reason: reason.into() }
}

/// Where a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Uniform,
    Row,
    Element,
}

struct Compiler<'a> {
    kernel: &'a Loop,
    options: Options,
    types: Vec<Ty>,
    stages: Vec<usize>,
    places: Vec<Place>,
    needed: Vec<bool>,
    read: Vec<bool>,
    coords: &'a mut Vec<usize>,
    folds: Vec<FoldPlace>,
    /// The fold of each reduction.
    fold_of: Vec<usize>,
}

/// Compiles the body of a checked kernel. Dims of coordinates are added to `coords` in the order of [`Op::Coord`]'s numbers.
pub fn compile(kernel: &Loop, options: Options, coords: &mut Vec<usize>) -> Result<Program> {
    let buffers = kernel.accesses.iter().map(|a| a.buffer + 1).max().unwrap_or(0);
    let mut read = vec![false; buffers];
    let mut written = vec![false; buffers];
    for instr in &kernel.body {
        if let Instr::Load { access, .. } = instr {
            read[kernel.accesses[*access].buffer] = true;
        }
    }
    for store in &kernel.stores {
        written[kernel.accesses[store.access].buffer] = true;
    }
    let types = kernel.types(Ty::F32);
    let levels = kernel.levels();
    let mut places: Vec<Place> = Vec::with_capacity(types.len());
    for (i, instr) in kernel.body.iter().enumerate() {
        let constant = match instr {
            Instr::Load { access, indices } => {
                let access = &kernel.accesses[*access];
                let fixed = access.strides.iter().all(|&s| s == 0) && access.guards.is_empty();
                fixed && indices.is_empty() && !written[access.buffer]
            }
            Instr::Coord { .. } | Instr::InRange { .. } | Instr::Reduce { .. } | Instr::Accumulator => false,
            _ => instr.operands().iter().all(|&r| places[r as usize] == Place::Uniform),
        };
        places.push(match levels[i] {
            _ if constant => Place::Uniform,
            Level::Row => Place::Row,
            Level::Element => Place::Element,
        });
    }
    let mut needed = vec![false; types.len()];
    for store in &kernel.stores {
        needed[store.value as usize] = true;
    }
    for i in (0..types.len()).rev() {
        if needed[i] {
            for operand in kernel.body[i].operands() {
                needed[operand as usize] = true;
            }
        }
    }
    let stages = kernel.stages();
    let fold_of = vec![usize::MAX; types.len()];
    let mut compiler =
        Compiler { kernel, options, types, stages, places, needed, read, coords, folds: Vec::new(), fold_of };
    compiler.run()
}

/// That operands come first, and that their types fit. Everything else here relies on it.
pub fn check(kernel: &Loop) -> Result<()> {
    for (i, instr) in kernel.body.iter().enumerate() {
        if instr.operands().iter().any(|&r| r as usize >= i) {
            return Err(invalid(format!("instruction {i} reads a value that comes later")));
        }
        let sound = match instr {
            Instr::Load { access, indices } => {
                kernel.accesses.get(*access).is_some_and(|a| a.indexed.len() == indices.len())
            }
            Instr::Coord { dim } => *dim < kernel.sizes.len(),
            Instr::InRange { range } => *range < kernel.ranges.len(),
            Instr::Accumulator => false,
            Instr::Reduce { .. } => kernel.inner > 0,
            _ => true,
        };
        if !sound {
            return Err(invalid(format!("instruction {i} names what the kernel doesn't have: {instr:?}")));
        }
    }
    let rank = kernel.sizes.len();
    let fits = kernel
        .accesses
        .iter()
        .all(|a| a.strides.len() == rank && a.guards.iter().all(|&g| g < kernel.ranges.len()));
    if !fits || kernel.inner > rank || kernel.ranges.iter().any(|r| r.strides.len() != rank) {
        return Err(invalid("an access or range doesn't fit the space"));
    }
    let types = kernel.types(Ty::F32);
    for (i, instr) in kernel.body.iter().enumerate() {
        let ty = |r: &Reg| types[*r as usize];
        let sound = match instr {
            Instr::Load { indices, .. } => indices.iter().all(|r| matches!(ty(r), Ty::I32 | Ty::I64)),
            Instr::Binary { a, b, .. } => ty(a) == ty(b),
            Instr::Select { cond, a, b } => ty(cond) == Ty::Bool && ty(a) == ty(b),
            Instr::Philox { index, .. } => ty(index) == Ty::I32,
            _ => true,
        };
        if !sound {
            return Err(invalid(format!("operands of instruction {i} have the wrong types: {instr:?}")));
        }
    }
    for Store { access, value } in &kernel.stores {
        let access = kernel.accesses.get(*access).ok_or_else(|| invalid("a store without its access"))?;
        let ty = types.get(*value as usize).ok_or_else(|| invalid("a store without its value"))?;
        if Ty::of(access.dtype) != *ty || !access.guards.is_empty() || !access.indexed.is_empty() {
            return Err(invalid(format!("a store of {ty:?} as {} with guards or indices", access.dtype)));
        }
    }
    Ok(())
}

impl Compiler<'_> {
    fn run(&mut self) -> Result<Program> {
        let count = self.types.len();
        for i in 0..count {
            if let (Instr::Reduce { op, a }, true) = (&self.kernel.body[i], self.needed[i]) {
                self.fold_of[i] = self.folds.len();
                let fold = fold::fold(*op, self.types[*a as usize]);
                self.folds.push(FoldPlace { fold, memory: 0, positions: 0 });
            }
        }
        let mut uniform = Vec::new();
        for i in 0..count {
            if self.needed[i] && self.places[i] == Place::Uniform {
                self.emit(i, &mut uniform, None)?;
            } else if let (Instr::Philox { params, .. }, true) = (&self.kernel.body[i], self.needed[i]) {
                let value = (2 * count + i) as u32;
                uniform.push(Inst::new(Op::Words { params: *params }, value, 4));
            }
        }
        let last = self.stages.iter().zip(&self.needed).filter(|(_, n)| **n).map(|(&s, _)| s).max();
        let mut stages = Vec::new();
        for stage in 0..=last.unwrap_or(0) {
            let stage = self.stage(stage)?;
            stages.push(stage);
        }
        let mut program = Program {
            options: self.options,
            work: stages.iter().map(|s| s.element.len()).sum::<usize>().max(1),
            uniform,
            stages,
            folds: std::mem::take(&mut self.folds),
            values: 3 * count,
            lane_bytes: 0,
            memory: 0,
            accumulators: (0, 0),
            scratch: [0; 3],
            slots: Vec::new(),
        };
        allot(&mut program);
        Ok(program)
    }

    fn stage(&mut self, number: usize) -> Result<Stage> {
        let mut stage = Stage::default();
        let count = self.types.len();
        for i in 0..count {
            if self.needed[i] && self.places[i] == Place::Row && self.stages[i] == number {
                let direct = self.direct(i, number);
                self.emit(i, &mut stage.row, direct)?;
            }
        }
        let here = |store: &&Store| self.stages[store.value as usize] == number;
        let by_row =
            |store: &Store| self.kernel.store_level(&self.kernel.accesses[store.access]) == Level::Row;
        let kernel = self.kernel;
        let (row_stores, stores): (Vec<&Store>, Vec<&Store>) =
            kernel.stores.iter().filter(here).partition(|store| by_row(store));
        // The reductions that this pass feeds, and what else it must compute.
        let feeds = |i: usize| match &kernel.body[i] {
            Instr::Reduce { a, .. } if self.needed[i] && self.stages[i] == number + 1 => Some(*a as usize),
            _ => None,
        };
        let mut wanted = vec![false; count];
        for i in 0..count {
            if let Some(a) = feeds(i) {
                wanted[a] = true;
            }
            if self.options.keep && self.needed[i] && self.stages[i] == number {
                wanted[i] = true;
            }
        }
        for store in &stores {
            wanted[store.value as usize] = true;
        }
        for i in (0..count).rev() {
            if wanted[i] && self.places[i] == Place::Element {
                for operand in kernel.body[i].operands() {
                    wanted[operand as usize] = true;
                }
            }
        }
        let mut expanded = vec![false; count];
        let feeds: Vec<Option<usize>> = (0..count).map(feeds).collect();
        for i in 0..count {
            let computed_before = self.options.keep && self.stages[i] < number;
            if wanted[i] && self.places[i] == Place::Element && !computed_before {
                for operand in kernel.body[i].operands() {
                    self.expand(operand as usize, &mut expanded, &mut stage.element);
                }
                let direct = self.direct(i, number);
                self.emit(i, &mut stage.element, direct)?;
            }
            if let Some(a) = feeds[i] {
                let fold = self.fold_of[i];
                let operand = self.expand(a, &mut expanded, &mut stage.element);
                let width = width(self.types[a]);
                stage.element.push(Inst::new(Op::Fold { fold, a: operand }, u32::MAX, width));
                stage.folds.push(fold);
            }
        }
        for store in row_stores {
            if self.places[store.value as usize] == Place::Element {
                return Err(invalid("a store once a row, of a value of the row's elements"));
            }
            stage.row_stores.push(self.store(store, store.value));
        }
        for store in stores {
            let value = self.expand(store.value as usize, &mut expanded, &mut stage.element);
            stage.element.push(self.store(store, value));
        }
        Ok(stage)
    }

    fn store(&self, store: &Store, a: u32) -> Inst {
        let width = width(self.types[store.value as usize]);
        Inst::new(Op::Store { access: store.access, a }, u32::MAX, width)
    }

    /// The number of a value's lanes for instructions of elements.
    fn expand(&self, value: usize, expanded: &mut [bool], list: &mut Vec<Inst>) -> u32 {
        if self.places[value] != Place::Row || !self.options.expand {
            return value as u32;
        }
        let lanes = (self.types.len() + value) as u32;
        if !std::mem::replace(&mut expanded[value], true) {
            list.push(Inst::new(Op::Expand { a: value as u32 }, lanes, width(self.types[value])));
        }
        lanes
    }

    /// An access that this value is stored through in this stage, if it may be computed in that memory.
    fn direct(&self, value: usize, stage: usize) -> Option<usize> {
        if self.stages[value] != stage || matches!(self.kernel.body[value], Instr::Load { .. }) {
            return None;
        }
        let level = if self.places[value] == Place::Row { Level::Row } else { Level::Element };
        let fits = |store: &&Store| {
            let access = &self.kernel.accesses[store.access];
            store.value as usize == value
                && self.kernel.store_level(access) == level
                && convert::store(access.dtype).is_none()
                && !self.read[access.buffer]
        };
        self.kernel.stores.iter().find(fits).map(|store| store.access)
    }

    fn emit(&mut self, i: usize, list: &mut Vec<Inst>, direct: Option<usize>) -> Result<()> {
        let count = self.types.len();
        let ty = |r: Reg| self.types[r as usize];
        // Element instructions read row values through their expansion.
        let spread = self.options.expand && self.places[i] == Place::Element;
        let operand = |r: &Reg| {
            let row = self.places[*r as usize] == Place::Row;
            if row && spread { (count + *r as usize) as u32 } else { *r }
        };
        let op = match &self.kernel.body[i] {
            Instr::Load { access, indices } => {
                let indices = indices.iter().map(|r| (operand(r), ty(*r))).collect();
                Op::Load { access: *access, indices }
            }
            Instr::Accumulator => return Err(invalid("an accumulator outside of a matmul")),
            Instr::Param { index, ty } => Op::Param { index: *index, ty: *ty },
            Instr::Const(value) => Op::Const(cell(value.value(), value.ty())),
            Instr::Coord { dim } => {
                self.coords.push(*dim);
                Op::Coord { coord: self.coords.len() - 1 }
            }
            Instr::InRange { range } => Op::InRange { range: *range },
            Instr::Unary { op, a } => {
                let run = unary::unary(*op, ty(*a))
                    .ok_or_else(|| invalid(format!("{op:?} is not for {:?}", ty(*a))))?;
                Op::Unary { run, a: operand(a) }
            }
            Instr::Binary { op, a, b } => {
                let run = binary::binary(*op, ty(*a))
                    .ok_or_else(|| invalid(format!("{op:?} is not for {:?}", ty(*a))))?;
                Op::Binary { run, a: operand(a), b: operand(b) }
            }
            Instr::Select { cond, a, b } => {
                let run = lanes::select(width(ty(*a)));
                Op::Select { run, cond: operand(cond), a: operand(a), b: operand(b) }
            }
            Instr::Cast { a, to } => Op::Unary { run: convert::cast(ty(*a), *to), a: operand(a) },
            Instr::Philox { index, .. } => {
                let words = (2 * count + i) as u32;
                if self.places[i] == Place::Uniform {
                    let Instr::Philox { params, .. } = &self.kernel.body[i] else { return Ok(()) };
                    list.push(Inst::new(Op::Words { params: *params }, words, 4));
                }
                Op::Random { run: lanes::random(), index: operand(index), words }
            }
            Instr::Reduce { .. } => Op::Finish { fold: self.fold_of[i] },
        };
        let mut inst = Inst::new(op, i as u32, width(self.types[i]));
        inst.direct = direct;
        list.push(inst);
        Ok(())
    }
}

/// A number as a register of a type holds it, in the first bytes of a cell.
pub fn cell(value: crate::Scalar, ty: Ty) -> u64 {
    let dtype = match ty {
        Ty::Bool => DType::Bool,
        Ty::U32 | Ty::I32 => DType::I32,
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
    };
    let bytes = value.to_bytes(dtype);
    let mut cell = [0; 8];
    cell[..bytes.len()].copy_from_slice(&bytes);
    u64::from_ne_bytes(cell)
}

impl Inst {
    fn new(op: Op, value: u32, width: usize) -> Inst {
        Inst { op, value, width, direct: None, slot: usize::MAX, memory: 0 }
    }

    /// The values that it reads.
    fn operands(&self) -> SmallVec<[u32; 3]> {
        match &self.op {
            Op::Const(_)
            | Op::Param { .. }
            | Op::Words { .. }
            | Op::Coord { .. }
            | Op::InRange { .. }
            | Op::Finish { .. } => SmallVec::new(),
            Op::Load { indices, .. } => indices.iter().map(|&(value, _)| value).collect(),
            Op::Unary { a, .. } | Op::Expand { a } | Op::Fold { a, .. } | Op::Store { a, .. } => {
                smallvec::smallvec![*a]
            }
            Op::Binary { a, b, .. } => smallvec::smallvec![*a, *b],
            Op::Select { cond, a, b, .. } => smallvec::smallvec![*cond, *a, *b],
            Op::Random { index, words, .. } => smallvec::smallvec![*index, *words],
        }
    }
}

/// Gives each result a piece of lane memory that no live value has.
fn allot(program: &mut Program) {
    let keep = program.options.keep;
    let values = program.values;
    // In order of execution, with the end of the list that each instruction is repeated with.
    let mut lists: Vec<&mut Vec<Inst>> = Vec::new();
    for stage in &mut program.stages {
        lists.push(&mut stage.row);
        lists.push(&mut stage.row_stores);
        lists.push(&mut stage.element);
    }
    let mut defined = vec![usize::MAX; values];
    // Uses count for the definition before them, which for values that are recomputed is that of their own list.
    let mut uses: Vec<(usize, usize)> = Vec::new();
    let mut position = 0;
    for (number, list) in lists.iter().enumerate() {
        let start = position;
        let end = start + list.len();
        for inst in list.iter() {
            for operand in inst.operands() {
                let operand = operand as usize;
                let at = defined[operand];
                // A list that is repeated needs what was defined before it to its end.
                let repeated = !keep && number % 3 == 2 && at < start;
                if at != usize::MAX {
                    uses.push((at, if repeated { end } else { position }));
                }
            }
            if inst.value != u32::MAX {
                defined[inst.value as usize] = position;
            }
            position += 1;
        }
    }
    let mut ends = vec![0usize; position];
    for &(at, until) in &uses {
        ends[at] = ends[at].max(until);
    }
    let mut slots: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut live: Vec<(usize, usize)> = Vec::new();
    position = 0;
    for list in &mut lists {
        for inst in list.iter_mut() {
            if inst.value != u32::MAX {
                let width = inst.width;
                let slot = match free.iter().position(|&s| slots[s] == width) {
                    Some(at) => free.swap_remove(at),
                    None => {
                        slots.push(width);
                        slots.len() - 1
                    }
                };
                inst.slot = slot;
                live.push((ends[position].max(position), slot));
            }
            // Only after the result has its own place: loops don't write where they read.
            live.retain(|&(until, slot)| {
                if until <= position {
                    free.push(slot);
                }
                until > position
            });
            position += 1;
        }
    }
    program.lane_bytes = slots.iter().sum::<usize>().max(1);
    program.slots = slots;
}

const CELL: usize = 64;

impl Program {
    /// Lays out a frame's memory for tiles of up to this many lanes.
    pub fn place(&mut self, lanes: usize) {
        let round = |bytes: usize| bytes.next_multiple_of(CELL);
        let mut memory = 0;
        for inst in &mut self.uniform {
            inst.memory = memory;
            memory += CELL;
        }
        let mut starts = Vec::with_capacity(self.slots.len());
        for width in &self.slots {
            starts.push(memory);
            // Not a multiple of the page size, so that equal lanes of several slots don't meet in one cache set.
            memory += round(lanes * width) + CELL;
        }
        for stage in &mut self.stages {
            for inst in stage.row.iter_mut().chain(&mut stage.row_stores).chain(&mut stage.element) {
                inst.memory = starts.get(inst.slot).copied().unwrap_or(0);
            }
        }
        for scratch in &mut self.scratch {
            *scratch = memory;
            memory += round(lanes * 8) + CELL;
        }
        let start = memory;
        for fold in &mut self.folds {
            fold.memory = memory - start;
            memory += round(lanes * fold.fold.accumulator);
            fold.positions = memory - start;
            if fold.fold.position {
                memory += round(lanes * 8);
            }
        }
        self.accumulators = (start, memory - start);
        self.memory = memory.max(CELL);
    }
}
