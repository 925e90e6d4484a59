//! The graph as the scheduler sees it: its operations, where their results lie, and the decisions made about
//! them. Which results are written to memory is decided in `stored`.

use std::collections::HashMap;

use smallvec::SmallVec;
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Layout, Limits};

use super::effort::Effort;
use super::why::Why;
use crate::graph::{Graph, Ref};
use crate::op::{Op, RandomKind, reduced_shape};

/// One operation of the graph.
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) inputs: SmallVec<[Ref; 3]>,
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    /// The position of its first scalar among the graph's scalars.
    pub(crate) first_scalar: usize,
    /// Whether it is an *anchor*: a step that exactly one kernel computes, and whose result is in memory or
    /// in a register of that kernel. A step that is no anchor is recomputed in every kernel that uses it.
    pub(crate) anchor: bool,
    /// Whether its result is written to memory.
    pub(crate) stored: bool,
    /// The first reason for which it was decided that the result is stored.
    pub(crate) why: Option<Why>,
}

/// Memory that a kernel reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// Memory in which leaves lie: a position in `Graph::memory`.
    Leaf(u32),
    /// The result of a step.
    Step(u32),
}

/// The graph's operations and decisions about them.
pub(crate) struct Facts<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) steps: Vec<Step>,
    /// The steps that copy leaves, which are the first in topological order.
    copies: Vec<u32>,
    /// For each reduction that was taken apart, the steps that reduce some of its dims before it.
    folds: HashMap<u32, SmallVec<[u32; 1]>>,
    /// For each leaf the steps that read it. It is computed when the first leaf is copied.
    readers: Option<Vec<SmallVec<[u32; 2]>>>,
    pub(crate) fusion: bool,
    pub(crate) limits: &'g Limits,
    /// Counters of the work that planning takes.
    pub(crate) effort: Effort,
}

impl<'g> Facts<'g> {
    /// Reads the graph's operations. `None` if another thread has finished one of them in the meantime.
    pub(crate) fn new(graph: &'g Graph, fusion: bool, limits: &'g Limits) -> Option<Facts<'g>> {
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let op = node.work().as_ref()?.op.clone();
            steps.push(Step {
                op,
                inputs: graph.inputs(i as u32).into(),
                shape: node.shape.clone(),
                dtype: node.dtype,
                first_scalar: graph.first_scalar[i] as usize,
                anchor: false,
                stored: false,
                why: None,
            });
        }
        let mut facts = Facts {
            graph,
            steps,
            copies: Vec::new(),
            folds: HashMap::new(),
            readers: None,
            fusion,
            limits,
            effort: Effort::default(),
        };
        facts.choose_stored();
        Some(facts)
    }

    /// The steps in topological order.
    pub(crate) fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = self.copies.iter().rev().copied().collect();
        order.reserve(self.steps.len());
        for step in 0..self.graph.nodes.len() as u32 {
            self.place(step, &mut order);
        }
        order
    }

    /// Puts a step into the order, after the steps that reduce some of its dims before it. Each of those has
    /// fewer dims, so the depth of this recursion is bounded by the rank.
    fn place(&self, step: u32, order: &mut Vec<u32>) {
        for &inner in self.folds.get(&step).into_iter().flatten() {
            self.place(inner, order);
        }
        order.push(step);
    }

    /// The shape of an operand.
    pub(crate) fn shape(&self, operand: Ref) -> &[usize] {
        match operand {
            Ref::Node(step) => &self.steps[step as usize].shape,
            Ref::Leaf(leaf) => &self.graph.leaves[leaf as usize].node.shape,
        }
    }

    /// The dtype of an operand.
    pub(crate) fn dtype(&self, operand: Ref) -> DType {
        match operand {
            Ref::Node(step) => self.steps[step as usize].dtype,
            Ref::Leaf(leaf) => self.graph.leaves[leaf as usize].node.dtype,
        }
    }

    pub(crate) fn is_anchor(&self, operand: Ref) -> bool {
        match operand {
            Ref::Node(step) => self.steps[step as usize].anchor,
            Ref::Leaf(_) => true,
        }
    }

    /// The memory and the layout of an operand, if it is a leaf or an anchor.
    pub(crate) fn memory(&self, operand: Ref) -> Option<(Slot, Layout)> {
        match operand {
            Ref::Leaf(leaf) => {
                let leaf = &self.graph.leaves[leaf as usize];
                Some((Slot::Leaf(leaf.memory), leaf.layout.clone()))
            }
            Ref::Node(step) if self.steps[step as usize].anchor => {
                Some((Slot::Step(step), Layout::contiguous(&self.steps[step as usize].shape)))
            }
            Ref::Node(_) => None,
        }
    }

    /// Adds a step that copies a leaf to dense memory, and has all readers of the leaf read the copy: strides
    /// cannot express a view of the leaf as it is.
    pub(crate) fn copy_leaf(&mut self, leaf: u32) {
        let copy = self.steps.len() as u32;
        let readers = self.readers.get_or_insert_with(|| {
            let mut readers = vec![SmallVec::new(); self.graph.leaves.len()];
            for (at, step) in self.steps.iter().enumerate() {
                for input in &step.inputs {
                    if let Ref::Leaf(leaf) = input {
                        readers[*leaf as usize].push(at as u32);
                    }
                }
            }
            readers
        });
        for reader in std::mem::take(&mut readers[leaf as usize]) {
            for input in &mut self.steps[reader as usize].inputs {
                if *input == Ref::Leaf(leaf) {
                    *input = Ref::Node(copy);
                }
            }
        }
        let node = &self.graph.leaves[leaf as usize].node;
        self.steps.push(Step {
            op: Op::Copy,
            inputs: SmallVec::from_slice(&[Ref::Leaf(leaf)]),
            shape: node.shape.clone(),
            dtype: node.dtype,
            first_scalar: 0,
            anchor: true,
            stored: true,
            why: Some(Why::Strides),
        });
        self.copies.push(copy);
    }

    /// Takes a reduction apart: a new step, which is returned, reduces the dims `first`; the reduction
    /// continues from its result with the other dims.
    pub(crate) fn fold_first(&mut self, step: u32, first: &[usize]) -> Option<u32> {
        let inner = self.steps.len() as u32;
        let node = &mut self.steps[step as usize];
        let Op::Reduce { op, dims } = &mut node.op else { return None };
        dims.retain(|d| !first.contains(d));
        let op = Op::Reduce { op: *op, dims: first.into() };
        let inputs = std::mem::replace(&mut node.inputs, SmallVec::from_slice(&[Ref::Node(inner)]));
        let (dtype, shape) = (node.dtype, reduced_shape(self.shape(inputs[0]), first));
        self.steps.push(Step {
            op,
            inputs,
            shape,
            dtype,
            first_scalar: 0,
            anchor: true,
            stored: false,
            why: None,
        });
        if let (Some(readers), Ref::Leaf(leaf)) = (&mut self.readers, self.steps[inner as usize].inputs[0]) {
            readers[leaf as usize].push(inner);
        }
        self.folds.entry(step).or_default().push(inner);
        Some(inner)
    }

    /// The cost of recomputing a step for one element, in units of a simple operation such as an addition.
    pub(crate) fn cost(&self, step: u32) -> usize {
        let step = &self.steps[step as usize];
        match &step.op {
            Op::View(_) | Op::Full(_) => 0,
            Op::Random { kind: RandomKind::Normal, .. } => 72,
            Op::Random { .. } => 24,
            Op::Gather { .. } => 8,
            Op::Unary(op) => op.cost(),
            Op::Binary(op, _) => op.cost(),
            _ => 1,
        }
    }
}
