//! A causal transformer whose output layer is its embedding, with weight decay for matrices, a schedule, and clipped gradients.

use std::f64::consts::PI;

use anyhow::Result;
use wgrad::Tensor;

use crate::parts::{Adam, LayerNorm, Linear, clip_grad_norm};
use crate::run::{Run, STEPS, TURNS};

const WIDTH: usize = 16;
const HEADS: usize = 2;
const LENGTH: usize = 12;
const BATCH: usize = 4;

struct Block {
    norms: [LayerNorm; 2],
    attention: Linear,
    mixed: Linear,
    wide: Linear,
    narrow: Linear,
}

impl Block {
    fn new(run: &mut Run, name: &str) -> Result<Block> {
        let path = |part: &str| format!("{name}.{part}");
        Ok(Block {
            norms: [LayerNorm::new(run, &path("norm1"))?, LayerNorm::new(run, &path("norm2"))?],
            attention: Linear::new(run, &path("attention"))?,
            mixed: Linear::new(run, &path("mixed"))?,
            wide: Linear::new(run, &path("wide"))?,
            narrow: Linear::new(run, &path("narrow"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
        let (batch, length) = (x.size(0)?, x.size(1)?);
        let parts = self.attention.forward(&self.norms[0].forward(x)?)?.chunk(3, -1)?;
        let heads = |x: &Tensor| x.reshape([batch, length, HEADS, WIDTH / HEADS])?.transpose(1, 2);
        let (query, key, value) = (heads(&parts[0])?, heads(&parts[1])?, heads(&parts[2])?);
        let attended = query.scaled_dot_product_attention(&key, &value, None, true, None, false)?;
        let attended = attended.transpose(1, 2)?.reshape([batch, length, WIDTH])?;
        let x = (x + self.mixed.forward(&attended)?)?;
        let wide = self.wide.forward(&self.norms[1].forward(&x)?)?.gelu()?;
        &x + self.narrow.forward(&wide)?
    }
}

pub fn train(run: &mut Run) -> Result<()> {
    let text = run.data("text")?;
    let (embed, places) = (run.parameter("embed.weight")?, run.parameter("places.weight")?);
    let blocks = [Block::new(run, "blocks.0")?, Block::new(run, "blocks.1")?];
    let norm = LayerNorm::new(run, "norm")?;
    let parameters = run.parameters();
    let mut optimizer = Adam::new(parameters.clone(), 0.0)?;
    optimizer.betas = [0.9, 0.95];
    optimizer.weight_decay = parameters.iter().map(|p| if p.rank() > 1 { 0.1 } else { 0.0 }).collect();
    for step in 0..STEPS {
        let falling = 0.5 * (1.0 + (PI * step as f64 / STEPS as f64).cos());
        optimizer.rate = 0.01 * ((step + 1) as f64 / 5.0).min(1.0) * falling;
        let letters = text.narrow(0, (step % TURNS * BATCH) as isize, BATCH)?;
        let seen = letters.narrow(1, 0, LENGTH)?;
        let order = Tensor::arange(0, LENGTH as i64, 1, &run.device)?;
        let mut x = (seen.embedding(&embed, None)? + order.embedding(&places, None)?)?;
        for block in &blocks {
            x = block.forward(&x)?;
        }
        let scores = norm.forward(&x)?.matmul(&embed.t()?)?;
        let loss = scores.flatten(0, 1)?.cross_entropy(&letters.narrow(1, 1, LENGTH)?.flatten(0, -1)?)?;
        optimizer.zero_grad();
        loss.backward()?;
        clip_grad_norm(&parameters, 1.0)?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
