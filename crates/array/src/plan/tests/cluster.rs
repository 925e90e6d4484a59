use super::super::cluster::{Cluster, ClusterKind};
use super::super::facts::Facts;
use super::super::lower::LowerError;
use super::*;
use crate::graph::Ref;

/// The cluster of a step after it has taken another step, if it does.
fn with(first: u32, facts: &Facts<'_>, step: u32) -> Option<Cluster> {
    let mut joined = Cluster::alone(facts, first).unwrap();
    joined.take(facts, step).then_some(joined)
}

#[test]
fn rows_take_in_what_belongs_to_them_and_nothing_else() {
    let x = leaf(&[4, 6]);
    let rows = sum(&x, &[1]);
    let quotient = x.binary(BinaryOp::Div, &rows).unwrap();
    let columns = sum(&x, &[0]);
    let (graph, limits) = (graph(&[&quotient, &columns, &rows]), limits());
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let (rows, quotient, columns) = (step(&facts, &rows), step(&facts, &quotient), step(&facts, &columns));

    let cluster = Cluster::alone(&facts, rows).unwrap();
    assert_eq!(cluster.folded_dims()[..], [1]);
    assert!(
        cluster.has_row_value(&[4, 1]) && !cluster.has_row_value(&[4, 6]) && !cluster.has_row_value(&[1, 6])
    );
    assert!(cluster.could_take(&facts, quotient));
    let joined = with(rows, &facts, quotient).unwrap();
    assert_eq!(joined.body.members[..], [rows, quotient]);
    assert_eq!(joined.body.accesses.len(), 2, "x is read once, the sum not at all");
    assert!(with(rows, &facts, columns).is_none(), "columns are other rows");

    // In the other order: an elementwise loop is rewritten over the rows of a reduction.
    let alone = Cluster::alone(&facts, quotient).unwrap();
    assert!(alone.folded_dims().is_empty());
    assert_eq!(with(quotient, &facts, columns).unwrap().folded_dims()[..], [0]);
}

#[test]
fn a_product_takes_in_what_reads_it() {
    let (x, w, other) = (leaf(&[4, 6]), leaf(&[6, 5]), leaf(&[4, 5]));
    let product = x.matmul(&w).unwrap();
    let (activated, unrelated) = (product.unary(UnaryOp::Tanh).unwrap(), exp(&other));
    let turned = exp(&product.permute(&[1, 0]).unwrap());
    let (graph, limits) = (graph(&[&activated, &unrelated, &turned]), limits());
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let of = |array: &Array| step(&facts, array);
    let cluster = Cluster::alone(&facts, of(&product)).unwrap();
    assert!(cluster.kind == ClusterKind::Matmul(of(&product)));
    assert!(
        cluster.could_take(&facts, of(&activated)) && with(of(&product), &facts, of(&activated)).is_some()
    );
    assert!(!cluster.could_take(&facts, of(&unrelated)), "it would wait for a product that it doesn't need");
    assert!(
        with(of(&product), &facts, of(&turned)).is_none(),
        "an element is there for its own row and column only"
    );
}

#[test]
fn a_kernel_that_reads_memory_only_says_what_must_be_stored() {
    let x = leaf(&[4, 6]);
    let work = exp(&x);
    let running = work.scan(ReduceOp::Sum, 1).unwrap();
    let (graph, limits) = (graph(&[&running]), limits());
    let mut facts = Facts::new(&graph, true, &limits).unwrap();
    let (work, running) = (step(&facts, &work), step(&facts, &running));
    assert!(facts.steps[work as usize].stored);
    assert!(Cluster::alone(&facts, running).unwrap().kind == ClusterKind::Scan(running));
    (facts.steps[work as usize].anchor, facts.steps[work as usize].stored) = (false, false);
    assert_eq!(Cluster::alone(&facts, running).err(), Some(LowerError::Store(Ref::Node(work))));
}
