//! Scaled losses in a loop that never reads.

use std::sync::atomic::Ordering;

use wgrad::optim::{GradScaler, GradScalerOptions, Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Error, Result, Tensor};

use crate::counting::counting;
use crate::{alone, support};

#[test]
fn whether_a_step_is_skipped_is_never_read() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let (device, reads) = counting(&device);
        let x = Tensor::from_slice(&[1.0f32, 2.0], [2], &device)?.requires_grad_(true)?;
        let mut optimizer = Sgd::new([&x], SgdOptions::new().lr(0.125).momentum(0.5))?;
        let mut scaler = GradScaler::new(GradScalerOptions::new().init_scale(64.0).growth_interval(3))?;
        let factors = [1.0f32, f32::INFINITY, 2.0, 1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0];
        let factors = Tensor::from_slice(&factors, [factors.len()], &device)?;
        let mut before = device.stats();
        for step in 0..factors.numel() {
            if step == 8 {
                before = device.stats();
            }
            optimizer.zero_grad();
            let loss = x.mul(factors.select(0, step as isize)?)?.sum()?;
            scaler.scale(&loss)?.backward()?;
            scaler.step(&mut optimizer)?;
            scaler.update()?;
        }
        let work = device.stats().since(&before);
        assert_eq!(reads.load(Ordering::Relaxed), 0, "{device}");
        // Where a view begins is a number down to four elements; its rest has a plan of its own.
        assert!(work.plans_built <= 2, "{device}: {} plans", work.plans_built);
        // Two bad steps, and twice three good ones in a row.
        assert_eq!(scaler.get_scale()?, 64.0 * 0.5 * 2.0 * 0.5 * 2.0, "{device}");
        let mut expected = [1.0f32, 2.0];
        let mut velocity = 0.0;
        for factor in [1.0f32, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0] {
            velocity = 0.5 * velocity + factor;
            expected.iter_mut().for_each(|value| *value -= 0.125 * velocity);
        }
        for (value, expected) in x.to_vec::<f32>()?.into_iter().zip(expected) {
            assert!((value - expected).abs() < 1e-5, "{device}: {value} instead of {expected}");
        }
    }
    Ok(())
}

#[test]
fn calls_out_of_order_are_errors() -> Result<()> {
    let device = Device::cpu();
    let x = Tensor::ones([2], &device)?.requires_grad_(true)?;
    let mut optimizer = Sgd::new([&x], SgdOptions::new())?;
    let mut scaler = GradScaler::new(GradScalerOptions::new())?;
    let fails = |result: Result<()>| assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    fails(scaler.update());
    x.sum()?.backward()?;
    fails(scaler.step(&mut optimizer));
    scaler.scale(&x.sum()?)?.backward()?;
    scaler.unscale_(&optimizer)?;
    fails(scaler.unscale_(&optimizer));
    scaler.step(&mut optimizer)?;
    fails(scaler.step(&mut optimizer));
    scaler.update()?;
    optimizer.zero_grad();
    fails(scaler.unscale_(&optimizer));
    Ok(())
}
