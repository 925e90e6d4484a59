//! The instruction lists that the interpreter runs over tiles, and the layout of the lanes' memory.
//!
//! Memory is assigned by liveness, as registers are, so that few results are in use at a time and stay in the
//! first-level cache.

use smallvec::SmallVec;

use super::simd::{Raw, binary, fold, fused, lanes};
use crate::executor::bytes_of;
use crate::kernel::Ty;
use crate::{DType, Error};

/// The operation of one instruction of the interpreter. Operands are numbers of values.
#[derive(Clone, Debug)]
pub enum LaneOp {
    /// A constant of the kernel, as the bits of a register.
    Const(u64),
    /// A parameter of the launch.
    Param { index: usize, ty: Ty },
    /// The seed and the stream of the random generator, four words that begin at parameter `params`.
    Words { params: usize },
    /// The elements that an access addresses.
    Load { access: usize, indices: SmallVec<[(u32, Ty); 1]> },
    /// The coordinates along a dim.
    Coord { coord: usize },
    /// Whether a range check holds.
    InRange { range: usize },
    /// A loop over one operand.
    Unary { run: Raw, a: u32 },
    /// A loop over two operands.
    Binary { run: binary::Forms, a: u32, b: u32 },
    /// Two binary operations on three f32 values in one loop.
    Fused { run: fused::Pairing, operands: [u32; 3] },
    /// `a` where `cond` holds, else `b`.
    Select { run: lanes::Choice, cond: u32, a: u32, b: u32 },
    /// Random numbers.
    Random { run: Raw, index: u32, words: u32 },
    /// Row values, broadcast to the lanes of each row.
    Expand { a: u32 },
    /// Folds lanes, or their products with others, into accumulators.
    Fold { fold: usize, a: u32, factor: Option<u32> },
    /// The results of a fold's accumulators.
    Finish { fold: usize },
    /// Writes lanes to an output, unless they were computed there.
    Store { access: usize, a: u32 },
}

/// An instruction, and the memory of its result.
#[derive(Clone, Debug)]
pub struct Inst {
    /// The operation.
    pub op: LaneOp,
    /// The number of the value that it defines; `u32::MAX` if it defines none.
    pub value: u32,
    /// The bytes of a lane of the result, or of the operand of [`LaneOp::Expand`] and [`LaneOp::Fold`].
    pub width: usize,
    /// An access in whose buffer the result may be computed, because it is stored there unchanged.
    pub direct: Option<usize>,
    /// The slot of lane memory that the result is assigned to.
    slot: usize,
    /// The offset of that slot in the frame's memory.
    pub memory: usize,
}

/// One pass over the elements of a row, and the row's values that are computed before it.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The instructions of row values, which run before the pass.
    pub row: Vec<Inst>,
    /// The stores of row values.
    pub row_stores: Vec<Inst>,
    /// The instructions of the pass, which run over each tile.
    pub element: Vec<Inst>,
    /// The folds that the pass accumulates.
    pub folds: Vec<usize>,
}

/// A fold, and the place of its accumulators in a frame.
#[derive(Clone, Debug)]
pub struct FoldPlace {
    /// The loops of the fold.
    pub fold: fold::FoldLoops,
    /// The offset of its accumulators from the start of the frame's accumulators.
    pub memory: usize,
    /// The offset of its positions.
    pub positions: usize,
}

/// How a program's tiles are laid out.
#[derive(Clone, Copy, Debug)]
pub struct ProgramOptions {
    /// Whether a tile may hold several rows of several elements, so that row values must be broadcast to
    /// lanes.
    pub expand: bool,
    /// Whether all elements of a row fit into one tile, so that their values are kept from pass to pass.
    pub keep: bool,
    /// Whether lanes run along the outer dims of the loop, and the rows of a tile along its inner dims.
    pub column: bool,
}

/// A compiled body.
#[derive(Clone, Debug)]
pub struct CpuProgram {
    /// How its tiles are laid out.
    pub options: ProgramOptions,
    /// The instructions of uniform values, which run once a launch.
    pub uniform: Vec<Inst>,
    /// The passes.
    pub stages: Vec<Stage>,
    /// All folds.
    pub folds: Vec<FoldPlace>,
    /// The number of values.
    pub values: usize,
    /// The lane memory that one lane takes, in bytes.
    pub lane_bytes: usize,
    /// The size of a frame's memory in bytes, set by [`CpuProgram::place`].
    pub memory: usize,
    /// The offset of the accumulators in the frame's memory, and their size in bytes.
    pub accumulators: (usize, usize),
    /// The offsets of the scratch areas, for raw elements, offsets and masks, in the frame's memory.
    pub scratch: [usize; 3],
    /// The number of instructions that run for each element, as a measure of work.
    pub work: usize,
    /// The bytes of a lane in each slot of lane memory.
    slots: Vec<usize>,
}

impl CpuProgram {
    /// The heap memory of its lists, in bytes.
    pub fn bytes(&self) -> usize {
        let stage = |stage: &Stage| {
            let instructions = [&stage.row, &stage.row_stores, &stage.element];
            instructions.into_iter().map(bytes_of).sum::<usize>() + bytes_of(&stage.folds)
        };
        let stages = bytes_of(&self.stages) + self.stages.iter().map(stage).sum::<usize>();
        bytes_of(&self.uniform) + stages + bytes_of(&self.folds) + bytes_of(&self.slots)
    }
}

/// The bytes of a register of this type.
pub const fn width(ty: Ty) -> usize {
    match ty {
        Ty::Bool => 1,
        Ty::U32 | Ty::I32 | Ty::F32 => 4,
        Ty::I64 | Ty::F64 => 8,
    }
}

/// The error for a kernel that breaks the rules of the IR.
pub fn invalid(reason: impl Into<String>) -> Error {
    Error::Kernel { device: "cpu".to_owned(), reason: reason.into() }
}

/// The bits of a number in a register of this type; unused bytes are 0.
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
    /// An instruction without memory so far. `value` is `u32::MAX` if it defines none.
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

/// Assigns each result a slot of lane memory that no live value occupies.
fn allot(program: &mut CpuProgram) {
    let keep = program.options.keep;
    let values = program.values;
    // The lists in order of execution. The element list of a stage is repeated for each tile of a row.
    let mut lists: Vec<&mut Vec<Inst>> = Vec::new();
    for stage in &mut program.stages {
        lists.push(&mut stage.row);
        lists.push(&mut stage.row_stores);
        lists.push(&mut stage.element);
    }
    let mut defined = vec![usize::MAX; values];
    // Each use belongs to the last definition before it. A value that is recomputed in a later pass is
    // defined again in that pass's own list.
    let mut uses: Vec<(usize, usize)> = Vec::new();
    let mut position = 0;
    for (number, list) in lists.iter().enumerate() {
        let start = position;
        let end = start + list.len();
        for inst in list.iter() {
            for operand in inst.operands() {
                let operand = operand as usize;
                let at = defined[operand];
                // A repeated list uses the values that were defined before it until its last repetition ends.
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
            // Operands are released only after the result has its slot, so that a loop never writes where it
            // reads.
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
    /// A program of these lists. `folds` are in the order of their numbers, and all value numbers are below
    /// `values`.
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

    /// Lays out a frame's memory for tiles of up to `lanes` lanes.
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
            // The distance between slots is not a multiple of the page size, so that the same lanes of
            // several slots fall into different cache sets.
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
