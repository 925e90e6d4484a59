use wgrad_device::{DType, Limits};

use super::super::facts::{Facts, Slot};
use super::*;
use crate::graph::Ref;
use crate::op::Op;

#[test]
fn only_the_result_of_a_chain_is_stored() {
    let x = leaf(&[4, 6]);
    let y = exp(&exp(&exp(&x)));
    let (graph, limits) = (graph(&[&y]), limits());
    let facts = Facts::new(&graph, true, &limits).unwrap();
    assert_eq!(stored(&facts), [(dims(&[4, 6]), Some(Why::Result))]);
    assert_eq!(facts.steps.iter().filter(|step| step.anchor).count(), 1);
}

#[test]
fn what_somebody_holds_is_stored_if_recomputing_it_keeps_memory_or_costs_much() {
    let limits = limits();
    let why = |keep_source: bool, middle: fn(&Array) -> Array| {
        let x = leaf(&[4, 6]);
        let held = middle(&x);
        let root = held.binary_scalar(BinaryOp::Add, 1.0).unwrap();
        let source = keep_source.then(|| x.clone());
        drop(x);
        let graph = graph(&[&root]);
        drop(source);
        let facts = Facts::new(&graph, true, &limits).unwrap();
        let step = &facts.steps[step(&facts, &held) as usize];
        (step.stored, step.why)
    };
    assert_eq!(why(true, exp), (false, None), "computed anew from memory that is there anyway");
    assert_eq!(why(false, exp), (true, Some(Why::Held)), "else the source would have to stay");
    assert_eq!(why(true, |x| sum(x, &[1])), (true, Some(Why::Held)), "a reduction is dear");
}

#[test]
fn products_read_memory_through_strides_and_nothing_else() {
    let (x, w) = (strided(&[4, 6], &[1, 4]), leaf(&[6, 5]));
    let product = x.matmul(&w).unwrap();
    let (graph_of, limits) = (graph(&[&product]), limits());
    let facts = Facts::new(&graph_of, true, &limits).unwrap();
    assert_eq!(
        stored(&facts),
        [(dims(&[4, 5]), Some(Why::Result))],
        "a transposed factor is read where it lies"
    );

    let product = exp(&x).matmul(&w).unwrap();
    let graph = graph(&[&product]);
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let expected = [(dims(&[4, 6]), Some(Why::Operand)), (dims(&[4, 5]), Some(Why::Result))];
    assert_eq!(stored(&facts), expected, "a computed one is written first");
}

#[test]
fn an_expression_that_is_too_large_is_cut() {
    let x = leaf(&[10]);
    let mut y = x.clone();
    for _ in 0..60 {
        y = exp(&y);
    }
    let graph = graph(&[&y]);
    let limits = Limits { instructions: 32, ..limits() };
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let cut = facts.steps.iter().filter(|step| step.why == Some(Why::Large)).count();
    // Each piece takes at most half of a kernel's instructions: 60 are divided into pieces of at most 16, and
    // a load of another piece's result is one of them.
    assert!((3..=5).contains(&cut), "cut at {cut} places");
}

#[test]
fn other_reasons_are_noted() {
    let x = leaf(&[3, 4]);
    let kept = Array(tests::pending(Op::Store, &[&exp(&x).0], &[3, 4], DType::F32));
    let root = exp(&kept);
    drop(kept);
    let (graph_of, limits) = (graph(&[&root]), limits());
    let facts = Facts::new(&graph_of, true, &limits).unwrap();
    assert_eq!(
        stored(&facts).iter().map(|stored| stored.1).collect::<Vec<_>>(),
        [Some(Why::Always), Some(Why::Result)]
    );

    let (x, y) = (leaf(&[3, 4]), exp(&exp(&leaf(&[0, 4]))));
    let root = exp(&exp(&x));
    let graph = graph(&[&root, &y]);
    let facts = Facts::new(&graph, false, &limits).unwrap();
    let why: Vec<Option<Why>> = facts.steps.iter().map(|step| step.why).collect();
    assert_eq!(why.iter().filter(|why| **why == Some(Why::Unfused)).count(), 2, "{why:?}");
    assert_eq!(why.iter().filter(|why| **why == Some(Why::Result)).count(), 2, "{why:?}");
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let empty = facts.steps.iter().filter(|step| step.why == Some(Why::Empty)).count();
    assert_eq!(empty, 1, "what has no elements takes no kernel");
}

#[test]
fn views_of_memory_are_strides_and_views_of_work_are_not() {
    let x = strided(&[4, 6], &[6, 1]);
    let work = exp(&x);
    let turned = work.permute(&[1, 0]).unwrap();
    let root = sum(&turned, &[0, 1]);
    let stored_root = exp(&turned.reshape(&[3, 8]).unwrap());
    let (graph, limits) = (graph(&[&root, &stored_root]), limits());
    let mut facts = Facts::new(&graph, true, &limits).unwrap();
    let (work, turned) = (step(&facts, &work), step(&facts, &turned));
    assert_eq!(facts.strided(Ref::Node(turned)), None);
    facts.store(work, Why::Operand);
    let (slot, layout) = facts.strided(Ref::Node(turned)).unwrap();
    assert_eq!(slot, Slot::Step(work));
    assert_eq!((layout.shape(), layout.strides()), (&[6, 4][..], &[1, 6][..]));
}

#[test]
fn a_reduction_can_fold_some_of_its_dims_first() {
    let x = leaf(&[4, 6]);
    let total = sum(&exp(&x), &[0, 1]);
    let (graph, limits) = (graph(&[&total]), limits());
    let mut facts = Facts::new(&graph, true, &limits).unwrap();
    let at = step(&facts, &total);
    facts.fold_first(at, &[1]);
    let added = facts.steps.len() - 1;
    assert_eq!(facts.steps[added].shape, dims(&[4, 1]));
    assert_eq!(facts.steps[at as usize].inputs[..], [Ref::Node(added as u32)]);
    assert!(matches!(&facts.steps[at as usize].op, Op::Reduce { dims, .. } if dims[..] == [0]));
    let order = facts.order();
    let place = |step: u32| order.iter().position(|&other| other == step).unwrap();
    assert!(place(added as u32) < place(at), "what was added comes first");
}
