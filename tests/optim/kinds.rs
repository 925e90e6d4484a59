//! All optimisers that step without a closure, by name, each in a form that uses all of its state.

use wgrad::optim::{
    Adadelta, AdadeltaOptions, Adafactor, AdafactorOptions, Adagrad, AdagradOptions, Adam, AdamOptions,
    AdamW, AdamWOptions, Adamax, AdamaxOptions, Asgd, AsgdOptions, Lion, LionOptions, Muon, MuonOptions,
    NAdam, NAdamOptions, Optimizer, RAdam, RAdamOptions, RmsProp, RmsPropOptions, Rprop, RpropOptions, Sgd,
    SgdOptions,
};
use wgrad::{Result, Tensor};

/// Their names; Muon, which takes matrices only, is the last.
pub const KINDS: [&str; 16] = [
    "SGD",
    "dampened",
    "Nesterov",
    "Adam",
    "AdamW",
    "Adagrad",
    "RMSprop",
    "Adadelta",
    "Adamax",
    "NAdam",
    "RAdam",
    "Rprop",
    "ASGD",
    "Adafactor",
    "Lion",
    "Muon",
];

/// Those that take parameters of any shape.
pub fn of_any_shape() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().filter(|kind| *kind != "Muon")
}

/// The optimiser of a name.
pub fn make(kind: &str, params: &[Tensor]) -> Result<Box<dyn Optimizer>> {
    let sgd = SgdOptions::new().lr(0.05).momentum(0.9).weight_decay(0.01);
    Ok(match kind {
        "SGD" => Box::new(Sgd::new(params, SgdOptions::new().lr(0.05))?),
        "dampened" => Box::new(Sgd::new(params, sgd.dampening(0.5))?),
        "Nesterov" => Box::new(Sgd::new(params, sgd.nesterov(true))?),
        "Adam" => Box::new(Adam::new(params, AdamOptions::new().lr(0.05).amsgrad(true).weight_decay(0.01))?),
        "AdamW" => Box::new(AdamW::new(params, AdamWOptions::new().lr(0.05))?),
        "Adagrad" => Box::new(Adagrad::new(params, AdagradOptions::new().lr(0.05).lr_decay(0.1))?),
        "RMSprop" => {
            let options = RmsPropOptions::new().lr(0.05).momentum(0.5).centered(true).eps(1e-3);
            Box::new(RmsProp::new(params, options)?)
        }
        "Adadelta" => Box::new(Adadelta::new(params, AdadeltaOptions::new())?),
        "Adamax" => Box::new(Adamax::new(params, AdamaxOptions::new().lr(0.05))?),
        "NAdam" => Box::new(NAdam::new(params, NAdamOptions::new().lr(0.05))?),
        "RAdam" => Box::new(RAdam::new(params, RAdamOptions::new().lr(0.05))?),
        "Rprop" => Box::new(Rprop::new(params, RpropOptions::new().lr(0.05))?),
        "ASGD" => Box::new(Asgd::new(params, AsgdOptions::new().lr(0.05).t0(1.0))?),
        "Adafactor" => Box::new(Adafactor::new(params, AdafactorOptions::new().lr(0.05))?),
        "Lion" => Box::new(Lion::new(params, LionOptions::new().lr(0.05).weight_decay(0.01))?),
        _ => Box::new(Muon::new(params, MuonOptions::new().lr(0.05))?),
    })
}

/// Numbers between -1 and 1, other ones for each seed.
pub fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13 + 1) as f32 * 0.37).sin()).collect()
}
