//! Plans: what to run for a graph, kept by the graph's key.
//!
//! `facts` holds the graph's operations, `stored` decides which results are in memory, `schedule` which work shares a kernel (a
//! `cluster`), `lower` writes fused bodies through the index maps of `map` and past the `views`, `library` sets up products (of a `factor`
//! each), scatters, scans, sorts and updates. The result is a [`Plan`]: prepared kernels over numbered slots, and when each slot's
//! memory is needed. A second graph with the same key runs the plan with its own buffers and numbers (`run`).

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

pub(crate) use cache::Plans;
pub use outline::{KernelOutline, Operation, Outline, ReadMemory, Stored};
pub(crate) use views::affine_layout;
pub use why::Why;

use crate::debug;
use crate::graph::{Graph, Ref};
use crate::kept::kept;
use crate::op::Op;
use facts::{Facts, Slot};

/// Kernels and memory for every graph of one key.
pub(crate) struct Plan {
    launches: Vec<Launch>,
    /// Bytes of the results' memory, by step.
    bytes: Vec<usize>,
    /// The nodes that have values afterwards.
    finished: Vec<Finished>,
    /// The nodes that were passed over and may be wanted later.
    passed: Vec<u32>,
    /// An index may be out of range: results count only when the device says that none was.
    checks: bool,
    /// The memory that the kernels move.
    traffic: Traffic,
}

struct Launch {
    kernel: Arc<dyn Prepared>,
    /// What it writes a part of.
    over: Option<Over>,
    buffers: SmallVec<[Slot; 6]>,
    params: SmallVec<[u32; 4]>,
    /// Steps whose memory must be made first.
    makes: SmallVec<[u32; 2]>,
    /// Steps whose memory nobody needs afterwards.
    drops: SmallVec<[u32; 2]>,
}

/// The memory that a launch writes a part of, as its last buffer.
struct Over {
    /// The step that the memory belongs to then.
    step: u32,
    /// What is written over.
    base: Slot,
    /// The leaf that it belongs to.
    leaf: Option<u32>,
    /// Copies it, where it must stay as it is.
    copy: Arc<dyn Prepared>,
    /// Nobody reads it afterwards.
    is_free: bool,
    /// Which of the graph's numbers says at which element the part begins.
    start: usize,
    /// The bytes of an element.
    size: usize,
}

struct Finished {
    node: u32,
    slot: Slot,
    layout: Layout,
}

/// A plan for a graph: known before, or made for it.
pub(crate) struct Found {
    plan: Arc<Plan>,
    report: Option<debug::Run>,
}

impl Found {
    /// Runs the plan for the graph, and gives the graph's nodes their values.
    /// False if another thread is writing over an array that the graph reads.
    pub(crate) fn run(self, graph: &Graph, device: &Device) -> Result<bool> {
        let done = self.plan.run(graph, device);
        if let Some(report) = self.report {
            report.done(device, self.plan.launches.len(), self.plan.traffic, done.as_ref().err());
        }
        done
    }
}

/// The plan for a graph, made if there is none. `None`: another thread has finished part of the graph; collect it again.
pub(crate) fn plan(graph: &mut Graph, device: &Device, fusion: bool) -> Result<Option<Found>> {
    let mut report = debug::Run::begin();
    graph.key.push(u64::from(fusion));
    let plans = &kept(device).plans;
    if let Some(plan) = plans.find(&graph.key) {
        device.plans().hits.fetch_add(1, Ordering::Relaxed);
        return Ok(Some(Found { plan, report }));
    }
    let Some(plan) = Plan::build(graph, device, fusion)? else { return Ok(None) };
    device.plans().built.fetch_add(1, Ordering::Relaxed);
    let plan = Arc::new(plan);
    plans.add(&graph.key, &plan);
    if let Some(report) = &mut report {
        report.planned();
    }
    Ok(Some(Found { plan, report }))
}

/// What [`plan`] would do for a graph, without making anything ready to run. `None` as there.
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
        let mut launches = Vec::with_capacity(planned.len());
        let mut last_use: Vec<usize> = vec![0; facts.steps.len()];
        let mut made = vec![false; facts.steps.len()];
        let mut alike: HashMap<&Kernel, Arc<dyn Prepared>> = HashMap::new();
        for (at, kernel) in planned.iter().enumerate() {
            let mut makes: SmallVec<[u32; 2]> = SmallVec::new();
            for slot in &kernel.slots {
                if let Slot::Step(step) = slot {
                    last_use[*step as usize] = at;
                    if !std::mem::replace(&mut made[*step as usize], true) {
                        check_room(&facts.steps[*step as usize], device)?;
                        makes.push(*step);
                    }
                }
            }
            // Many layers of one kind are one kernel.
            let mut prepare = |kernel| match alike.entry(kernel) {
                Entry::Occupied(known) => Ok(known.get().clone()),
                Entry::Vacant(new) => {
                    device.executor().prepare(kernel).map(|kernel| new.insert(kernel).clone())
                }
            };
            let over = match &kernel.over {
                Some(over) => {
                    let step = kernel.members[0];
                    let node = &facts.steps[step as usize];
                    makes.retain(|made| *made != step);
                    if let Slot::Step(base) = over.base {
                        last_use[base as usize] = at;
                    }
                    let leaf = match node.inputs[0] {
                        Ref::Leaf(leaf) => Some(leaf),
                        Ref::Node(_) => None,
                    };
                    Some(Over {
                        step,
                        base: over.base,
                        leaf,
                        copy: prepare(&over.copy)?,
                        is_free: over.sole && !checks,
                        start: over.start,
                        size: node.dtype.size(),
                    })
                }
                None => None,
            };
            launches.push(Launch {
                kernel: prepare(&kernel.kernel)?,
                over,
                buffers: kernel.slots.iter().copied().collect(),
                params: kernel.params.iter().copied().collect(),
                makes,
                drops: SmallVec::new(),
            });
        }
        let (mut escapes, mut is_finished) = (vec![false; facts.steps.len()], vec![false; graph.nodes.len()]);
        for finished in &finished {
            is_finished[finished.node as usize] = true;
            if let Slot::Step(step) = finished.slot {
                escapes[step as usize] = true;
            }
        }
        for (step, &at) in last_use.iter().enumerate() {
            if made[step] && !escapes[step] {
                launches[at].drops.push(step as u32);
            }
        }
        let bytes = facts.steps.iter().map(|s| s.shape.iter().product::<usize>() * s.dtype.size()).collect();
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

    /// About how many bytes of this machine's memory it takes.
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

/// That a result fits into a buffer of the device: else preparing its kernel, in very many parts, would come before that error.
fn check_room(step: &facts::Step, device: &Device) -> Result<()> {
    let elements = step.shape.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64));
    let (requested, limit) =
        (elements.saturating_mul(step.dtype.size() as u64), device.executor().limits().allocation);
    if requested <= limit {
        return Ok(());
    }
    Err(Error::OutOfMemory { requested, used: device.stats().bytes_in_use, limit })
}

/// The nodes whose values somebody may still want and that are in memory after the plan has run.
fn finished(facts: &Facts<'_>) -> Vec<Finished> {
    let graph = facts.graph;
    let mut finished = Vec::new();
    // Backwards: a value that a pending user still needs must be kept for it.
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
