//! Tests of fused loops on every adapter against the reference interpreter, with random kernels from fixed
//! seeds.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{Random, check, devices, hardware, lowered, smallest};
use smallvec::smallvec;
use wgrad_device::kernel::{
    Access, BinaryOp, Const, IndexedDim, Instr, Kernel, Loop, Range, ReduceOp, Reg, Store, Ty, UnaryOp,
};
use wgrad_device::layout::{Dims, Strides};
use wgrad_device::{DType, Device, DeviceOptions, Element, Scalar};

const DTYPES: [DType; 7] =
    [DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64, DType::U8, DType::Bool];
/// The dtypes of loops in f64. Those that lose digits are left out, so that results agree in nearly all
/// digits.
const WIDE: [DType; 5] = [DType::F64, DType::I32, DType::I64, DType::U8, DType::Bool];

/// A random loop with the contents of its buffers.
struct Case {
    kernel: Loop,
    contents: Vec<Vec<u8>>,
    dtypes: Vec<DType>,
    params: Vec<Scalar>,
}

struct Builder<'r> {
    random: &'r mut Random,
    kernel: Loop,
    contents: Vec<Vec<u8>>,
    dtypes: Vec<DType>,
    params: Vec<Scalar>,
    types: Vec<Ty>,
    /// The dtypes of elements; the first is that of floats.
    pool: &'r [DType],
}

impl Builder<'_> {
    fn push(&mut self, instr: Instr) -> Reg {
        self.kernel.body.push(instr);
        self.types = self.kernel.types(Ty::F32);
        (self.kernel.body.len() - 1) as Reg
    }

    fn buffer(&mut self, dtype: DType, elements: usize) -> usize {
        self.contents.push(self.random.bytes(dtype, elements));
        self.dtypes.push(dtype);
        self.contents.len() - 1
    }

    /// Strides over a new buffer (contiguous, permuted, broadcast or with gaps), the offset and the number of
    /// elements.
    fn layout(&mut self, sizes: &[usize], output: bool) -> (Strides, isize, usize) {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        if self.random.chance(30) {
            for i in (1..order.len()).rev() {
                order.swap(i, self.random.below(i + 1));
            }
        }
        let gap = if output || self.random.chance(70) { 0 } else { self.random.below(3) };
        let mut strides: Strides = smallvec![0; sizes.len()];
        let mut step = 1;
        for &d in order.iter().rev() {
            if !output && self.random.chance(20) {
                continue;
            }
            if sizes[d] != 1 {
                strides[d] = step as isize;
            }
            step = step * sizes[d] + gap;
        }
        let mut offset = if output { 0 } else { self.random.below(3) as isize * 2 };
        let elements = step + offset as usize + gap;
        if !output && self.random.chance(15) && !sizes.is_empty() {
            let d = self.random.below(sizes.len());
            offset += strides[d] * (sizes[d] as isize - 1);
            strides[d] = -strides[d];
        }
        (strides, offset, elements)
    }

    fn load(&mut self) -> Reg {
        let dtype = self.random.pick(self.pool);
        let sizes = self.kernel.sizes.clone();
        let (strides, offset, elements) = self.layout(&sizes, false);
        let buffer = self.buffer(dtype, elements);
        let mut access = Access::new(buffer, dtype, &strides, offset);
        let mut indices = smallvec![];
        if self.random.chance(20) && !sizes.is_empty() {
            // A guard that holds for a part of one dim, and an access that is valid there only.
            let d = self.random.below(sizes.len());
            let (low, size) = (self.random.below(3), self.random.below(sizes[d]) + 1);
            let mut along: Strides = smallvec![0; sizes.len()];
            along[d] = if sizes[d] == 1 { 0 } else { 1 };
            self.kernel.ranges.push(Range { strides: along, offset: -(low as isize), size });
            access.guards.push(self.kernel.ranges.len() - 1);
            access.offset -= low as isize * access.strides[d];
            if access.offset < 0 && access.strides[d] <= 0 {
                access.offset = 0;
            }
            access.offset = access.offset.max(-(low as isize) * access.strides[d].abs());
            // The buffer gets room for accesses that run backwards or are guarded.
            self.contents[buffer].resize((elements * 2 + 64) * dtype.size(), 0);
            if access.strides.iter().any(|&s| s < 0) {
                access.strides.iter_mut().for_each(|s| *s = s.abs());
                access.offset = -(low as isize) * access.strides[d];
            }
        } else if self.random.chance(20) {
            let size = self.random.below(7) + 1;
            let stride = elements as isize;
            self.contents[buffer] = self.random.bytes(dtype, elements * size);
            let index = self.index(size);
            access.indexed.push(IndexedDim { stride, size, op: "index_select" });
            indices.push(index);
        }
        self.kernel.accesses.push(access);
        self.push(Instr::Load { access: self.kernel.accesses.len() - 1, indices })
    }

    /// A value that is a valid index in 0..size.
    fn index(&mut self, size: usize) -> Reg {
        let source = if self.random.chance(50) && !self.kernel.sizes.is_empty() {
            let dim = self.random.below(self.kernel.sizes.len());
            self.push(Instr::Coord { dim })
        } else {
            let sizes = self.kernel.sizes.clone();
            let (strides, offset, elements) = self.layout(&sizes, false);
            let dtype = self.random.pick(&[DType::I32, DType::I64]);
            let buffer = self.buffer(dtype, elements);
            self.kernel.accesses.push(Access::new(buffer, dtype, &strides, offset));
            self.push(Instr::Load { access: self.kernel.accesses.len() - 1, indices: smallvec![] })
        };
        let ty = self.types[source as usize];
        let modulus = self.push(Instr::Const(Const::new(size as i64, ty)));
        self.push(Instr::Binary { op: BinaryOp::Rem, a: source, b: modulus })
    }

    fn as_type(&mut self, reg: Reg, ty: Ty) -> Reg {
        let to = match ty {
            Ty::Bool => DType::Bool,
            Ty::I32 => DType::I32,
            Ty::I64 => DType::I64,
            _ => self.pool[0],
        };
        if self.types[reg as usize] == ty { reg } else { self.push(Instr::Cast { a: reg, to }) }
    }

    fn any(&mut self) -> Reg {
        self.random.below(self.kernel.body.len()) as Reg
    }

    fn binary_op(&mut self, ty: Ty) -> BinaryOp {
        match ty {
            Ty::Bool => self.random.pick(&[
                BinaryOp::And,
                BinaryOp::Or,
                BinaryOp::Xor,
                BinaryOp::Max,
                BinaryOp::Lt,
                BinaryOp::Ge,
            ]),
            Ty::F32 | Ty::F64 => self.random.pick(&[
                BinaryOp::Add,
                BinaryOp::Sub,
                BinaryOp::Mul,
                BinaryOp::Max,
                BinaryOp::Min,
                BinaryOp::Lt,
                BinaryOp::Ge,
                BinaryOp::Ne,
            ]),
            _ => self.random.pick(&[
                BinaryOp::Add,
                BinaryOp::Sub,
                BinaryOp::Mul,
                BinaryOp::Div,
                BinaryOp::Rem,
                BinaryOp::Max,
                BinaryOp::Min,
                BinaryOp::And,
                BinaryOp::Or,
                BinaryOp::Xor,
                BinaryOp::Shl,
                BinaryOp::Shr,
                BinaryOp::Eq,
                BinaryOp::Lt,
                BinaryOp::Le,
                BinaryOp::Gt,
                BinaryOp::Pow,
            ]),
        }
    }

    fn unary_op(&mut self, ty: Ty) -> UnaryOp {
        match ty {
            Ty::Bool => UnaryOp::Not,
            Ty::F32 | Ty::F64 => self.random.pick(&[
                UnaryOp::Neg,
                UnaryOp::Abs,
                UnaryOp::Sign,
                UnaryOp::Tanh,
                UnaryOp::Sigmoid,
                UnaryOp::Sin,
                UnaryOp::IsNan,
            ]),
            _ => self.random.pick(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not]),
        }
    }

    fn operation(&mut self) -> Reg {
        let a = self.any();
        let ty = self.types[a as usize];
        match self.random.below(12) {
            0..=4 => {
                let b = self.any();
                let b = if ty == Ty::U32 { a } else { self.as_type(b, ty) };
                let op = self.binary_op(ty);
                self.push(Instr::Binary { op, a, b })
            }
            5 | 6 => {
                let op = self.unary_op(ty);
                self.push(Instr::Unary { op, a })
            }
            7 => {
                let cond = self.any();
                let cond = self.as_type(cond, Ty::Bool);
                let b = self.any();
                let b = if ty == Ty::U32 { a } else { self.as_type(b, ty) };
                self.push(Instr::Select { cond, a, b })
            }
            8 => {
                let to = self.random.pick(self.pool);
                // A float that is truncated to an integer may differ by one if it was rounded differently
                // before.
                if ty.is_float() && !to.is_float() { a } else { self.push(Instr::Cast { a, to }) }
            }
            9 if !self.kernel.sizes.is_empty() => {
                let dim = self.random.below(self.kernel.sizes.len());
                self.push(Instr::Coord { dim })
            }
            10 if !self.kernel.ranges.is_empty() => {
                let range = self.random.below(self.kernel.ranges.len());
                self.push(Instr::InRange { range })
            }
            _ => {
                let ty = self.random.pick(&[Ty::of(self.pool[0]), Ty::I32, Ty::I64, Ty::Bool]);
                self.params.push(match ty {
                    Ty::F32 | Ty::F64 => Scalar::Float(self.random.unit()),
                    _ => Scalar::Int(self.random.below(9) as i64 - 4),
                });
                self.push(Instr::Param { index: self.params.len() - 1, ty })
            }
        }
    }

    fn reduce(&mut self) -> Reg {
        let a = self.any();
        let ty = self.types[a as usize];
        let op = match ty {
            Ty::F32 | Ty::F64 => {
                // The operand is bounded, so that long sums stay comparable.
                let a = self.push(Instr::Unary { op: UnaryOp::Tanh, a });
                let op = self.random.pick(&[ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min]);
                return self.push(Instr::Reduce { op, a });
            }
            _ => self.random.pick(&[
                ReduceOp::Sum,
                ReduceOp::Prod,
                ReduceOp::Max,
                ReduceOp::Min,
                ReduceOp::ArgMax,
                ReduceOp::ArgMin,
            ]),
        };
        self.push(Instr::Reduce { op, a })
    }

    fn store(&mut self, value: Reg, row: bool) {
        let ty = self.types[value as usize];
        let dtype = match ty {
            Ty::Bool => DType::Bool,
            Ty::U32 => return,
            Ty::I32 => self.random.pick(&[DType::I32, DType::U8]),
            Ty::I64 => DType::I64,
            Ty::F64 => DType::F64,
            _ => self.random.pick(&[DType::F32, DType::F16, DType::BF16]),
        };
        let value =
            if matches!(dtype, DType::U8) { self.push(Instr::Cast { a: value, to: dtype }) } else { value };
        let outer = self.kernel.sizes.len() - self.kernel.inner;
        let sizes: Dims = if row { self.kernel.sizes[..outer].into() } else { self.kernel.sizes.clone() };
        let (mut strides, offset, elements) = self.layout(&sizes, true);
        strides.resize(self.kernel.sizes.len(), 0);
        let buffer = self.buffer(dtype, elements);
        self.kernel.accesses.push(Access::new(buffer, dtype, &strides, offset));
        self.kernel.stores.push(Store { access: self.kernel.accesses.len() - 1, value });
    }
}

fn sizes(random: &mut Random, elements: usize) -> Dims {
    let rank = random.below(4);
    let mut sizes = Dims::new();
    let mut room = elements;
    for _ in 0..=rank {
        let size = random.pick(&[1, 2, 3, 4, 5, 8, 16, 17, 33, 64, 100, 257]).min(room.max(1));
        room /= size;
        sizes.push(size);
    }
    if random.chance(5) { Dims::new() } else { sizes }
}

fn case(seed: u64, elements: usize, inner: bool, pool: &[DType]) -> Case {
    let random = &mut Random::new(seed);
    let sizes = sizes(random, elements);
    let inner = if inner && !sizes.is_empty() { random.below(sizes.len()) + 1 } else { 0 };
    let kernel = Loop { sizes, inner, accesses: vec![], ranges: vec![], body: vec![], stores: vec![] };
    let mut b =
        Builder { random, kernel, contents: vec![], dtypes: vec![], params: vec![], types: vec![], pool };
    for _ in 0..b.random.below(2) + 1 {
        b.load();
    }
    for _ in 0..b.random.below(6) {
        b.operation();
    }
    let mut stored = Vec::new();
    if inner > 0 {
        for _ in 0..b.random.below(2) + 1 {
            let reduced = b.reduce();
            stored.push(reduced);
            if b.random.chance(60) {
                let other = b.any();
                let ty = b.types[reduced as usize];
                let mixed = if ty.is_float() {
                    let other = b.as_type(other, ty);
                    b.push(Instr::Binary { op: BinaryOp::Sub, a: other, b: reduced })
                } else {
                    reduced
                };
                stored.push(mixed);
            }
        }
    }
    stored.push((b.kernel.body.len() - 1) as Reg);
    for value in stored {
        let level = b.kernel.levels()[value as usize];
        let row = inner > 0 && level == wgrad_device::kernel::Level::Row;
        b.store(value, row);
    }
    let Builder { kernel, contents, dtypes, params, .. } = b;
    Case { kernel, contents, dtypes, params }
}

fn fuzz(device: &Device, seeds: std::ops::Range<u64>, elements: usize, inner: bool) {
    fuzz_of(&DTYPES, 2e-4, device, seeds, elements, inner);
}

fn fuzz_of(
    pool: &[DType],
    tolerance: f64,
    device: &Device,
    seeds: std::ops::Range<u64>,
    elements: usize,
    inner: bool,
) {
    let wanted = seeds.clone().count();
    let mut compared = 0;
    for seed in seeds {
        let Case { kernel, contents, dtypes, params } = case(seed, elements, inner, pool);
        if contents.len() > device.executor().limits().buffers {
            continue;
        }
        eprintln!("seed {seed}");
        check(device, &Kernel::Loop(kernel), &contents, &dtypes, &params, tolerance);
        compared += 1;
    }
    assert!(2 * compared > wanted, "{device}: only {compared} of {wanted} kernels bind few enough buffers");
}

#[test]
fn elementwise() {
    for device in devices() {
        fuzz(&device, 0..150, 3000, false);
    }
}

#[test]
fn rows() {
    for device in devices() {
        fuzz(&device, 1000..1150, 6000, true);
    }
}

#[test]
fn with_the_smallest_limits() {
    for device in lowered(&smallest()) {
        fuzz(&device, 2000..2040, 3000, false);
        fuzz(&device, 3000..3040, 20000, true);
    }
}

#[test]
fn as_on_hardware() {
    for device in lowered(&hardware()) {
        fuzz(&device, 4000..4030, 3000, false);
        fuzz(&device, 5000..5080, 20000, true);
    }
}

#[test]
fn in_f64() {
    for device in devices().into_iter().chain(lowered(&smallest())).chain(lowered(&hardware())) {
        if device.supports(DType::F64) {
            fuzz_of(&WIDE, 1e-11, &device, 6000..6060, 3000, false);
            fuzz_of(&WIDE, 1e-11, &device, 7000..7080, 20000, true);
        }
    }
}

/// More reductions of a row than workgroup memory has room for: searches of i64, which have the largest
/// states, and other reductions between them, in two stages.
#[test]
fn reductions_take_turns_in_workgroup_memory() {
    let least = DeviceOptions { max_workgroup_memory: Some(0), ..hardware() };
    // Few long rows, which are cut into chunks, and rows that a workgroup walks along whole.
    for (rows, length, folds, options) in [(3usize, 5000usize, 20, least), (40, 1100, 12, hardware())] {
        let numbers: Vec<i64> = (0..rows * length).map(|i| (i * 7919 % 10_007) as i64 - 5000).collect();
        let contents = [i64::to_bytes(&numbers).to_vec(), vec![0; rows * 8]];
        let mut body = vec![Instr::Load { access: 0, indices: smallvec![] }];
        let (mut total, mut found) = (None, 0);
        for k in 0..folds {
            let at = body.len() as u32;
            // The second half depends on the results of the first, so that it is another stage.
            if k == folds / 2 {
                found = total.unwrap();
            }
            let op = [BinaryOp::Xor, BinaryOp::Add, BinaryOp::Mul][k % 3];
            body.push(Instr::Const(Const::new(f64::from(3 * k as i32 + 1), Ty::I64)));
            body.push(Instr::Binary { op, a: 0, b: at });
            body.push(Instr::Binary { op: BinaryOp::Xor, a: at + 1, b: found });
            let fold = [ReduceOp::ArgMax, ReduceOp::Sum, ReduceOp::ArgMin, ReduceOp::Max][k % 4];
            let value = if k % 5 == 4 {
                body.push(Instr::Cast { a: at + 2, to: DType::F32 });
                body.push(Instr::Reduce { op: ReduceOp::Max, a: at + 3 });
                body.push(Instr::Cast { a: at + 4, to: DType::I64 });
                at + 5
            } else {
                body.push(Instr::Reduce { op: fold, a: at + 2 });
                at + 3
            };
            total = Some(match total {
                None => value,
                Some(sum) => {
                    body.push(Instr::Binary { op: BinaryOp::Xor, a: sum, b: value });
                    body.len() as u32 - 1
                }
            });
        }
        let kernel = Kernel::Loop(Loop {
            sizes: smallvec![rows, length],
            inner: 1,
            accesses: vec![
                Access::new(0, DType::I64, &[length as isize, 1], 0),
                Access::new(1, DType::I64, &[1, 0], 0),
            ],
            ranges: vec![],
            body,
            stores: vec![Store { access: 1, value: total.unwrap() }],
        });
        for device in lowered(&options) {
            check(&device, &kernel, &contents, &[DType::I64, DType::I64], &[], 0.0);
            assert_eq!(device.stats().hosted, 0, "{folds} on {device}");
        }
    }
}
