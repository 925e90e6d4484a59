//! Hooks on the values that operations save for backward.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wgrad::{
    BackwardOptions, Error, GradOptions, GradRule, Result, Tensor, grad, save_on_cpu, saved_tensors_hooks,
};

use crate::support::devices;

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

#[test]
fn values_are_packed_once_and_unpacked_where_they_are_needed() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[1f32, 2.0], [2], &device)?.requires_grad_(true)?;
        let (packs, unpacks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (packed, unpacked) = (packs.clone(), unpacks.clone());
        let y = saved_tensors_hooks(
            move |value| {
                packed.fetch_add(1, Ordering::Relaxed);
                // What a hook computes is neither recorded nor packed.
                value.mul(2.0)
            },
            move |twice: &Tensor| {
                unpacked.fetch_add(1, Ordering::Relaxed);
                twice.mul(0.5)
            },
            || x.exp()?.mul(&x)?.sum(),
        )?;
        // The exponential saves its result, the product both operands.
        assert_eq!(packs.load(Ordering::Relaxed), 3, "{device}");
        let outside = y.square()?;
        assert_eq!((packs.load(Ordering::Relaxed), unpacks.load(Ordering::Relaxed)), (3, 0));
        outside.backward()?;
        assert!(unpacks.load(Ordering::Relaxed) >= 3);
        let e: Vec<f32> = [1f32, 2.0].iter().map(|x| x.exp()).collect();
        let sum = e[0] + 2.0 * e[1];
        let grad = values(&x.grad().unwrap());
        for (i, x) in [1f32, 2.0].into_iter().enumerate() {
            let expected = 2.0 * sum * e[i] * (1.0 + x);
            assert!((grad[i] / expected - 1.0).abs() < 1e-5, "{device}: {} for {expected}", grad[i]);
        }
    }
    Ok(())
}

#[test]
fn gradients_of_gradients_go_through_unpacked_values() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[2f32, -1.0], [2], &device)?.requires_grad_(true)?;
        let y = save_on_cpu(|| x.mul(&x)?.mul(&x)?.sum())?;
        let first = grad(&[&y], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
        let second = grad(&[&first.sum()?], &[&x], GradOptions::new())?.remove(0).unwrap();
        assert_eq!((values(&first), values(&second)), (vec![12.0, 3.0], vec![12.0, -6.0]), "{device}");
    }
    Ok(())
}

#[test]
fn the_innermost_hooks_count_and_leave_with_their_closure() -> Result<()> {
    let x = Tensor::from_slice(&[3f32], [1], &devices()[0])?.requires_grad_(true)?;
    let outer = |value: Tensor| value.add(100.0);
    let y = saved_tensors_hooks(
        outer,
        |value: &Tensor| value.sub(100.0),
        || {
            let inner =
                saved_tensors_hooks(|_| Ok(()), |()| panic!("not asked for"), || x.detach().square())?;
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                saved_tensors_hooks(
                    |_| Ok(()),
                    |()| Tensor::zeros([1], wgrad::Device::cpu()),
                    || panic!("inside"),
                )
            }));
            assert!(failed.is_err());
            x.square()?.mul(&inner)
        },
    )?;
    y.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [54.0]);
    Ok(())
}

#[test]
fn what_hooks_do_wrong_is_the_backwards_error() -> Result<()> {
    let x = Tensor::from_slice(&[3f32, 4.0], [2], &devices()[0])?.requires_grad_(true)?;
    let other = saved_tensors_hooks(Ok, |value: &Tensor| value.narrow(0, 0, 1), || x.square()?.sum())?;
    match other.backward_with(BackwardOptions::new().retain_graph(true)) {
        Err(Error::Autograd { op: "PowBackward0", rule: GradRule::Hook, reason }) => {
            assert!(reason.contains("[1]") && reason.contains("[2]"), "{reason}");
        }
        done => panic!("{done:?}"),
    }
    let refused = |_| Err::<(), _>(Error::Unsupported { op: "pack", reason: "no room".to_owned() });
    let y = saved_tensors_hooks(refused, |()| panic!("nothing was packed"), || x.square()?.sum())?;
    assert!(matches!(y.backward(), Err(Error::Unsupported { op: "pack", .. })));
    assert!(x.grad().is_none());
    Ok(())
}
