//! A graph's key says everything that a plan depends on, and nothing else: whatever is changed in an
//! operation or a layout, the key is another one; numbers and addresses are not in it.

use std::collections::HashMap;

use smallvec::{SmallVec, smallvec};
use wgrad_device::kernel::{BinaryOp, ReduceOp, ScatterOp, UnaryOp};
use wgrad_device::{DType, Device, Layout, Scalar};

use super::{buffer, graph, leaf, leaf_in, pending};
use crate::Array;
use crate::node::NodeRef;
use crate::op::{Axis, Op, Operands, RandomKind, View};

/// Lists all values of an enum. A new value fails to compile until it is listed.
macro_rules! all {
    ($name:ident: $($value:ident)*) => {{
        let _listed = |value: $name| match value { $($name::$value => {})* };
        [$($name::$value),*]
    }};
}

fn unary_ops() -> impl Iterator<Item = UnaryOp> {
    UnaryOp::ALL.iter().copied()
}

fn binary_ops() -> impl Iterator<Item = BinaryOp> {
    BinaryOp::ALL.iter().copied()
}

fn reduce_ops() -> impl Iterator<Item = ReduceOp> {
    ReduceOp::ALL.iter().copied()
}

fn scatter_ops() -> impl Iterator<Item = ScatterOp> {
    all!(ScatterOp: Assign Add Mul Max Min).into_iter()
}

fn random_kinds() -> impl Iterator<Item = RandomKind> {
    all!(RandomKind: Bits Uniform Normal).into_iter()
}

fn dtypes() -> impl Iterator<Item = DType> {
    all!(DType: Bool U8 I32 I64 F16 BF16 F32 F64).into_iter()
}

/// An operation with one field changed, for each field and several changes.
#[derive(Default)]
struct Changed {
    /// Changes of fields on which a plan depends.
    structure: Vec<Op>,
    /// Changes of scalars, which are parameters of kernels.
    numbers: Vec<Op>,
}

/// Names that differ in length, in their first and last letters, and across the words that they are packed
/// into.
const NAMES: [&str; 6] =
    ["", "gather", "gathes", "hather", "gather_of_more_letters", "gather_of_more_letterS"];

/// The number of kinds of operations; see [`kind`].
const KINDS: usize = 19;

/// The number of an operation's kind. A new one fails to compile until it is numbered, and fails the test
/// until an operation of its kind is among [`operations`].
fn kind(op: &Op) -> usize {
    match op {
        Op::Full(_) => 0,
        Op::Coordinate { .. } => 1,
        Op::Random { .. } => 2,
        Op::Copy => 3,
        Op::Store => 4,
        Op::Unary(_) => 5,
        Op::Binary(..) => 6,
        Op::Select(..) => 7,
        Op::Cast => 8,
        Op::Reduce { .. } => 9,
        Op::View(View::Affine(_)) => 10,
        Op::View(View::Reshape) => 11,
        Op::View(View::Pad { .. }) => 12,
        Op::Matmul => 13,
        Op::Gather { .. } => 14,
        Op::Scatter { .. } => 15,
        Op::Scan { .. } => 16,
        Op::Sort { .. } => 17,
        Op::Update { .. } => 18,
    }
}

fn operations() -> Vec<Op> {
    let axes = Box::new([
        Axis { offset: 1, terms: smallvec![(0, 2), (1, -1)] },
        Axis { offset: 0, terms: smallvec![(1, 1)] },
    ]);
    vec![
        Op::Full(Scalar::Float(1.5)),
        Op::Coordinate { dim: 0 },
        Op::Random { kind: RandomKind::Bits, seed: 7, stream: 9 },
        Op::Copy,
        Op::Store,
        Op::Unary(UnaryOp::Neg),
        Op::Binary(BinaryOp::Add, Operands::Arrays),
        Op::Binary(BinaryOp::Add, Operands::ArrayScalar(Scalar::Float(2.0))),
        Op::Binary(BinaryOp::Add, Operands::ScalarArray(Scalar::Float(2.0))),
        Op::Select(None, None),
        Op::Select(Some(Scalar::Float(1.0)), Some(Scalar::Float(0.0))),
        Op::Cast,
        Op::Reduce { op: ReduceOp::Sum, dims: smallvec![0] },
        Op::View(View::Affine(axes)),
        Op::View(View::Reshape),
        Op::View(View::Pad { before: smallvec![1, -1] }),
        Op::Matmul,
        Op::Gather { dim: 0, name: NAMES[0], checked: false },
        Op::Scatter { op: ScatterOp::Assign, dim: 0, name: NAMES[0], checked: false },
        Op::Scan { op: ReduceOp::Sum, dim: 0 },
        Op::Sort { dim: 0, descending: false, first: 0 },
        Op::Update { start: 4, beyond: 1 },
    ]
}

/// The changes of an operation. Every field is named in a pattern, so that a new field fails to compile until
/// it is changed here.
fn changed(op: &Op) -> Changed {
    let mut changed = Changed::default();
    let structure = &mut changed.structure;
    let numbers = &mut changed.numbers;
    match op {
        Op::Full(value) => numbers.extend(other_numbers(*value).map(Op::Full)),
        Op::Coordinate { dim } => structure.extend(other_dims(*dim).map(|dim| Op::Coordinate { dim })),
        Op::Random { kind, seed, stream } => {
            let (seed, stream) = (*seed, *stream);
            structure.extend(random_kinds().map(|kind| Op::Random { kind, seed, stream }));
            for bit in [0, 31, 32, 63] {
                numbers.push(Op::Random { kind: *kind, seed: seed ^ 1 << bit, stream });
                numbers.push(Op::Random { kind: *kind, seed, stream: stream ^ 1 << bit });
            }
        }
        Op::Copy | Op::Store | Op::Cast | Op::Matmul => {}
        Op::Unary(_) => structure.extend(unary_ops().map(Op::Unary)),
        Op::Binary(op, operands) => {
            structure.extend(binary_ops().map(|op| Op::Binary(op, *operands)));
            let forms = |value| match operands {
                Operands::Arrays => None,
                Operands::ArrayScalar(_) => Some(Operands::ArrayScalar(value)),
                Operands::ScalarArray(_) => Some(Operands::ScalarArray(value)),
            };
            let others = other_numbers(Scalar::Float(2.0)).filter_map(forms);
            numbers.extend(others.map(|operands| Op::Binary(*op, operands)));
        }
        Op::Select(a, b) => {
            let number = Some(Scalar::Float(3.0));
            structure.extend([Op::Select(number, None), Op::Select(None, number)]);
            if let (Some(_), Some(_)) = (a, b) {
                numbers.extend([Op::Select(number, *b), Op::Select(*a, number)]);
            }
        }
        Op::Reduce { op, dims } => {
            structure.extend(reduce_ops().map(|op| Op::Reduce { op, dims: dims.clone() }));
            let others: [SmallVec<[usize; 4]>; 4] =
                [smallvec![], smallvec![1], smallvec![0, 1], smallvec![1, 0]];
            structure.extend(others.map(|dims| Op::Reduce { op: *op, dims }));
        }
        Op::View(View::Affine(axes)) => structure.extend(other_axes(axes)),
        Op::View(View::Reshape) => {}
        Op::View(View::Pad { before }) => structure.extend(other_paddings(before)),
        Op::Gather { dim, name, checked } => {
            let (dim, name, checked) = (*dim, *name, *checked);
            structure.extend(other_dims(dim).map(|dim| Op::Gather { dim, name, checked }));
            structure.extend(NAMES.map(|name| Op::Gather { dim, name, checked }));
            structure.push(Op::Gather { dim, name, checked: !checked });
        }
        Op::Scatter { op, dim, name, checked } => {
            let (op, dim, name, checked) = (*op, *dim, *name, *checked);
            structure.extend(scatter_ops().map(|op| Op::Scatter { op, dim, name, checked }));
            structure.extend(other_dims(dim).map(|dim| Op::Scatter { op, dim, name, checked }));
            structure.extend(NAMES.map(|name| Op::Scatter { op, dim, name, checked }));
            structure.push(Op::Scatter { op, dim, name, checked: !checked });
        }
        Op::Scan { op, dim } => {
            structure.extend(reduce_ops().map(|op| Op::Scan { op, dim: *dim }));
            structure.extend(other_dims(*dim).map(|dim| Op::Scan { op: *op, dim }));
        }
        Op::Update { start, beyond } => {
            structure.extend([0, 2, 3].map(|beyond| Op::Update { start: *start, beyond }));
            numbers.extend([0, 8, 1 << 40].map(|start| Op::Update { start, beyond: *beyond }));
        }
        Op::Sort { dim, descending, first } => {
            let (dim, descending, first) = (*dim, *descending, *first);
            structure.extend(other_dims(dim).map(|dim| Op::Sort { dim, descending, first }));
            structure.push(Op::Sort { dim, descending: !descending, first });
            structure.extend([1, 64, 1 << 40].map(|first| Op::Sort { dim, descending, first }));
        }
    }
    changed
}

/// Other dims, up to the last one that an array may have.
fn other_dims(dim: usize) -> impl Iterator<Item = usize> {
    [0, 1, 2, 31, 32, 63].into_iter().filter(move |&other| other != dim)
}

fn other_numbers(value: Scalar) -> impl Iterator<Item = Scalar> {
    [Scalar::Float(-0.25), Scalar::Float(1e300)].into_iter().filter(move |other| *other != value)
}

fn other_paddings(before: &[isize]) -> Vec<Op> {
    let mut others: Vec<SmallVec<[isize; 4]>> = Vec::new();
    for at in 0..before.len() {
        for change in [-1, 1, 5] {
            let mut before: SmallVec<[isize; 4]> = before.into();
            before[at] += change;
            others.push(before);
        }
    }
    others.push(smallvec![before[0]]);
    others.push(smallvec![before[0], before[1], 0]);
    others.into_iter().map(|before| Op::View(View::Pad { before })).collect()
}

fn other_axes(axes: &[Axis]) -> Vec<Op> {
    let mut others = Vec::new();
    for at in 0..axes.len() {
        let Axis { offset, terms } = &axes[at];
        let mut changed = vec![
            Axis { offset: offset + 1, terms: terms.clone() },
            Axis { offset: offset - 2, terms: terms.clone() },
            Axis { offset: *offset, terms: SmallVec::new() },
        ];
        for term in 0..terms.len() {
            for (dim, step) in [(1, 0), (0, 1), (0, -3)] {
                let mut terms = terms.clone();
                terms[term] = (terms[term].0 + dim, terms[term].1 + step);
                changed.push(Axis { offset: *offset, terms });
            }
        }
        for axis in changed {
            let mut axes = axes.to_vec();
            axes[at] = axis;
            others.push(axes);
        }
    }
    others.push(axes[..1].to_vec());
    others.push(axes.iter().rev().cloned().collect());
    others.into_iter().map(|axes| Op::View(View::Affine(axes.into()))).collect()
}

/// The key of one operation on three arrays.
fn key_of(op: &Op, inputs: &[NodeRef]) -> (Vec<u64>, Vec<Scalar>) {
    let inputs: Vec<&NodeRef> = inputs.iter().collect();
    let node = pending(op.clone(), &inputs, &[2, 3], DType::F32);
    let graph = graph(&[&node]);
    (graph.key.clone(), graph.scalars.clone())
}

#[test]
fn every_field_of_every_operation_is_in_the_key_but_for_its_numbers() {
    let inputs: Vec<NodeRef> = (0..3).map(|_| leaf(&[2, 3])).collect();
    let mut met = [false; KINDS];
    let mut keys: HashMap<Vec<u64>, String> = HashMap::new();
    let mut names: Vec<String> = Vec::new();
    for base in operations() {
        met[kind(&base)] = true;
        let Changed { structure, numbers } = changed(&base);
        let (key, scalars) = key_of(&base, &inputs);
        for op in numbers {
            let (same, others) = key_of(&op, &inputs);
            assert_eq!(key, same, "{op:?} and {base:?} differ in numbers only");
            assert_ne!(scalars, others, "{op:?} has the numbers of {base:?}");
        }
        for op in structure.iter().chain([&base]) {
            // A changed operation may be equal to another one of the list.
            let text = structure_text(op);
            if names.contains(&text) {
                continue;
            }
            if let Some(other) = keys.insert(key_of(op, &inputs).0, text.clone()) {
                panic!("{text} and {other} have one key");
            }
            names.push(text);
        }
    }
    let missing: Vec<usize> = (0..KINDS).filter(|&kind| !met[kind]).collect();
    assert_eq!(missing, [0; 0], "kinds of operations that are not tried");
    assert!(names.len() > 150, "only {} operations were tried", names.len());
}

/// An operation without its numbers.
fn structure_text(op: &Op) -> String {
    let blank = Scalar::Int(0);
    let plain = match op.clone() {
        Op::Full(_) => Op::Full(blank),
        Op::Random { kind, .. } => Op::Random { kind, seed: 0, stream: 0 },
        Op::Binary(op, Operands::ArrayScalar(_)) => Op::Binary(op, Operands::ArrayScalar(blank)),
        Op::Binary(op, Operands::ScalarArray(_)) => Op::Binary(op, Operands::ScalarArray(blank)),
        Op::Select(a, b) => Op::Select(a.map(|_| blank), b.map(|_| blank)),
        other => other,
    };
    format!("{plain:?}")
}

#[test]
fn shape_dtype_and_operands_are_in_the_key() {
    let (a, b) = (leaf(&[2, 3]), leaf(&[2, 3]));
    let add = Op::Binary(BinaryOp::Add, Operands::Arrays);
    let negated = pending(Op::Unary(UnaryOp::Neg), &[&a], &[2, 3], DType::F32);
    let shapes: [&[usize]; 6] = [&[2, 3], &[3, 2], &[6], &[2, 3, 1], &[1, 2, 3], &[]];
    let operands: [&[&NodeRef]; 6] = [&[&a, &b], &[&a, &a], &[&negated, &a], &[&a, &negated], &[&a], &[]];
    let mut keys: HashMap<Vec<u64>, String> = HashMap::new();
    let mut count = 0;
    for inputs in operands {
        for shape in shapes {
            for dtype in dtypes() {
                let node = pending(add.clone(), inputs, shape, dtype);
                count += 1;
                if let Some(other) = keys.insert(graph(&[&node]).key, format!("{count}: {dtype}{shape:?}")) {
                    panic!("{dtype}{shape:?} of {} operands and {other} have one key", inputs.len());
                }
            }
        }
    }
    assert_eq!(keys.len(), 6 * 6 * dtypes().count());
}

#[test]
fn the_layout_of_what_is_read_is_in_the_key_and_the_place_where_it_begins_is_not() {
    let memory = buffer(1000);
    let key = |dtype: DType, layout: Layout| {
        let read = leaf_in(&memory, dtype, layout);
        let node = pending(Op::Unary(UnaryOp::Neg), &[&read], &[2, 3], DType::F32);
        graph(&[&node]).key
    };
    let mut layouts = vec![
        Layout::new(&[2, 3], &[1, 2], 0),
        Layout::new(&[2, 3], &[3, -1], 2),
        Layout::new(&[2, 3], &[0, 1], 0),
        Layout::new(&[2, 3], &[3, 0], 0),
        Layout::new(&[2, 3], &[4, 1], 0),
        Layout::new(&[3, 2], &[3, 1], 0),
        Layout::new(&[6], &[1], 0),
        Layout::new(&[2, 3, 1], &[3, 1, 1], 0),
    ];
    // Kernels load several elements at once, so the alignment of the first element is structure.
    layouts.extend((0..4).map(|offset| Layout::new(&[2, 3], &[3, 1], offset)));
    let mut keys: Vec<Vec<u64>> = layouts.iter().map(|layout| key(DType::F32, layout.clone())).collect();
    keys.extend(dtypes().filter(|&d| d != DType::F32).map(|dtype| key(dtype, Layout::contiguous(&[2, 3]))));
    for (i, one) in keys.iter().enumerate() {
        assert!(!keys[..i].contains(one), "layout {i} has the key of another");
    }
    for step in 1..10 {
        let later = Layout::new(&[2, 3], &[3, 1], 4 * step + 1);
        assert_eq!(key(DType::F32, later), key(DType::F32, Layout::new(&[2, 3], &[3, 1], 1)));
    }
}

#[test]
fn whether_memory_is_shared_and_what_is_held_is_in_the_key() {
    let add = Op::Binary(BinaryOp::Add, Operands::Arrays);
    let of = |a: &NodeRef, b: &NodeRef| graph(&[&pending(add.clone(), &[a, b], &[3], DType::F32)]).key;
    let (memory, other) = (buffer(6), buffer(6));
    let whole = || Layout::contiguous(&[3]);
    let at = leaf_in(&memory, DType::F32, whole());
    let (same, elsewhere) = (leaf_in(&memory, DType::F32, whole()), leaf_in(&other, DType::F32, whole()));
    assert_ne!(of(&at, &same), of(&at, &elsewhere), "one memory or two");

    let chain = |held: bool, visited: bool| {
        let x = leaf(&[3]);
        let middle = pending(Op::Unary(UnaryOp::Exp), &[&x], &[3], DType::F32);
        let root = pending(Op::Unary(UnaryOp::Neg), &[&middle], &[3], DType::F32);
        if visited {
            middle.mark_visited();
        }
        let kept = held.then(|| middle.clone());
        drop(middle);
        let key = graph(&[&root]).key;
        drop(kept);
        key
    };
    assert_eq!(chain(false, false), chain(false, false));
    assert_ne!(chain(false, false), chain(true, false), "a result that is held");
    assert_ne!(chain(true, false), chain(true, true), "a held result that an evaluation passed over");

    let leaf_held = |held: bool| {
        let x = leaf(&[3]);
        let root = pending(Op::Unary(UnaryOp::Exp), &[&x], &[3], DType::F32);
        let kept = held.then(|| x.clone());
        drop(x);
        let key = graph(&[&root]).key;
        drop(kept);
        key
    };
    assert_ne!(leaf_held(false), leaf_held(true), "memory that stays alive");

    let x = leaf(&[3]);
    let one = pending(Op::Unary(UnaryOp::Exp), &[&x], &[3], DType::F32);
    let two = pending(Op::Unary(UnaryOp::Neg), &[&one], &[3], DType::F32);
    assert_ne!(graph(&[&two]).key, graph(&[&one, &two]).key, "what is asked for");
}

/// A program with views, a reduction, a product, a gather, random numbers and a held result; with its key.
fn program(device: &Device, rate: f64) -> (Vec<Array>, Vec<u64>) {
    let data: Vec<f32> = (0..12).map(|i| i as f32 * 0.25).collect();
    let x = Array::from_slice(&data, &[3, 4], device).unwrap();
    let w = Array::from_slice(&data, &[4, 3], device).unwrap();
    let index = Array::from_slice(&[2i64, 0], &[2], device).unwrap();
    let product = x.matmul(&w).unwrap().unary(UnaryOp::Tanh).unwrap();
    let rows = product.index_select(0, &index).unwrap();
    let mean = product.reduce(ReduceOp::Sum, &[1], true).unwrap().binary_scalar(BinaryOp::Mul, rate).unwrap();
    let result = product.binary(BinaryOp::Sub, &mean).unwrap();
    let graph = graph(&[&result.0, &rows.0]);
    (vec![x, w, mean, result, rows], graph.key)
}

#[test]
fn the_same_program_has_the_same_key_wherever_and_whenever_it_is_made() {
    let device = Device::cpu();
    let (first, key) = program(&device, 0.5);
    // The first program is still alive, so the second one's nodes and buffers have other addresses.
    let (_second, again) = program(&device, 0.25);
    assert_eq!(key, again);
    let elsewhere = {
        let device = device.clone();
        std::thread::spawn(move || program(&device, 0.125).1).join().unwrap()
    };
    assert_eq!(key, elsewhere);
    drop(first);
    assert_eq!(key, program(&device, 0.5).1);
}
