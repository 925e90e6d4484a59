//! One backward: which nodes, in which order, with which gradients.
//!
//! First the nodes that the roots reach are numbered densely and the edges between them are counted; from then on all
//! bookkeeping is by number. A node runs when all gradients for it have arrived, newest first, so that gradients
//! live as short as possible. Nothing recurses: depth of the graph is no matter.

use std::cell::Cell;
use std::collections::BinaryHeap;
use std::mem;
use std::panic::Location;

use smallvec::SmallVec;
use wgrad_array::{Error, GradRule, Result, site};

use super::accumulate::accumulate;
use super::{current, step};
use crate::hooks::{NodeHooks, check_given, run_tensor_hooks};
use crate::tape::{Context, Edge, Function, Grads, Meta, Mismatch, NodeKey, SavedValue, lock, mismatch};
use crate::{GradModeGuard, Tensor, anomaly};

/// What is asked for.
pub(super) struct Request {
    /// The call, for errors.
    pub(super) op: &'static str,
    /// Where to start, with which gradients.
    pub(super) roots: Vec<(Edge, Tensor)>,
    /// Whether saved values stay.
    pub(super) retain_graph: bool,
    /// Whether the backward is recorded.
    pub(super) create_graph: bool,
    /// Only these gradients; none: those of all leaves, accumulated.
    pub(super) wanted: Option<Wanted>,
}

/// The gradients asked for.
pub(super) struct Wanted {
    pub(super) edges: Vec<Edge>,
    /// Whether leaves among them accumulate (and are not given back).
    pub(super) accumulate: bool,
}

/// A node of this run.
struct Item {
    key: NodeKey,
    sequence: u64,
    /// Gradients that are still to arrive.
    waiting: u32,
    /// Its place in [`Run::targets`].
    targets: (u32, u32),
    /// The gradients of its outputs so far.
    grads: SmallVec<[Option<Tensor>; 1]>,
    /// Whether its derivative is needed.
    runs: bool,
    /// Whether a gradient of its outputs is asked for.
    captured: bool,
}

impl Item {
    fn needed(&self) -> bool {
        self.runs || self.captured
    }
}

/// Where one gradient of an item goes.
#[derive(Clone, Copy)]
struct Target {
    item: u32,
    output: u32,
}

const NOWHERE: u32 = u32::MAX;

/// The dense numbers of nodes, by slot. Kept between runs so that a run costs by the nodes it visits, not by the size
/// of the tape: an entry counts only if it carries this run's mark.
#[derive(Default)]
struct Numbering {
    run: u32,
    numbers: Vec<(u32, u32)>,
}

thread_local! {
    static NUMBERING: Cell<Option<Box<Numbering>>> = const { Cell::new(None) };
}

impl Numbering {
    /// This thread's table; a nested backward finds none and makes its own.
    fn take() -> Box<Numbering> {
        let mut numbering = NUMBERING.take().unwrap_or_default();
        numbering.run = numbering.run.wrapping_add(1);
        if numbering.run == 0 {
            numbering.numbers.clear();
            numbering.run = 1;
        }
        numbering
    }

    fn get(&self, key: NodeKey) -> Option<u32> {
        let &(run, number) = self.numbers.get(key.index())?;
        (run == self.run).then_some(number)
    }

    fn set(&mut self, key: NodeKey, number: u32) {
        if key.index() >= self.numbers.len() {
            self.numbers.resize((key.index() + 1).next_power_of_two(), (0, 0));
        }
        self.numbers[key.index()] = (self.run, number);
    }
}

struct Run {
    op: &'static str,
    retain_graph: bool,
    create_graph: bool,
    items: Vec<Item>,
    targets: Vec<Target>,
    /// Items whose gradients are complete, the newest on top.
    ready: BinaryHeap<(u64, u32)>,
    /// (item, output, position among the wanted), by item.
    captures: Vec<(u32, u32, u32)>,
    captured: Vec<Option<Tensor>>,
}

/// Runs a backward; gives the wanted gradients.
pub(super) fn run(request: Request) -> Result<Vec<Option<Tensor>>> {
    let _step = step::begin_backward();
    let _mode = GradModeGuard::new(request.create_graph);
    let mut run = Run {
        op: request.op,
        retain_graph: request.retain_graph,
        create_graph: request.create_graph,
        items: Vec::new(),
        targets: Vec::new(),
        ready: BinaryHeap::new(),
        captures: Vec::new(),
        captured: Vec::new(),
    };
    let mut numbering = Numbering::take();
    let starts: Vec<u32> =
        request.roots.iter().map(|(edge, _)| run.number(edge.node.key(), &mut numbering)).collect();
    run.discover(&mut numbering);
    if let Some(wanted) = &request.wanted {
        run.choose(wanted, &numbering);
    }
    NUMBERING.set(Some(numbering));
    let _noted = current::note(run.items.iter().filter(|item| item.needed()).map(|item| item.key));
    run.count_gradients();
    // The edges of the roots keep the whole graph alive until the run is over.
    let mut roots = Vec::with_capacity(request.roots.len());
    for ((edge, grad), &start) in request.roots.into_iter().zip(&starts) {
        run.receive(start, edge.output, grad)?;
        roots.push(edge);
    }
    for &start in &starts {
        let item = &run.items[start as usize];
        if item.waiting == 0 && item.needed() && !run.ready.iter().any(|&(_, ready)| ready == start) {
            run.ready.push((item.sequence, start));
        }
    }
    while let Some((_, number)) = run.ready.pop() {
        run.visit(number)?;
    }
    Ok(run.captured)
}

/// What a visit takes from its node.
struct Work {
    name: &'static str,
    called_at: Option<&'static Location<'static>>,
    function: Function,
    outputs: usize,
    hooks: Option<Box<NodeHooks>>,
}

impl Run {
    fn number(&mut self, key: NodeKey, numbering: &mut Numbering) -> u32 {
        numbering.get(key).unwrap_or_else(|| {
            let number = self.items.len() as u32;
            numbering.set(key, number);
            self.items.push(Item {
                key,
                sequence: 0,
                waiting: 0,
                targets: (0, 0),
                grads: SmallVec::new(),
                runs: true,
                captured: false,
            });
            number
        })
    }

    /// Numbers everything that the roots reach.
    fn discover(&mut self, numbering: &mut Numbering) {
        let mut next = 0;
        while next < self.items.len() {
            let start = self.targets.len() as u32;
            let mut found: SmallVec<[Option<(NodeKey, u32)>; 4]> = SmallVec::new();
            let sequence = self.items[next].key.with(|node| {
                found.extend(node.edges.iter().map(|e| e.as_ref().map(|e| (e.node.key(), e.output))));
                node.sequence
            });
            for edge in found {
                let target = match edge {
                    Some((key, output)) => Target { item: self.number(key, numbering), output },
                    None => Target { item: NOWHERE, output: 0 },
                };
                self.targets.push(target);
            }
            let item = &mut self.items[next];
            item.sequence = sequence.unwrap_or(0);
            item.targets = (start, self.targets.len() as u32);
            next += 1;
        }
    }

    /// Restricts the run to what leads to the wanted gradients.
    fn choose(&mut self, wanted: &Wanted, numbering: &Numbering) {
        self.captured = vec![None; wanted.edges.len()];
        let mut accumulating = vec![];
        for (position, edge) in wanted.edges.iter().enumerate() {
            let Some(number) = numbering.get(edge.node.key()) else { continue };
            let is_leaf = edge.node.with(|node| matches!(node.function, Function::Accumulate(_)));
            if wanted.accumulate && is_leaf {
                accumulating.push(number);
            } else {
                self.captures.push((number, edge.output, position as u32));
                self.items[number as usize].captured = true;
            }
        }
        self.captures.sort_unstable();
        // Inputs come before the nodes that use them: a node without targets, or an older one.
        let mut order: Vec<u32> = (0..self.items.len() as u32).collect();
        let age = |&number: &u32| {
            let item: &Item = &self.items[number as usize];
            (item.targets.0 != item.targets.1, item.sequence)
        };
        order.sort_unstable_by_key(age);
        for number in order {
            let (start, end) = self.items[number as usize].targets;
            let leads = self.targets[start as usize..end as usize]
                .iter()
                .any(|target| target.item != NOWHERE && self.items[target.item as usize].needed());
            self.items[number as usize].runs = leads || accumulating.contains(&number);
        }
    }

    /// Counts the gradients that each node will get.
    fn count_gradients(&mut self) {
        for number in 0..self.items.len() {
            if !self.items[number].runs {
                continue;
            }
            let (start, end) = self.items[number].targets;
            for target in &self.targets[start as usize..end as usize] {
                if target.item != NOWHERE {
                    self.items[target.item as usize].waiting += 1;
                }
            }
        }
    }

    /// Adds a gradient to what a node has got.
    fn receive(&mut self, number: u32, output: u32, grad: Tensor) -> Result<()> {
        let grads = &mut self.items[number as usize].grads;
        let output = output as usize;
        if grads.len() <= output {
            grads.resize(output + 1, None);
        }
        grads[output] = Some(match grads[output].take() {
            Some(sum) => sum.add(&grad)?,
            None => grad,
        });
        Ok(())
    }

    /// Runs a node whose gradients are complete, and hands its own on.
    fn visit(&mut self, number: u32) -> Result<()> {
        let item = &mut self.items[number as usize];
        let (key, runs, captured, targets) = (item.key, item.runs, item.captured, item.targets);
        let mut grads = mem::take(&mut item.grads);
        let mut results = Grads::new();
        if grads.iter().any(Option::is_some) {
            let Some(mut work) = key.with(work_of) else { return Ok(()) };
            grads.resize(work.outputs, None);
            self.tensor_hooks(&mut work, &mut grads)?;
            if captured {
                self.capture(number, &grads)?;
            }
            if runs {
                results = self.call(key, work, grads, targets)?;
            }
        }
        if !runs {
            return Ok(());
        }
        let mut results = results.into_iter();
        for position in targets.0..targets.1 {
            let result = results.next().flatten();
            let target = self.targets[position as usize];
            if target.item == NOWHERE || !self.items[target.item as usize].needed() {
                continue;
            }
            if let Some(grad) = result {
                let grad = self.fitted(grad, target)?;
                self.receive(target.item, target.output, grad)?;
            }
            let item = &mut self.items[target.item as usize];
            item.waiting -= 1;
            if item.waiting == 0 {
                self.ready.push((item.sequence, target.item));
            }
        }
        Ok(())
    }

    /// Hooks on the gradients of a node's outputs, then those who keep them.
    fn tensor_hooks(&self, work: &mut Work, grads: &mut [Option<Tensor>]) -> Result<()> {
        let _own_lines = site::replace(None);
        if let Function::Accumulate(leaf) = &work.function {
            let hooks = lock(&leaf.0.state).extra.as_ref().map(|extra| extra.hooks.clone());
            if let (Some(hooks), Some(grad)) = (hooks, grads[0].take()) {
                grads[0] = Some(run_tensor_hooks(&hooks, grad)?);
            }
        }
        let Some(hooks) = &work.hooks else { return Ok(()) };
        for (output, hooks) in &hooks.tensor {
            let grad = &mut grads[*output as usize];
            if let Some(old) = grad.take() {
                *grad = Some(run_tensor_hooks(hooks, old)?);
            }
        }
        for (output, keeper) in &hooks.retain {
            if let (Some(grad), Some(keeper)) = (&grads[*output as usize], keeper.upgrade()) {
                accumulate(&Tensor(keeper), grad, self.create_graph)?;
            }
        }
        Ok(())
    }

    fn capture(&mut self, number: u32, grads: &[Option<Tensor>]) -> Result<()> {
        let first = self.captures.partition_point(|&(item, ..)| item < number);
        for &(item, output, position) in &self.captures[first..] {
            if item != number {
                break;
            }
            // A handle of its own: the caller's gradient must not be the tensor that was handed in.
            let own = |grad: &Tensor| Ok(Tensor::from_edge(grad.array()?, grad.gradient_edge()));
            self.captured[position as usize] = grads[output as usize].as_ref().map(own).transpose()?;
        }
        Ok(())
    }

    fn call(
        &mut self,
        key: NodeKey,
        mut work: Work,
        mut grads: SmallVec<[Option<Tensor>; 1]>,
        targets: (u32, u32),
    ) -> Result<Grads> {
        let _own_lines = site::replace(None);
        let hooks = work.hooks.take();
        if let Some(hooks) = &hooks {
            for hook in hooks.pre.iter() {
                if let Some(new) = hook(&grads)? {
                    let outputs = key.with(|node| node.outputs.iter().cloned().map(Some).collect::<Vec<_>>());
                    check_given(work.name, "pre-hook", &new, &outputs.unwrap_or_default())?;
                    grads = new.into_iter().collect();
                }
            }
        }
        let mut results = if let Function::Accumulate(leaf) = &work.function {
            if let Some(Some(grad)) = grads.first().filter(|_| leaf.still_requires_grad()) {
                accumulate(leaf, grad, self.create_graph)?;
                let hooks = lock(&leaf.0.state).extra.as_ref().map(|extra| extra.post_accumulate.clone());
                for hook in hooks.iter().flat_map(|hooks| hooks.iter()) {
                    hook(leaf)?;
                }
            }
            Grads::new()
        } else {
            // Not before all hooks have run: one that fails leaves the node as it was, for another backward.
            let retain = self.retain_graph;
            let (saved, freed) = key.with(|node| take_saved(node, retain)).unwrap_or_default();
            if freed {
                return Err(Error::Autograd {
                    op: self.op,
                    rule: GradRule::GraphFreed,
                    reason: format!(
                        "the values saved for {} were freed by an earlier backward; give that one retain_graph(true), \
                         or compute the output anew",
                        work.name
                    ),
                });
            }
            let needs: SmallVec<[bool; 4]> = self.targets[targets.0 as usize..targets.1 as usize]
                .iter()
                .map(|target| target.item != NOWHERE && self.items[target.item as usize].needed())
                .collect();
            let context = Context { key: &key, name: work.name, grads: &grads, saved: &saved, needs: &needs };
            // What a derivative computes is ascribed to the line of its operation.
            let _line = site::replace(work.called_at.map(|line| site::CallSite { name: work.name, line }));
            let results = work.function.call(&context)?;
            anomaly::check(work.name, work.called_at, results.iter())?;
            results
        };
        let post: Vec<_> = hooks.iter().flat_map(|hooks| hooks.post.iter()).collect();
        if post.is_empty() {
            return Ok(results);
        }
        // Hooks see gradients as the inputs get them.
        let targets: Vec<Target> = self.targets[targets.0 as usize..targets.1 as usize].to_vec();
        for (result, &target) in results.iter_mut().zip(&targets) {
            if target.item != NOWHERE
                && let Some(grad) = result.take()
            {
                *result = Some(self.fitted(grad, target)?);
            }
        }
        let inputs: Vec<Option<Meta>> = targets.iter().map(|&target| self.meta_of(target)).collect();
        for hook in post {
            if let Some(new) = hook(&results, &grads)? {
                check_given(work.name, "hook", &new, &inputs)?;
                results = new.into_iter().collect();
            }
        }
        Ok(results)
    }

    /// What a gradient belongs to, if it is for a node.
    fn meta_of(&self, target: Target) -> Option<Meta> {
        let key = self.items.get(target.item as usize)?.key;
        key.with(|node| node.outputs.get(target.output as usize).cloned())?
    }

    /// A gradient summed down and cast to what it is for.
    fn fitted(&self, grad: Tensor, target: Target) -> Result<Tensor> {
        let key = self.items[target.item as usize].key;
        let compared = key.with(|node| {
            let meta = node.outputs.get(target.output as usize)?;
            let mismatch = mismatch(node.name, &grad, meta)?;
            Some((mismatch, meta.clone()))
        });
        match compared.flatten() {
            None => Ok(grad),
            Some((Mismatch::Error(error), _)) => Err(error),
            Some((Mismatch::Adapt, meta)) => grad.sum_to(&meta.shape)?.to_dtype(meta.dtype),
        }
    }
}

fn work_of(node: &mut crate::tape::Node) -> Work {
    Work {
        name: node.name,
        called_at: node.called_at,
        function: node.function.clone(),
        outputs: node.outputs.len(),
        hooks: node.hooks.clone(),
    }
}

/// A node's saved values, and whether an earlier backward has freed them. They stay with it only if that is asked for.
fn take_saved(node: &mut crate::tape::Node, retain: bool) -> (SmallVec<[SavedValue; 2]>, bool) {
    let freed = node.freed;
    if retain {
        return (node.saved.clone(), freed);
    }
    node.freed |= !node.saved.is_empty();
    (mem::take(&mut node.saved), freed)
}
