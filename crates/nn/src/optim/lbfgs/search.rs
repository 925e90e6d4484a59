//! The length of a step for which the strong Wolfe conditions hold: first a bracket, then points in it by
//! cubic interpolation. The rules for intervals and safeguards are those of PyTorch's search.

use wgrad_autograd::{Result, Tensor};

/// By how much the loss must fall, and how much of the slope may stay.
const FALL: f64 = 1e-4;
const SLOPE: f64 = 0.9;

/// The loss somewhere along a direction.
#[derive(Clone)]
pub(super) struct Point {
    pub(super) loss: f64,
    /// The slope along the direction.
    pub(super) slope: f64,
    /// The largest size of the gradient's elements.
    pub(super) largest: f64,
    pub(super) grad: Tensor,
}

/// What a search ended with.
pub(super) struct Found {
    pub(super) length: f64,
    pub(super) point: Point,
    /// How often the loss was computed.
    pub(super) evaluations: usize,
}

/// A search.
pub(super) struct Wolfe {
    /// The largest size of the direction's elements.
    pub(super) size: f64,
    /// The search ends where the bracket is shorter.
    pub(super) tolerance_change: f64,
    /// How often it goes on at most.
    pub(super) most: usize,
}

type Evaluate<'a> = &'a mut dyn FnMut(f64) -> Result<Point>;

/// Two lengths between which there is one to be found; or one that is found.
enum Bracket {
    Found((f64, Point)),
    Between([(f64, Point); 2]),
}

impl Wolfe {
    /// Searches from `start`, at length 0, with this first length.
    pub(super) fn run(&self, start: &Point, first: f64, evaluate: Evaluate<'_>) -> Result<Found> {
        let mut evaluations = 0;
        let mut count = |length: f64| {
            evaluations += 1;
            evaluate(length)
        };
        let (bracket, turns) = self.bracket(start, first, &mut count)?;
        let (length, point) = match bracket {
            Bracket::Found(found) => found,
            Bracket::Between(between) => self.zoom(start, between, turns, &mut count)?,
        };
        Ok(Found { length, point, evaluations })
    }

    fn falls(&self, start: &Point, length: f64, point: &Point) -> bool {
        point.loss <= start.loss + FALL * length * start.slope
    }

    fn is_flat(&self, start: &Point, point: &Point) -> bool {
        point.slope.abs() <= -SLOPE * start.slope
    }

    /// Goes on until there is a bracket; with how many turns that took.
    fn bracket(&self, start: &Point, first: f64, evaluate: Evaluate<'_>) -> Result<(Bracket, usize)> {
        let mut before = (0.0, start.clone());
        let mut now = (first, evaluate(first)?);
        let mut turns = 0;
        while turns < self.most {
            let (length, point) = &now;
            let rises = !point.loss.is_nan() && !self.falls(start, *length, point);
            if rises || (turns > 1 && point.loss >= before.1.loss) {
                return Ok((Bracket::Between([before, now]), turns));
            }
            if self.is_flat(start, point) {
                return Ok((Bracket::Found(now), turns));
            }
            if point.slope >= 0.0 {
                return Ok((Bracket::Between([before, now]), turns));
            }
            let bounds = (length + 0.01 * (length - before.0), length * 10.0);
            let next = interpolate(&before, &now, Some(bounds));
            let point = evaluate(next)?;
            before = std::mem::replace(&mut now, (next, point));
            turns += 1;
        }
        Ok((Bracket::Between([(0.0, start.clone()), now]), turns))
    }

    /// Narrows a bracket; its better end.
    fn zoom(
        &self,
        start: &Point,
        mut ends: [(f64, Point); 2],
        mut turns: usize,
        evaluate: Evaluate<'_>,
    ) -> Result<(f64, Point)> {
        let mut is_stuck = false;
        let mut low = usize::from(ends[1].1.loss < ends[0].1.loss);
        while turns < self.most {
            if (ends[1].0 - ends[0].0).abs() * self.size < self.tolerance_change {
                break;
            }
            let length = self.inside(&ends, &mut is_stuck);
            let point = evaluate(length)?;
            turns += 1;
            let high = 1 - low;
            if !self.falls(start, length, &point) || point.loss >= ends[low].1.loss {
                ends[high] = (length, point);
                low = usize::from(ends[1].1.loss < ends[0].1.loss);
                continue;
            }
            let is_flat = self.is_flat(start, &point);
            if !is_flat && point.slope * (ends[high].0 - ends[low].0) >= 0.0 {
                ends[high] = ends[low].clone();
            }
            ends[low] = (length, point);
            if is_flat {
                break;
            }
        }
        let [first, second] = ends;
        Ok(if low == 0 { first } else { second })
    }

    /// The next length to try: where the cubic through both ends is smallest, but not again and again close
    /// to an end.
    fn inside(&self, ends: &[(f64, Point); 2], is_stuck: &mut bool) -> f64 {
        let length = interpolate(&ends[0], &ends[1], None);
        let (least, most) = (ends[0].0.min(ends[1].0), ends[0].0.max(ends[1].0));
        let margin = 0.1 * (most - least);
        if (most - length).min(length - least) >= margin {
            *is_stuck = false;
            return length;
        }
        if *is_stuck || length >= most || length <= least {
            *is_stuck = false;
            return if (length - most).abs() < (length - least).abs() {
                most - margin
            } else {
                least + margin
            };
        }
        *is_stuck = true;
        length
    }
}

/// Where the cubic with the losses and slopes of both points is smallest, within bounds; by default between
/// the points.
fn interpolate(a: &(f64, Point), b: &(f64, Point), bounds: Option<(f64, f64)>) -> f64 {
    let (a, b) = if a.0 <= b.0 { (a, b) } else { (b, a) };
    let (least, most) = bounds.unwrap_or((a.0, b.0));
    let d1 = a.1.slope + b.1.slope - 3.0 * (a.1.loss - b.1.loss) / (a.0 - b.0);
    let square = d1 * d1 - a.1.slope * b.1.slope;
    if square < 0.0 || square.is_nan() {
        return (least + most) / 2.0;
    }
    let d2 = square.sqrt();
    let smallest = b.0 - (b.0 - a.0) * ((b.1.slope + d2 - d1) / (b.1.slope - a.1.slope + 2.0 * d2));
    smallest.max(least).min(most)
}
