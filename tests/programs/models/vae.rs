//! A variational autoencoder of binary patterns.

use anyhow::Result;
use wgrad::Reduction;

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS, TURNS};

pub fn train(run: &mut Run) -> Result<()> {
    let (patterns, noise) = (run.data("patterns")?, run.data("noise")?);
    let encoder = Linear::new(run, "encoder")?;
    let (mean_of, variance_of) = (Linear::new(run, "mean")?, Linear::new(run, "variance")?);
    let decoder = [Linear::new(run, "decoder.0")?, Linear::new(run, "decoder.2")?];
    let mut optimizer = Adam::new(run.parameters(), 0.01)?;
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        let x = patterns.select(0, turn)?;
        let count = x.size(0)? as f64;
        let hidden = encoder.forward(&x)?.relu()?;
        let (mean, log_variance) = (mean_of.forward(&hidden)?, variance_of.forward(&hidden)?);
        let latent = (&mean + noise.select(0, turn)? * (&log_variance * 0.5)?.exp()?)?;
        let out = decoder[1].forward(&decoder[0].forward(&latent)?.relu()?)?;
        let reconstruction = (out.binary_cross_entropy_with_logits(&x, None, None, Reduction::Sum)? / count)?;
        let divergence = ((1.0 + &log_variance) - mean.pow(2.0)? - log_variance.exp()?)?;
        let loss = (reconstruction + (divergence.sum()? * -0.5)? / count)?;
        optimizer.zero_grad();
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
