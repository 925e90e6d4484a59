//! Writing in place, and views: values, gradients, rules.

use wgrad::{DType, Device, Error, GradRule, GridPadding, GridSampling, Index, Result, Tensor, no_grad};

use crate::support::devices;

fn leaf(data: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(data, shape, &Device::cpu()).unwrap().requires_grad_(true).unwrap()
}

fn ramp(shape: &[usize]) -> Tensor {
    let numel: usize = shape.iter().product();
    leaf(&(0..numel).map(|i| i as f32).collect::<Vec<_>>(), shape)
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

fn rule(result: Result<Tensor>) -> GradRule {
    match result {
        Err(Error::Autograd { rule, .. }) => rule,
        other => panic!("{other:?} is not an error of autograd"),
    }
}

#[test]
fn values_are_shared() -> Result<()> {
    let x = Tensor::arange(0, 12, 1, DType::F32)?.reshape([3, 4])?.deep_clone()?;
    let row = x.select(0, 1)?;
    let column = x.t()?.select(0, 2)?;
    let diagonal = x.diagonal(1, 0, 1)?;
    let every_second = x.slice(1, 1, None, 2)?;
    assert!(row.is_view() && row.base().unwrap().is_same(&x) && !x.is_view());
    row.fill_(-1.0)?;
    assert_eq!(values(&x), [0., 1., 2., 3., -1., -1., -1., -1., 8., 9., 10., 11.]);
    assert_eq!(values(&column), [2., -1., 10.]);
    assert_eq!(values(&diagonal), [1., -1., 11.]);
    diagonal.add_(100.0)?;
    assert_eq!(values(&x), [0., 101., 2., 3., -1., -1., 99., -1., 8., 9., 10., 111.]);
    assert_eq!(values(&every_second), [101., 3., -1., -1., 9., 111.]);
    every_second.zero_()?;
    assert_eq!(values(&x), [0., 0., 2., 0., -1., 0., 99., 0., 8., 0., 10., 0.]);
    x.reshape([2, 6])?.narrow(0, 1, 1)?.mul_(2.0)?;
    assert_eq!(values(&row), [-1., 0., 198., 0.]);
    assert_eq!(values(&x.detach().sum()?), [2. - 1. + 198. + 16. + 20.]);
    x.unfold(0, 1, 2)?.fill_(1.0)?;
    assert_eq!(values(&x), [1., 1., 1., 1., -1., 0., 198., 0., 1., 1., 1., 1.]);
    Ok(())
}

#[test]
fn strides_decide_what_is_a_view() -> Result<()> {
    let x = Tensor::zeros([3, 4], Device::cpu())?;
    assert!(x.reshape([12])?.is_view());
    assert!(!x.t()?.reshape([12])?.is_view());
    assert!(x.t()?.view([12]).is_err());
    assert!(x.t()?.view([4, 1, 3])?.is_view());
    assert_eq!((x.t()?.stride(), x.t()?.is_contiguous()), (vec![1, 4], false));
    assert!(!x.flip(0)?.is_view() && !x.detach().is_view());
    assert!(x.contiguous()?.is_same(&x) && !x.t()?.contiguous()?.is_view());
    Ok(())
}

/// The same in PyTorch gives these numbers and node names.
#[test]
fn history_of_a_base_written_through_a_view() -> Result<()> {
    let x = ramp(&[2, 3]);
    let base = x.mul(1.0)?;
    let view = base.select(0, 0)?;
    view.mul_(5.0)?;
    assert_eq!(base.grad_fn().unwrap().name(), "CopySlices");
    assert_eq!(view.grad_fn().unwrap().name(), "AsStridedBackward0");
    assert_eq!(values(&base), [0., 5., 10., 3., 4., 5.]);
    base.mul(&base)?.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [0., 50., 100., 6., 8., 10.]);
    x.zero_grad();
    view.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [5., 5., 5., 0., 0., 0.]);
    Ok(())
}

#[test]
fn history_of_views_of_a_base_written_in_place() -> Result<()> {
    let x = ramp(&[2, 2]);
    let base = x.mul(2.0)?;
    let view = base.t()?.select(0, 1)?;
    base.mul_(base.detach())?;
    assert_eq!((values(&view), view.grad_fn().unwrap().name()), (vec![4., 36.], "AsStridedBackward0"));
    view.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [0., 4., 0., 12.]);
    Ok(())
}

#[test]
fn assignment_of_something_that_requires_grad() -> Result<()> {
    let target = Tensor::zeros([2, 2], Device::cpu())?;
    let x = ramp(&[2]);
    target.select(1, 0)?.copy_(&x)?;
    target.select(0, 1)?.fill_(7.0)?;
    assert_eq!(values(&target), [0., 0., 7., 7.]);
    assert!(target.requires_grad() && !target.is_leaf());
    target.mul(3.0)?.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [3., 0.]);
    Ok(())
}

/// PyTorch: `x[torch.tensor(-1), :, torch.tensor([2, 0])]` has the shape of `x[-1, :, [2, 0]]`, and `x[torch.tensor(0)]` is a view.
#[test]
fn a_place_without_dims_indexes_as_a_number_does() -> Result<()> {
    for device in devices() {
        let x = Tensor::arange(0, 12, 1, DType::F32)?.reshape([2, 2, 3])?.to(&device)?.deep_clone()?;
        let last = Tensor::new(-1i64, &device)?;
        let pair = Tensor::new([2i64, 0], &device)?;
        let at = |place: &Tensor| Index::from(place);
        let chosen = x.get(&[at(&last), Index::Ellipsis, at(&pair)])?;
        assert_eq!((chosen.shape(), values(&chosen)), (&[2, 2][..], vec![8., 6., 11., 9.]));
        let row = x.get(&[at(&Tensor::new(0i32, &device)?)])?;
        assert!(row.is_view());
        row.fill_(-1.0)?;
        assert_eq!(values(&x)[..7], [-1., -1., -1., -1., -1., -1., 6.]);
        let out = x.get(&[at(&Tensor::new(2i64, &device)?)]);
        assert!(matches!(out, Err(Error::Index { .. })), "{out:?}");
        let byte = Tensor::new([1u8, 0], &device)?;
        assert!(matches!(x.get(&[at(&byte)]), Err(Error::DType { .. })));
    }
    Ok(())
}

#[test]
fn overwritten_values_get_zeros() -> Result<()> {
    let x = ramp(&[2]);
    let y = x.mul(2.0)?;
    y.zero_()?;
    assert_eq!(y.grad_fn().unwrap().name(), "ZeroBackward0");
    y.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [0., 0.]);
    Ok(())
}

/// PyTorch refuses this; the saved value is a snapshot here.
#[test]
fn saved_values_are_not_corrupted() -> Result<()> {
    let x = ramp(&[3]);
    let y = x.add(1.0)?;
    let z = y.mul(&y)?;
    y.fill_(100.0)?;
    z.sum()?.backward()?;
    assert_eq!(values(&x.grad().unwrap()), [2., 4., 6.]);
    Ok(())
}

#[test]
fn an_optimizer_step() -> Result<()> {
    let w = ramp(&[2]);
    w.mul(3.0)?.sum()?.backward()?;
    no_grad(|| w.sub_(w.grad().unwrap().mul(0.5)?))?;
    assert_eq!((values(&w), w.is_leaf(), w.requires_grad()), (vec![-1.5, -0.5], true, true));
    w.grad().unwrap().zero_()?;
    assert_eq!(values(&w.grad().unwrap()), [0., 0.]);
    Ok(())
}

#[test]
fn rules() -> Result<()> {
    let x = ramp(&[2, 2]);
    assert_eq!(rule(x.add_(1.0)), GradRule::LeafInPlace);
    assert_eq!(rule(x.select(0, 0)?.add_(1.0)), GradRule::LeafInPlace);
    let y = x.mul(1.0)?;
    assert_eq!(rule(y.split(1, 0)?[0].add_(1.0)), GradRule::ViewInPlace);
    assert_eq!(rule(y.unbind(0)?[0].add_(1.0)), GradRule::ViewInPlace);
    let view = no_grad(|| y.select(0, 0))?;
    // It says what its base says, as in PyTorch; nothing is recorded for it.
    assert!(view.requires_grad() && view.is_leaf() && no_grad(|| x.select(0, 0))?.requires_grad());
    assert!(!view.detach().requires_grad() && !no_grad(|| x.detach().select(0, 0))?.requires_grad());
    assert_eq!(rule(view.add_(1.0)), GradRule::ViewInPlace);
    let plain = Tensor::zeros([2], Device::cpu())?;
    assert_eq!(rule(plain.expand([3, 2])?.add_(1.0)), GradRule::Overlap);
    assert_eq!(rule(plain.unfold(0, 2, 1)?.expand([2, 2])?.add_(1.0)), GradRule::Overlap);
    assert_eq!(rule(plain.select(0, 0)?.detach_()), GradRule::ViewInPlace);
    assert!(matches!(plain.add_(&Tensor::zeros([3, 2], Device::cpu())?), Err(Error::ShapeMismatch { .. })));
    let integers = Tensor::zeros([2], DType::I64)?;
    assert!(matches!(integers.add_(1.5), Err(Error::DType { .. })));
    assert_eq!(integers.add_(2)?.to_vec::<i64>()?, [2, 2]);
    // A refused write changes nothing.
    assert_eq!(values(&x), [0., 1., 2., 3.]);
    assert!(y.detach_()?.is_leaf());
    Ok(())
}

#[test]
fn each_operation_in_place() -> Result<()> {
    let x = Tensor::new([1f32, 4.0], Device::cpu())?;
    x.add_(1.0)?.sub_(0.5)?.mul_(2.0)?.div_(0.5)?;
    assert_eq!(values(&x), [6., 18.]);
    x.clamp_(7.0, 10.0)?;
    assert_eq!(values(&x), [7., 10.]);
    x.neg_()?.relu_()?;
    assert_eq!(values(&x), [0., 0.]);
    x.copy_(&Tensor::new([9i64], Device::cpu())?)?.sqrt_()?;
    assert_eq!(values(&x), [3., 3.]);
    x.masked_fill_(&Tensor::new([true, false], Device::cpu())?, 8.0)?.pow_(2.0)?;
    assert_eq!(values(&x), [64., 9.]);
    Ok(())
}

#[test]
fn views_of_a_base_that_was_detached_lead_nowhere() -> Result<()> {
    let x = leaf(&[1.0, 2.0], &[2]);
    let y = x.mul(2.0)?;
    let view = y.view([2])?;
    y.detach_()?;
    y.mul_(10.0)?;
    assert_eq!(values(&view), [20.0, 40.0]);
    assert_eq!(view.grad_fn().unwrap().name(), "AsStridedBackward0");
    view.sum()?.backward()?;
    assert!(x.grad().is_none());
    Ok(())
}

#[test]
fn looking_at_a_view_does_not_change_what_it_belongs_to() -> Result<()> {
    for look in [false, true] {
        let base = Tensor::from_slice(&[1f32, 2.0], [2], &Device::cpu())?;
        let view = base.view([2, 1])?;
        view.fill_(3.0)?;
        if look {
            assert!(!view.requires_grad() && view.is_leaf());
        }
        base.requires_grad_(true)?;
        view.mul(2.0)?.sum()?.backward()?;
        assert_eq!(values(&base.grad().unwrap()), [2.0, 2.0]);
    }
    Ok(())
}

#[test]
fn nothing_is_written_through_empty_views() -> Result<()> {
    let one = Tensor::from_slice(&[1f32], [1], &Device::cpu())?;
    let nothing = one.expand([0])?;
    nothing.add_(1.0)?;
    nothing.zero_()?;
    one.reshape(())?.expand([1, 0])?.exp_()?;
    assert_eq!(values(&one), [1.0]);
    Ok(())
}

#[test]
fn writing_through_as_strided_of_a_view() -> Result<()> {
    for device in devices() {
        let x = Tensor::arange(0, 6, 1, (DType::F32, &device))?.requires_grad_(true)?;
        let y = x.mul(2.0)?;
        let v = y.narrow(0, 1, 4)?;
        let s = v.as_strided(2, &[2], 1)?;
        assert!(s.is_view());
        s.mul_(10.0)?;
        assert_eq!(y.to_vec::<f32>()?, [0.0, 20.0, 4.0, 60.0, 8.0, 10.0], "{device}");
        assert_eq!(v.to_vec::<f32>()?, [20.0, 4.0, 60.0, 8.0]);
        assert_eq!(s.to_vec::<f32>()?, [20.0, 60.0]);
        y.sum()?.backward()?;
        assert_eq!(x.grad().expect("a gradient").to_vec::<f32>()?, [2.0, 20.0, 2.0, 20.0, 2.0, 2.0]);
        // Without an offset it begins where the view does; what it sees changes with the storage.
        let plain = Tensor::arange(0, 6, 1, (DType::F32, &device))?;
        let seen = plain.narrow(0, 1, 4)?.as_strided(2, &[2], None)?;
        plain.add_(1.0)?;
        assert_eq!(seen.to_vec::<f32>()?, [2.0, 4.0]);
        let overlapping = plain.narrow(0, 1, 4)?.as_strided([2, 2], &[1, 1], 0)?;
        fails! { overlapping.add_(1.0) => Autograd; }
        assert_eq!(plain.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
    Ok(())
}

#[test]
fn views_of_views_that_may_not_be_written_to() -> Result<()> {
    let y = Tensor::ones([2, 3], Device::cpu())?.requires_grad_(true)?.mul(1.0)?;
    fails! { y.unbind(0)?[0].select(0, 0)?.mul_(3.0) => Autograd; }
    let v = no_grad(|| y.narrow(0, 0, 1))?;
    fails! { v.select(0, 0)?.mul_(2.0) => Autograd; }
    no_grad(|| v.select(0, 0)?.mul_(2.0))?;
    assert_eq!(y.to_vec::<f32>()?, [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
    Ok(())
}

/// What was computed is no view, however it was put into shape: it may be detached in place, and writing to it changes nothing else.
#[test]
fn results_are_no_views() -> Result<()> {
    let x = leaf(&(0..16).map(|i| i as f32 + 1.0).collect::<Vec<_>>(), &[1, 4, 2, 2]);
    let square = x.reshape([4, 4])?.add(Tensor::eye(4, 4, Device::cpu())?.mul(9.0)?)?;
    let (places, row) =
        (Tensor::from_slice(&[0i64, 2], 2, &Device::cpu())?, leaf(&[1.0, 2.0, 3.0, 4.0], &[4]));
    let grid = Tensor::zeros([1, 2, 2, 2], Device::cpu())?;
    let results = [
        ("take", x.take(&places)?),
        ("index", x.index(&[None, Some(places.clone())])?),
        ("get", x.get(&[Index::from(..), Index::from(&places)])?),
        ("index_put", x.index_put(&[None, Some(places.clone())], &Tensor::ones((), Device::cpu())?, false)?),
        ("put", x.put(&places, &leaf(&[5.0, 6.0], &[2]), false)?),
        ("kron", row.kron(&row)?),
        ("pixel_shuffle", x.pixel_shuffle(2)?),
        ("pixel_shuffle by 1", x.pixel_shuffle(1)?),
        ("pixel_unshuffle", x.pixel_unshuffle(2)?),
        ("group_norm", x.group_norm(2, None, None, 1e-5)?),
        ("solve", square.solve(&row, true)?),
        ("diag", row.diag(1)?),
        ("diag of a matrix", square.diag(0)?),
        ("diag_embed", row.diag_embed(0, 0, 1)?),
        ("roll", x.roll(1, ())?),
        ("rot90", square.rot90(1, [0, 1])?),
        ("adaptive_avg_pool2d", x.adaptive_avg_pool2d([Some(1), Some(1)])?),
        ("im2col", x.im2col(&[2, 2], &[1, 1], &[0, 0], &[1, 1])?),
        ("grid_sample", x.grid_sample(&grid, GridSampling::Bilinear, GridPadding::Zeros, false)?),
        ("median_dim", square.median_dim(1, false)?.0),
    ];
    for (what, y) in results {
        assert!(!y.is_view(), "{what}");
        let before = x.to_vec::<f32>()?;
        assert!(y.requires_grad(), "{what}");
        y.detach_().unwrap_or_else(|error| panic!("{what}: {error}"));
        y.fill_(0.0)?;
        assert_eq!(x.to_vec::<f32>()?, before, "{what}");
    }
    assert!(x.mul(2.0)?.reshape([4, 4])?.is_view());
    Ok(())
}
