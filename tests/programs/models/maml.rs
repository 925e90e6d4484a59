//! A network that learns to learn: the outer gradient goes through two inner steps of gradient descent.

use anyhow::Result;
use wgrad::{GradOptions, Reduction, Tensor, grad};

use crate::parts::Adam;
use crate::run::{Run, STEPS, TURNS};

fn forward(x: &Tensor, w: &[Tensor]) -> wgrad::Result<Tensor> {
    x.linear(&w[0], &w[1])?.tanh()?.linear(&w[2], &w[3])?.tanh()?.linear(&w[4], &w[5])
}

pub fn train(run: &mut Run) -> Result<()> {
    let (x, y) = (run.data("x")?, run.data("y")?);
    let weights = (0..6).map(|i| run.parameter(&format!("weight.{i}"))).collect::<Result<Vec<_>>>()?;
    let mut optimizer = Adam::new(weights.clone(), 0.005)?;
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        optimizer.zero_grad();
        let mut total = Tensor::zeros((), (run.dtype, &run.device))?;
        for task in 0..3 {
            let (x, y) = (x.select(0, turn)?.select(0, task)?, y.select(0, turn)?.select(0, task)?);
            let (seen, unseen) = (x.split(6, 0)?, y.split(6, 0)?);
            let mut fast = weights.clone();
            for _ in 0..2 {
                let inner = forward(&seen[0], &fast)?.mse_loss(&unseen[0], Reduction::Mean)?;
                let inputs: Vec<&Tensor> = fast.iter().collect();
                let grads = grad(&[&inner], &inputs, GradOptions::new().create_graph(true))?;
                fast = fast
                    .iter()
                    .zip(grads.iter().flatten())
                    .map(|(weight, grad)| weight - (grad * 0.05)?)
                    .collect::<wgrad::Result<_>>()?;
            }
            total = (total + forward(&seen[1], &fast)?.mse_loss(&unseen[1], Reduction::Mean)?)?;
        }
        let loss = (total / 3.0)?;
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
