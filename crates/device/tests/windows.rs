//! Tests of products whose factors' rows and columns are composed of several dims, as those of windows are,
//! on the CPU and on every adapter against the reference interpreter.
#![cfg(feature = "gpu")]

mod common;
mod gpu_common;

use gpu_common::{
    Random, check, devices, difference, dtypes, hardware, lowered, run, scaled_with_bias, smallest,
};
use smallvec::smallvec;
use wgrad_device::kernel::{Access, Instr, Kernel, Loop, Matmul, Parts, Store, Ty};
use wgrad_device::layout::{Dims, Strides, contiguous_strides};
use wgrad_device::{DType, Device, DeviceOptions, Error, Scalar};

/// A factor in a buffer of its own: the sizes and strides of the batch dims, and of the dims that the rows
/// and the columns are composed of.
struct Factor {
    sizes: [Vec<usize>; 3],
    strides: [Vec<isize>; 3],
    elements: usize,
}

impl Factor {
    /// A contiguous factor.
    fn dense(batch: &[usize], rows: &[usize], columns: &[usize]) -> Factor {
        let all = [batch, rows, columns].concat();
        let strides = contiguous_strides(&all);
        let (b, r) = (batch.len(), batch.len() + rows.len());
        Factor {
            sizes: [batch.to_vec(), rows.to_vec(), columns.to_vec()],
            strides: [strides[..b].to_vec(), strides[b..r].to_vec(), strides[r..].to_vec()],
            elements: all.iter().product(),
        }
    }

    fn transposed(mut self) -> Factor {
        self.sizes.swap(1, 2);
        self.strides.swap(1, 2);
        self
    }

    /// The rows and columns as products take them: a single dim has no parts, and strides of dims of size 1
    /// are 0.
    fn access(&self, buffer: usize, dtype: DType, offset: usize) -> (Access, Parts) {
        let dims = self.sizes.iter().flatten().zip(self.strides.iter().flatten());
        let strides: Strides = dims.map(|(&size, &stride)| if size == 1 { 0 } else { stride }).collect();
        let parts = |sizes: &[usize]| -> Dims { if sizes.len() == 1 { smallvec![] } else { sizes.into() } };
        let parts = Parts { rows: parts(&self.sizes[1]), columns: parts(&self.sizes[2]) };
        (Access::new(buffer, dtype, &strides, offset as isize), parts)
    }

    fn size(&self, of: usize) -> usize {
        self.sizes[of].iter().product()
    }
}

/// Windows of images: batch `[n, groups]`, rows (channel, y, x in the window), columns (y, x of the window).
fn windows(random: &mut Random, n: usize, groups: usize, whole_batch: bool) -> Factor {
    let channels = 1 + random.below(4);
    let (mut counts, mut window, mut steps, mut within, mut sizes) = ([0; 2], [0; 2], [0; 2], [0; 2], [0; 2]);
    for d in 0..2 {
        (counts[d], window[d]) = (1 + random.below(9), 1 + random.below(4));
        (steps[d], within[d]) = (1 + random.below(3), 1 + random.below(2));
        sizes[d] = (counts[d] - 1) * steps[d] + (window[d] - 1) * within[d] + 1 + random.below(2);
    }
    let [plane, line] = [sizes[0] * sizes[1], sizes[1]].map(|s| s as isize);
    let image = (groups * channels) as isize * plane;
    let step = |d: usize, by: usize| by as isize * if d == 0 { line } else { 1 };
    let (mut batch, mut columns) = (vec![n, groups], counts.to_vec());
    let (mut batch_strides, mut column_strides) =
        (vec![image, channels as isize * plane], vec![step(0, steps[0]), step(1, steps[1])]);
    if whole_batch {
        // The dims that the gradient of a weight sums over.
        columns.insert(0, batch.remove(0));
        column_strides.insert(0, batch_strides.remove(0));
    }
    Factor {
        sizes: [batch, vec![channels, window[0], window[1]], columns],
        strides: [batch_strides, vec![plane, step(0, within[0]), step(1, within[1])], column_strides],
        elements: n * image as usize,
    }
}

/// The product `lhs @ rhs`, or `|lhs @ rhs * 2 + bias|`.
fn product(
    random: &mut Random,
    dtype: DType,
    lhs: &Factor,
    rhs: &Factor,
) -> (Kernel, Vec<Vec<u8>>, Vec<DType>) {
    let offset = random.below(2) * 4;
    let ((left, lhs_parts), (right, rhs_parts)) =
        (lhs.access(0, dtype, offset), rhs.access(1, dtype, offset));
    let (m, n, k) = (lhs.size(1), rhs.size(2), lhs.size(2));
    assert_eq!(k, rhs.size(1));
    let sizes: Dims = lhs.sizes[0].iter().copied().chain([m, n]).collect();
    let single = |mut strides: Strides| {
        sizes.iter().zip(&mut strides).filter(|(size, _)| **size == 1).for_each(|(_, stride)| *stride = 0);
        strides
    };
    let mut contents =
        vec![random.bytes(dtype, lhs.elements + offset), random.bytes(dtype, rhs.elements + offset)];
    let mut epilogue = Loop {
        sizes: sizes.clone(),
        inner: 0,
        accesses: vec![],
        ranges: vec![],
        body: vec![],
        stores: vec![],
    };
    epilogue.body.push(Instr::Accumulator);
    if random.chance(50) && Ty::of(dtype) != Ty::Bool {
        let mut along: Strides = smallvec![0; sizes.len()];
        along[sizes.len() - 2] = 1;
        contents.push(random.bytes(dtype, m));
        epilogue.accesses.push(Access::new(2, dtype, &single(along), 0));
        epilogue.body = scaled_with_bias(0, dtype).to_vec();
    }
    epilogue.accesses.push(Access::new(contents.len(), dtype, &single(contiguous_strides(&sizes)), 0));
    let value = epilogue.body.len() as u32 - 1;
    epilogue.stores.push(Store { access: epilogue.accesses.len() - 1, value });
    contents.push(vec![0; sizes.iter().product::<usize>() * dtype.size()]);
    let dtypes = vec![dtype; contents.len()];
    (Kernel::Matmul(Matmul { k, lhs: left, rhs: right, lhs_parts, rhs_parts, epilogue }), contents, dtypes)
}

/// A convolution, its gradient for the weight, and both with the factors swapped.
fn case(random: &mut Random, dtype: DType) -> (Kernel, Vec<Vec<u8>>, Vec<DType>) {
    let (n, groups, out) = (1 + random.below(3), 1 + random.below(2), 1 + random.below(40));
    let whole_batch = random.chance(50);
    let seen = windows(random, n, groups, whole_batch);
    let (rows, columns) = (seen.sizes[1].clone(), seen.sizes[2].clone());
    let (lhs, rhs) = if whole_batch {
        let mut gradient = Factor::dense(&[n, groups], &[out], &columns[1..]);
        // The batch becomes the outermost dim of the columns.
        let batch = (gradient.sizes[0].remove(0), gradient.strides[0].remove(0));
        gradient.sizes[2].insert(0, batch.0);
        gradient.strides[2].insert(0, batch.1);
        (gradient, seen.transposed())
    } else {
        let mut weight = Factor::dense(&[groups], &[out], &[rows.iter().product()]);
        weight.sizes[0].insert(0, n);
        weight.strides[0].insert(0, 0);
        (weight, seen)
    };
    if random.chance(50) {
        product(random, dtype, &lhs, &rhs)
    } else {
        product(random, dtype, &rhs.transposed(), &lhs.transposed())
    }
}

fn all_devices() -> Vec<Device> {
    let adapters = devices().into_iter().chain(lowered(&hardware())).chain(lowered(&smallest()));
    [Device::cpu()].into_iter().chain(adapters).collect()
}

#[test]
fn windows_are_multiplied_where_they_lie() {
    for device in all_devices() {
        let dtypes = dtypes(&device);
        let count = if device == Device::cpu() { 400 } else { 12 };
        for seed in 0..count {
            let random = &mut Random::new(seed);
            let dtype = if seed % 3 == 0 { DType::F32 } else { random.pick(&dtypes) };
            let (kernel, contents, dtypes) = case(random, dtype);
            check(&device, &kernel, &contents, &dtypes, &[Scalar::Float(2.0)], 1e-4);
        }
    }
}

#[test]
fn blocks_and_chunks_of_long_sums_meet() {
    // More elements than a block on the CPU and a chunk on a GPU have, in both directions.
    for device in all_devices() {
        let image = |channels: usize, height: isize, width: isize, kernel: usize| Factor {
            sizes: [
                vec![],
                vec![channels, kernel, kernel],
                vec![height as usize - kernel + 1, width as usize - kernel + 1],
            ],
            strides: [vec![], vec![height * width, width, 1], vec![width, 1]],
            elements: channels * (height * width) as usize,
        };
        for (seed, (channels, height, width, kernel)) in
            [(70, 12, 17, 3), (2, 60, 70, 2)].into_iter().enumerate()
        {
            let random = &mut Random::new(seed as u64);
            let seen = image(channels, height, width, kernel);
            let (k, n) = (seen.size(1), seen.size(2));
            let forward = product(random, DType::F32, &Factor::dense(&[], &[5], &[k]), &seen);
            let gradient = product(random, DType::F32, &Factor::dense(&[], &[3], &[n]), &seen.transposed());
            for (kernel, contents, dtypes) in [forward, gradient] {
                check(&device, &kernel, &contents, &dtypes, &[Scalar::Float(2.0)], 4e-4);
            }
        }
    }
}

#[test]
fn results_of_windows_are_cut_where_their_dims_are() {
    // The gradient of the weight of a 1-d convolution. The products of its chunks take more than a temporary
    // may have, so the columns, which are channels and places in a window, are cut.
    let (channels, window, places, out) = (7, 64, 1024, 300);
    let line = places + window - 1;
    let seen = Factor {
        sizes: [vec![], vec![channels, window], vec![places]],
        strides: [vec![], vec![line as isize, 1], vec![1]],
        elements: channels * line,
    };
    let gradient = Factor::dense(&[], &[out], &[places]);
    let (kernel, contents, dtypes) = product(&mut Random::new(3), DType::F32, &gradient, &seen.transposed());
    let expected =
        run(&Device::cpu(), &kernel, &contents, &[Scalar::Float(2.0)]).expect("a product on the CPU");
    let adapters = lowered(&DeviceOptions { max_binding_bytes: Some(1 << 20), ..hardware() });
    for device in adapters.into_iter().chain(lowered(&smallest())) {
        let found = run(&device, &kernel, &contents, &[Scalar::Float(2.0)]).expect("a product in parts");
        for (i, dtype) in dtypes.iter().enumerate() {
            assert_eq!(difference(&found[i], &expected[i], *dtype, 4e-4), None, "{device}: buffer {i}");
        }
    }
}

#[test]
fn parts_that_do_not_make_their_dims_are_refused() {
    let seen =
        Factor { sizes: [vec![], vec![2, 3], vec![4]], strides: [vec![], vec![6, 1], vec![1]], elements: 12 };
    let (kernel, _, _) = product(&mut Random::new(1), DType::F32, &Factor::dense(&[], &[5], &[6]), &seen);
    let Kernel::Matmul(fits) = kernel else { unreachable!() };
    let changed = |change: fn(&mut Matmul)| {
        let mut product = fits.clone();
        change(&mut product);
        product
    };
    let refused = [
        changed(|product| product.rhs_parts.rows[0] = 3),
        changed(|product| product.rhs_parts.rows = smallvec![2, usize::MAX]),
        changed(|product| product.rhs_parts.rows = smallvec![]),
        changed(|product| product.rhs_parts.columns = smallvec![2, 2]),
        changed(|product| product.lhs_parts.columns = smallvec![3, 3]),
        changed(|product| product.lhs.strides.truncate(1)),
        changed(|product| product.rhs.strides.clear()),
        changed(|product| product.rhs.dtype = DType::I32),
        changed(|product| product.k = 7),
    ];
    for device in all_devices() {
        device.executor().prepare(&Kernel::Matmul(fits.clone())).map(drop).expect("a product that fits");
        for product in &refused {
            let error = device.executor().prepare(&Kernel::Matmul(product.clone())).map(drop).unwrap_err();
            assert!(matches!(error, Error::Kernel { .. }), "{device}: {product:?}: {error}");
        }
    }
}
