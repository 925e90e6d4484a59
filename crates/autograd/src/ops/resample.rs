//! Images and signals at other sizes, and at any places.

use wgrad_array::{DType, Error, Result};

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

    /// The discrete Fourier transform of complex numbers along a dim; see [`Tensor::fft`]. `sign` is that of the exponent.
    fn transform(
        &self,
        op: &'static str,
        n: Option<usize>,
        dim: isize,
        sign: f64,
        scale: f64,
    ) -> Result<Tensor> {
        let (x, at, n) = self.complex_line(op, n, dim)?;
        let (real, imaginary) = (x.select(-1, 0)?, x.select(-1, 1)?);
        let (cos, sin) = (waves(n, n, sign, self, f64::cos)?, waves(n, n, sign, self, f64::sin)?);
        let re = real.along(at, &cos)?.sub(imaginary.along(at, &sin)?)?;
        let im = real.along(at, &sin)?.add(imaginary.along(at, &cos)?)?;
        Tensor::stack(&[&re, &im], -1)?.mul(scale)
    }

    /// Complex numbers as pairs, cut or filled with zeros to `n` along a dim; the dim counted from the front; n.
    fn complex_line(&self, op: &'static str, n: Option<usize>, dim: isize) -> Result<(Tensor, usize, usize)> {
        require_float(op, self)?;
        if self.rank() < 2 || self.shape().last() != Some(&2) {
            let reason =
                "does not end with 2: complex numbers are pairs of a real and an imaginary part".to_owned();
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        }
        let at = wgrad_array::layout::normalize_dim(op, dim, self.rank() - 1)?;
        let n = n.unwrap_or(self.shape()[at]);
        Ok((self.resized(op, at, n)?, at, n))
    }

    fn resized(&self, op: &'static str, dim: usize, n: usize) -> Result<Tensor> {
        if n == 0 {
            return Err(Error::Argument { op, reason: "there are no points to transform: n is 0".into() });
        }
        let size = self.shape()[dim];
        if n == size {
            return Ok(self.clone());
        }
        let mut margins = vec![(0, 0); self.rank() - dim];
        margins[self.rank() - dim - 1] = (0, n as isize - size as isize);
        self.pad(&margins, 0.0)
    }

    /// The discrete Fourier transform along a dim of complex numbers, which are pairs: the last dim is 2 and not counted. The points are
    /// cut or filled with zeros to `n`.
    ///
    /// It is a product with a matrix of waves, whose work grows with the square of `n`.
    ///
    /// # Errors
    /// If the last dim is not 2, there is no such dim, or `n` is 0.
    pub fn fft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        let n = n.into();
        let points = self.complex_line("fft", n, dim)?.2;
        self.transform("fft", n, dim, -1.0, norm.forward(points))
    }

    /// The inverse of [`Tensor::fft`].
    ///
    /// # Errors
    /// As [`Tensor::fft`].
    pub fn ifft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        let n = n.into();
        let points = self.complex_line("ifft", n, dim)?.2;
        self.transform("ifft", n, dim, 1.0, norm.backward(points))
    }

    /// The first half, `n / 2 + 1` pairs, of [`Tensor::fft`] of real numbers; the rest mirrors it.
    ///
    /// # Errors
    /// If there is no such dim, or `n` is 0.
    pub fn rfft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        const OP: &str = "rfft";
        require_float(OP, self)?;
        if self.rank() == 0 {
            return Err(Error::Dim { op: OP, dim, rank: 0 });
        }
        let at = wgrad_array::layout::normalize_dim(OP, dim, self.rank())?;
        let n = n.into().unwrap_or(self.shape()[at]);
        let (x, half) = (self.resized(OP, at, n)?, n / 2 + 1);
        let re = x.along(at, &waves(half, n, -1.0, self, f64::cos)?)?;
        let im = x.along(at, &waves(half, n, -1.0, self, f64::sin)?)?;
        Tensor::stack(&[&re, &im], -1)?.mul(norm.forward(n))
    }

    /// The inverse of [`Tensor::rfft`]: `n` real numbers, by default twice the pairs less 2. Only the first `n / 2 + 1` pairs are used.
    ///
    /// # Errors
    /// If the last dim is not 2, there is no such dim, or `n` is 0.
    pub fn irfft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        const OP: &str = "irfft";
        let (_, at, pairs) = self.complex_line(OP, None, dim)?;
        let n = n.into().unwrap_or(2 * pairs.saturating_sub(1));
        let half = n / 2 + 1;
        let x = self.resized(OP, at, if n == 0 { 0 } else { half })?;
        let (real, imaginary) = (x.select(-1, 0)?, x.select(-1, 1)?);
        // Every frequency but 0 and the middle one stands for its mirror image too.
        let weight = |k: usize| if k == 0 || 2 * k == n { 1.0 } else { 2.0 };
        let wave = |f: fn(f64) -> f64, sign: f64| {
            let values: Vec<f64> = (0..n * half)
                .map(|i| sign * weight(i % half) * f(angle((i / half) * (i % half), n)))
                .collect();
            table(&values, [n, half], self)
        };
        let out = real.along(at, &wave(f64::cos, 1.0)?)?.add(imaginary.along(at, &wave(f64::sin, -1.0)?)?)?;
        out.mul(norm.backward(n))
    }
}

/// Which direction of a Fourier transform is divided by the number of points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FftNorm {
    /// The inverse one.
    #[default]
    Backward,
    /// Both, by its square root.
    Ortho,
    /// The forward one.
    Forward,
}

impl FftNorm {
    fn forward(self, n: usize) -> f64 {
        match self {
            FftNorm::Backward => 1.0,
            FftNorm::Ortho => 1.0 / (n as f64).sqrt(),
            FftNorm::Forward => 1.0 / n as f64,
        }
    }

    fn backward(self, n: usize) -> f64 {
        match self {
            FftNorm::Backward => 1.0 / n as f64,
            FftNorm::Ortho => 1.0 / (n as f64).sqrt(),
            FftNorm::Forward => 1.0,
        }
    }
}

/// `2π k / n`, reduced first so that it stays exact.
fn angle(k: usize, n: usize) -> f64 {
    2.0 * std::f64::consts::PI * (k % n) as f64 / n as f64
}

/// `f(sign * 2π row * column / columns)`.
fn waves(rows: usize, columns: usize, sign: f64, like: &Tensor, f: fn(f64) -> f64) -> Result<Tensor> {
    wgrad_array::layout::checked_elements("fft", &[rows, columns])?;
    let values: Vec<f64> =
        (0..rows * columns).map(|i| f(sign * angle((i / columns) * (i % columns), columns))).collect();
    table(&values, [rows, columns], like)
}

/// Numbers in a tensor's dtype, on its device.
fn table(values: &[f64], shape: [usize; 2], like: &Tensor) -> Result<Tensor> {
    if like.dtype() == DType::F64 {
        return Tensor::from_slice(values, shape, like.device());
    }
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_slice(&values, shape, like.device())?.to_dtype(like.dtype())
}

/// The weights of four neighbours for a place between the middle two: cubic convolution with the coefficient -0.75.
fn cubic(part: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)]
}
