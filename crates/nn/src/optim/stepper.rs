//! What all optimisers have in common that change each parameter by a [`Rule`]: groups with their own
//! settings, parameters without a gradient, shared numbers, skipped steps, saving and loading.
//!
//! A step is one piece of the lazy graph. It reads nothing: which parameters take part is known from their
//! gradients being there, and all that depends on the number of steps is computed from a 0-dim tensor on the
//! device. It is evaluated with the backward before it, when the next backward begins, or else the next step.
//! New values are written in place when all of them have been made, so a step that fails changes nothing, and
//! one whose evaluation fails later goes back with everything else that was written.

use std::collections::BTreeSet;

use wgrad_autograd::{DType, Device, Error, Result, Tensor, no_grad};

use super::Optimizer;
use super::parameters::{self, Parameter};
use super::rule::{Input, Output, Rule, compute_dtype};
use super::setting::{Setting, Settings, check};
use super::state::OptimizerState;

/// An optimiser that changes each parameter by the rule `R`, whose fields are its settings:
/// [`Adam`](super::Adam) is `Stepper<AdamOptions>`.
///
/// ```
/// use wgrad::optim::{Adam, AdamOptions, Optimizer};
/// use wgrad::{Device, Tensor};
///
/// let x = Tensor::new([3.0, -2.0], &Device::cpu())?.requires_grad_(true)?;
/// let mut optimizer = Adam::new([&x], AdamOptions::new().lr(0.1))?;
/// for _ in 0..100 {
///     optimizer.zero_grad();
///     x.square()?.sum()?.backward()?;
///     optimizer.step()?;
/// }
/// assert!(x.abs()?.max()?.item::<f32>()? < 0.1);
/// # Ok::<(), wgrad::Error>(())
/// ```
pub struct Stepper<R> {
    pub(super) groups: Vec<Group<R>>,
    /// What the last step wrote.
    written: Vec<Tensor>,
    /// Whether there has been a step, or a state was loaded.
    has_begun: bool,
}

/// Parameters with the same settings.
pub(super) struct Group<R> {
    pub(super) options: R,
    pub(super) members: Vec<Member>,
    pub(super) cohorts: Vec<Cohort>,
}

/// A parameter's state by name.
pub(super) type State = Vec<(&'static str, Tensor)>;

/// What members must agree in to share numbers: the device, and the dtype to compute in.
pub(super) type Kind = (Device, DType);

/// A parameter with its state.
pub(super) struct Member {
    pub(super) path: String,
    pub(super) param: Tensor,
    pub(super) state: State,
}

/// Members of a group that have taken the same steps: they share their numbers.
pub(super) struct Cohort {
    /// Places in the group.
    pub(super) members: Vec<usize>,
    pub(super) shared: Vec<Tensor>,
}

impl<R: Rule> Stepper<R> {
    /// An optimiser of these parameters with one group: tensors, or pairs of a path and a tensor as a
    /// module's `named_parameters` gives. Tensors without a path are called by their place, from `"0"` on.
    ///
    /// ```
    /// use wgrad::optim::{Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let weight = Tensor::ones([2, 3], &Device::cpu())?.requires_grad_(true)?;
    /// let optimizer = Sgd::new([("layer.weight", &weight)], SgdOptions::new().lr(0.1).momentum(0.9))?;
    /// # let _ = optimizer;
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that make no sense, no parameters at all, a parameter or a path that
    /// is there twice, a dtype that is no float, or a tensor that is the result of an operation.
    pub fn new<P: Parameter>(params: impl IntoIterator<Item = P>, options: R) -> Result<Self> {
        let optimizer = Stepper { groups: Vec::new(), written: Vec::new(), has_begun: false };
        optimizer.add_group(params, options)
    }

    /// With further parameters in a group of their own; `add_param_group`.
    ///
    /// ```
    /// use wgrad::optim::{Sgd, SgdOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let body = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let head = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let optimizer = Sgd::new([("body", &body)], SgdOptions::new().lr(0.001))?
    ///     .add_group([("head", &head)], SgdOptions::new().lr(0.1))?;
    /// assert_eq!(optimizer.options(1).map(|options| options.lr), Some(0.1));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Stepper::new`].
    pub fn add_group<P: Parameter>(
        mut self,
        params: impl IntoIterator<Item = P>,
        options: R,
    ) -> Result<Self> {
        options.check()?;
        let before = self.members().map(|member| (member.path.clone(), member.param.clone())).collect();
        let added = parameters::collect(R::OPTIMISER, before, params)?;
        let mut members = Vec::new();
        for (path, param) in added {
            options.check_param(&path, &param)?;
            members.push(Member { path, param, state: Vec::new() });
        }
        let mut group = Group { options, members, cohorts: Vec::new() };
        if R::EAGER {
            group.begin()?;
        }
        self.groups.push(group);
        Ok(self)
    }

    /// Moves the parameters that `takes` into a new group with settings of their own. It is asked for each
    /// parameter by path.
    ///
    /// ```
    /// use wgrad::optim::{AdamW, AdamWOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let weight = Tensor::ones([2, 3], &Device::cpu())?.requires_grad_(true)?;
    /// let bias = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let options = AdamWOptions::new().lr(3e-4).weight_decay(0.1);
    /// let optimizer = AdamW::new([("weight", &weight), ("bias", &bias)], options.clone())?
    ///     .with_group(|path, _| path.ends_with("bias"), options.weight_decay(0.0))?;
    /// assert_eq!(optimizer.options(1).map(|options| options.weight_decay), Some(0.0));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that make no sense, if no parameter is taken, or after the first step.
    pub fn with_group(mut self, takes: impl Fn(&str, &Tensor) -> bool, options: R) -> Result<Self> {
        options.check()?;
        check(R::OPTIMISER, !self.has_begun, || {
            "there has been a step; make the groups before the first one".to_owned()
        })?;
        let all = || self.groups.iter().flat_map(|group| &group.members);
        let taken: BTreeSet<String> = all()
            .filter(|member| takes(&member.path, &member.param))
            .map(|member| member.path.clone())
            .collect();
        check(R::OPTIMISER, !taken.is_empty(), || "no parameter is taken into the new group".to_owned())?;
        for member in all().filter(|member| taken.contains(&member.path)) {
            options.check_param(&member.path, &member.param)?;
        }
        let mut members = Vec::new();
        for group in &mut self.groups {
            let (moved, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut group.members)
                .into_iter()
                .partition(|member| taken.contains(&member.path));
            members.extend(moved.into_iter().map(|member| Member { state: Vec::new(), ..member }));
            group.members = kept.into_iter().map(|member| Member { state: Vec::new(), ..member }).collect();
            group.cohorts.clear();
        }
        self.groups.push(Group { options, members, cohorts: Vec::new() });
        if R::EAGER {
            self.groups.iter_mut().try_for_each(Group::begin)?;
        }
        Ok(self)
    }

    /// A group's settings; `None` if there is no such group.
    ///
    /// ```
    /// use wgrad::optim::{RmsProp, RmsPropOptions};
    /// use wgrad::{Device, Tensor};
    ///
    /// let x = Tensor::ones([2], &Device::cpu())?.requires_grad_(true)?;
    /// let optimizer = RmsProp::new([x], RmsPropOptions::new().alpha(0.9))?;
    /// assert_eq!(optimizer.options(0).map(|options| options.alpha), Some(0.9));
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    pub fn options(&self, group: usize) -> Option<&R> {
        self.groups.get(group).map(|group| &group.options)
    }

    /// Goes on with these groups.
    pub(super) fn resume(&mut self, groups: Vec<Group<R>>) {
        *self = Stepper { groups, written: Vec::new(), has_begun: true };
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.groups.iter().flat_map(|group| &group.members)
    }

    fn group(&self, group: usize) -> Result<&Group<R>> {
        let count = self.groups.len();
        self.groups.get(group).ok_or_else(|| no_group(R::OPTIMISER, group, count))
    }

    /// Makes a step, or none where `skip` holds.
    fn advance(&mut self, skip: Option<&Tensor>) -> Result<()> {
        // The next backward has evaluated the step before. Where there was none, steps would pile up.
        Tensor::eval_all(&self.written)?;
        no_grad(|| {
            let mut writes = Writes { skip, list: Vec::new() };
            let steps =
                self.groups.iter().map(|group| group.step(&mut writes)).collect::<Result<Vec<_>>>()?;
            // Nothing fails from here on but a device.
            for (group, step) in self.groups.iter_mut().zip(steps) {
                group.cohorts = step.cohorts;
                step.state.into_iter().for_each(|(member, state)| {
                    if let Some(member) = group.members.get_mut(member) {
                        member.state = state;
                    }
                });
            }
            self.written = writes.commit()?;
            self.has_begun = true;
            Ok(())
        })
    }
}

/// The error for a group that an optimiser does not have.
pub(super) fn no_group(op: &'static str, group: usize, count: usize) -> Error {
    Error::Argument { op, reason: format!("there is no group {group}; there are {count}, counted from 0") }
}

/// What is written at the end of a step.
struct Writes<'a> {
    skip: Option<&'a Tensor>,
    list: Vec<(Tensor, Tensor)>,
}

impl Writes<'_> {
    /// Notes a new value for a tensor, which keeps its old one where the step is skipped.
    fn add(&mut self, target: &Tensor, new: Tensor) -> Result<()> {
        let new = new.to_dtype(target.dtype())?;
        let new = match self.skip {
            Some(skip) => skip.to_device(target.device())?.where_cond(target, &new)?,
            None => new,
        };
        self.list.push((target.clone(), new));
        Ok(())
    }

    /// Writes all of it, and tells what has been written.
    fn commit(self) -> Result<Vec<Tensor>> {
        self.list.into_iter().map(|(target, new)| target.copy_(&new)).collect()
    }
}

/// What a step makes of a group.
struct Step {
    cohorts: Vec<Cohort>,
    /// By a member's place, what its state is then.
    state: Vec<(usize, State)>,
}

impl<R: Rule> Group<R> {
    fn step(&self, writes: &mut Writes<'_>) -> Result<Step> {
        let mut step = Step { cohorts: Vec::new(), state: Vec::new() };
        let grads: Vec<Option<Tensor>> = self.members.iter().map(|member| member.param.grad()).collect();
        let has_grad = |place: &usize| grads.get(*place).is_some_and(Option::is_some);
        for (members, shared) in self.cohorts_with_new(has_grad)? {
            let (active, idle): (Vec<usize>, Vec<usize>) = members.into_iter().partition(has_grad);
            if active.is_empty() {
                step.cohorts.push(Cohort { members: idle, shared });
                continue;
            }
            // Where some of them stay behind, the others go on with numbers of their own.
            let own = if idle.is_empty() {
                shared.clone()
            } else {
                step.cohorts.push(Cohort { members: idle, shared: shared.clone() });
                shared.iter().map(Tensor::deep_clone).collect::<Result<_>>()?
            };
            // Where a gradient's data have a fault, there was no step for any of them.
            let mut next = self.options.tick(&shared)?;
            for grad in active.iter().filter_map(|&place| grads.get(place)?.as_ref()) {
                next = next.iter().map(|number| number.tied_to(grad)).collect::<Result<_>>()?;
            }
            let factors = self.factors(&active, &shared, &next)?;
            for (target, new) in own.iter().zip(next) {
                writes.add(target, new)?;
            }
            for &place in &active {
                let (Some(member), Some(Some(grad))) = (self.members.get(place), grads.get(place)) else {
                    continue;
                };
                step.state.push((place, self.update(member, grad, &factors, writes)?));
            }
            step.cohorts.push(Cohort { members: active, shared: own });
        }
        Ok(step)
    }

    /// The cohorts there are, and those of members that step for the first time.
    fn cohorts_with_new(&self, takes: impl Fn(&usize) -> bool) -> Result<Vec<(Vec<usize>, Vec<Tensor>)>> {
        let known: BTreeSet<usize> =
            self.cohorts.iter().flat_map(|cohort| cohort.members.iter().copied()).collect();
        let mut cohorts: Vec<(Vec<usize>, Vec<Tensor>)> =
            self.cohorts.iter().map(|cohort| (cohort.members.clone(), cohort.shared.clone())).collect();
        let mut new: Vec<(Kind, Vec<usize>)> = Vec::new();
        for (place, member) in self.members.iter().enumerate() {
            if known.contains(&place) || !takes(&place) {
                continue;
            }
            let kind = member.kind();
            match new.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, places)) => places.push(place),
                None => new.push((kind, vec![place])),
            }
        }
        for ((device, _), places) in new {
            let start = self.options.shared().start;
            cohorts.push((places, shared_numbers(&start, &device)?));
        }
        Ok(cohorts)
    }

    /// What the rule computes once for these members, in their precision.
    fn factors(&self, members: &[usize], old: &[Tensor], new: &[Tensor]) -> Result<Vec<Tensor>> {
        let first = members.first().and_then(|&place| self.members.get(place));
        let dtype = first.map_or(DType::F32, |member| compute_dtype(member.param.dtype()));
        let precise = |shared: &[Tensor]| {
            shared.iter().map(|number| number.to_dtype(dtype)).collect::<Result<Vec<_>>>()
        };
        self.options.factors(&precise(old)?, &precise(new)?)
    }

    /// The state of a member after its step, whose writes are noted.
    fn update(
        &self,
        member: &Member,
        grad: &Tensor,
        factors: &[Tensor],
        writes: &mut Writes<'_>,
    ) -> Result<State> {
        let dtype = compute_dtype(member.param.dtype());
        let slots = self.slots(member)?;
        let state = slots.iter().map(|(_, tensor)| tensor.to_dtype(dtype)).collect::<Result<Vec<_>>>()?;
        let grad = grad.to_dtype(dtype)?;
        let grad = if self.options.maximize() { grad.neg()? } else { grad };
        let param = member.param.detach().to_dtype(dtype)?;
        let Output { param, state } =
            self.options.update(&Input { param: &param, grad: &grad, state: &state, factors })?;
        for ((_, target), new) in slots.iter().zip(state) {
            writes.add(target, new)?;
        }
        writes.add(&member.param, param)?;
        // What the rule does not use now may be used again.
        let others = member.state.iter().filter(|(name, _)| slots.iter().all(|(slot, _)| slot != name));
        let others = others.cloned().collect::<Vec<_>>();
        Ok(slots.into_iter().chain(others).collect())
    }

    /// The state that the rule works with, made where it is missing.
    fn slots(&self, member: &Member) -> Result<State> {
        let slot = |&name: &&'static str| {
            let found = member.state.iter().find(|(other, _)| *other == name);
            let tensor = match found {
                Some((_, tensor)) => tensor.clone(),
                None => self.options.begin(name, &member.param.detach())?,
            };
            Ok((name, tensor))
        };
        self.options.slots(&member.param).iter().map(slot).collect()
    }

    /// Makes the state of all members before their first step.
    pub(super) fn begin(&mut self) -> Result<()> {
        no_grad(|| {
            let cohorts = self.cohorts_with_new(|_| true)?;
            let states = self.members.iter().map(|member| self.slots(member)).collect::<Result<Vec<_>>>()?;
            self.cohorts = cohorts.into_iter().map(|(members, shared)| Cohort { members, shared }).collect();
            for (member, state) in self.members.iter_mut().zip(states) {
                member.state = state;
            }
            Ok(())
        })
    }
}

impl Member {
    pub(super) fn kind(&self) -> Kind {
        (self.param.device().clone(), compute_dtype(self.param.dtype()))
    }
}

/// 0-dim tensors of these numbers, in memory: what is known to be constant would be folded into other plans
/// than later numbers.
pub(super) fn shared_numbers(numbers: &[f64], device: &Device) -> Result<Vec<Tensor>> {
    numbers.iter().map(|&number| Tensor::from_slice(&[number as f32], (), device)).collect()
}

impl<R: Rule> Optimizer for Stepper<R> {
    fn step(&mut self) -> Result<()> {
        self.advance(None)
    }

    fn step_unless(&mut self, skip: &Tensor) -> Result<()> {
        check(R::OPTIMISER, skip.dtype() == DType::Bool && skip.rank() == 0, || {
            format!("skip is {} of shape {:?}; it must be a 0-dim bool", skip.dtype(), skip.shape())
        })?;
        self.advance(Some(skip))
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.members().map(|member| (member.path.clone(), member.param.clone())).collect()
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn settings(&self, group: usize) -> Result<Settings> {
        Ok(self.group(group)?.options.settings())
    }

    fn set(&mut self, group: usize, name: &str, value: Setting) -> Result<()> {
        let mut options = self.group(group)?.options.clone();
        let known = options.set(name, &value)?;
        check(R::OPTIMISER, known, || format!("there is no setting {name:?}"))?;
        options.check()?;
        if let Some(group) = self.groups.get_mut(group) {
            group.options = options;
        }
        Ok(())
    }

    fn state_dict(&self) -> Result<OptimizerState> {
        self.save()
    }

    fn load_state_dict(&mut self, state: &OptimizerState) -> Result<()> {
        self.load(state)
    }
}
