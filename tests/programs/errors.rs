//! An error changes nothing: a training loop that catches the error of a bad batch goes on as if it had never met it.

use anyhow::{Context, Result, ensure};
use wgrad::{DType, Device, Error, Tensor};

use crate::Check;
use crate::parts::{Sgd, zero_grad};
use crate::record::numbers;

pub const CHECKS: &[Check] = &[
    ("errors_bad_index", |device| skips(device, Fault::Index)),
    ("errors_bad_label", |device| skips(device, Fault::Label)),
    ("errors_late_index", |device| skips(device, Fault::LateIndex)),
    ("errors_late_label", |device| skips(device, Fault::LateLabel)),
    ("errors_singular", |device| skips(device, Fault::Singular)),
    ("errors_every_seventh", read_every_seventh),
    ("errors_weights_readable", weights_stay_readable),
    ("errors_independent", independent_values_never_fail),
    ("errors_named_line", an_error_names_its_line),
    ("errors_of_memory", memory_leaves_work_pending),
    ("errors_in_hook", a_hook_that_fails),
];

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// An index of an embedding, given by the host.
    Index,
    /// A label, given by the host.
    Label,
    /// An index that is computed, so that nobody knows it when it is used.
    LateIndex,
    /// A label that is computed.
    LateLabel,
    /// A matrix without an inverse.
    Singular,
}

/// A classifier of words: an embedding and a linear layer, trained with momentum.
struct Program {
    table: Tensor,
    weight: Tensor,
    optimizer: Sgd,
    bad: Option<(usize, Fault)>,
}

const WORDS: i64 = 7;
const CLASSES: i64 = 3;

impl Program {
    fn new(device: &Device, bad: Option<(usize, Fault)>) -> wgrad::Result<Program> {
        let weights = |rows: i64, columns: i64, scale: f32| {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * scale).sin()).collect();
            Tensor::from_slice(&values, [rows, columns], device)?.requires_grad_(true)
        };
        let (table, weight) = (weights(WORDS, 4, 1.3)?, weights(CLASSES, 4, 0.7)?);
        let optimizer = Sgd::new(vec![table.clone(), weight.clone()], 0.1, 0.9);
        Ok(Program { table, weight, optimizer, bad })
    }

    /// A step on the batch of this number; its loss, unread.
    fn step(&mut self, number: usize) -> wgrad::Result<Tensor> {
        let device = self.table.device().clone();
        let fault = self.bad.filter(|(bad, _)| *bad == number).map(|(_, fault)| fault);
        let numbers =
            |classes: i64| -> Vec<i64> { (0..6).map(|i| (i * 5 + number as i64 * 3) % classes).collect() };
        let (mut words, mut labels) = (numbers(WORDS), numbers(CLASSES));
        match fault {
            Some(Fault::Index | Fault::LateIndex) => words[2] = WORDS,
            Some(Fault::Label | Fault::LateLabel) => labels[4] = 9,
            _ => {}
        }
        let (mut words, mut labels) = (Tensor::new(words, &device)?, Tensor::new(labels, &device)?);
        if fault == Some(Fault::LateIndex) {
            words = ((words + 1)? - 1)?;
        }
        if fault == Some(Fault::LateLabel) {
            labels = ((labels + 1)? - 1)?;
        }
        zero_grad(&self.optimizer.parameters);
        let mut scores = words.embedding(&self.table, None)?.linear(&self.weight, None)?;
        if fault == Some(Fault::Singular) {
            scores = scores.matmul(&Tensor::zeros([3, 3], &device)?.inv()?)?;
        }
        let loss = scores.cross_entropy(&labels)?;
        loss.backward()?;
        self.optimizer.step()?;
        Ok(loss)
    }

    fn weights(&self) -> wgrad::Result<Vec<Vec<f64>>> {
        [&self.table, &self.weight].into_iter().map(numbers).collect()
    }
}

/// Reading each step: weights and losses are those of a run without the bad batch, bit for bit.
fn skips(device: &Device, fault: Fault) -> Result<()> {
    const BAD: usize = 3;
    let run = |fault: Option<Fault>| -> Result<(Vec<f32>, Vec<Vec<f64>>)> {
        let mut program = Program::new(device, fault.map(|fault| (BAD, fault)))?;
        let mut losses = Vec::new();
        for number in 0..9 {
            if number == BAD && fault.is_none() {
                continue;
            }
            let outcome = program.step(number).and_then(|loss| loss.item::<f32>());
            match outcome {
                Ok(loss) => losses.push(loss),
                Err(error) => ensure!(number == BAD, "step {number}: {error}"),
            }
            ensure!(number != BAD || losses.len() == BAD, "the bad batch had a loss, {losses:?}");
        }
        Ok((losses, program.weights().context("after training")?))
    };
    let (with, without) = (run(Some(fault))?, run(None)?);
    ensure!(with.0 == without.0, "with the bad batch the losses are {:?}, without {:?}", with.0, without.0);
    ensure!(with.1 == without.1, "the weights are {:?} with the bad batch, {:?} without", with.1, without.1);
    Ok(())
}

/// Reading every seventh step: the error comes at the call or at the read, and the weights are those of a state before the bad batch that
/// was evaluated.
fn read_every_seventh(device: &Device) -> Result<()> {
    const BAD: usize = 9;
    let mut good = Program::new(device, None)?;
    let mut states = Vec::new();
    for number in 0..BAD {
        good.step(number)?.item::<f32>()?;
        states.push(good.weights()?);
    }
    let mut program = Program::new(device, Some((BAD, Fault::LateLabel)))?;
    let mut failure = None;
    for number in 0..14 {
        let loss = match program.step(number) {
            Ok(loss) => loss,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
        if (number + 1) % 7 == 0
            && let Err(error) = loss.item::<f32>()
        {
            ensure!(number == 13, "the read of step {number} failed: {error}");
            failure = Some(error);
        }
    }
    let failure = failure.context("the bad batch was no error")?;
    ensure!(matches!(failure, Error::Index { .. }), "the error is {failure}");
    let weights = program.weights().context("after the error")?;
    // Reading the loss of step 6 evaluates what it needs, the weights after step 5.
    let found = states.iter().position(|state| *state == weights);
    ensure!(found.is_some_and(|step| step >= 5), "the weights are {weights:?}, those of step {found:?}");
    Ok(())
}

/// A step whose index is bad, evaluated as a whole: the weights are what they were, however often they are read.
fn weights_stay_readable(device: &Device) -> Result<()> {
    let table =
        Tensor::new([[0.5f32, 1.0], [1.5, 2.0], [2.5, 3.0], [3.5, 4.0]], device)?.requires_grad_(true)?;
    let before = table.to_vec::<f32>()?;
    let mut optimizer = Sgd::new(vec![table.clone()], 0.1, 0.0);
    let step = |optimizer: &mut Sgd| -> wgrad::Result<()> {
        let loss = Tensor::new([2i64, 4], device)?.embedding(&table, None)?.square()?.sum()?;
        loss.backward()?;
        optimizer.step()?;
        Tensor::eval_all([&table, &loss])
    };
    ensure!(step(&mut optimizer).is_err(), "an index of 4 in a table of 4 rows was no error");
    for _ in 0..2 {
        let after = table.to_vec::<f32>().context("reading the weights")?;
        ensure!(after == before, "the weights are {after:?}");
    }
    if let Some(grad) = table.grad() {
        grad.to_vec::<f32>().context("reading the gradient")?;
    }
    Ok(())
}

/// A value that depends on a fault fails at each read; one that doesn't never does.
fn independent_values_never_fail(device: &Device) -> Result<()> {
    for order in 0..2 {
        let table = Tensor::ones([3, 2], device)?;
        let index = (Tensor::new([1i64, 4], device)? + 1)?;
        let bad = table.index_select(0, &index);
        let good = (Tensor::ones([2, 2], device)? * 3.0)?;
        if let (0, Ok(bad)) = (order, &bad) {
            // Both are on their way before one is read.
            _ = Tensor::eval_all([bad, &good]);
        }
        for time in 0..2 {
            let value =
                good.to_vec::<f32>().with_context(|| format!("reading the good value, time {time}"))?;
            ensure!(value == [3.0; 4], "the good value is {value:?}");
            // Where the index is known in time, the call itself fails.
            let Ok(bad) = &bad else { continue };
            let value = bad.to_vec::<f32>().map_err(|error| error.to_string());
            ensure!(
                value.as_ref().is_err_and(|error| error.contains("index 5 is out of range")),
                "the bad value, time {time}, is {value:?}"
            );
        }
    }
    Ok(())
}

/// The error of an index that is known late names the line of the call; where it is known in time, the call itself fails.
fn an_error_names_its_line(device: &Device) -> Result<()> {
    let table = Tensor::ones([3, 2], device)?;
    let index = (Tensor::new([1i64, 4], device)? + 1)?;
    let line = line!() + 1;
    let Ok(bad) = table.index_select(0, &index) else { return Ok(()) };
    let error = bad.to_vec::<f32>().err().context("the bad index was no error")?.to_string();
    ensure!(error.contains("index_select"), "the operation is missing in: {error}");
    ensure!(error.contains(&format!("errors.rs:{line}")), "line {line} is missing in: {error}");
    Ok(())
}

/// A step that the memory doesn't suffice for: once there is enough, it is done as if nothing had been.
fn memory_leaves_work_pending(device: &Device) -> Result<()> {
    const SIZE: usize = 1 << 20;
    let run = |scarce: bool| -> Result<Vec<f64>> {
        let x = Tensor::arange(0, SIZE as i64, 1, (DType::F32, device))?.reshape([1024, 1024])?;
        let weight = (&x / SIZE as f64)?.detach().requires_grad_(true)?;
        Tensor::eval_all([&weight])?;
        let loss = weight.matmul(&weight.t()?)?.sin()?.matmul(&weight)?.mean()?;
        loss.backward()?;
        let mut optimizer = Sgd::new(vec![weight.clone()], 0.1, 0.9);
        optimizer.step()?;
        if scarce {
            let _limit = Limit::new(device, device.stats().bytes_in_use + 1024);
            let outcome = Tensor::eval_all([&weight, &loss]);
            ensure!(matches!(outcome, Err(Error::OutOfMemory { .. })), "without memory it gave {outcome:?}");
        }
        let weight = weight.to_vec::<f32>().context("with memory again")?;
        Ok([loss.item::<f32>()?].into_iter().chain(weight.into_iter().step_by(997)).map(f64::from).collect())
    };
    let (scarce, plenty) = (run(true)?, run(false)?);
    ensure!(scarce == plenty, "after an error the step came to other values");
    Ok(())
}

/// A memory limit of a device for as long as it lives.
pub struct Limit(Device);

impl Limit {
    pub fn new(device: &Device, bytes: u64) -> Limit {
        device.trim();
        device.set_memory_limit(Some(bytes));
        Limit(device.clone())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.set_memory_limit(None);
    }
}

/// An error of a hook ends the backward; without the hook it works, since what was saved is where it was.
fn a_hook_that_fails(device: &Device) -> Result<()> {
    let x = Tensor::new([1f32, 2.0, 3.0], device)?.requires_grad_(true)?;
    let loss = x.exp()?.sum()?;
    let hook =
        loss.register_hook(|_| Err(Error::Argument { op: "hook", reason: "wants it so".to_owned() }))?;
    ensure!(loss.backward().is_err(), "the hook's error was lost");
    ensure!(x.grad().is_none(), "the failed backward left a gradient");
    hook.remove();
    loss.backward().context("after the hook was removed")?;
    let grad = x.grad().context("there is no gradient")?.to_vec::<f32>()?;
    ensure!(grad.iter().zip([1f32, 2.0, 3.0]).all(|(g, x)| (g - x.exp()).abs() < 1e-4), "it is {grad:?}");
    Ok(())
}
