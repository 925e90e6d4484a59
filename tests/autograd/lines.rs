//! Running products and binary search over long lines, against their definitions, on every device; second derivatives where a function bends.

use wgrad::{DType, Device, GradOptions, Result, Scalar, Tensor, grad};

use super::finite_differences::{check, leaf};
use crate::support::devices;

/// The gradient of running products by its definition: the sum over later places of the gradient times all other factors.
fn product_gradient(x: &[f64], grad: &[f64]) -> Vec<f64> {
    let own = |i: usize| {
        let mut others: f64 = x[..i].iter().product();
        (i..x.len()).fold(0.0, |sum, j| {
            others *= if j > i { x[j] } else { 1.0 };
            sum + grad[j] * others
        })
    };
    (0..x.len()).map(own).collect()
}

#[test]
fn gradients_of_running_products() -> Result<()> {
    for n in [1, 2, 7, 100, 1000] {
        for zeros in [&[][..], &[0], &[n / 2], &[n / 3, n / 2], &[0, n / 4, n - 1]] {
            let mut x: Vec<f32> = (0..n).map(|i| 0.8 + (i * 37 % 100) as f32 / 250.0).collect();
            zeros.iter().for_each(|&at| x[at] = 0.0);
            let grad: Vec<f32> = (0..n).map(|i| (i * 53 % 41) as f32 / 20.0 - 1.0).collect();
            let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let truth = product_gradient(&wide(&x), &wide(&grad));
            let size = truth.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
            for device in devices() {
                let x = Tensor::from_slice(&x, n, &device)?.requires_grad_(true)?;
                x.cumprod(0)?.mul(Tensor::from_slice(&grad, n, &device)?)?.sum()?.backward()?;
                let own = x.grad().unwrap().to_vec::<f32>()?;
                for (i, (own, truth)) in own.iter().zip(&truth).enumerate() {
                    let off = (f64::from(*own) - truth).abs();
                    assert!(
                        off < 2e-5 * size,
                        "{own} for {truth} at {i} of {n}, zeros at {zeros:?}, on {device}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_of_running_products_of_very_different_numbers() -> Result<()> {
    // Products that are numbers though parts of them are not, and which output is differentiated: -1 for the sum of all.
    let cases: [(&[f32], isize, usize, f64); 2] = [
        (&[1e-30, 1.0, 1.0, 1e20, 1e20, 1.0, 1.0, 1.0], -1, 1, 4e10),
        (&[1e30, 1.0, 1e-25, 1e-25], 3, 1, 1e-20),
    ];
    for (x, output, place, truth) in cases {
        for device in devices() {
            let x = Tensor::from_slice(x, x.len(), &device)?.requires_grad_(true)?;
            let out = x.cumprod(0)?;
            if output < 0 { out.sum()? } else { out.select(0, output)? }.backward()?;
            let own = f64::from(x.grad().unwrap().to_vec::<f32>()?[place]);
            assert!((own / truth - 1.0).abs() < 1e-5, "{own} for {truth} on {device}");
        }
    }
    Ok(())
}

#[test]
fn derivatives_of_running_products_at_zeros() -> Result<()> {
    for zeros in [&[][..], &[0], &[2], &[1, 3], &[0, 2, 4]] {
        let mask = Tensor::from_slice(
            &(0..5).map(|i| zeros.contains(&i)).collect::<Vec<bool>>(),
            5,
            &Device::cpu(),
        )?;
        let x = leaf(&[3, 5], 0.5, 2.0, 1).detach().masked_fill(&mask, 0.0)?.requires_grad_(true)?;
        check("cumprod", &|x| Ok(vec![x[0].cumprod(1)?, x[0].cumprod(0)?]), &[x]);
    }
    Ok(())
}

#[test]
fn places_in_sequences_of_every_length() -> Result<()> {
    for n in [0usize, 1, 2, 3, 4, 7, 8, 9, 100, 1023, 1024, 1025] {
        let sequence: Vec<f32> = (0..n).map(|i| (i / 3) as f32).collect();
        let values: Vec<f32> = (0..257)
            .map(|i| i as f32 * (n as f32 + 6.0) / 768.0 - 1.0)
            .map(|x| (x * 2.0).round() / 2.0)
            .collect();
        for device in devices() {
            let (s, v) =
                (Tensor::from_slice(&sequence, n, &device)?, Tensor::from_slice(&values, 257, &device)?);
            for right in [false, true] {
                let before = |x: &f32, v: f32| if right { *x <= v } else { *x < v };
                let truth: Vec<i64> =
                    values.iter().map(|&v| sequence.partition_point(|x| before(x, v)) as i64).collect();
                assert_eq!(
                    s.searchsorted(&v, right)?.to_vec::<i64>()?,
                    truth,
                    "{n} on {device}, right: {right}"
                );
            }
        }
    }
    Ok(())
}

/// PyTorch's answers: not a number belongs behind all others, and a sequence's own are passed over.
#[test]
fn places_of_what_is_not_a_number() -> Result<()> {
    let nan = f32::NAN;
    for device in devices() {
        let s = Tensor::new([1.0, 2.0, 2.0, 3.0, nan, nan], &device)?;
        let v = Tensor::new([0.0, 1.0, 2.0, 3.0, 4.0, nan], &device)?;
        assert_eq!(s.searchsorted(&v, false)?.to_vec::<i64>()?, [0, 0, 1, 3, 6, 6]);
        assert_eq!(s.searchsorted(&v, true)?.to_vec::<i64>()?, [0, 1, 3, 6, 6, 6]);
    }
    Ok(())
}

/// A number that the sequence's dtype cannot hold is not cut to one that it can: PyTorch's answers for fractions, and those of whole
/// numbers for integers, which PyTorch wraps.
#[test]
fn places_of_numbers_of_another_dtype() -> Result<()> {
    for device in devices() {
        for dtype in [DType::U8, DType::I32, DType::I64, DType::F32] {
            let s = Tensor::new([1i64, 2, 3], &device)?.to_dtype(dtype)?;
            let numbers: [(Scalar, i64, i64); 9] = [
                (Scalar::Float(2.5), 2, 2),
                (Scalar::Float(2.0), 1, 2),
                (Scalar::Float(0.5), 0, 0),
                (Scalar::Float(-0.5), 0, 0),
                (Scalar::Float(f64::NAN), 3, 3),
                (Scalar::Int(2), 1, 2),
                (Scalar::Int(300), 3, 3),
                (Scalar::Int(-1), 0, 0),
                (Scalar::Int((1 << 40) + 2), 3, 3),
            ];
            for (number, left, right) in numbers {
                let found = [
                    s.searchsorted(number, false)?.item::<i64>()?,
                    s.searchsorted(number, true)?.item::<i64>()?,
                ];
                assert_eq!(found, [left, right], "{number:?} in {dtype} on {device}");
            }
        }
    }
    Ok(())
}

/// At the threshold itself the slope is that of the curve, and the curvature that of the line: PyTorch's choice.
#[test]
fn softplus_at_its_threshold() -> Result<()> {
    let x = Tensor::new([1.0], DType::F64)?.requires_grad_(true)?;
    let options = GradOptions::new().create_graph(true);
    let slope = grad(&[&x.softplus(1.0, 1.0)?], &[&x], options)?.swap_remove(0).unwrap();
    assert!((slope.item::<f64>()? - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
    slope.backward()?;
    assert_eq!(x.grad().unwrap().to_vec::<f64>()?, [0.0]);
    Ok(())
}
