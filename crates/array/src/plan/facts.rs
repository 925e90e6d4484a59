//! The graph as the scheduler sees it: operations, and which of their results are written to memory.

use std::collections::HashMap;

use smallvec::SmallVec;
use wgrad_device::kernel::UnaryOp;
use wgrad_device::layout::{Dims, Strides};
use wgrad_device::{DType, Layout, Limits};

use super::effort::Effort;
use super::factor::Factor;
use super::why::Why;
use crate::graph::{Graph, Ref};
use crate::op::{Axis, Op, RandomKind, View, reduced_shape};

/// One operation of the graph.
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) inputs: SmallVec<[Ref; 3]>,
    pub(crate) shape: Dims,
    pub(crate) dtype: DType,
    /// Where its numbers start among the graph's scalars.
    pub(crate) first_scalar: usize,
    /// Its result is computed by a kernel and kept there or in memory; other results are recomputed wherever they are used.
    pub(crate) anchor: bool,
    /// Its result is written to memory.
    pub(crate) stored: bool,
    /// Why, as it was first decided.
    pub(crate) why: Option<Why>,
}

/// Memory that a kernel reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// Some of the memory that the graph's leaves lie in.
    Leaf(u32),
    /// The result of a step.
    Step(u32),
}

/// The graph's operations and decisions about them.
pub(crate) struct Facts<'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) steps: Vec<Step>,
    /// Copies of leaves, which come before everything else.
    copies: Vec<u32>,
    /// The steps that fold some dims first, by the reduction that goes on from there.
    folds: HashMap<u32, SmallVec<[u32; 1]>>,
    /// The steps that read each leaf, once a leaf is copied.
    readers: Option<Vec<SmallVec<[u32; 2]>>>,
    pub(crate) fusion: bool,
    pub(crate) limits: &'g Limits,
    /// What planning has come to.
    pub(crate) effort: Effort,
}

impl<'g> Facts<'g> {
    /// Reads the operations; `None` if another thread has finished one of them meanwhile.
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

    /// Puts a step into the order, after those that fold for it. Each has fewer dims to fold, so this is not deep.
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

    /// Where an operand that is in memory lies there.
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

    /// Where an operand lies that is in memory, or views something there through strides.
    pub(crate) fn strided(&self, operand: Ref) -> Option<(Slot, Layout)> {
        let mut views: SmallVec<[(&View, &[usize]); 4]> = SmallVec::new();
        let mut at = operand;
        let (slot, mut layout) = loop {
            if let Some(found) = self.memory(at) {
                break found;
            }
            let Ref::Node(step) = at else { return None };
            let step = &self.steps[step as usize];
            let Op::View(view) = &step.op else { return None };
            views.push((view, &step.shape));
            at = step.inputs[0];
        };
        for (view, shape) in views.into_iter().rev() {
            layout = view_layout(&layout, view, shape)?;
        }
        Some((slot, layout))
    }

    /// What an operand views, down to the first thing that is not a view, or is in memory.
    fn viewed(&self, mut operand: Ref) -> Ref {
        while let Ref::Node(step) = operand {
            let step = &self.steps[step as usize];
            match step.op {
                Op::View(_) if !step.anchor => operand = step.inputs[0],
                _ => break,
            }
        }
        operand
    }

    /// Has a step's result written to memory.
    pub(crate) fn store(&mut self, step: u32, why: Why) {
        let is_root = self.graph.is_root.get(step as usize).copied().unwrap_or(false);
        let step = &mut self.steps[step as usize];
        (step.anchor, step.stored) = (true, true);
        step.why.get_or_insert(if is_root { Why::Result } else { why });
    }

    /// Has an operand put into memory where strides can reach it.
    fn store_operand(&mut self, operand: Ref) {
        if self.strided(operand).is_some() {
            return;
        }
        if let Ref::Node(step) = self.viewed(operand) {
            self.store(step, Why::Operand);
        }
        if let (None, Ref::Node(step)) = (self.strided(operand), operand) {
            self.store(step, Why::Operand);
        }
    }

    /// Has a product's operand put into memory. Windows are not written out: what they look at is, with its margins, unless it is
    /// there already. What views no element twice is copied rather than walked along several dims, but not once for each matrix of
    /// the batch that it is repeated for.
    fn store_factor(&mut self, operand: Ref) {
        if self.strided(operand).is_some() {
            return;
        }
        let elements = |facts: &Self, operand: Ref| facts.shape(operand).iter().product::<usize>();
        let mut once = operand;
        let mut base = operand;
        while let Ref::Node(step) = base {
            let node = &self.steps[step as usize];
            let Op::View(view @ (View::Affine(_) | View::Reshape)) = &node.op else { break };
            if node.anchor {
                break;
            }
            let below = node.inputs[0];
            let repeats = matches!(view, View::Affine(_)) && elements(self, below) <= elements(self, once);
            if once == base && repeats {
                once = below;
            }
            base = below;
        }
        let overlap = elements(self, once) > elements(self, base);
        let known = match base {
            Ref::Node(step) => {
                let node = &self.steps[step as usize];
                Some((step, (node.anchor, node.stored, node.why)))
            }
            Ref::Leaf(_) => None,
        };
        if overlap {
            if let Some((step, _)) = known {
                self.store(step, Why::Operand);
            }
            if Factor::of(self, operand).is_some() {
                return;
            }
            if let Some((step, before)) = known {
                let node = &mut self.steps[step as usize];
                (node.anchor, node.stored, node.why) = before;
            }
        }
        self.store_operand(if overlap { operand } else { once });
    }

    /// Has a leaf copied to dense memory: a view of it needs more than strides can say.
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

    /// Has a reduction fold some of its dims in a step of its own, before the others: this one.
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

    /// The results that must be in memory whatever the kernels look like.
    fn choose_stored(&mut self) {
        let mut size = vec![Inlined::default(); self.steps.len()];
        for i in 0..self.steps.len() {
            let step = &self.steps[i];
            let inputs = step.inputs.clone();
            let empty = step.shape.contains(&0);
            let (held, visited) = (self.graph.held[i], self.graph.visited[i]);
            let library = matches!(
                step.op,
                Op::Matmul | Op::Scatter { .. } | Op::Update { .. } | Op::Scan { .. } | Op::Sort { .. }
            );
            let expensive = library || matches!(step.op, Op::Reduce { .. });
            let free = matches!(step.op, Op::View(_) | Op::Full(_));
            let alone = !self.fusion && !free;
            let wanted = matches!(step.op, Op::Store);
            match step.op {
                Op::Matmul => {
                    for input in inputs {
                        self.store_factor(input);
                    }
                }
                _ if library => {
                    for input in inputs {
                        self.store_operand(input);
                    }
                }
                Op::Gather { .. } => self.store_operand(inputs[0]),
                _ => {}
            }
            self.steps[i].anchor |= expensive || empty;
            let why = match () {
                () if wanted => Some(Why::Always),
                () if held && (expensive || visited && !free) => Some(Why::Held),
                () if alone => Some(Why::Unfused),
                () if empty => Some(Why::Empty),
                () => None,
            };
            if let Some(why) = why {
                self.store(i as u32, why);
            }
            size[i] = self.inlined(i, &size);
            // A value that somebody may still read is cheap to recompute later, unless that keeps memory alive that would
            // be free otherwise.
            if held && !free && !self.steps[i].anchor && !self.are_kept(&size[i].sources) {
                self.store(i as u32, Why::Held);
                size[i] = self.inlined(i, &size);
            }
            // A body that grew too large is cut at its largest operand, again and again: also that of a value which is stored.
            while !library && self.body(i, &size).exceeds(self.limits) {
                let heaviest = self.steps[i].inputs.iter().filter_map(|&input| match self.viewed(input) {
                    Ref::Node(step) if !self.steps[step as usize].anchor => Some(step),
                    _ => None,
                });
                match heaviest.max_by_key(|&step| size[step as usize].weight()) {
                    Some(step) if size[step as usize].weight() > 1 => self.store(step, Why::Large),
                    _ => break,
                }
                size[i] = self.inlined(i, &size);
            }
        }
        for &root in &self.graph.roots {
            let step = &self.steps[root as usize];
            // A view that is not larger than what it shows is computed itself, unless the whole is in memory anyway.
            let whole = self.viewed(Ref::Node(root));
            let covers = self.shape(whole).iter().product::<usize>() <= step.shape.iter().product();
            if let Ref::Node(base) = whole
                && base != root
                && covers
                && !self.is_anchor(whole)
            {
                self.store(base, Why::Viewed);
            }
            match self.strided(Ref::Node(root)) {
                Some((Slot::Step(base), _)) if base != root => self.store(base, Why::Viewed),
                Some((Slot::Leaf(_), _)) => {}
                _ => self.store(root, Why::Result),
            }
        }
    }

    /// Whether all of this memory stays alive after the evaluation anyway.
    fn are_kept(&self, sources: &[Slot]) -> bool {
        sources.iter().all(|source| match source {
            Slot::Leaf(memory) => self.graph.memory[*memory as usize].kept,
            Slot::Step(step) => self.graph.held[*step as usize],
        })
    }

    /// What inlining a step into its user's kernel brings along.
    fn inlined(&self, step: usize, size: &[Inlined]) -> Inlined {
        if self.steps[step].anchor {
            return Inlined { instructions: 1, sources: SmallVec::from_slice(&[Slot::Step(step as u32)]) };
        }
        self.body(step, size)
    }

    /// What computing a step in a kernel brings along.
    fn body(&self, step: usize, size: &[Inlined]) -> Inlined {
        let step_facts = &self.steps[step];
        let written = match step_facts.op {
            Op::View(_) => 0,
            Op::Unary(op) if self.limits.inlined => op.size(),
            Op::Binary(op, _) if self.limits.inlined => op.size(),
            _ => 1,
        };
        let own = written + usize::from(step_facts.dtype.is_half());
        let mut sum = Inlined { instructions: own, sources: SmallVec::new() };
        for &input in &step_facts.inputs {
            let slot = match input {
                Ref::Leaf(leaf) => Inlined {
                    instructions: 1,
                    sources: SmallVec::from_slice(&[Slot::Leaf(self.graph.leaves[leaf as usize].memory)]),
                },
                Ref::Node(node) if self.steps[node as usize].anchor => {
                    Inlined { instructions: 1, sources: SmallVec::from_slice(&[Slot::Step(node)]) }
                }
                Ref::Node(node) => size[node as usize].clone(),
            };
            sum.instructions += slot.instructions;
            for source in slot.sources {
                if !sum.sources.contains(&source) {
                    sum.sources.push(source);
                }
            }
        }
        sum
    }

    /// What recomputing an operation costs, in simple operations on an element.
    pub(crate) fn cost(&self, step: u32) -> usize {
        let step = &self.steps[step as usize];
        match &step.op {
            Op::View(_) | Op::Full(_) => 0,
            Op::Random { kind: RandomKind::Normal, .. } => 72,
            Op::Random { .. } => 24,
            Op::Gather { .. } => 8,
            Op::Unary(op) => match op {
                UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not | UnaryOp::Sign => 1,
                UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round | UnaryOp::Trunc => 1,
                UnaryOp::IsNan | UnaryOp::IsFinite | UnaryOp::Reciprocal | UnaryOp::Sqrt | UnaryOp::Rsqrt => {
                    2
                }
                _ => 8,
            },
            Op::Binary(wgrad_device::kernel::BinaryOp::Pow, _) => 16,
            _ => 1,
        }
    }
}

/// An estimate of an expression that is computed in its user's kernel; shared parts count twice.
#[derive(Clone, Default)]
struct Inlined {
    instructions: usize,
    sources: SmallVec<[Slot; 4]>,
}

impl Inlined {
    fn exceeds(&self, limits: &Limits) -> bool {
        // Half of what a kernel may have: the other half is for what is fused beside it, and for outputs.
        self.instructions > limits.instructions / 2 || self.sources.len() > (limits.buffers - 1) / 2 + 1
    }

    fn weight(&self) -> usize {
        self.instructions + 16 * (self.sources.len().max(1) - 1)
    }
}

/// The layout of a view of a layout, if strides can express it.
pub(crate) fn view_layout(base: &Layout, view: &View, shape: &[usize]) -> Option<Layout> {
    match view {
        View::Affine(axes) => Some(affine_layout(base, axes, shape)),
        View::Reshape => base.reshape(shape),
        View::Pad { .. } => None,
    }
}

/// The layout of an affine view of a layout.
pub(crate) fn affine_layout(base: &Layout, axes: &[Axis], shape: &[usize]) -> Layout {
    let mut strides: Strides = SmallVec::from_elem(0, shape.len());
    let mut offset = base.offset() as isize;
    for (axis, &stride) in axes.iter().zip(base.strides()) {
        // Steps in an empty view may be no numbers.
        offset = offset.wrapping_add(axis.offset.wrapping_mul(stride));
        for &(dim, step) in &axis.terms {
            strides[dim] = strides[dim].wrapping_add(step.wrapping_mul(stride));
        }
    }
    // An empty view may start past the end.
    let offset = if shape.contains(&0) { base.offset() } else { offset as usize };
    Layout::new(shape, &strides, offset)
}
