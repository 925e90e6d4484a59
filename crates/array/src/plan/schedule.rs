//! Which work shares a kernel.
//!
//! Every *anchor* (a result that is stored, or a reduction) is computed by one kernel; all other results are recomputed
//! inside the kernels that use them. Anchors are taken in topological order. Each is first written into a kernel of its
//! own; then the kernels that made its operands, and those that read the same memory, are tried: if the anchor can be
//! written into one of them, it joins, and what it needs from there stays in registers. A softmax's maximum, sum and
//! quotient meet in one loop over the rows that way, a loss and the gradient of its input in one pass over the data.
//!
//! A kernel may be joined as long as no operand comes from a kernel that waits for it.

use smallvec::SmallVec;
use wgrad_device::kernel::{Kernel, ReduceOp};
use wgrad_device::{Error, Result};

use super::cluster::{Cluster, Kind};
use super::facts::{Facts, Slot};
use super::lower::{Body, Stop};
use super::neighbours::Neighbours;
use super::stored::{repeated_work, store_where_strides_end};
use super::why::Why;
use crate::op::Op;

/// A kernel, and which memory its buffers are.
pub(crate) struct Planned {
    pub(crate) kernel: Kernel,
    pub(crate) slots: Vec<Slot>,
    pub(crate) params: Vec<u32>,
    /// What it writes over, if its result is that with some elements replaced.
    pub(crate) over: Option<Over>,
    /// The anchors that it computes.
    pub(crate) members: Vec<u32>,
    /// Everything that it computes.
    pub(crate) steps: Vec<u32>,
}

/// The memory that a step's kernel writes a part of. The result has it as its own if nobody else reads it, else a copy.
pub(crate) struct Over {
    /// The memory.
    pub(crate) base: Slot,
    /// Makes the copy.
    pub(crate) copy: Kernel,
    /// Nobody else in the graph reads the memory.
    pub(crate) sole: bool,
    /// Which of the graph's numbers says at which element the part begins.
    pub(crate) start: usize,
}

/// The kernels for a graph, in the order in which they run.
pub(crate) fn schedule(facts: &mut Facts<'_>) -> Result<Vec<Planned>> {
    let mut traded = false;
    loop {
        let clusters = match group(facts) {
            Ok(clusters) => clusters,
            Err(Stop::Store(_)) => {
                store_where_strides_end(facts)?;
                continue;
            }
            Err(stop) => return Err(no_kernel(&stop)),
        };
        // Work that several kernels would repeat is stored once if it costs more than memory does.
        let repeated = if traded || !facts.fusion { Vec::new() } else { repeated_work(facts, &clusters) };
        traded = true;
        if repeated.is_empty() {
            return finish(facts, clusters);
        }
        for step in repeated {
            facts.store(step, Why::Repeated);
        }
    }
}

pub(super) fn no_kernel(stop: &Stop) -> Error {
    let reason = format!("no kernel found for a pending operation ({stop:?}); please report this");
    Error::Unsupported { op: "eval", reason }
}

/// Whether a kernel computes a step for its own sake.
pub(super) fn is_computed(facts: &Facts<'_>, step: u32) -> bool {
    let node = &facts.steps[step as usize];
    node.anchor && !node.shape.contains(&0)
}

/// Puts every anchor into a cluster.
fn group(facts: &mut Facts<'_>) -> Result<Vec<Cluster>, Stop> {
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
                // Nobody has read the step yet, so nothing else changes.
                home.push(usize::MAX);
                stack.extend([step, inner]);
                continue;
            }
            let joins = facts.fusion && alone.kind == Kind::Loop;
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

/// A reduction of several dims, some of which a cluster that it reads from folds too: that cluster has the rows' values
/// already, and the rest of the reduction is small. Says which dims.
fn rows_at_hand(
    facts: &Facts<'_>,
    step: u32,
    alone: &Cluster,
    clusters: &[Cluster],
) -> Option<SmallVec<[usize; 4]>> {
    let node = &facts.steps[step as usize];
    let Op::Reduce { op, dims } = &node.op else { return None };
    // Positions count over all dims, and halves would be rounded twice.
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

/// The clusters that a body reads from.
fn needs(body: &Body, own: u32, home: &[usize]) -> Vec<usize> {
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

/// Puts the step into the first cluster that takes it, and says which.
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
        if others.any(|&need| neighbours.waits_for(facts, clusters, need, candidate)) {
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
    // What another kernel reads must be in memory.
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

/// Every cluster after those that it needs.
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
