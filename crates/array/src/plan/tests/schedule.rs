use wgrad_device::Limits;
use wgrad_device::kernel::Kernel;

use super::super::facts::{Facts, Slot};
use super::super::schedule::{Planned, schedule};
use super::*;

/// The kernels for these results, and the stored results.
fn plan(roots: &[&Array], fusion: bool, limits: &Limits) -> (Vec<Planned>, Vec<(Dims, Option<Why>)>) {
    let graph = graph(roots);
    let mut facts = Facts::new(&graph, fusion, limits).unwrap();
    let planned = schedule(&mut facts).unwrap();
    (planned, stored(&facts))
}

/// The memory that a kernel reads and does not write.
fn reads(planned: &Planned) -> usize {
    let own = |slot: &&Slot| matches!(slot, Slot::Step(step) if planned.members.contains(step));
    planned.slots.iter().filter(|slot| !own(slot)).count()
}

fn softmax(x: &Array) -> Array {
    let shifted = x.binary(BinaryOp::Sub, &x.reduce(ReduceOp::Max, &[1], true).unwrap()).unwrap();
    let e = exp(&shifted);
    e.binary(BinaryOp::Div, &sum(&e, &[1])).unwrap()
}

#[test]
fn a_softmax_is_one_loop_over_the_rows() {
    let x = leaf(&[64, 100]);
    let (planned, stored) = plan(&[&softmax(&x)], true, &limits());
    assert_eq!(planned.len(), 1);
    let Kernel::Loop(kernel) = &planned[0].kernel else { panic!("no loop") };
    assert_eq!((kernel.rows(), kernel.row_elements()), (64, 100));
    assert_eq!(
        kernel.stages().into_iter().max(),
        Some(2),
        "a pass for the maximum, one for the sum, one that divides"
    );
    assert_eq!(stored, [(dims(&[64, 100]), Some(Why::Result))]);
    assert_eq!(reads(&planned[0]), 1);
    let traffic = planned[0].kernel.traffic();
    assert_eq!((traffic.read, traffic.written), (25_600, 25_600));
}

#[test]
fn without_fusion_each_operation_is_a_kernel() {
    let x = leaf(&[64, 100]);
    let (planned, stored) = plan(&[&softmax(&x)], false, &limits());
    // Five kernels: maximum, difference, exponential, sum, quotient. The views between them take none.
    assert_eq!((planned.len(), stored.len()), (5, 5));
    assert!(planned.iter().all(|kernel| kernel.members.len() == 1));
}

#[test]
fn a_product_of_a_product_is_two_kernels_in_order_and_elementwise_work_is_an_epilogue() {
    let (x, v, w) = (leaf(&[8, 6]), leaf(&[6, 5]), leaf(&[5, 3]));
    let y = x.matmul(&v).unwrap().unary(UnaryOp::Tanh).unwrap().matmul(&w).unwrap();
    let (planned, stored) = plan(&[&y], true, &limits());
    assert!(planned.iter().all(|kernel| matches!(kernel.kernel, Kernel::Matmul(_))));
    assert_eq!(stored, [(dims(&[8, 5]), Some(Why::Operand)), (dims(&[8, 3]), Some(Why::Result))]);
    let [first, second] = &planned[..] else { panic!("{} kernels", planned.len()) };
    let written = first.slots.iter().find(|slot| matches!(slot, Slot::Step(_))).unwrap();
    assert!(second.slots.contains(written), "the second reads what the first has written");
    let Kernel::Matmul(kernel) = &first.kernel else { panic!("no product") };
    assert_eq!(kernel.epilogue.body.len(), 2, "the product and its tanh");
}

#[test]
fn no_kernel_binds_more_buffers_than_the_device_allows() {
    let leaves: Vec<Array> = (0..20).map(|_| leaf(&[10])).collect();
    let total =
        leaves[1..].iter().fold(leaves[0].clone(), |total, x| total.binary(BinaryOp::Add, x).unwrap());
    for buffers in [4, 8, 30] {
        let (planned, _) = plan(&[&total], true, &Limits { buffers, ..limits() });
        assert!(planned.iter().all(|kernel| kernel.slots.len() <= buffers), "at most {buffers}");
        // Each kernel adds at least two values and passes one on.
        let least = 19usize.div_ceil(buffers - 2);
        assert!(planned.len() >= least.max(1) && planned.len() <= 19, "{} kernels", planned.len());
    }
    let (planned, _) = plan(&[&total], true, &Limits { buffers: 64, ..limits() });
    assert_eq!(planned.len(), 1);
}

#[test]
fn dear_work_of_two_kernels_is_stored_once_and_cheap_work_is_repeated() {
    let x = leaf(&[64, 32]);
    let rows_and_columns = |work: &Array| [sum(work, &[1]), sum(work, &[0])];
    let [rows, columns] = rows_and_columns(&exp(&exp(&exp(&exp(&x)))));
    let (planned, stored) = plan(&[&rows, &columns], true, &limits());
    assert_eq!(planned.len(), 2);
    assert!(stored.contains(&(dims(&[64, 32]), Some(Why::Repeated))), "{stored:?}");

    let [rows, columns] = rows_and_columns(&x.binary_scalar(BinaryOp::Mul, 2.0).unwrap());
    let (planned, stored) = plan(&[&rows, &columns], true, &limits());
    assert_eq!(planned.len(), 2);
    assert_eq!(stored, [(dims(&[64, 1]), Some(Why::Result)), (dims(&[1, 32]), Some(Why::Result))]);
}

#[test]
fn a_view_that_strides_cannot_follow_has_its_source_stored() {
    let x = leaf(&[2, 3]);
    let work = exp(&x).reshape(&[3, 2]).unwrap();
    // The elements are used in two orders, and one loop can follow only one of them.
    let root = work.binary(BinaryOp::Add, &strided(&[3, 2], &[1, 3])).unwrap();
    let (planned, stored) = plan(&[&root], true, &limits());
    assert_eq!((planned.len(), stored.len()), (2, 2));
    assert_eq!(stored[0], (dims(&[2, 3]), Some(Why::Strides)));
}

#[test]
fn a_sum_of_everything_folds_the_rows_where_they_are_at_hand() {
    let x = leaf(&[64, 100]);
    let y = softmax(&x);
    let loss = sum(&mul(&y, &y), &[0, 1]);
    let (planned, stored) = plan(&[&loss, &y], true, &limits());
    assert_eq!(planned.len(), 2, "the rows, then the sum of their sums");
    assert!(stored.contains(&(dims(&[64, 1]), Some(Why::Shared))), "{stored:?}");
    let last = planned[1].kernel.traffic();
    assert_eq!((last.read, last.written), (64 * 4, 4));
}
