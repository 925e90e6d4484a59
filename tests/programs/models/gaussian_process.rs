//! The marginal likelihood of a Gaussian process, by a Cholesky factorization, and in the end the error of its prediction.

use std::f64::consts::PI;

use anyhow::Result;
use wgrad::{Reduction, Tensor, Triangle, no_grad};

use crate::parts::Adam;
use crate::run::{Run, STEPS};

struct Process {
    x: Tensor,
    y: Tensor,
    log_length: Tensor,
    log_size: Tensor,
    log_noise: Tensor,
}

impl Process {
    fn kernel(&self, a: &Tensor, b: &Tensor) -> wgrad::Result<Tensor> {
        let distance = ((a.unsqueeze(1)? - b) / self.log_length.exp()?)?;
        self.log_size.exp()? * (distance.pow(2.0)? * -0.5)?.exp()?
    }

    /// The lower factor of the data's covariance.
    fn factor(&self) -> wgrad::Result<Tensor> {
        let count = self.x.numel();
        let noise = (self.log_noise.exp()? * Tensor::eye(count, count, (self.x.dtype(), self.x.device()))?)?;
        (self.kernel(&self.x, &self.x)? + noise)?.cholesky(Triangle::Lower)
    }

    /// The inverse of the covariance times the data, `cholesky_solve`.
    fn weights(&self, lower: &Tensor) -> wgrad::Result<Tensor> {
        let half = lower.solve_triangular(&self.y.unsqueeze(1)?, Triangle::Lower, true, false)?;
        lower.mt()?.solve_triangular(&half, Triangle::Upper, true, false)
    }
}

pub fn train(run: &mut Run) -> Result<()> {
    let process = Process {
        x: run.data("x")?,
        y: run.data("y")?,
        log_length: run.parameter("log_length")?,
        log_size: run.parameter("log_size")?,
        log_noise: run.parameter("log_noise")?,
    };
    let new = run.data("new")?;
    let mut optimizer = Adam::new(run.parameters(), 0.05)?;
    let constant = 0.5 * process.x.numel() as f64 * (2.0 * PI).ln();
    for _ in 0..STEPS - 1 {
        optimizer.zero_grad();
        let lower = process.factor()?;
        let weights = process.weights(&lower)?.select(1, 0)?;
        let fit = ((&process.y * weights)?.sum()? * 0.5)?;
        let loss = ((fit + lower.diagonal(0, 0, 1)?.log()?.sum()?)? + constant)?;
        loss.backward()?;
        optimizer.step()?;
        run.report(&loss)?;
    }
    let loss = no_grad(|| {
        let weights = process.weights(&process.factor()?)?;
        let prediction = process.kernel(&new, &process.x)?.matmul(&weights)?.select(1, 0)?;
        prediction.mse_loss(&(&new * 2.0)?.sin()?, Reduction::Mean)
    })?;
    run.report(&loss)
}
