//! What kernels are made of, numbers left out: the forms of loops, the ways in which they reach memory, their instructions and which
//! values these get, their folds; products, scatters, scans and sorts by what decides how they are written.
//!
//! Executors write a kernel from such parts, so a set of kernels that has all parts meets all that an executor can write. A size, a stride
//! or an offset counts only by what executors tell apart: none, one, a multiple of four, some other.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

use wgrad_device::DType;
use wgrad_device::kernel::{
    Access, BinaryOp, Instr, Kernel, Level, Loop, Matmul, ReduceOp, ScatterOp, Ty, UnaryOp,
};

/// A size, as far as executors tell sizes apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Size {
    None,
    One,
    Few,
    /// Whole vectors of four, or so many elements that the last vector may be a part.
    Vectors,
}

/// The step between neighbours along the last dim.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    None,
    One,
    Other,
}

/// How a loop runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Elements { dims: usize, last: Size },
    Rows { stages: usize, many: bool, dims: usize, length: usize },
}

/// An instruction without its operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    Load(DType),
    Accumulator,
    Param(Ty),
    Const(Ty),
    Coord,
    InRange,
    Unary(UnaryOp, Ty),
    Binary(BinaryOp, Ty),
    Select(Ty),
    Cast(Ty, DType),
    Philox,
    Normal,
    Reduce(ReduceOp, Ty),
}

/// A way to reach memory. What is there is loaded by its dtype, wherever guards and indices say that it is: the two are parts by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reach {
    stored: bool,
    step: Option<Step>,
    aligned: bool,
}

/// A part of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Form { epilogue: bool, form: Form },
    Place { rows: bool, reach: Reach, guarded: bool, indexed: usize },
    Element { reach: Reach, dtype: DType },
    Word { word: Word, level: Level, epilogue: bool },
    Operand { word: Word, place: usize, of: Word },
    Fold { op: ReduceOp, ty: Ty, length: usize },
    Product { sizes: [Size; 3], batched: bool },
    Factor { right: bool, dtype: DType, step: Option<Step>, turned: bool, single: bool },
    Scatter { op: ScatterOp, dtype: DType, indices: usize, index: Option<DType>, base: bool },
    Scan { op: ReduceOp, dtype: DType, many: bool, long: bool },
    Sort { dtype: DType, descending: bool, many: bool, whole: bool },
}

/// Parts of kernels, by hashes that are the same in every run, and how many different kernels there were.
#[derive(Clone, Default)]
pub struct Parts {
    pub parts: HashSet<u64>,
    /// Of the parts, what limits on bindings and workgroups change: how a kernel runs and reaches memory, without sizes, and dtypes by
    /// themselves.
    pub forms: HashSet<u64>,
    pub kernels: HashSet<u64>,
}

/// A hash that is the same in every run.
pub fn hash(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

impl Parts {
    /// Adds what a kernel is made of.
    pub fn add(&mut self, kernel: &Kernel) {
        let many = |sizes: &[usize]| sizes.iter().rev().skip(1).any(|&size| size > 1);
        let whole = match kernel {
            Kernel::Loop(kernel) => return self.add_loop(kernel, Ty::F32, false),
            Kernel::Matmul(kernel) => {
                self.add_loop(&kernel.epilogue, kernel.accumulator(), true);
                for factor in factors(kernel) {
                    self.parts.insert(hash(factor));
                    self.kernels.insert(hash(factor));
                }
                product(kernel)
            }
            Kernel::Scatter(kernel) => Part::Scatter {
                op: kernel.op,
                dtype: kernel.source.dtype,
                indices: kernel.indices.len(),
                index: kernel.indices.first().map(|index| index.dtype),
                base: kernel.base.is_some(),
            },
            Kernel::Scan(kernel) => Part::Scan {
                op: kernel.op,
                dtype: kernel.source.dtype,
                many: many(&kernel.sizes),
                long: kernel.sizes.last().is_some_and(|&size| size > 32),
            },
            Kernel::Sort(kernel) => Part::Sort {
                dtype: kernel.source.dtype,
                descending: kernel.descending,
                many: many(&kernel.sizes),
                whole: kernel.sizes.last() == Some(&kernel.count),
            },
        };
        self.parts.insert(hash(whole));
        self.forms.insert(match whole {
            Part::Product { batched, .. } => hash(batched),
            Part::Scatter { op, indices, base, .. } => hash((op, indices, base)),
            Part::Scan { op, many, .. } => hash((op, many)),
            Part::Sort { many, whole, .. } => hash((many, whole)),
            other => hash(other),
        });
        self.kernels.insert(hash(whole));
    }

    fn add_loop(&mut self, kernel: &Loop, accumulator: Ty, epilogue: bool) {
        let (form, types, levels) = (form(kernel), kernel.types(accumulator), kernel.levels());
        let words: Vec<Word> = kernel.body.iter().map(|instr| word(kernel, instr, &types)).collect();
        let rows = match form {
            Form::Elements { .. } => None,
            Form::Rows { stages, many, length, .. } => Some((stages, many, length)),
        };
        let forms = &mut self.forms;
        let mut add = |part: Part| {
            let form = match part {
                Part::Form { epilogue, .. } => Some(hash((rows, epilogue))),
                Part::Place { rows, reach: Reach { stored, step, .. }, guarded, indexed } => {
                    Some(hash((rows, stored, guarded, indexed, step)))
                }
                Part::Element { reach: Reach { stored, .. }, dtype } => Some(hash((dtype, stored))),
                Part::Fold { op, .. } => Some(hash(op)),
                _ => None,
            };
            forms.extend(form);
            _ = self.parts.insert(hash(part));
        };
        add(Part::Form { epilogue, form });
        let mut reaches = Vec::new();
        for (number, access) in kernel.accesses.iter().enumerate() {
            let stored = kernel.stores.iter().any(|store| store.access == number);
            let reach = reach(access, stored);
            let (dtype, guarded, indexed) = (access.dtype, !access.guards.is_empty(), access.indexed.len());
            add(Part::Place { rows: rows.is_some(), reach, guarded, indexed });
            add(Part::Element { reach, dtype });
            reaches.push((
                reach,
                dtype,
                guarded,
                indexed,
                access.strides.iter().map(|&stride| stride == 0).collect::<Vec<_>>(),
            ));
        }
        for ((instr, &word), &level) in kernel.body.iter().zip(&words).zip(&levels) {
            add(Part::Word { word, level, epilogue });
            for (place, of) in instr.operands().into_iter().enumerate() {
                add(Part::Operand { word, place, of: words[of as usize] });
            }
            if let Word::Reduce(op, ty) = word {
                add(Part::Fold { op, ty, length: rows.map_or(0, |(.., length)| length) });
            }
        }
        self.kernels.insert(hash((epilogue, form, reaches, &kernel.body, &kernel.stores)));
    }
}

fn size(n: usize) -> Size {
    match n {
        0 => Size::None,
        1 => Size::One,
        n if n >= 16 || n.is_multiple_of(4) => Size::Vectors,
        _ => Size::Few,
    }
}

fn step(stride: isize) -> Step {
    match stride {
        0 => Step::None,
        1 => Step::One,
        _ => Step::Other,
    }
}

fn form(kernel: &Loop) -> Form {
    let real = |sizes: &[usize]| sizes.iter().filter(|&&size| size != 1).count().min(2);
    let last = size(kernel.sizes.last().copied().unwrap_or(1));
    if !kernel.body.iter().any(|instr| matches!(instr, Instr::Reduce { .. })) {
        return Form::Elements { dims: real(&kernel.sizes), last };
    }
    let (outer, inner) = kernel.sizes.split_at(kernel.outer());
    // Rows are walked by one lane, by a few, by many, or cut.
    let length = match kernel.row_elements() {
        0 => 0,
        1..=8 => 1,
        9..=32 => 2,
        _ => 3,
    };
    let stages = kernel.stages().into_iter().max().unwrap_or(0);
    Form::Rows { stages: stages.min(2), many: real(outer) > 0, dims: real(inner), length }
}

fn reach(access: &Access, stored: bool) -> Reach {
    Reach {
        stored,
        step: access.strides.last().map(|&stride| step(stride)),
        aligned: access.strides.iter().all(|&stride| stride == 1 || stride % 4 == 0),
    }
}

fn word(kernel: &Loop, instr: &Instr, types: &[Ty]) -> Word {
    let ty = |reg: &u32| types[*reg as usize];
    match instr {
        Instr::Load { access, .. } => Word::Load(kernel.accesses[*access].dtype),
        Instr::Accumulator => Word::Accumulator,
        Instr::Param { ty, .. } => Word::Param(*ty),
        Instr::Const(value) => Word::Const(value.ty()),
        Instr::Coord { .. } => Word::Coord,
        Instr::InRange { .. } => Word::InRange,
        Instr::Unary { op, a } => Word::Unary(*op, ty(a)),
        Instr::Binary { op, a, .. } => Word::Binary(*op, ty(a)),
        Instr::Select { a, .. } => Word::Select(ty(a)),
        Instr::Cast { a, to } => Word::Cast(ty(a), *to),
        Instr::Philox { .. } => Word::Philox,
        Instr::Normal { .. } => Word::Normal,
        Instr::Reduce { op, a } => Word::Reduce(*op, ty(a)),
    }
}

fn product(kernel: &Matmul) -> Part {
    let sizes = &kernel.epilogue.sizes;
    let (batch, matrix) = sizes.split_at(sizes.len().saturating_sub(2));
    let of = |n: usize| size(matrix.get(n).copied().unwrap_or(1));
    Part::Product { sizes: [of(0), of(1), size(kernel.k)], batched: batch.iter().any(|&size| size > 1) }
}

/// How a product reads its factors.
fn factors(kernel: &Matmul) -> [Part; 2] {
    let factor = |right: bool, access: &Access, single: bool| {
        let (step, turned) = match access.strides[..] {
            [.., before, last] => (Some(step(last)), before == 1),
            _ => (None, false),
        };
        Part::Factor { right, dtype: access.dtype, step, turned, single }
    };
    [
        factor(false, &kernel.lhs, kernel.lhs_parts.are_single()),
        factor(true, &kernel.rhs, kernel.rhs_parts.are_single()),
    ]
}
