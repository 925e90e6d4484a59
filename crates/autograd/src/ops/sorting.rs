//! Order: sorting and what it gives, counting.
//!
//! The order itself is found on the host, so the tensor is read for it, and on a GPU its keys cross once; values are then
//! gathered on the device, with gradients. NaN counts as the largest. All sorts are stable.

use std::cmp::Ordering;

use wgrad_array::layout::normalize_dim;
use wgrad_array::{DType, Error, Result};

use crate::Tensor;
use crate::tape::{Derivative, record};

/// What [`Tensor::unique`] and [`Tensor::unique_dim`] give.
#[derive(Clone, Debug)]
pub struct Unique {
    /// The different elements or slices, in ascending order.
    pub values: Tensor,
    /// For each element or slice the place (i64) of its value.
    pub inverse: Tensor,
    /// How often each value occurs (i64).
    pub counts: Tensor,
}

/// Elements as numbers that compare: integers exactly, floats with NaN as the largest.
enum Keys {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

impl Keys {
    fn of(x: &Tensor) -> Result<Keys> {
        Ok(match x.dtype() {
            DType::F16 | DType::BF16 | DType::F32 => {
                Keys::Floats(x.to_dtype(DType::F32)?.to_vec::<f32>()?.into_iter().map(f64::from).collect())
            }
            DType::F64 => Keys::Floats(x.to_vec::<f64>()?),
            _ => Keys::Integers(x.to_dtype(DType::I64)?.to_vec::<i64>()?),
        })
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Keys::Integers(keys) => keys[a].cmp(&keys[b]),
            Keys::Floats(keys) => {
                let (a, b) = (keys[a], keys[b]);
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
        }
    }
}

impl Tensor {
    /// The order of the elements along a dim: at each place of the result, where the element that belongs there is now (i64). Equal elements
    /// keep their order.
    ///
    /// # Errors
    /// If there is no such dim, or what led to the tensor's value fails.
    pub fn argsort(&self, dim: isize, descending: bool) -> Result<Tensor> {
        let at = normalize_dim("sort", dim, self.rank())?;
        if self.rank() == 0 {
            return Tensor::zeros((), (DType::I64, self.device()));
        }
        // Rows along the dim are gathered from the host's copy.
        let size = self.shape()[at];
        let inner: usize = self.shape()[at + 1..].iter().product();
        let outer: usize = self.shape()[..at].iter().product();
        let keys = Keys::of(&self.detach())?;
        let mut places = vec![0i64; self.numel()];
        let mut row: Vec<usize> = Vec::with_capacity(size);
        for o in 0..outer {
            for i in 0..inner {
                let base = o * size * inner + i;
                row.clear();
                row.extend(0..size);
                row.sort_by(|&a, &b| {
                    let order = keys.compare(base + a * inner, base + b * inner);
                    if descending { order.reverse() } else { order }
                });
                for (place, &from) in row.iter().enumerate() {
                    places[base + place * inner] = from as i64;
                }
            }
        }
        Tensor::from_slice(&places, self.shape(), self.device())
    }

    /// The elements along a dim in ascending (or descending) order, and where each was (i64). PyTorch's default is the last dim.
    ///
    /// # Errors
    /// As [`Tensor::argsort`].
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Tensor, Tensor)> {
        let order = self.argsort(dim, descending)?;
        Ok((self.gather(dim, &order)?, order))
    }

    /// The `k` largest (or smallest) elements along a dim in order, and where each was (i64). PyTorch's default is the largest of the last dim.
    ///
    /// # Errors
    /// If there is no such dim, or it has fewer than `k` elements.
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "topk";
        let at = normalize_dim(OP, dim, self.rank())?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        if k > size {
            return Err(Error::Argument {
                op: OP,
                reason: format!("k is {k}, but dim {dim} has {size} elements"),
            });
        }
        if self.rank() == 0 {
            let (values, order) = self.reshape(1)?.topk(k, 0, largest)?;
            return if k == 1 { Ok((values.reshape(())?, order.reshape(())?)) } else { Ok((values, order)) };
        }
        let order = self.argsort(dim, largest)?.narrow(dim, 0, k)?;
        Ok((self.gather(dim, &order)?, order))
    }

    /// The `k`-th smallest element along a dim, counted from 1, and where it was (i64). PyTorch's default is the last dim.
    ///
    /// # Errors
    /// If there is no such dim, or it has fewer than `k` elements, or `k` is 0.
    pub fn kthvalue(&self, k: usize, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "kthvalue";
        let at = normalize_dim(OP, dim, self.rank())?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        if k == 0 || k > size {
            return Err(Error::Argument { op: OP, reason: format!("k is {k}; it must lie in 1..={size}") });
        }
        if self.rank() == 0 {
            return Ok((self.deep_clone()?, Tensor::zeros((), (DType::I64, self.device()))?));
        }
        let order = self.argsort(dim, false)?.narrow(dim, k as isize - 1, 1)?;
        self.chosen(&order, dim, keepdim)
    }

    fn chosen(&self, place: &Tensor, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        let value = self.gather(dim, place)?;
        if keepdim {
            Ok((value, place.clone()))
        } else {
            Ok((value.squeeze_dim(dim)?, place.squeeze_dim(dim)?))
        }
    }

    /// The median of all elements: of two in the middle the lower, and NaN if one is. Equal elements share the gradient evenly.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn median(&self) -> Result<Tensor> {
        if self.numel() == 0 {
            return Tensor::full((), f64::NAN, (self.dtype(), self.device()));
        }
        let line = self.detach().flatten(0, -1)?;
        let value = line.median_dim(0, false)?.0.array()?;
        let x = self.operand()?;
        Ok(record(value, [x], |inputs, out| {
            Derivative::new("MedianBackward0", |c| {
                c.each(1, |_| {
                    let (x, value) = (c.saved(0)?.detach(), c.saved(1)?.detach());
                    let same = x.eq(&value)?.logical_or(&x.isnan()?.logical_and(&value.isnan()?)?)?;
                    let count = same.sum()?.to_dtype(x.dtype())?;
                    c.grad()?.div(count)?.expand_value(x.shape())?.keep_where(&same)
                })
            })
            .save_input(inputs, 0)
            .save_output(out)
        }))
    }

    /// The median along a dim, of two in the middle the lower, and where it was (i64); NaN if one is.
    ///
    /// # Errors
    /// If there is no such dim or it is empty.
    pub fn median_dim(&self, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        const OP: &str = "median";
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            return self.kthvalue(1, dim, keepdim);
        }
        let size = self.shape()[at];
        if size == 0 {
            return Err(Error::EmptyReduction { op: OP, shape: self.shape().to_vec() });
        }
        let order = self.argsort(dim, false)?;
        let middle = order.narrow(dim, (size as isize - 1) / 2, 1)?;
        // NaN sorts last: if the last is one, the first NaN is the median.
        let nan = self.detach().isnan()?;
        let place =
            nan.any_dim(dim, true)?.where_cond(nan.to_dtype(DType::I64)?.argmax_dim(dim, true)?, middle)?;
        self.chosen(&place, dim, keepdim)
    }

    /// The different elements in ascending order, with what [`Unique`] says of them. The tensor is read for this.
    ///
    /// # Errors
    /// If what led to the tensor's value fails.
    pub fn unique(&self) -> Result<Unique> {
        let line = self.detach().flatten(0, -1)?;
        let found = line.unique_dim(0)?;
        Ok(Unique { inverse: found.inverse.reshape(self.shape())?, ..found })
    }

    /// The different slices of a dim in ascending order, compared element by element. The tensor is read for this.
    ///
    /// # Errors
    /// If there is no such dim, or what led to the tensor's value fails.
    pub fn unique_dim(&self, dim: isize) -> Result<Unique> {
        const OP: &str = "unique";
        let at = normalize_dim(OP, dim, self.rank())?;
        if self.rank() == 0 {
            let found = self.reshape(1)?.unique_dim(0)?;
            return Ok(found);
        }
        let size = self.shape()[at];
        let rows = self.detach().movedim(at, 0)?;
        let width: usize = rows.shape()[1..].iter().product();
        if width == 0 && size > 0 && self.rank() > 1 {
            let reason = "has slices without elements, which cannot be told apart".to_owned();
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let keys = Keys::of(&rows)?;
        let compare = |a: usize, b: usize| {
            (0..width)
                .map(|i| keys.compare(a * width + i, b * width + i))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        // NaN differs from itself.
        let is_nan = |row: usize| match &keys {
            Keys::Floats(keys) => keys[row * width..(row + 1) * width].iter().any(|x| x.is_nan()),
            Keys::Integers(_) => false,
        };
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| compare(a, b));
        let (mut firsts, mut counts, mut inverse) = (Vec::<i64>::new(), Vec::<i64>::new(), vec![0i64; size]);
        let mut previous = None;
        for row in order {
            let same = previous.is_some_and(|previous| compare(previous, row).is_eq() && !is_nan(row));
            match counts.last_mut().filter(|_| same) {
                Some(count) => *count += 1,
                None => {
                    firsts.push(row as i64);
                    counts.push(1);
                }
            }
            inverse[row] = firsts.len() as i64 - 1;
            previous = Some(row);
        }
        let list = |values: &[i64]| Tensor::from_slice(values, values.len(), self.device());
        Ok(Unique {
            values: self.detach().index_select(dim, &list(&firsts)?)?,
            inverse: list(&inverse)?,
            counts: list(&counts)?,
        })
    }

    /// How often each of 0, 1, … occurs in a list of integers, up to the largest, but at least `minlength` numbers. The list is read for
    /// its largest.
    ///
    /// # Errors
    /// If it is not a list of integers, or one is negative.
    pub fn bincount(&self, minlength: usize) -> Result<Tensor> {
        let (bins, index) = self.bins(minlength)?;
        let ones = Tensor::ones([index.numel()], (DType::I64, self.device()))?;
        Tensor::zeros([bins], (DType::I64, self.device()))?.index_add(0, &index, &ones)
    }

    /// The sums of the weights of equal elements of a list of integers: [`Tensor::bincount`] where each counts as much as its weight. Weights
    /// that are not f32 are added up in f64; without elements the result is i64.
    ///
    /// # Errors
    /// As [`Tensor::bincount`]; and if there are not as many weights as elements.
    pub fn bincount_weighted(&self, weights: &Tensor, minlength: usize) -> Result<Tensor> {
        let (bins, index) = self.bins(minlength)?;
        if weights.shape() != self.shape() {
            return Err(Error::ShapeMismatch {
                op: "bincount",
                lhs: self.shape().to_vec(),
                rhs: weights.shape().to_vec(),
                reason: "differ: there is one weight for each element".into(),
            });
        }
        // PyTorch does not look at the weights of no elements.
        let dtype = match weights.dtype() {
            _ if self.numel() == 0 => DType::I64,
            DType::F32 => DType::F32,
            _ => DType::F64,
        };
        let weights = weights.detach().to_dtype(dtype)?;
        Tensor::zeros([bins], (dtype, self.device()))?.index_add(0, &index, &weights)
    }

    fn bins(&self, minlength: usize) -> Result<(usize, Tensor)> {
        const OP: &str = "bincount";
        if self.rank() != 1 || self.dtype().is_float() || self.dtype() == DType::Bool {
            let reason = format!("of {} is not that of a list of integers", self.dtype());
            return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
        }
        let index = self.to_dtype(DType::I64)?;
        let values = index.to_vec::<i64>()?;
        if let Some(negative) = values.iter().find(|n| **n < 0) {
            return Err(Error::Argument {
                op: OP,
                reason: format!("{negative} cannot be counted; numbers start at 0"),
            });
        }
        let largest = values.iter().max().map_or(0, |n| *n as usize + 1);
        Ok((largest.max(minlength), index))
    }
}
