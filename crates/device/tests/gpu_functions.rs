//! Tests of every operation on every adapter: f32 functions against f64 in units in the last place, special
//! values, integers of all widths, casts and random bits. Long loops run as vectors, and short ones as
//! scalars.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use common::bounds;
use common::reference::{self, Value};
use gpu_common::functions::{
    apply, binary_functions_are_within, comparisons_and_classes_are_exact, map, pairs,
};
use gpu_common::{Random, check, devices, hardware, is_nvidia, lowered, run};
use wgrad_device::kernel::{BinaryOp, Const, Instr, Kernel, Ty, UnaryOp};
use wgrad_device::{DType, Device, Element, Scalar};

/// Numbers of all magnitudes, dense where functions change quickly.
fn arguments() -> Vec<f32> {
    let random = &mut Random::new(7);
    let mut all = Vec::new();
    for exponent in -30..30 {
        for _ in 0..200 {
            let size = ((1.0 + random.unit()) * 2f64.powi(exponent)) as f32;
            all.extend([size, -size]);
        }
    }
    all.extend((-4000..4000).map(|i| i as f32 * 0.005));
    all.extend((-2000..2000).map(|i| i as f32 * 0.052));
    all
}

const SPECIAL: [f32; 20] = [
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
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    8388609.0,
];

/// The measure of a device's errors: NVIDIA's driver may give 0 for a subnormal result.
fn measure(device: &Device) -> fn(f32, f64) -> f64 {
    let or_zero = |found: f32, truth: f64| {
        let flushed = truth.abs() < f64::from(f32::MIN_POSITIVE) && found.abs() <= f32::MIN_POSITIVE;
        if flushed { 0.0 } else { ulps(found, truth) }
    };
    if is_nvidia(device) { or_zero } else { ulps }
}

/// The error in units in the last place of the true value.
fn ulps(found: f32, truth: f64) -> f64 {
    let rounded = truth as f32;
    if found == rounded || (found.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    if !rounded.is_finite() || !found.is_finite() {
        return f64::INFINITY;
    }
    let bits = rounded.abs().max(f32::MIN_POSITIVE).to_bits();
    let unit = f64::from(f32::from_bits(bits + 1)) - f64::from(f32::from_bits(bits));
    (f64::from(found) - truth).abs() / unit
}

fn truth(op: UnaryOp, x: f32) -> f64 {
    match reference::unary(op, Value::F64(f64::from(x))) {
        Value::F64(y) => y,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unary_functions_are_accurate() {
    let arguments = arguments();
    for device in devices() {
        let ulps = measure(&device);
        for op in bounds::functions() {
            let most = bounds::of_kernel(op).gpu;
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
            let found = apply(&device, &[&SPECIAL], Instr::Unary { op, a: 0 });
            for (&x, &y) in SPECIAL.iter().zip(&found) {
                let error = ulps(y, truth(op, x));
                assert!(error <= most, "{device}: {op:?} of {x} is {y}, not {}", truth(op, x));
            }
        }
    }
}

#[test]
fn binary_functions_are_accurate() {
    let random = &mut Random::new(3);
    let (mut a, mut b) = pairs(&SPECIAL);
    for _ in 0..20_000 {
        a.push(((random.unit() - 0.2) * 2f64.powi(random.below(20) as i32 - 10)) as f32);
        b.push(((random.unit() - 0.5) * 2f64.powi(random.below(10) as i32 - 3)) as f32);
    }
    let bounds = [
        (BinaryOp::Add, 0.5),
        (BinaryOp::Sub, 0.5),
        (BinaryOp::Mul, 0.5),
        (BinaryOp::Max, 0.0),
        (BinaryOp::Min, 0.0),
        (BinaryOp::Rem, 1.0),
        (BinaryOp::Pow, 4.0),
    ];
    // WGSL requires nothing of divisors above 2^126, whose reciprocals are subnormal, and NVIDIA's driver
    // makes use of that.
    let defined = |b: f32| !(2f32.powi(126)..f32::INFINITY).contains(&b.abs());
    let (dividends, divisors): (Vec<f32>, Vec<f32>) =
        a.iter().zip(&b).filter(|(_, b)| defined(**b)).map(|(&a, &b)| (a, b)).unzip();
    for device in devices() {
        let ulps = measure(&device);
        binary_functions_are_within(&device, (&a, &b), &bounds, ulps);
        let (a, b) = if is_nvidia(&device) { (&dividends, &divisors) } else { (&a, &b) };
        binary_functions_are_within(&device, (a, b), &[(BinaryOp::Div, 2.5)], ulps);
    }
}

#[test]
fn comparisons_and_classes_know_nan_and_infinity() {
    for device in devices() {
        comparisons_and_classes_are_exact(&device, &SPECIAL);
    }
}

#[test]
fn integers_wrap_divide_and_shift_exactly() {
    use BinaryOp::*;
    let random = &mut Random::new(11);
    let mut pairs: Vec<(i64, i64)> = Vec::new();
    let edges = [
        0,
        1,
        -1,
        2,
        -2,
        3,
        7,
        -7,
        31,
        32,
        33,
        63,
        64,
        65,
        i64::MAX,
        i64::MIN,
        i64::MAX - 1,
        1 << 31,
        1 << 32,
        -(1 << 31),
        10_000_000_000,
    ];
    for a in edges {
        pairs.extend(edges.map(|b| (a, b)));
    }
    for _ in 0..4000 {
        let shift = |random: &mut Random| random.below(64);
        pairs.push(((random.bits() as i64) >> shift(random), (random.bits() as i64) >> shift(random)));
    }
    let n = pairs.len();
    let wide = |f: fn(&(i64, i64)) -> i64| pairs.iter().flat_map(|p| f(p).to_le_bytes()).collect::<Vec<u8>>();
    let narrow = |f: fn(&(i64, i64)) -> i64| {
        pairs.iter().flat_map(|p| (f(p) as i32).to_le_bytes()).collect::<Vec<u8>>()
    };
    for device in devices() {
        for (dtype, contents) in [
            (DType::I64, [wide(|p| p.0), wide(|p| p.1), vec![0; n * 8]]),
            (DType::I32, [narrow(|p| p.0), narrow(|p| p.1), vec![0; n * 4]]),
        ] {
            for op in [Add, Sub, Mul, Div, Rem, Pow, Max, Min, And, Or, Xor, Shl, Shr] {
                let kernel = map(&[dtype; 2], dtype, n, &[Instr::Binary { op, a: 0, b: 1 }]);
                check(&device, &kernel, &contents, &[dtype; 3], &[], 0.0);
            }
            for op in [Eq, Ne, Lt, Le, Gt, Ge] {
                let kernel = map(&[dtype; 2], DType::Bool, n, &[Instr::Binary { op, a: 0, b: 1 }]);
                let contents = [contents[0].clone(), contents[1].clone(), vec![0; n]];
                check(&device, &kernel, &contents, &[dtype, dtype, DType::Bool], &[], 0.0);
            }
            for op in [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not] {
                let kernel = map(&[dtype; 2], dtype, n, &[Instr::Unary { op, a: 0 }]);
                check(&device, &kernel, &contents, &[dtype; 3], &[], 0.0);
            }
        }
    }
}

/// Numbers near the limits of each dtype, and random ones.
fn numbers_to_cast() -> (Vec<f32>, Vec<i64>) {
    let random = &mut Random::new(5);
    let mut floats: Vec<f32> = SPECIAL.to_vec();
    floats.extend([
        65504.0,
        65519.9,
        65520.0,
        5.9e-8,
        2.9e-8,
        3.0e-8,
        6.1e-5,
        1e30,
        -1e30,
        2147483648.0,
        4294967296.5,
        9.3e18,
        255.5,
        256.5,
    ]);
    floats.extend(
        (0..5000)
            .map(|_| f32::from_bits(random.bits() as u32))
            .filter(|x| x.is_nan() || x.abs() >= f32::MIN_POSITIVE),
    );
    floats.extend((0..3000).map(|i| (i as f32 - 1500.0) * 2f32.powi(-24)));
    let mut ints: Vec<i64> = vec![
        0,
        1,
        -1,
        i64::MAX,
        i64::MIN,
        16777217,
        -16777217,
        (1 << 53) + 1,
        0x7fff_ffbf_ffff_ffff,
        0x4000_0040_0000_0001,
    ];
    ints.extend((0..3000).map(|_| (random.bits() as i64) >> random.below(64)));
    (floats, ints)
}

/// Compares the bits of floats that a kernel casts to halves, which the comparison of values does not see.
fn check_bits_of_halves(device: &Device, kernel: &Kernel, floats: &[f32], to: DType) {
    let n = floats.len();
    let found = run(device, kernel, &[f32::to_bytes(floats).to_vec(), vec![0; n * 2]], &[]).unwrap();
    for (x, bytes) in floats.iter().zip(found[1].chunks(2)).filter(|(x, _)| !x.is_nan()) {
        let found = u16::from_le_bytes([bytes[0], bytes[1]]);
        let truth = if to == DType::F16 {
            half::f16::from_f32(*x).to_bits()
        } else {
            half::bf16::from_f32(*x).to_bits()
        };
        assert_eq!(found, truth, "{device}: {x:e} as {to}");
    }
}

#[test]
fn casts_are_exact() {
    let (floats, ints) = numbers_to_cast();
    for device in devices() {
        for to in [DType::F16, DType::BF16, DType::F32, DType::I32, DType::I64, DType::U8, DType::Bool] {
            let n = floats.len();
            let kernel = map(&[DType::F32], to, n, &[Instr::Cast { a: 0, to }]);
            check(
                &device,
                &kernel,
                &[f32::to_bytes(&floats).to_vec(), vec![0; n * to.size()]],
                &[DType::F32, to],
                &[],
                0.0,
            );
            if to.is_half() {
                check_bits_of_halves(&device, &kernel, &floats, to);
            }
            let n = ints.len();
            if !to.is_half() {
                let kernel = map(&[DType::I64], to, n, &[Instr::Cast { a: 0, to }]);
                check(
                    &device,
                    &kernel,
                    &[i64::to_bytes(&ints).to_vec(), vec![0; n * to.size()]],
                    &[DType::I64, to],
                    &[],
                    0.0,
                );
            }
        }
    }
}

#[test]
fn all_halves_are_loaded_exactly() {
    for device in devices() {
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [DType::F16, DType::BF16] {
            let n = 1 << 16;
            let kernel = map(&[dtype], DType::F32, n, &[]);
            let Kernel::Loop(mut kernel) = kernel else { unreachable!("a loop") };
            kernel.stores[0].value = 0;
            check(
                &device,
                &Kernel::Loop(kernel),
                &[halves.clone(), vec![0; n * 4]],
                &[dtype, DType::F32],
                &[],
                0.0,
            );
        }
    }
}

#[test]
fn random_bits_are_philox() {
    for device in devices() {
        for n in [7, 1000] {
            let kernel = map(
                &[],
                DType::I64,
                n,
                &[
                    Instr::Coord { dim: 0 },
                    Instr::Philox { index: 0, params: 0 },
                    Instr::Cast { a: 1, to: DType::I64 },
                ],
            );
            let params = [0x1234_5678, 0x9abc_def0, 42, 7].map(|p: i64| Scalar::Int(p));
            check(&device, &kernel, &[vec![0; n * 8]], &[DType::I64], &params, 0.0);
        }
    }
}

/// The kernel of the normal numbers of elements `first`, `first + step` and so on.
fn normals(n: usize, first: i64, step: i64) -> Kernel {
    map(
        &[],
        DType::F32,
        n,
        &[
            Instr::Coord { dim: 0 },
            Instr::Const(Const::new(step as f64, Ty::I32)),
            Instr::Binary { op: BinaryOp::Mul, a: 0, b: 1 },
            Instr::Const(Const::new(first as f64, Ty::I32)),
            Instr::Binary { op: BinaryOp::Add, a: 2, b: 3 },
            Instr::Normal { index: 4, params: 0 },
        ],
    )
}

#[test]
fn normal_numbers_have_the_same_bits_on_every_device() {
    for (n, first, step) in [(200_001, 0, 1), (1003, 2, 1), (1000, 7, 3), (64, -30, 1), (100, 5, 0)] {
        let kernel = normals(n, first, step);
        let params = [0x1234_5678, 0x9abc_def0, 42, 7].map(|p: i64| Scalar::Int(p));
        // The numbers are compared with the formula in f64, except near the zeros of the sine, where f64
        // loses digits as well.
        check(&Device::cpu(), &kernel, &[vec![0; n * 4]], &[DType::F32], &params, 1e-6);
        let on =
            |device: &Device| run(device, &kernel, &[vec![0; n * 4]], &params).expect("a kernel").remove(0);
        let expected = on(&Device::cpu());
        for device in devices().iter().chain(&lowered(&hardware())) {
            assert!(on(device) == expected, "{n} from {first} by {step} on {device}");
        }
    }
}

#[test]
fn what_infinity_and_itself_make_is_nan() {
    // x - x and x / x, and the same for a value that is computed twice.
    let twice = |op| {
        let add = Instr::Binary { op: BinaryOp::Add, a: 0, b: 0 };
        [add.clone(), add, Instr::Binary { op, a: 1, b: 2 }]
    };
    for device in devices() {
        for values in [&SPECIAL[..], &SPECIAL[3..16]] {
            for op in [BinaryOp::Sub, BinaryOp::Div] {
                for operations in [vec![Instr::Binary { op, a: 0, b: 0 }], twice(op).to_vec()] {
                    let doubled = operations.len() > 1;
                    let kernel = map(&[DType::F32], DType::F32, values.len(), &operations);
                    let contents = [f32::to_bytes(values).to_vec(), vec![0; values.len() * 4]];
                    let found = f32::from_bytes(&run(&device, &kernel, &contents, &[]).expect("a kernel")[1]);
                    for (&x, found) in values.iter().zip(found) {
                        let x = if doubled { x + x } else { x };
                        let truth = if op == BinaryOp::Sub { x - x } else { x / x };
                        let same = truth == found || (truth.is_nan() && found.is_nan());
                        assert!(same, "{device} {op:?} of {x}: {found} instead of {truth}");
                    }
                }
            }
        }
    }
}
