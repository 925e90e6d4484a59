//! Clipped gradients, averaged models, scaled losses.

use anyhow::{Context, Result, bail, ensure};
use wgrad::nn::{BatchNorm1d, Layer, Linear, Module, Sequential};
use wgrad::optim::{
    Average, AveragedModel, GradScaler, GradScalerOptions, Named, NormOptions, Optimizer, Sgd, SgdOptions,
    clip_grad_norm_, clip_grad_norm_with_, clip_grad_value_, get_total_norm, update_bn,
};
use wgrad::{DType, Device, Tensor, no_grad};

use super::optimizers::setting;
use crate::case::Case;
use crate::node::Node;
use crate::report::Outcome;
use crate::tree::Tree;

pub fn run(case: &Case<'_>, device: &Device) -> Result<Outcome> {
    let tree = match case.body.get("kind")?.text()? {
        "clip_grad_norm" => clip_norm(case, device)?,
        "clip_grad_value" => clip_value(case, device)?,
        "get_total_norm" => total_norm(case, device)?,
        "averaged_model" => averaged(case, device)?,
        "grad_scaler" => scaled(case, device)?,
        "autocast" => return Ok(Outcome::Waiting("autocast")),
        "update_bn" => updated_statistics(case, device)?,
        kind => bail!("the kind {kind} is unknown"),
    };
    Ok(case.compare(&tree)?.into())
}

/// Parameters with the case's gradients.
fn params(case: &Case<'_>, device: &Device) -> Result<Vec<Tensor>> {
    let mut params = Vec::new();
    for grad in case.body.get("grads")?.items()? {
        params.push(match grad.optional(Node::text)? {
            Some(name) => {
                let grad = case.tensor(name, device)?;
                let param = grad.zeros_like()?.requires_grad_(true)?;
                param.set_grad(Some(&grad))?;
                param
            }
            None => Tensor::zeros([2], device)?.requires_grad_(true)?,
        });
    }
    Ok(params)
}

fn grads(params: &[Tensor]) -> Tree {
    Tree::list(params.iter().map(Tensor::grad))
}

fn norm_options(args: &Node<'_>) -> Result<NormOptions> {
    let mut options = NormOptions::new();
    if let Some(norm_type) = args.read("norm_type", Node::float)? {
        options = options.norm_type(norm_type);
    }
    if let Some(error) = args.read("error_if_nonfinite", Node::bool)? {
        options = options.error_if_nonfinite(error);
    }
    Ok(options)
}

fn clip_norm(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let params = params(case, device)?;
    let args = case.body.get("args")?;
    let (max_norm, options) = (args.get("max_norm")?.float()?, norm_options(&args)?);
    let before = params
        .iter()
        .filter_map(Tensor::grad)
        .map(|grad| grad.to_vec::<f32>())
        .collect::<wgrad::Result<Vec<_>>>()?;
    match clip_grad_norm_with_(&params, max_norm, &options) {
        Ok(total) => Ok(Tree::map([("total_norm", Tree::from(total)), ("grads", grads(&params))])),
        Err(error) => {
            // The message is this library's own; PyTorch's says that there is one.
            let expected = case.expected_at(&["error"]).with_context(|| error.to_string())?;
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for (grad, before) in params.iter().filter_map(Tensor::grad).zip(&before) {
                ensure!(bits(&grad.to_vec::<f32>()?) == bits(before), "a gradient was changed");
            }
            Ok(Tree::map([("error", expected.as_str().context("no text")?)]))
        }
    }
}

fn clip_value(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let params = params(case, device)?;
    clip_grad_value_(&params, case.body.get("args")?.get("clip_value")?.float()?)?;
    Ok(Tree::map([("grads", grads(&params))]))
}

fn total_norm(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let params = params(case, device)?;
    let grads: Vec<Tensor> = params.iter().filter_map(Tensor::grad).collect();
    let total = get_total_norm(&grads, &norm_options(&case.body.get("args")?)?)?;
    Ok(Tree::map([("total_norm", total)]))
}

fn averaged(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let mut series = Vec::new();
    for (name, entry) in case.body.get("series")?.entries()? {
        let values = case.tensor(entry.get("tensor")?.text()?, device)?;
        let now = values.select(0, 0)?.deep_clone()?;
        series.push((name.to_owned(), values, now, entry.get("buffer")?.bool()?));
    }
    let decay = case.body.get("decay")?.float()?;
    let average = match case.body.get("average")?.text()? {
        "ema" => Average::Ema(decay),
        "swa" | "default" => Average::Equal,
        name => bail!("the average {name} is unknown"),
    };
    let of = |buffer: bool| {
        series
            .iter()
            .filter(move |entry| entry.3 == buffer)
            .map(|(name, _, now, _)| (name.clone(), now.clone()))
    };
    let uses_buffers = case.body.get("use_buffers")?.bool()?;
    let mut model = AveragedModel::new(of(false), average)?.with_buffers(of(true), uses_buffers)?;
    let updates = case.body.get("updates")?.size()?;
    let mut averages = Vec::new();
    for update in 0..updates {
        for (_, values, now, _) in &series {
            no_grad(|| now.copy_(&values.select(0, update as isize)?))?;
        }
        model.update()?;
        averages.push(Tree::map(model.state_dict()?.0));
    }
    let count = Tensor::full((), model.n_averaged() as i64, (DType::I64, device))?;
    Ok(Tree::map([("averaged", Tree::List(averages)), ("n_averaged", count.into())]))
}

fn scaled(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let mut options = GradScalerOptions::new();
    for (name, value) in case.body.get("args")?.entries()? {
        ensure!(options.set(name, &setting(value.json())?)?, "the option {name} is unknown");
    }
    let is_enabled = options.enabled;
    let mut scaler = GradScaler::new(options)?;
    let tensors = |key: &str| {
        case.body
            .get(key)?
            .list(Node::text)?
            .into_iter()
            .map(|name| case.tensor(name, device))
            .collect::<Result<Vec<_>>>()
    };
    let params = tensors("params")?
        .iter()
        .map(|param| param.requires_grad_(true))
        .collect::<wgrad::Result<Vec<_>>>()?;
    let grads = tensors("grads")?;
    let lr = case.body.get("lr")?.float()?;
    let sgd = |param| Sgd::new([param], SgdOptions::new().lr(lr).momentum(0.9));
    let mut optimizers = params.iter().map(sgd).collect::<wgrad::Result<Vec<_>>>()?;
    let clip = case.body.get("clip")?.optional(Node::float)?;
    let new_scale = case.body.get("new_scale")?;
    let mut seen: [Vec<Tree>; 5] = Default::default();
    for step in 0..case.body.get("steps")?.size()? {
        let before = params.iter().map(|param| param.to_vec::<f32>()).collect::<wgrad::Result<Vec<_>>>()?;
        optimizers.iter().for_each(Optimizer::zero_grad);
        let product = |(param, grads): (&Tensor, &Tensor)| param.mul(grads.select(0, step as isize)?)?.sum();
        let losses = params.iter().zip(&grads).map(product).collect::<wgrad::Result<Vec<_>>>()?;
        let loss = Tensor::stack(&losses.iter().collect::<Vec<_>>(), 0)?.sum()?;
        scaler.scale(&loss)?.backward()?;
        if let Some(clip) = clip {
            optimizers.iter().try_for_each(|optimizer| scaler.unscale_(optimizer))?;
            seen[4].push(clip_grad_norm_(&params, clip)?.into());
        }
        optimizers.iter_mut().try_for_each(|optimizer| scaler.step(optimizer))?;
        match new_scale.read(&step.to_string(), Node::float)? {
            Some(scale) => scaler.update_to(scale)?,
            None => scaler.update()?,
        }
        seen[0].push(scaler.get_scale()?.into());
        seen[1].push(scaler.growth_tracker()?.into());
        let now = params.iter().map(|param| param.to_vec::<f32>()).collect::<wgrad::Result<Vec<_>>>()?;
        seen[2].push(Tree::list(before.iter().zip(&now).map(|(before, now)| before != now)));
        seen[3].push(Tree::list(
            params.iter().map(|param| param.detach().deep_clone()).collect::<wgrad::Result<Vec<_>>>()?,
        ));
    }
    let saved = scaler.state_dict()?;
    let state = if is_enabled {
        Tree::map([
            ("scale", Tree::from(saved.scale)),
            ("growth_factor", saved.growth_factor.into()),
            ("backoff_factor", saved.backoff_factor.into()),
            ("growth_interval", saved.growth_interval.into()),
            ("_growth_tracker", saved.growth_tracker.into()),
        ])
    } else {
        Tree::Map(Default::default())
    };
    let names = ["scale", "growth_tracker", "stepped", "params", "grad_norms"];
    let entries = names.into_iter().zip(seen).map(|(name, list)| (name, Tree::List(list)));
    Ok(Tree::map(entries.chain([("state_dict", state)])))
}

fn updated_statistics(case: &Case<'_>, device: &Device) -> Result<Tree> {
    let [inputs, outputs] = case.body.get("linear")?.array(Node::size)?;
    let momentum = case.body.get("momentum")?.optional(Node::float)?;
    let norm = BatchNorm1d::options(outputs).momentum(momentum).build(device)?;
    let model = Sequential::new().push(Linear::new(inputs, outputs, device)?).push(norm);
    let mut state = model.state_dict()?;
    for (path, name) in case.body.get("state")?.entries()? {
        ensure!(state.contains_key(path), "the model has no {path}");
        state.insert(path.to_owned(), case.tensor(name.text()?, device)?);
    }
    model.load_state_dict(&state, true)?;
    let batches = case.tensor(case.body.get("batches")?.text()?, device)?.unbind(0)?;
    update_bn(&model, &batches, |batch| model.forward(batch))?;
    let after = model.state_dict()?;
    let names = ["running_mean", "running_var", "num_batches_tracked"];
    let mut entries = Vec::new();
    for name in names {
        entries.push((name, Tree::from(after.get(&format!("1.{name}")).context("no statistics")?)));
    }
    // The layer's momentum is a setting that nobody changes.
    Ok(Tree::map(entries.into_iter().chain([("momentum_after", momentum.into())])))
}
