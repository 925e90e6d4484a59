//! Compiles the body of a fused loop to instruction lists.
//!
//! Uniform values (the same at every index) are computed once a launch, values of rows once a row, and all
//! others for all lanes of a tile at a time. Each list is straight-line code.

use smallvec::SmallVec;

use super::program::{CpuProgram, FoldPlace, Inst, LaneOp, ProgramOptions, Stage, cell, invalid, width};
use super::simd::{binary, convert, fold, fused, lanes, unary};
use crate::Result;
use crate::kernel::{BinaryOp, Instr, Level, Loop, ReduceOp, Reg, Store, Ty};

/// How often a value is computed: once a launch, once a row, or for each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueScope {
    Uniform,
    Row,
    Element,
}

struct Compiler<'a> {
    kernel: &'a Loop,
    options: ProgramOptions,
    types: Vec<Ty>,
    stages: Vec<usize>,
    places: Vec<ValueScope>,
    needed: Vec<bool>,
    read: Vec<bool>,
    coords: &'a mut Vec<usize>,
    folds: Vec<FoldPlace>,
    /// The number of each reduction's fold.
    fold_of: Vec<usize>,
    /// For each instruction the fused form in which it runs together with one of its operands.
    pairs: Vec<Option<Pair>>,
    /// Whether an instruction runs as a part of its only user.
    absorbed: Vec<bool>,
}

/// Two instructions that run as one.
#[derive(Clone, Copy)]
enum Pair {
    /// Two binary operations on three values.
    Fused(fused::Pairing, [Reg; 3]),
    /// A sum of products.
    Products([Reg; 2]),
}

/// Compiles the body of a checked kernel. The dims of its coordinates are appended to `coords`, in the order
/// in which [`LaneOp::Coord`] numbers them.
pub fn compile(kernel: &Loop, options: ProgramOptions, coords: &mut Vec<usize>) -> Result<CpuProgram> {
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
    let mut places: Vec<ValueScope> = Vec::with_capacity(types.len());
    for (i, instr) in kernel.body.iter().enumerate() {
        let constant = match instr {
            Instr::Load { access, indices } => {
                let access = &kernel.accesses[*access];
                let fixed = access.strides.iter().all(|&s| s == 0) && access.guards.is_empty();
                fixed && indices.is_empty() && !written[access.buffer]
            }
            Instr::Coord { .. } | Instr::InRange { .. } | Instr::Reduce { .. } | Instr::Accumulator => false,
            _ => instr.operands().iter().all(|&r| places[r as usize] == ValueScope::Uniform),
        };
        places.push(match levels[i] {
            _ if constant => ValueScope::Uniform,
            Level::Row => ValueScope::Row,
            Level::Element => ValueScope::Element,
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
    let count = types.len();
    let mut compiler = Compiler {
        kernel,
        options,
        types,
        stages,
        places,
        needed,
        read,
        coords,
        folds: Vec::new(),
        fold_of: vec![usize::MAX; count],
        pairs: vec![None; count],
        absorbed: vec![false; count],
    };
    compiler.pair();
    compiler.run()
}

impl Compiler<'_> {
    /// Finds element instructions that can be fused with their only user.
    fn pair(&mut self) {
        let count = self.types.len();
        let mut uses = vec![0usize; count];
        for i in (0..count).filter(|&i| self.needed[i]) {
            for operand in self.kernel.body[i].operands() {
                uses[operand as usize] += 1;
            }
        }
        for store in &self.kernel.stores {
            uses[store.value as usize] += 1;
        }
        let first = |compiler: &Self, value: Reg| {
            let at = value as usize;
            let free = uses[at] == 1 && !compiler.absorbed[at] && compiler.pairs[at].is_none();
            match compiler.kernel.body[at] {
                Instr::Binary { op, a, b }
                    if free
                        && compiler.places[at] == ValueScope::Element
                        && compiler.types[at] == Ty::F32 =>
                {
                    Some((op, a, b))
                }
                _ => None,
            }
        };
        for i in (0..count).filter(|&i| self.needed[i]) {
            if let Instr::Reduce { op: ReduceOp::Sum, a } = self.kernel.body[i]
                && let Some((BinaryOp::Mul, x, y)) = first(self, a)
            {
                self.pairs[i] = Some(Pair::Products([x, y]));
                self.absorbed[a as usize] = true;
            }
        }
        for i in (0..count).filter(|&i| self.needed[i]) {
            let Instr::Binary { op, a, b } = self.kernel.body[i] else { continue };
            if self.absorbed[i] || self.places[i] != ValueScope::Element || self.types[i] != Ty::F32 {
                continue;
            }
            for (value, other, reversed) in [(a, b, false), (b, a, true)] {
                // If values are kept from pass to pass, both must be computed in the same pass.
                let together = !self.options.keep || self.stages[value as usize] == self.stages[i];
                if let Some((before, x, y)) = first(self, value).filter(|_| together)
                    && let Some(run) = fused::fused(before, op, reversed)
                {
                    self.pairs[i] = Some(Pair::Fused(run, [x, y, other]));
                    self.absorbed[value as usize] = true;
                    break;
                }
            }
        }
    }

    /// The values that an instruction reads; for a fused one, those of both operations.
    fn operands(&self, i: usize) -> SmallVec<[Reg; 3]> {
        match self.pairs[i] {
            Some(Pair::Fused(_, operands)) => operands.into(),
            _ => self.kernel.body[i].operands(),
        }
    }

    fn run(&mut self) -> Result<CpuProgram> {
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
            if self.needed[i] && self.places[i] == ValueScope::Uniform {
                self.emit(i, &mut uniform, None)?;
            } else if let (Instr::Philox { params, .. } | Instr::Normal { params, .. }, true) =
                (&self.kernel.body[i], self.needed[i])
            {
                let value = (2 * count + i) as u32;
                uniform.push(Inst::new(LaneOp::Words { params: *params }, value, 4));
            }
        }
        let last = self.stages.iter().zip(&self.needed).filter(|(_, n)| **n).map(|(&s, _)| s).max();
        let mut stages = Vec::new();
        for stage in 0..=last.unwrap_or(0) {
            let stage = self.stage(stage)?;
            stages.push(stage);
        }
        Ok(CpuProgram::new(self.options, uniform, stages, std::mem::take(&mut self.folds), 3 * count))
    }

    fn stage(&mut self, number: usize) -> Result<Stage> {
        let mut stage = Stage::default();
        let count = self.types.len();
        for i in 0..count {
            if self.needed[i] && self.places[i] == ValueScope::Row && self.stages[i] == number {
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
        // The reductions that this pass feeds, each with one value or with the product of two, and the other
        // values that the pass must compute.
        let feeds = |i: usize| -> Option<(usize, Option<usize>)> {
            match (&kernel.body[i], self.pairs[i]) {
                (Instr::Reduce { .. }, _) if !self.needed[i] || self.stages[i] != number + 1 => None,
                (Instr::Reduce { .. }, Some(Pair::Products([a, b]))) => Some((a as usize, Some(b as usize))),
                (Instr::Reduce { a, .. }, _) => Some((*a as usize, None)),
                _ => None,
            }
        };
        let feeds: Vec<Option<(usize, Option<usize>)>> = (0..count).map(feeds).collect();
        let mut wanted = vec![false; count];
        for i in 0..count {
            for value in feeds[i].into_iter().flat_map(|(a, factor)| std::iter::once(a).chain(factor)) {
                wanted[value] = true;
            }
            if self.options.keep && self.needed[i] && self.stages[i] == number && !self.absorbed[i] {
                wanted[i] = true;
            }
        }
        for store in &stores {
            wanted[store.value as usize] = true;
        }
        for i in (0..count).rev() {
            if wanted[i] && self.places[i] == ValueScope::Element {
                for operand in self.operands(i) {
                    wanted[operand as usize] = true;
                }
            }
        }
        let mut expanded = vec![false; count];
        for i in 0..count {
            let computed_before = self.options.keep && self.stages[i] < number;
            if wanted[i] && self.places[i] == ValueScope::Element && !computed_before {
                for operand in self.operands(i) {
                    self.expand(operand as usize, &mut expanded, &mut stage.element);
                }
                let direct = self.direct(i, number);
                self.emit(i, &mut stage.element, direct)?;
            }
            if let Some((a, factor)) = feeds[i] {
                let fold = self.fold_of[i];
                let width = width(self.types[a]);
                let a = self.expand(a, &mut expanded, &mut stage.element);
                let factor = factor.map(|b| self.expand(b, &mut expanded, &mut stage.element));
                stage.element.push(Inst::new(LaneOp::Fold { fold, a, factor }, u32::MAX, width));
                stage.folds.push(fold);
            }
        }
        for store in row_stores {
            if self.places[store.value as usize] == ValueScope::Element {
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
        Inst::new(LaneOp::Store { access: store.access, a }, u32::MAX, width)
    }

    /// The value number under which element instructions read a value: that of its broadcast to lanes if it
    /// is a row value.
    fn expand(&self, value: usize, expanded: &mut [bool], list: &mut Vec<Inst>) -> u32 {
        if self.places[value] != ValueScope::Row || !self.options.expand {
            return value as u32;
        }
        let lanes = (self.types.len() + value) as u32;
        if !std::mem::replace(&mut expanded[value], true) {
            list.push(Inst::new(LaneOp::Expand { a: value as u32 }, lanes, width(self.types[value])));
        }
        lanes
    }

    /// An access through which this stage stores the value, if the value may be computed in the output
    /// itself.
    fn direct(&self, value: usize, stage: usize) -> Option<usize> {
        if self.stages[value] != stage || matches!(self.kernel.body[value], Instr::Load { .. }) {
            return None;
        }
        let level = if self.places[value] == ValueScope::Row { Level::Row } else { Level::Element };
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
        // Element instructions read a row value through its broadcast to lanes.
        let broadcast = self.options.expand && self.places[i] == ValueScope::Element;
        let operand = |r: &Reg| {
            let row = self.places[*r as usize] == ValueScope::Row;
            if row && broadcast { (count + *r as usize) as u32 } else { *r }
        };
        let op = match &self.kernel.body[i] {
            Instr::Load { access, indices } => {
                let indices = indices.iter().map(|r| (operand(r), ty(*r))).collect();
                LaneOp::Load { access: *access, indices }
            }
            Instr::Accumulator => return Err(invalid("an accumulator outside of a matmul")),
            Instr::Param { index, ty } => LaneOp::Param { index: *index, ty: *ty },
            Instr::Const(value) => LaneOp::Const(cell(value.value(), value.ty())),
            Instr::Coord { dim } => {
                self.coords.push(*dim);
                LaneOp::Coord { coord: self.coords.len() - 1 }
            }
            Instr::InRange { range } => LaneOp::InRange { range: *range },
            Instr::Unary { op, a } => {
                let run = unary::unary(*op, ty(*a))
                    .ok_or_else(|| invalid(format!("{op:?} is not for {:?}", ty(*a))))?;
                LaneOp::Unary { run, a: operand(a) }
            }
            Instr::Binary { .. } if let Some(Pair::Fused(run, operands)) = &self.pairs[i] => {
                LaneOp::Fused { run: *run, operands: [0, 1, 2].map(|k| operand(&operands[k])) }
            }
            Instr::Binary { op, a, b } => {
                let run = binary::binary(*op, ty(*a))
                    .ok_or_else(|| invalid(format!("{op:?} is not for {:?}", ty(*a))))?;
                LaneOp::Binary { run, a: operand(a), b: operand(b) }
            }
            Instr::Select { cond, a, b } => {
                let run = lanes::select(width(ty(*a)));
                LaneOp::Select { run, cond: operand(cond), a: operand(a), b: operand(b) }
            }
            Instr::Cast { a, to } => LaneOp::Unary { run: convert::cast(ty(*a), *to), a: operand(a) },
            instr @ (Instr::Philox { index, params } | Instr::Normal { index, params }) => {
                let words = (2 * count + i) as u32;
                if self.places[i] == ValueScope::Uniform {
                    list.push(Inst::new(LaneOp::Words { params: *params }, words, 4));
                }
                let normal = matches!(instr, Instr::Normal { .. });
                let run = if normal { lanes::normals() } else { lanes::random() };
                LaneOp::Random { run, index: operand(index), words }
            }
            Instr::Reduce { .. } => LaneOp::Finish { fold: self.fold_of[i] },
        };
        let mut inst = Inst::new(op, i as u32, width(self.types[i]));
        inst.direct = direct;
        list.push(inst);
        Ok(())
    }
}
