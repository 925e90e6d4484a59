//! Collecting pending work: from the arrays that are to be computed down to the evaluated arrays that they
//! read.
//!
//! The result is a flat list in topological order with a *cache key*: words that encode everything on which a
//! plan depends, and nothing else. Two graphs with the same key differ only in their buffers and scalars, so
//! one plan serves both.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;
use wgrad_device::layout::Strides;
use wgrad_device::{Buffer, Layout, Scalar};

use crate::node::{Inputs, Node, NodeRef};
use crate::op::{ALIGNED, Op, Operands, View};

/// A pending node, or a leaf, of a collected graph.
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

/// An evaluated array that the work reads.
pub(crate) struct Leaf {
    pub(crate) node: NodeRef,
    /// The position of its memory in [`Graph::memory`].
    pub(crate) memory: u32,
    /// The layout of its elements there.
    pub(crate) layout: Layout,
}

/// Memory in which leaves lie: a buffer from some byte on. That byte is an argument of a run and not part of
/// the key.
pub(crate) struct LeafMemory {
    pub(crate) buffer: Buffer,
    /// The first byte.
    pub(crate) begin: usize,
    /// Whether somebody outside of the graph keeps it alive.
    pub(crate) kept: bool,
}

/// Pending work in topological order: inputs come before their users.
#[derive(Default)]
pub(crate) struct Graph {
    /// The pending nodes.
    pub(crate) nodes: Vec<NodeRef>,
    /// The inputs of all nodes, one node after the other.
    edges: Vec<Ref>,
    /// For each node the position of its first input in `edges`; at the end the number of edges.
    starts: Vec<u32>,
    /// For each node the position of its first scalar in `scalars`.
    pub(crate) first_scalar: Vec<u32>,
    /// The evaluated arrays that the work reads.
    pub(crate) leaves: Vec<Leaf>,
    /// The memory of the leaves, without duplicates.
    pub(crate) memory: Vec<LeafMemory>,
    /// The scalar arguments of all operations.
    pub(crate) scalars: Vec<Scalar>,
    /// The nodes that must be computed.
    pub(crate) roots: Vec<u32>,
    /// For each node whether it is a root.
    pub(crate) is_root: Vec<bool>,
    /// For each node whether somebody outside of the graph holds it, and so may still want its value.
    pub(crate) held: Vec<bool>,
    /// For each node whether an earlier evaluation computed it, or something from which it would be
    /// recomputed, without storing the value.
    pub(crate) visited: Vec<bool>,
    /// Whether the graph reads an array whose data have a fault.
    pub(crate) has_fault: bool,
    /// The cache key: everything on which a plan depends.
    pub(crate) key: Vec<u64>,
}

/// A fast hasher for addresses and cache keys. It does not resist collisions that are chosen on purpose,
/// which nobody can do here.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // The standard library hashes a slice of words as bytes.
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

/// The nodes and the memory that the collection has visited.
#[derive(Default)]
struct Seen {
    /// The nodes by their addresses.
    nodes: HashMap<usize, Ref, BuildHasherDefault<WordHasher>>,
    /// Positions in [`Graph::memory`], by the buffer's address and the first byte in it.
    places: HashMap<(usize, usize), u32, BuildHasherDefault<WordHasher>>,
}

/// An entry of the stack of the depth-first search: a node, its inputs, and how many of them have been
/// visited.
struct VisitFrame {
    node: NodeRef,
    inputs: Inputs,
    done: usize,
    first_scalar: u32,
}

impl Graph {
    /// The pending work on which these nodes depend. All must be on one device.
    pub(crate) fn collect<'a>(roots: impl IntoIterator<Item = &'a NodeRef>) -> Graph {
        Graph::with(roots, Offers::default(), usize::MAX)
    }

    /// The pending work on which `roots` depend, and of the offered nodes those that are to be computed along
    /// with it. `binding` is the largest number of bytes that a kernel of the device can address in one
    /// binding.
    pub(crate) fn with<'a>(
        roots: impl IntoIterator<Item = &'a NodeRef>,
        offers: Offers<'_>,
        binding: usize,
    ) -> Graph {
        let mut graph = SCRATCH.take().unwrap_or_default();
        SEEN.with_borrow_mut(|seen| {
            seen.nodes.clear();
            seen.places.clear();
            // Another thread may have computed some of these in the meantime, or found a fault.
            let pending = |node: &&NodeRef| node.is_pending();
            let roots = roots.into_iter().filter(pending);
            let wanted: SmallVec<[Ref; 8]> = roots.map(|node| graph.visit(node, seen, binding)).collect();
            for node in offers.results.iter().filter(pending) {
                graph.visit(node, seen, binding);
            }
            let mut reads = Reads::default();
            for node in offers.followers.iter().filter(pending) {
                if reads.any_of(node, seen) {
                    graph.visit(node, seen, binding);
                }
            }
            graph.starts.push(graph.edges.len() as u32);
            let offered = offers.results.iter().chain(offers.followers);
            let offered: Vec<Ref> =
                offered.filter_map(|node| seen.nodes.get(&address(node)).copied()).collect();
            let uses = graph.count_uses(&offered);
            graph.note_outside_interest(&uses);
            graph.is_root.resize(graph.nodes.len(), false);
            let asked = wanted.iter().map(|at| (true, at));
            for (asked, at) in asked.chain(offered.iter().map(|at| (false, at))) {
                if let Ref::Node(node) = *at
                    && (asked || graph.held[node as usize])
                    && !std::mem::replace(&mut graph.is_root[node as usize], true)
                {
                    graph.roots.push(node);
                }
            }
        });
        graph.key.extend(graph.roots.iter().map(|&root| u64::from(root)));
        graph
    }

    /// Drops the graph, and keeps the memory of its lists for this thread's next graph.
    pub(crate) fn recycle(mut self) {
        self.nodes.clear();
        self.edges.clear();
        self.starts.clear();
        self.first_scalar.clear();
        self.leaves.clear();
        self.memory.clear();
        self.scalars.clear();
        self.roots.clear();
        self.is_root.clear();
        self.held.clear();
        self.visited.clear();
        self.has_fault = false;
        self.key.clear();
        SCRATCH.set(Some(self));
    }

    /// Sets each node's depth to the exact length of the longest chain of pending operations that ends there.
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

    fn visit(&mut self, root: &NodeRef, seen: &mut Seen, binding: usize) -> Ref {
        let mut stack: SmallVec<[VisitFrame; 8]> = SmallVec::new();
        let mut result = match self.enter(root, seen, &mut stack, binding) {
            Some(known) => return known,
            None => Ref::Node(0),
        };
        while let Some(top) = stack.len().checked_sub(1) {
            if let Some(input) = stack[top].inputs.get(stack[top].done).cloned() {
                stack[top].done += 1;
                self.enter(&input, seen, &mut stack, binding);
                continue;
            }
            let Some(frame) = stack.pop() else { break };
            result = Ref::Node(self.nodes.len() as u32);
            self.starts.push(self.edges.len() as u32);
            self.first_scalar.push(frame.first_scalar);
            self.key.push(frame.inputs.len() as u64);
            for input in &frame.inputs {
                let input = seen.nodes[&address(input)];
                self.edges.push(input);
                self.key.push(input.word());
            }
            seen.nodes.insert(address(&frame.node), result);
            self.nodes.push(frame.node);
        }
        result
    }

    /// Pushes a pending node that has not been visited onto the stack, and returns `None`. Any other node is
    /// returned: a visited one, or a leaf, which is added to the graph.
    fn enter(
        &mut self,
        node: &NodeRef,
        seen: &mut Seen,
        stack: &mut SmallVec<[VisitFrame; 8]>,
        binding: usize,
    ) -> Option<Ref> {
        if let Some(&known) = seen.nodes.get(&address(node)) {
            return Some(known);
        }
        if node.is_pending()
            && let Some(work) = node.work().as_ref()
        {
            let first_scalar = self.scalars.len() as u32;
            self.encode(node, &work.op);
            stack.push(VisitFrame { node: node.clone(), inputs: work.inputs.clone(), done: 0, first_scalar });
            return None;
        }
        let leaf = self.leaf(node, seen, binding);
        seen.nodes.insert(address(node), leaf);
        Some(leaf)
    }

    fn leaf(&mut self, node: &NodeRef, seen: &mut Seen, binding: usize) -> Ref {
        let leaf = Ref::Leaf(self.leaves.len() as u32);
        // A node that is not pending has a value or a fault.
        let Some(value) = node.value() else {
            self.has_fault = true;
            self.leaves.push(Leaf { node: node.clone(), memory: 0, layout: Layout::contiguous(&node.shape) });
            return leaf;
        };
        let (begin, layout) = placed(&value.layout, node.dtype.size(), binding);
        let next = self.memory.len() as u32;
        let memory = *seen.places.entry((value.buffer.address(), begin)).or_insert(next);
        if memory == next {
            self.memory.push(LeafMemory { buffer: value.buffer.clone(), begin, kept: false });
        }
        self.key.push(word(255, node.dtype as u64, node.shape.len(), u64::from(memory)));
        self.key.push(layout.offset() as u64);
        self.key.extend(layout.shape().iter().map(|&n| n as u64));
        self.key.extend(layout.strides().iter().map(|&n| n as u64));
        self.leaves.push(Leaf { node: node.clone(), memory, layout });
        leaf
    }

    /// Adds a node's operation to the key, and its scalar arguments to the scalars.
    fn encode(&mut self, node: &Node, op: &Op) {
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
                (9, *op as u64 * 128 + dims.len() as u64)
            }
            Op::View(View::Reshape) => (10, 0),
            Op::View(View::Pad { before }) => {
                self.key.extend(before.iter().map(|&n| n as u64));
                (11, before.len() as u64)
            }
            Op::View(View::Affine(axes)) => {
                for axis in axes {
                    self.key.push(axis.offset as u64);
                    self.key.push(axis.terms.len() as u64);
                    self.key.extend(axis.terms.iter().flat_map(|&(dim, step)| [step as u64, dim as u64]));
                }
                (12, axes.len() as u64)
            }
            Op::Matmul => (13, 0),
            Op::Gather { dim, name, checked } => {
                self.name(name);
                (14, u64::from(*checked) * 64 + *dim as u64)
            }
            Op::Scatter { op, dim, name, checked } => {
                self.name(name);
                (15, *op as u64 * 128 + u64::from(*checked) * 64 + *dim as u64)
            }
            Op::Scan { op, dim } => (16, *op as u64 * 64 + *dim as u64),
            Op::Sort { dim, descending, first } => {
                self.key.push(*first as u64);
                (17, u64::from(*descending) * 64 + *dim as u64)
            }
            Op::Update { start, beyond } => {
                self.scalars.push(Scalar::Int(*start as i64));
                (18, *beyond as u64)
            }
        };
        self.key[header] = word(code, node.dtype as u64, node.shape.len(), detail);
        self.key.extend(node.shape.iter().map(|&n| n as u64));
    }

    /// Adds a name to the key.
    fn name(&mut self, name: &str) {
        self.key.push(name.len() as u64);
        self.key.extend(name.as_bytes().chunks(8).map(|part| {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            u64::from_le_bytes(word)
        }));
    }

    /// How often each node and each leaf is held by the graph and by those who offered it. A node that has
    /// more handles is held by somebody outside.
    fn count_uses(&self, offered: &[Ref]) -> Uses {
        // One use is this graph's own handle.
        let mut uses = Uses { nodes: vec![1; self.nodes.len()], leaves: vec![1; self.leaves.len()] };
        for at in self.edges.iter().chain(offered) {
            match at {
                Ref::Node(node) => uses.nodes[*node as usize] += 1,
                Ref::Leaf(leaf) => uses.leaves[*leaf as usize] += 1,
            }
        }
        uses
    }

    /// Finds out which nodes and which memory are held outside of this graph, and adds that to the key.
    fn note_outside_interest(&mut self, uses: &Uses) {
        for (leaf, &uses) in self.leaves.iter().zip(&uses.leaves) {
            if let Some(memory) = self.memory.get_mut(leaf.memory as usize) {
                memory.kept |= leaf.node.holders() > uses;
            }
        }
        let mut bits = BitPacker::default();
        for (i, node) in self.nodes.iter().enumerate() {
            let held = node.holders() > uses.nodes[i];
            let inherited = self.edges[self.starts[i] as usize..self.starts[i + 1] as usize]
                .iter()
                .any(|edge| matches!(edge, Ref::Node(node) if self.visited[*node as usize]));
            let visited = inherited || node.was_visited();
            self.held.push(held);
            self.visited.push(visited);
            bits.push(held, &mut self.key);
            bits.push(held && visited, &mut self.key);
        }
        for memory in &self.memory {
            bits.push(memory.kept, &mut self.key);
        }
        self.key.push(bits.word);
    }
}

/// How often each node and each leaf of a graph is held by the graph itself.
struct Uses {
    nodes: Vec<usize>,
    leaves: Vec<usize>,
}

/// Pending nodes that may be computed along with a graph. A node is computed only if somebody else than the
/// one who offers it holds it, too.
#[derive(Clone, Copy, Default)]
pub(crate) struct Offers<'a> {
    /// Nodes that are computed in any case.
    pub(crate) results: &'a [NodeRef],
    /// Nodes that are computed if they depend on a node of the graph.
    pub(crate) followers: &'a [NodeRef],
}

/// The nodes for which it is known whether they depend on a node of the graph.
#[derive(Default)]
struct Reads(HashMap<usize, bool, BuildHasherDefault<WordHasher>>);

impl Reads {
    /// Whether a node depends, directly or through others, on a node of the graph.
    fn any_of(&mut self, node: &NodeRef, seen: &Seen) -> bool {
        let mut stack: Vec<(NodeRef, Inputs, usize)> = Vec::new();
        let mut found = self.look(node, seen, &mut stack);
        while let Some((node, inputs, next)) = stack.last_mut() {
            if found != Some(true)
                && let Some(input) = inputs.get(*next).cloned()
            {
                *next += 1;
                found = self.look(&input, seen, &mut stack);
                continue;
            }
            let reads = found == Some(true);
            self.0.insert(address(node), reads);
            found = Some(reads);
            stack.pop();
        }
        found == Some(true)
    }

    /// Whether a node depends on a node of the graph, if that is known. Otherwise the node is pushed onto the
    /// stack.
    fn look(
        &mut self,
        node: &NodeRef,
        seen: &Seen,
        stack: &mut Vec<(NodeRef, Inputs, usize)>,
    ) -> Option<bool> {
        match seen.nodes.get(&address(node)) {
            Some(Ref::Node(_)) => return Some(true),
            Some(Ref::Leaf(_)) => return Some(false),
            None => {}
        }
        if let Some(&known) = self.0.get(&address(node)) {
            return Some(known);
        }
        let inputs = match node.work().as_ref() {
            Some(work) => work.inputs.clone(),
            None => return Some(false),
        };
        stack.push((node.clone(), inputs, 0));
        None
    }
}

/// The byte of the buffer at which a leaf's memory begins, and the leaf's layout relative to it. Only the
/// layout is part of the key, so that a training loop over slices of one array has the same key for each
/// slice.
fn placed(layout: &Layout, size: usize, binding: usize) -> (usize, Layout) {
    let ends = layout.shape().iter().zip(layout.strides()).map(|(&n, &s)| s * (n.max(1) as isize - 1));
    let below: isize = ends.clone().filter(|&end| end < 0).sum();
    let reach: usize = ends.map(isize::unsigned_abs).sum();
    // The offset of an empty array may lie anywhere, and an array that one binding cannot reach is not moved.
    if reach.saturating_add(ALIGNED).saturating_mul(size).saturating_add(512) > binding
        || layout.shape().contains(&0)
    {
        return (0, layout.clone());
    }
    let first = layout.offset().saturating_add_signed(below);
    let begin = first - first % ALIGNED;
    let strides: Strides = layout.strides().into();
    (begin * size, Layout::new(layout.shape(), &strides, layout.offset() - begin))
}

/// Packs booleans into words of a key.
#[derive(Default)]
struct BitPacker {
    word: u64,
    used: u32,
}

impl BitPacker {
    fn push(&mut self, bit: bool, into: &mut Vec<u64>) {
        self.word = self.word << 1 | u64::from(bit);
        self.used += 1;
        if self.used == 64 {
            into.push(self.word);
            *self = BitPacker::default();
        }
    }
}

fn address(node: &NodeRef) -> usize {
    Arc::as_ptr(node) as usize
}

fn word(code: u64, dtype: u64, rank: usize, detail: u64) -> u64 {
    code | dtype << 8 | (rank as u64) << 16 | detail << 32
}
