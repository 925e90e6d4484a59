//! Copying arrays between devices.

use wgrad_device::{Device, Result};

use crate::Array;
use crate::array::check_dtype;

impl Array {
    /// The same elements on another device. If that is the array's own device, the result is the array
    /// itself; otherwise this evaluates the array.
    ///
    /// # Errors
    /// If the other device does not support the dtype or has not enough memory, or if the evaluation fails.
    pub fn to_device(&self, device: &Device) -> Result<Array> {
        if device == self.device() {
            return Ok(self.clone());
        }
        check_dtype("to", self.dtype(), device)?;
        if let Some(number) = self.as_full() {
            return Array::full(self.shape(), number, self.dtype(), device);
        }
        Array::from_bytes(&self.to_bytes()?, self.dtype(), self.shape(), device)
    }
}
