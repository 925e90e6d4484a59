//! When the last handle to a device is dropped, its memory, kernels, plans and tables are freed.

#[path = "../../device/tests/support/mod.rs"]
mod support;

use std::sync::{Arc, Weak};

use wgrad_array::{Array, BinaryOp, UnaryOp};
use wgrad_device::kernel::Kernel;
use wgrad_device::{Buffer, Device, DeviceOptions, Executor, Limits, Prepared, Result, Stats};

/// An executor that notes when it is dropped.
struct Watched {
    device: Device,
    _alive: Arc<()>,
}

impl Executor for Watched {
    fn limits(&self) -> &Limits {
        self.device.executor().limits()
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.device.executor().alloc(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        self.device.executor().upload(bytes)
    }

    fn download(&self, buffer: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        self.device.executor().download(buffer, offset, out)
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Arc<dyn Prepared>> {
        self.device.executor().prepare(kernel)
    }

    fn flush(&self) -> Result<()> {
        self.device.executor().flush()
    }

    fn synchronize(&self) -> Result<()> {
        self.device.executor().synchronize()
    }

    fn stats(&self) -> Stats {
        self.device.executor().stats()
    }

    fn trim(&self) {
        self.device.executor().trim();
    }

    fn set_memory_limit(&self, limit: Option<u64>) {
        self.device.executor().set_memory_limit(limit);
    }

    fn reset_peak(&self) {
        self.device.executor().reset_peak();
    }
}

/// A device around another one, and a flag that says whether it still exists.
fn watched(device: Device) -> (Device, Weak<()>) {
    let alive = Arc::new(());
    let watch = Arc::downgrade(&alive);
    (Device::from_executor(device.name().to_owned(), Box::new(Watched { device, _alive: alive })), watch)
}

/// New devices on all adapters, which only this test uses, and one around the CPU.
fn devices() -> Vec<Device> {
    std::iter::once(Device::cpu()).chain(support::fresh(&DeviceOptions::default())).collect()
}

/// Runs steps of gradient descent and Fourier transforms of all kinds, and reads the results.
fn work(device: &Device) -> Vec<f32> {
    let values: Vec<f32> = (0..64 * 6).map(|i| (i % 7) as f32 - 3.0).collect();
    let x = Array::from_slice(&values, &[64, 6], device).unwrap();
    let mut weights = Array::from_slice(&[0.5f32; 6], &[6, 1], device).unwrap();
    for _ in 0..3 {
        let error = x.matmul(&weights).unwrap().unary(UnaryOp::Tanh).unwrap();
        let gradient = x.permute(&[1, 0]).unwrap().matmul(&error).unwrap();
        let step = gradient.binary_scalar(BinaryOp::Mul, 0.01).unwrap();
        weights = weights.binary(BinaryOp::Sub, &step).unwrap();
        weights.eval().unwrap();
    }
    let mut found = weights.to_vec::<f32>().unwrap();
    for n in [12usize, 15, 211] {
        let signal: Vec<f32> = (0..n).map(|i| (i % 5) as f32).collect();
        let signal = Array::from_slice(&signal, &[n], device).unwrap();
        let spectrum = signal.fourier_of_real(0).unwrap();
        found.extend(spectrum.to_vec::<f32>().unwrap());
        let back = spectrum.fourier_to_real(0, n).unwrap();
        let whole =
            Array::from_slice(&vec![1.0f32; 2 * n], &[n, 2], device).unwrap().fourier(0, true).unwrap();
        found.extend(back.to_vec::<f32>().unwrap());
        found.extend(whole.to_vec::<f32>().unwrap());
    }
    found
}

#[test]
fn a_device_goes_with_its_last_user() {
    for device in devices() {
        let truth = work(&device);
        let (own, watch) = watched(device.clone());
        let pending = Array::from_slice(&[1.0f32, 2.0], &[2], &own).unwrap().unary(UnaryOp::Neg).unwrap();
        assert!(work(&own) == truth, "{own}");
        let before = own.stats();
        assert!(work(&own) == truth, "{own}");
        let again = own.stats().since(&before);
        assert_eq!((again.plans_built, again.pipelines_compiled), (0, 0), "{own}: known on the device");
        drop(own);
        assert!(watch.upgrade().is_some(), "an array that is pending holds its device");
        drop(pending);
        assert!(watch.upgrade().is_none(), "{device} is still held");
    }
}

#[test]
fn a_device_in_a_dropped_ones_place_has_plans_of_its_own() {
    // A new device may get the address of a dropped one, so an address does not identify a device.
    for device in devices() {
        let truth = work(&device);
        for _ in 0..10 {
            let fresh = match device.is_cpu() {
                true => device.clone(),
                false => Device::open_with(device.name(), DeviceOptions::default()).unwrap(),
            };
            let (own, watch) = watched(fresh);
            assert!(work(&own) == truth, "{own}");
            assert!(own.stats().plans_built > 0);
            drop(own);
            assert!(watch.upgrade().is_none(), "{device}");
        }
    }
}
