//! What tells a model where in a sequence something stands: sines that are added, and rotations.

use wgrad_autograd::{DType, Error, Result, Tensor};

use crate::{Hooks, Layer, Module};

/// Angles `[length, width / 2]` of places from `offset` on: `place / base^(2 i / width)`, in f32 or wider.
fn angles(x: &Tensor, width: usize, base: f64, offset: usize) -> Result<Tensor> {
    let dtype = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let length = x.size(-2)? as i64;
    // The offset is a number of the plan, which is the same for all places.
    let place = Tensor::arange(0, length, 1, (dtype, x.device()))?.add(offset as f64)?.unsqueeze(-1)?;
    let exponent = Tensor::arange(0, width as i64, 2, (dtype, x.device()))?.div(width as f64)?;
    place.mul(exponent.mul(-base.ln())?.exp()?)
}

fn check(op: &'static str, x: &Tensor, width: usize) -> Result<()> {
    if x.rank() >= 2 && x.shape().last().is_some_and(|&last| last >= width) {
        return Ok(());
    }
    let reason = format!("is not [.., length, width] with a width of at least {width}");
    Err(Error::Shape { op, shape: x.shape().to_vec(), reason })
}

/// Sines and cosines of the place, of ever longer waves, added to each vector of a sequence
/// `[.., length, width]`, after Vaswani et al. (2017).
///
/// ```
/// use wgrad::nn::{Layer, SinusoidalPositions};
/// use wgrad::{Device, Tensor};
/// let y = SinusoidalPositions::new().forward(&Tensor::zeros([2, 4], &Device::cpu())?)?;
/// assert_eq!(y.select(0, 0)?.to_vec::<f32>()?, [0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct SinusoidalPositions {
    base: f64,
    hooks: Hooks,
}

impl SinusoidalPositions {
    /// With waves up to 10,000 times as long as the shortest.
    #[allow(clippy::new_without_default)]
    pub fn new() -> SinusoidalPositions {
        SinusoidalPositions { base: 10_000.0, hooks: Hooks::default() }
    }

    /// How many times longer than the shortest the longest wave is; 10,000.
    pub fn base(mut self, base: f64) -> Self {
        self.base = base;
        self
    }

    /// The output for a part of a sequence that begins at this place.
    ///
    /// # Errors
    /// If there are fewer than two dims, or the width is odd.
    pub fn forward_from(&self, input: &Tensor, offset: usize) -> Result<Tensor> {
        const OP: &str = "SinusoidalPositions";
        check(OP, input, 1)?;
        let width = input.size(-1)?;
        if width % 2 != 0 {
            let reason = "has an odd width; sines and cosines come in pairs".to_owned();
            return Err(Error::Shape { op: OP, shape: input.shape().to_vec(), reason });
        }
        self.hooks.around(input, || {
            let angles = angles(input, width, self.base, offset)?;
            let waves = Tensor::stack(&[&angles.sin()?, &angles.cos()?], -1)?.flatten(-2, -1)?;
            input.add(waves.to_dtype(input.dtype())?)
        })
    }
}

impl Layer for SinusoidalPositions {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_from(input, 0)
    }
}

/// Pairs of numbers of queries or keys `[.., length, width]`, turned by angles that grow with the place, so
/// that products depend on distances only, after Su et al. (2021).
///
/// ```
/// use wgrad::nn::{Layer, RotaryPositions};
/// use wgrad::{Device, Tensor};
/// let rotary = RotaryPositions::new(4);
/// let q = Tensor::ones([3, 4], &Device::cpu())?;
/// let y = rotary.forward(&q)?;
/// assert_eq!(y.select(0, 0)?.to_vec::<f32>()?, [1.0; 4]);
/// let last = rotary.forward_from(&q.narrow(0, 2, 1)?, 2)?;
/// let off = last.sub(y.narrow(0, 2, 1)?)?.abs()?.max()?.item::<f32>()?;
/// assert!(off < 1e-6);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct RotaryPositions {
    dim: usize,
    base: f64,
    interleaved: bool,
    hooks: Hooks,
}

impl RotaryPositions {
    /// Of the first `dim` numbers of each vector, number i paired with number `i + dim / 2`.
    pub fn new(dim: usize) -> RotaryPositions {
        RotaryPositions { dim, base: 10_000.0, interleaved: false, hooks: Hooks::default() }
    }

    /// How many times slower than the fastest pair the slowest turns; 10,000.
    pub fn base(mut self, base: f64) -> Self {
        self.base = base;
        self
    }

    /// Whether neighbours are pairs; false.
    pub fn interleaved(mut self, interleaved: bool) -> Self {
        self.interleaved = interleaved;
        self
    }

    /// The output for a part of a sequence that begins at this place, as where keys and values are cached.
    ///
    /// # Errors
    /// If there are fewer than two dims, the vectors are narrower than `dim`, or `dim` is odd.
    pub fn forward_from(&self, input: &Tensor, offset: usize) -> Result<Tensor> {
        const OP: &str = "RotaryPositions";
        check(OP, input, self.dim)?;
        if !self.dim.is_multiple_of(2) {
            return Err(Error::Argument {
                op: OP,
                reason: format!("dim is {}; pairs need an even one", self.dim),
            });
        }
        self.hooks.around(input, || {
            let angles = angles(input, self.dim, self.base, offset)?;
            let (cos, sin) = (angles.cos()?, angles.sin()?);
            let turned = input.narrow(-1, 0, self.dim)?.to_dtype(angles.dtype())?;
            let half = self.dim / 2;
            let (first, second) = if self.interleaved {
                let pairs = turned.unflatten(-1, [half, 2])?;
                (pairs.select(-1, 0)?, pairs.select(-1, 1)?)
            } else {
                (turned.narrow(-1, 0, half)?, turned.narrow(-1, half as isize, half)?)
            };
            let x = first.mul(&cos)?.sub(second.mul(&sin)?)?;
            let y = second.mul(&cos)?.add(first.mul(&sin)?)?;
            let turned = if self.interleaved {
                Tensor::stack(&[&x, &y], -1)?.flatten(-2, -1)?
            } else {
                Tensor::cat(&[&x, &y], -1)?
            };
            let turned = turned.to_dtype(input.dtype())?;
            let rest = input.size(-1)? - self.dim;
            if rest == 0 {
                return Ok(turned);
            }
            Tensor::cat(&[&turned, &input.narrow(-1, self.dim as isize, rest)?], -1)
        })
    }
}

impl Layer for RotaryPositions {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_from(input, 0)
    }
}
