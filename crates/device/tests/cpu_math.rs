//! Tests of the CPU executor: the errors of its f32 functions over all of f32, and every operation on every
//! type.

mod common;

use common::bounds;
use common::compare::{close, execute};
use common::reference::{self, Value};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, Gives, Instr, Kernel, Loop, Store, Ty, UnaryOp};
use wgrad_device::{DType, Device, Error, Result};

/// The kernel `out = instr(inputs)` over n elements.
fn elementwise(n: usize, inputs: &[DType], instr: Instr, output: DType) -> Kernel {
    let access = |(buffer, &dtype): (usize, &DType)| Access::new(buffer, dtype, &[1], 0);
    let mut accesses: Vec<Access> = inputs.iter().enumerate().map(access).collect();
    accesses.push(Access::new(inputs.len(), output, &[1], 0));
    let mut body: Vec<Instr> =
        (0..inputs.len()).map(|access| Instr::Load { access, indices: smallvec![] }).collect();
    body.push(instr);
    let stores = vec![Store { access: inputs.len(), value: inputs.len() as u32 }];
    Kernel::Loop(Loop { sizes: smallvec![n], inner: 0, accesses, ranges: vec![], body, stores })
}

fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// The error in units in the last place of the true value. It is infinite if only one of the two is finite,
/// or only one is NaN.
fn ulps(found: f32, truth: f64) -> f64 {
    let nearest = truth as f32;
    if found == nearest || (found.is_nan() && truth.is_nan()) {
        return 0.0;
    }
    if !found.is_finite() || !nearest.is_finite() {
        // Rounding the largest finite number up to infinity counts as one unit.
        let edge = found.abs().min(nearest.abs()) == f32::MAX && found.signum() == nearest.signum();
        return if edge { 1.0 } else { f64::INFINITY };
    }
    let above = f64::from(f32::from_bits(nearest.abs().to_bits() + 1));
    let ulp = above.min(f64::from(f32::MAX)) - f64::from(nearest.abs());
    (f64::from(found) - truth).abs() / ulp.max(f64::from(f32::from_bits(1)))
}

/// Numbers of all exponents and signs, and the special values.
fn everywhere(step: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::MAX];
    let tiny = [f32::from_bits(1), -f32::from_bits(1), f32::MIN];
    (0..=u32::MAX).step_by(step).map(f32::from_bits).chain(special).chain(tiny).collect()
}

#[test]
fn functions_of_f32_are_within_their_bounds() {
    let inputs = everywhere(9973);
    for op in bounds::functions() {
        let bound = bounds::of_kernel(op).cpu;
        let kernel = elementwise(inputs.len(), &[DType::F32], Instr::Unary { op, a: 0 }, DType::F32);
        let out = execute(Device::cpu().executor(), &kernel, &[bytes(&inputs), bytes(&inputs)], &[]).unwrap();
        let out: Vec<f32> = bytemuck::pod_collect_to_vec(&out[1]);
        let mut worst = (0.0, 0.0, 0.0);
        for (&x, &y) in inputs.iter().zip(&out) {
            let Value::F64(truth) = reference::unary(op, Value::F64(f64::from(x))) else { unreachable!() };
            let error = ulps(y, truth);
            if error > worst.0 {
                worst = (error, x, y);
            }
            if x == 0.0 && truth == 0.0 {
                assert_eq!(y.is_sign_negative(), truth.is_sign_negative(), "{op:?} of {x}");
            }
        }
        println!("{op:?}: {:.2} ulp, at {:e}", worst.0, worst.1);
        assert!(worst.0 <= bound, "{op:?}: {} ulp at {} ({})", worst.0, worst.1, worst.2);
    }
}

#[test]
fn pow_of_f32_is_within_its_bound_and_knows_special_values() {
    let special = everywhere(80_000_003);
    let mut pairs: Vec<(f32, f32)> =
        special.iter().flat_map(|&x| special.iter().map(move |&y| (x, y))).collect();
    // Arguments whose powers are neither huge nor tiny, and integer exponents of negative bases.
    let usual = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
    pairs.extend((0..200_000).map(|i| (usual(i) * 20.0, usual(i + 77_777) * 60.0 - 30.0)));
    pairs.extend((0..2000).map(|i| (-usual(i) * 5.0, (i % 41) as f32 - 20.0)));
    pairs.extend([(0.0, 1.0), (-0.0, 3.0), (-0.0, -3.0), (-0.0, 2.0), (0.0, -2.0), (-2.0, 0.5), (2.0, 1.5)]);
    let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    let pow = Instr::Binary { op: BinaryOp::Pow, a: 0, b: 1 };
    let kernel = elementwise(x.len(), &[DType::F32; 2], pow, DType::F32);
    let out = execute(Device::cpu().executor(), &kernel, &[bytes(&x), bytes(&y), bytes(&x)], &[]).unwrap();
    let out: Vec<f32> = bytemuck::pod_collect_to_vec(&out[2]);
    for ((&x, &y), &z) in x.iter().zip(&y).zip(&out) {
        let truth = f64::from(x).powf(f64::from(y));
        let error = ulps(z, truth);
        assert!(error <= 0.6, "{x} to the {y}: {z} instead of {truth}, {error} ulp");
        if truth == 0.0 {
            assert_eq!(z.is_sign_negative(), truth.is_sign_negative(), "{x} to the {y}");
        }
    }
}

/// Elements of each type, in its register type, at values where errors are likely.
fn telling(ty: Ty) -> (DType, Vec<Value>, Vec<u8>) {
    let floats = [
        0.0,
        -0.0,
        0.25,
        -0.5,
        0.5,
        1.0,
        -1.0,
        1.5,
        2.5,
        -2.5,
        3.0,
        -3.75,
        7.0,
        100.5,
        -1e4,
        3e9,
        -1e20,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let ints = [0, 1, -1, 2, -2, 3, 5, -7, 8, 31, 32, 33, 63, 64, -64, 255, 256, 1000, i64::MAX, i64::MIN];
    let wide = [i64::from(i32::MAX), i64::from(i32::MIN), 1 << 40, -(1 << 33) + 5];
    let dtype = match ty {
        Ty::Bool => DType::Bool,
        Ty::U32 | Ty::I32 => DType::I32,
        Ty::I64 => DType::I64,
        Ty::F32 => DType::F32,
        Ty::F64 => DType::F64,
    };
    let bytes: Vec<u8> = match dtype {
        DType::F32 => bytes(&floats.map(|x| x as f32)),
        DType::F64 => bytes(&floats),
        DType::Bool => vec![0, 1, 1, 0],
        DType::I32 => bytes(&ints.iter().chain(&wide).map(|&x| x as i32).collect::<Vec<_>>()),
        _ => bytes(&ints.iter().chain(&wide).copied().collect::<Vec<_>>()),
    };
    let n = bytes.len() / dtype.size();
    let values = (0..n).map(|i| reference::read(&bytes, dtype, i as isize)).collect();
    (dtype, values, bytes)
}

const TYPES: [Ty; 5] = [Ty::Bool, Ty::I32, Ty::I64, Ty::F32, Ty::F64];

/// Runs an instruction over columns of elements, and compares each result with the reference.
fn agree(
    name: &str,
    inputs: &[(DType, Vec<u8>)],
    instr: Instr,
    output: DType,
    truth: impl Fn(usize) -> Value,
) -> Result<()> {
    let n = inputs[0].1.len() / inputs[0].0.size();
    let dtypes: Vec<DType> = inputs.iter().map(|(dtype, _)| *dtype).collect();
    let kernel = elementwise(n, &dtypes, instr, output);
    let mut buffers: Vec<Vec<u8>> = inputs.iter().map(|(_, bytes)| bytes.clone()).collect();
    buffers.push(vec![0; n * output.size()]);
    let out = execute(Device::cpu().executor(), &kernel, &buffers, &[])?;
    for i in 0..n {
        let found = reference::read(out.last().unwrap(), output, i as isize);
        let mut expected = vec![0; output.size()];
        reference::write(&mut expected, output, 0, truth(i));
        let expected = reference::read(&expected, output, 0);
        let inputs: Vec<Value> = inputs.iter().map(|(d, b)| reference::read(b, *d, i as isize)).collect();
        assert!(close(found, expected, 1e-6), "{name} of {inputs:?}: {found:?}, expected {expected:?}");
    }
    Ok(())
}

#[test]
fn every_unary_operation_on_every_type() {
    for ty in TYPES {
        let (dtype, values, bytes) = telling(ty);
        for &op in UnaryOp::ALL {
            let output = if op.gives() == Gives::Truth { DType::Bool } else { dtype };
            let allowed = op.domain().has(ty);
            let inputs = [(dtype, bytes.clone())];
            let outcome = agree(&format!("{op:?}"), &inputs, Instr::Unary { op, a: 0 }, output, |i| {
                reference::unary(op, values[i])
            });
            if allowed {
                outcome.unwrap();
            } else {
                assert!(matches!(outcome, Err(Error::Kernel { .. })), "{op:?} of {ty:?}");
            }
        }
    }
}

#[test]
fn every_binary_operation_on_every_type() {
    for ty in TYPES {
        let (dtype, values, bytes) = telling(ty);
        let (n, size) = (values.len(), dtype.size());
        // All pairs of values.
        let lefts: Vec<u8> = bytes.chunks(size).flat_map(|x| x.repeat(n)).collect();
        let rights = bytes.repeat(n);
        for &op in BinaryOp::ALL {
            let output = if op.gives() == Gives::Truth { DType::Bool } else { dtype };
            let allowed = op.domain().has(ty);
            let inputs = [(dtype, lefts.clone()), (dtype, rights.clone())];
            let instr = Instr::Binary { op, a: 0, b: 1 };
            let outcome = agree(&format!("{op:?}"), &inputs, instr, output, |i| {
                reference::binary(op, values[i / n], values[i % n])
            });
            if allowed {
                outcome.unwrap();
            } else {
                assert!(matches!(outcome, Err(Error::Kernel { .. })), "{op:?} of {ty:?}");
            }
        }
    }
}

#[test]
fn every_cast() {
    for ty in TYPES {
        let (dtype, values, bytes) = telling(ty);
        for to in DType::ALL {
            let inputs = [(dtype, bytes.clone())];
            agree(&format!("{to}"), &inputs, Instr::Cast { a: 0, to }, to, |i| {
                reference::cast(values[i], to)
            })
            .unwrap();
        }
    }
}
