//! Tests of the CPU executor: matrix products, scatters and scans against the reference interpreter; errors,
//! memory and counters.

mod common;

use common::compare::{assert_agrees, execute};
use common::random::{Rng, elements, layout};
use smallvec::smallvec;
use wgrad_device::kernel::{
    Access, BinaryOp, Const, IndexedDim, Instr, Kernel, Loop, Matmul, ReduceOp, Scan, Scatter, ScatterOp,
    Store, Ty, UnaryOp,
};
use wgrad_device::{DType, Device, Error, Scalar};

#[test]
fn matmul_of_all_dtypes_and_layouts() {
    let cpu = Device::cpu();
    let shapes: &[(&[usize], usize, usize, usize)] = &[
        (&[], 1, 1, 1),
        (&[], 3, 5, 7),
        (&[], 17, 1, 33),
        (&[], 40, 70, 64),
        (&[3], 4, 5, 6),
        (&[2, 3], 8, 9, 2),
        (&[2], 5, 3, 0),
        (&[0], 5, 3, 2),
        (&[], 0, 3, 2),
        (&[4], 1, 20, 30),
        (&[], 130, 20, 130),
    ];
    for seed in 0..400 {
        let mut rng = Rng::new(7_000 + seed);
        let (batch, m, n, k) = shapes[seed as usize % shapes.len()];
        let dtype = DType::ALL[seed as usize / shapes.len() % 8];
        let ty = Ty::of(dtype);
        let sizes = [batch, &[m, n]].concat();
        let mut buffers = Vec::new();
        let mut dtypes = Vec::new();
        let mut access = |rng: &mut Rng, sizes: &[usize], expand: bool, dtype: DType, empty: bool| {
            let expand: Vec<bool> = (0..sizes.len()).map(|_| expand && rng.chance(3)).collect();
            let plain = rng.chance(2);
            let (strides, offset, span) = layout(rng, sizes, &expand, plain);
            buffers.push(if empty { vec![0; span * dtype.size()] } else { elements(rng, dtype, span) });
            dtypes.push(dtype);
            Access::new(buffers.len() - 1, dtype, &strides, offset)
        };
        let lhs = access(&mut rng, &[batch, &[m, k]].concat(), true, dtype, false);
        let rhs = access(&mut rng, &[batch, &[k, n]].concat(), true, dtype, false);
        let bias = access(&mut rng, &sizes, true, dtype, false);
        let stored = match ty {
            Ty::I32 => DType::I32,
            _ => dtype,
        };
        let out = access(&mut rng, &sizes, false, stored, true);
        let number = bias.buffer;
        // The epilogue only stores the product, or scales it, adds a bias and applies a function.
        let (body, value, accesses) = if rng.chance(2) {
            (vec![Instr::Accumulator], 0, vec![out])
        } else {
            let both = if ty == Ty::Bool { BinaryOp::Xor } else { BinaryOp::Add };
            let mut body = vec![
                Instr::Accumulator,
                Instr::Load { access: 1, indices: smallvec![] },
                Instr::Binary { op: both, a: 0, b: 1 },
            ];
            if ty.is_float() {
                body.push(Instr::Param { index: 0, ty });
                body.push(Instr::Binary { op: BinaryOp::Mul, a: 2, b: 3 });
                body.push(Instr::Unary { op: UnaryOp::Tanh, a: 4 });
            }
            let value = body.len() as u32 - 1;
            (body, value, vec![out, bias])
        };
        assert_eq!(number, 2);
        let epilogue = Loop {
            sizes: sizes[..].into(),
            inner: 0,
            accesses,
            ranges: vec![],
            body,
            stores: vec![Store { access: 0, value }],
        };
        let kernel = Kernel::Matmul(Matmul::new(k, lhs, rhs, epilogue));
        // Products of f32 are summed in f32. The tolerance is relative to sums of up to 130 terms of up to 9.
        assert_agrees(cpu.executor(), &kernel, &buffers, &dtypes, &[Scalar::Float(0.01)], 1e-4);
    }
}

#[test]
fn large_matmul_is_split_and_exact_on_integers() {
    // 300 x 500 x 700 of small integers in f32: every sum is exact, whatever its order.
    let cpu = Device::cpu();
    let (m, n, k) = (300, 500, 700);
    for (transposed, with_epilogue) in [(false, false), (true, false), (false, true), (true, true)] {
        let (m, n) = if transposed { (n, m) } else { (m, n) };
        let value = |i: usize| (i * 7919 % 17) as f32 - 8.0;
        let a: Vec<f32> = (0..m * k).map(value).collect();
        let b: Vec<f32> = (0..k * n).map(|i| value(i + 5)).collect();
        let mut body = vec![Instr::Accumulator];
        if with_epilogue {
            body.push(Instr::Unary { op: UnaryOp::Neg, a: 0 });
        }
        let value = body.len() as u32 - 1;
        let epilogue = Loop {
            sizes: smallvec![m, n],
            inner: 0,
            accesses: vec![Access::new(2, DType::F32, &[n as isize, 1], 0)],
            ranges: vec![],
            body,
            stores: vec![Store { access: 0, value }],
        };
        let kernel = Kernel::Matmul(Matmul::new(
            k,
            Access::new(0, DType::F32, &[k as isize, 1], 0),
            Access::new(1, DType::F32, &[n as isize, 1], 0),
            epilogue,
        ));
        let bytes = |v: &[f32]| bytemuck::cast_slice(v).to_vec();
        let out = execute(cpu.executor(), &kernel, &[bytes(&a), bytes(&b), vec![0; m * n * 4]], &[]).unwrap();
        let out: Vec<f32> = bytemuck::pod_collect_to_vec(&out[2]);
        for i in (0..m).step_by(13) {
            for j in (0..n).step_by(11) {
                let sum: f64 = (0..k).map(|x| f64::from(a[i * k + x]) * f64::from(b[x * n + j])).sum();
                let expected = if with_epilogue { -sum } else { sum };
                assert_eq!(f64::from(out[i * n + j]), expected, "{i} {j}");
            }
        }
    }
}

#[test]
fn scatter_of_all_dtypes() {
    let cpu = Device::cpu();
    let ops = [ScatterOp::Assign, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min];
    // The sizes of the source, and the dims on which the index depends.
    let shapes: &[(&[usize], &[bool])] = &[
        (&[50], &[true]),
        (&[6, 5], &[true, false]),
        (&[6, 5], &[false, true]),
        (&[4, 3, 5], &[true, true, false]),
        (&[0, 5], &[true, false]),
        (&[7], &[false]),
        (&[900, 70], &[true, false]),
    ];
    for seed in 0..420 {
        let mut rng = Rng::new(9_000 + seed);
        let (sizes, depends) = shapes[seed as usize % shapes.len()];
        let dtype = DType::ALL[seed as usize / shapes.len() % 8];
        let op = ops[seed as usize % 5];
        let rows = 11;
        // The target is [rows, the dims on which the index does not depend].
        let fixed: Vec<usize> = (0..sizes.len()).filter(|&d| !depends[d]).collect();
        let mut strides = vec![0isize; sizes.len()];
        let mut step = 1;
        for &dim in fixed.iter().rev() {
            strides[dim] = if sizes[dim] == 1 { 0 } else { step as isize };
            step *= sizes[dim].max(1);
        }
        let elements_out = rows * step;
        let wide = rng.chance(2);
        let index_dtype = if wide { DType::I64 } else { DType::I32 };
        let expand: Vec<bool> = depends.iter().map(|d| !d).collect();
        let (index_strides, index_offset, span) = layout(&mut rng, sizes, &expand, false);
        let bad = rng.chance(20) && !sizes.contains(&0);
        let indices: Vec<u8> = (0..span)
            .flat_map(|_| Scalar::Int(if bad { -3 } else { rng.below(rows) as i64 }).to_bytes(index_dtype))
            .collect();
        let none = vec![false; sizes.len()];
        let (source_strides, source_offset, source_span) = layout(&mut rng, sizes, &none, seed % 2 == 0);
        let mut target = Access::new(2, dtype, &strides, 0);
        target.indexed.push(IndexedDim { stride: step as isize, size: rows, op: "scatter" });
        let base = rng.chance(2);
        let kernel = Kernel::Scatter(Scatter {
            op,
            sizes: sizes.into(),
            source: Access::new(0, dtype, &source_strides, source_offset),
            indices: vec![Access::new(1, index_dtype, &index_strides, index_offset)],
            target,
            base: base.then_some(3),
            elements: elements_out,
        });
        let buffers = vec![
            elements(&mut rng, dtype, source_span),
            indices,
            vec![0; elements_out * dtype.size()],
            elements(&mut rng, dtype, elements_out),
        ];
        // The reference rounds a sum of halves after each addition, and the executor rounds it once.
        let tolerance = if dtype == DType::BF16 || dtype == DType::F16 { 0.2 } else { 1e-4 };
        let many = sizes.iter().product::<usize>() > 1000;
        if dtype.is_half() && (many || op == ScatterOp::Mul) {
            continue;
        }
        assert_agrees(cpu.executor(), &kernel, &buffers, &[dtype, index_dtype, dtype, dtype], &[], tolerance);
    }
}

#[test]
fn scan_of_all_dtypes() {
    let cpu = Device::cpu();
    let shapes: &[&[usize]] = &[&[1], &[40], &[5, 9], &[2, 3, 4], &[100, 7], &[3, 0], &[0, 3], &[4, 1]];
    for seed in 0..600 {
        let mut rng = Rng::new(11_000 + seed);
        let sizes = shapes[seed as usize % shapes.len()];
        let dtype = DType::ALL[seed as usize / shapes.len() % 8];
        let op = rng.pick(&[ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min]);
        if op == ReduceOp::Prod && dtype.is_float() {
            continue;
        }
        let expand: Vec<bool> = sizes.iter().map(|_| rng.chance(5)).collect();
        let none = vec![false; sizes.len()];
        let (strides, offset, span) = layout(&mut rng, sizes, &expand, false);
        let (to, to_offset, to_span) = layout(&mut rng, sizes, &none, seed % 3 == 0);
        let kernel = Kernel::Scan(Scan {
            op,
            sizes: sizes.into(),
            source: Access::new(0, dtype, &strides, offset),
            target: Access::new(1, dtype, &to, to_offset),
        });
        let buffers = vec![elements(&mut rng, dtype, span), vec![0; to_span * dtype.size()]];
        assert_agrees(cpu.executor(), &kernel, &buffers, &[dtype, dtype], &[], 1e-6);
    }
}

/// The kernel `out = 2 * x` over n elements of f32.
fn doubling(n: usize) -> Kernel {
    let step = if n == 1 { 0 } else { 1 };
    Kernel::Loop(Loop {
        sizes: smallvec![n],
        inner: 0,
        accesses: vec![Access::new(0, DType::F32, &[step], 0), Access::new(1, DType::F32, &[step], 0)],
        ranges: vec![],
        body: vec![
            Instr::Load { access: 0, indices: smallvec![] },
            Instr::Const(Const::new(2.0, Ty::F32)),
            Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
        ],
        stores: vec![Store { access: 1, value: 2 }],
    })
}

#[test]
fn a_launch_that_does_not_fit_is_an_error() {
    let cpu = Device::cpu();
    let kernel = doubling(10);
    let short = execute(cpu.executor(), &kernel, &[vec![0; 40], vec![0; 36]], &[]);
    assert!(matches!(short, Err(Error::Argument { .. })), "{short:?}");
    let few = execute(cpu.executor(), &kernel, &[vec![0; 40]], &[]);
    assert!(matches!(few, Err(Error::Argument { .. })), "{few:?}");
    let prepared = cpu.executor().prepare(&kernel).unwrap();
    let buffer = cpu.executor().alloc(40).unwrap();
    assert!(matches!(prepared.launch(&[&buffer, &buffer], &[]), Err(Error::Argument { .. })));
    let Kernel::Loop(mut broken) = kernel else { unreachable!() };
    broken.body[2] = Instr::Binary { op: BinaryOp::And, a: 0, b: 1 };
    assert!(matches!(cpu.executor().prepare(&Kernel::Loop(broken.clone())), Err(Error::Kernel { .. })));
    broken.body[2] = Instr::Binary { op: BinaryOp::Add, a: 0, b: 2 };
    assert!(matches!(cpu.executor().prepare(&Kernel::Loop(broken)), Err(Error::Kernel { .. })));
}
