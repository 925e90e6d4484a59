//! Convolution and its transposed form over one, two or three dims, and the windows that both and pooling look through.
//!
//! A convolution is a matrix product over windows of its input, which are views (`product`); its transposed form is its gradient for the
//! input.

mod product;

use std::sync::Arc;

use wgrad_array::layout::checked_elements;
use wgrad_array::{Array, DType, Error, Expr, Result};

use crate::Tensor;
use crate::ops::reduce::require_float;
use product::{Geometry, Role, product};

/// The margins of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As many zeros on both sides, for each dim, or one number for all.
    Explicit(Vec<usize>),
    /// None: only whole windows.
    Valid,
    /// As many as give an output of the input's size; for a stride of 1.
    Same,
}

/// The settings of a convolution. A list has one number for each dim, or one for all.
#[derive(Clone, Debug)]
pub struct ConvOptions {
    /// Steps between windows; 1.
    pub stride: Vec<usize>,
    /// Margins of zeros; 0.
    pub padding: Padding,
    /// Steps between a window's elements; 1.
    pub dilation: Vec<usize>,
    /// Groups of channels that do not see each other; 1.
    pub groups: usize,
    /// Only for the transposed form: elements added at the end; 0.
    pub output_padding: Vec<usize>,
}

impl Default for ConvOptions {
    fn default() -> Self {
        ConvOptions {
            stride: vec![1],
            padding: Padding::Explicit(vec![0]),
            dilation: vec![1],
            groups: 1,
            output_padding: vec![0],
        }
    }
}

/// One number for each of `dims`, from a list that has as many, or one for all: at least `least`, and below 2^31.
pub(in crate::ops) fn per_dim(
    op: &'static str,
    name: &str,
    list: &[usize],
    dims: usize,
    least: usize,
) -> Result<Vec<usize>> {
    let out = match list {
        [one] => vec![*one; dims],
        list if list.len() == dims => list.to_vec(),
        list => {
            let reason =
                format!("{name} has {} numbers; give one, or one for each of {dims} dims", list.len());
            return Err(Error::Argument { op, reason });
        }
    };
    // Products of two such numbers fit everywhere.
    match out.iter().find(|n| **n < least || **n > i32::MAX as usize) {
        Some(off) => {
            let reason = format!("{name} is {off}; it must be between {least} and {}", i32::MAX);
            Err(Error::Argument { op, reason })
        }
        None => Ok(out),
    }
}

/// # Convolutions
#[wgrad_macros::call_sites]
impl Tensor {
    /// Windows of the last dims: `[.., outputs.., sizes..]`. Each has `size` elements, `dilation` apart; windows are `stride` apart.
    pub(in crate::ops) fn windows(
        &self,
        sizes: &[usize],
        stride: &[usize],
        dilation: &[usize],
    ) -> Result<Tensor> {
        let mut out = self.clone();
        let first = self.rank() - sizes.len();
        for (i, &size) in sizes.iter().enumerate() {
            let span = (size - 1) * dilation[i] + 1;
            out = out.unfold((first + i) as isize, span, stride[i])?;
            if dilation[i] > 1 {
                out = out.slice(-1, None, None, dilation[i])?;
            }
        }
        Ok(out)
    }

    /// Margins of zeros around the last dims: for each, before and after.
    fn with_margins(&self, margins: &[(isize, isize)]) -> Result<Tensor> {
        if margins.iter().all(|margin| *margin == (0, 0)) {
            return Ok(self.clone());
        }
        let reversed: Vec<(isize, isize)> = margins.iter().rev().copied().collect();
        self.pad(&reversed, 0.0)
    }

    /// How many dims the weight must have.
    fn check_window(op: &'static str, weight: &Tensor, dims: usize) -> Result<()> {
        if weight.rank() == dims + 2 {
            return Ok(());
        }
        let reason = format!("is not that of a weight: two dims of channels and {dims} of a window");
        Err(Error::Shape { op, shape: weight.shape().to_vec(), reason })
    }

    /// What every convolution checks; the input with a batch dim, and whether it had one.
    fn convolved_input(
        &self,
        op: &'static str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        dims: usize,
    ) -> Result<(Tensor, bool)> {
        require_float(op, self)?;
        for x in [Some(weight), bias].into_iter().flatten() {
            if x.dtype() != self.dtype() {
                let reason = format!("is not that of the input, {}; cast one", self.dtype());
                return Err(Error::DType { op, dtype: x.dtype(), reason });
            }
        }
        if weight.rank() != dims + 2 || weight.shape()[2..].contains(&0) {
            let reason = format!("is not that of a weight: two dims of channels and {dims} of a window");
            return Err(Error::Shape { op, shape: weight.shape().to_vec(), reason });
        }
        let batched = self.rank() == dims + 2;
        if !batched && self.rank() != dims + 1 {
            let reason = format!(
                "does not have {} dims (batch, channels, and {dims} to walk along) or one less",
                dims + 2
            );
            return Err(Error::Shape { op, shape: self.shape().to_vec(), reason });
        }
        Ok((if batched { self.clone() } else { self.unsqueeze(0)? }, batched))
    }

    /// The product of windows with a weight, summed over a group's channels: `F.conv1d`, `conv2d` and `conv3d`, by the weight's number of
    /// dims less 2. The input is `[batch, channels, sizes..]`, or without a batch; the weight `[out channels, channels / groups, window..]`;
    /// the bias has one number for each out channel.
    ///
    /// # Errors
    /// If the shapes do not fit, a window is larger than the padded input, or dtypes or devices differ.
    pub fn conv<'a>(
        &self,
        weight: &Tensor,
        bias: impl Into<Option<&'a Tensor>>,
        options: &ConvOptions,
    ) -> Result<Tensor> {
        let (op, dims) = window_dims(["conv1d", "conv2d", "conv3d"], weight)?;
        let bias = bias.into();
        let (input, batched) = self.convolved_input(op, weight, bias, dims)?;
        let (stride, dilation) = (
            per_dim(op, "stride", &options.stride, dims, 1)?,
            per_dim(op, "dilation", &options.dilation, dims, 1)?,
        );
        let window = &weight.shape()[2..];
        let margins: Vec<(isize, isize)> = match &options.padding {
            Padding::Explicit(list) => {
                per_dim(op, "padding", list, dims, 0)?.into_iter().map(|n| (n as isize, n as isize)).collect()
            }
            Padding::Valid => vec![(0, 0); dims],
            Padding::Same if stride.iter().any(|&s| s != 1) => {
                return Err(Error::Argument { op, reason: "\"same\" padding needs a stride of 1".into() });
            }
            Padding::Same => {
                let both = |i: usize| {
                    let total = span_of(op, window[i], dilation[i])? as isize - 1;
                    Ok((total / 2, total - total / 2))
                };
                (0..dims).map(both).collect::<Result<_>>()?
            }
        };
        let (channels, out_channels, groups) = (input.shape()[1], weight.shape()[0], options.groups);
        let fits = groups > 0
            && out_channels % groups == 0
            && weight.shape()[1].checked_mul(groups) == Some(channels);
        let bias_fits = bias.is_none_or(|bias| bias.shape() == [out_channels]);
        if !fits || !bias_fits {
            let lhs = if fits { bias.map_or(&[][..], Tensor::shape) } else { input.shape() };
            let reason = format!(
                "do not go together in {groups} groups: [out, in / groups, ..] weights {channels} channels"
            );
            return Err(Error::ShapeMismatch { op, lhs: lhs.to_vec(), rhs: weight.shape().to_vec(), reason });
        }
        let sizes = &input.shape()[2..];
        let mut output = Vec::with_capacity(dims);
        for i in 0..dims {
            let span = span_of(op, window[i], dilation[i])?;
            let padded = (margins[i].0 as usize)
                .checked_add(margins[i].1 as usize)
                .and_then(|margin| margin.checked_add(sizes[i]))
                .filter(|&padded| isize::try_from(padded).is_ok())
                .ok_or_else(|| Error::Argument { op, reason: "the margins overflow".into() })?;
            if span > padded {
                let reason =
                    format!("with margins has {padded} elements in a dim, fewer than the window's {span}");
                return Err(Error::Shape { op, shape: input.shape().to_vec(), reason });
            }
            output.push((padded - span) / stride[i] + 1);
        }
        let geometry = Geometry {
            groups,
            stride,
            dilation,
            before: margins.iter().map(|margin| margin.0 as usize).collect(),
            input: sizes.to_vec(),
            window: window.to_vec(),
            output,
        };
        let out = product(Role::Output, &input, weight, bias, &Arc::new(geometry))?;
        if batched { Ok(out) } else { out.squeeze_dim(0) }
    }

    /// The transposed form: each element spreads a window of products; `F.conv_transpose1d`, `2d` and `3d`. The weight is
    /// `[channels, out channels / groups, window..]`. It is the gradient of [`Tensor::conv`] for its input.
    ///
    /// # Errors
    /// As [`Tensor::conv`]; and if the output padding is not smaller than stride or dilation.
    pub fn conv_transpose<'a>(
        &self,
        weight: &Tensor,
        bias: impl Into<Option<&'a Tensor>>,
        options: &ConvOptions,
    ) -> Result<Tensor> {
        let (op, dims) = window_dims(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], weight)?;
        let bias = bias.into();
        let (input, batched) = self.convolved_input(op, weight, bias, dims)?;
        let stride = per_dim(op, "stride", &options.stride, dims, 1)?;
        let dilation = per_dim(op, "dilation", &options.dilation, dims, 1)?;
        let extra = per_dim(op, "output_padding", &options.output_padding, dims, 0)?;
        let padding = match &options.padding {
            Padding::Explicit(list) => per_dim(op, "padding", list, dims, 0)?,
            _ => return Err(Error::Argument { op, reason: "padding is given in numbers here".into() }),
        };
        if (0..dims).any(|i| extra[i] >= stride[i].max(dilation[i])) {
            let reason = "output_padding must be smaller than stride or dilation".to_owned();
            return Err(Error::Argument { op, reason });
        }
        let (channels, groups) = (input.shape()[1], options.groups);
        if groups == 0 || channels % groups != 0 || weight.shape()[0] != channels {
            let reason = format!("do not go together in {groups} groups: [in, out / groups, ..] weights");
            let (lhs, rhs) = (input.shape().to_vec(), weight.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs, reason });
        }
        let window = &weight.shape()[2..];
        // Without channels any number of groups divides them.
        let out_channels = weight.shape()[1]
            .checked_mul(groups)
            .ok_or_else(|| Error::SizeOverflow { op, shape: vec![weight.shape()[1], groups] })?;
        if let Some(bias) = bias.filter(|bias| bias.shape() != [out_channels]) {
            let reason = format!("do not go together: {out_channels} out channels need as many biases");
            let (lhs, rhs) = (bias.shape().to_vec(), weight.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs, reason });
        }
        let counts = &input.shape()[2..];
        let mut sizes = Vec::with_capacity(dims);
        for i in 0..dims {
            let span = span_of(op, window[i], dilation[i])?.checked_add(extra[i]);
            let reach = counts[i].saturating_sub(1).checked_mul(stride[i]);
            let size = reach.zip(span).and_then(|(reach, span)| reach.checked_add(span));
            let size =
                size.zip(padding[i].checked_mul(2)).and_then(|(size, margin)| size.checked_sub(margin));
            let size = size.filter(|&size| size > 0 && counts[i] > 0).ok_or_else(|| {
                let reason = "leaves an output without elements, with this padding".to_owned();
                Error::Shape { op, shape: input.shape().to_vec(), reason }
            })?;
            sizes.push(size);
        }
        let geometry = Geometry {
            groups,
            stride,
            dilation,
            before: padding,
            input: sizes,
            window: window.to_vec(),
            output: counts.to_vec(),
        };
        let out = product(Role::Input, &input, weight, bias, &Arc::new(geometry))?;
        if batched { Ok(out) } else { out.squeeze_dim(0) }
    }

    /// The windows of a batch of images as columns: `[batch, channels * window, count]`; `F.unfold`. The input may lack the batch. Lists have
    /// two numbers, or one for both.
    ///
    /// # Errors
    /// If the input is not a batch of images, or no window fits.
    pub fn im2col(
        &self,
        window: &[usize],
        dilation: &[usize],
        padding: &[usize],
        stride: &[usize],
    ) -> Result<Tensor> {
        const OP: &str = "unfold";
        if self.rank() == 3 {
            return self.unsqueeze(0)?.im2col(window, dilation, padding, stride)?.squeeze_dim(0)?.owned();
        }
        let window = per_dim(OP, "kernel_size", window, 2, 1)?;
        let (dilation, stride) =
            (per_dim(OP, "dilation", dilation, 2, 1)?, per_dim(OP, "stride", stride, 2, 1)?);
        let margins: Vec<(isize, isize)> =
            per_dim(OP, "padding", padding, 2, 0)?.into_iter().map(|n| (n as isize, n as isize)).collect();
        let fail =
            |reason: &str| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason: reason.into() });
        if self.rank() != 4 {
            return fail("is not that of images: batch, channels, height, width");
        }
        let padded = self.with_margins(&margins)?;
        if (0..2).any(|i| dilation[i] * (window[i] - 1) + 1 > padded.shape()[2 + i]) {
            return fail("is smaller than a window, also with its margins");
        }
        let windows = padded.windows(&window, &stride, &dilation)?;
        let (count, size) = (windows.shape()[2] * windows.shape()[3], window.iter().product::<usize>());
        let &[batch, channels, ..] = self.shape() else { return fail("is not that of images") };
        windows.permute([0, 1, 4, 5, 2, 3])?.reshape([batch, channels * size, count])?.owned()
    }

    /// Columns added up at their windows' places: the transposed form of [`Tensor::im2col`]; `F.fold`.
    ///
    /// # Errors
    /// If the columns are not those of such windows.
    pub fn col2im(
        &self,
        output: &[usize],
        window: &[usize],
        dilation: &[usize],
        padding: &[usize],
        stride: &[usize],
    ) -> Result<Tensor> {
        const OP: &str = "fold";
        if self.rank() == 2 {
            return self
                .unsqueeze(0)?
                .col2im(output, window, dilation, padding, stride)?
                .squeeze_dim(0)?
                .owned();
        }
        let (output, window) =
            (per_dim(OP, "output_size", output, 2, 1)?, per_dim(OP, "kernel_size", window, 2, 1)?);
        let (dilation, stride) =
            (per_dim(OP, "dilation", dilation, 2, 1)?, per_dim(OP, "stride", stride, 2, 1)?);
        let padding = per_dim(OP, "padding", padding, 2, 0)?;
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        let size: usize = window.iter().product();
        let &[batch, rows, count] = self.shape() else {
            return fail("is not [batch, channels * window, count]".into());
        };
        let mut counts = [0usize; 2];
        for i in 0..2 {
            let span = dilation[i] * (window[i] - 1) + 1;
            match (output[i] + 2 * padding[i]).checked_sub(span) {
                Some(rest) => counts[i] = rest / stride[i] + 1,
                None => {
                    return fail(format!(
                        "cannot be folded: a window of {window:?} does not fit into {output:?}"
                    ));
                }
            }
        }
        let columns = counts[0].saturating_mul(counts[1]);
        if rows % size != 0 || columns != count {
            return fail(format!("does not have {columns} columns of windows of {size} elements"));
        }
        let (height, width) = (output[0] + 2 * padding[0], output[1] + 2 * padding[1]);
        let channels = rows / size;
        let plane = [batch * channels, checked_elements(OP, &[height, width])?];
        let sizes = [window[0], window[1], counts[0], counts[1]];
        checked_elements(OP, &sizes)?;
        // The place of a window's element is that of the window and its own in it, in both dims.
        let along = |dim: usize, step: usize| {
            Expr::from(Array::coordinate(&sizes, dim, self.device())).cast(DType::I64) * step as i64
        };
        let (top, left) =
            (along(0, dilation[0]) + along(2, stride[0]), along(1, dilation[1]) + along(3, stride[1]));
        let places = (top * width as i64 + left).map(|places| places.reshape(&[size * count]));
        let places = Tensor::from_array(places.done()?);
        let columns = self.reshape([batch * channels, size * count])?;
        let plane = self.zeros_of(&plane)?.index_add(1, &places, &columns)?;
        let margins = padding.iter().map(|&n| (-(n as isize), -(n as isize))).collect::<Vec<_>>();
        plane.reshape([batch, channels, height, width])?.with_margins(&margins)?.owned()
    }
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident = $general:ident, $dims:literal;)*) => {
        #[wgrad_macros::call_sites]
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            #[doc = concat!("As [`Tensor::", stringify!($general), "`].")]
            pub fn $name<'a>(
                &self,
                weight: &Tensor,
                bias: impl Into<Option<&'a Tensor>>,
                options: &ConvOptions,
            ) -> Result<Tensor> {
                Tensor::check_window(stringify!($name), weight, $dims)?;
                self.$general(weight, bias, options)
            }
        )*}
    };
}

named! {
    /// [`Tensor::conv`] along one dim.
    conv1d = conv, 1;
    /// [`Tensor::conv`] along two dims.
    conv2d = conv, 2;
    /// [`Tensor::conv`] along three dims.
    conv3d = conv, 3;
    /// [`Tensor::conv_transpose`] along one dim.
    conv_transpose1d = conv_transpose, 1;
    /// [`Tensor::conv_transpose`] along two dims.
    conv_transpose2d = conv_transpose, 2;
    /// [`Tensor::conv_transpose`] along three dims.
    conv_transpose3d = conv_transpose, 3;
}

/// How far a window reaches.
fn span_of(op: &'static str, size: usize, dilation: usize) -> Result<usize> {
    let span = size.checked_sub(1).and_then(|n| n.checked_mul(dilation)).and_then(|n| n.checked_add(1));
    span.filter(|&span| isize::try_from(span).is_ok()).ok_or_else(|| Error::Argument {
        op,
        reason: format!("a window of {size} with dilation {dilation} is empty or overflows"),
    })
}

/// How many dims the windows of a weight have, and which of the names is that operation's.
fn window_dims(names: [&'static str; 3], weight: &Tensor) -> Result<(&'static str, usize)> {
    let dims = weight.rank().saturating_sub(2);
    match dims.checked_sub(1).and_then(|at| names.get(at)) {
        Some(op) => Ok((op, dims)),
        None => {
            let reason =
                "is not that of a weight: two dims of channels and one to three of a window".to_owned();
            Err(Error::Shape { op: names[2], shape: weight.shape().to_vec(), reason })
        }
    }
}
