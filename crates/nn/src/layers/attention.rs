//! Attention: [`MultiheadAttention`] with masks, and a cache of keys and values for text that is made word by
//! word.

use wgrad_autograd::{DType, Error, Options, Result, Tensor, no_grad};

use super::linear::Linear;
use super::options::{argument, settings};
use super::parameter::parameter;
use crate::{Hooks, Module, Training, init};

const OP: &str = "MultiheadAttention";

settings! {
    /// The settings of a [`MultiheadAttention`].
    MultiheadAttentionOptions {
        embed_dim: usize, num_heads: usize;
        /// With what probability weights are left out in training; 0.
        dropout: f64 = 0.0,
        /// Whether there are biases; true.
        bias: bool = true,
        /// Whether a learnt key and value stand behind those given; false.
        add_bias_kv: bool = false,
        /// Whether a key and value of zeros stand behind all others; false.
        add_zero_attn: bool = false,
        /// The keys' width, if it is not `embed_dim`.
        kdim: Option<usize> = None,
        /// The values' width, if it is not `embed_dim`.
        vdim: Option<usize> = None,
        /// Whether tensors are `[batch, length, width]` instead of `[length, batch, width]`; false.
        batch_first: bool = false,
    }
}

impl MultiheadAttentionOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the heads do not divide `embed_dim`, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<MultiheadAttention> {
        let (options, width) = (options.into(), self.embed_dim);
        if self.num_heads == 0 || width % self.num_heads != 0 || width == 0 {
            let reason = format!("{} heads do not divide an embed_dim of {width}", self.num_heads);
            return Err(Error::Argument { op: OP, reason });
        }
        let (kdim, vdim) = (self.kdim.unwrap_or(width), self.vdim.unwrap_or(width));
        let joined = kdim == width && vdim == width;
        let matrix = |wanted: bool, rows: usize, columns: usize| {
            wanted
                .then(|| parameter([rows, columns], &options, |x| init::xavier_uniform_(x, 1.0)))
                .transpose()
        };
        let list = || {
            let spread = |x: &Tensor| init::normal_(x, 0.0, (2.0 / (2 * width) as f64).sqrt());
            self.add_bias_kv.then(|| parameter([1, 1, width], &options, spread)).transpose()
        };
        let out_proj = Linear::options(width, width).bias(self.bias).build(options.clone())?;
        if let Some(bias) = &out_proj.bias {
            init::zeros_(bias)?;
        }
        Ok(MultiheadAttention {
            in_proj_weight: matrix(joined, 3 * width, width)?,
            q_proj_weight: matrix(!joined, width, width)?,
            k_proj_weight: matrix(!joined, width, kdim)?,
            v_proj_weight: matrix(!joined, width, vdim)?,
            in_proj_bias: self.bias.then(|| parameter(3 * width, &options, init::zeros_)).transpose()?,
            out_proj,
            bias_k: list()?,
            bias_v: list()?,
            settings: self.clone(),
            training: Training::default(),
            hooks: Hooks::default(),
        })
    }
}

/// Which weights a [`MultiheadAttention`] gives besides its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionWeights {
    /// None.
    #[default]
    Hidden,
    /// Their mean over the heads, `[batch, target, source]`.
    Mean,
    /// Those of each head, `[batch, heads, target, source]`.
    Heads,
}

/// What may attend to what, and which weights are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attention<'a> {
    mask: Option<&'a Tensor>,
    padding: Option<&'a Tensor>,
    causal: bool,
    weights: AttentionWeights,
}

impl<'a> Attention<'a> {
    /// Everything attends to everything.
    pub fn new() -> Attention<'a> {
        Attention::default()
    }

    /// Where attention is not allowed (bools), or what is added to the scores (floats): `[target, source]`,
    /// or `[batch * heads, target, source]`; `attn_mask`.
    pub fn mask(mut self, mask: &'a Tensor) -> Self {
        self.mask = Some(mask);
        self
    }

    /// Which places of the source are padding (bools), or what is added to their scores (floats):
    /// `[batch, source]`, or `[source]` without a batch; `key_padding_mask`.
    pub fn padding(mut self, padding: &'a Tensor) -> Self {
        self.padding = Some(padding);
        self
    }

    /// Whether each place attends to itself and those before only; `is_causal`. Where a mask is given, it has
    /// to say so itself.
    pub fn causal(mut self, causal: bool) -> Self {
        self.causal = causal;
        self
    }

    /// Which weights are given besides the output; none.
    pub fn weights(mut self, weights: AttentionWeights) -> Self {
        self.weights = weights;
        self
    }
}

/// Attention of several heads: for each place of the target a mean of the source's values, weighted by how
/// well the target's queries fit the source's keys; `torch.nn.MultiheadAttention`.
///
/// ```
/// use wgrad::nn::{Attention, AttentionWeights, MultiheadAttention};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let attention = MultiheadAttention::options(8, 2).batch_first(true).build(&device)?;
/// let x = Tensor::randn([1, 3, 8], &device)?;
/// let how = Attention::new().causal(true).weights(AttentionWeights::Mean);
/// let (y, weights) = attention.forward_with(&x, &x, &x, &how)?;
/// assert_eq!(y.shape(), [1, 3, 8]);
/// let weights = weights.expect("they were asked for");
/// assert_eq!(weights.select(1, 0)?.to_vec::<f32>()?, [1.0, 0.0, 0.0]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct MultiheadAttention {
    /// `[3 * embed_dim, embed_dim]`: for queries, keys and values, if these have the queries' width.
    pub in_proj_weight: Option<Tensor>,
    /// `[embed_dim, embed_dim]`, if there are other widths.
    pub q_proj_weight: Option<Tensor>,
    /// `[embed_dim, kdim]`, if there are other widths.
    pub k_proj_weight: Option<Tensor>,
    /// `[embed_dim, vdim]`, if there are other widths.
    pub v_proj_weight: Option<Tensor>,
    /// `[3 * embed_dim]`.
    pub in_proj_bias: Option<Tensor>,
    /// What joins the heads.
    pub out_proj: Linear,
    /// A learnt key, `[1, 1, embed_dim]`.
    pub bias_k: Option<Tensor>,
    /// A learnt value, `[1, 1, embed_dim]`.
    pub bias_v: Option<Tensor>,
    #[module(skip)]
    settings: MultiheadAttentionOptions,
    training: Training,
    hooks: Hooks,
}

impl MultiheadAttention {
    /// A layer with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`MultiheadAttentionOptions::build`].
    pub fn new(
        embed_dim: usize,
        num_heads: usize,
        options: impl Into<Options>,
    ) -> Result<MultiheadAttention> {
        MultiheadAttention::options(embed_dim, num_heads).build(options)
    }

    /// The settings, to be changed.
    pub fn options(embed_dim: usize, num_heads: usize) -> MultiheadAttentionOptions {
        MultiheadAttentionOptions::new(embed_dim, num_heads)
    }

    /// The output for queries `[target, batch, embed_dim]`, keys `[source, batch, kdim]` and values
    /// `[source, batch, vdim]`, or all of them without a batch.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        Ok(self.forward_with(query, key, value, &Attention::new())?.0)
    }

    /// The same with masks, and with the weights if they are asked for.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward_with(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        how: &Attention<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        self.check(query, key, value)?;
        let batched = query.rank() == 3;
        let [q, mut k, mut v] = self.projected(query, key, value)?;
        let padding =
            how.padding.map(|p| if batched { Ok(p.clone()) } else { p.unsqueeze(0) }).transpose()?;
        let (batch, target, source) = (q.size(0)?, q.size(1)?, k.size(1)?);
        let mut mask = self.mask(how, padding.as_ref(), [batch, target, source], &q)?;
        let mut behind = Vec::new();
        if let (Some(bias_k), Some(bias_v)) = (&self.bias_k, &self.bias_v) {
            let shape = [batch, 1, self.settings.embed_dim];
            behind.push((bias_k.expand(shape)?, bias_v.expand(shape)?));
        }
        if self.settings.add_zero_attn {
            let zeros = Tensor::zeros([batch, 1, self.settings.embed_dim], (k.dtype(), k.device()))?;
            behind.push((zeros.clone(), zeros));
        }
        for (key, value) in behind {
            (k, v) = (Tensor::cat(&[&k, &key], 1)?, Tensor::cat(&[&v, &value], 1)?);
            if let Some(old) = &mask {
                let mut shape = old.shape().to_vec();
                if let Some(last) = shape.last_mut() {
                    *last = 1;
                }
                mask = Some(Tensor::cat(&[old, &Tensor::zeros(shape, (old.dtype(), old.device()))?], -1)?);
            }
        }
        let (heads, weights) =
            self.attend([self.heads(&q)?, self.heads(&k)?, self.heads(&v)?], mask.as_ref(), how.weights)?;
        let output = self.hooks.after(query, self.joined(&heads, batched)?)?;
        let weights = match (weights, how.weights) {
            (Some(weights), AttentionWeights::Mean) => Some(weights.mean_dim(1, false)?),
            (weights, _) => weights,
        };
        let weights = weights.map(|w| if batched { Ok(w) } else { w.squeeze_dim(0) }).transpose()?;
        Ok((output, weights))
    }

    /// Self-attention of places that follow those in a cache, to these and each other, each to itself and
    /// those before. The cache gets their keys and values.
    ///
    /// What is in a cache takes no part in the graph: it is for using a model, not for training it.
    ///
    /// ```
    /// use wgrad::nn::{Attention, KeyValueCache, MultiheadAttention};
    /// use wgrad::{Device, Tensor};
    /// let device = Device::cpu();
    /// let attention = MultiheadAttention::options(8, 2).batch_first(true).build(&device)?;
    /// let x = Tensor::randn([1, 3, 8], &device)?;
    /// let (whole, _) = attention.forward_with(&x, &x, &x, &Attention::new().causal(true))?;
    /// let mut cache = KeyValueCache::new(16);
    /// attention.forward_cached(&x.narrow(1, 0, 2)?, &mut cache)?;
    /// let last = attention.forward_cached(&x.narrow(1, 2, 1)?, &mut cache)?;
    /// let off = last.sub(whole.narrow(1, 2, 1)?)?.abs()?.max()?.item::<f32>()?;
    /// assert!(off < 1e-5);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the input does not fit the layer or the cache, the cache has no room for it, or the layer has
    /// learnt keys or those of zeros.
    pub fn forward_cached(&self, input: &Tensor, cache: &mut KeyValueCache) -> Result<Tensor> {
        self.check(input, input, input)?;
        if self.bias_k.is_some() || self.settings.add_zero_attn {
            let reason = "a cache has no place for keys that stand behind all others".to_owned();
            return Err(Error::Unsupported { op: OP, reason });
        }
        let [q, k, v] = self.projected(input, input, input)?;
        let first = cache.length;
        let (keys, values) = cache.extend(&self.heads(&k)?, &self.heads(&v)?)?;
        let target = q.size(1)? as i64;
        let place = Tensor::arange(0, keys.size(2)? as i64, 1, (DType::I64, q.device()))?;
        let own = Tensor::arange(0, target, 1, (DType::I64, q.device()))?.add(first as i64)?.unsqueeze(-1)?;
        let mask = place.gt(&own)?;
        let (heads, _) =
            self.attend([self.heads(&q)?, keys, values], Some(&mask), AttentionWeights::Hidden)?;
        self.hooks.after(input, self.joined(&heads, input.rank() == 3)?)
    }

    fn check(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<()> {
        let settings = &self.settings;
        let width = settings.embed_dim;
        let (kdim, vdim) = (settings.kdim.unwrap_or(width), settings.vdim.unwrap_or(width));
        for (x, width) in [(query, width), (key, kdim), (value, vdim)] {
            if (x.rank() != 2 && x.rank() != 3)
                || x.rank() != query.rank()
                || x.shape().last() != Some(&width)
            {
                let reason = format!("is not [.., {width}] with two or three dims, as many as the query has");
                return Err(Error::Shape { op: OP, shape: x.shape().to_vec(), reason });
            }
        }
        let batch = if settings.batch_first { 0 } else { 1 };
        let fits = key.shape().split_last().map(|(_, dims)| dims)
            == value.shape().split_last().map(|(_, dims)| dims)
            && (query.rank() == 2 || query.shape().get(batch) == key.shape().get(batch));
        if fits {
            return Ok(());
        }
        let reason = "do not go together: keys and values have one length, and all one batch".to_owned();
        Err(Error::ShapeMismatch { op: OP, lhs: key.shape().to_vec(), rhs: value.shape().to_vec(), reason })
    }

    /// `[batch, length, width]` of any of the inputs.
    fn batch_first(&self, x: &Tensor) -> Result<Tensor> {
        match (x.rank(), self.settings.batch_first) {
            (2, _) => x.unsqueeze(0),
            (_, true) => Ok(x.clone()),
            (_, false) => x.transpose(0, 1),
        }
    }

    /// Queries, keys and values, `[batch, length, embed_dim]`. What comes of one tensor is one product.
    fn projected(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<[Tensor; 3]> {
        let parts = |x: &Tensor, dim| -> Result<[Tensor; 3]> {
            let pieces = x.chunk(3, dim)?;
            pieces.try_into().map_err(|_| Error::Argument { op: OP, reason: "has no three parts".into() })
        };
        if let Some(weight) = &self.in_proj_weight
            && query.is_same(key)
            && key.is_same(value)
        {
            return parts(&self.batch_first(query)?.linear(weight, &self.in_proj_bias)?, -1);
        }
        let weights =
            match (&self.in_proj_weight, &self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight) {
                (Some(weight), ..) => parts(weight, 0)?,
                (None, Some(q), Some(k), Some(v)) => [q.clone(), k.clone(), v.clone()],
                _ => return Err(Error::Argument { op: OP, reason: "has no weights for its inputs".into() }),
            };
        let biases = self.in_proj_bias.as_ref().map(|bias| parts(bias, 0)).transpose()?;
        let [wq, wk, wv] = weights;
        let [bq, bk, bv] = biases.map_or([None, None, None], |biases| biases.map(Some));
        Ok([
            self.batch_first(query)?.linear(&wq, &bq)?,
            self.batch_first(key)?.linear(&wk, &bk)?,
            self.batch_first(value)?.linear(&wv, &bv)?,
        ])
    }

    /// `[batch, heads, length, width of a head]`.
    fn heads(&self, x: &Tensor) -> Result<Tensor> {
        let heads = self.settings.num_heads;
        x.unflatten(-1, [heads, self.settings.embed_dim / heads])?.transpose(1, 2)
    }

    /// The output for the heads' means.
    fn joined(&self, heads: &Tensor, batched: bool) -> Result<Tensor> {
        use crate::Layer;
        let x = heads.transpose(1, 2)?.flatten(2, 3)?;
        let out = self.out_proj.forward(&x)?;
        match (batched, self.settings.batch_first) {
            (false, _) => out.squeeze_dim(0),
            (true, true) => Ok(out),
            (true, false) => out.transpose(0, 1),
        }
    }

    /// One mask of all that is given, which broadcasts to `[batch, heads, target, source]`: bools where
    /// attention is not allowed, or floats to be added.
    fn mask(
        &self,
        how: &Attention<'_>,
        padding: Option<&Tensor>,
        [batch, target, source]: [usize; 3],
        like: &Tensor,
    ) -> Result<Option<Tensor>> {
        let fail = |x: &Tensor, wanted: String| {
            Err(Error::Shape {
                op: OP,
                shape: x.shape().to_vec(),
                reason: format!("is not that of a mask, {wanted}"),
            })
        };
        let heads = self.settings.num_heads;
        let places = match how.mask {
            Some(mask) if mask.shape() == [target, source] => Some(mask.clone()),
            Some(mask) if mask.shape() == [batch * heads, target, source] => {
                Some(mask.reshape([batch, heads, target, source])?)
            }
            Some(mask) => {
                return fail(
                    mask,
                    format!("[{target}, {source}] or [{}, {target}, {source}]", batch * heads),
                );
            }
            None if how.causal => {
                Some(Tensor::ones([target, source], (DType::Bool, like.device()))?.triu(1)?)
            }
            None => None,
        };
        let padding = match padding {
            Some(padding) if padding.shape() == [batch, source] => Some(padding.unsqueeze(1)?.unsqueeze(1)?),
            Some(padding) => return fail(padding, format!("[{batch}, {source}]")),
            None => None,
        };
        let (Some(places), Some(padding)) = (&places, &padding) else { return Ok(places.or(padding)) };
        if places.dtype() == DType::Bool && padding.dtype() == DType::Bool {
            return Ok(Some(places.logical_or(padding)?));
        }
        let floats = |x: &Tensor| {
            if x.dtype() != DType::Bool {
                return Ok(x.clone());
            }
            Tensor::zeros(x.shape(), (like.dtype(), like.device()))?.masked_fill(x, f64::NEG_INFINITY)
        };
        Ok(Some(floats(places)?.add(floats(padding)?)?))
    }

    /// The weighted means of each head, and the weights if they are wanted.
    fn attend(
        &self,
        [q, k, v]: [Tensor; 3],
        mask: Option<&Tensor>,
        wanted: AttentionWeights,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let dropout = if self.training.get() { self.settings.dropout } else { 0.0 };
        if wanted == AttentionWeights::Hidden && dropout == 0.0 {
            // There bools say where attention is allowed.
            let allowed = match mask {
                Some(mask) if mask.dtype() == DType::Bool => Some(mask.logical_not()?),
                other => other.cloned(),
            };
            return Ok((q.scaled_dot_product_attention(&k, &v, &allowed, false, None, false)?, None));
        }
        let scale = 1.0 / (q.size(-1)? as f64).sqrt();
        let scores = q.mul(scale)?.matmul(&k.transpose(-2, -1)?)?;
        let weights = match mask {
            None => scores.softmax(-1)?,
            Some(mask) if mask.dtype() == DType::Bool => {
                // A row in which nothing is allowed gives zeros.
                let none = mask.all_dim(-1, true)?;
                let scores = scores.masked_fill(mask, f64::NEG_INFINITY)?.masked_fill(&none, 0.0)?;
                scores.softmax(-1)?.masked_fill(&none, 0.0)?
            }
            Some(mask) => scores.add(mask)?.softmax(-1)?,
        };
        let weights = if dropout > 0.0 { weights.dropout(dropout, true)? } else { weights };
        Ok((weights.matmul(&v)?, Some(weights)))
    }
}

/// Keys and values of places that a [`MultiheadAttention`] has seen, for
/// [`forward_cached`](MultiheadAttention::forward_cached). It has room for a number of places from the
/// beginning, so that a program that adds one at a time builds one plan.
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    capacity: usize,
    length: usize,
    values: Option<(Tensor, Tensor)>,
}

impl KeyValueCache {
    /// An empty cache with room for so many places.
    pub fn new(capacity: usize) -> KeyValueCache {
        KeyValueCache { capacity, length: 0, values: None }
    }

    /// How many places it holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets all places.
    pub fn clear(&mut self) {
        *self = KeyValueCache::new(self.capacity);
    }

    /// All keys and values, `[batch, heads, capacity, width]`, after these have been added.
    fn extend(&mut self, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let capacity = self.capacity;
        let &[batch, heads, added, width] = keys.shape() else {
            return Err(Error::Shape {
                op: OP,
                shape: keys.shape().to_vec(),
                reason: "is not that of keys".into(),
            });
        };
        if added > capacity - self.length {
            let reason = format!(
                "the cache has room for {capacity} places, of which {} are taken; {added} were added",
                self.length
            );
            return Err(Error::Argument { op: OP, reason });
        }
        let shape = [batch, heads, capacity, width];
        if let Some((old, _)) = &self.values
            && (old.shape() != shape || old.dtype() != keys.dtype() || old.device() != keys.device())
        {
            let reason =
                "differ from those in the cache, which was filled by another batch or layer".to_owned();
            let (lhs, rhs) = (keys.shape().to_vec(), old.shape().to_vec());
            return Err(Error::ShapeMismatch { op: OP, lhs, rhs, reason });
        }
        no_grad(|| {
            let (all_keys, all_values) = match &self.values {
                Some(known) => known.clone(),
                None => {
                    let empty = || Tensor::zeros(shape, (keys.dtype(), keys.device()));
                    (empty()?, empty()?)
                }
            };
            all_keys.narrow(2, self.length as isize, added)?.copy_(keys)?;
            all_values.narrow(2, self.length as isize, added)?.copy_(values)?;
            self.length += added;
            self.values = Some((all_keys.clone(), all_values.clone()));
            Ok((all_keys, all_values))
        })
    }
}
