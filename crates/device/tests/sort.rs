//! Tests of sorts on the CPU and on every adapter against the reference interpreter and, for long rows,
//! against the definition.

mod common;
mod gpu_common;

use std::cmp::Ordering;

use common::compare::assert_agrees;
use common::random::{Rng, layout};
use gpu_common::{devices, dtypes, hardware, lowered, run, smallest};
use wgrad_device::kernel::{Access, Kernel, Sort};
use wgrad_device::{DType, Device, DeviceOptions, Error};

/// Elements of which many are equal, with the special values of the dtype.
fn elements(rng: &mut Rng, dtype: DType, n: usize) -> Vec<u8> {
    fn pick<T: Copy, const N: usize>(
        rng: &mut Rng,
        special: &[T],
        common: T,
        bytes: fn(T) -> [u8; N],
    ) -> [u8; N] {
        bytes(if rng.chance(3) { rng.pick(special) } else { common })
    }
    let one = |_| {
        let small = rng.below(7) as i64 - 3;
        let random = rng.next();
        match dtype {
            DType::Bool => vec![u8::from(small > 0)],
            DType::U8 => vec![if rng.chance(2) { random as u8 } else { 7 }],
            DType::I32 => {
                let special = [i32::MIN, i32::MAX, -1, 0, random as i32, (random << 8) as i32];
                pick(rng, &special, small as i32, i32::to_le_bytes).to_vec()
            }
            DType::I64 => {
                let special = [
                    i64::MIN,
                    i64::MAX,
                    -1,
                    0,
                    1 << 32,
                    (1 << 32) + 1,
                    -1 << 32,
                    random as i64,
                    -(random as i64),
                ];
                pick(rng, &special, small, i64::to_le_bytes).to_vec()
            }
            DType::F64 => {
                let special =
                    [f64::NAN, -f64::NAN, -0.0, 0.0, f64::INFINITY, -f64::INFINITY, 5e-324, -5e-324];
                pick(rng, &special, small as f64 * 1.1, f64::to_le_bytes).to_vec()
            }
            DType::F32 => {
                let special = [
                    f32::NAN,
                    -f32::NAN,
                    f32::from_bits(0x7f80_0001),
                    -0.0,
                    0.0,
                    f32::INFINITY,
                    -f32::INFINITY,
                    1e-45,
                    -1e-45,
                    f32::MAX,
                ];
                pick(rng, &special, small as f32 * 1.1, f32::to_le_bytes).to_vec()
            }
            DType::F16 | DType::BF16 => {
                let infinity = if dtype == DType::F16 { 0x7c00u16 } else { 0x7f80 };
                let special = [
                    infinity,
                    infinity | 0x8000,
                    infinity + 1,
                    infinity | 0x8001,
                    0,
                    0x8000,
                    1,
                    0x8001,
                    random as u16,
                ];
                pick(rng, &special, 0x3c00u16.wrapping_add_signed(small as i16), u16::to_le_bytes).to_vec()
            }
        }
    };
    (0..n).flat_map(one).collect()
}

/// Compares a sort of rows in any layout with the reference.
fn check(device: &Device, seed: u64, dtype: DType, sizes: &[usize]) {
    let rng = &mut Rng::new(seed);
    let length = *sizes.last().unwrap();
    let (first, count) = match rng.below(3) {
        0 => (0, length),
        1 => (0, rng.below(length + 1)),
        _ => {
            let first = rng.below(length + 1);
            (first, rng.below(length - first + 1))
        }
    };
    let expand: Vec<bool> = sizes.iter().map(|_| rng.chance(6)).collect();
    let none = vec![false; sizes.len()];
    let plain = rng.chance(2);
    let (strides, offset, span) = layout(rng, sizes, &expand, plain);
    let mut target_sizes = sizes.to_vec();
    *target_sizes.last_mut().unwrap() = count;
    let (to, to_offset, to_span) = layout(rng, &target_sizes, &none, seed.is_multiple_of(3));
    let kernel = Kernel::Sort(Sort {
        descending: rng.chance(2),
        sizes: sizes.into(),
        source: Access::new(0, dtype, &strides, offset),
        target: Access::new(1, DType::I64, &to, to_offset),
        first,
        count,
    });
    let buffers = [elements(rng, dtype, span), vec![0; to_span * 8]];
    assert_agrees(device.executor(), &kernel, &buffers, &[dtype, DType::I64], &[], 0.0);
}

#[test]
fn small_rows_of_all_dtypes_and_layouts() {
    let sizes: [&[usize]; 14] = [
        &[1],
        &[2],
        &[17],
        &[100],
        &[0],
        &[3, 0],
        &[0, 3],
        &[5, 1],
        &[1, 9],
        &[40, 6],
        &[3, 2, 20],
        &[2, 3, 4, 5],
        &[70, 33],
        &[2, 257],
    ];
    for device in [Device::cpu()].into_iter().chain(devices()).chain(lowered(&hardware())) {
        let rounds = if device.name() == "cpu" { 20 } else { 2 };
        for (i, dtype) in dtypes(&device).into_iter().enumerate() {
            for seed in 0..rounds * sizes.len() {
                check(&device, (seed * 8 + i) as u64, dtype, sizes[seed % sizes.len()]);
            }
        }
    }
}

#[test]
fn rows_of_several_blocks() {
    for device in [Device::cpu()].into_iter().chain(devices()).chain(lowered(&hardware())) {
        for (i, dtype) in dtypes(&device).into_iter().enumerate() {
            for (j, sizes) in [&[1300][..], &[3, 700], &[70, 300]].into_iter().enumerate() {
                check(&device, (1000 + i * 10 + j) as u64, dtype, sizes);
            }
        }
    }
}

/// Compares a sort of contiguous rows of small integers with the definition of their order.
fn check_contiguous(device: &Device, rows: usize, length: usize, descending: bool, along_rows: bool) {
    let rng = &mut Rng::new((rows * 31 + length) as u64);
    let values: Vec<i32> = (0..rows * length).map(|_| rng.below(length * 2) as i32 - length as i32).collect();
    let strides = if along_rows { [length as isize, 1] } else { [1, rows as isize] };
    let kernel = Kernel::Sort(Sort {
        descending,
        sizes: [rows, length].as_slice().into(),
        source: Access::new(0, DType::I32, &strides, 0),
        target: Access::new(1, DType::I64, &strides, 0),
        first: 0,
        count: length,
    });
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let found = run(device, &kernel, &[bytes, vec![0; rows * length * 8]], &[]).expect("a sort");
    let places: Vec<usize> = found[1]
        .chunks_exact(8)
        .map(|place| i64::from_le_bytes(place.try_into().unwrap()) as usize)
        .collect();
    for row in 0..rows {
        let at = |i: usize| row * strides[0] as usize + i * strides[1] as usize;
        let mut seen = vec![false; length];
        for i in 0..length {
            let place = places[at(i)];
            assert!(!std::mem::replace(&mut seen[place], true), "{device}: row {row}: {place} twice");
            if i > 0 {
                let before = places[at(i - 1)];
                let order = values[at(before)].cmp(&values[at(place)]);
                let order = if descending { order.reverse() } else { order };
                let fits = order == Ordering::Less || order == Ordering::Equal && before < place;
                assert!(fits, "{device}: row {row}: {before} before {place}");
            }
        }
    }
}

#[test]
fn long_rows_and_many_rows() {
    for device in [Device::cpu()].into_iter().chain(devices()) {
        check_contiguous(&device, 1, 300_000, false, true);
        check_contiguous(&device, 1, 70_000, true, true);
        check_contiguous(&device, 3, 40_000, true, false);
        check_contiguous(&device, 500, 300, false, false);
        // More rows than one dimension of a dispatch has workgroups.
        check_contiguous(&device, 70_000 * 4, 3, true, true);
        check_contiguous(&device, 70_000, 5, false, false);
    }
}

#[test]
fn rows_beyond_a_binding() {
    // 1 MiB can be bound, which is 262,144 keys or 131,072 places.
    for device in lowered(&smallest()) {
        check_contiguous(&device, 400, 1000, false, true);
        check_contiguous(&device, 1000, 400, true, false);
        check_contiguous(&device, 2, 200_000, true, true);
        check_contiguous(&device, 300_000, 2, false, true);
        for (i, dtype) in dtypes(&device).into_iter().enumerate() {
            check(&device, 77 + i as u64, dtype, &[3, 5, 300]);
        }
        // The keys of one row cannot be split, so the host sorts them.
        assert_eq!(device.stats().hosted, 0, "{device}");
        check_contiguous(&device, 1, 300_000, false, true);
        assert!(device.stats().hosted > 0, "{device}");
    }
}

#[test]
fn short_rows_that_reach_over_more_than_a_binding() {
    // Elements of neighbouring rows are contiguous. The places of one row span more than 1 MiB if all are
    // wanted, but not if ten are.
    let (rows, length) = (300, 500);
    for device in lowered(&DeviceOptions { max_binding_bytes: Some(1 << 20), ..hardware() }) {
        for (first, count) in [(0, length), (0, 10), (490, 10)] {
            let strides = [1, rows as isize];
            let kernel = Kernel::Sort(Sort {
                descending: count == 10,
                sizes: [rows, length].as_slice().into(),
                source: Access::new(0, DType::F32, &strides, 0),
                target: Access::new(1, DType::I64, &strides, 0),
                first,
                count,
            });
            let buffers = [elements(&mut Rng::new(5), DType::F32, rows * length), vec![0; rows * count * 8]];
            assert_agrees(device.executor(), &kernel, &buffers, &[DType::F32, DType::I64], &[], 0.0);
        }
    }
}

#[test]
fn sorts_that_do_not_fit_are_refused() {
    let sort = |sizes: &[usize], strides: &[isize], dtype: DType, first: usize, count: usize| Sort {
        descending: false,
        sizes: sizes.into(),
        source: Access::new(0, DType::F32, strides, 0),
        target: Access::new(1, dtype, strides, 0),
        first,
        count,
    };
    let fits = sort(&[2, 3], &[3, 1], DType::I64, 1, 2);
    let mut in_place = fits.clone();
    in_place.target.buffer = 0;
    let refused = [
        in_place,
        sort(&[], &[], DType::I64, 0, 0),
        sort(&[2, 3], &[1], DType::I64, 0, 3),
        sort(&[2, 3], &[3, 1], DType::I32, 0, 3),
        sort(&[2, 3], &[3, 1], DType::I64, 2, 2),
        sort(&[2, 3], &[3, 1], DType::I64, usize::MAX, 2),
    ];
    for device in [Device::cpu()].into_iter().chain(devices()).chain(lowered(&hardware())) {
        device.executor().prepare(&Kernel::Sort(fits.clone())).map(drop).expect("a sort that fits");
        for sort in &refused {
            let error = device.executor().prepare(&Kernel::Sort(sort.clone())).map(drop).unwrap_err();
            assert!(matches!(error, Error::Kernel { .. }), "{device}: {sort:?}: {error}");
        }
    }
}

#[test]
fn ten_million_elements_on_the_cpu() {
    check_contiguous(&Device::cpu(), 1, 10_000_000, false, true);
}
