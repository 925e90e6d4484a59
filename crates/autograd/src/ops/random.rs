//! Random tensors: counter-based, so that a seed gives the same numbers on every device.

use wgrad_array::{Array, BinaryOp, DType, Device, Error, Result, Scalar, UnaryOp, default_dtype, reserve};

use crate::args::check_held;
use crate::generator::next_stream;
use crate::ops::reduce::require_float;
use crate::tape::{Derivative, record};
use crate::{IntArray, Options, Tensor};

/// Uniform numbers in [0, 1) with all the digits that the dtype has there.
fn uniform(shape: &[usize], dtype: DType, device: &Device) -> Result<Array> {
    let (seed, stream) = next_stream();
    let digits = match dtype {
        DType::F64 => {
            let words = words(shape, seed, stream, device)?;
            let high = words.0.binary_scalar(BinaryOp::Shr, 5i64)?.cast(DType::F64)?;
            let low = words.1.binary_scalar(BinaryOp::Shr, 6i64)?.cast(DType::F64)?;
            let bits = high.binary_scalar(BinaryOp::Mul, 67_108_864.0)?.binary(BinaryOp::Add, &low)?;
            return bits.binary_scalar(BinaryOp::Mul, 1.0 / 9_007_199_254_740_992.0);
        }
        DType::F16 => 2048.0,
        DType::BF16 => 256.0,
        _ => return Array::uniform(shape, seed, stream, device)?.cast(dtype),
    };
    // Rounding to fewer digits could give 1.
    let scaled = Array::uniform(shape, seed, stream, device)?.binary_scalar(BinaryOp::Mul, digits)?;
    scaled.unary(UnaryOp::Floor)?.binary_scalar(BinaryOp::Mul, 1.0 / digits)?.cast(dtype)
}

/// Two random words for each element.
fn words(shape: &[usize], seed: u64, stream: u64, device: &Device) -> Result<(Array, Array)> {
    let mut pairs = shape.to_vec();
    pairs.push(2);
    let bits = Array::random_bits(&pairs, seed, stream, device)?;
    let word = |i| bits.slice(shape.len(), i, 1, 1)?.reshape(shape);
    Ok((word(0)?, word(1)?))
}

fn float_options(op: &'static str, options: &Options) -> Result<DType> {
    match options.dtype {
        None => Ok(default_dtype()),
        Some(dtype) if dtype.is_float() => Ok(dtype),
        Some(dtype) => {
            let reason = "does not hold fractions; use a float dtype, or randint".to_owned();
            Err(Error::DType { op, dtype, reason })
        }
    }
}

/// # Random tensors
#[wgrad_macros::call_sites]
impl Tensor {
    /// Uniform random numbers in [0, 1); of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If the shape is too large, or the dtype is not a float one.
    pub fn rand(shape: impl Into<IntArray>, options: impl Into<Options>) -> Result<Tensor> {
        const OP: &str = "rand";
        let options = options.into();
        let dtype = float_options(OP, &options)?;
        Ok(Tensor::from_array(uniform(&shape.into().shape(OP)?, dtype, &options.device)?))
    }

    /// Random numbers of the standard normal distribution; of the default dtype unless the options say otherwise.
    ///
    /// # Errors
    /// If the shape is too large, or the dtype is not a float one.
    pub fn randn(shape: impl Into<IntArray>, options: impl Into<Options>) -> Result<Tensor> {
        const OP: &str = "randn";
        let options = options.into();
        let dtype = float_options(OP, &options)?;
        let (seed, stream) = next_stream();
        let normal = Array::normal(&shape.into().shape(OP)?, seed, stream, &options.device)?;
        Ok(Tensor::from_array(normal.cast(dtype)?))
    }

    /// Random integers in `low..high`; i64 unless the options say otherwise.
    ///
    /// # Errors
    /// If the range is empty or beyond the dtype's, or the shape is too large.
    pub fn randint(
        low: i64,
        high: i64,
        shape: impl Into<IntArray>,
        options: impl Into<Options>,
    ) -> Result<Tensor> {
        const OP: &str = "randint";
        let options = options.into();
        let fail = |reason: String| Error::Argument { op: OP, reason };
        let range = high.checked_sub(low).filter(|&range| range > 0);
        let Some(range) = range else {
            return Err(fail(format!("there is no integer from {low} to before {high}, or too many")));
        };
        let dtype = options.dtype.unwrap_or(DType::I64);
        if dtype == DType::Bool && (low < 0 || high > 2) {
            let reason =
                format!("holds 0 and 1 only, and numbers from {low} to before {high} were asked for");
            return Err(Error::DType { op: OP, dtype, reason });
        }
        check_held(OP, low.into(), dtype)?;
        check_held(OP, (high - 1).into(), dtype)?;
        let shape = shape.into().shape(OP)?;
        let (seed, stream) = next_stream();
        let offset = if range <= 1 << 31 {
            let bits = Array::random_bits(&shape, seed, stream, &options.device)?;
            bits.binary_scalar(BinaryOp::Mul, range)?.binary_scalar(BinaryOp::Shr, 32i64)?
        } else {
            let (high, low) = words(&shape, seed, stream, &options.device)?;
            let bits = high.binary_scalar(BinaryOp::Shl, 31i64)?.binary(BinaryOp::Xor, &low)?;
            bits.binary_scalar(BinaryOp::Rem, range)?
        };
        let out = offset.binary_scalar(BinaryOp::Add, low)?;
        Ok(Tensor::from_array(out.cast(dtype)?))
    }

    /// The numbers `0..n` in a random order; i64 unless the options say otherwise.
    ///
    /// # Errors
    /// If memory cannot hold `n` numbers, or `n` is 2^31 or more.
    pub fn randperm(n: usize, options: impl Into<Options>) -> Result<Tensor> {
        const OP: &str = "randperm";
        let options = options.into();
        let dtype = options.dtype.unwrap_or(DType::I64);
        wgrad_array::layout::checked_elements(OP, &[n])?;
        // A key is two random words, and these are numbered by 32 bits. What no memory holds either is out of memory.
        if n > u32::MAX as usize / 2 {
            drop(reserve(&options.device, n.saturating_mul(size_of::<i64>()))?);
            return Err(Error::SizeOverflow { op: OP, shape: vec![n] });
        }
        let (seed, stream) = next_stream();
        // Where random keys belong in their order. Of 63 bits, two are equal rarely enough not to be noticed.
        let (high, low) = words(&[n], seed, stream, &options.device)?;
        let keys = high.binary_scalar(BinaryOp::Shl, 31i64)?.binary(BinaryOp::Xor, &low)?;
        Ok(Tensor::from_array(keys.argsort(0, false, 0..n)?.cast(dtype)?))
    }

    /// 1 with the probability that this tensor's element gives, else 0, in its dtype. The probabilities are looked at for this.
    ///
    /// # Errors
    /// If the dtype is not a float one, or an element is not between 0 and 1.
    pub fn bernoulli(&self) -> Result<Tensor> {
        const OP: &str = "bernoulli";
        require_float(OP, self)?;
        // First, since it fails for more numbers than there are before any is looked at.
        let chance = uniform(self.shape(), DType::F32, self.device())?;
        if !self.ge(0.0)?.logical_and(&self.le(1.0)?)?.all()?.item::<bool>()? {
            let reason = "a probability is not between 0 and 1, or not a number".to_owned();
            return Err(Error::Argument { op: OP, reason });
        }
        let hit = chance.binary(BinaryOp::Lt, &self.array()?.cast(DType::F32)?)?;
        Ok(Tensor::from_array(hit.cast(self.dtype())?))
    }

    /// [`Tensor::rand`] with this tensor's shape, dtype and device.
    ///
    /// # Errors
    /// As [`Tensor::rand`].
    pub fn rand_like(&self) -> Result<Tensor> {
        Tensor::rand(self.shape(), (self.dtype(), self.device()))
    }

    /// [`Tensor::randn`] with this tensor's shape, dtype and device.
    ///
    /// # Errors
    /// As [`Tensor::randn`].
    pub fn randn_like(&self) -> Result<Tensor> {
        Tensor::randn(self.shape(), (self.dtype(), self.device()))
    }

    /// Uniform random numbers in `low..high`, in place.
    ///
    /// # Errors
    /// As [`Tensor::rand`] and [`Tensor::copy_`].
    pub fn uniform_(&self, low: f64, high: f64) -> Result<Tensor> {
        self.write("uniform_", || {
            require_float("uniform_", self)?;
            let random = uniform(self.shape(), self.dtype(), self.device())?;
            let out = random.binary_scalar(BinaryOp::Mul, high - low)?.binary_scalar(BinaryOp::Add, low)?;
            self.replaced("UniformBackward0", out)
        })
    }

    /// Random numbers of a normal distribution, in place.
    ///
    /// # Errors
    /// As [`Tensor::randn`] and [`Tensor::copy_`].
    pub fn normal_(&self, mean: f64, std: f64) -> Result<Tensor> {
        self.write("normal_", || {
            require_float("normal_", self)?;
            let (seed, stream) = next_stream();
            let normal = Array::normal(self.shape(), seed, stream, self.device())?.cast(self.dtype())?;
            let out = normal.binary_scalar(BinaryOp::Mul, std)?.binary_scalar(BinaryOp::Add, mean)?;
            self.replaced("NormalBackward0", out)
        })
    }

    /// A value that does not depend on the tensor's own, which gets a gradient of zeros.
    pub(super) fn replaced(&self, node: &'static str, value: Array) -> Result<Tensor> {
        let old = self.operand()?;
        Ok(record(value, [old], |_, _| Derivative::new(node, |c| c.gradient(|| c.g().zeros_like()))))
    }

    /// With probability `p` each element becomes 0, the others are scaled by `1 / (1 - p)`; `F.dropout`. Itself if not `training`.
    ///
    /// # Errors
    /// If `p` is not a probability, or the dtype is not a float one.
    pub fn dropout(&self, p: f64, training: bool) -> Result<Tensor> {
        const OP: &str = "dropout";
        if !(0.0..=1.0).contains(&p) {
            let reason = format!("the probability is {p}; it must lie between 0 and 1");
            return Err(Error::Argument { op: OP, reason });
        }
        require_float(OP, self)?;
        if !training || p == 0.0 {
            return Ok(self.clone());
        }
        let x = self.operand()?;
        let keep = uniform(self.shape(), DType::F32, self.device())?.binary_scalar(BinaryOp::Ge, p)?;
        let scale = if p == 1.0 { 0.0 } else { 1.0 / (1.0 - p) };
        let zero = Array::full(&[], Scalar::Int(0), self.dtype(), self.device())?;
        let out = Array::select(&keep, &x.array.binary_scalar(BinaryOp::Mul, scale)?, &zero)?;
        Ok(record(out, [x], |_, _| {
            Derivative::with_scalar("MulBackward0", scale.into(), |c, scale| {
                c.gradient(|| {
                    let (g, [keep]) = c.parts();
                    (g * scale).keep_where(keep)
                })
            })
            .save(&keep)
        }))
    }
}
