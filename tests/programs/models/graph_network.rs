//! Nodes of a graph send messages along its edges, which are added up where they arrive.

use anyhow::Result;
use wgrad::{Tensor, no_grad};

use crate::parts::{Linear, zero_grad};
use crate::run::{Run, STEPS};

/// A step of `optim.Adagrad`.
fn step_of_adagrad(parameters: &[Tensor], sums: &[Tensor]) -> wgrad::Result<()> {
    no_grad(|| {
        for (parameter, sum) in parameters.iter().zip(sums) {
            let Some(grad) = parameter.grad() else { continue };
            sum.add_(grad.square()?)?;
            parameter.sub_(((grad * 0.1)? / (sum.sqrt()? + 1e-10)?)?)?;
        }
        Ok(())
    })
}

pub fn train(run: &mut Run) -> Result<()> {
    let (features, labels, known) = (run.data("features")?, run.data("labels")?, run.data("known")?);
    let (source, target) = (run.data("source")?, run.data("target")?);
    let (first, second) = (Linear::new(run, "first")?, Linear::new(run, "second")?);
    let parameters = run.parameters();
    let sums = parameters.iter().map(Tensor::zeros_like).collect::<wgrad::Result<Vec<_>>>()?;
    let ones = Tensor::ones([target.numel()], (run.dtype, &run.device))?;
    let degree = Tensor::zeros([features.size(0)?], (run.dtype, &run.device))?;
    let degree = degree.index_add(0, &target, &ones)?.clamp_min(1.0)?.unsqueeze(1)?;
    let layer = |x: &Tensor, weights: &Linear| {
        let messages = x.zeros_like()?.index_add(0, &target, &x.index_select(0, &source)?)?;
        weights.forward(&Tensor::cat(&[x, &(messages / &degree)?], 1)?)
    };
    for _ in 0..STEPS {
        zero_grad(&parameters);
        let scores = layer(&layer(&features, &first)?.relu()?, &second)?;
        let chances = scores.log_softmax(1)?.index_select(0, &known)?;
        let loss = chances.nll_loss(&labels.index_select(0, &known)?)?;
        loss.backward()?;
        step_of_adagrad(&parameters, &sums)?;
        run.report(&loss)?;
    }
    Ok(())
}
