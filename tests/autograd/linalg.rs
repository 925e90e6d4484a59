//! Linear algebra: derivatives of both orders against finite differences, also at singular matrices; sizes of 0; matrices
//! without a result; tensors on a GPU.

use wgrad::{DType, Device, Error, NormOrder, QrMode, Result, Tensor, Triangle};

use crate::support::devices;

use super::finite_differences::{check, leaf};

/// Square matrices well away from singular ones, as a function of any.
fn regular(x: &Tensor) -> Result<Tensor> {
    let n = x.size(-1)?;
    x.add(Tensor::eye(n, n, DType::F64)?.mul(3.0)?)
}

fn symmetric(x: &Tensor) -> Result<Tensor> {
    x.add(x.mt()?)
}

/// Symmetric matrices with different eigenvalues, all positive.
fn positive(x: &Tensor) -> Result<Tensor> {
    let n = x.size(-1)?;
    let ramp = Tensor::arange(1.0, n as f64 + 1.0, 1.0, DType::F64)?;
    symmetric(&x.mul(0.2)?)?.add(ramp.mul(2.0)?.diag(0)?)
}

fn tensor<const N: usize>(data: [f64; N], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&data, shape, &Device::cpu()).unwrap()
}

const SHAPES: [&[usize]; 5] = [&[3, 3], &[2, 2, 2], &[1, 1], &[0, 0], &[0, 2, 2]];

#[test]
fn systems_and_inverses() {
    for shape in SHAPES {
        let a = || leaf(shape, -1.0, 1.0, 1);
        let pair = [a(), leaf(shape, -1.0, 1.0, 2)];
        check("inv", &|x| Ok(vec![regular(&x[0])?.inv()?]), &[a()]);
        check("inv, transposed", &|x| Ok(vec![regular(&x[0].mt()?)?.inv()?]), &[a()]);
        check("pinv", &|x| Ok(vec![regular(&x[0])?.pinv(None)?]), &[a()]);
        for left in [true, false] {
            check("solve", &|x| Ok(vec![regular(&x[0])?.solve(&x[1], left)?]), &pair);
            for (triangle, unit) in [(Triangle::Lower, false), (Triangle::Upper, true)] {
                let solve =
                    |x: &[Tensor]| Ok(vec![regular(&x[0])?.solve_triangular(&x[1], triangle, left, unit)?]);
                check("solve_triangular", &solve, &pair);
            }
        }
        for triangle in [Triangle::Lower, Triangle::Upper] {
            check("cholesky", &|x| Ok(vec![positive(&x[0])?.cholesky(triangle)?]), &[a()]);
        }
    }
    let right: [(&[usize], &[usize]); 4] =
        [(&[3, 3], &[3]), (&[2, 3, 3], &[2, 3]), (&[2, 3, 3], &[3]), (&[3, 3], &[2, 3, 1])];
    for (a, b) in right {
        let pair = [leaf(a, -1.0, 1.0, 1), leaf(b, -1.0, 1.0, 2)];
        check("solve", &|x| Ok(vec![regular(&x[0])?.solve(&x[1], true)?]), &pair);
    }
    for (a, b) in [([4, 2], [4, 3]), ([2, 4], [2, 1])] {
        let pair = [leaf(&a, -2.0, 2.0, 1), leaf(&b, -1.0, 1.0, 2)];
        check("pinv", &|x| Ok(vec![x[0].pinv(None)?]), &pair[..1]);
        check("lstsq", &|x| Ok(vec![x[0].lstsq(&x[1], None)?]), &pair);
        check("lstsq of a vector", &|x| Ok(vec![x[0].lstsq(&x[1].select(1, 0)?, None)?]), &pair);
    }
}

#[test]
fn least_squares_meet_the_normal_equations() -> Result<()> {
    let (a, b) = (leaf(&[2, 5, 3], -2.0, 2.0, 1).detach(), leaf(&[2, 5, 2], -2.0, 2.0, 2).detach());
    let rest = a.matmul(&a.lstsq(&b, None)?)?.sub(&b)?;
    assert!(a.mt()?.matmul(&rest)?.abs()?.max()?.item::<f64>()? < 1e-12);
    // Of the many exact solutions of a wide system the smallest lies in the rows' span.
    let (wide, b) = (a.mt()?, leaf(&[2, 3, 2], -2.0, 2.0, 3).detach());
    let x = wide.lstsq(&b, None)?;
    assert!(wide.matmul(&x)?.sub(&b)?.abs()?.max()?.item::<f64>()? < 1e-12);
    let projected = wide.pinv(None)?.matmul(&wide.matmul(&x)?)?;
    assert!(projected.sub(&x)?.abs()?.max()?.item::<f64>()? < 1e-12);
    Ok(())
}

#[test]
fn determinants() {
    for shape in SHAPES {
        let a = || leaf(shape, -1.0, 1.0, 1);
        check("det", &|x| Ok(vec![x[0].det()?]), &[a()]);
        check("det, transposed", &|x| Ok(vec![regular(&x[0].mt()?)?.det()?]), &[a()]);
        check("slogdet", &|x| Ok(vec![regular(&x[0])?.slogdet()?.1]), &[a()]);
    }
    // With equal and vanishing singular values, of every rank.
    let singular = [
        tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], &[3, 3]),
        tensor([1.0, 2.0, 3.0, 2.0, 4.0, 6.0, 1.0, 1.0, 1.0], &[3, 3]),
        tensor([1.0, 2.0, 3.0, 2.0, 4.0, 6.0, -1.0, -2.0, -3.0], &[3, 3]),
        tensor([0.0; 9], &[3, 3]),
        tensor([1.0, 2.0, 2.0, 4.0, 1.0, 2.0, 0.5, 3.0], &[2, 2, 2]),
    ];
    for a in singular {
        check("det", &|x| Ok(vec![x[0].det()?]), &[a.requires_grad_(true).unwrap()]);
    }
}

/// The third derivative of a determinant of 3 x 3 is the Levi-Civita symbol times itself.
#[test]
fn third_derivatives_of_a_determinant() -> Result<()> {
    let a = leaf(&[3, 3], -1.0, 1.0, 1);
    let third = |x: &Tensor| {
        let pick = |x: &Tensor, i: usize, j: usize| x.select(0, i as isize)?.select(0, j as isize);
        let options = || wgrad::GradOptions::new().create_graph(true);
        let take = |grads: Vec<Option<Tensor>>| grads.into_iter().next().flatten().expect("it depends");
        let first = take(wgrad::grad(&[&x.det()?], &[x], options())?);
        let second = take(wgrad::grad(&[&pick(&first, 0, 0)?], &[x], options())?);
        let third = take(wgrad::grad(&[&pick(&second, 1, 1)?], &[x], options())?);
        pick(&third, 2, 2)?.item::<f64>()
    };
    assert!((third(&a)? - 1.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn factors() {
    let shapes: [&[usize]; 7] = [&[3, 3], &[4, 2], &[2, 4], &[2, 3, 2], &[1, 1], &[0, 2], &[3, 0]];
    for shape in shapes {
        let a = || leaf(shape, -2.0, 2.0, 1);
        let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        let modes = [QrMode::Reduced, QrMode::Complete];
        for mode in modes.into_iter().filter(|mode| *mode == QrMode::Reduced || rows <= columns) {
            let qr = |x: &[Tensor]| x[0].qr(mode).map(|(q, r)| vec![q, r]);
            check("qr", &qr, &[a()]);
            check("Q alone", &|x| Ok(vec![x[0].qr(mode)?.0]), &[a()]);
            check("R alone", &|x| Ok(vec![x[0].qr(mode)?.1]), &[a()]);
        }
        check("svdvals", &|x| Ok(vec![x[0].svdvals()?]), &[a()]);
        for full in [true, false] {
            let k = rows.min(columns);
            let svd = |x: &[Tensor]| {
                let (u, s, vh) = x[0].svd(full)?;
                Ok(vec![u.narrow(-1, 0, k)?.abs()?, s, vh.narrow(-2, 0, k)?.abs()?])
            };
            check("svd", &svd, &[a()]);
            check("U alone", &|x| Ok(vec![svd(x)?.remove(0)]), &[a()]);
            check("Vh alone", &|x| Ok(vec![svd(x)?.remove(2)]), &[a()]);
        }
    }
    for shape in SHAPES {
        let a = || leaf(shape, -1.0, 1.0, 1);
        for triangle in [Triangle::Lower, Triangle::Upper] {
            let eigh = |x: &[Tensor]| {
                let (values, vectors) = positive(&x[0])?.eigh(triangle)?;
                Ok(vec![values, vectors.abs()?])
            };
            check("eigh", &eigh, &[a()]);
            check("eigenvectors alone", &|x| Ok(vec![eigh(x)?.remove(1)]), &[a()]);
            check("eigvalsh", &|x| Ok(vec![positive(&x[0])?.eigvalsh(triangle)?]), &[a()]);
        }
    }
}

#[test]
fn norms() {
    let orders = [1.0, -1.0, 2.0, -2.0, f64::INFINITY, f64::NEG_INFINITY].map(NormOrder::Number);
    let a = || leaf(&[3, 4, 2], -2.0, 2.0, 1);
    // Of full rank, and no two sums are alike.
    let uneven = |x: &[Tensor]| x[0].mul(x[0].abs()?);
    for order in orders.into_iter().chain([NormOrder::Frobenius, NormOrder::Nuclear]) {
        for keepdim in [false, true] {
            check("matrix_norm", &|x| Ok(vec![uneven(x)?.matrix_norm(order, [2, 0], keepdim)?]), &[a()]);
            check("linalg_norm", &|x| Ok(vec![uneven(x)?.linalg_norm(order, [0, 1], keepdim)?]), &[a()]);
        }
    }
    let norms = |x: &[Tensor]| {
        let x = uneven(x)?;
        Ok(vec![x.norm(3.0, 1, false)?, x.norm(NormOrder::Nuclear, [0, 1], true)?])
    };
    check("norm", &norms, &[a()]);
    check("linalg_norm of all", &|x| Ok(vec![x[0].linalg_norm(None, (), false)?]), &[a()]);
}

#[test]
fn sizes_of_zero() -> Result<()> {
    let none = Tensor::zeros([0, 0], DType::F64)?;
    assert_eq!(none.det()?.item::<f64>()?, 1.0);
    assert_eq!(none.slogdet()?.1.item::<f64>()?, 0.0);
    assert_eq!(none.inv()?.shape(), [0, 0]);
    let batch = Tensor::zeros([0, 3, 3], DType::F64)?;
    assert_eq!(batch.det()?.shape(), [0]);
    assert_eq!(batch.eigh(Triangle::Lower)?.1.shape(), [0, 3, 3]);
    let tall = Tensor::zeros([3, 0], DType::F64)?;
    let (q, r) = tall.qr(QrMode::Complete)?;
    assert_eq!(
        (q.to_vec::<f64>()?, r.shape()),
        (Tensor::eye(3, 3, DType::F64)?.to_vec::<f64>()?, &[3, 0][..])
    );
    let (u, s, vh) = tall.svd(true)?;
    assert_eq!(
        (u.matmul(&u.mt()?)?.det()?.item::<f64>()?, s.shape(), vh.shape()),
        (1.0, &[0][..], &[0, 0][..])
    );
    assert_eq!(tall.pinv(None)?.shape(), [0, 3]);
    assert_eq!(tall.lstsq(&Tensor::ones([3], DType::F64)?, None)?.shape(), [0]);
    assert_eq!(tall.matrix_norm(NormOrder::Nuclear, [-2, -1], false)?.item::<f64>()?, 0.0);
    Ok(())
}

#[test]
fn what_has_no_result() -> Result<()> {
    let singular = tensor([1.0, 2.0, 2.0, 4.0], &[2, 2]);
    let wide = Tensor::zeros([2, 3], DType::F64)?;
    let (eye, half) = (Tensor::eye(2, 2, DType::F64)?, Tensor::eye(2, 2, DType::F16)?);
    let nan = Tensor::full([2, 2], f64::NAN, DType::F64)?;
    let infinite = Tensor::full([2, 2], f64::INFINITY, DType::F64)?;
    fails! {
        singular.inv() => LinAlg;
        singular.solve(&eye, true) => LinAlg;
        singular.cholesky(Triangle::Lower) => LinAlg;
        nan.cholesky(Triangle::Lower) => LinAlg;
        nan.svd(false) => LinAlg;
        infinite.svdvals() => LinAlg;
        nan.pinv(None) => LinAlg;
        wide.inv() => Shape;
        wide.det() => Shape;
        wide.slogdet() => Shape;
        wide.cholesky(Triangle::Upper) => Shape;
        wide.eigh(Triangle::Lower) => Shape;
        wide.solve(&eye, true) => Shape;
        wide.select(0, 0)?.svd(true) => Shape;
        wide.select(0, 0)?.qr(QrMode::R) => Shape;
        wide.select(0, 0)?.norm(NormOrder::Nuclear, (), false) => Argument;
        Tensor::zeros((), DType::F64)?.inv() => Shape;
        Tensor::zeros((), DType::F64)?.solve_triangular(&eye, Triangle::Lower, true, false) => Shape;
        eye.solve(&wide.mt()?, true) => ShapeMismatch;
        eye.solve(&Tensor::ones([2], DType::F64)?, false) => Argument;
        eye.solve(&Tensor::eye(2, 2, DType::F32)?, true) => ShapeMismatch;
        eye.solve_triangular(&wide.mt()?, Triangle::Lower, true, false) => ShapeMismatch;
        eye.lstsq(&Tensor::ones([3, 1], DType::F64)?, None) => ShapeMismatch;
        half.inv() => DType;
        half.det() => DType;
        half.svd(true) => DType;
        half.qr(QrMode::Reduced) => DType;
        Tensor::eye(2, 2, DType::I64)?.inv() => DType;
        Tensor::eye(2, 2, DType::I64)?.matrix_norm(1.0, [0, 1], false) => DType;
        eye.matrix_norm(3.0, [0, 1], false) => Argument;
        eye.matrix_norm(1.0, [0, 0], false) => DuplicateDim;
        eye.matrix_norm(1.0, [0, 2], false) => Dim;
        eye.linalg_norm(NormOrder::Frobenius, 0, false) => Argument;
    }
    let error = Tensor::stack(&[&eye, &singular], 0)?.inv().unwrap_err();
    assert!(matches!(error, Error::LinAlg { op: "inv", matrix: 1, .. }), "{error}");
    let a = wide.mt()?.deep_clone()?.detach().requires_grad_(true)?;
    for mode in [QrMode::Complete, QrMode::R] {
        fails! { a.qr(mode)?.1.sum()?.backward() => Autograd; }
    }
    // Not a number goes through where no iteration depends on it.
    for x in [nan.inv()?, nan.det()?, nan.qr(QrMode::Reduced)?.0, nan.eigh(Triangle::Lower)?.0] {
        assert!(x.isnan()?.all()?.item::<bool>()?);
    }
    let leaf = singular.requires_grad_(true)?;
    leaf.slogdet()?.1.backward()?;
    assert!(leaf.grad().unwrap().to_vec::<f64>()?.iter().all(|x| !x.is_finite()));
    Ok(())
}

#[test]
fn tensors_of_a_gpu_come_back_to_it() -> Result<()> {
    for device in devices() {
        let a = Tensor::new([[2f32, 1.0], [1.0, 3.0]], &device)?.requires_grad_(true)?;
        let b = Tensor::new([3f32, 5.0], &device)?;
        let x = a.solve(&b, true)?;
        x.sum()?.backward()?;
        let grad = a.grad().unwrap();
        assert!(x.device() == &device && grad.device() == &device);
        // x = (0.8, 1.4); the gradient is -(A⁻ᵀ 1) xᵀ with A⁻ᵀ 1 = (0.4, 0.2).
        for (got, expected) in grad.to_vec::<f32>()?.iter().zip([-0.32, -0.56, -0.16, -0.28]) {
            assert!((got - expected).abs() < 1e-6, "{got} instead of {expected} on {device}");
        }
    }
    Ok(())
}
