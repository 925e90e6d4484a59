//! Fourier transforms against their definition in f64, Parseval's theorem and their inverses, at lengths of every kind, on every device.

use std::f64::consts::PI;

use wgrad::{DType, Device, Error, FftNorm, Result, Tensor, gradcheck, gradgradcheck};

use super::finite_differences::leaf;
use crate::support::devices;

const BACKWARD: FftNorm = FftNorm::Backward;

/// One step, several, primes with a matrix of their own, primes without, products of both kinds.
const LENGTHS: [usize; 14] = [1, 2, 3, 7, 64, 97, 100, 199, 211, 1000, 1009, 1024, 2018, 2187];

/// Numbers in -1..1 that f32 holds.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| f64::from((i * 7919 % 2003) as f32 / 1001.5 - 1.0)).collect()
}

/// One number of the transform of pairs, by its definition.
fn defined(pairs: &[f64], k: usize) -> [f64; 2] {
    let n = pairs.len() / 2;
    let mut sum = [0.0; 2];
    for (j, pair) in pairs.chunks_exact(2).enumerate() {
        let (sin, cos) = (-2.0 * PI * ((j * k) % n) as f64 / n as f64).sin_cos();
        sum[0] += pair[0] * cos - pair[1] * sin;
        sum[1] += pair[0] * sin + pair[1] * cos;
    }
    sum
}

/// Numbers as f32 or f64 on a device.
fn tensor(values: &[f64], shape: &[usize], device: &Device, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F64 => Tensor::from_slice(values, shape, device),
        _ => Tensor::from_slice(&values.iter().map(|&x| x as f32).collect::<Vec<_>>(), shape, device),
    }
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    x.to(Device::cpu())?.to_dtype(DType::F64)?.to_vec::<f64>()
}

fn size(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
}

/// The root of the mean of squared differences, over that of the truth.
fn off(values: &[f64], truth: &[f64]) -> f64 {
    assert_eq!(values.len(), truth.len());
    let differences: Vec<f64> = values.iter().zip(truth).map(|(a, b)| a - b).collect();
    size(&differences) / size(truth)
}

#[test]
fn transforms_are_what_they_are_defined_as() -> Result<()> {
    for n in LENGTHS {
        let x = numbers(2 * n);
        let truth: Vec<f64> = (0..n).flat_map(|k| defined(&x, k)).collect();
        let real: Vec<f64> = x.chunks_exact(2).flat_map(|pair| [pair[0], 0.0]).collect();
        let half: Vec<f64> = (0..n / 2 + 1).flat_map(|k| defined(&real, k)).collect();
        for device in devices() {
            for (dtype, bound) in [(DType::F32, 5e-7), (DType::F64, 2e-14)] {
                if !device.supports(dtype) {
                    continue;
                }
                let what = format!("{n} points as {dtype} on {device}");
                let y = tensor(&x, &[n, 2], &device, dtype)?.fft(None, 0, BACKWARD)?;
                assert!(off(&values(&y)?, &truth) < bound, "{what}");
                assert!(off(&values(&y.ifft(None, 0, BACKWARD)?)?, &x) < 2.0 * bound, "{what}, and back");
                let line: Vec<f64> = x.iter().step_by(2).copied().collect();
                let y = tensor(&line, &[n], &device, dtype)?.rfft(None, 0, BACKWARD)?;
                assert!(off(&values(&y)?, &half) < bound, "real {what}");
                assert!(
                    off(&values(&y.irfft(n, 0, BACKWARD)?)?, &line) < 2.0 * bound,
                    "real {what}, and back"
                );
            }
        }
    }
    Ok(())
}

/// Parseval: a transform that is divided by the root of its length keeps the sum of squares.
#[test]
fn long_transforms() -> Result<()> {
    for n in [65_536, 100_000, 100_003] {
        let x = numbers(2 * n);
        for device in devices() {
            let y = values(&tensor(&x, &[n, 2], &device, DType::F32)?.fft(None, 0, FftNorm::Ortho)?)?;
            assert!((size(&y) / size(&x) - 1.0).abs() < 1e-6, "{n} points on {device}");
            let root = (n as f64).sqrt();
            for k in [0, 1, 2, 1000, n / 3, n / 2, n - 1] {
                let truth = defined(&x, k);
                for part in 0..2 {
                    let difference = (y[2 * k + part] - truth[part] / root).abs();
                    assert!(difference < 1e-5 * size(&x), "{n} points on {device}, the {k}th");
                }
            }
        }
    }
    Ok(())
}

/// Any dim, cut or filled up, and the layouts that views have.
#[test]
fn every_dim_of_every_layout() -> Result<()> {
    for device in devices() {
        let x = tensor(&numbers(3 * 40 * 5 * 2), &[3, 40, 5, 2], &device, DType::F32)?;
        for (dim, n) in [(0, 3), (1, 40), (2, 5), (1, 33), (1, 44)] {
            let out = x.fft(n, dim, BACKWARD)?;
            let turned = x.transpose(dim, 2)?.deep_clone()?.fft(n, 2, BACKWARD)?.transpose(dim, 2)?;
            assert!(off(&values(&out)?, &values(&turned)?) < 3e-7, "dim {dim} to {n} on {device}");
            let line = x.movedim(dim, 2)?.select(0, 0)?.select(0, 1)?;
            let sized = line.pad(&[(0, 0), (0, n as isize - line.shape()[0] as isize)], 0.0)?;
            let sized = values(&sized)?;
            let truth: Vec<f64> = (0..n).flat_map(|k| defined(&sized, k)).collect();
            let own = out.movedim(dim, 2)?.select(0, 0)?.select(0, 1)?;
            assert!(off(&values(&own)?, &truth) < 5e-7, "dim {dim} to {n} on {device}");
        }
        let flipped = x.flip(1)?.narrow(0, 1, 2)?;
        let dense = flipped.deep_clone()?;
        dense.eval()?;
        let (a, b) = (flipped.fft(None, 1, BACKWARD)?, dense.fft(None, 1, BACKWARD)?);
        assert!(off(&values(&a)?, &values(&b)?) < 3e-7, "{device}");
    }
    Ok(())
}

#[test]
fn derivatives_of_long_and_odd_lengths() {
    for n in [2, 5, 6, 66, 211] {
        let pairs = [leaf(&[n, 2], -1.0, 1.0, 1)];
        let complex = |x: &[Tensor]| Ok(vec![x[0].fft(None, 0, FftNorm::Ortho)?]);
        gradcheck(complex, &pairs).unwrap();
        let real = |x: &[Tensor]| Ok(vec![x[0].rfft(None, 0, FftNorm::Ortho)?]);
        gradcheck(real, &[leaf(&[n], -1.0, 1.0, 2)]).unwrap();
        let back = |x: &[Tensor]| Ok(vec![x[0].irfft(n, 0, FftNorm::Ortho)?]);
        gradcheck(back, &[leaf(&[n / 2 + 1, 2], -1.0, 1.0, 3)]).unwrap();
    }
    // A transform is linear: what follows it has second derivatives.
    let autocorrelation = |x: &[Tensor]| {
        let y = x[0].rfft(None, 0, BACKWARD)?;
        let power = y.mul(&y)?.sum_dim(-1, false)?;
        Ok(vec![Tensor::stack(&[&power, &power.mul(0.0)?], -1)?.irfft(6, 0, BACKWARD)?])
    };
    gradgradcheck(autocorrelation, &[leaf(&[6], -1.0, 1.0, 4)]).unwrap();
}

#[test]
fn calls_that_must_fail() -> Result<()> {
    let cpu = Device::cpu();
    let pairs = Tensor::zeros([4, 2], (DType::F32, &cpu))?;
    fails! {
        Tensor::zeros([4, 3], (DType::F32, &cpu))?.fft(None, 0, BACKWARD) => Shape;
        Tensor::zeros([4, 2], (DType::I64, &cpu))?.fft(None, 0, BACKWARD) => DType;
        pairs.fft(0, 0, BACKWARD) => Argument;
        pairs.fft(None, 1, BACKWARD) => Dim;
        pairs.irfft(0, 0, BACKWARD) => Argument;
        Tensor::zeros([0], (DType::F32, &cpu))?.rfft(None, 0, BACKWARD) => Argument;
    }
    // Lengths that no array, and no table, can have.
    fails! {
        pairs.fft(1 << 63, 0, BACKWARD) => Argument;
        pairs.rfft(1 << 63, 0, BACKWARD) => Argument;
        pairs.irfft(usize::MAX, 0, BACKWARD) => Argument;
        pairs.fft(1 << 60, 0, BACKWARD) => SizeOverflow;
        pairs.fft((1 << 57) - 1, 0, BACKWARD) => OutOfMemory;
        pairs.fft(1 << 42, 0, BACKWARD) => OutOfMemory;
        pairs.rfft(1 << 42, 0, BACKWARD) => OutOfMemory;
        pairs.irfft(1 << 42, 0, BACKWARD) => SizeOverflow;
        pairs.irfft((1 << 42) + 1, 0, BACKWARD) => SizeOverflow;
    }
    // Points that are not there are zeros, like those behind the last; but how many there are must be said.
    let empty = Tensor::zeros([0, 2], (DType::F32, &cpu))?;
    assert_eq!(empty.irfft(4, 0, BACKWARD)?.to_vec::<f32>()?, [0.0; 4]);
    assert!(matches!(empty.irfft(None, 0, BACKWARD), Err(Error::Argument { .. })));
    assert!(matches!(empty.fft(None, 0, BACKWARD), Err(Error::Argument { .. })));
    let none = Tensor::zeros([0, 4, 2], (DType::F32, &cpu))?;
    assert_eq!(none.fft(8, 1, BACKWARD)?.shape(), [0, 8, 2]);
    assert_eq!(none.irfft(None, 1, BACKWARD)?.to_vec::<f32>()?, []);
    // No lines need no tables, however long.
    assert_eq!(none.irfft(1 << 48, 1, BACKWARD)?.shape(), [0, 1 << 48]);
    assert_eq!(none.rfft(1 << 48, 1, BACKWARD)?.shape(), [0, (1 << 47) + 1, 2, 2]);
    assert!(matches!(
        pairs.fft(usize::MAX / 2, 0, BACKWARD),
        Err(Error::SizeOverflow { .. } | Error::Argument { .. } | Error::Shape { .. })
    ));
    Ok(())
}
