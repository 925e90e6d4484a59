use wgrad_device::kernel::Instr;

use super::super::facts::Facts;
use super::super::lower::{BodyWriter, LowerError};
use super::super::map::Space;
use super::*;
use crate::graph::Ref;

/// The body that computes a result over a space of its own shape.
fn written(root: &Array) -> Result<BodyWriter, LowerError> {
    let (graph, limits) = (graph(&[root]), limits());
    written_in(&Facts::new(&graph, true, &limits).unwrap(), root)
}

fn written_in(facts: &Facts<'_>, root: &Array) -> Result<BodyWriter, LowerError> {
    let mut body = BodyWriter::new(Space::new(root.shape()));
    let map = identity(&body.space);
    body.compute(facts, step(facts, root), &map)?;
    Ok(body)
}

#[test]
fn a_value_is_computed_once() {
    let x = leaf(&[4, 6]);
    let e = exp(&x);
    let root = mul(&e, &e).binary(BinaryOp::Add, &e).unwrap();
    let body = written(&root).unwrap();
    let ops: Vec<&str> = body
        .instructions
        .iter()
        .map(|instr| match instr {
            Instr::Load { .. } => "load",
            Instr::Unary { .. } => "unary",
            Instr::Binary { .. } => "binary",
            _ => "other",
        })
        .collect();
    assert_eq!(ops, ["load", "unary", "binary", "binary"]);
}

#[test]
fn views_become_strides() {
    let x = leaf(&[2, 3]);
    let e = exp(&x);
    let turned = exp(&e.permute(&[1, 0]).unwrap());
    let body = written(&turned).unwrap();
    assert_eq!(body.accesses.len(), 1);
    assert_eq!(body.accesses[0].strides[..], [1, 3]);

    let flipped = exp(&exp(&x).flip(&[1]).unwrap());
    let body = written(&flipped).unwrap();
    assert_eq!((&body.accesses[0].strides[..], body.accesses[0].offset), (&[3, -1][..], 2));

    // An expanded dim repeats one element, so its stride is 0.
    let spread = exp(&exp(&leaf(&[2, 1])).expand(&[2, 5]).unwrap());
    assert_eq!(written(&spread).unwrap().accesses[0].strides[..], [1, 0]);
}

#[test]
fn margins_guard_loads_and_select_computed_values() {
    let x = leaf(&[3]);
    let body = written(&exp(&x.pad(&[(1, 2)]).unwrap())).unwrap();
    assert_eq!((body.accesses[0].guards.len(), body.accesses[0].offset), (1, -1));
    assert_eq!((body.ranges[0].offset, body.ranges[0].size), (-1, 3));
    assert!(!body.instructions.iter().any(|instr| matches!(instr, Instr::Select { .. })));

    // The padding must be 0, while the exponential of a guarded load would be 1.
    let body = written(&exp(&exp(&x).pad(&[(1, 2)]).unwrap())).unwrap();
    assert_eq!(body.instructions.iter().filter(|instr| matches!(instr, Instr::InRange { .. })).count(), 1);
    assert_eq!(body.instructions.iter().filter(|instr| matches!(instr, Instr::Select { .. })).count(), 1);
}

#[test]
fn a_reshape_splits_a_dim_or_asks_for_memory() {
    // The leaf stays alive, so its exponential is not stored to free memory.
    let x = strided(&[2, 3], &[1, 2]);
    let work = exp(&x);
    let flat = exp(&work.reshape(&[6]).unwrap());
    assert_eq!(written(&flat).err(), Some(LowerError::Split(0, 3)));

    let crossed = exp(&work.reshape(&[3, 2]).unwrap());
    let (graph, limits) = (graph(&[&crossed]), limits());
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let needed = Ref::Node(step(&facts, &work));
    assert_eq!(written_in(&facts, &crossed).err(), Some(LowerError::Store(needed)));
}

#[test]
fn what_a_kernel_computes_itself_is_not_there_at_other_indices() {
    let x = leaf(&[3, 3]);
    let work = exp(&x);
    let root = mul(&work, &work.permute(&[1, 0]).unwrap());
    let (graph, limits) = (graph(&[&root]), limits());
    let facts = Facts::new(&graph, true, &limits).unwrap();
    let (work, root) = (step(&facts, &work), step(&facts, &root));
    let mut body = BodyWriter::new(Space::new(&[3, 3]));
    let map = identity(&body.space);
    let value = body.compute(&facts, work, &map).unwrap();
    body.members.push(work);
    body.define(work, map.clone(), value);
    assert_eq!(body.compute(&facts, root, &map), Err(LowerError::Conflict));
    assert_eq!(body.value(&facts, Ref::Node(work), map), Ok(value));
}
