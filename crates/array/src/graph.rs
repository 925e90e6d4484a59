//! Collecting pending work: from the arrays that somebody wants to the values that are there.
//!
//! The result is a flat list in topological order with a *key*: words that say everything a plan depends on, and
//! nothing else. Two graphs of one key differ in their buffers and scalars only, so one plan serves both.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use wgrad_device::{Buffer, Scalar};

use crate::Array;
use crate::array::Inputs;
use crate::op::{Op, Operands, View};

/// A pending node or a leaf of a collected graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ref {
    /// Position in [`Graph::nodes`].
    Node(u32),
    /// Position in [`Graph::leaves`].
    Leaf(u32),
}

impl Ref {
    fn word(self) -> u64 {
        match self {
            Ref::Node(i) => u64::from(i) << 1,
            Ref::Leaf(i) => u64::from(i) << 1 | 1,
        }
    }
}

/// Pending work in topological order: inputs come before their users.
#[derive(Default)]
pub(crate) struct Graph {
    /// The pending nodes.
    pub(crate) nodes: Vec<Array>,
    /// The inputs of all nodes, one after the other.
    edges: Vec<Ref>,
    /// Where each node's inputs start in `edges`, and one past the end.
    starts: Vec<u32>,
    /// Where each node's scalars start in `scalars`.
    pub(crate) first_scalar: Vec<u32>,
    /// Evaluated arrays that the work reads.
    pub(crate) leaves: Vec<Array>,
    /// For each leaf, which of `buffers` it lies in.
    pub(crate) leaf_buffer: Vec<u32>,
    /// The leaves' memory, each once.
    pub(crate) buffers: Vec<Buffer>,
    /// The numbers of all operations.
    pub(crate) scalars: Vec<Scalar>,
    /// The nodes that must be computed.
    pub(crate) roots: Vec<u32>,
    /// For each node: somebody outside of the graph may still want it.
    pub(crate) held: Vec<bool>,
    /// For each of `buffers`: somebody outside of the graph keeps it alive.
    pub(crate) kept: Vec<bool>,
    /// For each node: an earlier evaluation passed over it, or over something that it would be recomputed from.
    pub(crate) visited: Vec<bool>,
    /// Everything that a plan depends on.
    pub(crate) key: Vec<u64>,
}

/// A fast hasher for words that nobody chooses to harm us: addresses and keys.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // Slices of words arrive as their bytes.
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
    static SCRATCH: Cell<Option<Graph>> = const { Cell::new(None) };
}

type Seen = HashMap<usize, Ref, BuildHasherDefault<WordHasher>>;

/// A node on the way down: its inputs, and how many of them are done.
struct Frame {
    array: Array,
    inputs: Inputs,
    done: usize,
    first_scalar: u32,
}

impl Graph {
    /// Everything pending that these arrays need. They must be of one device.
    pub(crate) fn collect(arrays: &[&Array]) -> Graph {
        let mut graph = SCRATCH.take().unwrap_or_default();
        SEEN.with_borrow_mut(|seen| {
            seen.clear();
            for array in arrays {
                if let Ref::Node(root) = graph.visit(array, seen)
                    && !graph.roots.contains(&root)
                {
                    graph.roots.push(root);
                }
            }
        });
        graph.starts.push(graph.edges.len() as u32);
        graph.note_outside_interest();
        graph
    }

    /// Lets go of the graph, keeping its lists' memory for this thread's next one.
    pub(crate) fn recycle(mut self) {
        self.nodes.clear();
        self.edges.clear();
        self.starts.clear();
        self.first_scalar.clear();
        self.leaves.clear();
        self.leaf_buffer.clear();
        self.buffers.clear();
        self.scalars.clear();
        self.roots.clear();
        self.held.clear();
        self.kept.clear();
        self.visited.clear();
        self.key.clear();
        SCRATCH.set(Some(self));
    }

    /// Tells each node how long the chain of pending operations before it is.
    pub(crate) fn measure_depths(&self) {
        for (i, node) in self.nodes.iter().enumerate() {
            let below = self.inputs(i as u32).iter().map(|input| match input {
                Ref::Node(input) => self.nodes[*input as usize].depth(),
                Ref::Leaf(_) => 0,
            });
            node.set_depth(1 + below.max().unwrap_or(0));
        }
    }

    /// The inputs of a node.
    pub(crate) fn inputs(&self, node: u32) -> &[Ref] {
        &self.edges[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    fn visit(&mut self, root: &Array, seen: &mut Seen) -> Ref {
        let mut stack: SmallVec<[Frame; 8]> = SmallVec::new();
        let mut result = match self.enter(root, seen, &mut stack) {
            Some(known) => return known,
            None => Ref::Node(0),
        };
        while let Some(top) = stack.len().checked_sub(1) {
            if let Some(input) = stack[top].inputs.get(stack[top].done).cloned() {
                stack[top].done += 1;
                self.enter(&input, seen, &mut stack);
                continue;
            }
            let Some(frame) = stack.pop() else { break };
            result = Ref::Node(self.nodes.len() as u32);
            self.starts.push(self.edges.len() as u32);
            self.first_scalar.push(frame.first_scalar);
            self.key.push(frame.inputs.len() as u64);
            for input in &frame.inputs {
                let input = seen[&pointer(input)];
                self.edges.push(input);
                self.key.push(input.word());
            }
            seen.insert(pointer(&frame.array), result);
            self.nodes.push(frame.array);
        }
        result
    }

    /// Puts a node that has not been seen on the stack, or takes it in as a leaf; else says what it is.
    fn enter(&mut self, array: &Array, seen: &mut Seen, stack: &mut SmallVec<[Frame; 8]>) -> Option<Ref> {
        if let Some(&known) = seen.get(&pointer(array)) {
            return Some(known);
        }
        if !array.is_evaluated()
            && let Some(work) = array.work().as_ref()
        {
            let first_scalar = self.scalars.len() as u32;
            self.encode(array, &work.op);
            stack.push(Frame { array: array.clone(), inputs: work.inputs.clone(), done: 0, first_scalar });
            return None;
        }
        let leaf = self.leaf(array, seen);
        seen.insert(pointer(array), leaf);
        Some(leaf)
    }

    fn leaf(&mut self, array: &Array, seen: &mut Seen) -> Ref {
        let leaf = Ref::Leaf(self.leaves.len() as u32);
        // An array that is not pending has a value.
        if let Some(value) = array.value() {
            let next = self.buffers.len() as u32;
            // Buffers and nodes are different allocations, so their addresses share the map.
            let buffer = match seen.entry(value.buffer.address()).or_insert(Ref::Leaf(next)) {
                Ref::Leaf(buffer) | Ref::Node(buffer) => *buffer,
            };
            if buffer == next {
                self.buffers.push(value.buffer.clone());
            }
            self.leaf_buffer.push(buffer);
            let layout = &value.layout;
            self.key.push(word(255, array.dtype() as u64, array.rank(), u64::from(buffer)));
            self.key.push(layout.offset() as u64);
            self.key.extend(layout.shape().iter().map(|&n| n as u64));
            self.key.extend(layout.strides().iter().map(|&n| n as u64));
        }
        self.leaves.push(array.clone());
        leaf
    }

    /// Adds what a node computes to the key, and its numbers to the scalars.
    fn encode(&mut self, array: &Array, op: &Op) {
        let header = self.key.len();
        self.key.push(0);
        let (code, detail) = match op {
            Op::Full(value) => {
                self.scalars.push(*value);
                (1, 0)
            }
            Op::Coordinate { dim } => (2, *dim as u64),
            Op::Random { kind, seed, stream } => {
                for number in [*seed, *seed >> 32, *stream, *stream >> 32] {
                    self.scalars.push(Scalar::Int((number & 0xffff_ffff) as i64));
                }
                (3, *kind as u64)
            }
            Op::Copy => (4, 0),
            Op::Store => (4, 1),
            Op::Unary(op) => (5, *op as u64),
            Op::Binary(op, operands) => {
                let form = match operands {
                    Operands::Arrays => 0,
                    Operands::ArrayScalar(number) => {
                        self.scalars.push(*number);
                        1
                    }
                    Operands::ScalarArray(number) => {
                        self.scalars.push(*number);
                        2
                    }
                };
                (6, *op as u64 * 4 + form)
            }
            Op::Select(a, b) => {
                self.scalars.extend(a.iter().chain(b));
                (7, u64::from(a.is_some()) * 2 + u64::from(b.is_some()))
            }
            Op::Cast => (8, 0),
            Op::Reduce { op, dims } => {
                self.key.extend(dims.iter().map(|&d| d as u64));
                (9, *op as u64 * 64 + dims.len() as u64)
            }
            Op::View(View::Reshape) => (10, 0),
            Op::View(View::Pad { before }) => {
                self.key.extend(before.iter().map(|&n| n as u64));
                (11, before.len() as u64)
            }
            Op::View(View::Affine(axes)) => {
                for axis in axes {
                    self.key.push((axis.offset as u64) << 3 | axis.terms.len() as u64);
                    self.key.extend(axis.terms.iter().map(|&(dim, step)| (step as u64) << 8 | dim as u64));
                }
                (12, axes.len() as u64)
            }
            Op::Matmul => (13, 0),
            Op::Gather { dim, name } => {
                self.key.push(name.as_ptr() as u64);
                (14, *dim as u64)
            }
            Op::Scatter { op, dim, name } => {
                self.key.push(name.as_ptr() as u64);
                (15, *op as u64 * 64 + *dim as u64)
            }
            Op::Scan { op, dim } => (16, *op as u64 * 64 + *dim as u64),
            Op::Sort { dim, descending, first } => {
                self.key.push(*first as u64);
                (17, u64::from(*descending) * 64 + *dim as u64)
            }
        };
        self.key[header] = word(code, array.dtype() as u64, array.rank(), detail);
        self.key.extend(array.shape().iter().map(|&n| n as u64));
    }

    /// Finds out which nodes and buffers are held by more than this graph.
    fn note_outside_interest(&mut self) {
        // One use is this graph's own handle.
        let mut uses = vec![1usize; self.nodes.len()];
        let mut leaf_uses = vec![1usize; self.leaves.len()];
        for edge in &self.edges {
            match edge {
                Ref::Node(node) => uses[*node as usize] += 1,
                Ref::Leaf(leaf) => leaf_uses[*leaf as usize] += 1,
            }
        }
        self.kept.resize(self.buffers.len(), false);
        for ((leaf, &buffer), uses) in self.leaves.iter().zip(&self.leaf_buffer).zip(leaf_uses) {
            self.kept[buffer as usize] |= Arc::strong_count(&leaf.0) > uses;
        }
        let mut bits = Bits::default();
        for (i, array) in self.nodes.iter().enumerate() {
            let held = Arc::strong_count(&array.0) > uses[i];
            let inherited = self.edges[self.starts[i] as usize..self.starts[i + 1] as usize]
                .iter()
                .any(|edge| matches!(edge, Ref::Node(node) if self.visited[*node as usize]));
            let visited = inherited || array.0.visited.load(Ordering::Relaxed);
            self.held.push(held);
            self.visited.push(visited);
            bits.push(held, &mut self.key);
            bits.push(held && visited, &mut self.key);
        }
        for &kept in &self.kept {
            bits.push(kept, &mut self.key);
        }
        self.key.push(bits.word);
        self.key.extend(self.roots.iter().map(|&root| u64::from(root)));
    }
}

/// Packs truth values into words.
#[derive(Default)]
struct Bits {
    word: u64,
    used: u32,
}

impl Bits {
    fn push(&mut self, bit: bool, into: &mut Vec<u64>) {
        self.word = self.word << 1 | u64::from(bit);
        self.used += 1;
        if self.used == 64 {
            into.push(self.word);
            *self = Bits::default();
        }
    }
}

fn pointer(array: &Array) -> usize {
    Arc::as_ptr(&array.0) as usize
}

fn word(code: u64, dtype: u64, rank: usize, detail: u64) -> u64 {
    code | dtype << 8 | (rank as u64) << 16 | detail << 32
}
