//! The tensors of cases, and how they are laid out in memory.

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use wgrad::{DType, Device, Tensor};

use crate::case::{Case, Input};
use crate::recorded::numbers;
pub use crate::recorded::numbers::{Numbers, Values};

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
        numbers::tensor(&stored, device)
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
        Numbers::stored(&stored)
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
        if numbers::dtype(&stored)? == DType::F64 {
            return Ok(false);
        }
    }
    Ok(true)
}
