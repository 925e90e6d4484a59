//! Images are told apart by convolutions with batch norm; the last loss is that of all images by the running statistics.

use anyhow::Result;
use wgrad::{BatchNormOptions, ConvOptions, Padding, PoolOptions, Tensor, no_grad};

use crate::parts::{Adam, Linear};
use crate::run::{Run, STEPS, TURNS};

const BATCH: usize = 8;

struct Model {
    convolutions: [Tensor; 2],
    norms: [BatchNormOptions; 2],
    head: Linear,
}

impl Model {
    fn new(run: &mut Run) -> Result<Model> {
        let norm = |run: &mut Run, name: &str, channels: usize| -> Result<BatchNormOptions> {
            Ok(BatchNormOptions {
                running_mean: Some(Tensor::zeros([channels], (run.dtype, &run.device))?),
                running_var: Some(Tensor::ones([channels], (run.dtype, &run.device))?),
                weight: Some(run.parameter(&format!("{name}.weight"))?),
                bias: Some(run.parameter(&format!("{name}.bias"))?),
                ..BatchNormOptions::default()
            })
        };
        let first = (run.parameter("0.weight")?, norm(run, "1", 6)?);
        let second = (run.parameter("4.weight")?, norm(run, "5", 8)?);
        Ok(Model {
            convolutions: [first.0, second.0],
            norms: [first.1, second.1],
            head: Linear::new(run, "9")?,
        })
    }

    fn forward(&self, images: &Tensor, training: bool) -> wgrad::Result<Tensor> {
        let same = ConvOptions { padding: Padding::Explicit(vec![1]), ..ConvOptions::default() };
        let half = ConvOptions { stride: vec![2], ..same.clone() };
        let x = images.conv2d(&self.convolutions[0], None, &same)?;
        let x = x.batch_norm(training, &self.norms[0])?.relu()?;
        let (x, _) = x.max_pool2d(&PoolOptions::new(&[2]))?;
        let x = x.conv2d(&self.convolutions[1], None, &half)?;
        let x = x.batch_norm(training, &self.norms[1])?.relu()?;
        self.head.forward(&x.avg_pool2d(&PoolOptions::new(&[3]))?.flatten(1, -1)?)
    }
}

pub fn train(run: &mut Run) -> Result<()> {
    let (images, labels) = (run.data("images")?, run.data("labels")?);
    let model = Model::new(run)?;
    let mut optimizer = Adam::new(run.parameters(), 0.01)?;
    for step in 0..STEPS - 1 {
        let start = (step % TURNS * BATCH) as isize;
        optimizer.zero_grad();
        let scores = model.forward(&images.narrow(0, start, BATCH)?, true)?;
        let loss = scores.cross_entropy(&labels.narrow(0, start, BATCH)?)?;
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    let loss = no_grad(|| model.forward(&images, false)?.cross_entropy(&labels))?;
    run.report(&loss)
}
