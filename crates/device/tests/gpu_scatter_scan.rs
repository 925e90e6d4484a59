//! Tests of scatters and scans on every adapter against the reference interpreter.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{Random, check, devices, dtypes, lowered, run, smallest};
use wgrad_device::kernel::{Access, IndexedDim, Kernel, ReduceOp, Scan, Scatter, ScatterOp};
use wgrad_device::layout::contiguous_strides;
use wgrad_device::{DType, Device, DeviceOptions, Error};

const OPS: [ScatterOp; 5] =
    [ScatterOp::Assign, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Max, ScatterOp::Min];

fn indices(random: &mut Random, dtype: DType, count: usize, size: usize) -> Vec<u8> {
    let one = |_| {
        let index = random.below(size);
        if dtype == DType::I32 {
            (index as i32).to_le_bytes().to_vec()
        } else {
            (index as i64).to_le_bytes().to_vec()
        }
    };
    (0..count).flat_map(one).collect()
}

/// Values whose products and sums are exact, so that any order gives the same result; nearly exact in f64.
fn exact(random: &mut Random, dtype: DType, elements: usize) -> Vec<u8> {
    let one = |_| {
        let value = random.pick(&[1.0f32, -1.0, 1.0, -1.0, 2.0, 0.5]);
        match dtype {
            DType::F32 => value.to_le_bytes().to_vec(),
            // Sums of these values do not fit into f32.
            DType::F64 => (f64::from(value) * (1.0 + 2f64.powi(-30))).to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
            DType::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            _ => random.bytes(dtype, 1),
        }
    };
    (0..elements).flat_map(one).collect()
}

/// The sizes of a scatter: `index_add` of rows `[count, features]` into `[size, features]` or, with `each`,
/// `scatter_add` along dim 0 with an index for each element.
#[derive(Clone, Copy)]
struct ScatterShape {
    count: usize,
    size: usize,
    features: usize,
    each: bool,
}

/// Compares a scatter with the reference.
fn scatter(device: &Device, seed: u64, op: ScatterOp, dtype: DType, shape: ScatterShape) {
    let ScatterShape { count, size, features, each } = shape;
    let random = &mut Random::new(seed);
    let index_dtype = random.pick(&[DType::I32, DType::I64]);
    let based = random.chance(50);
    let row = features as isize;
    let mut target = Access::new(2, dtype, &[0, 1], 0);
    target.indexed.push(IndexedDim { stride: row, size, op: "index_add" });
    let kernel = Scatter {
        op,
        sizes: [count, features].as_slice().into(),
        source: Access::new(0, dtype, &[row, 1], 0),
        indices: vec![Access::new(1, index_dtype, if each { &[1, 7] } else { &[1, 0] }, 0)],
        target,
        base: based.then_some(3),
        elements: size * features,
    };
    let contents = [
        exact(random, dtype, count * features),
        indices(random, index_dtype, count + features * 7, size),
        vec![0; size * features * dtype.size()],
        exact(random, dtype, size * features),
    ];
    eprintln!("{op:?} {dtype} {count} {size} {features} {each}");
    let tolerance = if dtype == DType::F64 { 1e-11 } else { 1e-5 };
    check(device, &Kernel::Scatter(kernel), &contents, &[dtype, index_dtype, dtype, dtype], &[], tolerance);
}

#[test]
fn scatters() {
    for device in devices() {
        for (i, dtype) in dtypes(&device).into_iter().enumerate() {
            for (j, op) in OPS.into_iter().enumerate() {
                let seed = (i * 10 + j) as u64;
                scatter(
                    &device,
                    seed,
                    op,
                    dtype,
                    ScatterShape { count: 20, size: 7, features: 5, each: j % 2 == 0 },
                );
                scatter(
                    &device,
                    seed,
                    op,
                    dtype,
                    ScatterShape { count: 700, size: 11, features: 3, each: j % 2 == 1 },
                );
                if matches!(dtype, DType::F32 | DType::F64) || i == j {
                    // Many entries in one place, and many places.
                    scatter(
                        &device,
                        seed,
                        op,
                        dtype,
                        ScatterShape { count: 40_000, size: 1, features: 1, each: false },
                    );
                    scatter(
                        &device,
                        seed,
                        op,
                        dtype,
                        ScatterShape { count: 3_000, size: 2_000, features: 2, each: true },
                    );
                }
            }
        }
        scatter(
            &device,
            1,
            ScatterOp::Add,
            DType::F32,
            ScatterShape { count: 0, size: 3, features: 4, each: false },
        );
        scatter(
            &device,
            1,
            ScatterOp::Add,
            DType::F32,
            ScatterShape { count: 3, size: 4, features: 0, each: false },
        );
    }
}

#[test]
fn values_and_indices_beyond_a_binding() {
    // 1 MiB can be bound. Each of these scatters has more values, more indices or more entries than that.
    for device in lowered(&smallest()) {
        for (i, op) in OPS.into_iter().enumerate() {
            scatter(
                &device,
                i as u64,
                op,
                DType::F32,
                ScatterShape { count: 300_000, size: 60_000, features: 1, each: false },
            );
            scatter(
                &device,
                i as u64,
                op,
                dtypes(&device)[i + 1],
                ScatterShape { count: 90_000, size: 30_000, features: 5, each: false },
            );
            scatter(
                &device,
                i as u64,
                op,
                DType::F32,
                ScatterShape { count: 100_000, size: 40_000, features: 3, each: true },
            );
        }
        if device.supports(DType::F64) {
            scatter(
                &device,
                6,
                ScatterOp::Add,
                DType::F64,
                ScatterShape { count: 150_000, size: 30_000, features: 1, each: false },
            );
        }
        scatter(
            &device,
            7,
            ScatterOp::Add,
            DType::F32,
            ScatterShape { count: 3, size: 2, features: 600_000, each: false },
        );
        scatter(
            &device,
            8,
            ScatterOp::Assign,
            DType::BF16,
            ScatterShape { count: 5, size: 3, features: 400_000, each: false },
        );
    }
}

#[test]
fn overlapping_places_without_indices() {
    // The gradient of a sliding window, where the place is window + element.
    for device in devices() {
        let (windows, length) = (500, 9);
        let elements = windows + length - 1;
        let kernel = Scatter {
            op: ScatterOp::Add,
            sizes: [windows, length].as_slice().into(),
            source: Access::new(0, DType::F32, &[length as isize, 1], 0),
            indices: vec![],
            target: Access::new(1, DType::F32, &[1, 1], 0),
            base: None,
            elements,
        };
        let contents = [Random::new(4).bytes(DType::F32, windows * length), vec![0; elements * 4]];
        check(&device, &Kernel::Scatter(kernel), &contents, &[DType::F32; 2], &[], 1e-5);
    }
}

#[test]
fn a_bad_index_is_an_error_of_the_next_read_and_of_that_only() {
    // The test has devices of its own, because the next read of a shared device may be that of another test.
    for device in lowered(&DeviceOptions::default()) {
        for bad in [-1i64, 4, i64::MAX] {
            let mut target = Access::new(2, DType::F32, &[0], 0);
            target.indexed.push(IndexedDim { stride: 1, size: 4, op: "put" });
            let kernel = Kernel::Scatter(Scatter {
                op: ScatterOp::Add,
                sizes: [3].as_slice().into(),
                source: Access::new(0, DType::F32, &[1], 0),
                indices: vec![Access::new(1, DType::I64, &[1], 0)],
                target,
                base: None,
                elements: 4,
            });
            let indices: Vec<u8> = [0, bad, 3].iter().flat_map(|i: &i64| i.to_le_bytes()).collect();
            let good: Vec<u8> = [0i64, 1, 3].iter().flat_map(|i| i.to_le_bytes()).collect();
            let source = vec![0; 12];
            let error = run(&device, &kernel, &[source.clone(), indices, vec![0; 16]], &[]).unwrap_err();
            assert_eq!(error, Error::Index { op: "put", index: bad, size: 4, called_at: None });
            run(&device, &kernel, &[source, good, vec![0; 16]], &[]).expect("the error was reported");
        }
    }
}

fn scan(device: &Device, seed: u64, op: ReduceOp, dtype: DType, sizes: &[usize]) {
    let random = &mut Random::new(seed);
    let elements: usize = sizes.iter().product();
    let strides = contiguous_strides(sizes);
    let mut reversed = strides.clone();
    let mut offset = 0;
    if random.chance(50) {
        let last = sizes.len() - 1;
        reversed[last] = -1;
        offset = sizes[last] as isize - 1;
    }
    let source = Access::new(0, dtype, &reversed, offset);
    let kernel = Scan { op, sizes: sizes.into(), source, target: Access::new(1, dtype, &strides, 0) };
    let contents = [
        if op == ReduceOp::Prod { exact(random, dtype, elements) } else { random.bytes(dtype, elements) },
        vec![0; elements * dtype.size()],
    ];
    eprintln!("{op:?} {dtype} {sizes:?}");
    let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-4 };
    check(device, &Kernel::Scan(kernel), &contents, &[dtype; 2], &[], tolerance);
}

fn scans(device: &Device) {
    for (i, dtype) in dtypes(device).into_iter().enumerate() {
        for (j, op) in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min].into_iter().enumerate() {
            let exact = !dtype.is_half() || op != ReduceOp::Prod;
            scan(device, (i * 10 + j) as u64, op, dtype, &[3, 20]);
            if exact {
                scan(device, (i * 10 + j) as u64, op, dtype, &[2, 2, 600]);
                scan(device, (i * 10 + j) as u64, op, dtype, &[70, 20]);
            }
        }
    }
}

#[test]
fn running_folds() {
    for device in devices() {
        scans(&device);
    }
    for device in lowered(&smallest()) {
        scans(&device);
    }
}

#[test]
fn a_running_sum_over_millions() {
    let n = 3_000_000usize;
    let source: Vec<u8> = (0..n).flat_map(|i| ((i % 3) as i32).to_le_bytes()).collect();
    for device in devices().into_iter().chain(lowered(&smallest())) {
        let kernel = Scan {
            op: ReduceOp::Sum,
            sizes: [n].as_slice().into(),
            source: Access::new(0, DType::I32, &[1], 0),
            target: Access::new(1, DType::I32, &[1], 0),
        };
        let result =
            run(&device, &Kernel::Scan(kernel), &[source.clone(), vec![0; n * 4]], &[]).expect("a scan");
        let mut sum = 0;
        for (i, bytes) in result[1].chunks(4).enumerate() {
            sum += (i % 3) as i32;
            assert_eq!(i32::from_le_bytes(bytes.try_into().unwrap()), sum, "{device}: element {i}");
        }
    }
}
