//! Helpers that the tests of the wgpu executor share: the devices to run on, random data, and comparisons
//! with the reference.
#![allow(dead_code, unused_imports)] // Each test file uses its own part.

pub mod functions;
#[path = "../support/mod.rs"]
pub mod support;

use half::{bf16, f16};
use wgrad_device::kernel::{BinaryOp, Instr, Kernel, Ty, UnaryOp};
use wgrad_device::{Buffer, DType, Device, DeviceOptions, Error, Scalar};

pub use support::{fresh as lowered, gpus as devices, is_nvidia};

use crate::common::reference;

/// All dtypes that a device supports, with f64 last.
pub fn dtypes(device: &Device) -> Vec<DType> {
    let all =
        [DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64, DType::U8, DType::Bool, DType::F64];
    all.into_iter().filter(|&dtype| device.supports(dtype)).collect()
}

/// The smallest limits with which everything must work.
pub fn smallest() -> DeviceOptions {
    DeviceOptions {
        max_storage_buffers: Some(8),
        max_binding_bytes: Some(1 << 20),
        max_workgroups_per_dimension: Some(256),
        max_workgroup_memory: Some(12 << 10),
        without_subgroups: true,
        ..DeviceOptions::default()
    }
}

/// The bytes of workgroup memory that WebGPU guarantees.
pub const WORKGROUP_MEMORY: u32 = 16 << 10;

/// Options with which any adapter runs the kernels for hardware GPUs, with no more workgroup memory than
/// every GPU has.
pub fn hardware() -> DeviceOptions {
    DeviceOptions {
        as_hardware: true,
        max_workgroup_memory: Some(WORKGROUP_MEMORY),
        ..DeviceOptions::default()
    }
}

/// A small random generator of test data with a fixed seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The bytes of random elements of moderate magnitude.
    pub fn bytes(&mut self, dtype: DType, elements: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(elements * dtype.size());
        for _ in 0..elements {
            let float = (self.unit() - 0.5) * 4.0;
            match dtype {
                DType::Bool => bytes.push(u8::from(self.chance(50))),
                DType::U8 => bytes.push(self.bits() as u8),
                DType::I32 => bytes.extend((self.below(41) as i32 - 20).to_le_bytes()),
                DType::I64 => bytes.extend((self.below(41) as i64 - 20).to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f64(float).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16::from_f64(float).to_le_bytes()),
                DType::F32 => bytes.extend((float as f32).to_le_bytes()),
                DType::F64 => bytes.extend(float.to_le_bytes()),
            }
        }
        bytes
    }
}

/// Runs a kernel on a device and returns the contents of the buffers after the launch.
pub fn run(
    device: &Device,
    kernel: &Kernel,
    contents: &[Vec<u8>],
    params: &[Scalar],
) -> Result<Vec<Vec<u8>>, Error> {
    let executor = device.executor();
    let buffers: Vec<Buffer> =
        contents.iter().map(|bytes| executor.upload(bytes)).collect::<Result<_, _>>()?;
    let handles: Vec<&Buffer> = buffers.iter().collect();
    executor.prepare(kernel)?.launch(&handles, params)?;
    let mut results = Vec::new();
    for (buffer, bytes) in buffers.iter().zip(contents) {
        let mut out = vec![0; bytes.len()];
        executor.download(buffer, 0, &mut out)?;
        results.push(out);
    }
    Ok(results)
}

/// Runs a kernel on a device and on the reference, and compares the buffers, which have these dtypes.
pub fn check(
    device: &Device,
    kernel: &Kernel,
    contents: &[Vec<u8>],
    dtypes: &[DType],
    params: &[Scalar],
    tolerance: f64,
) {
    let mut expected = contents.to_vec();
    let truth = reference::run(kernel, &mut expected, params);
    let result = run(device, kernel, contents, params);
    match (truth, result) {
        (Ok(()), Ok(result)) => {
            for (i, dtype) in dtypes.iter().enumerate() {
                if let Some(what) = difference(&result[i], &expected[i], *dtype, tolerance) {
                    panic!("{device}: buffer {i} ({dtype}): {what}\n{kernel:#?}\nparams {params:?}");
                }
            }
        }
        (truth, result) => assert_eq!(result.map(drop), truth, "{device}: {kernel:#?}"),
    }
}

/// The instructions of an epilogue `|product * param 0 + element of an access|`; the last one is the result.
pub fn scaled_with_bias(access: usize, dtype: DType) -> [Instr; 6] {
    [
        Instr::Accumulator,
        functions::load(access),
        Instr::Param { index: 0, ty: Ty::of(dtype) },
        Instr::Binary { op: BinaryOp::Mul, a: 0, b: 2 },
        Instr::Binary { op: BinaryOp::Add, a: 3, b: 1 },
        Instr::Unary { op: UnaryOp::Abs, a: 4 },
    ]
}

fn value(bytes: &[u8], dtype: DType, i: usize) -> f64 {
    let b = &bytes[i * dtype.size()..];
    match dtype {
        DType::Bool => f64::from(u8::from(b[0] != 0)),
        DType::U8 => f64::from(b[0]),
        DType::I32 => f64::from(i32::from_le_bytes(b[..4].try_into().unwrap())),
        DType::I64 => i64::from_le_bytes(b[..8].try_into().unwrap()) as f64,
        DType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::F32 => f64::from(f32::from_le_bytes(b[..4].try_into().unwrap())),
        DType::F64 => f64::from_le_bytes(b[..8].try_into().unwrap()),
    }
}

/// The first element in which two buffers differ by more than the tolerance. Integers must be equal.
pub fn difference(found: &[u8], expected: &[u8], dtype: DType, tolerance: f64) -> Option<String> {
    let unit = match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => 0.0,
    };
    for i in 0..expected.len() / dtype.size() {
        let (a, b) = (value(found, dtype, i), value(expected, dtype, i));
        let same = if dtype.is_float() {
            let allowed = (tolerance + unit) * b.abs().max(1.0);
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed
        } else {
            found[i * dtype.size()..(i + 1) * dtype.size()]
                == expected[i * dtype.size()..(i + 1) * dtype.size()]
        };
        if !same {
            return Some(format!("element {i} is {a}, not {b}"));
        }
    }
    None
}
