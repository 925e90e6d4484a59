//! What programs cost that grow: counted in nodes, kernels and bytes, which must grow no faster than the program does.

#[path = "../crates/device/tests/support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::devices;
use wgrad::{Device, Result, Stats, Tensor, tape};

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a program adds to a device's counters.
fn counted(device: &Device, program: impl FnOnce() -> Result<()>) -> Result<Stats> {
    let before = device.stats();
    program()?;
    Ok(device.stats().since(&before))
}

#[test]
fn views_of_views_and_back() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let x = Tensor::rand([3, 4], &device)?.requires_grad_(true)?;
        x.to_vec::<f32>()?;
        for length in [1_000, 8_000] {
            let before = tape::stats();
            let used = counted(&device, || {
                let mut y = x.clone();
                for _ in 0..length {
                    y = y.t()?;
                }
                // A node for each view and for the sum, and the leaf's.
                assert!(tape::stats().live - before.live <= length + 2);
                y.sum()?.backward()?;
                x.grad().unwrap().to_vec::<f32>()?;
                Ok(())
            })?;
            assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [1.0; 12]);
            assert!(used.dispatches <= 8, "{device}: {used:?} after {length} views");
            assert_eq!(tape::stats().live, before.live);
            x.zero_grad();
        }
    }
    Ok(())
}

#[test]
fn a_view_of_many_views_after_a_write() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let x = Tensor::rand([4, 6], &device)?;
        let mut y = x.clone();
        // No two of them in a row are one.
        for i in 0..4_000 {
            y = match i % 4 {
                0 => y.t()?,
                1 => y.unsqueeze(0)?,
                2 => y.transpose(1, 2)?,
                _ => y.squeeze_dim(0)?,
            };
        }
        let used = counted(&device, || {
            x.fill_(2.0)?;
            assert_eq!(y.to_vec::<f32>()?, [2.0; 24]);
            y.mul_(3.0)?;
            assert_eq!(x.to_vec::<f32>()?, [6.0; 24]);
            Ok(())
        })?;
        // A few for each 2,048 pending steps.
        assert!(used.dispatches <= 16, "{device}: {used:?}");
    }
    Ok(())
}

#[test]
fn a_cache_is_written_in_its_own_memory() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let (length, width) = (512usize, 256usize);
        let (row, whole) = (4 * width as u64, 4 * (length * width) as u64);
        let cache = Tensor::zeros([length, width], &device)?;
        let new = Tensor::rand([length, width], &device)?;
        Tensor::eval_all([&cache, &new])?;
        device.reset_peak();
        let before = device.stats().bytes_in_use;
        // One row a step, read back with all others.
        let used = counted(&device, || {
            for at in 0..length as isize {
                cache.narrow(0, at, 1)?.copy_(&new.narrow(0, at, 1)?.mul(2.0)?)?;
                let seen = cache.sum()?;
                Tensor::eval_all([&cache, &seen])?;
            }
            Ok(())
        })?;
        let allowed = length as u64 * 4 * row;
        assert!(used.bytes_written <= allowed, "{device}: {} bytes written", used.bytes_written);
        let more = device.stats().bytes_peak - before;
        assert!(more < whole / 2, "{device}: {more} bytes more at the peak");
        assert!(used.plans_built <= 4, "{device}: {} plans", used.plans_built);
        let expected: Vec<f32> = new.to_vec::<f32>()?.iter().map(|x| 2.0 * x).collect();
        assert_eq!(cache.to_vec::<f32>()?, expected, "{device}");
    }
    Ok(())
}

#[test]
fn a_cache_that_somebody_holds_is_copied_once() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let cache = Tensor::rand([512, 256], &device)?;
        let old = cache.to_vec::<f32>()?;
        let kept = cache.deep_clone()?;
        let used = counted(&device, || {
            for at in 0..64 {
                cache.select(0, at)?.fill_(at as f64)?;
                cache.eval()?;
            }
            Ok(())
        })?;
        assert!(used.bytes_written < 2 * 4 * 512 * 256, "{device}: {} bytes written", used.bytes_written);
        assert_eq!(kept.to_vec::<f32>()?, old, "{device}");
    }
    Ok(())
}

#[test]
fn rows_written_one_by_one() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        // What each row costs, in buffers written and in kernels.
        let cost = |rows: usize| -> Result<(f64, f64)> {
            let source = Tensor::rand([rows, 64], &device)?.requires_grad_(true)?;
            source.to_vec::<f32>()?;
            let before = tape::stats();
            let used = counted(&device, || {
                let buffer = Tensor::zeros([rows, 64], &device)?;
                for i in 0..rows as isize {
                    buffer.select(0, i)?.copy_(&source.select(0, i)?.mul(2.0)?)?;
                }
                // For each row the two views, the product, the copy and what puts it into the buffer, and the view of what was written.
                assert!(tape::stats().live - before.live <= 7 * rows as u64 + 8);
                buffer.sum()?.backward()?;
                assert_eq!(source.grad().unwrap().to_vec::<f32>()?, vec![2.0; 64 * rows]);
                Ok(())
            })?;
            let buffer = (rows * 64 * size_of::<f32>()) as f64;
            Ok((used.bytes_written as f64 / buffer / rows as f64, used.dispatches as f64 / rows as f64))
        };
        let (few, many) = (cost(32)?, cost(128)?);
        assert!(many.0 <= 1.5 * few.0.max(1.0), "{device}: {few:?} and {many:?} buffers and kernels a row");
        assert!(many.1 <= 1.5 * few.1, "{device}: {few:?} and {many:?} buffers and kernels a row");
    }
    Ok(())
}

#[test]
fn gradients_of_many_joined_tensors() -> Result<()> {
    let _alone = alone();
    for device in devices() {
        let parts: Vec<Tensor> = (0..512)
            .map(|i| Tensor::full([2], i as f32, &device)?.requires_grad_(true))
            .collect::<Result<_>>()?;
        let whole = Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)?;
        whole.mul(&whole)?.sum()?.backward()?;
        let grads: Vec<Tensor> = parts.iter().map(|part| part.grad().unwrap()).collect();
        Tensor::eval_all(&grads)?;
        for (i, grad) in grads.iter().enumerate() {
            assert_eq!(grad.to_vec::<f32>()?, [2.0 * i as f32; 2]);
        }
    }
    Ok(())
}
