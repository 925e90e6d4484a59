//! The CPU executor's loops against the reference.

mod common;

use common::compare::assert_agrees;
use common::random::{Rng, case};
use wgrad_device::kernel::Kernel;
use wgrad_device::{DType, Device};

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
