//! Tests of what every executor refuses, with the same messages: kernels that break the rules of the IR,
//! calls that do not fit, and sizes beyond all limits. They also test unusual kernels that are valid.

#[cfg(feature = "gpu")]
mod common;
#[cfg(feature = "gpu")]
mod gpu_common;
#[cfg(not(feature = "gpu"))]
mod support;

#[cfg(feature = "gpu")]
use gpu_common::support;
use smallvec::smallvec;
use support::devices;
use wgrad_device::kernel::{
    Access, IndexedDim, Instr, Kernel, Loop, Matmul, Parts, ReduceOp, Scan, Scatter, ScatterOp, Sort, Store,
    UnaryOp,
};
use wgrad_device::{Buffer, DType, Device, Element, Error, Memory};

fn load(access: usize) -> Instr {
    Instr::Load { access, indices: smallvec![] }
}

/// The access to the f32 `buffer[offset + i]`.
fn at(buffer: usize, offset: isize) -> Access {
    Access::new(buffer, DType::F32, &[1], offset)
}

/// The kernel that writes `-source` to `target`, over `n` numbers.
fn negate(n: usize, source: Access, target: Access) -> Loop {
    Loop {
        sizes: smallvec![n],
        inner: 0,
        accesses: vec![source, target],
        ranges: vec![],
        body: vec![load(0), Instr::Unary { op: UnaryOp::Neg, a: 0 }],
        stores: vec![Store { access: 1, value: 1 }],
    }
}

/// The product `lhs @ rhs` of `n` by `n` numbers, from and to these buffers.
fn product(n: usize, [lhs, rhs, target]: [usize; 3]) -> Matmul {
    let square = |buffer| Access::new(buffer, DType::F32, &[n as isize, 1], 0);
    let epilogue = Loop {
        sizes: smallvec![n, n],
        inner: 0,
        accesses: vec![square(target)],
        ranges: vec![],
        body: vec![Instr::Accumulator],
        stores: vec![Store { access: 0, value: 0 }],
    };
    Matmul::new(n, square(lhs), square(rhs), epilogue)
}

/// The scatter that adds the elements of a buffer at the indices of another one.
fn scatter(source: usize, indices: usize, target: usize) -> Scatter {
    let mut places = Access::new(target, DType::F32, &[0], 0);
    places.indexed.push(IndexedDim { stride: 1, size: 8, op: "scatter" });
    Scatter {
        op: ScatterOp::Add,
        sizes: smallvec![4],
        source: at(source, 0),
        indices: vec![Access::new(indices, DType::I64, &[1], 0)],
        target: places,
        base: None,
        elements: 8,
    }
}

fn scan(source: Access, target: Access) -> Scan {
    Scan { op: ReduceOp::Sum, sizes: smallvec![4], source, target }
}

fn sort(source: usize, target: usize) -> Sort {
    Sort {
        descending: false,
        sizes: smallvec![4],
        source: Access::new(source, DType::I64, &[1], 0),
        target: Access::new(target, DType::I64, &[1], 0),
        first: 0,
        count: 4,
    }
}

/// Memory that belongs to no device.
struct Nowhere;

impl Memory for Nowhere {
    fn bytes(&self) -> usize {
        64
    }
}

fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

#[test]
fn kernels_that_break_the_rules_are_refused_alike() {
    let plain = || negate(4, at(0, 0), at(1, 0));
    let huge = usize::MAX / 2;
    let kernels = [
        // Elements that are written are read at another index.
        Kernel::Loop(negate(4, at(0, 1), at(0, 0))),
        Kernel::Loop(with(negate(4, at(0, 0), at(0, 0)), |k| {
            k.inner = 1;
            k.body[1] = Instr::Reduce { op: ReduceOp::Sum, a: 0 };
            k.accesses[1].strides = smallvec![0];
        })),
        Kernel::Matmul(product(4, [0, 1, 0])),
        Kernel::Matmul(product(4, [0, 1, 1])),
        Kernel::Scatter(scatter(0, 1, 0)),
        Kernel::Scatter(scatter(0, 1, 1)),
        Kernel::Scan(scan(at(0, 0), at(0, 1))),
        Kernel::Sort(sort(0, 0)),
        // The kernel refers to something that does not exist or does not fit.
        Kernel::Loop(with(plain(), |k| k.body[0] = load(2))),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::Unary { op: UnaryOp::Neg, a: 1 })),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::Unary { op: UnaryOp::Neg, a: 7 })),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::Accumulator)),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::Coord { dim: 1 })),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::InRange { range: 0 })),
        Kernel::Loop(with(plain(), |k| k.body[1] = Instr::Reduce { op: ReduceOp::Sum, a: 0 })),
        Kernel::Loop(with(plain(), |k| k.stores[0].access = 2)),
        Kernel::Loop(with(plain(), |k| k.stores[0].value = 2)),
        Kernel::Loop(with(plain(), |k| k.accesses[1].dtype = DType::I64)),
        Kernel::Loop(with(plain(), |k| k.accesses[0].strides = smallvec![1, 1])),
        Kernel::Loop(with(plain(), |k| k.accesses[0].guards.push(0))),
        Kernel::Loop(with(plain(), |k| k.accesses[0].buffer = usize::MAX)),
        Kernel::Loop(with(plain(), |k| k.inner = 2)),
        Kernel::Matmul(with(product(4, [0, 1, 2]), |k| k.lhs.strides = smallvec![1])),
        Kernel::Matmul(with(product(4, [0, 1, 2]), |k| {
            k.lhs_parts = Parts { rows: smallvec![3], columns: smallvec![] }
        })),
        Kernel::Matmul(with(product(4, [0, 1, 2]), |k| k.epilogue.stores[0].value = 1)),
        Kernel::Scatter(with(scatter(0, 1, 2), |k| k.indices[0].dtype = DType::F32)),
        Kernel::Scatter(with(scatter(0, 1, 2), |k| k.indices.clear())),
        Kernel::Scan(with(scan(at(0, 0), at(1, 0)), |k| k.op = ReduceOp::ArgMax)),
        Kernel::Scan(with(scan(at(0, 0), at(1, 0)), |k| k.sizes = smallvec![])),
        Kernel::Sort(with(sort(0, 1), |k| k.count = 5)),
        Kernel::Sort(with(sort(0, 1), |k| k.first = usize::MAX)),
        // Accesses before the first element, or beyond what can be addressed or counted.
        Kernel::Loop(negate(4, at(0, -1), at(1, 0))),
        Kernel::Loop(with(plain(), |k| k.accesses[0].strides = smallvec![-1])),
        Kernel::Loop(with(plain(), |k| k.accesses[0].strides = smallvec![isize::MAX])),
        Kernel::Loop(negate(4, at(0, isize::MAX), at(1, 0))),
        Kernel::Loop(negate(huge, at(0, 0), at(1, 0))),
        Kernel::Loop(with(plain(), |k| {
            k.sizes = smallvec![huge, huge];
            k.accesses.iter_mut().for_each(|access| access.strides = smallvec![0, 0]);
        })),
        Kernel::Loop(with(plain(), |k| {
            k.sizes = smallvec![huge, 0];
            k.accesses.iter_mut().for_each(|access| access.strides = smallvec![isize::MAX, 1]);
        })),
        Kernel::Matmul(product(1 << 33, [0, 1, 2])),
        Kernel::Matmul(with(product(4, [0, 1, 2]), |k| k.k = huge)),
        Kernel::Scatter(with(scatter(0, 1, 2), |k| k.elements = huge)),
        Kernel::Scatter(with(scatter(0, 1, 2), |k| k.target.offset = -1)),
        Kernel::Scan(scan(at(0, 0), at(1, -1))),
        Kernel::Sort(with(sort(0, 1), |k| k.source.offset = isize::MIN)),
    ];
    for device in devices() {
        for (number, kernel) in kernels.iter().enumerate() {
            let words = |device: &Device| match device.executor().prepare(kernel).map(drop) {
                Err(Error::Kernel { device: name, reason }) => {
                    assert_eq!(name, device.name());
                    reason
                }
                other => panic!("{device}, kernel {number}: {other:?} for {kernel:?}"),
            };
            assert_eq!(words(&device), words(&Device::cpu()), "{device}, kernel {number}");
        }
    }
}

#[test]
fn the_traffic_of_sizes_beyond_all_bounds_has_a_bound() {
    let huge = usize::MAX / 2;
    let spread = |strides: [isize; 2]| {
        let mut kernel = negate(4, at(0, 0), at(1, 0));
        kernel.sizes = smallvec![huge, huge];
        kernel.accesses.iter_mut().for_each(|access| access.strides = strides.as_slice().into());
        kernel
    };
    // An expanded access of one element, strides in one dim, in both, and strides that are as large as they
    // can be.
    let expanded = Kernel::Loop(spread([0, 0])).traffic();
    assert_eq!((expanded.read, expanded.written), (4, 4));
    for strides in [[0, 1], [1, 0], [huge as isize, 1], [isize::MAX, isize::MIN]] {
        let kernel = spread(strides);
        assert_eq!((kernel.rows(), kernel.row_elements()), (usize::MAX, 1));
        let traffic = Kernel::Loop(kernel).traffic();
        assert!(traffic.read >= 1 << 62 && traffic.written >= 1 << 62, "{strides:?}: {traffic:?}");
    }
    let mut sums = scatter(0, 1, 2);
    (sums.sizes, sums.elements) = (smallvec![huge], usize::MAX);
    sums.base = Some(3);
    let mut order = sort(0, 1);
    (order.sizes, order.count) = (smallvec![huge], huge);
    for kernel in [
        Kernel::Matmul(product(huge, [0, 1, 2])),
        Kernel::Scatter(sums),
        Kernel::Scan(Scan { sizes: smallvec![huge], ..scan(at(0, 0), at(1, 0)) }),
        Kernel::Sort(order),
    ] {
        assert!(kernel.traffic().read >= 1 << 62, "{kernel:?}");
    }
    // With a size of 0 there are no elements, however large the other sizes are.
    let mut none = spread([1, 1]);
    none.sizes = smallvec![huge, huge, 0];
    none.accesses.iter_mut().for_each(|access| access.strides = smallvec![1, 1, 1]);
    assert_eq!((Kernel::Loop(none.clone()).traffic().read, none.rows(), none.row_elements()), (0, 0, 1));
}

#[test]
fn memory_that_is_written_is_given_once() {
    let kernels = [
        Kernel::Loop(negate(4, at(0, 0), at(1, 0))),
        Kernel::Matmul(product(2, [0, 0, 1])),
        Kernel::Scatter(scatter(0, 2, 1)),
        Kernel::Scan(scan(at(0, 0), at(1, 0))),
        Kernel::Sort(sort(0, 1)),
    ];
    for device in devices() {
        let executor = device.executor();
        for kernel in &kernels {
            let prepared = executor.prepare(kernel).unwrap();
            let [x, indices] = [(); 2].map(|()| executor.upload(&[0; 64]).unwrap());
            let refused = prepared.launch(&[&x, &x, &indices], &[]);
            let reason = "buffer 1 is written, and given under another number too".to_owned();
            assert_eq!(refused, Err(Error::Argument { op: "launch", reason }), "{device}: {kernel:?}");
            let y = executor.alloc(64).unwrap();
            prepared.launch(&[&x, &y, &indices], &[]).unwrap();
            let elsewhere = Buffer::new(Nowhere);
            let refused = prepared.launch(&[&elsewhere, &y, &indices], &[]);
            assert!(matches!(refused, Err(Error::DeviceMismatch { .. })), "{device}: {refused:?}");
            let refused = executor.download(&elsewhere, 0, &mut [0]);
            assert!(matches!(refused, Err(Error::DeviceMismatch { .. })), "{device}: {refused:?}");
        }
        device.synchronize().unwrap();
    }
}

#[test]
fn in_place_work_that_keeps_the_rules_runs() {
    for device in devices() {
        let executor = device.executor();
        let x = executor.upload(f32::to_bytes(&[1.0, 2.0, 3.0, 4.0])).unwrap();
        let negate = executor.prepare(&Kernel::Loop(negate(4, at(0, 0), at(0, 0)))).unwrap();
        negate.launch(&[&x], &[]).unwrap();
        let sum = executor.prepare(&Kernel::Scan(scan(at(0, 0), at(0, 0)))).unwrap();
        sum.launch(&[&x], &[]).unwrap();
        let mut out = [0; 16];
        executor.download(&x, 0, &mut out).unwrap();
        assert_eq!(f32::from_bytes(&out)[..], [-1.0, -3.0, -6.0, -10.0], "{device}");
    }
}

#[test]
fn nothing_is_read_written_and_run_too() {
    let empty = |n: usize| {
        let mut square = product(n, [0, 1, 2]);
        square.epilogue.sizes = smallvec![0, n];
        square.k = 0;
        square
    };
    for device in devices() {
        let executor = device.executor();
        let nothing = executor.upload(&[]).unwrap();
        let none = executor.alloc(0).unwrap();
        assert_eq!((nothing.bytes(), none.bytes()), (0, 0));
        executor.download(&nothing, 0, &mut []).unwrap();
        for (offset, bytes) in [(0, 1), (1, 0), (usize::MAX, 0), (usize::MAX, 1), (1, usize::MAX >> 40)] {
            let failed = executor.download(&nothing, offset, &mut vec![0; bytes]);
            assert!(matches!(failed, Err(Error::Argument { op: "download", .. })), "{device}: {failed:?}");
        }
        let mut last = scatter(0, 1, 2);
        (last.sizes, last.elements) = (smallvec![0], 0);
        let mut order = sort(0, 1);
        (order.sizes, order.count) = (smallvec![0], 0);
        for kernel in [
            Kernel::Loop(negate(0, at(0, 0), at(1, 0))),
            Kernel::Loop(negate(0, at(0, -5), at(1, isize::MAX))),
            Kernel::Matmul(empty(4)),
            Kernel::Matmul(empty(0)),
            Kernel::Scatter(last),
            Kernel::Scan(Scan { sizes: smallvec![0], ..scan(at(0, 0), at(1, 0)) }),
            Kernel::Sort(order),
        ] {
            let fresh = executor.alloc(0).unwrap();
            let prepared =
                executor.prepare(&kernel).unwrap_or_else(|error| panic!("{device}: {error} for {kernel:?}"));
            prepared
                .launch(&[&nothing, &none, &fresh], &[])
                .unwrap_or_else(|error| panic!("{device}: {error} for {kernel:?}"));
        }
        device.synchronize().unwrap();
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let failed = executor.alloc(bytes);
            assert!(matches!(failed, Err(Error::OutOfMemory { .. })), "{device}: {bytes} bytes");
        }
    }
}

#[test]
fn eight_threads_share_a_device() {
    for device in devices() {
        std::thread::scope(|scope| {
            for thread in 0..8usize {
                let device = &device;
                scope.spawn(move || {
                    let executor = device.executor();
                    for round in 0..20 {
                        let n = 100 * thread + round + 1;
                        let values: Vec<f32> = (0..n).map(|i| (i + thread) as f32).collect();
                        let (x, y) = (
                            executor.upload(f32::to_bytes(&values)).unwrap(),
                            executor.alloc(4 * n).unwrap(),
                        );
                        let kernel = executor.prepare(&Kernel::Loop(negate(n, at(0, 0), at(1, 0)))).unwrap();
                        kernel.launch(&[&x, &y], &[]).unwrap();
                        drop(x);
                        if round % 5 == 0 {
                            device.synchronize().unwrap();
                            device.trim();
                        }
                        let mut out = vec![0; 4 * n];
                        executor.download(&y, 0, &mut out).unwrap();
                        let found = f32::from_bytes(&out);
                        assert!(
                            found.iter().zip(&values).all(|(a, b)| *a == -b),
                            "{device}: thread {thread}"
                        );
                    }
                });
            }
        });
        device.trim();
    }
}

#[cfg(feature = "gpu")]
#[test]
fn devices_come_and_go() {
    use wgrad_device::DeviceOptions;
    // Two threads at a time drop buffers and kernels after their devices.
    for shared in gpu_common::devices() {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..25 {
                        let device = Device::open_with(shared.name(), DeviceOptions::default()).unwrap();
                        let executor = device.executor();
                        let (x, y) = (executor.upload(&[round; 400]).unwrap(), executor.alloc(400).unwrap());
                        let kernel =
                            executor.prepare(&Kernel::Loop(negate(100, at(0, 0), at(1, 0)))).unwrap();
                        kernel.launch(&[&x, &y], &[]).unwrap();
                        if round % 2 == 0 {
                            let mut out = [0; 400];
                            executor.download(&y, 0, &mut out).unwrap();
                            assert_eq!(out[0], round);
                        }
                        drop(device);
                        drop((x, kernel, y));
                    }
                });
            }
        });
    }
}

#[cfg(feature = "gpu")]
#[test]
fn long_uploads_arrive_whole_and_in_order() {
    let bytes: Vec<u8> = (0..(130usize << 20) + 3).map(|i| (i / 5) as u8 ^ (i >> 20) as u8).collect();
    for device in gpu_common::devices() {
        let executor = device.executor();
        let small = executor.upload(&bytes[..4000]).unwrap();
        let target = executor.alloc(4000).unwrap();
        let access = |buffer| Access::new(buffer, DType::I32, &[1], 0);
        let kernel = Kernel::Loop(negate(1000, access(0), access(1)));
        executor.prepare(&kernel).unwrap().launch(&[&small, &target], &[]).unwrap();
        let large = executor.upload(&bytes).unwrap();
        let mut out = vec![0; bytes.len()];
        executor.download(&large, 0, &mut out).unwrap();
        assert!(out == bytes, "{device}");
        executor.download(&target, 0, &mut out[..4000]).unwrap();
        let negated: Vec<i32> = i32::from_bytes(&bytes[..4000]).iter().map(|x| x.wrapping_neg()).collect();
        assert_eq!(i32::from_bytes(&out[..4000])[..], negated[..], "{device}");
        drop((small, target, large));
        device.trim();
    }
}
