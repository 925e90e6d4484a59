//! What reading a tensor would do.

use wgrad_array::{Array, Explanation, Result};

use crate::Tensor;

/// # Plans
impl Tensor {
    /// What reading it now would do: the pending operations with the lines that called them, and the plan for them: the kernels, what
    /// each computes, reads and stores, and why. Nothing is computed, no counter changes, and no plan is kept.
    ///
    /// As text, `docs/plans.md` says how to read it; `{:#}` adds the kernels' instructions. The fields have the same as data.
    ///
    /// ```
    /// use wgrad::{Device, Tensor, Why};
    /// let x = Tensor::new([1f32, 9.0, 0.0], &Device::cpu())?.requires_grad_(true)?;
    /// let loss = (x.pow(2.0)? + 100.0)?.mean()?;
    /// let explanation = loss.explain()?;
    /// assert_eq!(explanation.launches(), 1);
    /// let kernel = &explanation.plans[0].kernels[0];
    /// assert_eq!((kernel.traffic.read, kernel.traffic.written), (12, 4));
    /// assert_eq!((kernel.stores[0].called, kernel.stores[0].why), ("mean", Why::Result));
    /// println!("{explanation}");
    /// # Ok::<(), wgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// If no plan can be made.
    pub fn explain(&self) -> Result<Explanation> {
        self.array()?.explain()
    }

    /// [`Tensor::explain`] for what [`Tensor::eval_all`] would do.
    ///
    /// # Errors
    /// As [`Tensor::explain`].
    pub fn explain_all<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Explanation> {
        let arrays = tensors.into_iter().map(Tensor::array).collect::<Result<Vec<_>>>()?;
        Array::explain_all(&arrays.iter().collect::<Vec<_>>())
    }
}
