//! Counters of the work that planning takes. Tests check with them that this work grows linearly with the
//! graph.

use std::cell::Cell;

/// The work that was done to make one plan.
#[derive(Clone, Default)]
pub(crate) struct Effort {
    /// How often the anchors were divided into clusters.
    grouped: Cell<usize>,
    /// How often a step was written into a body.
    written: Cell<usize>,
    /// How many clusters were visited to find dependencies between clusters.
    visited: Cell<usize>,
}

impl Effort {
    pub(super) fn count_grouped(&self) {
        self.grouped.set(self.grouped.get() + 1);
    }

    pub(super) fn count_written(&self) {
        self.written.set(self.written.get() + 1);
    }

    pub(super) fn count_visited(&self) {
        self.visited.set(self.visited.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use wgrad_device::{Device, Result};

    use super::super::schedule::schedule;
    use super::*;
    use crate::graph::Graph;
    use crate::plan::facts::Facts;
    use crate::{Array, BinaryOp, ReduceOp, UnaryOp};

    /// The number of kernels for these arrays, and the counters of planning them.
    fn effort(roots: &[Array]) -> (usize, [usize; 3]) {
        let device = Device::cpu();
        let graph = Graph::collect(roots.iter().map(|root| &root.0));
        let mut facts = Facts::new(&graph, true, device.executor().limits()).unwrap();
        let kernels = schedule(&mut facts).unwrap().len();
        let Effort { grouped, written, visited } = &facts.effort;
        (kernels, [grouped.get(), written.get(), visited.get()])
    }

    fn leaf(shape: &[usize]) -> Array {
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.25).collect();
        Array::from_slice(&data, shape, &Device::cpu()).unwrap()
    }

    /// Checks that a program four times as large takes about four times the work, and that its anchors are
    /// divided into clusters equally often.
    fn grows_in_line(program: impl Fn(usize) -> Result<Vec<Array>>) -> [usize; 3] {
        let small = effort(&program(60).unwrap()).1;
        let (kernels, large) = effort(&program(240).unwrap());
        assert!(kernels > 0);
        assert!(large[1] > 60, "nothing was counted");
        assert_eq!(small[0], large[0], "grouped");
        for (small, large) in small.iter().zip(large).skip(1) {
            assert!(large <= 5 * small + 60, "{small} became {large}");
        }
        large
    }

    #[test]
    fn independent_roots() {
        grows_in_line(|n| (0..n).map(|i| leaf(&[2 + i % 3]).unary(UnaryOp::Sin)).collect());
    }

    #[test]
    fn roots_of_one_leaf() {
        grows_in_line(|n| {
            let x = leaf(&[5]);
            (0..n).map(|i| x.binary_scalar(BinaryOp::Add, i as f32)).collect()
        });
    }

    #[test]
    fn roots_with_leaves_that_strides_do_not_reach() {
        let [grouped, ..] = grows_in_line(|n| {
            (0..n)
                .map(|_| {
                    leaf(&[2, 3]).permute(&[1, 0])?.reshape(&[2, 3])?.binary(BinaryOp::Add, &leaf(&[2, 3]))
                })
                .collect()
        });
        assert_eq!(grouped, 2, "once up to the first that is in the way, once for all");
    }

    #[test]
    fn roots_with_results_that_strides_do_not_reach() {
        let [grouped, ..] = grows_in_line(|n| {
            let root = |_| {
                let y = leaf(&[2, 3]).unary(UnaryOp::Exp)?.permute(&[1, 0])?.reshape(&[2, 3])?;
                y.binary(BinaryOp::Add, &leaf(&[2, 3]))
            };
            (0..n).map(root).collect()
        });
        assert_eq!(grouped, 2, "once up to the first that is in the way, once for all");
    }

    #[test]
    fn a_chain_of_softmaxes_and_its_sums() {
        grows_in_line(|n| {
            let mut x = leaf(&[4, 8]);
            let mut roots = Vec::new();
            for _ in 0..n {
                let e =
                    x.binary(BinaryOp::Sub, &x.reduce(ReduceOp::Max, &[1], true)?)?.unary(UnaryOp::Exp)?;
                x = e.binary(BinaryOp::Div, &e.reduce(ReduceOp::Sum, &[1], true)?)?;
                roots.push(x.reduce(ReduceOp::Sum, &[0, 1], false)?);
            }
            Ok(roots)
        });
    }
}
