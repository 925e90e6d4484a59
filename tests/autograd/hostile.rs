//! Arguments that no program should give, and some that are only odd: a typed error or the right value, at once and in little memory, on
//! every device. Values are PyTorch's where nothing else is said.

use wgrad::{
    BatchNormOptions, ConvOptions, DType, Device, FftNorm, Index, Interpolation, PadMode, Padding,
    PoolOptions, QrMode, Reduction, Result, Scale, Tensor, Triangle,
};

use crate::support;

/// The most that any of these calls may use.
const MEMORY: u64 = 1 << 30;

/// Larger than any memory, and small enough to be counted in bytes.
const LARGE: usize = 1 << 40;

/// The largest power of two that is a stride.
const FAR: usize = 1 << 62;

fn devices() -> Vec<Device> {
    let devices = support::devices();
    devices.iter().for_each(|device| device.set_memory_limit(Some(MEMORY)));
    devices
}

fn on_each(test: impl Fn(&Device) -> Result<()>) -> Result<()> {
    devices().iter().try_for_each(test)
}

fn ones(shape: &[usize], device: &Device) -> Tensor {
    Tensor::ones(shape, device).unwrap()
}

/// 0, 1, … as f32 in a shape.
fn counted(shape: &[usize], device: &Device) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::arange(0, n as i64, 1, (DType::F32, device)).unwrap().reshape(shape).unwrap()
}

fn near(found: &Tensor, expected: &[f64]) {
    let found = found.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{found} {expected}");
    }
}

fn values(call: Result<Tensor>) -> Result<Vec<f32>> {
    call?.to_vec::<f32>()
}

#[test]
fn sizes_of_results_are_checked_before_anything_is_made() -> Result<()> {
    on_each(|device| {
        let (line, plane) = (ones(&[1, 1, 2], device), ones(&[1, 1, 2, 2], device));
        let size = |sizes: &[usize]| Scale::Size(sizes.to_vec());
        let factor = |factor: f64| Scale::Factor(vec![factor], false);
        let nearest = Interpolation::Nearest;
        fails! {
            line.interpolate(&factor(1e20), nearest, false) => SizeOverflow;
            line.interpolate(&factor(f64::INFINITY), Interpolation::Linear, false) => SizeOverflow;
            line.interpolate(&factor(f64::NAN), nearest, false) => Argument;
            line.interpolate(&factor(-1.0), nearest, false) => Argument;
            line.interpolate(&size(&[usize::MAX]), Interpolation::Area, false) => SizeOverflow;
            plane.interpolate(&size(&[LARGE, 1]), nearest, false) => SizeOverflow;
            plane.interpolate(&size(&[LARGE, 1]), Interpolation::Bicubic, true) => SizeOverflow;
            plane.interpolate(&size(&[usize::MAX]), nearest, false) => SizeOverflow;
            line.adaptive_avg_pool1d(1 << 31) => SizeOverflow;
            line.adaptive_avg_pool1d(usize::MAX) => SizeOverflow;
            plane.adaptive_avg_pool2d([Some(usize::MAX), None]) => SizeOverflow;
            plane.adaptive_max_pool2d([Some(1), Some(1 << 31)]) => SizeOverflow;
            plane.adaptive_max_pool2d([Some(usize::MAX), Some(usize::MAX)]) => SizeOverflow;
            line.pad_with(&[(1 << 40, 0)], PadMode::Replicate) => SizeOverflow;
            line.pad_with(&[(isize::MAX - 2, 0)], PadMode::Replicate) => SizeOverflow;
            line.pad_with(&[(isize::MAX, isize::MAX)], PadMode::Replicate) => Shape;
            line.pad_with(&[(isize::MIN, 1)], PadMode::Circular) => Shape;
            line.pad(&[(isize::MIN, isize::MAX)], 1.0) => SizeOverflow;
            line.repeat_interleave(usize::MAX, 0) => SizeOverflow;
            line.repeat([usize::MAX, 2, 2]) => SizeOverflow;
            line.tile([LARGE, LARGE]) => SizeOverflow;
            line.diag_embed(isize::MIN, 0, 1) => SizeOverflow;
            ones(&[1, 4, 0, 3], device).pixel_shuffle(1 << 40) => Shape;
            ones(&[1, 0, 3, 3], device).pixel_shuffle(1 << 40) => SizeOverflow;
            ones(&[1, 3, 0, 0], device).pixel_unshuffle(usize::MAX) => SizeOverflow;
            line.fft(LARGE, 1, FftNorm::Backward) => OutOfMemory;
            line.rfft(usize::MAX, -1, FftNorm::Backward) => Argument;
            line.irfft(1 << 62, 1, FftNorm::Backward) => SizeOverflow;
            Tensor::eye(usize::MAX, usize::MAX, device) => SizeOverflow;
            Tensor::arange(0, i64::MAX, 1, device) => SizeOverflow;
            Tensor::linspace(0.0, 1.0, usize::MAX, device) => SizeOverflow;
            Tensor::randperm(usize::MAX, device) => SizeOverflow;
            Tensor::randperm(1 << 40, device) => OutOfMemory;
            Tensor::zeros([0], device)?.chunk(1 << 30, 0) => Argument;
            ones(&[1], device).expand([1 << 30])?.unbind(0) => Argument;
        }
        let columns = ones(&[1, 4, 4], device);
        let fold = |output: usize, padding: usize| columns.col2im(&[output], &[2], &[1], &[padding], &[1]);
        fails! {
            fold(i32::MAX as usize, i32::MAX as usize) => Shape;
            columns.expand([1, 4, 1])  => Shape;
        }
        Ok(())
    })
}

#[test]
fn what_no_memory_holds_is_an_error_where_it_is_read() -> Result<()> {
    on_each(|device| {
        let one = ones(&[1], device);
        let wide = one.expand([LARGE])?;
        let place = Tensor::new([0i64], device)?;
        let counts = Tensor::new([LARGE as i64], device)?;
        fails! {
            wide.to_vec::<f32>() => OutOfMemory;
            wide.bernoulli() => SizeOverflow;
            wide.dropout(0.5, true) => SizeOverflow;
            wide.nonzero() => OutOfMemory;
            wide.unique() => SizeOverflow;
            wide.sort(0, true)?.0.to_vec::<f32>() => OutOfMemory;
            wide.cumsum(0)?.to_vec::<f32>() => OutOfMemory;
            wide.masked_select(&wide.gt(0.0)?) => OutOfMemory;
            values(one.repeat_interleave_each(&counts, 0)) => OutOfMemory;
            values(one.repeat_interleave(LARGE, 0)) => OutOfMemory;
            place.one_hot(LARGE)?.to_vec::<i64>() => OutOfMemory;
            place.bincount(LARGE)?.to_vec::<i64>() => OutOfMemory;
            Tensor::new([i64::MAX], device)?.bincount(0) => SizeOverflow;
            Tensor::new([i64::MAX], device)?.one_hot(None) => SizeOverflow;
            one.repeat_interleave_each(&Tensor::new([i64::MAX], device)?, 0) => SizeOverflow;
            one.repeat_interleave_each(&Tensor::new([-1i64], device)?, 0) => Argument;
            values(one.pad(&[(0, LARGE as isize)], 1.0)) => OutOfMemory;
            values(one.reshape([1, 1])?.matmul(&wide.unsqueeze(0)?)) => OutOfMemory;
        }
        // The device is as it was.
        assert_eq!(one.add(1.0)?.to_vec::<f32>()?, [2.0]);
        Ok(())
    })
}

#[test]
fn at_most_64_dims() -> Result<()> {
    on_each(|device| {
        let many = [1usize; 65];
        let most = ones(&many[..64], device);
        let list = Tensor::new([1f32], device)?;
        let lists = vec![&list; 65];
        fails! {
            Tensor::zeros(many, device) => Shape;
            Tensor::rand(many, device) => Shape;
            Tensor::from_slice(&[1f32], many, device) => Shape;
            Tensor::ones(vec![1usize; 1000], device) => Shape;
            most.unsqueeze(0) => Shape;
            most.reshape(many) => Shape;
            most.view(many) => Shape;
            most.expand(many) => Shape;
            most.broadcast_to(many) => Shape;
            most.repeat(many) => Shape;
            most.tile(many) => Shape;
            most.unflatten(0, [1, 1]) => Shape;
            most.unfold(0, 1, 1) => Shape;
            most.diag_embed(0, -2, -1) => Shape;
            most.as_strided(many, &[0; 65], 0) => Shape;
            most.get(&[Index::NewAxis]) => Shape;
            most.to_dtype(DType::I64)?.one_hot(1) => Shape;
            most.rfft(1, 0, FftNorm::Backward) => Shape;
            Tensor::stack(&[&most, &most], 0) => Shape;
            Tensor::meshgrid(&lists, false) => Shape;
            Tensor::einsum("...a,...b->...ab", &[&most, &most]) => Shape;
            most.tensordot(&most, 0) => Shape;
            most.to_dtype(DType::I64)?.embedding(&ones(&[2, 1], device), None) => Shape;
        }
        // With 64 all of them work.
        let x = most.requires_grad_(true)?;
        let y = x.add(1.0)?.repeat_interleave(2, 63)?.roll(1, 63)?.repeat([2; 64].map(|n| n % 2 + 1))?;
        let y = y.transpose(0, 63)?.flip([0, 63])?.slice(0, None, None, 2)?.sum_dim([1, 5], true)?;
        assert_eq!(y.rank(), 64);
        y.sum()?.backward()?;
        assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [1.0]);
        let found = x.detach().nonzero()?;
        assert_eq!((found.shape(), found.to_vec::<i64>()?), (&[1, 64][..], vec![0; 64]));
        let doubled = Tensor::new([3f32, 4.0], device)?
            .reshape([&[2], &many[..63]].concat())?
            .repeat([&[2isize; 1][..], &[1; 62], &[2]].concat())?;
        assert_eq!(doubled.to_vec::<f32>()?, [3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 4.0, 4.0]);
        Ok(())
    })
}

#[test]
fn error_texts_are_short() {
    let wide = ones(&[1; 64], &Device::cpu());
    let long: Vec<isize> = vec![isize::MAX; 5000];
    let errors = [
        wide.expand(&long).unwrap_err(),
        wide.reshape(&long).unwrap_err(),
        wide.sum_dim(vec![7isize; 5000], false).unwrap_err(),
        wide.roll(&long, &long[1..]).unwrap_err(),
        wide.split_with_sizes(&vec![3; 5000], 0).unwrap_err(),
        wide.add(
            Tensor::ones([2, 3], Device::cpu()).unwrap().expand([&[1; 62][..], &[2, 3]].concat()).unwrap(),
        )
        .and_then(|x| x.add(Tensor::ones([5; 20], DType::F32)?))
        .unwrap_err(),
        "x".repeat(5000).parse::<Device>().unwrap_err(),
        Tensor::einsum(&"i".repeat(5000), &[&wide]).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(text.chars().count() < 500 && text.chars().count() > 20, "{text}");
    }
}

#[test]
fn without_elements_sizes_may_be_any() -> Result<()> {
    on_each(|device| {
        let x = Tensor::zeros([0, FAR], device)?;
        assert_eq!((x.numel(), x.stride()), (0, vec![FAR as isize, 1]));
        assert_eq!(x.add(&x)?.to_vec::<f32>()?, []);
        assert_eq!(x.t()?.shape(), [FAR, 0]);
        assert_eq!(x.reshape([FAR, 0])?.stride(), [1, 1]);
        assert_eq!(x.sum()?.item::<f32>()?, 0.0);
        assert_eq!(x.slice(1, 5, None, 1 << 61)?.shape(), [0, 2]);
        assert_eq!(Tensor::cat(&[&x, &x], 0)?.shape(), [0, FAR]);
        let y = Tensor::zeros([1, FAR, 0], device)?;
        assert_eq!(y.slice(0, None, None, usize::MAX)?.to_vec::<f32>()?, []);
        assert_eq!(y.select(1, FAR as isize - 1)?.shape(), [1, 0]);
        assert_eq!(Tensor::eye(LARGE, 0, device)?.shape(), [LARGE, 0]);
        assert_eq!(
            Tensor::zeros([0, 3], device)?.as_strided([0, 3], &[isize::MAX, 1], usize::MAX)?.numel(),
            0
        );
        let leaf = Tensor::zeros([0, FAR], device)?.requires_grad_(true)?;
        leaf.t()?.flip(0)?.repeat([1, 3])?.sum()?.backward()?;
        assert_eq!(leaf.grad().unwrap().shape(), [0, FAR]);
        fails! {
            x.sum_dim(0, false) => SizeOverflow;
            x.softmax(0)?.sum_dim(0, true) => SizeOverflow;
            Tensor::zeros([0, FAR, 4], device) => SizeOverflow;
            x.reshape([FAR, 4, 0]) => SizeOverflow;
            x.unsqueeze(-1)?.expand([0, FAR, 8]) => SizeOverflow;
            x.t()?.matmul(&x) => SizeOverflow;
            x.pad(&[(0, 0), (LARGE as isize, 0)], 0.0) => SizeOverflow;
            x.amax(0, false) => EmptyReduction;
        }
        Ok(())
    })
}

#[test]
fn linear_algebra_counts_its_memory() -> Result<()> {
    on_each(|device| {
        let tall = Tensor::zeros([1 << 20, 0], device)?;
        let batch = Tensor::zeros([LARGE, 0, 0], device)?;
        let x = ones(&[1, 1], device).expand([1 << 13, 1 << 13])?;
        fails! {
            tall.qr(QrMode::Complete) => OutOfMemory;
            tall.svd(true) => OutOfMemory;
            batch.det() => OutOfMemory;
            x.inv() => OutOfMemory;
            x.svd(false) => OutOfMemory;
            x.eigh(Triangle::Lower) => OutOfMemory;
            x.qr(QrMode::Reduced) => OutOfMemory;
        }
        assert_eq!(batch.inv()?.shape(), batch.shape());
        assert_eq!(batch.cholesky(Triangle::Lower)?.shape(), batch.shape());
        assert_eq!(batch.qr(QrMode::Reduced)?.0.shape(), batch.shape());
        Ok(())
    })
}

#[test]
fn norms_without_channels() -> Result<()> {
    on_each(|device| {
        let line = ones(&[3], device);
        let options = BatchNormOptions {
            running_mean: Some(Tensor::zeros([3], device)?),
            running_var: Some(line.clone()),
            ..BatchNormOptions::default()
        };
        fails! {
            line.instance_norm(true, &options) => Shape;
            line.instance_norm(false, &options) => Shape;
            line.batch_norm(true, &options) => Shape;
            ones(&[], device).instance_norm(true, &options) => Shape;
            line.group_norm(1, &line, &line, 1e-5) => Shape;
        }
        near(&ones(&[2, 3], device).instance_norm(false, &options)?, &[0.999_995; 6]);
        // Zeros beyond the channels count, and are not made.
        let x = ones(&[1, 3, 2], device);
        near(&x.local_response_norm(1001, 1.0, 0.5, 1.0)?, &[0.998_504_877; 6]);
        near(&x.local_response_norm(usize::MAX, 1.0, 0.5, 1.0)?, &[1.0; 6]);
        Ok(())
    })
}

#[test]
fn numbers_at_the_ends_of_their_range() -> Result<()> {
    on_each(|device| {
        let x = counted(&[3], device);
        assert_eq!(values(x.roll(isize::MIN, 0))?, values(x.roll(isize::MIN % 3, 0))?);
        assert_eq!(values(x.roll(isize::MAX, 0))?, values(x.roll(isize::MAX % 3, 0))?);
        assert_eq!(
            values(x.round_decimals(i32::MAX).and_then(|x| x.isnan()?.to_dtype(DType::F32)))?.len(),
            3
        );
        assert_eq!(values(x.round_decimals(i32::MIN)?.isnan()?.to_dtype(DType::F32))?.len(), 3);
        assert_eq!(values(x.reshape([1, 3])?.rot90(isize::MIN, [0, 1]))?, [0.0, 1.0, 2.0]);
        assert_eq!(values(x.reshape([1, 3])?.tril(i64::MIN))?, [0.0; 3]);
        assert_eq!(values(x.reshape([1, 3])?.triu(i64::MIN))?, [0.0, 1.0, 2.0]);
        assert_eq!(x.reshape([1, 3])?.diagonal(isize::MIN, 0, 1)?.shape(), [0]);
        assert_eq!(values(x.slice(0, isize::MIN, isize::MAX, usize::MAX))?, [0.0]);
        assert_eq!(x.unfold(0, 2, usize::MAX)?.shape(), [1, 2]);
        let channels = ones(&[1, 0, 3], device);
        let weight = ones(&[0, 2, 1], device);
        let options = ConvOptions { groups: usize::MAX, ..ConvOptions::default() };
        fails! {
            channels.conv_transpose1d(&weight, None, &options) => SizeOverflow;
            x.polygamma(usize::MAX) => Argument;
            x.narrow(0, isize::MIN, usize::MAX) => Index;
            x.as_strided([2], &[isize::MAX], usize::MAX) => Shape;
            x.topk(usize::MAX, 0, true) => Argument;
            x.kthvalue(usize::MAX, 0, false) => Argument;
            x.tensordot(&x, usize::MAX) => ShapeMismatch;
            x.flatten(isize::MIN, isize::MAX) => Dim;
            x.movedim(isize::MAX, isize::MIN) => Dim;
            Tensor::randint(i64::MIN, i64::MAX, 3, device) => Argument;
        }
        let mut wide = PoolOptions::new(&[i32::MAX as usize]);
        wide.padding = vec![usize::MAX];
        let mut strict =
            ConvOptions { padding: Padding::Explicit(vec![i32::MAX as usize]), ..Default::default() };
        strict.stride = vec![usize::MAX];
        let signal = ones(&[1, 1, 3], device);
        fails! {
            signal.avg_pool1d(&wide) => Argument;
            signal.max_pool1d(&PoolOptions::new(&[usize::MAX])) => Argument;
            signal.conv1d(&signal, None, &strict) => Argument;
            signal.ctc_loss(&Tensor::new([1i64], device)?, isize::MAX, 1, 0, Reduction::Sum, false) => Argument;
            signal.log()?.ctc_loss(&Tensor::new([1i64], device)?, 1, isize::MAX, 0, Reduction::Sum, false) => Shape;
        }
        Ok(())
    })
}

#[test]
fn high_orders_of_polygamma() -> Result<()> {
    let infinite = f64::INFINITY;
    on_each(|device| {
        // Values from mpmath at 40 digits. The error of a power grows with the order.
        let check = |n: usize, points: &[f64], expected: &[f64]| -> Result<()> {
            for (dtype, digits) in [(DType::F32, 3e-7), (DType::F64, 1e-15)] {
                if !device.supports(dtype) {
                    continue;
                }
                let x = Tensor::from_slice(points, points.len(), &Device::cpu())?.to((dtype, device))?;
                let found =
                    x.polygamma(n)?.to_device(&Device::cpu())?.to_dtype(DType::F64)?.to_vec::<f64>()?;
                for ((point, found), &expected) in points.iter().zip(found).zip(expected) {
                    let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
                    let smallest = if dtype == DType::F32 { 1e-37 } else { 1e-307 };
                    let right = if expected.abs() > largest {
                        found == expected.signum() * infinite
                    } else if expected.abs() < smallest {
                        found.abs() <= smallest
                    } else {
                        (found / expected - 1.0).abs() < digits * (n as f64 + 10.0)
                    };
                    assert!(right, "{device}: polygamma({n}, {point}) of {dtype} is {found}, not {expected}");
                }
            }
            Ok(())
        };
        let points = [0.5, 1.0, 2.0, 30.0, 300.0, 2000.0, -0.25, -7.75, 1e5];
        check(
            12,
            &points,
            &[
                -3923983571677.609,
                -479060379.8898315,
                -58_779.889_831_452_43,
                -9.121_334_210_785_209e-11,
                -7.662_356_034_967_594e-23,
                -9.774_580_109_737_911e-33,
                32145233067527970.956,
                -32145233093874118.337,
                -3.991_919_505_989_184e-53,
            ],
        )?;
        check(
            100,
            &points,
            &[
                -2.366_100_660_490_897e188,
                -9.332_621_544_394_415e157,
                -3.681070139798048e127,
                -626_546_063.668_613_2,
                -2.1295392226500304e-92,
                -7.547742835794973e-175,
                5.998777844943392e218,
                -5.998777844943392e218,
                0.0,
            ],
        )?;
        check(
            171,
            &points,
            &[
                infinite,
                infinite,
                2.073_093_314_165_313e257,
                1.0726779424532681e55,
                2.460_416_683_664_153e-117,
                2.5298107391549423e-258,
                infinite,
                infinite,
                0.0,
            ],
        )?;
        check(1000, &points[..5], &[-infinite, -infinite, -infinite, -infinite, -1.0521717652801775e88])?;
        let x = Tensor::new([0.5f32, 0.0, 1e6], device)?.requires_grad_(true)?;
        let y = x.polygamma(65536)?;
        assert_eq!(y.to_vec::<f32>()?, [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0]);
        y.select(0, 2)?.backward()?;
        assert_eq!(x.grad().unwrap().select(0, 2)?.item::<f32>()?, 0.0);
        Ok(())
    })
}

#[test]
fn odd_calls_have_pytorchs_values() -> Result<()> {
    on_each(|device| {
        let zero = Tensor::zeros((), (DType::I64, device))?;
        let number = Tensor::full((), 7.0, device)?.requires_grad_(true)?;
        let taken = number.take_along_dim(&zero, 0)?;
        assert_eq!((taken.shape(), taken.item::<f32>()?), (&[][..], 7.0));
        taken.backward()?;
        assert_eq!(number.grad().unwrap().item::<f32>()?, 1.0);
        assert_eq!(number.detach().take_along_dim(&zero, None)?.shape(), [1]);
        assert_eq!(values(counted(&[3], device).take_along_dim(&zero, None))?, [0.0]);

        let x = counted(&[1, 1, 7], device).add(1.0)?;
        let size = |n: usize| Scale::Size(vec![n]);
        let linear = Interpolation::Linear;
        near(
            &x.interpolate(&size(10), linear, false)?,
            &[1.0, 1.55, 2.25, 2.95, 3.65, 4.35, 5.05, 5.75, 6.45, 7.0],
        );
        let third = |i: usize| 1.0 + 2.0 * i as f64 / 3.0;
        near(&x.interpolate(&size(10), linear, true)?, &(0..10).map(third).collect::<Vec<_>>());
        near(&x.interpolate(&size(1), linear, true)?, &[1.0]);
        near(
            &x.interpolate(&Scale::Factor(vec![0.45], false), linear, false)?,
            &[1.611_111_16, 3.833_333_49, 6.055_555_82],
        );
        assert_eq!(
            values(x.interpolate(&size(10), Interpolation::Nearest, false))?,
            [1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0, 6.0, 7.0]
        );
        assert_eq!(
            values(x.interpolate(&size(10), Interpolation::NearestExact, false))?,
            [1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0, 6.0, 7.0]
        );
        near(&x.adaptive_avg_pool1d(5)?, &[1.5, 2.5, 4.0, 5.5, 6.5]);
        near(&x.adaptive_avg_pool1d(9)?, &[1.0, 1.5, 2.5, 3.5, 4.0, 4.5, 5.5, 6.5, 7.0]);
        assert_eq!(x.adaptive_avg_pool1d(0)?.shape(), [1, 1, 0]);
        let plane = counted(&[1, 3, 4], device);
        let bicubic =
            plane.unsqueeze(0)?.interpolate(&Scale::Size(vec![4, 6]), Interpolation::Bicubic, false)?;
        near(
            &bicubic.flatten(0, -1)?.narrow(0, 0, 8)?,
            &[
                -0.373_915_016,
                0.119_140_625,
                0.925_853_312,
                1.499_927_76,
                2.306_640_63,
                2.799_696_21,
                2.032_335_52,
                2.525_390_63,
            ],
        );
        let (largest, places) = plane.adaptive_max_pool2d([Some(5), Some(3)])?;
        assert_eq!(places.to_vec::<i64>()?[..12], [1, 2, 3, 5, 6, 7, 5, 6, 7, 9, 10, 11]);
        assert_eq!(largest.to_vec::<f32>()?[..3], [1.0, 2.0, 3.0]);
        let mut pool = PoolOptions::new(&[2]);
        (pool.padding, pool.ceil_mode) = (vec![1], true);
        near(&plane.avg_pool2d(&pool)?, &[0.0, 0.75, 0.75, 3.0, 7.5, 4.5]);
        pool.count_include_pad = false;
        near(&plane.avg_pool2d(&pool)?, &[0.0, 1.5, 3.0, 6.0, 7.5, 9.0]);

        let list = Tensor::new([5f32, 6.0, 7.0], device)?;
        let each = |counts: &[i64]| {
            list.repeat_interleave_each(&Tensor::from_slice(counts, counts.len(), device)?, 0)
        };
        assert_eq!(values(each(&[2, 0, 3]))?, [5.0, 5.0, 7.0, 7.0, 7.0]);
        assert_eq!(values(each(&[2]))?, [5.0, 5.0, 6.0, 6.0, 7.0, 7.0]);
        assert_eq!(values(each(&[0, 0, 0]))?, []);
        let pad = |margins: (isize, isize), mode: PadMode| values(x.pad_with(&[margins], mode));
        assert_eq!(pad((3, -2), PadMode::Circular)?, [3.0, 4.0, 5.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(
            pad((3, 4), PadMode::Reflect)?,
            [4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 6.0, 5.0, 4.0, 3.0]
        );
        assert_eq!(pad((-3, 4), PadMode::Replicate)?, [4.0, 5.0, 6.0, 7.0, 7.0, 7.0, 7.0, 7.0]);
        let columns = counted(&[1, 4, 3], device).add(1.0)?.narrow(2, 0, 2)?;
        near(&columns.col2im(&[2, 3], &[2], &[1], &[0], &[1])?, &[1.0, 6.0, 5.0, 7.0, 18.0, 11.0]);
        Ok(())
    })
}
