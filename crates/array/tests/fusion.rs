//! Fused results against operations evaluated on their own, and each device against the CPU: random programs
//! with fixed seeds, on every device present.

#[path = "../../device/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use support::gpus;
use wgrad_array::{
    Array, BinaryOp, DType, Device, ReduceOp, Result, Scalar, ScatterOp, UnaryOp, with_fusion,
};
use wgrad_device::kernel::Kernel;
use wgrad_device::{Buffer, Executor, Limits, Prepared, Stats};

/// A random number generator (xorshift64*) that belongs to this test, so that its programs never change.
struct ProgramRandom(u64);

impl ProgramRandom {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
    fn float(&mut self) -> f32 {
        (self.next() % 4001) as f32 / 1000.0 - 2.0
    }
}

/// The values of a random program.
fn program(seed: u64, device: &Device) -> Result<Vec<Array>> {
    let mut random = ProgramRandom(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let base: Vec<usize> = (0..1 + random.below(3)).map(|_| 1 + random.below(6)).collect();
    let elements: usize = base.iter().product();
    let mut values = Vec::new();
    for _ in 0..2 {
        let data: Vec<f32> = (0..elements).map(|_| random.float()).collect();
        values.push(Array::from_slice(&data, &base, device)?);
    }
    let steps = 3 + random.below(18);
    for _ in 0..steps {
        let x = values[random.below(values.len())].clone();
        let made = step(&mut random, &x, &values)?;
        if made.elements() <= 4096 && made.rank() <= 5 {
            values.push(made);
        }
        // Some values are evaluated in the middle of the program, and some are dropped.
        if random.chance(8) {
            values[random.below(values.len())].eval()?;
        }
        if random.chance(15) && values.len() > 2 {
            let gone = random.below(values.len());
            values.swap_remove(gone);
        }
    }
    Ok(values)
}

fn step(random: &mut ProgramRandom, x: &Array, values: &[Array]) -> Result<Array> {
    let rank = x.rank();
    let dim = random.below(rank);
    match random.below(21) {
        0 => x.unary(
            [UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Sin, UnaryOp::Abs, UnaryOp::Neg][random.below(5)],
        ),
        1 => x.binary_scalar([BinaryOp::Mul, BinaryOp::Add, BinaryOp::Max][random.below(3)], random.float()),
        2 | 3 => {
            let fits: Vec<&Array> = values.iter().filter(|y| broadcasts(x.shape(), y.shape())).collect();
            let y = fits[random.below(fits.len())];
            x.binary([BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Min][random.below(4)], y)
        }
        4 | 5 if rank > 0 => {
            let dims: Vec<usize> = (0..rank).filter(|_| random.chance(50)).collect();
            let op = [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min][random.below(3)];
            x.reduce(op, &dims, random.chance(60))
        }
        // Like a softmax: the result of a reduction is combined with the reduction's own input.
        6 | 7 if rank > 0 => softmax(x, dim),
        8 if rank > 1 => {
            let mut order: Vec<usize> = (0..rank).collect();
            order.swap(dim, random.below(rank));
            x.permute(&order)
        }
        9 => x.reshape(&[x.elements()]),
        10 if x.elements().is_multiple_of(2) => x.reshape(&[2, x.elements() / 2]),
        11 if rank > 0 => {
            let size = x.shape()[dim];
            let start = random.below(size);
            let step = 1 + random.below(2);
            let len = 1 + random.below((size - start).div_ceil(step));
            x.slice(dim, start, len, step)
        }
        12 if rank > 0 => x.flip(&[dim]),
        13 if rank > 0 => {
            let mut amounts = vec![(0, 0); rank];
            amounts[dim] = (random.below(3) as isize, random.below(3) as isize);
            x.pad(&amounts)
        }
        14 if rank > 0 => {
            let y = x.binary_scalar(BinaryOp::Mul, 0.5)?;
            Array::cat(&[x.clone(), y], dim)
        }
        15 if rank > 1 => {
            let product = gram(x)?;
            if random.chance(50) { product.unary(UnaryOp::Tanh) } else { Ok(product) }
        }
        16 if rank > 0 => {
            let count = 1 + random.below(5);
            x.index_select(dim, &random_index(random, count, x, dim)?)
        }
        17 if rank > 0 => {
            let index = random_index(random, x.shape()[dim], x, dim)?;
            let zeros = Array::full(x.shape(), 0.0, x.dtype(), x.device())?;
            let base = if random.chance(50) { zeros } else { x.binary_scalar(BinaryOp::Add, 1.0)? };
            base.index_scatter(ScatterOp::Add, dim, &index, x)
        }
        18 if rank > 0 => x.scan([ReduceOp::Sum, ReduceOp::Max][random.below(2)], dim),
        // Sorted elements: rounding may change the order, but each element only by the amount of its own
        // rounding.
        20 if rank > 0 => {
            let first = random.below(x.shape()[dim]);
            let end = first + 1 + random.below(x.shape()[dim] - first);
            x.gather(dim, &x.argsort(dim, random.chance(50), first..end)?)
        }
        19 => {
            let other = x.binary_scalar(BinaryOp::Mul, -1.0)?;
            let coordinate = Array::coordinate(x.shape(), dim, x.device())
                .or_else(|_| Array::full(x.shape(), 0i64, DType::I32, x.device()))?;
            let cond = coordinate.binary_scalar(BinaryOp::Lt, Scalar::Int(2))?;
            Array::select(&cond, x, &other)
        }
        _ => x.binary_scalar(BinaryOp::Sub, 0.25),
    }
}

fn softmax(x: &Array, dim: usize) -> Result<Array> {
    let highest = x.reduce(ReduceOp::Max, &[dim], true)?;
    let shifted = x.binary(BinaryOp::Sub, &highest)?.unary(UnaryOp::Exp)?;
    let sum = shifted.reduce(ReduceOp::Sum, &[dim], true)?;
    shifted.binary(BinaryOp::Div, &sum)
}

/// The product of a matrix with its transpose, divided by the number of elements.
fn gram(x: &Array) -> Result<Array> {
    let rank = x.rank();
    let elements = x.shape()[rank - 2] * x.shape()[rank - 1];
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 1, rank - 2);
    x.binary_scalar(BinaryOp::Mul, 1.0 / elements as f32)?.matmul(&x.permute(&order)?)
}

fn random_index(random: &mut ProgramRandom, count: usize, x: &Array, dim: usize) -> Result<Array> {
    let index: Vec<i64> = (0..count).map(|_| random.below(x.shape()[dim]) as i64).collect();
    Array::from_slice(&index, &[count], x.device())
}

fn broadcasts(a: &[usize], b: &[usize]) -> bool {
    a.iter().rev().zip(b.iter().rev()).all(|(&a, &b)| a == b || a == 1 || b == 1)
}

fn assert_close(seed: u64, fused: &Array, plain: &Array) {
    assert_eq!(fused.shape(), plain.shape(), "program {seed}");
    let (a, b) = (fused.to_vec::<f32>().unwrap(), plain.to_vec::<f32>().unwrap());
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let close = a == b || (a - b).abs() <= 1e-5 + 1e-5 * b.abs() || (a.is_nan() && b.is_nan());
        assert!(close, "program {seed}, shape {:?}, element {i}: fused {a}, alone {b}", fused.shape());
    }
}

fn run(seed: u64, device: &Device, fusion: bool) -> Vec<Array> {
    with_fusion(fusion, || {
        let all = program(seed, device).unwrap_or_else(|error| panic!("program {seed} on {device}: {error}"));
        let result = Array::eval_all(&all.iter().collect::<Vec<_>>());
        result.unwrap_or_else(|error| panic!("program {seed} on {device}: {error}"));
        all
    })
}

#[test]
fn random_programs_agree_fused_and_alone() {
    let cpu = Device::cpu();
    for seed in 0..3000 {
        for (fused, plain) in run(seed, &cpu, true).iter().zip(&run(seed, &cpu, false)) {
            assert_close(seed, fused, plain);
        }
    }
}

/// Values are read one at a time, so that values which an earlier evaluation left pending are computed later.
#[test]
fn random_programs_agree_read_one_by_one() {
    let device = Device::cpu();
    for seed in 10_000..11_000 {
        let fused = with_fusion(true, || program(seed, &device)).unwrap();
        let plain = with_fusion(false, || program(seed, &device)).unwrap();
        for (fused, plain) in fused.iter().zip(&plain).rev() {
            with_fusion(true, || fused.eval()).unwrap();
            with_fusion(false, || plain.eval()).unwrap();
            assert_close(seed, fused, plain);
        }
    }
}

/// The CPU under the limits of a small GPU, so that bodies which would be too large are divided.
struct Small(Limits);

impl Executor for Small {
    fn limits(&self) -> &Limits {
        &self.0
    }
    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Device::cpu().executor().alloc(bytes)
    }
    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        Device::cpu().executor().upload(bytes)
    }
    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        Device::cpu().executor().download(buffer, offset, out)
    }
    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        if let Kernel::Loop(kernel) = kernel {
            let buffers = kernel.accesses.iter().map(|access| access.buffer + 1).max();
            assert!(buffers.unwrap_or(0) <= self.0.buffers, "{buffers:?} buffers in one kernel");
        }
        Device::cpu().executor().prepare(kernel)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn stats(&self) -> Stats {
        Device::cpu().executor().stats()
    }
    fn trim(&self) {}
    fn set_memory_limit(&self, _limit: Option<u64>) {}
    fn reset_peak(&self) {}
}

#[test]
fn random_programs_agree_under_small_limits() {
    let cpu = Device::cpu();
    for (buffers, instructions) in [(4, 12), (7, 64)] {
        let limits = Limits {
            buffers,
            instructions,
            inlined: true,
            binding: usize::MAX,
            allocation: u64::MAX,
            f64: true,
        };
        let small = Device::from_executor("small", Box::new(Small(limits)));
        for seed in 20_000..21_000 {
            for (there, here) in run(seed, &small, true).iter().zip(&run(seed, &cpu, false)) {
                assert_close(seed, there, here);
            }
        }
    }
}

/// The test holds the product, but not its eight operands, so the product is stored: by kernels that bind at
/// most seven buffers.
#[test]
fn stored_values_are_cut_under_small_limits() -> Result<()> {
    let limits = Limits {
        buffers: 7,
        instructions: 64,
        inlined: false,
        binding: usize::MAX,
        allocation: u64::MAX,
        f64: true,
    };
    let small = Device::from_executor("small", Box::new(Small(limits)));
    let sum = |first: usize| -> Result<Array> {
        let leaf = |i: usize| Array::from_slice(&[i as f32, 1.0], &[2], &small);
        let pairs = (
            leaf(first)?.binary(BinaryOp::Add, &leaf(first + 1)?)?,
            leaf(first + 2)?.binary(BinaryOp::Add, &leaf(first + 3)?)?,
        );
        pairs.0.binary(BinaryOp::Add, &pairs.1)
    };
    let held = sum(1)?.binary(BinaryOp::Mul, &sum(5)?)?;
    let wanted = held.binary(BinaryOp::Add, &held)?;
    wanted.eval()?;
    assert_eq!(wanted.to_vec::<f32>()?, [2.0 * 10.0 * 26.0, 32.0]);
    assert_eq!(held.to_vec::<f32>()?, [260.0, 16.0]);
    Ok(())
}

#[test]
fn random_programs_agree_on_every_device() {
    let cpu = Device::cpu();
    for device in gpus() {
        for seed in 0..150 {
            for (there, here) in run(seed, &device, true).iter().zip(&run(seed, &cpu, false)) {
                assert_close(seed, there, here);
            }
        }
    }
}
