//! Schedules of learning rates: the rates and momenta of two groups, and going on from a state in the middle.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::sync::Arc;
use wgrad::optim::schedule::{
    Anneal, ChainedScheduler, ConstantLr, CosineAnnealingLr, CosineAnnealingWarmRestarts, CyclicLr,
    CyclicMode, ExponentialLr, LambdaLr, LinearLr, MultiStepLr, MultiplicativeLr, OneCycleLr, PerGroup,
    PlateauMode, PlateauState, PolynomialLr, ReduceLrOnPlateau, ScaleBy, Schedule, Scheduler, SchedulerState,
    SequentialLr, StepLr, SwaLr, ThresholdMode,
};
use wgrad::optim::{Adam, AdamOptions, Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Tensor};

use super::optimizers::setting;
use crate::case::Case;
use crate::node::{self, Node};
use crate::report::{Outcome, Report};
use crate::tree::Tree;

/// The state is saved after so many steps.
const SAVED: usize = 20;

pub fn run(case: &Case<'_>, device: &Device) -> Result<Outcome> {
    let steps = case.body.get("steps")?.size()?;
    let cycles = case.body.read("momentum", Node::bool)?.unwrap_or(false);
    let (mut optimizer, mut schedule) = start(case, device)?;
    let mut seen = Rates::new(optimizer.groups());
    seen.advance(case, optimizer.as_mut(), &mut schedule, 0..SAVED)?;
    let mut report = compare_state(case, optimizer.as_ref(), &schedule)?;
    seen.advance(case, optimizer.as_mut(), &mut schedule, SAVED..steps)?;
    report = report.and(seen.compare(case, cycles, 0)?);

    let (mut optimizer, mut schedule) = start(case, device)?;
    restore(case, optimizer.as_mut(), &mut schedule)?;
    let mut seen = Rates::new(optimizer.groups());
    seen.advance(case, optimizer.as_mut(), &mut schedule, SAVED..steps)?;
    Ok(report.and(seen.compare(case, cycles, SAVED)?).into())
}

/// What sets the rates.
enum Setter {
    Scheduler(Scheduler),
    Plateau(ReduceLrOnPlateau),
}

/// The rates and momenta by group and step.
struct Rates {
    lr: Vec<Vec<f64>>,
    momentum: Vec<Vec<f64>>,
}

impl Rates {
    fn new(groups: usize) -> Rates {
        Rates { lr: vec![Vec::new(); groups], momentum: vec![Vec::new(); groups] }
    }

    fn advance(
        &mut self,
        case: &Case<'_>,
        optimizer: &mut dyn Optimizer,
        setter: &mut Setter,
        steps: std::ops::Range<usize>,
    ) -> Result<()> {
        let list = |key: &str| case.body.read(key, |node| node.list(Node::float));
        let (metrics, epochs) = (list("metrics")?, list("epochs")?);
        for step in steps {
            for group in 0..optimizer.groups() {
                self.lr[group].push(optimizer.lr(group)?);
                self.momentum[group].push(optimizer.momentum(group)?.unwrap_or(f64::NAN));
            }
            optimizer.step()?;
            match setter {
                Setter::Plateau(plateau) => {
                    plateau.step(optimizer, metrics.as_ref().context("no metrics")?[step])?;
                }
                Setter::Scheduler(scheduler) => match &epochs {
                    Some(epochs) => scheduler.step_to(optimizer, epochs[step])?,
                    None => scheduler.step(optimizer)?,
                },
            }
        }
        Ok(())
    }

    /// Compares with what is expected from a step on.
    fn compare(&self, case: &Case<'_>, cycles: bool, from: usize) -> Result<Report> {
        let kinds = [("lr", &self.lr), ("momentum", &self.momentum)];
        let mut report = Report::default();
        for (key, values) in kinds.into_iter().take(if cycles { 2 } else { 1 }) {
            for (group, values) in values.iter().enumerate() {
                let expected = case.expected_at(&[key, &group.to_string()])?.as_array().context("no list")?;
                let expected = Value::Array(expected[from..].to_vec());
                let tree = Tree::list(values.iter().copied());
                report = report.and(case.compare_with(&tree, &expected, &format!("{key}.{group}.{from}"))?);
            }
        }
        Ok(report)
    }
}

/// The state that this library keeps is a part of PyTorch's: settings are none.
fn compare_state(case: &Case<'_>, optimizer: &dyn Optimizer, setter: &Setter) -> Result<Report> {
    let state = case.expected_at(&["state", "scheduler"])?;
    let mut report = Report::default();
    let mut check = |actual: Tree, expected: &Value, path: &str| -> Result<()> {
        report = std::mem::take(&mut report).and(case.compare_with(&actual, expected, path)?);
        Ok(())
    };
    match setter {
        Setter::Scheduler(scheduler) => {
            let saved = scheduler.state_dict();
            check(saved.last_epoch.into(), first(state, "last_epoch")?, "state.last_epoch")?;
        }
        Setter::Plateau(plateau) => {
            let saved = plateau.state_dict();
            check(saved.last_epoch.into(), first(state, "last_epoch")?, "state.last_epoch")?;
            check(saved.best.into(), first(state, "best")?, "state.best")?;
            check(
                saved.cooldown_counter.into(),
                first(state, "cooldown_counter")?,
                "state.cooldown_counter",
            )?;
            check(saved.num_bad_epochs.into(), first(state, "num_bad_epochs")?, "state.num_bad_epochs")?;
        }
    }
    for group in 0..optimizer.groups() {
        let expected = case.expected_at(&["state", "groups", &group.to_string()])?;
        check(optimizer.lr(group)?.into(), first(expected, "lr")?, "state.lr")?;
        if let Some(momentum) = expected.get("momentum").or_else(|| expected.get("betas")?.get(0)) {
            check(optimizer.momentum(group)?.into(), momentum, "state.momentum")?;
        }
    }
    Ok(report)
}

/// Sets what the expected state says.
fn restore(case: &Case<'_>, optimizer: &mut dyn Optimizer, setter: &mut Setter) -> Result<()> {
    for group in 0..optimizer.groups() {
        let expected = case.expected_at(&["state", "groups", &group.to_string()])?;
        for (key, value) in expected.as_object().context("no map")? {
            if ["lr", "momentum", "betas"].contains(&key.as_str()) {
                optimizer.set(group, key, setting(value)?)?;
            }
        }
    }
    let state = case.expected_at(&["state", "scheduler"])?;
    let count =
        |key: &str| Ok::<usize, anyhow::Error>(first(state, key)?.as_f64().context("no number")? as usize);
    match setter {
        Setter::Scheduler(scheduler) => {
            let base = first(state, "base_lrs")?.as_array().context("no list")?;
            let base_lrs = base.iter().map(|lr| lr.as_f64().context("no number")).collect::<Result<_>>()?;
            scheduler.load_state_dict(SchedulerState { last_epoch: count("last_epoch")?, base_lrs })?;
        }
        Setter::Plateau(plateau) => plateau.load_state_dict(PlateauState {
            last_epoch: count("last_epoch")?,
            best: node::float(first(state, "best")?).context("no number")?,
            cooldown_counter: count("cooldown_counter")?,
            num_bad_epochs: count("num_bad_epochs")?,
        }),
    }
    Ok(())
}

/// An entry of a state, or of the first of the schedules in it.
fn first<'v>(state: &'v Value, key: &str) -> Result<&'v Value> {
    match (state.get(key), state.get("_schedulers").and_then(|list| list.get(0))) {
        (Some(value), _) => Ok(value),
        (None, Some(inner)) => first(inner, key),
        (None, None) => bail!("the state has no {key}"),
    }
}

/// The case's optimiser and what sets its rates.
fn start(case: &Case<'_>, device: &Device) -> Result<(Box<dyn Optimizer>, Setter)> {
    let mut settings = Vec::new();
    for group in case.body.get("groups")?.items()? {
        let entries = group.entries()?.into_iter();
        settings
            .push(entries.map(|(key, value)| Ok((key, setting(value.json())?))).collect::<Result<Vec<_>>>()?);
    }
    let params = settings.iter().map(|_| Tensor::zeros([1], device)?.requires_grad_(true));
    let params = params.collect::<wgrad::Result<Vec<_>>>()?;
    let (head, tail) = params.split_first().context("there are no groups")?;
    let mut optimizer: Box<dyn Optimizer> = match case.body.get("optimizer")?.text()? {
        "SGD" => {
            let first = Sgd::new([head], SgdOptions::new())?;
            Box::new(tail.iter().try_fold(first, |all, param| all.add_group([param], SgdOptions::new()))?)
        }
        "Adam" => {
            let first = Adam::new([head], AdamOptions::new())?;
            Box::new(tail.iter().try_fold(first, |all, param| all.add_group([param], AdamOptions::new()))?)
        }
        name => bail!("the optimiser {name} is unknown"),
    };
    for (group, entries) in settings.into_iter().enumerate() {
        for (key, value) in entries {
            optimizer.set(group, key, value)?;
        }
    }
    let scheduler = case.body.get("scheduler")?;
    let setter = if scheduler.get("scheduler")?.text()? == "ReduceLROnPlateau" {
        Setter::Plateau(plateau(&scheduler.get("args")?)?)
    } else {
        Setter::Scheduler(Scheduler::new(schedule(&scheduler)?, optimizer.as_mut())?)
    };
    Ok((optimizer, setter))
}

/// Sets a builder's field, if the case says it.
macro_rules! set {
    ($args:ident, $schedule:ident, $($name:literal => $field:ident, $read:expr;)*) => {
        $(if let Some(value) = $args.read($name, $read)? {
            $schedule = $schedule.$field(value);
        })*
    };
}

fn schedule(node: &Node<'_>) -> Result<Box<dyn Schedule>> {
    let args = node.get("args")?;
    Ok(match node.get("scheduler")?.text()? {
        "LambdaLR" => {
            let mut functions = functions(&args.get("lr_lambda")?)?.into_iter();
            let first = LambdaLr::new(functions.next().context("no function")?);
            Box::new(functions.fold(first, LambdaLr::for_next))
        }
        "MultiplicativeLR" => {
            let mut functions = functions(&args.get("lr_lambda")?)?.into_iter();
            let first = MultiplicativeLr::new(functions.next().context("no function")?);
            Box::new(functions.fold(first, MultiplicativeLr::for_next))
        }
        "StepLR" => {
            let mut schedule = StepLr::new(args.get("step_size")?.size()?);
            set!(args, schedule, "gamma" => gamma, Node::float;);
            Box::new(schedule)
        }
        "MultiStepLR" => {
            let mut schedule = MultiStepLr::new(args.get("milestones")?.list(Node::size)?);
            set!(args, schedule, "gamma" => gamma, Node::float;);
            Box::new(schedule)
        }
        "ConstantLR" => {
            let mut schedule = ConstantLr::new();
            set!(args, schedule, "factor" => factor, Node::float; "total_iters" => total_iters, Node::size;);
            Box::new(schedule)
        }
        "LinearLR" => {
            let mut schedule = LinearLr::new();
            set!(args, schedule, "start_factor" => start_factor, Node::float;
                "end_factor" => end_factor, Node::float; "total_iters" => total_iters, Node::size;);
            Box::new(schedule)
        }
        "ExponentialLR" => Box::new(ExponentialLr::new(args.get("gamma")?.float()?)),
        "PolynomialLR" => {
            let mut schedule = PolynomialLr::new();
            set!(args, schedule, "total_iters" => total_iters, Node::size; "power" => power, Node::float;);
            Box::new(schedule)
        }
        "CosineAnnealingLR" => {
            let mut schedule = CosineAnnealingLr::new(args.get("T_max")?.size()?);
            set!(args, schedule, "eta_min" => eta_min, Node::float;);
            Box::new(schedule)
        }
        "CosineAnnealingWarmRestarts" => {
            let mut schedule = CosineAnnealingWarmRestarts::new(args.get("T_0")?.size()?);
            set!(args, schedule, "T_mult" => t_mult, Node::size; "eta_min" => eta_min, Node::float;);
            Box::new(schedule)
        }
        "CyclicLR" => Box::new(cyclic(&args)?),
        "OneCycleLR" => Box::new(one_cycle(&args)?),
        "SWALR" => {
            let mut schedule = SwaLr::new(per_group(&args.get("swa_lr")?)?);
            set!(args, schedule,
                "anneal_epochs" => anneal_epochs, Node::size;
                "anneal_strategy" => anneal_strategy, anneal;
            );
            Box::new(schedule)
        }
        "SequentialLR" => Box::new(SequentialLr::new(
            args.get("schedulers")?.list(schedule)?,
            args.get("milestones")?.list(Node::size)?,
        )),
        "ChainedScheduler" => Box::new(ChainedScheduler::new(args.get("schedulers")?.list(schedule)?)),
        name => bail!("the scheduler {name} is unknown"),
    })
}

fn cyclic(args: &Node<'_>) -> Result<CyclicLr> {
    let mut schedule = CyclicLr::new(per_group(&args.get("base_lr")?)?, per_group(&args.get("max_lr")?)?);
    set!(args, schedule,
        "step_size_up" => step_size_up, Node::size;
        "step_size_down" => step_size_down, Node::size;
        "cycle_momentum" => cycle_momentum, Node::bool;
        "base_momentum" => base_momentum, per_group;
        "max_momentum" => max_momentum, per_group;
    );
    let gamma = args.read("gamma", Node::float)?.unwrap_or(1.0);
    let mode = args.read("mode", Node::text)?;
    let scale_by = match args.read("scale_mode", Node::text)? {
        None | Some("cycle") => ScaleBy::Cycle,
        Some("iterations") => ScaleBy::Iterations,
        Some(mode) => bail!("the scale_mode {mode} is unknown"),
    };
    let mode = match (args.find("scale_fn"), mode) {
        (Some(function), _) => match function.get("$scale")?.text()? {
            "one" => CyclicMode::Custom(scale_by, Arc::new(|_| 1.0)),
            "halve" => CyclicMode::Custom(scale_by, Arc::new(|x| 1.0 / 2f64.powf(x - 1.0))),
            "decay" => CyclicMode::Custom(scale_by, Arc::new(|x| 0.97f64.powf(x))),
            name => bail!("the scale {name} is unknown"),
        },
        (None, None | Some("triangular")) => CyclicMode::Triangular,
        (None, Some("triangular2")) => CyclicMode::Triangular2,
        (None, Some("exp_range")) => CyclicMode::ExpRange(gamma),
        (None, Some(mode)) => bail!("the mode {mode} is unknown"),
    };
    Ok(schedule.mode(mode))
}

fn one_cycle(args: &Node<'_>) -> Result<OneCycleLr> {
    let count = |key: &str| args.read(key, Node::size);
    let steps = match (count("total_steps")?, count("epochs")?, count("steps_per_epoch")?) {
        (Some(steps), _, _) => steps,
        (None, Some(epochs), Some(steps)) => epochs * steps,
        _ => bail!("there is no number of steps"),
    };
    let mut schedule = OneCycleLr::new(per_group(&args.get("max_lr")?)?, steps);
    set!(args, schedule,
        "pct_start" => pct_start, Node::float;
        "anneal_strategy" => anneal_strategy, anneal;
        "cycle_momentum" => cycle_momentum, Node::bool;
        "base_momentum" => base_momentum, per_group;
        "max_momentum" => max_momentum, per_group;
        "div_factor" => div_factor, Node::float;
        "final_div_factor" => final_div_factor, Node::float;
        "three_phase" => three_phase, Node::bool;
    );
    Ok(schedule)
}

fn plateau(args: &Node<'_>) -> Result<ReduceLrOnPlateau> {
    let mut schedule = ReduceLrOnPlateau::new();
    let mode = |node: &Node<'_>| match node.text()? {
        "min" => Ok(PlateauMode::Min),
        "max" => Ok(PlateauMode::Max),
        _ => node.unknown(),
    };
    let threshold_mode = |node: &Node<'_>| match node.text()? {
        "rel" => Ok(ThresholdMode::Rel),
        "abs" => Ok(ThresholdMode::Abs),
        _ => node.unknown(),
    };
    set!(args, schedule,
        "mode" => mode, mode;
        "factor" => factor, Node::float;
        "patience" => patience, Node::size;
        "threshold" => threshold, Node::float;
        "threshold_mode" => threshold_mode, threshold_mode;
        "cooldown" => cooldown, Node::size;
        "min_lr" => min_lr, per_group;
        "eps" => eps, Node::float;
    );
    Ok(schedule)
}

fn per_group(node: &Node<'_>) -> Result<PerGroup> {
    if node.is_list() { Ok(node.list(Node::float)?.into()) } else { Ok(node.float()?.into()) }
}

fn anneal(node: &Node<'_>) -> Result<Anneal> {
    match node.text()? {
        "cos" => Ok(Anneal::Cos),
        "linear" => Ok(Anneal::Linear),
        _ => node.unknown(),
    }
}

type Function = Box<dyn Fn(usize) -> f64 + Send + Sync>;

/// Functions of the epoch, as the format names them.
fn functions(node: &Node<'_>) -> Result<Vec<Function>> {
    if node.is_list() { node.list(function) } else { Ok(vec![function(node)?]) }
}

fn function(node: &Node<'_>) -> Result<Function> {
    let a = node.get("a")?.float()?;
    Ok(match node.get("$lambda")?.text()? {
        "power" => Box::new(move |epoch| a.powf(epoch as f64)),
        "inverse" => Box::new(move |epoch| 1.0 / (1.0 + a * epoch as f64)),
        "constant" => Box::new(move |_| a),
        "alternate" => Box::new(move |epoch| if epoch % 2 == 1 { a } else { 1.0 }),
        "warmup" => Box::new(move |epoch| ((epoch as f64 + 1.0) / a).min(1.0)),
        name => bail!("the function {name} is unknown"),
    })
}
