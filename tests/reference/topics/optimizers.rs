//! Optimisers: 50 steps with given gradients, the state after ten of them, and going on from it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wgrad::optim::{
    Adadelta, AdadeltaOptions, Adafactor, AdafactorOptions, Adagrad, AdagradOptions, Adam, AdamOptions,
    AdamW, AdamWOptions, Adamax, AdamaxOptions, Asgd, AsgdOptions, GroupState, Lbfgs, LbfgsOptions, Lion,
    LionOptions, Muon, MuonOptions, NAdam, NAdamOptions, Named, Optimizer, OptimizerState, RAdam,
    RAdamOptions, RmsProp, RmsPropOptions, Rprop, RpropOptions, Rule, Setting, Settings, Sgd, SgdOptions,
    Stepper,
};
use wgrad::{Device, Tensor};

use crate::case::Case;
use crate::node::{self, Node};
use crate::report::{Outcome, Report};
use crate::tree::Tree;

/// Settings of PyTorch's that choose how it computes, not what.
const OF_PYTORCH_ALONE: &[&str] = &["foreach", "fused", "capturable", "differentiable"];

pub fn run(case: &Case<'_>, device: &Device) -> Result<Outcome> {
    let name = case.body.get("optimizer")?.text()?;
    if name == "LBFGS" {
        return Ok(lbfgs(case, device)?.into());
    }
    let steps = case.body.get("steps")?.size()?;
    let given = Given::read(case, device)?;
    let report = stepping(case, name, &given, steps)?;
    if name == "Muon" {
        // PyTorch's roundings to bf16 differ where it goes on from a rounded state.
        return Ok(report.into());
    }
    Ok(report.and(resuming(case, name, &given, steps, device)?).into())
}

/// The parameters of a case with all their gradients.
struct Given {
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    none_steps: Vec<Vec<usize>>,
}

impl Given {
    fn read(case: &Case<'_>, device: &Device) -> Result<Given> {
        let mut given = Given { params: Vec::new(), grads: Vec::new(), none_steps: Vec::new() };
        for param in case.body.get("params")?.items()? {
            param.read("name", Node::text)?;
            given.params.push(case.tensor(param.get("tensor")?.text()?, device)?);
            given.grads.push(case.tensor(param.get("grads")?.text()?, device)?);
            given.none_steps.push(param.get("none_steps")?.list(Node::size)?);
        }
        Ok(given)
    }

    /// Sets the gradients of a step, from 1 on.
    fn set_grads(&self, params: &[Tensor], step: usize) -> Result<()> {
        for (i, param) in params.iter().enumerate() {
            if self.none_steps[i].contains(&step) {
                param.zero_grad();
            } else {
                param.set_grad(Some(&self.grads[i].select(0, step as isize - 1)?))?;
            }
        }
        Ok(())
    }
}

/// Leaves with these values.
fn leaves(values: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(values.iter().map(|x| x.deep_clone()?.requires_grad_(true)).collect::<wgrad::Result<_>>()?)
}

/// The values now.
fn snapshot(params: &[Tensor]) -> Result<Tree> {
    Ok(Tree::list(params.iter().map(|x| x.detach().deep_clone()).collect::<wgrad::Result<Vec<_>>>()?))
}

/// All steps from the start, compared where the case says what comes of them.
fn stepping(case: &Case<'_>, name: &str, given: &Given, steps: usize) -> Result<Report> {
    let params = leaves(&given.params)?;
    let mut optimizer = build(case, name, &params, false)?;
    let recorded = case.expected_at(&["params"])?.as_object().context("params is no map")?;
    let mut report = Report::default();
    let mut values = Vec::new();
    for step in 1..=steps {
        given.set_grads(&params, step)?;
        optimizer.step()?;
        if recorded.contains_key(&step.to_string()) {
            values.push((step.to_string(), snapshot(&params)?));
        }
        if step == 10 {
            let expected = without_choices(case.expected_at(&["state_dict"])?);
            let state = state_tree(&optimizer.state_dict()?)?;
            report = report.and(case.compare_with(&state, &expected, "state_dict")?);
        }
    }
    Ok(report.and(case.compare_with(&Tree::map(values), case.expected_at(&["params"])?, "params")?))
}

/// The steps from the 11th on, of a new optimiser that the expected state was loaded into.
fn resuming(case: &Case<'_>, name: &str, given: &Given, steps: usize, device: &Device) -> Result<Report> {
    let ten = case.expected_at(&["params", "10"])?.as_array().context("no list")?;
    let ten = ten.iter().map(|leaf| case.leaf(leaf, device)).collect::<Result<Vec<_>>>()?;
    let params = leaves(&ten)?;
    let mut optimizer = build(case, name, &params, true)?;
    optimizer.load_state_dict(&expected_state(case, device)?)?;
    for step in 11..=steps {
        given.set_grads(&params, step)?;
        optimizer.step()?;
    }
    case.compare_with(&snapshot(&params)?, case.expected_at(&["params", &steps.to_string()])?, "resumed")
}

/// The case's optimiser, or one with default options and another rate, in the same groups.
fn build(case: &Case<'_>, name: &str, params: &[Tensor], other: bool) -> Result<Box<dyn Optimizer>> {
    let mut groups = Vec::new();
    for group in case.body.get("groups")?.items()? {
        let mut settings = Settings::new();
        if other {
            settings.insert("lr".to_owned(), 0.5.into());
        } else {
            for options in [case.body.get("options")?, group.get("options")?] {
                for (name, value) in options.entries()? {
                    settings.insert(name.to_owned(), setting(value.json())?);
                }
            }
        }
        let mut members = Vec::new();
        for place in group.get("params")?.list(Node::size)? {
            members.push((place.to_string(), params.get(place).context("no such parameter")?.clone()));
        }
        groups.push((members, settings));
    }
    Ok(match name {
        "SGD" => make::<SgdOptions>(groups, Sgd::new)?,
        "Adam" => make::<AdamOptions>(groups, Adam::new)?,
        "AdamW" => make::<AdamWOptions>(groups, AdamW::new)?,
        "Adagrad" => make::<AdagradOptions>(groups, Adagrad::new)?,
        "RMSprop" => make::<RmsPropOptions>(groups, RmsProp::new)?,
        "Adadelta" => make::<AdadeltaOptions>(groups, Adadelta::new)?,
        "Adamax" => make::<AdamaxOptions>(groups, Adamax::new)?,
        "NAdam" => make::<NAdamOptions>(groups, NAdam::new)?,
        "RAdam" => make::<RAdamOptions>(groups, RAdam::new)?,
        "Rprop" => make::<RpropOptions>(groups, Rprop::new)?,
        "ASGD" => make::<AsgdOptions>(groups, Asgd::new)?,
        "Adafactor" => make::<AdafactorOptions>(groups, Adafactor::new)?,
        "Lion" => make::<LionOptions>(groups, Lion::new)?,
        "Muon" | "MuonExact" => make::<MuonOptions>(groups, Muon::new)?,
        name => bail!("the optimiser {name} is unknown"),
    })
}

type Members = Vec<(String, Tensor)>;

/// An optimiser of these groups.
fn make<R: Rule + Default>(
    groups: Vec<(Members, Settings)>,
    new: fn(Members, R) -> wgrad::Result<Stepper<R>>,
) -> Result<Box<dyn Optimizer>> {
    let mut optimizer: Option<Stepper<R>> = None;
    for (members, settings) in groups {
        let mut options = R::default();
        for (name, value) in &settings {
            ensure!(Named::set(&mut options, name, value)?, "the option {name} is unknown");
        }
        optimizer = Some(match optimizer {
            None => new(members, options)?,
            Some(optimizer) => optimizer.add_group(members, options)?,
        });
    }
    Ok(Box::new(optimizer.context("there are no groups")?))
}

/// A setting as a case says it.
pub fn setting(value: &Value) -> Result<Setting> {
    Ok(match value {
        Value::Null => Setting::None,
        Value::Bool(value) => Setting::Bool(*value),
        Value::Number(number) if number.is_i64() => Setting::Int(number.as_i64().unwrap_or_default()),
        Value::String(text) => Setting::Text(text.clone()),
        Value::Array(values) => Setting::List(values.iter().map(setting).collect::<Result<_>>()?),
        value => Setting::Float(node::float(value).with_context(|| format!("the setting {value}"))?),
    })
}

/// A setting as something to compare.
pub fn setting_tree(setting: &Setting) -> Tree {
    match setting {
        Setting::None => Tree::Null,
        Setting::Bool(value) => (*value).into(),
        Setting::Int(value) => (*value).into(),
        Setting::Float(value) => (*value).into(),
        Setting::Text(text) => text.as_str().into(),
        Setting::List(values) => Tree::list(values.iter().map(setting_tree)),
    }
}

/// A state in PyTorch's form.
fn state_tree(saved: &OptimizerState) -> Result<Tree> {
    let state = saved.state.iter().map(|(path, tensors)| (path.clone(), Tree::map(tensors.clone())));
    let mut groups = Vec::new();
    for group in &saved.groups {
        let mut entries: Vec<(String, Tree)> =
            group.settings.iter().map(|(name, value)| (name.clone(), setting_tree(value))).collect();
        let numbers =
            group.parameters.iter().map(|path| Ok(path.parse::<usize>()?)).collect::<Result<Vec<_>>>()?;
        entries.push(("params".to_owned(), numbers.into()));
        groups.push(Tree::map(entries));
    }
    Ok(Tree::map([("state", Tree::map(state)), ("param_groups", Tree::List(groups))]))
}

/// An expected state without the settings that choose how PyTorch computes.
fn without_choices(state: &Value) -> Value {
    let mut state = state.clone();
    let groups = state.get_mut("param_groups").and_then(Value::as_array_mut);
    for group in groups.into_iter().flatten().filter_map(Value::as_object_mut) {
        OF_PYTORCH_ALONE.iter().for_each(|name| drop(group.remove(*name)));
    }
    state
}

/// The expected state, to be loaded.
fn expected_state(case: &Case<'_>, device: &Device) -> Result<OptimizerState> {
    let mut state = OptimizerState::default();
    let map = |path: &[&str]| case.expected_at(path)?.as_object().context("no map");
    for (path, tensors) in map(&["state_dict", "state"])? {
        let entries = state.state.entry(path.clone()).or_default();
        for (name, leaf) in tensors.as_object().context("no map")? {
            entries.insert(name.clone(), case.leaf(leaf, device)?);
        }
    }
    let groups = case.expected_at(&["state_dict", "param_groups"])?.as_array().context("no list")?;
    for group in groups {
        let mut saved = GroupState::default();
        for (name, value) in group.as_object().context("no map")? {
            if name == "params" {
                let places = value.as_array().context("no list")?;
                saved.parameters = places.iter().map(Value::to_string).collect();
            } else {
                saved.settings.insert(name.clone(), setting(value)?);
            }
        }
        state.groups.push(saved);
    }
    Ok(state)
}

/// Steps with a closure, and the same with an optimiser that goes on from what another one saved after the
/// first.
fn lbfgs(case: &Case<'_>, device: &Device) -> Result<Report> {
    let mut start = Vec::new();
    for param in case.body.get("params")?.items()? {
        start.push(case.tensor(param.get("tensor")?.text()?, device)?);
    }
    let mut options = LbfgsOptions::new();
    for (name, value) in case.body.get("options")?.entries()? {
        ensure!(options.set(name, &setting(value.json())?)?, "the option {name} is unknown");
    }
    let data = case.body.get("data")?;
    let problem = Problem {
        name: case.body.get("closure")?.text()?,
        data: ["A", "b"].map(|name| data.read(name, Node::text)),
        sign: if options.maximize { -1.0 } else { 1.0 },
    };
    let problem = problem.with_tensors(case, device)?;
    let steps = case.body.get("steps")?.size()?;
    let mut report = Report::default();
    for resumes in [false, true] {
        let params = leaves(&start)?;
        let mut optimizer = Lbfgs::new(&params, options.clone())?;
        let (mut losses, mut values, mut evals) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..steps {
            if resumes && step == 1 {
                let saved = optimizer.state_dict()?;
                optimizer = Lbfgs::new(&params, LbfgsOptions::new().lr(0.5))?;
                optimizer.load_state_dict(&saved)?;
            }
            losses.push(optimizer.step_with(&mut || problem.loss(&params))?.detach());
            values.push(snapshot(&params)?);
            evals.push(optimizer.state_dict()?.state["0"]["func_evals"].clone());
        }
        let tree = Tree::map([
            ("losses", losses.into()),
            ("params", Tree::List(values)),
            ("evals", Tree::from(evals)),
        ]);
        report = report.and(case.compare_with(&tree, case.expect, if resumes { "resumed" } else { "" })?);
    }
    Ok(report)
}

/// A loss for LBFGS.
struct Problem<'a, T> {
    name: &'a str,
    data: [T; 2],
    sign: f64,
}

impl<'a> Problem<'a, Result<Option<&'a str>>> {
    fn with_tensors(self, case: &Case<'_>, device: &Device) -> Result<Problem<'a, Option<Tensor>>> {
        let [a, b] = self.data;
        let tensor = |name: Option<&str>| name.map(|name| case.tensor(name, device)).transpose();
        Ok(Problem { name: self.name, data: [tensor(a?)?, tensor(b?)?], sign: self.sign })
    }
}

impl Problem<'_, Option<Tensor>> {
    fn loss(&self, params: &[Tensor]) -> wgrad::Result<Tensor> {
        params.iter().for_each(Tensor::zero_grad);
        let x = &params[0];
        let loss = match (self.name, &self.data) {
            ("rosenbrock", _) => {
                let rest = x.numel() - 1;
                let (head, tail) = (x.narrow(0, 0, rest)?, x.narrow(0, 1, rest)?);
                let valley = tail.sub(head.square()?)?.square()?.mul(100.0)?;
                valley.add(head.rsub(1.0)?.square()?)?.sum()?
            }
            ("quadratic", [Some(a), Some(b)]) => {
                let off = a.mv(x)?.sub(b)?.square()?.sum()?.mul(0.5)?;
                off.add(x.square()?.sum()?.mul(0.05)?)?
            }
            ("logistic", [Some(a), Some(b)]) => {
                let score = a.mv(x)?.add(&params[1])?.mul(b)?.neg()?;
                score.softplus(1.0, 20.0)?.mean()?.add(x.square()?.sum()?.mul(0.01)?)?
            }
            (name, _) => {
                let reason = format!("the closure {name} is unknown");
                return Err(wgrad::Error::Argument { op: "LBFGS", reason });
            }
        };
        let loss = loss.mul(self.sign)?;
        loss.backward()?;
        Ok(loss)
    }
}
