//! Helpers for tests of elementwise operations on adapters, for either float type: kernels of one operation,
//! and comparisons with the truth.

use smallvec::smallvec;
use wgrad_device::kernel::{Access, BinaryOp, Instr, Kernel, Loop, Store, UnaryOp};
use wgrad_device::{DType, Device, Element};

use super::{check, run};
use crate::common::reference::{self, Value};

/// The elements of a kernel's n-th input.
pub fn load(access: usize) -> Instr {
    Instr::Load { access, indices: smallvec![] }
}

/// The kernel `out[i] = body(inputs[i])` over contiguous buffers, which stores the last value of the body.
pub fn map(inputs: &[DType], output: DType, n: usize, operations: &[Instr]) -> Kernel {
    let mut body: Vec<Instr> = (0..inputs.len()).map(load).collect();
    body.extend_from_slice(operations);
    let dtypes = inputs.iter().chain([&output]);
    let accesses: Vec<Access> =
        dtypes.enumerate().map(|(i, &dtype)| Access::new(i, dtype, &[1], 0)).collect();
    let store = Store { access: inputs.len(), value: body.len() as u32 - 1 };
    Kernel::Loop(Loop { sizes: smallvec![n], inner: 0, accesses, ranges: vec![], body, stores: vec![store] })
}

/// The results of one operation on a device.
pub fn apply<T: Element>(device: &Device, inputs: &[&[T]], operation: Instr) -> Vec<T> {
    let n = inputs[0].len();
    let kernel = map(&vec![T::DTYPE; inputs.len()], T::DTYPE, n, &[operation]);
    let mut contents: Vec<Vec<u8>> = inputs.iter().map(|values| T::to_bytes(values).to_vec()).collect();
    contents.push(vec![0; size_of_val(inputs[0])]);
    let result = run(device, &kernel, &contents, &[]).expect("an elementwise kernel");
    T::from_bytes(&result[inputs.len()])
}

/// All pairs of these numbers, as the list of first ones and the list of second ones.
pub fn pairs<T: Copy>(numbers: &[T]) -> (Vec<T>, Vec<T>) {
    numbers.iter().flat_map(|&x| numbers.iter().map(move |&y| (x, y))).unzip()
}

/// Asserts that operations on pairs of numbers are within these bounds of the truth in f64, in the units of
/// the last place that `ulps` measures.
pub fn binary_functions_are_within<T: Element + Into<f64> + std::fmt::LowerExp>(
    device: &Device,
    (a, b): (&[T], &[T]),
    bounds: &[(BinaryOp, f64)],
    ulps: fn(T, f64) -> f64,
) {
    for &(op, most) in bounds {
        let found = apply(device, &[a, b], Instr::Binary { op, a: 0, b: 1 });
        assert_eq!(found.len(), a.len());
        let mut worst = 0f64;
        for ((&x, &y), &z) in a.iter().zip(b).zip(&found) {
            let Value::F64(truth) = reference::binary(op, Value::F64(x.into()), Value::F64(y.into())) else {
                panic!("{op:?} of floats");
            };
            let error = ulps(z, truth);
            assert!(
                error <= most,
                "{device}: {op:?} of {x:e} and {y:e} is {z:e}, not {truth:e} ({error} ULP)"
            );
            worst = worst.max(error);
        }
        println!("{device} {op:?}: {worst:.2} ULP");
    }
}

/// Asserts that comparisons of all pairs of these numbers, and their classes, are those of the reference.
pub fn comparisons_and_classes_are_exact<T: Element>(device: &Device, numbers: &[T]) {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    let (a, b) = pairs(numbers);
    let n = a.len();
    let contents = [T::to_bytes(&a).to_vec(), T::to_bytes(&b).to_vec(), vec![0; n]];
    let comparisons = [Eq, Ne, Lt, Le, Gt, Ge].map(|op| Instr::Binary { op, a: 0, b: 1 });
    let classes = [UnaryOp::IsNan, UnaryOp::IsFinite].map(|op| Instr::Unary { op, a: 0 });
    for operation in comparisons.into_iter().chain(classes) {
        let kernel = map(&[T::DTYPE; 2], DType::Bool, n, &[operation]);
        check(device, &kernel, &contents, &[T::DTYPE, T::DTYPE, DType::Bool], &[], 0.0);
    }
}
