//! Benchmarks of the CPU executor's kernels: `cargo bench -p wgrad-device --no-default-features --bench
//! cpu_loops`. Words after `--` select kernels by name.
//!
//! Each line has the best and the median time of many launches, and the mean of the processor time of all
//! threads, which tells most if the machine has other work. Times are in microseconds.

use std::time::Instant;

use smallvec::smallvec;
use wgrad_device::kernel::{
    Access, BinaryOp, Const, Instr, Kernel, Loop, Matmul, ReduceOp, Reg, Store, Ty, UnaryOp,
};
use wgrad_device::{Buffer, DType, Device, Scalar};

/// A loop that is being built.
struct Body(Loop);

impl Body {
    fn new(sizes: &[usize], inner: usize) -> Body {
        Body(Loop {
            sizes: sizes.into(),
            inner,
            accesses: vec![],
            ranges: vec![],
            body: vec![],
            stores: vec![],
        })
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.0.body.push(instr);
        self.0.body.len() as Reg - 1
    }

    fn load(&mut self, buffer: usize, strides: &[isize]) -> Reg {
        self.0.accesses.push(Access::new(buffer, DType::F32, strides, 0));
        self.push(Instr::Load { access: self.0.accesses.len() - 1, indices: smallvec![] })
    }

    fn number(&mut self, value: f64) -> Reg {
        self.push(Instr::Const(Const::new(value, Ty::F32)))
    }

    fn unary(&mut self, op: UnaryOp, a: Reg) -> Reg {
        self.push(Instr::Unary { op, a })
    }

    fn binary(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        self.push(Instr::Binary { op, a, b })
    }

    fn store(&mut self, buffer: usize, strides: &[isize], value: Reg) {
        self.0.accesses.push(Access::new(buffer, DType::F32, strides, 0));
        self.0.stores.push(Store { access: self.0.accesses.len() - 1, value });
    }
}

fn measure(name: &str, kernel: Kernel, elements: &[usize], params: &[Scalar]) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part)) {
        return;
    }
    let cpu = Device::cpu();
    let buffers: Vec<Buffer> = elements
        .iter()
        .map(|&n| {
            let values: Vec<f32> = (0..n).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
            cpu.executor().upload(bytemuck::cast_slice(&values)).expect("memory")
        })
        .collect();
    let buffers: Vec<&Buffer> = buffers.iter().collect();
    let prepared = cpu.executor().prepare(&kernel).expect("a sound kernel");
    let mut times = Vec::new();
    let mut launches = 0;
    let busy = processor_time();
    let begin = Instant::now();
    while begin.elapsed().as_millis() < 500 || times.len() < 5 {
        let start = Instant::now();
        let repeat = if elements.iter().all(|&n| n <= 2000) { 1000 } else { 1 };
        for _ in 0..repeat {
            prepared.launch(&buffers, params).expect("a launch");
        }
        launches += repeat;
        times.push(start.elapsed().as_nanos() as f64 / 1000.0 / repeat as f64);
    }
    times.sort_by(f64::total_cmp);
    let busy = (processor_time() - busy) / 1000.0 / launches as f64;
    println!("{name:44} {:10.2} {:10.2} {busy:10.2}", times[0], times[times.len() / 2]);
}

/// The nanoseconds that all threads of this process have run; 0 on systems other than Linux.
fn processor_time() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum()
}

fn main() {
    println!("{:44} {:>10} {:>10} {:>10}", "kernel", "best us", "median us", "cpu us");
    squares();
    a_sum_and_a_gradient();
    softmax_with_backward();
    activations_with_backward();
    functions();
    sums();
    softmax();
    transposition_and_broadcasting();
    coordinates();
    products();
    allocation();
}

fn squares() {
    use BinaryOp::Mul;
    for n in [3, 1000, 100_000, 10_000_000] {
        let mut b = Body::new(&[n], 0);
        let x = b.load(0, &[1]);
        let y = b.binary(Mul, x, x);
        b.store(1, &[1], y);
        measure(&format!("x * x, {n}"), Kernel::Loop(b.0), &[n, n], &[]);
    }
}

fn a_sum_and_a_gradient() {
    use BinaryOp::{Add, Mul};
    for n in [3, 30_000, 10_000_000] {
        let mut b = Body::new(&[n], 1);
        let x = b.load(0, &[1]);
        let square = b.binary(Mul, x, x);
        let hundred = b.number(100.0);
        let sum = b.binary(Add, square, hundred);
        let sum = b.push(Instr::Reduce { op: ReduceOp::Sum, a: sum });
        let c = b.push(Instr::Param { index: 0, ty: Ty::F32 });
        let two = b.number(2.0);
        let double = b.binary(Mul, two, x);
        let grad = b.binary(Mul, double, c);
        b.store(1, &[0], sum);
        b.store(2, &[1], grad);
        measure(&format!("sum(x*x + 100), 2*x*c, {n}"), Kernel::Loop(b.0), &[n, 1, n], &[Scalar::Float(0.5)]);
    }
}

fn softmax_with_backward() {
    use BinaryOp::{Mul, Sub};
    use UnaryOp::{Exp, Reciprocal};
    for (rows, n) in [(32, 1024), (4096, 1024)] {
        let mut b = Body::new(&[rows, n], 1);
        let strides = [n as isize, 1];
        let x = b.load(0, &strides);
        let dy = b.load(1, &strides);
        let max = b.push(Instr::Reduce { op: ReduceOp::Max, a: x });
        let shifted = b.binary(Sub, x, max);
        let e = b.unary(Exp, shifted);
        let sum = b.push(Instr::Reduce { op: ReduceOp::Sum, a: e });
        let inverse = b.unary(Reciprocal, sum);
        let y = b.binary(Mul, e, inverse);
        let ydy = b.binary(Mul, y, dy);
        let dot = b.push(Instr::Reduce { op: ReduceOp::Sum, a: ydy });
        let centered = b.binary(Sub, dy, dot);
        let dx = b.binary(Mul, y, centered);
        b.store(2, &strides, dx);
        measure(&format!("softmax forward + backward, {rows} x {n}"), Kernel::Loop(b.0), &[rows * n; 3], &[]);
    }
}

fn activations_with_backward() {
    use BinaryOp::{Add, Mul, Sub};
    use UnaryOp::{Erf, Exp, Sigmoid, Tanh};
    for n in [32 * 1024, 4096 * 1024] {
        let mut b = Body::new(&[n], 0);
        let x = b.load(0, &[1]);
        let dy = b.load(1, &[1]);
        // gelu(x) * sigmoid(x) + tanh(x) * exp(x), and its derivative times dy.
        let scale = b.number(std::f64::consts::FRAC_1_SQRT_2);
        let scaled = b.binary(Mul, x, scale);
        let erf = b.unary(Erf, scaled);
        let one = b.number(1.0);
        let half = b.number(0.5);
        let erf1 = b.binary(Add, erf, one);
        let cdf = b.binary(Mul, erf1, half);
        let gelu = b.binary(Mul, x, cdf);
        let sigmoid = b.unary(Sigmoid, x);
        let tanh = b.unary(Tanh, x);
        let exp = b.unary(Exp, x);
        let left = b.binary(Mul, gelu, sigmoid);
        let right = b.binary(Mul, tanh, exp);
        let y = b.binary(Add, left, right);
        b.store(2, &[1], y);
        let square = b.binary(Mul, x, x);
        let minus_half = b.number(-0.5);
        let exponent = b.binary(Mul, square, minus_half);
        let density = b.unary(Exp, exponent);
        let norm = b.number(0.398_942_280_4);
        let density = b.binary(Mul, density, norm);
        let x_density = b.binary(Mul, x, density);
        let dgelu = b.binary(Add, cdf, x_density);
        let dgelu = b.binary(Mul, dgelu, sigmoid);
        let rest = b.binary(Sub, one, sigmoid);
        let dsigmoid = b.binary(Mul, left, rest);
        let tanh2 = b.binary(Mul, tanh, tanh);
        let dtanh = b.binary(Sub, one, tanh2);
        let both = b.binary(Add, dtanh, tanh);
        let dright = b.binary(Mul, both, exp);
        let sum = b.binary(Add, dgelu, dsigmoid);
        let sum = b.binary(Add, sum, dright);
        let dx = b.binary(Mul, sum, dy);
        b.store(3, &[1], dx);
        measure(&format!("gelu*sigmoid + tanh*exp and backward, {n}"), Kernel::Loop(b.0), &[n; 4], &[]);
    }
}

fn functions() {
    use BinaryOp::Pow;
    use UnaryOp::{Erf, Exp, Expm1, Log, Log1p, Sigmoid, Sin, Sqrt, Tanh};
    for op in [Exp, Log, Sin, Tanh, Sigmoid, Erf, Expm1, Log1p, Sqrt] {
        let n = 1 << 20;
        let mut b = Body::new(&[n], 0);
        let x = b.load(0, &[1]);
        let y = b.unary(op, x);
        b.store(1, &[1], y);
        measure(&format!("{op:?}, 1M"), Kernel::Loop(b.0), &[n; 2], &[]);
    }
    {
        let n = 1 << 20;
        let mut b = Body::new(&[n], 0);
        let x = b.load(0, &[1]);
        let y = b.load(1, &[1]);
        let z = b.binary(Pow, x, y);
        b.store(2, &[1], z);
        measure("pow, 1M", Kernel::Loop(b.0), &[n; 3], &[]);
    }
}

fn sums() {
    for (rows, n, dim) in
        [(4096, 1024, 0), (4096, 1024, 1), (1_000_000, 16, 0), (1_000_000, 4, 1), (100_000, 32, 1)]
    {
        let (sizes, strides, out) =
            if dim == 0 { ([n, rows], [1, n as isize], n) } else { ([rows, n], [n as isize, 1], rows) };
        let mut b = Body::new(&sizes, 1);
        let x = b.load(0, &strides);
        let sum = b.push(Instr::Reduce { op: ReduceOp::Sum, a: x });
        b.store(1, &[1, 0], sum);
        measure(&format!("sum of dim {dim}, {rows} x {n}"), Kernel::Loop(b.0), &[rows * n, out], &[]);
    }
}

fn softmax() {
    use BinaryOp::{Div, Sub};
    use UnaryOp::Exp;
    for (rows, n) in [(65536, 16), (16384, 64), (4096, 1000), (256, 16384)] {
        let mut b = Body::new(&[rows, n], 1);
        let strides = [n as isize, 1];
        let x = b.load(0, &strides);
        let max = b.push(Instr::Reduce { op: ReduceOp::Max, a: x });
        let shifted = b.binary(Sub, x, max);
        let e = b.unary(Exp, shifted);
        let sum = b.push(Instr::Reduce { op: ReduceOp::Sum, a: e });
        let y = b.binary(Div, e, sum);
        b.store(1, &strides, y);
        measure(&format!("softmax, {rows} x {n}"), Kernel::Loop(b.0), &[rows * n; 2], &[]);
    }
}

fn transposition_and_broadcasting() {
    use BinaryOp::{Add, Mul};
    {
        let (rows, n) = (2048, 2048);
        let mut b = Body::new(&[rows, n], 0);
        let x = b.load(0, &[1, rows as isize]);
        b.store(1, &[n as isize, 1], x);
        measure("transposition, 2048 x 2048", Kernel::Loop(b.0), &[rows * n; 2], &[]);
    }
    {
        let (rows, n) = (4096, 1024);
        let mut b = Body::new(&[rows, n], 0);
        let x = b.load(0, &[n as isize, 1]);
        let bias = b.load(1, &[0, 1]);
        let scale = b.load(2, &[1, 0]);
        let y = b.binary(Mul, x, scale);
        let y = b.binary(Add, y, bias);
        b.store(3, &[n as isize, 1], y);
        measure("x * column + row, 4096 x 1024", Kernel::Loop(b.0), &[rows * n, n, rows, rows * n], &[]);
    }
}

fn coordinates() {
    let n = 1 << 22;
    let mut b = Body::new(&[n], 0);
    let i = b.push(Instr::Coord { dim: 0 });
    let i = b.push(Instr::Cast { a: i, to: DType::I64 });
    let i = b.push(Instr::Cast { a: i, to: DType::I32 });
    let f = b.push(Instr::Cast { a: i, to: DType::F32 });
    b.store(0, &[1], f);
    measure("arange, 4M", Kernel::Loop(b.0), &[n], &[]);
}

fn products() {
    use BinaryOp::{Add, Max};
    for (m, k, n, bias) in [
        (1024, 1024, 1024, false),
        (1024, 1024, 1024, true),
        (64, 784, 512, false),
        (64, 784, 512, true),
        (64, 512, 10, true),
        (784, 64, 512, false),
        (1, 1024, 1024, false),
        (1024, 1024, 1, false),
        (4, 4, 4, true),
        (32, 32, 32, false),
    ] {
        let mut b = Body::new(&[m, n], 0);
        let mut y = b.push(Instr::Accumulator);
        if bias {
            let bias = b.load(2, &[0, 1]);
            y = b.binary(Add, y, bias);
            let zero = b.number(0.0);
            y = b.binary(Max, y, zero);
        }
        b.store(3, &[n as isize, 1], y);
        let lhs = Access::new(0, DType::F32, &[k as isize, 1], 0);
        let steps = [if k == 1 { 0 } else { n as isize }, if n == 1 { 0 } else { 1 }];
        let kernel = Matmul::new(k, lhs, Access::new(1, DType::F32, &steps, 0), b.0);
        let name = format!("matmul {m} x {k} x {n}{}", if bias { ", bias, relu" } else { "" });
        measure(&name, Kernel::Matmul(kernel), &[m * k, k * n, n, m * n], &[]);
    }
}

fn allocation() {
    let cpu = Device::cpu();
    let executor = cpu.executor();
    drop(executor.alloc(12));
    let start = Instant::now();
    for _ in 0..1_000_000 {
        drop(executor.alloc(12));
    }
    println!("{:44} {:10.4}", "alloc + drop of 12 bytes", start.elapsed().as_micros() as f64 / 1e6);
}
