//! What is planned for well-known computations: launches, bytes, and what is stored and why, as worked out by hand; what `explain`
//! says is what then runs, and saying it changes nothing.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wgrad::{ConvOptions, Device, Explanation, Padding, Result, Tensor, Traffic, Why, no_grad};

/// The counters are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn values(shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product()).map(|i: usize| (i * 7919 % 1000) as f32 * 0.001 - 0.5).collect()
}

fn tensor(shape: &[usize], device: &Device) -> Tensor {
    Tensor::from_slice(&values(shape), shape, device).unwrap()
}

fn leaf(shape: &[usize], device: &Device) -> Tensor {
    tensor(shape, device).requires_grad_(true).unwrap()
}

fn grad(x: &Tensor) -> Tensor {
    x.grad().expect("a leaf that requires grad, after backward")
}

/// What reading these would do; and that saying so changes nothing, and that it is what reading them then does.
fn explained(device: &Device, tensors: &[&Tensor]) -> Result<Explanation> {
    let before = device.stats();
    let explanation = Tensor::explain_all(tensors.iter().copied())?;
    let again = Tensor::explain_all(tensors.iter().copied())?;
    assert_eq!(explanation, again);
    assert_eq!(device.stats(), before, "explaining did something");
    Tensor::eval_all(tensors.iter().copied())?;
    let ran = device.stats().since(&before);
    let traffic = traffic(&explanation);
    assert_eq!((ran.bytes_read, ran.bytes_written), (traffic.read, traffic.written));
    assert_eq!(ran.plans_built + ran.plan_hits, explanation.plans.len() as u64);
    if device.is_cpu() {
        // A GPU may take several dispatches for a launch.
        assert_eq!(ran.dispatches, explanation.launches() as u64);
    }
    Ok(explanation)
}

fn traffic(explanation: &Explanation) -> Traffic {
    let [plan] = &explanation.plans[..] else { panic!("{} plans", explanation.plans.len()) };
    plan.traffic()
}

/// What is stored, kernel by kernel: what the program called, and why it is in memory.
fn stores(explanation: &Explanation) -> Vec<Vec<(&str, Why)>> {
    let kernels = explanation.plans.iter().flat_map(|plan| &plan.kernels);
    kernels.map(|kernel| kernel.stores.iter().map(|stored| (stored.called, stored.why)).collect()).collect()
}

/// The same, each kernel's in the order of their names.
fn stores_sorted(explanation: &Explanation) -> Vec<Vec<(&str, Why)>> {
    let mut kernels = stores(explanation);
    kernels.iter_mut().for_each(|kernel| kernel.sort_by_key(|(called, _)| std::cmp::Reverse(*called)));
    kernels
}

/// How many elements each stored result has.
fn sizes(explanation: &Explanation) -> Vec<u64> {
    let plan = &explanation.plans[0];
    let elements = |operation: usize| plan.operations[operation].shape.iter().product::<usize>() as u64;
    plan.stores().map(|stored| elements(stored.operation)).collect()
}

/// Bytes of so many numbers of f32.
const fn f32s(count: u64) -> u64 {
    4 * count
}

#[test]
fn the_chain_and_its_gradient_are_one_pass_over_the_data() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let x = leaf(&[1000], device);
    let loss = (x.pow(2.0)? + 100.0)?.mean()?;
    loss.backward()?;
    let explanation = explained(device, &[&loss, &grad(&x)])?;
    assert_eq!(stores(&explanation), [[("mean", Why::Result), ("PowBackward0", Why::Result)]]);
    assert_eq!(traffic(&explanation), Traffic { read: f32s(1000), written: f32s(1000 + 1) });
    // The text says so too, with the lines of this file.
    let text = explanation.to_string();
    let line = line!() - 7;
    for part in [
        format!("pow at tests/plans.rs:{line}"),
        format!("mean at tests/plans.rs:{line}"),
        "plan for cpu: 1 kernel for".into(),
        "loop over a row of [1000]: reads 4000 B, writes 4004 B".into(),
        "x0 f32[1000]".into(),
        "4 B: a result".into(),
    ] {
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn a_softmax_and_its_gradient_are_one_pass_over_the_rows() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let (x, w) = (leaf(&[64, 100], device), tensor(&[64, 100], device));
    let loss = (x.softmax(1)? * &w)?.sum()?;
    loss.backward()?;
    let explanation = explained(device, &[&loss, &grad(&x)])?;
    // The rows with the sum of each, then the sum of the sums.
    let rows = vec![("sum", Why::Shared), ("SoftmaxBackward0", Why::Result)];
    assert_eq!(stores_sorted(&explanation), [rows, vec![("sum", Why::Viewed)]]);
    let expected = Traffic { read: f32s(2 * 6400 + 64), written: f32s(6400 + 64 + 1) };
    assert_eq!(traffic(&explanation), expected);
    Ok(())
}

#[test]
fn a_layer_norm_and_its_gradients_are_a_pass_over_the_rows_and_one_over_the_columns() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let (x, w) = (leaf(&[64, 100], device), tensor(&[64, 100], device));
    let (scale, shift) = (leaf(&[100], device), leaf(&[100], device));
    let loss = (x.layer_norm([100], Some(&scale), Some(&shift), 1e-5)? * &w)?.sum()?;
    loss.backward()?;
    let explanation = explained(device, &[&loss, &grad(&x), &grad(&scale), &grad(&shift)])?;
    // The rows' means and scales are stored, since the columns would compute them for each element.
    let rows = vec![
        ("sum", Why::Shared),
        ("layer_norm", Why::Repeated),
        ("layer_norm", Why::Repeated),
        ("NativeLayerNormBackward0", Why::Result),
    ];
    let columns = vec![("backward", Why::Viewed); 2];
    assert_eq!(stores_sorted(&explanation), [rows, vec![("sum", Why::Viewed)], columns]);
    // x and w twice, the scale and the shift, what was stored of the rows.
    let read = f32s(2 * 2 * 6400 + 2 * 100 + 64 + 2 * 64);
    let written = f32s(6400 + 3 * 64 + 1 + 2 * 100);
    assert_eq!(traffic(&explanation), Traffic { read, written });
    Ok(())
}

#[test]
fn a_step_of_a_perceptron_with_adam_updates_where_it_computes_the_gradients() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let (x, labels) = (tensor(&[16, 20], device), Tensor::from_slice(&[1i64; 16], [16], device)?);
    let shapes: [&[usize]; 4] = [&[32, 20], &[32], &[10, 32], &[10]];
    let parameters = shapes.map(|shape| leaf(shape, device));
    let (means, squares) = (shapes.map(|s| tensor(s, device)), shapes.map(|s| tensor(s, device)));
    let step = |rate: f64| -> Result<Tensor> {
        let hidden = x.linear(&parameters[0], Some(&parameters[1]))?.relu()?;
        let loss = hidden.linear(&parameters[2], Some(&parameters[3]))?.cross_entropy(&labels)?;
        drop(hidden);
        parameters.iter().for_each(Tensor::zero_grad);
        loss.backward()?;
        no_grad(|| -> Result<()> {
            for ((p, mean), square) in parameters.iter().zip(&means).zip(&squares) {
                let gradient = grad(p);
                mean.mul_(0.9)?.add_((&gradient * 0.1)?)?;
                square.mul_(0.999)?.add_((gradient.square()? * 0.001)?)?;
                p.sub_((mean.div((square.abs()?.sqrt()? + 1e-8)?)? * rate)?)?;
                p.zero_grad();
            }
            Ok(())
        })?;
        Ok(loss)
    };
    // A read after an update plans the whole step.
    let loss = step(0.001)?;
    let explanation = explained(device, &[&loss])?;
    assert!(!explanation.plans[0].is_known);
    let update = vec![("sub_", Why::Result), ("add_", Why::Result), ("add_", Why::Result)];
    let expected = [
        vec![("relu", Why::Operand)],
        vec![("linear", Why::Shared)],
        // Logarithms of probabilities, from which the loss is picked.
        vec![("cross_entropy", Why::Operand)],
        vec![("cross_entropy", Why::Result), ("cross_entropy", Why::Shared)],
        // The gradient of the scores, then of the hidden layer.
        vec![("LogSoftmaxBackward0", Why::Operand)],
        vec![("ReluBackward0", Why::Operand)],
    ];
    let stored = stores_sorted(&explanation);
    assert_eq!(stored[..6], expected);
    assert_eq!(stored[6..], vec![update; 4], "each parameter's gradient is used where it is computed");
    // A parameter's update reads its gradient's factors, the parameter and its moments, and writes these three.
    let updates: Vec<Traffic> =
        explanation.plans[0].kernels[6..].iter().map(|kernel| kernel.traffic).collect();
    let moved = |factors: u64, elements: u64| Traffic {
        read: f32s(factors + 3 * elements),
        written: f32s(3 * elements),
    };
    let mut expected = [
        moved(16 * 10 + 16 * 32, 320),
        moved(16 * 10, 10),
        moved(16 * 32 + 16 * 20, 640),
        moved(16 * 32, 32),
    ];
    let mut updates = updates;
    expected.sort_by_key(|traffic| traffic.written);
    updates.sort_by_key(|traffic| traffic.written);
    assert_eq!(updates, expected);
    // Another rate is another number, not another plan.
    let loss = step(0.0005)?;
    assert!(explained(device, &[&loss])?.plans[0].is_known);
    Ok(())
}

#[test]
fn causal_attention_stores_what_products_read() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let shape = &[2, 4, 8, 16];
    let (q, k, v, w) = (leaf(shape, device), leaf(shape, device), leaf(shape, device), tensor(shape, device));
    let loss = (q.scaled_dot_product_attention(&k, &v, None, true, None, false)? * &w)?.sum()?;
    loss.backward()?;
    let explanation = explained(device, &[&loss, &grad(&q), &grad(&k), &grad(&v)])?;
    let products = explanation.plans[0].kernels.iter().filter(|kernel| kernel.kind.starts_with("matmul"));
    // Scores and their weighted sum; the gradients of the weights, of q, of k and of v.
    assert_eq!(products.count(), 6);
    let stored: Vec<(&str, Why)> = stores(&explanation).into_iter().flatten().collect();
    let results = stored.iter().filter(|(_, why)| matches!(why, Why::Result | Why::Viewed)).count();
    assert_eq!(results, 4, "the loss and three gradients: {stored:?}");
    // No probability is stored but as a product's operand: the backward computes them from the scores again.
    let weights: u64 = 2 * 4 * 8 * 8;
    let squares = sizes(&explanation).into_iter().filter(|&elements| elements == weights);
    assert_eq!(squares.count(), 4, "scores, weights, and the gradients of both");
    assert_eq!(explanation.launches(), 11);
    Ok(())
}

#[test]
fn a_convolution_and_its_gradients_are_three_products_without_windows_in_memory() -> Result<()> {
    let _alone = alone();
    let device = &Device::cpu();
    let (x, w, b) = (leaf(&[2, 3, 8, 8], device), leaf(&[4, 3, 3, 3], device), leaf(&[4], device));
    let options = ConvOptions { padding: Padding::Explicit(vec![1]), ..ConvOptions::default() };
    let loss = x.conv2d(&w, Some(&b), &options)?.relu()?.sum()?;
    loss.backward()?;
    let explanation = explained(device, &[&loss, &grad(&x), &grad(&w), &grad(&b)])?;
    let products = explanation.plans[0].kernels.iter().filter(|kernel| kernel.kind.starts_with("matmul"));
    assert_eq!(products.count(), 3, "the result, and the gradients of the input and of the weight");
    assert_eq!(explanation.launches(), 8);
    // Windows of the input would be 27 numbers for each of 128 places; the largest thing stored is the gradient with its margins.
    assert_eq!(sizes(&explanation).into_iter().max(), Some(2 * 4 * 10 * 10));
    Ok(())
}

#[test]
fn a_plan_is_known_once_it_has_run_and_nothing_is_pending_then() -> Result<()> {
    let _alone = alone();
    for info in Device::available() {
        let device: Device = info.name.parse()?;
        let make = |x: &Tensor| (x.exp()? * 3.0)?.logsumexp([1], false);
        let x = tensor(&[17, 19], &device);
        let y = make(&x)?;
        let first = explained(&device, &[&y])?;
        assert!(!first.plans[0].is_known, "{device}");
        assert_eq!(y.explain()?.to_string(), "nothing is pending");
        let z = make(&x)?;
        let second = explained(&device, &[&z])?;
        assert!(second.plans[0].is_known, "{device}");
        assert_eq!(first.plans[0].kernels, second.plans[0].kernels);
        assert_eq!(y.to_vec::<f32>()?, z.to_vec::<f32>()?);
    }
    Ok(())
}

/// Runs one of this file's tests in a process of its own, with `WGRAD_DEBUG` set to this; what it writes to standard error.
fn told(debug: &str) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_small_program_that_runs_twice", "--nocapture"]).env("WGRAD_DEBUG", debug);
    let output = child.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().filter(|line| line.contains("wgrad: ")).map(str::to_owned).collect()
}

#[test]
fn a_small_program_that_runs_twice() -> Result<()> {
    let _alone = alone();
    for rate in [0.5, 0.25] {
        let x = Tensor::from_slice(&[1f32; 321], [321], &Device::cpu())?;
        let sum = (x * rate)?.sum()?;
        assert_eq!(sum.item::<f32>()?, 321.0 * rate as f32);
    }
    Ok(())
}

#[test]
fn what_is_planned_and_run_is_told_if_asked_for() {
    let plan = "wgrad: plan for cpu: 1 kernel for ";
    let run = "wgrad: run on cpu: 1 launch, reads 1284 B, writes 4 B, ";
    assert_eq!(told(""), [""; 0]);

    let lines = told("plan");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(plan), "{lines:?}");

    let lines = told("run");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with(run)), "{lines:?}");
    assert!(lines[0].contains(", miss: planned in "), "{lines:?}");
    assert!(lines[1].ends_with(", hit"), "{lines:?}");

    let lines = told("plan,run");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with(plan) && lines[1].starts_with(run), "{lines:?}");
}

#[cfg(feature = "nn")]
#[test]
fn one_plan_serves_every_place_of_a_cache() -> Result<()> {
    use wgrad::nn::{KeyValueCache, MultiheadAttention};
    let _turn = alone();
    let device = Device::cpu();
    let attention = MultiheadAttention::options(8, 2).batch_first(true).build(&device)?;
    let mut cache = KeyValueCache::new(32);
    let mut built = Vec::new();
    wgrad::no_grad(|| {
        for _ in 0..8 {
            let x = Tensor::randn([1, 1, 8], &device)?;
            x.eval()?;
            let before = device.stats();
            attention.forward_cached(&x, &mut cache)?.eval()?;
            built.push(device.stats().since(&before).plans_built);
        }
        Ok::<_, wgrad::Error>(())
    })?;
    assert_eq!(built[2..], [0; 6], "{built:?}");
    Ok(())
}
