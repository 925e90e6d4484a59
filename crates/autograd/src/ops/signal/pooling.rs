//! Pooling: means and maxima of windows, of given size or as many as asked for.

mod adaptive;
mod line;
mod maxima;
mod means;

use wgrad_array::{Error, Result};

use crate::Tensor;
use crate::ops::signal::convolution::per_dim;
use line::Line;

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

/// # Pooling: windows
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

    /// The means of windows over the last three dims; `F.avg_pool3d`.
    ///
    /// # Errors
    /// As [`Tensor::avg_pool1d`].
    pub fn avg_pool3d(&self, options: &PoolOptions) -> Result<Tensor> {
        self.avg_pool("avg_pool3d", options, 3)
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

    /// The largest elements of windows over the last three dims, and their places (i64) in them flattened; `F.max_pool3d`.
    ///
    /// # Errors
    /// As [`Tensor::avg_pool1d`].
    pub fn max_pool3d(&self, options: &PoolOptions) -> Result<(Tensor, Tensor)> {
        self.max_pool("max_pool3d", options, 3)
    }
}
