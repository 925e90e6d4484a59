//! Calls that must fail, each with its kind of error, at the call itself where the arguments tell.

use wgrad::{ConvOptions, DType, Device, Padding, Reduction, Result, Scalar, Tensor};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, Device::cpu()).unwrap()
}

#[test]
fn shapes() {
    let (x, y) = (zeros(&[2, 3]), zeros(&[2, 4]));
    fails! {
        x.add(&y) => ShapeMismatch;
        x.matmul(&y) => ShapeMismatch;
        x.linear(&y, None) => ShapeMismatch;
        x.mse_loss(&y, Reduction::Mean) => ShapeMismatch;
        Tensor::stack(&[&x, &y], 0) => ShapeMismatch;
        x.cross_entropy(&Tensor::zeros([3], DType::I64).unwrap()) => ShapeMismatch;
        x.copy_(&y) => ShapeMismatch;
        x.reshape([4]) => Shape;
        x.reshape([-1, -1]) => Shape;
        x.t().unwrap().view([6]) => Shape;
        x.expand([2, 4]) => Shape;
        x.permute([0]) => Shape;
        zeros(&[1, 1, 1]).t() => Shape;
        zeros(&[]).matmul(&x) => Shape;
        x.layer_norm(2, None, None, 1e-5) => Shape;
        x.pad(&[(-4, 0)], 0.0) => Shape;
        x.item::<f32>() => Shape;
        x.tril(0).unwrap().select(0, 0).unwrap().tril(0) => Shape;
        Tensor::from_slice(&[1f32, 2.0], 3, &Device::cpu()) => Shape;
        Tensor::zeros([-1], Device::cpu()) => Argument;
        Tensor::zeros([usize::MAX, 2], Device::cpu()) => SizeOverflow;
        Tensor::zeros([0, usize::MAX / 4, 16], Device::cpu()) => SizeOverflow;
        x.repeat([usize::MAX, 1]) => SizeOverflow;
        x.expand([usize::MAX, 2, 3]) => SizeOverflow;
    }
}

#[test]
fn windows_and_margins_that_overflow() {
    let (x, weight) = (zeros(&[1, 1, 8]), zeros(&[1, 1, 3]));
    let conv = |padding: Padding, dilation: usize| {
        let options = ConvOptions { padding, dilation: vec![dilation], ..ConvOptions::default() };
        x.conv1d(&weight, None, &options)
    };
    fails! {
        conv(Padding::Same, 1 << 63) => Argument;
        conv(Padding::Same, 1 << 62) => Argument;
        conv(Padding::Same, (1 << 63) + 1) => Argument;
        conv(Padding::Valid, 1 << 63) => Argument;
        conv(Padding::Explicit(vec![usize::MAX]), 1) => Argument;
        conv(Padding::Explicit(vec![1 << 63]), 1) => Argument;
        conv(Padding::Explicit(vec![1 << 62]), 1) => Argument;
    }
    assert_eq!(conv(Padding::Same, 2).unwrap().shape(), [1, 1, 8]);
}

#[test]
fn dims_and_indices() -> Result<()> {
    let x = zeros(&[2, 3]);
    let index = |i: i64| Tensor::new([i], &Device::cpu());
    fails! {
        x.sum_dim(2, false) => Dim;
        x.softmax(-3) => Dim;
        x.unsqueeze(4) => Dim;
        x.transpose(0, isize::MAX) => Dim;
        zeros(&[]).select(0, 0) => Dim;
        x.sum_dim([0, -2], false) => DuplicateDim;
        x.permute([1, 1]) => DuplicateDim;
        x.select(1, 3) => Index;
        x.select(1, isize::MIN) => Index;
        x.narrow(0, 1, 2) => Index;
        x.narrow(0, 1, usize::MAX) => Index;
        x.narrow(0, isize::MIN, 1 << 63) => Index;
        x.index_select(0, &index(2)?)?.to_vec::<f32>() => Index;
        x.index_select(0, &index(-1)?)?.to_vec::<f32>() => Index;
        x.gather(1, &index(3)?.reshape([1, 1])?)?.to_vec::<f32>() => Index;
        index(5)?.embedding(&x, None)?.to_vec::<f32>() => Index;
        index(5)?.embedding(&x, 7) => Index;
        index(3)?.one_hot(3)?.to_vec::<i64>() => Index;
        zeros(&[1, 3]).cross_entropy(&index(3)?)?.item::<f32>() => Index;
        x.slice(0, None, None, 0) => Argument;
        x.split(0, 0) => Argument;
        x.chunk(0, 0) => Argument;
        zeros(&[0]).chunk(usize::MAX, 0) => Argument;
        Tensor::cat(&[], 0) => Argument;
        x.clamp(None, None) => Argument;
        zeros(&[0]).max() => EmptyReduction;
        zeros(&[2, 0]).amax(1, false) => EmptyReduction;
        zeros(&[0]).argmax() => EmptyReduction;
    }
    Ok(())
}

#[test]
fn dtypes_and_numbers() -> Result<()> {
    let (float, integer) = (zeros(&[2, 2]), Tensor::zeros([2, 2], DType::I64)?);
    let bools = integer.eq(0)?;
    fails! {
        integer.mean() => DType;
        integer.masked_fill(&integer.ne(0i64)?, f64::NAN) => DType;
        integer.softmax(0) => DType;
        integer.var() => DType;
        integer.dropout(0.5, true) => DType;
        float.matmul(&integer) => DType;
        bools.sub(&bools) => DType;
        bools.neg() => DType;
        float.where_cond(&float, 0.0) => DType;
        float.index_select(0, &float.select(0, 0)?) => DType;
        float.one_hot(3) => DType;
        float.to_vec::<f64>() => DType;
        integer.pow(-1) => Argument;
        Tensor::arange(0, 5, 0, Device::cpu()) => Argument;
        Tensor::arange(0, 5, -1, Device::cpu()) => Argument;
        Tensor::arange(0.0, f64::INFINITY, 1.0, Device::cpu()) => Argument;
        "float31".parse::<DType>() => Parse;
        "gpu".parse::<Device>() => Parse;
    }
    // Large and strange numbers are no reason to panic.
    assert_eq!(Tensor::full((), Scalar::Int(i64::MIN), DType::I32)?.item::<i32>()?, 0);
    assert_eq!(Tensor::new(i64::MIN, &Device::cpu())?.abs()?.item::<i64>()?, i64::MIN);
    assert_eq!(integer.remainder(0)?.to_vec::<i64>()?, [0; 4]);
    Ok(())
}
