//! What reading an array would do: the pending operations behind it, and the plan for them, as text and as data.

use std::fmt;

use wgrad_device::{Device, Result};

use crate::graph::Graph;
use crate::node::NodeRef;
use crate::plan::{self, Outline};
use crate::{Array, eval, flush};

/// What reading some arrays would do; see [`Array::explain`]. As text (`to_string()`) the pending operations and the plan; with
/// `{:#}` the kernels' instructions too.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The evaluations that it would take: one a device, none if nothing is pending.
    pub plans: Vec<Outline>,
}

impl Explanation {
    /// The kernels that would run.
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
    /// What reading it now would do: the pending operations, and the plan for them. Nothing is computed, no counter changes, and no
    /// plan is kept.
    ///
    /// ```
    /// use wgrad_array::{Array, BinaryOp, Device, ReduceOp, Why};
    /// let x = Array::from_slice(&[1.0f32, 2.0, 3.0], &[3], &Device::cpu())?;
    /// let y = x.binary(BinaryOp::Mul, &x)?.reduce(ReduceOp::Sum, &[0], false)?;
    /// let explanation = y.explain()?;
    /// assert_eq!(explanation.launches(), 1);
    /// let kernel = &explanation.plans[0].kernels[0];
    /// assert_eq!((kernel.traffic.read, kernel.traffic.written), (12, 4));
    /// // Without the dim that was summed over, the result is a view.
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

/// The plan for these nodes; none if they have been finished meanwhile.
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
                // Another thread has finished part of it.
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
