//! Hooks on the gradients of several tensors.

use std::sync::{Arc, Mutex};

use wgrad::{
    BackwardOptions, Device, GradOptions, Result, Tensor, grad, register_any_grad_hook,
    register_multi_grad_hook, tape,
};

fn leaf(data: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(data, [data.len()], &Device::cpu())?.requires_grad_(true)
}

type Calls = Arc<Mutex<Vec<Vec<Option<Vec<f32>>>>>>;

/// A hook that writes down what it is called with.
fn logged(tensors: &[&Tensor]) -> Result<(Calls, wgrad::HookHandle)> {
    let calls = Calls::default();
    let log = calls.clone();
    let handle = register_multi_grad_hook(tensors, move |grads| {
        let grads = grads.iter().map(|grad| grad.as_ref().map(Tensor::to_vec).transpose());
        log.lock().unwrap().push(grads.collect::<Result<_>>()?);
        Ok(())
    })?;
    Ok((calls, handle))
}

#[test]
fn all_gradients_once_for_each_backward() -> Result<()> {
    let (a, b, c) = (leaf(&[2.0])?, leaf(&[3.0])?, leaf(&[4.0])?);
    let product = (&a * &b)?;
    let (calls, handle) = logged(&[&a, &b, &product, &c])?;
    let sum = product.square()?.sum()?;
    sum.backward_with(BackwardOptions::new().retain_graph(true))?;
    assert_eq!(*calls.lock().unwrap(), [[Some(vec![36.0]), Some(vec![24.0]), Some(vec![12.0]), None]]);
    // Again, and one that reaches only what it is asked for.
    sum.backward_with(BackwardOptions::new().retain_graph(true))?;
    assert_eq!(calls.lock().unwrap().len(), 2);
    grad(&[&sum], &[&a], GradOptions::new())?;
    assert_eq!(calls.lock().unwrap()[2], [Some(vec![36.0]), None, Some(vec![12.0]), None]);
    handle.remove();
    c.square()?.sum()?.backward()?;
    assert_eq!(calls.lock().unwrap().len(), 3);
    Ok(())
}

#[test]
fn the_first_gradient_of_any() -> Result<()> {
    let (a, b) = (leaf(&[2.0])?, leaf(&[3.0])?);
    let calls = Arc::new(Mutex::new(0));
    let log = calls.clone();
    register_any_grad_hook(&[&a, &b], move |_| {
        *log.lock().unwrap() += 1;
        Ok(())
    })?;
    for count in 1..4 {
        (&a * &b)?.sum()?.backward()?;
        assert_eq!(*calls.lock().unwrap(), count);
    }
    b.sum()?.backward()?;
    assert_eq!(*calls.lock().unwrap(), 4);
    Ok(())
}

#[test]
fn an_error_is_the_backwards_and_the_next_one_starts_anew() -> Result<()> {
    let (a, b) = (leaf(&[2.0])?, leaf(&[3.0])?);
    let calls = Arc::new(Mutex::new(0));
    let log = calls.clone();
    let handle = register_multi_grad_hook(&[&a, &b], move |_| {
        *log.lock().unwrap() += 1;
        Err(wgrad::Error::Unsupported { op: "hook", reason: "no".to_owned() })
    })?;
    assert!((&a * &b)?.sum()?.backward().is_err());
    let stop = b.register_hook(|_| Err(wgrad::Error::Unsupported { op: "stop", reason: "no".to_owned() }))?;
    assert!((&a * &b)?.sum()?.backward().is_err());
    stop.remove();
    assert!((&a * &b)?.sum()?.backward().is_err());
    assert_eq!(*calls.lock().unwrap(), 2);
    handle.remove();
    (&a * &b)?.sum()?.backward()
}

#[test]
fn tensors_that_need_no_gradient_are_refused_and_nothing_stays() -> Result<()> {
    let a = leaf(&[2.0])?;
    assert!(register_multi_grad_hook(&[&a, &a.detach()], |_| panic!("it was refused")).is_err());
    a.sum()?.backward()
}

#[test]
fn a_hook_keeps_no_graph_alive() -> Result<()> {
    let before = tape::stats().live;
    let a = leaf(&[2.0])?;
    for _ in 0..10 {
        let y = a.square()?;
        logged(&[&y])?;
        y.sum()?.backward()?;
    }
    drop(a);
    assert!(tape::stats().live <= before);
    Ok(())
}
