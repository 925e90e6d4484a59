//! Tensors from a safetensors file, and their elements as numbers.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use half::{bf16, f16};
use safetensors::SafeTensors;
use wgrad::{DType, Device, Element, Tensor};

use crate::case::{Case, Input};

/// How inputs lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// As the case says.
    Stored,
    /// With their dims in the reverse order.
    Transposed,
    /// Every second element of a piece of memory, from the second on.
    Sliced,
    /// The first index along a dim, for all of them: other values, but the same as in memory of their own.
    Expanded,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 4] = [Layout::Stored, Layout::Transposed, Layout::Sliced, Layout::Expanded];

    /// A tensor of the CPU on a device, laid out so.
    pub fn lay(self, tensor: &Tensor, device: &Device) -> wgrad::Result<Tensor> {
        let rank = tensor.rank() as i64;
        let laid = match self {
            Layout::Stored => tensor.to_device(device)?,
            Layout::Transposed => {
                let reversed: Vec<i64> = (0..rank).rev().collect();
                in_memory(tensor.permute(&reversed[..])?, device)?.permute(&reversed[..])?
            }
            Layout::Sliced => {
                let flat = tensor.reshape([-1])?;
                let both = in_memory(Tensor::stack(&[&flat.flip([0])?, &flat], 1)?.reshape([-1])?, device)?;
                let strides = both_strides(tensor.shape());
                both.as_strided(tensor.shape(), &strides[..], 1)?
            }
            Layout::Expanded => match expanded_dim(tensor.shape()) {
                Some(dim) => in_memory(tensor.narrow(dim as isize, 0, 1)?, device)?.expand(tensor.shape())?,
                None => tensor.to_device(device)?,
            },
        };
        Ok(laid.detach())
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Layout::Stored => "",
            Layout::Transposed => " transposed",
            Layout::Sliced => " sliced",
            Layout::Expanded => " expanded",
        })
    }
}

/// A tensor's elements side by side in memory of a device.
fn in_memory(tensor: Tensor, device: &Device) -> wgrad::Result<Tensor> {
    let dense = tensor.contiguous()?.to_device(device)?;
    dense.eval()?;
    Ok(dense)
}

/// The strides of every second element.
fn both_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![2; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim].max(1) as isize;
    }
    strides
}

/// The dim along which an expanded tensor repeats itself.
pub fn expanded_dim(shape: &[usize]) -> Option<usize> {
    let empty = shape.contains(&0);
    shape.iter().position(|&size| size > 1 && !empty)
}

/// The tensors of one operator's cases.
pub struct Store<'a>(SafeTensors<'a>);

impl<'a> Store<'a> {
    /// Reads the header; the bytes stay where they are.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        Ok(Store(SafeTensors::deserialize(bytes)?))
    }

    /// The bytes of a name's tensor; 0 if there is none.
    pub fn bytes(&self, name: &str) -> usize {
        self.0.tensor(name).map_or(0, |stored| stored.data().len())
    }

    /// The tensor of a name, as stored.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let stored = self.0.tensor(name).with_context(|| format!("the tensor {name:?}"))?;
        let dtype = dtype(&stored)?;
        Ok(match dtype {
            DType::Bool => make::<bool>(&stored, device),
            DType::U8 => make::<u8>(&stored, device),
            DType::I32 => make::<i32>(&stored, device),
            DType::I64 => make::<i64>(&stored, device),
            DType::F16 => make::<f16>(&stored, device),
            DType::BF16 => make::<bf16>(&stored, device),
            DType::F32 => make::<f32>(&stored, device),
            DType::F64 => make::<f64>(&stored, device),
        }?)
    }

    /// An input of a case, a leaf: strided as the case says, or laid out in another way.
    pub fn input(&self, input: &Input, device: &Device, layout: Layout) -> Result<Tensor> {
        let cpu = Device::cpu();
        let at = if layout == Layout::Stored { device } else { &cpu };
        let stored = self.tensor(&input.tensor, at)?;
        let mut tensor = match &input.strided {
            None => stored,
            Some(view) => stored.as_strided(&view.shape, &view.stride, view.offset)?.detach(),
        };
        if layout != Layout::Stored {
            tensor = layout.lay(&tensor, device)?;
        }
        if input.requires_grad {
            tensor.requires_grad_(true)?;
        }
        Ok(tensor)
    }

    /// What a name's tensor holds.
    pub fn expected(&self, name: &str) -> Result<Numbers> {
        let stored = self.0.tensor(name).with_context(|| format!("the tensor {name:?}"))?;
        Numbers::new(dtype(&stored)?, stored.shape(), stored.data())
    }
}

fn dtype(stored: &safetensors::tensor::TensorView) -> Result<DType> {
    let name = format!("{:?}", stored.dtype()).to_lowercase();
    DType::from_str(&name).map_err(|_| anyhow!("the file holds a tensor of dtype {name}"))
}

fn make<T: Element>(stored: &safetensors::tensor::TensorView, device: &Device) -> wgrad::Result<Tensor> {
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

/// Operators that read memory as it lies: another layout is another question.
const OF_MEMORY: &[&str] = &["as_strided", "view"];

/// Whether a case can be replayed in a layout that differs from its own.
pub fn suits(op: &str, case: &Case, store: &Store, layout: Layout) -> bool {
    let shapes = || {
        case.inputs.iter().filter_map(|input| match &input.strided {
            Some(view) => Some(view.shape.clone()),
            None => store.0.tensor(&input.tensor).ok().map(|stored| stored.shape().to_vec()),
        })
    };
    let several = |shape: &[usize]| shape.iter().filter(|&&size| size > 1).count() > 1;
    let other = match layout {
        Layout::Stored => return true,
        Layout::Transposed => shapes().any(|shape| several(&shape)),
        Layout::Sliced => shapes().any(|shape| shape.iter().product::<usize>() > 1),
        Layout::Expanded => shapes().any(|shape| expanded_dim(&shape).is_some()),
    };
    other && !OF_MEMORY.contains(&op)
}

/// Whether a device can hold all tensors of a case. Only f64 is missing on some.
pub fn supported(case: &Case, store: &Store, device: &Device) -> Result<bool> {
    if Tensor::zeros((), (DType::F64, device)).is_ok() {
        return Ok(true);
    }
    let inputs = case.inputs.iter().map(|input| &input.tensor);
    for name in inputs.chain(case.outputs.iter().flatten()) {
        let stored = store.0.tensor(name).with_context(|| format!("the tensor {name:?}"))?;
        if dtype(&stored)? == DType::F64 {
            return Ok(false);
        }
    }
    Ok(true)
}
