//! A plan for people to read: which operations share a kernel, what each kernel reads and stores, and why.
//!
//! The text begins with a line on the whole plan. Each kernel follows with a line of its own and its details
//! beneath it; `{:#}` adds the kernels' instructions. Operations are named `%0`, `%1`, … by their position in
//! the pending graph, and arrays that are already in memory `x0`, `x1`, ….

use std::fmt::{self, Display, Formatter};
use std::panic::Location;

use wgrad_device::kernel::{Bytes, Kernel, Traffic};
use wgrad_device::layout::Dims;
use wgrad_device::{DType, Device, Layout, Scalar};

use super::facts::{Facts, Slot};
use super::schedule::Planned;
use super::why::Why;
use crate::graph::{Graph, Ref};
use crate::node::Node;
use crate::op::{Axis, Op, Operands, View};

/// A plan for one device, and the operations for which it is made. [`Array::explain`](crate::Array::explain)
/// returns it; as text it reads as [`Explanation`](crate::Explanation) shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// The device's name.
    pub device: String,
    /// Whether the plan is in the cache from an earlier evaluation.
    pub is_known: bool,
    /// The error in the data on which some of the operations depend, such as an index out of range. Reading
    /// these is an error. There is no plan in this case: it is made for the other operations when they are
    /// read.
    pub fault: Option<String>,
    /// The pending operations in topological order: inputs come before their users. The operations that
    /// planning adds come last.
    pub operations: Vec<Operation>,
    /// The evaluated arrays that the operations read.
    pub reads: Vec<ReadMemory>,
    /// The kernels, in the order in which they run.
    pub kernels: Vec<KernelOutline>,
}

/// An operation on whole arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name: `exp`, `sum`, `matmul`, `view`.
    pub name: String,
    /// Its name with its operands: `exp(%3)`.
    pub formula: String,
    /// The method that the program called, which may consist of many operations: `softmax`, or a derivative
    /// such as `SoftmaxBackward0`. Empty if it is not known.
    pub called: &'static str,
    /// The line of the program with that call.
    pub called_at: Option<&'static Location<'static>>,
    /// The shape of its result.
    pub shape: Vec<usize>,
    /// The dtype of its result.
    pub dtype: DType,
    /// Whether the result is held by somebody other than the operations that use it.
    pub is_held: bool,
}

/// An evaluated array that a plan reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadMemory {
    /// Its name: `x0`.
    pub name: String,
    /// The shape in which it is read.
    pub shape: Vec<usize>,
    /// The strides, unless the array is contiguous.
    pub strides: Option<Vec<isize>>,
    /// The dtype of its elements.
    pub dtype: DType,
    /// The name of an earlier array in whose memory it lies, if there is one.
    pub within: Option<String>,
}

/// A kernel of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelOutline {
    /// The kind of kernel, and the sizes over which it runs.
    pub kind: String,
    /// Its instructions, one on each line.
    pub body: String,
    /// The operations that it computes: positions in [`Outline::operations`]. Views take no work and are left
    /// out.
    pub operations: Vec<usize>,
    /// The names of the arrays and results that it reads from memory: `x0`, `%3`.
    pub reads: Vec<String>,
    /// The results that it writes to memory.
    pub stores: Vec<Stored>,
    /// The bytes that it reads and writes.
    pub traffic: Traffic,
}

/// A result that is written to memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its position in [`Outline::operations`].
    pub operation: usize,
    /// The method that the program called to get it.
    pub called: &'static str,
    /// Why it is in memory.
    pub why: Why,
}

impl Outline {
    /// The bytes that all kernels together read and write.
    pub fn traffic(&self) -> Traffic {
        self.kernels.iter().fold(Traffic::default(), |sum, kernel| Traffic {
            read: sum.read.saturating_add(kernel.traffic.read),
            written: sum.written.saturating_add(kernel.traffic.written),
        })
    }

    /// The results that are written to memory, kernel by kernel.
    pub fn stores(&self) -> impl Iterator<Item = &Stored> {
        self.kernels.iter().flat_map(|kernel| &kernel.stores)
    }

    /// The outline for a graph that depends on data with a fault.
    pub(crate) fn of_fault(graph: &Graph, device: &Device) -> Outline {
        let fault = graph.leaves.iter().find_map(|leaf| leaf.node.fault());
        let operations = (0..graph.nodes.len()).filter_map(|i| {
            let node = &graph.nodes[i];
            let op = node.work().as_ref()?.op.clone();
            Some(operation(&op, graph.inputs(i as u32), Some(node), &node.shape, node.dtype, graph.held[i]))
        });
        Outline {
            device: device.to_string(),
            is_known: false,
            fault: fault.map(|fault| fault.error.to_string()),
            operations: operations.collect(),
            reads: Vec::new(),
            kernels: Vec::new(),
        }
    }

    /// The pending operations as text.
    pub(crate) fn write_operations(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pending on {}", counted(self.operations.len(), "operation"), self.device)?;
        for read in &self.reads {
            writeln!(f, "  {read}")?;
        }
        for (i, operation) in self.operations.iter().enumerate() {
            let held = if operation.is_held { ", held" } else { "" };
            let from = operation.call();
            let from = if from.is_empty() { from } else { format!("  [{from}]") };
            writeln!(f, "  %{i} {} = {}{from}{held}", operation.result(), operation.formula)?;
        }
        Ok(())
    }
}

impl Operation {
    /// The call as text: `softmax at src/main.rs:12`.
    fn call(&self) -> String {
        match (self.called, self.called_at) {
            ("", None) => String::new(),
            (called, None) => called.to_owned(),
            (called, Some(line)) => format!("{called} at {}:{}", line.file(), line.line()),
        }
    }

    /// The dtype and shape of its result.
    fn result(&self) -> String {
        format!("{}{:?}", self.dtype, self.shape)
    }
}

impl Display for ReadMemory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?}", self.name, self.dtype, self.shape)?;
        if let Some(strides) = &self.strides {
            write!(f, " strides {strides:?}")?;
        }
        if let Some(within) = &self.within {
            write!(f, " in the memory of {within}")?;
        }
        Ok(())
    }
}

impl Display for Outline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(fault) = &self.fault {
            return write!(f, "plan for {}: none, since the data have a fault: {fault}", self.device);
        }
        write!(f, "plan for {}: {}", self.device, counted(self.kernels.len(), "kernel"))?;
        write!(f, " for {}, {}", counted(self.operations.len(), "operation"), self.traffic())?;
        if self.is_known {
            write!(f, ", known")?;
        }
        for (i, kernel) in self.kernels.iter().enumerate() {
            write!(f, "\n  {}. {}: {}", i + 1, kernel.kind, kernel.traffic)?;
            self.write_calls(f, kernel)?;
            for (i, read) in kernel.reads.iter().enumerate() {
                let label = if i == 0 { "reads" } else { "" };
                write!(f, "\n     {label:<9}{}", self.memory(read))?;
            }
            for (i, stored) in kernel.stores.iter().enumerate() {
                let label = if i == 0 { "stores" } else { "" };
                let operation = &self.operations[stored.operation];
                let bytes = operation.shape.iter().product::<usize>().saturating_mul(operation.dtype.size());
                write!(f, "\n     {label:<9}%{} {}", stored.operation, operation.result())?;
                write!(f, ", {}, {}: {}", operation.name, Bytes(bytes as u64), stored.why)?;
            }
            if f.alternate() {
                for line in kernel.body.lines() {
                    write!(f, "\n     {line}")?;
                }
            }
        }
        Ok(())
    }
}

impl Outline {
    /// Writes a kernel's operations, grouped by the calls to which they belong.
    fn write_calls(&self, f: &mut Formatter<'_>, kernel: &KernelOutline) -> fmt::Result {
        let mut calls: Vec<(String, Vec<(&str, usize)>)> = Vec::new();
        for &at in &kernel.operations {
            let operation = &self.operations[at];
            let call = operation.call();
            let place = calls.iter().position(|(known, _)| *known == call).unwrap_or_else(|| {
                calls.push((call, Vec::new()));
                calls.len() - 1
            });
            let names = &mut calls[place].1;
            match names.iter_mut().find(|(name, _)| *name == operation.name) {
                Some((_, count)) => *count += 1,
                None => names.push((&operation.name, 1)),
            }
        }
        for (i, (call, names)) in calls.iter().enumerate() {
            let label = if i == 0 { "computes" } else { "" };
            let names: Vec<String> = names
                .iter()
                .map(
                    |(name, count)| if *count == 1 { (*name).to_owned() } else { format!("{name} x{count}") },
                )
                .collect();
            let from = if call.is_empty() { String::new() } else { format!(" in {call}") };
            write!(f, "\n     {label:<9}{}{from}", names.join(", "))?;
        }
        Ok(())
    }

    /// Describes the array or the result with this name.
    fn memory(&self, name: &str) -> String {
        let operation = name.strip_prefix('%').and_then(|at| self.operations.get(at.parse::<usize>().ok()?));
        match (operation, self.reads.iter().find(|read| read.name == name)) {
            (Some(operation), _) => format!("{name} {}, {}", operation.result(), operation.name),
            (None, Some(read)) => read.to_string(),
            (None, None) => name.to_owned(),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Makes the outline of a plan.
pub(super) fn outline(facts: &Facts<'_>, planned: &[Planned], device: &Device) -> Outline {
    let operations = (0..facts.steps.len()).map(|i| {
        let step = &facts.steps[i];
        let held = facts.graph.held.get(i).copied().unwrap_or(false);
        operation(&step.op, &step.inputs, origin(facts, i), &step.shape, step.dtype, held)
    });
    Outline {
        device: device.to_string(),
        is_known: false,
        fault: None,
        operations: operations.collect(),
        reads: facts.graph.leaves.iter().enumerate().map(|(i, _)| read(facts.graph, i)).collect(),
        kernels: planned.iter().map(|kernel| kernel_outline(facts, kernel)).collect(),
    }
}

/// The node from which a step comes. A step that planning added is attributed to its first user.
fn origin<'g>(facts: &Facts<'g>, mut step: usize) -> Option<&'g Node> {
    while step >= facts.graph.nodes.len() {
        let added = Ref::Node(step as u32);
        step = facts.steps.iter().position(|user| user.inputs.contains(&added))?;
    }
    Some(&facts.graph.nodes[step])
}

fn read(graph: &Graph, at: usize) -> ReadMemory {
    let leaf = &graph.leaves[at];
    let is_dense = leaf.layout.is_contiguous();
    let first = graph.leaves.iter().position(|other| other.memory == leaf.memory).unwrap_or(at);
    ReadMemory {
        name: format!("x{at}"),
        shape: leaf.layout.shape().to_vec(),
        strides: (!is_dense).then(|| Layout::strides(&leaf.layout).to_vec()),
        dtype: leaf.node.dtype,
        within: (first != at).then(|| format!("x{first}")),
    }
}

fn slot_name(graph: &Graph, slot: Slot) -> String {
    match slot {
        Slot::Step(step) => format!("%{step}"),
        Slot::Leaf(memory) => {
            let first = graph.leaves.iter().position(|leaf| leaf.memory == memory);
            format!("x{}", first.unwrap_or_default())
        }
    }
}

fn kernel_outline(facts: &Facts<'_>, planned: &Planned) -> KernelOutline {
    let names: Vec<String> = planned.slots.iter().map(|&slot| slot_name(facts.graph, slot)).collect();
    let (mut reads, mut stores) = (Vec::new(), Vec::new());
    for (&slot, name) in planned.slots.iter().zip(&names) {
        match slot {
            Slot::Step(step) if planned.members.contains(&step) => stores.push(stored(facts, step)),
            _ => reads.push(name.clone()),
        }
    }
    let steps = planned.steps.iter().map(|&step| step as usize);
    let kernel: &Kernel = &planned.kernel;
    let text = format!("{:#}", kernel.named(&names));
    let (kind, body) = text.split_once('\n').unwrap_or((&text, ""));
    KernelOutline {
        kind: kind.to_owned(),
        body: body.to_owned(),
        operations: steps.filter(|&step| !matches!(facts.steps[step].op, Op::View(_))).collect(),
        reads,
        stores,
        traffic: kernel.traffic(),
    }
}

fn stored(facts: &Facts<'_>, step: u32) -> Stored {
    let at = step as usize;
    let called = origin(facts, at).map_or("", |node| node.called);
    Stored { operation: at, called, why: facts.steps[at].why.unwrap_or(Why::Shared) }
}

fn operation(
    op: &Op,
    inputs: &[Ref],
    origin: Option<&Node>,
    shape: &Dims,
    dtype: DType,
    is_held: bool,
) -> Operation {
    let (name, formula) = name_and_formula(op, inputs, shape, dtype);
    Operation {
        name,
        formula,
        called: origin.map_or("", |node| node.called),
        called_at: origin.and_then(|node| node.called_at),
        shape: shape.to_vec(),
        dtype,
        is_held,
    }
}

/// An operation's name, and its formula: the name with the operands.
fn name_and_formula(op: &Op, inputs: &[Ref], shape: &Dims, dtype: DType) -> (String, String) {
    let mut operands: Vec<String> = inputs
        .iter()
        .map(|input| match input {
            Ref::Node(node) => format!("%{node}"),
            Ref::Leaf(leaf) => format!("x{leaf}"),
        })
        .collect();
    let name = name(op, shape, dtype, &mut operands);
    let formula = format!("{name}({})", operands.join(", "));
    (name, formula)
}

/// An operation's name. Its arguments that are no arrays are added to the operands.
fn name(op: &Op, shape: &Dims, dtype: DType, operands: &mut Vec<String>) -> String {
    let lower = |name: &dyn fmt::Debug| format!("{name:?}").to_lowercase();
    match op {
        Op::Full(value) => {
            operands.push(number(*value));
            "full".to_owned()
        }
        Op::Coordinate { dim } => {
            operands.push(format!("dim {dim}"));
            "coordinate".to_owned()
        }
        Op::Random { kind, seed, stream } => {
            operands.extend([lower(kind), format!("seed {seed}"), format!("stream {stream}")]);
            "random".to_owned()
        }
        Op::Copy => "copy".to_owned(),
        Op::Store => "store".to_owned(),
        Op::Unary(op) => lower(op),
        Op::Binary(op, sides) => {
            match sides {
                Operands::Arrays => {}
                Operands::ArrayScalar(value) => operands.push(number(*value)),
                Operands::ScalarArray(value) => operands.insert(0, number(*value)),
            }
            lower(op)
        }
        Op::Select(a, b) => {
            if let Some(a) = a {
                operands.insert(1, number(*a));
            }
            operands.extend(b.map(number));
            "where".to_owned()
        }
        Op::Cast => {
            operands.push(dtype.to_string());
            "cast".to_owned()
        }
        Op::Reduce { op, dims } => {
            operands.push(format!("dims {dims:?}"));
            lower(op)
        }
        Op::View(View::Reshape) => {
            operands.push(format!("{shape:?}"));
            "reshape".to_owned()
        }
        Op::View(View::Pad { before }) => {
            operands.push(format!("before {before:?}"));
            "pad".to_owned()
        }
        Op::View(View::Affine(axes)) => {
            let axes: Vec<String> = axes.iter().map(axis_text).collect();
            operands.push(format!("[{}]", axes.join(", ")));
            "view".to_owned()
        }
        Op::Matmul => "matmul".to_owned(),
        Op::Gather { dim, name, checked: _ } => {
            operands.push(format!("dim {dim}"));
            (*name).to_owned()
        }
        Op::Scatter { op, dim, name, checked: _ } => {
            operands.extend([lower(op), format!("dim {dim}")]);
            (*name).to_owned()
        }
        Op::Update { .. } => "update".to_owned(),
        Op::Scan { op, dim } => {
            operands.push(format!("dim {dim}"));
            format!("running {}", lower(op))
        }
        Op::Sort { dim, descending, first } => {
            operands.push(format!("dim {dim}"));
            operands.extend(descending.then(|| "descending".to_owned()));
            operands.extend((*first > 0).then(|| format!("from place {first}")));
            "sort".to_owned()
        }
    }
}

/// The index along a dim of a view's input as a formula of the view's indices: `2 i0 + 3`.
fn axis_text(axis: &Axis) -> String {
    let terms = axis.terms.iter().map(|&(dim, step)| match step {
        1 => format!("i{dim}"),
        step => format!("{step} i{dim}"),
    });
    let offset = (axis.offset != 0 || axis.terms.is_empty()).then(|| axis.offset.to_string());
    terms.chain(offset).collect::<Vec<_>>().join(" + ")
}

fn number(value: Scalar) -> String {
    match value {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Int(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
    }
}
