//! What users write first when a library has no layers and no optimisers: a linear layer, layer norm, SGD, Adam, clipped gradients.

use anyhow::Result;
use wgrad::{Tensor, no_grad};

use crate::run::Run;

/// `nn.Linear`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
}

impl Linear {
    pub fn new(run: &mut Run, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: run.parameter(&format!("{name}.weight"))?,
            bias: run.parameter_if_any(&format!("{name}.bias"))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

/// `nn.LayerNorm` over the last dim.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub fn new(run: &mut Run, name: &str) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: run.parameter(&format!("{name}.weight"))?,
            bias: run.parameter(&format!("{name}.bias"))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
        x.layer_norm(self.weight.shape(), Some(&self.weight), Some(&self.bias), 1e-5)
    }
}

pub fn zero_grad(parameters: &[Tensor]) {
    parameters.iter().for_each(Tensor::zero_grad);
}

/// `nn.utils.clip_grad_norm_`.
pub fn clip_grad_norm(parameters: &[Tensor], most: f64) -> wgrad::Result<()> {
    no_grad(|| {
        let grads: Vec<Tensor> = parameters.iter().filter_map(Tensor::grad).collect();
        let norms =
            grads.iter().map(|grad| grad.vector_norm(2.0, (), false)).collect::<wgrad::Result<Vec<_>>>()?;
        let total = Tensor::stack(&norms.iter().collect::<Vec<_>>(), 0)?.vector_norm(2.0, (), false)?;
        let factor = (total + 1e-6)?.reciprocal()?.mul(most)?.clamp(None, 1.0)?;
        for grad in &grads {
            grad.mul_(&factor)?;
        }
        Ok(())
    })
}

/// `optim.SGD`.
pub struct Sgd {
    pub parameters: Vec<Tensor>,
    pub rate: f64,
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
    velocities: Vec<Option<Tensor>>,
}

impl Sgd {
    pub fn new(parameters: Vec<Tensor>, rate: f64, momentum: f64) -> Sgd {
        let velocities = vec![None; parameters.len()];
        Sgd { parameters, rate, momentum, nesterov: false, weight_decay: 0.0, velocities }
    }

    pub fn step(&mut self) -> wgrad::Result<()> {
        no_grad(|| {
            for (parameter, velocity) in self.parameters.iter().zip(&mut self.velocities) {
                let Some(mut grad) = parameter.grad() else { continue };
                if self.weight_decay != 0.0 {
                    grad = grad.add_scaled(parameter, self.weight_decay)?;
                }
                match velocity {
                    Some(velocity) => velocity.mul_(self.momentum)?.add_(&grad)?,
                    None => velocity.insert(grad.deep_clone()?).clone(),
                };
                let velocity = velocity.as_ref().unwrap_or(&grad);
                let way =
                    if self.nesterov { grad.add_scaled(velocity, self.momentum)? } else { velocity.clone() };
                parameter.sub_((way * self.rate)?)?;
            }
            Ok(())
        })
    }
}

/// `optim.Adam`, `optim.AdamW`, and the form that keeps the largest second moment.
pub struct Adam {
    pub parameters: Vec<Tensor>,
    pub rate: f64,
    pub betas: [f64; 2],
    /// A weight decay for each parameter, or for none.
    pub weight_decay: Vec<f64>,
    means: Vec<Tensor>,
    squares: Vec<Tensor>,
    largest: Option<Vec<Tensor>>,
    steps: i32,
}

impl Adam {
    pub fn new(parameters: Vec<Tensor>, rate: f64) -> wgrad::Result<Adam> {
        let zeros = || parameters.iter().map(Tensor::zeros_like).collect::<wgrad::Result<Vec<_>>>();
        let (means, squares) = (zeros()?, zeros()?);
        let weight_decay = vec![0.0; parameters.len()];
        Ok(Adam {
            parameters,
            rate,
            betas: [0.9, 0.999],
            weight_decay,
            means,
            squares,
            largest: None,
            steps: 0,
        })
    }

    pub fn with_largest(mut self) -> wgrad::Result<Adam> {
        self.largest = Some(self.parameters.iter().map(Tensor::zeros_like).collect::<wgrad::Result<_>>()?);
        Ok(self)
    }

    pub fn zero_grad(&self) {
        zero_grad(&self.parameters);
    }

    /// What a step changes beside the parameters.
    pub fn state(&self) -> impl Iterator<Item = &Tensor> {
        self.means.iter().chain(&self.squares)
    }

    pub fn step(&mut self) -> wgrad::Result<()> {
        self.steps += 1;
        let [a, b] = self.betas;
        let corrections = [1.0 - a.powi(self.steps), 1.0 - b.powi(self.steps)];
        no_grad(|| {
            for (i, parameter) in self.parameters.iter().enumerate() {
                let Some(grad) = parameter.grad() else { continue };
                if self.weight_decay[i] != 0.0 {
                    parameter.mul_(1.0 - self.rate * self.weight_decay[i])?;
                }
                self.means[i].mul_(a)?.add_((&grad * (1.0 - a))?)?;
                self.squares[i].mul_(b)?.add_((grad.square()? * (1.0 - b))?)?;
                let mut square = self.squares[i].clone();
                if let Some(largest) = &self.largest {
                    square = largest[i].copy_(&largest[i].maximum(&square)?)?;
                }
                let size = ((square.sqrt()? / corrections[1].sqrt())? + 1e-8)?;
                parameter.sub_(((&self.means[i] / size)? * (self.rate / corrections[0]))?)?;
            }
            Ok(())
        })
    }
}
