//! Tests of devices, memory, limits, determinism, long sums and generated sources on every adapter.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{Random, check, devices, hardware, lowered, run, smallest};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, IndexedDim, Instr, Kernel, Loop, ReduceOp, Store, Ty, UnaryOp};
use wgrad_device::{DType, Device, DeviceOptions, Element, Error, Scalar};

fn load(access: usize) -> Instr {
    Instr::Load { access, indices: smallvec![] }
}

/// The kernel that reduces the last dim of `[rows, n]`, whose elements have these strides, to contiguous
/// results.
fn fold(op: ReduceOp, dtype: DType, rows: usize, n: usize, strides: [isize; 2]) -> Kernel {
    let result = if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) { DType::I64 } else { dtype };
    Kernel::Loop(Loop {
        sizes: smallvec![rows, n],
        inner: 1,
        accesses: vec![
            Access::new(0, dtype, &strides, 0),
            Access::new(1, result, &[if rows == 1 { 0 } else { 1 }, 0], 0),
        ],
        ranges: vec![],
        body: vec![load(0), Instr::Reduce { op, a: 0 }],
        stores: vec![Store { access: 1, value: 1 }],
    })
}

/// The devices that a separate process lists; in that process this test does nothing else.
const LISTING: &str = "WGRAD_TEST_LISTING";

#[test]
fn listing_devices_writes_nothing_where_there_is_no_desktop() {
    let names: Vec<String> = Device::available().into_iter().map(|info| info.name).collect();
    if std::env::var_os(LISTING).is_some() {
        println!("listed: {}", names.join(" "));
        return;
    }
    let mut listing = std::process::Command::new(std::env::current_exe().unwrap());
    listing.args(["--exact", "listing_devices_writes_nothing_where_there_is_no_desktop", "--nocapture"]);
    listing.env(LISTING, "1");
    for desktop in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"] {
        listing.env_remove(desktop);
    }
    let output = listing.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), "");
    let expected = format!("listed: {}", names.join(" "));
    assert!(text(&output.stdout).contains(&expected), "{expected}: {}", text(&output.stdout));
}

#[test]
fn names_share_devices_and_say_what_is_missing() {
    for info in Device::available() {
        let device: Device = info.name.parse().unwrap();
        assert_eq!(device.to_string(), info.name);
        assert_eq!(device, info.name.parse().unwrap());
    }
    let adapters = Device::available().len() - 1;
    for i in 0..adapters {
        let device = Device::wgpu(i).unwrap();
        assert_eq!(device, device.name().parse().unwrap());
    }
    let missing = Device::wgpu(adapters).unwrap_err();
    assert!(matches!(missing, Error::DeviceUnavailable { .. }), "{missing}");
    assert!(missing.to_string().contains("cpu"), "{missing}");
    if !cfg!(target_vendor = "apple") {
        assert!(matches!(Device::mps(), Err(Error::DeviceUnavailable { .. })));
        assert!("mps".parse::<Device>().unwrap_err().to_string().contains("Metal"));
    }
    for text in ["", "cuda", "vulkan:x", "vulkan:-1", "cpu:1", "gl:0:0"] {
        assert!(matches!(text.parse::<Device>(), Err(Error::Parse { .. })), "{text:?}");
    }
}

#[test]
fn bytes_come_back_at_every_offset() {
    for device in devices() {
        let executor = device.executor();
        for n in [0usize, 1, 3, 4, 255, 256, 257, 70_001, 3 << 20] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 7) as u8).collect();
            let buffer = executor.upload(&bytes).unwrap();
            assert_eq!(buffer.bytes(), n);
            for offset in [0, 1, 2, 3, n / 2, n].into_iter().filter(|&o| o <= n) {
                let mut out = vec![0; n - offset];
                executor.download(&buffer, offset, &mut out).unwrap();
                assert!(out == bytes[offset..], "{device}: {n} bytes from {offset}");
            }
            assert!(executor.download(&buffer, n, &mut [0]).is_err());
        }
        let other = Device::open_with(device.name(), DeviceOptions::default()).unwrap();
        assert!(matches!(
            executor.download(&other.executor().alloc(4).unwrap(), 0, &mut [0; 4]),
            Err(Error::DeviceMismatch { .. })
        ));
    }
}

#[test]
fn uploads_into_recycled_memory_wait_for_kernels_before_them() {
    for device in devices() {
        let executor = device.executor();
        let n = 10_000;
        let kernel = Kernel::Loop(Loop {
            sizes: smallvec![n],
            inner: 0,
            accesses: vec![Access::new(0, DType::I32, &[1], 0), Access::new(1, DType::I32, &[1], 0)],
            ranges: vec![],
            body: vec![load(0), Instr::Unary { op: UnaryOp::Neg, a: 0 }],
            stores: vec![Store { access: 1, value: 1 }],
        });
        let prepared = executor.prepare(&kernel).unwrap();
        let mut outputs = Vec::new();
        for round in 0..50 {
            let input = executor.upload(i32::to_bytes(&vec![round; n])).unwrap();
            let output = executor.alloc(n * 4).unwrap();
            prepared.launch(&[&input, &output], &[]).unwrap();
            outputs.push(output);
        }
        for (round, output) in outputs.iter().enumerate() {
            let mut out = vec![0; n * 4];
            executor.download(output, 0, &mut out).unwrap();
            assert!(i32::from_bytes(&out).iter().all(|&x| x == -(round as i32)), "{device}: round {round}");
        }
    }
}

#[test]
fn a_hundred_million_elements_keep_their_digits() {
    let n = 100_000_000;
    let value = 0.1f32;
    for device in devices().into_iter().chain(lowered(&hardware())) {
        let executor = device.executor();
        // 400 MB of one number, which are made on the device. Equal terms are the worst case for a sum that
        // grows.
        let fill = Kernel::Loop(Loop {
            sizes: smallvec![n],
            inner: 0,
            accesses: vec![Access::new(0, DType::F32, &[1], 0)],
            ranges: vec![],
            body: vec![Instr::Const(wgrad_device::kernel::Const::new(value, wgrad_device::kernel::Ty::F32))],
            stores: vec![Store { access: 0, value: 0 }],
        });
        let input = executor.alloc(n * 4).unwrap();
        executor.prepare(&fill).unwrap().launch(&[&input], &[]).unwrap();
        // One row of all elements, long rows, many rows, few columns and many columns.
        for (rows, strides) in [
            (1, [0, 1]),
            (4, [n as isize / 4, 1]),
            (10_000, [10_000, 1]),
            (100, [1, 100]),
            (10_000, [1, 10_000]),
        ] {
            let kernel = fold(ReduceOp::Sum, DType::F32, rows, n / rows, strides);
            let output = executor.alloc(rows * 4).unwrap();
            executor.prepare(&kernel).unwrap().launch(&[&input, &output], &[]).unwrap();
            let mut out = vec![0; rows * 4];
            executor.download(&output, 0, &mut out).unwrap();
            let truth = f64::from(value) * (n / rows) as f64;
            for sum in f32::from_bytes(&out) {
                let error = (f64::from(sum) - truth).abs() / truth;
                assert!(error < 2e-6, "{device}: {rows} rows: {sum} instead of {truth}");
            }
        }
        drop(input);
        device.trim();
    }
}

#[test]
fn the_first_best_is_found_and_nan_is_best() {
    let random = &mut Random::new(2);
    let (rows, n) = (6, 5000);
    for (dtype, ops) in [
        (DType::F32, vec![ReduceOp::ArgMax, ReduceOp::ArgMin, ReduceOp::Max, ReduceOp::Min]),
        (DType::F64, vec![ReduceOp::ArgMax, ReduceOp::ArgMin, ReduceOp::Max, ReduceOp::Min]),
        (DType::I64, vec![ReduceOp::ArgMax, ReduceOp::ArgMin]),
        (DType::U8, vec![ReduceOp::ArgMax, ReduceOp::ArgMin]),
    ] {
        let mut contents = random.bytes(dtype, rows * n);
        if dtype.is_float() {
            let read = |i: usize| match dtype {
                DType::F32 => f64::from(f32::from_bytes(&contents[i * 4..i * 4 + 4])[0]),
                _ => f64::from_bytes(&contents[i * 8..i * 8 + 8])[0],
            };
            let mut values: Vec<f64> = (0..rows * n).map(read).collect();
            values[n + 700] = f64::NAN;
            values[n + 3000] = -f64::NAN;
            values[2 * n..3 * n].fill(f64::NEG_INFINITY);
            values[3 * n..4 * n].fill(f64::INFINITY);
            values[4 * n..5 * n]
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = if i % 2 == 0 { 0.0 } else { -0.0 });
            contents = values.into_iter().flat_map(|value| Scalar::Float(value).to_bytes(dtype)).collect();
        }
        let all = devices().into_iter().chain(lowered(&smallest())).chain(lowered(&hardware()));
        for device in all.filter(|device| device.supports(dtype)) {
            for &op in &ops {
                let result =
                    if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) { DType::I64 } else { dtype };
                // Reductions along rows, along columns, and of all elements as one row.
                for (rows, n, strides) in
                    [(rows, n, [n as isize, 1]), (n, rows, [1, n as isize]), (1, rows * n, [0, 1])]
                {
                    let kernel = fold(op, dtype, rows, n, strides);
                    check(
                        &device,
                        &kernel,
                        &[contents.clone(), vec![0; rows * result.size()]],
                        &[dtype, result],
                        &[],
                        0.0,
                    );
                }
            }
        }
    }
}

#[test]
fn memory_beyond_the_limit_is_an_error_and_the_program_goes_on() {
    for device in lowered(&DeviceOptions { memory_limit: Some(8 << 20), ..DeviceOptions::default() }) {
        let executor = device.executor();
        let kept = executor.upload(&[7; 1 << 20]).unwrap();
        match executor.alloc(64 << 20) {
            Err(Error::OutOfMemory { requested, used, limit }) => {
                assert_eq!((requested, limit), (64 << 20, 8 << 20));
                assert!(used >= 1 << 20);
            }
            other => panic!("{device}: {other:?}"),
        }
        let mut out = [0; 16];
        executor.download(&kept, 100, &mut out).unwrap();
        assert_eq!(out, [7; 16]);
        // Freed memory is used again, also for another size.
        for size in [4 << 20, 3 << 20, 5 << 20, 6 << 20] {
            drop(executor.alloc(size).unwrap());
        }
        device.set_memory_limit(None);
        drop(executor.alloc(64 << 20).unwrap());
        assert!(matches!(executor.alloc(usize::MAX / 2), Err(Error::OutOfMemory { .. })));
        device.trim();
        assert!(device.stats().bytes_pooled <= 1 << 20, "{:?}", device.stats());
    }
}

#[test]
fn a_repeated_program_asks_the_driver_for_nothing() {
    for device in lowered(&DeviceOptions::default()) {
        let executor = device.executor();
        let step = |n: usize| {
            let kernel = fold(ReduceOp::Sum, DType::F32, n, 300, [300, 1]);
            let input = executor.upload(f32::to_bytes(&vec![1.0; n * 300])).unwrap();
            let output = executor.alloc(n * 4).unwrap();
            executor.prepare(&kernel).unwrap().launch(&[&input, &output], &[]).unwrap();
            let mut out = vec![0; n * 4];
            executor.download(&output, 0, &mut out).unwrap();
            assert!(f32::from_bytes(&out).iter().all(|&sum| sum == 300.0));
        };
        step(100);
        let before = device.stats();
        step(100);
        step(90);
        let grown = device.stats().since(&before);
        assert_eq!(grown.pipelines_compiled, 0, "another number of rows compiles nothing");
        assert_eq!(grown.pipeline_hits, 2);
        step(100);
        assert_eq!(device.stats().since(&before).dispatches, 3);
    }
}

#[test]
fn every_run_gives_the_same_bits() {
    let random = &mut Random::new(8);
    let contents = [random.bytes(DType::F32, 700_000), vec![0; 28]];
    for device in devices() {
        for (rows, strides) in [(1, [0, 1]), (7, [100_000, 1]), (7, [1, 7])] {
            let kernel = fold(ReduceOp::Sum, DType::F32, rows, 700_000 / rows, strides);
            let first = run(&device, &kernel, &contents, &[]).unwrap();
            for _ in 0..5 {
                assert!(
                    run(&device, &kernel, &contents, &[]).unwrap()[1] == first[1],
                    "{device}: {rows} rows"
                );
            }
        }
    }
}

#[test]
fn a_bad_index_in_a_load_is_reported_once() {
    for device in devices() {
        for n in [3usize, 1001] {
            let mut access = Access::new(0, DType::F32, &[0], 0);
            access.indexed.push(IndexedDim { stride: 1, size: 10, op: "gather" });
            let kernel = Kernel::Loop(Loop {
                sizes: smallvec![n],
                inner: 0,
                accesses: vec![
                    access,
                    Access::new(1, DType::I64, &[1], 0),
                    Access::new(2, DType::F32, &[1], 0),
                ],
                ranges: vec![],
                body: vec![load(1), Instr::Load { access: 0, indices: smallvec![0] }],
                stores: vec![Store { access: 2, value: 1 }],
            });
            let mut indices: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
            let source = f32::to_bytes(&[0.5; 10]).to_vec();
            let run = |indices: &[i64]| {
                run(&device, &kernel, &[source.clone(), i64::to_bytes(indices).to_vec(), vec![0; n * 4]], &[])
            };
            run(&indices).unwrap();
            indices[n / 2] = 10;
            assert_eq!(
                run(&indices).unwrap_err(),
                Error::Index { op: "gather", index: 10, size: 10, called_at: None }
            );
            indices[n / 2] = 0;
            run(&indices).unwrap();
        }
    }
}

#[test]
fn kernels_refuse_what_they_cannot_do() {
    for device in devices() {
        let doubles = fold(ReduceOp::Sum, DType::F64, 1, 4, [0, 1]);
        let refused = matches!(
            device.executor().prepare(&doubles).map(drop),
            Err(Error::DType { dtype: DType::F64, .. })
        );
        assert_eq!(refused, !device.supports(DType::F64));
        let kernel = fold(ReduceOp::Sum, DType::F32, 2, 4, [4, 1]);
        let prepared = device.executor().prepare(&kernel).unwrap();
        let small = device.executor().alloc(16).unwrap();
        assert!(matches!(prepared.launch(&[&small, &small], &[]), Err(Error::Argument { .. })));
        assert!(matches!(prepared.launch(&[&small], &[]), Err(Error::Argument { .. })));
    }
}

#[test]
fn gathers_from_more_than_a_binding() {
    // `out[i, j] = source[index[i], j]` from a source of 3 MB, where 1 MiB can be bound.
    for device in lowered(&smallest()) {
        for dtype in [DType::F32, DType::BF16, DType::I64, DType::U8] {
            for (row, count) in [(1usize, 5000usize), (16, 400), (21, 300), (300_000 / dtype.size(), 3)] {
                let size = (3 << 20) / dtype.size() / row;
                let random = &mut Random::new(row as u64);
                let mut source = Access::new(0, dtype, &[0, 1], 0);
                source.indexed.push(IndexedDim { stride: row as isize, size, op: "index_select" });
                let kernel = Kernel::Loop(Loop {
                    sizes: smallvec![count, row],
                    inner: 0,
                    accesses: vec![
                        source,
                        Access::new(1, DType::I64, &[1, 0], 0),
                        Access::new(2, dtype, &[row as isize, 1], 0),
                    ],
                    ranges: vec![],
                    body: vec![load(1), Instr::Load { access: 0, indices: smallvec![0] }],
                    stores: vec![Store { access: 2, value: 1 }],
                });
                // The first index, the last one, and any other.
                let index = |i: usize| if i < 2 { i * (size - 1) } else { random.below(size) };
                let indices: Vec<u8> = (0..count).map(index).flat_map(|i| (i as i64).to_le_bytes()).collect();
                let source = Random::new(1).bytes(dtype, size * row);
                let contents = [source, indices, vec![0; count * row * dtype.size()]];
                check(&device, &kernel, &contents, &[dtype, DType::I64, dtype], &[], 0.0);
            }
        }
    }
}

#[test]
fn parts_of_one_buffer_that_are_further_apart_than_a_binding() {
    // A buffer of 3 MB of which 1 MiB can be bound. If each access fits alone, one kernel binds several
    // parts, and the device itself runs it.
    let random = &mut Random::new(5);
    for device in lowered(&smallest()) {
        for (dtype, n) in [(DType::F32, 250_001usize), (DType::F16, 500_001), (DType::I64, 100_003)] {
            let offset = |part: usize| (part * (3_000_000 / dtype.size() - n) / 2) as isize;
            let add = |a, b| Instr::Binary { op: BinaryOp::Add, a, b };
            let kernel = Kernel::Loop(Loop {
                sizes: smallvec![n],
                inner: 0,
                accesses: vec![
                    Access::new(0, dtype, &[1], offset(0)),
                    Access::new(0, dtype, &[1], offset(1)),
                    Access::new(0, dtype, &[1], offset(2)),
                    Access::new(1, dtype, &[1], 0),
                ],
                ranges: vec![],
                body: vec![load(0), load(1), load(2), add(0, 1), add(3, 2)],
                stores: vec![Store { access: 3, value: 4 }],
            });
            let contents = [random.bytes(dtype, 3_000_000 / dtype.size()), vec![0; n * dtype.size()]];
            check(&device, &kernel, &contents, &[dtype, dtype], &[], 1e-6);
        }
        // Offsets of elements from the first one of their row, which lies in another part once a row is cut.
        let n = 700_000;
        let kernel = Kernel::Loop(Loop {
            sizes: smallvec![n],
            inner: 1,
            accesses: vec![
                Access::new(0, DType::F32, &[1], 0),
                Access::new(0, DType::F32, &[0], 0),
                Access::new(1, DType::F32, &[0], 0),
            ],
            ranges: vec![],
            body: vec![
                load(0),
                load(1),
                Instr::Binary { op: BinaryOp::Sub, a: 0, b: 1 },
                Instr::Unary { op: UnaryOp::Abs, a: 2 },
                Instr::Reduce { op: ReduceOp::Max, a: 3 },
            ],
            stores: vec![Store { access: 2, value: 4 }],
        });
        let contents = [random.bytes(DType::F32, n), vec![0; 4]];
        check(&device, &kernel, &contents, &[DType::F32, DType::F32], &[], 1e-6);
        assert_eq!(device.stats().hosted, 0, "{device}");
    }
}

#[test]
fn what_cannot_be_cut_runs_on_the_host() {
    // Reads of a buffer of 12 MB at the indices of another buffer need more windows than a kernel can bind.
    for device in lowered(&smallest()) {
        let (size, n) = (3_000_000usize, 1000usize);
        let mut source = Access::new(0, DType::F32, &[0], 0);
        source.indexed.push(IndexedDim { stride: 1, size, op: "take" });
        let kernel = Kernel::Loop(Loop {
            sizes: smallvec![n],
            inner: 0,
            accesses: vec![source, Access::new(1, DType::I64, &[1], 0), Access::new(2, DType::F32, &[1], 0)],
            ranges: vec![],
            body: vec![
                load(1),
                Instr::Load { access: 0, indices: smallvec![0] },
                Instr::Param { index: 0, ty: Ty::F32 },
                Instr::Binary { op: BinaryOp::Mul, a: 1, b: 2 },
            ],
            stores: vec![Store { access: 2, value: 3 }],
        });
        let places = |wrong: Option<i64>| -> Vec<u8> {
            let place = |i: usize| wrong.filter(|_| i == 7).unwrap_or((i * 2999) as i64);
            (0..n).map(place).flat_map(i64::to_le_bytes).collect()
        };
        let source = Random::new(6).bytes(DType::F32, size);
        let dtypes = [DType::F32, DType::I64, DType::F32];
        let contents = |wrong| [source.clone(), places(wrong), vec![0; n * 4]];
        check(&device, &kernel, &contents(None), &dtypes, &[Scalar::Float(0.5)], 0.0);
        assert_eq!(device.stats().hosted, 1, "{device}");
        // The errors are reported by the device.
        let wrong = run(&device, &kernel, &contents(Some(-1)), &[Scalar::Float(0.5)]).unwrap_err();
        assert_eq!(wrong, Error::Index { op: "take", index: -1, size, called_at: None });
        let prepared = device.executor().prepare(&kernel).unwrap();
        let small = device.executor().alloc(16).unwrap();
        let launched = prepared.launch(&[&small, &small, &small], &[Scalar::Float(0.5)]);
        assert!(matches!(launched, Err(Error::Argument { .. })), "{launched:?}");
        check(&device, &kernel, &contents(None), &dtypes, &[Scalar::Float(2.0)], 0.0);
    }
}
