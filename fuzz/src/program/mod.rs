//! Random programs, and their text in Rust.
//!
//! A program is plain data: leaves with their numbers, and steps that name the values that they read and
//! make. So it can be run on any device, in f64 instead of its own dtypes, and with noise (`run`), compared
//! (`check`), and made smaller by leaving out steps (`shrink`).

pub mod check;
mod generate;
mod rules;
mod run;
mod shrink;

use std::fmt::{self, Write};

use wgrad::DType;

pub use generate::generate;
pub use rules::{Rule, rules};
pub use run::{read, tensor};
pub use shrink::shrink;

/// The number of a value. Each number is used for one value only.
pub type Id = usize;

/// The arguments of a rule's call that are no tensors.
#[derive(Clone, Debug, Default)]
pub struct RuleParameters {
    pub n: Vec<i64>,
    pub f: Vec<f64>,
    pub dtype: Option<DType>,
}

/// A tensor made from numbers.
#[derive(Clone)]
pub struct ProgramLeaf {
    pub id: Id,
    pub shape: Vec<usize>,
    pub dtype: DType,
    /// The numbers, which the dtype holds exactly.
    pub data: Vec<f64>,
    pub requires_grad: bool,
}

/// A call of a rule, with its arguments.
#[derive(Clone)]
pub struct RuleCall {
    pub rule: &'static Rule,
    pub args: Vec<Id>,
    pub more: RuleParameters,
    pub no_grad: bool,
}

/// What a step does.
#[derive(Clone)]
pub enum Action {
    /// Calls a rule.
    Call(RuleCall),
    /// Evaluates a value in the middle of the program.
    Read(Id),
    /// Drops a handle.
    Forget(Id),
    RetainGrad(Id),
    /// Runs backward from a weighted sum of values.
    Backward {
        of: Vec<Id>,
        keep: bool,
        create: bool,
    },
    /// Makes a step of gradient descent. Then it removes `.grad`, or sets it to 0.
    Update {
        leaf: Id,
        rate: f64,
        momentum: Option<Id>,
        zero: bool,
    },
}

#[derive(Clone)]
pub struct ProgramStep {
    pub action: Action,
    /// The results.
    pub out: Vec<Id>,
    /// Whether the results are held until the end, and then compared.
    pub held: bool,
}

#[derive(Clone)]
pub struct RandomProgram {
    pub seed: u64,
    pub leaves: Vec<ProgramLeaf>,
    pub steps: Vec<ProgramStep>,
    /// How often the steps run. Values written to leaves stay there.
    pub rounds: usize,
    /// Whether first and second gradients of the held values are computed in the end.
    pub gradients: bool,
    /// The dtype of each value, by its id.
    pub dtypes: Vec<DType>,
}

impl ProgramStep {
    /// The values that the step reads.
    pub fn reads(&self) -> Vec<Id> {
        match &self.action {
            Action::Call(call) => call.args.clone(),
            Action::Read(id) | Action::Forget(id) | Action::RetainGrad(id) => vec![*id],
            Action::Backward { of, .. } => of.clone(),
            Action::Update { leaf, momentum, .. } => [*leaf].into_iter().chain(*momentum).collect(),
        }
    }
}

impl RandomProgram {
    /// Whether one of its values has this dtype.
    pub fn uses(&self, dtype: DType) -> bool {
        self.dtypes.contains(&dtype)
    }

    pub fn leaf(&self, id: Id) -> Option<&ProgramLeaf> {
        self.leaves.iter().find(|leaf| leaf.id == id)
    }

    /// Whether finite differences of the program's values are its gradients: nothing is cut off from the
    /// tape, and nothing changes twice.
    pub fn is_pure(&self) -> bool {
        self.rounds == 1
            && self.steps.iter().all(|step| match &step.action {
                Action::Call(call) => !call.no_grad && call.rule.name != "detach",
                Action::Update { .. } => false,
                _ => true,
            })
    }

    /// The program without a step, and without the steps that depend on it.
    pub fn without(&self, at: usize) -> RandomProgram {
        let mut program = self.clone();
        let mut gone = program.steps.remove(at).out;
        let mut kept = Vec::new();
        for mut step in program.steps.drain(..) {
            if let Action::Backward { of, .. } = &mut step.action {
                of.retain(|id| !gone.contains(id));
                if of.is_empty() {
                    continue;
                }
            }
            if step.reads().iter().any(|id| gone.contains(id)) {
                gone.extend(step.out);
            } else {
                kept.push(step);
            }
        }
        program.steps = kept;
        program.without_unused()
    }

    fn without_unused(mut self) -> RandomProgram {
        let used: Vec<Id> = self.steps.iter().flat_map(ProgramStep::reads).collect();
        self.leaves.retain(|leaf| used.contains(&leaf.id));
        self
    }
}

fn name(id: Id) -> String {
    format!("v{id}")
}

/// A call in Rust, made from the rule's text: `{0}` is the first tensor, `{n0}` the first integer, `{f0}` the
/// first float, `{n}` all integers, `{d}` the dtype.
fn call_text(RuleCall { rule, args, more, .. }: &RuleCall) -> String {
    let mut text = rule.text.to_owned();
    let all: Vec<String> = more.n.iter().map(ToString::to_string).collect();
    text = text.replace("{n}", &all.join(", "));
    let tensors: Vec<String> = args.iter().map(|&id| format!("&{}", name(id))).collect();
    text = text.replace("{all}", &tensors.join(", "));
    for (i, &id) in args.iter().enumerate() {
        text = text.replace(&format!("{{{i}}}"), &name(id));
    }
    for (i, n) in more.n.iter().enumerate() {
        text = text.replace(&format!("{{n{i}}}"), &n.to_string());
    }
    for (i, f) in more.f.iter().enumerate() {
        text = text.replace(&format!("{{f{i}}}"), &format!("{f:?}"));
    }
    if let Some(dtype) = more.dtype {
        text = text.replace("{d}", &format!("DType::{dtype:?}"));
    }
    text
}

impl fmt::Display for RandomProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "// program {}, {} rounds", self.seed, self.rounds)?;
        for leaf in &self.leaves {
            let mut data = String::new();
            for (i, value) in leaf.data.iter().enumerate().take(400) {
                write!(data, "{}{value:?}", if i == 0 { "" } else { ", " })?;
            }
            let (name, shape, dtype) = (name(leaf.id), &leaf.shape, leaf.dtype);
            writeln!(
                f,
                "let {name} = Tensor::from_slice(&[{data}], {shape:?}, &device)?\
                 .to_dtype(DType::{dtype:?})?{};",
                if leaf.requires_grad { ".detach().requires_grad_(true)?" } else { "" }
            )?;
        }
        for step in &self.steps {
            let outs: Vec<String> = step.out.iter().copied().map(name).collect();
            let text = match &step.action {
                Action::Call(call) => {
                    let text = call_text(call);
                    let text = if call.no_grad { format!("no_grad(|| {text})") } else { text };
                    match &outs[..] {
                        [] => format!("{text}?;"),
                        [one] => format!("let {one} = {text}?;"),
                        _ => format!("let ({}) = {text}?;", outs.join(", ")),
                    }
                }
                Action::Read(id) => format!("{}.eval()?;", name(*id)),
                Action::Forget(id) => format!("drop({});", name(*id)),
                Action::RetainGrad(id) => format!("{}.retain_grad()?;", name(*id)),
                Action::Backward { of, keep, create } => format!(
                    "weighted_sum([{}])?.backward_with(\
                     BackwardOptions::new().retain_graph({keep}).create_graph({create}))?;",
                    of.iter().copied().map(name).collect::<Vec<_>>().join(", ")
                ),
                Action::Update { leaf, rate, momentum, zero } => {
                    let leaf = name(*leaf);
                    let direction = match momentum {
                        Some(m) => format!("m.mul_(0.9)?.add_(g)? with m = {}", name(*m)),
                        None => "g".to_owned(),
                    };
                    let then = if *zero { "g.zero_()?".to_owned() } else { format!("{leaf}.zero_grad()") };
                    format!("no_grad(|| {leaf}.sub_({direction} * {rate:?})) with g = {leaf}.grad(); {then};")
                }
            };
            writeln!(f, "{text}{}", if step.held { " // compared" } else { "" })?;
        }
        if self.gradients {
            writeln!(f, "// then the first and second gradients of a weighted sum of what is compared")?;
        }
        Ok(())
    }
}
