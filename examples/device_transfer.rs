//! A leaf on the CPU, a computation on the GPU: `to` is an operation like any other, and the gradient finds its way home.
//!
//! ```text
//! cargo run --release --example device_transfer              to the best device here
//! cargo run --release --example device_transfer -- vulkan:0  to another one
//! ```

use anyhow::Result;
use wgrad::{Device, Tensor};

fn main() -> Result<()> {
    env_logger::builder().filter_level(log::LevelFilter::Warn).init();
    let device: Device = std::env::args().nth(1).map_or_else(Device::best, |name| name.parse())?;
    if device.is_cpu() {
        println!(
            "The best device here is the CPU, where the tensor already is: to() will give the tensor itself."
        );
        println!("These devices could be named instead:");
        Device::available().iter().for_each(|device| println!("  {device}"));
        println!();
    }

    let x = Tensor::new([[1f32, 9.0, 0.0]], &Device::cpu())?.requires_grad_(true)?;
    println!("x = {x}");
    let moved = x.to(&device)?;
    println!("x.to({device}) = {moved}");
    println!("  is_leaf() = {}: it is the result of a copy", moved.is_leaf());

    let loss = (moved.pow(2.0)? + 100.0)?.mean()?;
    loss.backward()?;
    println!("loss = {loss}");

    println!("\nAfter loss.backward(), reading the gradient of the copy gives None and a warning:");
    let grad = moved.grad().map(|grad| grad.to_string());
    println!("  x.to({device}).grad() = {grad:?}");
    println!("The gradient is where the leaf is:");
    if let Some(grad) = x.grad() {
        println!("  x.grad() = {grad}, on {}", grad.device());
    }
    Ok(())
}
