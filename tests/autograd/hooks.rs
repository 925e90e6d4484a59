//! Hooks: when they run, in which order, what they may do.

use std::sync::{Arc, Mutex};

use wgrad::{BackwardOptions, DType, Device, Error, GradOptions, GradRule, Result, Tensor, grad};

fn leaf(data: &[f32]) -> Tensor {
    Tensor::from_slice(data, data.len(), &Device::cpu()).unwrap().requires_grad_(true).unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn order() -> Result<()> {
    let log = Log::default();
    let note = |what: &'static str| {
        let log = log.clone();
        move || log.add(what)
    };
    let x = leaf(&[1.0]);
    let y = x.mul(2.0)?;
    let accumulate = y.grad_fn().unwrap().next_functions().remove(0).unwrap().0;
    let multiply = y.grad_fn().unwrap();
    let (a, b, c, d, e, f, g) = (
        note("post of node"),
        note("pre of node"),
        note("tensor"),
        note("leaf"),
        note("pre of accumulate"),
        note("post-accumulate"),
        note("post of accumulate"),
    );
    let leaf_value = x.clone();
    multiply.register_hook(move |_, _| {
        Ok({
            a();
            None
        })
    });
    multiply.register_prehook(move |_| {
        Ok({
            b();
            None
        })
    });
    y.register_hook(move |_| {
        Ok({
            c();
            None
        })
    })?;
    x.register_hook(move |_| {
        Ok({
            d();
            None
        })
    })?;
    accumulate.register_prehook(move |_| {
        assert!(leaf_value.grad().is_none());
        e();
        Ok(None)
    });
    x.register_post_accumulate_grad_hook(move |x| {
        assert!(x.grad().is_some());
        f();
        Ok(())
    })?;
    accumulate.register_hook(move |_, _| {
        Ok({
            g();
            None
        })
    });
    y.backward()?;
    let expected = [
        "tensor",
        "pre of node",
        "post of node",
        "leaf",
        "pre of accumulate",
        "post-accumulate",
        "post of accumulate",
    ];
    assert_eq!(log.take(), expected);
    Ok(())
}

#[test]
fn replacing_and_removing() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let handle = x.register_hook(|grad| Ok(Some(grad.mul(10.0)?)))?;
    x.register_hook(|grad| Ok(Some(grad.add(1.0)?)))?;
    x.sum()?.backward()?;
    assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [11.0, 11.0]);
    handle.remove();
    handle.remove();
    x.zero_grad();
    x.sum()?.backward()?;
    assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 2.0]);
    Ok(())
}

#[test]
fn retained_gradients_come_after_all_hooks() -> Result<()> {
    let x = leaf(&[1.0]);
    let y = x.mul(3.0)?;
    y.retain_grad()?;
    y.retain_grad()?;
    assert!(y.retains_grad() && !x.retains_grad());
    y.register_hook(|grad| Ok(Some(grad.mul(5.0)?)))?;
    y.mul(2.0)?.backward()?;
    assert_eq!(y.grad().unwrap().item::<f32>()?, 10.0);
    assert_eq!(x.grad().unwrap().item::<f32>()?, 30.0);
    Ok(())
}

#[test]
fn hooks_bind_to_values_and_retain_grad_to_the_newest() -> Result<()> {
    let x = leaf(&[1.0]);
    let y = x.mul(3.0)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    y.register_hook(move |grad| {
        log.lock().unwrap().push(grad.item::<f32>()?);
        Ok(None)
    })?;
    y.retain_grad()?;
    y.mul_(4.0)?;
    y.mul(2.0)?.backward()?;
    assert_eq!(*seen.lock().unwrap(), [8.0]);
    assert_eq!(y.grad().unwrap().item::<f32>()?, 2.0);
    Ok(())
}

#[test]
fn grad_runs_the_hooks_on_the_way() -> Result<()> {
    let x = leaf(&[1.0]);
    let y = x.mul(3.0)?;
    x.register_hook(|grad| Ok(Some(grad.mul(7.0)?)))?;
    x.register_post_accumulate_grad_hook(|_| panic!("nothing accumulates"))?;
    let value = grad(&[&y], &[&x], GradOptions::new())?.remove(0).unwrap();
    assert_eq!(value.item::<f32>()?, 21.0);
    Ok(())
}

#[test]
fn what_hooks_must_not_do() -> Result<()> {
    let rule = |error: Error| match error {
        Error::Autograd { rule, .. } => rule,
        other => panic!("{other}"),
    };
    let x = leaf(&[1.0, 2.0]);
    x.register_hook(|grad| Ok(Some(grad.sum()?)))?;
    assert_eq!(rule(x.mul(2.0)?.sum()?.backward().unwrap_err()), GradRule::Hook);
    let plain = Tensor::ones([1], Device::cpu())?;
    assert_eq!(rule(plain.register_hook(|_| Ok(None)).unwrap_err()), GradRule::NeedsRequiresGrad);
    assert_eq!(rule(plain.retain_grad().unwrap_err()), GradRule::NeedsRequiresGrad);
    let y = leaf(&[1.0]).mul(2.0)?;
    assert_eq!(rule(y.register_post_accumulate_grad_hook(|_| Ok(())).unwrap_err()), GradRule::NeedsLeaf);
    y.grad_fn().unwrap().register_prehook(|_| Ok(Some(vec![])));
    assert_eq!(rule(y.backward().unwrap_err()), GradRule::Hook);
    Ok(())
}

#[test]
fn backward_inside_of_a_hook() -> Result<()> {
    let (x, inner) = (leaf(&[2.0]), leaf(&[5.0]));
    let other = inner.clone();
    let y = x.mul(3.0)?;
    y.register_hook(move |_| {
        wgrad::enable_grad(|| other.mul(&other))?.backward()?;
        Ok(None)
    })?;
    y.backward_with(BackwardOptions::new())?;
    assert_eq!(x.grad().unwrap().item::<f32>()?, 3.0);
    assert_eq!(inner.grad().unwrap().item::<f32>()?, 10.0);
    Ok(())
}

#[test]
fn inputs_that_keep_their_gradient_get_it_once() -> Result<()> {
    for retains in [false, true] {
        for twice in [false, true] {
            let x = leaf(&[2.0]);
            let h = x.mul(3.0)?;
            if retains {
                h.retain_grad()?;
            }
            let inputs: &[&Tensor] = if twice { &[&h, &h] } else { &[&h] };
            h.mul(&h)?.backward_with(BackwardOptions::new().inputs(inputs))?;
            assert_eq!(
                h.grad().expect("a gradient").item::<f32>()?,
                12.0,
                "retains {retains}, twice {twice}"
            );
            assert!(x.grad().is_none());
        }
    }
    let x = leaf(&[2.0]);
    x.mul(&x)?.backward_with(BackwardOptions::new().inputs(&[&x, &x]))?;
    assert_eq!(x.grad().expect("a gradient").item::<f32>()?, 4.0);
    Ok(())
}

#[test]
fn a_view_keeps_its_gradient_after_its_base_was_written() -> Result<()> {
    let x = leaf(&[1.0, 2.0, 3.0, 4.0]);
    let y = x.reshape([2, 2])?.mul(1.0)?;
    let w = y.select(0, 0)?;
    w.retain_grad()?;
    y.mul_(5.0)?;
    w.mul(7.0)?.sum()?.backward()?;
    assert_eq!(w.grad().expect("a gradient").to_vec::<f32>()?, [7.0, 7.0]);
    assert_eq!(x.grad().expect("a gradient").to_vec::<f32>()?, [35.0, 35.0, 0.0, 0.0]);
    Ok(())
}

/// What hooks of nodes give must be what it takes the place of: nothing is cast or summed down.
#[test]
fn gradients_that_hooks_of_nodes_give_are_checked() -> Result<()> {
    let half = |data: &[f32]| Tensor::from_slice(data, data.len(), &Device::cpu())?.to_dtype(DType::F16);
    let given = [
        ("another shape", leaf(&[1.0, 2.0, 3.0]).detach()),
        ("another dtype", half(&[1.0, 2.0])?),
        ("a shape to be summed down", leaf(&[1.0; 6]).detach().reshape([3, 2])?),
    ];
    for (what, wrong) in given {
        for before in [true, false] {
            let x = leaf(&[1.0, 2.0]);
            let y = x.mul(3.0)?;
            let (node, wrong) = (y.grad_fn().expect("a node"), wrong.clone());
            if before {
                node.register_prehook(move |_| Ok(Some(vec![Some(wrong.clone())])));
            } else {
                node.register_hook(move |_, _| Ok(Some(vec![Some(wrong.clone()), None])));
            }
            let error = y.sum()?.backward().expect_err(what).to_string();
            assert!(error.contains("MulBackward0"), "{what}: {error}");
            assert!(error.contains(if before { "pre-hook" } else { "a hook" }), "{what}: {error}");
            assert!(x.grad().is_none(), "{what}");
        }
    }
    Ok(())
}
