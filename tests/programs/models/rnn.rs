//! A GRU learns letters with truncated backpropagation: the hidden state goes on from piece to piece, its history doesn't.

use anyhow::Result;
use wgrad::Tensor;

use crate::parts::{Linear, Sgd, clip_grad_norm, zero_grad};
use crate::run::{Run, STEPS, TURNS};

const LENGTH: usize = 6;

/// `nn.GRU` with one layer, batch first.
struct Gru {
    input: [Tensor; 2],
    hidden: [Tensor; 2],
}

impl Gru {
    fn new(run: &mut Run) -> Result<Gru> {
        let mut get = |name: &str| run.parameter(&format!("gru.{name}"));
        let weights = [get("weight_ih_l0")?, get("weight_hh_l0")?];
        let biases = [get("bias_ih_l0")?, get("bias_hh_l0")?];
        let ([input, hidden], [input_bias, hidden_bias]) = (weights, biases);
        Ok(Gru { input: [input, input_bias], hidden: [hidden, hidden_bias] })
    }

    fn forward(&self, x: &Tensor, hidden: &Tensor) -> wgrad::Result<(Tensor, Tensor)> {
        let (mut hidden, mut outputs) = (hidden.clone(), Vec::new());
        for x in x.unbind(1)? {
            let a = x.linear(&self.input[0], &self.input[1])?.chunk(3, 1)?;
            let b = hidden.linear(&self.hidden[0], &self.hidden[1])?.chunk(3, 1)?;
            let reset = (&a[0] + &b[0])?.sigmoid()?;
            let keep = (&a[1] + &b[1])?.sigmoid()?;
            let new = (&a[2] + (reset * &b[2])?)?.tanh()?;
            hidden = ((1.0 - &keep)? * new + (&keep * &hidden)?)?;
            outputs.push(hidden.clone());
        }
        Ok((Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 1)?, hidden))
    }
}

pub fn train(run: &mut Run) -> Result<()> {
    let text = run.data("text")?;
    let embed = run.parameter("embed.weight")?;
    let gru = Gru::new(run)?;
    let head = Linear::new(run, "head")?;
    let parameters = run.parameters();
    let mut optimizer = Sgd::new(parameters.clone(), 0.5, 0.9);
    let mut hidden = Tensor::zeros([8, 16], (run.dtype, &run.device))?;
    for step in 0..STEPS {
        let start = (step % TURNS * LENGTH) as isize;
        if start == 0 {
            hidden = Tensor::zeros([8, 16], (run.dtype, &run.device))?;
        }
        zero_grad(&parameters);
        let letters = text.narrow(1, start, LENGTH)?.embedding(&embed, None)?;
        let (out, last) = gru.forward(&letters, &hidden.detach())?;
        hidden = last;
        let next = text.narrow(1, start + 1, LENGTH)?;
        let loss = head.forward(&out)?.flatten(0, 1)?.cross_entropy(&next.flatten(0, -1)?)?;
        loss.backward()?;
        clip_grad_norm(&parameters, 1.0)?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
