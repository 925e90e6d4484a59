//! A generator and a critic whose gradient is kept near length 1: backward through a backward.

use anyhow::Result;
use wgrad::{GradOptions, Tensor, grad};

use crate::parts::{Adam, LayerNorm, Linear};
use crate::run::{Run, STEPS, TURNS};

struct Critic {
    layers: [Linear; 3],
    norm: LayerNorm,
}

impl Critic {
    fn forward(&self, x: &Tensor) -> wgrad::Result<Tensor> {
        let x = self.norm.forward(&self.layers[0].forward(x)?)?.leaky_relu(0.2)?;
        let x = self.layers[1].forward(&x)?.leaky_relu(0.2)?;
        self.layers[2].forward(&x)
    }
}

pub fn train(run: &mut Run) -> Result<()> {
    let (real, noise, between) = (run.data("real")?, run.data("noise")?, run.data("between")?);
    let first = Linear::new(run, "critic.0")?;
    let norm = LayerNorm::new(run, "critic.1")?;
    let critic =
        Critic { layers: [first, Linear::new(run, "critic.3")?, Linear::new(run, "critic.5")?], norm };
    let mut critic_optimizer = Adam::new(run.parameters(), 5e-3)?;
    let of_critic = run.parameters().len();
    let layers = [Linear::new(run, "generator.0")?, Linear::new(run, "generator.2")?];
    let generator = |noise: &Tensor| layers[1].forward(&layers[0].forward(noise)?.tanh()?);
    let mut generator_optimizer = Adam::new(run.parameters().split_off(of_critic), 5e-3)?;
    critic_optimizer.betas = [0.5, 0.9];
    generator_optimizer.betas = [0.5, 0.9];
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        let (real, noise, between) =
            (real.select(0, turn)?, noise.select(0, turn)?, between.select(0, turn)?);
        let mut critic_loss = None;
        for i in 0..2 {
            let fake = generator(&noise.select(0, i)?)?.detach();
            let mixed = (&real + between.select(0, i)? * (&fake - &real))?.requires_grad_(true)?;
            let sum = critic.forward(&mixed)?.sum()?;
            let slope = grad(&[&sum], &[&mixed], GradOptions::new().create_graph(true))?
                .remove(0)
                .expect("the critic depends on its input");
            let penalty = (slope.norm(2.0, 1, false)? - 1.0)?.pow(2.0)?.mean()?;
            let loss = (critic.forward(&fake)?.mean()? - critic.forward(&real)?.mean()? + (penalty * 10.0)?)?;
            critic_optimizer.zero_grad();
            loss.backward()?;
            critic_optimizer.step()?;
            critic_loss = Some(loss.detach());
        }
        let generator_loss = critic.forward(&generator(&noise.select(0, 2)?)?)?.mean()?.neg()?;
        generator_optimizer.zero_grad();
        generator_loss.backward()?;
        generator_optimizer.step()?;
        run.report(&(critic_loss.expect("two steps were taken") + generator_loss.detach())?)?;
    }
    Ok(())
}
