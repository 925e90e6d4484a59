//! How many kernels well-known computations take, counted by the device. One test alone in its binary: the
//! counters belong to the whole process.

use wgrad_array::{Array, BinaryOp, Device, ReduceOp, Result, UnaryOp};

fn dispatches(device: &Device, run: impl FnOnce() -> Result<()>) -> u64 {
    let before = device.stats();
    run().unwrap();
    device.stats().since(&before).dispatches
}

fn ones(shape: &[usize], device: &Device) -> Array {
    Array::from_slice(&vec![0.5f32; shape.iter().product()], shape, device).unwrap()
}

#[test]
fn work_is_fused_and_plans_are_kept() {
    let device = &Device::cpu();
    known_computations(device);
    a_plan_is_built_once(device);
}

fn known_computations(device: &Device) {
    // One pass over x computes the mean of x^2 + 100 and its gradient 2x/n.
    let x = ones(&[1000], device);
    let count = dispatches(device, || {
        let y = x.binary(BinaryOp::Mul, &x)?.binary_scalar(BinaryOp::Add, 100.0)?;
        let loss = y.reduce(ReduceOp::Sum, &[0], false)?.binary_scalar(BinaryOp::Mul, 0.001)?;
        let grad = x.binary_scalar(BinaryOp::Mul, 0.002)?;
        Array::eval_all(&[&loss, &grad])
    });
    assert_eq!(count, 1, "chain and gradient");

    // The sum of softmax(x)^2 and its gradient.
    let x = ones(&[64, 100], device);
    let count = dispatches(device, || {
        let shifted = x.binary(BinaryOp::Sub, &x.reduce(ReduceOp::Max, &[1], true)?)?.unary(UnaryOp::Exp)?;
        let y = shifted.binary(BinaryOp::Div, &shifted.reduce(ReduceOp::Sum, &[1], true)?)?;
        let loss = y.binary(BinaryOp::Mul, &y)?.reduce(ReduceOp::Sum, &[0, 1], false)?;
        let dy = y.binary_scalar(BinaryOp::Mul, 2.0)?;
        let inner = dy.binary(BinaryOp::Mul, &y)?.reduce(ReduceOp::Sum, &[1], true)?;
        let dx = y.binary(BinaryOp::Mul, &dy.binary(BinaryOp::Sub, &inner)?)?;
        Array::eval_all(&[&loss, &dx])
    });
    // One kernel computes the losses of the rows, a second one their sum.
    assert_eq!(count, 2, "softmax forward and backward");

    // In a linear layer, bias and activation are the epilogue of the product.
    let (w, b) = (ones(&[100, 32], device), ones(&[32], device));
    let count = dispatches(device, || {
        let h = x.matmul(&w)?.binary(BinaryOp::Add, &b)?.unary(UnaryOp::Tanh)?;
        h.eval()
    });
    assert_eq!(count, 1, "linear layer");
}

fn a_plan_is_built_once(device: &Device) {
    let step = |lr: f32| {
        let x = ones(&[3, 7], device);
        let y = x.binary_scalar(BinaryOp::Mul, lr).unwrap().reduce(ReduceOp::Sum, &[1], false).unwrap();
        y.to_vec::<f32>().unwrap()[0]
    };
    assert_eq!(step(1.5), 5.25);
    let before = device.stats();
    assert_eq!(step(2.0), 7.0);
    let after = device.stats().since(&before);
    assert_eq!((after.pipelines_compiled, after.plans_built, after.plan_hits), (0, 0, 1));
}
