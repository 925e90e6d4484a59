//! The default dtype of floats: what follows it, what keeps its own, on every device. The default is the process's, so this is a
//! process of its own with one test.

#[path = "../crates/device/tests/support/mod.rs"]
mod support;

use support::devices;
use wgrad::{DType, Device, Error, Result, Tensor, bf16, default_dtype, f16, manual_seed, set_default_dtype};

/// What has the default dtype in PyTorch too: made of nothing, or of integers where values are fractions.
fn made_and_computed(device: &Device) -> Result<Vec<(&'static str, Tensor)>> {
    let ints = Tensor::new([1i64, 2, 3], device)?;
    let small = ints.to_dtype(DType::U8)?;
    let truths = ints.gt(1)?;
    Ok(vec![
        ("new", Tensor::new([[1.0, 2.0]], device)?),
        ("new of f32", Tensor::new(0.5f32, device)?),
        ("new of a vector", Tensor::new(vec![0.5, 1.5], device)?),
        ("zeros", Tensor::zeros([2], device)?),
        ("ones", Tensor::ones([2], device)?),
        ("empty", Tensor::empty([2], device)?),
        ("full", Tensor::full([2], 0.5, device)?),
        ("eye", Tensor::eye(2, 2, device)?),
        ("arange", Tensor::arange(0, 1.0, 0.25, device)?),
        ("linspace", Tensor::linspace(0.0, 1.0, 5, device)?),
        ("rand", Tensor::rand([4], device)?),
        ("randn", Tensor::randn([4], device)?),
        ("int * 1.5", ints.mul(1.5)?),
        ("u8 + 0.5", small.add(0.5)?),
        ("bool * 0.5", truths.mul(0.5)?),
        ("1.5 - int", ints.rsub(1.5)?),
        ("int ** 0.5", ints.pow(0.5)?),
        ("int / 2", ints.div(2)?),
        ("int / int", ints.div(&small)?),
        ("bool / bool", truths.div(&truths)?),
        ("exp", ints.exp()?),
        ("sqrt", small.sqrt()?),
        ("atan", ints.atan()?),
        ("lgamma", ints.lgamma()?),
        ("digamma", ints.digamma()?),
        ("erfc", ints.erfc()?),
        ("atan2", ints.atan2(&small)?),
        ("copysign", ints.copysign(&small)?),
        ("logsumexp", ints.logsumexp(0, false)?),
        ("where", truths.where_cond(0.5, 1.5)?),
        ("where of an int", truths.where_cond(0.5, &ints)?),
        ("clamp", ints.clamp(0.5, 2.5)?),
    ])
}

/// What does not.
fn kept(device: &Device) -> Result<Vec<(DType, Tensor)>> {
    let halves = Tensor::from_slice(&[f16::ONE], 1, device)?;
    Ok(vec![
        (DType::F32, Tensor::from_slice(&[0.5f32], 1, device)?),
        (DType::F16, Tensor::new([f16::ONE], device)?),
        (DType::BF16, Tensor::new([bf16::ONE], device)?),
        (DType::I64, Tensor::new([1i64], device)?),
        (DType::I32, Tensor::new([1i32], device)?),
        (DType::U8, Tensor::new([1u8], device)?),
        (DType::Bool, Tensor::new([true], device)?),
        (DType::I64, Tensor::new([1.0, 2.0], (DType::I64, device))?),
        (DType::I64, Tensor::arange(0, 4, 1, device)?),
        (DType::I64, Tensor::new([1i64], device)?.mul(2)?),
        (DType::F16, halves.mul(1.5)?),
        (DType::F16, halves.mul(Tensor::new([2i64], device)?)?),
    ])
}

#[test]
fn floats_follow_the_default_and_others_do_not() -> Result<()> {
    assert_eq!(default_dtype(), DType::F32);
    for dtype in [DType::I64, DType::U8, DType::Bool] {
        assert!(matches!(set_default_dtype(dtype), Err(Error::DType { .. })));
        assert_eq!(default_dtype(), DType::F32);
    }
    let mut checked = 0;
    for default in [DType::F64, DType::F16, DType::BF16, DType::F32] {
        set_default_dtype(default)?;
        assert_eq!(default_dtype(), default);
        for device in devices() {
            if !device.supports(default) {
                assert!(matches!(Tensor::new([1.0, 2.0], &device), Err(Error::DType { .. })));
                continue;
            }
            for (name, x) in made_and_computed(&device)? {
                assert_eq!(x.dtype(), default, "{name} on {device}");
            }
            for (dtype, x) in kept(&device)? {
                assert_eq!(x.dtype(), dtype, "with the default {default} on {device}");
            }
            // Computed with the default's digits, rounded once.
            let third = Tensor::new([1i64], &device)?.div(3)?.to(Device::cpu())?.to(DType::F64)?;
            let digits = Tensor::new(1.0 / 3.0, DType::F64)?.to(default)?.to(DType::F64)?;
            assert_eq!(third.to_vec::<f64>()?, digits.reshape(1)?.to_vec::<f64>()?, "{default} on {device}");
            checked += 1;
        }
        // The default is left out where a tensor is printed, as in PyTorch.
        assert_eq!(Tensor::new([1.5, 2.0], Device::cpu())?.to_string(), "tensor([1.5000, 2.0000])");
        assert_eq!(Tensor::zeros([0], default)?.to_string(), "tensor([])");
        let other = if default == DType::F32 { DType::F64 } else { DType::F32 };
        let suffix = format!("tensor([1.5000], dtype=torch.{})", other.torch_name());
        assert_eq!(Tensor::new([1.5], other)?.to_string(), suffix);
    }
    assert!(checked >= 4);
    // A model made under one default keeps its dtype under the next.
    set_default_dtype(DType::F64)?;
    manual_seed(3);
    let weight = Tensor::randn([2, 2], Device::cpu())?.requires_grad_(true)?;
    set_default_dtype(DType::F32)?;
    let loss = weight.matmul(&weight)?.sub(0.5)?.square()?.mean()?;
    loss.backward()?;
    assert_eq!((loss.dtype(), weight.grad().unwrap().dtype()), (DType::F64, DType::F64));
    Ok(())
}
