//! One kernel in the making: which steps it computes, over which space.

use smallvec::SmallVec;
use wgrad_device::Result;
use wgrad_device::kernel::{Instr, Kernel, Level, Loop};
use wgrad_device::layout::{Dims, Strides};

use super::factor::Factor;
use super::facts::{Facts, Slot};
use super::library;
use super::lower::{Body, Stop};
use super::map::{Map, Obstacle, Space};
use super::schedule::Planned;
use crate::graph::Ref;
use crate::op::{Op, reduced_shape};

/// A row longer than this is not worth reading again by one worker when there are fewer rows than [`FEW_ROWS`].
const LONG_ROW: usize = 16_384;
/// See [`LONG_ROW`].
const FEW_ROWS: usize = 64;

/// A kernel in the making.
pub(super) struct Cluster {
    pub(super) kind: Kind,
    /// For each dim of the space's shape, whether it is reduced over.
    folded: SmallVec<[bool; 4]>,
    pub(super) body: Body,
    /// The clusters whose results it reads.
    pub(super) needs: Vec<usize>,
}

/// What runs a cluster.
#[derive(Clone, PartialEq)]
pub(super) enum Kind {
    Loop,
    Matmul(u32),
    Scatter(u32),
    Update(u32),
    Scan(u32),
    Sort(u32),
}

impl Cluster {
    /// A step in a kernel of its own.
    pub(super) fn alone(facts: &Facts<'_>, step: u32) -> Result<Cluster, Stop> {
        let node = &facts.steps[step as usize];
        let (kind, shape, folded): (Kind, &[usize], SmallVec<[bool; 4]>) = match &node.op {
            Op::Reduce { dims, .. } => {
                let shape = facts.shape(node.inputs[0]);
                (Kind::Loop, shape, (0..shape.len()).map(|d| dims.contains(&d)).collect())
            }
            Op::Matmul => (Kind::Matmul(step), &node.shape, SmallVec::from_elem(false, node.shape.len())),
            Op::Scatter { .. } => (Kind::Scatter(step), &node.shape, SmallVec::new()),
            Op::Update { .. } => (Kind::Update(step), &node.shape, SmallVec::new()),
            Op::Scan { .. } => (Kind::Scan(step), &node.shape, SmallVec::new()),
            Op::Sort { .. } => (Kind::Sort(step), &node.shape, SmallVec::new()),
            _ => (Kind::Loop, &node.shape, SmallVec::from_elem(false, node.shape.len())),
        };
        let space = Space::new(shape);
        let mut cluster = Cluster { kind, folded, body: Body::new(space), needs: Vec::new() };
        match cluster.kind {
            Kind::Scatter(_) | Kind::Update(_) | Kind::Scan(_) | Kind::Sort(_) => {
                let base = match cluster.kind {
                    Kind::Scatter(_) => Some(2),
                    Kind::Update(_) => Some(0),
                    _ => None,
                };
                for (i, &input) in node.inputs.iter().enumerate() {
                    let (slot, layout) = facts.strided(input).ok_or(Stop::Store(input))?;
                    // What it starts from is copied whole, element by element.
                    if base == Some(i) && !(layout.is_contiguous() && layout.offset() == 0) {
                        return Err(Stop::Store(input));
                    }
                    cluster.body.slots.push(slot);
                }
                cluster.body.members.push(step);
            }
            _ => {
                if let Kind::Matmul(_) = cluster.kind {
                    for &input in &node.inputs {
                        let factor = Factor::of(facts, input).ok_or(Stop::Store(input))?;
                        cluster.body.slots.push(factor.slot);
                    }
                }
                cluster.add(facts, step, &mut None)?;
            }
        }
        Ok(cluster)
    }

    /// Whether it is worth trying to put a step in: there is a binding left for its result, and the sizes agree.
    pub(super) fn could_take(&self, facts: &Facts<'_>, step: u32) -> bool {
        if self.bindings() >= facts.limits.buffers {
            return false;
        }
        let node = &facts.steps[step as usize];
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let own = elements(&self.body.space.shape);
        match (&self.kind, &node.op) {
            (Kind::Scatter(_) | Kind::Update(_) | Kind::Scan(_) | Kind::Sort(_), _) => false,
            (Kind::Matmul(_), Op::Reduce { .. }) => false,
            (Kind::Matmul(_), _) => elements(&node.shape) == own && reads(facts, step, &self.body.members),
            (Kind::Loop, Op::Reduce { .. }) => elements(facts.shape(node.inputs[0])) == own,
            (Kind::Loop, _) => {
                let rows = elements(&reduced_shape(&self.body.space.shape, &self.folded_dims()));
                elements(&node.shape) == own || elements(&node.shape) == rows
            }
        }
    }

    /// The dims of the space's shape that are reduced over.
    pub(super) fn folded_dims(&self) -> SmallVec<[usize; 4]> {
        (0..self.folded.len()).filter(|&d| self.folded[d]).collect()
    }

    /// Whether a value of this shape is one for each of its rows, which are several and have several elements.
    pub(super) fn has_row_value(&self, shape: &[usize]) -> bool {
        let rows = reduced_shape(&self.body.space.shape, &self.folded_dims());
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        elements(&rows) > 1 && elements(&rows) < elements(&self.body.space.shape) && rows[..] == *shape
    }

    /// Takes in a step, if that can be written and run well; else stays what it was, and says so.
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

    /// Like [`Cluster::take`], but changed in any case. `before` gets the body as it was, if it is written anew.
    fn try_to_take(&mut self, facts: &Facts<'_>, step: u32, before: &mut Option<Body>) -> bool {
        let node = &facts.steps[step as usize];
        if let Op::Reduce { dims, .. } = &node.op {
            let shape = facts.shape(node.inputs[0]);
            let folds: SmallVec<[bool; 4]> = (0..shape.len()).map(|d| dims.contains(&d)).collect();
            if !self.folded.contains(&true) {
                // An elementwise loop takes on the rows of its first reduction.
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

    /// How many buffers it binds, if all of its results are stored.
    fn bindings(&self) -> usize {
        let members = &self.body.members;
        let read = |slot: &&Slot| !matches!(slot, Slot::Step(step) if members.contains(step));
        self.body.slots.iter().filter(read).count() + members.len()
    }

    /// How many bindings more than its buffers it takes, since accesses of one buffer begin too far apart for one.
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

    /// Whether the rows are short, or many, or read only once.
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

    /// Writes all members anew, over another space. The body that was there goes to `before`, unless one is there.
    fn rewrite(&mut self, facts: &Facts<'_>, space: Space, before: &mut Option<Body>) -> Result<(), Stop> {
        let mut body = Body::new(space);
        if let Kind::Matmul(_) = self.kind {
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

    /// Writes a step into the body, splitting the space's dims as needed; `before` as in [`Cluster::rewrite`].
    fn add(&mut self, facts: &Facts<'_>, step: u32, before: &mut Option<Body>) -> Result<(), Stop> {
        // Every split makes dims smaller, so this ends; the bound is for dims that are split over and over.
        for _ in 0..64 {
            let mark = self.body.mark();
            match self.write(facts, step) {
                Err(Stop::Split(..)) if matches!(self.kind, Kind::Scatter(_) | Kind::Scan(_)) => {
                    return Err(Stop::Conflict);
                }
                Err(Stop::Split(dim, inner)) => {
                    self.body.take_back(&mark);
                    let mut space = self.body.space.clone();
                    space.split(dim, inner);
                    self.rewrite(facts, space, before)?;
                }
                Ok(()) if !self.keeps_product(facts) => return Err(Stop::Conflict),
                done => return done,
            }
        }
        Err(Stop::Conflict)
    }

    /// Whether the dims of a product, which its operands give, are still whole.
    fn keeps_product(&self, facts: &Facts<'_>) -> bool {
        match self.kind {
            Kind::Matmul(step) if self.body.space.has_split() => {
                library::over_product(facts, step, &self.body.space, self.to_loop()).is_some()
            }
            _ => true,
        }
    }

    fn write(&mut self, facts: &Facts<'_>, step: u32) -> Result<(), Stop> {
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

    /// The map to an array with the space's elements, or one for each row.
    pub(super) fn map_to(&self, shape: &[usize], rows: bool) -> Result<Map, Stop> {
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
            Obstacle::Split { dim, inner } => Stop::Split(dim, inner),
            Obstacle::NotAffine => Stop::Conflict,
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

    /// The cluster as a kernel.
    pub(super) fn plan(&self, facts: &Facts<'_>) -> Result<Planned> {
        let (mut slots, params) = (self.body.slots.clone(), self.body.params.clone());
        let mut over = None;
        let kernel = match self.kind {
            Kind::Loop => Kernel::Loop(self.to_loop()),
            Kind::Matmul(step) => {
                Kernel::Matmul(library::matmul(facts, step, &self.body.space, self.to_loop())?)
            }
            Kind::Scatter(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scatter(library::scatter(facts, step)?)
            }
            Kind::Update(step) => {
                over = Some(library::over(facts, step, slots.remove(0)));
                slots.push(Slot::Step(step));
                Kernel::Loop(library::update(facts, step)?)
            }
            Kind::Scan(step) => {
                slots.push(Slot::Step(step));
                Kernel::Scan(library::scan(facts, step)?)
            }
            Kind::Sort(step) => {
                slots.push(Slot::Step(step));
                Kernel::Sort(library::sort(facts, step)?)
            }
        };
        Ok(Planned {
            kernel,
            slots,
            params,
            over,
            members: self.body.members.clone(),
            steps: self.body.steps(),
        })
    }
}

/// Whether a step's expression uses one of these.
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
