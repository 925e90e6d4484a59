//! Normalisation over batches, groups, channels and neighbours, and attention.

use wgrad_array::{DType, Error, Result};

use crate::ops::reduce::require_float;
use crate::{IntArray, Tensor, no_grad};

/// What [`Tensor::batch_norm`] and [`Tensor::instance_norm`] take besides the input; all optional.
#[derive(Clone, Debug)]
pub struct BatchNormOptions {
    /// The running mean of each channel: updated in place in training, used otherwise.
    pub running_mean: Option<Tensor>,
    /// The running (unbiased) variance of each channel.
    pub running_var: Option<Tensor>,
    /// A factor for each channel.
    pub weight: Option<Tensor>,
    /// A summand for each channel.
    pub bias: Option<Tensor>,
    /// How much of a running statistic is replaced in each step; 0.1.
    pub momentum: f64,
    /// What is added to the variance; 1e-5.
    pub eps: f64,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        BatchNormOptions {
            running_mean: None,
            running_var: None,
            weight: None,
            bias: None,
            momentum: 0.1,
            eps: 1e-5,
        }
    }
}

/// # Normalisation over batches and groups, attention
#[wgrad_macros::call_sites]
impl Tensor {
    /// A list with one number for each channel (dim 1), in a shape that broadcasts.
    fn per_channel(&self, op: &'static str, list: &Tensor) -> Result<Tensor> {
        let Some(&channels) = self.shape().get(1) else {
            let reason = "has no channels: fewer than two dims".to_owned();
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        };
        if list.shape() != [channels] {
            let reason = format!("is not [{channels}], a number for each channel");
            return Err(Error::Shape { op, shape: list.shape().to_vec(), reason });
        }
        let mut shape = vec![1; self.rank()];
        shape[1] = channels;
        list.widened()?.reshape(shape)
    }

    /// `weight * x + bias` for each channel.
    fn scaled_channels(
        &self,
        op: &'static str,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut out = self.clone();
        if let Some(weight) = weight {
            out = out.mul(self.per_channel(op, weight)?)?;
        }
        if let Some(bias) = bias {
            out = out.add(self.per_channel(op, bias)?)?;
        }
        Ok(out)
    }

    /// Each channel (dim 1) made mean 0 and variance 1, then scaled and moved. In training by the statistics of the batch,
    /// which also move the running ones in place; otherwise by the running ones.
    ///
    /// # Errors
    /// If there are fewer than two dims, a list has another size than there are channels, running statistics are missing outside of
    /// training, or there is only one value for each channel in training.
    pub fn batch_norm(&self, training: bool, options: &BatchNormOptions) -> Result<Tensor> {
        const OP: &str = "batch_norm";
        require_float(OP, self)?;
        if self.rank() < 2 {
            if self.shape() == [0] {
                return self.deep_clone();
            }
            let reason = "has no channels: fewer than two dims".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        for list in [&options.running_mean, &options.running_var, &options.weight, &options.bias]
            .into_iter()
            .flatten()
        {
            self.per_channel(OP, list)?;
        }
        let dims: Vec<usize> = (0..self.rank()).filter(|&d| d != 1).collect();
        let count: usize = dims.iter().map(|&d| self.shape()[d]).product();
        let normalized = if training {
            if count <= 1 && self.numel() > 0 {
                let reason = "has only one value for each channel, which has no variance".to_owned();
                return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
            }
            let [normalized, mean, var] = self.standardized(&dims, options.eps)?;
            self.move_statistics(&mean, &var, count, options)?;
            normalized
        } else {
            let (Some(mean), Some(var)) = (&options.running_mean, &options.running_var) else {
                return Err(Error::Argument {
                    op: OP,
                    reason: "needs running_mean and running_var outside of training".into(),
                });
            };
            let scale = (self.expr().per_channel(OP, var) + options.eps).rsqrt();
            ((self.widened()? - self.per_channel(OP, mean)?) * scale).done()?
        };
        normalized.scaled_channels(OP, options.weight.as_ref(), options.bias.as_ref())?.to_dtype(self.dtype())
    }

    /// Moves the running statistics towards a batch's.
    fn move_statistics(
        &self,
        mean: &Tensor,
        var: &Tensor,
        count: usize,
        options: &BatchNormOptions,
    ) -> Result<()> {
        no_grad(|| {
            let unbiased = count as f64 / (count as f64 - 1.0);
            for (running, new) in
                [(&options.running_mean, mean.clone()), (&options.running_var, var.mul(unbiased)?)]
            {
                if let Some(running) = running {
                    let new = new.reshape(running.shape())?.mul(options.momentum)?;
                    let moved = running.widened()?.mul(1.0 - options.momentum)?.add(new)?;
                    running.copy_(&moved)?;
                }
            }
            Ok(())
        })
    }

    /// Each channel of each instance made mean 0 and variance 1, then scaled and moved. With `use_input_stats` by its own
    /// statistics, whose means over the batch move the running ones in place; otherwise by the running ones.
    ///
    /// # Errors
    /// As [`Tensor::batch_norm`].
    pub fn instance_norm(&self, use_input_stats: bool, options: &BatchNormOptions) -> Result<Tensor> {
        const OP: &str = "instance_norm";
        require_float(OP, self)?;
        if !use_input_stats {
            return self.batch_norm(false, options);
        }
        for list in [&options.running_mean, &options.running_var, &options.weight, &options.bias]
            .into_iter()
            .flatten()
        {
            self.per_channel(OP, list)?;
        }
        let dims: Vec<usize> = (2..self.rank()).collect();
        let count: usize = dims.iter().map(|&d| self.shape()[d]).product();
        if self.rank() < 3 || (count <= 1 && self.numel() > 0) {
            let reason =
                "has only one value for each channel of an instance, which has no variance".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let [normalized, mean, var] = self.standardized(&dims, options.eps)?;
        self.move_statistics(&mean.mean_dim(0, false)?, &var.mean_dim(0, false)?, count, options)?;
        normalized.scaled_channels(OP, options.weight.as_ref(), options.bias.as_ref())?.to_dtype(self.dtype())
    }

    /// Groups of channels of each instance made mean 0 and variance 1, then scaled and moved by channel; PyTorch's default
    /// for eps is 1e-5.
    ///
    /// # Errors
    /// If there are fewer than two dims, the groups do not divide the channels, or a list has another size than there are channels.
    pub fn group_norm<'a>(
        &self,
        groups: usize,
        weight: impl Into<Option<&'a Tensor>>,
        bias: impl Into<Option<&'a Tensor>>,
        eps: f64,
    ) -> Result<Tensor> {
        const OP: &str = "group_norm";
        require_float(OP, self)?;
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        let &[batch, channels, ref rest @ ..] = self.shape() else {
            return fail("has no channels: fewer than two dims".into());
        };
        if channels == 0 || rest.contains(&0) {
            return fail("has no values to normalise".into());
        }
        if groups == 0 || channels % groups != 0 {
            return fail(format!("has {channels} channels, which do not make {groups} groups"));
        }
        let (weight, bias) = (weight.into(), bias.into());
        for list in [weight, bias].into_iter().flatten() {
            self.per_channel(OP, list)?;
        }
        let size = channels / groups * rest.iter().product::<usize>();
        let grouped = self.reshape([batch, groups, size])?;
        let [normalized, ..] = grouped.standardized(&[2], eps)?;
        let normalized = normalized.reshape(self.shape())?.owned()?;
        normalized.scaled_channels(OP, weight, bias)?.to_dtype(self.dtype())
    }

    /// `x * rsqrt(mean(x²) + eps) * weight` over the last dims, which have the sizes `normalized_shape`. Without `eps` it is the
    /// machine epsilon of f32 (of f64 for f64).
    ///
    /// # Errors
    /// If the last dims or the weight have another shape, or the dtype is not a float one.
    pub fn rms_norm<'a>(
        &self,
        normalized_shape: impl Into<IntArray>,
        weight: impl Into<Option<&'a Tensor>>,
        eps: impl Into<Option<f64>>,
    ) -> Result<Tensor> {
        const OP: &str = "rms_norm";
        require_float(OP, self)?;
        let normalized = normalized_shape.into().shape(OP)?;
        if normalized.is_empty() || !self.shape().ends_with(&normalized) {
            let reason = format!("does not end with the dims to normalise, {:?}", normalized.as_slice());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let epsilon = if self.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let dims: Vec<usize> = (self.rank() - normalized.len()..self.rank()).collect();
        let wide = self.widened()?;
        let scale = ((&wide * &wide.expr()).mean_dim(dims, true) + eps.into().unwrap_or(epsilon)).rsqrt();
        let mut out = (&wide * scale).done()?;
        if let Some(weight) = weight.into() {
            if weight.shape() != normalized.as_slice() {
                let reason = format!("is not that of the dims to normalise, {:?}", normalized.as_slice());
                return Err(Error::Shape { op: OP, shape: weight.shape().to_vec(), reason });
            }
            out = out.mul(weight.widened()?)?;
        }
        out.to_dtype(self.dtype())
    }

    /// `x / (k + alpha * mean of the squares of the `size` neighbouring channels) ** beta`; PyTorch's defaults are alpha 1e-4,
    /// beta 0.75 and k 1.
    ///
    /// # Errors
    /// If there are fewer than three dims, or the size is 0.
    pub fn local_response_norm(&self, size: usize, alpha: f64, beta: f64, k: f64) -> Result<Tensor> {
        const OP: &str = "local_response_norm";
        if self.rank() < 3 || size == 0 {
            let reason = "needs three dims or more, and a size of at least 1".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        if self.numel() == 0 {
            return self.deep_clone();
        }
        // What lies beyond all channels is zeros, of which no more are needed than there are channels.
        let (before, after) = ((size / 2).min(self.shape()[1]), ((size - 1) / 2).min(self.shape()[1]));
        let mut margins = vec![(0, 0); self.rank() - 2];
        margins.push((before as isize, after as isize));
        let window = before + after + 1;
        let mean = self.mul(self)?.pad(&margins, 0.0)?.unfold(1, window, 1)?.mean_dim(-1, false)?;
        let mean = if window == size { mean } else { mean.mul(window as f64 / size as f64)? };
        (self / (mean.expr() * alpha + k).pow(beta)).done()
    }

    /// `softmax(query @ key.T * scale + mask) @ value`. A bool mask says what takes part, a float one is added;
    /// `is_causal` is the mask of the lower left triangle. Without a scale it is `1 / sqrt(width)`. With `enable_gqa` heads (dim -3)
    /// of key and value are repeated to as many as the query has.
    ///
    /// # Errors
    /// If the shapes do not fit, or a mask is given although `is_causal` is set.
    pub fn scaled_dot_product_attention<'a>(
        &self,
        key: &Tensor,
        value: &Tensor,
        attn_mask: impl Into<Option<&'a Tensor>>,
        is_causal: bool,
        scale: impl Into<Option<f64>>,
        enable_gqa: bool,
    ) -> Result<Tensor> {
        const OP: &str = "scaled_dot_product_attention";
        let fail = |x: &Tensor, reason: &str| {
            Err(Error::Shape { op: OP, shape: x.shape().to_vec(), reason: reason.into() })
        };
        if let Some(small) = [self, key, value].into_iter().find(|x| x.rank() < 2) {
            return fail(small, "has fewer than two dims: positions and width");
        }
        if let Some(other) = [key, value].into_iter().find(|x| x.dtype() != self.dtype()) {
            let reason = format!("is not that of the query, {}; cast it", self.dtype());
            return Err(Error::DType { op: OP, dtype: other.dtype(), reason });
        }
        let (mut key, mut value) = (key.clone(), value.clone());
        if enable_gqa {
            let heads = self.size(-3)?;
            for x in [&mut key, &mut value] {
                let own = x.size(-3)?;
                if own == 0 || heads % own != 0 {
                    return fail(x, "has a number of heads that does not divide the query's");
                }
                *x = x.repeat_interleave(heads / own, -3)?;
            }
        }
        let mask = attn_mask.into();
        if mask.is_some() && is_causal {
            return Err(Error::Argument {
                op: OP,
                reason: "a mask was given although is_causal is set; give one".into(),
            });
        }
        let width = self.size(-1)?;
        let scale = scale.into().unwrap_or(1.0 / (width as f64).sqrt());
        let mut scores = self.widened()?.mul(scale)?.matmul(&key.widened()?.transpose(-2, -1)?)?;
        let causal = || {
            let square = [self.size(-2)?, key.size(-2)?];
            Tensor::ones(square, (DType::Bool, self.device()))?.tril(0)
        };
        let mask = if is_causal { Some(causal()?) } else { mask.cloned() };
        let mut nothing = None;
        match mask {
            None => {}
            Some(mask) if mask.dtype() == DType::Bool => {
                scores = mask.where_cond(&scores, f64::NEG_INFINITY)?;
                // A row in which nothing takes part gives zeros.
                nothing = Some(mask.any_dim(-1, true)?.logical_not()?);
            }
            Some(mask) => scores = scores.add(mask.widened()?)?,
        }
        if let Some(nothing) = &nothing {
            scores = scores.masked_fill(nothing, 0.0)?;
        }
        let mut weights = scores.softmax(-1)?;
        if let Some(nothing) = &nothing {
            weights = weights.masked_fill(nothing, 0.0)?;
        }
        weights.matmul(&value.widened()?)?.to_dtype(self.dtype())
    }
}
