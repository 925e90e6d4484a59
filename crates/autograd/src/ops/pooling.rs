//! Pooling: means and maxima of windows, of given size or as many as asked for.

use wgrad_array::layout::{Dims, checked_elements};
use wgrad_array::{DType, Device, Error, Expr, Result};

use super::convolution::per_dim;
use super::positions::{column, counted, quotient};
use super::reduce::require_float;
use crate::Tensor;

/// The windows of a pooling. A list has one number for each dim, or one for all.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The sizes of a window.
    pub kernel_size: Vec<usize>,
    /// Steps between windows; empty: as large as the window.
    pub stride: Vec<usize>,
    /// Margins, at most half of a window; 0.
    pub padding: Vec<usize>,
    /// Steps between a window's elements, for maxima only; 1.
    pub dilation: Vec<usize>,
    /// Whether windows that begin inside may reach beyond the end.
    pub ceil_mode: bool,
    /// Whether a mean counts the margins' zeros; true.
    pub count_include_pad: bool,
    /// What sums are divided by, instead of the number of elements.
    pub divisor_override: Option<isize>,
}

impl PoolOptions {
    /// Windows of these sizes, side by side.
    pub fn new(kernel_size: &[usize]) -> PoolOptions {
        PoolOptions {
            kernel_size: kernel_size.to_vec(),
            stride: Vec::new(),
            padding: vec![0],
            dilation: vec![1],
            ceil_mode: false,
            count_include_pad: true,
            divisor_override: None,
        }
    }
}

/// The windows along one dim.
struct Line {
    size: usize,
    window: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    count: usize,
}

impl Line {
    /// Elements that the windows reach beyond the input's end.
    fn after(&self) -> isize {
        let end = (self.count - 1) * self.stride + (self.window - 1) * self.dilation + 1;
        end as isize - (self.size + self.padding) as isize
    }

    /// Where a mean ends to count elements: with the margins or without.
    fn counted_end(&self, margins: bool) -> usize {
        self.size + self.padding + if margins { self.padding } else { 0 }
    }

    /// Whether all elements of all windows count in a mean.
    fn is_whole(&self, margins: bool) -> bool {
        let end = (self.count - 1) * self.stride + self.window;
        (margins || self.padding == 0) && end <= self.counted_end(margins)
    }

    /// How many elements of each window count in a mean, as i64.
    fn counts(&self, op: &'static str, margins: bool, device: &Device) -> Result<Expr> {
        let start = counted(op, self.count, device)? * self.stride as i64;
        let end = (&start + self.window as i64).min(self.counted_end(margins) as i64);
        let start = if margins { start } else { start.max(self.padding as i64) };
        Ok((end - start).max(0i64))
    }
}

impl PoolOptions {
    fn lines(&self, op: &'static str, x: &Tensor, dims: usize) -> Result<Vec<Line>> {
        let window = per_dim(op, "kernel_size", &self.kernel_size, dims, 1)?;
        let stride = if self.stride.is_empty() {
            window.clone()
        } else {
            per_dim(op, "stride", &self.stride, dims, 1)?
        };
        let padding = per_dim(op, "padding", &self.padding, dims, 0)?;
        let dilation = per_dim(op, "dilation", &self.dilation, dims, 1)?;
        if x.rank() != dims + 1 && x.rank() != dims + 2 {
            let reason = format!("does not have {} or {} dims", dims + 1, dims + 2);
            return Err(Error::Shape { op, shape: x.shape().to_vec(), reason });
        }
        let first = x.rank() - dims;
        if x.shape()[x.rank() - dims - 1..].contains(&0) {
            return Err(Error::Shape {
                op,
                shape: x.shape().to_vec(),
                reason: "has an empty dim beside the batch".into(),
            });
        }
        let mut lines = Vec::new();
        for i in 0..dims {
            let (size, window, stride, padding, dilation) =
                (x.shape()[first + i], window[i], stride[i], padding[i], dilation[i]);
            let too_large = || Error::Argument {
                op,
                reason: format!("a window of {window} with dilation {dilation} overflows"),
            };
            let span =
                (window - 1).checked_mul(dilation).and_then(|n| n.checked_add(1)).ok_or_else(too_large)?;
            if padding > span / 2 {
                let reason = format!("padding is {padding}; it must be at most half of the window, {span}");
                return Err(Error::Argument { op, reason });
            }
            let too_small = || Error::Shape {
                op,
                shape: x.shape().to_vec(),
                reason: format!("is smaller than a window of {span}, also with margins of {padding}"),
            };
            // With `ceil_mode` the last window may reach beyond the margin, and so may the only one.
            let beyond = if self.ceil_mode { stride - 1 } else { 0 };
            let room =
                padding.checked_mul(2).and_then(|n| n.checked_add(size)).and_then(|n| n.checked_add(beyond));
            let room = room.and_then(|n| n.checked_sub(span)).ok_or_else(too_small)?;
            let mut count = room / stride + 1;
            // A window must begin inside of the input or its first margin.
            if self.ceil_mode && (count - 1) * stride >= size + padding {
                count -= 1;
            }
            lines.push(Line { size, window, stride, padding, dilation, count });
        }
        Ok(lines)
    }
}

/// The windows of the last dims, margins filled with a number, as one last dim: `[.., outputs.., elements]`.
fn pooled_windows(x: &Tensor, lines: &[Line], fill: f64) -> Result<Tensor> {
    let margins: Vec<(isize, isize)> =
        lines.iter().rev().map(|line| (line.padding as isize, line.after())).collect();
    let padded = if x.dtype().is_float() { x.pad(&margins, fill)? } else { x.pad(&margins, fill as i64)? };
    let (sizes, strides, dilations): (Vec<_>, Vec<_>, Vec<_>) = (
        lines.iter().map(|line| line.window).collect(),
        lines.iter().map(|line| line.stride).collect(),
        lines.iter().map(|line| line.dilation).collect(),
    );
    let windows = padded.windows(&sizes, &strides, &dilations)?;
    windows.flatten(x.rank() as isize, -1)
}

#[wgrad_macros::call_sites]
impl Tensor {
    /// The means of windows over the last dim; `F.avg_pool1d`. The input is `[batch, channels, size]`, or without a batch.
    ///
    /// # Errors
    /// If the shape is another, a window does not fit, or the padding is more than half of it.
    pub fn avg_pool1d(&self, options: &PoolOptions) -> Result<Tensor> {
        self.avg_pool("avg_pool1d", options, 1)
    }

    /// The means of windows over the last two dims; `F.avg_pool2d`.
    ///
    /// # Errors
    /// As [`Tensor::avg_pool1d`].
    pub fn avg_pool2d(&self, options: &PoolOptions) -> Result<Tensor> {
        self.avg_pool("avg_pool2d", options, 2)
    }

    fn avg_pool(&self, op: &'static str, options: &PoolOptions, dims: usize) -> Result<Tensor> {
        require_float(op, self)?;
        if options.divisor_override == Some(0) {
            return Err(Error::Argument { op, reason: "divisor_override is 0".into() });
        }
        let lines = options.lines(op, self, dims)?;
        let sum = pooled_windows(&self.widened()?, &lines, 0.0)?.sum_dim(-1, false)?;
        let out = match options.divisor_override {
            Some(divisor) => sum.div(divisor as f64)?,
            None if lines.iter().all(|line| line.is_whole(options.count_include_pad)) => {
                sum.div(lines.iter().map(|line| line.window as f64).product::<f64>())?
            }
            None => {
                // How many elements each window has, as a product over the dims.
                let mut counts: Option<Expr> = None;
                for (i, line) in lines.iter().enumerate() {
                    let mut shape = vec![line.count];
                    shape.resize(dims - i, 1);
                    let own = line.counts(op, options.count_include_pad, self.device())?;
                    let own = own.cast(sum.dtype()).map(|own| own.reshape(&shape));
                    counts = Some(match counts {
                        Some(counts) => counts * own,
                        None => own,
                    });
                }
                match counts {
                    Some(counts) => sum.div(Tensor::from_array(counts.done()?))?,
                    None => sum,
                }
            }
        };
        out.to_dtype(self.dtype())
    }

    /// The largest elements of windows over the last dim, and their places (i64) in it; `F.max_pool1d`.
    ///
    /// # Errors
    /// As [`Tensor::avg_pool1d`].
    pub fn max_pool1d(&self, options: &PoolOptions) -> Result<(Tensor, Tensor)> {
        self.max_pool("max_pool1d", options, 1)
    }

    /// The largest elements of windows over the last two dims, and their places (i64) in the flattened plane; `F.max_pool2d`.
    ///
    /// # Errors
    /// As [`Tensor::avg_pool1d`].
    pub fn max_pool2d(&self, options: &PoolOptions) -> Result<(Tensor, Tensor)> {
        self.max_pool("max_pool2d", options, 2)
    }

    fn max_pool(&self, op: &'static str, options: &PoolOptions, dims: usize) -> Result<(Tensor, Tensor)> {
        require_float(op, self)?;
        let lines = options.lines(op, self, dims)?;
        let windows = pooled_windows(self, &lines, f64::NEG_INFINITY)?;
        let places = pooled_windows(&self.plane(dims)?, &lines, -1.0)?;
        largest_of(&windows, &places)
    }

    /// The places of the elements in the plane of the last dims, as i64, in a shape that broadcasts.
    fn plane(&self, dims: usize) -> Result<Tensor> {
        let sizes = &self.shape()[self.rank() - dims..];
        let elements: usize = sizes.iter().product();
        let mut shape = vec![1; self.rank() - dims];
        shape.extend(sizes);
        Tensor::arange(0, elements as i64, 1, (DType::I64, self.device()))?.reshape(shape)
    }

    /// `output` means of as equal parts of the last dim as can be; `F.adaptive_avg_pool1d`.
    ///
    /// # Errors
    /// If there are not two or three dims, one beside the batch is empty, or the dtype is not a float one.
    pub fn adaptive_avg_pool1d(&self, output: usize) -> Result<Tensor> {
        self.adaptive_avg_pool("adaptive_avg_pool1d", &[Some(output)])
    }

    /// `output` means of as equal parts of the last two dims as can be, `None` for as many as there are; `F.adaptive_avg_pool2d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool1d`], with one more dim.
    pub fn adaptive_avg_pool2d(&self, output: [Option<usize>; 2]) -> Result<Tensor> {
        self.adaptive_avg_pool("adaptive_avg_pool2d", &output)
    }

    pub(super) fn adaptive_avg_pool(&self, op: &'static str, output: &[Option<usize>]) -> Result<Tensor> {
        require_float(op, self)?;
        self.check_adaptive(op, output.len())?;
        let mut out = self.widened()?;
        let first = self.rank() - output.len();
        for (i, output) in output.iter().enumerate() {
            let size = self.shape()[first + i];
            let Some(count) = output.filter(|&count| count != size) else { continue };
            checked_elements(op, &[count, size])?;
            let (start, end) = part_of(&column(op, count, self.device())?, count, size);
            let place = counted(op, size, self.device())?;
            let inside = start.le(&place).and(end.gt(&place));
            let weights = inside.cast(out.dtype()) / (end - start).cast(out.dtype());
            out = out.along(first + i, &Tensor::from_array(weights.done()?))?;
        }
        out.to_dtype(self.dtype())
    }

    /// A matrix `[outputs, size]` applied along a dim.
    pub(super) fn along(&self, dim: usize, matrix: &Tensor) -> Result<Tensor> {
        let matrix = matrix.to_dtype(self.dtype())?;
        self.movedim(dim, -1)?.matmul(&matrix.t()?)?.movedim(-1, dim)
    }

    fn check_adaptive(&self, op: &'static str, dims: usize) -> Result<()> {
        let fits = self.rank() == dims + 1 || self.rank() == dims + 2;
        if fits && !self.shape()[self.rank() - dims..].contains(&0) {
            return Ok(());
        }
        let reason =
            format!("is not [batch, channels, {dims} dims that are not empty], or that without the batch");
        Err(Error::Shape { op, shape: self.shape().to_vec(), reason })
    }

    /// The largest elements of as equal parts of the last two dims as can be, `None` for as many as there are, and their places (i64) in the
    /// flattened plane; `F.adaptive_max_pool2d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool2d`].
    pub fn adaptive_max_pool2d(&self, output: [Option<usize>; 2]) -> Result<(Tensor, Tensor)> {
        const OP: &str = "adaptive_max_pool2d";
        require_float(OP, self)?;
        self.check_adaptive(OP, 2)?;
        let first = self.rank() - 2;
        let (mut values, mut places) = (self.clone(), self.plane(2)?);
        let mut split: Dims = self.shape()[..first].into();
        for (i, output) in output.iter().enumerate() {
            let size = self.shape()[first + i];
            let count = output.unwrap_or(size);
            checked_elements(OP, &[count, size])?;
            let longest = longest_part(count, size);
            // Parts of one length: the last element stands in where a part is shorter, and never wins over itself.
            let (start, end) = part_of(&column(OP, count, self.device())?, count, size);
            let list = (start + counted(OP, longest, self.device())?).min(end - 1i64);
            let list = list.map(|list| list.reshape(&[count * longest]));
            // A short list, and long integer quotients: kernels that read it should not compute it again for each element.
            let list = Tensor::from_array(list.done()?.stored());
            (values, places) = (
                values.index_select((first + i) as isize, &list)?,
                places.index_select((first + i) as isize, &list)?,
            );
            split.extend([count, longest]);
        }
        let arranged = |x: &Tensor| {
            let mut shape: Vec<usize> = x.shape()[..first].to_vec();
            shape.extend(&split[first..]);
            let mut order: Vec<usize> = (0..first).collect();
            order.extend([0, 2, 1, 3].map(|d| first + d));
            x.reshape(shape)?.permute(order)?.flatten(first as isize + 2, -1)
        };
        largest_of(&arranged(&values)?, &arranged(&places)?)
    }
}

/// The largest along the last dim, and what `places` has there.
fn largest_of(windows: &Tensor, places: &Tensor) -> Result<(Tensor, Tensor)> {
    if windows.numel() == 0 {
        let empty = windows.sum_dim(-1, false)?;
        let none = Tensor::zeros(empty.shape(), (DType::I64, windows.device()))?;
        return Ok((empty, none));
    }
    let (values, at) = windows.max_dim(-1, false)?;
    let places = places.expand(windows.shape())?.gather(-1, &at.unsqueeze(-1)?)?.squeeze_dim(-1)?;
    Ok((values, places))
}

/// The beginnings and ends of those of `count` parts of `size` elements that have these numbers.
fn part_of(part: &Expr, count: usize, size: usize) -> (Expr, Expr) {
    let before = part * size as i64;
    let behind = &before + (size + count.max(1) - 1) as i64;
    (quotient(&before, count.max(1)), quotient(&behind, count.max(1)))
}

/// How many elements the longest of `count` parts of `size` elements has: the one that begins as late as possible in one.
fn longest_part(count: usize, size: usize) -> usize {
    if count == 0 {
        return 1;
    }
    let (mut divisor, mut rest) = (count, size);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (count - divisor + size).div_ceil(count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_longest_part_is_as_long_as_the_longest() {
        for (count, size) in (1..40).flat_map(|count| (1..40).map(move |size| (count, size))) {
            let length = |part: usize| ((part + 1) * size).div_ceil(count) - part * size / count;
            let longest = (0..count).map(length).max();
            assert_eq!(Some(super::longest_part(count, size)), longest, "{count} parts of {size}");
        }
    }
}
