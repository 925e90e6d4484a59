//! A module's values as a whole: kept by path, loaded, replaced.

use std::collections::BTreeMap;

use wgrad_autograd::{Error, Result, Tensor, no_grad};

use super::{Hooks, Kind, Module, Value, Visitor, Walk};

/// Values by path.
pub type StateDict = BTreeMap<String, Tensor>;

/// For each tensor what a function makes of it, as a leaf; the same for the same.
pub(super) fn replacements(
    tensors: &[(String, Kind, Tensor)],
    function: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let mut known: Vec<(&Tensor, Tensor)> = Vec::new();
    for (_, _, old) in tensors {
        let new = match known.iter().find(|(other, _)| other.is_same(old)) {
            Some((_, new)) => new.clone(),
            None => replacement(old, function)?,
        };
        known.push((old, new));
    }
    Ok(known.into_iter().map(|(_, new)| new).collect())
}

fn replacement(old: &Tensor, function: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let new = no_grad(|| function(old))?;
    if new.is_same(old) {
        return Ok(new);
    }
    let new = new.requires_grad_(old.requires_grad() && new.dtype().is_float())?;
    if old.is_leaf()
        && let Some(grad) = old.grad()
    {
        new.set_grad(Some(&no_grad(|| function(&grad))?))?;
    }
    Ok(new)
}

/// The values of parameters and buffers that are saved, a shared one under its first path.
pub(super) fn collect(tensors: &[(String, Kind, Tensor)]) -> Result<StateDict> {
    let mut seen: Vec<&Tensor> = Vec::new();
    let mut state = StateDict::new();
    for (path, kind, tensor) in tensors {
        if *kind != Kind::Transient && !seen.iter().any(|known| known.is_same(tensor)) {
            seen.push(tensor);
            state.insert(path.clone(), no_grad(|| tensor.deep_clone())?);
        }
    }
    Ok(state)
}

/// Writes all that fits, or nothing.
pub(super) fn load(tensors: &[(String, Kind, Tensor)], state: &StateDict, strict: bool) -> Result<()> {
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
    let mut found: Vec<(&Tensor, &Tensor)> = Vec::new();
    for (path, kind, own) in tensors {
        match state.get(path) {
            Some(given) if given.shape() != own.shape() => {
                mismatched.push(format!("{path} ({:?} for {:?})", given.shape(), own.shape()));
            }
            Some(given) => found.push((own, given)),
            None if *kind == Kind::Transient => {}
            // A shared weight may be given under another of its paths.
            None if tensors.iter().any(|(other, _, shared)| {
                other != path && shared.is_same(own) && state.contains_key(other)
            }) => {}
            None => missing.push(path.clone()),
        }
    }
    let unexpected: Vec<String> =
        state.keys().filter(|key| !tensors.iter().any(|(path, ..)| path == *key)).cloned().collect();
    if !mismatched.is_empty() || strict && !(missing.is_empty() && unexpected.is_empty()) {
        return Err(Error::StateDict { missing, unexpected, mismatched });
    }
    no_grad(|| {
        let converted = found
            .iter()
            .map(|(own, given)| given.detach().to((own.dtype(), own.device())))
            .collect::<Result<Vec<_>>>()?;
        for ((own, _), value) in found.iter().zip(&converted) {
            own.copy_(value)?;
        }
        Ok(())
    })
}

/// The places of hooks with their paths.
pub(super) fn hooks(module: &dyn Module) -> Vec<(String, Hooks)> {
    struct List(Vec<(String, Hooks)>);
    impl Visitor for List {
        fn value(&mut self, path: &str, value: Value<'_>) {
            if let Value::Hooks(hooks) = value {
                // The field of the hooks is no part of the layer's path.
                let layer = path.rsplit_once('.').map_or("", |(layer, _)| layer);
                self.0.push((layer.to_owned(), hooks.clone()));
            }
        }
    }
    let mut list = List(Vec::new());
    module.visit(&mut Walk::new(&mut list));
    list.0
}
