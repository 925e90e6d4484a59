//! Operators that have kernels or ways of their own, one by one: sorts, running products, windows, convolutions,
//! factorizations, Fourier transforms.

use wgrad::{ConvOptions, Device, FftNorm, Padding, PoolOptions, QrMode, Result, Tensor, Triangle};

use super::{Only, Outcome, Task, differentiated};
use crate::inputs::{fill, tensor};

/// Tensors by their names.
type Named = Vec<(&'static str, Tensor)>;

/// The tasks of operators. `quick` cuts the sizes, which their names then say.
pub fn all(quick: bool) -> Vec<Task> {
    let mut tasks = sorts(quick);
    tasks.extend(running_products(quick));
    tasks.extend(pools(quick));
    tasks.extend(convolutions(quick));
    tasks.extend(factorizations(quick));
    // At the end, since their tables stay in memory.
    tasks.extend(transforms(quick));
    tasks
}

/// A task that computes results, some to be compared and others not, of inputs that need no gradients.
fn forward(
    name: String,
    only: Only,
    inputs: impl Fn(&Device) -> Result<Vec<Tensor>> + 'static,
    compute: impl Fn(&[Tensor]) -> Result<(Named, Vec<Tensor>)> + Clone + 'static,
) -> Task {
    Task::new(name, only, move |device| {
        let (inputs, compute) = (inputs(device)?, compute.clone());
        Ok(Box::new(move || {
            let (compared, rest) = compute(&inputs)?;
            Ok(Outcome { compared, rest, ..Outcome::default() })
        }))
    })
}

/// Two tasks: the forward of an operator, and with `_backward` forward and the gradients of the result's sum.
fn both(
    name: &str,
    inputs: impl Fn(&Device) -> Result<Named> + Clone + 'static,
    compute: impl Fn(&[Tensor]) -> Result<Tensor> + Clone + 'static,
) -> [Task; 2] {
    let (of_leaves, result) = (inputs.clone(), compute.clone());
    let tensors = move |device: &Device| Ok(inputs(device)?.into_iter().map(|(_, input)| input).collect());
    let leaves = move |device: &Device| {
        let named = of_leaves(device)?.into_iter();
        named.map(|(name, input)| Ok((name, input.requires_grad_(true)?))).collect()
    };
    [
        forward(name.to_owned(), Only::Everywhere, tensors, move |x| {
            Ok((vec![("result", result(x)?)], vec![]))
        }),
        differentiated(format!("{name}_backward"), leaves, move |x| compute(x)?.sum()),
    ]
}

/// Sorts and what is made of them, with values and places.
fn sorts(quick: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    let (rows, line) = if quick { (64, 10_000) } else { (4096, 1_000_000) };
    for shape in [vec![rows, 1024], vec![rows, 100], vec![line]] {
        let name = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        forward_of_values(&mut tasks, format!("sort_{name}"), shape, |x| x.sort(-1, false));
    }
    forward_of_values(&mut tasks, format!("topk_{rows}x1024"), vec![rows, 1024], |x| x.topk(10, -1, true));

    let n = if quick { 1 << 14 } else { 1 << 22 };
    let integers = move |device: &Device| {
        let values: Vec<i64> = fill(12, n, 1000.0).into_iter().map(|v| v as i64).collect();
        Ok(vec![Tensor::from_slice(&values, [n], device)?])
    };
    tasks.push(forward(format!("unique_{n}"), Only::Everywhere, integers, |x| {
        let found = x[0].unique()?;
        Ok((vec![("values", found.values), ("counts", found.counts)], vec![found.inverse]))
    }));
    let half = move |device: &Device| Ok(vec![tensor(13, &[line], device)?.gt(0.0)?]);
    tasks.push(forward(format!("nonzero_{line}"), Only::Everywhere, half, |x| {
        Ok((vec![("places", x[0].nonzero()?)], vec![]))
    }));
    tasks
}

/// Adds a task that computes values, and their places, of a tensor of this shape.
fn forward_of_values(
    tasks: &mut Vec<Task>,
    name: String,
    shape: Vec<usize>,
    compute: impl Fn(&Tensor) -> Result<(Tensor, Tensor)> + Clone + 'static,
) {
    let inputs = move |device: &Device| Ok(vec![tensor(12, &shape, device)?]);
    tasks.push(forward(name, Only::Everywhere, inputs, move |x| {
        // Equal elements may stand in any order in other libraries, so places are not compared.
        let (values, places) = compute(&x[0])?;
        Ok((vec![("values", values)], vec![places]))
    }));
}

/// Running products of numbers near 1, with a zero in the middle of each row.
fn running_products(quick: bool) -> Vec<Task> {
    let rows = if quick { 4 } else { 64 };
    let mut tasks = Vec::new();
    for n in [1000, 100] {
        let inputs = move |device: &Device| {
            let values = fill(15, rows * n, 0.05).into_iter().enumerate();
            let values: Vec<f32> = values.map(|(i, v)| if i % n == n / 2 { 0.0 } else { 1.0 + v }).collect();
            Ok(vec![("x", Tensor::from_slice(&values, [rows, n], device)?)])
        };
        tasks.extend(both(&format!("cumprod_{rows}x{n}"), inputs, |x| x[0].cumprod(-1)));
    }
    tasks
}

/// Maxima and means of half a million elements, over windows side by side and over windows that overlap.
fn pools(quick: bool) -> Vec<Task> {
    let mut tasks = Vec::new();
    let batch = if quick { 1 } else { 32 };
    for (dims, sizes) in [(1, vec![1024]), (2, vec![32, 32]), (3, vec![16, 8, 8])] {
        for (window, stride, padding) in [(2, 2, 0), (3, 2, 1)] {
            let shape = [vec![batch, 16], sizes.clone()].concat();
            let inputs = move |device: &Device| Ok(vec![("x", tensor(21, &shape, device)?)]);
            let options =
                PoolOptions { stride: vec![stride], padding: vec![padding], ..PoolOptions::new(&[window]) };
            let means = options.clone();
            let windows = format!("pool{dims}d_{batch}x16_{window}s{stride}");
            tasks.extend(both(&format!("max_{windows}"), inputs.clone(), move |x| {
                let pool = [Tensor::max_pool1d, Tensor::max_pool2d, Tensor::max_pool3d][dims - 1];
                Ok(pool(&x[0], &options)?.0)
            }));
            tasks.extend(both(&format!("avg_{windows}"), inputs, move |x| {
                let pool = [Tensor::avg_pool1d, Tensor::avg_pool2d, Tensor::avg_pool3d][dims - 1];
                pool(&x[0], &means)
            }));
        }
    }
    tasks
}

/// A convolution with a bias and a ReLU, as in networks. Its name is the length of the input's sides and the window.
struct Convolution {
    name: &'static str,
    batch: usize,
    channels: usize,
    /// Along each side, and in a quick run.
    size: [usize; 2],
    dims: usize,
    out: usize,
    window: usize,
    stride: usize,
    groups: usize,
}

fn convolutions(quick: bool) -> Vec<Task> {
    let plain = Convolution {
        name: "conv",
        batch: 8,
        channels: 64,
        size: [56, 14],
        dims: 2,
        out: 64,
        window: 3,
        stride: 1,
        groups: 1,
    };
    let all = [
        Convolution { batch: 4, ..plain },
        Convolution { channels: 16, size: [32, 8], out: 32, ..plain },
        Convolution { channels: 3, size: [64, 16], out: 32, window: 7, stride: 2, ..plain },
        Convolution { name: "conv1d", size: [1024, 64], dims: 1, window: 5, ..plain },
        Convolution { name: "depthwise", size: [32, 8], groups: 64, ..plain },
    ];
    all.into_iter().flat_map(|convolution| convolution.tasks(quick)).collect()
}

impl Convolution {
    fn tasks(self, quick: bool) -> [Task; 2] {
        let batch = if quick { 1 } else { self.batch };
        let size = self.size[usize::from(quick)];
        let windows = vec![self.window.to_string(); self.dims].join("x");
        let with = |first: [usize; 2], size: usize| [first.to_vec(), vec![size; self.dims]].concat();
        let input = with([batch, self.channels], size);
        let weight = with([self.out, self.channels / self.groups], self.window);
        let options = ConvOptions {
            stride: vec![self.stride],
            padding: Padding::Explicit(vec![self.window / 2]),
            groups: self.groups,
            ..ConvOptions::default()
        };
        let inputs = move |device: &Device| {
            let (x, w) = (tensor(16, &input, device)?, tensor(17, &weight, device)?);
            Ok(vec![("x", x), ("w", w), ("b", tensor(18, &weight[..1], device)?)])
        };
        both(&format!("{}_{size}_{windows}", self.name), inputs, move |x| {
            x[0].conv(&x[1], &x[2], &options)?.relu()
        })
    }
}

/// Factorizations of one f64 matrix, and a system of equations.
fn factorizations(quick: bool) -> Vec<Task> {
    let n = if quick { 32 } else { 512 };
    let values = |seed: u32, n: usize| fill(seed, n, 1.0).into_iter().map(f64::from).collect::<Vec<f64>>();
    let matrix = move |device: &Device| Ok(vec![Tensor::from_slice(&values(19, n * n), [n, n], device)?]);
    let system = move |device: &Device| {
        let a = Tensor::from_slice(&values(19, n * n), [n, n], device)?;
        Ok(vec![a, Tensor::from_slice(&values(20, n), [n], device)?])
    };
    vec![
        // Singular vectors and eigenvectors may have any sign.
        forward(format!("qr_{n}"), Only::Cpu, matrix, |x| {
            let (q, r) = x[0].qr(QrMode::Reduced)?;
            Ok((vec![("q", q), ("r", r)], vec![]))
        }),
        forward(format!("svd_{n}"), Only::Cpu, matrix, |x| {
            let (u, s, vh) = x[0].svd(false)?;
            Ok((vec![("s", s)], vec![u, vh]))
        }),
        // Of the symmetric matrix that has the same lower triangle.
        forward(format!("eigh_{n}"), Only::Cpu, matrix, |x| {
            let (values, vectors) = x[0].eigh(Triangle::Lower)?;
            Ok((vec![("values", values)], vec![vectors]))
        }),
        forward(format!("solve_{n}"), Only::Cpu, system, |x| {
            Ok((vec![("x", x[0].solve(&x[1], true)?)], vec![]))
        }),
    ]
}

/// Transforms of complex and of real rows: of a round length, a prime one, powers of two, and a long row.
fn transforms(quick: bool) -> Vec<Task> {
    let rows = if quick { 2 } else { 64 };
    let long = if quick { 1 << 14 } else { 1 << 20 };
    let mut tasks = Vec::new();
    for (rows, n) in [(rows, 1000), (rows, 1009), (rows, 1024), (rows, 4096), (1, long)] {
        let complex = move |device: &Device| Ok(vec![tensor(14, &[rows, n, 2], device)?]);
        tasks.push(forward(format!("fft_{rows}x{n}"), Only::Everywhere, complex, |x| {
            Ok((vec![("spectrum", x[0].fft(None, -1, FftNorm::Backward)?)], vec![]))
        }));
        let real = move |device: &Device| Ok(vec![tensor(14, &[rows, n], device)?]);
        tasks.push(forward(format!("rfft_{rows}x{n}"), Only::Everywhere, real, |x| {
            Ok((vec![("spectrum", x[0].rfft(None, -1, FftNorm::Backward)?)], vec![]))
        }));
    }
    tasks
}
