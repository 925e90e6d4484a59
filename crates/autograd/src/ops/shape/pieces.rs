//! Pieces of a tensor: several views that one operation makes, none of which may be written to.

use wgrad_array::layout::Dims;
use wgrad_array::{Error, Result};

use crate::Tensor;
use crate::storage::ViewKind;
use crate::tape::{Derivative, output_edges};
use crate::view::ViewStep;

/// # Pieces
#[wgrad_macros::call_sites]
impl Tensor {
    /// Pieces of `size` indices along a dim; the last may be smaller. Views of this tensor, which may not be written to.
    ///
    /// # Errors
    /// If there is no such dim, or the size is 0 and the dim's is not.
    pub fn split(&self, size: usize, dim: isize) -> Result<Vec<Tensor>> {
        const OP: &str = "split";
        let whole = self.shape()[self.sliced_dim(OP, dim)?];
        if size == 0 && whole > 0 {
            return Err(Error::Argument { op: OP, reason: "the size is 0; it must be at least 1".into() });
        }
        let count = whole.div_ceil(size.max(1)).max(1);
        check_pieces(OP, count)?;
        let sizes: Vec<usize> = (0..count).map(|i| size.min(whole - i * size)).collect();
        self.split_sizes(&sizes, dim, "SplitBackward0")
    }

    /// Pieces of these sizes along a dim, which they must fill; `split` with a list.
    ///
    /// # Errors
    /// If there is no such dim, or the sizes' sum is not its size.
    pub fn split_with_sizes(&self, sizes: &[usize], dim: isize) -> Result<Vec<Tensor>> {
        self.split_sizes(sizes, dim, "SplitWithSizesBackward0")
    }

    fn split_sizes(&self, sizes: &[usize], dim: isize, node: &'static str) -> Result<Vec<Tensor>> {
        const OP: &str = "split";
        let at = self.sliced_dim(OP, dim)?;
        let whole = self.shape()[at];
        if sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(whole) {
            let reason = format!("the sizes {sizes:?} do not add up to {whole}, the size of dim {dim}");
            return Err(Error::Argument { op: OP, reason });
        }
        let starts = sizes.iter().scan(0, |next, &size| Some(std::mem::replace(next, *next + size)));
        let steps =
            starts.zip(sizes).map(|(start, &len)| ViewStep::Slice { dim: at, start, len, step: 1 }).collect();
        self.multiple(steps, node, "split", move |pieces| {
            Tensor::cat(&pieces.iter().collect::<Vec<_>>(), at as isize)
        })
    }

    /// At most `count` pieces of one size along a dim; the last may be smaller.
    ///
    /// # Errors
    /// If there is no such dim, or the count is 0.
    pub fn chunk(&self, count: usize, dim: isize) -> Result<Vec<Tensor>> {
        const OP: &str = "chunk";
        let whole = self.shape()[self.sliced_dim(OP, dim)?];
        if count == 0 {
            return Err(Error::Argument { op: OP, reason: "the count is 0; it must be at least 1".into() });
        }
        if whole == 0 {
            check_pieces(OP, count)?;
            return self.split_sizes(&vec![0; count], dim, "SplitWithSizesBackward0");
        }
        self.split(whole.div_ceil(count), dim)
    }

    /// The slices of a dim, which goes away. Views of this tensor, which may not be written to.
    ///
    /// # Errors
    /// If there is no such dim.
    pub fn unbind(&self, dim: isize) -> Result<Vec<Tensor>> {
        let at = self.sliced_dim("unbind", dim)?;
        check_pieces("unbind", self.shape()[at])?;
        let steps: Vec<_> = (0..self.shape()[at]).map(|index| ViewStep::Select { dim: at, index }).collect();
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        self.multiple(steps, "UnbindBackward0", "unbind", move |pieces| {
            Tensor::stack(&pieces.iter().collect::<Vec<_>>(), at as isize)
        })
    }

    /// Several views that one node makes. `join` puts the gradients of all of them together.
    fn multiple(
        &self,
        steps: Vec<ViewStep>,
        node: &'static str,
        op: &'static str,
        join: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Vec<Tensor>> {
        let x = self.operand()?;
        let arrays = steps.iter().map(|step| step.apply(&x.array)).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<Dims> = arrays.iter().map(|array| array.shape().into()).collect();
        let (dtype, device) = (self.dtype(), self.device().clone());
        let edges = output_edges(&arrays, [x], |_, _| {
            Derivative::with(node, move |c| {
                let piece = |(grad, shape): (&Option<Tensor>, &Dims)| match grad {
                    Some(grad) => Ok(grad.clone()),
                    None => Tensor::zeros(shape, (dtype, &device)),
                };
                c.each(1, |_| join(&c.grads.iter().zip(&shapes).map(piece).collect::<Result<Vec<_>>>()?))
            })
        });
        let views = steps.into_iter().zip(arrays).zip(edges);
        views
            .map(|((step, array), edge)| self.share_view(step, array, edge, ViewKind::Multiple(op)))
            .collect()
    }
}

/// The most pieces that a tensor can be cut into.
const MOST_PIECES: usize = 1 << 20;

fn check_pieces(op: &'static str, count: usize) -> Result<()> {
    if count <= MOST_PIECES {
        return Ok(());
    }
    let reason = format!("{count} pieces were asked for; {MOST_PIECES} are the most");
    Err(Error::Argument { op, reason })
}
