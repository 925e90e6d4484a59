//! Gradients of several small batches, the last one smaller, make one step; an average of the weights follows them.

use anyhow::Result;
use wgrad::{CrossEntropyOptions, DType, Reduction, Tensor, no_grad};

use crate::parts::{Linear, Sgd, zero_grad};
use crate::run::{Run, STEPS};

pub fn train(run: &mut Run) -> Result<()> {
    let (x, y) = (run.data("x")?, run.data("y")?);
    let layers = [Linear::new(run, "0")?, Linear::new(run, "2")?];
    let parameters = run.parameters();
    let mut optimizer = Sgd::new(parameters.clone(), 0.3, 0.9);
    (optimizer.nesterov, optimizer.weight_decay) = (true, 1e-3);
    let average = parameters.iter().map(|p| p.detach().deep_clone()).collect::<wgrad::Result<Vec<_>>>()?;
    let options = CrossEntropyOptions {
        reduction: Reduction::Sum,
        label_smoothing: 0.1,
        ..CrossEntropyOptions::default()
    };
    let count = x.size(0)? as f64;
    for _ in 0..STEPS {
        zero_grad(&parameters);
        let mut total = Tensor::zeros((), (run.dtype, &run.device))?;
        let mut right = Tensor::zeros((), (DType::I64, &run.device))?;
        for (x, y) in x.split(8, 0)?.iter().zip(y.split(8, 0)?) {
            let scores = layers[1].forward(&layers[0].forward(x)?.silu()?)?;
            let loss = (scores.cross_entropy_with(&y, &options)? / count)?;
            loss.backward()?;
            total = (total + loss.detach())?;
            right = (right + scores.argmax_dim(1, false)?.eq(&y)?.sum()?)?;
        }
        optimizer.step()?;
        let followed = no_grad(|| {
            for (mean, parameter) in average.iter().zip(&parameters) {
                mean.mul_(0.9)?.add_((parameter * 0.1)?)?;
            }
            let hidden = x.linear(&average[0], &average[1])?.silu()?;
            hidden.linear(&average[2], &average[3])?.cross_entropy(&y)
        })?;
        run.report(&(total + right / count + followed)?)?;
    }
    Ok(())
}
