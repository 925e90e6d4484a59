//! The largest error of a function.

use std::path::Path;

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use wgrad::{Device, Element, Tensor};

use crate::functions::Function;

/// The largest error in units in the last place, and where.
#[derive(Clone, Copy)]
pub struct Found {
    pub error: f64,
    pub at: f64,
}

/// The file of true values, and the f32 numbers to try.
pub struct Truths {
    file: Vec<u8>,
    numbers: Vec<f32>,
}

impl Truths {
    /// One of `step` f32 numbers.
    pub fn new(step: usize) -> Result<Truths> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/numerics/truth.safetensors");
        let file = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let numbers = (0..=u32::MAX).step_by(step).map(f32::from_bits);
        // Subnormal ones count as 0 on GPUs.
        let mut numbers: Vec<f32> = numbers.filter(|x| x.is_normal()).collect();
        // Where most functions turn, f32 numbers in all are few.
        let turns =
            (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_769) as f32 / u32::MAX as f32 - 0.5) * 60.0);
        numbers.extend(turns.filter(|x| *x != 0.0));
        numbers.extend([1.0, -1.0, 0.5, -0.5, 2.0, 3.0]);
        Ok(Truths { file, numbers })
    }

    /// In f32 on a device.
    pub fn in_f32(&self, function: &Function, device: &Device) -> Result<Found> {
        let (x, truth) = match function.truth {
            Some(truth) => {
                let [low, high] = function.domain;
                let x: Vec<f32> = self.numbers.iter().copied().filter(|x| (low..=high).contains(x)).collect();
                let y = x.iter().map(|&x| truth(f64::from(x))).collect();
                (x, y)
            }
            None => self.stored(function.name)?,
        };
        let found = (function.call)(&Tensor::from_slice(&x, [x.len()], device)?)?.to_vec::<f32>()?;
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        Ok(worst(&x, &truth, &found, function.absolute, 24, -126))
    }

    /// In f64 on a device.
    pub fn in_f64(&self, function: &Function, device: &Device) -> Result<Found> {
        let (x, truth) = match self.stored(function.name) {
            Ok(stored) => stored,
            // Functions that are exact need no other truth.
            Err(error) => match function.truth {
                Some(truth) => {
                    let x: Vec<f32> = self.numbers.iter().copied().step_by(97).collect();
                    let y = x.iter().map(|&x| truth(f64::from(x))).collect();
                    (x, y)
                }
                None => return Err(error),
            },
        };
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let tensor = Tensor::from_slice(&x, [x.len()], device)?;
        Ok(worst(&x, &truth, &(function.call)(&tensor)?.to_vec::<f64>()?, function.absolute, 53, -1022))
    }

    /// Arguments and values of the file.
    fn stored(&self, name: &str) -> Result<(Vec<f32>, Vec<f64>)> {
        let file = SafeTensors::deserialize(&self.file)?;
        let values = |part: &str| {
            file.tensor(&format!("{name}.{part}")).with_context(|| format!("{name} in the file"))
        };
        Ok((f32::from_bytes(values("x")?.data()), f64::from_bytes(values("y")?.data())))
    }
}

/// The largest error in units of numbers with so many digits and this least exponent.
fn worst(x: &[f64], truth: &[f64], found: &[f64], absolute: bool, digits: i32, least: i32) -> Found {
    let mut worst = Found { error: 0.0, at: 0.0 };
    for ((&x, &truth), &found) in x.iter().zip(truth).zip(found) {
        let size = if absolute { truth.abs().max(1.0) } else { truth.abs() };
        let unit = 2f64.powi(exponent(size).max(least) + 1 - digits);
        // A subnormal number may count as 0.
        let flushed = found == 0.0 && truth.abs() < 2f64.powi(least);
        let error = if found == truth || flushed { 0.0 } else { (found - truth).abs() / unit };
        // NaN is the worst, and stays.
        if error > worst.error || error.is_nan() {
            worst = Found { error, at: x };
        }
    }
    worst
}

/// The exponent of the largest power of two that is not above a positive number.
fn exponent(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}
