//! Running a plan with a graph's own memory and numbers.
//!
//! A result that is another array with some elements replaced takes that array's memory, if nobody else reads it. Until the run is
//! over, the array's node is claimed, so that no other thread's run reads what is being written over. Writing the same part twice
//! gives the same result, since what is written does not depend on what was there: a run that fails may be repeated.

use std::sync::PoisonError;

use smallvec::SmallVec;
use wgrad_device::{Buffer, Device, Error, Executor, Layout, Place, Result, Scalar};

use super::facts::Slot;
use super::{Launch, Over, Plan};
use crate::graph::{Graph, Memory};
use crate::kept::kept;
use crate::node::{NodeRef, Value};

/// The memory of steps, while it is needed.
type StepMemory = Vec<Option<Buffer>>;

impl Plan {
    /// Runs the plan for a graph of its key, and gives the graph's nodes their values. False, with nothing done, if another thread is
    /// writing over an array that it reads; what depends on that array will be there soon.
    pub(super) fn run(&self, graph: &Graph, device: &Device) -> Result<bool> {
        let Some(claims) = self.claim(graph) else { return Ok(false) };
        let kept = kept(device);
        // Nobody reads, and so is told of a bad index of this graph, until this thread has asked for it.
        let _checking = self.checks.then(|| kept.checking.write().unwrap_or_else(PoisonError::into_inner));
        let mut memory: StepMemory = vec![None; self.bytes.len()];
        let done = self.launch(graph, device, &mut memory).and_then(|()| self.finish(graph, device, &memory));
        if done.is_err() {
            self.finish_written_over(graph, &claims, &mut memory);
        }
        done.map(|()| true)
    }

    /// Claims the arrays that may be written over. `None`: another run has one of them.
    fn claim<'g>(&self, graph: &'g Graph) -> Option<Claims<'g>> {
        let mut claims = Claims::default();
        for leaf in self.launches.iter().filter_map(|launch| launch.over.as_ref()?.leaf) {
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
            if let Some(over) = &launch.over {
                let target = self.written_over(over, graph, executor, memory)?;
                memory[over.step as usize] = Some(target);
            }
            let mut places = places(launch, graph, memory)?;
            if let (Some(over), Some(last)) = (&launch.over, places.last_mut())
                && let Scalar::Int(start) = graph.scalars[over.start]
            {
                last.begin += start as usize * over.size;
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
                // Another thread's read was told which.
                return Err(Error::Index { op: "eval", index: 0, size: 0, called_at: None });
            }
        }
        Ok(())
    }

    /// The memory for a result that replaces a part of another: that of the other, or a copy.
    fn written_over(
        &self,
        over: &Over,
        graph: &Graph,
        executor: &dyn Executor,
        memory: &mut StepMemory,
    ) -> Result<Buffer> {
        let bytes = self.bytes[over.step as usize];
        if over.is_free {
            match over.base {
                Slot::Step(step) => {
                    if let Some(buffer) = memory[step as usize].take() {
                        return Ok(buffer);
                    }
                }
                Slot::Leaf(leaf) => {
                    let Memory { buffer, begin, .. } = &graph.memory[leaf as usize];
                    // The graph and the array hold it, and nobody else.
                    if *begin == 0 && buffer.bytes() == bytes && buffer.holders() == 2 {
                        return Ok(buffer.clone());
                    }
                }
            }
        }
        let copy = executor.alloc(bytes)?;
        let base = place(over.base, graph, memory).ok_or_else(broken_plan)?;
        over.copy.launch_at(&[base, Place::from(&copy)], &[])?;
        Ok(copy)
    }

    fn finish(&self, graph: &Graph, device: &Device, memory: &StepMemory) -> Result<()> {
        // Nothing changes until all memory is there.
        let values = self.finished.iter().map(|finished| {
            let layout = &finished.layout;
            let (buffer, layout) = match finished.slot {
                Slot::Leaf(leaf) => {
                    let Memory { buffer, begin, .. } = &graph.memory[leaf as usize];
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

    /// After a run that failed: results whose part was written into the memory of what they replace are there. Nobody may go back
    /// to what was there before.
    fn finish_written_over(&self, graph: &Graph, claims: &Claims<'_>, memory: &mut StepMemory) {
        for over in self.launches.iter().filter_map(|launch| launch.over.as_ref()) {
            let is_base = |&(node, leaf): &(&NodeRef, u32)| {
                let same = |value: &Value, buffer: &Buffer| value.buffer.is_same(buffer);
                over.leaf == Some(leaf)
                    && node.value().zip(memory[over.step as usize].as_ref()).is_some_and(|(v, b)| same(v, b))
            };
            if !claims.0.iter().any(is_base) {
                continue;
            }
            if let (Some(node), Some(buffer)) =
                (graph.nodes.get(over.step as usize), memory[over.step as usize].take())
            {
                let layout = Layout::contiguous(&node.shape);
                node.finish(Value { buffer, layout, bounds: None });
            }
        }
    }
}

/// Arrays that no other run writes over or reads, and which leaves of a graph they are.
#[derive(Default)]
struct Claims<'g>(SmallVec<[(&'g NodeRef, u32); 4]>);

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for (node, _) in &self.0 {
            node.release();
        }
    }
}

/// Where a launch's buffers are.
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
