//! Explaining an evaluation without running it: the pending operations and the plan for them, as text and as
//! data.

use std::fmt;

use wgrad_device::{Device, Result};

use crate::graph::Graph;
use crate::node::NodeRef;
use crate::plan::{self, Outline};
use crate::{Array, eval, flush};

/// What an evaluation of some arrays would do; see [`Array::explain`]. The text (`to_string()`) shows the
/// pending operations and the plan; `{:#}` adds the kernels' instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The plans of the evaluation: one for each device with pending work.
    pub plans: Vec<Outline>,
}

impl Explanation {
    /// The number of kernels that would run.
    pub fn launches(&self) -> usize {
        self.plans.iter().map(|plan| plan.kernels.len()).sum()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plans.is_empty() {
            return write!(f, "nothing is pending");
        }
        for (i, plan) in self.plans.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            plan.write_operations(f)?;
            fmt::Display::fmt(plan, f)?;
        }
        Ok(())
    }
}

impl Array {
    /// What reading the array now would do: the pending operations, and the plan for them. Nothing is
    /// computed, no counter changes, and the plan is not added to the cache.
    ///
    /// ```
    /// use wgrad_array::{Array, BinaryOp, Device, ReduceOp, Why};
    /// let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3], &Device::cpu())?;
    /// let y = x.binary(BinaryOp::Mul, &x)?.reduce(ReduceOp::Sum, &[0], false)?;
    /// let explanation = y.explain()?;
    /// assert_eq!(explanation.launches(), 1);
    /// let kernel = &explanation.plans[0].kernels[0];
    /// assert_eq!((kernel.traffic.read, kernel.traffic.written), (12, 4));
    /// // The result is a view of the stored sum, without the dim that was reduced.
    /// assert_eq!(kernel.stores[0].why, Why::Viewed);
    /// println!("{explanation}");
    /// # Ok::<(), wgrad_array::Error>(())
    /// ```
    ///
    /// # Errors
    /// If no plan can be made.
    pub fn explain(&self) -> Result<Explanation> {
        Array::explain_all(&[self])
    }

    /// [`Array::explain`] for what [`Array::eval_all`] would do.
    ///
    /// # Errors
    /// As [`Array::explain`].
    pub fn explain_all(arrays: &[&Array]) -> Result<Explanation> {
        let mut waiting: Vec<&NodeRef> =
            arrays.iter().map(|array| &array.0).filter(|node| node.is_pending()).collect();
        let mut plans = Vec::new();
        while let Some(device) = waiting.first().map(|node| node.device.clone()) {
            let (here, elsewhere): (Vec<&NodeRef>, _) =
                waiting.into_iter().partition(|node| node.device == device);
            plans.extend(outline(&here, &device)?);
            waiting = elsewhere;
        }
        Ok(Explanation { plans })
    }
}

/// The plan for these nodes. `None` if none of them is pending any more.
fn outline(nodes: &[&NodeRef], device: &Device) -> Result<Option<Outline>> {
    let companions = flush::companions(device);
    loop {
        let binding = device.executor().limits().binding;
        let mut graph = Graph::with(nodes.iter().copied(), companions.offers(), binding);
        let outline = if graph.roots.is_empty() {
            Ok(None)
        } else if graph.has_fault {
            Ok(Some(Outline::of_fault(&graph, device)))
        } else {
            match plan::outline(&mut graph, device, eval::fusion()) {
                // Another thread has computed a part of the graph: it is collected again.
                Ok(None) => {
                    graph.recycle();
                    continue;
                }
                other => other,
            }
        };
        graph.recycle();
        return outline;
    }
}
