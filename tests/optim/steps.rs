//! Steps that are skipped or fail, parameters of odd shapes, dtypes and layouts, arguments that make no
//! sense.

use wgrad::optim::{
    Adam, AdamOptions, AdamW, AdamWOptions, Average, AveragedModel, GradScaler, GradScalerOptions, Lbfgs,
    LbfgsOptions, Muon, MuonOptions, NormOptions, Optimizer, Sgd, SgdOptions, clip_grad_norm_,
    clip_grad_value_, get_total_norm,
};
use wgrad::{DType, Device, Error, Result, Tensor, no_grad};

use crate::kinds::{KINDS, make, numbers, of_any_shape};
use crate::{alone, support};

fn leaf(values: &[f32], shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(values, shape, device)?.requires_grad_(true)
}

/// Values and state, bit for bit.
fn bits(optimizer: &dyn Optimizer) -> Result<Vec<(String, Vec<u32>)>> {
    let read = |tensor: &Tensor| {
        let values = tensor.detach().to_dtype(DType::F32)?.to_vec::<f32>()?;
        Ok::<_, Error>(values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let mut all = Vec::new();
    for (path, param) in optimizer.parameters() {
        all.push((path, read(&param)?));
    }
    for (path, state) in optimizer.state_dict()?.state {
        for (name, tensor) in state {
            all.push((format!("{path}.{name}"), read(&tensor)?));
        }
    }
    Ok(all)
}

/// Sets the gradient of step `step`.
fn give(param: &Tensor, step: usize) -> Result<()> {
    let grad = Tensor::from_slice(&numbers(param.numel(), step + 20), param.shape(), param.device())?;
    param.set_grad(Some(&grad.to_dtype(param.dtype())?))
}

#[test]
fn a_skipped_step_is_as_if_it_had_not_been() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let kinds = if device.is_cpu() { KINDS.to_vec() } else { vec!["dampened", "Adam"] };
        for kind in kinds {
            let mut ends = Vec::new();
            // With steps skipped, the first among them, and without these.
            for skips in [true, false] {
                let param = leaf(&numbers(6, 1), &[3, 2], &device)?;
                let mut optimizer = make(kind, std::slice::from_ref(&param))?;
                for step in 0..6 {
                    let is_skipped = [0, 3].contains(&step);
                    give(&param, step)?;
                    if skips {
                        let skip = Tensor::new(if is_skipped { 1.0 } else { 0.0 }, &device)?.gt(0.5)?;
                        optimizer.step_unless(&skip)?;
                    } else if !is_skipped {
                        optimizer.step()?;
                    }
                }
                ends.push(bits(optimizer.as_ref())?);
            }
            assert_eq!(ends[0], ends[1], "{kind} on {device}");
        }
    }
    Ok(())
}

#[test]
fn a_step_that_fails_when_it_is_computed_leaves_values_and_state() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        for kind in ["AdamW", "NAdam", "Nesterov", "dampened"] {
            let mut ends = Vec::new();
            for with_bad in [true, false] {
                let table = leaf(&numbers(8, 1), &[4, 2], &device)?;
                let mut optimizer = make(kind, std::slice::from_ref(&table))?;
                for index in [[9.0f32, 9.0], [0.0, 1.0], [2.0, 9.0], [3.0, 3.0]] {
                    if index[1] > 8.0 && !with_bad {
                        continue;
                    }
                    let mut step = || {
                        // An index that is computed, so that nobody knows it before.
                        let index = Tensor::new(index, &device)?.mul(1.0)?.to_dtype(DType::I64)?;
                        optimizer.zero_grad();
                        let loss = index.embedding(&table, None)?.square()?.sum()?;
                        loss.backward()?;
                        optimizer.step()?;
                        loss.item::<f32>()
                    };
                    assert_eq!(step().is_err(), index[1] > 8.0, "{kind} on {device}");
                }
                ends.push(bits(optimizer.as_ref())?);
            }
            assert_eq!(ends[0], ends[1], "{kind} on {device}");
        }
    }
    Ok(())
}

#[test]
fn parameters_may_have_any_shape_and_layout() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let kinds: Vec<&str> =
            if device.is_cpu() { of_any_shape().collect() } else { vec!["Adam", "Adafactor"] };
        for kind in kinds {
            let mut ends: Vec<Vec<f32>> = Vec::new();
            for is_view in [true, false] {
                let matrix = leaf(&numbers(6, 5), &[2, 3], &device)?;
                // The same numbers as they lie, or each as a part of a larger piece of memory.
                let strided = if is_view {
                    let wide = Tensor::stack(&[&matrix.detach(), &matrix.detach()], 2)?
                        .transpose(0, 1)?
                        .contiguous()?;
                    wide.eval()?;
                    wide.transpose(0, 1)?.select(2, 1)?.detach().requires_grad_(true)?
                } else {
                    leaf(&numbers(6, 5), &[2, 3], &device)?
                };
                let params = [
                    leaf(&[0.5], &[], &device)?,
                    leaf(&[], &[0, 3], &device)?,
                    leaf(&[0.3], &[1, 1, 1], &device)?,
                    strided,
                ];
                let mut optimizer = make(kind, &params)?;
                for step in 0..3 {
                    params.iter().try_for_each(|param| give(param, step))?;
                    optimizer.step()?;
                }
                let mut all = Vec::new();
                for param in &params {
                    all.extend(param.detach().to_vec::<f32>()?);
                }
                ends.push(all);
            }
            assert_eq!(ends[0].len(), 8);
            assert!(ends[0].iter().all(|value| value.is_finite()), "{kind} on {device}: {:?}", ends[0]);
            for (a, b) in ends[0].iter().zip(&ends[1]) {
                assert!((a - b).abs() <= 1e-6, "{kind} on {device}: {:?} and {:?}", ends[0], ends[1]);
            }
        }
    }
    Ok(())
}

/// Halves are computed in f32 and rounded once a step; f64 keeps its digits.
#[test]
fn other_dtypes_are_close_to_f32() -> Result<()> {
    let _alone = alone();
    let device = Device::cpu();
    for kind in of_any_shape() {
        let run = |dtype: DType| {
            let values = Tensor::from_slice(&numbers(12, 2), [4, 3], &device)?;
            let param = values.to_dtype(dtype)?.requires_grad_(true)?;
            let mut optimizer = make(kind, std::slice::from_ref(&param))?;
            for step in 0..4 {
                give(&param, step)?;
                optimizer.step()?;
            }
            assert_eq!(param.dtype(), dtype);
            param.detach().to_dtype(DType::F32)?.to_vec::<f32>()
        };
        let single = run(DType::F32)?;
        for (dtype, allowed) in [(DType::BF16, 0.05), (DType::F16, 0.01), (DType::F64, 2e-6)] {
            // Rprop compares signs and Lion takes them: what is rounded to 0 has none.
            for (a, b) in run(dtype)?.iter().zip(&single) {
                assert!((a - b).abs() <= allowed, "{kind} in {dtype}: {a} instead of {b}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_parameter_without_a_gradient_stays_and_keeps_its_own_count() -> Result<()> {
    let _alone = alone();
    for device in support::devices() {
        let (a, b) = (leaf(&[1.0, 2.0], &[2], &device)?, leaf(&[3.0], &[1], &device)?);
        let mut optimizer = Adam::new([("a", &a), ("b", &b)], AdamOptions::new())?;
        for step in 0..5 {
            give(&a, step)?;
            if step == 2 {
                give(&b, step)?
            } else {
                b.zero_grad()
            }
            optimizer.step()?;
            if step == 1 {
                assert_eq!(b.to_vec::<f32>()?, [3.0]);
                assert!(!optimizer.state_dict()?.state.contains_key("b"));
            }
        }
        let state = optimizer.state_dict()?.state;
        assert_eq!(state["a"]["step"].item::<f32>()?, 5.0);
        assert_eq!(state["b"]["step"].item::<f32>()?, 1.0);
    }
    Ok(())
}

fn is_argument<T>(result: Result<T>, part: &str) {
    match result {
        Err(error @ Error::Argument { .. }) => {
            assert!(error.to_string().contains(part), "{part:?} is not in {error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("nothing was said about {part:?}"),
    }
}

#[test]
fn what_makes_no_sense_is_an_error() -> Result<()> {
    let device = Device::cpu();
    let x = leaf(&[1.0, 2.0], &[2], &device)?;
    let none: [Tensor; 0] = [];
    is_argument(Sgd::new(none, SgdOptions::new()), "no parameters");
    is_argument(Sgd::new([&x, &x], SgdOptions::new()), "same tensor");
    let y = leaf(&[1.0], &[1], &device)?;
    is_argument(Sgd::new([("w", &x), ("w", &y)], SgdOptions::new()), "two parameters are called w");
    is_argument(Sgd::new([x.mul(2.0)?], SgdOptions::new()), "leaf");
    is_argument(Sgd::new([Tensor::arange(0, 3, 1, &device)?], SgdOptions::new()), "float");
    is_argument(Sgd::new([&x], SgdOptions::new().lr(-1.0)), "lr is -1");
    is_argument(Sgd::new([&x], SgdOptions::new().lr(f64::NAN)), "lr is NaN");
    is_argument(Sgd::new([&x], SgdOptions::new().nesterov(true)), "momentum");
    is_argument(AdamW::new([&x], AdamWOptions::new().betas([0.9, 1.0])), "betas");
    is_argument(Muon::new([&x], MuonOptions::new()), "matrices");
    is_argument(Lbfgs::new([&x], LbfgsOptions::new())?.step(), "step_with");
    let mut optimizer = Adam::new([&x], AdamOptions::new())?;
    is_argument(optimizer.set(0, "no such", 1.0.into()), "no such");
    is_argument(optimizer.set(0, "betas", 1.0.into()), "betas");
    is_argument(optimizer.set(3, "lr", 1.0.into()), "group 3");
    is_argument(optimizer.set(0, "lr", (-1.0).into()), "lr");
    is_argument(optimizer.step_unless(&x), "0-dim bool");
    is_argument(
        Adam::new([&x], AdamOptions::new())?.with_group(|_, _| false, AdamOptions::new()),
        "no parameter",
    );
    assert_eq!(optimizer.options(0), Some(&AdamOptions::new()));
    give(&x, 0)?;
    optimizer.step()?;
    is_argument(optimizer.with_group(|_, _| true, AdamOptions::new()), "first");
    is_argument(clip_grad_value_([&x], -1.0), "clip_value");
    is_argument(get_total_norm([&x], &NormOptions::new().norm_type(f64::NAN)), "norm_type");
    is_argument(AveragedModel::new([&x], Average::Ema(2.0)), "decay");
    is_argument(GradScaler::new(GradScalerOptions::new().growth_factor(1.0)), "growth_factor");
    Ok(())
}

#[test]
fn nothing_to_clip_has_the_norm_0() -> Result<()> {
    let x = leaf(&[1.0], &[1], &Device::cpu())?;
    assert_eq!(clip_grad_norm_([&x], 1.0)?.item::<f32>()?, 0.0);
    Ok(())
}

/// The closure's failure is the step's, and parameters and memory are as before.
#[test]
fn lbfgs_goes_back_where_its_closure_fails() -> Result<()> {
    let x = leaf(&[2.0, -1.0], &[2], &Device::cpu())?;
    let mut optimizer = Lbfgs::new([("x", &x)], LbfgsOptions::new())?;
    let mut loss = |calls_left: &mut usize| {
        let mut closure = || {
            x.zero_grad();
            *calls_left = calls_left
                .checked_sub(1)
                .ok_or_else(|| Error::Argument { op: "closure", reason: "fails".to_owned() })?;
            let loss = x.square()?.sum()?.add(x.exp()?.sum()?)?;
            loss.backward()?;
            Ok(loss)
        };
        optimizer.step_with(&mut closure).map(|_| optimizer.state_dict().map(|saved| saved.state["x"].len()))
    };
    is_argument(loss(&mut 2), "fails");
    assert_eq!(x.to_vec::<f32>()?, [2.0, -1.0]);
    loss(&mut 100)??;
    let slope = no_grad(|| x.mul(2.0)?.add(x.exp()?)?.abs()?.max())?;
    assert!(slope.item::<f32>()? < 1e-3);
    Ok(())
}
