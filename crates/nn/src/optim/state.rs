//! Saving and loading of optimisers.

use std::collections::{BTreeMap, BTreeSet};

use wgrad_autograd::{DType, Device, Error, Result, Tensor, no_grad};

use super::rule::Rule;
use super::setting::Settings;
use super::stepper::{Cohort, Group, Kind, Member, State, Stepper, shared_numbers};

/// What an optimiser remembers: PyTorch's `state_dict`, with paths in the place of numbers.
///
/// The tensors are copies: later steps do not change them.
///
/// ```
/// use wgrad::optim::{Adam, AdamOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adam::new([("x", &x)], AdamOptions::new())?;
/// x.sum()?.backward()?;
/// optimizer.step()?;
///
/// let saved = optimizer.state_dict()?;
/// assert_eq!(saved.state["x"]["step"].item::<f32>()?, 1.0);
/// assert_eq!(saved.groups[0].settings["lr"], 0.001.into());
///
/// let mut resumed = Adam::new([("x", &x)], AdamOptions::new().lr(0.5))?;
/// resumed.load_state_dict(&saved)?;
/// assert_eq!(resumed.options(0).map(|options| options.lr), Some(0.001));
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OptimizerState {
    /// By a parameter's path, its state by PyTorch's names: `exp_avg`, `momentum_buffer`, `step`, ….
    /// Parameters that have not been stepped are left out.
    pub state: BTreeMap<String, BTreeMap<String, Tensor>>,
    /// The groups in their order.
    pub groups: Vec<GroupState>,
}

/// A group's settings and which parameters it has.
///
/// ```
/// use wgrad::optim::{Optimizer, Sgd, SgdOptions};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
/// let saved = Sgd::new([("x", &x)], SgdOptions::new())?.state_dict()?;
/// assert_eq!(saved.groups[0].parameters, ["x"]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupState {
    /// Their paths, in order.
    pub parameters: Vec<String>,
    /// The settings by PyTorch's names.
    pub settings: Settings,
}

/// Settings of PyTorch's that choose how it computes, not what; they are read over.
pub(super) const OF_PYTORCH_ALONE: &[&str] = &["foreach", "fused", "capturable", "differentiable"];

impl<R: Rule> Stepper<R> {
    pub(super) fn save(&self) -> Result<OptimizerState> {
        let mut saved = OptimizerState::default();
        no_grad(|| {
            for group in &self.groups {
                let shared = group.options.shared();
                for cohort in group.cohorts.iter().filter(|_| shared.resumed.is_none()) {
                    for member in cohort.members.iter().filter_map(|&place| group.members.get(place)) {
                        let state = saved.state.entry(member.path.clone()).or_default();
                        for (name, number) in shared.names.iter().zip(&cohort.shared) {
                            state.insert((*name).to_owned(), number.deep_clone()?);
                        }
                    }
                }
                for member in &group.members {
                    for (name, tensor) in &member.state {
                        let state = saved.state.entry(member.path.clone()).or_default();
                        state.insert((*name).to_owned(), tensor.deep_clone()?);
                    }
                }
                saved.groups.push(GroupState {
                    parameters: group.members.iter().map(|member| member.path.clone()).collect(),
                    settings: group.options.settings(),
                });
            }
            saved.state.retain(|_, state| !state.is_empty());
            Ok(saved)
        })
    }

    pub(super) fn load(&mut self, saved: &OptimizerState) -> Result<()> {
        let mut problems = Vec::new();
        if saved.groups.len() != self.groups.len() {
            problems.push(format!("{} groups instead of {}", saved.groups.len(), self.groups.len()));
        }
        let mut groups = Vec::new();
        for (group, from) in self.groups.iter().zip(&saved.groups) {
            compare_paths(&group.members, &from.parameters, &mut problems);
            groups.push(no_grad(|| group.loaded(from, saved, &mut problems))?);
        }
        let known: BTreeSet<&str> =
            saved.groups.iter().flat_map(|group| group.parameters.iter().map(String::as_str)).collect();
        let strangers = saved.state.keys().filter(|path| !known.contains(path.as_str()));
        problems.extend(strangers.map(|path| format!("{path} is in no group")));
        refuse(R::OPTIMISER, &problems)?;
        self.resume(groups);
        Ok(())
    }
}

/// An error that names everything that does not fit, if there is something.
pub(super) fn refuse(op: &'static str, problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Argument { op, reason: format!("the state does not fit: {}", problems.join("; ")) })
}

/// Notes paths that one side lacks.
fn compare_paths(members: &[Member], saved: &[String], problems: &mut Vec<String>) {
    let own: BTreeSet<&str> = members.iter().map(|member| member.path.as_str()).collect();
    let saved: BTreeSet<&str> = saved.iter().map(String::as_str).collect();
    problems.extend(own.difference(&saved).map(|path| format!("{path} is missing")));
    problems.extend(saved.difference(&own).map(|path| format!("{path} is unexpected")));
}

/// Shared numbers, and where they are: members for which they are equal share them again.
type Alike = (Vec<f64>, Kind);

impl<R: Rule> Group<R> {
    /// The group with a saved state; what does not fit is noted.
    fn loaded(
        &self,
        from: &super::GroupState,
        saved: &OptimizerState,
        problems: &mut Vec<String>,
    ) -> Result<Group<R>> {
        let mut options = self.options.clone();
        for (name, value) in
            from.settings.iter().filter(|(name, _)| !OF_PYTORCH_ALONE.contains(&name.as_str()))
        {
            match options.set(name, value) {
                Ok(true) => {}
                Ok(false) => problems.push(format!("the setting {name} is unknown")),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Err(error) = options.check() {
            problems.push(error.to_string());
        }
        let copy = |member: &Member| Member {
            path: member.path.clone(),
            param: member.param.clone(),
            state: Vec::new(),
        };
        let mut group =
            Group { options, members: self.members.iter().map(copy).collect(), cohorts: Vec::new() };
        let mut cohorts: Vec<(Alike, Vec<usize>)> = Vec::new();
        for place in 0..group.members.len() {
            let Some(member) = group.members.get(place) else { continue };
            let Some(tensors) = saved.state.get(&member.path) else { continue };
            let (state, numbers) = group.member_state(member, tensors, problems)?;
            let alike = (numbers, member.kind());
            if let Some(member) = group.members.get_mut(place) {
                member.state = state;
            }
            match cohorts.iter_mut().find(|(other, _)| *other == alike) {
                Some((_, members)) => members.push(place),
                None => cohorts.push((alike, vec![place])),
            }
        }
        for ((numbers, (device, _)), members) in cohorts {
            group.cohorts.push(Cohort { members, shared: shared_numbers(&numbers, &device)? });
        }
        Ok(group)
    }

    /// A member's slots and shared numbers from saved tensors.
    fn member_state(
        &self,
        member: &Member,
        saved: &BTreeMap<String, Tensor>,
        problems: &mut Vec<String>,
    ) -> Result<(State, Vec<f64>)> {
        let Member { path, param, .. } = member;
        let (slots, shared) = (self.options.slots(param), self.options.shared());
        let numbers = if shared.resumed.is_none() { shared.names } else { &[] };
        for name in
            saved.keys().filter(|name| !slots.contains(&name.as_str()) && !numbers.contains(&name.as_str()))
        {
            problems.push(format!("{path} has an unknown {name}"));
        }
        let mut state = Vec::new();
        for &slot in slots {
            let Some(tensor) = saved.get(slot) else {
                problems.push(format!("{path} has no {slot}"));
                continue;
            };
            let like = self.options.begin(slot, &param.detach())?;
            if like.shape() != tensor.shape() {
                problems.push(format!(
                    "{path}: {slot} has shape {:?} instead of {:?}",
                    tensor.shape(),
                    like.shape()
                ));
                continue;
            }
            // Memory of its own: what was given stays as it is.
            state.push((slot, tensor.detach().to((like.dtype(), like.device()))?.deep_clone()?));
        }
        let mut values = shared.resumed.unwrap_or_default();
        for name in numbers {
            match saved.get(*name) {
                Some(number) if number.numel() == 1 => {
                    values.push(number.to_device(&Device::cpu())?.to_dtype(DType::F64)?.item::<f64>()?);
                }
                Some(number) => {
                    problems.push(format!("{path}: {name} has shape {:?}; it is one number", number.shape()))
                }
                None => problems.push(format!("{path} has no {name}")),
            }
        }
        Ok((state, values))
    }
}
