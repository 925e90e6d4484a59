//! Order, counting and choosing by masks on every device; PyTorch's values, and orders by their definition.

use wgrad::{DType, Device, Result, Tensor, gradcheck};

use super::finite_differences::{check, leaf};
use crate::support::devices;

const NAN: f32 = f32::NAN;

/// The bits of floats, so that zeros and NaN are told apart.
fn bits(x: &Tensor) -> Vec<u32> {
    x.to_vec::<f32>().unwrap().into_iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

fn places(x: &Tensor) -> Vec<i64> {
    x.to_vec().unwrap()
}

fn same(found: &Tensor, expected: &[f32]) {
    let expected: Vec<u32> =
        expected.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect();
    assert_eq!(bits(found), expected, "{found}");
}

fn rows(device: &Device) -> Result<Tensor> {
    let rows = [[3.0, NAN, 1.0, NAN, 2.0], [NAN; 5], [5.0, 4.0, 4.0, 5.0, NAN], [0.0, -0.0, 7.0, 7.0, -1.0]];
    Tensor::new(rows, device)
}

#[test]
fn nan_comes_last_and_zeros_are_equal() -> Result<()> {
    for device in devices() {
        let infinity = f32::INFINITY;
        let x = Tensor::new([0.0, NAN, -0.0, infinity, -infinity, -NAN, 1e-45, -1e-45, 0.0], &device)?;
        let (values, order) = x.sort(0, false)?;
        assert_eq!(places(&order), [4, 7, 0, 2, 8, 6, 3, 1, 5], "{device}");
        same(&values, &[-infinity, -1e-45, 0.0, -0.0, 0.0, 1e-45, infinity, NAN, NAN]);
        assert_eq!(places(&x.argsort(-1, true)?), [1, 5, 3, 6, 0, 2, 8, 7, 4], "{device}");
        let (_, largest) = x.topk(3, 0, true)?;
        assert_eq!(places(&largest), [1, 5, 3], "{device}");
    }
    Ok(())
}

#[test]
fn the_edges_of_shapes() -> Result<()> {
    for device in devices() {
        let zero_dims = Tensor::full((), 5.0, (DType::F32, &device))?;
        let (value, place) = zero_dims.sort(-1, true)?;
        assert_eq!((value.item::<f32>()?, place.item::<i64>()?, place.rank()), (5.0, 0, 0));
        assert_eq!(zero_dims.msort()?.item::<f32>()?, 5.0);
        assert_eq!(zero_dims.nonzero()?.shape(), [1, 0]);
        assert_eq!(places(&zero_dims.unique()?.counts), [1]);
        for shape in [&[0][..], &[3, 0], &[0, 3], &[4, 1]] {
            let x = Tensor::ones(shape, (DType::F32, &device))?;
            for dim in 0..shape.len() as isize {
                let (values, order) = x.sort(dim, false)?;
                assert_eq!((values.shape(), order.shape()), (shape, shape));
                assert!(places(&order).iter().all(|&place| x.shape()[dim as usize] > 1 || place == 0));
            }
            let found = x.unique()?;
            assert_eq!(found.values.numel(), x.numel().min(1), "{shape:?}");
            assert_eq!(found.inverse.shape(), shape);
            assert_eq!(x.nonzero()?.shape(), [x.numel(), shape.len()]);
            assert_eq!(x.masked_select(&x.gt(0.0)?)?.shape(), [x.numel()]);
        }
        let none = Tensor::zeros([3, 0], (DType::F32, &device))?;
        assert!(none.mode(1, false).is_err() && none.nanmedian_dim(1, false).is_err());
        assert_eq!(none.mode(0, false)?.0.shape(), [0]);
        assert_eq!(none.nanmedian_dim(0, false)?.1.shape(), [0]);
        assert!(none.nanmedian()?.item::<f32>()?.is_nan());
        assert!(none.sort(2, false).is_err() && none.topk(1, 1, true).is_err());
    }
    Ok(())
}

#[test]
fn medians_and_modes() -> Result<()> {
    for device in devices() {
        let x = rows(&device)?;
        let (values, at) = x.nanmedian_dim(1, false)?;
        same(&values, &[2.0, NAN, 4.0, -0.0]);
        assert_eq!(places(&at)[0], 4);
        assert_eq!(places(&at)[2..], [2, 1]);
        let (values, at) = x.nanmedian_dim(0, true)?;
        assert_eq!(values.shape(), [1, 5]);
        same(&values, &[3.0, -0.0, 4.0, 5.0, -1.0]);
        assert_eq!(places(&at), [0, 3, 2, 2, 3]);
        same(&x.nanmedian()?, &[3.0]);
        same(&x.median()?, &[NAN]);
        let (values, at) = x.mode(1, false)?;
        same(&values, &[1.0, NAN, 4.0, -0.0]);
        assert_eq!(places(&at), [2, 0, 2, 1]);
        let m = Tensor::new([[2i64, 1, 2, 1, 3], [5, 4, 3, 2, 1], [7, 7, 7, 0, 0]], &device)?;
        let (values, at) = m.mode(-1, false)?;
        assert_eq!((places(&values), places(&at)), (vec![1, 1, 7], vec![3, 4, 2]));
        let (values, at) = m.mode(0, false)?;
        assert_eq!((places(&values), places(&at)), (vec![2, 1, 2, 0, 0], vec![0, 0, 0, 2, 2]));
        let (values, at) = m.nanmedian_dim(1, false)?;
        assert_eq!((places(&values), places(&at)[0]), (vec![2, 3, 7], 0));
    }
    Ok(())
}

#[test]
fn what_occurs_and_where() -> Result<()> {
    for device in devices() {
        let found = Tensor::new([NAN, 1.0, NAN, -0.0, 0.0, 1.0], &device)?.unique()?;
        same(&found.values, &[-0.0, 1.0, NAN, NAN]);
        assert_eq!(places(&found.inverse), [2, 1, 3, 0, 0, 1]);
        assert_eq!(places(&found.counts), [2, 2, 1, 1]);
        // Slices of an odd number of elements, in a dim in the middle.
        let slices = [[3i64, 1, 2], [0, 9, 9], [3, 1, 2], [3, 0, 5], [0, 9, 9], [-1, 7, 7], [3, 1, 1]];
        let x = Tensor::new(slices, &device)?.reshape([7, 1, 3])?.movedim(0, 1)?;
        let found = x.unique_dim(1)?;
        assert_eq!(found.values.shape(), [1, 5, 3]);
        assert_eq!(places(&found.values), [-1, 7, 7, 0, 9, 9, 3, 0, 5, 3, 1, 1, 3, 1, 2]);
        assert_eq!(places(&found.inverse), [4, 1, 4, 2, 1, 0, 3]);
        assert_eq!(places(&found.counts), [1, 2, 1, 1, 2]);
        // A slice with NaN differs from all others.
        let x = Tensor::new([[1.0, NAN], [1.0, NAN], [-0.0, 2.0], [0.0, 2.0], [1.0, 1.0]], &device)?;
        let found = x.unique_dim(0)?;
        same(&found.values, &[-0.0, 2.0, 1.0, 1.0, 1.0, NAN, 1.0, NAN]);
        assert_eq!(places(&found.inverse), [2, 3, 0, 0, 1]);
        let x = Tensor::new([[0i64, 1], [2, 0], [0, 0], [5, 6]], &device)?.t()?;
        assert_eq!(places(&x.argwhere()?), [0, 1, 0, 3, 1, 0, 1, 3]);
        assert_eq!(places(&x.masked_select(&x.gt(1i64)?)?), [2, 5, 6]);
        assert_eq!(places(&Tensor::new([3i64, 0, 3, 1], &device)?.bincount(6)?), [1, 1, 0, 2, 0, 0]);
        assert!(Tensor::new([1i64, -2], &device)?.bincount(0).is_err());
    }
    Ok(())
}

#[test]
fn gradients_reach_what_was_chosen() -> Result<()> {
    check("sort", &|x| Ok(vec![x[0].sort(0, true)?.0]), &[leaf(&[4, 3], -2.0, 2.0, 1)]);
    check("msort", &|x| Ok(vec![x[0].t()?.msort()?]), &[leaf(&[4, 3], -2.0, 2.0, 2)]);
    check("topk", &|x| Ok(vec![x[0].topk(2, -1, false)?.0]), &[leaf(&[3, 5], -2.0, 2.0, 3)]);
    check("kthvalue", &|x| Ok(vec![x[0].kthvalue(3, 0, true)?.0]), &[leaf(&[5, 2], -2.0, 2.0, 4)]);
    check(
        "median",
        &|x| Ok(vec![x[0].median_dim(1, false)?.0, x[0].median()?]),
        &[leaf(&[3, 5], -2.0, 2.0, 5)],
    );
    let with_nan =
        |x: &Tensor| Tensor::cat(&[x, &Tensor::full([3, 2], f64::NAN, (DType::F64, x.device()))?], 1);
    let medians = |x: &[Tensor]| {
        let x = with_nan(&x[0])?;
        Ok(vec![x.nanmedian_dim(1, false)?.0, x.nanmedian()?])
    };
    gradcheck(medians, &[leaf(&[3, 4], -2.0, 2.0, 6)])?;
    check("mode", &|x| Ok(vec![x[0].mode(1, false)?.0]), &[leaf(&[3, 5], -2.0, 2.0, 7)]);
    // Equal elements share.
    let z = Tensor::new([1.0f32, 2.0, 2.0, 3.0, NAN], Device::cpu())?.requires_grad_(true)?;
    z.nanmedian()?.backward()?;
    assert_eq!(z.grad().expect("a gradient").to_vec::<f32>()?, [0.0, 0.5, 0.5, 0.0, 0.0]);
    Ok(())
}
