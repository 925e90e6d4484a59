//! Adding a gradient to a tensor's `grad`. Several threads may do so at once: no sum is lost.

use wgrad_array::{BinaryOp, Result};

use crate::Tensor;
use crate::tape::lock;

/// Adds a gradient to `tensor.grad()`. What the caller handed in is neither changed nor kept as it is: without
/// `create_graph` only its (immutable) value is taken over, which costs nothing.
pub(crate) fn accumulate(tensor: &Tensor, grad: &Tensor, create_graph: bool) -> Result<()> {
    let value = grad.array()?;
    loop {
        tensor.drop_spoilt_grad();
        let old = lock(&tensor.0.state).extra().grad.clone();
        let new = match &old {
            Some(old) if create_graph => old.add(grad)?,
            // What the caller set, an expanded tensor perhaps, cannot hold the sum.
            Some(old) if old.has_overlap() => Tensor::from_array(old.array()?.binary(BinaryOp::Add, &value)?),
            Some(old) => return old.update_value(|array| array.binary(BinaryOp::Add, &value)),
            None if create_graph => Tensor::from_edge(value.clone(), grad.gradient_edge()),
            None => Tensor::from_array(value.clone()),
        };
        // Another thread may have set or cleared it meanwhile: then once more.
        let mut state = lock(&tensor.0.state);
        let current = &mut state.extra().grad;
        let unchanged = match (&*current, &old) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is_same(b),
            _ => false,
        };
        if unchanged {
            let previous = current.replace(new);
            drop(state);
            drop(previous);
            return Ok(());
        }
    }
}
