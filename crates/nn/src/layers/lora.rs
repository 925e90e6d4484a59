//! Large products that are trained by small ones beside them.

use wgrad_autograd::{Error, Result, Tensor, no_grad};

use super::dropout::Dropout;
use super::linear::Linear;
use super::parameter::parameter;
use crate::init::{self, Kaiming, Nonlinearity};
use crate::{Hooks, Layer, Module};

/// A product whose weight stays as it is, beside two narrow ones that are trained:
/// `base(x) + x @ A.T @ B.T * alpha / rank`, after Hu et al. (2021). At first B is 0, so that nothing
/// changes.
///
/// ```
/// use wgrad::nn::{Layer, Linear, LoRA, Module};
/// use wgrad::{Device, Tensor};
/// let device = Device::cpu();
/// let base = Linear::new(64, 32, &device)?;
/// let layer = LoRA::new(&base, 4, 8.0)?;
/// let trained: usize = layer.parameters().iter().filter(|p| p.requires_grad()).map(Tensor::numel).sum();
/// assert_eq!(trained, 4 * 64 + 32 * 4);
/// let x = Tensor::ones([2, 64], &device)?;
/// let off = layer.forward(&x)?.sub(layer.merged()?.forward(&x)?)?.abs()?.max()?.item::<f32>()?;
/// assert!(off < 1e-5);
/// # Ok::<(), wgrad::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct LoRA {
    /// The product that stays as it is.
    pub base_layer: Linear,
    /// `[rank, in_features]`.
    #[module(rename = "lora_A.weight")]
    pub a: Tensor,
    /// `[out_features, rank]`, 0 at first.
    #[module(rename = "lora_B.weight")]
    pub b: Tensor,
    scale: f64,
    dropout: Dropout,
    hooks: Hooks,
}

impl LoRA {
    /// Beside a layer, whose own parameters no longer require grad.
    ///
    /// # Errors
    /// If the rank is 0, or the device fails.
    pub fn new(base: &Linear, rank: usize, alpha: f64) -> Result<LoRA> {
        let &[outputs, inputs] = base.weight.shape() else {
            let reason = "is not that of a linear layer's weight".to_owned();
            return Err(Error::Shape { op: "LoRA", shape: base.weight.shape().to_vec(), reason });
        };
        if rank == 0 {
            return Err(Error::Argument { op: "LoRA", reason: "the rank must be at least 1".into() });
        }
        let options = (base.weight.dtype(), base.weight.device()).into();
        let spread = Kaiming::new().nonlinearity(Nonlinearity::LeakyReLU(5f64.sqrt()));
        let (a, b) = (
            parameter([rank, inputs], &options, |x| init::kaiming_uniform_(x, &spread))?,
            parameter([outputs, rank], &options, init::zeros_)?,
        );
        base.requires_grad_(false)?;
        Ok(LoRA {
            base_layer: base.clone(),
            a,
            b,
            scale: alpha / rank as f64,
            dropout: Dropout::new(0.0),
            hooks: Hooks::default(),
        })
    }

    /// With what probability elements of the narrow products' input are left out in training; 0.
    pub fn dropout(mut self, p: f64) -> Self {
        self.dropout = Dropout::new(p);
        self
    }

    /// One layer that computes the same.
    ///
    /// # Errors
    /// If the device fails.
    pub fn merged(&self) -> Result<Linear> {
        no_grad(|| {
            let weight = self.base_layer.weight.add(self.b.matmul(&self.a)?.mul(self.scale)?)?;
            let bias = self.base_layer.bias.as_ref().map(Tensor::deep_clone).transpose()?;
            Ok(Linear::with_weight(&weight, bias.as_ref()))
        })
    }
}

impl Layer for LoRA {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        self.hooks.around(input, || {
            let narrow = self.dropout.forward(input)?.linear(&self.a, None)?.linear(&self.b, None)?;
            self.base_layer.forward(input)?.add(narrow.mul(self.scale)?)
        })
    }
}
