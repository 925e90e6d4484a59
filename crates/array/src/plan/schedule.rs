//! Which work shares a kernel.
//!
//! Every *anchor* (a result that is stored, or a reduction; see [`Step::anchor`](super::facts::Step)) is
//! computed by one kernel; all other results are recomputed inside the kernels that use them. Anchors are
//! taken in topological order. Each is first written into a kernel of its own. Then the kernels that compute
//! its operands, and those that read the same memory, are tried in turn: if the anchor can be written into
//! one of them, it is fused into that kernel, and the values that it needs from there stay in registers. That
//! way the maximum, the sum and the quotient of a softmax share one loop over the rows, and a loss and the
//! gradient of its input share one pass over the data.
//!
//! An anchor may be fused into a kernel if none of its operands comes from a kernel that depends on that
//! kernel; otherwise the kernels would depend on each other in a cycle.

use smallvec::SmallVec;
use wgrad_device::kernel::{Kernel, ReduceOp};
use wgrad_device::{Error, Result};

use super::cluster::{Cluster, ClusterKind};
use super::facts::{Facts, Slot};
use super::lower::{BodyWriter, LowerError};
use super::neighbours::Neighbours;
use super::stored::{repeated_work, store_where_strides_end};
use super::why::Why;
use crate::op::Op;

/// A kernel and its arguments.
pub(crate) struct Planned {
    pub(crate) kernel: Kernel,
    /// For each of the kernel's buffers, its memory.
    pub(crate) slots: Vec<Slot>,
    /// For each of the kernel's parameters, its position among the graph's scalars.
    pub(crate) params: Vec<u32>,
    /// For an update: the memory of which it overwrites a part.
    pub(crate) overwrite: Option<PlannedOverwrite>,
    /// The anchors that it computes.
    pub(crate) members: Vec<u32>,
    /// All steps that it computes, recomputed ones included.
    pub(crate) steps: Vec<u32>,
}

/// The memory of which an update overwrites a part. The update writes into this memory itself if nothing else
/// reads it (the result then aliases it), else into a copy.
pub(crate) struct PlannedOverwrite {
    /// The memory.
    pub(crate) base: Slot,
    /// The kernel that copies the memory.
    pub(crate) copy: Kernel,
    /// Whether the update is the only step in the graph that reads the memory, and nobody outside holds it.
    pub(crate) sole: bool,
    /// The position, among the graph's scalars, of the element at which the overwritten part begins.
    pub(crate) start: usize,
}

/// The kernels for a graph, in the order in which they run.
pub(crate) fn schedule(facts: &mut Facts<'_>) -> Result<Vec<Planned>> {
    let mut traded = false;
    loop {
        let clusters = match group(facts) {
            Ok(clusters) => clusters,
            Err(LowerError::Store(_)) => {
                store_where_strides_end(facts)?;
                facts.cut_what_no_kernel_holds();
                continue;
            }
            Err(stop) => return Err(no_kernel(&stop)),
        };
        // A value that several kernels would recompute at a high cost is stored, and the work is divided
        // again, once.
        let repeated = if traded || !facts.fusion { Vec::new() } else { repeated_work(facts, &clusters) };
        traded = true;
        if repeated.is_empty() {
            return finish(facts, clusters);
        }
        for step in repeated {
            facts.store(step, Why::Repeated);
        }
        facts.cut_what_no_kernel_holds();
    }
}

pub(super) fn no_kernel(stop: &LowerError) -> Error {
    let reason = format!("no kernel found for a pending operation ({stop:?}); please report this");
    Error::Unsupported { op: "eval", reason }
}

/// Whether a kernel must compute a step: it is an anchor, and not empty.
pub(super) fn is_computed(facts: &Facts<'_>, step: u32) -> bool {
    let node = &facts.steps[step as usize];
    node.anchor && !node.shape.contains(&0)
}

/// Puts every anchor into a cluster.
fn group(facts: &mut Facts<'_>) -> Result<Vec<Cluster>, LowerError> {
    facts.effort.count_grouped();
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut neighbours = Neighbours::default();
    let mut home = vec![usize::MAX; facts.steps.len()];
    let mut stack = Vec::new();
    for step in facts.order() {
        stack.push(step);
        while let Some(step) = stack.pop() {
            if !is_computed(facts, step) {
                continue;
            }
            let mut alone = Cluster::alone(facts, step)?;
            alone.needs = needs(&alone.body, step, &home);
            if facts.fusion
                && let Some(dims) = rows_at_hand(facts, step, &alone, &clusters)
                && let Some(inner) = facts.fold_first(step, &dims)
            {
                // Steps that read this one come later in the order, so no cluster has to be changed.
                home.push(usize::MAX);
                stack.extend([step, inner]);
                continue;
            }
            let joins = facts.fusion && alone.kind == ClusterKind::Loop;
            let joined = if joins { join(facts, step, &alone, &mut clusters, &mut neighbours) } else { None };
            match joined {
                Some(into) => {
                    let cluster = &mut clusters[into];
                    cluster.needs.extend(alone.needs.iter().filter(|&&c| c != into));
                    cluster.needs.sort_unstable();
                    cluster.needs.dedup();
                    home[step as usize] = into;
                    neighbours.changed(&clusters, into);
                }
                None => {
                    home[step as usize] = clusters.len();
                    clusters.push(alone);
                    neighbours.changed(&clusters, clusters.len() - 1);
                }
            }
        }
    }
    Ok(clusters)
}

/// For a reduction of several dims: those dims that a cluster from which it reads reduces too. If the
/// reduction first reduces these, it can be fused into that cluster's loop over rows, and only a small
/// reduction over the rows remains.
fn rows_at_hand(
    facts: &Facts<'_>,
    step: u32,
    alone: &Cluster,
    clusters: &[Cluster],
) -> Option<SmallVec<[usize; 4]>> {
    let node = &facts.steps[step as usize];
    let Op::Reduce { op, dims } = &node.op else { return None };
    // An argmax's position counts over all reduced dims at once; a half would be rounded twice.
    if matches!(op, ReduceOp::ArgMax | ReduceOp::ArgMin) || node.dtype.is_half() {
        return None;
    }
    alone.needs.iter().find_map(|&need| {
        let shape = facts.shape(node.inputs[0]);
        let (mut rows, mut all) = (clusters[need].folded_dims(), dims.clone());
        rows.retain(|d| shape.get(*d).is_some_and(|&size| size > 1));
        all.retain(|d| shape[*d] > 1);
        let inside = clusters[need].body.space.shape[..] == *shape
            && rows.len() < all.len()
            && !rows.is_empty()
            && rows.iter().all(|d| all.contains(d));
        inside.then_some(rows)
    })
}

/// The clusters whose results a body reads.
fn needs(body: &BodyWriter, own: u32, home: &[usize]) -> Vec<usize> {
    let mut needs: Vec<usize> = body
        .slots
        .iter()
        .filter_map(|slot| match slot {
            Slot::Step(step) if *step != own => Some(home[*step as usize]),
            _ => None,
        })
        .filter(|&cluster| cluster != usize::MAX)
        .collect();
    needs.sort_unstable();
    needs.dedup();
    needs
}

/// Fuses the step into the first cluster that can take it. The result is that cluster.
fn join(
    facts: &Facts<'_>,
    step: u32,
    alone: &Cluster,
    clusters: &mut [Cluster],
    neighbours: &mut Neighbours,
) -> Option<usize> {
    let operands = alone.needs.iter().rev().copied();
    let sharing = neighbours.sharing(&alone.body.slots);
    let mut tried: SmallVec<[usize; 12]> = SmallVec::new();
    for candidate in operands.chain(sharing) {
        if tried.contains(&candidate) || !clusters[candidate].could_take(facts, step) {
            continue;
        }
        tried.push(candidate);
        let mut others = alone.needs.iter().filter(|&&need| need != candidate);
        if others.any(|&need| neighbours.depends_on(facts, clusters, need, candidate)) {
            continue;
        }
        if clusters[candidate].take(facts, step) {
            return Some(candidate);
        }
    }
    None
}

/// Orders the clusters and turns them into kernels.
fn finish(facts: &mut Facts<'_>, mut clusters: Vec<Cluster>) -> Result<Vec<Planned>> {
    // A result that another kernel reads must be in memory.
    for cluster in &clusters {
        for slot in &cluster.body.slots {
            if let Slot::Step(step) = slot {
                let step = &mut facts.steps[*step as usize];
                step.stored = true;
                step.why.get_or_insert(Why::Shared);
            }
        }
    }
    for cluster in &mut clusters {
        for step in cluster.body.members.clone() {
            let node = &facts.steps[step as usize];
            let map = match &node.op {
                Op::Reduce { .. } if node.stored => cluster.map_to(&node.shape, true),
                Op::Matmul if node.stored => cluster.map_to(&node.shape, false),
                _ => continue,
            };
            if let Ok(map) = map
                && let Some(reg) = cluster.body.lookup(step, &map)
            {
                cluster.body.store(facts, step, &map, reg);
            }
        }
    }
    let mut planned = Vec::with_capacity(clusters.len());
    for at in run_order(&clusters) {
        planned.push(clusters[at].plan(facts)?);
    }
    Ok(planned)
}

/// The clusters in topological order.
fn run_order(clusters: &[Cluster]) -> Vec<usize> {
    let mut order = Vec::with_capacity(clusters.len());
    let mut placed = vec![false; clusters.len()];
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for start in 0..clusters.len() {
        if placed[start] {
            continue;
        }
        stack.push((start, 0));
        placed[start] = true;
        while let Some((at, next)) = stack.last_mut() {
            match clusters[*at].needs.get(*next) {
                Some(&need) => {
                    *next += 1;
                    if !std::mem::replace(&mut placed[need], true) {
                        stack.push((need, 0));
                    }
                }
                None => {
                    order.push(*at);
                    stack.pop();
                }
            }
        }
    }
    order
}
