//! Tests of every operation on f64 on the adapters that have it: functions against the standard library and
//! `libm` in units in the last place, special values and casts. On other adapters f64 must be an error.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use common::bounds;
use common::reference::{self, Value};
use gpu_common::functions::{
    apply, binary_functions_are_within, comparisons_and_classes_are_exact, map, pairs,
};
use gpu_common::{Random, check, devices, lowered, run};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, Const, Instr, Kernel, Loop, Store, Ty, UnaryOp};
use wgrad_device::{DType, Device, DeviceOptions, Element, Error, Scalar};

fn with_f64() -> Vec<Device> {
    devices().into_iter().filter(|device| device.supports(DType::F64)).collect()
}

/// Numbers of all magnitudes, dense where functions change quickly, and random ones. Their number is odd, so
/// that the last vector is not full.
fn arguments() -> Vec<f64> {
    let random = &mut Random::new(7);
    let mut all = Vec::new();
    for exponent in (-60..60).chain([-1000, -500, -300, 100, 300, 500, 700, 1000, 1022]) {
        for _ in 0..100 {
            let size = (1.0 + random.unit()) * 2f64.powi(exponent);
            all.extend([size, -size]);
        }
    }
    all.extend((0..40_000).map(|_| (random.unit() - 0.5) * 60.0));
    all.extend((0..10_000).map(|_| (random.unit() - 0.5) * 1480.0));
    // Neighbours of multiples of pi / 2, where range reduction loses the most digits, on both sides of its
    // change of method.
    all.extend((1..3000).map(|i| f64::from(i) * std::f64::consts::FRAC_PI_2));
    all.extend((1..3000).map(|i| f64::from(i * 317) * std::f64::consts::FRAC_PI_2));
    all.extend([1e22, 5e5, 0.1, 7.0, 1e300]);
    all
}

const SPECIAL: [f64; 21] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -2.0,
    3.0,
    -3.0,
    1.5,
    2.5,
    -2.5,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    4503599627370497.0,
    9007199254740993.0,
];

/// The error in units in the last place of the truth. A subnormal truth may be returned as 0.
fn ulps(found: f64, truth: f64) -> f64 {
    if found == truth || (found.is_nan() && truth.is_nan()) {
        return 0.0;
    }
    if !truth.is_finite() || !found.is_finite() {
        return f64::INFINITY;
    }
    if truth.abs() < f64::MIN_POSITIVE && found.abs() <= f64::MIN_POSITIVE {
        return 0.0;
    }
    let unit =
        f64::from_bits(truth.abs().max(f64::MIN_POSITIVE).to_bits() & 0x7ff0_0000_0000_0000) * f64::EPSILON;
    (found - truth).abs() / unit
}

fn truth(op: UnaryOp, x: f64) -> f64 {
    // The function of the reference is made for f32.
    if op == UnaryOp::Erf {
        return libm::erf(x);
    }
    match reference::unary(op, Value::F64(x)) {
        Value::F64(y) => y,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unary_functions_are_accurate() {
    let arguments = arguments();
    for device in with_f64() {
        for op in bounds::functions() {
            // The truth may itself have an error of one unit.
            let bound = bounds::of_kernel(op).wide_gpu;
            let most = if bound > 0.5 { bound + 1.0 } else { bound };
            let found = apply(&device, &[&arguments], Instr::Unary { op, a: 0 });
            let mut worst = (0.0, 0.0);
            for (&x, &y) in arguments.iter().zip(&found) {
                let error = ulps(y, truth(op, x));
                if error > worst.0 {
                    worst = (error, x);
                }
            }
            println!("{device} {op:?}: {:.2} ULP at {:e}", worst.0, worst.1);
            assert!(worst.0 <= most, "{device}: {op:?} is {} ULP from the truth at {:e}", worst.0, worst.1);
            // In vectors, and as scalars.
            for special in [&SPECIAL[..], &SPECIAL[..3], &SPECIAL[13..16]] {
                let found = apply(&device, &[special], Instr::Unary { op, a: 0 });
                for (&x, &y) in special.iter().zip(&found) {
                    let truth = truth(op, x);
                    assert!(ulps(y, truth) <= most, "{device}: {op:?} of {x} is {y}, not {truth}");
                    let signed =
                        y != 0.0 || y.is_sign_negative() == truth.is_sign_negative() || op == UnaryOp::Sign;
                    assert!(signed, "{device}: {op:?} of {x} is {y:?}, not {truth:?}");
                }
            }
        }
    }
}

#[test]
fn binary_functions_are_accurate() {
    let random = &mut Random::new(3);
    let (mut a, mut b) = pairs(&SPECIAL);
    for _ in 0..20_000 {
        a.push((random.unit() - 0.2) * 2f64.powi(random.below(40) as i32 - 20));
        b.push((random.unit() - 0.5) * 2f64.powi(random.below(14) as i32 - 3));
    }
    // Large exponents of bases near 1, quotients near the smallest and the largest numbers, and remainders of
    // huge quotients.
    for _ in 0..3_000 {
        let base = 1.0 + (random.unit() - 0.5) * 2f64.powi(-(random.below(30) as i32));
        a.push(base);
        b.push((random.unit() - 0.5) * 1400.0 / base.ln().abs().max(1e-12));
        a.push(random.unit() * 2f64.powi(random.below(2000) as i32 - 1000));
        b.push(random.unit() * 2f64.powi(random.below(20) as i32 - 10));
        a.push((1.0 + random.unit()) * 2f64.powi(-1000 - random.below(20) as i32));
        b.push(1.0 + random.unit());
        a.push(1.0 + random.unit());
        b.push((1.0 + random.unit()) * 2f64.powi(1000 + random.below(20) as i32));
    }
    let bounds = [
        (BinaryOp::Add, 0.0),
        (BinaryOp::Sub, 0.0),
        (BinaryOp::Mul, 0.0),
        (BinaryOp::Div, 1.0),
        (BinaryOp::Max, 0.0),
        (BinaryOp::Min, 0.0),
        (BinaryOp::Rem, 0.0),
        (BinaryOp::Pow, 2.0),
    ];
    for device in with_f64() {
        binary_functions_are_within(&device, (&a, &b), &bounds, ulps);
    }
}

#[test]
fn comparisons_and_classes_know_nan_and_infinity() {
    for device in with_f64() {
        comparisons_and_classes_are_exact(&device, &SPECIAL);
        // x - x and x / x.
        let n = SPECIAL.len();
        for op in [BinaryOp::Sub, BinaryOp::Div] {
            let kernel = map(&[DType::F64], DType::F64, n, &[Instr::Binary { op, a: 0, b: 0 }]);
            let contents = [f64::to_bytes(&SPECIAL).to_vec(), vec![0; n * 8]];
            check(&device, &kernel, &contents, &[DType::F64; 2], &[], 0.0);
        }
    }
}

/// The bits of the half that is nearest to a number, with ties to even. It is a guess that may be rounded
/// twice, or be a neighbour of the nearest one. Infinity stands for the power of two beyond the largest half.
fn nearest(x: f64, guess: u16, value: fn(u16) -> f64) -> u32 {
    let size = |bits: u16| match value(bits) {
        beyond if beyond.is_infinite() => 2.0 * value(bits - 1) - value(bits - 2),
        inside => inside,
    };
    let distance = |bits: u16| (size(bits) - x.abs()).abs();
    let near = guess & 0x7fff;
    let numbers = (near.saturating_sub(1)..=near + 1).filter(|&bits| !value(bits).is_nan());
    let best = numbers.min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))));
    u32::from(best.unwrap_or(near) | guess & 0x8000)
}

#[test]
fn casts_are_exact() {
    let random = &mut Random::new(5);
    let mut floats: Vec<f64> = SPECIAL.to_vec();
    for edge in [65504.0, 65519.999999, 65520.0, 5.9e-8, 2f64.powi(-25), 6.1e-5, 255.5, 256.5] {
        floats.extend([edge, -edge, edge * (1.0 + f64::EPSILON), edge * (1.0 - f64::EPSILON)]);
    }
    floats.extend([1e30, -1e30, 3.4028235677973366e38, 3.4028235677973362e38, 3.3961775292304957e38, 1e300]);
    floats.extend([
        2147483647.5,
        -2147483648.5,
        4294967296.5,
        9.3e18,
        9223372036854775807.0,
        -9223372036854775808.0,
    ]);
    floats.extend([9223372036854774784.0, 1e-40, 1.401298464324817e-45, 7.1e-46, 7e-46, 1.1754943e-38]);
    // Midpoints between neighbours in f32, f16 and bf16, and their own neighbours.
    for _ in 0..2000 {
        let x = f32::from_bits(random.bits() as u32);
        if !x.is_normal() {
            continue;
        }
        for digits in [1u64 << 28, 1 << 41, 1 << 44] {
            let bits = f64::from(x).to_bits() & !(digits * 2 - 1) | digits;
            floats.extend([bits, bits + 1, bits - 1].map(f64::from_bits));
        }
    }
    floats.extend((0..3000).map(|i| (f64::from(i) - 1500.0) * 2f64.powi(-24) * 1.0001));
    floats.extend((0..3000).map(|_| (random.unit() - 0.5) * 2f64.powi(random.below(70) as i32)));
    let mut ints: Vec<i64> = vec![0, 1, -1, i64::MAX, i64::MIN, (1 << 53) + 1, (1 << 54) + 3, -(1 << 53) - 1];
    ints.extend((0..3000).map(|_| (random.bits() as i64) >> random.below(64)));
    for device in with_f64() {
        let n = floats.len();
        let contents = |to: DType| [f64::to_bytes(&floats).to_vec(), vec![0; n * to.size()]];
        for to in [DType::F64, DType::I32, DType::I64, DType::U8, DType::Bool] {
            let kernel = map(&[DType::F64], to, n, &[Instr::Cast { a: 0, to }]);
            check(&device, &kernel, &contents(to), &[DType::F64, to], &[], 0.0);
        }
        // The bits are compared as well, which tells more than the comparison of values. A subnormal f64 may
        // be treated as 0.
        for to in [DType::F32, DType::F16, DType::BF16] {
            let kernel = map(&[DType::F64], to, n, &[Instr::Cast { a: 0, to }]);
            let found = run(&device, &kernel, &contents(to), &[]).expect("a cast");
            for (&x, bytes) in floats.iter().zip(found[1].chunks(to.size())).filter(|(x, _)| !x.is_nan()) {
                let found = bytes.iter().rev().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
                let truth = match to {
                    DType::F32 => (x as f32).to_bits(),
                    DType::F16 => {
                        nearest(x, half::f16::from_f64(x).to_bits(), |b| half::f16::from_bits(b).to_f64())
                    }
                    _ => nearest(x, half::bf16::from_f64(x).to_bits(), |b| half::bf16::from_bits(b).to_f64()),
                };
                assert_eq!(found, truth, "{device}: {x:e} as {to}");
            }
        }
        let n = ints.len();
        let contents = [i64::to_bytes(&ints).to_vec(), vec![0; n * 8]];
        let cast = [Instr::Cast { a: 0, to: DType::F64 }];
        check(
            &device,
            &map(&[DType::I64], DType::F64, n, &cast),
            &contents,
            &[DType::I64, DType::F64],
            &[],
            0.0,
        );
        for from in [DType::I32, DType::U8, DType::Bool, DType::F32, DType::F16, DType::BF16] {
            let contents = [Random::new(9).bytes(from, 1003), vec![0; 1003 * 8]];
            let kernel = map(&[from], DType::F64, 1003, &cast);
            check(&device, &kernel, &contents, &[from, DType::F64], &[], 0.0);
        }
    }
}

#[test]
fn integers_become_floats_in_their_own_memory() {
    // One buffer that holds i64 before and f64 after, or the other way round, with a number of elements that
    // is not a multiple of four.
    let random = &mut Random::new(8);
    for device in with_f64() {
        for (from, to) in [(DType::I64, DType::F64), (DType::F64, DType::I64)] {
            for (n, stride) in [(64usize, 1isize), (1003, 1), (3, 1), (50, 3)] {
                let kernel = Kernel::Loop(Loop {
                    sizes: smallvec![n],
                    inner: 0,
                    accesses: vec![Access::new(0, from, &[stride], 0), Access::new(0, to, &[stride], 0)],
                    ranges: vec![],
                    body: vec![
                        Instr::Load { access: 0, indices: smallvec![] },
                        Instr::Cast { a: 0, to },
                        Instr::Const(Const::new(3, Ty::of(to))),
                        Instr::Binary { op: BinaryOp::Mul, a: 1, b: 2 },
                    ],
                    stores: vec![Store { access: 1, value: 3 }],
                });
                let ints: Vec<i64> = (0..n * stride as usize).map(|_| random.bits() as i64 >> 14).collect();
                let bytes = match from {
                    DType::I64 => i64::to_bytes(&ints).to_vec(),
                    _ => ints.iter().flat_map(|&i| (i as f64 / 8.0).to_le_bytes()).collect(),
                };
                check(&device, &kernel, &[bytes], &[to], &[], 0.0);
            }
        }
    }
}

#[test]
fn constants_and_parameters_keep_all_their_digits() {
    let numbers = [0.1, -1e300, 1.0 / 3.0, f64::MAX, f64::INFINITY, f64::NAN, -0.0, 1e-300, 4e-320];
    for device in with_f64() {
        for number in numbers {
            for instr in [Instr::Const(Const::new(number, Ty::F64)), Instr::Param { index: 0, ty: Ty::F64 }] {
                for n in [1, 64] {
                    let kernel = map(&[], DType::F64, n, std::slice::from_ref(&instr));
                    let found =
                        run(&device, &kernel, &[vec![0; n * 8]], &[Scalar::Float(number)]).expect("a kernel");
                    for found in f64::from_bytes(&found[0]) {
                        let same = found.to_bits() == number.to_bits() || (found.is_nan() && number.is_nan());
                        assert!(same, "{device}: {found:e} instead of {number:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_f64_it_is_a_typed_error_and_all_else_goes_on() {
    let options = DeviceOptions { without_f64: true, ..DeviceOptions::default() };
    for device in lowered(&options).into_iter().chain(devices()).filter(|device| !device.supports(DType::F64))
    {
        let add = Instr::Binary { op: BinaryOp::Add, a: 0, b: 0 };
        let kernels = [
            map(&[DType::F64], DType::F64, 8, std::slice::from_ref(&add)),
            map(&[DType::F32], DType::F64, 8, &[Instr::Cast { a: 0, to: DType::F64 }]),
            map(&[DType::F64], DType::F32, 8, &[Instr::Cast { a: 0, to: DType::F32 }]),
            map(
                &[DType::F32],
                DType::F32,
                8,
                &[Instr::Const(Const::new(1.0, Ty::F64)), Instr::Cast { a: 1, to: DType::F32 }],
            ),
        ];
        let compiled = device.stats().pipelines_compiled;
        for kernel in &kernels {
            let error = device.executor().prepare(kernel).err().expect("no f64 here");
            assert!(matches!(error, Error::DType { dtype: DType::F64, .. }), "{error:?}");
            assert!(error.to_string().contains("f32"), "{error}");
        }
        assert_eq!(device.stats().pipelines_compiled, compiled);
        let kernel = map(&[DType::F32], DType::F32, 8, &[add]);
        let contents = [f32::to_bytes(&[1.5; 8]).to_vec(), vec![0; 32]];
        check(&device, &kernel, &contents, &[DType::F32; 2], &[], 0.0);
        device.synchronize().expect("nothing is pending that failed");
    }
}
