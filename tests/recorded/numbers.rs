//! Tensors of safetensors files, and tensors' elements as numbers.

use std::str::FromStr;

use anyhow::{Result, anyhow};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use wgrad::{DType, Device, Element, Tensor};

/// The dtype that a file says.
pub fn dtype(stored: &TensorView) -> Result<DType> {
    let name = format!("{:?}", stored.dtype()).to_lowercase();
    DType::from_str(&name).map_err(|_| anyhow!("the file holds a tensor of dtype {name}"))
}

/// A tensor as a file holds it.
pub fn tensor(stored: &TensorView, device: &Device) -> Result<Tensor> {
    Ok(match dtype(stored)? {
        DType::Bool => make::<bool>(stored, device),
        DType::U8 => make::<u8>(stored, device),
        DType::I32 => make::<i32>(stored, device),
        DType::I64 => make::<i64>(stored, device),
        DType::F16 => make::<f16>(stored, device),
        DType::BF16 => make::<bf16>(stored, device),
        DType::F32 => make::<f32>(stored, device),
        DType::F64 => make::<f64>(stored, device),
    }?)
}

fn make<T: Element>(stored: &TensorView, device: &Device) -> wgrad::Result<Tensor> {
    Tensor::from_slice(&T::from_bytes(stored.data()), stored.shape(), device)
}

/// Elements widened, with shape and dtype.
pub struct Numbers {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// Floats as f64, everything else as i64: both are exact.
pub enum Values {
    Float(Vec<f64>),
    Integer(Vec<i64>),
}

impl Numbers {
    /// The value of a tensor, computed if need be.
    pub fn of(tensor: &Tensor) -> wgrad::Result<Numbers> {
        let floats = |values: Vec<f64>| Values::Float(values);
        let integers = |values: Vec<i64>| Values::Integer(values);
        let values = match tensor.dtype() {
            DType::F16 => floats(tensor.to_vec::<f16>()?.into_iter().map(f64::from).collect()),
            DType::BF16 => floats(tensor.to_vec::<bf16>()?.into_iter().map(f64::from).collect()),
            DType::F32 => floats(tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect()),
            DType::F64 => floats(tensor.to_vec::<f64>()?),
            DType::Bool => integers(tensor.to_vec::<bool>()?.into_iter().map(i64::from).collect()),
            DType::U8 => integers(tensor.to_vec::<u8>()?.into_iter().map(i64::from).collect()),
            DType::I32 => integers(tensor.to_vec::<i32>()?.into_iter().map(i64::from).collect()),
            DType::I64 => integers(tensor.to_vec::<i64>()?),
        };
        Ok(Numbers { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), values })
    }

    /// What a file holds.
    pub fn stored(stored: &TensorView) -> Result<Numbers> {
        Numbers::new(dtype(stored)?, stored.shape(), stored.data())
    }

    fn new(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Numbers> {
        fn all<T: Element, N>(bytes: &[u8], widen: impl Fn(T) -> N) -> Vec<N> {
            T::from_bytes(bytes).into_iter().map(widen).collect()
        }
        let values = match dtype {
            DType::F16 => Values::Float(all(bytes, f16::to_f64)),
            DType::BF16 => Values::Float(all(bytes, bf16::to_f64)),
            DType::F32 => Values::Float(all(bytes, |x: f32| f64::from(x))),
            DType::F64 => Values::Float(all(bytes, |x: f64| x)),
            DType::Bool => Values::Integer(all(bytes, |x: bool| i64::from(x))),
            DType::U8 => Values::Integer(all(bytes, |x: u8| i64::from(x))),
            DType::I32 => Values::Integer(all(bytes, |x: i32| i64::from(x))),
            DType::I64 => Values::Integer(all(bytes, |x: i64| x)),
        };
        Ok(Numbers { dtype, shape: shape.to_vec(), values })
    }

    /// Whether no element differs from zero.
    pub fn is_zero(&self) -> bool {
        match &self.values {
            Values::Float(values) => values.iter().all(|&x| x == 0.0),
            Values::Integer(values) => values.iter().all(|&x| x == 0),
        }
    }
}
