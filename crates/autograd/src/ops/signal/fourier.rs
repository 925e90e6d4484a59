//! Discrete Fourier transforms. A complex number is a pair, of its real and its imaginary part.
//!
//! Each transform is linear, and its derivative is the transposed one: the same waves, turning the other way.

use wgrad_array::layout::normalize_dim;
use wgrad_array::{Array, Error, Expr, Result};

use crate::Tensor;
use crate::ops::reduce::require_float;
use crate::tape::{Derivative, record};

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

/// # Fourier transforms
#[wgrad_macros::call_sites]
impl Tensor {
    /// The discrete Fourier transform along a dim of complex numbers, which are pairs: the last dim is 2 and not counted. The points are
    /// cut or filled with zeros to `n`. The work grows with `n log n`; a product of small primes is the fastest.
    ///
    /// ```
    /// use wgrad_autograd::{Device, FftNorm, Tensor};
    /// let x = Tensor::new([[1f32, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]], &Device::cpu())?;
    /// let y = x.fft(None, -1, FftNorm::Backward)?;
    /// assert_eq!(y.to_vec::<f32>()?, [10.0, 0.0, -2.0, 2.0, -2.0, 0.0, -2.0, -2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the last dim is not 2, there is no such dim, or `n` is 0.
    pub fn fft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        let (x, at, n) = self.complex_line("fft", n.into(), dim)?;
        x.widened()?.turned(at, false)?.scaled(norm.forward(n), self)
    }

    /// The inverse of [`Tensor::fft`].
    ///
    /// # Errors
    /// As [`Tensor::fft`].
    pub fn ifft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        let (x, at, n) = self.complex_line("ifft", n.into(), dim)?;
        x.widened()?.turned(at, true)?.scaled(norm.backward(n), self)
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
        let at = normalize_dim(OP, dim, self.rank())?;
        let n = n.into().unwrap_or(self.shape()[at]);
        self.resized(OP, at, n)?.widened()?.half_spectrum(at)?.scaled(norm.forward(n), self)
    }

    /// The inverse of [`Tensor::rfft`]: `n` real numbers, by default twice the pairs less 2. Only the first `n / 2 + 1` pairs are used.
    ///
    /// # Errors
    /// If the last dim is not 2, there is no such dim, or `n` is 0.
    pub fn irfft(&self, n: impl Into<Option<usize>>, dim: isize, norm: FftNorm) -> Result<Tensor> {
        const OP: &str = "irfft";
        let at = self.complex_dim(OP, dim)?;
        let n = n.into().unwrap_or(2 * self.shape()[at].saturating_sub(1));
        let x = self.resized(OP, at, if n == 0 { 0 } else { n / 2 + 1 })?;
        x.widened()?.of_half_spectrum(at, n)?.scaled(norm.backward(n), self)
    }

    /// Times a number, in the dtype of another tensor.
    fn scaled(&self, factor: f64, like: &Tensor) -> Result<Tensor> {
        let x = if factor == 1.0 { self.clone() } else { self.mul(factor)? };
        x.to_dtype(like.dtype())
    }

    /// The transform of pairs, not scaled. Its matrix is symmetric but for the sign of the imaginary part.
    fn turned(&self, at: usize, inverse: bool) -> Result<Tensor> {
        let x = self.operand()?;
        let out = x.array.fourier(at, inverse)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with("FftC2CBackward0", move |c| c.gradient(|| c.g().turned(at, !inverse)))
        }))
    }

    /// The first half of the transform of real numbers, not scaled.
    fn half_spectrum(&self, at: usize) -> Result<Tensor> {
        let (x, n) = (self.operand()?, self.shape()[at]);
        let out = x.array.fourier_of_real(at)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with("FftR2CBackward0", move |c| {
                // The way back counts each pair but the first and the middle one twice.
                c.gradient(|| c.g().each_with_mirror(at, n, 0.5).of_half_spectrum(at, n))
            })
        }))
    }

    /// Real numbers of the first half of their transform, not scaled.
    fn of_half_spectrum(&self, at: usize, n: usize) -> Result<Tensor> {
        let x = self.operand()?;
        let out = x.array.fourier_to_real(at, n)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with("FftC2RBackward0", move |c| {
                c.gradient(|| c.g().half_spectrum(at).each_with_mirror(at, n, 2.0))
            })
        }))
    }

    /// Pairs that stand for their mirror image too times a factor: all of a half spectrum but the first and the middle one.
    fn each_with_mirror(&self, at: usize, n: usize, factor: f64) -> Result<Tensor> {
        let place = Expr::from(Array::coordinate(&self.shape()[at..=at], 0, self.device()));
        let single = place.eq(0i64).or((place * 2i64).eq(n as i64)).done()?;
        let mut shape = vec![1; self.rank()];
        shape[at] = self.shape()[at];
        let one = Tensor::ones((), (self.dtype(), self.device()))?;
        let factor = Tensor::from_array(single.reshape(&shape)?).where_cond(one, factor)?;
        self.mul(&factor)
    }

    /// Complex numbers as pairs, cut or filled with zeros to `n` along a dim; the dim counted from the front; n.
    fn complex_line(&self, op: &'static str, n: Option<usize>, dim: isize) -> Result<(Tensor, usize, usize)> {
        let at = self.complex_dim(op, dim)?;
        let n = n.unwrap_or(self.shape()[at]);
        Ok((self.resized(op, at, n)?, at, n))
    }

    /// A dim of pairs, counted from the front.
    fn complex_dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        require_float(op, self)?;
        if self.rank() < 2 || self.shape().last() != Some(&2) {
            let reason =
                "does not end with 2: complex numbers are pairs of a real and an imaginary part".to_owned();
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        }
        normalize_dim(op, dim, self.rank() - 1)
    }

    fn resized(&self, op: &'static str, dim: usize, n: usize) -> Result<Tensor> {
        if n == 0 {
            return Err(Error::Argument { op, reason: "there are no points to transform: n is 0".into() });
        }
        let size = self.shape()[dim];
        if n == size {
            return Ok(self.clone());
        }
        let points = isize::try_from(n).map_err(|_| Error::Argument {
            op,
            reason: format!("{n} points are more than an array can have"),
        })?;
        let mut margins = vec![(0, 0); self.rank() - dim];
        margins[self.rank() - dim - 1] = (0, points - size as isize);
        self.pad(&margins, 0.0)
    }
}
