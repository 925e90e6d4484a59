//! [`GradFn`]: a node of the graph, seen from outside.

use crate::tape::{Edge, NodeRef};

/// A node of the graph: the operation that made a tensor; `grad_fn`. Holding it keeps the node and what is behind it.
#[derive(Clone, PartialEq)]
pub struct GradFn {
    node: NodeRef,
}

impl GradFn {
    pub(crate) fn new(edge: Edge) -> GradFn {
        GradFn { node: edge.node }
    }

    pub(crate) fn node(&self) -> &NodeRef {
        &self.node
    }

    /// PyTorch's name for it: `MulBackward0`, or `AccumulateGrad` for a leaf.
    pub fn name(&self) -> &'static str {
        self.node.with(|node| node.name)
    }

    /// For each input of the operation, the node its gradient goes to and which of that node's outputs it is; `None`
    /// for an input without gradient.
    pub fn next_functions(&self) -> Vec<Option<(GradFn, usize)>> {
        let edges = self.node.with(|node| node.edges.clone());
        edges.into_iter().map(|edge| edge.map(|e| (GradFn { node: e.node }, e.output as usize))).collect()
    }

    /// The node's place in the order of recording: later ones have larger numbers.
    pub fn sequence_number(&self) -> u64 {
        self.node.with(|node| node.sequence)
    }
}

impl std::fmt::Debug for GradFn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.name())
    }
}
