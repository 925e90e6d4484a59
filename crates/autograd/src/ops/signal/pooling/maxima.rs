//! The largest elements of windows, and their derivatives.

use wgrad_array::layout::Dims;
use wgrad_array::{Array, DType, Device, Expr, ReduceOp, Result, Scalar, ScatterOp};

use super::PoolOptions;
use super::line::{Line, Windows, divided, no_elements, numbered, sum_over_windows, windows_of};
use crate::Tensor;
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, record, record_outputs};

/// # Pooling: maxima
impl Tensor {
    pub(super) fn max_pool(
        &self,
        op: &'static str,
        options: &PoolOptions,
        dims: usize,
    ) -> Result<(Tensor, Tensor)> {
        require_float(op, self)?;
        let mut lines = options.lines(op, self, dims)?;
        if dims == 1 {
            lines.insert(0, Line::single());
            let (values, places) = self.unsqueeze(-2)?.largest_of_windows(op, lines)?;
            return Ok((values.squeeze_dim(-2)?, places.squeeze_dim(-2)?));
        }
        self.largest_of_windows(op, lines)
    }

    fn largest_of_windows(&self, op: &'static str, lines: Vec<Line>) -> Result<(Tensor, Tensor)> {
        let x = self.operand()?;
        let (values, places) = match windows_of(&x.array, &lines, Scalar::Float(f64::NEG_INFINITY))? {
            Windows::Few(elements) => largest_of_few(op, &elements, &lines)?,
            Windows::Many(windows) => largest_of_many(&windows, &lines)?,
        };
        let name = match lines.len() {
            2 => "MaxPool2DWithIndicesBackward0",
            _ => "MaxPool3DWithIndicesBackward0",
        };
        let mut outputs = record_outputs(vec![values, places], [x], |_, outputs| {
            Derivative::with(name, move |c| {
                let [places] = c.tensors()?;
                c.each(1, |_| to_the_largest(op, c.grad()?, &places, &lines))
            })
            .save(&outputs[1])
        });
        match (outputs.pop(), outputs.pop()) {
            (Some(places), Some(values)) => Ok((values, places)),
            _ => unreachable!("two outputs were recorded"),
        }
    }
}

/// The place in the plane at which each window begins, as i32. A window that begins in a margin has a negative coordinate there, or, with
/// `behind_margins`, that of its first element behind the margin.
fn beginnings(shape: &[usize], lines: &[Line], device: &Device, behind_margins: bool) -> Expr {
    let first = shape.len() - lines.len();
    let (mut place, mut step) = (None, 1i64);
    for (d, line) in lines.iter().enumerate().rev() {
        let window = Expr::from(Array::coordinate(shape, first + d, device));
        let mut start = window * line.stride as i64 - line.padding as i64;
        if behind_margins && line.padding > 0 {
            start = start.lt(0i64).select(start.rem(line.dilation as i64), &start);
        }
        let own = start * step;
        place = Some(match place {
            Some(place) => own + place,
            None => own,
        });
        step *= line.size as i64;
    }
    place.unwrap_or_else(|| Expr::from(Err(no_elements("max_pool"))))
}

/// The values, and their places as i64; the last NaN is the largest, and of equal elements the first.
fn largest_of_few(op: &'static str, elements: &[Array], lines: &[Line]) -> Result<(Array, Array)> {
    let Some(like) = elements.first() else { return Err(no_elements(op)) };
    let begin = beginnings(like.shape(), lines, like.device(), false);
    let lowest = Array::full(like.shape(), f64::NEG_INFINITY, like.dtype(), like.device())?;
    // Where all elements are -inf none is larger than that: then the first behind the margin is meant.
    let mut place = beginnings(like.shape(), lines, like.device(), true);
    let mut largest = Expr::of(&lowest);
    for (number, element) in elements.iter().enumerate() {
        let (mut rest, mut distance, mut step) = (number, 0, 1);
        for line in lines.iter().rev() {
            distance += rest % line.window * line.dilation * step;
            rest /= line.window;
            step *= line.size;
        }
        let element = Expr::of(element);
        let larger = element.gt(&largest).or(element.is_nan());
        place = larger.select(&begin + distance as i64, &place);
        largest = largest.max(&element);
    }
    Ok((largest.done()?, place.cast(DType::I64).done()?.stored()))
}

/// The same for windows of many elements; of several NaN the first.
fn largest_of_many(windows: &Array, lines: &[Line]) -> Result<(Array, Array)> {
    let last = windows.rank() - 1;
    if windows.elements() == 0 {
        let none = windows.reduce(ReduceOp::Sum, &[last], false)?;
        let places = none.cast(DType::I64)?;
        return Ok((none, places));
    }
    let at = windows.reduce(ReduceOp::ArgMax, &[last], false)?;
    let number = Expr::of(&at).cast(DType::I32);
    let (mut rest, mut below) = (number.clone(), lines.iter().map(|line| line.window).product::<usize>());
    let (mut place, mut step) = (beginnings(at.shape(), lines, at.device(), false), 1i64);
    for line in lines.iter().rev() {
        let (before, own) = divided(&rest, below, line.window);
        (rest, below) = (before, below / line.window);
        place = place + own * (line.dilation as i64 * step);
        step *= line.size as i64;
    }
    // A margin is the largest only where all elements are -inf as well, and is then the first of all.
    let first = beginnings(at.shape(), lines, at.device(), true);
    let place = number.eq(0i64).select(first, place);
    let values = windows.reduce(ReduceOp::Max, &[last], false)?;
    // Every element of a window asks for it in the derivative.
    Ok((values, place.cast(DType::I64).done()?.stored()))
}

/// The gradient of windows at the places of their largest elements; where windows share one, the sum.
fn to_the_largest(op: &'static str, grad: &Tensor, places: &Tensor, lines: &[Line]) -> Result<Tensor> {
    let (g, places) = (grad.operand()?, places.array()?);
    let sums = widened(&g.array)?;
    let out = if grad.device().is_cpu() && lines.iter().any(Line::overlaps) {
        scattered(&sums, &places, lines)?
    } else {
        let (own, numbers) = numbered(op, &places, lines)?;
        let arrays = [(sums, Scalar::Int(0)), (numbers, Scalar::Int(-1))];
        let own = Expr::of(&own);
        sum_over_windows(&arrays, lines, |of_window, _| of_window[1].eq(&own).select(&of_window[0], 0.0))?
    };
    let out = out.cast(grad.dtype())?;
    let name = match lines.len() {
        2 => "MaxPool2DWithIndicesBackwardBackward0",
        _ => "MaxPool3DWithIndicesBackwardBackward0",
    };
    let dims = lines.len();
    Ok(record(out, [g], |_, _| {
        Derivative::with(name, move |c| {
            c.each(1, |_| {
                let (grad, [places]) = (c.grad()?, c.tensors()?);
                let lead = grad.rank() - dims;
                let rows = grad.flatten(lead as isize, -1)?;
                rows.gather(-1, &places.flatten(lead as isize, -1)?)?.reshape(places.shape())
            })
        })
        .save(&places)
    }))
}

/// The gradient put to its places one after the other: on the CPU the shorter way, where elements have several windows each.
fn scattered(grad: &Array, places: &Array, lines: &[Line]) -> Result<Array> {
    let lead = grad.rank() - lines.len();
    let plane: usize = lines.iter().map(|line| line.size).product();
    let windows: usize = lines.iter().map(|line| line.count).product();
    let rows: usize = grad.shape()[..lead].iter().product();
    let (grad_rows, place_rows) = (grad.reshape(&[rows, windows])?, places.reshape(&[rows, windows])?);
    let zeros = Array::full(&[rows, plane], 0i64, grad.dtype(), grad.device())?;
    let mut shape: Dims = grad.shape()[..lead].into();
    shape.extend(lines.iter().map(|line| line.size));
    zeros.scatter(ScatterOp::Add, 1, &place_rows, &grad_rows)?.reshape(&shape)
}
