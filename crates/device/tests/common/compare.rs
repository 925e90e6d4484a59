//! Runs a kernel on an executor and compares its results with the reference.

use wgrad_device::kernel::Kernel;
use wgrad_device::{Buffer, DType, Executor, Result, Scalar};

use super::reference::{self, Value};

/// Runs a kernel on an executor, on buffers with these contents, and returns the contents after the launch.
pub fn execute(
    executor: &dyn Executor,
    kernel: &Kernel,
    buffers: &[Vec<u8>],
    params: &[Scalar],
) -> Result<Vec<Vec<u8>>> {
    let prepared = executor.prepare(kernel)?;
    let held: Vec<Buffer> = buffers.iter().map(|bytes| executor.upload(bytes)).collect::<Result<_>>()?;
    prepared.launch(&held.iter().collect::<Vec<_>>(), params)?;
    held.iter()
        .map(|buffer| {
            let mut bytes = vec![0; buffer.bytes()];
            executor.download(buffer, 0, &mut bytes)?;
            Ok(bytes)
        })
        .collect()
}

/// Asserts that an executor writes what the reference writes, within `tolerance` (relative to the values and
/// to 1).
pub fn assert_agrees(
    executor: &dyn Executor,
    kernel: &Kernel,
    buffers: &[Vec<u8>],
    dtypes: &[DType],
    params: &[Scalar],
    tolerance: f64,
) {
    let mut expected = buffers.to_vec();
    let outcome = reference::run(kernel, &mut expected, params);
    let found = match execute(executor, kernel, buffers, params) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(Err(error), outcome, "{kernel:#?}");
            return;
        }
    };
    assert_eq!(outcome, Ok(()), "{kernel:#?}");
    for (number, &dtype) in dtypes.iter().enumerate() {
        for i in 0..expected[number].len() / dtype.size() {
            let value = |bytes: &[u8]| reference::read(bytes, dtype, i as isize);
            let (found, expected) = (value(&found[number]), value(&expected[number]));
            let tolerance = match dtype {
                DType::F16 => tolerance.max(2e-3),
                DType::BF16 => tolerance.max(2e-2),
                _ => tolerance,
            };
            assert!(
                close(found, expected, tolerance),
                "element {i} of buffer {number} ({dtype}): {found:?}, expected {expected:?}\n{kernel:#?}"
            );
        }
    }
}

/// Whether floats differ by at most the tolerance, relative to the expected one and to 1. All other values
/// must be equal.
pub fn close(found: Value, expected: Value, tolerance: f64) -> bool {
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * b.abs().max(1.0)
    };
    match (found, expected) {
        (Value::F32(a), Value::F32(b)) => close(f64::from(a), f64::from(b)),
        (Value::F64(a), Value::F64(b)) => close(a, b),
        _ => found == expected,
    }
}
