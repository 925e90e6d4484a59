//! Burgers' equation, solved by a network: first and second derivatives of its inputs are part of the loss.

use std::f64::consts::PI;

use anyhow::Result;
use wgrad::{GradOptions, Tensor, grad};

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS};

/// The gradients of a sum, which can be differentiated again.
fn slopes(y: &Tensor, x: &[&Tensor]) -> wgrad::Result<Vec<Tensor>> {
    let options = GradOptions::new().grad_outputs([Some(y.ones_like()?)]).create_graph(true);
    Ok(grad(&[y], x, options)?.into_iter().flatten().collect())
}

pub fn train(run: &mut Run) -> Result<()> {
    let (inside, begin) = (run.data("inside")?, run.data("begin")?);
    let layers = [Linear::new(run, "0")?, Linear::new(run, "2")?, Linear::new(run, "4")?];
    let mut optimizer = Adam::new(run.parameters(), 0.01)?;
    let u = |x: &Tensor, t: &Tensor| {
        let hidden = layers[0].forward(&Tensor::cat(&[x, t], 1)?)?.tanh()?;
        layers[2].forward(&layers[1].forward(&hidden)?.tanh()?)
    };
    let leaf = |column: isize| inside.narrow(1, column, 1)?.deep_clone()?.requires_grad_(true);
    let (x, t) = (leaf(0)?, leaf(1)?);
    for _ in 0..STEPS {
        optimizer.zero_grad();
        let value = u(&x, &t)?;
        let first = slopes(&value, &[&x, &t])?;
        let (u_x, u_t) = (&first[0], &first[1]);
        let u_xx = slopes(u_x, &[&x])?.remove(0);
        let residual = (u_t + (&value * u_x)? - (&u_xx * 0.1)?)?;
        let start = (u(&begin, &begin.zeros_like()?)? + (&begin * PI)?.sin()?)?;
        let later = ((&begin + 1.0)? / 2.0)?;
        let sides = [u(&begin.full_like(-1.0)?, &later)?, u(&begin.full_like(1.0)?, &later)?];
        let edge = Tensor::cat(&[&sides[0], &sides[1]], 0)?;
        let loss = (residual.pow(2.0)?.mean()? + start.pow(2.0)?.mean()? + edge.pow(2.0)?.mean()?)?;
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
