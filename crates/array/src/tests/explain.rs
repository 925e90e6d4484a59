//! The contents of explanations: the operations with the calls they belong to, the kernels, what they read
//! and store, and why.

use std::panic::Location;

use wgrad_device::Device;
use wgrad_device::kernel::{BinaryOp, ReduceOp, UnaryOp};

use crate::{Array, Why, site};

/// A softmax of the rows of a transposed matrix, and the sum of its squares, attributed to two calls.
fn softmax_and_squares(device: &Device) -> [Array; 2] {
    let x = Array::from_slice(&[0.5f32; 6400], &[100, 64], device).unwrap().permute(&[1, 0]).unwrap();
    let call = site::enter("softmax", Location::caller());
    let shifted = x.binary(BinaryOp::Sub, &x.reduce(ReduceOp::Max, &[1], true).unwrap()).unwrap();
    let e = shifted.unary(UnaryOp::Exp).unwrap();
    let y = e.binary(BinaryOp::Div, &e.reduce(ReduceOp::Sum, &[1], true).unwrap()).unwrap();
    drop(call);
    let _call = site::enter("square_sum", Location::caller());
    let squares = y.binary(BinaryOp::Mul, &y).unwrap();
    [squares.reduce(ReduceOp::Sum, &[0, 1], true).unwrap(), y]
}

#[test]
fn an_explanation_says_what_is_computed_where_and_why_it_is_stored() {
    let device = Device::cpu();
    let [squares, y] = softmax_and_squares(&device);
    let explanation = Array::explain_all(&[&squares, &y]).unwrap();
    assert!(squares.is_pending() && y.is_pending());
    let text = explanation.to_string();
    println!("{text}");
    for part in [
        "x0 f32[64, 100] strides [1, 64]\n",
        "[softmax at crates/array/src/tests/explain.rs:",
        "2 kernels for ",
        "1. loop over [64] rows of [100]: reads 25.6 kB, writes 25.9 kB\n",
        "max, sub, exp, sum, div in softmax at ",
        "in square_sum at ",
        ", 256 B: another kernel reads it",
        ", 25.6 kB: a result",
        "2. loop over a row of [64]: reads 256 B, writes 4 B\n",
        ", 4 B: a result",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("%0 = "), "instructions are for the long form");
    assert!(format!("{explanation:#}").contains("of %"));
    let stores: Vec<(&str, Why)> =
        explanation.plans[0].stores().map(|stored| (stored.called, stored.why)).collect();
    let mut sorted = stores.clone();
    sorted.sort_by_key(|stored| stored.0);
    assert_eq!(sorted, [("softmax", Why::Result), ("square_sum", Why::Shared), ("square_sum", Why::Result)]);
}
