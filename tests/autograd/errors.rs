//! Calls that must fail, each with its kind of error, at the call itself where the arguments tell.

use wgrad::{ConvOptions, DType, Device, Padding, Reduction, Result, Scalar, Tensor};

use crate::support::devices;

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
    let index = |i: i64| Tensor::new([i], Device::cpu());
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
        x.index_select(0, &index(2)?) => Index;
        x.index_select(0, &index(-1)?) => Index;
        x.gather(1, &index(3)?.reshape([1, 1])?) => Index;
        index(5)?.embedding(&x, None) => Index;
        index(5)?.embedding(&x, 7) => Index;
        index(3)?.one_hot(3) => Index;
        zeros(&[1, 3]).cross_entropy(&index(3)?) => Index;
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
    fails! { Tensor::full((), Scalar::Int(i64::MIN), DType::I32) => DType; }
    assert_eq!(Tensor::new(i64::MIN, Device::cpu())?.abs()?.item::<i64>()?, i64::MIN);
    assert_eq!(integer.remainder(0)?.to_vec::<i64>()?, [0; 4]);
    Ok(())
}

#[test]
fn numbers_that_the_dtype_cannot_hold() -> Result<()> {
    let bytes = Tensor::new([0u8, 1, 4], Device::cpu())?;
    let ints = Tensor::new([1i32, 2], Device::cpu())?;
    fails! {
        Tensor::full([2], 300, DType::U8) => DType;
        Tensor::full([2], 1i64 << 40, DType::I32) => DType;
        Tensor::full([2], f64::NAN, DType::I64) => DType;
        Tensor::full([2], f64::INFINITY, DType::I32) => DType;
        bytes.fill_(300) => DType;
        ints.fill_(f64::NAN) => DType;
        bytes.clamp(None, -1) => DType;
        bytes.clamp(300, None) => DType;
        Tensor::randint(0, 300, [3], DType::U8) => DType;
        Tensor::randint(0, 5, [3], DType::Bool) => DType;
        Tensor::new([0.5f32, 2.0], Device::cpu())?.bernoulli() => Argument;
        Tensor::new([0.5f32, f32::NAN], Device::cpu())?.bernoulli() => Argument;
        "vulkan:+0".parse::<Device>() => Parse;
    }
    assert_eq!(bytes.to_vec::<u8>()?, [0, 1, 4]);
    assert_eq!(ints.to_vec::<i32>()?, [1, 2]);
    Ok(())
}

#[test]
fn steps_and_margins_as_long_as_numbers_go() -> Result<()> {
    let x = Tensor::ones([3, 5], Device::cpu())?.requires_grad_(true)?;
    for step in [usize::MAX, 1 << 63, 1 << 62] {
        x.zero_grad();
        x.slice(0, 1, None, step)?.sum()?.backward()?;
        x.unfold(1, 0, step)?.sum()?.backward()?;
        x.unfold(1, 2, step)?.sum()?.backward()?;
        let truth = [1., 1., 0., 0., 0., 2., 2., 1., 1., 1., 1., 1., 0., 0., 0.];
        assert_eq!(x.grad().unwrap().to_vec::<f32>()?, truth);
        let y = Tensor::ones([3], Device::cpu())?;
        y.slice(0, 1, None, step)?.fill_(7.0)?;
        assert_eq!(y.to_vec::<f32>()?, [1.0, 7.0, 1.0]);
    }
    fails! {
        x.pad(&[(isize::MIN, isize::MAX)], 0.0) => SizeOverflow;
        x.pad(&[(isize::MAX, isize::MIN)], 0.0) => SizeOverflow;
        x.pad(&[(isize::MAX - 4, 0)], 0.0) => SizeOverflow;
    }
    Ok(())
}

#[test]
fn more_than_any_memory_holds() -> Result<()> {
    for device in devices() {
        fails! {
            Tensor::zeros([1i64 << 40], &device)?.to_vec::<f32>() => OutOfMemory;
            Tensor::ones([1], &device)?.expand([1i64 << 40])?.to_vec::<f32>() => OutOfMemory;
            Tensor::eye(1 << 20, 1 << 20, &device)?.sum_dim(0, false)?.add(Tensor::eye(1 << 20, 1 << 20, &device)?)?.eval() => OutOfMemory;
            Tensor::ones([1 << 24, 1], &device)?.matmul(&Tensor::ones([1, 1 << 18], &device)?)?.eval() => OutOfMemory;
            Tensor::randperm(1 << 50, &device) => OutOfMemory;
            Tensor::ones([1], &device)?.expand([1i64 << 40])?.unbind(0) => Argument;
            Tensor::ones([1], &device)?.expand([1i64 << 40])?.split(1, 0) => Argument;
        }
        assert_eq!(Tensor::ones([2], &device)?.sum()?.item::<f32>()?, 2.0);
    }
    Ok(())
}

#[test]
fn a_bad_index_is_an_error_of_the_operation_that_was_called() -> Result<()> {
    for device in devices() {
        let table = Tensor::ones([3, 4], &device)?;
        let index = |values: &[i64]| Tensor::from_slice(values, [values.len()], &device);
        let name = |result: Result<Tensor>| match result
            .and_then(|x| x.to_device(&Device::cpu()))
            .and_then(|x| x.eval())
        {
            Err(wgrad::Error::Index { op, .. }) => op,
            other => panic!("{device}: {other:?}"),
        };
        assert_eq!(name(index(&[0, 7])?.embedding(&table, None)), "embedding");
        assert_eq!(name(table.nll_loss(&index(&[0, 4, 1])?)), "nll_loss");
        assert_eq!(name(index(&[0, -1])?.one_hot(3)), "one_hot");
        let places = Tensor::new([[0i64, 9]], &device)?;
        assert_eq!(name(table.scatter_add(0, &places, &Tensor::ones([1, 2], &device)?)), "scatter_add");
    }
    Ok(())
}
