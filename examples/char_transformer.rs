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
use common::{Args, Linear, Progress};
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
    let mut optimizer = Adam::new(model.parameters())?;
    let progress = Progress::new(steps, 15);
    let mut average = f32::NAN;
    for step in 0..steps {
        let letters = samples(&book)?;
        let loss = model.loss(&letters)?;
        loss.backward()?;
        let warm_up = ((step + 1) as f64 / 50.0).min(1.0);
        optimizer.step(2e-3 * warm_up * (1.0 - 0.9 * step as f64 / steps as f64))?;
        // So far everything was only described. Now forward, backward and update are computed as one.
        Tensor::eval_all(optimizer.state().chain([&loss]))?;
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

/// One layer: attention to the letters before, then two linear layers for each letter; each on normalised
/// input, and added to what was there.
struct Layer {
    norms: [Tensor; 2],
    attention: Linear,
    mixed: Linear,
    wide: Linear,
    narrow: Linear,
}

struct Transformer {
    letters: Tensor,
    places: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Linear,
}

impl Transformer {
    fn new(alphabet: usize, device: &Device) -> wgrad::Result<Transformer> {
        let normal =
            |rows: usize| (Tensor::randn([rows, SIZE], device)? * 0.1)?.detach().requires_grad_(true);
        let ones = || Tensor::ones([SIZE], device)?.requires_grad_(true);
        let layer = |_| {
            Ok(Layer {
                norms: [ones()?, ones()?],
                attention: Linear::new(SIZE, 3 * SIZE, device)?,
                mixed: Linear::new(SIZE, SIZE, device)?,
                wide: Linear::new(SIZE, 4 * SIZE, device)?,
                narrow: Linear::new(4 * SIZE, SIZE, device)?,
            })
        };
        Ok(Transformer {
            letters: normal(alphabet)?,
            places: normal(CONTEXT)?,
            layers: (0..LAYERS).map(layer).collect::<wgrad::Result<_>>()?,
            norm: ones()?,
            output: Linear::new(SIZE, alphabet, device)?,
        })
    }

    fn parameters(&self) -> Vec<Tensor> {
        let mut all = vec![self.letters.clone(), self.places.clone(), self.norm.clone()];
        all.extend(self.output.parameters());
        for layer in &self.layers {
            all.extend(layer.norms.clone());
            all.extend(
                [&layer.attention, &layer.mixed, &layer.wide, &layer.narrow]
                    .into_iter()
                    .flat_map(Linear::parameters),
            );
        }
        all
    }

    /// For `[batch, length]` letters, scores of each possible next letter: `[batch, length, alphabet]`.
    fn forward(&self, letters: &Tensor) -> wgrad::Result<Tensor> {
        let length = letters.size(1)?;
        let mut x = (letters.embedding(&self.letters, None)? + self.places.narrow(0, 0, length)?)?;
        for layer in &self.layers {
            x = (&x + layer.attend(&normalised(&x, &layer.norms[0])?)?)?;
            let wide = layer.wide.forward(&normalised(&x, &layer.norms[1])?)?.gelu()?;
            x = (&x + layer.narrow.forward(&wide)?)?;
        }
        self.output.forward(&normalised(&x, &self.norm)?)
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
        let device = self.letters.device();
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

impl Layer {
    /// Each letter gathers from those before it what its query matches.
    fn attend(&self, x: &Tensor) -> wgrad::Result<Tensor> {
        let (batch, length) = (x.size(0)?, x.size(1)?);
        let heads = |x: &Tensor| x.reshape([batch, length, HEADS, SIZE / HEADS])?.transpose(1, 2);
        let parts = self.attention.forward(x)?.chunk(3, -1)?;
        let (query, key, value) = (heads(&parts[0])?, heads(&parts[1])?, heads(&parts[2])?);
        let scores = (query.matmul(&key.transpose(-2, -1)?)? / ((SIZE / HEADS) as f64).sqrt())?;
        let later = Tensor::ones([length, length], x.device())?.triu(1)?.ne(0.0)?;
        let attention = scores.masked_fill(&later, f64::NEG_INFINITY)?.softmax(-1)?;
        let mixed = attention.matmul(&value)?.transpose(1, 2)?.reshape([batch, length, SIZE])?;
        self.mixed.forward(&mixed)
    }
}

fn normalised(x: &Tensor, gain: &Tensor) -> wgrad::Result<Tensor> {
    x.layer_norm([SIZE], Some(gain), None, 1e-5)
}

/// Adam, with its usual constants.
struct Adam {
    parameters: Vec<Tensor>,
    means: Vec<Tensor>,
    squares: Vec<Tensor>,
    steps: i32,
}

impl Adam {
    fn new(parameters: Vec<Tensor>) -> wgrad::Result<Adam> {
        let zeros = || parameters.iter().map(Tensor::zeros_like).collect::<wgrad::Result<Vec<_>>>();
        Ok(Adam { means: zeros()?, squares: zeros()?, parameters, steps: 0 })
    }

    /// Moves the parameters against their gradients, and forgets these.
    fn step(&mut self, rate: f64) -> wgrad::Result<()> {
        const BETAS: [f64; 2] = [0.9, 0.99];
        self.steps += 1;
        let [rate, root] =
            [rate / (1.0 - BETAS[0].powi(self.steps)), (1.0 - BETAS[1].powi(self.steps)).sqrt()];
        no_grad(|| {
            for ((parameter, mean), square) in self.parameters.iter().zip(&self.means).zip(&self.squares) {
                if let Some(grad) = parameter.grad() {
                    mean.mul_(BETAS[0])?.add_((&grad * (1.0 - BETAS[0]))?)?;
                    square.mul_(BETAS[1])?.add_((grad.square()? * (1.0 - BETAS[1]))?)?;
                    let size = ((square.sqrt()? / root)? + 1e-8)?;
                    parameter.sub_(((mean * rate)? / size)?)?;
                    parameter.zero_grad();
                }
            }
            Ok(())
        })
    }

    /// What a step changes.
    fn state(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters.iter().chain(&self.means).chain(&self.squares)
    }
}
