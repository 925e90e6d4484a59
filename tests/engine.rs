//! What the engine promises in numbers, counted by `Device::stats()` on every device present: few kernels, little traffic,
//! steps that cost no preparation, bounded memory, no leak. The counters belong to the whole process, so the tests of
//! this binary take turns.

#[path = "../crates/device/tests/support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use support::devices;
use wgrad::{ConvOptions, DType, Device, Error, FftNorm, Padding, Result, Stats, Tensor, no_grad, tape};

/// Lets one test at a time look at the counters.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counted(device: &Device, run: impl FnOnce() -> Result<()>) -> Stats {
    let before = device.stats();
    run().unwrap();
    device.synchronize().unwrap();
    device.stats().since(&before)
}

/// Numbers in [-1, 1) that depend on their position only.
fn numbers(shape: &[usize], device: &Device) -> Tensor {
    let count: usize = shape.iter().product();
    let data: Vec<f32> = (0..count).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
    Tensor::from_slice(&data, shape, device).unwrap()
}

fn leaf(shape: &[usize], device: &Device) -> Tensor {
    numbers(shape, device).requires_grad_(true).unwrap()
}

#[test]
fn article_forward_and_backward_take_three_dispatches_and_16_bytes_an_element() {
    let _turn = alone();
    for device in devices() {
        let n = 1_000_000;
        let x = leaf(&[n], &device);
        let stats = counted(&device, || {
            let y = (x.pow(2.0)? + 100.0)?;
            let loss = y.mean()?;
            loss.backward()?;
            let mean_of_squares =
                (0..n).map(|i| ((i * 7919 % 2003) as f64 / 1001.5 - 1.0).powi(2)).sum::<f64>() / n as f64;
            assert!((f64::from(loss.item::<f32>()?) - 100.0 - mean_of_squares).abs() < 1e-4);
            x.grad().unwrap().eval()
        });
        assert!(stats.dispatches <= 3, "{device}: {} dispatches", stats.dispatches);
        let moved = (stats.bytes_read + stats.bytes_written) as f64 / n as f64;
        assert!(moved <= 16.0, "{device}: {moved} bytes an element");
    }
}

#[test]
fn softmax_and_layer_norm_take_few_dispatches() {
    let _turn = alone();
    for device in devices() {
        let x = leaf(&[4096, 1024], &device);
        let stats = counted(&device, || {
            let loss = x.softmax(-1)?.pow(2.0)?.sum()?;
            loss.backward()?;
            loss.eval()?;
            x.grad().unwrap().eval()
        });
        assert!(stats.dispatches <= 4, "{device}: softmax took {} dispatches", stats.dispatches);
        let x = leaf(&[4096, 1024], &device);
        let (weight, bias) = (leaf(&[1024], &device), leaf(&[1024], &device));
        let stats = counted(&device, || {
            let loss = x.layer_norm([1024], &weight, &bias, 1e-5)?.pow(2.0)?.mean()?;
            loss.backward()?;
            Tensor::eval_all(&[loss, x.grad().unwrap(), weight.grad().unwrap(), bias.grad().unwrap()])
        });
        assert!(stats.dispatches <= 6, "{device}: layer_norm took {} dispatches", stats.dispatches);
    }
}

/// Halves are rounded after what is added to a product, in the kernel that multiplies: a bias costs no launch.
#[test]
fn a_bias_of_halves_is_part_of_the_product() {
    let _turn = alone();
    let options = ConvOptions { padding: Padding::Explicit(vec![1]), ..ConvOptions::default() };
    for device in devices() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let of = |shape: &[usize]| numbers(shape, &device).to_dtype(dtype).unwrap();
            let (x, w, b) = (of(&[64, 48]), of(&[40, 48]), of(&[40]));
            let (image, window, channels) = (of(&[2, 3, 12, 12]), of(&[8, 3, 3, 3]), of(&[8]));
            Tensor::eval_all([&x, &w, &b, &image, &window, &channels]).unwrap();
            let launches =
                |program: &dyn Fn() -> Result<Tensor>| counted(&device, || program()?.eval()).dispatches;
            let pairs: [(&str, u64, u64); 3] = [
                ("linear", launches(&|| x.linear(&w, None)), launches(&|| x.linear(&w, &b))),
                ("addmm", launches(&|| x.mm(&w.t()?)), launches(&|| b.addmm(&x, &w.t()?, 0.5, 2.0))),
                (
                    "conv2d",
                    launches(&|| image.conv(&window, None, &options)),
                    launches(&|| image.conv(&window, &channels, &options)),
                ),
            ];
            for (name, without, with) in pairs {
                assert_eq!(with, without, "{device}: launches of {name} of {dtype} with a bias, and without");
            }
        }
    }
}

/// A perceptron with Adam written out.
struct Mlp {
    parameters: Vec<Tensor>,
    moments: Vec<(Tensor, Tensor)>,
    step: i32,
}

impl Mlp {
    fn new(sizes: &[usize], device: &Device) -> Result<Mlp> {
        let mut parameters = Vec::new();
        for pair in sizes.windows(2) {
            let scale = 1.0 / (pair[0] as f64).sqrt();
            parameters.push((numbers(&[pair[1], pair[0]], device) * scale)?.requires_grad_(true)?);
            parameters.push(Tensor::zeros(pair[1], device)?.requires_grad_(true)?);
        }
        let moments = parameters.iter().map(|p| Ok((p.detach().zeros_like()?, p.detach().zeros_like()?)));
        let moments = moments.collect::<Result<_>>()?;
        Ok(Mlp { parameters, moments, step: 0 })
    }

    fn train(&mut self, x: &Tensor, target: &Tensor) -> Result<f32> {
        let mut h = x.clone();
        let layers = self.parameters.len() / 2;
        for (i, layer) in self.parameters.chunks(2).enumerate() {
            h = h.linear(&layer[0], &layer[1])?;
            if i + 1 < layers {
                h = h.relu()?;
            }
        }
        let loss = h.cross_entropy(target)?;
        loss.backward()?;
        self.step += 1;
        let (b1, b2) = (0.9f64, 0.999f64);
        let (c1, c2) = (1.0 - b1.powi(self.step), 1.0 - b2.powi(self.step));
        no_grad(|| -> Result<()> {
            for (p, (m, v)) in self.parameters.iter().zip(&mut self.moments) {
                let g = p.grad().unwrap();
                *m = ((&*m * b1)? + (&g * (1.0 - b1))?)?;
                *v = ((&*v * b2)? + (g.square()? * (1.0 - b2))?)?;
                let update = ((&*m / c1)? / ((&*v / c2)?.sqrt()? + 1e-8)?)?;
                p.sub_((update * 1e-3)?)?;
                p.zero_grad();
            }
            Ok(())
        })?;
        // A step is evaluated as a whole.
        let moments = self.moments.iter().flat_map(|(m, v)| [m, v]);
        Tensor::eval_all(self.parameters.iter().chain(moments).chain([&loss]))?;
        loss.item::<f32>()
    }
}

fn batch(rows: usize, device: &Device) -> (Tensor, Tensor) {
    let target: Vec<i64> = (0..rows as i64).map(|i| i % 10).collect();
    (numbers(&[rows, 32], device), Tensor::from_slice(&target, [rows], device).unwrap())
}

#[test]
fn a_training_step_settles() {
    let _turn = alone();
    for device in devices() {
        let mut mlp = Mlp::new(&[32, 48, 24, 10], &device).unwrap();
        let (x, target) = batch(16, &device);
        let first = mlp.train(&x, &target).unwrap();
        for _ in 0..9 {
            mlp.train(&x, &target).unwrap();
        }
        device.synchronize().unwrap();
        let after_10 = device.stats();
        let steps = if device.is_cpu() { 10_000 } else { 300 };
        let mut last = 0.0;
        for _ in 0..steps {
            last = mlp.train(&x, &target).unwrap();
        }
        device.synchronize().unwrap();
        let stats = device.stats().since(&after_10);
        assert!(last < first / 4.0, "{device}: the loss went from {first} to {last}");
        assert_eq!(
            (stats.pipelines_compiled, stats.plans_built, stats.buffers_requested),
            (0, 0, 0),
            "{device}: pipelines, plans and buffers made after 10 steps"
        );
        assert_eq!(stats.bytes_in_use, after_10.bytes_in_use, "{device}: memory after {steps} more steps");
        let (x, target) = batch(24, &device);
        mlp.train(&x, &target).unwrap();
        let other = device.stats().since(&after_10);
        assert_eq!(other.pipelines_compiled, 0, "{device}: pipelines for another batch size");
    }
}

#[test]
fn a_transform_met_before_costs_no_preparation() {
    let _turn = alone();
    for device in devices() {
        // In steps, as a convolution, and of real numbers.
        for n in [1000, 211, 256] {
            let x = leaf(&[3, n], &device);
            let run = || {
                let y = x.rfft(None, 1, FftNorm::Backward)?;
                y.mul(&y)?.sum()?.backward()?;
                let grad = x.grad().unwrap();
                x.zero_grad();
                grad.eval()
            };
            counted(&device, || {
                run()?;
                run()
            });
            let before = device.stats().bytes_in_use;
            let stats = counted(&device, run);
            assert_eq!(
                (stats.pipelines_compiled, stats.plans_built, stats.buffers_requested),
                (0, 0, 0),
                "{device}: pipelines, plans and buffers made for {n} points known"
            );
            assert_eq!(device.stats().bytes_in_use, before, "{device}: memory after {n} points");
        }
    }
}

#[test]
fn a_million_operations_forward_and_backward() {
    let _turn = alone();
    let x = leaf(&[1], &Device::cpu());
    let before = tape::stats().live;
    let mut y = x.clone();
    for _ in 0..500_000 {
        y = ((y * 1.000_001).unwrap() + 1e-6).unwrap();
    }
    y.backward().unwrap();
    let expected = 1.000_001f64.powi(500_000);
    let grad = f64::from(x.grad().unwrap().item::<f32>().unwrap());
    assert!((grad - expected).abs() < 0.05 * expected, "{grad} for {expected}");
    drop(y);
    assert_eq!(tape::stats().live, before);
}

#[test]
fn a_loop_of_forwards_holds_flat_memory() {
    let _turn = alone();
    let device = Device::cpu();
    let x = leaf(&[100], &device);
    let mut middle = None;
    let mut state = numbers(&[100], &device);
    for i in 0..100_000 {
        let y = (x.sin().unwrap() * &x).unwrap();
        // A state that is carried on and never read.
        state = no_grad(|| (&state * 0.5).unwrap() + &y).unwrap().detach();
        if i == 50_000 {
            middle = Some((tape::stats().live, device.stats().bytes_in_use));
        }
    }
    let (nodes, bytes) = middle.unwrap();
    assert!(tape::stats().live <= nodes + 8);
    assert!(device.stats().bytes_in_use <= bytes + (1 << 20));
    assert!(state.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn nothing_is_left_when_all_is_dropped() {
    let _turn = alone();
    for device in devices() {
        device.synchronize().unwrap();
        let (nodes, bytes) = (tape::stats().live, device.stats().bytes_in_use);
        {
            let mut mlp = Mlp::new(&[32, 16, 10], &device).unwrap();
            let (x, target) = batch(8, &device);
            for _ in 0..5 {
                mlp.train(&x, &target).unwrap();
            }
            let w = &mlp.parameters[0];
            let loss = x.matmul(&w.t().unwrap()).unwrap().tanh().unwrap().sum().unwrap();
            let options = wgrad::GradOptions::new().create_graph(true);
            let first = wgrad::grad(&[&loss], &[w], options).unwrap().remove(0).unwrap();
            first.square().unwrap().sum().unwrap().backward().unwrap();
            w.grad().unwrap().eval().unwrap();
        }
        device.synchronize().unwrap();
        assert_eq!(tape::stats().live, nodes, "{device}: nodes left");
        assert_eq!(device.stats().bytes_in_use, bytes, "{device}: bytes left");
    }
}

#[test]
fn eight_threads_share_leaves() {
    let _turn = alone();
    for device in devices() {
        let x = leaf(&[64], &device);
        let threads = 8;
        let rounds = 20;
        std::thread::scope(|scope| {
            for t in 0..threads {
                let x = &x;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let y = ((x * f64::from(t + 1)).unwrap().sum()).unwrap();
                        y.backward().unwrap();
                    }
                });
            }
        });
        // Each backward of thread t adds t + 1 to every element.
        let expected = (rounds * threads * (threads + 1) / 2) as f32;
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), vec![expected; 64], "{device}");
    }
}

#[test]
fn an_allocation_over_the_limit_is_an_error_and_the_program_goes_on() {
    let _turn = alone();
    for device in devices() {
        device.trim();
        let used = device.stats().bytes_in_use;
        device.set_memory_limit(Some(used + (8 << 20)));
        let too_large = Tensor::zeros([4 << 20], (DType::F32, &device)).unwrap().exp().unwrap();
        match too_large.eval() {
            Err(Error::OutOfMemory { requested, limit, .. }) => {
                assert!(requested >= 16 << 20 && limit == used + (8 << 20), "{requested} of {limit}");
            }
            other => panic!("{device}: {other:?}"),
        }
        assert_eq!(Tensor::ones([4], &device).unwrap().sum().unwrap().item::<f32>().unwrap(), 4.0);
        device.set_memory_limit(None);
        too_large.eval().unwrap();
    }
}

/// What `mean(layer_norm(x)^2)` gives for rows of n elements, in f64: the loss and its gradients.
fn layer_norm_truth(x: &[f64], weight: &[f64], bias: &[f64]) -> (f64, [Vec<f64>; 3]) {
    let n = weight.len();
    let (mut loss, mut of_x, mut of_weight, mut of_bias) = (0.0, Vec::new(), vec![0.0; n], vec![0.0; n]);
    for row in x.chunks_exact(n) {
        let mean = row.iter().sum::<f64>() / n as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        let normal: Vec<f64> = row.iter().map(|x| (x - mean) * scale).collect();
        let y: Vec<f64> = (0..n).map(|i| normal[i] * weight[i] + bias[i]).collect();
        loss += y.iter().map(|y| y * y).sum::<f64>() / x.len() as f64;
        let g: Vec<f64> = y.iter().map(|y| 2.0 * y / x.len() as f64).collect();
        let inner: Vec<f64> = (0..n).map(|i| g[i] * weight[i]).collect();
        let (first, second) = (
            inner.iter().sum::<f64>() / n as f64,
            (0..n).map(|i| inner[i] * normal[i]).sum::<f64>() / n as f64,
        );
        for i in 0..n {
            of_weight[i] += g[i] * normal[i];
            of_bias[i] += g[i];
            of_x.push(scale * (inner[i] - first - normal[i] * second));
        }
    }
    (loss, [of_x, of_weight, of_bias])
}

#[test]
fn layer_norm_is_right_for_rows_of_every_length() -> Result<()> {
    let _turn = alone();
    for device in devices() {
        for [rows, n] in [[64, 256], [1, 1000], [300, 64], [7, 9000], [5000, 3], [2, 70_000]] {
            let leaves = [leaf(&[rows, n], &device), leaf(&[n], &device), leaf(&[n], &device)];
            let loss =
                leaves[0].layer_norm([n], Some(&leaves[1]), Some(&leaves[2]), 1e-5)?.pow(2.0)?.mean()?;
            loss.backward()?;
            let grads: Vec<Tensor> = leaves.iter().filter_map(Tensor::grad).collect();
            let wanted: Vec<&Tensor> = grads.iter().chain([&loss]).collect();
            Tensor::eval_all(wanted)?;
            let [x, weight, bias] = leaves.each_ref().map(|leaf| {
                leaf.detach().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>()
            });
            let (truth, gradients) = layer_norm_truth(&x, &weight, &bias);
            let found = f64::from(loss.item::<f32>()?);
            assert!(
                (found - truth).abs() <= 1e-5 * truth,
                "{device} [{rows}, {n}]: {found} instead of {truth}"
            );
            for (found, truth) in grads.iter().zip(gradients) {
                let largest = truth.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                for (found, truth) in found.to_vec::<f32>()?.into_iter().zip(truth) {
                    let close = (f64::from(found) - truth).abs() <= 2e-5 * largest;
                    assert!(close, "{device} [{rows}, {n}]: {found} instead of {truth}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn convolutions_write_no_windows() {
    let _turn = alone();
    for device in devices() {
        let options = ConvOptions { padding: Padding::Explicit(vec![1]), ..ConvOptions::default() };
        let step = |batch: usize| {
            let x = leaf(&[batch, 16, 32, 32], &device);
            let (weight, bias) = (leaf(&[32, 16, 3, 3], &device), leaf(&[32], &device));
            let forward = counted(&device, || {
                let y = x.detach().conv(&weight.detach(), &bias.detach(), &options)?.relu()?;
                y.eval()
            });
            let both = counted(&device, || {
                let loss = x.conv(&weight, &bias, &options)?.relu()?.sum()?;
                loss.backward()?;
                let grads = [&x, &weight, &bias].map(|t| t.grad().unwrap());
                Tensor::eval_all(grads.iter().chain([&loss]))
            });
            // Elements of the padded input, of the input, and of the output.
            let sizes = [16 * 34 * 34, 16 * 32 * 32, 32 * 32 * 32].map(|n| (n * 4 * batch) as u64);
            (forward, both, sizes)
        };
        let (forward, both, [padded, input, output]) = step(8);
        // The margins, and the product with bias and rectifier. Windows would be nine times the input.
        assert!(forward.dispatches <= 2, "{device}: {} dispatches forward", forward.dispatches);
        let moved = forward.bytes_read + forward.bytes_written;
        assert!(moved <= input + 2 * padded + output + (1 << 16), "{device}: {moved} bytes forward");
        assert!(both.dispatches <= 10, "{device}: {} dispatches forward and backward", both.dispatches);
        let moved = both.bytes_read + both.bytes_written;
        assert!(moved < 16 * output, "{device}: {moved} bytes forward and backward");
        if device != Device::cpu() {
            let (forward, ..) = step(7);
            assert_eq!(forward.pipelines_compiled, 0, "{device}: compiled for another batch size");
        }
    }
}

#[test]
fn an_order_waits_until_it_is_read() {
    let _turn = alone();
    for device in devices() {
        let x = Tensor::new([[3i64, 1, 2], [6, 5, 4]], &device).unwrap();
        x.eval().unwrap();
        let before = device.stats().dispatches;
        let (values, order) = x.sort(1, true).unwrap();
        let best = x.topk(2, 0, true).unwrap().0;
        assert_eq!(device.stats().dispatches, before, "{device}");
        assert_eq!(values.to_vec::<i64>().unwrap(), [3, 2, 1, 6, 5, 4]);
        assert_eq!(order.to_vec::<i64>().unwrap(), [0, 2, 1, 0, 1, 2]);
        assert_eq!(best.to_vec::<i64>().unwrap(), [6, 5, 4, 3, 1, 2]);
    }
}

#[test]
fn many_sources_that_are_stored_late_fit_a_kernels_bindings() -> Result<()> {
    let _turn = alone();
    for device in devices() {
        for held in [true, false] {
            let parts: Vec<Tensor> =
                (0..40).map(|_| Tensor::rand([12, 11, 4], &device)).collect::<Result<_>>()?;
            let flat = parts.iter().map(|part| part.reshape(-1)).collect::<Result<Vec<Tensor>>>()?;
            let joined = Tensor::cat(&flat.iter().collect::<Vec<_>>(), 0)?;
            let expected = held.then(|| parts.clone());
            drop((parts, flat));
            let joined = joined.to_vec::<f32>()?;
            assert!(joined.iter().all(|x| (0.0..1.0).contains(x)), "{device}");
            for (i, part) in expected.into_iter().flatten().enumerate() {
                assert_eq!(part.to_vec::<f32>()?, joined[i * 528..(i + 1) * 528], "{device}: part {i}");
            }
        }
    }
    Ok(())
}
