//! A network is the velocity of a spiral; the gradient goes through six steps of Runge and Kutta.

use anyhow::Result;
use wgrad::Tensor;

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS, TURNS};

pub fn train(run: &mut Run) -> Result<()> {
    let (start, path) = (run.data("start")?, run.data("path")?);
    let layers = [Linear::new(run, "0")?, Linear::new(run, "2")?];
    let velocity = |y: &Tensor| layers[1].forward(&layers[0].forward(&y.pow(3)?)?.tanh()?);
    let mut optimizer = Adam::new(run.parameters(), 0.01)?;
    let h = 0.25;
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        let (mut y, mut states) = (start.select(0, turn)?, Vec::new());
        for _ in 0..6 {
            let k1 = velocity(&y)?;
            let k2 = velocity(&(&y + &k1 * (h / 2.0))?)?;
            let k3 = velocity(&(&y + &k2 * (h / 2.0))?)?;
            let k4 = velocity(&(&y + &k3 * h)?)?;
            y = (y + ((k1 + (k2 * 2.0)? + (k3 * 2.0)? + k4)? * (h / 6.0))?)?;
            states.push(y.clone());
        }
        let states = Tensor::stack(&states.iter().collect::<Vec<_>>(), 1)?;
        let loss = (states - path.select(0, turn)?)?.abs()?.mean()?;
        optimizer.zero_grad();
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
