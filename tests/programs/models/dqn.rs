//! Q-learning: a target network that follows by copies, chosen actions gathered, a robust loss.

use anyhow::Result;
use wgrad::{Reduction, Tensor, no_grad};

use crate::parts::zero_grad;
use crate::run::{Run, STEPS, TURNS};

fn values(states: &Tensor, w: &[Tensor]) -> wgrad::Result<Tensor> {
    states.linear(&w[0], &w[1])?.relu()?.linear(&w[2], &w[3])
}

/// A step of `optim.RMSprop` with the root's small number outside of it.
fn step_of_rmsprop(parameters: &[Tensor], squares: &[Tensor]) -> wgrad::Result<()> {
    no_grad(|| {
        for (parameter, square) in parameters.iter().zip(squares) {
            let Some(grad) = parameter.grad() else { continue };
            square.mul_(0.95)?.add_((grad.square()? * 0.05)?)?;
            parameter.sub_(((grad * 0.005)? / (square.sqrt()? + 1e-3)?)?)?;
        }
        Ok(())
    })
}

pub fn train(run: &mut Run) -> Result<()> {
    let (states, actions, rewards) = (run.data("states")?, run.data("actions")?, run.data("rewards")?);
    let (following, done) = (run.data("following")?, run.data("done")?);
    for name in ["0.weight", "0.bias", "2.weight", "2.bias"] {
        run.parameter(name)?;
    }
    let online = run.parameters();
    let target = online.iter().map(|p| p.detach().deep_clone()).collect::<wgrad::Result<Vec<_>>>()?;
    let squares = online.iter().map(Tensor::zeros_like).collect::<wgrad::Result<Vec<_>>>()?;
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        let wanted = no_grad(|| {
            let (best, _) = values(&following.select(0, turn)?, &target)?.max_dim(1, false)?;
            rewards.select(0, turn)? + ((1.0 - done.select(0, turn)?)? * 0.9)? * best
        })?;
        let chosen = actions.select(0, turn)?.unsqueeze(1)?;
        let chosen = values(&states.select(0, turn)?, &online)?.gather(1, &chosen)?.squeeze_dim(1)?;
        let loss = chosen.smooth_l1_loss(&wanted, Reduction::Mean, 1.0)?;
        zero_grad(&online);
        loss.backward()?;
        for grad in online.iter().filter_map(Tensor::grad) {
            grad.clamp_(-0.5, 0.5)?;
        }
        step_of_rmsprop(&online, &squares)?;
        if step % TURNS == TURNS - 1 {
            for (old, new) in target.iter().zip(&online) {
                old.copy_(&new.detach())?;
            }
        }
        run.report(&loss)?;
    }
    Ok(())
}
