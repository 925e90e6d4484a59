//! A leaf, a computation, its gradient.
//!
//! ```text
//! cargo run --release --example autograd_basics              on the best device here
//! cargo run --release --example autograd_basics -- vulkan:0  on another one
//! ```

use anyhow::Result;
use wgrad::{Device, Tensor};

fn main() -> Result<()> {
    let device: Device = std::env::args().nth(1).map_or_else(Device::best, |name| name.parse())?;

    println!("A leaf that asks for a gradient:");
    let x = Tensor::new([[1.0, 9.0, 0.0]], &device)?.requires_grad_(true)?;
    println!("  x = {x}");
    println!("  x.is_leaf() = {}, x.grad() = {:?}", x.is_leaf(), x.grad().map(|grad| grad.to_string()));

    println!("\nOperations on it are recorded: each result knows what made it.");
    let y = (x.pow(2.0)? + 100.0)?;
    println!("  y = x² + 100 = {y}");
    println!("  y.is_leaf() = {}", y.is_leaf());
    let loss = y.mean()?;
    println!("  loss = mean(y) = {loss}");

    println!("\nThe way back, node by node:");
    let mut node = loss.grad_fn();
    while let Some(here) = node {
        println!("  {}", here.name());
        node = here.next_functions().into_iter().next().flatten().map(|(next, _)| next);
    }

    println!("\nloss.backward() computes d loss / d x = 2x / 3, into the leaf:");
    loss.backward()?;
    if let Some(grad) = x.grad() {
        println!("  x.grad() = {grad}");
    }
    Ok(())
}
