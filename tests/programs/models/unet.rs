//! Noise is taken out of images: down, up by a transposed convolution, and across.

use anyhow::Result;
use wgrad::{ConvOptions, Padding, PoolOptions, Reduction, Tensor};

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS, TURNS};

pub fn train(run: &mut Run) -> Result<()> {
    let (clean, noise) = (run.data("clean")?, run.data("noise")?);
    // A convolution has the parameters of a linear layer.
    let enter = Linear::new(run, "enter")?;
    let norm = [run.parameter("norm.weight")?, run.parameter("norm.bias")?];
    let (deep, rise, leave) =
        (Linear::new(run, "deep")?, Linear::new(run, "rise")?, Linear::new(run, "leave")?);
    let mut optimizer = Adam::new(run.parameters(), 0.01)?.with_largest()?;
    let same = ConvOptions { padding: Padding::Explicit(vec![1]), ..ConvOptions::default() };
    let double = ConvOptions { stride: vec![2], ..ConvOptions::default() };
    let conv = |x: &Tensor, layer: &Linear| x.conv2d(&layer.weight, layer.bias.as_ref(), &same);
    for step in 0..STEPS {
        let turn = (step % TURNS) as isize;
        let wanted = clean.select(0, turn)?;
        let entered = conv(&(&wanted + noise.select(0, turn)?)?, &enter)?;
        let across = entered.group_norm(2, &norm[0], &norm[1], 1e-5)?.silu()?;
        let down = conv(&across.avg_pool2d(&PoolOptions::new(&[2]))?, &deep)?.gelu_tanh()?;
        let risen = down.conv_transpose2d(&rise.weight, rise.bias.as_ref(), &double)?;
        let out = conv(&Tensor::cat(&[&risen, &across], 1)?, &leave)?;
        let loss = out.huber_loss(&wanted, Reduction::Mean, 0.5)?;
        optimizer.zero_grad();
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    Ok(())
}
