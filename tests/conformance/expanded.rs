//! Expanded inputs: tensors that repeat their first index along a dim, without memory for it. No case has their values, so the same
//! call on the same values in memory of their own says what is right.

use crate::enlarged::Enlarged;
use crate::ops::Op;
use crate::replay::{Replayed, Setting};
use crate::tensors::Layout;

/// Replays a case with all of its inputs expanded; nothing where the device refuses the values themselves.
pub fn replay(op: Op, setting: &Setting) -> Replayed {
    let &Setting { case, store, device, factor, .. } = setting;
    let mut inputs = [Vec::new(), Vec::new()];
    for input in &case.inputs {
        let laid = store.input(input, device, Layout::Expanded).map(|tensor| tensor.detach());
        let dense = laid.as_ref().ok().and_then(|tensor| {
            let dense = tensor.contiguous().ok()?.detach();
            dense.eval().ok().map(|()| dense)
        });
        let (Ok(laid), Some(dense)) = (laid, dense) else {
            let failure = format!("input {}: cannot be expanded", input.name);
            return Replayed { values: Some(Err(failure)), ..Replayed::default() };
        };
        inputs[0].push(dense);
        inputs[1].push(laid);
    }
    let [dense, expanded] =
        inputs.map(|inputs| Enlarged { case, inputs, args: case.args.clone(), growth: 1.0 });
    let expected = dense.compute(op, device, true);
    if expected.failure.is_some() {
        return Replayed::default();
    }
    let actual = expanded.compute(op, device, true);
    expanded.judge(&expected, actual, factor, store)
}
