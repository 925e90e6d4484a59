//! Small parts written into large tensors that are in memory, as into caches: what is written, what stays, and who sees it.

use wgrad::{DType, Device, Result, Tensor, no_grad};

use crate::support::devices;

/// Sizes of a tensor that is large enough to be written in place whatever its dtype; its rows are no multiple of what kernels write at a time.
const SHAPE: [usize; 3] = [9, 53, 37];

/// A box of a tensor: where it begins, and its sizes.
type Part = ([usize; 3], [usize; 3]);

/// Rows, runs within a row, columns, blocks; at places of all remainders by 4.
const PARTS: &[Part] = &[
    ([0, 0, 0], [3, 1, 37]),
    ([0, 5, 0], [3, 1, 37]),
    ([1, 7, 0], [1, 2, 37]),
    ([2, 52, 0], [1, 1, 37]),
    ([0, 1, 3], [1, 1, 21]),
    ([1, 2, 18], [1, 1, 19]),
    ([2, 3, 36], [1, 1, 1]),
    ([0, 10, 5], [3, 20, 1]),
    ([1, 30, 4], [2, 9, 16]),
    ([0, 0, 0], [1, 53, 8]),
    ([2, 11, 1], [1, 13, 2]),
];

fn view(x: &Tensor, (starts, sizes): Part) -> Result<Tensor> {
    (0..3).try_fold(x.clone(), |x, d| x.narrow(d as isize, starts[d] as isize, sizes[d]))
}

/// The same in plain loops.
fn write(model: &mut [f64], (starts, sizes): Part, value: impl Fn(usize) -> f64) {
    let mut n = 0;
    for i in 0..sizes[0] {
        for j in 0..sizes[1] {
            for k in 0..sizes[2] {
                model[((starts[0] + i) * SHAPE[1] + starts[1] + j) * SHAPE[2] + starts[2] + k] = value(n);
                n += 1;
            }
        }
    }
}

/// A number that every dtype but bool holds exactly.
fn small(i: usize) -> f64 {
    (i % 113) as f64
}

fn ramp(shape: &[usize], scale: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let elements: usize = shape.iter().product();
    let values: Vec<f32> = (0..elements).map(|i| small(i * scale) as f32).collect();
    Tensor::from_slice(&values, shape, device)?.to_dtype(dtype)
}

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_dtype(DType::F32)?.to_vec::<f32>()?.into_iter().map(f64::from).collect())
}

#[test]
fn parts_of_every_form_leave_the_rest_alone() -> Result<()> {
    for device in devices() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U8, DType::F64] {
            if !device.supports(dtype) {
                continue;
            }
            let cache = ramp(&SHAPE, 1, dtype, &device)?;
            cache.eval()?;
            let mut model: Vec<f64> = (0..9 * 53 * 37).map(small).collect();
            for (n, &part) in PARTS.iter().enumerate() {
                let new = ramp(&part.1, 3 + n, dtype, &device)?;
                view(&cache, part)?.copy_(&new)?;
                write(&mut model, part, |i| small(i * (3 + n)));
                if n % 2 == 0 {
                    cache.eval()?;
                }
                if n % 3 == 0 {
                    assert_eq!(numbers(&cache)?, model, "{device} {dtype} {part:?}");
                }
            }
            assert_eq!(numbers(&cache)?, model, "{device} {dtype}");
        }
    }
    Ok(())
}

#[test]
fn who_holds_the_old_value_keeps_it() -> Result<()> {
    for device in devices() {
        let x = ramp(&[64, 128], 1, DType::F32, &device)?;
        x.eval()?;
        let before = numbers(&x)?;
        let weight = Tensor::ones([64, 128], &device)?.requires_grad_(true)?;
        // A product saves its factor, a copy is pending, a view is held.
        let product = (&weight * &x)?;
        let copy = x.deep_clone()?;
        let row = x.select(0, 5)?;
        row.eval()?;
        no_grad(|| x.select(0, 5)?.fill_(-1.0))?;
        x.eval()?;
        assert_eq!(numbers(&copy)?, before, "{device}");
        assert_eq!(numbers(&row)?, [-1.0; 128], "{device}");
        assert_eq!(numbers(&product)?, before, "{device}");
        let mut after = before.clone();
        after[5 * 128..6 * 128].fill(-1.0);
        assert_eq!(numbers(&x)?, after, "{device}");
    }
    Ok(())
}

#[test]
fn what_is_written_may_be_computed_from_what_was_there() -> Result<()> {
    for device in devices() {
        let x = ramp(&[64, 128], 1, DType::F32, &device)?;
        let mut model = numbers(&x)?;
        for step in 0..6 {
            let row = x.select(0, step)?;
            row.copy_(&(x.select(0, step + 1)? + row.mul(2.0)?)?)?;
            for i in 0..128 {
                let at = step as usize * 128 + i;
                model[at] = model[at + 128] + 2.0 * model[at];
            }
            if step % 2 == 1 {
                x.eval()?;
            }
        }
        assert_eq!(numbers(&x)?, model, "{device}");
    }
    Ok(())
}

#[test]
fn gradients_of_what_is_written_into_memory() -> Result<()> {
    for device in devices() {
        let source = Tensor::rand([2, 100], &device)?.requires_grad_(true)?;
        let buffer = ramp(&[50, 100], 1, DType::F32, &device)?;
        buffer.eval()?;
        for i in 0..2 {
            buffer.select(0, 7 + i)?.copy_(&source.select(0, i)?.mul(3.0)?)?;
        }
        // Each element is read once with weight 2, the first source row once more through its square.
        (buffer.mul(2.0)?.sum()? + source.select(0, 0)?.square()?.sum()?)?.backward()?;
        let grad = numbers(&source.grad().expect("a leaf"))?;
        let values = numbers(&source.detach())?;
        for (i, (&got, &x)) in grad.iter().zip(&values).enumerate() {
            let expected = 6.0 + if i < 100 { 2.0 * x } else { 0.0 };
            assert!((got - expected).abs() < 1e-5, "{device}: element {i} is {got}, not {expected}");
        }
    }
    Ok(())
}

#[test]
fn threads_that_want_one_updated_value_get_the_same() -> Result<()> {
    for device in devices() {
        for round in 0..20 {
            let cache = ramp(&[64, 256], 1, DType::F32, &device)?;
            cache.eval()?;
            let mut model = numbers(&cache)?;
            cache.select(0, round)?.fill_(7.0)?;
            model[round as usize * 256..(round as usize + 1) * 256].fill(7.0);
            let sums: Vec<Tensor> = (0..4).map(|i| cache.mul(i as f64)).collect::<Result<_>>()?;
            std::thread::scope(|scope| {
                let threads: Vec<_> = sums.iter().map(|sum| scope.spawn(move || numbers(sum))).collect();
                for (i, thread) in threads.into_iter().enumerate() {
                    let expected: Vec<f64> = model.iter().map(|x| x * i as f64).collect();
                    assert_eq!(thread.join().expect("no panic")?, expected, "{device}");
                }
                Ok::<(), wgrad::Error>(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_fault_of_what_is_written_leaves_the_cache_as_it_was() -> Result<()> {
    for device in devices() {
        let table = Tensor::rand([4, 128], &device)?;
        let cache = ramp(&[64, 128], 1, DType::F32, &device)?;
        Tensor::eval_all([&table, &cache])?;
        let mut model = numbers(&cache)?;
        for (place, index) in [(3, 1), (4, 9), (5, 2)] {
            // Its value is not known at the call.
            let index = Tensor::from_slice(&[index - 1i64], [1], &device)?.add(1)?;
            let row = index.embedding(&table, None)?.squeeze_dim(0)?;
            cache.select(0, place)?.copy_(&row)?;
            match cache.eval() {
                Ok(()) => {
                    let row = numbers(&row)?;
                    model[place as usize * 128..(place as usize + 1) * 128].copy_from_slice(&row);
                }
                Err(wgrad::Error::Index { .. }) => assert_eq!(place, 4, "{device}"),
                Err(other) => return Err(other),
            }
        }
        assert_eq!(numbers(&cache)?, model, "{device}");
        cache.select(0, 6)?.fill_(1.0)?;
        model[6 * 128..7 * 128].fill(1.0);
        assert_eq!(numbers(&cache)?, model, "{device}");
    }
    Ok(())
}
