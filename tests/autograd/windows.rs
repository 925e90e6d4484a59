//! Windows and running products, with their gradients, against what PyTorch 2.15 gives and against finite differences, on every device.

use wgrad::{BackwardOptions, DType, Device, PoolOptions, Result, Tensor, gradcheck, gradgradcheck};

use crate::support::devices;

/// `n` different numbers in an irregular order.
fn shuffled(n: usize, shape: &[usize], device: &Device) -> Result<Tensor> {
    let numbers: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32).collect();
    Tensor::from_slice(&numbers, shape, device)
}

fn options() -> PoolOptions {
    PoolOptions {
        stride: vec![1, 2, 2],
        padding: vec![1, 1, 0],
        ceil_mode: true,
        count_include_pad: false,
        ..PoolOptions::new(&[2, 3, 2])
    }
}

#[test]
fn max_pool3d_is_pytorchs() -> Result<()> {
    let values = [
        84, 94, 47, 87, 94, 97, 87, 60, 97, 84, 94, 80, 100, 94, 97, 87, 93, 97, 86, 90, 96, 100, 93, 96, 83,
        93, 62, 86, 76, 96, 86, 89, 96, 52, 89, 62, 99, 92, 45, 85, 92, 95, 85, 58, 95, 99, 92, 78, 98, 92,
        95, 85, 91, 95, 84, 88, 94, 98, 91, 94, 81, 91, 60, 84, 74, 94, 84, 87, 94, 50, 87, 60,
    ];
    let first_plane = [
        5, 8, 4, 16, 8, 19, 16, 18, 19, 5, 8, 24, 30, 8, 19, 16, 38, 19, 46, 27, 49, 30, 38, 49, 35, 38, 59,
        46, 43, 49, 46, 57, 49, 56, 57, 59,
    ];
    // Places of the first plane, and their gradients; all others are 0.
    let slopes = [
        (4, 3),
        (5, 11),
        (8, 32),
        (16, 27),
        (18, 8),
        (19, 48),
        (24, 12),
        (27, 20),
        (30, 35),
        (35, 25),
        (38, 66),
        (43, 29),
        (46, 78),
        (49, 108),
    ];
    for device in devices() {
        let x = shuffled(120, &[1, 2, 3, 4, 5], &device)?.requires_grad_(true)?;
        let (y, places) = x.max_pool3d(&options())?;
        assert_eq!(y.shape(), [1, 2, 4, 3, 3]);
        assert_eq!(y.to_vec::<f32>()?, values.map(|n| n as f32), "{device}");
        assert_eq!(places.to_vec::<i64>()?[..36], first_plane, "{device}");
        let weights = Tensor::arange(1, 73, 1, (DType::F32, &device))?.reshape(y.shape())?;
        y.mul(&weights)?.sum()?.backward()?;
        let grad = x.grad().expect("a gradient").to_vec::<f32>()?;
        let found: Vec<(usize, i32)> =
            (0..50).filter(|&i| grad[i] != 0.0).map(|i| (i, grad[i] as i32)).collect();
        assert_eq!(found, slopes, "{device}");
    }
    Ok(())
}

#[test]
fn avg_pool3d_is_pytorchs() -> Result<()> {
    let first_plane = [
        35.25, 58.75, 38.5, 51.833_332, 58.5, 46.666_668, 68.5, 41.5, 97.0, 39.125, 50.0, 55.0, 51.5,
        58.166_668, 46.333_332, 59.75, 58.0, 63.0, 46.875, 45.125, 62.75, 50.833_332, 49.083_332, 62.5,
        42.25, 65.75, 45.5, 50.75, 49.0, 54.0, 50.5, 40.333_332, 79.0, 33.5, 57.0, 62.0,
    ];
    for device in devices() {
        let x = shuffled(120, &[1, 2, 3, 4, 5], &device)?;
        let y = x.avg_pool3d(&options())?.to_vec::<f32>()?;
        for (found, expected) in y.iter().zip(first_plane) {
            assert!((found - expected).abs() <= 1e-6 * expected, "{device}: {found}, not {expected}");
        }
        assert_eq!(y.len(), 72);
    }
    Ok(())
}

#[test]
fn gradients_of_windows_are_pytorchs() -> Result<()> {
    // The size and the step of windows, and the gradient of [12, 2] elements.
    let cases = [
        ((2, 2), [1, 3, 2, 4, 5, 7, 6, 1, 2, 4, 3, 5, 6, 1, 7, 2, 3, 5, 4, 6, 7, 2, 1, 3]),
        ((2, 3), [1, 3, 2, 4, 0, 0, 5, 7, 6, 1, 0, 0, 2, 4, 3, 5, 0, 0, 6, 1, 7, 2, 0, 0]),
        ((3, 2), [1, 4, 2, 5, 10, 9, 1, 4, 8, 7, 7, 3, 6, 5, 6, 2, 11, 10, 5, 1, 6, 2, 0, 0]),
        ((7, 1), [1, 1, 3, 3, 6, 6, 10, 10, 15, 15, 21, 21, 27, 27, 25, 25, 22, 22, 18, 18, 13, 13, 7, 7]),
        ((7, 2), [1, 1, 2, 2, 4, 4, 6, 6, 9, 9, 12, 12, 15, 15, 10, 10, 12, 12, 6, 6, 7, 7, 0, 0]),
        ((9, 2), [1, 3, 2, 4, 8, 12, 10, 7, 12, 9, 7, 4, 9, 6, 4, 8, 6, 10, 5, 7, 6, 1, 0, 0]),
        ((5, 4), [1, 6, 2, 7, 3, 1, 4, 2, 9, 5, 5, 3, 6, 4, 7, 5, 1, 6, 0, 0, 0, 0, 0, 0]),
        ((4, 1), [1, 5, 4, 12, 9, 21, 16, 4, 20, 8, 24, 12, 28, 16, 4, 20, 8, 24, 9, 21, 8, 2, 5, 2]),
        ((12, 12), [1, 6, 2, 7, 3, 1, 4, 2, 5, 3, 6, 4, 7, 5, 1, 6, 2, 7, 3, 1, 4, 2, 5, 3]),
        ((1, 5), [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 0, 0]),
        ((6, 1), [1, 7, 8, 6, 14, 11, 12, 15, 23, 18, 26, 27, 21, 22, 22, 17, 17, 20, 13, 10, 10, 8, 1, 7]),
    ];
    for device in devices() {
        for ((size, step), expected) in cases {
            let x = Tensor::zeros([12, 2], &device)?.requires_grad_(true)?;
            let y = x.unfold(0, size, step)?;
            let weights: Vec<f32> = (0..y.numel()).map(|i| (i % 7 + 1) as f32).collect();
            y.mul(Tensor::from_slice(&weights, y.shape(), &device)?)?.sum()?.backward()?;
            let found = x.grad().expect("a gradient").to_vec::<f32>()?;
            assert_eq!(found, expected.map(|n| n as f32), "{device}, windows of {size}, {step} apart");
        }
    }
    Ok(())
}

#[test]
fn gradients_of_windows_differentiate() -> Result<()> {
    let x = Tensor::rand([2, 9, 2], DType::F64)?.requires_grad_(true)?;
    for (size, step) in [(3, 2), (3, 3), (2, 4), (6, 1), (9, 1), (1, 1)] {
        let windows = |x: &[Tensor]| Ok(vec![x[0].unfold(1, size, step)?.sin()?.mul(&x[0].sum()?)?]);
        gradcheck(windows, std::slice::from_ref(&x))?;
        gradgradcheck(windows, std::slice::from_ref(&x))?;
    }
    let x = Tensor::rand([1, 2, 3, 4, 3], DType::F64)?.requires_grad_(true)?;
    let pools = |x: &[Tensor]| Ok(vec![x[0].max_pool3d(&options())?.0, x[0].avg_pool3d(&options())?]);
    gradcheck(pools, std::slice::from_ref(&x))?;
    gradgradcheck(|x| Ok(vec![pools(x)?.remove(1).sin()?]), &[x])
}

#[test]
fn gradients_of_running_products_with_zeros_are_pytorchs() -> Result<()> {
    let rows = [
        ([0.5, -2.0, 0.0, 3.0, 1.5, 0.0, 2.0], [-3.0, 1.0, -37.5, 0.0, 0.0, 0.0, 0.0]),
        ([2.0, 3.0, -1.0, 0.5, 4.0, 1.0, 1.0], [-116.0, -78.0, 246.0, -456.0, -54.0, -156.0, -84.0]),
        ([0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [40319.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0], [5039.0, 2519.0, 1678.0, 1254.0, 984.0, 720.0, 5040.0]),
    ];
    for device in devices() {
        let flat: Vec<f32> = rows.iter().flat_map(|(row, _)| *row).collect();
        let weights = Tensor::arange(1, 8, 1, (DType::F32, &device))?;
        // Along the last dim, and along the first with the rows as columns.
        for along in [1, 0] {
            let x = Tensor::from_slice(&flat, [4, 7], &device)?.requires_grad_(true)?;
            let lines = if along == 1 { x.clone() } else { x.t()? };
            let products = lines.cumprod(along)?;
            let products = if along == 1 { products } else { products.t()? };
            products.mul(&weights)?.sum()?.backward()?;
            let found = x.grad().expect("a gradient").to_vec::<f32>()?;
            let expected: Vec<f32> = rows.iter().flat_map(|(_, grad)| *grad).collect();
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 2e-6 * expected.abs(),
                    "{device}: {found}, not {expected}"
                );
            }
        }
    }
    Ok(())
}

/// Values, places and the gradient of the values' sum weighted 1, 2, 3, …, by the definition.
fn largest_by_definition(x: &[f32], size: [usize; 2], o: &PoolOptions) -> (Vec<f32>, Vec<i64>, Vec<f32>) {
    let (k, s, p, d) = (o.kernel_size[0], o.stride[0], o.padding[0] as isize, o.dilation[0]);
    let count = |n: usize| (n + 2 * o.padding[0] - (k - 1) * d - 1) / s + 1;
    let (mut values, mut places, mut grad) = (Vec::new(), Vec::new(), vec![0.0; x.len()]);
    for window in 0..count(size[0]) * count(size[1]) {
        let start = [window / count(size[1]), window % count(size[1])].map(|w| (w * s) as isize - p);
        let inside = |o: usize, dim: usize| {
            let at = start[dim] + (o * d) as isize;
            (at >= 0 && at < size[dim] as isize).then_some(at as usize)
        };
        let elements = (0..k * k).filter_map(|i| Some(inside(i / k, 0)? * size[1] + inside(i % k, 1)?));
        let (mut best, mut place) = (f32::NEG_INFINITY, None);
        for at in elements {
            if x[at] > best || x[at].is_nan() || place.is_none() {
                (best, place) = (x[at], Some(at));
            }
        }
        let place = place.expect("a window has an element");
        values.push(best);
        places.push(place as i64);
        grad[place] += values.len() as f32;
    }
    (values, places, grad)
}

#[test]
fn maxima_of_windows_of_any_size_are_those_of_the_definition() -> Result<()> {
    let size = [11, 10];
    let numbers: Vec<f32> = (0..110).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let mut equal = numbers.clone();
    equal.iter_mut().for_each(|x| *x = (*x / 20.0).trunc() + 0.0);
    let mut lowest = numbers.clone();
    lowest[..70].fill(f32::NEG_INFINITY);
    let mut strange = numbers.clone();
    (strange[23], strange[64]) = (f32::NAN, f32::INFINITY);
    // Windows of up to 64 elements, apart, side by side and over each other; up to 64 over one element.
    let shapes = [
        (2, 2, 0, 1),
        (3, 2, 1, 1),
        (3, 1, 1, 2),
        (2, 3, 0, 2),
        (6, 1, 3, 1),
        (7, 4, 2, 1),
        (8, 1, 0, 1),
        (1, 1, 0, 1),
    ];
    for device in devices() {
        for (k, s, p, d) in shapes {
            let options = PoolOptions {
                stride: vec![s],
                padding: vec![p],
                dilation: vec![d],
                ..PoolOptions::new(&[k])
            };
            for data in [&numbers, &equal, &lowest, &strange] {
                let (values, places, grad) = largest_by_definition(data, size, &options);
                let x = Tensor::from_slice(data, [1, 11, 10], &device)?.requires_grad_(true)?;
                let (found, at) = x.max_pool2d(&options)?;
                let what = format!("windows of {k}, {s} apart, margins {p}, dilation {d} on {device}");
                let bits = |x: &[f32]| {
                    x.iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect::<Vec<_>>()
                };
                assert_eq!(bits(&found.to_vec::<f32>()?), bits(&values), "{what}");
                assert_eq!(at.to_vec::<i64>()?, places, "{what}");
                let weights = Tensor::arange(1, values.len() as i64 + 1, 1, (DType::F32, &device))?;
                found.backward_with(BackwardOptions::new().gradient(&weights.reshape(found.shape())?))?;
                assert_eq!(x.grad().expect("a gradient").to_vec::<f32>()?, grad, "{what}");
            }
        }
    }
    Ok(())
}
