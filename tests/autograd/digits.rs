//! Where a formula's terms cancel, or thousands of roundings meet: f32 on the CPU keeps nearly all of its digits, against the
//! same program in f64.

use wgrad::{
    BatchNormOptions, CrossEntropyOptions, DType, Device, GradOptions, QrMode, Result, Tensor, grad,
};

use crate::support::devices;

/// Positive numbers of many sizes, the same in f32 and f64.
fn numbers(shape: &[usize], centre: f64, spread: f64, dtype: DType) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (centre + spread * (i as f64 * 2.399).sin()) as f32).collect();
    Tensor::from_slice(&values, shape, &Device::cpu())?.to_dtype(dtype)
}

/// The largest distance of a program's f32 result from its f64 one, over the largest element.
fn error(program: impl Fn(DType) -> Result<Tensor>) -> Result<f64> {
    let rounded = program(DType::F32)?;
    assert_eq!(rounded.dtype(), DType::F32);
    let (rounded, exact) =
        (rounded.to_dtype(DType::F64)?.to_vec::<f64>()?, program(DType::F64)?.to_vec::<f64>()?);
    let size = exact.iter().fold(0.0f64, |size, x| size.max(x.abs()));
    assert!(size > 0.0 && rounded.len() == exact.len());
    Ok(rounded.iter().zip(&exact).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs())) / size)
}

/// The gradient, by the input, of a gradient that is folded with fixed numbers.
fn second(x: Tensor, function: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let x = x.requires_grad_(true)?;
    let y = function(&x)?;
    let loss = y.mul(numbers(y.shape(), 0.2, 1.0, y.dtype())?)?.sum()?;
    let first = grad(&[&loss], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
    let again = first.mul(numbers(x.shape(), -0.3, 0.7, x.dtype())?)?.sum()?;
    Ok(grad(&[&again], &[&x], GradOptions::new())?.remove(0).unwrap())
}

#[test]
fn products_of_thousands() -> Result<()> {
    let factors = |dtype| numbers(&[30_011], 1.0, 0.01, dtype);
    assert!(error(|dtype| factors(dtype)?.prod())? < 1e-7);
    let slope = |dtype| {
        let x = factors(dtype)?.requires_grad_(true)?;
        x.prod()?.backward()?;
        Ok(x.grad().unwrap())
    };
    assert!(error(slope)? < 1e-7);
    Ok(())
}

#[test]
fn second_derivatives_of_rows_that_vary_little() -> Result<()> {
    let check = |name: &str, shape: &[usize], function: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<()> {
        let error = error(|dtype| second(numbers(shape, 3.0, 0.01, dtype)?, function))?;
        assert!(error < 2e-7, "{name}: {error}");
        Ok(())
    };
    check("layer_norm", &[3, 5], &|x| x.layer_norm(5, None, None, 1e-5))?;
    check("batch_norm", &[4, 3, 2], &|x| x.batch_norm(true, &BatchNormOptions::default()))?;
    check("instance_norm", &[2, 3, 5], &|x| x.instance_norm(true, &BatchNormOptions::default()))?;
    check("group_norm", &[2, 4, 3], &|x| x.group_norm(2, None, None, 1e-5))
}

#[test]
fn second_derivatives_of_quotients() -> Result<()> {
    let check = |name: &str, x: [f32; 6], function: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<()> {
        let x = |dtype| Tensor::from_slice(&x, [2, 3], &Device::cpu())?.to_dtype(dtype);
        let error = error(|dtype| second(x(dtype)?, function))?;
        assert!(error < 2e-7, "{name}: {error}");
        Ok(())
    };
    check("cumprod", [0.7, 0.0007, -1.3, 2.1, -0.002, 0.9], &|x| x.cumprod(1))?;
    check("cumprod with zeros", [0.7, 0.0, -1.3, 2.1, -0.002, 0.9], &|x| x.cumprod(1))?;
    check("vector_norm", [1.1, -0.06, 2.5, 0.4, 1.7, -0.9], &|x| x.vector_norm(-2.0, 1, false))?;
    check("sinc", [0.02, -0.03, 0.05, 1.98, -0.04, 0.01], &|x| x.sinc())
}

/// A wide matrix whose square part is nearly singular.
#[test]
fn second_derivatives_of_an_orthogonal_factor() -> Result<()> {
    let a = [1.0f32, 1.9, 0.3, 0.51, 1.0, -0.7];
    let a = |dtype| Tensor::from_slice(&a, [2, 3], &Device::cpu())?.to_dtype(dtype);
    let error = error(|dtype| second(a(dtype)?, &|a| a.qr(QrMode::Reduced)?.1.abs()))?;
    assert!(error < 2e-7, "{error}");
    Ok(())
}

/// Several gradients of halves meet in one tensor, and are rounded together.
#[test]
fn a_smoothed_cross_entropy_rounds_its_gradient_once() -> Result<()> {
    let gradient = |dtype: DType| -> Result<Vec<f64>> {
        let scores = numbers(&[40, 7], 0.1, 2.0, DType::F32)?.to_dtype(DType::BF16)?.to_dtype(dtype)?;
        let scores = scores.detach().requires_grad_(true)?;
        let target: Vec<i64> = (0..40).map(|i| i % 7).collect();
        let target = Tensor::from_slice(&target, [40], &Device::cpu())?;
        let options = wgrad::CrossEntropyOptions { label_smoothing: 0.4, ..Default::default() };
        scores.cross_entropy_with(&target, &options)?.backward()?;
        scores.grad().unwrap().to_dtype(DType::F64)?.to_vec::<f64>()
    };
    for (rounded, exact) in gradient(DType::BF16)?.into_iter().zip(gradient(DType::F64)?) {
        // Half a unit in the last of eight binary digits, and a little for f32.
        assert!((rounded - exact).abs() <= exact.abs() * 2f64.powi(-8) * 1.01, "{rounded} for {exact}");
    }
    Ok(())
}

/// A matrix of rank one: its other singular values are 0, and the spectral norm does not depend on their vectors.
#[test]
fn second_derivatives_of_a_spectral_norm_where_singular_values_are_0() -> Result<()> {
    let column = |dtype| Tensor::from_slice(&[2.0f32, -1.5, 0.5], [3, 1], &Device::cpu())?.to_dtype(dtype);
    let program = |dtype| {
        second(column(dtype)?.mul(numbers(&[1, 4], 2.0, 0.0, dtype)?)?, &|a| {
            a.matrix_norm(2.0, [0, 1], false)
        })
    };
    assert!(program(DType::F64)?.isfinite()?.all()?.item::<bool>()?);
    assert!(error(program)? < 1e-5);
    Ok(())
}

/// A number keeps its digits beside halves: the product is rounded, not the factor.
#[test]
fn numbers_beside_halves_are_not_rounded() -> Result<()> {
    // PyTorch's: 3 * 0.1 is 0.30005 in f16, where 0.1 in f16 would give 0.2998.
    for device in devices() {
        let x = Tensor::new([3f32], &device)?.to_dtype(DType::F16)?;
        assert_eq!(x.mul(0.1)?.to_dtype(DType::F32)?.item::<f32>()?, 0.300_048_83);
        assert_eq!(x.div(0.3)?.to_dtype(DType::F32)?.item::<f32>()?, 10.0);
    }
    Ok(())
}

#[test]
fn integers_beside_numbers_they_cannot_hold() -> Result<()> {
    let bytes = Tensor::new([0u8, 1, 4], Device::cpu())?;
    assert_eq!(bytes.clamp(-1, None)?.to_vec::<u8>()?, [0, 1, 4]);
    assert_eq!(bytes.clamp(-1, 1)?.to_vec::<u8>()?, [0, 1, 1]);
    assert_eq!(bytes.clamp(-2, 300)?.to_vec::<u8>()?, [0, 1, 4]);
    assert_eq!(bytes.clamp(-1, 0.5)?.to_vec::<f32>()?, [0.0, 0.5, 0.5]);
    let ints = Tensor::new([1i32, 2], Device::cpu())?;
    assert_eq!(ints.clamp(None, 1i64 << 40)?.to_vec::<i32>()?, [1, 2]);
    let number = |n: i64| Tensor::new(n, Device::cpu());
    assert_eq!(bytes.div(&number(-2)?)?.to_vec::<f32>()?, [0.0, -0.5, -2.0]);
    assert_eq!(bytes.div(&number(300)?)?.to_vec::<f32>()?, [0.0, 1.0 / 300.0, 4.0 / 300.0]);
    assert_eq!(ints.div(&number(1 << 40)?)?.to_vec::<f32>()?, [2f32.powi(-40), 2f32.powi(-39)]);
    let spaced = Tensor::linspace(0.0, 1e8, 7, DType::I64)?.to_vec::<i64>()?;
    assert_eq!(spaced, [0, 16666666, 33333333, 50000000, 66666666, 83333333, 100000000]);
    assert_eq!(Tensor::new([true, false], Device::cpu())?.square()?.to_vec::<i64>()?, [1, 0]);
    Ok(())
}

#[test]
fn nan_is_where_pytorch_has_it() -> Result<()> {
    // All classes have no weight: what is not ignored has no mean.
    let scores = Tensor::new([[0.3f32, 0.2], [0.1, 0.5]], Device::cpu())?.requires_grad_(true)?;
    let weight = Tensor::zeros([2], Device::cpu())?;
    let options = CrossEntropyOptions { weight: Some(weight), ..CrossEntropyOptions::default() };
    let loss = scores.cross_entropy_with(&Tensor::new([0i64, -100], Device::cpu())?, &options)?;
    loss.backward()?;
    assert!(loss.item::<f32>()?.is_nan());
    let gradient = scores.grad().unwrap().to_vec::<f32>()?;
    assert!(gradient[..2].iter().all(|g| g.is_nan()) && gradient[2..] == [0.0, 0.0], "{gradient:?}");
    // A gradient that is NaN where the result does not come from the element stays there.
    let x = Tensor::new([-5f32, 0.5], Device::cpu())?.requires_grad_(true)?;
    let bound = |b: f32| Tensor::new([b, b], Device::cpu());
    x.clamp(&bound(-1.0)?, &bound(1.0)?)?.log1p()?.sum()?.backward()?;
    assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [0.0, 1.0 / 1.5]);
    Ok(())
}

/// Where one formula of `sinc` holds, the steps of the other leave the range of numbers; nothing of them is in the derivatives.
#[test]
fn second_derivatives_of_sinc_are_numbers() -> Result<()> {
    let numbers = [1e-38f32, 1e-34, -1e-20, 1e-8, 0.3, 2.5e6, -1e12, 1e18];
    for device in devices() {
        let x = Tensor::from_slice(&numbers, numbers.len(), &device)?.requires_grad_(true)?;
        let first =
            grad(&[&x.sinc()?.sum()?], &[&x], GradOptions::new().create_graph(true))?.remove(0).unwrap();
        let second = grad(&[&first.sum()?], &[&x], GradOptions::new())?.remove(0).unwrap().to_vec::<f32>()?;
        assert!(second.iter().all(|x| x.is_finite()), "{device}: {second:?}");
        // -pi^2 / 3 at 0.
        assert!(second[..4].iter().all(|x| (x + 3.289_868).abs() < 1e-5), "{device}: {second:?}");
    }
    Ok(())
}
