//! What holds of modules, whatever they are made of: walks, states, copies, moves, hooks; and of layers whose
//! results are random or whose inputs are wrong. On every device present. The layers' values are compared
//! with PyTorch's in `tests/reference`.

#[path = "../crates/device/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use support::devices;
use wgrad::nn::*;
use wgrad::{DType, Device, Error, Result, Tensor};

/// A module with everything that a field can be.
#[derive(Clone, Module)]
struct Everything<L> {
    first: L,
    list: Vec<Linear>,
    maybe: Option<Tensor>,
    nothing: Option<Tensor>,
    boxed: Box<(Tensor, Linear)>,
    array: [Tensor; 2],
    named: BTreeMap<String, Tensor>,
    #[buffer]
    running: Tensor,
    #[buffer(transient)]
    table: Tensor,
    #[module(rename = "other.name")]
    renamed: Tensor,
    #[module(skip)]
    skipped: Tensor,
    #[module(flatten)]
    beside: Beside,
    width: usize,
    training: Training,
}

#[derive(Clone, Module)]
struct Beside {
    inner: Tensor,
}

fn everything(device: &Device) -> Result<Everything<Dropout>> {
    let tensor = |value: f64| Tensor::full([2], value, (DType::F32, device));
    let parameter = |value: f64| tensor(value)?.requires_grad_(true);
    Ok(Everything {
        first: Dropout::new(0.5),
        list: vec![Linear::new(2, 1, device)?, Linear::options(1, 3).bias(false).build(device)?],
        maybe: Some(parameter(1.0)?),
        nothing: None,
        boxed: Box::new((parameter(2.0)?, Linear::options(1, 1).bias(false).build(device)?)),
        array: [parameter(3.0)?, parameter(4.0)?],
        named: BTreeMap::from([("b".to_owned(), parameter(5.0)?), ("a".to_owned(), parameter(6.0)?)]),
        running: tensor(7.0)?,
        table: tensor(8.0)?,
        renamed: parameter(9.0)?,
        skipped: tensor(10.0)?,
        beside: Beside { inner: parameter(11.0)? },
        width: 3,
        training: Training::default(),
    })
}

fn names(list: &[(String, Tensor)]) -> Vec<&str> {
    list.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_walk_sees_every_field_under_its_path() -> Result<()> {
    let module = everything(&Device::cpu())?;
    let parameters = [
        "list.0.weight",
        "list.0.bias",
        "list.1.weight",
        "maybe",
        "boxed.0",
        "boxed.1.weight",
        "array.0",
        "array.1",
        "named.a",
        "named.b",
        "other.name",
        "inner",
    ];
    assert_eq!(names(&module.named_parameters()), parameters);
    assert_eq!(names(&module.named_buffers()), ["running", "table"]);
    let mut saved: Vec<&str> = parameters.into_iter().chain(["running"]).collect();
    saved.sort_unstable();
    assert_eq!(module.state_dict()?.keys().collect::<Vec<_>>(), saved);
    assert_eq!(module.num_parameters(), 2 + 1 + 3 + 2 + 2 + 1 + 4 + 4 + 2 + 2);
    module.eval();
    assert!(!module.training.get());
    module.train();
    assert!(module.training.get());
    assert_eq!((module.width, module.type_name()), (3, "Everything"));
    Ok(())
}

#[test]
fn a_shared_weight_is_one_weight() -> Result<()> {
    for device in devices() {
        let table = Embedding::new(5, 3, &device)?;
        let mut model = (table.clone(), Linear::with_weight(&table.weight, None));
        assert_eq!(names(&model.named_parameters()), ["0.weight"]);
        let state = model.state_dict()?;
        assert_eq!(state.keys().collect::<Vec<_>>(), ["0.weight"]);
        model.load_state_dict(&state, true)?;
        // A file that has it under the other path, or both, fits too.
        let ones = Tensor::ones([5, 3], &device)?;
        model.load_state_dict(&StateDict::from([("1.weight".to_owned(), ones.clone())]), true)?;
        assert_eq!(model.0.weight.to_vec::<f32>()?, [1.0; 15]);
        model.load_state_dict(
            &["0.weight", "1.weight"].map(|name| (name.to_owned(), ones.clone())).into(),
            true,
        )?;
        model.to_dtype(DType::F16)?;
        assert!(model.0.weight.is_same(&model.1.weight));
        let copy = model.deep_copy()?;
        assert!(copy.0.weight.is_same(&copy.1.weight));
        assert!(!copy.0.weight.is_same(&model.0.weight));
        let sum = model.1.forward(&model.0.forward(&Tensor::new([1i64], &device)?)?)?.sum()?;
        sum.backward()?;
        // Five rows of ones by one of them, and that row by all five: 5 * 1 each at row 1, 1 at the others.
        let grad = model.0.weight.grad().expect("it was used").to_vec::<wgrad::f16>()?;
        assert_eq!(grad.iter().map(|g| g.to_f32()).sum::<f32>(), 3.0 * (1.0 * 5.0 + 5.0), "{device}");
    }
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_changes_nothing_and_says_all() -> Result<()> {
    let device = Device::cpu();
    let model = (Linear::new(2, 2, &device)?, Linear::new(2, 2, &device)?);
    let before = model.state_dict()?;
    let mut state = before.clone();
    state.remove("0.bias");
    state.insert("0.weight".into(), Tensor::ones([2, 2], &device)?);
    state.insert("1.weight".into(), Tensor::ones([3, 2], &device)?);
    state.insert("1.bias".into(), Tensor::ones(3, &device)?);
    state.insert("extra".into(), Tensor::ones(1, &device)?);
    for strict in [true, false] {
        let Err(Error::StateDict { missing, unexpected, mismatched }) = model.load_state_dict(&state, strict)
        else {
            panic!("another error, or none");
        };
        assert_eq!((missing, unexpected), (vec!["0.bias".to_owned()], vec!["extra".to_owned()]));
        assert_eq!(mismatched, ["1.weight ([3, 2] for [2, 2])", "1.bias ([3] for [2])"]);
    }
    for (name, tensor) in model.state_dict()? {
        assert_eq!(tensor.to_vec::<f32>()?, before[&name].to_vec::<f32>()?, "{name}");
    }
    state.remove("1.weight");
    state.remove("1.bias");
    assert!(matches!(model.load_state_dict(&state, true), Err(Error::StateDict { .. })));
    model.load_state_dict(&state, false)?;
    assert_eq!(model.0.weight.to_vec::<f32>()?, [1.0; 4]);
    assert_eq!(model.1.weight.to_vec::<f32>()?, before["1.weight"].to_vec::<f32>()?);
    Ok(())
}

#[test]
fn a_state_is_cast_and_moved_and_stays_what_it_was() -> Result<()> {
    for device in devices() {
        let model = Linear::new(2, 2, &device)?;
        let halves = Tensor::new([[1.0, 2.0], [3.0, 4.0]], (DType::F64, &Device::cpu()))?;
        let mut state = model.state_dict()?;
        state.insert("weight".into(), halves);
        model.load_state_dict(&state, true)?;
        assert_eq!((model.weight.dtype(), model.weight.device()), (DType::F32, &device));
        assert!(model.weight.requires_grad() && model.weight.is_leaf());
        let kept = model.state_dict()?;
        wgrad::no_grad(|| model.weight.zero_())?;
        assert_eq!(kept["weight"].to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
    }
    Ok(())
}

#[test]
fn moves_take_gradients_along_and_fail_as_a_whole() -> Result<()> {
    for device in devices() {
        let mut model = everything(&Device::cpu())?;
        model.list[0].forward(&Tensor::ones([1, 2], Device::cpu())?)?.sum()?.backward()?;
        model.list[1].weight.requires_grad_(false)?;
        model.to(&device)?;
        for (name, _, tensor) in model.tensors() {
            assert_eq!(tensor.device(), &device, "{name}");
        }
        assert_eq!(model.list[0].weight.grad().expect("it was moved").to_vec::<f32>()?, [1.0, 1.0]);
        assert!(model.list[0].weight.requires_grad() && !model.list[1].weight.requires_grad());
        assert!(!model.running.requires_grad());
        assert_eq!((model.skipped.device(), model.table.to_vec::<f32>()?), (&Device::cpu(), vec![8.0; 2]));
        let before = model.parameters();
        model.to(&device)?;
        assert!(before.iter().zip(model.parameters()).all(|(a, b)| a.is_same(&b)));
        assert!(matches!(model.to_dtype(DType::I64), Err(Error::DType { .. })));
        let mut calls = 0;
        let failing = std::sync::atomic::AtomicUsize::new(0);
        let result = model.replace(&|tensor| {
            if failing.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 3 {
                tensor.reshape(1000)
            } else {
                tensor.add(1.0)
            }
        });
        calls += failing.into_inner();
        assert!(result.is_err() && calls == 4);
        assert!(before.iter().zip(model.parameters()).all(|(a, b)| a.is_same(&b)));
    }
    Ok(())
}

#[test]
fn a_deep_copy_has_weights_flags_and_hooks_of_its_own() -> Result<()> {
    let device = Device::cpu();
    let model = Sequential::new().push(Linear::new(2, 2, &device)?).push(Dropout::new(1.0));
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    model.register_forward_hook("0", move |_, _| {
        *count.lock().unwrap() += 1;
        Ok(None)
    })?;
    let (handle, copy) = (model.clone(), model.deep_copy()?);
    model.eval();
    let x = Tensor::ones([1, 2], &device)?;
    assert_eq!(copy.forward(&x)?.to_vec::<f32>()?, [0.0; 2]);
    assert_eq!(handle.forward(&x)?.to_vec::<f32>()?, model.forward(&x)?.to_vec::<f32>()?);
    assert_eq!(*seen.lock().unwrap(), 2);
    assert!(model.parameters()[0].is_same(&handle.parameters()[0]));
    assert!(!model.parameters()[0].is_same(&copy.parameters()[0]));
    assert!(copy.parameters().iter().all(|p| p.requires_grad() && p.is_leaf() && p.grad().is_none()));
    Ok(())
}

#[test]
fn hooks_see_and_replace_and_pass_errors_on() -> Result<()> {
    let device = Device::cpu();
    let model = TransformerEncoderLayer::options(4, 2).dropout(0.0).build(&device)?;
    let x = Tensor::randn([3, 1, 4], &device)?;
    let handle = model.register_forward_hook("linear2", |_, output| Ok(Some(output.mul(0.0)?)))?;
    let without = model.forward(&x)?;
    handle.remove();
    handle.remove();
    assert!(model.forward(&x)?.sub(&without)?.abs()?.max()?.item::<f32>()? > 1e-4);
    let refused = |_: &Tensor, _: &Tensor| Err(Error::Argument { op: "hook", reason: "no".into() });
    let handle = model.register_forward_hook("self_attn", refused)?;
    assert!(matches!(model.forward(&x), Err(Error::Argument { op: "hook", .. })));
    handle.remove();
    model.forward(&x)?;
    let unknown = model.register_forward_hook("linear3", |_, _| Ok(None));
    assert!(unknown.is_err_and(|error| error.to_string().contains("linear3")));
    Ok(())
}

#[test]
fn a_summary_counts_calls_weights_and_products() -> Result<()> {
    let device = Device::cpu();
    let conv = Conv2d::options(3, 8, 3).padding(1).bias(false).build(&device)?;
    let model = Sequential::new().push(conv).push(ReLU::new()).push(Flatten::new()).push(Linear::new(
        8 * 16,
        5,
        &device,
    )?);
    let x = Tensor::zeros([2, 3, 4, 4], &device)?;
    let summary = model.summary(|| model.forward(&x))?;
    let row = |path: &str| summary.rows.iter().find(|row| row.path == path).expect("there is such a layer");
    assert_eq!(row("0").output.as_deref(), Some(&[2, 8, 4, 4][..]));
    assert_eq!(row("0").operations, 2 * (2 * 8 * 16) * (3 * 9));
    assert_eq!((row("3").parameters, row("3").operations), (8 * 16 * 5 + 5, 2 * (2 * 5) * (8 * 16)));
    assert_eq!((row("1").parameters, row("1").operations), (0, 0));
    assert_eq!(summary.parameters, model.num_parameters());
    assert_eq!(summary.operations, row("0").operations + row("3").operations);
    let lines = summary.to_string();
    assert!(lines.contains("3 (Linear)") && lines.lines().count() == 1 + 5 + 1, "{lines}");
    // A forward that fails leaves no observers behind.
    assert!(model.summary(|| model.forward(&Tensor::zeros([2, 2], &device)?)).is_err());
    Ok(())
}

#[test]
fn dropout_keeps_the_mean_and_drops_the_part() -> Result<()> {
    wgrad::manual_seed(3);
    for device in devices() {
        let ones = Tensor::ones([64, 50, 4, 4], &device)?;
        let layers: [(Box<dyn Layer>, usize); 2] =
            [(Box::new(Dropout::new(0.3)), 1), (Box::new(Dropout2d::new(0.3)), 16)];
        for (layer, together) in layers {
            let y = layer.forward(&ones)?.to_vec::<f32>()?;
            let scaled = y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-6);
            let zeros = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
            // Five deviations of a binomial distribution.
            let allowed = 5.0 * (0.3 * 0.7 / (y.len() / together) as f64).sqrt();
            assert!(scaled && (zeros - 0.3).abs() < allowed, "{device}: {zeros}");
            assert!(y.chunks(together).all(|channel| channel.iter().all(|&y| y == channel[0])));
            layer.eval();
            assert_eq!(layer.forward(&ones)?.to_vec::<f32>()?, ones.to_vec::<f32>()?);
        }
        let x = Tensor::randn([200, 500], &device)?;
        for layer in [&AlphaDropout::new(0.2) as &dyn Layer, &FeatureAlphaDropout::new(0.2)] {
            let y = layer.forward(&x)?;
            let (mean, std) = (y.mean()?.item::<f64>()?, y.std()?.item::<f64>()?);
            assert!(mean.abs() < 0.03 && (std - 1.0).abs() < 0.03, "{device}: {mean} {std}");
        }
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(Dropout::new(p).forward(&x), Err(Error::Argument { .. })));
        }
        let slopes = RReLU::new().forward(&Tensor::full([1000], -1.0, &device)?)?.to_vec::<f32>()?;
        assert!(slopes.iter().all(|y| (-0.334..=-0.125).contains(y)) && slopes[0] != slopes[1]);
    }
    Ok(())
}

#[test]
fn a_cache_gives_what_the_whole_sequence_gives() -> Result<()> {
    for device in devices() {
        let attention = MultiheadAttention::options(8, 2).build(&device)?;
        let x = Tensor::randn([5, 3, 8], &device)?;
        let (whole, _) = attention.forward_with(&x, &x, &x, &Attention::new().causal(true))?;
        let mut cache = KeyValueCache::new(5);
        let mut parts = Vec::new();
        for (start, length) in [(0, 2), (2, 1), (3, 1), (4, 1)] {
            parts.push(attention.forward_cached(&x.narrow(0, start, length)?, &mut cache)?);
        }
        let joined = Tensor::cat(&parts.iter().collect::<Vec<_>>(), 0)?;
        assert!(joined.sub(&whole)?.abs()?.max()?.item::<f32>()? < 1e-5, "{device}");
        assert_eq!(cache.len(), 5);
        assert!(attention.forward_cached(&x.narrow(0, 0, 1)?, &mut cache).is_err());
        cache.clear();
        assert!(cache.is_empty());
        attention.forward_cached(&x.narrow(0, 0, 1)?, &mut cache)?;
        // Another batch does not fit, and leaves the cache as it was.
        assert!(attention.forward_cached(&x.narrow(1, 0, 2)?.narrow(0, 0, 1)?, &mut cache).is_err());
        assert_eq!(cache.len(), 1);
    }
    Ok(())
}

#[test]
fn rotations_depend_on_distances_only() -> Result<()> {
    for device in devices() {
        for interleaved in [false, true] {
            let rotary = RotaryPositions::new(6).interleaved(interleaved).base(100.0);
            let (q, k) = (Tensor::randn([1, 8], &device)?, Tensor::randn([1, 8], &device)?);
            let product = |q_at: usize, k_at: usize| -> Result<f32> {
                rotary.forward_from(&q, q_at)?.mul(rotary.forward_from(&k, k_at)?)?.sum()?.item()
            };
            assert!((product(2, 5)? - product(12, 15)?).abs() < 1e-4, "{device}");
            assert!((product(2, 5)? - product(2, 9)?).abs() > 1e-4, "{device}");
            let turned = rotary.forward_from(&q, 3)?;
            assert!(
                (turned.square()?.sum()?.item::<f32>()? - q.square()?.sum()?.item::<f32>()?).abs() < 1e-4
            );
            assert_eq!(turned.narrow(-1, 6, 2)?.to_vec::<f32>()?, q.narrow(-1, 6, 2)?.to_vec::<f32>()?);
        }
        // The second pair of width 4 turns by 2 / 100^(2/4) at place 2.
        let y = RotaryPositions::new(4)
            .base(100.0)
            .forward_from(&Tensor::new([[0.0, 1.0, 0.0, 0.0]], &device)?, 2)?;
        let y = y.to_vec::<f32>()?;
        assert!((y[1] - 0.2f32.cos()).abs() < 1e-5 && (y[3] - 0.2f32.sin()).abs() < 1e-5, "{device}: {y:?}");
        let y =
            SinusoidalPositions::new().forward_from(&Tensor::zeros([2, 4], &device)?, 3)?.to_vec::<f32>()?;
        let expected = [4f32.sin(), 4f32.cos(), 0.04f32.sin(), 0.04f32.cos()];
        assert!(y[4..].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{device}: {y:?}");
    }
    Ok(())
}

#[test]
fn normed_weights_are_what_they_say() -> Result<()> {
    for device in devices() {
        let x = Tensor::randn([2, 3, 6, 6], &device)?;
        let conv = Conv2d::new(3, 4, 3, &device)?;
        for dim in [0, -3] {
            let layer = WeightNorm::new(&conv, dim)?;
            let off = layer.forward(&x)?.sub(conv.forward(&x)?)?.abs()?.max()?.item::<f32>()?;
            assert!(off < 1e-5, "{device}: {off}");
            let parameters = layer.named_parameters();
            assert_eq!(
                names(&parameters),
                ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
            );
            // A direction's length makes no difference, so its gradient stands across it.
            layer.forward(&x)?.square()?.sum()?.backward()?;
            let direction = &parameters[2].1;
            let grad = direction.grad().expect("it was used");
            let scale = grad.abs()?.sum()?.item::<f32>()?;
            let along = grad.mul(direction)?.sum_dim(if dim == 0 { [1, 2, 3] } else { [0, 2, 3] }, false)?;
            assert!(along.abs()?.max()?.item::<f32>()? < 1e-4 * scale, "{device}");
            let copy = layer.deep_copy()?;
            copy.load_state_dict(&layer.state_dict()?, true)?;
        }
        let layer = SpectralNorm::new(&conv, 0)?.iterations(20);
        let (left, right) = (layer.weight()?.flatten(1, -1)?, conv.weight.flatten(1, -1)?);
        let largest = right.svdvals()?.max()?.item::<f32>()?;
        assert!(left.mul(largest)?.sub(&right)?.abs()?.max()?.item::<f32>()? < 1e-3, "{device}");
        layer.eval();
        assert_eq!(layer.weight()?.to_vec::<f32>()?, layer.weight()?.to_vec::<f32>()?);
        assert_eq!(
            names(&layer.named_buffers()),
            ["parametrizations.weight.0._u", "parametrizations.weight.0._v"]
        );
        assert!(WeightNorm::new(&ReLU::new(), 0).is_err() && WeightNorm::new(&conv, 4).is_err());
    }
    Ok(())
}

#[test]
fn an_adapter_changes_nothing_at_first_and_trains_little() -> Result<()> {
    for device in devices() {
        let base = Linear::new(6, 5, &device)?;
        let x = Tensor::randn([3, 6], &device)?;
        let plain = base.forward(&x)?.detach();
        let layer = LoRA::new(&base, 2, 4.0)?;
        assert_eq!(layer.forward(&x)?.to_vec::<f32>()?, plain.to_vec::<f32>()?);
        wgrad::no_grad(|| layer.b.fill_(0.5))?;
        layer.forward(&x)?.sum()?.backward()?;
        assert!(
            layer.base_layer.weight.grad().is_none() && layer.a.grad().is_some() && layer.b.grad().is_some()
        );
        let merged = layer.merged()?.forward(&x)?;
        assert!(layer.forward(&x)?.sub(merged)?.abs()?.max()?.item::<f32>()? < 1e-5, "{device}");
        assert!(LoRA::new(&base, 0, 1.0).is_err());
    }
    Ok(())
}

#[test]
fn lists_without_numbers_and_bags_of_nothing() -> Result<()> {
    for device in devices() {
        let bag = |mode| EmbeddingBag::options(4, 2).mode(mode).padding_idx(3).build(&device);
        for mode in [BagMode::Sum, BagMode::Mean, BagMode::Max] {
            let layer = bag(mode)?;
            let padding = Tensor::full([2, 3], 3i64, &device)?;
            assert_eq!(layer.forward(&padding)?.to_vec::<f32>()?, [0.0; 4], "{device} {mode:?}");
            let empty = Tensor::zeros([2, 0], (DType::I64, &device))?;
            assert_eq!(layer.forward(&empty)?.to_vec::<f32>()?, [0.0; 4], "{device} {mode:?}");
        }
        let linear = Linear::new(3, 0, &device)?;
        assert_eq!(linear.forward(&Tensor::ones([2, 3], &device)?)?.shape(), [2, 0]);
        assert_eq!(Linear::new(0, 2, &device)?.forward(&Tensor::ones([1, 0], &device)?)?.shape(), [1, 2]);
        assert_eq!(Sequential::new().forward(&Tensor::ones((), &device)?)?.item::<f32>()?, 1.0);
    }
    Ok(())
}

/// Every way to get a layer or an input wrong is an error.
#[test]
fn what_does_not_fit_is_an_error() -> Result<()> {
    let d = &Device::cpu();
    let x = |shape: &[usize]| Tensor::ones(shape, d);
    let index = Tensor::new([[0i64, 1]], d)?;
    let none: [(&str, bool); 40] = [
        ("linear", Linear::new(3, 2, d)?.forward(&x(&[2, 4])?).is_ok()),
        ("linear of a number", Linear::new(3, 2, d)?.forward(&x(&[])?).is_ok()),
        ("integers as a dtype", Linear::new(3, 2, (DType::I64, d)).is_ok()),
        ("bilinear", Bilinear::new(2, 3, 2, d)?.forward(&x(&[1, 2])?, &x(&[1, 2])?).is_ok()),
        ("conv", Conv2d::new(3, 4, 3, d)?.forward(&x(&[1, 2, 5, 5])?).is_ok()),
        ("conv of lists", Conv2d::new(3, 4, 3, d)?.forward(&x(&[3, 5])?).is_ok()),
        ("conv of other dims", Conv1d::new(3, 4, 3, d)?.forward(&x(&[1, 3, 5, 5])?).is_ok()),
        ("window of three dims", Conv2d::new(3, 4, [1, 2, 3], d).is_ok()),
        ("no groups", Conv2d::options(4, 4, 1).groups(0).build(d).is_ok()),
        ("groups", Conv2d::options(4, 6, 1).groups(4).build(d).is_ok()),
        (
            "same with a stride",
            Conv1d::options(1, 1, 3).stride(2).same_padding(true).build(d)?.forward(&x(&[1, 5])?).is_ok(),
        ),
        (
            "too small an output",
            ConvTranspose1d::options(1, 1, 3).stride(2).build(d)?.forward_to(&x(&[1, 3])?, 5).is_ok(),
        ),
        ("pool", MaxPool2d::new([2, 2, 2]).forward(&x(&[1, 4, 4])?).is_ok()),
        ("pool padding", AvgPool1d::new(2).padding(2).forward(&x(&[1, 4])?).is_ok()),
        ("norm 0", LPPool1d::new(0.0, 2).forward(&x(&[1, 4])?).is_ok()),
        ("unpool", MaxUnpool1d::new(2).forward(&x(&[1, 4])?, &index).is_ok()),
        ("adaptive", AdaptiveAvgPool2d::new([1, 2, 3]).forward(&x(&[1, 4, 4])?).is_ok()),
        ("batch norm", BatchNorm2d::new(3, d)?.forward(&x(&[2, 4, 2, 2])?).is_ok()),
        ("batch norm's dims", BatchNorm2d::new(3, d)?.forward(&x(&[2, 3, 4])?).is_ok()),
        ("one value", BatchNorm1d::new(3, d)?.forward(&x(&[1, 3])?).is_ok()),
        ("layer norm", LayerNorm::new([2, 3], d)?.forward(&x(&[3, 3])?).is_ok()),
        ("group norm", GroupNorm::new(3, 4, d).is_ok()),
        ("embedding of floats", Embedding::new(3, 2, d)?.forward(&x(&[2])?).is_ok()),
        ("padding row", Embedding::options(3, 2).padding_idx(3).build(d).is_ok()),
        ("bag of a list", EmbeddingBag::new(3, 2, d)?.forward(&Tensor::new([0i64], d)?).is_ok()),
        ("weights of means", EmbeddingBag::new(3, 2, d)?.forward_weighted(&index, &x(&[1, 2])?).is_ok()),
        ("heads", MultiheadAttention::new(5, 2, d).is_ok()),
        ("no heads", MultiheadAttention::new(4, 0, d).is_ok()),
        (
            "query",
            MultiheadAttention::new(4, 2, d)?.forward(&x(&[3, 5])?, &x(&[3, 4])?, &x(&[3, 4])?).is_ok(),
        ),
        (
            "batch",
            MultiheadAttention::new(4, 2, d)?
                .forward(&x(&[3, 2, 4])?, &x(&[3, 1, 4])?, &x(&[3, 1, 4])?)
                .is_ok(),
        ),
        ("hidden size", RNN::new(2, 0, d).is_ok()),
        ("projection", LSTM::options(2, 3).proj_size(3).build(d).is_ok()),
        ("no moments", GRU::new(2, 3, d)?.forward(&x(&[0, 1, 2])?).is_ok()),
        (
            "lengths",
            GRU::new(2, 3, d)?.forward_with(&x(&[4, 1, 2])?, &Sequences::new().lengths(&[5])).is_ok(),
        ),
        (
            "state",
            GRU::new(2, 3, d)?
                .forward_with(&x(&[4, 1, 2])?, &Sequences::new().hidden(&x(&[1, 1, 2])?))
                .is_ok(),
        ),
        ("cell", LSTMCell::new(2, 3, d)?.forward(&x(&[1, 3])?, None).is_ok()),
        ("cutoffs", AdaptiveLogSoftmaxWithLoss::new(4, 6, [3, 3], d).is_ok()),
        ("margins", ZeroPad2d::new([1, 2]).forward(&x(&[1, 2, 2])?).is_ok()),
        ("shuffle", ChannelShuffle::new(3).forward(&x(&[1, 4, 1])?).is_ok()),
        ("rotary", RotaryPositions::new(3).forward(&x(&[2, 4])?).is_ok()),
    ];
    let passed: Vec<&str> = none.iter().filter(|(_, passed)| *passed).map(|(name, _)| *name).collect();
    assert!(passed.is_empty(), "no errors: {passed:?}");
    let mask = x(&[3, 4])?;
    let attention = MultiheadAttention::new(4, 2, d)?;
    let q = x(&[3, 4])?;
    assert!(attention.forward_with(&q, &q, &q, &Attention::new().mask(&mask)).is_err());
    Ok(())
}
