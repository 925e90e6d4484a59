//! The computations that every introduction to autograd tells, with PyTorch's numbers.

use wgrad::{Device, Result, Tensor, no_grad, set_grad_enabled};

fn close(x: &Tensor, expected: &[f32]) {
    let values = x.to_vec::<f32>().unwrap();
    assert_eq!(values.len(), expected.len());
    for (a, b) in values.iter().zip(expected) {
        assert!((a - b).abs() < 1e-4, "{values:?} instead of {expected:?}");
    }
}

#[test]
fn basics() -> Result<()> {
    let x = Tensor::new([1f32, 9.0, 0.0], Device::cpu())?.requires_grad_(true)?;
    let y = (x.pow(2.0)? + 100.0)?;
    close(&y, &[101.0, 181.0, 100.0]);
    let loss = y.mean()?;
    close(&loss, &[127.3333]);
    assert_eq!(loss.grad_fn().unwrap().name(), "MeanBackward0");
    assert_eq!(y.grad_fn().unwrap().name(), "AddBackward0");
    loss.backward()?;
    close(&x.grad().unwrap(), &[0.6667, 6.0, 0.0]);
    Ok(())
}

#[test]
fn rebuilt_leaf() -> Result<()> {
    let x = Tensor::new([1f32, 9.0, 0.0], Device::cpu())?.requires_grad_(true)?;
    let moved = x.to(wgrad::DType::F64)?;
    assert_eq!(moved.grad_fn().unwrap().name(), "ToCopyBackward0");
    assert!(!moved.is_leaf());
    moved.pow(2.0)?.sum()?.backward()?;
    assert!(moved.grad().is_none());
    close(&x.grad().unwrap(), &[2.0, 18.0, 0.0]);
    let leaf = Tensor::new([7f32, 8.0, 8.0], Device::cpu())?.detach().requires_grad_(true)?;
    assert!(leaf.is_leaf());
    let y = (leaf.pow(2.0)? + 100.0)?;
    close(&y, &[149.0, 164.0, 164.0]);
    let loss = y.mean()?;
    close(&loss, &[159.0]);
    loss.backward()?;
    close(&leaf.grad().unwrap(), &[4.6667, 5.3333, 5.3333]);
    Ok(())
}

#[test]
fn detach_shares_memory_and_a_clone_keeps_the_graph() -> Result<()> {
    let x = Tensor::new([1f32, 2.0], Device::cpu())?.requires_grad_(true)?;
    let detached = x.detach();
    let cloned = x.deep_clone()?;
    assert!(!detached.requires_grad() && detached.is_leaf());
    assert_eq!(cloned.grad_fn().unwrap().name(), "CloneBackward0");
    detached.fill_(5.0)?;
    close(&x, &[5.0, 5.0]);
    close(&cloned, &[1.0, 2.0]);
    cloned.sum()?.backward()?;
    close(&x.grad().unwrap(), &[1.0, 1.0]);
    assert!(x.shares_storage(&detached) && !x.shares_storage(&cloned));
    Ok(())
}

#[wgrad::no_grad]
fn doubled(x: &Tensor) -> Result<Tensor> {
    x.mul(2.0)
}

#[test]
fn stop_recording() -> Result<()> {
    let x = Tensor::new([1f32, 2.0], Device::cpu())?.requires_grad_(true)?;
    assert!(!no_grad(|| x.mul(2.0))?.requires_grad());
    assert!(!doubled(&x)?.requires_grad());
    set_grad_enabled(false);
    assert!(!x.mul(2.0)?.requires_grad());
    set_grad_enabled(true);
    assert!(x.mul(2.0)?.requires_grad());
    Ok(())
}
