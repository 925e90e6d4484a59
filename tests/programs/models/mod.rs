//! The programs of the record, one a file; `record.py` has their twins under the same names.

use anyhow::Result;

use crate::run::Run;

mod accumulation;
mod cnn;
mod dqn;
mod flow;
mod gaussian_process;
mod gpt;
mod graph_network;
mod maml;
mod neural_ode;
mod pinn;
mod rnn;
mod unet;
mod vae;
mod wgan_gp;

/// A program by its name in the record.
pub type Program = (&'static str, fn(&mut Run) -> Result<()>);

pub const PROGRAMS: &[Program] = &[
    ("rnn", rnn::train),
    ("cnn", cnn::train),
    ("vae", vae::train),
    ("wgan_gp", wgan_gp::train),
    ("pinn", pinn::train),
    ("maml", maml::train),
    ("gpt", gpt::train),
    ("gaussian_process", gaussian_process::train),
    ("neural_ode", neural_ode::train),
    ("accumulation", accumulation::train),
    ("dqn", dqn::train),
    ("flow", flow::train),
    ("graph_network", graph_network::train),
    ("unet", unet::train),
];
