//! The three products of a convolution: an output of windows and a weight, and the gradients for the input and for the weight. The
//! derivative of each is made of the other two, so that derivatives of any order are the same few kernels.
//!
//! With an input `x[n, c, i]`, a weight `w[o, c, k]` and an output `y[n, o, q]` per group, all three sum up
//! `x[n, c, q * stride + k * dilation - before] * w[o, c, k] * y[n, o, q]` without one of its factors, over what is not theirs. Each is a
//! matrix product one of whose factors views windows, which products read where they lie. Where a group has few channels, arithmetic on
//! shifted inputs, or a sum over windows, is faster on a GPU than a product.

use std::sync::Arc;

use smallvec::SmallVec;
use wgrad_array::layout::Dims;
use wgrad_array::{Array, BinaryOp, Device, Error, ReduceOp, Result};

use crate::ops::elementwise::unary::rounded;
use crate::ops::reduce::widened;
use crate::tape::{Derivative, record};
use crate::{AsTensor, Tensor};

/// The most terms of a sum that is written out, and the most outputs of a group for which it is.
const FEW_TERMS: usize = 32;
const FEW_OUTPUTS: usize = 2;

/// The sizes of a convolution; the lists have a number for each dim that it walks along.
pub(super) struct Geometry {
    pub(super) groups: usize,
    pub(super) stride: Vec<usize>,
    pub(super) dilation: Vec<usize>,
    /// Zeros before the input.
    pub(super) before: Vec<usize>,
    /// Sizes of the input, of a window, and how many windows there are.
    pub(super) input: Vec<usize>,
    pub(super) window: Vec<usize>,
    pub(super) output: Vec<usize>,
}

/// Outputs of an image, up to which those of a whole batch are one product's columns. More fill a product on their own, whose result then
/// lies as the output does, so that what follows can be its epilogue.
const FEW_COLUMNS: usize = 64;

/// Which of a convolution's three arrays is made of the other two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `[batch, out channels, outputs..]` of the input and the weight.
    Output,
    /// `[batch, channels, inputs..]` of the output and the weight.
    Input,
    /// `[out channels, channels / groups, window..]` of the input and the output.
    Weight,
}

/// One of the three products, with a bias for each of its channels.
pub(super) fn product(
    role: Role,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Arc<Geometry>,
) -> Result<Tensor> {
    let (left, right) = (a.operand()?, b.operand()?);
    // Halves are rounded after the bias is added.
    let rounds = bias.is_none();
    let mut out = match role {
        Role::Output => geometry.output_of(&left.array, &right.array, rounds)?,
        Role::Input => geometry.input_of(&left.array, &right.array, rounds)?,
        Role::Weight => geometry.weight_of(&left.array, &right.array)?,
    };
    let mut inputs: SmallVec<[_; 3]> = smallvec::smallvec![left, right];
    if let Some(bias) = bias {
        let bias = bias.operand()?;
        let mut shape: Dims = SmallVec::from_elem(1, out.rank());
        shape[1] = out.shape()[1];
        out = out.binary(BinaryOp::Add, &widened(&bias.array)?.reshape(&shape)?)?;
        out = rounded(out, a.dtype())?;
        inputs.push(bias);
    }
    let name = if role == Role::Weight { "ConvolutionBackwardBackward0" } else { "ConvolutionBackward0" };
    let geometry = geometry.clone();
    Ok(record(out, inputs, |inputs, _| {
        let (left, right, count) = (inputs[0].needs_grad(), inputs[1].needs_grad(), inputs.len());
        Derivative::with(name, move |c| {
            let (g, [left, right]) = (c.grad()?, c.saved());
            c.each(count, |i| match (role, i) {
                (Role::Output, 0) => product(Role::Input, g, right.as_tensor()?, None, &geometry),
                (Role::Output, 1) => product(Role::Weight, left.as_tensor()?, g, None, &geometry),
                (Role::Input, 0) => product(Role::Output, g, right.as_tensor()?, None, &geometry),
                (Role::Input, 1) => product(Role::Weight, g, left.as_tensor()?, None, &geometry),
                (Role::Weight, 0) => product(Role::Input, right.as_tensor()?, g, None, &geometry),
                (Role::Weight, 1) => product(Role::Output, left.as_tensor()?, g, None, &geometry),
                _ => {
                    let others: Vec<isize> = (0..g.rank() as isize).filter(|&d| d != 1).collect();
                    g.sum_dim(&others[..], false)
                }
            })
        })
        .save_input_if(right, inputs, 0)
        .save_input_if(left, inputs, 1)
    }))
}

/// Windows along one dim of an array: how many, their elements, the steps between both, and where the first begins.
struct Line {
    count: usize,
    size: usize,
    stride: usize,
    dilation: usize,
    before: isize,
}

impl Geometry {
    fn dims(&self) -> usize {
        self.window.len()
    }

    /// The input's windows: `[batch, groups, channels, outputs.., window..]`.
    fn windows(&self, x: &Array) -> Result<Array> {
        let line = |i: usize| Line {
            count: self.output[i],
            size: self.window[i],
            stride: self.stride[i],
            dilation: self.dilation[i],
            before: self.before[i] as isize,
        };
        windows(x, self.groups, &(0..self.dims()).map(line).collect::<Vec<_>>())
    }

    /// The weight as `[groups, out channels, channels, window..]` of a group.
    fn grouped(&self, weight: &Array) -> Result<Array> {
        let shape = weight.shape();
        weight.reshape(&join(&[&[self.groups, shape[0] / self.groups], &shape[1..]]))
    }

    fn output_of(&self, x: &Array, weight: &Array, rounds: bool) -> Result<Array> {
        let out = of_windows(&self.windows(x)?, &self.grouped(weight)?, self.dims(), rounds)?;
        out.reshape(&join(&[&[x.shape()[0], weight.shape()[0]], &self.output]))
    }

    fn weight_of(&self, x: &Array, output: &Array) -> Result<Array> {
        let (seen, dims) = (self.windows(x)?, self.dims());
        let (batch, own) = (seen.shape()[0], seen.shape()[2]);
        let (outs, count) = (output.shape()[1] / self.groups, self.output.iter().product::<usize>());
        let shape = join(&[&[self.groups * outs, own], &self.window]);
        let taps: usize = self.window.iter().product();
        if is_written_out(x, outs, own * taps) {
            // [groups, outs, channels, window.., batch, outputs..]
            let order = join(&[&[1, 2], &range(3 + dims, dims), &[0], &range(3, dims)]);
            let seen = widened(&seen)?.permute(&order)?;
            let seen = seen.reshape(&join(&[&[self.groups, 1], &seen.shape()[1..]]))?;
            let output = output.reshape(&join(&[&[batch, self.groups, outs], &self.output]))?;
            let output = output.permute(&join(&[&[1, 2, 0], &range(3, dims)]))?;
            let ones: Dims = SmallVec::from_elem(1, 1 + dims);
            let output = output.reshape(&join(&[&[self.groups, outs], &ones, &[batch], &self.output]))?;
            let terms = seen.binary(BinaryOp::Mul, &widened(&output)?)?;
            let sum = terms.reduce(ReduceOp::Sum, &range(3 + dims, 1 + dims), false)?;
            return sum.reshape(&shape)?.cast(x.dtype());
        }
        // [groups, batch and outputs, channels and window]
        let order = join(&[&[1, 0], &range(3, dims), &[2], &range(3 + dims, dims)]);
        let seen = seen.permute(&order)?.reshape(&[self.groups, batch * count, own * taps])?;
        let output = output.reshape(&[batch, self.groups, outs, count])?.permute(&[1, 2, 0, 3])?;
        output.reshape(&[self.groups, outs, batch * count])?.matmul(&seen)?.reshape(&shape)
    }

    /// The element `i = a * stride + r - before` of the input meets the output `a - t` through the weight's `t * stride + r`: for each
    /// remainder r of the window's places a convolution of the output, without a step, with a part of the weight. Together they are
    /// one with as many times the channels, which then take their places side by side.
    fn input_of(&self, output: &Array, weight: &Array, rounds: bool) -> Result<Array> {
        let dims = self.dims();
        let mut weight = self.grouped(weight)?;
        let mut output = output.clone();
        let mut lines = Vec::new();
        let (mut steps, mut remainders) = (Vec::new(), Vec::new());
        for i in 0..dims {
            let (mut stride, size, dilation) = (self.stride[i], self.window[i], self.dilation[i]);
            if stride > 1 && dilation > 1 && size > 1 {
                output = spread(&output, 2 + i, stride)?;
                stride = 1;
            }
            let (before, input) = (self.before[i], self.input[i]);
            if stride == 1 {
                let reach = (size - 1) * dilation;
                lines.push(Line {
                    count: input,
                    size,
                    stride: 1,
                    dilation,
                    before: reach as isize - before as isize,
                });
            } else {
                let (count, taps) = ((input + before).div_ceil(stride), size.div_ceil(stride));
                lines.push(Line { count, size: taps, stride: 1, dilation: 1, before: taps as isize - 1 });
                let mut amounts = vec![(0, 0); 3 + dims];
                amounts[3 + i].1 = (taps * stride.min(size) - size) as isize;
                weight = weight.pad(&amounts)?;
            }
            steps.push(stride);
            remainders.push(stride.min(size));
        }
        // [groups, outs, channels, (taps, stride)..] to [groups, (channels, strides..), outs, taps..], turned around.
        let &[groups, outs, own, ..] = weight.shape() else { return Err(no_weight(&weight)) };
        let split: Dims =
            lines.iter().zip(&remainders).flat_map(|(line, &count)| [line.size, count]).collect();
        let (taps, parts): (Dims, Dims) =
            ((0..dims).map(|i| 3 + 2 * i).collect(), (0..dims).map(|i| 4 + 2 * i).collect());
        let weight = weight.reshape(&join(&[&[groups, outs, own], &split]))?.flip(&taps)?;
        let weight = weight.permute(&join(&[&[0, 2], &parts, &[1], &taps]))?;
        let all: usize = remainders.iter().product();
        let sizes: Dims = lines.iter().map(|line| line.size).collect();
        let weight = weight.reshape(&join(&[&[groups, own * all, outs], &sizes]))?;
        let out = of_windows(&windows(&output, groups, &lines)?, &weight, dims, rounds)?;
        // [batch, groups, (channels, strides..), counts..] to [batch, channels, (count, stride)..]
        let (batch, counts) = (out.shape()[0], lines.iter().map(|line| line.count).collect::<Dims>());
        let out = out.reshape(&join(&[&[batch, groups * own], &remainders, &counts]))?;
        // Where steps are longer than the window, no output meets the remaining elements.
        let mut amounts = vec![(0, 0); 2 + 2 * dims];
        for (i, (&step, &count)) in steps.iter().zip(&remainders).enumerate() {
            amounts[2 + i].1 = (step - count) as isize;
        }
        let out = out.pad(&amounts)?;
        let side_by_side: Dims = (0..dims).flat_map(|i| [2 + dims + i, 2 + i]).collect();
        let joined: Dims = counts.iter().zip(&steps).map(|(count, step)| count * step).collect();
        let mut out = out
            .permute(&join(&[&[0, 1], &side_by_side]))?
            .reshape(&join(&[&[batch, groups * own], &joined]))?;
        for i in (0..dims).filter(|&i| steps[i] > 1) {
            out = out.slice(2 + i, self.before[i], self.input[i], 1)?;
        }
        Ok(out)
    }
}

/// Windows of the dims behind batch and channels: `[batch, groups, channels, counts.., sizes..]`.
fn windows(x: &Array, groups: usize, lines: &[Line]) -> Result<Array> {
    let mut out = x.clone();
    let mut amounts = vec![(0, 0); x.rank()];
    let mut ends = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let end = (line.count.max(1) - 1) * line.stride + (line.size - 1) * line.dilation + 1;
        let after = end as isize - line.before - x.shape()[2 + i] as isize;
        amounts[2 + i] = (line.before.max(0), after.max(0));
        ends.push(end);
    }
    out = out.pad(&amounts)?;
    for (i, (line, &end)) in lines.iter().zip(&ends).enumerate() {
        out = out.slice(2 + i, line.before.min(0).unsigned_abs(), end, 1)?;
    }
    for (i, line) in lines.iter().enumerate() {
        out = out.unfold(2 + i, (line.size - 1) * line.dilation + 1, line.stride)?;
        out = out.slice(out.rank() - 1, 0, line.size, line.dilation)?;
        out = out.slice(2 + i, 0, line.count, 1)?;
    }
    let shape = out.shape();
    out.reshape(&join(&[&[shape[0], groups, shape[1] / groups], &shape[2..]]))
}

/// The sums over channels and windows of `[batch, groups, channels, counts.., sizes..]` times `[groups, outs, channels, sizes..]`, as
/// `[batch, groups, outs, counts..]`; with `rounds` in their dtype, else halves in f32.
fn of_windows(seen: &Array, weight: &Array, dims: usize, rounds: bool) -> Result<Array> {
    let shape = seen.shape();
    let &[batch, groups, own, ..] = shape else { return Err(no_weight(seen)) };
    let (counts, sizes, outs) = (&shape[3..3 + dims], &shape[3 + dims..], weight.shape()[1]);
    let terms = own * sizes.iter().product::<usize>();
    let ones: Dims = SmallVec::from_elem(1, dims);
    if is_written_out(seen, outs, terms) {
        let (dtype, seen, weight) = (seen.dtype(), widened(seen)?, widened(weight)?);
        let mut sum: Option<Array> = None;
        for term in 0..terms {
            let (mut at, mut rest) = (Vec::new(), term);
            for &size in sizes.iter().rev() {
                at.push(rest % size);
                rest /= size;
            }
            at.push(rest);
            at.reverse();
            let mut here = seen.slice(2, at[0], 1, 1)?;
            let mut factor = weight.slice(2, at[0], 1, 1)?;
            for (i, &at) in at[1..].iter().enumerate() {
                here = here.slice(3 + dims + i, at, 1, 1)?;
                factor = factor.slice(3 + i, at, 1, 1)?;
            }
            let here = here.reshape(&join(&[&[batch, groups, 1], counts]))?;
            let factor = factor.reshape(&join(&[&[1, groups, outs], &ones]))?;
            let product = here.binary(BinaryOp::Mul, &factor)?;
            sum = Some(match sum {
                None => product,
                Some(sum) => sum.binary(BinaryOp::Add, &product)?,
            });
        }
        let sum = sum.ok_or_else(|| no_weight(&weight))?;
        return if rounds { sum.cast(dtype) } else { Ok(sum) };
    }
    let multiply = if rounds { Array::matmul } else { Array::matmul_unrounded };
    let count: usize = counts.iter().product();
    if batch > 1 && count <= FEW_COLUMNS {
        let order = join(&[&[1, 2], &range(3 + dims, dims), &[0], &range(3, dims)]);
        let columns = seen.permute(&order)?.reshape(&[groups, terms, batch * count])?;
        let out = multiply(&weight.reshape(&[groups, outs, terms])?, &columns)?;
        let out = out.reshape(&join(&[&[groups, outs, batch], counts]))?;
        return out.permute(&join(&[&[2, 0, 1], &range(3, dims)]));
    }
    let order = join(&[&[0, 1, 2], &range(3 + dims, dims), &range(3, dims)]);
    let columns = seen.permute(&order)?.reshape(&[batch, groups, terms, count])?;
    let weight = weight.reshape(&[1, groups, outs, terms])?;
    multiply(&weight, &columns)?.reshape(&join(&[&[batch, groups, outs], counts]))
}

/// Whether a sum of so many terms, for so many outputs of a group, is better arithmetic than a product.
fn is_written_out(x: &Array, outs: usize, terms: usize) -> bool {
    *x.device() != Device::cpu() && outs <= FEW_OUTPUTS && (1..=FEW_TERMS).contains(&terms)
}

/// Zeros between the elements of a dim.
fn spread(x: &Array, dim: usize, stride: usize) -> Result<Array> {
    let shape = x.shape();
    let size = shape[dim];
    let mut amounts = vec![(0, 0); shape.len() + 1];
    amounts[dim + 1].1 = stride as isize - 1;
    let apart = x.reshape(&join(&[&shape[..=dim], &[1], &shape[dim + 1..]]))?.pad(&amounts)?;
    let apart = apart.reshape(&join(&[&shape[..dim], &[size * stride], &shape[dim + 1..]]))?;
    apart.slice(dim, 0, (size * stride).saturating_sub(stride - 1), 1)
}

fn join(parts: &[&[usize]]) -> Dims {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}

fn range(first: usize, count: usize) -> Dims {
    (first..first + count).collect()
}

fn no_weight(x: &Array) -> Error {
    Error::Shape { op: "conv", shape: x.shape().to_vec(), reason: "is not that of windows or weights".into() }
}
