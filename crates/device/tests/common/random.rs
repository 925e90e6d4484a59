//! Random kernels that keep the guarantees of the IR.

use smallvec::smallvec;
use wgrad_device::kernel::{
    Access, BinaryOp, Const, IndexedDim, Instr, Level, Loop, Range, ReduceOp, Reg, Store, Ty, UnaryOp,
};
use wgrad_device::{DType, Scalar};

/// A small random generator with a fixed sequence.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The bytes of random elements, which are small numbers that every float dtype represents exactly.
pub fn elements(rng: &mut Rng, dtype: DType, n: usize) -> Vec<u8> {
    (0..n)
        .flat_map(|_| {
            let small = rng.below(49) as i64 - 24;
            match dtype {
                DType::Bool => Scalar::Bool(small > 0),
                DType::U8 => Scalar::Int(small.abs()),
                DType::I32 | DType::I64 => Scalar::Int(small),
                _ => Scalar::Float(small as f64 / 8.0),
            }
            .to_bytes(dtype)
        })
        .collect()
}

/// Strides and an offset under which the dims that are not expanded address distinct places, with dims in any
/// order, some flipped and some with gaps; and the number of elements that the buffer needs.
pub fn layout(rng: &mut Rng, sizes: &[usize], expand: &[bool], plain: bool) -> (Vec<isize>, isize, usize) {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    if !plain {
        rng.shuffle(&mut order);
    } else {
        order.reverse();
    }
    let mut strides = vec![0isize; sizes.len()];
    let (mut offset, mut span) = (0isize, 1usize);
    for dim in order {
        if sizes[dim] <= 1 || expand[dim] {
            continue;
        }
        let step = span * if !plain && rng.chance(6) { 2 } else { 1 };
        strides[dim] = step as isize;
        if !plain && rng.chance(6) {
            strides[dim] = -(step as isize);
            offset += (step * (sizes[dim] - 1)) as isize;
        }
        span = step * sizes[dim];
    }
    if !plain && rng.chance(4) {
        offset += 3;
        span += 3;
    }
    (strides, offset, span)
}

/// A random loop with the contents of its buffers.
pub struct Case {
    pub kernel: Loop,
    pub buffers: Vec<Vec<u8>>,
    pub dtypes: Vec<DType>,
    pub params: Vec<Scalar>,
}

/// Facts about a value while a body is generated.
#[derive(Clone, Copy)]
struct Known {
    ty: Ty,
    /// Whether the value is exact, so that comparisons and roundings of it have one right answer.
    exact: bool,
    /// A bound of the magnitude of a float.
    bound: f64,
}

pub struct Builder<'a> {
    rng: &'a mut Rng,
    case: Case,
    known: Vec<Known>,
}

/// A random loop over these sizes.
pub fn case(rng: &mut Rng, sizes: &[usize], inner: usize, dtypes: &[DType]) -> Case {
    let kernel =
        Loop { sizes: sizes.into(), inner, accesses: vec![], ranges: vec![], body: vec![], stores: vec![] };
    let case = Case { kernel, buffers: vec![], dtypes: vec![], params: vec![] };
    let mut builder = Builder { rng, case, known: vec![] };
    for _ in 0..1 + builder.rng.below(3) {
        let dtype = builder.rng.pick(dtypes);
        builder.load(dtype);
    }
    for _ in 0..2 + builder.rng.below(10) {
        builder.grow();
    }
    let stores = 1 + builder.rng.below(3);
    for number in 0..stores {
        builder.store(number == 0);
    }
    builder.case
}

impl Builder<'_> {
    fn push(&mut self, instr: Instr, ty: Ty, exact: bool, bound: f64) -> Reg {
        self.case.kernel.body.push(instr);
        self.known.push(Known { ty, exact, bound });
        self.known.len() as Reg - 1
    }

    fn buffer(&mut self, dtype: DType, contents: Vec<u8>) -> usize {
        self.case.buffers.push(contents);
        self.case.dtypes.push(dtype);
        self.case.buffers.len() - 1
    }

    fn load(&mut self, dtype: DType) {
        let sizes = self.case.kernel.sizes.to_vec();
        let outer = self.case.kernel.outer();
        let mut expand = vec![false; sizes.len()];
        match self.rng.below(6) {
            0 => expand[outer..].fill(true),
            1 => expand[..outer].fill(true),
            2 => expand.iter_mut().for_each(|e| *e = self.rng.chance(2)),
            _ => {}
        }
        let plain = self.rng.chance(2);
        let (strides, offset, span) = layout(self.rng, &sizes, &expand, plain);
        let contents = elements(self.rng, dtype, span);
        let buffer = self.buffer(dtype, contents);
        let mut access = Access::new(buffer, dtype, &strides, offset);
        let mut indices = smallvec![];
        let steps: Vec<usize> = (0..sizes.len()).filter(|&d| strides[d] != 0).collect();
        if !steps.is_empty() && self.rng.chance(4) {
            // Reads that are shifted along a dim, with zeros outside of the buffer.
            let dim = self.rng.pick(&steps);
            let shift = self.rng.below(2 * sizes[dim] + 1) as isize - sizes[dim] as isize;
            let mut along: wgrad_device::layout::Strides = smallvec![0; sizes.len()];
            along[dim] = 1;
            self.case.kernel.ranges.push(Range { strides: along, offset: shift, size: sizes[dim] });
            access.guards.push(self.case.kernel.ranges.len() - 1);
            access.offset += shift * strides[dim];
        } else if !steps.is_empty() && self.rng.chance(5) {
            // The index along a dim is given by a value, which is loaded itself or is the reversed
            // coordinate.
            let dim = self.rng.pick(&steps);
            let size = sizes[dim];
            let coord = self.push(Instr::Coord { dim }, Ty::I32, true, 0.0);
            let last = self.push(Instr::Const(Const::new(size as i64 - 1, Ty::I32)), Ty::I32, true, 0.0);
            let index = self.push(Instr::Binary { op: BinaryOp::Sub, a: last, b: coord }, Ty::I32, true, 0.0);
            let index = if self.rng.chance(2) {
                let table: Vec<u8> =
                    (0..size).flat_map(|_| (self.rng.below(size) as i64).to_le_bytes()).collect();
                let buffer = self.buffer(DType::I64, table);
                let zeros = vec![0; sizes.len()];
                let mut lookup = Access::new(buffer, DType::I64, &zeros, 0);
                lookup.indexed.push(IndexedDim { stride: 1, size, op: "lookup" });
                self.case.kernel.accesses.push(lookup);
                let access = self.case.kernel.accesses.len() - 1;
                self.push(Instr::Load { access, indices: smallvec![index] }, Ty::I64, true, 0.0)
            } else {
                index
            };
            let stride = access.strides[dim];
            access.strides[dim] = 0;
            access.indexed.push(IndexedDim { stride, size, op: "index" });
            indices.push(index);
        }
        self.case.kernel.accesses.push(access);
        let access = self.case.kernel.accesses.len() - 1;
        self.push(Instr::Load { access, indices }, Ty::of(dtype), true, 24.0);
    }

    fn value(&mut self, want: impl Fn(&Known) -> bool) -> Option<Reg> {
        let all: Vec<Reg> =
            (0..self.known.len()).filter(|&i| want(&self.known[i])).map(|i| i as Reg).collect();
        if all.is_empty() { None } else { Some(self.rng.pick(&all)) }
    }

    /// Adds a random instruction, if there are operands for it.
    fn grow(&mut self) {
        use BinaryOp::*;
        let rank = self.case.kernel.sizes.len();
        match self.rng.below(12) {
            0..=3 => self.grow_arithmetic(),
            4 => {
                let Some(a) = self.value(|v| v.exact) else { return };
                let ty = self.known[a as usize].ty;
                let Some(b) = self.value(|v| v.exact && v.ty == ty) else { return };
                let op = self.rng.pick(&[Eq, Ne, Lt, Le, Gt, Ge]);
                self.push(Instr::Binary { op, a, b }, Ty::Bool, true, 0.0);
            }
            5 => {
                let Some(cond) = self.value(|v| v.ty == Ty::Bool) else { return };
                let Some(a) = self.value(|_| true) else { return };
                let Known { ty, exact, bound } = self.known[a as usize];
                let Some(b) = self.value(|v| v.ty == ty) else { return };
                let other = self.known[b as usize];
                self.push(Instr::Select { cond, a, b }, ty, exact && other.exact, bound.max(other.bound));
            }
            6..=7 => self.grow_function(),
            8 => {
                let Some(a) = self.value(|v| v.exact) else { return };
                let bound = self.known[a as usize].bound;
                let is_float = self.known[a as usize].ty.is_float();
                let to = self.rng.pick(&DType::ALL);
                // Integers may be huge, and are then inexact as floats.
                if !to.is_float() || is_float {
                    let exact = !to.is_half();
                    self.push(Instr::Cast { a, to }, Ty::of(to), exact, bound);
                }
            }
            9 if rank > 0 => {
                let dim = self.rng.below(rank);
                self.push(Instr::Coord { dim }, Ty::I32, true, 0.0);
            }
            10 => {
                let ty = self.rng.pick(&[Ty::F32, Ty::I32, Ty::F64]);
                let number = self.rng.below(9) as i64 - 4;
                if self.rng.chance(2) {
                    self.push(Instr::Const(Const::new(number, ty)), ty, true, 4.0);
                } else {
                    self.case.params.push(Scalar::Int(number));
                    let index = self.case.params.len() - 1;
                    self.push(Instr::Param { index, ty }, ty, true, 4.0);
                }
            }
            _ if self.case.kernel.inner > 0 => self.reduce(),
            _ => {}
        }
    }

    /// Adds an operation on two numbers of one type.
    fn grow_arithmetic(&mut self) {
        use BinaryOp::*;
        let Some(a) = self.value(|v| v.ty != Ty::Bool) else { return };
        let Known { ty, exact, bound } = self.known[a as usize];
        let Some(b) = self.value(|v| v.ty == ty) else { return };
        let other = self.known[b as usize];
        let exact = exact && other.exact;
        let (op, bound) = if ty.is_float() {
            match self.rng.below(5) {
                0 => (Add, bound + other.bound),
                1 => (Sub, bound + other.bound),
                2 => (Mul, bound * other.bound),
                3 => (Max, bound.max(other.bound)),
                _ => (Min, bound.max(other.bound)),
            }
        } else {
            let all = [Add, Sub, Mul, Div, Rem, Pow, Max, Min, And, Or, Xor, Shl, Shr];
            (self.rng.pick(&all), 0.0)
        };
        if bound < 1e4 {
            // Sums and products of inexact values are inexact, and large ones of exact values may be rounded.
            let exact = exact && (bound < 1e3 || matches!(op, Max | Min));
            self.push(Instr::Binary { op, a, b }, ty, exact && bound < 600.0, bound);
        }
    }

    /// Adds a function of a float.
    fn grow_function(&mut self) {
        let Some(a) = self.value(|v| v.ty.is_float()) else { return };
        let Known { ty, bound, exact } = self.known[a as usize];
        use UnaryOp::*;
        let (op, result, exact) = match self.rng.below(9) {
            0 => (Neg, bound, exact),
            1 => (Abs, bound, exact),
            2 => (Tanh, 1.0, false),
            3 => (Sigmoid, 1.0, false),
            4 => (Erf, 1.0, false),
            5 if bound < 25.0 => (Sin, 1.0, false),
            6 if bound < 4.0 => (Exp, bound.exp(), false),
            7 if exact => (Floor, bound, true),
            8 if exact => (Sign, 1.0, true),
            _ => (Neg, bound, exact),
        };
        self.push(Instr::Unary { op, a }, ty, exact, result);
    }

    fn reduce(&mut self) {
        let elements = self.case.kernel.row_elements();
        let Some(a) = self.value(|_| true) else { return };
        let Known { ty, exact, bound } = self.known[a as usize];
        let mut ops = vec![];
        if ty != Ty::Bool {
            ops.push(ReduceOp::Sum);
        }
        if ty == Ty::I32 || ty == Ty::I64 {
            ops.push(ReduceOp::Prod);
        }
        if elements > 0 {
            ops.extend([ReduceOp::Max, ReduceOp::Min]);
            if exact {
                ops.extend([ReduceOp::ArgMax, ReduceOp::ArgMin]);
            }
        }
        if ops.is_empty() {
            return;
        }
        let op = self.rng.pick(&ops);
        let (exact, bound) = match op {
            // The result is scaled down, so that tolerances are relative to 1.
            ReduceOp::Sum if ty.is_float() => (false, bound * elements.max(1) as f64),
            _ => (exact, bound),
        };
        let sum = self.push(Instr::Reduce { op, a }, op.result(ty), exact, bound);
        if op == ReduceOp::Sum && ty.is_float() {
            let scale = 1.0 / elements.max(1) as f64;
            let scale = self.push(Instr::Const(Const::new(scale, ty)), ty, false, scale);
            self.push(
                Instr::Binary { op: BinaryOp::Mul, a: sum, b: scale },
                ty,
                false,
                bound * 1.0_f64.min(scale as f64 + 1.0),
            );
        }
    }

    fn store(&mut self, last: bool) {
        let count = self.known.len();
        let value = if last { count - 1 } else { self.rng.below(count) };
        let kernel = &self.case.kernel;
        let by_row = kernel.inner > 0 && kernel.levels()[value] == Level::Row;
        let spread = by_row && self.rng.chance(3);
        let outer = kernel.outer();
        let sizes = kernel.sizes.to_vec();
        let mut expand = vec![false; sizes.len()];
        if by_row && !spread {
            expand[outer..].fill(true);
        } else if kernel.inner > 0 && sizes[outer..].iter().product::<usize>() <= 1 && !by_row {
            // An access with stride 0 along all inner dims stores values of rows only.
            return;
        }
        let dtype = match self.known[value].ty {
            Ty::Bool => DType::Bool,
            Ty::I32 => self.rng.pick(&[DType::I32, DType::U8]),
            Ty::I64 => DType::I64,
            Ty::F32 => self.rng.pick(&[DType::F32, DType::F32, DType::F16, DType::BF16]),
            Ty::F64 => DType::F64,
            Ty::U32 => return,
        };
        let plain = self.rng.chance(2);
        let (strides, offset, span) = layout(self.rng, &sizes, &expand, plain);
        let buffer = self.buffer(dtype, vec![0; span * dtype.size()]);
        self.case.kernel.accesses.push(Access::new(buffer, dtype, &strides, offset));
        let access = self.case.kernel.accesses.len() - 1;
        self.case.kernel.stores.push(Store { access, value: value as Reg });
    }
}
