//! Searching in sequences that are in order: by halving, on the device, in as many steps as their length has binary digits.

use wgrad_array::{Array, DType, Error, Expr, Result, Scalar};

use crate::{Tensor, Value};

/// # Searching
#[wgrad_macros::call_sites]
impl Tensor {
    /// Where values belong in this ascending sequence (or, of more dims, in its rows): before equal elements, or with `right` after them.
    /// As i64. NaN belongs at the end. A single number is compared as it is: where the sequence's dtype cannot hold it, both are
    /// promoted, a fraction and integers to the default dtype (as `torch.result_type`), a large integer and small ones to i64. PyTorch wraps such an
    /// integer instead: -1 among u8 is 255 there and comes last; here it comes first.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let sequence = Tensor::new([1i64, 2, 3], &Device::cpu())?;
    /// assert_eq!(sequence.searchsorted(2.5, false)?.item::<i64>()?, 2);
    /// assert_eq!(Tensor::new([1u8, 255], &Device::cpu())?.searchsorted(-1i64, false)?.item::<i64>()?, 0);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If dims beside the last differ (a list takes values of any shape), or dtypes or devices differ.
    pub fn searchsorted(&self, values: impl Into<Value>, right: bool) -> Result<Tensor> {
        const OP: &str = "searchsorted";
        let values = match values.into() {
            Value::Tensor(values) => values,
            Value::Scalar(number) if self.rank() == 1 => {
                let dtype = comparison_dtype(self.dtype(), number);
                let value = Tensor::full((), number, (dtype, self.device()))?;
                if dtype != self.dtype() {
                    return self.to_dtype(dtype)?.searchsorted(value, right);
                }
                value
            }
            Value::Scalar(_) => {
                let reason = "is not that of a list, which a single value needs".to_owned();
                return Err(Error::Shape { op: OP, shape: self.shape().to_vec(), reason });
            }
        };
        let Some((_, lead)) = self.shape().split_last() else {
            return Err(Error::Shape {
                op: OP,
                shape: Vec::new(),
                reason: "is not that of a sequence".into(),
            });
        };
        if values.dtype() != self.dtype() {
            let reason = format!("is not that of the sequence, {}; cast one", self.dtype());
            return Err(Error::DType { op: OP, dtype: values.dtype(), reason });
        }
        let own_lead = values.shape().split_last().map(|(_, lead)| lead);
        if self.rank() != 1 && own_lead != Some(lead) {
            return Err(Error::ShapeMismatch {
                op: OP,
                lhs: self.shape().to_vec(),
                rhs: values.shape().to_vec(),
                reason: "must be equal beside the last dim".into(),
            });
        }
        let size = self.shape()[self.rank() - 1];
        if size == 0 || values.numel() == 0 {
            return Tensor::zeros(values.shape(), (DType::I64, self.device()));
        }
        let rows = self.numel() / size;
        let sequence = self.array()?.reshape(&[rows, size])?;
        let wanted = values.array()?.reshape(&[rows, values.numel() / rows])?;
        lower_bounds(&sequence, &wanted, right)?
            .map(|places| places.reshape(values.shape()))
            .done()
            .map(Tensor::from_array)
    }
}

/// The dtype in which elements are compared with a number.
fn comparison_dtype(elements: DType, number: Scalar) -> DType {
    let promoted = number.promote(elements);
    match number {
        Scalar::Int(_) if !promoted.is_float() && number.cast(promoted) != number => DType::I64,
        _ => promoted,
    }
}

/// Where each value belongs in the ascending row beside it, as i64: the part of the row in which that place is, is halved until one place is left.
/// An element lies before a value if it is not larger (`right`) or not as large, which also holds if one of them is NaN: PyTorch's rule.
fn lower_bounds(rows: &Array, values: &Array, right: bool) -> Result<Expr> {
    let size = rows.shape()[1];
    let index = if size < i32::MAX as usize / 2 { DType::I32 } else { DType::I64 };
    let constant = |number: usize| Array::full(values.shape(), number as i64, index, rows.device());
    let (wanted, two) = (Expr::of(values), constant(2)?);
    let (mut first, mut end) = (Expr::from(constant(0)), Expr::from(constant(size)));
    for _ in 0..=size.ilog2() {
        let middle = (&first + &end).map(|sum| sum.div_trunc(&two));
        // Where one place is left it may be that behind the row; the last element stands in, and does not count.
        let element = middle.min(size as i64 - 1).map(|at| rows.gather(1, at));
        let before = if right { element.gt(&wanted) } else { element.ge(&wanted) }.not().and(first.lt(&end));
        (first, end) = (before.select(&middle + 1i64, &first), before.select(&end, &middle));
    }
    Ok(first.cast(DType::I64))
}
