//! Folding lanes into accumulators: rows whose elements lie side by side, and columns, whose rows do.
//!
//! An accumulator is a value of [`Fold::accumulator`] bytes, and for positions an i64 beside it. Sums of f32 accumulate
//! in f64 across blocks, and in f32 only over the few elements of a lane within a block. The order of all additions
//! depends on sizes alone. Loops are written out: the standard library's folds aren't always inlined, and then lose the
//! vector width that they are called at.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use super::unary::map;
use super::{Args, Body, Full, Lean, Level, Plain, Raw, Versions, input, output};
use crate::kernel::{ReduceOp, Ty};

/// The loops of one reduction over one type.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// Bytes of an accumulated value.
    pub accumulator: usize,
    /// Whether there are positions beside the values.
    pub position: bool,
    /// The bits of the value that a fold starts from.
    pub identity: u64,
    /// `dst[r]` folds the n elements of `a`'s row r, whose first is at position `start`; positions are in `c`.
    pub rows: Raw,
    /// `dst[i]` folds the elements `a[r * n + i]` of all rows r, at position `start + r`; positions are in `c`.
    pub columns: Raw,
    /// As `columns`, of the products of `a`'s elements and `b`'s; for sums of f32.
    pub products: Option<Raw>,
    /// `dst[i]` folds the n accumulators `a`, that belong to later elements; positions are in `c` and `b`.
    pub merge: Raw,
    /// From an accumulated value to the result; `None` if it is the result, or if its position is.
    pub finish: Option<Raw>,
}

trait Folding {
    type In: Copy;
    type Acc: Copy;
    const IDENTITY: Self::Acc;
    fn step(acc: Self::Acc, x: Self::In) -> Self::Acc;
    fn merge(a: Self::Acc, b: Self::Acc) -> Self::Acc;
    fn slice(a: &[Self::In]) -> Self::Acc;
}

struct Values<F>(PhantomData<F>);

impl<F: Folding> Body for Values<F> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold rows accumulators, and n lanes for each.
        let (dst, a) =
            unsafe { (output::<F::Acc>(args.dst, args.rows), input::<F::In>(args.a, args.rows * args.n)) };
        if args.n < 16 {
            for (acc, row) in dst.iter_mut().zip(a.chunks_exact(args.n.max(1))) {
                let mut sum = *acc;
                for &x in row {
                    sum = F::step(sum, x);
                }
                *acc = sum;
            }
        } else {
            for (acc, row) in dst.iter_mut().zip(a.chunks_exact(args.n)) {
                *acc = F::merge(*acc, F::slice(row));
            }
        }
    }
}

struct Columns<F>(PhantomData<F>);

impl<F: Folding> Body for Columns<F> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold n accumulators, and rows of n lanes.
        let (dst, a) =
            unsafe { (output::<F::Acc>(args.dst, args.n), input::<F::In>(args.a, args.rows * args.n)) };
        for row in a.chunks_exact(args.n.max(1)) {
            for (acc, &x) in dst.iter_mut().zip(row) {
                *acc = F::step(*acc, x);
            }
        }
    }
}

struct Merged<F>(PhantomData<F>);

impl<F: Folding> Body for Merged<F> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold n accumulators each.
        let (dst, a) = unsafe { (output::<F::Acc>(args.dst, args.n), input::<F::Acc>(args.a, args.n)) };
        for (acc, &x) in dst.iter_mut().zip(a) {
            *acc = F::merge(*acc, x);
        }
    }
}

/// Folds the eight eighths of an array lane by lane.
#[inline(always)]
fn eighths<T: Copy, const N: usize, const M: usize>(a: &[T; N], step: impl Fn(T, T) -> T + Copy) -> [T; M] {
    let mut out = [a[0]; M];
    for i in 0..M {
        let pair = |k: usize| step(a[i + k * M], a[i + (k + 1) * M]);
        out[i] = step(step(pair(0), pair(2)), step(pair(4), pair(6)));
    }
    out
}

/// Folds a slice in a tree.
///
/// Written in loops over arrays of fixed sizes without anything carried from one round to the next: accumulators that
/// are carried in arrays end up in memory, which takes twice as long.
#[inline(always)]
fn tree<T: Copy>(a: &[T], identity: T, step: impl Fn(T, T) -> T + Copy) -> T {
    let mut lanes = [identity; 16];
    let (parts, rest) = a.as_chunks::<1024>();
    for part in parts {
        // Memory is read in order.
        let mut eight = [identity; 128];
        for (eighth, part) in eight.as_chunks_mut::<16>().0.iter_mut().zip(part.as_chunks::<128>().0) {
            *eighth = eighths(part, step);
        }
        let part: [T; 16] = eighths(&eight, step);
        for i in 0..16 {
            lanes[i] = step(lanes[i], part[i]);
        }
    }
    let (parts, rest) = rest.as_chunks::<128>();
    for part in parts {
        let part: [T; 16] = eighths(part, step);
        for i in 0..16 {
            lanes[i] = step(lanes[i], part[i]);
        }
    }
    let (parts, rest) = rest.as_chunks::<16>();
    for part in parts {
        for i in 0..16 {
            lanes[i] = step(lanes[i], part[i]);
        }
    }
    let mut last = [identity; 4];
    for i in 0..4 {
        last[i] = step(step(lanes[i], lanes[i + 4]), step(lanes[i + 8], lanes[i + 12]));
    }
    let mut sum = step(step(last[0], last[1]), step(last[2], last[3]));
    for &x in rest {
        sum = step(sum, x);
    }
    sum
}

/// A fold whose accumulator is of the elements' type.
macro_rules! same {
    ($versions:ident, $ty:ty, $identity:expr, |$a:ident, $b:ident| $step:expr) => {{
        struct F;
        impl Folding for F {
            type In = $ty;
            type Acc = $ty;
            const IDENTITY: $ty = $identity;
            #[inline(always)]
            fn step($a: $ty, $b: $ty) -> $ty {
                $step
            }
            #[inline(always)]
            fn merge(a: $ty, b: $ty) -> $ty {
                Self::step(a, b)
            }
            #[inline(always)]
            fn slice(a: &[$ty]) -> $ty {
                tree(a, Self::IDENTITY, Self::step)
            }
        }
        values::<F, $versions>(None, |identity| u64_of(identity.to_ne_bytes()))
    }};
}

/// The sum of f32 in f64.
struct Sum32;
impl Folding for Sum32 {
    type In = f32;
    type Acc = f64;
    const IDENTITY: f64 = 0.0;
    #[inline(always)]
    fn step(acc: f64, x: f32) -> f64 {
        acc + f64::from(x)
    }
    #[inline(always)]
    fn merge(a: f64, b: f64) -> f64 {
        a + b
    }
    #[inline(always)]
    fn slice(a: &[f32]) -> f64 {
        let mut sum = 0.0;
        for part in a.chunks(1024) {
            sum += f64::from(tree(part, 0.0, |a, b| a + b));
        }
        sum
    }
}

/// Sums of products over columns.
struct ProductColumns;

impl Body for ProductColumns {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        let lanes = args.rows * args.n;
        // SAFETY: the caller's arguments hold n accumulators, and rows of n lanes of each factor.
        let (dst, a, b) = unsafe {
            (output::<f64>(args.dst, args.n), input::<f32>(args.a, lanes), input::<f32>(args.b, lanes))
        };
        let n = args.n.max(1);
        for (a, b) in a.chunks_exact(n).zip(b.chunks_exact(n)) {
            for ((acc, &a), &b) in dst.iter_mut().zip(a).zip(b) {
                *acc += f64::from(a * b);
            }
        }
    }
}

/// The bits of a value, first byte first, as the interpreter copies them.
fn u64_of<const N: usize>(bytes: [u8; N]) -> u64 {
    let mut all = [0; 8];
    all[..N].copy_from_slice(&bytes);
    u64::from_ne_bytes(all)
}

fn values<F: Folding, V: Versions>(finish: Option<Raw>, bits: impl Fn(F::Acc) -> u64) -> Fold {
    Fold {
        accumulator: size_of::<F::Acc>(),
        position: false,
        identity: bits(F::IDENTITY),
        rows: V::pick::<Values<F>>(),
        columns: V::pick::<Columns<F>>(),
        products: None,
        merge: Plain::pick::<Merged<F>>(),
        finish,
    }
}

/// Finding the first best value.
trait Best {
    type In: Copy + PartialEq;
    const WORST: Self::In;
    /// Whether `a` is better than `b`; equals aren't.
    fn beats(a: Self::In, b: Self::In) -> bool;
}

struct BestRows<B>(PhantomData<B>);

impl<B: Best> Body for BestRows<B> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold rows accumulators and positions, and n lanes for each.
        let (dst, positions, a) = unsafe {
            (
                output::<B::In>(args.dst, args.rows),
                output::<i64>(args.c.cast_mut(), args.rows),
                input::<B::In>(args.a, args.rows * args.n),
            )
        };
        let rows = a.chunks_exact(args.n.max(1));
        for ((acc, position), row) in dst.iter_mut().zip(positions).zip(rows) {
            let best = tree(row, B::WORST, |a, b| if B::beats(b, a) { b } else { a });
            if B::beats(best, *acc) {
                // NaN, which differs from itself, is found by not being beaten.
                let first = row.iter().position(|&x| x == best || !B::beats(best, x));
                *acc = best;
                *position = (args.start + first.unwrap_or(0)) as i64;
            }
        }
    }
}

struct BestColumns<B>(PhantomData<B>);

impl<B: Best> Body for BestColumns<B> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold n accumulators and positions, and rows of n lanes.
        let (dst, positions, a) = unsafe {
            (
                output::<B::In>(args.dst, args.n),
                output::<i64>(args.c.cast_mut(), args.n),
                input::<B::In>(args.a, args.rows * args.n),
            )
        };
        for (row, a) in a.chunks_exact(args.n.max(1)).enumerate() {
            let here = (args.start + row) as i64;
            for ((acc, position), &x) in dst.iter_mut().zip(positions.iter_mut()).zip(a) {
                let better = B::beats(x, *acc);
                *acc = if better { x } else { *acc };
                *position = if better { here } else { *position };
            }
        }
    }
}

struct BestMerged<B>(PhantomData<B>);

impl<B: Best> Body for BestMerged<B> {
    #[inline(always)]
    unsafe fn run<L: Level>(args: &Args) {
        // SAFETY: the caller's arguments hold n accumulators and positions each.
        let (dst, positions, a, others) = unsafe {
            (
                output::<B::In>(args.dst, args.n),
                output::<i64>(args.c.cast_mut(), args.n),
                input::<B::In>(args.a, args.n),
                input::<i64>(args.b, args.n),
            )
        };
        for (((acc, position), &x), &other) in dst.iter_mut().zip(positions).zip(a).zip(others) {
            if B::beats(x, *acc) {
                *acc = x;
                *position = other;
            }
        }
    }
}

macro_rules! best {
    ($versions:ident, $ty:ty, $worst:expr, |$a:ident, $b:ident| $beats:expr) => {{
        struct F;
        impl Best for F {
            type In = $ty;
            const WORST: $ty = $worst;
            #[inline(always)]
            fn beats($a: $ty, $b: $ty) -> bool {
                $beats
            }
        }
        Fold {
            accumulator: size_of::<$ty>(),
            position: true,
            identity: u64_of(F::WORST.to_ne_bytes()),
            rows: $versions::pick::<BestRows<F>>(),
            columns: $versions::pick::<BestColumns<F>>(),
            products: None,
            merge: Plain::pick::<BestMerged<F>>(),
            finish: None,
        }
    }};
}

macro_rules! integer {
    ($versions:ident, $op:expr, $ty:ident) => {
        match $op {
            ReduceOp::Sum => same!($versions, $ty, 0, |a, b| a.wrapping_add(b)),
            ReduceOp::Prod => same!($versions, $ty, 1, |a, b| a.wrapping_mul(b)),
            ReduceOp::Max => same!($versions, $ty, $ty::MIN, |a, b| a.max(b)),
            ReduceOp::Min => same!($versions, $ty, $ty::MAX, |a, b| a.min(b)),
            ReduceOp::ArgMax => best!($versions, $ty, $ty::MIN, |a, b| a > b),
            ReduceOp::ArgMin => best!($versions, $ty, $ty::MAX, |a, b| a < b),
        }
    };
}

macro_rules! float {
    ($versions:ident, $op:expr, $ty:ident, $sum:expr) => {
        match $op {
            ReduceOp::Sum => $sum,
            ReduceOp::Prod => same!($versions, $ty, 1.0, |a, b| a * b),
            ReduceOp::Max => {
                same!($versions, $ty, $ty::NEG_INFINITY, |a, b| if (a > b) | a.is_nan() { a } else { b })
            }
            ReduceOp::Min => {
                same!($versions, $ty, $ty::INFINITY, |a, b| if (a < b) | a.is_nan() { a } else { b })
            }
            ReduceOp::ArgMax => {
                best!($versions, $ty, $ty::NEG_INFINITY, |a, b| (a > b) | (a.is_nan() & !b.is_nan()))
            }
            ReduceOp::ArgMin => {
                best!($versions, $ty, $ty::INFINITY, |a, b| (a < b) | (a.is_nan() & !b.is_nan()))
            }
        }
    };
}

/// The loops of a reduction over values of this type.
pub fn fold(op: ReduceOp, ty: Ty) -> Fold {
    match ty {
        Ty::F32 => float!(Full, op, f32, {
            let finish = map!(Lean, f64 => f32, |x| x as f32);
            let products = Some(Full::pick::<ProductColumns>());
            Fold {
                products,
                ..values::<Sum32, Full>(Some(finish), |identity| u64_of(identity.to_ne_bytes()))
            }
        }),
        Ty::F64 => float!(Lean, op, f64, same!(Lean, f64, 0.0, |a, b| a + b)),
        Ty::I32 => integer!(Lean, op, i32),
        Ty::I64 => integer!(Lean, op, i64),
        Ty::U32 => integer!(Plain, op, u32),
        Ty::Bool => match op {
            ReduceOp::Max | ReduceOp::Sum => same!(Plain, u8, 0, |a, b| a | b),
            ReduceOp::Min | ReduceOp::Prod => same!(Plain, u8, 1, |a, b| a & b),
            ReduceOp::ArgMax => best!(Plain, u8, 0, |a, b| a > b),
            ReduceOp::ArgMin => best!(Plain, u8, 1, |a, b| a < b),
        },
    }
}
