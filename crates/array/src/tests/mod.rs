//! Tests of internals, with graphs made by hand: their cache keys and their explanations.

mod explain;
mod key;

use smallvec::SmallVec;
use wgrad_device::{Buffer, DType, Device, Layout, Memory};

use crate::graph::{Graph, Offers};
use crate::node::{Node, NodeRef, Value};
use crate::op::Op;

/// Memory of no device, for buffers that are never read.
struct UnreadMemory(usize);

impl Memory for UnreadMemory {
    fn bytes(&self) -> usize {
        self.0
    }
}

/// Memory for so many elements of 8 bytes.
pub(crate) fn buffer(elements: usize) -> Buffer {
    Buffer::new(UnreadMemory(elements * 8))
}

/// An evaluated array with this layout in a buffer.
pub(crate) fn leaf_in(buffer: &Buffer, dtype: DType, layout: Layout) -> NodeRef {
    Node::evaluated(Value { buffer: buffer.clone(), layout, bounds: None }, dtype, &Device::cpu())
}

/// An evaluated, dense array of f32.
pub(crate) fn leaf(shape: &[usize]) -> NodeRef {
    leaf_in(&buffer(shape.iter().product()), DType::F32, Layout::contiguous(shape))
}

/// A pending operation.
pub(crate) fn pending(op: Op, inputs: &[&NodeRef], shape: &[usize], dtype: DType) -> NodeRef {
    let inputs: SmallVec<[NodeRef; 3]> = inputs.iter().map(|&input| input.clone()).collect();
    Node::pending(op, inputs, shape.into(), dtype, &Device::cpu())
}

/// The graph of these results.
pub(crate) fn graph(roots: &[&NodeRef]) -> Graph {
    Graph::with(roots.iter().copied(), Offers::default(), usize::MAX)
}
