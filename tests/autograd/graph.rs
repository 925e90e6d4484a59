//! backward and grad: their options, their rules, their errors.

use wgrad::{
    BackwardOptions, DType, Device, Error, GradOptions, GradRule, Result, Tensor, backward, f16, grad,
};

use crate::support::devices;

fn leaf(data: &[f32]) -> Tensor {
    Tensor::from_slice(data, data.len(), &Device::cpu()).unwrap().requires_grad_(true).unwrap()
}

fn rule<T: std::fmt::Debug>(result: Result<T>) -> GradRule {
    match result {
        Err(Error::Autograd { rule, .. }) => rule,
        other => panic!("{other:?} is not an error of autograd"),
    }
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

#[test]
fn leaves() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    assert!(x.is_leaf() && x.requires_grad() && x.grad_fn().is_none());
    let y = x.mul(2.0)?;
    assert!(!y.is_leaf());
    assert_eq!(rule(y.requires_grad_(false)), GradRule::RequiresGradNonLeaf);
    assert!(y.requires_grad_(true)?.is_same(&y));
    let integers = Tensor::new([1i64], Device::cpu())?;
    assert_eq!(rule(integers.requires_grad_(true)), GradRule::RequiresGradDType);
    assert!(x.to(DType::F32)?.is_same(&x));
    let wrong = Tensor::zeros([3], Device::cpu())?;
    assert_eq!(rule(x.set_grad(Some(&wrong))), GradRule::GradientMismatch);
    assert_eq!(rule(x.set_grad(Some(&x))), GradRule::GradientMismatch);
    x.set_grad(Some(&x.ones_like()?))?;
    y.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [3.0, 3.0]);
    x.set_grad(None)?;
    assert!(x.grad().is_none());
    Ok(())
}

#[test]
fn accumulation() -> Result<()> {
    let x = leaf(&[3.0]);
    let y = x.mul(&x)?;
    y.backward_with(BackwardOptions::new().retain_graph(true))?;
    let first = x.grad().unwrap();
    y.backward_with(BackwardOptions::new().retain_graph(true))?;
    assert!(first.is_same(&x.grad().unwrap()));
    assert_eq!(values(&first), [12.0]);
    y.backward_with(BackwardOptions::new().create_graph(true))?;
    assert!(!first.is_same(&x.grad().unwrap()));
    assert_eq!((values(&first), values(&x.grad().unwrap())), (vec![12.0], vec![18.0]));
    assert!(x.grad().unwrap().requires_grad());
    // A gradient handed in stays the caller's own.
    let z = leaf(&[1.0, 1.0]);
    let seed = Tensor::new([5f32, 7.0], Device::cpu())?;
    z.backward_with(BackwardOptions::new().gradient(&seed))?;
    z.backward_with(BackwardOptions::new().gradient(&seed))?;
    assert_eq!((values(&seed), values(&z.grad().unwrap())), (vec![5.0, 7.0], vec![10.0, 14.0]));
    Ok(())
}

#[test]
fn roots_and_gradients() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let y = x.mul(3.0)?;
    assert_eq!(rule(y.backward()), GradRule::ImplicitGradient);
    let plain = Tensor::ones([1], Device::cpu())?;
    let error = backward(&[&y.sum()?, &plain], BackwardOptions::new()).unwrap_err();
    assert!(error.to_string().contains("output 1"), "{error}");
    assert_eq!(rule(plain.backward()), GradRule::NoGraph);
    let short = Tensor::ones([1], Device::cpu())?;
    assert_eq!(rule(y.backward_with(BackwardOptions::new().gradient(&short))), GradRule::GradientMismatch);
    let sum = y.sum()?;
    backward(&[&sum, &sum, &x.sum()?], BackwardOptions::new().retain_graph(true))?;
    assert_eq!(values(&x.grad().unwrap()), [7.0, 7.0]);
    assert_eq!(rule(backward(&[], BackwardOptions::new())), GradRule::Options);
    let two = BackwardOptions::new().gradients([None, None]);
    assert_eq!(rule(backward(&[&sum], two)), GradRule::Options);
    Ok(())
}

#[test]
fn freed_graphs() -> Result<()> {
    let x = leaf(&[1.0]);
    let y = x.exp()?;
    y.backward()?;
    assert_eq!(rule(y.backward()), GradRule::GraphFreed);
    // Sums save nothing.
    let z = x.add(1.0)?;
    z.backward()?;
    z.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [1f32.exp() + 2.0]);
    Ok(())
}

#[test]
fn backward_into_chosen_inputs() -> Result<()> {
    let (a, b) = (leaf(&[2.0]), leaf(&[3.0]));
    let product = a.mul(&b)?;
    let square = product.mul(&product)?;
    square.backward_with(BackwardOptions::new().inputs(&[&b, &product]))?;
    assert!(a.grad().is_none());
    assert_eq!(values(&b.grad().unwrap()), [24.0]);
    assert_eq!(values(&product.grad().unwrap()), [12.0]);
    assert_eq!(rule(a.mul(&b)?.backward_with(BackwardOptions::new().inputs(&[]))), GradRule::Options);
    Ok(())
}

#[test]
fn grad_touches_nothing() -> Result<()> {
    let (x, unused) = (leaf(&[2.0]), leaf(&[1.0]));
    let y = x.mul(&x)?;
    let z = y.mul(5.0)?;
    let grads = grad(&[&z], &[&x, &y], GradOptions::new().retain_graph(true))?;
    assert_eq!(grads.iter().map(|g| values(g.as_ref().unwrap())).collect::<Vec<_>>(), [[20.0], [5.0]]);
    assert!(x.grad().is_none());
    let keep = || GradOptions::new().retain_graph(true);
    let error = grad(&[&z], &[&x, &unused], keep()).unwrap_err();
    assert!(error.to_string().contains("input 1"), "{error}");
    assert_eq!(rule(grad(&[&z], &[&unused], keep())), GradRule::UnusedInput);
    assert!(grad(&[&z], &[&unused], keep().allow_unused(true))?[0].is_none());
    let zeros = grad(&[&z], &[&unused], keep().materialize_grads(true))?;
    assert_eq!(values(zeros[0].as_ref().unwrap()), [0.0]);
    let contradiction = keep().materialize_grads(true).allow_unused(false);
    assert_eq!(rule(grad(&[&z], &[&unused], contradiction)), GradRule::Options);
    assert_eq!(rule(grad(&[&z], &[], keep())), GradRule::Options);
    let plain = Tensor::ones([1], Device::cpu())?;
    assert_eq!(rule(grad(&[&z], &[&plain], keep())), GradRule::NeedsRequiresGrad);
    Ok(())
}

#[test]
fn batched_gradients() -> Result<()> {
    let x = leaf(&[1.0, 2.0, 3.0]);
    let y = x.mul(&x)?;
    let seeds = Tensor::eye(3, 3, Device::cpu())?;
    let options = GradOptions::new().grad_outputs([Some(seeds)]).is_grads_batched(true);
    let jacobian = grad(&[&y], &[&x], options)?.remove(0).unwrap();
    assert_eq!(jacobian.shape(), [3, 3]);
    assert_eq!(values(&jacobian), [2.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 6.0]);
    Ok(())
}

#[test]
fn higher_orders() -> Result<()> {
    let x = leaf(&[2.0]);
    let mut y = x.pow(5.0)?;
    for expected in [80.0, 160.0, 240.0, 240.0, 120.0] {
        y = grad(&[&y], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
        assert_eq!(values(&y), [expected]);
    }
    Ok(())
}

#[test]
fn gradients_are_summed_down_and_cast() -> Result<()> {
    let x = leaf(&[1.0, 2.0]);
    let half = Tensor::new([f16::from_f32(1.5)], Device::cpu())?.requires_grad_(true)?;
    let matrix = Tensor::ones([3, 2], Device::cpu())?;
    matrix.mul(&x)?.mul(&half)?.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [4.5, 4.5]);
    let grad = half.grad().unwrap();
    assert_eq!((grad.dtype(), grad.item::<f32>()?), (DType::F16, 9.0));
    Ok(())
}

#[test]
fn the_graph_can_be_walked() -> Result<()> {
    let (x, w) = (leaf(&[1.0]), leaf(&[2.0]));
    let node = x.mul(&w)?.add(&x)?.grad_fn().unwrap();
    let names: Vec<_> =
        node.next_functions().into_iter().map(|next| next.map(|(node, _)| node.name())).collect();
    assert_eq!(names, [Some("MulBackward0"), Some("AccumulateGrad")]);
    let next = x.mul(2.0)?.grad_fn().unwrap().next_functions();
    assert!(next.len() == 2 && next[1].is_none(), "a number has a place, but no node");
    let pieces = Tensor::arange(0, 6, 1, DType::F32)?.requires_grad_(true)?.split(2, 0)?;
    let next = pieces[2].mul(1.0)?.grad_fn().unwrap().next_functions();
    assert_eq!(next[0].as_ref().map(|(node, output)| (node.name(), *output)), Some(("SplitBackward0", 2)));
    Ok(())
}

#[test]
fn a_leaf_that_stopped_requiring_grad_gets_none() -> Result<()> {
    for stop in [|w: &Tensor| w.requires_grad_(false), |w: &Tensor| w.detach_()] {
        let (w, x) = (leaf(&[1.0]), leaf(&[2.0]));
        let y = w.mul(&x)?;
        stop(&w)?;
        y.backward()?;
        assert!(w.grad().is_none());
        assert_eq!(values(&x.grad().unwrap()), [1.0]);
    }
    Ok(())
}

#[test]
fn derivatives_of_what_is_flat_are_zeros() -> Result<()> {
    // Each derivative of the sum of the one before, as often as PyTorch has one: then nothing is left that depends on x.
    type Function = fn(&Tensor) -> Result<Tensor>;
    let functions: [(Function, &[[f32; 2]]); 6] = [
        (|x| x.pow(2.0), &[[-3.0, 4.0], [2.0, 2.0], [0.0, 0.0]]),
        (|x| x.square(), &[[-3.0, 4.0], [2.0, 2.0], [0.0, 0.0]]),
        (|x| x.pow(3), &[[6.75, 12.0], [-9.0, 12.0], [6.0, 6.0], [0.0, 0.0]]),
        (|x| x.relu(), &[[0.0, 1.0], [0.0, 0.0]]),
        (|x| x.leaky_relu(0.5), &[[0.5, 1.0], [0.0, 0.0]]),
        (|x| x.relu6(), &[[0.0, 1.0], [0.0, 0.0]]),
    ];
    for (function, derivatives) in functions {
        let x = leaf(&[-1.5, 2.0]);
        let mut sum = function(&x)?.sum()?;
        for expected in derivatives {
            let next = grad(&[&sum], &[&x], GradOptions::new().create_graph(true))?;
            let next = next[0].as_ref().unwrap().clone();
            assert_eq!(values(&next), *expected);
            sum = next.sum()?;
        }
    }
    Ok(())
}

/// A gradient of whole numbers is one of the output's dtype; one that was set and repeats an element is added to all the same.
#[test]
fn gradients_of_other_kinds_that_a_caller_gives() -> Result<()> {
    for device in devices() {
        let x = Tensor::from_slice(&[1.0f32, 2.0], 2, &device)?.requires_grad_(true)?;
        let seed = Tensor::from_slice(&[3i64, 4], 2, &device)?;
        x.mul(2.0)?.backward_with(BackwardOptions::new().gradient(&seed))?;
        assert_eq!(x.grad().expect("a gradient").to_vec::<f32>()?, [6.0, 8.0], "{device}");
        let one = Tensor::from_slice(&[1.0f32], 1, &device)?;
        x.set_grad(Some(&one.expand(2)?))?;
        x.mul(2.0)?.sum()?.backward()?;
        assert_eq!(x.grad().expect("a gradient").to_vec::<f32>()?, [3.0, 3.0], "{device}");
        assert_eq!(one.to_vec::<f32>()?, [1.0]);
    }
    Ok(())
}

#[test]
fn a_graph_as_text_is_linear_in_its_nodes() -> Result<()> {
    // Each node is used twice, so that there are 2^60 ways through it.
    let x = Tensor::new([1.0], Device::cpu())?.requires_grad_(true)?;
    let mut y = x.clone();
    for _ in 0..60 {
        y = y.mul(&y)?;
    }
    let node = y.grad_fn().unwrap();
    assert_eq!(node.walk().len(), 61);
    let dot = node.to_dot();
    assert_eq!(dot.matches("->").count(), 120);
    assert_eq!(dot.matches("MulBackward0").count(), 60);
    assert!(dot.contains("graph.rs:"), "{dot}");
    let tree = node.to_tree(usize::MAX);
    assert_eq!(tree.lines().count(), 121, "{tree}");
    assert_eq!(node.to_tree(2).lines().count(), 5);
    Ok(())
}

#[test]
fn a_graph_of_many_nodes_is_walked_without_recursion() -> Result<()> {
    let mut y = Tensor::new([1.0], Device::cpu())?.requires_grad_(true)?;
    for _ in 0..100_000 {
        y = y.add(1.0)?;
    }
    let node = y.grad_fn().unwrap();
    assert_eq!(node.walk().len(), 100_001);
    assert_eq!(node.to_tree(3).lines().count(), 4);
    Ok(())
}

#[test]
fn anomaly_mode_names_the_line_of_the_forward() -> Result<()> {
    let x = Tensor::new([0.0, 4.0], Device::cpu())?.requires_grad_(true)?;
    let y = x.sqrt()?;
    let line = line!() - 1;
    let loss = y.mul(0.0)?.sum()?;
    let options = || wgrad::BackwardOptions::new().retain_graph(true);
    match wgrad::detect_anomaly(|| loss.backward_with(options())) {
        Err(wgrad::Error::Autograd { op, rule: wgrad::GradRule::Anomaly, reason }) => {
            assert_eq!(op, "SqrtBackward0");
            assert!(reason.contains(&format!("graph.rs:{line}")), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // Outside of it, as ever; and what is no NaN is none inside.
    loss.backward_with(options())?;
    assert!(x.grad().unwrap().to_vec::<f32>()?[0].is_nan());
    wgrad::detect_anomaly(|| y.sum()?.backward())
}
