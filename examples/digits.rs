//! Trains a small network on 1,797 handwritten digits; at least 97 % of a fifth that it never saw are read right.
//!
//! ```text
//! cargo run --release --example digits
//! cargo run --release --example digits -- --device vulkan:0 --seed 1 --epochs 60 --svg loss.svg --losses loss.txt
//! ```
//!
//! With one seed the losses are nearly the same on every device (the CPU, Vulkan and GL here: to 5e-7): random numbers have the same bits
//! everywhere, and nothing in the network makes more of the last bits in which devices differ. (ReLU would: a sum that is just above
//! zero here and just below it there.)

mod common;

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use common::{Args, Progress};
use wgrad::nn::{Dropout, GELU, Layer, Linear, Module, Sequential};
use wgrad::optim::schedule::{CosineAnnealingLr, Scheduler};
use wgrad::optim::{Optimizer, Sgd, SgdOptions};
use wgrad::{Device, Tensor, manual_seed, no_grad};

const PIXELS: usize = 64;
const CLASSES: usize = 10;
const BATCH: usize = 64;

fn main() -> Result<()> {
    let args = Args::parse(&["device", "seed", "epochs", "svg", "losses"])?;
    let device = args.device()?;
    let epochs: usize = args.get("epochs", 60)?;
    manual_seed(args.get("seed", 0u64)?);

    let (images, labels) =
        read_digits(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"), &device)?;
    let order = Tensor::randperm(images.size(0)?, &device)?;
    let (images, labels) = (images.index_select(0, &order)?, labels.index_select(0, &order)?);
    let held_out = images.size(0)? / 5;
    let train = images.size(0)? - held_out;
    let part = |x: &Tensor, start: usize, length: usize| x.narrow(0, start as isize, length);
    let (test_x, test_y) = (part(&images, 0, held_out)?, part(&labels, 0, held_out)?);
    let (x, y) = (part(&images, held_out, train)?, part(&labels, held_out, train)?);
    println!("{train} digits to learn from, {held_out} held out, on {device}");

    // 64-256-256-10 with GELU and dropout.
    let network = Sequential::new()
        .push(Dropout::new(0.1))
        .push(Linear::new(PIXELS, 256, &device)?)
        .push(GELU::new())
        .push(Dropout::new(0.3))
        .push(Linear::new(256, 256, &device)?)
        .push(GELU::new())
        .push(Dropout::new(0.3))
        .push(Linear::new(256, CLASSES, &device)?);
    let mut optimizer = Sgd::new(network.named_parameters(), SgdOptions::new().lr(0.1).momentum(0.9))?;
    let mut scheduler = Scheduler::new(CosineAnnealingLr::new(epochs), &mut optimizer)?;
    let progress = Progress::new(epochs, 10);
    let mut losses = Vec::new();
    for epoch in 0..epochs {
        let order = Tensor::randperm(train, &device)?;
        let (mut right, mut seen) = (0, 0);
        for batch in order.split(BATCH, 0)?.into_iter().filter(|batch| batch.numel() == BATCH) {
            let (x, y) = (x.index_select(0, &batch)?, y.index_select(0, &batch)?);
            let logits = network.forward(&x)?;
            let loss = logits.cross_entropy(&y)?;
            optimizer.zero_grad();
            loss.backward()?;
            optimizer.step()?;
            // So far everything was only described. Reading computes forward, backward and update as one.
            losses.push(loss.item::<f32>()?);
            right += correct(&logits, &y)?.item::<i64>()?;
            seen += BATCH;
        }
        scheduler.step(&mut optimizer)?;
        let loss = losses.last().copied().unwrap_or(f32::NAN);
        let accuracy = 100.0 * right as f64 / seen.max(1) as f64;
        progress.show(epoch + 1, &format!("loss {loss:.4}  accuracy {accuracy:.2} %"));
    }

    network.eval();
    let predicted = no_grad(|| network.forward(&test_x)?.argmax_dim(1, false))?.to_vec::<i64>()?;
    let actual = test_y.to_vec::<i64>()?;
    let right = predicted.iter().zip(&actual).filter(|(p, a)| p == a).count();
    println!("\n{}", confusion(&predicted, &actual));
    println!("test accuracy: {:.2} % ({right} of {held_out})", 100.0 * right as f64 / held_out as f64);

    let path: String = args.get("svg", "digits_loss.svg".to_owned())?;
    std::fs::write(&path, loss_curve(&losses)).with_context(|| format!("writing {path}"))?;
    println!("the loss, step by step: {path}");
    let path: String = args.get("losses", String::new())?;
    if !path.is_empty() {
        let lines: String = losses.iter().map(|loss| format!("{loss}\n")).collect();
        std::fs::write(&path, lines).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// The images, brightness from 0 to 1, and which digits they show.
fn read_digits(path: &str, device: &Device) -> Result<(Tensor, Tensor)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let row = line.split(',').map(str::parse).collect::<Result<Vec<u8>, _>>();
        let row = row.with_context(|| format!("line {} of {path}", number + 1))?;
        ensure!(row.len() == PIXELS + 1, "line {} of {path} has {} numbers, not 65", number + 1, row.len());
        ensure!(usize::from(row[PIXELS]) < CLASSES, "line {} of {path} ends in no digit", number + 1);
        pixels.extend(row[..PIXELS].iter().map(|&brightness| f32::from(brightness) / 16.0));
        labels.push(i64::from(row[PIXELS]));
    }
    let images = Tensor::from_slice(&pixels, [labels.len(), PIXELS], device)?;
    Ok((images, Tensor::from_slice(&labels, [labels.len()], device)?))
}

/// How many rows have their largest number at the right place.
fn correct(logits: &Tensor, labels: &Tensor) -> wgrad::Result<Tensor> {
    logits.argmax_dim(1, false)?.eq(labels)?.sum()
}

/// How often each digit (down) was read as which (across).
fn confusion(predicted: &[i64], actual: &[i64]) -> String {
    let mut counts = [[0; CLASSES]; CLASSES];
    for (&p, &a) in predicted.iter().zip(actual) {
        counts[a as usize][p as usize] += 1;
    }
    let mut text = String::from("read as      0   1   2   3   4   5   6   7   8   9\n");
    for (digit, row) in counts.iter().enumerate() {
        let cells = row.iter().map(|n| if *n == 0 { "   ·".to_owned() } else { format!("{n:4}") });
        text += &format!("digit {digit}:  {}\n", cells.collect::<String>());
    }
    text
}

/// The loss as an SVG image, on a logarithmic scale.
fn loss_curve(losses: &[f32]) -> String {
    const WIDTH: f32 = 640.0;
    const HEIGHT: f32 = 320.0;
    let (low, high) = (-3.0, 1.0);
    let y = |loss: f32| HEIGHT * (high - loss.max(1e-3).log10().min(high)) / (high - low);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-50 -10 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect x=\"-50\" y=\"-10\" width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + 60.0,
        HEIGHT + 50.0
    );
    // Writing to a string cannot fail.
    for power in low as i32..=high as i32 {
        let (at, label) = (y(10f32.powi(power)), 10f32.powi(power));
        let _ = writeln!(
            svg,
            "<path d=\"M0 {at}H{WIDTH}\" stroke=\"#dddddd\"/><text x=\"-6\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            at + 4.0
        );
    }
    let step = WIDTH / losses.len().max(1) as f32;
    let points = losses.iter().enumerate().map(|(i, &loss)| format!("{:.1},{:.1}", i as f32 * step, y(loss)));
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"#4878a8\" points=\"{}\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">loss in {} steps</text>\n</svg>",
        points.collect::<Vec<_>>().join(" "),
        WIDTH / 2.0,
        HEIGHT + 24.0,
        losses.len()
    );
    svg
}
