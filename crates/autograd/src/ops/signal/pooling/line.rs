//! The windows along each of the last dims, and which of them cover an element.

use wgrad_array::layout::Dims;
use wgrad_array::{Array, DType, Device, Error, Expr, ReduceOp, Result, Scalar};

use crate::ops::index::positions::counted;
use crate::ops::shape::join::padded;

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
    let shape = |dims: Vec<usize>| Dims::from_iter(lead.iter().copied().chain(dims));
    let reach: Vec<(isize, isize)> = lines.iter().map(Line::covering).collect();
    let mut margins = vec![(0, 0); first];
    for (line, &(low, high)) in lines.iter().zip(&reach) {
        margins.push((-low, line.blocks() as isize - 1 + high - (line.count as isize - 1)));
    }
    let around = |(array, fill): &(Array, Scalar)| {
        let array = padded(array, &margins, *fill)?;
        Ok(if margins.iter().any(|&margin| margin != (0, 0)) { array.stored() } else { array })
    };
    let cover = Cover {
        lines,
        first,
        around: arrays.iter().map(around).collect::<Result<_>>()?,
        counts: reach.iter().map(|(low, high)| (high - low + 1) as usize).collect(),
        lowest: reach.iter().map(|&(low, _)| low).collect(),
        apart: shape(lines.iter().flat_map(|line| [line.blocks(), 1]).collect()),
        blocks: shape(lines.iter().flat_map(|line| [line.blocks(), line.stride]).collect()),
    };
    let few = cover.counts.iter().product::<usize>() <= FEW;
    let sum = if few { cover.written_out(term)? } else { cover.reduced(term)? };
    let mut sum = sum.reshape(&shape(lines.iter().map(|line| line.blocks() * line.stride).collect()))?;
    for (d, line) in lines.iter().enumerate() {
        sum = sum.slice(first + d, 0, line.size, 1)?;
    }
    Ok(sum)
}

/// What [`sum_over_windows`] sums over.
struct Cover<'a> {
    lines: &'a [Line],
    /// The number of dims before those of the windows.
    first: usize,
    /// The arrays, with what stands beyond the first and the last window.
    around: Vec<Array>,
    /// For each dim, how many windows cover a block, and the first of block 0.
    counts: Vec<usize>,
    lowest: Vec<isize>,
    /// The shape of what each block has, and that of the elements: `[.., blocks, 1, ..]` and `[.., blocks, stride, ..]`.
    apart: Dims,
    blocks: Dims,
}

impl Cover<'_> {
    /// The terms added one by one.
    fn written_out(&self, term: impl Fn(&[Expr], &[Expr]) -> Expr) -> Result<Array> {
        let mut sum: Option<Expr> = None;
        for number in 0..self.counts.iter().product() {
            let (mut rest, mut chosen) = (number, self.around.clone());
            let mut distances = Vec::new();
            for (d, line) in self.lines.iter().enumerate().rev() {
                let at = rest % self.counts[d];
                rest /= self.counts[d];
                for array in &mut chosen {
                    *array = array.slice(self.first + d, at, line.blocks(), 1)?;
                }
                let start = (self.lowest[d] + at as isize) * line.stride as isize - line.padding as isize;
                let inside = Array::coordinate(&self.blocks, self.first + 2 * d + 1, chosen[0].device());
                distances.insert(0, Expr::from(inside) - start as i64);
            }
            let spread = |array: &Array| array.reshape(&self.apart)?.expand(&self.blocks);
            let values: Vec<Expr> = chosen.iter().map(|array| Expr::of(array).map(spread)).collect();
            let own = term(&values, &distances);
            sum = Some(match sum {
                Some(sum) => sum + own,
                None => own,
            });
        }
        sum.ok_or_else(|| no_elements("pool"))?.done()
    }

    /// The terms as a reduction. The windows' dims go in front, so that what has the shape of the blocks broadcasts against all.
    fn reduced(&self, term: impl Fn(&[Expr], &[Expr]) -> Expr) -> Result<Array> {
        let behind = |blocks: &Dims| Dims::from_iter(self.counts.iter().chain(blocks).copied());
        let (spread, all) = (behind(&self.apart), behind(&self.blocks));
        let windows = |array: &Array| {
            let mut out = array.clone();
            for (d, &count) in self.counts.iter().enumerate() {
                out = out.unfold(self.first + d, count, 1)?;
            }
            let order: Vec<usize> = (array.rank()..out.rank()).chain(0..array.rank()).collect();
            out.permute(&order)?.reshape(&spread)?.expand(&all)
        };
        let values: Vec<Expr> = self.around.iter().map(|array| Expr::of(array).map(windows)).collect();
        let device = self.around[0].device();
        let mut distances = Vec::new();
        for (d, line) in self.lines.iter().enumerate() {
            let window = Expr::from(Array::coordinate(&all, d, device)) + self.lowest[d] as i64;
            let inside = Array::coordinate(&all, self.lines.len() + self.first + 2 * d + 1, device);
            distances.push(Expr::from(inside) + line.padding as i64 - window * line.stride as i64);
        }
        let folded: Vec<usize> = (0..self.lines.len()).collect();
        term(&values, &distances).done()?.reduce(ReduceOp::Sum, &folded, false)
    }
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
