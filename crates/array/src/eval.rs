//! Evaluation: collect, plan, run.

use std::cell::Cell;
use std::sync::LazyLock;

use smallvec::SmallVec;
use wgrad_device::{Device, Error, Result};

use crate::Array;
use crate::graph::Graph;
use crate::plan;

/// Computes these arrays and all that they need.
pub(crate) fn evaluate(arrays: &[&Array]) -> Result<()> {
    let mut waiting: SmallVec<[&Array; 8]> =
        arrays.iter().copied().filter(|array| !array.is_evaluated()).collect();
    while let Some(device) = waiting.first().map(|array| array.device().clone()) {
        let (here, elsewhere): (SmallVec<[&Array; 8]>, _) =
            waiting.iter().copied().partition(|a| *a.device() == device);
        evaluate_on(&device, &here)?;
        waiting = elsewhere;
    }
    Ok(())
}

fn evaluate_on(device: &Device, arrays: &[&Array]) -> Result<()> {
    loop {
        let mut graph = Graph::collect(arrays);
        let done = if graph.roots.is_empty() {
            Some(Ok(()))
        } else {
            // Another thread may finish a node between collecting and planning: then the graph has become smaller.
            plan::plan(&mut graph, device, fusion())?.map(|plan| plan.run(&graph, device))
        };
        graph.recycle();
        if let Some(done) = done {
            return done;
        }
    }
}

thread_local! {
    static FUSION: Cell<Option<bool>> = const { Cell::new(None) };
}

static FUSION_BY_DEFAULT: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("WGRAD_FUSION").is_none_or(|value| value != "0"));

fn fusion() -> bool {
    FUSION.get().unwrap_or(*FUSION_BY_DEFAULT)
}

/// Runs a closure with fusion switched on or off for this thread, whatever `WGRAD_FUSION` says. Without it every operation is evaluated on its own: slow, and the
/// reference that fused results are compared with.
pub fn with_fusion<R>(on: bool, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FUSION.set(self.0);
        }
    }
    let _restore = Restore(FUSION.replace(Some(on)));
    run()
}

/// The error for a value that is not there after a successful evaluation.
pub(crate) fn lost_value(op: &'static str, array: &Array) -> Error {
    Error::Unsupported {
        op,
        reason: format!("{array:?} has no value after its evaluation; please report this"),
    }
}
