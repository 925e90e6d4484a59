//! A normalizing flow of two coupling layers: the exact likelihood of its data, halves exchanged in between.

use std::f64::consts::PI;

use anyhow::Result;
use wgrad::Tensor;

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS, TURNS};

pub fn train(run: &mut Run) -> Result<()> {
    let x = run.data("x")?;
    let mut layers = Vec::new();
    for i in 0..2 {
        layers.push([Linear::new(run, &format!("layer{i}.0"))?, Linear::new(run, &format!("layer{i}.2"))?]);
    }
    let mut optimizer = Adam::new(run.parameters(), 0.01)?;
    for step in 0..STEPS {
        let mut z = x.select(0, (step % TURNS) as isize)?;
        let mut volume = Tensor::zeros([z.size(0)?], (run.dtype, &run.device))?;
        for layer in &layers {
            let halves = z.split(2, 1)?;
            let parameters = layer[1].forward(&layer[0].forward(&halves[0])?.elu(1.0)?)?.chunk(2, 1)?;
            let scale = parameters[0].tanh()?;
            let changed = (&halves[1] * scale.exp()? + &parameters[1])?;
            z = Tensor::cat(&[&changed, &halves[0]], 1)?;
            volume = (volume + scale.sum_dim(1, false)?)?;
        }
        let likelihood = ((z.square()? + (2.0 * PI).ln())? * -0.5)?.sum_dim(1, false)?;
        let loss = (likelihood + volume)?.mean()?.neg()?;
        optimizer.zero_grad();
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
