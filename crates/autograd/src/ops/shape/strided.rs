//! Views by sizes, strides and offset.

use wgrad_array::layout::{Strides, contiguous_strides};
use wgrad_array::{Error, Result};

use crate::ops::inplace::overlaps;
use crate::storage::ViewKind;
use crate::tape::{Derivative, record_edge};
use crate::view::{ViewStep, places};
use crate::{IntArray, Tensor, is_grad_enabled};

/// # Views by strides
#[wgrad_macros::call_sites]
impl Tensor {
    /// The elements of this tensor's storage at `offset + sum(index * stride)`, counted in elements. Without an offset it is
    /// this tensor's own. Elements may appear more than once; such a view cannot be written to.
    ///
    /// Of a view it is a view of the same storage; of a view that was detached, a copy.
    ///
    /// ```
    /// use wgrad_autograd::{Device, Tensor};
    /// let x = Tensor::arange(0, 6, 1, &Device::cpu())?;
    /// assert_eq!(x.as_strided([2, 2], &[1, 3], 1)?.to_vec::<i64>()?, [1, 4, 2, 5]);
    /// # Ok::<(), wgrad_autograd::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is not one stride for each size, one is negative, or a place lies outside of the storage.
    pub fn as_strided(
        &self,
        size: impl Into<IntArray>,
        stride: &[isize],
        offset: impl Into<Option<usize>>,
    ) -> Result<Tensor> {
        const OP: &str = "as_strided";
        let shape = size.into().shape(OP)?;
        let own = self.layout();
        let offset = offset.into().unwrap_or(own.offset());
        let storage = self.shared()?.storage.read().0;
        let fail = |reason: String| Err(Error::Shape { op: OP, shape: shape.to_vec(), reason });
        if stride.len() != shape.len() || stride.iter().any(|&stride| stride < 0) {
            return fail(format!("does not go with the strides {stride:?}: one for each dim, none negative"));
        }
        let last = shape.iter().zip(stride).try_fold(offset, |last, (&size, &stride)| {
            (stride as usize).checked_mul(size.saturating_sub(1)).and_then(|far| last.checked_add(far))
        });
        if !shape.contains(&0) && last.is_none_or(|last| last >= storage.elements()) {
            let elements = storage.elements();
            return fail(format!(
                "with strides {stride:?} and offset {offset} leaves the storage of {elements} elements"
            ));
        }
        // Where there are no elements, strides and offset need not be places of a memory.
        let empty = shape.contains(&0);
        let offset = if empty { offset.min(storage.elements()) } else { offset };
        let strides: Strides =
            if empty && last.is_none() { contiguous_strides(&shape) } else { stride.into() };
        let step = ViewStep::Strided { shape: shape.clone(), strides, offset };
        if own.is_contiguous() && own.elements() == storage.elements() {
            return self.view_step("AsStridedBackward0", step);
        }
        let x = self.operand()?;
        let out = step.apply(&storage)?;
        let source = places(own.shape(), own.strides(), own.offset(), &storage)?;
        let elements = storage.elements();
        let kind = if is_grad_enabled() { ViewKind::Plain } else { ViewKind::NoGrad };
        let back = step.clone();
        let edge = record_edge(&out, [x], |_, _| {
            Derivative::with("AsStridedBackward0", move |c| {
                c.each(1, |_| {
                    // Back to the storage, and from there what this tensor sees of it.
                    let (mut line, [source]) = (back.adjoint(c.grad()?, &[elements])?, c.tensors()?);
                    if overlaps(own.shape(), own.strides()) {
                        let ones = Tensor::ones([source.numel()], (line.dtype(), line.device()))?;
                        let seen = line.zeros_like()?.index_add(0, &source, &ones)?;
                        line = line.div(seen.maximum(1.0)?)?;
                    }
                    line.index_select(0, &source)?.reshaped(own.shape())
                })
            })
            .save(&source)
        });
        self.share_view(step, out, edge, kind)
    }
}
