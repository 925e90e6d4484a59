//! Images and volumes read at places between their elements.

use wgrad_array::layout::Dims;
use wgrad_array::{DType, Error, Result};

use crate::ops::reduce::require_float;
use crate::{Tensor, TensorExpr};

/// How [`Tensor::grid_sample`] finds values between the elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridSampling {
    /// On straight lines between neighbours in each dim; in volumes this is what others call trilinear.
    #[default]
    Bilinear,
    /// The nearest element; of two equally near the even one.
    Nearest,
    /// On cubic curves through four neighbours in each dim.
    Bicubic,
}

/// What [`Tensor::grid_sample`] takes for elements outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridPadding {
    /// Zeros.
    #[default]
    Zeros,
    /// The nearest element of the border.
    Border,
    /// The mirror image, again and again.
    Reflection,
}

/// An element that takes part along one dim: where it is, and how much it counts.
struct Neighbour {
    /// The place (i64), always inside.
    index: TensorExpr,
    /// `None` for 1.
    weight: Option<TensorExpr>,
}

/// One dim of the input.
struct Line {
    size: usize,
    padding: GridPadding,
    align_corners: bool,
}

/// # Sampling by grids
#[wgrad_macros::call_sites]
impl Tensor {
    /// The values of images (`[batch, channels, height, width]`) or volumes (with a depth before the height) at the places of a grid,
    /// `[batch, height, width, 2]` or `[batch, depth, height, width, 3]`; `F.grid_sample`.
    ///
    /// A place is (x, y) or (x, y, z) with x along the width. -1 and 1 are the middles of the outermost elements with
    /// `align_corners`, else their outer edges. NaN gives NaN, or with [`GridSampling::Nearest`] a value of the padding.
    /// Differentiable in both operands, any number of times.
    ///
    /// ```
    /// use wgrad_autograd::{Device, GridPadding, GridSampling, Tensor};
    /// let image = Tensor::new([[[[1f32, 2.0], [3.0, 4.0]]]], &Device::cpu())?;
    /// let places = Tensor::new([[[[0f32, 0.0], [1.0, -1.0]]]], &Device::cpu())?;
    /// let values = image.grid_sample(&places, GridSampling::Bilinear, GridPadding::Zeros, true)?;
    /// assert_eq!(values.shape(), [1, 1, 1, 2]);
    /// assert_eq!(values.to_vec::<f32>()?, [2.5, 2.0]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the shapes are others than those; for images or volumes without elements; if dtypes or devices
    /// differ, or the dtype is not a float one.
    pub fn grid_sample(
        &self,
        grid: &Tensor,
        mode: GridSampling,
        padding: GridPadding,
        align_corners: bool,
    ) -> Result<Tensor> {
        const OP: &str = "grid_sample";
        let dims = check(OP, self, grid)?;
        let sizes = &self.shape()[2..];
        let places = &grid.shape()[1..=dims];
        let count: usize = places.iter().product();
        let (batch, channels) = (self.shape()[0], self.shape()[1]);
        let flat = self.widened()?.reshape([batch, channels, sizes.iter().product()])?;
        let grid = grid.widened()?.reshape([batch, 1, count, dims])?;
        // What takes part in all dims so far: the places in the flattened input, and the weights.
        let first = Tensor::zeros([1, 1, 1], (DType::I64, self.device()))?;
        let mut corners = vec![Neighbour { index: first.into(), weight: None }];
        for (dim, &size) in sizes.iter().enumerate() {
            let line = Line { size, padding, align_corners };
            let neighbours = line.neighbours(&grid.expr().select(-1, (dims - 1 - dim) as isize), mode);
            let mut joined = Vec::with_capacity(corners.len() * neighbours.len());
            for corner in &corners {
                for neighbour in &neighbours {
                    joined.push(corner.join(neighbour, size));
                }
            }
            corners = joined;
        }
        let flat = flat.expr();
        let parts = corners.into_iter().map(|Neighbour { index, weight }| {
            let values = flat.gather(-1, index.expand([batch, channels, count]));
            match weight {
                Some(weight) => values * weight,
                None => values,
            }
        });
        let sum = parts.reduce(|sum, part| sum + part);
        let out = sum.unwrap_or_else(|| flat.zeros_of(&[batch, channels, count]));
        let shape: Dims = [batch, channels].iter().chain(places).copied().collect();
        out.reshape(&shape).to_dtype(self.dtype()).done()?.owned()
    }
}

/// The number of spatial dims, if the operands fit.
fn check(op: &'static str, input: &Tensor, grid: &Tensor) -> Result<usize> {
    require_float(op, input)?;
    let fail = |reason: String| {
        Err(Error::ShapeMismatch { op, lhs: input.shape().to_vec(), rhs: grid.shape().to_vec(), reason })
    };
    if !(4..=5).contains(&input.rank()) || grid.rank() != input.rank() {
        return fail("are not both of four dims, for images, or of five, for volumes".into());
    }
    let dims = input.rank() - 2;
    if grid.shape()[dims + 1] != dims {
        return fail(format!("do not fit: the grid's last dim must be {dims}, the coordinates of a place"));
    }
    if grid.shape()[0] != input.shape()[0] {
        return fail("do not fit: there must be a grid for each element of the batch".into());
    }
    if input.shape()[2..].contains(&0) {
        let reason = "has no elements to read; sizes after batch and channels must be at least 1".to_owned();
        return Err(Error::Shape { op, shape: input.shape().to_vec(), reason });
    }
    if grid.dtype() != input.dtype() {
        let reason = format!("of the grid is not that of the input, {}; cast one", input.dtype());
        return Err(Error::DType { op, dtype: grid.dtype(), reason });
    }
    Ok(dims)
}

impl Neighbour {
    /// This one of the dims before, and one of a further dim.
    fn join(&self, next: &Neighbour, size: usize) -> Neighbour {
        let weight = match (&self.weight, &next.weight) {
            (Some(a), Some(b)) => Some(a * b),
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        Neighbour { index: &self.index * size as i64 + &next.index, weight }
    }
}

impl Line {
    /// The elements that take part at places between -1 and 1.
    fn neighbours(&self, places: &TensorExpr, mode: GridSampling) -> Vec<Neighbour> {
        let size = self.size as f64;
        let at = if self.align_corners {
            (places + 1.0) * ((size - 1.0) / 2.0)
        } else {
            (places + 1.0) * (size / 2.0) - 0.5
        };
        // The cubic curve goes through the padding, the others only come as far as its border.
        let at = if mode == GridSampling::Bicubic { at } else { self.inside(at) };
        if mode == GridSampling::Nearest {
            let nearest = at.detach().round();
            let weight = match self.padding {
                GridPadding::Zeros => Some(self.is_inside(&nearest).cast_as(at)),
                _ => None,
            };
            return vec![Neighbour { index: self.index(&nearest), weight }];
        }
        let first = at.detach().floor();
        let part = at - &first;
        let (from, weights) = match mode {
            GridSampling::Bicubic => (-1.0, cubic(&part).to_vec()),
            _ => (0.0, vec![1.0 - &part, part]),
        };
        let neighbour = |(i, weight): (usize, TensorExpr)| {
            let place = &first + (from + i as f64);
            let place = if mode == GridSampling::Bicubic { self.inside(place) } else { place };
            // Not a number is not outside, so that it stays one.
            let outside = place.lt(0.0).logical_or(place.gt(size - 1.0));
            let weight = weight.keep_where(outside.logical_not());
            Neighbour { index: self.index(&place), weight: Some(weight) }
        };
        weights.into_iter().enumerate().map(neighbour).collect()
    }

    /// Places moved inside as the padding says; with zeros they stay.
    fn inside(&self, at: TensorExpr) -> TensorExpr {
        let last = self.size as f64 - 1.0;
        match self.padding {
            GridPadding::Zeros => at,
            GridPadding::Border => at.clamp(0.0, last),
            GridPadding::Reflection => {
                let (low, span) = if self.align_corners { (0.0, last) } else { (-0.5, last + 1.0) };
                if span == 0.0 {
                    return at.zeros_like();
                }
                let distance = (at - low).abs();
                let odd = (distance.detach() / span).floor().remainder(2.0).ne(0.0);
                let rest = distance.fmod(span);
                odd.where_cond(span + low - &rest, &rest + low).clamp(0.0, last)
            }
        }
    }

    fn is_inside(&self, place: &TensorExpr) -> TensorExpr {
        place.ge(0.0).logical_and(place.le(self.size as f64 - 1.0))
    }

    /// Whole places as indices; what is outside, or not a number, somewhere inside.
    fn index(&self, place: &TensorExpr) -> TensorExpr {
        place.keep_where(place.gt(0.0)).clamp_max(self.size as f64 - 1.0).to_dtype(DType::I64)
    }
}

/// The weights of four neighbours for places between the middle two: cubic convolution with the coefficient -0.75.
fn cubic(part: &TensorExpr) -> [TensorExpr; 4] {
    const A: f64 = -0.75;
    let near = |x: &TensorExpr| (x * (A + 2.0) - (A + 3.0)) * x * x + 1.0;
    let far = |x: &TensorExpr| ((x * A - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let rest = 1.0 - part;
    [far(&(part + 1.0)), near(part), near(&rest), far(&(&rest + 1.0))]
}
