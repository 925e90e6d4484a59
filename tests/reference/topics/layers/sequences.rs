//! Attention, transformers and recurrent layers.

use anyhow::{Result, bail};
use wgrad::Tensor;
use wgrad::nn::*;

use super::options::{Args, set};
use super::{Built, Call, Row, built, giving};
use crate::node::Node;

/// The settings of any transformer layer.
macro_rules! transformer {
    ($layer:ident, $a:ident) => {{
        let o = $layer::options($a.size("d_model")?, $a.size("nhead")?);
        let mut o = set!(
            o, $a, dim_feedforward: size, dropout: float, layer_norm_eps: float, batch_first: bool,
            norm_first: bool, bias: bool
        );
        if let Some(activation) = $a.node.find("activation") {
            o = o.activation(match activation.text()? {
                "relu" => FeedForward::ReLU,
                "gelu" => FeedForward::GELU,
                _ => return activation.unknown(),
            });
        }
        o
    }};
}

fn encoder_layer(a: &Args<'_, '_>) -> Result<TransformerEncoderLayer> {
    Ok(transformer!(TransformerEncoderLayer, a).build(a.device)?)
}

fn decoder_layer(a: &Args<'_, '_>) -> Result<TransformerDecoderLayer> {
    Ok(transformer!(TransformerDecoderLayer, a).build(a.device)?)
}

/// The norm behind a stack.
fn norm(a: &Args<'_, '_>) -> Result<Option<LayerNorm>> {
    if a.node.find("norm").is_none_or(|node| !node.is_object()) {
        a.read("norm", |node| node.optional(|node| node.unknown::<()>()))?;
        return Ok(None);
    }
    let (name, a) = a.nested("norm")?;
    if name != "LayerNorm" {
        bail!("a norm {name} is not known");
    }
    let o = LayerNorm::options(a.sizes("normalized_shape")?);
    Ok(Some(set!(o, a, eps: float, elementwise_affine: bool, bias: bool).build(a.device)?))
}

/// A call's masks of one attention, by their names.
fn masks<'c>(call: &'c Call<'_>, mask: &str, padding: &str, causal: &str) -> Result<Attention<'c>> {
    let mut how = Attention::new().causal(call.flag(causal, false)?);
    if let Some(mask) = call.find(mask) {
        how = how.mask(mask);
    }
    if let Some(padding) = call.find(padding) {
        how = how.padding(padding);
    }
    Ok(how)
}

fn multihead_attention(a: &Args<'_, '_>) -> Result<Built> {
    let o = MultiheadAttention::options(a.size("embed_dim")?, a.size("num_heads")?);
    let o = set!(
        o, a, dropout: float, bias: bool, add_bias_kv: bool, add_zero_attn: bool, kdim: size, vdim: size,
        batch_first: bool
    );
    built(o.build(a.device)?, |layer, call| {
        let weights = match (call.flag("need_weights", true)?, call.flag("average_attn_weights", true)?) {
            (false, _) => AttentionWeights::Hidden,
            (true, true) => AttentionWeights::Mean,
            (true, false) => AttentionWeights::Heads,
        };
        let how = masks(call, "attn_mask", "key_padding_mask", "is_causal")?.weights(weights);
        let (query, key, value) = (call.input("query")?, call.input("key")?, call.input("value")?);
        let (output, weights) = layer.forward_with(query, key, value, &how)?;
        Ok(vec![Some(output), weights])
    })
}

/// A call of a decoder or one of its layers: the masks to the target and to the memory.
macro_rules! decoded {
    ($layer:ident, $call:ident) => {{
        let own = masks($call, "tgt_mask", "tgt_key_padding_mask", "tgt_is_causal")?;
        let other = masks($call, "memory_mask", "memory_key_padding_mask", "memory_is_causal")?;
        Ok($layer.forward_with($call.input("tgt")?, $call.input("memory")?, &own, &other)?)
    }};
}

/// A recurrent layer of options that are read already.
macro_rules! recurrent {
    ($options:expr, $a:ident, |$output:ident, $state:ident| $flat:expr) => {{
        let o = set!(
            $options, $a, num_layers: size, bias: bool, batch_first: bool, dropout: float, bidirectional: bool
        );
        built(o.build($a.device)?, |layer, call| {
            let mut given = Sequences::new();
            if let Some(hidden) = call.find("hx").or(call.find("hx.0")) {
                given = given.hidden(hidden);
            }
            if let Some(cell) = call.find("hx.1") {
                given = given.cell(cell);
            }
            let packed = call.packed.as_ref();
            let lengths = packed.map(|packed| packed.get("lengths")?.list(Node::size)).transpose()?;
            if let Some(packed) = packed {
                packed.get("batch_first")?.bool()?;
            }
            if let Some(lengths) = &lengths {
                given = given.lengths(lengths);
            }
            let ($output, $state) = layer.forward_with(call.input("input")?, &given)?;
            Ok($flat)
        })
    }};
}

macro_rules! cell {
    ($layer:ident, $a:ident) => {{
        set!($layer::options($a.size("input_size")?, $a.size("hidden_size")?), $a, bias: bool)
    }};
}

/// Whether an RNN uses relu.
fn relu(a: &Args<'_, '_>) -> Result<bool> {
    let relu = a.read("nonlinearity", |node| match node.text()? {
        "tanh" => Ok(false),
        "relu" => Ok(true),
        _ => node.unknown(),
    })?;
    Ok(relu.unwrap_or(false))
}

fn both(a: Tensor, b: Tensor) -> Vec<Option<Tensor>> {
    vec![Some(a), Some(b)]
}

pub const LAYERS: &[Row] = &[
    ("MultiheadAttention", multihead_attention),
    ("TransformerEncoderLayer", |a| {
        giving(encoder_layer(a)?, |layer, call| {
            let how = masks(call, "src_mask", "src_key_padding_mask", "is_causal")?;
            Ok(layer.forward_with(call.input("src")?, &how)?)
        })
    }),
    ("TransformerDecoderLayer", |a| giving(decoder_layer(a)?, |layer, call| decoded!(layer, call))),
    ("TransformerEncoder", |a| {
        let (name, inner) = a.nested("encoder_layer")?;
        if name != "TransformerEncoderLayer" {
            bail!("an encoder of {name} is not known");
        }
        let mut stack = TransformerEncoder::new(&encoder_layer(&inner)?, a.size("num_layers")?)?;
        if let Some(norm) = norm(a)? {
            stack = stack.norm(norm);
        }
        giving(stack, |layer, call| {
            let how = masks(call, "mask", "src_key_padding_mask", "is_causal")?;
            Ok(layer.forward_with(call.input("src")?, &how)?)
        })
    }),
    ("TransformerDecoder", |a| {
        let (name, inner) = a.nested("decoder_layer")?;
        if name != "TransformerDecoderLayer" {
            bail!("a decoder of {name} is not known");
        }
        let mut stack = TransformerDecoder::new(&decoder_layer(&inner)?, a.size("num_layers")?)?;
        if let Some(norm) = norm(a)? {
            stack = stack.norm(norm);
        }
        giving(stack, |layer, call| decoded!(layer, call))
    }),
    ("Transformer", |a| {
        let o = set!(transformer!(Transformer, a), a, num_encoder_layers: size, num_decoder_layers: size);
        giving(o.build(a.device)?, |layer, call| {
            let masks = [
                &masks(call, "src_mask", "src_key_padding_mask", "src_is_causal")?,
                &masks(call, "tgt_mask", "tgt_key_padding_mask", "tgt_is_causal")?,
                &masks(call, "memory_mask", "memory_key_padding_mask", "memory_is_causal")?,
            ];
            Ok(layer.forward_with(call.input("src")?, call.input("tgt")?, masks)?)
        })
    }),
    ("RNN", |a| {
        let o = RNN::options(a.size("input_size")?, a.size("hidden_size")?).relu(relu(a)?);
        recurrent!(o, a, |output, state| both(output, state))
    }),
    ("LSTM", |a| {
        let o = set!(LSTM::options(a.size("input_size")?, a.size("hidden_size")?), a, proj_size: size);
        recurrent!(o, a, |output, state| vec![Some(output), Some(state.0), Some(state.1)])
    }),
    ("GRU", |a| {
        let o = GRU::options(a.size("input_size")?, a.size("hidden_size")?);
        recurrent!(o, a, |output, state| both(output, state))
    }),
    ("RNNCell", |a| {
        giving(cell!(RNNCell, a).relu(relu(a)?).build(a.device)?, |layer, call| {
            Ok(layer.forward(call.input("input")?, call.find("hx"))?)
        })
    }),
    ("GRUCell", |a| {
        giving(cell!(GRUCell, a).build(a.device)?, |layer, call| {
            Ok(layer.forward(call.input("input")?, call.find("hx"))?)
        })
    }),
    ("LSTMCell", |a| {
        built(cell!(LSTMCell, a).build(a.device)?, |layer, call| {
            let state = call.find("hx.0").zip(call.find("hx.1"));
            let (hidden, cell) = layer.forward(call.input("input")?, state)?;
            Ok(both(hidden, cell))
        })
    }),
];
