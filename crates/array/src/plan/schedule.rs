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
use wgrad_device::kernel::{Access, IndexedDim, Instr, Kernel, Level, Loop, Matmul, Scan, Scatter};
use wgrad_device::layout::{Dims, Strides, contiguous_strides};
use wgrad_device::{Error, Result};

use super::facts::{Facts, Slot};
use super::lower::{Body, Stop};
use super::map::{Map, Space};
use crate::graph::Ref;
use crate::op::{Op, reduced_shape};

/// The most clusters that are tried beside those of the operands.
const NEIGHBOURS: usize = 6;
/// A row longer than this is not worth reading again by one worker when there are fewer rows than [`FEW_ROWS`].
const LONG_ROW: usize = 16_384;
/// See [`LONG_ROW`].
const FEW_ROWS: usize = 64;
/// Recomputing that costs more than this, in simple operations on an element, is replaced by storing.
const RECOMPUTE: usize = 24;

/// A kernel in the making.
#[derive(Clone)]
pub(crate) struct Cluster {
    kind: Kind,
    /// For each dim of the space's shape, whether it is reduced over.
    folded: SmallVec<[bool; 4]>,
    body: Body,
    /// The clusters whose results it reads.
    needs: Vec<usize>,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Loop,
    Matmul(u32),
    Scatter(u32),
    Scan(u32),
}

/// A kernel, and which memory its buffers are.
pub(crate) struct Planned {
    pub(crate) kernel: Kernel,
    pub(crate) slots: Vec<Slot>,
    pub(crate) params: Vec<u32>,
}

/// The kernels for a graph, in the order in which they run.
pub(crate) fn schedule(facts: &mut Facts<'_>) -> Result<Vec<Planned>> {
    let mut traded = false;
    loop {
        let clusters = match group(facts) {
            Ok(clusters) => clusters,
            Err(Stop::Store(Ref::Node(step))) if !facts.steps[step as usize].stored => {
                facts.store(step);
                continue;
            }
            Err(Stop::Store(Ref::Leaf(leaf))) => {
                facts.copy_leaf(leaf);
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
            facts.store(step);
        }
    }
}

/// Puts every anchor into a cluster.
fn group(facts: &mut Facts<'_>) -> Result<Vec<Cluster>, Stop> {
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
    // What another kernel reads must be in memory.
    for cluster in &clusters {
        for slot in &cluster.body.slots {
            if let Slot::Step(step) = slot {
                facts.steps[*step as usize].stored = true;
            }
        }
    }
    Ok(clusters)
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

impl Cluster {
    /// A step in a kernel of its own.
    fn alone(facts: &Facts<'_>, step: u32) -> Result<Cluster, Stop> {
        let node = &facts.steps[step as usize];
        let (kind, shape, folded): (Kind, &[usize], SmallVec<[bool; 4]>) = match &node.op {
            Op::Reduce { dims, .. } => {
                let shape = facts.shape(node.inputs[0]);
                (Kind::Loop, shape, (0..shape.len()).map(|d| dims.contains(&d)).collect())
            }
            Op::Matmul => (Kind::Matmul(step), &node.shape, SmallVec::from_elem(false, node.shape.len())),
            Op::Scatter { .. } => (Kind::Scatter(step), &node.shape, SmallVec::new()),
            Op::Scan { .. } => (Kind::Scan(step), &node.shape, SmallVec::new()),
            _ => (Kind::Loop, &node.shape, SmallVec::from_elem(false, node.shape.len())),
        };
        let space = Space::new(shape);
        let mut cluster = Cluster { kind, folded, body: Body::new(space), needs: Vec::new() };
        match cluster.kind {
            Kind::Scatter(_) | Kind::Scan(_) => {
                for (i, &input) in node.inputs.iter().enumerate() {
                    let (slot, layout) = facts.strided(input).ok_or(Stop::Store(input))?;
                    // What a scatter starts from is copied whole, element by element.
                    if i == 2 && !(layout.is_contiguous() && layout.offset() == 0) {
                        return Err(Stop::Store(input));
                    }
                    cluster.body.slots.push(slot);
                }
                cluster.body.members.push(step);
            }
            _ => {
                if let Kind::Matmul(_) = cluster.kind {
                    for &input in &node.inputs {
                        let (slot, _) = facts.strided(input).ok_or(Stop::Store(input))?;
                        cluster.body.slots.push(slot);
                    }
                }
                cluster.add(facts, step)?;
            }
        }
        Ok(cluster)
    }

    /// Whether it is worth trying to put a step in: the sizes agree.
    fn could_take(&self, facts: &Facts<'_>, step: u32) -> bool {
        let node = &facts.steps[step as usize];
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let own = elements(&self.body.space.shape);
        match (&self.kind, &node.op) {
            (Kind::Scatter(_) | Kind::Scan(_), _) => false,
            (Kind::Matmul(_), Op::Reduce { .. }) => false,
            (Kind::Matmul(matmul), _) => elements(&node.shape) == own && reads(facts, step, *matmul),
            (Kind::Loop, Op::Reduce { .. }) => elements(facts.shape(node.inputs[0])) == own,
            (Kind::Loop, _) => {
                let rows = elements(&reduced_shape(&self.body.space.shape, &self.folded_dims()));
                elements(&node.shape) == own || elements(&node.shape) == rows
            }
        }
    }

    fn folded_dims(&self) -> SmallVec<[usize; 4]> {
        (0..self.folded.len()).filter(|&d| self.folded[d]).collect()
    }

    /// This cluster with a step more, if that can be written and run well.
    fn with(&self, facts: &Facts<'_>, step: u32) -> Option<Cluster> {
        let node = &facts.steps[step as usize];
        let mut joined = self.clone();
        if let Op::Reduce { dims, .. } = &node.op {
            let shape = facts.shape(node.inputs[0]);
            let folds: SmallVec<[bool; 4]> = (0..shape.len()).map(|d| dims.contains(&d)).collect();
            if !self.folded.contains(&true) {
                // An elementwise loop takes on the rows of its first reduction.
                joined.folded = folds;
                joined.body.space = Space::new(shape);
                joined.rebuild(facts).ok()?;
            } else if rows_of(&self.body.space.shape, &self.folded) != rows_of(shape, &folds) {
                return None;
            }
        }
        joined.add(facts, step).ok()?;
        let outputs = joined.body.members.len();
        let known = joined
            .body
            .slots
            .iter()
            .filter(|slot| !matches!(slot, Slot::Step(s) if joined.body.members.contains(s)));
        let fits = joined.body.instructions.len() <= facts.limits.instructions
            && known.count() + outputs <= facts.limits.buffers
            && joined.runs_well();
        fits.then_some(joined)
    }

    /// Whether the rows are short, or many, or read only once.
    fn runs_well(&self) -> bool {
        let kernel = self.to_loop();
        if kernel.row_elements() <= LONG_ROW || kernel.rows() >= FEW_ROWS {
            return true;
        }
        let (levels, stages) = (kernel.levels(), kernel.stages());
        levels.iter().zip(stages).all(|(level, stage)| *level == Level::Row || stage == 0)
    }

    /// Writes all members anew, after the space has changed.
    fn rebuild(&mut self, facts: &Facts<'_>) -> Result<(), Stop> {
        let mut body = Body::new(self.body.space.clone());
        if let Kind::Matmul(_) = self.kind {
            body.slots = self.body.slots[..2].into();
        }
        let members = std::mem::replace(&mut self.body, body).members;
        for step in members {
            self.add(facts, step)?;
        }
        Ok(())
    }

    /// Writes a step into the body, splitting the space's dims as needed.
    fn add(&mut self, facts: &Facts<'_>, step: u32) -> Result<(), Stop> {
        // Every split makes dims smaller, so this ends; the bound is for dims that are split over and over.
        for _ in 0..64 {
            let before = self.clone();
            match self.write(facts, step) {
                // A product's dims are given by its operands.
                Err(Stop::Split(..)) if self.kind != Kind::Loop => return Err(Stop::Conflict),
                Err(Stop::Split(dim, inner)) => {
                    *self = before;
                    self.body.space.split(dim, inner);
                    self.rebuild(facts)?;
                }
                done => return done,
            }
        }
        Err(Stop::Conflict)
    }

    fn write(&mut self, facts: &Facts<'_>, step: u32) -> Result<(), Stop> {
        let node = &facts.steps[step as usize];
        self.body.members.push(step);
        match &node.op {
            Op::Reduce { op, .. } => {
                let input = node.inputs[0];
                let map = self.map_to(facts.shape(input), false)?;
                let value = self.body.value(facts, input, map)?;
                let reg = self.body.reduce(*op, value, node.dtype);
                let row = self.map_to(&node.shape, true)?;
                self.body.define(step, row, reg);
            }
            Op::Matmul => {
                let reg = self.body.accumulator();
                let reg = self.body.rounded(reg, node.dtype);
                let map = self.map_to(&node.shape, false)?;
                self.body.define(step, map, reg);
            }
            _ => {
                let elements: usize = node.shape.iter().product();
                let rows = elements != self.body.space.shape.iter().product::<usize>();
                let map = self.map_to(&node.shape, rows)?;
                let reg = self.body.compute(facts, step, &map)?;
                self.body.define(step, map.clone(), reg);
                self.body.store(facts, step, &map, reg);
            }
        }
        Ok(())
    }

    /// The map to an array with the space's elements, or one for each row.
    fn map_to(&self, shape: &[usize], rows: bool) -> Result<Map, Stop> {
        let folded = |d: usize| rows && self.folded[d];
        let map = self.body.space.identity(folded);
        let own: Dims = if rows {
            reduced_shape(&self.body.space.shape, &self.folded_dims())
        } else {
            self.body.space.shape.clone()
        };
        if own[..] == *shape {
            return Ok(map);
        }
        map.through_reshape(&own, shape, &self.body.space.sizes()).map_err(|obstacle| match obstacle {
            super::map::Obstacle::Split { dim, inner } => Stop::Split(dim, inner),
            super::map::Obstacle::NotAffine => Stop::Conflict,
        })
    }

    /// The loop as an executor gets it: outer dims first.
    fn to_loop(&self) -> Loop {
        let owners = self.body.space.owners();
        let sizes = self.body.space.sizes();
        let folded = |d: &usize| self.folded.get(owners[*d]).copied().unwrap_or(false);
        let (inner, outer): (Vec<usize>, Vec<usize>) = (0..sizes.len()).partition(folded);
        let order: Vec<usize> = outer.iter().chain(&inner).copied().collect();
        let permute = |strides: &Strides| -> Strides { order.iter().map(|&d| strides[d]).collect() };
        let place = |dim: usize| order.iter().position(|&d| d == dim).unwrap_or(dim);
        let mut kernel = Loop {
            sizes: order.iter().map(|&d| sizes[d]).collect(),
            inner: inner.len(),
            accesses: self.body.accesses.clone(),
            ranges: self.body.ranges.clone(),
            body: self.body.instructions.clone(),
            stores: self.body.stores.clone(),
        };
        for access in &mut kernel.accesses {
            access.strides = permute(&access.strides);
        }
        for range in &mut kernel.ranges {
            range.strides = permute(&range.strides);
        }
        for instr in &mut kernel.body {
            if let Instr::Coord { dim } = instr {
                *dim = place(*dim);
            }
        }
        kernel
    }
}

/// Whether a step's expression uses a matrix product.
fn reads(facts: &Facts<'_>, step: u32, matmul: u32) -> bool {
    let mut stack = vec![step];
    let mut seen = Vec::new();
    while let Some(at) = stack.pop() {
        for &input in &facts.steps[at as usize].inputs {
            let Ref::Node(node) = input else { continue };
            if node == matmul {
                return true;
            }
            if !facts.steps[node as usize].anchor && !seen.contains(&node) {
                seen.push(node);
                stack.push(node);
            }
        }
    }
    false
}

/// A shape's rows and their elements, whatever dims they are split into: runs of kept and folded sizes.
fn rows_of(shape: &[usize], folded: &[bool]) -> Vec<(bool, usize)> {
    let mut runs: Vec<(bool, usize)> = Vec::new();
    for (&size, &folded) in shape.iter().zip(folded) {
        if size == 1 {
            continue;
        }
        match runs.last_mut() {
            Some((last, run)) if *last == folded => *run *= size,
            _ => runs.push((folded, size)),
        }
    }
    runs
}

/// The expressions that are written into several kernels although storing them once is cheaper.
fn repeated_work(facts: &Facts<'_>, clusters: &[Cluster]) -> Vec<u32> {
    let mut kernels = vec![0usize; facts.steps.len()];
    for cluster in clusters {
        let mut here: Vec<u32> = cluster.body.recomputed().collect();
        here.sort_unstable();
        here.dedup();
        for step in here {
            kernels[step as usize] += 1;
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
        if kernels[step as usize] > 1
            && !matches!(node.op, Op::View(_) | Op::Full(_) | Op::Coordinate { .. })
            && cost[step as usize] * (kernels[step as usize] - 1) > RECOMPUTE
        {
            found.push(step);
            cost[step as usize] = 0;
        }
    }
    found
}

/// Orders the clusters and turns them into kernels.
fn finish(facts: &Facts<'_>, mut clusters: Vec<Cluster>) -> Result<Vec<Planned>> {
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

impl Cluster {
    fn plan(&self, facts: &Facts<'_>) -> Result<Planned> {
        let (mut slots, params) = (self.body.slots.clone(), self.body.params.clone());
        let kernel = match self.kind {
            Kind::Loop => Kernel::Loop(self.to_loop()),
            Kind::Matmul(step) => Kernel::Matmul(self.matmul(facts, step)?),
            Kind::Scatter(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scatter(scatter(facts, step)?)
            }
            Kind::Scan(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scan(scan(facts, step)?)
            }
        };
        Ok(Planned { kernel, slots, params })
    }

    fn matmul(&self, facts: &Facts<'_>, step: u32) -> Result<Matmul> {
        let node = &facts.steps[step as usize];
        let operand = |i: usize| -> Result<Access> {
            operand_access(facts, node.inputs[i], i, &(0..node.shape.len()).collect::<Vec<_>>())
        };
        let (lhs, rhs) = (operand(0)?, operand(1)?);
        let lhs_shape = facts.shape(node.inputs[0]);
        Ok(Matmul {
            k: lhs_shape[lhs_shape.len() - 1],
            lhs,
            rhs,
            epilogue: self.to_product_loop(facts, step),
        })
    }

    /// The epilogue over exactly the dims `batch.., m, n`, which the operands' strides count.
    fn to_product_loop(&self, facts: &Facts<'_>, step: u32) -> Loop {
        let shape = &facts.steps[step as usize].shape;
        let mut kernel = self.to_loop();
        let owners = self.body.space.owners();
        // Dims of size 1 have no dim in the space; give them one with stride 0.
        let widen = |strides: &Strides| -> Strides {
            (0..shape.len())
                .map(|d| owners.iter().position(|&o| o == d).map_or(0, |at| strides[at]))
                .collect()
        };
        for access in &mut kernel.accesses {
            access.strides = widen(&access.strides);
        }
        for range in &mut kernel.ranges {
            range.strides = widen(&range.strides);
        }
        for instr in &mut kernel.body {
            if let Instr::Coord { dim } = instr {
                *dim = owners[*dim];
            }
        }
        kernel.sizes = shape.clone();
        kernel
    }
}

/// An access to an operand in memory, its dims in the given order.
fn operand_access(facts: &Facts<'_>, operand: Ref, buffer: usize, order: &[usize]) -> Result<Access> {
    let (_, layout) = facts.strided(operand).ok_or_else(|| Error::Unsupported {
        op: "eval",
        reason: "an operand is not in memory; please report this".into(),
    })?;
    let sizes = layout.shape();
    let strides: Strides =
        order.iter().map(|&d| if sizes[d] == 1 { 0 } else { layout.strides()[d] }).collect();
    Ok(Access::new(buffer, facts.dtype(operand), &strides, layout.offset() as isize))
}

fn scatter(facts: &Facts<'_>, step: u32) -> Result<Scatter> {
    let node = &facts.steps[step as usize];
    let Op::Scatter { op, dim, name } = node.op else { return Err(not_that("scatter")) };
    let order: Vec<usize> = (0..node.shape.len()).collect();
    let (source, index) = (
        operand_access(facts, node.inputs[0], 0, &order)?,
        operand_access(facts, node.inputs[1], 1, &order)?,
    );
    let mut strides = contiguous_strides(&node.shape);
    let sizes: Dims = facts.shape(node.inputs[1]).into();
    let stride = std::mem::take(&mut strides[dim]);
    for (stride, &size) in strides.iter_mut().zip(&sizes) {
        if size == 1 {
            *stride = 0;
        }
    }
    let mut target = Access::new(node.inputs.len(), node.dtype, &strides, 0);
    target.indexed.push(IndexedDim { stride, size: node.shape[dim], op: name });
    Ok(Scatter {
        op,
        sizes,
        source,
        indices: vec![index],
        target,
        base: (node.inputs.len() == 3).then_some(2),
        elements: node.shape.iter().product(),
    })
}

fn scan(facts: &Facts<'_>, step: u32) -> Result<Scan> {
    let node = &facts.steps[step as usize];
    let Op::Scan { op, dim } = node.op else { return Err(not_that("scan")) };
    // The dim that it runs along comes last.
    let order: Vec<usize> = (0..node.shape.len()).filter(|&d| d != dim).chain([dim]).collect();
    let source = operand_access(facts, node.inputs[0], 0, &order)?;
    let dense = contiguous_strides(&node.shape);
    let strides: Strides = order.iter().map(|&d| if node.shape[d] == 1 { 0 } else { dense[d] }).collect();
    let sizes = order.iter().map(|&d| node.shape[d]).collect();
    Ok(Scan { op, sizes, source, target: Access::new(1, node.dtype, &strides, 0) })
}

fn not_that(op: &'static str) -> Error {
    Error::Unsupported { op, reason: "a kernel was planned for another operation; please report this".into() }
}
