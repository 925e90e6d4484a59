//! A small transformer learns to write, letter by letter, from "Alice's Adventures in Wonderland".
//!
//! Two layers of causal attention, 64 numbers a letter, 4 heads, 64 letters of context.
//!
//! ```text
//! cargo run --release --example char_transformer
//! cargo run --release --example char_transformer -- --device vulkan:0 --seed 1 --steps 1500 --write 400
//! ```

mod common;

use anyhow::{Context, Result};
use common::{Args, Progress};
use wgrad::nn::{
    Attention, Embedding, FeedForward, Layer, LayerNorm, Linear, Module, TransformerEncoderLayer, init,
};
use wgrad::optim::schedule::{LambdaLr, Scheduler};
use wgrad::optim::{Adam, AdamOptions, Optimizer};
use wgrad::{Device, Tensor, manual_seed, no_grad};

const SIZE: usize = 64;
const HEADS: usize = 4;
const CONTEXT: usize = 64;
const LAYERS: usize = 2;
const BATCH: usize = 32;

fn main() -> Result<()> {
    let args = Args::parse(&["device", "seed", "steps", "write"])?;
    let device = args.device()?;
    let steps: usize = args.get("steps", 1500)?;
    manual_seed(args.get("seed", 0u64)?);

    let text = Text::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/alice.txt"))?;
    println!("{} letters, {} different ones, on {device}", text.numbers.len(), text.alphabet.len());
    println!(
        "unigram entropy: {:.3} nats a letter; guessing by frequency alone has this loss",
        text.entropy()
    );

    let book = Tensor::new(text.numbers.clone(), &device)?;
    let model = Transformer::new(text.alphabet.len(), &device)?;
    let options = AdamOptions::new().lr(2e-3).betas([0.9, 0.99]);
    let mut optimizer = Adam::new(model.named_parameters(), options)?;
    let rate = move |step: usize| {
        let warm_up = ((step + 1) as f64 / 50.0).min(1.0);
        warm_up * (1.0 - 0.9 * step as f64 / steps as f64)
    };
    let mut scheduler = Scheduler::new(LambdaLr::new(rate), &mut optimizer)?;
    let progress = Progress::new(steps, 15);
    let mut average = f32::NAN;
    for step in 0..steps {
        let letters = samples(&book)?;
        let loss = model.loss(&letters)?;
        optimizer.zero_grad();
        loss.backward()?;
        optimizer.step()?;
        scheduler.step(&mut optimizer)?;
        // So far everything was only described. Reading computes forward, backward and update as one.
        let loss = loss.item::<f32>()?;
        average = if average.is_nan() { loss } else { 0.95 * average + 0.05 * loss };
        progress.show(step + 1, &format!("loss {average:.3}"));
    }
    println!("loss: {average:.3} nats a letter (mean of the last steps)\n");

    println!("{}", model.write("Alice was ", args.get("write", 400)?, &text)?);
    Ok(())
}

/// A book as numbers of letters.
struct Text {
    alphabet: Vec<char>,
    numbers: Vec<i64>,
}

impl Text {
    fn read(path: &str) -> Result<Text> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
        // The file comes from DOS: line ends of two letters, and an end mark.
        let letters: Vec<char> = text.chars().filter(|c| !matches!(c, '\r' | '\u{1a}')).collect();
        let mut alphabet = letters.clone();
        alphabet.sort_unstable();
        alphabet.dedup();
        let mut text = Text { alphabet, numbers: Vec::new() };
        text.numbers = text.encode(&letters.into_iter().collect::<String>());
        Ok(text)
    }

    /// The letters' numbers; unknown letters are left out.
    fn encode(&self, letters: &str) -> Vec<i64> {
        letters.chars().filter_map(|c| self.alphabet.binary_search(&c).ok()).map(|n| n as i64).collect()
    }

    /// What a letter tells, on average, if only the letters' frequencies are known.
    fn entropy(&self) -> f64 {
        let mut counts = vec![0usize; self.alphabet.len()];
        self.numbers.iter().for_each(|&letter| counts[letter as usize] += 1);
        let share = |count: usize| count as f64 / self.numbers.len() as f64;
        counts.into_iter().map(share).map(|p| -p * p.ln()).sum()
    }
}

/// Random pieces of the book, `[batch, context + 1]`.
fn samples(book: &Tensor) -> wgrad::Result<Tensor> {
    let device = book.device();
    let starts = Tensor::randint(0, (book.numel() - CONTEXT) as i64, [BATCH, 1], device)?;
    let places = (starts + Tensor::arange(0, (CONTEXT + 1) as i64, 1, device)?)?;
    book.index_select(0, &places.flatten(0, -1)?)?.reshape([BATCH, CONTEXT + 1])
}

/// Letters and their places as vectors, layers that each let a letter attend to those before it, and scores of the next letter.
#[derive(Module)]
struct Transformer {
    letters: Embedding,
    places: Embedding,
    layers: Vec<TransformerEncoderLayer>,
    norm: LayerNorm,
    output: Linear,
}

impl Transformer {
    fn new(alphabet: usize, device: &Device) -> wgrad::Result<Transformer> {
        let embedding = |count: usize| {
            let embedding = Embedding::new(count, SIZE, device)?;
            init::normal_(&embedding.weight, 0.0, 0.1)?;
            wgrad::Result::Ok(embedding)
        };
        let layer = TransformerEncoderLayer::options(SIZE, HEADS)
            .dim_feedforward(4 * SIZE)
            .dropout(0.0)
            .activation(FeedForward::GELU)
            .batch_first(true)
            .norm_first(true);
        Ok(Transformer {
            letters: embedding(alphabet)?,
            places: embedding(CONTEXT)?,
            layers: (0..LAYERS).map(|_| layer.build(device)).collect::<wgrad::Result<_>>()?,
            norm: LayerNorm::new(SIZE, device)?,
            output: Linear::new(SIZE, alphabet, device)?,
        })
    }

    /// For `[batch, length]` letters, scores of each possible next letter: `[batch, length, alphabet]`.
    fn forward(&self, letters: &Tensor) -> wgrad::Result<Tensor> {
        let places = Tensor::arange(0, letters.size(1)? as i64, 1, letters.device())?;
        let mut x = (self.letters.forward(letters)? + self.places.forward(&places)?)?;
        for layer in &self.layers {
            x = layer.forward_with(&x, &Attention::new().causal(true))?;
        }
        self.output.forward(&self.norm.forward(&x)?)
    }

    /// How badly each letter is foretold from those before it.
    fn loss(&self, letters: &Tensor) -> wgrad::Result<Tensor> {
        let length = letters.size(1)? - 1;
        let scores = self.forward(&letters.narrow(1, 0, length)?)?;
        let next = letters.narrow(1, 1, length)?;
        scores.flatten(0, 1)?.cross_entropy(&next.flatten(0, 1)?)
    }

    /// Goes on with a beginning, letter by letter.
    fn write(&self, beginning: &str, count: usize, text: &Text) -> wgrad::Result<String> {
        let device = self.output.weight.device();
        let mut letters = text.encode(beginning);
        for _ in 0..count {
            let seen = &letters[letters.len().saturating_sub(CONTEXT)..];
            let next = no_grad(|| {
                let scores =
                    self.forward(&Tensor::from_slice(seen, [1, seen.len()], device)?)?.select(1, -1)?;
                // Adding such noise makes the largest score that of a letter drawn by its probability.
                let noise = Tensor::rand(scores.shape(), device)?.log()?.neg()?.log()?.neg()?;
                ((scores / 0.8)? + noise)?.argmax()?.item::<i64>()
            })?;
            letters.push(next);
        }
        Ok(letters.into_iter().filter_map(|letter| text.alphabet.get(letter as usize)).collect())
    }
}
