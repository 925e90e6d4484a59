//! A step is planned once: neither where a batch begins, nor the number of a step, nor a learning rate makes another plan.

use anyhow::{Result, ensure};
use wgrad::{Device, Tensor, no_grad};

use crate::Check;
use crate::parts::{Adam, Sgd};

pub const CHECKS: &[Check] = &[
    ("plans_epoch", narrowed_batches),
    ("plans_batch_size", batches_of_any_size),
    ("plans_cache", rows_of_a_cache),
    ("plans_numbers", numbers_are_no_structure),
    ("plans_never_read", never_reading),
    ("plans_each_100", reading_each_hundredth),
    ("plans_gan", two_optimisers),
    ("plans_accumulation", accumulated_gradients),
];

/// Data and a network of two layers, 5 numbers wide.
struct Model {
    x: Tensor,
    y: Tensor,
    weights: Vec<Tensor>,
}

impl Model {
    /// `hidden` tells the graphs of one check from those of another.
    fn new(device: &Device, count: usize, hidden: usize) -> wgrad::Result<Model> {
        let make = |rows: usize, columns: usize, scale: f32| {
            let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * scale).sin() * 0.5).collect();
            Tensor::from_slice(&values, [rows, columns], device)
        };
        let weights = [make(hidden, 5, 0.7)?, make(1, hidden, 1.1)?];
        let weights = weights.iter().map(|w| w.requires_grad_(true)).collect::<wgrad::Result<_>>()?;
        Ok(Model { x: make(count, 5, 0.3)?, y: make(count, 1, 0.9)?, weights })
    }

    fn loss(&self, start: usize, size: usize) -> wgrad::Result<Tensor> {
        let (x, y) = (self.x.narrow(0, start as isize, size)?, self.y.narrow(0, start as isize, size)?);
        let hidden = x.linear(&self.weights[0], None)?.tanh()?;
        (hidden.linear(&self.weights[1], None)? - y)?.square()?.mean()
    }

    /// A step of gradient descent, unread.
    fn step(&self, start: usize, size: usize, rate: f64) -> wgrad::Result<Tensor> {
        let loss = self.loss(start, size)?;
        loss.backward()?;
        no_grad(|| {
            for weight in &self.weights {
                if let Some(grad) = weight.grad() {
                    weight.sub_((grad * rate)?)?;
                }
                weight.zero_grad();
            }
            Ok::<(), wgrad::Error>(())
        })?;
        Ok(loss)
    }

    fn eval(&self, loss: &Tensor) -> wgrad::Result<()> {
        Tensor::eval_all(self.weights.iter().chain([loss]))
    }
}

/// An epoch over narrowed batches: one plan, and one for the last batch, which is smaller.
fn narrowed_batches(device: &Device) -> Result<()> {
    let model = Model::new(device, 5 * 64 + 40, 11)?;
    for epoch in 0..2 {
        let before = device.stats();
        for i in 0..6 {
            model.eval(&model.step(i * 64, if i == 5 { 40 } else { 64 }, 0.01)?)?;
        }
        let work = device.stats().since(&before);
        let allowed = if epoch == 0 { 2 } else { 0 };
        ensure!(work.plans_built == allowed, "epoch {epoch} built {} plans", work.plans_built);
        ensure!(work.plan_hits == 6 - allowed, "epoch {epoch} knew {} plans", work.plan_hits);
    }
    Ok(())
}

/// Another batch size is another plan, of kernels that are known. On a GPU products have four forms by a batch's size, each compiled where it is
/// met first: for small and for larger ones, read in vectors of four or one by one.
fn batches_of_any_size(device: &Device) -> Result<()> {
    let model = Model::new(device, 300, 31)?;
    for size in [96, 97, 64, 33] {
        model.eval(&model.step(0, size, 0.01)?)?;
    }
    let before = device.stats();
    let sizes = [128, 200, 161, 60, 300, 98, 61];
    for size in sizes {
        model.eval(&model.step(0, size, 0.01)?)?;
    }
    let work = device.stats().since(&before);
    ensure!(work.plans_built == sizes.len() as u64, "{} plans", work.plans_built);
    ensure!(work.pipelines_compiled == 0, "{} kernels were compiled", work.pipelines_compiled);
    Ok(())
}

/// Keys and values of attention, one place after the other, and rows of a buffer: where they are written is a number.
fn rows_of_a_cache(device: &Device) -> Result<()> {
    let (length, width) = (24, 7);
    let cache = Tensor::zeros([2, length, width], device)?;
    let buffer = Tensor::zeros([length, width], device)?;
    let new = |place: usize| -> wgrad::Result<Tensor> {
        Tensor::arange(0, 2 * width as i64, 1, device)?.reshape([2, 1, width])? + place as f64
    };
    let mut before = device.stats();
    for place in 0..length {
        if place == 2 {
            before = device.stats();
        }
        cache.narrow(1, place as isize, 1)?.copy_(&new(place)?)?;
        buffer.select(0, place as isize)?.copy_(&new(place)?.select(0, 0)?.select(0, 0)?)?;
        let attended = cache.mul(cache.sum_dim(-1, true)?)?.sum()?;
        Tensor::eval_all([&cache, &buffer, &attended])?;
    }
    let work = device.stats().since(&before);
    ensure!(work.plans_built == 0, "{} plans for {} places", work.plans_built, length - 2);
    let expected = |row: usize, place: usize| (0..width).map(move |i| (row * width + i + place) as f32);
    let all: Vec<f32> = (0..2).flat_map(|row| (0..length).flat_map(move |at| expected(row, at))).collect();
    ensure!(cache.to_vec::<f32>()? == all, "the cache is {cache}");
    ensure!(buffer.to_vec::<f32>()? == all[..length * width], "the buffer is {buffer}");
    Ok(())
}

/// A schedule, the correction of Adam's moments, a growing number of the step: one plan for the steps after the first ones.
fn numbers_are_no_structure(device: &Device) -> Result<()> {
    let model = Model::new(device, 64, 17)?;
    let mut adam = Adam::new(model.weights.clone(), 0.0)?;
    let mut before = device.stats();
    for step in 0..40 {
        // A factor of 0 or 1 may be left out.
        if step == 3 {
            before = device.stats();
        }
        adam.rate = 0.01 / f64::from(step + 1);
        adam.zero_grad();
        let loss = ((model.loss(0, 64)? * f64::from(step))? + 0.5)?;
        loss.backward()?;
        adam.step()?;
        model.eval(&loss)?;
    }
    let work = device.stats().since(&before);
    ensure!(
        work.plans_built == 0 && work.plan_hits >= 37,
        "{} built, {} hits",
        work.plans_built,
        work.plan_hits
    );
    Ok(())
}

/// Counts the plans of 200 steps after the first ten.
fn plans_of(device: &Device, mut step: impl FnMut(usize) -> wgrad::Result<()>) -> Result<(u64, u64)> {
    let mut before = device.stats();
    for number in 0..210 {
        if number == 10 {
            before = device.stats();
        }
        step(number)?;
    }
    let work = device.stats().since(&before);
    Ok((work.plans_built, work.plan_hits))
}

/// Nothing is ever read: each step has a plan that is known.
fn never_reading(device: &Device) -> Result<()> {
    let model = Model::new(device, 48, 19)?;
    let (built, hits) = plans_of(device, |_| model.step(0, 48, 0.01).map(drop))?;
    ensure!(built == 0, "200 unread steps built {built} plans and knew {hits}");
    ensure!((195..=205).contains(&hits), "200 unread steps were evaluated {hits} times");
    Ok(())
}

/// Every hundredth loss is read: all other steps have plans that are known.
fn reading_each_hundredth(device: &Device) -> Result<()> {
    let model = Model::new(device, 48, 23)?;
    let (built, hits) = plans_of(device, |number| {
        let loss = model.step(0, 48, 0.01)?;
        if number % 100 == 99 { loss.item::<f32>().map(drop) } else { Ok(()) }
    })?;
    // What is read ends a step elsewhere, twice: at the read, and at the backward after it.
    ensure!(built <= 3, "200 steps, of which every hundredth is read, built {built} plans and knew {hits}");
    ensure!((195..=210).contains(&hits), "they were evaluated {hits} times");
    Ok(())
}

/// Two networks that are trained in turns, unread.
fn two_optimisers(device: &Device) -> Result<()> {
    let (first, second) = (Model::new(device, 32, 5)?, Model::new(device, 32, 29)?);
    let mut optimizers =
        [Sgd::new(first.weights.clone(), 0.01, 0.0), Sgd::new(second.weights.clone(), 0.01, 0.0)];
    let forward = |x: &Tensor, w: &[Tensor]| x.linear(&w[0], None)?.tanh()?.linear(&w[1], None);
    let generate = || first.x.linear(&first.weights[0], None)?.tanh();
    let (built, hits) = plans_of(device, |_| {
        let all = || first.weights.iter().chain(&second.weights).for_each(Tensor::zero_grad);
        let critic = (forward(&generate()?.detach(), &second.weights)?.mean()?
            - forward(&first.x, &second.weights)?.mean()?)?;
        all();
        critic.backward()?;
        optimizers[1].step()?;
        all();
        forward(&generate()?, &second.weights)?.mean()?.neg()?.backward()?;
        optimizers[0].step()
    })?;
    ensure!(built == 0, "200 unread steps of two networks built {built} plans and knew {hits}");
    ensure!((195..=405).contains(&hits), "they were evaluated {hits} times");
    Ok(())
}

/// Gradients of four batches make a step, which stays one piece of work.
fn accumulated_gradients(device: &Device) -> Result<()> {
    let model = Model::new(device, 80, 31)?;
    let mut optimizer = Sgd::new(model.weights.clone(), 0.01, 0.0);
    let (built, hits) = plans_of(device, |_| {
        model.weights.iter().for_each(Tensor::zero_grad);
        for i in 0..4 {
            model.loss(i * 20, 20)?.backward()?;
        }
        optimizer.step()
    })?;
    ensure!(built == 0, "200 unread steps of four batches built {built} plans and knew {hits}");
    ensure!((195..=205).contains(&hits), "they were evaluated {hits} times");
    Ok(())
}
