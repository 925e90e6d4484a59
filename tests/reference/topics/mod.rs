//! How the cases of each topic are replayed. One file a topic, with a function `run` that reads a case and
//! compares what comes of it.

mod grad_utils;
mod init;
mod layers;
mod lr_schedulers;
mod optimizers;

use anyhow::Result;
use wgrad::Device;

use crate::case::Case;
use crate::report::Outcome;

/// Replays a case on a device.
pub type Run = fn(case: &Case<'_>, device: &Device) -> Result<Outcome>;

/// All topics that are replayed.
const TOPICS: &[(&str, Run)] = &[
    ("grad_utils", grad_utils::run),
    ("init", init::run),
    ("layers", layers::run),
    ("lr_schedulers", lr_schedulers::run),
    ("optimizers", optimizers::run),
];

/// How a topic's cases are replayed.
pub fn find(topic: &str) -> Option<Run> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, run)| *run)
}
