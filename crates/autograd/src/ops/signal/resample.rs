//! Images and signals at other sizes.

use wgrad_array::layout::checked_elements;
use wgrad_array::{DType, Error, Expr, Result};

use crate::Tensor;
use crate::ops::index::positions::{column, counted};
use crate::ops::reduce::require_float;

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

/// # Resampling
#[wgrad_macros::call_sites]
impl Tensor {
    /// The tensor with other sizes in the dims behind batch and channels. With `align_corners` the corner elements keep their
    /// places, else the corners of the whole. `F.interpolate`.
    ///
    /// # Errors
    /// If there is not one size or factor for each dim (or one for all), the mode does not fit the number of dims, or `align_corners` is
    /// set for a mode that does not interpolate; if the result is larger than can be addressed, or a dim than i32 counts.
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
        let shape: Vec<usize> =
            self.shape()[..2].iter().copied().chain(plan.iter().map(|&(_, output, _)| output)).collect();
        checked_elements(OP, &shape)?;
        if mode == Interpolation::Area {
            let sizes: Vec<Option<usize>> = plan.iter().map(|&(_, output, _)| Some(output)).collect();
            return self.adaptive_avg_pool(OP, &sizes);
        }
        let mut out = if smooth { self.widened()? } else { self.clone() };
        for (i, &(input, output, step)) in plan.iter().enumerate() {
            if !smooth {
                // In f32, as every engine that must agree on the element.
                let place = counted(OP, output, self.device())?.cast(DType::F32);
                let place = if mode == Interpolation::Nearest { place } else { place + 0.5 };
                let nearest = (place * f64::from(step as f32)).floor().cast(DType::I64).min(input as i64 - 1);
                out = out.index_select(2 + i as isize, &Tensor::from_array(nearest.done()?))?;
                continue;
            }
            checked_elements(OP, &[output, input])?;
            let float = if self.device().supports(DType::F64) { DType::F64 } else { DType::F32 };
            let row = column(OP, output, self.device())?.cast(float);
            let place = match align_corners {
                false => (row + 0.5) * step - 0.5,
                true => row * ((input - 1) as f64) / (output.max(2) - 1) as f64,
            };
            let (first, weights) = if mode == Interpolation::Linear {
                let place = place.max(0.0);
                let part = &place - place.floor();
                (place.floor(), vec![1.0 - &part, part])
            } else {
                let part = &place - place.floor();
                (place.floor() - 1.0, cubic(&part).to_vec())
            };
            // Row o holds what each element counts in output o; those beyond an end are the last one there.
            let elements = counted(OP, input, self.device())?.cast(float);
            let spread = weights.into_iter().enumerate().map(|(j, weight)| {
                let at = (&first + j as f64).max(0.0).min((input - 1) as f64);
                at.eq(&elements).select(weight, 0.0)
            });
            let Some(weights) = spread.reduce(|sum, one| sum + one) else { continue };
            let weights = weights.cast(out.dtype()).done()?;
            out = out.along(2 + i, &Tensor::from_array(weights))?;
        }
        out.to_dtype(self.dtype())
    }
}

/// The weights of four neighbours for a place between the middle two: cubic convolution with the coefficient -0.75.
fn cubic(part: &Expr) -> [Expr; 4] {
    const A: f64 = -0.75;
    let near = |x: &Expr| x.polynomial(&[A + 2.0, -(A + 3.0), 0.0, 1.0]);
    let far = |x: &Expr| x.polynomial(&[A, -5.0 * A, 8.0 * A, -4.0 * A]);
    let rest = 1.0 - part;
    [far(&(part + 1.0)), near(part), near(&rest), far(&(&rest + 1.0))]
}
