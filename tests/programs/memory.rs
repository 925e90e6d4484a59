//! Memory is bounded whatever is read: many steps, of which each makes values that nobody reads, under a limit of 256 MiB.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use wgrad::{DType, Device, Tensor, no_grad};

use crate::Check;
use crate::errors::Limit;
use crate::parts::{Adam, zero_grad};

pub const CHECKS: &[Check] = &[
    ("memory_total", |device| flat(device, Unread::Total)),
    ("memory_kept", |device| flat(device, Unread::Kept)),
    ("memory_accuracy", |device| flat(device, Unread::Accuracy)),
    ("memory_average", |device| flat(device, Unread::Average)),
    ("memory_moments", |device| flat(device, Unread::Moments)),
    ("memory_never_read", |device| flat(device, Unread::Everything)),
    ("memory_each_100", |device| flat(device, Unread::MostLosses)),
];

const LIMIT: u64 = 256 << 20;
const CLASSES: usize = 1024;

/// What a program doesn't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// A sum of losses.
    Total,
    /// A list of losses.
    Kept,
    /// A count of right answers.
    Accuracy,
    /// A moving average of the weights.
    Average,
    /// The optimiser's moments, and the weights: only the loss is read.
    Moments,
    /// All, until the end.
    Everything,
    /// All losses but those of every hundredth step.
    MostLosses,
}

/// What a run comes to.
struct Outcome {
    total: f64,
    kept: Vec<f32>,
    right: f64,
    average: Vec<f32>,
    weight: Vec<f32>,
    /// The most bytes in use, in the first half and at all.
    peaks: [u64; 2],
}

/// The steps and the rows of a batch: together the values of all steps are much more than the limit. `WGRAD_PROGRAMS=all` takes ten thousand
/// steps. A GPU takes as long for a small batch as for one of four times its size.
fn sizes(device: &Device) -> (usize, usize) {
    let (steps, batch) = if device.is_cpu() { (1200, 64) } else { (400, 256) };
    (if crate::all() { 10_000 } else { steps }, batch)
}

/// Trains a linear classifier; `None` reads everything in each step.
fn train(device: &Device, unread: Option<Unread>) -> Result<Outcome> {
    let (steps, batch) = sizes(device);
    let _limit = Limit::new(device, LIMIT);
    device.reset_peak();
    let x: Vec<f32> = (0..batch * 4).map(|i| (i as f32 * 0.37).sin()).collect();
    let x = Tensor::from_slice(&x, [batch, 4], device)?;
    let labels: Vec<i64> = (0..batch as i64).map(|i| i * i % 10).collect();
    let labels = Tensor::new(labels, device)?;
    let weight = Tensor::zeros([CLASSES, 4], device)?.requires_grad_(true)?;
    let mut adam = Adam::new(vec![weight.clone()], 0.001)?;
    let average = weight.detach().deep_clone()?;
    let mut total = Tensor::zeros((), device)?;
    let mut right = Tensor::zeros((), (DType::I64, device))?;
    let (mut kept, mut half) = (Vec::new(), 0);
    let does = |what: Unread| unread.is_none_or(|unread| unread == what);
    for step in 0..steps {
        let scores = x.linear(&weight, None)?;
        let loss = scores.cross_entropy(&labels)?;
        zero_grad(&adam.parameters);
        loss.backward()?;
        adam.step()?;
        if does(Unread::Total) {
            total = total.add(loss.detach())?;
        }
        if does(Unread::Kept) {
            kept.push(loss.detach());
        }
        if does(Unread::Accuracy) {
            right = right.add(scores.argmax_dim(1, false)?.eq(&labels)?.sum()?)?;
        }
        if does(Unread::Average) {
            no_grad(|| average.mul_(0.99)?.add_((&weight * 0.01)?))?;
        }
        match unread {
            None => {
                Tensor::eval_all([&weight, &loss, &total, &right, &average].into_iter().chain(adam.state()))?
            }
            Some(Unread::Everything) => {}
            Some(Unread::MostLosses) if step % 100 != 99 => {}
            Some(Unread::Moments | Unread::MostLosses) => _ = loss.item::<f32>()?,
            Some(_) => weight.eval()?,
        }
        if step == steps / 2 {
            half = device.stats().bytes_peak;
        }
    }
    let peaks = [half, device.stats().bytes_peak];
    Ok(Outcome {
        total: total.item::<f64>()?,
        kept: kept.iter().map(Tensor::item).collect::<wgrad::Result<_>>()?,
        right: right.item::<f64>()?,
        average: average.to_vec()?,
        weight: weight.to_vec()?,
        peaks,
    })
}

/// The values of the run that reads everything, of one device at a time.
fn truth(device: &Device) -> Result<Arc<Outcome>> {
    static TRUTH: Mutex<Option<(Device, Arc<Outcome>)>> = Mutex::new(None);
    let mut known = TRUTH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, outcome)) = known.as_ref().filter(|(of, _)| of == device) {
        return Ok(outcome.clone());
    }
    let outcome = Arc::new(train(device, None).context("the run that reads everything")?);
    *known = Some((device.clone(), outcome.clone()));
    Ok(outcome)
}

/// Stays below the limit, needs no more in its second half than in its first, and comes to the values of the run that reads everything.
fn flat(device: &Device, unread: Unread) -> Result<()> {
    let truth = truth(device)?;
    let outcome = train(device, Some(unread))?;
    // What is kept costs a number and its place in a pool.
    let (steps, _) = sizes(device);
    let allowed = outcome.peaks[0] + (1 << 20) + if unread == Unread::Kept { 1024 * steps as u64 } else { 0 };
    ensure!(
        outcome.peaks[1] <= allowed,
        "the peak was {} bytes after half of the steps and {} after all",
        outcome.peaks[0],
        outcome.peaks[1]
    );
    let near = |values: &[f32], wanted: &[f32]| {
        let size = wanted.iter().fold(0f32, |size, x| size.max(x.abs()));
        values.len() == wanted.len() && values.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-3 * size)
    };
    ensure!(
        near(&outcome.weight, &truth.weight),
        "the weights are others than those of a run that reads all"
    );
    match unread {
        Unread::Total => ensure!(
            (outcome.total - truth.total).abs() <= 1e-4 * truth.total,
            "the total is {} instead of {}",
            outcome.total,
            truth.total
        ),
        Unread::Kept => ensure!(near(&outcome.kept, &truth.kept), "the kept losses are others"),
        Unread::Accuracy => ensure!(
            (outcome.right - truth.right).abs() <= 1e-3 * truth.right,
            "{} right answers instead of {}",
            outcome.right,
            truth.right
        ),
        Unread::Average => ensure!(near(&outcome.average, &truth.average), "the average is another one"),
        _ => {}
    }
    Ok(())
}
