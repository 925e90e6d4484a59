//! Reading between elements, and losses over alignments: derivatives against finite differences, values against definitions, calls
//! that must fail.

use wgrad::{DType, Device, GradOptions, GridPadding, GridSampling, Reduction, Result, Tensor, grad};
use wgrad::{gradcheck, gradgradcheck};

use super::finite_differences::{check, leaf};

const PADDINGS: [GridPadding; 3] = [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection];

#[test]
fn derivatives_of_grid_sample() {
    use GridSampling::{Bicubic, Bilinear, Nearest};
    for padding in PADDINGS {
        for align_corners in [true, false] {
            let sample =
                |mode| move |x: &[Tensor]| Ok(vec![x[0].grid_sample(&x[1], mode, padding, align_corners)?]);
            for mode in [Bilinear, Nearest, Bicubic] {
                let image = [leaf(&[2, 2, 3, 4], -2.0, 2.0, 1), leaf(&[2, 2, 3, 2], -1.6, 1.7, 2)];
                check("grid_sample", &sample(mode), &image);
            }
            for mode in [Bilinear, Nearest, Bicubic] {
                let volume = [leaf(&[1, 2, 2, 3, 2], -2.0, 2.0, 1), leaf(&[1, 1, 2, 2, 3], -1.6, 1.7, 2)];
                check("grid_sample of a volume", &sample(mode), &volume);
            }
        }
    }
}

/// A grid over the elements' own middles gives the image back, in every mode.
#[test]
fn an_image_at_its_own_places() -> Result<()> {
    let (height, width) = (3, 5);
    let image = leaf(&[1, 2, height, width], -2.0, 2.0, 1).detach();
    let line = |n: usize| Tensor::linspace(-1.0, 1.0, n, DType::F64);
    let grid = Tensor::meshgrid(&[&line(height)?, &line(width)?], false)?;
    let grid = Tensor::stack(&[&grid[1], &grid[0]], -1)?.unsqueeze(0)?;
    for mode in [GridSampling::Bilinear, GridSampling::Nearest, GridSampling::Bicubic] {
        for padding in PADDINGS {
            let same = image.grid_sample(&grid, mode, padding, true)?;
            assert!(same.sub(&image)?.abs()?.max()?.item::<f64>()? < 1e-12, "{mode:?} {padding:?}");
        }
    }
    Ok(())
}

#[test]
fn places_far_away() -> Result<()> {
    let image = Tensor::new([[[[1f32, 2.0], [3.0, 4.0]]]], Device::cpu())?;
    let at = |x: f32, mode, padding| {
        let grid = Tensor::new([[[[x, -1.0]]]], Device::cpu())?;
        image.grid_sample(&grid, mode, padding, true)?.item::<f32>()
    };
    for mode in [GridSampling::Bilinear, GridSampling::Nearest, GridSampling::Bicubic] {
        assert_eq!(at(9.0, mode, GridPadding::Zeros)?, 0.0);
        assert_eq!(at(1e30, mode, GridPadding::Zeros)?, 0.0);
        assert_eq!(at(9.0, mode, GridPadding::Border)?, 2.0);
        // Four widths on is the same place, two widths on the mirrored one.
        assert_eq!(at(-1.0 + 4.0, mode, GridPadding::Reflection)?, 1.0);
        assert_eq!(at(-1.0 + 2.0, mode, GridPadding::Reflection)?, 2.0);
    }
    for mode in [GridSampling::Bilinear, GridSampling::Bicubic] {
        assert!(PADDINGS.iter().all(|&padding| at(f32::NAN, mode, padding).unwrap().is_nan()));
    }
    assert_eq!(at(f32::NAN, GridSampling::Nearest, GridPadding::Zeros)?, 0.0);
    assert_eq!(at(f32::INFINITY, GridSampling::Nearest, GridPadding::Border)?, 2.0);
    Ok(())
}

/// The loss by its definition: the sum over all ways to fill the moments that spell the target.
fn by_enumeration(probabilities: &[Vec<f64>], target: &[usize], blank: usize) -> f64 {
    let (time, classes) = (probabilities.len(), probabilities.first().map_or(1, Vec::len));
    let mut total = 0.0;
    for number in 0..classes.pow(time as u32) {
        let way: Vec<usize> = (0..time).map(|t| number / classes.pow(t as u32) % classes).collect();
        let mut spelt = way.clone();
        spelt.dedup();
        spelt.retain(|&class| class != blank);
        if spelt == target {
            total += way.iter().zip(probabilities).map(|(&class, p)| p[class]).product::<f64>();
        }
    }
    -total.ln()
}

#[test]
fn ctc_sums_over_alignments() -> Result<()> {
    let (time, classes) = (5, 3);
    let targets: [&[i64]; 6] = [&[1], &[1, 2], &[1, 1], &[2, 1, 2], &[], &[1, 1, 1, 1]];
    let x = leaf(&[time, targets.len(), classes], -1.0, 1.0, 1).detach().log_softmax(-1)?;
    let input_lengths = [5usize, 4, 5, 3, 2, 5];
    let sizes: Vec<usize> = targets.iter().map(|target| target.len()).collect();
    let list = targets.concat();
    let list = Tensor::from_slice(&list, list.len(), &Device::cpu())?;
    let losses = x.ctc_loss(&list, input_lengths, &sizes, 0, Reduction::None, false)?.to_vec::<f64>()?;
    let p = x.exp()?.to_vec::<f64>()?;
    for (i, target) in targets.iter().enumerate() {
        let row = |t: usize| (0..classes).map(|c| p[(t * targets.len() + i) * classes + c]).collect();
        let rows: Vec<Vec<f64>> = (0..input_lengths[i]).map(row).collect();
        let target: Vec<usize> = target.iter().map(|&label| label as usize).collect();
        let expected = by_enumeration(&rows, &target, 0);
        let same = losses[i] == expected || (losses[i] - expected).abs() < 1e-10;
        assert!(same, "{} instead of {expected} for {target:?}", losses[i]);
    }
    // Four equal letters need seven moments.
    assert_eq!(losses[5], f64::INFINITY);
    Ok(())
}

#[test]
fn derivatives_of_ctc() {
    let targets = Tensor::new([[1i64, 2, 1], [3, 3, 0]], Device::cpu()).unwrap();
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        let loss = |x: &[Tensor]| {
            let x = x[0].log_softmax(-1)?;
            Ok(vec![x.ctc_loss(&targets, [6, 4], [3, 2], 0, reduction, true)?])
        };
        let x = [leaf(&[6, 2, 4], -1.0, 1.0, 1)];
        gradcheck(loss, &x).unwrap();
        gradgradcheck(loss, &x).unwrap();
    }
}

#[test]
fn targets_that_do_not_fit_their_time() -> Result<()> {
    let targets = Tensor::new([[1i64, 1], [1, 2]], Device::cpu())?;
    for zero_infinity in [false, true] {
        let x = leaf(&[3, 2, 3], -1.0, 1.0, 1).detach().log_softmax(-1)?.requires_grad_(true)?;
        let losses = x.ctc_loss(&targets, [2, 3], [2, 2], 0, Reduction::None, zero_infinity)?;
        let first = losses.to_vec::<f64>()?[0];
        assert_eq!(first, if zero_infinity { 0.0 } else { f64::INFINITY });
        let gradient = grad(&[&losses.sum()?], &[&x], GradOptions::new())?.remove(0).expect("it depends");
        let spoilt = gradient.select(1, 0)?.narrow(0, 0, 2)?;
        let expected = if zero_infinity { spoilt.eq(0.0)? } else { spoilt.isnan()? };
        assert!(expected.all()?.item::<bool>()?);
        // What is behind the sequence's end has none, and the other sequence is as if alone.
        assert_eq!(gradient.select(1, 0)?.select(0, 2)?.to_vec::<f64>()?, [0.0; 3]);
        assert!(gradient.select(1, 1)?.isfinite()?.all()?.item::<bool>()?);
    }
    Ok(())
}

#[test]
fn calls_that_do_not_fit() -> Result<()> {
    let cpu = Device::cpu();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, &cpu);
    let sample = |input: &[usize], grid: &[usize]| {
        zeros(input)?.grid_sample(&zeros(grid)?, GridSampling::Bilinear, GridPadding::Zeros, false)
    };
    fails! {
        sample(&[1, 1, 2, 2], &[1, 1, 1, 3]) => ShapeMismatch;
        sample(&[1, 1, 2, 2], &[2, 1, 1, 2]) => ShapeMismatch;
        sample(&[1, 2, 2], &[1, 1, 1, 2]) => ShapeMismatch;
        sample(&[1, 1, 2, 2], &[1, 1, 1, 1, 3]) => ShapeMismatch;
        sample(&[1, 1, 0, 2], &[1, 1, 1, 2]) => Shape;
        zeros(&[1, 1, 2, 2])?.grid_sample(
            &Tensor::zeros([1, 1, 1, 2], DType::F64)?, GridSampling::Nearest, GridPadding::Zeros, false
        ) => DType;
    }
    assert_eq!(sample(&[1, 0, 2, 2], &[1, 3, 1, 2])?.shape(), [1, 0, 3, 1]);
    assert_eq!(sample(&[1, 1, 2, 2], &[1, 0, 1, 2])?.shape(), [1, 1, 0, 1]);
    assert_eq!(sample(&[0, 1, 2, 2], &[0, 1, 1, 2])?.shape(), [0, 1, 1, 1]);

    let x = zeros(&[3, 2, 4])?;
    let labels = |data: &[i64]| Tensor::from_slice(data, [2, data.len() / 2], &cpu);
    let two = labels(&[1, 2, 3, 1])?;
    let loss = |targets: &Tensor, inputs: &[isize], sizes: &[isize], blank| {
        x.ctc_loss(targets, inputs, sizes, blank, Reduction::Sum, false)
    };
    fails! {
        loss(&two, &[3, 4], &[2, 2], 0) => Argument;
        loss(&two, &[3, -1], &[2, 2], 0) => Argument;
        loss(&two, &[3], &[2, 2], 0) => Argument;
        loss(&two, &[3, 3], &[2, 2, 2], 0) => Argument;
        loss(&two, &[3, 3], &[2, isize::MAX], 0) => Shape;
        loss(&two, &[3, 3], &[3, 2], 0) => Shape;
        loss(&two.flatten(0, -1)?, &[3, 3], &[1, 2], 0) => Shape;
        loss(&two, &[3, 3], &[2, 2], 4) => Index;
        loss(&labels(&[1, 4])?, &[3, 3], &[1, 1], 0) => Index;
        loss(&labels(&[1, -1])?, &[3, 3], &[1, 1], 0) => Index;
        loss(&two.to_dtype(DType::F32)?, &[3, 3], &[2, 2], 0) => DType;
        zeros(&[0, 2, 4])?.ctc_loss(&two, [0, 0], [2, 2], 0, Reduction::Sum, false) => Shape;
        zeros(&[4])?.ctc_loss(&two, 1, 1, 0, Reduction::Sum, false) => Shape;
    }
    // No time and nothing to spell is certain; no time for a letter is impossible.
    let losses = x.ctc_loss(&two, [0, 0], [0, 1], 0, Reduction::None, false)?;
    assert_eq!(losses.to_vec::<f32>()?, [0.0, f32::INFINITY]);
    Ok(())
}
