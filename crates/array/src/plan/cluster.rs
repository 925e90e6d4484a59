//! A kernel while it is planned: which steps it computes, over which index space.

use smallvec::SmallVec;
use wgrad_device::Result;
use wgrad_device::kernel::{Instr, Kernel, Level, Loop};
use wgrad_device::layout::{Dims, Strides};

use super::factor::MatmulOperand;
use super::facts::{Facts, Slot};
use super::library;
use super::lower::{BodyWriter, LowerError};
use super::map::{Map, Obstacle, Space};
use super::schedule::Planned;
use crate::graph::Ref;
use crate::op::{Op, reduced_shape};

/// A kernel that goes over each row several times runs each row on one worker. With rows longer than this and
/// fewer rows than [`FEW_ROWS`], too few workers would share the work, so such steps are not fused.
const LONG_ROW: usize = 16_384;
/// The number of rows from which on long rows may be fused; see [`LONG_ROW`].
const FEW_ROWS: usize = 64;

/// The steps that share a kernel, and the kernel's body as far as it is written.
pub(super) struct Cluster {
    pub(super) kind: ClusterKind,
    /// For each dim of the space's shape, whether it is reduced.
    folded: SmallVec<[bool; 4]>,
    pub(super) body: BodyWriter,
    /// The clusters whose results it reads.
    pub(super) needs: Vec<usize>,
}

/// The kind of kernel that a cluster becomes, with the step that determines it.
#[derive(Clone, PartialEq)]
pub(super) enum ClusterKind {
    Loop,
    Matmul(u32),
    Scatter(u32),
    Update(u32),
    Scan(u32),
    Sort(u32),
}

impl ClusterKind {
    /// Whether its kernel has a body into which other steps may be fused.
    fn has_body(&self) -> bool {
        matches!(self, ClusterKind::Loop | ClusterKind::Matmul(_))
    }
}

impl Cluster {
    /// A cluster of this step alone.
    pub(super) fn alone(facts: &Facts<'_>, step: u32) -> Result<Cluster, LowerError> {
        let node = &facts.steps[step as usize];
        let (kind, shape, folded): (ClusterKind, &[usize], SmallVec<[bool; 4]>) = match &node.op {
            Op::Reduce { dims, .. } => {
                let shape = facts.shape(node.inputs[0]);
                (ClusterKind::Loop, shape, (0..shape.len()).map(|d| dims.contains(&d)).collect())
            }
            Op::Matmul => {
                (ClusterKind::Matmul(step), &node.shape, SmallVec::from_elem(false, node.shape.len()))
            }
            Op::Scatter { .. } => (ClusterKind::Scatter(step), &node.shape, SmallVec::new()),
            Op::Update { .. } => (ClusterKind::Update(step), &node.shape, SmallVec::new()),
            Op::Scan { .. } => (ClusterKind::Scan(step), &node.shape, SmallVec::new()),
            Op::Sort { .. } => (ClusterKind::Sort(step), &node.shape, SmallVec::new()),
            _ => (ClusterKind::Loop, &node.shape, SmallVec::from_elem(false, node.shape.len())),
        };
        let space = Space::new(shape);
        let mut cluster = Cluster { kind, folded, body: BodyWriter::new(space), needs: Vec::new() };
        if cluster.kind.has_body() {
            if let ClusterKind::Matmul(_) = cluster.kind {
                for &input in &node.inputs {
                    let operand = MatmulOperand::of(facts, input).ok_or(LowerError::Store(input))?;
                    cluster.body.slots.push(operand.slot);
                }
            }
            cluster.add(facts, step, &mut None)?;
            return Ok(cluster);
        }
        let base = match cluster.kind {
            ClusterKind::Scatter(_) => Some(2),
            ClusterKind::Update(_) => Some(0),
            _ => None,
        };
        for (i, &input) in node.inputs.iter().enumerate() {
            let (slot, layout) = facts.strided(input).ok_or(LowerError::Store(input))?;
            // The array that the step starts from is copied as one dense block.
            if base == Some(i) && !(layout.is_contiguous() && layout.offset() == 0) {
                return Err(LowerError::Store(input));
            }
            cluster.body.slots.push(slot);
        }
        cluster.body.members.push(step);
        Ok(cluster)
    }

    /// Whether it is worth trying to add a step: there is a binding left for its result, and the sizes agree.
    pub(super) fn could_take(&self, facts: &Facts<'_>, step: u32) -> bool {
        if self.bindings() >= facts.limits.buffers {
            return false;
        }
        let node = &facts.steps[step as usize];
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let own = elements(&self.body.space.shape);
        match (&self.kind, &node.op) {
            (ClusterKind::Loop, Op::Reduce { .. }) => elements(facts.shape(node.inputs[0])) == own,
            (ClusterKind::Loop, _) => {
                let rows = elements(&reduced_shape(&self.body.space.shape, &self.folded_dims()));
                elements(&node.shape) == own || elements(&node.shape) == rows
            }
            (ClusterKind::Matmul(_), Op::Reduce { .. }) => false,
            (ClusterKind::Matmul(_), _) => {
                elements(&node.shape) == own && reads(facts, step, &self.body.members)
            }
            _ => false,
        }
    }

    /// The dims of the space's shape that are reduced.
    pub(super) fn folded_dims(&self) -> SmallVec<[usize; 4]> {
        (0..self.folded.len()).filter(|&d| self.folded[d]).collect()
    }

    /// Whether a value of this shape has one element for each of the cluster's rows. False for a cluster with
    /// only one row, or with rows of one element.
    pub(super) fn has_row_value(&self, shape: &[usize]) -> bool {
        let rows = reduced_shape(&self.body.space.shape, &self.folded_dims());
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        elements(&rows) > 1 && elements(&rows) < elements(&self.body.space.shape) && rows[..] == *shape
    }

    /// Adds a step if the kernel can express it and runs well with it. Otherwise the cluster is left
    /// unchanged and the result is false.
    pub(super) fn take(&mut self, facts: &Facts<'_>, step: u32) -> bool {
        let (mark, folded) = (self.body.mark(), self.folded.clone());
        let mut before = None;
        let fits = self.try_to_take(facts, step, &mut before);
        if !fits {
            self.folded = folded;
            match before {
                Some(body) => self.body = body,
                None => self.body.take_back(&mark),
            }
        }
        fits
    }

    /// [`Cluster::take`] without undoing: if the result is false, the cluster is in an intermediate state. If
    /// the body is rewritten, `before` receives the old one.
    fn try_to_take(&mut self, facts: &Facts<'_>, step: u32, before: &mut Option<BodyWriter>) -> bool {
        let node = &facts.steps[step as usize];
        if let Op::Reduce { dims, .. } = &node.op {
            let shape = facts.shape(node.inputs[0]);
            let folds: SmallVec<[bool; 4]> = (0..shape.len()).map(|d| dims.contains(&d)).collect();
            if !self.folded.contains(&true) {
                // An elementwise loop is rewritten over the rows of the first reduction that it takes in.
                self.folded = folds;
                if self.rewrite(facts, Space::new(shape), before).is_err() {
                    return false;
                }
            } else if rows_of(&self.body.space.shape, &self.folded) != rows_of(shape, &folds) {
                return false;
            }
        }
        if self.add(facts, step, before).is_err() {
            return false;
        }
        let size = |instr: &Instr| if facts.limits.inlined { instr.size() } else { 1 };
        self.body.instructions.iter().map(size).sum::<usize>() <= facts.limits.instructions
            && self.bindings() + self.further_bindings(facts) <= facts.limits.buffers
            && self.runs_well()
    }

    /// How many buffers the kernel binds if all of its results are stored.
    fn bindings(&self) -> usize {
        let members = &self.body.members;
        let read = |slot: &&Slot| !matches!(slot, Slot::Step(step) if members.contains(step));
        self.body.slots.iter().filter(read).count() + members.len()
    }

    /// How many bindings the kernel needs beyond one for each buffer, because some accesses to a buffer begin
    /// further apart than one binding reaches.
    fn further_bindings(&self, facts: &Facts<'_>) -> usize {
        let mut begins = vec![(isize::MAX, isize::MIN); self.body.slots.len()];
        for access in &self.body.accesses {
            let at = access.offset.saturating_mul(access.dtype.size() as isize);
            if let Some((low, high)) = begins.get_mut(access.buffer) {
                (*low, *high) = ((*low).min(at), (*high).max(at));
            }
        }
        let apart = |&(low, high): &(isize, isize)| high.checked_sub(low).map_or(0, isize::unsigned_abs);
        begins.iter().filter(|(low, high)| low < high).map(|begin| apart(begin) / facts.limits.binding).sum()
    }

    /// Whether enough workers share the work: the rows are short, or there are many, or each is read only
    /// once.
    fn runs_well(&self) -> bool {
        let (mut rows, mut row) = (1usize, 1usize);
        for (d, &size) in self.body.space.shape.iter().enumerate() {
            let count = if self.folded[d] { &mut row } else { &mut rows };
            *count = count.saturating_mul(size);
        }
        if row <= LONG_ROW || rows >= FEW_ROWS {
            return true;
        }
        let kernel = self.to_loop();
        let (levels, stages) = (kernel.levels(), kernel.stages());
        levels.iter().zip(stages).all(|(level, stage)| *level == Level::Row || stage == 0)
    }

    /// Writes all members again, over another space. `before` receives the old body unless it has one
    /// already.
    fn rewrite(
        &mut self,
        facts: &Facts<'_>,
        space: Space,
        before: &mut Option<BodyWriter>,
    ) -> Result<(), LowerError> {
        let mut body = BodyWriter::new(space);
        if let ClusterKind::Matmul(_) = self.kind {
            body.slots = self.body.slots[..2].into();
        }
        let body = std::mem::replace(&mut self.body, body);
        let members = body.members.clone();
        before.get_or_insert(body);
        for step in members {
            self.add(facts, step, before)?;
        }
        Ok(())
    }

    /// Writes a step into the body, splitting the space's dims as needed; `before` as in
    /// [`Cluster::rewrite`].
    fn add(
        &mut self,
        facts: &Facts<'_>,
        step: u32,
        before: &mut Option<BodyWriter>,
    ) -> Result<(), LowerError> {
        // Every split makes a dim smaller, so the loop ends; the bound limits the time spent on dims with
        // many factors.
        for _ in 0..64 {
            let mark = self.body.mark();
            match self.write(facts, step) {
                Err(LowerError::Split(..))
                    if matches!(self.kind, ClusterKind::Scatter(_) | ClusterKind::Scan(_)) =>
                {
                    return Err(LowerError::Conflict);
                }
                Err(LowerError::Split(dim, inner)) => {
                    self.body.take_back(&mark);
                    let mut space = self.body.space.clone();
                    space.split(dim, inner);
                    self.rewrite(facts, space, before)?;
                }
                Ok(()) if !self.keeps_product(facts) => return Err(LowerError::Conflict),
                done => return done,
            }
        }
        Err(LowerError::Conflict)
    }

    /// For a matrix product: whether its epilogue can still be expressed over the dims of the product.
    fn keeps_product(&self, facts: &Facts<'_>) -> bool {
        match self.kind {
            ClusterKind::Matmul(step) if self.body.space.has_split() => {
                library::over_product(facts, step, &self.body.space, self.to_loop()).is_some()
            }
            _ => true,
        }
    }

    fn write(&mut self, facts: &Facts<'_>, step: u32) -> Result<(), LowerError> {
        facts.effort.count_written();
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

    /// The map from the space to an array of this shape, which has an element for each of the space, or, if
    /// `rows` is set, one for each row.
    pub(super) fn map_to(&self, shape: &[usize], rows: bool) -> Result<Map, LowerError> {
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
            Obstacle::Split { dim, inner } => LowerError::Split(dim, inner),
            Obstacle::NotAffine => LowerError::Conflict,
        })
    }

    /// The kernel as a loop, in the form of the kernel IR: outer dims first, then the reduced ones.
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

    /// Makes a kernel of the cluster.
    pub(super) fn plan(&self, facts: &Facts<'_>) -> Result<Planned> {
        let (mut slots, params) = (self.body.slots.clone(), self.body.params.clone());
        let mut overwrite = None;
        let kernel = match self.kind {
            ClusterKind::Loop => Kernel::Loop(self.to_loop()),
            ClusterKind::Matmul(step) => {
                Kernel::Matmul(library::matmul(facts, step, &self.body.space, self.to_loop())?)
            }
            ClusterKind::Scatter(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scatter(library::scatter(facts, step)?)
            }
            ClusterKind::Update(step) => {
                overwrite = Some(library::overwrite(facts, step, slots.remove(0)));
                slots.push(Slot::Step(step));
                Kernel::Loop(library::update(facts, step)?)
            }
            ClusterKind::Scan(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scan(library::scan(facts, step)?)
            }
            ClusterKind::Sort(step) => {
                slots.push(Slot::Step(step));
                Kernel::Sort(library::sort(facts, step)?)
            }
        };
        Ok(Planned {
            kernel,
            slots,
            params,
            overwrite,
            members: self.body.members.clone(),
            steps: self.body.steps(),
        })
    }
}

/// Whether the expression that computes a step uses one of these members.
fn reads(facts: &Facts<'_>, step: u32, members: &[u32]) -> bool {
    let mut stack = vec![step];
    let mut seen = Vec::new();
    while let Some(at) = stack.pop() {
        for &input in &facts.steps[at as usize].inputs {
            let Ref::Node(node) = input else { continue };
            if members.contains(&node) {
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

/// The sizes of a shape in a canonical form: neighbouring kept dims are merged, and neighbouring reduced dims
/// are. Two reductions have the same rows if these are equal.
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
