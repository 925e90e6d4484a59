//! A leaf on the CPU, a computation on the GPU: `to` is an operation like any other, and the gradient finds its way home.
//!
//! ```text
//! cargo run --release --example device_transfer              to the best device here
//! cargo run --release --example device_transfer -- vulkan:0  to another one
//! ```

use anyhow::Result;
use wgrad::{Device, DeviceKind, Tensor};

fn main() -> Result<()> {
    env_logger::builder().filter_level(log::LevelFilter::Warn).init();
    let device = match std::env::args().nth(1) {
        Some(name) => name.parse()?,
        None => other_device()?,
    };

    let x = Tensor::new([[1.0, 9.0, 0.0]], Device::cpu())?.requires_grad_(true)?;
    println!("x = {x}");
    let moved = x.to(&device)?;
    println!("x.to({device}) = {moved}");
    if device.is_cpu() {
        println!("This is x itself: it is on the CPU already. Name another device to see it move.");
        return Ok(());
    }
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

/// The best device that is not the CPU, be it a software adapter; the CPU where there is nothing else.
fn other_device() -> wgrad::Result<Device> {
    let best = Device::best()?;
    match Device::available().into_iter().find(|info| info.kind != DeviceKind::Cpu) {
        Some(other) if best.is_cpu() => other.name.parse(),
        _ => Ok(best),
    }
}
