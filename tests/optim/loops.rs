//! Training loops that never read: plans, kernels, reads, launches, memory.

use std::sync::atomic::Ordering;

use wgrad::optim::schedule::{CosineAnnealingLr, LinearLr, Schedule, Scheduler};
use wgrad::optim::{Average, AveragedModel, clip_grad_norm_};
use wgrad::{Device, Result, Tensor};

use crate::counting::counting;
use crate::kinds::{KINDS, make, numbers};
use crate::{alone, support};

/// Two layers without biases, and a batch.
struct Model {
    weights: Vec<Tensor>,
    x: Tensor,
    y: Tensor,
}

impl Model {
    fn new(device: &Device) -> Result<Model> {
        let weights = [numbers(7 * 5, 1), numbers(3 * 7, 2)];
        let weights = [
            Tensor::from_slice(&weights[0], [7, 5], device)?.requires_grad_(true)?,
            Tensor::from_slice(&weights[1], [3, 7], device)?.requires_grad_(true)?,
        ];
        Ok(Model {
            weights: weights.into(),
            x: Tensor::from_slice(&numbers(16 * 5, 3), [16, 5], device)?,
            y: Tensor::from_slice(&numbers(16 * 3, 4), [16, 3], device)?,
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let hidden = self.x.linear(&self.weights[0], None)?.tanh()?;
        hidden.linear(&self.weights[1], None)?.sub(&self.y)?.square()?.mean()
    }
}

/// All kinds on the CPU; where kernels take long to compile, two.
fn kinds(device: &Device) -> Vec<&'static str> {
    if device.is_cpu() { KINDS.to_vec() } else { vec!["AdamW", "Nesterov"] }
}

#[test]
fn a_rate_that_changes_each_step_has_one_plan_and_reads_nothing() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        for kind in kinds(&device) {
            let (device, reads) = counting(&device);
            let model = Model::new(&device)?;
            let mut optimizer = make(kind, &model.weights)?;
            let schedule =
                LinearLr::new().start_factor(0.1).total_iters(4).then(4, CosineAnnealingLr::new(30));
            let mut scheduler = Scheduler::new(schedule, optimizer.as_mut())?;
            let mut before = device.stats();
            for step in 0..20 {
                // The first step makes the state, and the second finds it made. Each is evaluated when the
                // backward of the next one begins.
                if step == 3 {
                    before = device.stats();
                }
                optimizer.zero_grad();
                model.loss()?.backward()?;
                optimizer.step()?;
                scheduler.step(optimizer.as_mut())?;
            }
            let work = device.stats().since(&before);
            assert_eq!((work.plans_built, work.pipelines_compiled), (0, 0), "{kind} on {device}");
            assert_eq!(work.plan_hits, 17, "{kind} on {device}");
            assert_eq!(reads.load(Ordering::Relaxed), 0, "{kind} on {device}");
            assert!(model.loss()?.item::<f32>()?.is_finite());
        }
    }
    Ok(())
}

#[test]
fn clipping_and_averaging_belong_to_the_step() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let (device, reads) = counting(&device);
        let model = Model::new(&device)?;
        let mut optimizer = make("AdamW", &model.weights)?;
        let mut average = AveragedModel::new(&model.weights, Average::Ema(0.9))?;
        let (mut total, mut before) = (Tensor::zeros((), &device)?, device.stats());
        for step in 0..12 {
            if step == 5 {
                before = device.stats();
            }
            optimizer.zero_grad();
            let loss = model.loss()?;
            loss.backward()?;
            let norm = clip_grad_norm_(&model.weights, 0.1)?;
            optimizer.step()?;
            average.update()?;
            total = total.add(norm)?.add(loss.detach())?;
        }
        let work = device.stats().since(&before);
        assert_eq!((work.plans_built, work.pipelines_compiled, work.plan_hits), (0, 0, 7), "{device}");
        assert_eq!(reads.load(Ordering::Relaxed), 0, "{device}");
        assert!(total.item::<f32>()?.is_finite());
    }
    Ok(())
}

#[test]
fn memory_stays_what_it_is() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        for kind in kinds(&device) {
            let model = Model::new(&device)?;
            let mut optimizer = make(kind, &model.weights)?;
            let mut in_use = 0;
            for step in 0..60 {
                optimizer.zero_grad();
                model.loss()?.backward()?;
                optimizer.step()?;
                if step == 10 {
                    in_use = device.stats().bytes_in_use;
                }
            }
            let now = device.stats().bytes_in_use;
            assert!(now <= in_use, "{kind} on {device}: {now} bytes after 60 steps, {in_use} after 10");
        }
    }
    Ok(())
}

/// Gradients that somebody holds, so that nothing of the backward is in the step: a launch a parameter, and
/// one for the numbers that they share.
#[test]
fn a_step_is_a_launch_for_each_parameter() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu();
    let shapes = [vec![40, 30], vec![500], vec![8, 8, 8], vec![1]];
    for kind in [
        "SGD", "Nesterov", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "RMSprop", "Lion", "Rprop",
    ] {
        let mut params = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let count = shape.iter().product();
            let param = Tensor::from_slice(&numbers(count, i), &shape[..], &device)?.requires_grad_(true)?;
            param.set_grad(Some(&Tensor::from_slice(&numbers(count, i + 9), &shape[..], &device)?))?;
            params.push(param);
        }
        let mut optimizer = make(kind, &params)?;
        optimizer.step()?;
        optimizer.step()?;
        Tensor::eval_all(&params)?;
        let before = device.stats();
        optimizer.step()?;
        Tensor::eval_all(&params)?;
        let work = device.stats().since(&before);
        let most = params.len() as u64 + 1;
        assert!(
            work.dispatches <= most,
            "{kind}: {} launches for {} parameters",
            work.dispatches,
            params.len()
        );
    }
    Ok(())
}

/// Where no backward ends a step, the next step does.
#[test]
fn steps_without_a_backward_do_not_pile_up() -> Result<()> {
    let _alone = alone();
    let (device, reads) = counting(&Device::cpu());
    let param = Tensor::from_slice(&numbers(30, 1), [30], &device)?.requires_grad_(true)?;
    param.set_grad(Some(&Tensor::from_slice(&numbers(30, 2), [30], &device)?))?;
    let mut optimizer = make("Adam", std::slice::from_ref(&param))?;
    let mut before = device.stats();
    for step in 0..20 {
        if step == 3 {
            before = device.stats();
        }
        optimizer.step()?;
    }
    let work = device.stats().since(&before);
    assert_eq!((work.plans_built, work.plan_hits), (0, 17));
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    Ok(())
}
