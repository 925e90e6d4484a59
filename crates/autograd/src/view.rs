//! View steps: what one view does to its input, forwards, backwards, and when somebody writes through it.

use smallvec::SmallVec;
use wgrad_array::layout::{Dims, Strides};
use wgrad_array::{Array, BinaryOp, DType, Layout, Result, Scalar, ScatterOp};

use crate::Tensor;
use crate::tape::{Derivative, record};

/// One view operation with its arguments checked: dims are counted from the front and in range.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ViewStep {
    /// The same elements in row-major order under another shape.
    Reshape { from: Dims, to: Dims },
    /// Dim `d` of the view is dim `dims[d]` of the input.
    Permute { dims: SmallVec<[usize; 4]> },
    /// Dims of size 1, and new ones in front, repeated.
    Expand { from: Dims, to: Dims },
    /// Every `step`-th index of a dim.
    Slice { dim: usize, start: usize, len: usize, step: usize },
    /// One index of a dim, which goes away.
    Select { dim: usize, index: usize },
    /// The elements `(i, i + offset)` of two dims, as a new last dim.
    Diagonal { offset: isize, dim1: usize, dim2: usize, len: usize },
    /// Windows of a dim, as a new last dim.
    Unfold { dim: usize, size: usize, step: usize },
    /// Any places of the storage, which is the input in row-major order.
    Strided { shape: Dims, strides: Strides, offset: usize },
}

use ViewStep::*;

impl ViewStep {
    /// The view of an array.
    pub(crate) fn apply(&self, x: &Array) -> Result<Array> {
        match self {
            Reshape { to, .. } => x.reshape(to),
            Permute { dims } => x.permute(dims),
            Expand { to, .. } => x.expand(to),
            &Slice { dim, start, len, step } => x.slice(dim, start, len, step),
            &Select { dim, index } => x.slice(dim, index, 1, 1)?.squeeze(dim),
            &Diagonal { offset, dim1, dim2, .. } => x.diagonal(offset, dim1, dim2),
            &Unfold { dim, size, step } => x.unfold(dim, size, step),
            Strided { shape, strides, offset } => {
                let x = x.contiguous()?;
                x.eval()?;
                let first = x.layout().map_or(0, Layout::offset);
                x.strided(shape, strides, first.saturating_add(*offset))
            }
        }
    }

    /// Whether the view is its input.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Reshape { from, to } | Expand { from, to } => from == to,
            Permute { dims } => dims.iter().enumerate().all(|(d, &from)| d == from),
            _ => false,
        }
    }

    /// This step and the next as one, if there is such.
    pub(crate) fn join(&self, next: &ViewStep) -> Option<ViewStep> {
        match (self, next) {
            (Reshape { from, .. }, Reshape { to, .. }) => {
                Some(Reshape { from: from.clone(), to: to.clone() })
            }
            (Expand { from, .. }, Expand { to, .. }) => Some(Expand { from: from.clone(), to: to.clone() }),
            (Permute { dims: first }, Permute { dims }) => {
                Some(Permute { dims: dims.iter().map(|&d| first[d]).collect() })
            }
            (&Slice { dim, start, step, .. }, &Slice { dim: same, start: from, len, step: by })
                if dim == same =>
            {
                let start = from.checked_mul(step)?.checked_add(start)?;
                Some(Slice { dim, start, len, step: step.checked_mul(by)? })
            }
            (&Slice { dim, start, step, .. }, &Select { dim: same, index }) if dim == same => {
                Some(Select { dim, index: index.checked_mul(step)?.checked_add(start)? })
            }
            _ => None,
        }
    }

    /// Where the view's elements lie if the input's lie like this. `None` for a reshape that strides cannot express.
    pub(crate) fn layout(&self, x: &Layout) -> Option<Layout> {
        let (mut shape, mut strides) = (Dims::from(x.shape()), Strides::from(x.strides()));
        let mut offset = x.offset() as isize;
        match self {
            Reshape { to, .. } => return x.reshape(to),
            Strided { shape, strides, offset } => return Some(Layout::new(shape, strides, *offset)),
            Permute { dims } => {
                shape = dims.iter().map(|&d| x.shape()[d]).collect();
                strides = dims.iter().map(|&d| x.strides()[d]).collect();
            }
            Expand { to, .. } => {
                let new = to.len() - shape.len();
                strides = (0..to.len())
                    .map(
                        |d| if d < new || (shape[d - new] == 1 && to[d] != 1) { 0 } else { strides[d - new] },
                    )
                    .collect();
                shape = to.clone();
            }
            &Slice { dim, start, len, step } => {
                // Of an empty tensor a place or a step may be no number.
                offset = offset.wrapping_add(strides[dim].wrapping_mul(start as isize));
                shape[dim] = len;
                strides[dim] = strides[dim].wrapping_mul(step as isize);
            }
            &Select { dim, index } => {
                offset = offset.wrapping_add(strides[dim].wrapping_mul(index as isize));
                shape.remove(dim);
                strides.remove(dim);
            }
            &Diagonal { offset: diagonal, dim1, dim2, len } => {
                if len > 0 {
                    offset +=
                        if diagonal >= 0 { diagonal * strides[dim2] } else { -diagonal * strides[dim1] };
                }
                let stride = strides[dim1] + strides[dim2];
                for dim in [dim1.max(dim2), dim1.min(dim2)] {
                    shape.remove(dim);
                    strides.remove(dim);
                }
                shape.push(len);
                strides.push(stride);
            }
            &Unfold { dim, size, step } => {
                shape.push(size);
                strides.push(strides[dim]);
                shape[dim] = (shape[dim] - size) / step + 1;
                strides[dim] = strides[dim].wrapping_mul(step as isize);
            }
        }
        Some(Layout::new(&shape, &strides, offset as usize))
    }

    /// The input with the view's elements replaced by `value`, which has the view's shape.
    pub(crate) fn write(&self, x: &Array, value: &Array) -> Result<Array> {
        match self {
            Reshape { from, .. } => value.reshape(from),
            Permute { dims } => value.permute(&inverse(dims)),
            // Writable only where nothing is repeated: the dims in front have size 1.
            Expand { from, .. } => value.reshape(from),
            &Slice { dim, start, step, .. } => {
                let mut starts = Dims::from_elem(0, x.rank());
                let mut steps = Dims::from_elem(1, x.rank());
                (starts[dim], steps[dim]) = (start, step);
                x.update(&starts, &steps, value)
            }
            &Select { dim, index } => {
                let mut starts = Dims::from_elem(0, x.rank());
                starts[dim] = index;
                x.update(&starts, &Dims::from_elem(1, x.rank()), &value.unsqueeze(dim)?)
            }
            &Diagonal { offset, dim1, dim2, .. } => write_diagonal(x, value, offset, dim1, dim2),
            &Unfold { dim, size, step } => write_windows(x, value, dim, size, step),
            Strided { shape, strides, offset } => {
                let places = places(shape, strides, *offset, x)?;
                let line = x.reshape(&[x.elements()])?;
                let value = value.reshape(&[value.elements()])?;
                line.index_scatter(ScatterOp::Assign, 0, &places, &value)?.reshape(x.shape())
            }
        }
    }

    /// Gradient of the input from that of the view: zeros where the view does not look, sums where it looks twice.
    pub(crate) fn adjoint(&self, grad: &Tensor, shape: &[usize]) -> Result<Tensor> {
        match self {
            Reshape { from, to } => grad.view_value(&Reshape { from: to.clone(), to: from.clone() }),
            Permute { dims } => grad.view_value(&Permute { dims: inverse(dims) }),
            Expand { from, .. } => grad.sum_to(from),
            &Unfold { dim, size, step } => fold_windows(grad, shape, dim, size, step),
            Strided { shape: sizes, strides, offset } => {
                let line = grad.zeros_of(&[shape.iter().product()])?;
                let places = Tensor::from_array(places(sizes, strides, *offset, &line.array()?)?);
                line.index_add(0, &places, &grad.reshaped(&[grad.numel()])?)?.reshaped(shape)
            }
            _ => {
                let g = grad.operand()?;
                let out = self.embed(&g.array, shape)?;
                let step = self.clone();
                Ok(record(out, [g], |_, _| {
                    Derivative::with(self.adjoint_name(), move |c| c.each(1, |_| c.grad()?.view_value(&step)))
                }))
            }
        }
    }

    /// Zeros of a shape with the view's elements set.
    fn embed(&self, value: &Array, shape: &[usize]) -> Result<Array> {
        let mut starts = Dims::from_elem(0, shape.len());
        let mut steps = Dims::from_elem(1, shape.len());
        match *self {
            Slice { dim, start, step, .. } => {
                (starts[dim], steps[dim]) = (start, step);
                value.embed(&starts, &steps, shape)
            }
            Select { dim, index } => {
                starts[dim] = index;
                value.unsqueeze(dim)?.embed(&starts, &steps, shape)
            }
            _ => self.write(&Array::full(shape, Scalar::Int(0), value.dtype(), value.device())?, value),
        }
    }

    fn adjoint_name(&self) -> &'static str {
        match self {
            Slice { .. } => "SliceBackwardBackward0",
            Select { .. } => "SelectBackwardBackward0",
            _ => "DiagonalBackwardBackward0",
        }
    }
}

/// The view of a view of … a tensor, recorded but without a storage in common.
pub(crate) fn apply_all(steps: &[ViewStep], x: &Tensor) -> Result<Tensor> {
    steps.iter().try_fold(x.clone(), |x, step| x.view_value(step))
}

/// The gradient of a tensor of this shape from that of its view of views.
pub(crate) fn adjoint_all(steps: &[ViewStep], grad: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let mut shapes: Vec<Dims> = vec![shape.into()];
    let mut layout = Layout::contiguous(shape);
    for step in steps {
        // Only the shapes matter here; a reshape has its own.
        layout = step.layout(&Layout::contiguous(layout.shape())).unwrap_or_else(|| match step {
            Reshape { to, .. } => Layout::contiguous(to),
            _ => layout.clone(),
        });
        shapes.push(layout.shape().into());
    }
    steps.iter().zip(&shapes).rev().try_fold(grad.clone(), |grad, (step, shape)| step.adjoint(&grad, shape))
}

/// `x` with the elements of its view of views replaced.
pub(crate) fn write_all(steps: &[ViewStep], x: &Array, value: &Array) -> Result<Array> {
    if value.elements() == 0 {
        return Ok(x.clone());
    }
    let mut inputs = vec![x.clone()];
    for step in steps {
        let next = step.apply(&inputs[inputs.len() - 1])?;
        inputs.push(next);
    }
    steps.iter().zip(&inputs).rev().try_fold(value.clone(), |value, (step, input)| step.write(input, &value))
}

/// Dims of size 1 that come and go.
pub(crate) trait Squeeze: Sized {
    /// With a new dim of size 1 before `dim`.
    fn unsqueeze(&self, dim: usize) -> Result<Self>;
    /// Without the dim, which has size 1.
    fn squeeze(&self, dim: usize) -> Result<Self>;
}

impl Squeeze for Array {
    fn unsqueeze(&self, dim: usize) -> Result<Array> {
        let mut shape: Dims = self.shape().into();
        shape.insert(dim, 1);
        self.reshape(&shape)
    }

    fn squeeze(&self, dim: usize) -> Result<Array> {
        let mut shape: Dims = self.shape().into();
        shape.remove(dim);
        self.reshape(&shape)
    }
}

/// The position in row-major order of each element of a strided view, as a list on the device of `like`.
pub(crate) fn places(shape: &[usize], strides: &[isize], offset: usize, like: &Array) -> Result<Array> {
    let mut places = Array::full(shape, Scalar::Int(offset as i64), DType::I64, like.device())?;
    for (dim, &stride) in strides.iter().enumerate() {
        let along = Array::coordinate(shape, dim, like.device())?.cast(DType::I64)?;
        places =
            places.binary(BinaryOp::Add, &along.binary_scalar(BinaryOp::Mul, Scalar::Int(stride as i64))?)?;
    }
    places.reshape(&[places.elements()])
}

fn inverse(dims: &[usize]) -> SmallVec<[usize; 4]> {
    let mut inverse = SmallVec::from_elem(0, dims.len());
    for (to, &from) in dims.iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

/// `value` has the diagonal last; each element of the result asks which diagonal element lies in its row.
fn write_diagonal(x: &Array, value: &Array, offset: isize, dim1: usize, dim2: usize) -> Result<Array> {
    let len = value.shape()[value.rank() - 1];
    if len == 0 {
        return Ok(x.clone());
    }
    let device = x.device();
    let above = Scalar::Int(offset.max(0) as i64);
    let below = Scalar::Int((-offset).max(0) as i64);
    let row = Array::coordinate(x.shape(), dim1, device)?.binary_scalar(BinaryOp::Sub, below)?;
    let column = Array::coordinate(x.shape(), dim2, device)?.binary_scalar(BinaryOp::Sub, above)?;
    // Both count along the diagonal where they are equal; beyond its end they differ.
    let mask = row.binary(BinaryOp::Eq, &column)?;
    let rows = x.shape()[dim1];
    let index = Array::arange(Scalar::Int(0), Scalar::Int(1), rows, DType::I64, device)?
        .binary_scalar(BinaryOp::Sub, below)?
        .binary_scalar(BinaryOp::Max, Scalar::Int(0))?
        .binary_scalar(BinaryOp::Min, Scalar::Int(len as i64 - 1))?;
    let spread = value.index_select(value.rank() - 1, &index)?;
    // The rows go to dim1, and dim2 is repeated.
    let mut dims: SmallVec<[usize; 4]> = (0..x.rank() - 1).collect();
    let last = dims.len() - 1;
    dims.remove(last);
    let position = if dim1 > dim2 { dim1 - 1 } else { dim1 };
    dims.insert(position, last);
    let spread = spread.permute(&dims)?.unsqueeze(dim2)?.expand(x.shape())?;
    Array::select(&mask, &spread, x)
}

/// Windows that do not overlap, side by side in a slice of the dim.
fn write_windows(x: &Array, value: &Array, dim: usize, size: usize, step: usize) -> Result<Array> {
    let windows = value.shape()[dim];
    let mut result = x.clone();
    for offset in 0..size {
        let part = value.slice(value.rank() - 1, offset, 1, 1)?.squeeze(value.rank() - 1)?;
        let write = Slice { dim, start: offset, len: windows, step };
        result = write.write(&result, &part)?;
    }
    Ok(result)
}

/// So many terms are added one by one; more are a reduction.
const FEW: usize = 4;

/// The sum of windows at their places, gathered: each element adds up what the windows have for it.
///
/// The dim is cut into blocks of `step` elements. Window `w` begins with block `w`, so that its part `q`, of `step` elements as well, lies in
/// block `w + q`; block `b` is the sum of part `q` of window `b - q` over all `q`. Windows side by side have one part, and nothing is added.
fn fold_windows(grad: &Tensor, shape: &[usize], dim: usize, size: usize, step: usize) -> Result<Tensor> {
    let (windows, last) = (grad.shape()[dim], grad.rank() - 1);
    let parts = size.div_ceil(step);
    if parts == 0 || grad.numel() == 0 {
        return grad.zeros_of(shape);
    }
    let pad = |x: &Tensor, dim: usize, before: usize, after: isize| {
        if before == 0 && after == 0 {
            return Ok(x.clone());
        }
        let mut margins = vec![(0, 0); x.rank() - dim];
        margins[x.rank() - dim - 1] = (before as isize, after);
        x.pad(&margins, 0i64)
    };
    let parted = Dims::from_iter(grad.shape()[..last].iter().copied().chain([parts, step]));
    let parted = pad(grad, last, 0, (parts * step - size) as isize)?.reshaped(&parted)?;
    // The last dim, the elements of a part, goes directly behind the dim that counts the windows.
    let beside = |x: &Tensor| {
        let mut dims: SmallVec<[usize; 4]> = (0..last).collect();
        dims.insert(dim + 1, last);
        x.view_value(&Permute { dims })
    };
    let blocks = if parts <= FEW {
        let mut sum: Option<Tensor> = None;
        for part in 0..parts {
            let own = beside(&parted.view_value(&Select { dim: last, index: part })?)?;
            let own = pad(&own, dim, part, (parts - 1 - part) as isize)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&own)?,
                None => own,
            });
        }
        let Some(sum) = sum else { return grad.zeros_of(shape) };
        sum
    } else {
        // With as many windows of zeros on both sides as parts overlap, the parts of block `b`, last to first, are a diagonal behind `b`.
        let reversed = parted.flip([last as isize])?;
        let around = pad(&reversed, dim, parts - 1, (parts - 1) as isize)?;
        let behind = around.view_value(&Unfold { dim, size: parts, step: 1 })?;
        let terms = behind.view_value(&Diagonal { offset: 0, dim1: last, dim2: last + 2, len: parts })?;
        beside(&terms.sum_dim(-1, false)?)?
    };
    let mut whole: Dims = shape.into();
    whole[dim] = (windows + parts - 1) * step;
    pad(&blocks.reshaped(&whole)?, dim, 0, shape[dim] as isize - whole[dim] as isize)
}
