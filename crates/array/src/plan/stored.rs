//! Which results are written to memory; all others are recomputed in the kernels that use them.
//!
//! Decided in three passes: what must be in memory whatever the kernels look like ([`Facts::choose_stored`]), what a kernel of its own
//! could not reach through strides ([`store_where_strides_end`]), and what several kernels would repeat at a higher cost than
//! memory's ([`repeated_work`]).

use smallvec::SmallVec;
use wgrad_device::{Limits, Result};

use super::cluster::Cluster;
use super::factor::Factor;
use super::facts::{Facts, Slot};
use super::lower::Stop;
use super::schedule::{is_computed, no_kernel};
use super::why::Why;
use crate::graph::Ref;
use crate::op::{Op, View};

/// Recomputing that costs more than this, in simple operations on an element, is replaced by storing.
const RECOMPUTE: usize = 24;

impl Facts<'_> {
    /// The results that must be in memory whatever the kernels look like.
    pub(super) fn choose_stored(&mut self) {
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

/// Has everything stored that a kernel of its own could not reach through strides, for all anchors in one pass: joining others
/// never asks for more.
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
                // What is stored has a kernel itself.
                Err(Stop::Store(Ref::Node(operand))) if !facts.steps[operand as usize].stored => {
                    facts.store(operand, Why::Strides);
                    if is_computed(facts, operand) {
                        stack.push(operand);
                    }
                }
                Err(Stop::Store(Ref::Leaf(leaf))) => facts.copy_leaf(leaf),
                Err(stop) => return Err(no_kernel(&stop)),
            }
        }
    }
    Ok(())
}

/// The expressions that are written into several kernels although storing them once is cheaper.
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
    // What one kernel computes once a row, such as a mean, the others would compute for each element. What is computed from it
    // alone follows from the last of it.
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
    // The cost of a whole expression, down to what is in memory.
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
