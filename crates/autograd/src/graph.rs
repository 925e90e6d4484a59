//! [`GradFn`]: a node of the graph, seen from outside; walks over the graph, and the graph as text.

use std::collections::HashMap;
use std::fmt::Write;
use std::panic::Location;

use wgrad_array::DType;

use crate::tape::{Edge, NodeKey, NodeRef};

/// The most levels of a tree of text: the lines of a deeper one would be longer than anybody reads.
const MOST_LEVELS: usize = 1000;

/// A node of the graph: the operation that made a tensor; `grad_fn`. Holding it keeps the node and what is behind it.
#[derive(Clone, PartialEq)]
pub struct GradFn {
    node: NodeRef,
}

/// What is known of a node besides its name and its edges.
#[derive(Clone, Debug, PartialEq)]
pub struct GradFnMetadata {
    /// The line of the program that called the operation.
    pub called_at: Option<&'static Location<'static>>,
    /// The shape and the dtype of each output.
    pub outputs: Vec<(Vec<usize>, DType)>,
    /// Bytes of the values that are saved for backward, were they all in memory. A value that several nodes saved counts for each; most
    /// are never stored, but computed again in the backward's kernels.
    pub saved_bytes: usize,
}

impl GradFn {
    pub(crate) fn new(edge: Edge) -> GradFn {
        GradFn { node: edge.node }
    }

    pub(crate) fn node(&self) -> &NodeRef {
        &self.node
    }

    /// PyTorch's name for it: `MulBackward0`, or `AccumulateGrad` for a leaf.
    pub fn name(&self) -> &'static str {
        self.node.with(|node| node.name)
    }

    /// For each input of the operation, the node its gradient goes to and which of that node's outputs it is; `None`
    /// for an input without gradient.
    pub fn next_functions(&self) -> Vec<Option<(GradFn, usize)>> {
        let edges = self.node.with(|node| node.edges.clone());
        edges.into_iter().map(|edge| edge.map(|e| (GradFn { node: e.node }, e.output as usize))).collect()
    }

    /// The node's place in the order of recording: later ones have larger numbers.
    pub fn sequence_number(&self) -> u64 {
        self.node.with(|node| node.sequence)
    }

    /// What else is known of the node.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::zeros([4, 3], &Device::cpu())?.requires_grad_(true)?;
    /// let about = x.exp()?.grad_fn().expect("it was recorded").metadata();
    /// assert_eq!(about.outputs[0].0, [4, 3]);
    /// assert_eq!(about.saved_bytes, 4 * 3 * 4);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn metadata(&self) -> GradFnMetadata {
        self.node.with(|node| GradFnMetadata {
            called_at: node.called_at,
            outputs: node.outputs.iter().map(|meta| (meta.shape.to_vec(), meta.dtype)).collect(),
            saved_bytes: node
                .saved
                .iter()
                .filter_map(|saved| saved.array.as_ref())
                .map(|array| array.elements().saturating_mul(array.dtype().size()))
                .fold(0, usize::saturating_add),
        })
    }

    /// This node and all that are behind it, each once, in the order in which a search in breadth meets them.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 2.0], &Device::cpu())?.requires_grad_(true)?;
    /// let y = x.square()?.mul(&x)?.sum()?;
    /// let names: Vec<_> = y.grad_fn().unwrap().walk().iter().map(|node| node.name()).collect();
    /// assert_eq!(names, ["SumBackward0", "MulBackward0", "PowBackward0", "AccumulateGrad"]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn walk(&self) -> Vec<GradFn> {
        let mut seen: HashMap<NodeKey, usize> = HashMap::from([(self.node.key(), 0)]);
        let mut nodes = vec![self.clone()];
        let mut at = 0;
        while at < nodes.len() {
            for (next, _) in nodes[at].next_functions().into_iter().flatten() {
                let number = nodes.len();
                seen.entry(next.node.key()).or_insert_with(|| {
                    nodes.push(next);
                    number
                });
            }
            at += 1;
        }
        nodes
    }

    /// The graph behind this node in the language of Graphviz, an arrow for each way that a gradient goes.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 2.0], &Device::cpu())?.requires_grad_(true)?;
    /// let dot = x.square()?.sum()?.grad_fn().unwrap().to_dot();
    /// assert!(dot.starts_with("digraph"));
    /// assert!(dot.contains("SumBackward0"));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let nodes = self.walk();
        let numbers: HashMap<NodeKey, usize> =
            nodes.iter().enumerate().map(|(number, node)| (node.node.key(), number)).collect();
        let mut text = String::from("digraph gradients {\n  node [shape=box, fontname=monospace];\n");
        for (number, node) in nodes.iter().enumerate() {
            let _ = writeln!(text, "  n{number} [label=\"{}\"];", node.described("\\n"));
            for (next, output) in node.next_functions().into_iter().flatten() {
                let label = if output > 0 { format!(" [label=\"{output}\"]") } else { String::new() };
                let _ = writeln!(text, "  n{number} -> n{}{label};", numbers[&next.node.key()]);
            }
        }
        text.push_str("}\n");
        text
    }

    /// The graph behind this node as a tree for a terminal, a line for each way that a gradient goes. A node that was shown before is
    /// named only, with an arrow to its number; of a deep graph the first `depth` levels are shown, at most 1,000.
    ///
    /// ```
    /// use wgrad::{Device, Tensor};
    /// let x = Tensor::new([1.0, 2.0], &Device::cpu())?.requires_grad_(true)?;
    /// let y = x.square()?.mul(&x)?;
    /// let tree = y.grad_fn().unwrap().to_tree(10);
    /// assert_eq!(
    ///     tree.lines().map(|line| line.split(" f32").next().unwrap()).collect::<Vec<_>>(),
    ///     ["1 MulBackward0", "├─ 2 PowBackward0", "│  └─ 3 AccumulateGrad", "└─ ↑3 AccumulateGrad"]
    /// );
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn to_tree(&self, depth: usize) -> String {
        let mut tree = Tree { text: String::new(), numbers: HashMap::new(), depth: depth.min(MOST_LEVELS) };
        // Nodes that wait: what is written before each, the lines of its children, its level.
        let mut stack = vec![(self.clone(), String::new(), String::new(), 0)];
        while let Some((node, lead, below, level)) = stack.pop() {
            if !tree.line(&node, &lead) || level >= tree.depth {
                continue;
            }
            let children: Vec<GradFn> =
                node.next_functions().into_iter().flatten().map(|next| next.0).collect();
            let count = children.len();
            for (at, child) in children.into_iter().enumerate().rev() {
                let (branch, rest) = if at + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                stack.push((child, format!("{below}{branch}"), format!("{below}{rest}"), level + 1));
            }
        }
        tree.text
    }

    /// The name, and what is known of the node.
    fn described(&self, separator: &str) -> String {
        let about = self.metadata();
        let mut text = self.name().to_owned();
        for (shape, dtype) in &about.outputs {
            let _ = write!(text, "{separator}{dtype}{shape:?}");
        }
        if about.saved_bytes > 0 {
            let _ = write!(text, "{separator}saves {} bytes", about.saved_bytes);
        }
        if let Some(line) = about.called_at {
            let file = line.file().rsplit(['/', '\\']).next().unwrap_or_default();
            let _ = write!(text, "{separator}{file}:{}", line.line());
        }
        text
    }
}

/// A tree in the making.
struct Tree {
    text: String,
    numbers: HashMap<NodeKey, usize>,
    depth: usize,
}

impl Tree {
    /// Writes a node's line. Whether it is the node's first.
    fn line(&mut self, node: &GradFn, lead: &str) -> bool {
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(node.node.key()).or_insert(next);
        let first = number == next;
        let _ = if first {
            writeln!(self.text, "{lead}{number} {}", node.described(" "))
        } else {
            writeln!(self.text, "{lead}↑{number} {}", node.name())
        };
        first
    }
}

impl std::fmt::Debug for GradFn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.name())
    }
}
