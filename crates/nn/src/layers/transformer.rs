//! Transformer layers and stacks of them, after Vaswani et al. (2017).

use wgrad_autograd::{Options, Result, Tensor};

use super::attention::{Attention, MultiheadAttention};
use super::dropout::Dropout;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::options::{argument, settings};
use crate::{Hooks, Layer, Module, init};

/// The function between the two products of a transformer layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeedForward {
    /// `max(x, 0)`.
    ///
    /// ```
    /// use wgrad::nn::{Layer, ReLU};
    /// let x = wgrad::Tensor::new([-1.0, 2.0], &wgrad::Device::cpu())?;
    /// let y = ReLU::new().forward(&x)?;
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 2.0]);
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    #[default]
    ReLU,
    /// [`GELU`](crate::GELU), the exact one.
    GELU,
}

impl FeedForward {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            FeedForward::ReLU => x.relu(),
            FeedForward::GELU => x.gelu(),
        }
    }
}

/// Settings that all transformer layers have.
macro_rules! transformer_settings {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$meaning:meta])* $wish:ident: $type:ident = $default:expr),* }
    ) => {
        settings! {
            $(#[$about])*
            $name {
                d_model: usize, nhead: usize;
                $($(#[$meaning])* $wish: $type = $default,)*
                /// The width between the two products; 2048.
                dim_feedforward: usize = 2048usize,
                /// With what probability elements are left out in training; 0.1.
                dropout: f64 = 0.1,
                /// The function between the two products; ReLU.
                activation: FeedForward = FeedForward::ReLU,
                /// What the norms add to the variance; 1e-5.
                layer_norm_eps: f64 = 1e-5,
                /// Whether tensors are `[batch, length, width]` instead of `[length, batch, width]`; false.
                batch_first: bool = false,
                /// Whether norms stand before attention and products, instead of behind; false.
                norm_first: bool = false,
                /// Whether products and norms have biases; true.
                bias: bool = true,
            }
        }
    };
}

/// The parts that a layer has once or more.
macro_rules! parts {
    ($($name:ident),*) => {$(
        impl $name {
            fn attention(&self, options: &Options) -> Result<MultiheadAttention> {
                MultiheadAttention::options(self.d_model, self.nhead)
                    .dropout(self.dropout)
                    .bias(self.bias)
                    .batch_first(self.batch_first)
                    .build(options.clone())
            }

            fn norm(&self, options: &Options) -> Result<LayerNorm> {
                let norm = LayerNorm::options(self.d_model).eps(self.layer_norm_eps).bias(self.bias);
                norm.build(options.clone())
            }

            fn linear(&self, from: usize, to: usize, options: &Options) -> Result<Linear> {
                Linear::options(from, to).bias(self.bias).build(options.clone())
            }
        }
    )*};
}
parts!(TransformerEncoderLayerOptions, TransformerDecoderLayerOptions);

transformer_settings! {
    /// The settings of a [`TransformerEncoderLayer`].
    TransformerEncoderLayerOptions {}
}

impl TransformerEncoderLayerOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the heads do not divide the width, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<TransformerEncoderLayer> {
        let options = options.into();
        Ok(TransformerEncoderLayer {
            self_attn: self.attention(&options)?,
            linear1: self.linear(self.d_model, self.dim_feedforward, &options)?,
            dropout: Dropout::new(self.dropout),
            linear2: self.linear(self.dim_feedforward, self.d_model, &options)?,
            norm1: self.norm(&options)?,
            norm2: self.norm(&options)?,
            dropout1: Dropout::new(self.dropout),
            dropout2: Dropout::new(self.dropout),
            activation: self.activation,
            norm_first: self.norm_first,
            hooks: Hooks::default(),
        })
    }
}

/// Self-attention and two products, each added to its input and normalised;
/// `torch.nn.TransformerEncoderLayer`. With a causal mask it is the layer of a language model.
///
/// ```
/// use wgrad::nn::{Attention, Layer, TransformerEncoderLayer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = TransformerEncoderLayer::options(8, 2).batch_first(true).norm_first(true).build(&device)?;
/// let x = Tensor::randn([1, 5, 8], &device)?;
/// assert_eq!(layer.forward_with(&x, &Attention::new().causal(true))?.shape(), [1, 5, 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerEncoderLayer {
    /// The attention.
    pub self_attn: MultiheadAttention,
    /// The first product.
    pub linear1: Linear,
    dropout: Dropout,
    /// The second product.
    pub linear2: Linear,
    /// The norm at the attention.
    pub norm1: LayerNorm,
    /// The norm at the products.
    pub norm2: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    #[module(skip)]
    activation: FeedForward,
    norm_first: bool,
    hooks: Hooks,
}

impl TransformerEncoderLayer {
    /// A layer with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayerOptions::build`].
    pub fn new(d_model: usize, nhead: usize, options: impl Into<Options>) -> Result<TransformerEncoderLayer> {
        TransformerEncoderLayer::options(d_model, nhead).build(options)
    }

    /// The settings, to be changed.
    pub fn options(d_model: usize, nhead: usize) -> TransformerEncoderLayerOptions {
        TransformerEncoderLayerOptions::new(d_model, nhead)
    }

    /// The output with masks of the attention.
    ///
    /// # Errors
    /// If input or masks do not fit.
    pub fn forward_with(&self, src: &Tensor, how: &Attention<'_>) -> Result<Tensor> {
        let attention = |x: &Tensor| self.dropout1.forward(&self.self_attn.forward_with(x, x, x, how)?.0);
        let products = |x: &Tensor| {
            let hidden = self.dropout.forward(&self.activation.forward(&self.linear1.forward(x)?)?)?;
            self.dropout2.forward(&self.linear2.forward(&hidden)?)
        };
        self.hooks.around(src, || {
            let x = beside(&self.norm1, self.norm_first, src, attention)?;
            beside(&self.norm2, self.norm_first, &x, products)
        })
    }
}

/// What a part of a layer gives, added to its input, with a norm before it or behind.
fn beside(
    norm: &LayerNorm,
    first: bool,
    x: &Tensor,
    part: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if first { x.add(part(&norm.forward(x)?)?) } else { norm.forward(&x.add(part(x)?)?) }
}

impl Layer for TransformerEncoderLayer {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, &Attention::new())
    }
}

transformer_settings! {
    /// The settings of a [`TransformerDecoderLayer`].
    TransformerDecoderLayerOptions {}
}

impl TransformerDecoderLayerOptions {
    /// The layer, on a device.
    ///
    /// # Errors
    /// If the heads do not divide the width, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<TransformerDecoderLayer> {
        let options = options.into();
        Ok(TransformerDecoderLayer {
            self_attn: self.attention(&options)?,
            multihead_attn: self.attention(&options)?,
            linear1: self.linear(self.d_model, self.dim_feedforward, &options)?,
            dropout: Dropout::new(self.dropout),
            linear2: self.linear(self.dim_feedforward, self.d_model, &options)?,
            norm1: self.norm(&options)?,
            norm2: self.norm(&options)?,
            norm3: self.norm(&options)?,
            dropout1: Dropout::new(self.dropout),
            dropout2: Dropout::new(self.dropout),
            dropout3: Dropout::new(self.dropout),
            activation: self.activation,
            norm_first: self.norm_first,
            hooks: Hooks::default(),
        })
    }
}

/// Self-attention, attention to what an encoder gives, and two products, each added to its input and
/// normalised; `torch.nn.TransformerDecoderLayer`.
///
/// ```
/// use wgrad::nn::{Attention, TransformerDecoderLayer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = TransformerDecoderLayer::options(8, 2).batch_first(true).build(&device)?;
/// let (tgt, memory) = (Tensor::randn([1, 3, 8], &device)?, Tensor::randn([1, 5, 8], &device)?);
/// let y = layer.forward_with(&tgt, &memory, &Attention::new().causal(true), &Attention::new())?;
/// assert_eq!(y.shape(), [1, 3, 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerDecoderLayer {
    /// The attention of the target to itself.
    pub self_attn: MultiheadAttention,
    /// The attention to the memory.
    pub multihead_attn: MultiheadAttention,
    /// The first product.
    pub linear1: Linear,
    dropout: Dropout,
    /// The second product.
    pub linear2: Linear,
    /// The norm at the target's attention.
    pub norm1: LayerNorm,
    /// The norm at the attention to the memory.
    pub norm2: LayerNorm,
    /// The norm at the products.
    pub norm3: LayerNorm,
    dropout1: Dropout,
    dropout2: Dropout,
    dropout3: Dropout,
    #[module(skip)]
    activation: FeedForward,
    norm_first: bool,
    hooks: Hooks,
}

impl TransformerDecoderLayer {
    /// A layer with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`TransformerDecoderLayerOptions::build`].
    pub fn new(d_model: usize, nhead: usize, options: impl Into<Options>) -> Result<TransformerDecoderLayer> {
        TransformerDecoderLayer::options(d_model, nhead).build(options)
    }

    /// The settings, to be changed.
    pub fn options(d_model: usize, nhead: usize) -> TransformerDecoderLayerOptions {
        TransformerDecoderLayerOptions::new(d_model, nhead)
    }

    /// The output for a target and what an encoder gave.
    ///
    /// # Errors
    /// If the inputs do not fit.
    pub fn forward(&self, tgt: &Tensor, memory: &Tensor) -> Result<Tensor> {
        self.forward_with(tgt, memory, &Attention::new(), &Attention::new())
    }

    /// The output with masks of both attentions.
    ///
    /// # Errors
    /// If inputs or masks do not fit.
    pub fn forward_with(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        to_target: &Attention<'_>,
        to_memory: &Attention<'_>,
    ) -> Result<Tensor> {
        let own = |x: &Tensor| self.dropout1.forward(&self.self_attn.forward_with(x, x, x, to_target)?.0);
        let other = |x: &Tensor| {
            self.dropout2.forward(&self.multihead_attn.forward_with(x, memory, memory, to_memory)?.0)
        };
        let products = |x: &Tensor| {
            let hidden = self.dropout.forward(&self.activation.forward(&self.linear1.forward(x)?)?)?;
            self.dropout3.forward(&self.linear2.forward(&hidden)?)
        };
        self.hooks.around(tgt, || {
            let x = beside(&self.norm1, self.norm_first, tgt, own)?;
            let x = beside(&self.norm2, self.norm_first, &x, other)?;
            beside(&self.norm3, self.norm_first, &x, products)
        })
    }
}

/// So many copies of a layer.
fn copies<L: Module + Clone>(layer: &L, count: usize) -> Result<Vec<L>> {
    (0..count).map(|_| layer.deep_copy()).collect()
}

/// Encoder layers one after the other; `torch.nn.TransformerEncoder`.
///
/// ```
/// use wgrad::nn::{Layer, LayerNorm, TransformerEncoder, TransformerEncoderLayer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let layer = TransformerEncoderLayer::new(8, 2, &device)?;
/// let encoder = TransformerEncoder::new(&layer, 2)?.norm(LayerNorm::new(8, &device)?);
/// assert_eq!(encoder.forward(&Tensor::randn([5, 1, 8], &device)?)?.shape(), [5, 1, 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerEncoder {
    /// The layers.
    pub layers: Vec<TransformerEncoderLayer>,
    /// A norm behind them.
    pub norm: Option<LayerNorm>,
    hooks: Hooks,
}

impl TransformerEncoder {
    /// So many copies of a layer, with weights of their own that are alike at first, as in PyTorch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(layer: &TransformerEncoderLayer, num_layers: usize) -> Result<TransformerEncoder> {
        Ok(TransformerEncoder { layers: copies(layer, num_layers)?, norm: None, hooks: Hooks::default() })
    }

    /// With a norm behind the layers.
    pub fn norm(mut self, norm: LayerNorm) -> Self {
        self.norm = Some(norm);
        self
    }

    /// The output with masks of all attentions.
    ///
    /// # Errors
    /// If input or masks do not fit.
    pub fn forward_with(&self, src: &Tensor, how: &Attention<'_>) -> Result<Tensor> {
        self.hooks.around(src, || {
            let x = self.layers.iter().try_fold(src.clone(), |x, layer| layer.forward_with(&x, how))?;
            self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
        })
    }
}

impl Layer for TransformerEncoder {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.forward_with(input, &Attention::new())
    }
}

/// Decoder layers one after the other; `torch.nn.TransformerDecoder`.
///
/// ```
/// use wgrad::nn::{TransformerDecoder, TransformerDecoderLayer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let decoder = TransformerDecoder::new(&TransformerDecoderLayer::new(8, 2, &device)?, 2)?;
/// let (tgt, memory) = (Tensor::ones([3, 1, 8], &device)?, Tensor::ones([5, 1, 8], &device)?);
/// assert_eq!(decoder.forward(&tgt, &memory)?.shape(), [3, 1, 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct TransformerDecoder {
    /// The layers.
    pub layers: Vec<TransformerDecoderLayer>,
    /// A norm behind them.
    pub norm: Option<LayerNorm>,
    hooks: Hooks,
}

impl TransformerDecoder {
    /// So many copies of a layer, with weights of their own that are alike at first, as in PyTorch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(layer: &TransformerDecoderLayer, num_layers: usize) -> Result<TransformerDecoder> {
        Ok(TransformerDecoder { layers: copies(layer, num_layers)?, norm: None, hooks: Hooks::default() })
    }

    /// With a norm behind the layers.
    pub fn norm(mut self, norm: LayerNorm) -> Self {
        self.norm = Some(norm);
        self
    }

    /// The output for a target and what an encoder gave.
    ///
    /// # Errors
    /// If the inputs do not fit.
    pub fn forward(&self, tgt: &Tensor, memory: &Tensor) -> Result<Tensor> {
        self.forward_with(tgt, memory, &Attention::new(), &Attention::new())
    }

    /// The output with masks of all attentions to the target, and to the memory.
    ///
    /// # Errors
    /// If inputs or masks do not fit.
    pub fn forward_with(
        &self,
        tgt: &Tensor,
        memory: &Tensor,
        to_target: &Attention<'_>,
        to_memory: &Attention<'_>,
    ) -> Result<Tensor> {
        self.hooks.around(tgt, || {
            let layers = &mut self.layers.iter();
            let x = layers
                .try_fold(tgt.clone(), |x, layer| layer.forward_with(&x, memory, to_target, to_memory))?;
            self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
        })
    }
}

transformer_settings! {
    /// The settings of a [`Transformer`].
    TransformerOptions {
        /// The number of encoder layers; 6.
        num_encoder_layers: usize = 6usize,
        /// The number of decoder layers; 6.
        num_decoder_layers: usize = 6usize
    }
}

/// Options of a layer with the settings of a whole.
macro_rules! of_whole {
    ($whole:ident, $layer:ident) => {
        $layer::options($whole.d_model, $whole.nhead)
            .dim_feedforward($whole.dim_feedforward)
            .dropout($whole.dropout)
            .activation($whole.activation)
            .layer_norm_eps($whole.layer_norm_eps)
            .batch_first($whole.batch_first)
            .norm_first($whole.norm_first)
            .bias($whole.bias)
    };
}

impl TransformerOptions {
    /// The model, on a device.
    ///
    /// # Errors
    /// If the heads do not divide the width, the device fails, or the dtype is not a float one.
    pub fn build(&self, options: impl Into<Options>) -> Result<Transformer> {
        let options = options.into();
        let encoder = of_whole!(self, TransformerEncoderLayer).build(options.clone())?;
        let decoder = of_whole!(self, TransformerDecoderLayer).build(options.clone())?;
        let norm = LayerNorm::options(self.d_model).eps(self.layer_norm_eps).bias(self.bias);
        let model = Transformer {
            encoder: TransformerEncoder::new(&encoder, self.num_encoder_layers)?
                .norm(norm.build(options.clone())?),
            decoder: TransformerDecoder::new(&decoder, self.num_decoder_layers)?.norm(norm.build(options)?),
        };
        for weight in model.parameters().iter().filter(|weight| weight.rank() > 1) {
            init::xavier_uniform_(weight, 1.0)?;
        }
        Ok(model)
    }
}

/// An encoder and a decoder that attends to it; `torch.nn.Transformer`.
///
/// ```
/// use wgrad::nn::{Attention, Transformer};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let model = Transformer::options(8, 2).num_encoder_layers(1).num_decoder_layers(1).build(&device)?;
/// let (src, tgt) = (Tensor::randn([5, 1, 8], &device)?, Tensor::randn([3, 1, 8], &device)?);
/// assert_eq!(model.forward(&src, &tgt)?.shape(), [3, 1, 8]);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Transformer {
    /// The encoder, with a norm behind it.
    pub encoder: TransformerEncoder,
    /// The decoder, with a norm behind it.
    pub decoder: TransformerDecoder,
}

impl Transformer {
    /// A model with PyTorch's defaults.
    ///
    /// # Errors
    /// As [`TransformerOptions::build`].
    pub fn new(d_model: usize, nhead: usize, options: impl Into<Options>) -> Result<Transformer> {
        Transformer::options(d_model, nhead).build(options)
    }

    /// The settings, to be changed.
    pub fn options(d_model: usize, nhead: usize) -> TransformerOptions {
        TransformerOptions::new(d_model, nhead)
    }

    /// The decoder's output for a target and what the encoder makes of a source.
    ///
    /// # Errors
    /// If the inputs do not fit.
    pub fn forward(&self, src: &Tensor, tgt: &Tensor) -> Result<Tensor> {
        self.forward_with(src, tgt, [&Attention::new(); 3])
    }

    /// The output with masks of the source's attentions, the target's, and those of the target to the source.
    ///
    /// # Errors
    /// If inputs or masks do not fit.
    pub fn forward_with(
        &self,
        src: &Tensor,
        tgt: &Tensor,
        [source, target, memory]: [&Attention<'_>; 3],
    ) -> Result<Tensor> {
        let encoded = self.encoder.forward_with(src, source)?;
        self.decoder.forward_with(tgt, &encoded, target, memory)
    }
}
