//! Tests of matrix products on every adapter against the reference interpreter.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{Random, check, devices, dtypes, hardware, lowered, run, scaled_with_bias, smallest};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, Const, Instr, Kernel, Loop, Matmul, Store, Ty};
use wgrad_device::layout::{Dims, Strides, contiguous_strides};
use wgrad_device::{DType, Device, Scalar};

/// The sizes of a product `[batch.., m, k] @ [batch.., k, n]`.
#[derive(Clone, Copy)]
struct Shape<'b> {
    batch: &'b [usize],
    m: usize,
    n: usize,
    k: usize,
}

/// A factor, which may be transposed, broadcast or offset, and the contents of its buffer.
fn operand(
    random: &mut Random,
    dtype: DType,
    buffer: usize,
    batch: &[usize],
    matrix: [usize; 2],
) -> (Access, Vec<u8>) {
    let mut sizes: Dims = batch.into();
    sizes.extend(matrix);
    let rank = sizes.len();
    let mut stored = sizes.clone();
    let transposed = random.chance(40);
    if transposed {
        stored.swap(rank - 2, rank - 1);
    }
    let mut strides: Strides = contiguous_strides(&stored);
    if transposed {
        strides.swap(rank - 2, rank - 1);
    }
    for d in 0..batch.len() {
        if sizes[d] == 1 || random.chance(20) {
            strides[d] = 0;
        }
    }
    for d in rank - 2..rank {
        if sizes[d] == 1 {
            strides[d] = 0;
        }
    }
    let offset = random.below(3);
    let elements: usize = sizes.iter().product();
    let bytes = random.bytes(dtype, elements + offset);
    (Access::new(buffer, dtype, &strides, offset as isize), bytes)
}

/// A product, whose epilogue may be `|product * scale + bias|` and may set elements above the diagonal to
/// zero.
fn product(random: &mut Random, dtype: DType, shape: Shape<'_>) -> (Matmul, Vec<Vec<u8>>, Vec<DType>) {
    let Shape { batch, m, n, k } = shape;
    let mut contents = Vec::new();
    let mut dtypes = Vec::new();
    let mut operand = |random: &mut Random, buffer: usize, rows: usize, columns: usize| {
        let (access, bytes) = operand(random, dtype, buffer, batch, [rows, columns]);
        contents.push(bytes);
        dtypes.push(dtype);
        access
    };
    let lhs = operand(random, 0, m, k);
    let rhs = operand(random, 1, k, n);
    let mut sizes: Dims = batch.into();
    sizes.extend([m, n]);
    let mut epilogue = Loop {
        sizes: sizes.clone(),
        inner: 0,
        accesses: vec![],
        ranges: vec![],
        body: vec![Instr::Accumulator],
        stores: vec![],
    };
    let mut value = 0;
    if Ty::of(dtype) != Ty::Bool && random.chance(50) {
        let mut along: Strides = smallvec![0; sizes.len()];
        let last = sizes.len() - 1;
        along[last] = if n == 1 { 0 } else { 1 };
        contents.push(random.bytes(dtype, n));
        dtypes.push(dtype);
        epilogue.accesses.push(Access::new(2, dtype, &along, 0));
        epilogue.body = scaled_with_bias(0, dtype).to_vec();
        value = 5;
    }
    if random.chance(50) {
        let ty = Ty::of(dtype);
        let (row, column) = (sizes.len() - 2, sizes.len() - 1);
        let next = value + 1;
        epilogue.body.extend([
            Instr::Coord { dim: row },
            Instr::Coord { dim: column },
            Instr::Binary { op: BinaryOp::Lt, a: next, b: next + 1 },
            Instr::Const(Const::new(false, ty)),
            Instr::Select { cond: next + 2, a: next + 3, b: value },
        ]);
        value = next + 4;
    }
    let out = contents.len();
    let elements: usize = sizes.iter().product();
    let mut strides: Strides = contiguous_strides(&sizes);
    sizes.iter().zip(strides.iter_mut()).filter(|(size, _)| **size == 1).for_each(|(_, stride)| *stride = 0);
    epilogue.accesses.push(Access::new(out, dtype, &strides, 0));
    epilogue.stores.push(Store { access: epilogue.accesses.len() - 1, value });
    contents.push(vec![0; elements * dtype.size()]);
    dtypes.push(dtype);
    (Matmul::new(k, lhs, rhs, epilogue), contents, dtypes)
}

fn compare(device: &Device, seed: u64, dtype: DType, shape: Shape<'_>) {
    let (kernel, contents, dtypes) = product(&mut Random::new(seed), dtype, shape);
    let Shape { batch, m, n, k } = shape;
    eprintln!("{dtype} {batch:?} {m} {n} {k}");
    let params = [Scalar::Float(2.0)];
    let unit = if dtype == DType::F64 { 1e-14 } else { 1e-5 };
    check(device, &Kernel::Matmul(kernel), &contents, &dtypes, &params, unit * (k as f64).sqrt().max(4.0));
}

const SHAPES: [(usize, usize, usize); 18] = [
    (1, 1, 1),
    (3, 5, 7),
    (16, 16, 16),
    (64, 64, 20),
    (65, 63, 33),
    (1, 64, 20),
    (64, 1, 20),
    (33, 2, 40),
    (2, 33, 41),
    (17, 20, 4),
    (5, 6, 0),
    (0, 3, 4),
    (3, 0, 4),
    (100, 12, 9),
    (4, 8, 1100),
    (3, 12, 2050),
    (4, 8, 2048),
    (20, 70, 1536),
];

#[test]
fn all_dtypes_and_shapes() {
    for device in devices().into_iter().chain(lowered(&hardware())) {
        for (i, (m, n, k)) in SHAPES.into_iter().enumerate() {
            for (j, dtype) in dtypes(&device).into_iter().enumerate() {
                if matches!(dtype, DType::F32 | DType::F64) || (i + j) % 3 == 0 {
                    let all = [&[][..], &[2, 1, 2]];
                    let batches = if m * n * k > 20_000 { &all[..1] } else { &all[..] };
                    for (b, batch) in batches.iter().enumerate() {
                        compare(&device, (i * 100 + j * 10 + b) as u64, dtype, Shape { batch, m, n, k });
                    }
                }
            }
        }
    }
}

#[test]
fn operands_beyond_the_binding_limit() {
    for device in lowered(&smallest()) {
        // Operands of more than 1 MiB, in all layouts.
        for seed in 0..3 {
            compare(&device, seed, DType::F32, Shape { batch: &[], m: 2, n: 2, k: 150_000 });
            compare(&device, seed, DType::F32, Shape { batch: &[], m: 15_000, n: 2, k: 20 });
            if device.supports(DType::F64) {
                compare(&device, seed, DType::F64, Shape { batch: &[], m: 2, n: 3, k: 80_000 });
            }
        }
        compare(&device, 9, DType::F32, Shape { batch: &[2], m: 4, n: 40_000, k: 2 });
    }
}

#[test]
fn a_million_steps_of_the_inner_dim() {
    let k = 1_000_000;
    for device in devices() {
        let (mut kernel, _, _) =
            product(&mut Random::new(1), DType::F32, Shape { batch: &[], m: 2, n: 3, k: 4 });
        kernel.k = k;
        kernel.lhs = Access::new(0, DType::F32, &[0, 1], 0);
        kernel.rhs = Access::new(1, DType::F32, &[1, 0], 0);
        kernel.epilogue.body.truncate(1);
        kernel.epilogue.accesses = vec![Access::new(2, DType::F32, &[3, 1], 0)];
        kernel.epilogue.stores = vec![Store { access: 0, value: 0 }];
        let column: Vec<u8> = (0..k).flat_map(|i| ((i % 7) as f32).to_le_bytes()).collect();
        let contents = [column.clone(), column, vec![0; 24]];
        let truth: f64 = (0..k).map(|i| ((i % 7) * (i % 7)) as f64).sum();
        let result = run(&device, &Kernel::Matmul(kernel), &contents, &[]).expect("a product");
        for bytes in result[2].chunks(4) {
            let found = f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
            assert!((found - truth).abs() < truth * 1e-5, "{device}: {found} instead of {truth}");
        }
    }
}
