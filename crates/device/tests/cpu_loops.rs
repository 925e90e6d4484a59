//! Tests of the CPU executor's loops against the reference interpreter.

mod common;

use common::compare::{assert_agrees, execute};
use common::random::{Rng, case};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, Const, IndexedDim, Instr, Kernel, Loop, ReduceOp, Store, Ty};
use wgrad_device::{DType, Device, Error, Scalar};

/// Random loops over spaces of these sizes.
fn fuzz(seed: u64, cases: usize, shapes: &[(&[usize], usize)], dtypes: &[DType]) {
    let cpu = Device::cpu();
    for number in 0..cases {
        let mut rng = Rng::new(seed + number as u64);
        let (sizes, inner) = shapes[number % shapes.len()];
        let case = case(&mut rng, sizes, inner, dtypes);
        let kernel = Kernel::Loop(case.kernel);
        assert_agrees(cpu.executor(), &kernel, &case.buffers, &case.dtypes, &case.params, 2e-5);
    }
}

#[test]
fn elementwise() {
    let shapes: &[(&[usize], usize)] = &[
        (&[], 0),
        (&[1], 0),
        (&[5], 0),
        (&[3000], 0),
        (&[7, 300], 0),
        (&[40, 50], 0),
        (&[3, 4, 5, 6], 0),
        (&[0, 4], 0),
        (&[70, 1, 33], 0),
        (&[2, 1500], 0),
        (&[1000, 3], 0),
    ];
    fuzz(1, 2000, shapes, &[DType::F32]);
    fuzz(100_000, 2000, shapes, &DType::ALL);
}

#[test]
fn rows() {
    let shapes: &[(&[usize], usize)] = &[
        (&[10], 1),
        (&[4, 1], 1),
        (&[300, 3], 1),
        (&[100, 17], 1),
        (&[6, 400], 1),
        (&[3, 3000], 1),
        (&[2, 9000], 1),
        (&[2, 3, 4, 50], 2),
        (&[5, 2, 3, 7], 3),
        (&[4, 0], 1),
        (&[0, 4], 1),
        (&[30, 2, 2], 2),
        (&[1, 1, 1], 2),
    ];
    fuzz(200_000, 2000, shapes, &[DType::F32]);
    fuzz(300_000, 2000, shapes, &DType::ALL);
}

#[test]
fn columns() {
    // Reductions over dims whose strides are larger than those of the outer dims, so that lanes run across
    // rows.
    let shapes: &[(&[usize], usize)] = &[
        (&[300, 9], 1),
        (&[2, 70, 20], 1),
        (&[40, 300], 1),
        (&[5, 130, 2, 3], 2),
        (&[2100, 5], 1),
        (&[16, 700], 1),
    ];
    for (number, dtype) in (0..600).map(|n| (n, DType::ALL[n % 8])) {
        let mut rng = Rng::new(400_000 + number as u64);
        let (sizes, inner) = shapes[number % shapes.len()];
        let dtype = if number % 2 == 0 { DType::F32 } else { dtype };
        let mut case = case(&mut rng, sizes, inner, &[dtype]);
        // Each access that steps through all dims becomes contiguous along the last outer dim.
        let outer = case.kernel.outer();
        for access in &mut case.kernel.accesses {
            let plain = access.guards.is_empty() && access.indexed.is_empty() && access.offset == 0;
            if plain && access.strides.iter().all(|&s| s > 0) {
                let mut step = 1;
                for dim in (0..outer).rev().chain((outer..sizes.len()).rev()) {
                    access.strides[dim] = step;
                    step *= sizes[dim] as isize;
                }
            }
        }
        let kernel = Kernel::Loop(case.kernel);
        assert_agrees(Device::cpu().executor(), &kernel, &case.buffers, &case.dtypes, &case.params, 2e-5);
    }
}

/// The kernel that computes `mean((x - mean(x))^2)` over the inner dim, `x - mean(x)`, the position of the
/// largest element, and the sum.
fn statistics(sizes: [usize; 2], x: [isize; 2], out: [isize; 2]) -> Kernel {
    let mean = Instr::Const(Const::new(1.0 / sizes[1] as f64, Ty::F32));
    let row = [if sizes[0] == 1 { 0 } else { 1 }, 0];
    let access = |buffer, dtype, strides: &[isize]| Access::new(buffer, dtype, strides, 0);
    Kernel::Loop(Loop {
        sizes: sizes[..].into(),
        inner: 1,
        accesses: vec![
            access(0, DType::F32, &x),
            access(1, DType::F32, &row),
            access(2, DType::F32, &out),
            access(3, DType::I64, &row),
            access(4, DType::F32, &row),
        ],
        ranges: vec![],
        body: vec![
            Instr::Load { access: 0, indices: smallvec![] },
            Instr::Reduce { op: ReduceOp::Sum, a: 0 },
            mean,
            Instr::Binary { op: BinaryOp::Mul, a: 1, b: 2 },
            Instr::Binary { op: BinaryOp::Sub, a: 0, b: 3 },
            Instr::Binary { op: BinaryOp::Mul, a: 4, b: 4 },
            Instr::Reduce { op: ReduceOp::Sum, a: 5 },
            Instr::Binary { op: BinaryOp::Mul, a: 6, b: 2 },
            Instr::Reduce { op: ReduceOp::ArgMax, a: 0 },
        ],
        stores: vec![
            Store { access: 1, value: 7 },
            Store { access: 2, value: 4 },
            Store { access: 3, value: 8 },
            Store { access: 4, value: 1 },
        ],
    })
}

#[test]
fn long_rows_and_columns_are_split_the_same_way_for_any_number_of_threads() {
    // Rows and columns that are split, that are not because there are many of them, and that are just too
    // long to be kept.
    for (rows, n, contiguous) in
        [(1, 1_000_003, true), (3, 300_000, true), (40, 9_000, true), (7, 150_000, false), (1500, 300, false)]
    {
        let values: Vec<f32> = (0..rows * n).map(|i| ((i * 7919) % 10_007) as f32 / 100.0 - 40.0).collect();
        let strides = if contiguous { [n as isize, 1] } else { [1, rows as isize] };
        let strides = [if rows == 1 { 0 } else { strides[0] }, strides[1]];
        let kernel = statistics([rows, n], strides, strides);
        let empty = |bytes: usize| vec![0u8; bytes];
        let buffers = [
            bytemuck::cast_slice(&values).to_vec(),
            empty(rows * 4),
            empty(rows * n * 4),
            empty(rows * 8),
            empty(rows * 4),
        ];
        let mut outcomes = Vec::new();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let run = || execute(Device::cpu().executor(), &kernel, &buffers, &[]).unwrap();
            outcomes.push(pool.install(run));
        }
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{rows} x {n}");
        let floats = |b: &[u8]| -> Vec<f32> { bytemuck::pod_collect_to_vec(b) };
        let (variance, centered, sums) =
            (floats(&outcomes[0][1]), floats(&outcomes[0][2]), floats(&outcomes[0][4]));
        let positions: Vec<i64> = bytemuck::pod_collect_to_vec(&outcomes[0][3]);
        for row in 0..rows {
            let at = |i: usize| if contiguous { row * n + i } else { i * rows + row };
            let x: Vec<f64> = (0..n).map(|i| f64::from(values[at(i)])).collect();
            let sum: f64 = x.iter().sum();
            let mean = sum / n as f64;
            let truth = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let near = |a: f32, b: f64, scale: f64| (f64::from(a) - b).abs() <= 1e-5 * scale;
            assert!(near(sums[row], sum, n as f64), "{rows} x {n}: {} {sum}", sums[row]);
            assert!(near(variance[row], truth, truth), "{rows} x {n}: {} {truth}", variance[row]);
            assert!((0..n).step_by(997).all(|i| near(centered[at(i)], x[i] - mean, 40.0)), "{rows} x {n}");
            let first = (0..n).fold(0, |best, i| if x[i] > x[best] { i } else { best });
            assert_eq!(positions[row], first as i64, "{rows} x {n}");
        }
    }
}

#[test]
fn a_sum_of_many_elements_keeps_its_digits() {
    // The sum of 10^8 times 0.1, without a buffer of that size. 0.1 as f32 is 0.100000001490116.
    let n = 100_000_000;
    let kernel = Kernel::Loop(Loop {
        sizes: smallvec![n],
        inner: 1,
        accesses: vec![Access::new(0, DType::F32, &[0], 0), Access::new(1, DType::F32, &[0], 0)],
        ranges: vec![],
        body: vec![
            Instr::Load { access: 0, indices: smallvec![] },
            Instr::Coord { dim: 0 },
            Instr::Cast { a: 1, to: DType::F32 },
            Instr::Const(Const::new(0.0, Ty::F32)),
            Instr::Binary { op: BinaryOp::Mul, a: 2, b: 3 },
            Instr::Binary { op: BinaryOp::Add, a: 0, b: 4 },
            Instr::Reduce { op: ReduceOp::Sum, a: 5 },
        ],
        stores: vec![Store { access: 1, value: 6 }],
    });
    let out = execute(Device::cpu().executor(), &kernel, &[0.1f32.to_le_bytes().to_vec(), vec![0; 4]], &[]);
    let sum = f32::from_le_bytes(out.unwrap()[1][..].try_into().unwrap());
    assert!((sum - 10_000_000.0).abs() <= 2.0, "{sum}");
}

/// A loop over n elements.
fn over(n: usize, accesses: Vec<Access>, body: Vec<Instr>, stores: Vec<Store>) -> Kernel {
    Kernel::Loop(Loop { sizes: smallvec![n], inner: 0, accesses, ranges: vec![], body, stores })
}

#[test]
fn a_buffer_may_be_updated_in_place() {
    // p -= 0.5 g, while the old p is stored elsewhere, for both orders of the stores.
    let n = 100_000;
    for swapped in [false, true] {
        let access = |buffer| Access::new(buffer, DType::F32, &[1], 0);
        let mut stores = vec![Store { access: 2, value: 4 }, Store { access: 3, value: 0 }];
        if swapped {
            stores.reverse();
        }
        let kernel = over(
            n,
            vec![access(0), access(1), access(0), access(2)],
            vec![
                Instr::Load { access: 0, indices: smallvec![] },
                Instr::Load { access: 1, indices: smallvec![] },
                Instr::Param { index: 0, ty: Ty::F32 },
                Instr::Binary { op: BinaryOp::Mul, a: 1, b: 2 },
                Instr::Binary { op: BinaryOp::Sub, a: 0, b: 3 },
            ],
            stores,
        );
        let p: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let g: Vec<f32> = (0..n).map(|i| (i % 100) as f32).collect();
        let buffers = [bytemuck::cast_slice(&p).to_vec(), bytemuck::cast_slice(&g).to_vec(), vec![0; n * 4]];
        let out = execute(Device::cpu().executor(), &kernel, &buffers, &[Scalar::Float(0.5)]).unwrap();
        let new: Vec<f32> = bytemuck::pod_collect_to_vec(&out[0]);
        assert!((0..n).all(|i| new[i] == p[i] - 0.5 * g[i]));
        assert_eq!(out[2], buffers[0]);
    }
}

#[test]
fn two_operations_in_a_row_round_as_each_alone() {
    // (a first b) second c and c second (a first b), where each operand is n numbers or one for all. The
    // single one is a value of the row, so that it is not known before the loop.
    let (rows, n) = (3, 37);
    let value = |i: usize| ((i * 7919 % 1000) as f32 - 500.0) / 333.0;
    let buffers: Vec<Vec<u8>> = (0..3)
        .map(|k| (0..rows * n).flat_map(|i| value(i + 1000 * k).to_le_bytes()).collect())
        .chain([vec![0; rows * n * 4]])
        .collect();
    let apply = |op, a: f32, b: f32| match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        _ => a * b,
    };
    let operations = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul];
    for (first, second) in operations.iter().flat_map(|&f| operations.map(|s| (f, s))) {
        for (reversed, single) in [false, true].iter().flat_map(|&r| (0..7usize).map(move |s| (r, s))) {
            let lanes = |k: usize| single >> k & 1 == 0;
            let access = |k: usize| Access::new(k, DType::F32, &[n as isize, isize::from(lanes(k))], 0);
            let load = |access| Instr::Load { access, indices: smallvec![] };
            let (a, b) = if reversed { (2, 3) } else { (3, 2) };
            let kernel = Kernel::Loop(Loop {
                sizes: smallvec![rows, n],
                inner: 1,
                accesses: vec![
                    access(0),
                    access(1),
                    access(2),
                    Access::new(3, DType::F32, &[n as isize, 1], 0),
                ],
                ranges: vec![],
                body: vec![
                    load(0),
                    load(1),
                    load(2),
                    Instr::Binary { op: first, a: 0, b: 1 },
                    Instr::Binary { op: second, a, b },
                ],
                stores: vec![Store { access: 3, value: 4 }],
            });
            let out = execute(Device::cpu().executor(), &kernel, &buffers, &[]).unwrap();
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&out[3]);
            for (i, &found) in found.iter().enumerate() {
                let operand = |k: usize| value(if lanes(k) { i } else { i / n * n } + 1000 * k);
                let before = apply(first, operand(0), operand(1));
                let (x, y) = if reversed { (operand(2), before) } else { (before, operand(2)) };
                assert_eq!(found, apply(second, x, y), "{first:?} {second:?} {reversed} {single:03b} at {i}");
            }
        }
    }
}

#[test]
fn random_bits_are_philox_by_index() {
    // Consecutive indices from any start, in both directions, equal indices, and indices that wrap at the end
    // of u32.
    let n = 3000;
    let params: Vec<Scalar> =
        [0x1234_5678, 0x9abc_def0, 0xdead_beef, 7].map(|x: u32| Scalar::from(i64::from(x))).to_vec();
    for (factor, first) in [(1, 0), (1, 1), (1, 1_000_003), (-1, 5000), (0, 9), (1, -1500), (7, 3)] {
        let body = vec![
            Instr::Coord { dim: 0 },
            Instr::Const(Const::new(factor, Ty::I32)),
            Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
            Instr::Const(Const::new(first, Ty::I32)),
            Instr::Binary { op: BinaryOp::Add, a: 2, b: 3 },
            Instr::Philox { index: 4, params: 0 },
            Instr::Cast { a: 5, to: DType::I64 },
        ];
        let access = Access::new(0, DType::I64, &[1], 0);
        let kernel = over(n, vec![access], body, vec![Store { access: 0, value: 6 }]);
        assert_agrees(Device::cpu().executor(), &kernel, &[vec![0; n * 8]], &[DType::I64], &params, 0.0);
    }
}

#[test]
fn normal_numbers_depend_on_their_index_alone() {
    let n = 3000;
    let params: Vec<Scalar> =
        [0x1234_5678, 0x9abc_def0, 0xdead_beef, 7].map(|x: u32| Scalar::from(i64::from(x))).to_vec();
    for (factor, first) in [(1, 0), (1, 1), (1, 1_000_003), (-1, 5000), (0, 9), (1, -1500), (7, 3)] {
        let body = vec![
            Instr::Coord { dim: 0 },
            Instr::Const(Const::new(factor, Ty::I32)),
            Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
            Instr::Const(Const::new(first, Ty::I32)),
            Instr::Binary { op: BinaryOp::Add, a: 2, b: 3 },
            Instr::Normal { index: 4, params: 0 },
        ];
        let access = Access::new(0, DType::F32, &[1], 0);
        let kernel = over(n, vec![access], body, vec![Store { access: 0, value: 5 }]);
        assert_agrees(Device::cpu().executor(), &kernel, &[vec![0; n * 4]], &[DType::F32], &params, 1e-6);
    }
}

#[test]
fn an_index_out_of_range_is_the_launch_s_error() {
    let n = 200_000;
    for (bad, at) in [(-1i64, 5usize), (10, 150_000), (i64::MAX, 199_999), (i64::MIN, 0)] {
        let mut table = Access::new(1, DType::F32, &[0], 0);
        table.indexed.push(IndexedDim { stride: 1, size: 10, op: "gather" });
        let kernel = over(
            n,
            vec![Access::new(0, DType::I64, &[1], 0), table, Access::new(2, DType::F32, &[1], 0)],
            vec![
                Instr::Load { access: 0, indices: smallvec![] },
                Instr::Load { access: 1, indices: smallvec![0] },
            ],
            vec![Store { access: 2, value: 1 }],
        );
        let mut indices: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
        indices[at] = bad;
        let buffers = [bytemuck::cast_slice(&indices).to_vec(), vec![0; 40], vec![0; n * 4]];
        let outcome = execute(Device::cpu().executor(), &kernel, &buffers, &[]);
        assert_eq!(outcome, Err(Error::Index { op: "gather", index: bad, size: 10, called_at: None }));
    }
}
