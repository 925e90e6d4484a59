//! Pooling of as many parts as asked for.

use wgrad_array::layout::{Dims, checked_elements};
use wgrad_array::{DType, Error, Expr, Result};

use crate::Tensor;
use crate::ops::index::positions::{column, counted, quotient};
use crate::ops::reduce::require_float;

/// # Pooling to a given size
#[wgrad_macros::call_sites]
impl Tensor {
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

    /// `output` means of as equal parts of the last three dims as can be, `None` for as many as there are; `F.adaptive_avg_pool3d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool1d`], with two more dims.
    pub fn adaptive_avg_pool3d(&self, output: [Option<usize>; 3]) -> Result<Tensor> {
        self.adaptive_avg_pool("adaptive_avg_pool3d", &output)
    }

    pub(in crate::ops) fn adaptive_avg_pool(
        &self,
        op: &'static str,
        output: &[Option<usize>],
    ) -> Result<Tensor> {
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
    pub(in crate::ops) fn along(&self, dim: usize, matrix: &Tensor) -> Result<Tensor> {
        let matrix = matrix.to_dtype(self.dtype())?;
        self.movedim(dim, -1)?.matmul(&matrix.t()?)?.movedim(-1, dim)?.owned()
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

    /// The largest elements of as equal parts of the last dim as can be, and their places (i64) in it; `F.adaptive_max_pool1d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool1d`].
    pub fn adaptive_max_pool1d(&self, output: usize) -> Result<(Tensor, Tensor)> {
        self.adaptive_max_pool("adaptive_max_pool1d", &[Some(output)])
    }

    /// The largest elements of as equal parts of the last two dims as can be, `None` for as many as there are, and their places (i64) in the
    /// flattened plane; `F.adaptive_max_pool2d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool2d`].
    pub fn adaptive_max_pool2d(&self, output: [Option<usize>; 2]) -> Result<(Tensor, Tensor)> {
        self.adaptive_max_pool("adaptive_max_pool2d", &output)
    }

    /// The largest elements of as equal parts of the last three dims as can be, `None` for as many as there are, and their places (i64) in
    /// them flattened; `F.adaptive_max_pool3d`.
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool3d`].
    pub fn adaptive_max_pool3d(&self, output: [Option<usize>; 3]) -> Result<(Tensor, Tensor)> {
        self.adaptive_max_pool("adaptive_max_pool3d", &output)
    }

    fn adaptive_max_pool(&self, op: &'static str, output: &[Option<usize>]) -> Result<(Tensor, Tensor)> {
        require_float(op, self)?;
        let dims = output.len();
        self.check_adaptive(op, dims)?;
        let first = self.rank() - dims;
        let (mut values, mut places) = (self.clone(), self.plane(dims)?);
        let mut split: Dims = self.shape()[..first].into();
        for (i, output) in output.iter().enumerate() {
            let size = self.shape()[first + i];
            let count = output.unwrap_or(size);
            checked_elements(op, &[count, size])?;
            let longest = longest_part(count, size);
            // Parts of one length: the last element stands in where a part is shorter, and never wins over itself.
            let (start, end) = part_of(&column(op, count, self.device())?, count, size);
            let list = (start + counted(op, longest, self.device())?).min(end - 1i64);
            let list = list.map(|list| list.reshape(&[count * longest]));
            // A short list, and long integer quotients: kernels that read it should not compute it again for each element.
            let list = Tensor::from_array(list.done()?.stored());
            (values, places) = (
                values.index_select((first + i) as isize, &list)?,
                places.index_select((first + i) as isize, &list)?,
            );
            split.extend([count, longest]);
        }
        // Counts, and behind them the parts' elements.
        let mut order: Vec<usize> = (0..first).collect();
        order.extend((0..dims).map(|d| first + 2 * d));
        order.extend((0..dims).map(|d| first + 2 * d + 1));
        let arranged = |x: &Tensor| {
            let mut shape: Vec<usize> = x.shape()[..first].to_vec();
            shape.extend(&split[first..]);
            x.reshape(shape)?.permute(&order)?.flatten((first + dims) as isize, -1)
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
    let places = places.expand(windows.shape())?.gather(-1, &at.unsqueeze(-1)?)?.squeeze_dim(-1)?.owned()?;
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
