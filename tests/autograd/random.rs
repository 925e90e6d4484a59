//! Random tensors: reproducible, in range, distributed as they say.

use std::sync::Mutex;

use wgrad::{DType, Device, Error, Result, Tensor, manual_seed};

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
