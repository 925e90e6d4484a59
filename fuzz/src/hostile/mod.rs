//! Hostile calls: every public method of `Tensor`, with valid and invalid arguments of all kinds.
//!
//! A call depends only on a seed and its number, so that it can be repeated alone. It must return a value, or
//! an error with a text of limited length. Its results are read, differentiated and printed, and after an
//! error the receiver must still be readable.

mod arguments;
mod make;

use std::panic::{AssertUnwindSafe, catch_unwind};

use wgrad::{DType, Device, Tensor, Unique};

use crate::random::SplitMix64;
pub use arguments::Arguments;

type CallOutcome = wgrad::Result<Vec<Tensor>>;
type HostileCall = fn(&mut Arguments) -> CallOutcome;

/// The tensors in a method's result.
trait IntoTensors {
    fn tensors(self) -> Vec<Tensor>;
}

impl IntoTensors for Tensor {
    fn tensors(self) -> Vec<Tensor> {
        vec![self]
    }
}
impl IntoTensors for (Tensor, Tensor) {
    fn tensors(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}
impl IntoTensors for (Tensor, Tensor, Tensor) {
    fn tensors(self) -> Vec<Tensor> {
        vec![self.0, self.1, self.2]
    }
}
impl IntoTensors for Vec<Tensor> {
    fn tensors(self) -> Vec<Tensor> {
        self
    }
}
impl IntoTensors for Unique {
    fn tensors(self) -> Vec<Tensor> {
        vec![self.values, self.inverse, self.counts]
    }
}

/// The table of calls, which the build script writes.
#[allow(clippy::let_unit_value, reason = "one form for all methods, whatever they give")]
mod table {
    use wgrad::*;

    use super::{Arguments, CallOutcome, HostileCall, IntoTensors};

    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}

pub use table::{METHODS, UNKNOWN};

/// The largest length of an error's text, in bytes.
const LONGEST_ERROR: usize = 500;
/// Results of calls with more elements than this are not used: that would take long without being wrong.
const MOST_ELEMENTS: usize = 1 << 22;

/// How a call ended.
pub enum Ended {
    Value,
    Error,
    Fault { kind: &'static str, text: String },
}

/// A call that was made: the method, the text with its arguments, and how it ended.
pub struct Tried {
    pub method: &'static str,
    pub text: String,
    pub ended: Ended,
}

/// Makes one call.
pub fn try_call(seed: u64, number: u64, device: &Device, tell: impl Fn(&str) + 'static) -> Tried {
    let mut random = SplitMix64::new(seed ^ SplitMix64::new(number).next());
    // The methods take turns, so that each is called equally often.
    let (method, call) = METHODS[number as usize % METHODS.len()];
    let mut g = Arguments::new(random.clone(), device.clone(), Box::new(tell));
    let result = catch_unwind(AssertUnwindSafe(|| {
        let outcome = call(&mut g);
        let outcome = outcome.and_then(|made| use_results(&mut random, &mut g, &made));
        if let Err(error) = &outcome {
            let text = error.to_string();
            if text.len() > LONGEST_ERROR {
                return Some(("long error", format!("{} characters: {}…", text.len(), first(&text))));
            }
            if let Err(error) = g.receiver_is_readable() {
                return Some(("broken receiver", format!("{text}; then reading the receiver: {error}")));
            }
        }
        g.failed = outcome.is_err();
        None
    }));
    let ended = match result {
        Ok(None) if g.failed => Ended::Error,
        Ok(None) => Ended::Value,
        Ok(Some((kind, text))) => Ended::Fault { kind, text },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Ended::Fault { kind: "panic", text: text.unwrap_or_default() }
        }
    };
    Tried { method, text: g.text(), ended }
}

fn first(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Reads, differentiates or prints the results of a call.
fn use_results(random: &mut SplitMix64, g: &mut Arguments, made: &[Tensor]) -> CallOutcome {
    for tensor in made.iter().take(3) {
        let _ = (
            tensor.shape(),
            tensor.stride(),
            tensor.is_contiguous(),
            tensor.grad_fn().map(|node| node.next_functions()),
        );
        let huge = g.largest > MOST_ELEMENTS || tensor.numel() > MOST_ELEMENTS;
        match random.below(4) {
            _ if huge => {}
            0 => {
                g.then("print");
                let _ = format!("{tensor:?} {tensor}");
            }
            1 if tensor.requires_grad() => {
                g.then("backward");
                let sum = tensor.to_dtype(DType::F32)?.sum()?;
                let options = wgrad::BackwardOptions::new().create_graph(random.chance(50));
                sum.backward_with(options)?;
                for leaf in g.leaves().iter().filter_map(Tensor::grad) {
                    leaf.eval()?;
                }
            }
            _ => {
                g.then("read");
                tensor.eval()?;
                crate::program::read(tensor)?;
            }
        }
    }
    Ok(Vec::new())
}
