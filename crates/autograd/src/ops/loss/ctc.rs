//! Connectionist temporal classification.

use wgrad_array::{Array, DType, Error, Result};

use crate::ops::index::positions::counted;
use crate::ops::loss::Reduction;
use crate::ops::reduce::require_float;
use crate::tape::{Derivative, record};
use crate::{IntArray, Tensor};

/// Stands for the logarithm of 0: finite, so that no difference of two is NaN, and far below any sum of logarithms.
const NEVER: f64 = -1e30;

/// No sequence is longer: each moment is a step of its own, computed when the loss is asked for.
const MOST_MOMENTS: usize = 1 << 20;

/// The labels of a batch, with blanks before, between and after them.
struct Labels {
    /// `[batch, length]`: the class at each place; blanks behind a shorter target's end.
    classes: Vec<i64>,
    /// Whether the way to a place may leave out the one before: a blank between two different labels.
    skips: Vec<bool>,
    /// Where a way may end: at the last label or the blank behind it.
    ends: Vec<bool>,
    length: usize,
}

/// # Connectionist temporal classification
#[wgrad_macros::call_sites]
impl Tensor {
    /// The negative logarithm of the probability that a sequence of distributions spells a target, over all alignments;
    /// `F.ctc_loss`. The tensor has logarithms of probabilities, `[time, batch, classes]` or `[time, classes]`.
    ///
    /// Targets are `[batch, length]`, or all behind one another in a list. PyTorch's defaults are blank 0, the mean (of losses divided
    /// by their target's length), and `zero_infinity` false: then a target that does not fit into its time has an
    /// infinite loss and a gradient of NaN, else both are 0.
    ///
    /// As in PyTorch, the gradient is that with respect to what a `log_softmax` was given: it takes the probabilities of each moment to sum to
    /// one. Targets and lengths are read at once; the work is a few operations for each moment.
    ///
    /// ```
    /// use wgrad_autograd::{DType, Device, Reduction, Tensor};
    /// // Two moments, a blank and one letter: the letter alone is spelt by three of four ways.
    /// let x = Tensor::new([[0.5, 0.5], [0.5, 0.5]], DType::F64)?.log()?;
    /// let target = Tensor::new([1i64], &Device::cpu())?;
    /// let loss = x.ctc_loss(&target, 2, 1, 0, Reduction::Sum, false)?;
    /// assert!((loss.item::<f64>()? + 0.75f64.ln()).abs() < 1e-12);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If shapes or lengths do not fit together, a label or the blank is not a class, or targets are not integers; if there is no time or
    /// no batch, a sequence has more than 2^20 moments, or the dtype is not a float one.
    pub fn ctc_loss(
        &self,
        targets: &Tensor,
        input_lengths: impl Into<IntArray>,
        target_lengths: impl Into<IntArray>,
        blank: usize,
        reduction: Reduction,
        zero_infinity: bool,
    ) -> Result<Tensor> {
        const OP: &str = "ctc_loss";
        require_float(OP, self)?;
        let x = match self.rank() {
            2 => self.unsqueeze(1)?,
            3 => self.clone(),
            _ => return Err(shape_error(self, "is not [time, batch, classes] or [time, classes]")),
        };
        let (time, batch, classes) = (x.shape()[0], x.shape()[1], x.shape()[2]);
        if time == 0 || batch == 0 || classes == 0 {
            return Err(shape_error(self, "has no elements"));
        }
        if blank >= classes {
            return Err(Error::Index { op: OP, index: blank as i64, size: classes, called_at: None });
        }
        let moments = lengths("input_lengths", &input_lengths.into(), batch, time)?;
        let sizes = lengths("target_lengths", &target_lengths.into(), batch, usize::MAX)?;
        let longest = moments.iter().copied().max().unwrap_or(0);
        if longest > MOST_MOMENTS {
            let reason = format!(
                "a sequence of {longest} moments is too long; cut it into parts of at most {MOST_MOMENTS}"
            );
            return Err(Error::Argument { op: OP, reason });
        }
        let labels = Labels::new(targets, &sizes, blank, classes)?;
        let x = x.widened()?;
        let losses = labels.losses(&x, &moments)?;
        let losses = as_if_normalised(&losses, &x, &moments, zero_infinity)?.to_dtype(self.dtype())?;
        match reduction {
            Reduction::Mean => {
                let sizes: Vec<f64> = sizes.iter().map(|&size| size.max(1) as f64).collect();
                let sizes = Tensor::from_slice(&sizes, batch, &wgrad_array::Device::cpu())?;
                losses.div(sizes.to_dtype(losses.dtype())?.to_device(self.device())?)?.mean()
            }
            Reduction::Sum => losses.sum(),
            Reduction::None if self.rank() == 2 => losses.squeeze_dim(0),
            Reduction::None => Ok(losses),
        }
    }
}

impl Labels {
    fn new(targets: &Tensor, sizes: &[usize], blank: usize, classes: usize) -> Result<Labels> {
        const OP: &str = "ctc_loss";
        if targets.dtype().is_float() || targets.dtype() == DType::Bool {
            let reason = "of the targets is not an integer one".to_owned();
            return Err(Error::DType { op: OP, dtype: targets.dtype(), reason });
        }
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let total = sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
        let in_rows = matches!(*targets.shape(), [rows, width] if rows == sizes.len() && width >= longest);
        let in_a_list = matches!(*targets.shape(), [count] if count == total);
        if !in_rows && !in_a_list {
            let reason = format!(
                "of the targets is neither [{}, {longest}] or wider nor that of a list of {total}, as the lengths say",
                sizes.len()
            );
            return Err(Error::Shape { op: OP, shape: targets.shape().to_vec(), reason });
        }
        let values = targets.to_dtype(DType::I64)?.to_vec::<i64>()?;
        let length = 2 * longest + 1;
        let count = sizes.len() * length;
        let mut labels = Labels {
            classes: vec![blank as i64; count],
            skips: vec![false; count],
            ends: vec![false; count],
            length,
        };
        let mut start = 0;
        for (row, &size) in sizes.iter().enumerate() {
            if in_rows {
                start = row * targets.shape()[1];
            }
            let (target, place) = (&values[start..start + size], row * length);
            for (i, &label) in target.iter().enumerate() {
                if usize::try_from(label).map_or(true, |label| label >= classes) {
                    return Err(Error::Index { op: OP, index: label, size: classes, called_at: None });
                }
                labels.classes[place + 2 * i + 1] = label;
                labels.skips[place + 2 * i + 1] = i > 0 && target[i - 1] != label;
            }
            labels.ends[place + 2 * size] = true;
            if size > 0 {
                labels.ends[place + 2 * size - 1] = true;
            }
            start += size;
        }
        Ok(labels)
    }

    /// The losses of a batch; of targets that do not fit about `-NEVER`.
    fn losses(&self, x: &Tensor, moments: &[usize]) -> Result<Tensor> {
        let (time, batch) = (x.shape()[0], x.shape()[1]);
        let shape = [batch, self.length];
        let device = x.device();
        let on = |flags: &[bool]| Tensor::from_slice(flags, shape, device);
        let never = Tensor::full(shape, NEVER, (x.dtype(), device))?;
        let classes = Tensor::from_slice(&self.classes, [1, batch, self.length], device)?;
        let emitted = x.gather(2, &classes.expand([time, batch, self.length])?)?;
        let first: Vec<bool> = (0..batch * self.length).map(|i| i % self.length == 0).collect();
        let start: Vec<bool> = (0..batch * self.length).map(|i| i % self.length < 2).collect();
        let (skips, start) = (on(&self.skips)?, on(&start)?);
        // The logarithms of the probabilities to be at each place after so many moments; at first, in front of the first one.
        let mut ways = on(&first)?.where_cond(0.0, &never)?;
        for moment in 0..moments.iter().copied().max().unwrap_or(0) {
            let now = emitted.select(0, moment as isize)?;
            let reached = if moment == 0 {
                start.where_cond(&now, &never)?
            } else if self.length == 1 {
                ways.add(now)?
            } else {
                let from_last = ways.pad(&[(1, -1)], NEVER)?;
                let from_label = skips.where_cond(ways.pad(&[(2, -2)], NEVER)?, &never)?;
                ways.logaddexp(&from_last)?.logaddexp(&from_label)?.add(now)?
            };
            // Sequences that are over stay as they are.
            if moments.iter().all(|&length| length > moment) {
                ways = reached;
            } else if moments.iter().any(|&length| length > moment) {
                let lasting: Vec<bool> = moments.iter().map(|&length| length > moment).collect();
                let lasting = Tensor::from_slice(&lasting, [batch, 1], device)?;
                ways = lasting.where_cond(&reached, &ways)?;
            }
            // Each step reads the last one at three places: fused further, work would triple with each.
            ways.eval()?;
        }
        on(&self.ends)?.where_cond(&ways, &never)?.logsumexp(-1, false)?.neg()
    }
}

/// The same losses, infinite ones (or zeros) where there is no way, with a further gradient: that of a sum of the probabilities of
/// all moments that count. It is constant where `x` is the result of a log_softmax, so that nothing changes behind
/// that; with it the gradients for `x` are PyTorch's.
fn as_if_normalised(losses: &Tensor, x: &Tensor, moments: &[usize], zero_infinity: bool) -> Result<Tensor> {
    let (time, batch) = (x.shape()[0], x.shape()[1]);
    let lengths: Vec<i64> = moments.iter().map(|&length| length as i64).collect();
    let lengths = Array::from_slice(&lengths, &[1, batch, 1], x.device())?;
    let moment = counted("ctc_loss", time, x.device())?.map(|moment| moment.reshape(&[time, 1, 1]));
    let counts = moment.lt(&lengths).done()?;
    let impossible = losses.detach().gt(-0.1 * NEVER)?;
    let instead = if zero_infinity { 0.0 } else { f64::INFINITY };
    let out = losses.detach().masked_fill(&impossible, instead)?.array()?;
    let impossible = impossible.array()?;
    Ok(record(out, [losses.operand()?, x.operand()?], |inputs, _| {
        Derivative::with("CtcLossBackward0", move |c| {
            let (g, [x, impossible, counts]) = &c.parts();
            let g = g.masked_fill(impossible, 0.0);
            c.gradients(2, |i| {
                if i == 0 {
                    return g.clone();
                }
                let spoilt = if zero_infinity { g.clone() } else { g.masked_fill(impossible, f64::NAN) };
                (x.exp() * spoilt.unsqueeze(-1)).keep_where(counts)
            })
        })
        .save_input(inputs, 1)
        .save(&impossible)
        .save(&counts)
    }))
}

fn shape_error(x: &Tensor, reason: &str) -> Error {
    Error::Shape { op: "ctc_loss", shape: x.shape().to_vec(), reason: reason.to_owned() }
}

/// A length for each element of the batch, at most `limit`.
fn lengths(name: &str, given: &IntArray, batch: usize, limit: usize) -> Result<Vec<usize>> {
    let fail = |reason: String| Error::Argument { op: "ctc_loss", reason };
    let given = given.as_slice();
    if given.len() != batch {
        return Err(fail(format!("{} {name} were given for a batch of {batch}", given.len())));
    }
    let length = |&length: &isize| {
        usize::try_from(length).ok().filter(|length| *length <= limit).ok_or_else(|| {
            let most = if limit == usize::MAX { String::new() } else { format!(" and at most {limit}") };
            fail(format!("one of the {name} is {length}; they must not be negative{most}"))
        })
    };
    given.iter().map(length).collect()
}
