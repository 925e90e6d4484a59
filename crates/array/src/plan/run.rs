//! Running a plan with a graph's own buffers and scalars.
//!
//! An update's result is an array with some elements replaced. It takes over that array's memory if nothing
//! else reads it. During such a run the array's node is claimed, so that no other thread's run reads memory
//! that is being overwritten. The values that are written do not depend on the old ones, so a run that failed
//! half-way may be repeated.

use std::sync::PoisonError;

use smallvec::SmallVec;
use wgrad_device::{Buffer, Device, Error, Executor, Layout, Place, Result, Scalar};

use super::facts::Slot;
use super::{Launch, Overwrite, Plan};
use crate::graph::{Graph, LeafMemory};
use crate::kept::kept;
use crate::node::{NodeRef, Value};

/// For each step its memory, as long as it is allocated.
type StepMemory = Vec<Option<Buffer>>;

impl Plan {
    /// Runs the plan for a graph with its key, and gives the graph's nodes their values. False, with nothing
    /// done, if another thread is overwriting an array that the graph reads; that thread's results will be
    /// there soon.
    pub(super) fn run(&self, graph: &Graph, device: &Device) -> Result<bool> {
        let Some(claims) = self.claim(graph) else { return Ok(false) };
        let kept = kept(device);
        // Reading would report a bad index of this graph to another thread, so nobody reads before this
        // thread has asked.
        let _checking = self.checks.then(|| kept.checking.write().unwrap_or_else(PoisonError::into_inner));
        let mut memory: StepMemory = vec![None; self.bytes.len()];
        let done = self.launch(graph, device, &mut memory).and_then(|()| self.finish(graph, device, &memory));
        if done.is_err() {
            self.finish_overwritten(graph, &claims, &mut memory);
        }
        done.map(|()| true)
    }

    /// Claims the arrays that may be overwritten. `None` if another run has claimed one of them.
    fn claim<'g>(&self, graph: &'g Graph) -> Option<Claims<'g>> {
        let mut claims = Claims::default();
        for leaf in self.launches.iter().filter_map(|launch| launch.overwrite.as_ref()?.leaf) {
            let node = &graph.leaves[leaf as usize].node;
            if !claims.0.iter().any(|(claimed, _)| std::sync::Arc::ptr_eq(claimed, node)) {
                if !node.claim() {
                    return None;
                }
                claims.0.push((node, leaf));
            }
        }
        Some(claims)
    }

    fn launch(&self, graph: &Graph, device: &Device, memory: &mut StepMemory) -> Result<()> {
        let executor = device.executor();
        let before = executor.index_failures();
        let mut params: SmallVec<[Scalar; 8]> = SmallVec::new();
        for launch in &self.launches {
            for &step in &launch.makes {
                memory[step as usize] = Some(executor.alloc(self.bytes[step as usize])?);
            }
            if let Some(overwrite) = &launch.overwrite {
                let target = self.overwritten(overwrite, graph, executor, memory)?;
                memory[overwrite.step as usize] = Some(target);
            }
            let mut places = places(launch, graph, memory)?;
            if let (Some(overwrite), Some(last)) = (&launch.overwrite, places.last_mut())
                && let Scalar::Int(start) = graph.scalars[overwrite.start]
            {
                last.begin += start as usize * overwrite.size;
            }
            params.clear();
            params.extend(launch.params.iter().map(|&scalar| graph.scalars[scalar as usize]));
            launch.kernel.launch_at(&places, &params)?;
            drop(places);
            for &step in &launch.drops {
                memory[step as usize] = None;
            }
        }
        if self.checks {
            executor.check_indices()?;
            if executor.index_failures() != before {
                // The details were reported to another thread's read.
                return Err(Error::Index { op: "eval", index: 0, size: 0, called_at: None });
            }
        }
        Ok(())
    }

    /// The memory for an update's result: the memory of the array that it replaces, or a copy of it.
    fn overwritten(
        &self,
        overwrite: &Overwrite,
        graph: &Graph,
        executor: &dyn Executor,
        memory: &mut StepMemory,
    ) -> Result<Buffer> {
        let bytes = self.bytes[overwrite.step as usize];
        if overwrite.is_free {
            match overwrite.base {
                Slot::Step(step) => {
                    if let Some(buffer) = memory[step as usize].take() {
                        return Ok(buffer);
                    }
                }
                Slot::Leaf(leaf) => {
                    let LeafMemory { buffer, begin, .. } = &graph.memory[leaf as usize];
                    // The two holders are the graph and the array.
                    if *begin == 0 && buffer.bytes() == bytes && buffer.holders() == 2 {
                        return Ok(buffer.clone());
                    }
                }
            }
        }
        let copy = executor.alloc(bytes)?;
        let base = place(overwrite.base, graph, memory).ok_or_else(broken_plan)?;
        overwrite.copy.launch_at(&[base, Place::from(&copy)], &[])?;
        Ok(copy)
    }

    fn finish(&self, graph: &Graph, device: &Device, memory: &StepMemory) -> Result<()> {
        // No node gets its value before all allocations have succeeded.
        let values = self.finished.iter().map(|finished| {
            let layout = &finished.layout;
            let (buffer, layout) = match finished.slot {
                Slot::Leaf(leaf) => {
                    let LeafMemory { buffer, begin, .. } = &graph.memory[leaf as usize];
                    let begin = begin / graph.nodes[finished.node as usize].dtype.size();
                    let offset = layout.offset() + begin;
                    (buffer.clone(), Layout::new(layout.shape(), layout.strides(), offset))
                }
                Slot::Step(step) => match &memory[step as usize] {
                    Some(buffer) => (buffer.clone(), layout.clone()),
                    None => (device.executor().alloc(self.bytes[step as usize])?, layout.clone()),
                },
            };
            Ok(Value { buffer, layout, bounds: None })
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        for (finished, value) in self.finished.iter().zip(values) {
            graph.nodes[finished.node as usize].finish(value);
        }
        for &node in &self.passed {
            graph.nodes[node as usize].mark_visited();
        }
        Ok(())
    }

    /// After a run that failed: gives their values to the updates that have already overwritten the old
    /// array's memory. The old array no longer has its content, so nobody may fall back to it.
    fn finish_overwritten(&self, graph: &Graph, claims: &Claims<'_>, memory: &mut StepMemory) {
        for overwrite in self.launches.iter().filter_map(|launch| launch.overwrite.as_ref()) {
            let step = overwrite.step as usize;
            let is_base = |&(node, leaf): &(&NodeRef, u32)| {
                let same = |value: &Value, buffer: &Buffer| value.buffer.is_same(buffer);
                overwrite.leaf == Some(leaf)
                    && node.value().zip(memory[step].as_ref()).is_some_and(|(v, b)| same(v, b))
            };
            if !claims.0.iter().any(is_base) {
                continue;
            }
            if let (Some(node), Some(buffer)) = (graph.nodes.get(step), memory[step].take()) {
                let layout = Layout::contiguous(&node.shape);
                node.finish(Value { buffer, layout, bounds: None });
            }
        }
    }
}

/// Claimed arrays, which no other run overwrites or reads, with their positions among a graph's leaves.
/// Dropping them ends the claims.
#[derive(Default)]
struct Claims<'g>(SmallVec<[(&'g NodeRef, u32); 4]>);

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for (node, _) in &self.0 {
            node.release();
        }
    }
}

/// The memory of a launch's buffers.
fn places<'a>(launch: &Launch, graph: &'a Graph, memory: &'a StepMemory) -> Result<SmallVec<[Place<'a>; 8]>> {
    launch.buffers.iter().map(|&slot| place(slot, graph, memory).ok_or_else(broken_plan)).collect()
}

fn place<'a>(slot: Slot, graph: &'a Graph, memory: &'a StepMemory) -> Option<Place<'a>> {
    match slot {
        Slot::Leaf(leaf) => {
            let memory = graph.memory.get(leaf as usize)?;
            Some(Place { buffer: &memory.buffer, begin: memory.begin })
        }
        Slot::Step(step) => Some(Place::from(memory[step as usize].as_ref()?)),
    }
}

fn broken_plan() -> Error {
    Error::Unsupported {
        op: "eval",
        reason: "a kernel reads memory that was never written; please report this".into(),
    }
}
