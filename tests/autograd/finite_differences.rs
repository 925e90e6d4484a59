//! Gradients that finite differences of PyTorch's cases do not show: at kinks, where zeros meet divisions, through views that were written to.
//! And the leaves and checks of other tests.

use wgrad::{DType, Device, Result, Tensor, gradcheck, gradgradcheck};

/// Numbers without ties, away from 0 and from integers.
fn numbers(count: usize, from: f64, to: f64, salt: usize) -> Vec<f64> {
    let place = |i: usize| ((i * 37 + salt * 11) % 97) as f64 / 97.0;
    (0..count).map(|i| from + (to - from) * place(i) + 0.0123).collect()
}

pub(super) fn leaf(shape: &[usize], from: f64, to: f64, salt: usize) -> Tensor {
    let data = numbers(shape.iter().product(), from, to, salt);
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap().requires_grad_(true).unwrap()
}

/// Both orders of one function.
pub(super) fn check(name: &str, function: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>, inputs: &[Tensor]) {
    gradcheck(function, inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    gradgradcheck(function, inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Where a formula with a division would give NaN.
#[test]
fn products_with_zeros() -> Result<()> {
    for data in [[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]] {
        let x = Tensor::new([data], DType::F64)?.requires_grad_(true)?;
        check("prod", &|x| Ok(vec![x[0].prod()?, x[0].prod_dim(1, false)?]), &[x]);
    }
    Ok(())
}

#[test]
fn subgradients() -> Result<()> {
    let gradient = |data: &[f32], function: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Vec<f32>> {
        let x = Tensor::from_slice(data, data.len(), &Device::cpu())?.requires_grad_(true)?;
        function(&x)?.sum()?.backward()?;
        x.grad().unwrap().to_vec()
    };
    assert_eq!(gradient(&[0.0], &|x| x.relu())?, [0.0]);
    assert_eq!(gradient(&[0.0], &|x| x.abs())?, [0.0]);
    assert_eq!(gradient(&[0.0], &|x| x.sqrt())?, [f32::INFINITY]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| x.max())?, [0.5, 0.0, 0.5]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| x.amax(0, false))?, [0.5, 0.0, 0.5]);
    assert_eq!(gradient(&[2.0, 1.0, 2.0], &|x| Ok(x.max_dim(0, false)?.0))?, [1.0, 0.0, 0.0]);
    assert_eq!(gradient(&[1.0, 2.0], &|x| x.maximum(&Tensor::ones([2], Device::cpu())?))?, [0.5, 1.0]);
    assert_eq!(gradient(&[0.0, 0.5, 1.0], &|x| x.clamp(0.0, 1.0))?, [0.0, 1.0, 0.0]);
    assert_eq!(gradient(&[0.0, 2.0], &|x| x.pow(0.0))?, [0.0, 0.0]);
    assert_eq!(gradient(&[3.0, 3.0], &|x| x.std())?, [0.0, 0.0]);
    Ok(())
}

#[test]
fn writing_in_place() {
    let inputs = [leaf(&[3, 4], 0.5, 2.0, 1), leaf(&[4], 0.5, 2.0, 2)];
    let through_views = |x: &[Tensor]| {
        let base = x[0].mul(1.5)?;
        base.select(0, 1)?.mul_(&x[1])?;
        base.t()?.narrow(0, 1, 2)?.exp_()?;
        base.diagonal(0, 0, 1)?.copy_(&x[1].narrow(0, 0, 3)?)?;
        base.slice(1, 0, None, 2)?.div_(&base.slice(1, 1, None, 2)?)?;
        base.square_()?;
        Ok(vec![base.clone(), base.select(1, 2)?])
    };
    check("in place", &through_views, &inputs);
}

/// No gradient reaches the row that pads, though the output depends on it.
#[test]
fn a_padding_row_has_no_gradient() -> Result<()> {
    let index = Tensor::new([[0i64, 2, 1], [1, 1, 0]], Device::cpu())?;
    let padded = leaf(&[3, 3], -2.0, 2.0, 1);
    index.embedding(&padded, -2)?.sum()?.backward()?;
    assert_eq!(padded.grad().unwrap().select(0, 1)?.to_vec::<f64>()?, [0.0; 3]);
    Ok(())
}
