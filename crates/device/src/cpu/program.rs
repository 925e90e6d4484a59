//! The instruction lists that run over blocks, and the memory that their lanes get.
//!
//! Memory is allotted by liveness, so that few blocks of lanes are in use and stay in the first-level cache.

use smallvec::SmallVec;

use super::simd::{Raw, binary, fold, fused, lanes};
use crate::executor::bytes_of;
use crate::kernel::Ty;
use crate::{DType, Error};

/// What one instruction of the interpreter does. Operands are value numbers.
#[derive(Clone, Debug)]
pub enum LaneOp {
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
    /// Two operations on three values of f32.
    Fused { run: fused::Pairing, operands: [u32; 3] },
    /// A choice.
    Select { run: lanes::Choice, cond: u32, a: u32, b: u32 },
    /// Random bits.
    Random { run: Raw, index: u32, words: u32 },
    /// Row values, once for every lane.
    Expand { a: u32 },
    /// Folds lanes, or their products with others, into accumulators.
    Fold { fold: usize, a: u32, factor: Option<u32> },
    /// The results of accumulators.
    Finish { fold: usize },
    /// Writes lanes to memory, unless they were computed there.
    Store { access: usize, a: u32 },
}

/// An instruction with the place of its result.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What to do.
    pub op: LaneOp,
    /// The number of the value that it makes.
    pub value: u32,
    /// Bytes of a lane of the result, or of the operand of [`LaneOp::Expand`] and [`LaneOp::Fold`].
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
    pub fold: fold::FoldLoops,
    /// Where its accumulators lie, from the start of the frame's accumulators.
    pub memory: usize,
    /// Where its positions lie.
    pub positions: usize,
}

/// How a body is laid out.
#[derive(Clone, Copy, Debug)]
pub struct ProgramOptions {
    /// Whether a tile may hold several rows of several elements, so that row values must be spread over lanes.
    pub expand: bool,
    /// Whether a row's elements all fit in one tile, so that they keep their values from pass to pass.
    pub keep: bool,
    /// Whether the rows of the tile are elements of the loop's rows, and lanes run along its outer dims.
    pub column: bool,
}

/// A compiled body.
#[derive(Clone, Debug)]
pub struct CpuProgram {
    /// How it is laid out.
    pub options: ProgramOptions,
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
    /// Bytes of a frame's memory, after [`CpuProgram::place`].
    pub memory: usize,
    /// Where accumulators start in it, and their bytes.
    pub accumulators: (usize, usize),
    /// Where space for raw elements, offsets and masks starts in it.
    pub scratch: [usize; 3],
    /// Instructions that run for every element, as a measure of work.
    pub work: usize,
    /// Bytes of a lane in each piece of lane memory.
    slots: Vec<usize>,
}

impl CpuProgram {
    /// The bytes of its lists.
    pub fn bytes(&self) -> usize {
        let stage = |stage: &Stage| {
            let instructions = [&stage.row, &stage.row_stores, &stage.element];
            instructions.into_iter().map(bytes_of).sum::<usize>() + bytes_of(&stage.folds)
        };
        let stages = bytes_of(&self.stages) + self.stages.iter().map(stage).sum::<usize>();
        bytes_of(&self.uniform) + stages + bytes_of(&self.folds) + bytes_of(&self.slots)
    }
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
    /// An instruction that has no memory yet; a value of `u32::MAX` for none.
    pub fn new(op: LaneOp, value: u32, width: usize) -> Inst {
        Inst { op, value, width, direct: None, slot: usize::MAX, memory: 0 }
    }

    /// The values that it reads.
    fn operands(&self) -> SmallVec<[u32; 3]> {
        match &self.op {
            LaneOp::Const(_)
            | LaneOp::Param { .. }
            | LaneOp::Words { .. }
            | LaneOp::Coord { .. }
            | LaneOp::InRange { .. }
            | LaneOp::Finish { .. } => SmallVec::new(),
            LaneOp::Load { indices, .. } => indices.iter().map(|&(value, _)| value).collect(),
            LaneOp::Unary { a, .. } | LaneOp::Expand { a } | LaneOp::Store { a, .. } => {
                smallvec::smallvec![*a]
            }
            LaneOp::Fold { a, factor, .. } => std::iter::once(*a).chain(*factor).collect(),
            LaneOp::Fused { operands, .. } => (*operands).into(),
            LaneOp::Binary { a, b, .. } => smallvec::smallvec![*a, *b],
            LaneOp::Select { cond, a, b, .. } => smallvec::smallvec![*cond, *a, *b],
            LaneOp::Random { index, words, .. } => smallvec::smallvec![*index, *words],
        }
    }
}

/// Gives each result a piece of lane memory that no live value has.
fn allot(program: &mut CpuProgram) {
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

impl CpuProgram {
    /// A program of these lists; folds are numbered as they stand, and value numbers are below `values`.
    pub fn new(
        options: ProgramOptions,
        uniform: Vec<Inst>,
        stages: Vec<Stage>,
        folds: Vec<FoldPlace>,
        values: usize,
    ) -> CpuProgram {
        let mut program = CpuProgram {
            options,
            work: stages.iter().map(|s| s.element.len()).sum::<usize>().max(1),
            uniform,
            stages,
            folds,
            values,
            lane_bytes: 0,
            memory: 0,
            accumulators: (0, 0),
            scratch: [0; 3],
            slots: Vec::new(),
        };
        allot(&mut program);
        program
    }

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
