//! Plans: what to run for a graph, kept by the graph's key.
//!
//! `facts` holds the graph's operations, and `stored` decides which results are written to memory. `schedule`
//! decides which work shares a kernel (a `cluster`). `lower` writes the fused bodies; it follows views
//! (`views`) by composing index maps (`map`). `library` sets up the kernels that are not loops: products
//! (whose operands `factor` describes), scatters, scans, sorts and updates. The result is a [`Plan`]:
//! prepared kernels over numbered slots, and for each slot from when until when its memory is needed. A
//! second graph with the same key runs the same plan with its own buffers and scalars (`run`).

mod cache;
mod cluster;
mod effort;
mod factor;
mod facts;
mod library;
mod lower;
mod map;
mod neighbours;
mod outline;
mod run;
mod schedule;
mod stored;
#[cfg(test)]
mod tests;
mod views;
mod why;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use wgrad_device::kernel::{Kernel, Traffic};
use wgrad_device::{Device, Error, Layout, Prepared, Result};

pub(crate) use cache::PlanCache;
pub use outline::{KernelOutline, Operation, Outline, ReadMemory, Stored};
pub(crate) use views::affine_layout;
pub use why::Why;

use crate::debug;
use crate::graph::{Graph, Ref};
use crate::kept::kept;
use crate::op::Op;
use facts::{Facts, Slot};
use schedule::Planned;

/// The kernels and the memory for every graph with one key.
pub(crate) struct Plan {
    launches: Vec<Launch>,
    /// For each step, the size of its result in bytes.
    bytes: Vec<usize>,
    /// The nodes that have values after a run.
    finished: Vec<Finished>,
    /// The nodes that are held outside of the graph and do not get a value by a run.
    passed: Vec<u32>,
    /// Whether an index may be out of range. Then the results are valid only if the device reports no bad
    /// index.
    checks: bool,
    /// The bytes that the kernels read and write.
    traffic: Traffic,
}

/// One kernel of a plan, with its arguments.
struct Launch {
    kernel: Arc<dyn Prepared>,
    /// The memory that the kernel overwrites in part, if it does.
    overwrite: Option<Overwrite>,
    buffers: SmallVec<[Slot; 6]>,
    /// For each of the kernel's parameters, its position among the graph's scalars.
    params: SmallVec<[u32; 4]>,
    /// The steps whose memory is allocated before the launch.
    makes: SmallVec<[u32; 2]>,
    /// The steps whose memory is freed after the launch.
    drops: SmallVec<[u32; 2]>,
}

/// The memory of which a launch overwrites a part: the launch's last buffer.
struct Overwrite {
    /// The step whose result this memory holds afterwards.
    step: u32,
    /// The memory before the launch.
    base: Slot,
    /// The leaf whose memory it is, if it is a leaf's.
    leaf: Option<u32>,
    /// Copies the memory where its old content is still needed.
    copy: Arc<dyn Prepared>,
    /// Whether nothing in the plan needs the old content afterwards.
    is_free: bool,
    /// The position, among the graph's scalars, of the element at which the overwritten part begins.
    start: usize,
    /// The size of an element in bytes.
    size: usize,
}

/// A node that has a value after a run, and where that value lies.
struct Finished {
    node: u32,
    slot: Slot,
    layout: Layout,
}

/// A plan from the cache, or one just built, ready to run for a graph.
pub(crate) struct PlanRun {
    plan: Arc<Plan>,
    report: Option<debug::RunReport>,
}

impl PlanRun {
    /// Runs the plan for the graph, and gives the graph's nodes their values. False if another thread is
    /// writing over an array that the graph reads.
    pub(crate) fn run(self, graph: &Graph, device: &Device) -> Result<bool> {
        let done = self.plan.run(graph, device);
        if let Some(report) = self.report {
            report.done(device, self.plan.launches.len(), self.plan.traffic, done.as_ref().err());
        }
        done
    }
}

/// The plan for a graph: the cached one, or a new one. `None` if another thread has finished part of the
/// graph; the caller must collect the graph again.
pub(crate) fn plan(graph: &mut Graph, device: &Device, fusion: bool) -> Result<Option<PlanRun>> {
    let mut report = debug::RunReport::begin();
    graph.key.push(u64::from(fusion));
    let plans = &kept(device).plans;
    if let Some(plan) = plans.find(&graph.key) {
        device.plans().hits.fetch_add(1, Ordering::Relaxed);
        return Ok(Some(PlanRun { plan, report }));
    }
    let Some(plan) = Plan::build(graph, device, fusion)? else { return Ok(None) };
    device.plans().built.fetch_add(1, Ordering::Relaxed);
    let plan = Arc::new(plan);
    plans.add(&graph.key, &plan);
    if let Some(report) = &mut report {
        report.planned();
    }
    Ok(Some(PlanRun { plan, report }))
}

/// What [`plan`] would do for a graph, without preparing a kernel. `None` in the same case as there.
pub(crate) fn outline(graph: &mut Graph, device: &Device, fusion: bool) -> Result<Option<Outline>> {
    graph.key.push(u64::from(fusion));
    let known = kept(device).plans.has(&graph.key);
    let Some(mut facts) = Facts::new(graph, fusion, device.executor().limits()) else { return Ok(None) };
    let planned = schedule::schedule(&mut facts)?;
    Ok(Some(Outline { is_known: known, ..outline::outline(&facts, &planned, device) }))
}

impl Plan {
    fn build(graph: &Graph, device: &Device, fusion: bool) -> Result<Option<Plan>> {
        let Some(mut facts) = Facts::new(graph, fusion, device.executor().limits()) else { return Ok(None) };
        let planned = schedule::schedule(&mut facts)?;
        debug::built(|| outline::outline(&facts, &planned, device));
        let finished = finished(&facts);
        let checks = facts.steps.iter().any(|step| step.op.may_fail());
        let launches = launches(&facts, &planned, &finished, device)?;
        let bytes = facts.steps.iter().map(|s| s.shape.iter().product::<usize>() * s.dtype.size()).collect();
        let mut is_finished = vec![false; graph.nodes.len()];
        for finished in &finished {
            is_finished[finished.node as usize] = true;
        }
        let passed = (0..graph.nodes.len() as u32)
            .filter(|&node| graph.held[node as usize] && !is_finished[node as usize])
            .collect();
        let mut traffic = Traffic::default();
        for kernel in &planned {
            let more = kernel.kernel.traffic();
            traffic.read = traffic.read.saturating_add(more.read);
            traffic.written = traffic.written.saturating_add(more.written);
        }
        Ok(Some(Plan { launches, bytes, finished, passed, checks, traffic }))
    }

    /// About how many bytes of host memory the plan takes.
    fn memory(&self) -> usize {
        let mut counted = HashSet::new();
        let kernels = self.launches.iter().map(|launch| &launch.kernel);
        let kernels: usize = kernels
            .filter(|kernel| counted.insert(Arc::as_ptr(kernel).cast::<()>()))
            .map(|k| k.bytes())
            .sum();
        kernels
            + self.launches.len() * size_of::<Launch>()
            + self.bytes.len() * size_of::<usize>()
            + self.finished.len() * size_of::<Finished>()
            + self.passed.len() * size_of::<u32>()
    }
}

/// Prepares the kernels, and finds out for each launch which memory is allocated before it and freed after
/// it.
fn launches(
    facts: &Facts<'_>,
    planned: &[Planned],
    finished: &[Finished],
    device: &Device,
) -> Result<Vec<Launch>> {
    let checks = facts.steps.iter().any(|step| step.op.may_fail());
    let mut launches = Vec::with_capacity(planned.len());
    let mut last_use: Vec<usize> = vec![0; facts.steps.len()];
    let mut made = vec![false; facts.steps.len()];
    // Equal layers of a model have equal kernels, which are prepared once.
    let mut prepared: HashMap<&Kernel, Arc<dyn Prepared>> = HashMap::new();
    let mut prepare = |kernel| match prepared.entry(kernel) {
        Entry::Occupied(known) => Ok(known.get().clone()),
        Entry::Vacant(new) => device.executor().prepare(kernel).map(|kernel| new.insert(kernel).clone()),
    };
    for (at, kernel) in planned.iter().enumerate() {
        let mut makes: SmallVec<[u32; 2]> = SmallVec::new();
        for slot in &kernel.slots {
            if let Slot::Step(step) = slot {
                last_use[*step as usize] = at;
                if !std::mem::replace(&mut made[*step as usize], true) {
                    check_allocation(&facts.steps[*step as usize], device)?;
                    makes.push(*step);
                }
            }
        }
        let mut overwrite = None;
        if let Some(planned) = &kernel.overwrite {
            let step = kernel.members[0];
            let node = &facts.steps[step as usize];
            makes.retain(|made| *made != step);
            if let Slot::Step(base) = planned.base {
                last_use[base as usize] = at;
            }
            let leaf = match node.inputs[0] {
                Ref::Leaf(leaf) => Some(leaf),
                Ref::Node(_) => None,
            };
            overwrite = Some(Overwrite {
                step,
                base: planned.base,
                leaf,
                copy: prepare(&planned.copy)?,
                is_free: planned.sole && !checks,
                start: planned.start,
                size: node.dtype.size(),
            });
        }
        launches.push(Launch {
            kernel: prepare(&kernel.kernel)?,
            overwrite,
            buffers: kernel.slots.iter().copied().collect(),
            params: kernel.params.iter().copied().collect(),
            makes,
            drops: SmallVec::new(),
        });
    }
    let mut outlives = vec![false; facts.steps.len()];
    for finished in finished {
        if let Slot::Step(step) = finished.slot {
            outlives[step as usize] = true;
        }
    }
    for (step, &at) in last_use.iter().enumerate() {
        if made[step] && !outlives[step] {
            launches[at].drops.push(step as u32);
        }
    }
    Ok(launches)
}

/// Checks that a result fits into a buffer of the device. Without this check its kernel would be prepared
/// first, in very many parts, before the allocation fails.
fn check_allocation(step: &facts::Step, device: &Device) -> Result<()> {
    let elements = step.shape.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64));
    let (requested, limit) =
        (elements.saturating_mul(step.dtype.size() as u64), device.executor().limits().allocation);
    if requested <= limit {
        return Ok(());
    }
    Err(Error::OutOfMemory { requested, used: device.stats().bytes_in_use, limit })
}

/// The nodes that get a value by the plan: those that are roots, held outside of the graph, or an operand of
/// a pending node, and that lie in memory after the run.
fn finished(facts: &Facts<'_>) -> Vec<Finished> {
    let graph = facts.graph;
    let mut finished = Vec::new();
    // From the last node to the first: a wanted node that stays pending makes its inputs wanted.
    let mut wanted: Vec<bool> = graph.held.clone();
    for (wanted, &is_root) in wanted.iter_mut().zip(&graph.is_root) {
        *wanted |= is_root;
    }
    for node in (0..graph.nodes.len() as u32).rev() {
        if !wanted[node as usize] {
            continue;
        }
        let step = &facts.steps[node as usize];
        let place = if step.stored || graph.is_root[node as usize] || matches!(step.op, Op::View(_)) {
            facts.strided(Ref::Node(node)).filter(|(slot, _)| match slot {
                Slot::Step(base) => facts.steps[*base as usize].stored,
                Slot::Leaf(_) => true,
            })
        } else {
            None
        };
        match place {
            Some((slot, layout)) => finished.push(Finished { node, slot, layout }),
            None => {
                for input in graph.inputs(node) {
                    if let Ref::Node(input) = input {
                        wanted[*input as usize] = true;
                    }
                }
            }
        }
    }
    finished
}
