//! Calls of every operator replayed against PyTorch's results: values, gradients, gradients of gradients, on every device
//! present and on contiguous and transposed inputs.
//!
//! `cases.json` holds one call a line: operator, inputs, arguments, expected outputs and gradients, tolerances; every string that names
//! a tensor is a key of `cases.safetensors`. The expected numbers were computed by PyTorch 2.15 in float64 from inputs that
//! are exact in their dtype, and rounded once. A tolerance covers what f32 PyTorch itself is off.

mod calls;
mod data;

use std::collections::BTreeMap;

use calls::Call;
use data::Tensors;
use serde_json::Value as Json;
use wgrad::{DType, Device, GradOptions, Tensor, grad};

/// What went wrong, in words.
type Outcome<T = ()> = Result<T, String>;

fn words(error: wgrad::Error) -> String {
    error.to_string()
}

#[test]
fn as_pytorch_on_every_device() {
    let tensors = Tensors::read(include_bytes!("cases.safetensors"));
    let cases: Vec<Json> = serde_json::from_str(include_str!("cases.json")).unwrap();
    assert!(cases.len() > 1000);
    let names: Vec<String> = Device::available().into_iter().map(|info| info.name).collect();
    if names.len() == 1 {
        assert!(
            std::env::var_os("WGRAD_REQUIRE_GPU").is_none_or(|v| v != "1"),
            "WGRAD_REQUIRE_GPU=1, but no adapter"
        );
        eprintln!("no GPU adapter: only the CPU is tested");
    }
    for name in names {
        let device: Device = name.parse().unwrap();
        let mut failures = Vec::new();
        for case in &cases {
            if let Err(error) = replay(case, &tensors, &device) {
                failures.push(format!("{} {} {}: {error}", case["id"], case["dtype"], case["args"]));
            }
        }
        assert!(
            failures.is_empty(),
            "{name}: {} of {} cases\n{}",
            failures.len(),
            cases.len(),
            failures.join("\n")
        );
    }
}

fn replay(case: &Json, tensors: &Tensors, device: &Device) -> Outcome {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let mut inputs = BTreeMap::new();
    let mut wanted = Vec::new();
    for input in case["inputs"].as_array().into_iter().flatten() {
        let name = text(&input["name"]);
        let mut tensor = tensors.get(&text(&input["tensor"]), device)?;
        if let Some(layout) = input.get("strided") {
            tensor = data::strided(&tensor, layout)?;
        }
        if input["requires_grad"] == true {
            // The view is the leaf.
            tensor = tensor.detach().requires_grad_(true).map_err(words)?;
            wanted.push(name.clone());
        }
        inputs.insert(name, tensor);
    }
    let call = Call { op: &text(&case["op"]), inputs: &inputs, args: &case["args"], device };
    let outputs = call.run()?;
    let tolerance = |kind: &str| {
        let number = |name: &str| case[format!("{kind}{name}")].as_f64().unwrap_or(0.0);
        (number("rtol"), number("atol"))
    };
    let expected = case["outputs"].as_array().cloned().unwrap_or_default();
    if expected.len() != outputs.len() {
        return Err(format!("{} outputs instead of {}", outputs.len(), expected.len()));
    }
    for (output, expected) in outputs.iter().zip(&expected) {
        if let Some(key) = expected.as_str() {
            compare("output", output, &tensors.get(key, device)?, tolerance(""))?;
        }
    }
    let Some(expected) = case["grads"].as_object() else { return Ok(()) };
    let second = case["grad_grads"].as_object();
    let mut seeds = Vec::new();
    for key in case["grad_outputs"].as_array().into_iter().flatten() {
        let seed = key.as_str().map(|key| tensors.get(key, device)).transpose()?;
        seeds.push(match seed {
            Some(seed) if second.is_some() => Some(seed.requires_grad_(true).map_err(words)?),
            seed => seed,
        });
    }
    let (roots, root_seeds): (Vec<&Tensor>, Vec<Option<Tensor>>) = outputs
        .iter()
        .zip(seeds.clone())
        .filter(|(output, seed)| seed.is_some() && output.requires_grad())
        .unzip();
    let leaves: Vec<(String, Tensor)> =
        wanted.iter().map(|name| (name.clone(), inputs[name].clone())).collect();
    let first = gradients(&roots, root_seeds, &leaves, second.is_some())?;
    check_gradients("gradient", &first, expected, tensors, device, tolerance("grad_"))?;
    let Some(second) = second else { return Ok(()) };
    // The gradients of sum(gradient * v) over all gradients.
    let mut terms = Vec::new();
    for (name, key) in second["v"].as_object().into_iter().flatten() {
        if let Some(gradient) = first.get(name) {
            let product =
                gradient.mul(tensors.get(key.as_str().unwrap_or_default(), device)?).map_err(words)?;
            terms.push(product.sum().map_err(words)?);
        }
    }
    let terms: Vec<&Tensor> = terms.iter().filter(|term| term.requires_grad()).collect();
    let mut leaves = leaves;
    for (i, seed) in seeds.into_iter().enumerate() {
        leaves.extend(seed.map(|seed| (format!("grad_outputs.{i}"), seed)));
    }
    let found =
        if terms.is_empty() { BTreeMap::new() } else { gradients(&terms, Vec::new(), &leaves, false)? };
    let none = serde_json::Map::new();
    let expected = second["grads"].as_object().unwrap_or(&none);
    check_gradients("second gradient", &found, expected, tensors, device, tolerance("grad_grad_"))
}

fn gradients(
    roots: &[&Tensor],
    seeds: Vec<Option<Tensor>>,
    leaves: &[(String, Tensor)],
    create_graph: bool,
) -> Outcome<BTreeMap<String, Tensor>> {
    let inputs: Vec<&Tensor> = leaves.iter().map(|(_, leaf)| leaf).collect();
    let options = GradOptions::new().grad_outputs(seeds).create_graph(create_graph).allow_unused(true);
    let found = grad(roots, &inputs, options).map_err(words)?;
    Ok(leaves.iter().zip(found).filter_map(|((name, _), gradient)| Some((name.clone(), gradient?))).collect())
}

fn check_gradients(
    what: &str,
    found: &BTreeMap<String, Tensor>,
    expected: &serde_json::Map<String, Json>,
    tensors: &Tensors,
    device: &Device,
    tolerance: (f64, f64),
) -> Outcome {
    for (name, key) in expected {
        let expected = tensors.get(key.as_str().unwrap_or_default(), device)?;
        // No gradient is a gradient of zeros.
        let zeros = expected.zeros_like().map_err(words)?;
        compare(&format!("{what} of {name}"), found.get(name).unwrap_or(&zeros), &expected, tolerance)?;
    }
    Ok(())
}

/// Shape and dtype must be equal; numbers equal, or both finite and within `atol + rtol * |expected|`.
fn compare(what: &str, found: &Tensor, expected: &Tensor, (rtol, atol): (f64, f64)) -> Outcome {
    if (found.shape(), found.dtype()) != (expected.shape(), expected.dtype()) {
        return Err(format!("{what} is {found:?} instead of {expected:?}"));
    }
    let (found, expected) = (numbers(found)?, numbers(expected)?);
    for (i, (&a, &b)) in found.iter().zip(&expected).enumerate() {
        let near = a.is_finite() && b.is_finite() && (a - b).abs() <= atol + rtol * b.abs();
        if !near && a != b && !(a.is_nan() && b.is_nan()) {
            return Err(format!("{what}[{i}] is {a} instead of {b}"));
        }
    }
    Ok(())
}

/// All elements, read on the CPU.
fn numbers(x: &Tensor) -> Outcome<Vec<f64>> {
    let x = x.detach().to(Device::cpu()).map_err(words)?;
    if x.dtype() == DType::I64 {
        return Ok(x.to_vec::<i64>().map_err(words)?.into_iter().map(|n| n as f64).collect());
    }
    x.to(DType::F64).and_then(|x| x.to_vec()).map_err(words)
}
