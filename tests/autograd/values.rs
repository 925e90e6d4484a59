//! Values at the edges: where a step on the way to a result leaves the range of numbers and the result does not, halves that are rounded
//! once, and gradients at NaN. On every device, against exact numbers or what PyTorch 2.15 gives.

use half::{bf16, f16};
use wgrad::{
    ConvOptions, DType, Device, GradOptions, Padding, Reduction, Result, Rounding, ScatterReduce, Tensor,
    grad,
};

use crate::support::devices;

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// The bits of numbers, with one NaN, so that they are compared exactly and zeros are told apart.
fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| if x.is_nan() { NAN.to_bits() } else { x.to_bits() }).collect()
}

fn list(numbers: &[f32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(numbers, numbers.len(), device)
}

/// The gradients of the sum of a function of leaves.
fn gradients(
    leaves: &[&[f32]],
    device: &Device,
    function: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Vec<f32>>> {
    let leaves: Vec<Tensor> =
        leaves.iter().map(|x| list(x, device)?.requires_grad_(true)).collect::<Result<_>>()?;
    function(&leaves)?.sum()?.backward()?;
    leaves.iter().map(|x| x.grad().expect("a gradient").to_vec::<f32>()).collect()
}

fn near(found: &[f32], expected: &[f32], what: &str) {
    let close = |a: f32, b: f32| a == b || (a - b).abs() <= 4e-6 * b.abs();
    let all = found.len() == expected.len() && found.iter().zip(expected).all(|(&a, &b)| close(a, b));
    assert!(all, "{what}: {found:?}, not {expected:?}");
}

#[test]
fn integer_quotients_and_remainders_stay_in_range() -> Result<()> {
    const MIN: i32 = i32::MIN;
    const MAX: i32 = i32::MAX;
    // a, b, floor_divide, div with trunc, remainder, fmod.
    let rows = [
        [-2147100000, 1000000, -2148, -2147, 900000, -100000],
        [MIN, 7, -306783379, -306783378, 5, -2],
        [MIN, -7, 306783378, 306783378, -2, -2],
        [5, MIN, -1, 0, MIN + 5, 5],
        [-5, MIN, 0, 0, -5, -5],
        [MIN, MIN, 1, 1, 0, 0],
        [MAX, MIN, -1, 0, -1, MAX],
        [MIN, MAX, -2, -1, MAX - 1, -1],
        [MAX, -2, -1073741824, -1073741823, -1, 1],
        [-7, 2, -4, -3, 1, -1],
        [7, 0, 0, 0, 0, 0],
    ];
    let column = |i: usize| rows.iter().map(|row| row[i]).collect::<Vec<i32>>();
    for device in devices() {
        let of = |i: usize| Tensor::from_slice(&column(i), rows.len(), &device);
        let (a, b) = (of(0)?, of(1)?);
        assert_eq!(a.floor_divide(&b)?.to_vec::<i32>()?, column(2), "{device}: floor_divide");
        assert_eq!(a.div_rounded(&b, Rounding::Trunc)?.to_vec::<i32>()?, column(3), "{device}: trunc");
        assert_eq!(a.remainder(&b)?.to_vec::<i32>()?, column(4), "{device}: remainder");
        assert_eq!(a.fmod(&b)?.to_vec::<i32>()?, column(5), "{device}: fmod");
        // The same numbers at the ends of i64.
        let wide = |i: usize| -> Result<Tensor> {
            let numbers: Vec<i64> = column(i)
                .iter()
                .map(|&x| match x {
                    MIN => i64::MIN,
                    MAX => i64::MAX,
                    x => x.into(),
                })
                .collect();
            Tensor::from_slice(&numbers, rows.len(), &device)
        };
        let (a, b) = (wide(0)?.to_vec::<i64>()?, wide(1)?.to_vec::<i64>()?);
        let exact = |f: fn(i128, i128) -> i128| -> Vec<i64> {
            a.iter().zip(&b).map(|(&a, &b)| if b == 0 { 0 } else { f(a.into(), b.into()) as i64 }).collect()
        };
        let floor = |a: i128, b: i128| a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0);
        assert_eq!(wide(0)?.floor_divide(wide(1)?)?.to_vec::<i64>()?, exact(floor), "{device}: i64");
        assert_eq!(wide(0)?.fmod(wide(1)?)?.to_vec::<i64>()?, exact(|a, b| a % b), "{device}: i64 fmod");
    }
    Ok(())
}

#[test]
fn float_quotients_are_rounded_down_as_in_pytorch() -> Result<()> {
    let a = [-3e38, -5.0, INF, 5.0, -0.0, 3.0, -1.0, 1.0, INF, 7.0, 3e38, NAN, 0.0, -7.5];
    let b = [2e38, INF, 2.0, -INF, 1.0, -0.0, 3e38, INF, INF, -2.0, 1e-37, 1.0, 0.0, 2.0];
    let expected = [-2.0, -1.0, NAN, -1.0, -0.0, -INF, -1.0, 0.0, NAN, -4.0, INF, NAN, NAN, -4.0];
    let rest = [-1e38, -5.0, NAN, 5.0, -0.0, NAN, -1.0, 1.0, NAN, 1.0];
    for device in devices() {
        let (x, y) = (list(&a, &device)?, list(&b, &device)?);
        assert_eq!(bits(&x.floor_divide(&y)?.to_vec::<f32>()?), bits(&expected), "{device}");
        let own = x.fmod(&y)?.to_vec::<f32>()?;
        for (i, (own, rest)) in own.iter().zip(rest).enumerate() {
            let same =
                own == &rest || (own.is_nan() && rest.is_nan()) || (own - rest).abs() < 1e-6 * rest.abs();
            assert!(same, "{device}: {} fmod {} is {own}", a[i], b[i]);
        }
    }
    Ok(())
}

#[test]
fn means_of_what_is_scattered_stay_in_range() -> Result<()> {
    for device in devices() {
        let (one, zeros) =
            (Tensor::from_slice(&[7i32], 1, &device)?, Tensor::from_slice(&[0i64; 300], 300, &device)?);
        let large = Tensor::from_slice(&[i32::MAX - 1, i32::MAX], 2, &device)?;
        let mean = |x: &Tensor, index: &Tensor, src: &Tensor| {
            x.scatter_reduce(0, index, src, ScatterReduce::Mean, false)
        };
        let index = zeros.narrow(0, 0, 2)?;
        assert_eq!(mean(&one, &index, &large)?.to_vec::<i32>()?, [i32::MAX - 1], "{device}");
        let low = Tensor::from_slice(&[-2147100000i32, i32::MIN, -5], 3, &device)?;
        let expected = (-2147100000i64 + i64::from(i32::MIN) - 5).div_euclid(3) as i32;
        assert_eq!(mean(&one, &zeros.narrow(0, 0, 3)?, &low)?.to_vec::<i32>()?, [expected], "{device}");
        // More elements than u8 can count, and than bf16 can count one by one.
        let many = Tensor::full(300, 9i64, (DType::U8, &device))?;
        assert_eq!(mean(&one.to_dtype(DType::U8)?, &zeros, &many)?.to_vec::<u8>()?, [9], "{device}");
        let halves = mean(&one.to_dtype(DType::BF16)?, &zeros, &many.to_dtype(DType::BF16)?)?;
        assert_eq!(halves.to_dtype(DType::F32)?.to_vec::<f32>()?, [9.0], "{device}");
        let most = Tensor::full(256, 3i64, (DType::U8, &device))?;
        let largest = one.to_dtype(DType::U8)?.scatter_reduce(
            0,
            &zeros.narrow(0, 0, 256)?,
            &most,
            ScatterReduce::Amax,
            false,
        )?;
        assert_eq!(largest.to_vec::<u8>()?, [3], "{device}: 256 elements count as some");
    }
    Ok(())
}

/// Squares and cubes that are infinite, or 0, of numbers that are not.
#[test]
fn deviations_and_norms_stay_in_range() -> Result<()> {
    for device in devices() {
        let (large, small) = (list(&[3e20, -3e20], &device)?, list(&[3e-30, 0.0, -4e-30], &device)?);
        let of = |name: &str, x: Result<Tensor>, expected: f32| -> Result<()> {
            near(&[x?.item::<f32>()?], &[expected], &format!("{device}: {name}"));
            Ok(())
        };
        // PyTorch's.
        of("std", large.std(), 4.242_640_7e20)?;
        of("std of small numbers", list(&[1e-30, 0.0, 0.0], &device)?.std(), 5.773_502_6e-31)?;
        let spread = [3e19, -3e19, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        // Elements further apart than the largest number, and differences whose sum is beyond it.
        let apart = [3e38, -3e38, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        of("std of what is far apart", list(&apart, &device)?.std(), 2f32.sqrt() * 1e38)?;
        of("std of large numbers", list(&[0.0, 3e38, 3e38, 3e38], &device)?.std(), 1.5e38)?;
        of("var beyond all numbers", list(&apart, &device)?.var(), INF)?;
        of("var", list(&spread, &device)?.var(), 2e38)?;
        of("norm", large.vector_norm(2.0, (), false), 18f32.sqrt() * 1e20)?;
        of("norm of small numbers", small.vector_norm(2.0, (), false), 5e-30)?;
        of("3-norm", large.vector_norm(3.0, (), false), 54f32.cbrt() * 1e20)?;
        of("3-norm of small numbers", small.vector_norm(3.0, (), false), 91f32.cbrt() * 1e-30)?;
        of("-2-norm", large.vector_norm(-2.0, (), false), 4.5f32.sqrt() * 1e20)?;
        of("0.5-norm", large.vector_norm(0.5, (), false), 1.2e21)?;
        of("infinite", list(&[INF, 1.0], &device)?.vector_norm(2.0, (), false), INF)?;
        assert!(list(&[NAN, 1.0], &device)?.vector_norm(2.0, (), false)?.item::<f32>()?.is_nan());
        of(
            "distance",
            large.pairwise_distance(&list(&[0.0, 0.0], &device)?, 2.0, 0.0, false),
            18f32.sqrt() * 1e20,
        )?;
        of("cosine", large.cosine_similarity(&large, 0, 1e-8), 1.0)?;
        near(
            &large.normalize(2.0, 0, 1e-12)?.to_vec::<f32>()?,
            &[0.5f32.sqrt(), -(0.5f32.sqrt())],
            "normalize",
        );
        of("hardswish", list(&[3e38], &device)?.hardswish(), 3e38)?;
        if device.supports(DType::F64) {
            let wide = |x: f64, y: f64| Tensor::from_slice(&[x, y], 2, &device);
            let close = |x: Tensor, expected: f64| -> Result<()> {
                let own = x.item::<f64>()?;
                assert!((own - expected).abs() < 1e-14 * expected, "{device}: {own:e}, not {expected:e}");
                Ok(())
            };
            close(wide(3e200, -3e200)?.std()?, 18f64.sqrt() * 1e200)?;
            close(wide(3e-200, -4e-200)?.vector_norm(2.0, (), false)?, 5e-200)?;
            close(wide(3e200, 3e200)?.vector_norm(3.0, (), false)?, 54f64.cbrt() * 1e200)?;
        }
        let ends = Tensor::linspace(-3e38, 3e38, 2, &device)?;
        assert_eq!(ends.to_vec::<f32>()?, [-3e38, 3e38], "{device}: linspace");
        of("lgamma", list(&[-3e38], &device)?.lgamma(), INF)?;
        let pair = [[1e10f32, 2e10], [3e10, -1e9]].map(|row| list(&row, &device)?.reshape([1, 2]));
        let [a, b] = pair;
        let ones = Tensor::from_slice(&[1i64], 1, &device)?;
        // 1 - (3 - 0.2) / (sqrt(5) sqrt(9.01)), where the product of the squares is 4.5e41.
        of("cosine embedding", a?.cosine_embedding_loss(&b?, &ones, 0.0, Reduction::Mean), 0.582_832)?;
    }
    Ok(())
}

#[test]
fn gradients_of_deviations_and_norms_stay_in_range() -> Result<()> {
    type Case<'a> = (&'a str, &'a [f32], fn(&Tensor) -> Result<Tensor>, &'a [f32]);
    let cases: [Case<'_>; 6] = [
        ("std", &[3e20, -3e20], |x| x.std(), &[0.5, -0.5].map(|x: f32| x * 2f32.sqrt())),
        ("norm", &[1e-30, 0.0, 0.0], |x| x.vector_norm(2.0, (), false), &[1.0, 0.0, 0.0]),
        ("norm of large numbers", &[3e20, -4e20], |x| x.vector_norm(2.0, (), false), &[0.6, -0.8]),
        ("3-norm", &[1e-30, 0.0, 0.0], |x| x.vector_norm(3.0, (), false), &[1.0, 0.0, 0.0]),
        ("1.5-norm", &[0.0, -1e-35], |x| x.vector_norm(1.5, (), false), &[0.0, -1.0]),
        ("norm of zeros", &[0.0, 0.0], |x| x.vector_norm(2.0, (), false), &[0.0, 0.0]),
    ];
    for device in devices() {
        for (name, x, function, expected) in cases {
            let x = list(x, &device)?.requires_grad_(true)?;
            for again in [false, true] {
                let y = function(&x)?;
                let slope = grad(&[&y], &[&x], GradOptions::new().create_graph(again))?.remove(0).unwrap();
                near(&slope.to_vec::<f32>()?, expected, &format!("{device}: {name}, create_graph {again}"));
            }
        }
        // The square of an infinite distance has no part in these, nor has its slope.
        let zero = list(&[0.0], &device)?;
        let losses: [fn(&Tensor, &Tensor) -> Result<Tensor>; 2] =
            [|x, t| x.huber_loss(t, Reduction::None, 1.0), |x, t| x.smooth_l1_loss(t, Reduction::None, 1.0)];
        for loss in losses {
            assert_eq!(gradients(&[&[INF]], &device, |x| loss(&x[0], &zero))?[0], [1.0], "{device}");
            assert_eq!(gradients(&[&[-3e38]], &device, |x| loss(&x[0], &zero))?[0], [-1.0], "{device}");
        }
    }
    Ok(())
}

/// What PyTorch's formulas give; its vector code differs from them in some, and between sizes.
#[test]
fn gradients_at_nan() -> Result<()> {
    type Function = fn(&Tensor) -> Result<Tensor>;
    let functions: [(&str, Function, f32); 22] = [
        ("relu", |x| x.relu(), 1.0),
        ("relu6", |x| x.relu6(), 1.0),
        ("hardtanh", |x| x.hardtanh(-1.0, 1.0), 1.0),
        ("clamp", |x| x.clamp(-1.0, 1.0), 0.0),
        ("clamp_min", |x| x.clamp_min(-1.0), 0.0),
        ("clamp_max", |x| x.clamp_max(1.0), 0.0),
        ("clamp with tensors", |x| x.clamp(&x.full_like(-1.0)?, &x.full_like(1.0)?), 1.0),
        ("clamp with a tensor below", |x| x.clamp_min(&x.full_like(-1.0)?), 1.0),
        ("clamp with a tensor above", |x| x.clamp_max(&x.full_like(1.0)?), 1.0),
        ("softshrink", |x| x.softshrink(0.5), 1.0),
        ("hardshrink", |x| x.hardshrink(0.5), 1.0),
        ("elu", |x| x.elu(1.0), 1.0),
        ("celu", |x| x.celu(1.0), 1.0),
        ("selu", |x| x.selu(), 1.050_701),
        ("leaky_relu", |x| x.leaky_relu(0.01), 0.01),
        ("prelu", |x| x.prelu(&x.full_like(0.25)?.narrow(0, 0, 1)?), 0.25),
        ("hardsigmoid", |x| x.hardsigmoid(), 0.0),
        ("hardswish", |x| x.hardswish(), 1.0),
        ("threshold", |x| x.threshold(0.0, -1.0), 1.0),
        ("abs", |x| x.abs(), 0.0),
        ("maximum", |x| x.maximum(&x.zeros_like()?), 1.0),
        ("max", |x| x.max(), 1.0),
    ];
    for device in devices() {
        for (name, function, expected) in functions {
            let y = function(&list(&[NAN], &device)?)?;
            assert!(y.to_vec::<f32>()?[0].is_nan(), "{device}: {name} of NaN");
            let slope = gradients(&[&[NAN]], &device, |x| function(&x[0]))?;
            near(&slope[0], &[expected], &format!("{device}: {name} at NaN"));
        }
        let max = gradients(&[&[NAN, 1.0, NAN]], &device, |x| x[0].max())?;
        assert_eq!(max[0], [0.5, 0.0, 0.5], "{device}: those that are NaN share");
        let amax = gradients(&[&[NAN, 1.0]], &device, |x| x[0].amax((), false))?;
        assert!(amax[0].iter().all(|x| x.is_nan()), "{device}: nothing equals NaN: {amax:?}");
        // Kinder than PyTorch, which has NaN: in derivatives of any order.
        let masked = list(&[-INF, -INF], &device)?.requires_grad_(true)?;
        let y = masked.logsumexp(0, false)?;
        let first = grad(&[&y], &[&masked], GradOptions::new().create_graph(true))?.remove(0).unwrap();
        let second = grad(&[&first.sum()?], &[&masked], GradOptions::new())?.remove(0).unwrap();
        for slope in [first, second] {
            assert_eq!(slope.to_vec::<f32>()?, [0.0, 0.0], "{device}: logsumexp");
        }
        let largest = gradients(&[&[NAN, NAN, 1.0], &[NAN, 1.0, NAN]], &device, |x| x[0].fmax(&x[1]))?;
        assert_eq!(largest, [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], "{device}: fmax");
    }
    Ok(())
}

#[test]
fn gradients_of_clamp_with_tensors_are_pytorchs() -> Result<()> {
    // Element, bounds, and the gradients of the three.
    let rows: [[f32; 6]; 22] = [
        [NAN, NAN, NAN, 1.0, 0.0, 0.0],
        [NAN, -1.0, 1.0, 1.0, 0.0, 0.0],
        [NAN, 1.0, -1.0, 1.0, 0.0, 1.0],
        [-2.0, NAN, -1.0, 1.0, 0.0, 0.0],
        [0.0, NAN, -1.0, 0.0, 0.0, 0.0],
        [1.0, NAN, 1.0, 1.0, 0.0, 0.0],
        [-2.0, -1.0, NAN, 0.0, 0.0, 0.0],
        [-1.0, -1.0, NAN, 1.0, 0.0, 0.0],
        [2.0, 0.0, NAN, 1.0, 0.0, 0.0],
        [-2.0, -1.0, 1.0, 0.0, 1.0, 0.0],
        [-2.0, 1.0, -1.0, 0.0, 0.0, 1.0],
        [-2.0, 1.0, 1.0, 0.0, 1.0, 0.0],
        [-1.0, -1.0, -1.0, 1.0, 0.0, 0.0],
        [-1.0, -1.0, 1.0, 0.5, 0.5, 0.0],
        [-1.0, 1.0, -1.0, 0.0, 0.0, 1.0],
        [0.0, -1.0, -1.0, 0.0, 0.0, 1.0],
        [0.0, -1.0, 1.0, 1.0, 0.0, 0.0],
        [0.0, -1.0, 0.0, 0.5, 0.0, 0.5],
        [0.0, 0.0, 1.0, 0.5, 0.5, 0.0],
        [1.0, 1.0, -1.0, 0.0, 0.0, 1.0],
        [2.0, -1.0, 1.0, 0.0, 0.0, 1.0],
        [2.0, 1.0, 0.0, 0.0, 0.0, 1.0],
    ];
    let column = |i: usize| rows.iter().map(|row| row[i]).collect::<Vec<f32>>();
    for device in devices() {
        let leaves = [column(0), column(1), column(2)];
        let leaves: Vec<&[f32]> = leaves.iter().map(Vec::as_slice).collect();
        let found = gradients(&leaves, &device, |x| x[0].clamp(&x[1], &x[2]))?;
        assert_eq!(found, [column(3), column(4), column(5)], "{device}");
    }
    Ok(())
}

/// Small whole numbers over a power of two: products and sums of them are exact in f32.
fn grid(shape: &[usize], seed: usize, step: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|i| (((i * 7919 + seed * 104_729) % 255) as f64 - 127.0) as f32 * step as f32)
        .collect();
    Tensor::from_slice(&numbers, shape, device)?.to_dtype(dtype)
}

type Program = fn(&[Tensor]) -> Result<Tensor>;

/// Programs whose values are exact in f64, so that there is one right half for each.
const PROGRAMS: &[(&str, &[&[usize]], Program)] = &[
    ("linear", &[&[9, 12], &[8, 12], &[8]], |x| x[0].linear(&x[1], &x[2])),
    ("linear of batches", &[&[2, 3, 12], &[8, 12], &[8]], |x| x[0].linear(&x[1], &x[2])),
    ("linear to a number", &[&[9, 12], &[12], &[]], |x| x[0].linear(&x[1], &x[2])),
    ("addmm", &[&[9, 12], &[12, 8], &[8]], |x| x[2].addmm(&x[0], &x[1], 0.75, 1.5)),
    ("addmv", &[&[9, 12], &[12], &[9]], |x| x[2].addmv(&x[0], &x[1], 0.75, 1.5)),
    ("addr", &[&[9], &[8], &[8]], |x| x[2].addr(&x[0], &x[1], 0.75, 1.5)),
    ("baddbmm", &[&[3, 4, 12], &[3, 12, 5], &[5]], |x| x[2].baddbmm(&x[0], &x[1], 0.75, 1.5)),
    ("addbmm", &[&[3, 4, 12], &[3, 12, 5], &[5]], |x| x[2].addbmm(&x[0], &x[1], 0.75, 1.5)),
    ("addcmul", &[&[50], &[50], &[50]], |x| x[2].addcmul(&x[0], &x[1], 1.5)),
    ("add", &[&[50], &[50]], |x| x[1].add_scaled(&x[0], 1.125)),
    ("cross", &[&[9, 3], &[9, 3]], |x| x[0].cross(&x[1], 1)),
    ("bilinear", &[&[7, 3], &[5, 3, 2], &[7, 2], &[5]], |x| x[0].bilinear(&x[2], &x[1], &x[3])),
    ("conv1d", &[&[2, 3, 9], &[4, 3, 3], &[4]], |x| x[0].conv(&x[1], &x[2], &ConvOptions::default())),
    ("conv2d", &[&[2, 3, 9, 12], &[4, 3, 3, 3], &[4]], |x| {
        let padding = Padding::Explicit(vec![1]);
        x[0].conv(&x[1], &x[2], &ConvOptions { padding, stride: vec![2], ..ConvOptions::default() })
    }),
    ("conv2d of single channels", &[&[2, 3, 5, 6], &[3, 1, 3, 3], &[3]], |x| {
        x[0].conv(&x[1], &x[2], &ConvOptions { groups: 3, ..ConvOptions::default() })
    }),
    ("conv_transpose2d", &[&[2, 3, 5, 4], &[3, 4, 3, 3], &[4]], |x| {
        x[0].conv_transpose(&x[1], &x[2], &ConvOptions { stride: vec![2], ..ConvOptions::default() })
    }),
];

#[test]
fn halves_are_rounded_once() -> Result<()> {
    for device in devices() {
        for (at, (name, shapes, program)) in PROGRAMS.iter().enumerate() {
            // A GPU has the two in turns: the arithmetic is the same.
            for (turn, dtype) in [DType::F16, DType::BF16].into_iter().enumerate() {
                if !device.is_cpu() && turn != at % 2 {
                    continue;
                }
                let inputs = |device: &Device, wide: Option<DType>| -> Result<Vec<Tensor>> {
                    let of = |(i, shape): (usize, &&[usize])| {
                        // The last has its digits further down, so that a product rounded before it is seen.
                        let step = if i + 1 == shapes.len() { 2f64.powi(-7) } else { 2f64.powi(-3) };
                        let half = grid(shape, i, step, dtype, device)?;
                        wide.map_or(Ok(half.clone()), |wide| half.to_dtype(wide))
                    };
                    shapes.iter().enumerate().map(of).collect()
                };
                let exact = program(&inputs(&Device::cpu(), Some(DType::F64))?)?;
                let found = program(&inputs(&device, None)?)?;
                assert_eq!((found.dtype(), found.shape()), (dtype, exact.shape()), "{device}: {name}");
                let found = found.to_dtype(DType::F32)?.to_vec::<f32>()?;
                let rounded = |&x: &f64| match dtype {
                    DType::F16 => f16::from_f64(x).to_f32(),
                    _ => bf16::from_f64(x).to_f32(),
                };
                let exact: Vec<f32> = exact.to_vec::<f64>()?.iter().map(rounded).collect();
                let wrong = found.iter().zip(&exact).filter(|(a, b)| a != b).count();
                assert_eq!(wrong, 0, "{device}: {name} of {dtype}: {wrong} of {} are off", exact.len());
            }
        }
    }
    Ok(())
}

#[test]
fn products_of_halves_that_are_out_of_range_on_the_way() -> Result<()> {
    for device in devices() {
        let half = |numbers: &[f32], shape: &[usize]| {
            Tensor::from_slice(numbers, shape, &device)?.to_dtype(DType::F16)
        };
        let is_60000 = |name: &str, x: Tensor| -> Result<()> {
            let own = x.to_dtype(DType::F32)?.to_vec::<f32>()?;
            assert!(own.iter().all(|&x| x == 60000.0), "{device}: {name} is {own:?}");
            Ok(())
        };
        let (row, column) = (half(&[200.0, 200.0], &[1, 2])?, half(&[300.0, 300.0], &[2, 1])?);
        let less = half(&[-60000.0], &[1])?;
        is_60000("addmm", less.addmm(&row, &column, 1, 1)?)?;
        is_60000("linear", row.linear(&column.t()?, &less)?)?;
        is_60000("addmv", less.addmv(&row, &column.squeeze()?, 1, 1)?)?;
        is_60000("baddbmm", less.baddbmm(&row.unsqueeze(0)?, &column.unsqueeze(0)?, 1, 1)?)?;
        let (rows, columns) = (half(&[200.0; 2], &[2, 1, 1])?, half(&[300.0; 2], &[2, 1, 1])?);
        is_60000("addbmm", less.addbmm(&rows, &columns, 1, 1)?)?;
        is_60000("addr", less.addr(&half(&[300.0], &[1])?, &half(&[400.0], &[1])?, 1, 1)?)?;
        is_60000("addcmul", less.addcmul(&half(&[300.0], &[1])?, &half(&[400.0], &[1])?, 1)?)?;
        is_60000("addcdiv", less.addcdiv(&half(&[60000.0], &[1])?, &half(&[0.5], &[1])?, 1)?)?;
        is_60000("sub", less.sub_scaled(&less, 2)?)?;
        let image = half(&[200.0, 200.0], &[1, 1, 2])?;
        let window = half(&[300.0, 300.0], &[1, 1, 2])?;
        is_60000("conv1d", image.conv(&window, &less, &ConvOptions::default())?)?;
        let (image, window) = (half(&[300.0], &[1, 1, 1])?, half(&[400.0], &[1, 1, 1])?);
        is_60000("conv_transpose1d", image.conv_transpose(&window, &less, &ConvOptions::default())?)?;
    }
    Ok(())
}

/// A row of one element has one direction: the second derivative of its norm is 0, and nothing is left of the terms that cancel.
#[test]
fn second_derivatives_of_norms_of_one_element_are_0() -> Result<()> {
    let second = |x: &Tensor, y: Tensor| -> Result<Vec<f32>> {
        let weights = grid(y.shape(), 5, 0.37, DType::F32, x.device())?;
        let first = grad(&[&y.mul(weights)?.sum()?], &[x], GradOptions::new().create_graph(true))?;
        let first = first[0].as_ref().unwrap();
        let loss = first.mul(grid(x.shape(), 3, 0.71, DType::F32, x.device())?)?.sum()?;
        let out = grad(&[&loss], &[x], GradOptions::new().allow_unused(true))?.remove(0);
        out.map_or(Ok(vec![0.0; x.numel()]), |out| out.to_vec::<f32>())
    };
    for device in devices() {
        let x = list(&[0.003, -0.7, 1.3, -0.000_21, 5.1], &device)?.reshape([5, 1])?.requires_grad_(true)?;
        let other = list(&[0.0017, 0.9, -1.1, 0.000_33, 5.2], &device)?.reshape([5, 1])?;
        let all_zero = |name: &str, second: Vec<f32>| {
            assert!(second.iter().all(|&x| x == 0.0), "{device}: {name}: {second:?}");
        };
        all_zero("vector_norm", second(&x, x.vector_norm(2.0, 1, false)?)?);
        all_zero("pairwise_distance", second(&x, x.pairwise_distance(&other, 2.0, 1e-6, false)?)?);
        all_zero("cdist", second(&x, x.cdist(&other, 2.0)?)?);
        all_zero("normalize", second(&x, x.normalize(2.0, 1, 1e-12)?)?);
        all_zero("cosine_similarity", second(&x, x.cosine_similarity(&other, 1, 1e-8)?)?);
        all_zero("cosine_similarity with itself", second(&x, x.cosine_similarity(&x, 1, 1e-8)?)?);
        let triplet = x.triplet_margin_loss(&other, &other.neg()?, 9.0, 2.0, 1e-6, false, Reduction::Sum)?;
        all_zero("triplet_margin_loss", second(&x, triplet)?);
    }
    Ok(())
}

/// Equal elements whose mean is not quite their value: no direction, in any order of derivative, as in PyTorch.
#[test]
fn deviations_of_equal_elements_have_no_slope() -> Result<()> {
    for device in devices() {
        let dtypes = [DType::F32, DType::F64].into_iter().filter(|&dtype| device.supports(dtype));
        for dtype in dtypes {
            let row = Tensor::from_slice(&[0.940_871_26f32, 1.301_761_4, 0.988_493_5], [1, 3], &device)?;
            let x = row.to_dtype(dtype)?.expand([5, 3])?.deep_clone()?.detach().requires_grad_(true)?;
            let y = x.std_dim(0, 1.0, false)?;
            for again in [false, true] {
                let options = GradOptions::new().create_graph(again).retain_graph(true);
                let slope = grad(&[&y.sum()?], &[&x], options)?.remove(0).unwrap();
                assert_eq!(
                    slope.to_dtype(DType::F32)?.to_vec::<f32>()?,
                    [0.0; 15],
                    "{device}, {dtype}, {again}"
                );
            }
        }
    }
    Ok(())
}
