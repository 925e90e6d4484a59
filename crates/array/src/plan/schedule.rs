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
use super::why::Why;
use crate::graph::Ref;
use crate::op::Op;

/// The most clusters that are tried beside those of the operands.
const NEIGHBOURS: usize = 6;
/// Recomputing that costs more than this, in simple operations on an element, is replaced by storing.
const RECOMPUTE: usize = 24;

/// A kernel, and which memory its buffers are.
pub(crate) struct Planned {
    pub(crate) kernel: Kernel,
    pub(crate) slots: Vec<Slot>,
    pub(crate) params: Vec<u32>,
    /// The anchors that it computes.
    pub(crate) members: Vec<u32>,
    /// Everything that it computes.
    pub(crate) steps: Vec<u32>,
}

/// The kernels for a graph, in the order in which they run.
pub(crate) fn schedule(facts: &mut Facts<'_>) -> Result<Vec<Planned>> {
    let mut traded = false;
    loop {
        let clusters = match group(facts) {
            Ok(clusters) => clusters,
            Err(Stop::Store(Ref::Node(step))) if !facts.steps[step as usize].stored => {
                facts.store(step, Why::Strides);
                continue;
            }
            Err(Stop::Store(Ref::Leaf(leaf))) => {
                facts.copy_leaf(leaf);
                continue;
            }
            Err(Stop::Fold(step, dims)) => {
                facts.fold_first(step, &dims);
                continue;
            }
            Err(stop) => {
                let reason =
                    format!("no kernel found for a pending operation ({stop:?}); please report this");
                return Err(Error::Unsupported { op: "eval", reason });
            }
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

/// Puts every anchor into a cluster.
fn group(facts: &Facts<'_>) -> Result<Vec<Cluster>, Stop> {
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut home = vec![usize::MAX; facts.steps.len()];
    for at in 0..facts.order.len() {
        let step = facts.order[at];
        let node = &facts.steps[step as usize];
        if !node.anchor || node.shape.contains(&0) {
            continue;
        }
        let mut alone = Cluster::alone(facts, step)?;
        alone.needs = needs(&alone.body, step, &home);
        if facts.fusion
            && let Some(dims) = rows_at_hand(facts, step, &alone, &clusters)
        {
            return Err(Stop::Fold(step, dims));
        }
        let joined = if facts.fusion && alone.kind == Kind::Loop {
            join(facts, step, &alone, &clusters)
        } else {
            None
        };
        match joined {
            Some((into, mut cluster)) => {
                cluster.needs = clusters[into].needs.clone();
                cluster.needs.extend(alone.needs.iter().filter(|&&c| c != into));
                cluster.needs.sort_unstable();
                cluster.needs.dedup();
                clusters[into] = cluster;
                home[step as usize] = into;
            }
            None => {
                home[step as usize] = clusters.len();
                clusters.push(alone);
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

/// The first cluster that the step can join, with the step in it.
fn join(facts: &Facts<'_>, step: u32, alone: &Cluster, clusters: &[Cluster]) -> Option<(usize, Cluster)> {
    let operands = alone.needs.iter().rev().copied();
    let sharing = (0..clusters.len()).rev().filter(|&c| {
        clusters[c].kind == Kind::Loop
            && clusters[c].body.slots.iter().any(|slot| alone.body.slots.contains(slot))
    });
    let mut tried: SmallVec<[usize; 12]> = SmallVec::new();
    for candidate in operands.chain(sharing.take(NEIGHBOURS)) {
        if tried.contains(&candidate) || !clusters[candidate].could_take(facts, step) {
            continue;
        }
        tried.push(candidate);
        let waits =
            alone.needs.iter().any(|&need| need != candidate && depends_on(clusters, need, candidate));
        if waits {
            continue;
        }
        if let Some(joined) = clusters[candidate].with(facts, step) {
            return Some((candidate, joined));
        }
    }
    None
}

/// Whether a cluster waits for another, directly or not.
fn depends_on(clusters: &[Cluster], from: usize, on: usize) -> bool {
    let mut seen = vec![false; clusters.len()];
    let mut stack = vec![from];
    while let Some(at) = stack.pop() {
        if at == on {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            stack.extend(&clusters[at].needs);
        }
    }
    false
}

/// The expressions that are written into several kernels although storing them once is cheaper.
fn repeated_work(facts: &Facts<'_>, clusters: &[Cluster]) -> Vec<u32> {
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
    for &step in &facts.order {
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
    for &step in &facts.order {
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
