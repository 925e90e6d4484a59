//! Programs whose kernels are larger than hardware allows, planned as for hardware.

use wgrad::{Device, DeviceOptions, Result, Tensor};

use crate::support::fresh;

/// GPUs that spread work as on hardware, with so many bytes of workgroup memory.
fn devices(bytes: u32) -> Vec<Device> {
    fresh(&DeviceOptions { as_hardware: true, max_workgroup_memory: Some(bytes), ..DeviceOptions::default() })
}

#[test]
fn many_searches_of_one_tensor_fit_into_workgroup_memory() -> Result<()> {
    let numbers: Vec<i64> = (0..3 * 5000).map(|i| i * 7919 % 10_007 - 5000).collect();
    // What WebGPU promises, and the least that kernels rely on.
    for (searches, bytes) in [(16, 16 << 10), (24, 12 << 10)] {
        let sum = |device: &Device| -> Result<Tensor> {
            let x = Tensor::from_slice(&numbers, [3, 5000], device)?;
            (1..searches).try_fold(x.argmax_dim(1, false)?, |sum, k| {
                sum.add(x.mul(2 * k + 1)?.bitwise_xor(k)?.argmax_dim(1, false)?)
            })
        };
        let expected = sum(&Device::cpu())?.to_vec::<i64>()?;
        for device in devices(bytes) {
            assert_eq!(sum(&device)?.to_vec::<i64>()?, expected, "{searches} on {device}");
            assert_eq!(device.stats().hosted, 0);
        }
    }
    Ok(())
}
