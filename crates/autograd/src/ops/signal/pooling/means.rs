//! Means of windows, and their derivatives.

use wgrad_array::{Array, Device, Error, Expr, ReduceOp, Result, Scalar};

use super::PoolOptions;
use super::line::{Line, Windows, no_elements, sum_over_windows, windows_of};
use crate::Tensor;
use crate::ops::reduce::{require_float, widened};
use crate::tape::{Derivative, record};

/// What the sums of windows are divided by.
#[derive(Clone)]
struct Divisor {
    op: &'static str,
    lines: Vec<Line>,
    count_include_pad: bool,
    instead: Option<isize>,
}

impl Divisor {
    /// Sums, or gradients of means, divided.
    fn divide(&self, sums: &Array) -> Result<Array> {
        let sums = Expr::of(sums);
        let whole = self.lines.iter().all(|line| line.is_whole(self.count_include_pad));
        match self.instead {
            Some(divisor) => sums / divisor as f64,
            None if whole => sums / self.lines.iter().map(|line| line.window as f64).product::<f64>(),
            None => self.by_counts(sums),
        }
        .done()
    }

    /// Divided by how many elements each window has, a product over the dims.
    fn by_counts(&self, sums: Expr) -> Expr {
        let counts = |sums: &Array| {
            let device: &Device = sums.device();
            let mut counts = Expr::from(Array::full(&[], 1.0, sums.dtype(), device));
            for (i, line) in self.lines.iter().enumerate() {
                let mut shape = vec![line.count];
                shape.resize(self.lines.len() - i, 1);
                let own = line.counts(self.op, self.count_include_pad, device)?;
                counts = counts * own.cast(sums.dtype()).map(|own| own.reshape(&shape));
            }
            counts.done()
        };
        let counts = sums.map(counts);
        sums / counts
    }
}

/// # Pooling: means
impl Tensor {
    pub(super) fn avg_pool(&self, op: &'static str, options: &PoolOptions, dims: usize) -> Result<Tensor> {
        require_float(op, self)?;
        if options.divisor_override == Some(0) {
            return Err(Error::Argument { op, reason: "divisor_override is 0".into() });
        }
        let mut lines = options.lines(op, self, dims)?;
        if dims == 1 {
            lines.insert(0, Line::single());
        }
        let (count_include_pad, instead) = (options.count_include_pad, options.divisor_override);
        let divisor = Divisor { op, lines, count_include_pad, instead };
        if dims == 1 { self.unsqueeze(-2)?.means(divisor)?.squeeze_dim(-2) } else { self.means(divisor) }
    }

    fn means(&self, divisor: Divisor) -> Result<Tensor> {
        let x = self.operand()?;
        let sums = match windows_of(&widened(&x.array)?, &divisor.lines, Scalar::Int(0))? {
            Windows::Few(elements) => {
                let sum = elements.iter().map(Expr::of).reduce(|sum, element| sum + element);
                sum.unwrap_or_else(|| Expr::from(Err(no_elements(divisor.op)))).done()?
            }
            Windows::Many(windows) => windows.reduce(ReduceOp::Sum, &[windows.rank() - 1], false)?,
        };
        let out = divisor.divide(&sums)?.cast(self.dtype())?;
        let name = if divisor.lines.len() == 2 { "AvgPool2DBackward0" } else { "AvgPool3DBackward0" };
        Ok(record(out, [x], |_, _| {
            Derivative::with(name, move |c| c.each(1, |_| shared_out(c.grad()?, &divisor)))
        }))
    }
}

/// The gradient of means: each window's share for each of its elements, added up where windows overlap.
fn shared_out(grad: &Tensor, divisor: &Divisor) -> Result<Tensor> {
    let g = grad.operand()?;
    let lines = &divisor.lines;
    let shares = divisor.divide(&widened(&g.array)?)?;
    let out = sum_over_windows(&[(shares, Scalar::Int(0))], lines, |of_window, distances| {
        let mut inside: Option<Expr> = None;
        for (line, distance) in lines.iter().zip(distances) {
            if line.covers_whole_blocks() {
                continue;
            }
            let mut own = distance.ge(0i64).and(distance.lt(line.window as i64 * line.dilation as i64));
            if line.dilation > 1 {
                own = own.and(distance.rem(line.dilation as i64).eq(0i64));
            }
            inside = Some(match inside {
                Some(inside) => inside.and(own),
                None => own,
            });
        }
        match inside {
            Some(inside) => inside.select(&of_window[0], 0.0),
            None => of_window[0].clone(),
        }
    })?;
    let out = out.cast(grad.dtype())?;
    let name = if lines.len() == 2 { "AvgPool2DBackwardBackward0" } else { "AvgPool3DBackwardBackward0" };
    let divisor = divisor.clone();
    Ok(record(out, [g], |_, _| {
        Derivative::with(name, move |c| c.each(1, |_| c.grad()?.means(divisor.clone())))
    }))
}
