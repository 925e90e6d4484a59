//! Inputs, weights and targets: the same bits in every library that is compared.

use wgrad::{Device, Result, Tensor};

/// `n` values in [-scale, scale): a 32-bit mix of `seed` and the position, spread evenly.
pub fn fill(seed: u32, n: usize, scale: f64) -> Vec<f32> {
    let start = seed.wrapping_mul(0x9E37_79B9);
    let mix = |position: u32| {
        let x = start.wrapping_add(position);
        let x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        x ^ (x >> 16)
    };
    (0..n as u32).map(|i| ((f64::from(mix(i)) / 2f64.powi(32) * 2.0 - 1.0) * scale) as f32).collect()
}

/// A tensor of values in [-1, 1).
pub fn tensor(seed: u32, shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(&fill(seed, shape.iter().product(), 1.0), shape, device)
}

/// A leaf of values in [-1, 1).
pub fn leaf(seed: u32, shape: &[usize], device: &Device) -> Result<Tensor> {
    tensor(seed, shape, device)?.requires_grad_(true)
}

/// A linear layer's weight `[out, inputs]` and bias `[out]`, within 1/√inputs.
pub fn linear(seed: u32, out: usize, inputs: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let scale = 1.0 / (inputs as f64).sqrt();
    let weight = Tensor::from_slice(&fill(seed, out * inputs, scale), [out, inputs], device)?;
    let bias = Tensor::from_slice(&fill(seed + 1, out, scale), [out], device)?;
    Ok((weight.requires_grad_(true)?, bias.requires_grad_(true)?))
}

/// A layer norm's gain, near 1, and shift, near 0.
pub fn norm(seed: u32, size: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let gain: Vec<f32> = fill(seed, size, 0.1).into_iter().map(|v| 1.0 + v).collect();
    let gain = Tensor::from_slice(&gain, [size], device)?;
    let shift = Tensor::from_slice(&fill(seed + 1, size, 0.1), [size], device)?;
    Ok((gain.requires_grad_(true)?, shift.requires_grad_(true)?))
}

/// `n` class numbers of 0..10.
pub fn targets(n: usize, device: &Device) -> Result<Tensor> {
    let classes: Vec<i64> = (0..n as i64).map(|i| i * 7 % 10).collect();
    Tensor::from_slice(&classes, [n], device)
}
