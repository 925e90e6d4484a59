//! Grad modes: nested, restored whatever happens, one for each thread.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wgrad::{Device, GradModeGuard, Result, Tensor, enable_grad, is_grad_enabled, no_grad, set_grad_enabled};

#[test]
fn nested_and_restored() {
    assert!(is_grad_enabled());
    no_grad(|| {
        assert!(!is_grad_enabled());
        enable_grad(|| assert!(is_grad_enabled()));
        assert!(!is_grad_enabled());
        set_grad_enabled(true);
    });
    assert!(is_grad_enabled());
    {
        let _guard = GradModeGuard::new(false);
        assert!(!is_grad_enabled());
        assert!(std::thread::spawn(is_grad_enabled).join().unwrap());
    }
    assert!(is_grad_enabled());
    let panicked = catch_unwind(AssertUnwindSafe(|| no_grad(|| panic!("on purpose"))));
    assert!(panicked.is_err() && is_grad_enabled());
    let early =
        || -> Result<()> { no_grad(|| Err(Tensor::zeros([2], Device::cpu())?.item::<f32>().unwrap_err())) };
    assert!(early().is_err() && is_grad_enabled());
}

struct Model {
    weight: Tensor,
}

impl Model {
    #[wgrad::no_grad]
    fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        if x.numel() == 0 {
            return Ok(x.clone());
        }
        let y = x.mul(&self.weight)?;
        Ok(y)
    }
}

#[wgrad::no_grad]
fn each<T, F>(items: &[T], mut run: F) -> Vec<bool>
where
    F: FnMut(&T),
{
    items.iter().map(run_one(&mut run)).collect()
}

fn run_one<T>(run: &mut impl FnMut(&T)) -> impl FnMut(&T) -> bool + '_ {
    move |item| {
        run(item);
        is_grad_enabled()
    }
}

/// Pending once.
async fn pause() {
    let mut first = true;
    std::future::poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

#[wgrad::no_grad]
async fn asynchronous(x: &Tensor) -> Result<bool> {
    let before = x.mul(2.0)?.requires_grad();
    pause().await;
    Ok(before || x.mul(2.0)?.requires_grad())
}

#[test]
fn the_attribute() -> Result<()> {
    let model = Model { weight: Tensor::ones([1], Device::cpu())?.requires_grad_(true)? };
    assert!(!model.evaluate(&Tensor::ones([2], Device::cpu())?)?.requires_grad());
    assert!(!model.evaluate(&Tensor::zeros([0], Device::cpu())?)?.requires_grad());
    assert_eq!(each(&[1, 2], |_| ()), [false, false]);
    assert!(is_grad_enabled());
    let mut future = pin!(asynchronous(&model.weight));
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    assert!(is_grad_enabled());
    assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(Ok(false)));
    assert!(is_grad_enabled());
    Ok(())
}

#[test]
fn backward_works_without_recording() -> Result<()> {
    let x = Tensor::new([3f32], Device::cpu())?.requires_grad_(true)?;
    let y = x.mul(&x)?;
    no_grad(|| y.backward())?;
    assert_eq!(x.grad().unwrap().item::<f32>()?, 6.0);
    assert!(!x.grad().unwrap().requires_grad());
    Ok(())
}
