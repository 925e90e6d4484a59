//! f64 on GPUs that have it, through the public API: the same programs there and on the CPU agree in nearly all digits; where
//! it is missing, asking for it is an error that leaves everything as it was.

use wgrad::{DType, Device, Error, NormOrder, QrMode, Result, Tensor, Triangle, manual_seed, no_grad};

use crate::support;

/// The adapters that have f64, or those that don't.
fn gpus(with_f64: bool) -> Vec<Device> {
    support::gpus().into_iter().filter(|device| device.supports(DType::F64) == with_f64).collect()
}

/// Numbers that have no short form in f32.
fn numbers(shape: &[usize], seed: f64, device: &Device) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (seed + i as f64 * 0.7390851332151607).sin() * 1.3).collect();
    Tensor::from_slice(&values, shape, device)
}

/// Runs a program on the CPU and on each GPU that has f64, and compares all of its results to 1e-12 of the largest.
fn agrees(name: &str, program: impl Fn(&Device) -> Result<Vec<Tensor>>) -> Result<()> {
    let expected = program(&Device::cpu())?;
    for device in gpus(true) {
        let found = program(&device)?;
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!((found.device(), found.dtype()), (&device, DType::F64), "{name}, result {i}");
            let (found, expected) = (found.to_vec::<f64>()?, expected.to_vec::<f64>()?);
            let size = expected.iter().fold(f64::MIN_POSITIVE, |size, x| size.max(x.abs()));
            assert_eq!(found.len(), expected.len());
            // Not a number is not near any other.
            let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-12 * size);
            assert!(near, "{name} on {device}, result {i}: {found:?}, not {expected:?}");
        }
    }
    Ok(())
}

#[test]
fn which_gpus_have_it() {
    if gpus(true).is_empty() {
        eprintln!("no GPU adapter with f64: only the CPU is tested");
    }
}

#[test]
fn the_computation_that_every_introduction_tells() -> Result<()> {
    agrees("article", |device| {
        let mut results = Vec::new();
        for x in [Tensor::new([1.0, 9.0, 0.0], (DType::F64, device))?, numbers(&[3, 1001], 0.3, device)?] {
            let x = x.requires_grad_(true)?;
            let y = (x.pow(2.0)? + 100.1)?;
            let loss = y.mean()?;
            loss.backward()?;
            results.extend([y.detach(), loss.detach(), x.grad().unwrap()]);
        }
        Ok(results)
    })
}

#[test]
fn training_a_perceptron() -> Result<()> {
    agrees("perceptron", |device| {
        let sizes = [32usize, 48, 24, 10];
        let mut parameters = Vec::new();
        for (i, pair) in sizes.windows(2).enumerate() {
            let scale = 1.0 / (pair[0] as f64).sqrt();
            parameters.push((numbers(&[pair[1], pair[0]], i as f64, device)? * scale)?.requires_grad_(true)?);
            parameters.push(Tensor::zeros(pair[1], (DType::F64, device))?.requires_grad_(true)?);
        }
        let x = numbers(&[50, 32], 9.0, device)?;
        let target: Vec<i64> = (0..50).map(|i| i % 10).collect();
        let target = Tensor::from_slice(&target, [50], device)?;
        let mut losses = Vec::new();
        for _ in 0..5 {
            let mut h = x.clone();
            for layer in parameters.chunks(2) {
                h = h.linear(&layer[0], &layer[1])?.tanh()?;
            }
            let loss = h.cross_entropy(&target)?;
            loss.backward()?;
            no_grad(|| -> Result<()> {
                for p in &parameters {
                    p.sub_((p.grad().unwrap() * 0.1)?)?;
                    p.zero_grad();
                }
                Ok(())
            })?;
            losses.push(loss.detach());
        }
        Ok(losses.into_iter().chain(parameters.iter().map(Tensor::detach)).collect())
    })
}

#[test]
fn operations_of_all_families() -> Result<()> {
    agrees("families", |device| {
        let x = numbers(&[37, 45], 0.1, device)?.requires_grad_(true)?;
        let rows = Tensor::from_slice(&[3i64, 0, 36, 3, 3], [5], device)?;
        let parts = [
            x.softmax(-1)?.pow(2.0)?.sum()?,
            x.layer_norm([45], None, None, 1e-5)?.abs()?.pow(1.7)?.mean()?,
            x.logsumexp(0, false)?.sum()?,
            x.index_select(0, &rows)?.sin()?.sum()?,
            x.cumsum(1)?.tanh()?.sum()?,
            x.matmul(&x.mt()?)?.gelu()?.mean()?,
            x.float_power(2.0)?.log1p()?.sum()?,
            x.sort(1, true)?.0.narrow(1, 0, 3)?.exp()?.sum()?,
            x.remainder(0.3)?.mul(x.max()?)?.sum()?,
            x.std()?.sum()?,
        ];
        let mut results = Vec::new();
        for part in parts {
            x.zero_grad();
            part.backward()?;
            results.extend([part.detach(), x.grad().unwrap()]);
        }
        Ok(results)
    })
}

#[test]
fn linear_algebra_goes_through_the_cpu() -> Result<()> {
    agrees("linear algebra", |device| {
        let a = numbers(&[2, 4, 4], 0.7, device)?.requires_grad_(true)?;
        let b = numbers(&[2, 4, 3], 2.2, device)?.requires_grad_(true)?;
        let eye = Tensor::eye(4, 4, (DType::F64, device))?;
        let parts: [fn(&Tensor, &Tensor) -> Result<Tensor>; 6] = [
            |regular, b| regular.solve(b, true),
            |regular, _| regular.inv(),
            |regular, _| Ok(regular.slogdet()?.1),
            |regular, _| regular.matmul(&regular.mt()?)?.cholesky(Triangle::Lower),
            |regular, _| regular.qr(QrMode::Reduced)?.1.abs(),
            |regular, _| regular.matrix_norm(NormOrder::Nuclear, [-2, -1], false),
        ];
        let mut results = Vec::new();
        for part in parts {
            a.zero_grad();
            let value = part(&(&a + (&eye * 4.0)?)?, &b)?;
            value.pow(2.0)?.sum()?.backward()?;
            results.extend([value.detach(), a.grad().unwrap()]);
        }
        Ok(results)
    })
}

#[test]
fn random_numbers_are_the_same_everywhere() -> Result<()> {
    for device in gpus(true) {
        let draw = |device: &Device| {
            manual_seed(11);
            Tensor::rand([100], (DType::F64, device))?.to_vec::<f64>()
        };
        assert_eq!(draw(&device)?, draw(&Device::cpu())?);
    }
    Ok(())
}

#[test]
fn where_it_is_missing_asking_for_it_is_an_error() -> Result<()> {
    for device in gpus(false) {
        let x = Tensor::new([1f32, 9.0, 0.0], &device)?.requires_grad_(true)?;
        fails! {
            x.to(DType::F64) => DType;
            x.to_dtype(DType::F64) => DType;
            x.float_power(2.0) => DType;
            Tensor::zeros([2], (DType::F64, &device)) => DType;
            Tensor::new([1.0, 2.0], (DType::F64, &device)) => DType;
            Tensor::new([1.0, 2.0], DType::F64)?.to(&device) => DType;
        }
        let error = x.to(DType::F64).unwrap_err();
        assert!(matches!(error, Error::DType { dtype: DType::F64, .. }), "{error}");
        assert!(error.to_string().contains(device.name()), "{error}");
        x.pow(2.0)?.sum()?.backward()?;
        assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 18.0, 0.0]);
    }
    Ok(())
}
