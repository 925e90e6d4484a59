//! Checking derivatives against finite differences.

use wgrad_array::{DType, Error, GradRule, Result};

use crate::{GradOptions, Tensor, grad, no_grad};

/// The step of the finite differences, and how far a derivative may be off; PyTorch's.
const STEP: f64 = 1e-6;
const ATOL: f64 = 1e-5;
const RTOL: f64 = 1e-3;

/// Compares the gradients of a function with finite differences, element by element; `torch.autograd.gradcheck`.
///
/// The inputs that require grad are leaves in f64, where differences have enough digits.
///
/// ```
/// use wgrad_autograd::{DType, Tensor, gradcheck};
/// let x = Tensor::new([0.3, -1.2], DType::F64)?.requires_grad_(true)?;
/// gradcheck(|x| Ok(vec![x[0].sin()?.mul(&x[0])?]), &[x])?;
/// # Ok::<(), wgrad_autograd::Error>(())
/// ```
///
/// # Errors
/// [`Error::Autograd`] with the place of the first difference that is too large; and what the function gives.
pub fn gradcheck(function: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor]) -> Result<()> {
    check("gradcheck", &function, inputs)
}

/// Compares the gradients of a function's gradients with finite differences; `torch.autograd.gradgradcheck`.
///
/// # Errors
/// As [`gradcheck`].
pub fn gradgradcheck(function: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor]) -> Result<()> {
    let outputs = no_grad(|| function(inputs))?;
    let mut all = inputs.to_vec();
    for (i, output) in outputs.iter().enumerate().filter(|(_, output)| output.dtype().is_float()) {
        // Not all alike, so that what is multiplied by them is told apart.
        let ramp =
            Tensor::linspace(0.5 + i as f64, 1.5 + i as f64, output.numel(), (DType::F64, output.device()))?;
        all.push(ramp.reshape(output.shape())?.detach().requires_grad_(true)?);
    }
    let gradients = |all: &[Tensor]| {
        let (inputs, seeds) = all.split_at(inputs.len());
        let outputs = function(inputs)?;
        let (outputs, seeds): (Vec<&Tensor>, Vec<Option<Tensor>>) = outputs
            .iter()
            .filter(|output| output.dtype().is_float())
            .zip(seeds)
            .filter(|(output, _)| output.requires_grad())
            .map(|(output, seed)| (output, Some(seed.clone())))
            .unzip();
        let wanted: Vec<&Tensor> = inputs.iter().filter(|input| input.requires_grad()).collect();
        let options = GradOptions::new().grad_outputs(seeds).create_graph(true).allow_unused(true);
        Ok(grad(&outputs, &wanted, options)?.into_iter().flatten().collect())
    };
    check("gradgradcheck", &gradients, &all)
}

fn check(
    op: &'static str,
    function: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>,
    inputs: &[Tensor],
) -> Result<()> {
    let fail = |reason: String| Err(Error::Autograd { op, rule: GradRule::GradientMismatch, reason });
    let wanted: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].requires_grad()).collect();
    if wanted.is_empty() || wanted.iter().any(|&i| inputs[i].dtype() != DType::F64 || !inputs[i].is_leaf()) {
        return fail("at least one input must require grad, and those that do must be leaves in f64".into());
    }
    let leaves: Vec<&Tensor> = wanted.iter().map(|&i| &inputs[i]).collect();
    let outputs = function(inputs)?;
    // differences[input][element][output] = the change of all elements of the output
    let mut differences: Vec<Vec<Vec<Vec<f64>>>> = Vec::new();
    for &i in &wanted {
        let value = inputs[i].to_vec::<f64>()?;
        let moved = |element: usize, step: f64| -> Result<Vec<Vec<f64>>> {
            let mut value = value.clone();
            value[element] += step;
            let mut inputs = inputs.to_vec();
            inputs[i] =
                Tensor::from_slice(&value, inputs[i].shape(), inputs[i].device())?.requires_grad_(true)?;
            function(&inputs)?.iter().map(|output| output.detach().to_dtype(DType::F64)?.to_vec()).collect()
        };
        let difference = |element: usize| -> Result<Vec<Vec<f64>>> {
            let (up, down) = (moved(element, STEP)?, moved(element, -STEP)?);
            let slope = |(up, down): (&f64, &f64)| (up - down) / (2.0 * STEP);
            Ok(up.iter().zip(&down).map(|(up, down)| up.iter().zip(down).map(slope).collect()).collect())
        };
        differences.push((0..value.len()).map(difference).collect::<Result<_>>()?);
    }
    for (o, output) in outputs.iter().enumerate().filter(|(_, output)| output.requires_grad()) {
        for place in 0..output.numel() {
            let mut seed = vec![0f64; output.numel()];
            seed[place] = 1.0;
            let seed = Tensor::from_slice(&seed, output.shape(), output.device())?;
            let options = GradOptions::new().grad_outputs([Some(seed)]).retain_graph(true).allow_unused(true);
            let gradients = grad(&[output], &leaves, options)?;
            for ((&i, gradient), differences) in wanted.iter().zip(gradients).zip(&differences) {
                let gradient = match gradient {
                    Some(gradient) => gradient.to_vec::<f64>()?,
                    None => vec![0.0; inputs[i].numel()],
                };
                for (element, (analytic, numeric)) in gradient.iter().zip(differences).enumerate() {
                    let numeric = numeric[o][place];
                    if (analytic - numeric).abs() <= ATOL + RTOL * numeric.abs() {
                        continue;
                    }
                    return fail(format!(
                        "the derivative of output {o}'s element {place} with respect to input {i}'s element {element} \
                         is {analytic}, but finite differences give {numeric}"
                    ));
                }
            }
        }
    }
    // An output without a graph must not depend on the inputs.
    for (o, _) in outputs.iter().enumerate().filter(|(_, x)| x.dtype().is_float() && !x.requires_grad()) {
        if differences.iter().flatten().any(|change| change[o].iter().any(|slope| slope.abs() > ATOL)) {
            return fail(format!(
                "output {o} has no graph, but finite differences show that it depends on an input"
            ));
        }
    }
    Ok(())
}
