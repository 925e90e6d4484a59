//! Between devices and dtypes.

use wgrad_array::{DType, Device, Result};

use crate::Tensor;
use crate::tape::{Derivative, record};

/// Where [`Tensor::to`] moves a tensor: a device, a dtype, or both.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The dtype; none: as it is.
    pub dtype: Option<DType>,
    /// The device; none: where it is.
    pub device: Option<Device>,
}

impl From<DType> for Target {
    fn from(dtype: DType) -> Self {
        Target { dtype: Some(dtype), device: None }
    }
}

impl From<&Device> for Target {
    fn from(device: &Device) -> Self {
        Target { dtype: None, device: Some(device.clone()) }
    }
}

impl From<Device> for Target {
    fn from(device: Device) -> Self {
        Target { dtype: None, device: Some(device) }
    }
}

impl From<(DType, &Device)> for Target {
    fn from((dtype, device): (DType, &Device)) -> Self {
        Target { dtype: Some(dtype), device: Some(device.clone()) }
    }
}

/// # Between devices and dtypes
#[wgrad_macros::call_sites]
impl Tensor {
    /// The tensor on a device, with a dtype, or both; itself if there is nothing to change.
    ///
    /// A tensor that was moved is the result of an operation (`ToCopyBackward0`): its gradient arrives at the original leaf, on
    /// that leaf's device. To make it a leaf, use `detach().requires_grad_(true)`.
    ///
    /// # Errors
    /// If the device has no such dtype or no memory left, or what led to the tensor's value fails.
    pub fn to(&self, target: impl Into<Target>) -> Result<Tensor> {
        let target = target.into();
        let dtype = target.dtype.unwrap_or(self.dtype());
        let device = target.device.as_ref().unwrap_or(self.device());
        if (dtype, device) == (self.dtype(), self.device()) {
            return Ok(self.clone());
        }
        let x = self.operand()?;
        // The smaller of the two dtypes crosses.
        let out = if dtype.size() < self.dtype().size() {
            x.array.cast(dtype)?.to_device(device)?
        } else {
            x.array.to_device(device)?.cast(dtype)?
        };
        Ok(record(out, [x], |_, _| {
            let back = Target { dtype: Some(self.dtype()), device: Some(self.device().clone()) };
            Derivative::with("ToCopyBackward0", move |c| c.each(1, |_| c.grad()?.to(back.clone())))
        }))
    }

    /// The tensor with another dtype; itself if it has that dtype.
    ///
    /// # Errors
    /// If the device has no such dtype.
    pub fn to_dtype(&self, dtype: DType) -> Result<Tensor> {
        self.to(dtype)
    }

    /// The tensor on another device; itself if it is there.
    ///
    /// # Errors
    /// As [`Tensor::to`].
    pub fn to_device(&self, device: &Device) -> Result<Tensor> {
        self.to(device)
    }
}
