//! A leaf made anew on another device, to have its gradient there: `detach().requires_grad_(true)`.
//!
//! ```text
//! cargo run --release --example rebuild_leaf              on the best device here
//! cargo run --release --example rebuild_leaf -- vulkan:0  on another one
//! ```

use anyhow::Result;
use wgrad::{Device, Tensor};

fn main() -> Result<()> {
    let device: Device = std::env::args().nth(1).map_or_else(Device::best, |name| name.parse())?;

    let x = Tensor::new([[7.0, 8.0, 8.0]], Device::cpu())?.requires_grad_(true)?;
    println!("x = {x}");
    let moved = x.to(&device)?;
    println!("x.to({device}) = {moved}");
    println!("  is_leaf() = {}", moved.is_leaf());

    let leaf = moved.detach().requires_grad_(true)?;
    println!("\nx.to({device}).detach().requires_grad_(true) = {leaf}");
    println!("  is_leaf() = {}", leaf.is_leaf());

    let y = (leaf.pow(2.0)? + 100.0)?;
    let loss = y.mean()?;
    println!("\ny = {y}");
    println!("loss = {loss}");
    loss.backward()?;
    if let Some(grad) = leaf.grad() {
        println!("leaf.grad() = {grad}");
    }
    println!("x.grad() = {:?}: the new leaf has nothing to do with x", x.grad().map(|grad| grad.to_string()));
    Ok(())
}
