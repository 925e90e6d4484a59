//! The seed program, products, normalizations, whole training steps, and what the engine itself costs.

use wgrad::{Device, Result, Tensor, no_grad};

use super::{Only, Outcome, Run, Task, differentiated, grads};
use crate::inputs::{leaf, linear, norm, targets, tensor};

/// The standard tasks. `quick` cuts the sizes, which their names then say.
pub fn all(quick: bool) -> Vec<Task> {
    let rows = if quick { 256 } else { 4096 };
    let steps = if quick { 100 } else { 1000 };
    let cut = |name: &str, size: usize, full: usize| {
        if size == full { name.to_owned() } else { format!("{name}_{size}") }
    };
    let mut tasks = Vec::new();

    let chain_sizes: &[usize] = if quick { &[3, 1000] } else { &[3, 1000, 1_000_000, 10_000_000] };
    for &n in chain_sizes {
        tasks
            .push(simple(format!("seed_{n}"), vec![("x", 1, vec![n])], |x| (x[0].pow(2.0)? + 100.0)?.mean()));
    }

    let sizes: &[usize] = if quick { &[256] } else { &[256, 512, 1024, 2048] };
    for &n in sizes {
        let only = if n > 1024 { Only::Hardware } else { Only::Everywhere };
        tasks.push(Task::new(format!("mm_{n}"), only, move |device| {
            let (a, b) = (tensor(2, &[n, n], device)?, tensor(3, &[n, n], device)?);
            Ok(Box::new(move || Ok(Outcome { rest: vec![a.matmul(&b)?], ..Outcome::default() })))
        }));
    }
    let sizes: &[usize] = if quick { &[256] } else { &[512, 1024] };
    for &n in sizes {
        let leaves = vec![("a", 2, vec![n, n]), ("b", 3, vec![n, n])];
        tasks.push(simple(format!("mm_fb_{n}"), leaves, |x| x[0].matmul(&x[1])?.sum()));
    }

    tasks.push(simple(cut("softmax_fb", rows, 4096), vec![("x", 4, vec![rows, 1024])], |x| {
        x[0].softmax(-1)?.pow(2.0)?.sum()
    }));
    let leaves = vec![("x", 5, vec![rows, 1024]), ("w", 6, vec![1024]), ("b", 7, vec![1024])];
    tasks.push(simple(cut("layernorm_fb", rows, 4096), leaves, |x| {
        x[0].layer_norm([1024], Some(&x[1]), Some(&x[2]), 1e-5)?.pow(2.0)?.mean()
    }));
    tasks.push(simple(cut("elem_chain_fb", rows, 4096), vec![("x", 8, vec![rows, 1024])], |x| {
        let x = &x[0];
        ((x.gelu()? * x.sigmoid()?)? + (x.tanh()? * x.exp()?)?)?.mean()
    }));

    tasks.push(Task::new("mlp_adam_step", Only::Everywhere, mlp_adam_step));
    tasks.push(Task::new("transformer_layer_fb", Only::Everywhere, transformer_layer));

    tasks.push(Task::new(cut("overhead_chain", steps, 1000), Only::Everywhere, move |device| {
        let x = Tensor::from_slice(&[0.5f32], [1], device)?.requires_grad_(true)?;
        Ok(Box::new(move || {
            x.zero_grad();
            let mut y = x.clone();
            for _ in 0..steps {
                y = ((&y * 1.0001)? + 0.1)?;
            }
            let loss = y.sum()?;
            loss.backward()?;
            Ok(Outcome { compared: grads([("x", &x)]), loss: Some(loss), ..Outcome::default() })
        }))
    }));

    let n = if quick { 10_000 } else { 1_000_000 };
    tasks.push(Task::new(cut("to_device", n, 1_000_000), Only::Gpu, move |device| {
        let (x, device) = (leaf(1, &[n], &Device::cpu())?, device.clone());
        Ok(Box::new(move || {
            x.zero_grad();
            let loss = x.to(&device)?.pow(2.0)?.mean()?;
            loss.backward()?;
            Ok(Outcome { compared: grads([("x", &x)]), loss: Some(loss), ..Outcome::default() })
        }))
    }));
    tasks
}

/// A task that computes a loss of some leaves (name, seed, shape) and all their gradients.
fn simple(
    name: String,
    leaves: Vec<(&'static str, u32, Vec<usize>)>,
    loss: impl Fn(&[Tensor]) -> Result<Tensor> + Clone + 'static,
) -> Task {
    let make = move |device: &Device| {
        leaves.iter().map(|(name, seed, shape)| Ok((*name, leaf(*seed, shape, device)?))).collect()
    };
    differentiated(name, make, loss)
}

/// 784-512-256-10 with ReLU, batch 64, cross entropy, Adam written out.
fn mlp_adam_step(device: &Device) -> Result<Run> {
    const RATE: f64 = 1e-3;
    const BETAS: [f64; 2] = [0.9, 0.999];
    let mut parameters = Vec::new();
    for (seed, out, inputs) in [(20, 512, 784), (30, 256, 512), (40, 10, 256)] {
        let (weight, bias) = linear(seed, out, inputs, device)?;
        parameters.extend([weight, bias]);
    }
    let zeros = || parameters.iter().map(Tensor::zeros_like).collect::<Result<Vec<_>>>();
    let (means, squares) = (zeros()?, zeros()?);
    let (x, classes) = (tensor(9, &[64, 784], device)?, targets(64, device)?);
    let mut step = 0;
    Ok(Box::new(move || {
        parameters.iter().for_each(Tensor::zero_grad);
        let hidden = x.linear(&parameters[0], Some(&parameters[1]))?.relu()?;
        let hidden = hidden.linear(&parameters[2], Some(&parameters[3]))?.relu()?;
        let loss = hidden.linear(&parameters[4], Some(&parameters[5]))?.cross_entropy(&classes)?;
        loss.backward()?;
        step += 1;
        no_grad(|| {
            let (rate, root) = (RATE / (1.0 - BETAS[0].powi(step)), (1.0 - BETAS[1].powi(step)).sqrt());
            for (i, parameter) in parameters.iter().enumerate() {
                let Some(grad) = parameter.grad() else { continue };
                means[i].mul_(BETAS[0])?.add_((&grad * (1.0 - BETAS[0]))?)?;
                squares[i].mul_(BETAS[1])?.add_((grad.square()? * (1.0 - BETAS[1]))?)?;
                let root_mean_square = ((squares[i].sqrt()? / root)? + 1e-8)?;
                parameter.sub_(((&means[i] * rate)? / root_mean_square)?)?;
            }
            Ok(())
        })?;
        let rest = parameters.iter().chain(&means).chain(&squares).cloned().collect();
        Ok(Outcome { loss: Some(loss), rest, trains: true, ..Outcome::default() })
    }))
}

/// A post-norm encoder layer: d 256, 8 heads, 1024 in the feed-forward part, batch 8, 128 positions.
fn transformer_layer(device: &Device) -> Result<Run> {
    const BATCH: usize = 8;
    const LENGTH: usize = 128;
    const SIZE: usize = 256;
    const HEADS: usize = 8;
    let linear = |seed, out, inputs| linear(seed, out, inputs, device);
    let (query, key) = (linear(100, SIZE, SIZE)?, linear(110, SIZE, SIZE)?);
    let (value, output) = (linear(120, SIZE, SIZE)?, linear(130, SIZE, SIZE)?);
    let (widen, narrow) = (linear(140, 1024, SIZE)?, linear(150, SIZE, 1024)?);
    let (norm1, norm2) = (norm(170, SIZE, device)?, norm(180, SIZE, device)?);
    let x = tensor(11, &[BATCH, LENGTH, SIZE], device)?;
    Ok(Box::new(move || {
        let layers = [&query, &key, &value, &output, &widen, &narrow, &norm1, &norm2];
        for (weight, bias) in layers {
            weight.zero_grad();
            bias.zero_grad();
        }
        let apply = |x: &Tensor, (weight, bias): &(Tensor, Tensor)| x.linear(weight, Some(bias));
        let normed =
            |x: Tensor, (gain, shift): &(Tensor, Tensor)| x.layer_norm([SIZE], Some(gain), Some(shift), 1e-5);
        // [batch, length, size] to [batch, heads, length, size / heads].
        let heads = |x: Tensor| x.reshape([BATCH, LENGTH, HEADS, SIZE / HEADS])?.transpose(1, 2);
        let (q, k) = (heads(apply(&x, &query)?)?, heads(apply(&x, &key)?)?);
        let v = heads(apply(&x, &value)?)?;
        let scores = (q.matmul(&k.transpose(-2, -1)?)? / ((SIZE / HEADS) as f64).sqrt())?;
        let mixed = scores.softmax(-1)?.matmul(&v)?.transpose(1, 2)?.reshape([BATCH, LENGTH, SIZE])?;
        let x = normed((&x + apply(&mixed, &output)?)?, &norm1)?;
        let wide = apply(&x, &widen)?.gelu()?;
        let out = normed((&x + apply(&wide, &narrow)?)?, &norm2)?;
        let loss = out.pow(2.0)?.mean()?;
        loss.backward()?;
        let compared = grads([
            ("wq", &query.0),
            ("wv", &value.0),
            ("w1", &widen.0),
            ("b2", &narrow.1),
            ("g1", &norm1.0),
            ("g2", &norm2.0),
        ]);
        let rest = layers.iter().flat_map(|(weight, bias)| [weight.grad(), bias.grad()]).flatten().collect();
        Ok(Outcome { loss: Some(loss), compared, rest, trains: false })
    }))
}
