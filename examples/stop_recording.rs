//! The ways to stop recording: `detach` and its shared memory, `no_grad` as a closure and as an attribute, and the switch.
//!
//! ```text
//! cargo run --release --example stop_recording              on the best device here
//! cargo run --release --example stop_recording -- vulkan:0  on another one
//! ```

use anyhow::Result;
use wgrad::{Device, Tensor, no_grad, set_grad_enabled};

/// A function whose operations are never recorded.
#[no_grad]
fn doubled(x: &Tensor) -> wgrad::Result<Tensor> {
    x * 2.0
}

fn main() -> Result<()> {
    let device: Device = std::env::args().nth(1).map_or_else(Device::best, |name| name.parse())?;
    let x = Tensor::new([[1.0, 9.0, 0.0]], &device)?.requires_grad_(true)?;
    println!("x = {x}");

    println!("\ndetach(): the same memory, outside of the graph. A write to one shows in the other.");
    let detached = x.detach();
    detached.select(1, 0)?.fill_(7.0)?;
    println!("  detached = {detached}");
    println!("  x        = {x}");

    println!("\ndeep_clone(), which is PyTorch's clone(): memory of its own, inside of the graph.");
    let copy = x.deep_clone()?;
    no_grad(|| x.select(1, 0)?.fill_(1.0))?;
    println!("  copy = {copy}");
    println!("  x    = {x}");

    println!("\nno_grad(|| …): what happens inside is not recorded.");
    let y = no_grad(|| &x * 2.0)?;
    println!("  y.requires_grad() = {}", y.requires_grad());

    println!("\n#[no_grad] on a function:");
    println!("  doubled(&x).requires_grad() = {}", doubled(&x)?.requires_grad());

    println!("\nset_grad_enabled(false), and back:");
    set_grad_enabled(false);
    let off = (&x * 2.0)?;
    set_grad_enabled(true);
    let on = (&x * 2.0)?;
    println!("  off.requires_grad() = {}, on.requires_grad() = {}", off.requires_grad(), on.requires_grad());
    Ok(())
}
