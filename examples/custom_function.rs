//! Two operations with derivatives of their own: a rounding whose gradient passes straight through it, and a smooth step whose
//! backward can be differentiated again.
//!
//! Run with `cargo run --example custom_function -- cpu`.

use wgrad::{BackwardContext, Device, ForwardContext, Function, GradOptions, Result, Tensor, grad};

/// Rounds, and hands the gradient on as if it had not: a straight-through estimator.
struct RoundThrough;

impl Function for RoundThrough {
    fn forward(&self, _ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].round()?])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(ctx.grad(0)?)])
    }
}

/// `x * sigmoid(slope * x)`, which saves its input and has a backward in tensor operations.
struct Swish {
    slope: f64,
}

impl Function for Swish {
    fn forward(&self, ctx: &mut ForwardContext, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(inputs)?;
        Ok(vec![inputs[0].mul(inputs[0].mul(self.slope)?.sigmoid()?)?])
    }

    fn backward(&self, ctx: &BackwardContext) -> Result<Vec<Option<Tensor>>> {
        let x = ctx.saved(0)?;
        let gate = x.mul(self.slope)?.sigmoid()?;
        let slope = gate.add(x.mul(self.slope)?.mul(&gate)?.mul(gate.rsub(1.0)?)?)?;
        Ok(vec![Some(ctx.grad(0)?.mul(slope)?)])
    }
}

fn main() -> anyhow::Result<()> {
    let device = match std::env::args().nth(1) {
        Some(name) => name.parse()?,
        None => Device::best()?,
    };

    // Weights that a network uses in whole numbers only, and trains as fractions.
    let weights = Tensor::new([0.4, 1.6, -2.2], &device)?.requires_grad_(true)?;
    let rounded = RoundThrough.apply_one(&[&weights])?;
    (&rounded * &rounded)?.sum()?.backward()?;
    println!("rounded  {:?}", rounded.to_vec::<f32>()?);
    println!("gradient {:?}", weights.grad().expect("a leaf has one").to_vec::<f32>()?);

    // The second derivative needs nothing more.
    let x = Tensor::new([-1.0, 0.0, 2.0], &device)?.requires_grad_(true)?;
    let y = Swish { slope: 1.5 }.apply_one(&[&x])?;
    let options = GradOptions::new().create_graph(true);
    let first = grad(&[&y.sum()?], &[&x], options)?.remove(0).expect("y depends on x");
    let second = grad(&[&first.sum()?], &[&x], GradOptions::new())?.remove(0).expect("so does its slope");
    println!("swish    {:.4}\nslope    {:.4}\nslope's  {:.4}", y, first, second);
    Ok(())
}
