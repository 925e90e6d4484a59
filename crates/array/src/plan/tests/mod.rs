//! Tests of the parts of planning, with limits made by hand. No kernel runs.

mod cluster;
mod facts;
mod lower;
mod schedule;

use wgrad_device::kernel::{BinaryOp, ReduceOp, UnaryOp};
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Layout, Limits};

use super::facts::Facts;
use super::map::{Map, Space};
use super::why::Why;
use crate::Array;
use crate::graph::Graph;
use crate::tests;

fn limits() -> Limits {
    Limits { buffers: 8, instructions: 256, inlined: false, binding: 1 << 27, allocation: 1 << 30, f64: true }
}

/// An array in memory.
fn leaf(shape: &[usize]) -> Array {
    Array(tests::leaf(shape))
}

/// An array of f32 in memory, with these strides.
fn strided(shape: &[usize], strides: &[isize]) -> Array {
    let layout = Layout::new(shape, strides, 0);
    Array(tests::leaf_in(&tests::buffer(1000), DType::F32, layout))
}

fn exp(x: &Array) -> Array {
    x.unary(UnaryOp::Exp).unwrap()
}

fn mul(a: &Array, b: &Array) -> Array {
    a.binary(BinaryOp::Mul, b).unwrap()
}

fn sum(x: &Array, dims: &[usize]) -> Array {
    x.reduce(ReduceOp::Sum, dims, true).unwrap()
}

fn graph(roots: &[&Array]) -> Graph {
    tests::graph(&roots.iter().map(|root| &root.0).collect::<Vec<_>>())
}

/// The step that computes an array.
fn step(facts: &Facts<'_>, array: &Array) -> u32 {
    let at = facts.graph.nodes.iter().position(|node| std::sync::Arc::ptr_eq(node, &array.0));
    at.expect("the array is pending, and in the graph") as u32
}

/// The shape of each stored result, and why it is stored.
fn stored(facts: &Facts<'_>) -> Vec<(Dims, Option<Why>)> {
    facts.steps.iter().filter(|step| step.stored).map(|step| (step.shape.clone(), step.why)).collect()
}

fn dims(shape: &[usize]) -> Dims {
    shape.into()
}

/// The map from a space to an array of its shape.
fn identity(space: &Space) -> Map {
    space.identity(|_| false)
}
