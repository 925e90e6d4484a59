//! The contract of `docs/determinism.md`: 200 steps of a small transformer, fewer on GL, give the same bits of all weights, again, in
//! another process, with another number of threads.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use wgrad::{Device, Tensor, manual_seed, no_grad};

use crate::parts::{Adam, zero_grad};
use crate::{Check, all};

pub const CHECKS: &[Check] = &[("determinism", one_hash)];

/// Names the device, and after a blank the steps between reads, in a process that only prints a hash.
pub const CHILD: &str = "WGRAD_PROGRAMS_CHILD";

/// The steps, and to which part of itself the loss must come in them.
const LONG: (usize, f32) = (200, 0.9);
/// The same on GL unless all is asked for: a step takes the longest there.
const SHORT: (usize, f32) = (40, 1.0);

const SIZE: usize = 32;
const HEADS: usize = 2;
const LENGTH: usize = 32;
const BATCH: usize = 8;
const LETTERS: usize = 64;

fn one_hash(device: &Device) -> Result<()> {
    let first = hash(device, 1)?;
    let again = hash(device, 1)?;
    ensure!(first == again, "one process came to {first:016x}, then to {again:016x}");
    // A driver that runs on the processor has threads of its own.
    for threads in ["1", "3"] {
        let mut child = Command::new(std::env::current_exe()?);
        child.env(CHILD, format!("{} 1", device.name()));
        child.env("RAYON_NUM_THREADS", threads).env("LP_NUM_THREADS", threads);
        let output = child.output().context("running this program again")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        let other = text.lines().find_map(|line| line.strip_prefix("hash "));
        let other = other.with_context(|| format!("a process with {threads} threads: {text}{words}"))?;
        ensure!(other == format!("{first:016x}"), "{threads} threads came to {other}, not to {first:016x}");
    }
    Ok(())
}

/// What a child process does.
pub fn child(order: &str) -> Result<()> {
    let (device, reads) = order.split_once(' ').context("a device and a number of steps")?;
    println!("hash {:016x}", hash(&device.parse()?, reads.parse()?)?);
    Ok(())
}

struct Layer {
    norms: [Tensor; 2],
    attention: Tensor,
    mixed: Tensor,
    wide: Tensor,
    narrow: Tensor,
}

struct Transformer {
    letters: Tensor,
    places: Tensor,
    layer: Layer,
    output: Tensor,
}

impl Transformer {
    fn new(device: &Device) -> wgrad::Result<Transformer> {
        let normal = |rows: usize, columns: usize| {
            (Tensor::randn([rows, columns], device)? * 0.15)?.detach().requires_grad_(true)
        };
        let ones = || Tensor::ones([SIZE], device)?.requires_grad_(true);
        Ok(Transformer {
            letters: normal(LETTERS, SIZE)?,
            places: normal(LENGTH, SIZE)?,
            layer: Layer {
                norms: [ones()?, ones()?],
                attention: normal(3 * SIZE, SIZE)?,
                mixed: normal(SIZE, SIZE)?,
                wide: normal(4 * SIZE, SIZE)?,
                narrow: normal(SIZE, 4 * SIZE)?,
            },
            output: normal(LETTERS, SIZE)?,
        })
    }

    fn parameters(&self) -> Vec<Tensor> {
        let Layer { norms: [first, second], attention, mixed, wide, narrow } = &self.layer;
        let all = [&self.letters, &self.places, first, second, attention, mixed, wide, narrow, &self.output];
        all.into_iter().cloned().collect()
    }

    fn loss(&self, letters: &Tensor) -> wgrad::Result<Tensor> {
        let seen = letters.narrow(1, 0, LENGTH)?;
        let x = (seen.embedding(&self.letters, None)? + &self.places)?;
        let heads = |x: &Tensor| x.reshape([BATCH, LENGTH, HEADS, SIZE / HEADS])?.transpose(1, 2);
        let layer = &self.layer;
        let normal = x.layer_norm([SIZE], Some(&layer.norms[0]), None, 1e-5)?;
        let parts = normal.linear(&layer.attention, None)?.chunk(3, -1)?;
        let (query, key, value) = (heads(&parts[0])?, heads(&parts[1])?, heads(&parts[2])?);
        let attended = query.scaled_dot_product_attention(&key, &value, None, true, None, false)?;
        let attended = attended.transpose(1, 2)?.reshape([BATCH, LENGTH, SIZE])?;
        let x = (x + attended.linear(&layer.mixed, None)?.dropout(0.1, true)?)?;
        let normal = x.layer_norm([SIZE], Some(&layer.norms[1]), None, 1e-5)?;
        let x = (x + normal.linear(&layer.wide, None)?.gelu()?.linear(&layer.narrow, None)?)?;
        let scores = x.linear(&self.output, None)?.flatten(0, 1)?;
        scores.cross_entropy(&letters.narrow(1, 1, LENGTH)?.flatten(0, -1)?)
    }
}

/// A hash of all weights after training. Losses are read at every so many steps, and the weights evaluated with them.
fn hash(device: &Device, reads: usize) -> Result<u64> {
    manual_seed(5);
    let text = include_str!("../../examples/data/alice.txt").bytes().take(8000);
    let book =
        Tensor::new(text.map(|letter| i64::from(letter) % LETTERS as i64).collect::<Vec<_>>(), device)?;
    let model = Transformer::new(device)?;
    let parameters = model.parameters();
    let mut optimizer = Adam::new(parameters.clone(), 2e-3)?;
    let (mut first, mut last) = (0.0, f32::INFINITY);
    let (steps, part) = if device.name().starts_with("gl") && !all() { SHORT } else { LONG };
    for step in 0..steps {
        let starts =
            Tensor::randint(0, (book.numel() - LENGTH) as i64, [BATCH, 1], (wgrad::DType::I64, device))?;
        let places = (starts + Tensor::arange(0, LENGTH as i64 + 1, 1, device)?)?;
        let letters = book.index_select(0, &places.flatten(0, -1)?)?.reshape([BATCH, LENGTH + 1])?;
        zero_grad(&parameters);
        let loss = model.loss(&letters)?;
        loss.backward()?;
        optimizer.step()?;
        if (step + 1) % reads == 0 {
            Tensor::eval_all(parameters.iter().chain([&loss]))?;
            last = loss.item::<f32>()?;
            first = if step == 0 { last } else { first };
        }
    }
    ensure!(reads > 1 || last < part * first, "it has learned nothing: the loss went from {first} to {last}");
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    no_grad(|| {
        for parameter in &parameters {
            for bits in parameter.to_vec::<f32>()?.into_iter().map(f32::to_bits) {
                hash = (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Ok::<(), wgrad::Error>(())
    })?;
    Ok(hash)
}
