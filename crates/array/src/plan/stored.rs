//! Which results are written to memory (materialised); all others are recomputed in the kernels that use
//! them.
//!
//! Three passes decide it. [`Facts::choose_stored`] stores what must be in memory however the work is divided
//! into kernels. [`store_where_strides_end`] stores what a kernel could otherwise not address, because
//! strides cannot express the view through which it reads. [`repeated_work`] finds what several kernels would
//! recompute at a higher cost than that of storing and loading it.

use smallvec::SmallVec;
use wgrad_device::{Limits, Result};

use super::cluster::Cluster;
use super::factor::MatmulOperand;
use super::facts::{Facts, Slot};
use super::lower::LowerError;
use super::schedule::{is_computed, no_kernel};
use super::why::Why;
use crate::graph::Ref;
use crate::op::{Op, View};

/// The highest cost of recomputation, in simple operations on an element. What costs more is stored once.
const RECOMPUTE: usize = 24;

impl Facts<'_> {
    /// Stores the results that must be in memory however the work is divided into kernels.
    pub(super) fn choose_stored(&mut self) {
        let mut size = vec![Inlined::default(); self.steps.len()];
        for i in 0..self.steps.len() {
            let step = &self.steps[i];
            let inputs = step.inputs.clone();
            let empty = step.shape.contains(&0);
            let (held, visited) = (self.graph.held[i], self.graph.visited[i]);
            let library = is_library(&step.op);
            let expensive = library || matches!(step.op, Op::Reduce { .. });
            let free = matches!(step.op, Op::View(_) | Op::Full(_));
            let alone = !self.fusion && !free;
            let wanted = matches!(step.op, Op::Store);
            match step.op {
                Op::Matmul => {
                    for input in inputs {
                        self.store_matmul_operand(input);
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
            // A value that is held outside of the graph may be recomputed later. It is stored only if that
            // would keep memory alive which could be freed now.
            if held && !free && !self.steps[i].anchor && !self.are_kept(&size[i].sources) {
                self.store(i as u32, Why::Held);
                size[i] = self.inlined(i, &size);
            }
            if !library {
                self.cut(i, &mut size, Inlined::exceeds);
            }
        }
        self.store_roots();
    }

    /// While a step's expression is too large for a kernel, stores its largest operand, and keeps `size` up to date. This
    /// applies to an expression whose own result is stored, too.
    fn cut(&mut self, step: usize, size: &mut [Inlined], is_too_large: fn(&Inlined, &Limits) -> bool) {
        while is_too_large(&self.body(step, size), self.limits) {
            let operands = self.steps[step].inputs.iter().filter_map(|&input| match self.viewed(input) {
                Ref::Node(step) if !self.steps[step as usize].anchor => Some(step),
                _ => None,
            });
            match operands.max_by_key(|&step| size[step as usize].weight()) {
                Some(operand) if size[operand as usize].weight() > 1 => {
                    self.store(operand, Why::Large);
                    size[operand as usize] = self.inlined(operand as usize, size);
                }
                _ => break,
            }
            size[step] = self.inlined(step, size);
        }
    }

    /// Cuts the expressions that no kernel can hold any more, since parts of them have been stored and are read from memory
    /// now.
    pub(super) fn cut_what_no_kernel_holds(&mut self) {
        let mut size = vec![Inlined::default(); self.steps.len()];
        for step in self.order() {
            let step = step as usize;
            size[step] = self.inlined(step, &size);
            if !is_library(&self.steps[step].op) {
                self.cut(step, &mut size, Inlined::fits_no_kernel);
            }
        }
    }

    /// Stores the roots, or what they are views of.
    fn store_roots(&mut self) {
        for &root in &self.graph.roots {
            let step = &self.steps[root as usize];
            // If a root is a view of at least as many elements as the viewed result has, that result is
            // stored and the root shares its memory. A root that views a part of it is stored itself, unless
            // the whole is.
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

    /// Whether all of this memory stays alive after the evaluation in any case.
    fn are_kept(&self, sources: &[Slot]) -> bool {
        sources.iter().all(|source| match source {
            Slot::Leaf(memory) => self.graph.memory[*memory as usize].kept,
            Slot::Step(step) => self.graph.held[*step as usize],
        })
    }

    /// The size of the expression that a step contributes to a kernel that uses it.
    fn inlined(&self, step: usize, size: &[Inlined]) -> Inlined {
        if self.steps[step].anchor {
            return Inlined { instructions: 1, sources: SmallVec::from_slice(&[Slot::Step(step as u32)]) };
        }
        self.body(step, size)
    }

    /// The size of the expression that computes a step.
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

    /// Decides that a step's result is written to memory.
    pub(crate) fn store(&mut self, step: u32, why: Why) {
        let is_root = self.graph.is_root.get(step as usize).copied().unwrap_or(false);
        let step = &mut self.steps[step as usize];
        (step.anchor, step.stored) = (true, true);
        step.why.get_or_insert(if is_root { Why::Result } else { why });
    }

    /// Stores what is needed so that an operand can be read from memory through strides.
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

    /// Stores what is needed so that a matrix product can read an operand from memory.
    ///
    /// The windows of a convolution overlap, so that their copy would be many times as large as the image:
    /// the (padded) image is stored instead, and the product reads the windows through strides. An operand
    /// that views no element twice is copied if one stride for each of its dims cannot express it. An operand
    /// that is repeated for the matrices of a batch is copied once, before the repetition.
    fn store_matmul_operand(&mut self, operand: Ref) {
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
            if MatmulOperand::of(self, operand).is_some() {
                return;
            }
            if let Some((step, before)) = known {
                let node = &mut self.steps[step as usize];
                (node.anchor, node.stored, node.why) = before;
            }
        }
        self.store_operand(if overlap { operand } else { once });
    }
}

/// An estimate of the size of an expression inside a kernel. A subexpression that is used twice counts twice.
#[derive(Clone, Default)]
struct Inlined {
    instructions: usize,
    /// The memory that the expression reads.
    sources: SmallVec<[Slot; 4]>,
}

impl Inlined {
    fn exceeds(&self, limits: &Limits) -> bool {
        // Half of a kernel's limits: the other half is for outputs, and for other expressions fused into the
        // kernel.
        self.instructions > limits.instructions / 2 || self.sources.len() > (limits.buffers - 1) / 2 + 1
    }

    /// Whether a kernel of its own would exceed the limits.
    fn fits_no_kernel(&self, limits: &Limits) -> bool {
        self.instructions > limits.instructions || self.sources.len() >= limits.buffers
    }

    fn weight(&self) -> usize {
        self.instructions + 16 * (self.sources.len().max(1) - 1)
    }
}

/// Whether an operation has a kernel of its own kind.
fn is_library(op: &Op) -> bool {
    matches!(op, Op::Matmul | Op::Scatter { .. } | Op::Update { .. } | Op::Scan { .. } | Op::Sort { .. })
}

/// Stores everything that a kernel could otherwise not address through strides. It looks at each anchor in a
/// kernel of its own: fusing anchors never requires that more is stored.
pub(super) fn store_where_strides_end(facts: &mut Facts<'_>) -> Result<()> {
    let mut stack = Vec::new();
    for step in facts.order() {
        if is_computed(facts, step) {
            stack.push(step);
        }
        while let Some(&step) = stack.last() {
            match Cluster::alone(facts, step) {
                Ok(_) => {
                    stack.pop();
                }
                // The stored operand is an anchor now, so it is looked at in the same way.
                Err(LowerError::Store(Ref::Node(operand))) if !facts.steps[operand as usize].stored => {
                    facts.store(operand, Why::Strides);
                    if is_computed(facts, operand) {
                        stack.push(operand);
                    }
                }
                Err(LowerError::Store(Ref::Leaf(leaf))) => facts.copy_leaf(leaf),
                Err(stop) => return Err(no_kernel(&stop)),
            }
        }
    }
    Ok(())
}

/// The steps that several kernels would recompute although storing them once is cheaper.
pub(super) fn repeated_work(facts: &Facts<'_>, clusters: &[Cluster]) -> Vec<u32> {
    let mut kernels = vec![0usize; facts.steps.len()];
    let mut by_row = vec![false; facts.steps.len()];
    for cluster in clusters {
        let mut here: Vec<u32> = cluster.body.recomputed().collect();
        here.sort_unstable();
        here.dedup();
        for step in here {
            kernels[step as usize] += 1;
            by_row[step as usize] |= cluster.has_row_value(&facts.steps[step as usize].shape);
        }
    }
    let repeated = |step: u32| {
        let node = &facts.steps[step as usize];
        let free = matches!(node.op, Op::View(_) | Op::Full(_) | Op::Coordinate { .. });
        !node.anchor && !free && kernels[step as usize] > 1
    };
    // A value that one kernel computes once for each row, such as a mean, would be computed for every element
    // by the other kernels. In a chain of such values it is enough to store the last one: the one that is
    // read by a step which is not such a value.
    let mut read_by_others = vec![false; facts.steps.len()];
    let order = facts.order();
    for &step in &order {
        if !(repeated(step) && by_row[step as usize]) {
            for &input in &facts.steps[step as usize].inputs {
                if let Ref::Node(input) = input {
                    read_by_others[input as usize] = true;
                }
            }
        }
    }
    // The cost of a whole expression, down to the values that it loads from memory.
    let mut cost = vec![0usize; facts.steps.len()];
    let mut found = Vec::new();
    for &step in &order {
        let node = &facts.steps[step as usize];
        if node.anchor {
            continue;
        }
        let below: usize = node
            .inputs
            .iter()
            .map(|&input| match input {
                Ref::Node(node) => cost[node as usize],
                Ref::Leaf(_) => 0,
            })
            .sum();
        cost[step as usize] = (facts.cost(step) + below).min(1 << 20);
        let known_by_row = by_row[step as usize] && read_by_others[step as usize];
        let dear = cost[step as usize] * kernels[step as usize].saturating_sub(1) > RECOMPUTE;
        if repeated(step) && (dear || known_by_row) {
            found.push(step);
            cost[step as usize] = 0;
        }
    }
    found
}
