//! Images and signals at other sizes.

use wgrad_array::{Error, Result};

use super::reduce::require_float;
use crate::Tensor;

/// How [`Tensor::interpolate`] finds values between the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The element at the rounded-down place.
    Nearest,
    /// The element whose centre is nearest.
    NearestExact,
    /// On straight lines between neighbours, in each of one to three dims: "linear", "bilinear", "trilinear".
    Linear,
    /// On cubic curves through four neighbours, in each of two dims.
    Bicubic,
    /// Means of equal parts.
    Area,
}

/// The size of the result, and what is known of its relation to the input's.
#[derive(Clone, Debug)]
pub enum Scale {
    /// These sizes.
    Size(Vec<usize>),
    /// Sizes times these factors, rounded down. With `true`, places are computed from the sizes instead of the factors.
    Factor(Vec<f64>, bool),
}

#[wgrad_macros::call_sites]
impl Tensor {
    /// The tensor with other sizes in the dims behind batch and channels. With `align_corners` the corner elements keep their
    /// places, else the corners of the whole. `F.interpolate`.
    ///
    /// # Errors
    /// If there is not one size or factor for each dim (or one for all), the mode does not fit the number of dims, or `align_corners` is
    /// set for a mode that does not interpolate.
    pub fn interpolate(&self, scale: &Scale, mode: Interpolation, align_corners: bool) -> Result<Tensor> {
        const OP: &str = "interpolate";
        require_float(OP, self)?;
        let fail = |reason: String| Error::Argument { op: OP, reason };
        let dims =
            self.rank().checked_sub(2).filter(|dims| (1..=3).contains(dims)).ok_or_else(|| Error::Shape {
                op: OP,
                shape: self.shape().to_vec(),
                reason: "does not have batch, channels and one to three dims".into(),
            })?;
        let smooth = matches!(mode, Interpolation::Linear | Interpolation::Bicubic);
        if align_corners && !smooth {
            return Err(fail("align_corners is for modes that interpolate: linear and bicubic".into()));
        }
        if mode == Interpolation::Bicubic && dims != 2 {
            return Err(fail(format!("bicubic is for two dims, there are {dims}")));
        }
        let given = match scale {
            Scale::Size(sizes) => sizes.len(),
            Scale::Factor(factors, _) => factors.len(),
        };
        if given != dims && given != 1 {
            return Err(fail(format!("{given} sizes or factors were given for {dims} dims")));
        }
        let mut plan = Vec::new();
        for i in 0..dims {
            let input = self.shape()[2 + i];
            let at = if given == 1 { 0 } else { i };
            let (output, step) = match scale {
                Scale::Size(sizes) => (sizes[at], None),
                Scale::Factor(factors, by_size) => {
                    let output = (input as f64 * factors[at]).floor().max(0.0) as usize;
                    (output, (!by_size).then_some(1.0 / factors[at]))
                }
            };
            if input == 0 || output == 0 {
                return Err(fail(format!(
                    "sizes must be at least 1; dim {} would go from {input} to {output}",
                    2 + i
                )));
            }
            plan.push((input, output, step.unwrap_or(input as f64 / output as f64)));
        }
        if mode == Interpolation::Area {
            let sizes: Vec<Option<usize>> = plan.iter().map(|&(_, output, _)| Some(output)).collect();
            return self.adaptive_avg_pool(OP, &sizes);
        }
        let mut out = if smooth { self.widened()? } else { self.clone() };
        for (i, &(input, output, step)) in plan.iter().enumerate() {
            let corner =
                |i: usize| if output > 1 { i as f64 * (input - 1) as f64 / (output - 1) as f64 } else { 0.0 };
            let centre = |i: usize| step * (i as f64 + 0.5) - 0.5;
            let place = |i: usize| if align_corners { corner(i) } else { centre(i) };
            if !smooth {
                let nearest = |i: usize| match mode {
                    // In f32, as every engine that must agree on the element.
                    Interpolation::Nearest => (i as f32 * step as f32).floor() as i64,
                    _ => ((i as f32 + 0.5) * step as f32).floor() as i64,
                };
                let places: Vec<i64> = (0..output).map(|i| nearest(i).min(input as i64 - 1)).collect();
                out =
                    out.index_select(2 + i as isize, &Tensor::from_slice(&places, output, self.device())?)?;
                continue;
            }
            let mut weights = vec![0f32; output * input];
            for (o, row) in weights.chunks_mut(input).enumerate() {
                let mut add =
                    |at: isize, weight: f64| row[at.clamp(0, input as isize - 1) as usize] += weight as f32;
                if mode == Interpolation::Linear {
                    let place = place(o).max(0.0);
                    let (whole, part) = (place.floor(), place - place.floor());
                    add(whole as isize, 1.0 - part);
                    add(whole as isize + 1, part);
                } else {
                    let place = place(o);
                    let (whole, part) = (place.floor(), place - place.floor());
                    for (j, weight) in cubic(part).into_iter().enumerate() {
                        add(whole as isize - 1 + j as isize, weight);
                    }
                }
            }
            out = out.along(2 + i, &Tensor::from_slice(&weights, [output, input], self.device())?)?;
        }
        out.to_dtype(self.dtype())
    }
}

/// The weights of four neighbours for a place between the middle two: cubic convolution with the coefficient -0.75.
fn cubic(part: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)]
}
