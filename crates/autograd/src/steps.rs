//! The steps from a storage, or a base, to a view of it, as a list that views of views share.
//!
//! Adding a step costs the same however many there are, and steps that are one together become one: views that go back and forth have
//! few steps, and what a view must do after a write to its storage stays small.

use std::sync::Arc;

use wgrad_array::{Array, Result};

use crate::view::ViewStep;

/// Steps in the order in which they are taken.
#[derive(Clone, Default)]
pub(crate) struct Steps(Option<Arc<Node>>);

struct Node {
    before: Steps,
    step: ViewStep,
    /// How many steps there are with this one.
    count: usize,
}

impl Steps {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |node| node.count)
    }

    /// These steps and one more, which may become one with the last, but not with one of the first `apart`.
    pub(crate) fn then(&self, step: ViewStep, apart: usize) -> Steps {
        if step.is_nothing() {
            return self.clone();
        }
        if let Some(last) = &self.0
            && last.count > apart
            && let Some(joined) = last.step.join(&step)
        {
            return last.before.then(joined, apart);
        }
        Steps(Some(Arc::new(Node { before: self.clone(), step, count: self.len() + 1 })))
    }

    /// The steps, first to last.
    pub(crate) fn to_vec(&self) -> Vec<ViewStep> {
        self.since(0)
    }

    /// The steps but the first few, first to last.
    pub(crate) fn since(&self, first: usize) -> Vec<ViewStep> {
        let mut steps = Vec::with_capacity(self.len().saturating_sub(first));
        let mut rest = self;
        while let Some(node) = rest.0.as_ref().filter(|node| node.count > first) {
            steps.push(node.step.clone());
            rest = &node.before;
        }
        steps.reverse();
        steps
    }

    /// What they make of an array.
    pub(crate) fn apply(&self, array: &Array) -> Result<Array> {
        self.to_vec().iter().try_fold(array.clone(), |array, step| step.apply(&array))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        // A long list must not be dropped by as deep a recursion.
        let mut rest = self.0.take();
        while let Some(mut node) = rest.and_then(Arc::into_inner) {
            rest = node.before.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use wgrad_array::layout::Dims;
    use wgrad_array::{Device, Result};

    use super::*;

    fn dims(sizes: &[usize]) -> Dims {
        sizes.into()
    }

    #[test]
    fn joined_steps_make_the_same_view() -> Result<()> {
        let numbers: Vec<i64> = (0..24).collect();
        let x = Array::from_slice(&numbers, &[4, 6], &Device::cpu())?;
        let transposed = || ViewStep::Permute { dims: [1, 0][..].into() };
        let slice = |dim, start, len, step| ViewStep::Slice { dim, start, len, step };
        let cases: [(usize, Vec<ViewStep>); 7] = [
            (0, vec![transposed(), transposed()]),
            (1, vec![slice(1, 1, 3, 2), slice(1, 1, 2, 1), slice(1, 1, 1, 1)]),
            (1, vec![slice(1, 1, 4, 1), ViewStep::Select { dim: 1, index: 2 }]),
            (
                1,
                vec![
                    ViewStep::Reshape { from: dims(&[4, 6]), to: dims(&[2, 12]) },
                    ViewStep::Reshape { from: dims(&[2, 12]), to: dims(&[3, 8]) },
                ],
            ),
            (1, vec![ViewStep::Select { dim: 0, index: 1 }, ViewStep::Permute { dims: [0][..].into() }]),
            (
                2,
                vec![
                    ViewStep::Reshape { from: dims(&[4, 6]), to: dims(&[24, 1]) },
                    ViewStep::Expand { from: dims(&[24, 1]), to: dims(&[24, 1]) },
                    ViewStep::Expand { from: dims(&[24, 1]), to: dims(&[2, 24, 3]) },
                ],
            ),
            (
                5,
                vec![
                    slice(0, 0, 3, 1),
                    slice(1, 1, 5, 1),
                    transposed(),
                    slice(0, 1, 2, 2),
                    slice(1, 0, 2, 1),
                ],
            ),
        ];
        for (count, steps) in cases {
            let list = steps.iter().fold(Steps::default(), |list, step| list.then(step.clone(), 0));
            let plain = steps.iter().try_fold(x.clone(), |x, step| step.apply(&x))?;
            let joined = list.apply(&x)?;
            assert_eq!((joined.shape(), joined.to_vec::<i64>()?), (plain.shape(), plain.to_vec::<i64>()?));
            assert_eq!((list.len(), list.to_vec().len()), (count, count), "{:?}", list.to_vec());
        }
        Ok(())
    }

    #[test]
    fn steps_to_a_base_stay_apart() {
        let transposed = || ViewStep::Permute { dims: [1, 0][..].into() };
        let base = Steps::default().then(transposed(), 0);
        let view = base.then(transposed(), base.len());
        assert_eq!((view.len(), view.since(base.len())), (2, vec![transposed()]));
        assert_eq!(view.then(transposed(), base.len()).len(), 1);
    }

    #[test]
    fn long_lists_are_dropped_without_recursion() {
        let mut list = Steps::default();
        for i in 0..200_000 {
            let step = match i % 2 {
                0 => ViewStep::Permute { dims: [1, 0][..].into() },
                _ => ViewStep::Reshape { from: dims(&[2, 3]), to: dims(&[3, 2]) },
            };
            list = list.then(step, 0);
        }
        assert_eq!(list.to_vec().len(), 200_000);
    }
}
