//! The windows along each of the last dims, and which of them cover an element.

use wgrad_array::layout::Dims;
use wgrad_array::{Array, DType, Device, Error, Expr, ReduceOp, Result, Scalar};

use super::super::join::padded;
use super::super::positions::counted;

/// So many terms are written out; more are a reduction.
const FEW: usize = 32;

/// The windows along one dim.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) size: usize,
    pub(super) window: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) dilation: usize,
    pub(super) count: usize,
}

impl Line {
    /// One window over a dim of size 1.
    pub(super) fn single() -> Line {
        Line { size: 1, window: 1, stride: 1, padding: 0, dilation: 1, count: 1 }
    }

    /// From a window's first element to its last.
    fn span(&self) -> usize {
        (self.window - 1) * self.dilation + 1
    }

    /// Elements that the windows reach beyond the input's end.
    fn after(&self) -> isize {
        let end = (self.count - 1) * self.stride + self.span();
        end as isize - (self.size + self.padding) as isize
    }

    /// Where a mean ends to count elements: with the margins or without.
    fn counted_end(&self, margins: bool) -> usize {
        self.size + self.padding + if margins { self.padding } else { 0 }
    }

    /// Whether all elements of all windows count in a mean.
    pub(super) fn is_whole(&self, margins: bool) -> bool {
        let end = (self.count - 1) * self.stride + self.window;
        (margins || self.padding == 0) && end <= self.counted_end(margins)
    }

    /// How many elements of each window count in a mean, as i64.
    pub(super) fn counts(&self, op: &'static str, margins: bool, device: &Device) -> Result<Expr> {
        let start = counted(op, self.count, device)? * self.stride as i64;
        let end = (&start + self.window as i64).min(self.counted_end(margins) as i64);
        let start = if margins { start } else { start.max(self.padding as i64) };
        Ok((end - start).max(0i64))
    }

    /// Whether windows share elements.
    pub(super) fn overlaps(&self) -> bool {
        self.stride < self.span()
    }

    /// Whether each window covers all elements of the blocks that it covers any of.
    pub(super) fn covers_whole_blocks(&self) -> bool {
        self.dilation == 1
            && self.padding.is_multiple_of(self.stride)
            && self.window.is_multiple_of(self.stride)
    }

    /// The blocks of `stride` elements that the dim is cut into; the last may be shorter.
    fn blocks(&self) -> usize {
        self.size.div_ceil(self.stride)
    }

    /// The first and the last window that cover an element of block 0, if windows went on in both directions; those of
    /// block `b` have numbers larger by `b`.
    fn covering(&self) -> (isize, isize) {
        let (stride, padding, span) = (self.stride as isize, self.padding as isize, self.span() as isize);
        ((padding - span).div_euclid(stride) + 1, (stride - 1 + padding).div_euclid(stride))
    }
}

/// The elements of windows.
pub(super) enum Windows {
    /// One by one, in row-major order: the first element of all windows, the second, …, each `[.., counts..]`.
    Few(Vec<Array>),
    /// As one last dim: `[.., counts.., elements]`.
    Many(Array),
}

/// The windows of the last dims, margins filled with a number.
pub(super) fn windows_of(x: &Array, lines: &[Line], fill: Scalar) -> Result<Windows> {
    let first = x.rank() - lines.len();
    let mut margins = vec![(0, 0); first];
    margins.extend(lines.iter().map(|line| (line.padding as isize, line.after())));
    let mut out = padded(x, &margins, fill)?;
    // What windows share is read several times: margins are written once, instead of asked for at each.
    if lines.iter().any(Line::overlaps) && margins.iter().any(|&margin| margin != (0, 0)) {
        out = out.stored();
    }
    let elements: usize = lines.iter().map(|line| line.window).product();
    if elements <= FEW {
        let element = |number: usize| {
            let (mut rest, mut element) = (number, out.clone());
            for (d, line) in lines.iter().enumerate().rev() {
                let start = rest % line.window * line.dilation;
                rest /= line.window;
                element = element.slice(first + d, start, line.count, line.stride)?;
            }
            Ok(element)
        };
        return Ok(Windows::Few((0..elements).map(element).collect::<Result<_>>()?));
    }
    for (i, line) in lines.iter().enumerate() {
        out = out.unfold(first + i, line.span(), line.stride)?;
        out = out.slice(out.rank() - 1, 0, line.window, line.dilation)?;
    }
    let mut shape: Dims = out.shape()[..x.rank()].into();
    shape.push(elements);
    Ok(Windows::Many(out.reshape(&shape)?))
}

/// For each element of the last dims the sum, over the windows that may cover it, of what `term` makes of what each array has for the window.
///
/// The dims are cut into blocks of `stride` elements, `[.., blocks, stride, ..]`: the windows over a block are the same number of neighbours
/// for every block, so that each is a slice. They include windows that cover only some of a block: `term` gets, for each dim, the distance of
/// elements from the window's first one, and gives 0 where that is none of the window's. Beyond the first and the last window arrays have the
/// number that stands beside them.
pub(super) fn sum_over_windows(
    arrays: &[(Array, Scalar)],
    lines: &[Line],
    term: impl Fn(&[Expr], &[Expr]) -> Expr,
) -> Result<Array> {
    let Some((like, _)) = arrays.first() else { return Err(no_elements("pool")) };
    let first = like.rank() - lines.len();
    let lead = &like.shape()[..first];
    let reach: Vec<(isize, isize)> = lines.iter().map(Line::covering).collect();
    let mut margins = vec![(0, 0); first];
    for (line, &(low, high)) in lines.iter().zip(&reach) {
        margins.push((-low, line.blocks() as isize - 1 + high - (line.count as isize - 1)));
    }
    let mut around = Vec::new();
    for (array, fill) in arrays {
        let array = padded(array, &margins, *fill)?;
        around.push(if margins.iter().any(|&margin| margin != (0, 0)) { array.stored() } else { array });
    }
    let counts: Vec<usize> = reach.iter().map(|(low, high)| (high - low + 1) as usize).collect();
    let apart = Dims::from_iter(lead.iter().copied().chain(lines.iter().flat_map(|l| [l.blocks(), 1])));
    let blocks =
        Dims::from_iter(lead.iter().copied().chain(lines.iter().flat_map(|l| [l.blocks(), l.stride])));
    let device = like.device();
    let total: usize = counts.iter().product();
    let sum = if total <= FEW {
        let mut sum: Option<Expr> = None;
        for number in 0..total {
            let mut rest = number;
            let mut chosen: Vec<Array> = around.clone();
            let mut distances = Vec::new();
            for (d, line) in lines.iter().enumerate().rev() {
                let at = rest % counts[d];
                rest /= counts[d];
                for array in &mut chosen {
                    *array = array.slice(first + d, at, line.blocks(), 1)?;
                }
                let start = (reach[d].0 + at as isize) * line.stride as isize - line.padding as isize;
                let inside = Expr::from(Array::coordinate(&blocks, first + 2 * d + 1, device));
                distances.insert(0, inside - start as i64);
            }
            let values: Vec<Expr> = chosen
                .iter()
                .map(|array| Expr::of(array).map(|array| array.reshape(&apart)?.expand(&blocks)))
                .collect();
            let own = term(&values, &distances);
            sum = Some(match sum {
                Some(sum) => sum + own,
                None => own,
            });
        }
        sum.ok_or_else(|| no_elements("pool"))?.done()?
    } else {
        // The windows' dims go in front, so that what has the shape of the blocks broadcasts against all.
        let behind = |blocks: &Dims| Dims::from_iter(counts.iter().chain(blocks).copied());
        let (spread, all) = (behind(&apart), behind(&blocks));
        let mut values = Vec::new();
        for array in &around {
            let mut array = array.clone();
            for (d, &count) in counts.iter().enumerate() {
                array = array.unfold(first + d, count, 1)?;
            }
            let order: Vec<usize> = (like.rank()..array.rank()).chain(0..like.rank()).collect();
            array = array.permute(&order)?;
            values.push(Expr::of(&array).map(|array| array.reshape(&spread)?.expand(&all)));
        }
        let mut distances = Vec::new();
        for (d, line) in lines.iter().enumerate() {
            let window = Expr::from(Array::coordinate(&all, d, device)) + reach[d].0 as i64;
            let inside = Expr::from(Array::coordinate(&all, lines.len() + first + 2 * d + 1, device));
            distances.push(inside + line.padding as i64 - window * line.stride as i64);
        }
        let folded: Vec<usize> = (0..lines.len()).collect();
        term(&values, &distances).done()?.reduce(ReduceOp::Sum, &folded, false)?
    };
    let whole = Dims::from_iter(lead.iter().copied().chain(lines.iter().map(|l| l.blocks() * l.stride)));
    let mut sum = sum.reshape(&whole)?;
    for (d, line) in lines.iter().enumerate() {
        sum = sum.slice(first + d, 0, line.size, 1)?;
    }
    Ok(sum)
}

/// The numbers of the elements of the blocks that [`sum_over_windows`] sums over, in the plane of whole blocks, as i32; and the places in
/// the plane of the dims, as such numbers.
///
/// # Errors
/// If the plane has more elements than i32 counts.
pub(super) fn numbered(op: &'static str, places: &Array, lines: &[Line]) -> Result<(Array, Array)> {
    let blocks = Dims::from_iter(lines.iter().flat_map(|line| [line.blocks(), line.stride]));
    let elements = blocks.iter().fold(1usize, |n, &size| n.saturating_mul(size));
    if elements > i32::MAX as usize {
        return Err(Error::SizeOverflow { op, shape: blocks.to_vec() });
    }
    let own = Array::coordinate(&[elements], 0, places.device())?.reshape(&blocks)?;
    let places = places.cast(DType::I32)?;
    if lines.iter().all(|line| line.blocks() * line.stride == line.size) {
        return Ok((own, places));
    }
    let (mut rest, mut below) = (Expr::of(&places), lines.iter().map(|line| line.size).product());
    let (mut number, mut step) = (zeros_like(&rest), 1i64);
    for line in lines.iter().rev() {
        let (before, own) = divided(&rest, below, line.size);
        number = number + own * step;
        (rest, below) = (before, below / line.size);
        step *= (line.blocks() * line.stride) as i64;
    }
    Ok((own, number.done()?))
}

fn zeros_like(numbers: &Expr) -> Expr {
    numbers.map(|numbers| Array::full(numbers.shape(), 0i64, DType::I32, numbers.device()))
}

/// Quotients and remainders of i32 numbers from 0 to before `below`.
pub(super) fn divided(numbers: &Expr, below: usize, divisor: usize) -> (Expr, Expr) {
    if below <= divisor {
        return (zeros_like(numbers), numbers.clone());
    }
    let quotients = if below <= 1 << 20 {
        // Half a number away from an integer quotient: far enough for it to be rounded down even where a GPU divides inexactly.
        let middle = numbers.cast(DType::F32) + 0.5;
        (middle / divisor as f64).floor().cast(DType::I32)
    } else {
        let whole = |numbers: &Array| Array::full(&[], divisor as i64, DType::I32, numbers.device());
        numbers.map(|numbers| numbers.div_trunc(&whole(numbers)?))
    };
    let remainders = numbers - &quotients * divisor as i64;
    (quotients, remainders)
}

/// That windows are empty, which [`PoolOptions::lines`](super::PoolOptions) lets nobody ask for.
pub(super) fn no_elements(op: &'static str) -> Error {
    Error::Argument { op, reason: "windows have no elements".into() }
}
