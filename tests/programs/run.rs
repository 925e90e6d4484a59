//! One run of a program: on a device, in a dtype, read in some way; and what must hold of every run.

use std::fmt;

use anyhow::{Result, ensure};
use wgrad::{DType, Device, Stats, Tensor};

use crate::record::{Record, numbers};

/// The steps of every program of the record.
pub const STEPS: usize = 20;
/// Data, noise and tasks are used in turn, this many.
pub const TURNS: usize = 4;
/// After these steps a program has met everything that it does, once around its data and a step more.
const WARM: usize = TURNS + 1;

/// How a program reads its losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Each step's loss, at the step's end.
    EachStep,
    /// Each step's loss, after everything that the step changed was evaluated with it.
    Evaluating,
    /// Every seventh loss and the last one; the others are dropped unread.
    EverySeventh,
    /// All losses are kept, and read when training is over.
    Kept,
    /// The last loss only.
    AtTheEnd,
}

impl Reading {
    pub const ALL: [Reading; 5] =
        [Reading::EachStep, Reading::Evaluating, Reading::EverySeventh, Reading::Kept, Reading::AtTheEnd];
}

/// A run's place and its results so far.
pub struct Run {
    pub device: Device,
    pub dtype: DType,
    reading: Reading,
    record: Record,
    truth: Vec<f64>,
    parameters: Vec<(String, Tensor)>,
    steps: usize,
    /// Losses that are not read yet, with their steps.
    kept: Vec<(usize, Tensor)>,
    /// The device's counters at the end of each step.
    counters: Vec<Stats>,
}

impl Run {
    pub fn new(program: &'static str, device: &Device, dtype: DType, reading: Reading) -> Result<Run> {
        let record = Record::of(program)?;
        Ok(Run {
            device: device.clone(),
            dtype,
            reading,
            truth: record.truth("losses")?,
            record,
            parameters: Vec::new(),
            steps: 0,
            kept: Vec::new(),
            counters: Vec::new(),
        })
    }

    /// Data of the record: floats in the run's dtype, integers as they are.
    pub fn data(&self, name: &str) -> Result<Tensor> {
        let stored = self.record.tensor(name, &self.device)?;
        let tensor = if stored.dtype().is_float() { stored.to_dtype(self.dtype)? } else { stored };
        Ok(tensor.detach())
    }

    /// A leaf that requires grad, whose value at the end is compared with PyTorch's.
    pub fn parameter(&mut self, name: &str) -> Result<Tensor> {
        let leaf = self.data(name)?.requires_grad_(true)?;
        self.parameters.push((name.to_owned(), leaf.clone()));
        Ok(leaf)
    }

    /// A parameter that some layers do without.
    pub fn parameter_if_any(&mut self, name: &str) -> Result<Option<Tensor>> {
        if self.record.has(name) { self.parameter(name).map(Some) } else { Ok(None) }
    }

    /// All parameters so far, in the order in which they were made.
    pub fn parameters(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|(_, leaf)| leaf.clone()).collect()
    }

    /// The end of a step: its loss is read, or not, as the run's reading has it.
    pub fn report(&mut self, loss: &Tensor) -> Result<()> {
        let step = self.steps;
        self.steps += 1;
        match self.reading {
            Reading::EachStep => self.check(step, loss)?,
            Reading::Evaluating => {
                Tensor::eval_all(self.parameters.iter().map(|(_, leaf)| leaf).chain([loss]))?;
                self.check(step, loss)?;
            }
            Reading::EverySeventh if (step + 1).is_multiple_of(7) => self.check(step, loss)?,
            Reading::EverySeventh | Reading::AtTheEnd => self.kept = vec![(step, loss.detach())],
            Reading::Kept => self.kept.push((step, loss.detach())),
        }
        self.counters.push(self.device.stats());
        Ok(())
    }

    /// Reads what was kept, and compares the parameters with PyTorch's.
    pub fn finish(mut self) -> Result<()> {
        ensure!(self.steps == self.truth.len(), "{} steps instead of {}", self.steps, self.truth.len());
        for (step, loss) in std::mem::take(&mut self.kept) {
            self.check(step, &loss)?;
        }
        for (name, leaf) in &self.parameters {
            let truth = self.record.truth(&format!("after/{name}"))?;
            let values = numbers(leaf)?;
            ensure!(values.len() == truth.len(), "{name} has {} elements", values.len());
            let size = truth.iter().fold(0.0f64, |size, x| size.max(x.abs()));
            for (place, (value, truth)) in values.iter().zip(&truth).enumerate() {
                ensure!(
                    (value - truth).abs() <= self.tolerance() * size,
                    "{name}[{place}] ends as {value}, in PyTorch as {truth}"
                );
            }
        }
        self.check_counters()
    }

    /// Where each step is evaluated, the steps after the first ones are planned already, and memory stays as it is.
    fn check_counters(&self) -> Result<()> {
        if !matches!(self.reading, Reading::EachStep | Reading::Evaluating) {
            return Ok(());
        }
        let (Some(warm), Some(end)) = (self.counters.get(WARM), self.counters.get(STEPS - 2)) else {
            return Ok(());
        };
        let work = end.since(warm);
        ensure!(
            work.plans_built == 0,
            "{} plans were built after {WARM} steps, {} were known",
            work.plans_built,
            work.plan_hits
        );
        ensure!(work.plan_hits > 0, "no plan was used after {WARM} steps");
        ensure!(
            end.bytes_in_use <= warm.bytes_in_use,
            "{} bytes in use after {WARM} steps, {} in the end",
            warm.bytes_in_use,
            end.bytes_in_use
        );
        Ok(())
    }

    fn check(&self, step: usize, loss: &Tensor) -> Result<()> {
        let (value, truth) = (loss.item::<f64>()?, self.truth[step]);
        ensure!(
            (value - truth).abs() <= self.tolerance() * truth.abs(),
            "the loss of step {step} is {value}, in PyTorch {truth}"
        );
        Ok(())
    }

    fn tolerance(&self) -> f64 {
        if self.dtype == DType::F64 { 1e-9 } else { 1e-4 }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.device, self.dtype, self.reading)
    }
}
