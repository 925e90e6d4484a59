//! The tasks: what one run computes. Names and sizes are shared with the scripts for other libraries.

mod operators;
mod standard;

use wgrad::{Device, DeviceKind, Result, Tensor};

/// Tasks that belong together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Set {
    /// What training is made of, and how fast the engine is by itself.
    Standard,
    /// Operators with kernels or ways of their own, one by one.
    Operators,
}

/// The tasks of a set. `quick` cuts the sizes, which their names then say.
pub fn all(set: Set, quick: bool) -> Vec<Task> {
    match set {
        Set::Standard => standard::all(quick),
        Set::Operators => operators::all(quick),
    }
}

/// A task: a name and a way to set it up on a device.
pub struct Task {
    pub name: String,
    only: Only,
    setup: Box<Setup>,
}

/// Where a task makes sense.
#[derive(PartialEq)]
enum Only {
    Everywhere,
    /// Not on a GPU that is a program: it would take minutes.
    Hardware,
    /// Not on the CPU: it moves data from there.
    Gpu,
    /// Only on the CPU: it is computed there in any case.
    Cpu,
}

type Setup = dyn Fn(&Device) -> Result<Run>;

/// A task that is set up: each call is one run.
pub type Run = Box<dyn FnMut() -> Result<Outcome>>;

/// What one run leaves behind; all of it has to be computed before the run counts as done.
#[derive(Default)]
pub struct Outcome {
    pub loss: Option<Tensor>,
    /// Gradients, or results where there is no loss, by their names, to be compared between libraries.
    pub compared: Vec<(&'static str, Tensor)>,
    /// Everything else that the run must have computed: other gradients, new weights.
    pub rest: Vec<Tensor>,
    /// Whether the next run goes on from here, as a training step does.
    pub trains: bool,
}

impl Task {
    fn new(name: impl Into<String>, only: Only, setup: impl Fn(&Device) -> Result<Run> + 'static) -> Task {
        Task { name: name.into(), only, setup: Box::new(setup) }
    }

    /// Makes its data on a device.
    pub fn set_up(&self, device: &Device) -> Result<Run> {
        (self.setup)(device)
    }

    /// Whether it makes sense on the device of this name.
    pub fn runs_on(&self, device: &str) -> bool {
        let kind = Device::available().into_iter().find(|info| info.name == device).map(|info| info.kind);
        match self.only {
            Only::Everywhere => true,
            Only::Hardware => kind != Some(DeviceKind::Software),
            Only::Gpu => kind != Some(DeviceKind::Cpu),
            Only::Cpu => kind == Some(DeviceKind::Cpu),
        }
    }
}

/// A task that computes a loss of some leaves and all their gradients.
fn differentiated(
    name: String,
    leaves: impl Fn(&Device) -> Result<Vec<(&'static str, Tensor)>> + 'static,
    loss: impl Fn(&[Tensor]) -> Result<Tensor> + Clone + 'static,
) -> Task {
    Task::new(name, Only::Everywhere, move |device| {
        let (names, leaves): (Vec<_>, Vec<_>) = leaves(device)?.into_iter().unzip();
        let loss = loss.clone();
        Ok(Box::new(move || {
            leaves.iter().for_each(Tensor::zero_grad);
            let loss = loss(&leaves)?;
            loss.backward()?;
            let compared = grads(names.iter().copied().zip(&leaves));
            Ok(Outcome { loss: Some(loss), compared, ..Outcome::default() })
        }))
    })
}

fn grads<'a>(leaves: impl IntoIterator<Item = (&'static str, &'a Tensor)>) -> Vec<(&'static str, Tensor)> {
    leaves.into_iter().filter_map(|(name, leaf)| Some((name, leaf.grad()?))).collect()
}
