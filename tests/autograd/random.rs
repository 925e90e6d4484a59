//! Random tensors: reproducible, in range, distributed as they say.

use std::sync::Mutex;

use wgrad::{DType, Device, DeviceOptions, Error, Generator, Result, Tensor, default_generator, manual_seed};

use crate::support;

/// The generator is the process's: tests that seed it take turns.
static SEED: Mutex<()> = Mutex::new(());

#[test]
fn a_seed_gives_the_same_numbers() -> Result<()> {
    let _turn = SEED.lock();
    let draw = || -> Result<Vec<f32>> {
        manual_seed(7);
        let cpu = Device::cpu();
        let parts = [
            Tensor::rand([5], &cpu)?,
            Tensor::randn([5], &cpu)?,
            Tensor::ones([5], &cpu)?.dropout(0.5, true)?,
        ];
        Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)?.to_vec()
    };
    let first = draw()?;
    assert_eq!(first, draw()?);
    manual_seed(8);
    assert_ne!(first[..5], Tensor::rand([5], Device::cpu())?.to_vec::<f32>()?);
    assert_ne!(
        Tensor::rand([5], Device::cpu())?.to_vec::<f32>()?,
        Tensor::rand([5], Device::cpu())?.to_vec::<f32>()?
    );
    Ok(())
}

#[test]
fn distributions() -> Result<()> {
    let _turn = SEED.lock();
    manual_seed(1);
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let x = Tensor::rand([20_000], dtype)?.to(DType::F64)?;
        assert!(x.min()?.item::<f64>()? >= 0.0 && x.max()?.item::<f64>()? < 1.0);
        assert!(
            (x.mean()?.item::<f64>()? - 0.5).abs() < 0.01
                && (x.var()?.item::<f64>()? - 1.0 / 12.0).abs() < 0.005
        );
    }
    let normal = Tensor::randn([20_000], DType::F64)?;
    assert!(normal.mean()?.item::<f64>()?.abs() < 0.03 && (normal.std()?.item::<f64>()? - 1.0).abs() < 0.03);
    let dice = Tensor::randint(1, 7, [6_000], Device::cpu())?.to_vec::<i64>()?;
    for face in 1..=6 {
        let count = dice.iter().filter(|&&n| n == face).count();
        assert!((850..1150).contains(&count), "{face} came {count} times");
    }
    let wide = Tensor::randint(-1 << 40, 1 << 40, [1000], Device::cpu())?.to_vec::<i64>()?;
    assert!(wide.iter().all(|n| n.abs() <= 1 << 40) && wide.iter().any(|n| n.abs() > 1 << 38));
    let coins = Tensor::full([10_000], 0.25, Device::cpu())?.bernoulli()?.mean()?.item::<f32>()?;
    assert!((coins - 0.25).abs() < 0.02);
    let mut order = Tensor::randperm(100, Device::cpu())?.to_vec::<i64>()?;
    assert_ne!(order, (0..100).collect::<Vec<_>>());
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    let x = Tensor::zeros([1000], Device::cpu())?;
    assert!((x.uniform_(2.0, 3.0)?.mean()?.item::<f32>()? - 2.5).abs() < 0.05);
    assert!((x.normal_(5.0, 2.0)?.mean()?.item::<f32>()? - 5.0).abs() < 0.3);
    Ok(())
}

#[test]
fn dropout() -> Result<()> {
    let x = Tensor::ones([1000], Device::cpu())?.requires_grad_(true)?;
    let y = x.dropout(0.2, true)?;
    y.sum()?.backward()?;
    let kept = y.to_vec::<f32>()?;
    assert_eq!(kept, x.grad().unwrap().to_vec::<f32>()?);
    assert!(kept.iter().all(|&v| v == 0.0 || v == 1.25));
    assert!((700..900).contains(&kept.iter().filter(|&&v| v > 0.0).count()));
    assert!(x.dropout(0.9, false)?.is_same(&x));
    assert_eq!(x.dropout(1.0, true)?.sum()?.item::<f32>()?, 0.0);
    assert!(matches!(x.dropout(1.5, true), Err(Error::Argument { .. })));
    assert!(matches!(Tensor::rand([2], DType::I64), Err(Error::DType { .. })));
    assert!(matches!(Tensor::randint(3, 3, [2], Device::cpu()), Err(Error::Argument { .. })));
    Ok(())
}

/// Every device, those that spread work as hardware does too.
fn devices() -> Vec<Device> {
    let hardware = DeviceOptions { as_hardware: true, ..DeviceOptions::default() };
    support::devices().into_iter().chain(support::fresh(&hardware)).collect()
}

#[test]
fn random_numbers_have_the_same_bits_on_every_device() -> Result<()> {
    let _turn = SEED.lock();
    let draw = |device: &Device| -> Result<Vec<Vec<u32>>> {
        manual_seed(0x1234_5678_9abc);
        let bits =
            |x: Tensor| Ok(x.to(Device::cpu())?.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect());
        let permutation = Tensor::randperm(1001, device)?.to_dtype(DType::F32)?;
        let base = Tensor::zeros([7, 11], device)?;
        [
            Tensor::randn([100_003], device)?,
            Tensor::randn([33, 65], device)?.t()?.add(0.0)?,
            // What makes a view of a part depends on the elements' numbers only.
            Tensor::randn([1000], device)?.narrow(0, 501, 13)?,
            base.normal_(0.0, 2.0)?,
            Tensor::rand([1001], device)?,
            Tensor::ones([1001], device)?.dropout(0.5, true)?,
            Tensor::randint(0, 1000, [1001], device)?.to_dtype(DType::F32)?,
            permutation,
        ]
        .into_iter()
        .map(bits)
        .collect()
    };
    let expected = draw(&Device::cpu())?;
    for device in devices() {
        for (i, (found, expected)) in draw(&device)?.iter().zip(&expected).enumerate() {
            assert!(found == expected, "draw {i} on {device}");
        }
    }
    Ok(())
}

#[test]
fn normal_numbers_are_normal() -> Result<()> {
    let _turn = SEED.lock();
    for seed in [1, 2] {
        manual_seed(seed);
        let n = 1 << 20;
        let mut x: Vec<f64> =
            Tensor::randn([n], Device::cpu())?.to_vec::<f32>()?.into_iter().map(f64::from).collect();
        let count = n as f64;
        let moment = |x: &[f64], k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / count;
        // Five standard deviations of each estimate: sqrt(E x^2k - (E x^k)^2) / sqrt(n).
        for (k, expected, spread) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10170.0)]
        {
            let off = (moment(&x, k) - expected).abs();
            assert!(off < 5.0 * f64::sqrt(spread / count), "moment {k} is off by {off}, seed {seed}");
        }
        // Neighbours come from one pair of words, or from one block of the generator.
        for distance in [1, 2, 3, 4] {
            let pairs = || x.iter().zip(&x[distance..]);
            let linear = pairs().map(|(a, b)| a * b).sum::<f64>() / count;
            let squares = pairs().map(|(a, b)| (a * a - 1.0) * (b * b - 1.0)).sum::<f64>() / count;
            assert!(
                linear.abs() < 5.0 / count.sqrt() && squares.abs() < 10.0 / count.sqrt(),
                "{distance} apart"
            );
        }
        // Kolmogorov and Smirnov's distance from the distribution: above this in one of 2,000 samples.
        x.sort_by(f64::total_cmp);
        let distribution = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let distance = x.iter().enumerate().map(|(i, &x)| (distribution(x) - (i as f64 + 0.5) / count).abs());
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 2.0 / count.sqrt(), "a distance of {distance}, seed {seed}");
        // Tails on both sides, five standard deviations of a count.
        for bound in [2.0, 3.0, 4.0, 4.5] {
            let expected = count * distribution(-bound);
            for found in [x.iter().filter(|&&x| x < -bound).count(), x.iter().filter(|&&x| x > bound).count()]
            {
                let off = (found as f64 - expected).abs();
                assert!(off < 5.0 * expected.sqrt() + 1.0, "{found} beyond {bound}, {expected} expected");
            }
        }
    }
    Ok(())
}

#[test]
fn permutations_are_even() -> Result<()> {
    let _turn = SEED.lock();
    manual_seed(5);
    for (n, expected) in [(0, vec![]), (1, vec![0])] {
        assert_eq!(Tensor::randperm(n, Device::cpu())?.to_vec::<i64>()?, expected);
    }
    assert_eq!(Tensor::randperm(5, DType::I32)?.dtype(), DType::I32);
    // All orders of three, each equally often: chi-square with 5 degrees of freedom is above 25 in one of 7,000 samples.
    let mut counts = [0f64; 27];
    for _ in 0..3000 {
        let order = Tensor::randperm(3, Device::cpu())?.to_vec::<i64>()?;
        counts[(order[0] * 9 + order[1] * 3 + order[2]) as usize] += 1.0;
    }
    let seen: Vec<f64> = counts.into_iter().filter(|&count| count > 0.0).collect();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().map(|count| (count - 500.0).powi(2) / 500.0).sum::<f64>() < 25.0, "{seen:?}");
    Ok(())
}

#[test]
fn a_generator_of_its_own_disturbs_no_other() -> Result<()> {
    let _turn = SEED.lock();
    for device in support::devices() {
        let numbers = || -> Result<Vec<f32>> { Tensor::randn([5], &device)?.to_vec() };
        let (one, other) = (Generator::new(3), Generator::new(3));
        manual_seed(9);
        let expected = (numbers()?, numbers()?);
        manual_seed(9);
        let first = numbers()?;
        let inside = one.run(|| Ok::<_, wgrad::Error>((numbers()?, other.run(numbers)?, numbers()?)))?;
        assert_eq!((first, numbers()?), expected, "{device}");
        assert_eq!(inside.0, inside.1, "the same seed gives the same numbers");
        assert_ne!(inside.0, inside.2);
        assert_eq!(other.run(numbers)?, inside.2);
        // A seeded generator and the default one with that seed are the same.
        manual_seed(3);
        assert_eq!(numbers()?, inside.0);
        assert_eq!(default_generator().state(), wgrad::GeneratorState { seed: 3, next: 1 });
    }
    Ok(())
}

#[test]
fn a_generator_is_left_when_its_closure_panics() {
    let generator = Generator::new(5);
    let panicked = std::panic::catch_unwind(|| generator.run(|| panic!("in the closure")));
    assert!(panicked.is_err());
    let before = generator.state();
    Tensor::rand([2], Device::cpu()).unwrap();
    assert_eq!(generator.state(), before);
}
