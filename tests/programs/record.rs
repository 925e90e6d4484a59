//! What `record.py` wrote: the numbers that programs start from, and what they come to in PyTorch.

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};
use wgrad::{DType, Device, Element, Tensor};

static FILE: &[u8] = include_bytes!("record.safetensors");

/// The part of the record that belongs to one program.
pub struct Record {
    program: &'static str,
    tensors: SafeTensors<'static>,
}

impl Record {
    pub fn of(program: &'static str) -> Result<Record> {
        Ok(Record { program, tensors: SafeTensors::deserialize(FILE)? })
    }

    /// A tensor as it was written: f32 or i64.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let view = self.tensors.tensor(&self.key(name)).with_context(|| self.key(name))?;
        let (bytes, shape) = (view.data(), view.shape());
        Ok(match view.dtype() {
            Dtype::F32 => Tensor::from_slice(&f32::from_bytes(bytes), shape, device)?,
            Dtype::I64 => Tensor::from_slice(&i64::from_bytes(bytes), shape, device)?,
            other => bail!("{} is {other:?}", self.key(name)),
        })
    }

    /// What PyTorch computed, in f64.
    pub fn truth(&self, name: &str) -> Result<Vec<f64>> {
        let view = self.tensors.tensor(&self.key(name)).with_context(|| self.key(name))?;
        match view.dtype() {
            Dtype::F64 => Ok(f64::from_bytes(view.data())),
            other => bail!("{} is {other:?}", self.key(name)),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.tensor(&self.key(name)).is_ok()
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.program)
    }
}

/// A tensor's elements, widened.
pub fn numbers(tensor: &Tensor) -> wgrad::Result<Vec<f64>> {
    match tensor.dtype() {
        DType::F32 => Ok(tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect()),
        _ => tensor.to_vec::<f64>(),
    }
}
