//! Operations of the user's own: forward, backward, and what they may say about themselves.

use wgrad::{
    BackwardContext, DType, Device, Error, ForwardContext, Function, GradOptions, GradRule, Result, Tensor,
    grad, no_grad,
};

use crate::support::devices;

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

fn leaf(data: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(data, [data.len()], device)?.requires_grad_(true)
}

fn rule<T: std::fmt::Debug>(result: Result<T>) -> GradRule {
    match result {
        Err(Error::Autograd { rule, .. }) => rule,
        other => panic!("{other:?} is not an error of autograd"),
    }
}

/// `scale * x^3`, with a backward in tensor operations.
struct Cube {
    scale: f64,
}

impl Function for Cube {
    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(&[inputs[0]])?;
        ctx.save_value(3.0 * self.scale);
        Ok(vec![inputs[0].pow(3.0)?.mul(self.scale)?])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        let (x, factor) = (ctx.saved(0)?, *ctx.value::<f64>().expect("it was saved"));
        Ok(vec![Some(ctx.grad(0)?.mul(x.square()?)?.mul(factor)?)])
    }
}

#[test]
fn gradients_of_every_order() -> Result<()> {
    for device in devices() {
        let x = leaf(&[1.0, -2.0, 0.5], &device)?;
        let y = Cube { scale: 2.0 }.apply_one(&[&x])?;
        assert_eq!(values(&y), [2.0, -16.0, 0.25]);
        assert_eq!(y.grad_fn().unwrap().name(), "CubeBackward");
        let mut derivative = y.sum()?;
        for expected in [[6.0, 24.0, 1.5], [12.0, -24.0, 6.0], [12.0, 12.0, 12.0]] {
            let options = GradOptions::new().create_graph(true);
            let next = grad(&[&derivative], &[&x], options)?.remove(0).unwrap();
            assert_eq!(values(&next), expected, "{device}");
            derivative = next.sum()?;
        }
    }
    Ok(())
}

#[test]
fn nothing_is_recorded_where_nothing_needs_it() -> Result<()> {
    let x = leaf(&[1.0], &Device::cpu())?;
    assert!(no_grad(|| Cube { scale: 1.0 }.apply_one(&[&x]))?.is_leaf());
    assert!(!Cube { scale: 1.0 }.apply_one(&[&x.detach()])?.requires_grad());
    Ok(())
}

/// A product and its sign, whose second output has no gradient and whose first may take no part.
struct ProductAndSign;

impl Function for ProductAndSign {
    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (product, sum) = (inputs[0].mul(inputs[1])?, inputs[0].add(inputs[1])?);
        let sign = product.sign()?;
        ctx.save_for_backward(inputs)?;
        ctx.mark_non_differentiable(&[&sign]);
        Ok(vec![product, sum, sign])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        // The sum's gradient is zeros where only the product takes part; on request it is missing.
        assert_eq!(ctx.grad_if_defined(1).is_none(), values(&ctx.grad(1)?).iter().all(|&g| g == 0.0));
        let sum = ctx.grad(1)?;
        let of = |other: usize| Ok(Some(ctx.grad(0)?.mul(ctx.saved(other)?)?.add(&sum)?));
        let first = if ctx.needs_input_grad(0) { of(1)? } else { None };
        let second = if ctx.needs_input_grad(1) { of(0)? } else { None };
        assert_eq!(ctx.needs_input_grad(1), second.is_some());
        Ok(vec![first, second])
    }
}

#[test]
fn several_outputs_some_without_a_gradient() -> Result<()> {
    for device in devices() {
        let (a, b) = (leaf(&[2.0, -3.0], &device)?, leaf(&[5.0, 7.0], &device)?);
        let outputs = ProductAndSign.apply(&[&a, &b])?;
        assert!(outputs[0].requires_grad() && outputs[1].requires_grad() && !outputs[2].requires_grad());
        outputs[0].sum()?.backward()?;
        assert_eq!(
            (values(&a.grad().unwrap()), values(&b.grad().unwrap())),
            (vec![5.0, 7.0], vec![2.0, -3.0])
        );
        // Only one input needs a gradient.
        let outputs = ProductAndSign.apply(&[&a.detach(), &b])?;
        b.zero_grad();
        outputs[0].add(&outputs[1])?.sum()?.backward()?;
        assert_eq!(values(&b.grad().unwrap()), [3.0, -2.0], "{device}");
    }
    Ok(())
}

/// Doubles its input in place.
struct DoubleInPlace {
    returns: bool,
}

impl Function for DoubleInPlace {
    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        inputs[0].mul_(2.0)?;
        ctx.mark_dirty(inputs);
        Ok(vec![if self.returns { inputs[0].clone() } else { inputs[0].deep_clone()? }])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(ctx.grad(0)?.mul(2.0)?)])
    }
}

#[test]
fn an_input_written_in_place_goes_on_with_the_operations_history() -> Result<()> {
    for device in devices() {
        let x = leaf(&[1.0, 2.0], &device)?;
        let y = x.mul(3.0)?;
        let z = DoubleInPlace { returns: true }.apply_one(&[&y])?;
        assert!(z.is_same(&y));
        assert_eq!(y.grad_fn().unwrap().name(), "DoubleInPlaceBackward");
        y.square()?.sum()?.backward()?;
        assert_eq!(
            (values(&y), values(&x.grad().unwrap())),
            (vec![6.0, 12.0], vec![72.0, 144.0]),
            "{device}"
        );
        // Through a view, the base's history says so.
        let base = x.mul(1.0)?;
        DoubleInPlace { returns: true }.apply(&[&base.narrow(0, 1, 1)?])?;
        x.zero_grad();
        base.sum()?.backward()?;
        assert_eq!((values(&base), values(&x.grad().unwrap())), (vec![1.0, 4.0], vec![1.0, 2.0]), "{device}");
    }
    Ok(())
}

#[test]
fn what_must_not_be_written_is_as_it_was() -> Result<()> {
    for device in devices() {
        let x = leaf(&[1.0, 2.0], &device)?;
        assert_eq!(rule(DoubleInPlace { returns: true }.apply(&[&x])), GradRule::LeafInPlace);
        assert_eq!(values(&x.detach()), [1.0, 2.0], "{device}");
        let y = x.mul(1.0)?;
        assert_eq!(rule(DoubleInPlace { returns: false }.apply(&[&y])), GradRule::Hook);
        assert_eq!(values(&y), [1.0, 2.0], "{device}");
        assert_eq!(y.grad_fn().unwrap().name(), "MulBackward0");
    }
    Ok(())
}

/// A sine whose backward is not to be differentiated.
struct SinOnce;

impl Function for SinOnce {
    const ONCE_DIFFERENTIABLE: bool = true;

    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(inputs)?;
        Ok(vec![inputs[0].sin()?])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(ctx.grad(0)?.mul(ctx.saved(0)?.cos()?)?)])
    }
}

#[test]
fn a_function_that_is_differentiable_once() -> Result<()> {
    let x = leaf(&[0.0, 1.0], &Device::cpu())?;
    let y = SinOnce.apply_one(&[&x])?.square()?.sum()?;
    let first = grad(&[&y], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
    assert!((values(&first)[1] - (2.0 * 1f32.sin() * 1f32.cos())).abs() < 1e-6);
    assert_eq!(rule(grad(&[&first.sum()?], &[&x], GradOptions::new())), GradRule::NotDifferentiable);
    Ok(())
}

/// Gives whatever gradients it was made with.
struct Gives(fn(&Tensor) -> Result<Vec<Option<Tensor>>>);

impl Function for Gives {
    fn forward(&self, _ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].mul(1.0)?])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        (self.0)(&ctx.grad(0)?)
    }
}

#[test]
fn wrong_gradients_are_errors_that_name_the_function() -> Result<()> {
    let x = leaf(&[1.0, 2.0, 3.0], &Device::cpu())?;
    let of = |gives| -> Result<()> { Gives(gives).apply_one(&[&x])?.sum()?.backward() };
    assert_eq!(rule(of(|_| Ok(vec![]))), GradRule::Hook);
    assert_eq!(rule(of(|grad| Ok(vec![Some(grad.clone()), None]))), GradRule::Hook);
    assert_eq!(rule(of(|grad| Ok(vec![Some(grad.narrow(0, 0, 2)?)]))), GradRule::GradientMismatch);
    assert_eq!(rule(of(|grad| Ok(vec![Some(grad.to_dtype(DType::I64)?)]))), GradRule::GradientMismatch);
    match of(|_| Ok(vec![])) {
        Err(error) => assert!(error.to_string().contains("GivesBackward"), "{error}"),
        Ok(()) => panic!("no error"),
    }
    assert!(x.grad().is_none());
    // None is a gradient of zero, and a gradient of more dims is summed down.
    of(|_| Ok(vec![None]))?;
    of(|grad| Ok(vec![Some(Tensor::stack(&[grad, grad], 0)?)]))?;
    assert_eq!(values(&x.grad().unwrap()), [2.0; 3]);
    Ok(())
}

#[test]
fn a_backward_inside_of_a_backward() -> Result<()> {
    struct Inner;
    impl Function for Inner {
        fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
            ctx.save_for_backward(inputs)?;
            Ok(vec![inputs[0].square()?])
        }

        fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
            let x = ctx.saved(0)?.detach().requires_grad_(true)?;
            let y = wgrad::enable_grad(|| x.square()?.sum())?;
            let slope = grad(&[&y], &[&x], GradOptions::new())?.remove(0).unwrap();
            Ok(vec![Some(ctx.grad(0)?.mul(&slope)?)])
        }
    }
    let x = leaf(&[3.0, 4.0], &Device::cpu())?;
    Inner.apply_one(&[&x])?.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [6.0, 8.0]);
    Ok(())
}
