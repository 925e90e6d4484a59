//! Saved states: going on bit for bit, and what does not fit.

use wgrad::optim::{Adam, AdamOptions, Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Error, Result, Tensor};

use crate::kinds::{KINDS, make, numbers};
use crate::{alone, support};

fn run(param: &Tensor, optimizer: &mut dyn Optimizer, steps: std::ops::Range<usize>) -> Result<()> {
    for step in steps {
        let grad = Tensor::from_slice(&numbers(param.numel(), step), param.shape(), param.device())?;
        param.set_grad(Some(&grad))?;
        optimizer.step()?;
    }
    Ok(())
}

#[test]
fn an_optimiser_goes_on_bit_for_bit() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let kinds = if device.is_cpu() { KINDS.to_vec() } else { vec!["Adam"] };
        for kind in kinds {
            let start = Tensor::from_slice(&numbers(6, 3), [2, 3], &device)?;
            let whole = start.deep_clone()?.requires_grad_(true)?;
            let mut optimizer = make(kind, std::slice::from_ref(&whole))?;
            run(&whole, optimizer.as_mut(), 0..4)?;
            let saved = optimizer.state_dict()?;
            let resumed = whole.detach().deep_clone()?.requires_grad_(true)?;
            run(&whole, optimizer.as_mut(), 4..8)?;

            let mut other = make(kind, std::slice::from_ref(&resumed))?;
            other.set_lr(0, 0.7)?;
            other.load_state_dict(&saved)?;
            run(&resumed, other.as_mut(), 4..8)?;
            let bits = |x: &Tensor| {
                Ok::<_, Error>(x.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            assert_eq!(bits(&whole)?, bits(&resumed)?, "{kind} on {device}");
        }
    }
    Ok(())
}

#[test]
fn all_that_does_not_fit_is_named_and_nothing_is_changed() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::ones([2], &device)?.requires_grad_(true)?;
    let y = Tensor::ones([3], &device)?.requires_grad_(true)?;
    let mut other = Adam::new([("x", &y), ("z", &x)], AdamOptions::new().lr(0.5))?;
    run(&y, &mut other, 0..1)?;
    let mut saved = other.state_dict()?;
    saved.groups[0].settings.insert("colour".to_owned(), 1.0.into());
    saved.state.entry("x".to_owned()).or_default().insert("hue".to_owned(), x.detach());

    let mut optimizer = Adam::new([("x", &x), ("y", &y)], AdamOptions::new())?;
    run(&x, &mut optimizer, 0..2)?;
    let error = optimizer.load_state_dict(&saved).expect_err("nothing fits").to_string();
    for part in ["y is missing", "z is unexpected", "colour", "hue", "exp_avg has shape [3] instead of [2]"] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(optimizer.lr(0)?, 1e-3);
    assert_eq!(optimizer.state_dict()?.state["x"]["step"].item::<f32>()?, 2.0);
    Ok(())
}

#[test]
fn a_saved_state_is_a_copy() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::ones([2], &device)?.requires_grad_(true)?;
    let mut optimizer = Sgd::new([("x", &x)], SgdOptions::new().momentum(0.5))?;
    run(&x, &mut optimizer, 0..1)?;
    let saved = optimizer.state_dict()?;
    let before = saved.state["x"]["momentum_buffer"].to_vec::<f32>()?;
    run(&x, &mut optimizer, 1..3)?;
    assert_eq!(saved.state["x"]["momentum_buffer"].to_vec::<f32>()?, before);
    // And loading takes one too.
    let mut resumed = Sgd::new([("x", &x)], SgdOptions::new())?;
    resumed.load_state_dict(&saved)?;
    run(&x, &mut resumed, 1..3)?;
    assert_eq!(saved.state["x"]["momentum_buffer"].to_vec::<f32>()?, before);
    Ok(())
}
